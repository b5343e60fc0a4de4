"""How many bytes the network takes under a configuration: plain arithmetic, at once."""

from __future__ import annotations

from quantgui.results import LayerInfo, NetworkSummary
from quantgui.spec.config import QuantConfig
from quantgui.spec.quantizer import QuantizerSpec
from quantgui.spec.size import weight_bytes


def layer_bytes(layer: LayerInfo, spec: QuantizerSpec | None) -> int:
    """Return the bytes of a layer's weight under `spec`; read-only layers take what they take in the file."""
    if layer.read_only:
        return layer.stored_bytes
    return weight_bytes(layer.channels, layer.elements_per_channel, spec)


def network_bytes(summary: NetworkSummary, config: QuantConfig) -> int:
    """Return the bytes of all constants: packed weights, scales, zero points, and everything that stays float."""
    saved = 0
    for layer in summary.layers:
        spec = config.spec_for(layer.name).weights
        if spec is not None and not layer.read_only and layer.finite:
            saved += weight_bytes(layer.channels, layer.elements_per_channel, None) - layer_bytes(layer, spec)
    return summary.float_bytes - saved
