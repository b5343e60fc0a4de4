"""Node data for Model Explorer: a value for each node, drawn as a colour over the graph."""

from __future__ import annotations

import json
import math
from typing import Any

from quantgui.export.dialects.material import Material, Written
from quantgui.spec.quantizer import bits_of

# From few bits to many, safe for colour-blind people.
_GRADIENT = ({"stop": 0, "bgColor": "#b35806"}, {"stop": 0.5, "bgColor": "#f1f1f1"}, {"stop": 1, "bgColor": "#2166ac"})


def write(material: Material) -> Written:
    """Return the bits of each layer's weight, and with a sweep its sensitivity, by the name of its nodes."""
    graphs: dict[str, Any] = {f"{material.summary.name}: bits of weights": _bits(material)}
    table = material.sensitivity
    if table is not None:
        column = list(table.orders)[len(table.orders) // 2]
        values = {each.layer: each.value for each in table.candidates if each.format == column}
        results = {
            user: {"value": values[layer.name]}
            for layer in material.summary.layers
            if math.isfinite(values.get(layer.name, math.nan))
            for user in layer.users
        }
        graphs[f"{material.summary.name}: {table.metric} with {column}"] = {"results": results, "gradient": _GRADIENT}
    return Written(json.dumps(graphs, indent=1) + "\n")


def _bits(material: Material) -> dict[str, Any]:
    results = {
        user: {"value": bits_of(material.spec_of(layer).weights)}
        for layer in material.summary.layers
        for user in layer.users
    }
    return {"results": results, "gradient": _GRADIENT}
