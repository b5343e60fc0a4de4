"""What a sweep says of each layer as it is now: one number for the layers table."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from quantgui.gui.damage import DamageScale, damage_scale
from quantgui.results import Candidate, Sensitivity
from quantgui.spec.quantizer import LayerSpec
from quantgui.spec.sweep import What


@dataclass(frozen=True, slots=True)
class LayerDamage:
    """What the network suffers from a layer.

    Attributes:
        candidate: what was measured.
        present: whether the layer is now as it was measured; else it is the middle one of the formats tried.
        share: 0 for the layer that hurts least, 1 for the one that hurts most.
    """

    candidate: Candidate
    present: bool
    share: float


def is_as_tried(present: LayerSpec, tried: LayerSpec, what: What, *, has_activations: bool) -> bool:
    """Return whether a layer is what a candidate tries, as far as the sweep changes it."""
    same_weights = present.weights == tried.weights
    same_activations = not has_activations or present.activations == tried.activations
    return (same_weights or what == "activations") and (same_activations or what == "weights")


def layer_damages(
    table: Sensitivity, spec_of: Callable[[str], LayerSpec], has_activations: Callable[[str], bool]
) -> tuple[Mapping[str, LayerDamage], DamageScale | None]:
    """Return the damage of each layer that has been measured, and the scale on which they are compared."""
    rows: dict[str, list[Candidate]] = {}
    for each in table.candidates:
        rows.setdefault(each.layer, []).append(each)
    chosen: dict[str, tuple[Candidate, bool]] = {}
    for layer, row in rows.items():
        spec, what, with_activations = spec_of(layer), table.sweep.what, has_activations(layer)
        present = next(
            (each for each in row if is_as_tried(spec, each.spec, what, has_activations=with_activations)), None
        )
        found = present or row[len(row) // 2]
        if found.samples and not math.isnan(found.value):
            chosen[layer] = found, present is not None
    values = (each.value for each, _ in chosen.values())
    scale = damage_scale(values, table.metric, higher_is_better=table.higher_is_better)
    return {layer: LayerDamage(each, now, _share(scale, each, table)) for layer, (each, now) in chosen.items()}, scale


def _share(scale: DamageScale | None, candidate: Candidate, table: Sensitivity) -> float:
    if math.isfinite(candidate.value):
        return 0.0 if scale is None else scale.share(candidate.value)
    return 0.0 if (candidate.value > 0) == table.higher_is_better else 1.0
