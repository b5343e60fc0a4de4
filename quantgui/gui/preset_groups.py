"""Presets in groups by kind, and whether a target runs them."""

from __future__ import annotations

from collections.abc import Iterable

from quantgui.gui.texts import translate
from quantgui.results import LayerInfo
from quantgui.spec.formats import CodebookFormat, FloatFormat, IntFormat, TableFormat
from quantgui.spec.presets import PRESETS, Preset
from quantgui.spec.quantizer import BLOCK_FORMATS
from quantgui.spec.targets import Target


def preset_groups() -> tuple[tuple[str, tuple[Preset, ...]], ...]:
    """Return all presets with the titles of their groups."""
    titles = (
        translate("presets", "Integers"),
        translate("presets", "Floats"),
        translate("presets", "Blocks"),
        translate("presets", "Codebooks and tables"),
    )
    kinds = {preset.name: _kind(preset) for preset in PRESETS}
    return tuple((title, tuple(x for x in PRESETS if kinds[x.name] == place)) for place, title in enumerate(titles))


def _kind(preset: Preset) -> int:
    weights = preset.spec.weights
    if weights is None or isinstance(weights.format, FloatFormat):
        return 1
    if str(weights) in BLOCK_FORMATS:
        return 2
    if isinstance(weights.format, CodebookFormat | TableFormat):
        return 3
    return 0 if isinstance(weights.format, IntFormat) else 1


def preset_refusal(target: Target, layers: Iterable[LayerInfo], preset: Preset) -> str:
    """Return why `target` runs `preset` in none of `layers`; empty where it does in one."""
    first = ""
    for op, has_activations in dict.fromkeys((layer.op, layer.quantizes_activations) for layer in layers):
        reason = target.refusal(op, preset.spec, quantizes_activations=has_activations)
        if reason is None:
            return ""
        first = first or reason
    return first
