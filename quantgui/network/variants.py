"""Segments under simulations: what of a simulation matters to a segment, and which of them compute the same."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from quantgui.network.segments import Segment
from quantgui.network.simulation import Override, Simulation, TensorQuantizer
from quantgui.network.surgery import stored_type
from quantgui.results import Array
from quantgui.spec.formats import IntFormat

Quantizers = Mapping[str, tuple[TensorQuantizer, ...]]


@dataclass(frozen=True, eq=False)
class Variant:
    """One segment under one simulation: the part of the simulation that matters to it.

    `identity` names what it computes, `form` its session: variants that differ in what is exchanged share a form.
    `fed` holds the values of exchanged overrides once they are needed.
    """

    segment: Segment
    overrides: Mapping[str, Override]
    quantizers: Quantizers
    identity: int
    form: int
    fed: dict[str, Array] = field(default_factory=dict)

    @property
    def built_in(self) -> frozenset[tuple[str, Hashable]]:
        """Names and keys of the overrides that its session holds."""
        return frozenset((name, override.key) for name, override in self.overrides.items() if not override.exchanged)

    @property
    def is_exchanged(self) -> bool:
        """Whether its session serves others as well."""
        quantizers = (each for several in self.quantizers.values() for each in several)
        return any(override.exchanged for override in self.overrides.values()) or any(q.exchanged for q in quantizers)


class Variants:
    """Numbers the variants of one network's segments: equal numbers, equal computations."""

    def __init__(self, outputs: Sequence[str]) -> None:
        """Start with none; `outputs` are the network's."""
        self._outputs = outputs
        self._numbers: dict[Hashable, int] = {}

    def of(self, segment: Segment, simulation: Simulation) -> Variant:
        """Return `segment` under `simulation`."""
        overrides = {n: o for n, o in simulation.weights.items() if n in segment.initializers}
        quantizers = _relevant(segment, simulation.quantizers, self._outputs)
        variant = Variant(segment, overrides, quantizers, 0, 0)
        exchanged = frozenset((name, override.key) for name, override in overrides.items() if override.exchanged)
        names = frozenset(name for name, _ in exchanged)
        forms = frozenset((tensor, tuple(_form(each) for each in several)) for tensor, several in quantizers.items())
        identity, form = (
            self._numbers.setdefault((segment.place, variant.built_in, *rest), len(self._numbers))
            for rest in ((exchanged, frozenset(quantizers.items())), (names, forms))
        )
        return replace(variant, identity=identity, form=form)


def _form(quantizer: TensorQuantizer) -> tuple[Hashable, ...]:
    """Return what a quantizer's nodes look like: all of it, unless its parameters are fed."""
    if quantizer.exchanged and isinstance(quantizer.format, IntFormat):
        return "fed", stored_type(quantizer.format), quantizer.consumers
    return (quantizer,)


def _relevant(segment: Segment, quantizers: Quantizers, outputs: Sequence[str]) -> Quantizers:
    """Return the quantizers that change what `segment` computes."""
    relevant: dict[str, tuple[TensorQuantizer, ...]] = {}
    for tensor in segment.tensors & quantizers.keys():
        returned = tensor in outputs and tensor in segment.produced
        kept = tuple(
            quantizer
            for quantizer in quantizers[tensor]
            if (quantizer.consumers is None and (returned or tensor in segment.read))
            or (quantizer.consumers is not None and quantizer.consumers & segment.node_names)
        )
        if kept:
            relevant[tensor] = kept
    return relevant
