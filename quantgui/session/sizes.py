"""How many bytes a layer takes: plain arithmetic, at once."""

from __future__ import annotations

from quantgui.results import LayerInfo
from quantgui.spec.quantizer import QuantizerSpec
from quantgui.spec.size import weight_bytes


def layer_bytes(layer: LayerInfo, spec: QuantizerSpec | None) -> int:
    """Return the bytes of a layer's weight under `spec`; read-only layers take what they take in the file."""
    if layer.read_only:
        return layer.stored_bytes
    return weight_bytes(layer.channels, layer.elements_per_channel, spec, float_bits=layer.float_bits)
