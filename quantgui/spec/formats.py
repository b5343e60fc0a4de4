"""Number formats: what a quantized value is made of.

Five kinds, one frozen class each:

- `IntFormat`: evenly spaced levels with a scale and, if asymmetric, a zero point.
- `MinifloatFormat`: 4, 6 and 8 bits with sign, exponent and mantissa; levels lie the denser the nearer to 0. A scale
  brings the values into their range.
- `TableFormat`: a few fixed levels times a scale (binary, NF4).
- `CodebookFormat`: levels learned from the values themselves, one table per group; no scale.
- `FloatFormat`: float16 and bfloat16, wide enough to need no scale.

What goes by the name MXFP4, NVFP4 and the like is one of these, in blocks, with scales in a format of their own:
`quantizer.BLOCK_FORMATS`.
"""

from __future__ import annotations

import itertools
import math
import re
from dataclasses import dataclass
from typing import Literal, get_args

from quantgui.errors import SpecError

FloatName = Literal["float16", "bfloat16"]
TableName = Literal["binary", "nf4"]
Variant = Literal["ieee", "fn", "fnuz"]
STORAGE_BITS = (2, 4, 8, 16)
"""Integer widths that ONNX stores (int2 since opset 25, int4 since 21, int16 since 21 for Q/DQ)."""


@dataclass(frozen=True, slots=True)
class IntFormat:
    """An integer grid of ``2**bits`` levels, one fewer if ``narrow_range``.

    Two bits with ``narrow_range`` are the ternary weights {-1, 0, 1}.

    >>> IntFormat(4).quant_min, IntFormat(4).quant_max
    (-8, 7)
    >>> IntFormat(4, narrow_range=True).quant_min
    -7
    """

    bits: int
    signed: bool = True
    narrow_range: bool = False

    def __post_init__(self) -> None:
        if not 2 <= self.bits <= 16:
            raise SpecError(f"Bit-width must be 2 to 16, got {self.bits}; one bit is the format 'binary'.")

    @property
    def quant_min(self) -> int:
        """Smallest integer of the grid."""
        return (-(1 << (self.bits - 1)) if self.signed else 0) + self.narrow_range

    @property
    def quant_max(self) -> int:
        """Largest integer of the grid."""
        return (1 << (self.bits - self.signed)) - 1

    @property
    def storage_bits(self) -> int:
        """Width of the smallest ONNX integer type that holds the grid."""
        return _stored(self.bits)

    def __str__(self) -> str:
        return f"{'int' if self.signed else 'uint'}{self.bits}"


@dataclass(frozen=True, slots=True)
class MinifloatFormat:
    """A sign, a few bits of exponent and a few of mantissa, with subnormal numbers; infinities are never made.

    Values beyond the largest are clipped to it, values between two levels are rounded half to even.

    Attributes:
        exponent_bits, mantissa_bits: their widths.
        variant: which codes are no numbers. ``ieee``: the largest exponent is infinity and NaN. ``fn``: 8 bits have one
            NaN of each sign and no infinity, shorter formats have neither. ``fnuz``: no infinity, no negative zero, and
            the code of the latter is NaN; the exponents are one lower.

    Sources: P. Micikevicius et al., "FP8 formats for deep learning", 2022; B. Noune et al., "8-bit numerical formats
    for deep neural networks", 2022 (fnuz); OCP Microscaling Formats (MX) Specification 1.0, 2023 (4 and 6 bits).

    >>> [str(MinifloatFormat(e, m)) for e, m in ((4, 3), (2, 1))]
    ['float8_e4m3fn', 'float4_e2m1']
    >>> MinifloatFormat(4, 3).largest, MinifloatFormat(5, 2, "ieee").largest, MinifloatFormat(2, 1).largest
    (448.0, 57344.0, 6.0)
    """

    exponent_bits: int
    mantissa_bits: int
    variant: Variant = "fn"

    def __post_init__(self) -> None:
        if (self.exponent_bits, self.mantissa_bits, self.variant) not in MINIFLOAT_NAMES:
            raise SpecError(
                f"There is no {self.variant} format with {self.exponent_bits} bits of exponent and "
                f"{self.mantissa_bits} of mantissa; use {', '.join(MINIFLOAT_NAMES.values())}."
            )

    @property
    def bits(self) -> int:
        """Bits per value."""
        return 1 + self.exponent_bits + self.mantissa_bits

    @property
    def storage_bits(self) -> int:
        """Bits per value as stored; ONNX has no type of 6 bits."""
        return _stored(self.bits)

    @property
    def bias(self) -> int:
        """What the stored exponent is larger by than the exponent."""
        return (1 << (self.exponent_bits - 1)) - (self.variant != "fnuz")

    @property
    def smallest_exponent(self) -> int:
        """Exponent of the smallest normal number; subnormal numbers are multiples of 2**(it - mantissa_bits)."""
        return 1 - self.bias

    @property
    def largest(self) -> float:
        """Largest number."""
        codes = range((1 << (self.bits - 1)) - 1, 0, -1)
        return next(self._value(code) for code in codes if not self._is_special(code))

    @property
    def levels(self) -> tuple[float, ...]:
        """All numbers in ascending order, 0 once."""
        positive = [self._value(code) for code in range(1, 1 << (self.bits - 1)) if not self._is_special(code)]
        return (*(-value for value in reversed(positive)), 0.0, *positive)

    def _value(self, code: int) -> float:
        exponent, mantissa = divmod(code, 1 << self.mantissa_bits)
        fraction = mantissa / (1 << self.mantissa_bits)
        return math.ldexp(fraction + (exponent > 0), max(exponent, 1) - self.bias)

    def _is_special(self, code: int) -> bool:
        """Whether a code without sign is no number."""
        match self.variant:
            case "ieee":
                return code >> self.mantissa_bits == (1 << self.exponent_bits) - 1
            case "fn":
                return self.bits == 8 and code == 0x7F
            case "fnuz":
                return False

    def __str__(self) -> str:
        return MINIFLOAT_NAMES[self.exponent_bits, self.mantissa_bits, self.variant]


MINIFLOAT_NAMES: dict[tuple[int, int, Variant], str] = {
    (4, 3, "fn"): "float8_e4m3fn",
    (5, 2, "ieee"): "float8_e5m2",
    (4, 3, "fnuz"): "float8_e4m3fnuz",
    (5, 2, "fnuz"): "float8_e5m2fnuz",
    (2, 3, "fn"): "float6_e2m3",
    (3, 2, "fn"): "float6_e3m2",
    (2, 1, "fn"): "float4_e2m1",
}
_OTHER_NAMES = {"float6_e2m3fn": "float6_e2m3", "float6_e3m2fn": "float6_e3m2", "float4_e2m1fn": "float4_e2m1"}
"""As ml_dtypes calls them."""


@dataclass(frozen=True, slots=True)
class TableFormat:
    """A short table of fixed levels times a scale; a value becomes the nearest, the lower one if two are.

    ``binary``: {-1, 1}, one bit; 0 becomes -1. Source: M. Rastegari et al., "XNOR-Net", 2016.
    ``nf4``: the 16 levels between which normally distributed weights fall equally often. Source: T. Dettmers et al.,
    "QLoRA", 2023, appendix E.
    """

    name: TableName

    @property
    def levels(self) -> tuple[float, ...]:
        """All levels in ascending order, in units of the scale."""
        return _TABLES[self.name]

    @property
    def largest(self) -> float:
        """Largest level."""
        return self.levels[-1]

    @property
    def bits(self) -> int:
        """Bits per value."""
        return (len(self.levels) - 1).bit_length()

    @property
    def storage_bits(self) -> int:
        """Bits per value as stored, whole values to a byte."""
        return _packed(self.bits)

    def __str__(self) -> str:
        return self.name


_TABLES: dict[TableName, tuple[float, ...]] = {
    "binary": (-1.0, 1.0),
    "nf4": (
        -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635,
        -0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725,
        0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
    ),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class CodebookFormat:
    """``2**bits`` levels fitted to the values of each group (k-means): the nearest stands for a value.

    Source: S. Han et al., "Deep compression", 2016.
    """

    bits: int

    def __post_init__(self) -> None:
        if not 1 <= self.bits <= 8:
            raise SpecError(f"A codebook has 1 to 8 bits, got {self.bits}.")

    @property
    def size(self) -> int:
        """Number of levels."""
        return 1 << self.bits

    @property
    def storage_bits(self) -> int:
        """Bits per value as stored, whole values to a byte."""
        return _packed(self.bits)

    def __str__(self) -> str:
        return f"codebook{self.bits}"


@dataclass(frozen=True, slots=True)
class FloatFormat:
    """A 16-bit floating-point format; it needs no scale."""

    name: FloatName

    @property
    def bits(self) -> int:
        """Bits per value."""
        return 16

    @property
    def storage_bits(self) -> int:
        """Bits per value as stored."""
        return 16

    def __str__(self) -> str:
        return self.name


UnevenFormat = MinifloatFormat | TableFormat
"""Fixed levels that are not evenly spaced, times a scale; no zero point."""

Format = IntFormat | MinifloatFormat | TableFormat | CodebookFormat | FloatFormat


def parse_format(text: str) -> Format:
    """Return the format called `text`, such as ``int4``, ``uint8``, ``float8_e4m3fn``, ``nf4``, ``codebook4``.

    ``int1`` is ``binary``; ``ternary`` is int2 without its lowest level.

    Raises:
        SpecError: no format has that name.

    >>> parse_format("uint3")
    IntFormat(bits=3, signed=False, narrow_range=False)
    """
    if text == "int1":
        return TableFormat("binary")
    if text == "ternary":
        return IntFormat(2, narrow_range=True)
    named = _NAMED.get(_OTHER_NAMES.get(text, text))
    if named is not None:
        return named
    for prefix, signed in (("uint", False), ("int", True)):
        digits = text.removeprefix(prefix)
        if re.fullmatch(r"[1-9][0-9]?", digits):
            return IntFormat(int(digits), signed)
    if re.fullmatch(r"codebook[0-9]{1,2}", text):
        return CodebookFormat(int(text.removeprefix("codebook")))
    raise SpecError(
        f"'{text}' is no number format; use int2 ... int16, uint2 ... uint16, ternary, codebook1 ... codebook8, "
        f"{', '.join(_NAMED)}."
    )


def _packed(bits: int) -> int:
    return next(width for width in (1, 2, 4, 8) if width >= bits)


def _stored(bits: int) -> int:
    return next(width for width in STORAGE_BITS if width >= bits)


_NAMED: dict[str, Format] = {
    str(each): each
    for each in itertools.chain[Format](
        (FloatFormat(name) for name in get_args(FloatName)),
        (MinifloatFormat(*each) for each in MINIFLOAT_NAMES),
        (TableFormat(name) for name in get_args(TableName)),
    )
}
"""All formats without a width of the user's choice, by name."""
