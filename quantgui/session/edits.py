"""Small edits of a layer's spec, as pure functions: what a click in the inspector or a key in the table means.

Not everything goes with everything: a codebook has no range, a minifloat no zero point. What the user chose last
stands, and the rest gives way to it (`adapted`); how, is told in words of the undo step.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any, Literal

from quantgui.results import LayerInfo
from quantgui.spec.formats import CodebookFormat, FloatFormat, Format, IntFormat
from quantgui.spec.granularity import Granularity, PerChannel, PerTensor
from quantgui.spec.presets import activation_spec, usual_weight_spec, weight_spec
from quantgui.spec.quantizer import BLOCK_FORMATS, HalfQuadratic, LayerSpec, MinMax, QuantizerSpec, Trained

SpecEdit = Callable[[LayerSpec], LayerSpec]

Adaptation = Literal[
    "symmetric", "asymmetric", "min-max", "no full range", "float32 scales", "once", "per channel", "untrained"
]
"""What gave way to a choice of the user."""

FormatChoice = Format | str | None
"""A format, the name of one of `BLOCK_FORMATS`, or None for float32."""


def weight_choice(spec: QuantizerSpec | None) -> FormatChoice:
    """Return what of the choices of formats the weights have."""
    if spec is None:
        return None
    if str(spec) in BLOCK_FORMATS:
        return str(spec)
    if isinstance(spec.format, IntFormat):
        ternary = spec.format.bits == 2 and spec.format.narrow_range
        return IntFormat(spec.format.bits, narrow_range=ternary)
    return spec.format


def activation_choice(spec: QuantizerSpec | None) -> Format | None:
    """Return what of the choices of formats the activations have: of integers the bits alone matter."""
    if spec is None:
        return None
    return IntFormat(spec.format.bits, signed=False) if isinstance(spec.format, IntFormat) else spec.format


def adapted(spec: QuantizerSpec, **chosen: Any) -> tuple[QuantizerSpec, tuple[Adaptation, ...]]:
    """Return `spec` with the fields `chosen`, and what of the others had to give way to them.

    >>> spec, gave_way = adapted(QuantizerSpec(), format=CodebookFormat(4), symmetric=False)
    >>> spec.symmetric, gave_way
    (True, ('symmetric',))
    """
    values: dict[str, Any] = {each.name: getattr(spec, each.name) for each in fields(spec)} | chosen
    gave_way: list[Adaptation] = []

    def give_way(name: str, value: object, words: Adaptation) -> None:
        if values[name] != value:
            values[name] = value
            gave_way.append(words)

    fmt = values["format"]
    if _outdates_training(spec, chosen):
        give_way("range_estimator", usual_weight_spec(fmt).range_estimator, "untrained")
    if not isinstance(fmt, IntFormat):
        give_way("symmetric", True, "symmetric")
        give_way("full_range", False, "no full range")
        if isinstance(values["range_estimator"], HalfQuadratic):
            give_way("range_estimator", MinMax(), "min-max")
    elif isinstance(values["range_estimator"], HalfQuadratic) and values["symmetric"]:
        if "range_estimator" in chosen:
            give_way("symmetric", False, "asymmetric")
        else:
            give_way("range_estimator", MinMax(), "min-max")
    if isinstance(fmt, CodebookFormat):
        give_way("range_estimator", MinMax(), "min-max")
    _fit_scales(values, chosen, give_way)
    return QuantizerSpec(**values), tuple(gave_way)


def _outdates_training(spec: QuantizerSpec, chosen: dict[str, Any]) -> bool:
    """Return whether a choice leaves trained weights behind, which hold for what they were trained under alone."""
    changes = any(getattr(spec, name) != value for name, value in chosen.items())
    return isinstance(spec.range_estimator, Trained) and "range_estimator" not in chosen and changes


def _fit_scales(
    values: dict[str, Any], chosen: dict[str, Any], give_way: Callable[[str, object, Adaptation], None]
) -> None:
    fmt = values["format"]
    if isinstance(fmt, FloatFormat):
        values.update(scale_format="float32", double_quantization=False)
    elif isinstance(fmt, CodebookFormat):
        give_way("double_quantization", False, "once")
        if values["scale_format"] in ("e8m0", "e4m3"):
            give_way("scale_format", "float32", "float32 scales")
    if values["double_quantization"] and values["scale_format"] != "float32":
        if chosen.get("double_quantization"):
            give_way("scale_format", "float32", "float32 scales")
        else:
            give_way("double_quantization", False, "once")
    needs_groups = values["double_quantization"] or values["scale_format"] == "e4m3"
    if isinstance(values["granularity"], PerTensor) and needs_groups:
        if "granularity" in chosen:
            give_way("double_quantization", False, "once")
            if values["scale_format"] == "e4m3":
                give_way("scale_format", "float32", "float32 scales")
        else:
            give_way("granularity", PerChannel(), "per channel")


def with_weight_format(spec: LayerSpec, chosen: FormatChoice) -> LayerSpec:
    """Return `spec` with weights in another format; what else is known of the quantizer stays."""
    old = spec.weights
    if chosen is None:
        return replace(spec, weights=None)
    if isinstance(chosen, str):
        return replace(spec, weights=BLOCK_FORMATS[chosen])
    if not isinstance(chosen, IntFormat):
        return replace(spec, weights=usual_weight_spec(chosen))
    if old is None or not isinstance(old.format, IntFormat):
        return replace(spec, weights=replace(weight_spec(chosen.bits), format=chosen))
    # Ternary weights are two bits without the lowest level; more bits, or all of the two, get it back.
    ternary = old.format.bits == 2 and old.format.narrow_range
    narrow = chosen.narrow_range or (old.format.narrow_range and not ternary)
    fmt = replace(old.format, bits=chosen.bits, signed=old.format.signed and chosen.signed, narrow_range=narrow)
    return replace(spec, weights=adapted(old, format=fmt)[0])


def with_activation_format(spec: LayerSpec, chosen: Format | None) -> LayerSpec:
    """Return `spec` with activations in another format; None keeps them float."""
    old = spec.activations
    if chosen is None:
        return replace(spec, activations=None)
    if isinstance(chosen, IntFormat):
        if old is None or not isinstance(old.format, IntFormat):
            return replace(spec, activations=activation_spec(chosen.bits))
        return replace(spec, activations=replace(old, format=replace(old.format, bits=chosen.bits)))
    if old is None or isinstance(chosen, FloatFormat):
        return replace(spec, activations=QuantizerSpec(chosen, granularity=PerTensor()))
    return replace(spec, activations=adapted(old, format=chosen)[0])


def with_weights(spec: LayerSpec, change: Callable[[QuantizerSpec], QuantizerSpec]) -> LayerSpec:
    """Return `spec` with its weights' quantizer changed; weights that are plain floats stay as they are."""
    if spec.weights is None or isinstance(spec.weights.format, FloatFormat):
        return spec
    return replace(spec, weights=change(spec.weights))


def with_activations(spec: LayerSpec, change: Callable[[QuantizerSpec], QuantizerSpec]) -> LayerSpec:
    """Return `spec` with its activations' quantizer changed; activations that are plain floats stay as they are."""
    if spec.activations is None or isinstance(spec.activations.format, FloatFormat):
        return spec
    return replace(spec, activations=change(spec.activations))


def with_granularity(spec: QuantizerSpec, granularity: Granularity) -> QuantizerSpec:
    """Return `spec` with another granularity; one scale for the whole tensor is stored as it is."""
    return adapted(spec, granularity=granularity)[0]


def with_symmetry(spec: QuantizerSpec, *, symmetric: bool) -> QuantizerSpec:
    """Return `spec` with or without a zero point, where the format can have one; see `adapted`."""
    return adapted(spec, symmetric=symmetric)[0]


def with_narrow_range(spec: QuantizerSpec, *, narrow: bool) -> QuantizerSpec:
    """Return `spec` with or without the lowest code."""
    if not isinstance(spec.format, IntFormat):
        return spec
    return adapted(spec, format=replace(spec.format, narrow_range=narrow))[0]


def fitting(layer: LayerInfo, spec: LayerSpec) -> LayerSpec:
    """Return what of `spec` has a meaning for `layer`: layers without activations keep none."""
    return spec if layer.quantizes_activations else replace(spec, activations=None)
