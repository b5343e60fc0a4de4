"""From ranges to scales as they are stored: float32, 16 bits, powers of two, 8-bit floats, quantized twice.

Values are quantized with the stored scales, so their rounding costs range or resolution but is never counted twice.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import assert_never

import numpy as np

from quantgui.numerics.minifloat import from_bfloat16, largest_power, round_to_minifloat, to_bfloat16, to_float16
from quantgui.numerics.qparams import SMALLEST_SCALE, QParams, choose_qparams, normal_scale, zero_points
from quantgui.results import Array
from quantgui.spec.formats import IntFormat, MinifloatFormat, UnevenFormat
from quantgui.spec.quantizer import QuantizerSpec, ScaleFormat
from quantgui.spec.size import SUPERBLOCK

_E4M3 = MinifloatFormat(4, 3)
_SMALLEST_E4M3 = np.float32(2.0**-9)
_SMALLEST_FLOAT16 = np.float32(2.0**-24)
_LARGEST_FLOAT16 = np.float32(65504.0)
_POWERS = (-126, 127)
"""Exponents of scales that are powers of two: those of E8M0 but -127, which float32 holds with fewer digits only."""


def choose_grid(low: Array, high: Array, spec: QuantizerSpec, fmt: IntFormat | UnevenFormat) -> QParams:
    """Return the grids that cover ``low`` ... ``high`` (each (G,), float64) and 0, with scales as `spec` stores them.

    A group of nothing but zeros fits any grid that holds 0; it gets the finest of the others, so that it does not look
    like the widest. On a grid without 0 its scale is as small as can be.
    """
    low, high = np.minimum(low, 0.0), np.maximum(high, 0.0)
    used = (low != 0) | (high != 0)
    if isinstance(fmt, IntFormat) and not spec.symmetric:
        width = (high - low) / (fmt.quant_max - fmt.quant_min)
        if spec.scale_format == "e8m0":
            scale = _filled(_power_of_two(_exponent_above(width)), used)
        else:
            scale = stored_scales(_filled(normal_scale(width), used), spec)
        return QParams(scale, zero_points(low, scale, fmt))
    limit = np.maximum(-low, high)
    if spec.scale_format == "e8m0":
        scale = _power_of_two(np.frexp(limit)[1] - 1 - largest_power(largest_level(fmt)))
    elif isinstance(fmt, IntFormat):
        scale = choose_qparams(low, high, fmt, symmetric=True, full_range=spec.full_range).scale
    else:
        scale = normal_scale(limit / fmt.largest)
    scale = _filled(scale, used, holds_zero=isinstance(fmt, IntFormat) or 0.0 in fmt.levels)
    if spec.scale_format != "e8m0":
        scale = stored_scales(scale, spec)
    return QParams(scale, np.full(scale.shape, _middle(fmt), np.int32))


def largest_level(fmt: IntFormat | UnevenFormat) -> float:
    """Return the largest level of a symmetric grid, in units of its scale."""
    return float(fmt.quant_max - _middle(fmt)) if isinstance(fmt, IntFormat) else fmt.largest


def stored_scales(scale: Array, spec: QuantizerSpec) -> Array:
    """Return scales (float32, positive, (G,)) as the scale format of `spec` holds them, never 0."""
    if spec.double_quantization:
        return DoubleScales.of(scale).values()
    return rounded_scales(scale, spec.scale_format)


def rounded_scales(scale: Array, scale_format: ScaleFormat) -> Array:
    """Return scales rounded to the nearest of a format (``e8m0``: to the next larger), never 0."""
    match scale_format:
        case "float32":
            return scale
        case "float16":
            return to_float16(np.clip(scale, _SMALLEST_FLOAT16, _LARGEST_FLOAT16)).astype(np.float32)
        case "bfloat16":
            # The largest float32 would become infinite.
            largest = from_bfloat16(np.array([0x7F7F], np.uint16))[0]
            return np.asarray(from_bfloat16(to_bfloat16(np.clip(scale, SMALLEST_SCALE, largest))), np.float32)
        case "e8m0":
            return _power_of_two(_exponent_above(scale.astype(np.float64)))
        case "e4m3":
            return BlockScales.of(scale).values()
        case _:
            assert_never(scale_format)


@dataclass(frozen=True, slots=True, eq=False)
class BlockScales:
    """Scales as 8-bit floats (E4M3) times one float32 for the tensor, as NVFP4 has them.

    Source: NVIDIA, "Pretraining large language models with NVFP4", 2025.

    Attributes:
        numbers: numbers of E4M3, float32 (G,).
        of_tensor: the float32, by which the largest scale becomes 448.
    """

    numbers: Array
    of_tensor: np.float32

    @staticmethod
    def of(scale: Array) -> BlockScales:
        """Return the nearest such scales; none becomes 0."""
        if not scale.size:
            return BlockScales(scale, np.float32(1.0))
        of_tensor = max(np.float32(scale.max() / np.float32(_E4M3.largest)), np.float32(SMALLEST_SCALE))
        return BlockScales(np.maximum(round_to_minifloat(scale / of_tensor, _E4M3), _SMALLEST_E4M3), of_tensor)

    def values(self) -> Array:
        """Return the scales, float32 (G,)."""
        return self.numbers * self.of_tensor


@dataclass(frozen=True, slots=True, eq=False)
class DoubleScales:
    """Scales quantized to 8 bits themselves: ``mean + code * scale of its superblock``.

    Source: T. Dettmers et al., "QLoRA", 2023, section 3, with int8 as torchao has it.

    Attributes:
        codes: int8 (G,).
        scale: float32, one for each `SUPERBLOCK` scales.
        mean: float32; scales are positive, and without it half of the codes would be lost.
    """

    codes: Array
    scale: Array
    mean: np.float32

    @staticmethod
    def of(scale: Array) -> DoubleScales:
        """Return the nearest such scales; all of them stay positive."""
        mean = np.float32(scale.mean(dtype=np.float64)) if scale.size else np.float32(0.0)
        rest = scale.astype(np.float64) - mean
        starts = np.arange(0, rest.size, SUPERBLOCK)
        largest = np.maximum.reduceat(np.abs(rest), starts) if rest.size else np.zeros(0)
        second = normal_scale(largest / 127.0)
        codes = np.clip(np.rint(rest / _each(second, rest.size)), -127, 127)
        # Rounding may take the smallest scales down to 0; the code above them does not.
        codes += _sums(codes, second, mean) <= SMALLEST_SCALE
        return DoubleScales(codes.astype(np.int8), second, mean)

    def values(self) -> Array:
        """Return the scales, float32 (G,)."""
        return np.maximum(_sums(self.codes, self.scale, self.mean), np.float32(SMALLEST_SCALE))


def _sums(codes: Array, second: Array, mean: np.float32) -> Array:
    return codes.astype(np.float32) * _each(second, codes.size) + mean


def _each(second: Array, size: int) -> Array:
    return np.repeat(second, SUPERBLOCK)[:size]


def _middle(fmt: IntFormat | UnevenFormat) -> int:
    return 1 << (fmt.bits - 1) if isinstance(fmt, IntFormat) and not fmt.signed else 0


def _filled(scale: Array, used: Array, *, holds_zero: bool = True) -> Array:
    if used.all():
        return scale
    if not holds_zero:
        return np.where(used, scale, np.float32(SMALLEST_SCALE))
    return np.where(used, scale, scale[used].min() if used.any() else np.float32(1.0))


def _power_of_two(exponent: Array) -> Array:
    return np.asarray(np.ldexp(np.float32(1.0), np.clip(exponent, *_POWERS)), np.float32)


def _exponent_above(value: Array) -> Array:
    """Return the exponent of the smallest power of two that is not below each value."""
    fraction, exponent = np.frexp(value)
    return np.asarray(exponent - (fraction == 0.5))
