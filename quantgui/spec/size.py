"""How many bytes a quantized tensor takes: plain arithmetic, exact."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from quantgui.spec.config import QuantConfig
from quantgui.spec.formats import FloatFormat, IntFormat
from quantgui.spec.granularity import group_count
from quantgui.spec.quantizer import QuantizerSpec

SCALE_BYTES = 4
"""Scales are float32."""


class WeightTraits(Protocol):
    """What the size of a layer depends on; `results.LayerInfo` has it."""

    @property
    def name(self) -> str: ...
    @property
    def channels(self) -> int: ...
    @property
    def elements_per_channel(self) -> int: ...
    @property
    def read_only(self) -> bool: ...
    @property
    def finite(self) -> bool: ...
    @property
    def float_bits(self) -> int: ...


def network_bytes(
    float_bytes: int, layers: Iterable[WeightTraits], config: QuantConfig, *, stored: bool = False
) -> int:
    """Return the bytes of all constants under `config`: weights as `weight_bytes` counts them, all else as it is.

    `float_bytes` are those of all constants without quantization. Layers that are quantized in the file already, or
    hold values that are not finite, stay as they are whatever `config` says.
    """
    changed = ((layer, config.spec_for(layer.name).weights) for layer in layers if layer.finite and not layer.read_only)
    return float_bytes - sum(
        weight_bytes(layer.channels, layer.elements_per_channel, None, float_bits=layer.float_bits)
        - weight_bytes(layer.channels, layer.elements_per_channel, spec, stored=stored, float_bits=layer.float_bits)
        for layer, spec in changed
    )


def weight_bytes(
    channels: int,
    elements_per_channel: int,
    spec: QuantizerSpec | None,
    *,
    stored: bool = False,
    float_bits: int = 32,
) -> int:
    """Return the bytes of a weight of C x K elements: packed values, scales and zero points.

    With ``stored`` the values are counted in the next ONNX integer type (3 bits stored as 4), else packed at their
    own width. Symmetric quantizers store no zero point. Without a spec a value takes `float_bits`: 16 or 64 where the
    network itself computes so.

    >>> from quantgui.spec.granularity import PerChannel
    >>> weight_bytes(16, 9, QuantizerSpec(IntFormat(4), True, PerChannel()))
    136
    """
    elements = channels * elements_per_channel
    if spec is None:
        return float_bits * elements // 8
    match spec.format:
        case FloatFormat():
            return 2 * elements
        case IntFormat() as fmt:
            bits = fmt.storage_bits if stored else fmt.bits
            groups = group_count(channels, elements_per_channel, spec.granularity)
            has_zero_point = not spec.symmetric or not fmt.signed
            zero_points = _packed(groups, bits) if has_zero_point else 0
            return _packed(elements, bits) + groups * SCALE_BYTES + zero_points


def _packed(count: int, bits: int) -> int:
    return -(-count * bits // 8)
