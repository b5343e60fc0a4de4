"""Floating-point formats of 16, 8, 6 and 4 bits: rounding, bit patterns.

Rounding is half to even. Minifloats saturate: what is larger than the largest number becomes it, infinities too, as
ONNX's Cast and QuantizeLinear and the OCP specification have it; NaN is not theirs to hold and must not come here.
"""

from __future__ import annotations

import math

import numpy as np

from quantgui.numerics.groups import as_float32
from quantgui.results import Array
from quantgui.spec.formats import FloatName, MinifloatFormat

_EXPONENT = np.uint32(0x7F800000)
_SIGN = np.uint32(0x80000000)
_ONE_AND_A_HALF = np.uint32(0x00400000)


def round_to_minifloat(x: Array, fmt: MinifloatFormat, *, out: Array | None = None) -> Array:
    """Return the numbers of `fmt` nearest to `x`, float32 in its shape; `out` may be `x` itself.

    A number between 2**e and 2**(e + 1) is a multiple of ``2**(e - mantissa_bits)``. Adding 1.5 * 2**23 of these steps
    leaves float32 no digits below them, so the processor itself rounds half to even; taking them off again is exact.
    """
    x = as_float32(x)
    limit = np.float32(fmt.largest)
    rounded: Array = np.clip(x, -limit, limit, out=out)
    magic = np.bitwise_and(rounded.view(np.uint32), _EXPONENT)
    np.maximum(magic, np.uint32((fmt.smallest_exponent + 127) << 23), out=magic)
    magic += np.uint32((23 - fmt.mantissa_bits) << 23) + _ONE_AND_A_HALF
    large = magic.view(np.float32)
    if fmt.variant == "fnuz":
        # Without a negative zero, small negative numbers become 0 as the difference of equals is.
        rounded += large
        rounded -= large
        return rounded
    bits = rounded.view(np.uint32)
    sign = bits & _SIGN
    rounded += large
    rounded -= large
    bits |= sign
    return rounded


def encode_minifloat(x: Array, fmt: MinifloatFormat) -> Array:
    """Return the bit patterns, uint8 one per value, of `x` rounded to `fmt`."""
    rounded = round_to_minifloat(x, fmt)
    magnitude = np.abs(rounded)
    fraction, exponent = np.frexp(magnitude)  # magnitude = fraction * 2**exponent, fraction 0.5 to below 1
    smallest, digits = fmt.smallest_exponent, fmt.mantissa_bits
    normal = exponent - 1 >= smallest
    normals = ((exponent - 1 + fmt.bias) << digits) + ((2 * fraction - 1) * (1 << digits)).astype(np.int32)
    subnormals = np.ldexp(np.where(normal, 0.0, magnitude), digits - smallest).astype(np.int32)
    code = np.where(normal & (magnitude > 0), normals, subnormals)
    return np.asarray(code + (np.signbit(rounded).astype(np.int32) << (fmt.bits - 1)), np.uint8)


def decode_minifloat(codes: Array, fmt: MinifloatFormat) -> Array:
    """Return the float32 values of bit patterns that are numbers (uint8)."""
    digits = fmt.mantissa_bits
    magnitude = codes.astype(np.int32) & ((1 << (fmt.bits - 1)) - 1)
    exponent, mantissa = magnitude >> digits, magnitude & ((1 << digits) - 1)
    significand = mantissa + np.where(exponent > 0, 1 << digits, 0)
    values = np.ldexp(significand.astype(np.float32), np.maximum(exponent, 1) - fmt.bias - digits)
    return np.asarray(np.where(codes >> (fmt.bits - 1), -values, values), np.float32)


def largest_power(largest: float) -> int:
    """Return the exponent of the largest power of two that is not above `largest`.

    >>> largest_power(448.0), largest_power(127.0)
    (8, 6)
    """
    return math.frexp(largest)[1] - 1


# --- 16 bits -------------------------------------------------------------------------------------------------------


def to_float16(x: Array) -> Array:
    """Return `x` as float16, rounded half to even; what is too large becomes infinite."""
    with np.errstate(over="ignore", under="ignore"):
        return np.asarray(x, np.float32).astype(np.float16)


def to_bfloat16(x: Array) -> Array:
    """Return the bit patterns of `x` in bfloat16, uint16, rounded half to even (the upper half of a float32)."""
    bits = as_float32(np.ascontiguousarray(x)).view(np.uint32)
    rounded = (bits + (((bits >> 16) & 1) + 0x7FFF)) >> 16
    # Rounding would carry the digits of a NaN into its sign.
    nan = (bits & 0x7FFFFFFF) > 0x7F800000
    return np.where(nan, (bits >> 16) & 0x8000 | 0x7FC0, rounded).astype(np.uint16)


def from_bfloat16(bits: Array) -> Array:
    """Return the float32 values of bfloat16 bit patterns (uint16)."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def round_to_format(x: Array, name: FloatName) -> Array:
    """Return `x` rounded to a floating-point format of 16 bits, as float32."""
    match name:
        case "float16":
            return to_float16(x).astype(np.float32)
        case "bfloat16":
            return from_bfloat16(to_bfloat16(x))
