"""Named configurations: the usual recipes, as data."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from quantgui.errors import SpecError
from quantgui.spec.config import QuantConfig
from quantgui.spec.formats import FloatFormat, IntFormat
from quantgui.spec.granularity import Granularity, PerChannel, PerGroup, PerTensor
from quantgui.spec.quantizer import FLOAT, LayerSpec, LeastSquaredError, MinMax, QuantizerSpec, RangeEstimator


class LayerTraits(Protocol):
    """What a preset must know of a layer; `results.LayerInfo` has it."""

    @property
    def name(self) -> str: ...
    @property
    def keeps_float(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class Preset:
    """A named recipe: the same spec for every layer that can take it."""

    name: str
    spec: LayerSpec
    help: str


def weight_spec(
    bits: int, granularity: Granularity | None = None, range_estimator: RangeEstimator | None = None
) -> QuantizerSpec:
    """Return the usual weight quantizer: signed, symmetric, per channel; least squared error below 8 bits."""
    estimator = range_estimator or (MinMax() if bits >= 8 else LeastSquaredError())
    return QuantizerSpec(IntFormat(bits), True, granularity or PerChannel(), estimator)


def activation_spec(bits: int, range_estimator: RangeEstimator | None = None) -> QuantizerSpec:
    """Return the usual activation quantizer: unsigned, asymmetric, per tensor."""
    return QuantizerSpec(IntFormat(bits, signed=False), False, PerTensor(), range_estimator or MinMax())


def _half(name: FloatFormat) -> LayerSpec:
    return LayerSpec(QuantizerSpec(name, granularity=PerTensor()), None)


PRESETS = (
    Preset("float32", FLOAT, "Every layer stays float."),
    Preset("W8A8", LayerSpec(weight_spec(8), activation_spec(8)), "8-bit weights per channel, 8-bit activations."),
    Preset("W8", LayerSpec(weight_spec(8)), "8-bit weights per channel, float activations."),
    Preset("W6", LayerSpec(weight_spec(6)), "6-bit weights per channel, float activations."),
    Preset("W4", LayerSpec(weight_spec(4)), "4-bit weights per channel, float activations."),
    Preset("W4A8", LayerSpec(weight_spec(4), activation_spec(8)), "4-bit weights per channel, 8-bit activations."),
    Preset("W4A16-g32", LayerSpec(weight_spec(4, PerGroup(32))), "4-bit weights in groups of 32, float activations."),
    Preset(
        "W4A16-g128", LayerSpec(weight_spec(4, PerGroup(128))), "4-bit weights in groups of 128, float activations."
    ),
    Preset("W3-g32", LayerSpec(weight_spec(3, PerGroup(32))), "3-bit weights in groups of 32, float activations."),
    Preset("W2-g32", LayerSpec(weight_spec(2, PerGroup(32))), "2-bit weights in groups of 32, float activations."),
    Preset("W16A16", LayerSpec(weight_spec(16), activation_spec(16)), "16-bit integers for weights and activations."),
    Preset("float16", _half(FloatFormat("float16")), "Weights as float16, activations float."),
    Preset("bfloat16", _half(FloatFormat("bfloat16")), "Weights as bfloat16, activations float."),
)


def find_preset(name: str) -> Preset:
    """Return the preset called `name`, in any case.

    Raises:
        SpecError: there is none.
    """
    for preset in PRESETS:
        if preset.name.lower() == name.lower():
            return preset
    raise SpecError(f"There is no preset '{name}'; choose one of {', '.join(p.name for p in PRESETS)}.")


def preset_config(preset: Preset, layers: Iterable[LayerTraits]) -> QuantConfig:
    """Return the configuration of `preset`; layers that must stay float (`keeps_float`) are left out of it."""
    kept = {layer.name: FLOAT for layer in layers if layer.keeps_float}
    return QuantConfig(preset.spec, name=preset.name).with_overrides(kept)
