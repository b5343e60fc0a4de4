"""How many bytes a quantized tensor takes: plain arithmetic, exact."""

from __future__ import annotations

from quantgui.spec.formats import FloatFormat, IntFormat
from quantgui.spec.granularity import group_count
from quantgui.spec.quantizer import QuantizerSpec

SCALE_BYTES = 4
"""Scales are float32."""


def weight_bytes(channels: int, elements_per_channel: int, spec: QuantizerSpec | None, *, stored: bool = False) -> int:
    """Return the bytes of a weight of C x K elements: packed values, scales and zero points.

    With ``stored`` the values are counted in the next ONNX integer type (3 bits stored as 4), else packed at their
    own width. Symmetric quantizers store no zero point.

    >>> from quantgui.spec.granularity import PerChannel
    >>> weight_bytes(16, 9, QuantizerSpec(IntFormat(4), True, PerChannel()))
    136
    """
    elements = channels * elements_per_channel
    if spec is None:
        return 4 * elements
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
