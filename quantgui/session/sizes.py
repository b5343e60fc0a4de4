"""How many bytes a layer takes, and how much it computes: plain arithmetic, at once."""

from __future__ import annotations

from collections.abc import Iterable

from quantgui.results import LayerInfo
from quantgui.spec.config import QuantConfig
from quantgui.spec.quantizer import QuantizerSpec, bits_of
from quantgui.spec.size import weight_bytes


def layer_bytes(layer: LayerInfo, spec: QuantizerSpec | None) -> int:
    """Return the bytes of a layer's weight under `spec`; read-only layers take what they take in the file."""
    if layer.read_only:
        return layer.stored_bytes
    return weight_bytes(layer.channels, layer.elements_per_channel, spec, float_bits=layer.float_bits)


def bit_operations(layers: Iterable[LayerInfo], config: QuantConfig) -> float:
    """Return multiply-accumulates times bits of weights times bits of activations, over all `layers`.

    Layers that are quantized in the file already count as float, as whatever they do stays the same.
    """
    return float(sum(layer.macs * _weight_bits(layer, config) * _activation_bits(layer, config) for layer in layers))


def _weight_bits(layer: LayerInfo, config: QuantConfig) -> int:
    stays = layer.read_only or not layer.finite
    return bits_of(None if stays else config.spec_for(layer.name).weights)


def _activation_bits(layer: LayerInfo, config: QuantConfig) -> int:
    return bits_of(config.spec_for(layer.name).activations if layer.quantizes_activations else None)
