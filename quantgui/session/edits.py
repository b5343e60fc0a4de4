"""Small edits of a layer's spec, as pure functions: what a click in the inspector or a key in the table means."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from quantgui.results import LayerInfo
from quantgui.spec.formats import Format, IntFormat
from quantgui.spec.granularity import Granularity, PerTensor
from quantgui.spec.presets import activation_spec, usual_weight_spec, weight_spec
from quantgui.spec.quantizer import FLOAT, HalfQuadratic, LayerSpec, MinMax, QuantizerSpec

SpecEdit = Callable[[LayerSpec], LayerSpec]


def with_weight_format(spec: LayerSpec, chosen: Format | None) -> LayerSpec:
    """Return `spec` with weights in another format; what else is known of the quantizer stays."""
    old = spec.weights
    if chosen is None:
        return replace(spec, weights=None)
    if not isinstance(chosen, IntFormat):
        return replace(spec, weights=usual_weight_spec(chosen))
    if old is None or not isinstance(old.format, IntFormat):
        return replace(spec, weights=weight_spec(chosen.bits))
    return replace(spec, weights=replace(old, format=replace(old.format, bits=chosen.bits)))


def with_activation_bits(spec: LayerSpec, bits: int | None) -> LayerSpec:
    """Return `spec` with activations of `bits`; None keeps them float."""
    old = spec.activations
    if bits is None:
        return replace(spec, activations=None)
    if old is None or not isinstance(old.format, IntFormat):
        return replace(spec, activations=activation_spec(bits))
    return replace(spec, activations=replace(old, format=replace(old.format, bits=bits)))


def with_weights(spec: LayerSpec, change: Callable[[QuantizerSpec], QuantizerSpec]) -> LayerSpec:
    """Return `spec` with its integer weights' quantizer changed; other layers stay as they are."""
    if spec.weights is None or not spec.weights.is_integer:
        return spec
    return replace(spec, weights=change(spec.weights))


def with_activations(spec: LayerSpec, change: Callable[[QuantizerSpec], QuantizerSpec]) -> LayerSpec:
    """Return `spec` with its integer activations' quantizer changed; other layers stay as they are."""
    if spec.activations is None or not spec.activations.is_integer:
        return spec
    return replace(spec, activations=change(spec.activations))


def with_granularity(spec: QuantizerSpec, granularity: Granularity) -> QuantizerSpec:
    """Return `spec` with another granularity; one scale for the whole tensor is stored as it is."""
    if isinstance(granularity, PerTensor) and (spec.double_quantization or spec.scale_format == "e4m3"):
        return replace(spec, granularity=granularity, scale_format="float32", double_quantization=False)
    return replace(spec, granularity=granularity)


def with_symmetry(spec: QuantizerSpec, *, symmetric: bool) -> QuantizerSpec:
    """Return `spec` with or without a zero point; ranges that move the zero point become min-max without one."""
    if symmetric and isinstance(spec.range_estimator, HalfQuadratic):
        return replace(spec, symmetric=True, range_estimator=MinMax())
    return replace(spec, symmetric=symmetric)


def with_narrow_range(spec: QuantizerSpec, *, narrow: bool) -> QuantizerSpec:
    """Return `spec` with or without the lowest code."""
    if not isinstance(spec.format, IntFormat):
        return spec
    return replace(spec, format=replace(spec.format, narrow_range=narrow))


def fitting(layer: LayerInfo, spec: LayerSpec) -> LayerSpec:
    """Return what of `spec` has a meaning for `layer`: layers without activations keep none."""
    return spec if layer.quantizes_activations else replace(spec, activations=None)


def float_spec(_: LayerSpec) -> LayerSpec:
    """Return the spec of a layer that stays float."""
    return FLOAT
