"""What a sensitivity sweep asks: which layers, changed to what, within which configuration, measured how."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal, Protocol, get_args

from quantgui.errors import SpecError
from quantgui.spec.config import QuantConfig
from quantgui.spec.granularity import PerBlock, PerGroup
from quantgui.spec.presets import activation_spec, weight_spec
from quantgui.spec.quantizer import BLOCK_FORMATS, LayerSpec, QuantizerSpec

What = Literal["weights", "activations", "both"]
WHAT: tuple[What, ...] = get_args(What)
METRICS = ("output_sqnr_db", "kl", "cosine", "agreement", "accuracy")
USER_METRIC = "user"
SMALLER_IS_BETTER = frozenset({"kl"})
SHARES = frozenset({"accuracy", "agreement"})
"""Metrics that count samples: told in percent, and too coarse to rank layers by."""
SWEPT_BITS = (2, 3, 4, 5, 6, 7, 8)


class SweptLayer(Protocol):
    """What a sweep must know of a layer; `results.LayerInfo` has it."""

    @property
    def name(self) -> str: ...
    @property
    def keeps_float(self) -> bool: ...
    @property
    def quantizes_activations(self) -> bool: ...


def bits_specs(bits: Iterable[int]) -> tuple[LayerSpec, ...]:
    """Return the usual spec of a layer for each bit-width, weights and activations."""
    return tuple(LayerSpec(weight_spec(each), activation_spec(each)) for each in dict.fromkeys(bits))


@dataclass(frozen=True, slots=True)
class Sweep:
    """One layer at a time gets each of `specs`, all others stay as `base` has them.

    With the default `base` the question is "this layer alone quantized, the rest float", with the present
    configuration it is "this layer alone changed".

    Attributes:
        specs: what each layer is tried with; `what` says which part of them counts.
        what: the other part stays as `base` has it.
        metric: one of `METRICS`, or ``user`` for the user's function. A soft one shows what adds up.
        samples: most samples per candidate, None for all the data holds.
        exact: measure all candidates on all samples; else only as many as the order of the layers needs.
        layers: names of the layers to try, empty for all that presets would quantize.
    """

    specs: tuple[LayerSpec, ...] = field(default_factory=lambda: bits_specs(SWEPT_BITS))
    what: What = "weights"
    base: QuantConfig = field(default_factory=QuantConfig)
    metric: str = "output_sqnr_db"
    samples: int | None = None
    exact: bool = False
    layers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.what not in WHAT:
            raise SpecError(f"'{self.what}' cannot be swept; choose one of {', '.join(WHAT)}.")
        if self.metric not in (*METRICS, USER_METRIC):
            raise SpecError(f"There is no metric '{self.metric}'; choose one of {', '.join(METRICS)}.")
        if not self.specs:
            raise SpecError("A sweep needs at least one format to try.")

    def swept(self, layers: Iterable[SweptLayer]) -> Iterator[str]:
        """Yield the names of those `layers` that are tried."""
        for layer in layers:
            has_part = self.what != "activations" or layer.quantizes_activations
            if (layer.name in self.layers) if self.layers else (has_part and not layer.keeps_float):
                yield layer.name

    def candidate(self, layer: str, spec: LayerSpec) -> LayerSpec:
        """Return what `layer` becomes when it is tried with `spec`."""
        base = self.base.spec_for(layer)
        return LayerSpec(
            base.weights if self.what == "activations" else spec.weights,
            base.activations if self.what == "weights" else spec.activations,
        )

    def label(self, spec: LayerSpec) -> str:
        """Return the column that `spec` stands in."""
        weights, activations = _column(spec.weights), _column(spec.activations)
        match self.what:
            case "weights":
                return weights
            case "activations":
                return activations
            case "both":
                return weights if spec.activations is None else f"{weights} / {activations}"

    def config(self, layer: str, spec: LayerSpec) -> QuantConfig:
        """Return the configuration in which `layer` is tried with `spec`."""
        return self.base.with_overrides({layer: self.candidate(layer, spec)})


def _column(spec: QuantizerSpec | None) -> str:
    """Return the name of a format; groups, blocks and stored scales have columns of their own beside channels."""
    if spec is None:
        return "float32"
    name = str(spec)
    if name in BLOCK_FORMATS:
        return name
    match spec.granularity:
        case PerGroup(group_size):
            name += f"-g{group_size}"
        case PerBlock(rows, columns):
            name += f"-b{rows}x{columns}"
        case _:
            pass
    if spec.double_quantization:
        return f"{name}-double"
    return name if spec.scale_format == "float32" else f"{name}-{spec.scale_format}"
