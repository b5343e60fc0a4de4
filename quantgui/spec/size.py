"""How many bytes a quantized tensor takes: plain arithmetic, exact."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from quantgui.spec.config import QuantConfig
from quantgui.spec.formats import CodebookFormat, FloatFormat, IntFormat
from quantgui.spec.granularity import group_count
from quantgui.spec.quantizer import QuantizerSpec, ScaleFormat

SCALE_BYTES: dict[ScaleFormat, int] = {"float32": 4, "float16": 2, "bfloat16": 2, "e8m0": 1, "e4m3": 1}
"""Bytes of one scale, or of one level of a codebook."""
SUPERBLOCK = 256
"""Scales quantized twice have one float32 scale of their own for so many of them."""
_FLOAT_BYTES = 4


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
    """Return the bytes of a weight of C x K elements: packed values, scales or codebooks, and zero points.

    With ``stored`` the values are counted as an exported file holds them, in the next width of which whole values fill
    a byte (3 bits stored as 4), else packed at their own width. Tables that all values of a layer share, at most 1 kB,
    belong to the graph and are not counted. Symmetric quantizers store no zero point. Without a spec a value takes
    `float_bits`: 16 or 64 where the network itself computes so.

    >>> from quantgui.spec.granularity import PerChannel
    >>> weight_bytes(16, 9, QuantizerSpec(IntFormat(4), True, PerChannel()))
    136
    """
    elements = channels * elements_per_channel
    if spec is None:
        return float_bits * elements // 8
    fmt = spec.format
    if isinstance(fmt, FloatFormat):
        return 2 * elements
    bits = fmt.storage_bits if stored else fmt.bits
    groups = group_count(channels, elements_per_channel, spec.granularity)
    has_zero_point = isinstance(fmt, IntFormat) and not (spec.symmetric and fmt.signed)
    zero_points = _packed(groups, bits) if has_zero_point else 0
    return _packed(elements, bits) + scale_bytes(groups, spec) + zero_points


def scale_bytes(groups: int, spec: QuantizerSpec) -> int:
    """Return the bytes of the scales of so many groups, or of their codebooks.

    >>> from quantgui.spec.quantizer import BLOCK_FORMATS
    >>> scale_bytes(100, BLOCK_FORMATS["mxfp4"]), scale_bytes(100, BLOCK_FORMATS["nvfp4"])
    (100, 104)
    >>> scale_bytes(1000, QuantizerSpec(IntFormat(4), double_quantization=True))
    1020
    """
    if isinstance(spec.format, FloatFormat):
        return 0
    if isinstance(spec.format, CodebookFormat):
        return groups * spec.format.size * SCALE_BYTES[spec.scale_format]
    if spec.double_quantization:
        # One byte each, a scale for each superblock, and the mean around which all of them lie.
        return groups + -(-groups // SUPERBLOCK) * _FLOAT_BYTES + _FLOAT_BYTES
    of_tensor = _FLOAT_BYTES if spec.scale_format == "e4m3" else 0
    return groups * SCALE_BYTES[spec.scale_format] + of_tensor


def _packed(count: int, bits: int) -> int:
    return -(-count * bits // 8)
