"""Number formats: what a quantized value is made of."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from quantgui.errors import SpecError

FloatName = Literal["float16", "bfloat16"]
STORAGE_BITS = (2, 4, 8, 16)
"""Integer widths that ONNX stores (int2 since opset 25, int4 since 21, int16 since 21 for Q/DQ)."""


@dataclass(frozen=True, slots=True)
class IntFormat:
    """An integer grid of ``2**bits`` levels, one fewer if ``narrow_range``.

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
            raise SpecError(f"Bit-width must be 2 to 16, got {self.bits}.")

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
        return next(width for width in STORAGE_BITS if width >= self.bits)

    def __str__(self) -> str:
        return f"{'int' if self.signed else 'uint'}{self.bits}"


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


Format = IntFormat | FloatFormat


def parse_format(text: str) -> Format:
    """Return the format called `text`, such as ``int4``, ``uint8``, ``bfloat16``.

    Raises:
        SpecError: no format has that name.

    >>> parse_format("uint3")
    IntFormat(bits=3, signed=False, narrow_range=False)
    """
    if text in ("float16", "bfloat16"):
        return FloatFormat("float16" if text == "float16" else "bfloat16")
    for prefix, signed in (("uint", False), ("int", True)):
        digits = text.removeprefix(prefix)
        if re.fullmatch(r"[1-9][0-9]?", digits):
            return IntFormat(int(digits), signed)
    raise SpecError(f"'{text}' is no number format; use int2 ... int16, uint2 ... uint16, float16 or bfloat16.")
