"""How the pieces of a weight are rounded, one class for each kind of format; all in float32.

A `Rounding` knows the grid of every group of one weight. It is asked for pieces of it (see `groups`), so that no
temporary is larger than a piece.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol, assert_never

import numpy as np

from quantgui.numerics.groups import Piece, grid_shape
from quantgui.numerics.levels import level_numbers, level_table, middles, nearest_levels, searched_numbers, uneven_grid
from quantgui.numerics.minifloat import decode_minifloat, encode_minifloat, round_to_format
from quantgui.numerics.qparams import QParams, grid_ends
from quantgui.results import Array
from quantgui.spec.formats import (
    CodebookFormat,
    FloatFormat,
    FloatName,
    IntFormat,
    MinifloatFormat,
    TableFormat,
    UnevenFormat,
)
from quantgui.spec.granularity import Granularity, PerTensor
from quantgui.spec.quantizer import QuantizerSpec

_SMALL_STEPS = 1 + 1e-6
"""Float32 arithmetic may carry an error a little beyond half a step."""


_MANY_BORDERS = 64
"""From so many on, a search takes less time than comparing with each."""
_WHOLE = PerTensor()


class Rounding(Protocol):
    """Rounds pieces of one weight."""

    @property
    def granularity(self) -> Granularity:
        """Which values share a grid; pieces must hold whole groups of it."""

    def quantized(self, part: Array, piece: Piece, out: Array | None = None) -> tuple[Array, int]:
        """Return the float32 piece as its quantized form represents it, and how many values are clipped."""

    def bounds(self, low: Array, high: Array) -> tuple[float, float, float]:
        """Return the smallest and largest quantized value there can be, and the largest error.

        `low` and `high` are the smallest and largest value of each group, or 0.
        """


def rounding_of(
    shape: tuple[int, ...], spec: QuantizerSpec | None, qparams: QParams | None, channel_axis: int
) -> Rounding:
    """Return the rounding of a weight of `shape` under `spec` on the grids of `qparams`."""
    if spec is None:
        return FloatRounding(None)
    grid = grid_shape(shape, channel_axis, spec.granularity)
    match spec.format:
        case FloatFormat(name):
            return FloatRounding(name)
        case _ if qparams is None:
            raise ValueError(f"{spec.format} needs grids.")
        case IntFormat() as fmt:
            return EvenRounding.of(qparams, fmt, grid, spec.granularity)
        case MinifloatFormat() | TableFormat() as fmt:
            return UnevenRounding(fmt, qparams.scale.reshape(grid), spec.granularity)
        case CodebookFormat():
            return CodebookRounding.of(qparams, grid, spec.granularity)
        case _:
            assert_never(spec.format)


@dataclass(frozen=True, slots=True, eq=False)
class EvenRounding:
    """Scales and smallest and largest ``q - zero_point``, (C, groups per channel); ends are numbers if all alike."""

    scale: Array
    low: Array | float
    high: Array | float
    zero_point: Array
    granularity: Granularity

    @staticmethod
    def of(qparams: QParams, fmt: IntFormat, shape: tuple[int, int], granularity: Granularity) -> EvenRounding:
        """Return the rounding to integers."""
        low, high = grid_ends(qparams, fmt)
        scale = qparams.scale.astype(np.float32, copy=False).reshape(shape)
        zero_point = qparams.zero_point.reshape(shape).astype(np.float32)
        if low.size and (low == low[0]).all():
            return EvenRounding(scale, float(low[0]), float(high[0]), zero_point, granularity)
        return EvenRounding(scale, low.reshape(shape), high.reshape(shape), zero_point, granularity)

    def levels(self, part: Array, piece: Piece) -> tuple[Array, int]:
        """Return ``q - zero_point`` of a piece as float32, and how many values are clipped."""
        units = _units(part, self.scale, piece)
        np.rint(units, out=units)
        if isinstance(self.low, float) and isinstance(self.high, float):
            clipped = _count_outside(units, self.low, self.high)
            if clipped:
                np.clip(units, self.low, self.high, out=units)
        else:
            low, high = (_filled(piece.spread(np.asarray(end)), piece) for end in (self.low, self.high))
            clipped = int(np.count_nonzero(units > high)) + int(np.count_nonzero(units < low))
            if clipped:
                np.clip(units, low, high, out=units)
        # Integers know no negative zero.
        units += np.float32(0.0)
        return units, clipped

    def codes(self, part: Array, piece: Piece) -> Array:
        """Return the integers of a piece, as float32."""
        codes, _ = self.levels(part, piece)
        codes += piece.spread(self.zero_point)
        return codes

    def values(self, codes: Array, piece: Piece) -> Array:
        """Return the float32 values of the codes of a piece; their difference from the zero point is exact."""
        return np.asarray((codes - piece.spread(self.zero_point)) * piece.spread(self.scale))

    def quantized(self, part: Array, piece: Piece, out: Array | None = None) -> tuple[Array, int]:
        """Return what `Rounding.quantized` does."""
        levels, clipped = self.levels(part, piece)
        return _scaled(levels, self.scale, piece, out), clipped

    def bounds(self, low: Array, high: Array) -> tuple[float, float, float]:
        """Return what `Rounding.bounds` does."""
        if not low.size:
            return 0.0, 0.0, 0.0
        scale = self.scale.astype(np.float64)
        first, last = self.low * scale, self.high * scale
        reach = max(float((scale / 2).max()), float((high - last).max()), float((first - low).max()))
        # Rounding takes a value at most half a step outwards.
        low, high = np.maximum(low - scale / 2, first), np.minimum(high + scale / 2, last)
        return float(low.min()), float(high.max()), reach * _SMALL_STEPS


@dataclass(frozen=True, slots=True, eq=False)
class UnevenRounding:
    """Scales, (C, groups per channel), of fixed levels that are not evenly spaced."""

    format: UnevenFormat
    scale: Array
    granularity: Granularity

    def codes(self, part: Array, piece: Piece) -> Array:
        """Return the bit patterns of a piece, or the numbers of its levels, uint8."""
        units = _units(part, self.scale, piece)
        if isinstance(self.format, MinifloatFormat):
            return encode_minifloat(units, self.format)
        return level_numbers(units, middles(level_table(self.format)))

    def values(self, codes: Array, piece: Piece) -> Array:
        """Return the float32 values of the codes of a piece."""
        if isinstance(self.format, MinifloatFormat):
            units = decode_minifloat(codes, self.format)
        else:
            units = level_table(self.format)[codes]
        return _scaled(units, self.scale, piece, None)

    def quantized(self, part: Array, piece: Piece, out: Array | None = None) -> tuple[Array, int]:
        """Return what `Rounding.quantized` does."""
        units = _units(part, self.scale, piece)
        clipped = _count_outside(units, *uneven_grid(self.format).limits)
        nearest_levels(units, self.format, out=units)
        return _scaled(units, self.scale, piece, out), clipped

    def bounds(self, low: Array, high: Array) -> tuple[float, float, float]:
        """Return what `Rounding.bounds` does."""
        if not low.size:
            return 0.0, 0.0, 0.0
        scale, levels = self.scale.astype(np.float64), level_table(self.format).astype(np.float64)
        first, last = levels[0] * scale, levels[-1] * scale
        step = np.diff(levels).max() / 2 * scale
        reach = max(float(step.max()), float((high - last).max()), float((first - low).max()))
        if isinstance(self.format, MinifloatFormat):
            low, high = np.maximum(low - step, first), np.minimum(high + step, last)
        else:
            # Without a level near 0, small values move far.
            low, high = first, last
        return float(low.min()), float(high.max()), reach * _SMALL_STEPS


@dataclass(frozen=True, slots=True, eq=False)
class CodebookRounding:
    """Levels (C, groups per channel, L) in ascending order, and the borders between them."""

    levels: Array
    borders: Array
    granularity: Granularity

    @staticmethod
    def of(qparams: QParams, shape: tuple[int, int], granularity: Granularity) -> CodebookRounding:
        """Return the rounding to learned levels."""
        if qparams.levels is None:
            raise ValueError("A codebook needs levels.")
        levels = qparams.levels.reshape(*shape, qparams.levels.shape[-1])
        return CodebookRounding(levels, middles(levels), granularity)

    def codes(self, part: Array, piece: Piece) -> Array:
        """Return the numbers of the levels of a piece, uint8."""
        borders = self.borders[piece.grid]
        if borders.shape[2] >= _MANY_BORDERS:
            starts = np.arange(0, borders.size, borders.shape[2], dtype=np.int32).reshape(borders.shape[:2])
            return searched_numbers(part, borders, piece.spread_own(starts))
        return level_numbers(part, [_filled(piece.spread_own(each), piece) for each in np.moveaxis(borders, -1, 0)])

    def values(self, codes: Array, piece: Piece, out: Array | None = None) -> Array:
        """Return the float32 values of the codes of a piece."""
        tables = self.levels[piece.grid]
        # mode="clip" writes to `out` at once; every number is in range.
        if tables.shape[:2] == (1, 1):
            return tables.ravel().take(codes, out=out, mode="clip")
        starts = np.arange(0, tables.size, tables.shape[2]).reshape(tables.shape[:2])
        return tables.ravel().take(codes + piece.spread_own(starts), out=out, mode="clip")

    def quantized(self, part: Array, piece: Piece, out: Array | None = None) -> tuple[Array, int]:
        """Return what `Rounding.quantized` does; nothing is clipped, as the levels lie where the values do."""
        return self.values(self.codes(part, piece), piece, out), 0

    def bounds(self, low: Array, high: Array) -> tuple[float, float, float]:
        """Return what `Rounding.bounds` does."""
        if not low.size:
            return 0.0, 0.0, 0.0
        levels = self.levels.astype(np.float64)
        # The ends of the ranges include 0, which may lie beyond the outermost level of a group without being a value.
        reach = max(
            float((np.diff(levels).max(initial=0.0)) / 2),
            float(np.maximum(high - levels[..., -1], 0.0).max()),
            float(np.maximum(levels[..., 0] - low, 0.0).max()),
        )
        return float(levels.min()), float(levels.max()), reach * _SMALL_STEPS


@dataclass(frozen=True, slots=True)
class FloatRounding:
    """Rounds to a floating-point format of 16 bits, or not at all."""

    name: FloatName | None
    granularity: Granularity = _WHOLE

    def quantized(self, part: Array, piece: Piece, out: Array | None = None) -> tuple[Array, int]:
        """Return what `Rounding.quantized` does; what becomes infinite is clipped."""
        quantized = part if self.name is None else round_to_format(part, self.name)
        if out is not None:
            out[...] = quantized
        return quantized, 0 if self.name is None else int(np.count_nonzero(np.isinf(quantized)))

    def bounds(self, low: Array, high: Array) -> tuple[float, float, float]:
        """Return what `Rounding.bounds` does."""
        if not low.size:
            return 0.0, 0.0, 0.0
        largest = max(-float(low.min()), float(high.max()))
        ends = np.array([low.min(), high.max()], np.float32)
        if self.name is None:
            return float(ends[0]), float(ends[1]), math.ldexp(largest, -53)
        ends = round_to_format(ends, self.name)
        return float(ends[0]), float(ends[1]), math.ldexp(largest, -11 if self.name == "float16" else -8)


def _units(part: Array, scale: Array, piece: Piece) -> Array:
    with np.errstate(over="ignore", under="ignore"):
        return np.asarray(np.divide(part, _filled(piece.spread(scale), piece)))


def _scaled(units: Array, scale: Array, piece: Piece, out: Array | None) -> Array:
    with np.errstate(over="ignore"):
        return np.asarray(np.multiply(units, _filled(piece.spread(scale), piece), out=out))


def _count_outside(units: Array, low: float, high: float) -> int:
    outside = int(np.count_nonzero(units > high)) if units.max() > high else 0
    return outside + (int(np.count_nonzero(units < low)) if units.min() < low else 0)


def _filled(per_group: Array, piece: Piece) -> Array:
    """Return values that broadcast to a piece; written out where inner loops would be too short to be fast."""
    if piece.shape[2] >= 128 or per_group.shape[2] != 1 or per_group.size == 1:
        return per_group
    if piece.shape[0] != per_group.shape[0] and not piece.block:
        return per_group
    return np.repeat(per_group.ravel(), piece.shape[2]).reshape(per_group.shape[:2] + piece.shape[2:])
