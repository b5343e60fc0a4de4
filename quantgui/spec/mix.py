"""What mix of formats is looked for: out of what, under which limit, with what held fast."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import Literal, get_args

from quantgui.errors import SpecError
from quantgui.spec.quantizer import LayerSpec
from quantgui.spec.sweep import METRICS, USER_METRIC, Sweep

CostKind = Literal["bytes", "bops", "latency"]
COST_KINDS: tuple[CostKind, ...] = get_args(CostKind)
HEADLINE_METRIC = "headline"
"""The metric that an evaluation shows first: the user's, else accuracy, agreement of classes, or output SQNR."""


@dataclass(frozen=True, slots=True)
class Mix:
    """The best choice of one of `sweep.specs` (or what the base has) for each layer.

    Attributes:
        sweep: what is measured to choose by; its `base` must be float, so that damages add up.
        cost: what is limited. ``bytes``: of the whole network, as `spec.size.network_bytes` counts. ``bops``:
            multiply-accumulates times bits of weights times bits of activations. ``latency``: measured time of the
            network, as a part of the float network's.
        limit: most cost allowed, in the unit of `cost`; None for the whole frontier.
        drop: most that `drop_metric` may be worse than the float network's, in its unit (accuracy and agreement are
            parts of 1); None for no such limit. For output SQNR, which is infinite for the float network, it is the
            least value allowed. Measured values decide, predicted ones only where to measure.
        pinned: layers whose spec is held fast; they are not swept over.
        groups: layers that get the same spec; None for those that feed one Add or Concat, empty for none.
        excluded: specs that a layer may not get (`targets` will say which), by layer.
        evaluated: frontier points to be really evaluated, best first.
        refined: whether to measure around the chosen point until no single or pairwise change is better.
        drop_metric: what `drop` limits: one of `METRICS`, ``user``, or ``headline``; empty for the sweep's own. A soft
            metric finds the frontier, and any one can say how far to go along it.
    """

    sweep: Sweep
    cost: CostKind = "bytes"
    limit: float | None = None
    drop: float | None = None
    pinned: Mapping[str, LayerSpec] = field(default_factory=lambda: MappingProxyType({}))
    groups: tuple[tuple[str, ...], ...] | None = ()
    excluded: Mapping[str, frozenset[LayerSpec]] = field(default_factory=lambda: MappingProxyType({}))
    evaluated: int = 8
    refined: bool = True
    drop_metric: str = ""

    def __post_init__(self) -> None:
        if self.cost not in COST_KINDS:
            raise SpecError(f"'{self.cost}' cannot be limited; choose one of {', '.join(COST_KINDS)}.")
        if self.limit is not None and not self.limit > 0:
            raise SpecError(f"The limit must be more than 0, got {self.limit}.")
        if self.limit is not None and self.drop is not None:
            raise SpecError("Limit either the cost or the loss of quality: the other one is what is sought.")
        if self.drop_metric not in ("", HEADLINE_METRIC, USER_METRIC, *METRICS):
            raise SpecError(f"There is no metric '{self.drop_metric}'; choose one of {', '.join(METRICS)}.")

    def __hash__(self) -> int:
        return hash(tuple(frozenset(each.items()) if isinstance(each, Mapping) else each for each in self._values()))

    def __reduce__(self) -> tuple[object, ...]:
        # A MappingProxyType cannot be sent to another process.
        return Mix, tuple(dict(each) if isinstance(each, Mapping) else each for each in self._values())

    def _values(self) -> tuple[object, ...]:
        return tuple(getattr(self, each.name) for each in fields(self))
