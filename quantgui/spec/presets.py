"""Named configurations: the usual recipes, as data."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Protocol

from quantgui.errors import SpecError
from quantgui.spec.config import QuantConfig
from quantgui.spec.formats import CodebookFormat, FloatFormat, Format, IntFormat, MinifloatFormat, TableFormat
from quantgui.spec.granularity import Granularity, PerChannel, PerGroup, PerTensor
from quantgui.spec.quantizer import (
    BLOCK_FORMATS,
    FLOAT,
    LayerSpec,
    LeastSquaredError,
    MinMax,
    QuantizerSpec,
    RangeEstimator,
    Trained,
)


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


def without_training(spec: QuantizerSpec) -> QuantizerSpec:
    """Return `spec` with the usual estimator of its range where trained weights were used, which hold for nothing else.

    >>> without_training(QuantizerSpec(IntFormat(2), range_estimator=Trained("0123abcd"))).range_estimator
    LeastSquaredError()
    """
    if not isinstance(spec.range_estimator, Trained):
        return spec
    return replace(spec, range_estimator=usual_weight_spec(spec.format).range_estimator)


def usual_weight_spec(fmt: Format) -> QuantizerSpec:
    """Return the usual weight quantizer of a format.

    Minifloats per channel over the whole range: their levels are dense near 0 anyhow. NF4 in groups of 64, as its
    source has it; few levels with the least squared error; codebooks and 16-bit floats per tensor.

    >>> usual_weight_spec(TableFormat("nf4")).granularity
    PerGroup(group_size=64)
    """
    match fmt:
        case IntFormat(bits):
            return replace(weight_spec(bits), format=fmt)
        case MinifloatFormat():
            return QuantizerSpec(fmt)
        case TableFormat("binary"):
            return QuantizerSpec(fmt, range_estimator=LeastSquaredError())
        case TableFormat():
            return QuantizerSpec(fmt, granularity=PerGroup(64))
        case CodebookFormat() | FloatFormat():
            return QuantizerSpec(fmt, granularity=PerTensor())


def activation_spec(bits: int, range_estimator: RangeEstimator | None = None) -> QuantizerSpec:
    """Return the usual activation quantizer: unsigned, asymmetric, per tensor."""
    return QuantizerSpec(IntFormat(bits, signed=False), False, PerTensor(), range_estimator or MinMax())


def _half(name: FloatFormat) -> LayerSpec:
    return LayerSpec(QuantizerSpec(name, granularity=PerTensor()), None)


def _block(name: str) -> LayerSpec:
    return LayerSpec(BLOCK_FORMATS[name])


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
    Preset(
        "FP8",
        LayerSpec(QuantizerSpec(MinifloatFormat(4, 3)), QuantizerSpec(MinifloatFormat(4, 3), granularity=PerTensor())),
        "Weights per channel and activations as 8-bit floats (E4M3).",
    ),
    Preset("MXFP8", _block("mxfp8_e4m3"), "8-bit float weights (E4M3) in blocks of 32 with power-of-two scales."),
    Preset("MXFP6", _block("mxfp6_e2m3"), "6-bit float weights (E2M3) in blocks of 32 with power-of-two scales."),
    Preset("MXFP4", _block("mxfp4"), "4-bit float weights in blocks of 32 with power-of-two scales."),
    Preset("MXINT8", _block("mxint8"), "8-bit weights in blocks of 32 with power-of-two scales."),
    Preset("NVFP4", _block("nvfp4"), "4-bit float weights in blocks of 16 with 8-bit float scales."),
    Preset("NF4-g64", LayerSpec(usual_weight_spec(TableFormat("nf4"))), "4-bit NormalFloat weights in groups of 64."),
    Preset(
        "NF4-g64-double",
        LayerSpec(replace(usual_weight_spec(TableFormat("nf4")), double_quantization=True)),
        "4-bit NormalFloat weights in groups of 64, their scales quantized to 8 bits (QLoRA).",
    ),
    Preset(
        "W4-codebook", LayerSpec(usual_weight_spec(CodebookFormat(4))), "16 levels per layer, fitted to its weights."
    ),
    Preset(
        "W3-codebook-channel",
        LayerSpec(QuantizerSpec(CodebookFormat(3), scale_format="float16")),
        "8 levels per channel, fitted to its weights.",
    ),
    Preset(
        "Ternary",
        LayerSpec(QuantizerSpec(IntFormat(2, narrow_range=True), range_estimator=LeastSquaredError())),
        "Weights of -1, 0 and 1 times a scale per channel.",
    ),
    Preset(
        "Binary", LayerSpec(usual_weight_spec(TableFormat("binary"))), "Weights of -1 and 1 times a scale per channel."
    ),
    Preset(
        "W8-power-of-two",
        LayerSpec(QuantizerSpec(IntFormat(8), scale_format="e8m0")),
        "8-bit weights per channel; scales are powers of two, so that a shift multiplies by them.",
    ),
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
