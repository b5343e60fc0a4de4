"""The levels of one group's grid, in units of its scale: evenly spaced or not, and what rounding to them costs.

Weights are rounded by kernels made for their format; here a grid is a value of its own, from which errors follow for
values known by a histogram only.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from quantgui.numerics.minifloat import round_to_minifloat
from quantgui.numerics.qparams import QParams, grid_ends
from quantgui.results import Array
from quantgui.spec.formats import CodebookFormat, Format, IntFormat, MinifloatFormat, TableFormat, UnevenFormat


@functools.cache
def level_table(fmt: UnevenFormat) -> Array:
    """Return the levels of a format in ascending order, float32 (L,), read-only."""
    levels = np.array(fmt.levels, np.float32)
    levels.flags.writeable = False
    return levels


def middles(levels: Array) -> Array:
    """Return the values, float32 (..., L - 1), above which the next of the levels (..., L) is nearer."""
    exact = levels.astype(np.float64)
    return ((exact[..., 1:] + exact[..., :-1]) / 2).astype(np.float32)


def level_numbers(x: Array, borders: Iterable[Array]) -> Array:
    """Return how many `borders` each value lies above, uint8: the number of its level.

    A border is a number, or an array that broadcasts to `x`.

    As many comparisons as borders, and still several times as fast as a search in them: none has to guess a branch.
    """
    numbers = np.zeros(x.shape, np.uint8)
    above = np.empty(x.shape, np.bool_)
    for border in borders:
        np.greater(x, border, out=above)
        numbers += above.view(np.uint8)
    return numbers


def searched_numbers(x: Array, borders: Array, starts: Array | None = None) -> Array:
    """Return what `level_numbers` does, for ``2**n - 1`` borders in a row: sooner than it from 64 on.

    With `starts`, int32 of a shape that broadcasts to `x`, each value has a run of the borders of its own, which
    begins there. Every value takes the same steps, so none has to guess a branch here either.
    """
    runs = borders.size if starts is None else borders.shape[-1]
    flat, numbers = borders.ravel(), np.zeros(x.shape, np.int32)
    step = (runs + 1) // 2
    while step:
        tried = numbers + np.int32(step - 1)
        if starts is not None:
            tried += starts
        numbers += (x > flat.take(tried, mode="clip")) * np.int32(step)
        step //= 2
    return numbers.astype(np.uint8)


def nearest_levels(x: Array, fmt: UnevenFormat, *, out: Array | None = None) -> Array:
    """Return the levels of `fmt` nearest to `x`, float32; `out` may be `x` itself."""
    if isinstance(fmt, MinifloatFormat):
        return round_to_minifloat(x, fmt, out=out)
    levels = level_table(fmt)
    numbers = level_numbers(x, middles(levels))
    # mode="clip" writes to `out` at once; every number is in range.
    return levels.take(numbers, out=out, mode="clip")


@dataclass(frozen=True, slots=True)
class UnitGrid:
    """The integers ``low`` ... ``high``."""

    low: float
    high: float

    @staticmethod
    def of(qparams: QParams, fmt: IntFormat) -> tuple[UnitGrid, float]:
        """Return the grid and the scale of the first group."""
        zero_point = int(qparams.zero_point.reshape(-1)[0])
        grid = UnitGrid(float(fmt.quant_min - zero_point), float(fmt.quant_max - zero_point))
        return grid, float(qparams.scale.reshape(-1)[0])

    @property
    def count(self) -> int:
        """Number of levels."""
        return int(self.high - self.low) + 1

    @property
    def borders(self) -> Array:
        """Where one level ends and the next begins, (count - 1,)."""
        return self.low + 0.5 + np.arange(self.count - 1)

    @property
    def limits(self) -> tuple[float, float]:
        """Beyond these, values are clipped."""
        return self.low - 0.5, self.high + 0.5

    def error(self, units: Array) -> Array:
        """Return ``units - nearest level``."""
        error: Array = units - np.clip(np.rint(units), self.low, self.high)
        return error

    def numbers(self, units: Array) -> Array:
        """Return the number of the nearest level, from 0."""
        return (np.clip(np.rint(units), self.low, self.high) - self.low).astype(np.intp)

    def clips(self, units: Array) -> Array:
        """Return which values are clipped."""
        rounded = np.rint(units)
        return (rounded < self.low) | (rounded > self.high)

    def largest_rounding(self, units: Array) -> Array:
        """Return the largest error of rounding around values that are not clipped."""
        return np.full(units.shape, 0.5)

    def squared_error(self, edges: Array, counts: Array, outliers: Array, scale: float) -> float:
        """Return the sum of squared errors of values spread evenly within bins, and of single values.

        The squared error has the antiderivative ``level / 12 + (u - level)^3 / 3``: 1/12 for each level passed, and a
        cubic since the last one.
        """
        single = self.error(outliers / scale)
        total = float(single @ single)
        if len(counts):
            units = edges / scale
            level = np.clip(np.rint(units), self.low, self.high)
            units -= level
            level /= 12.0
            level += units * units * units / 3.0
            total += float(counts @ np.diff(level)) * (scale / float(edges[1] - edges[0]))
        return total * scale**2


@dataclass(frozen=True, slots=True, eq=False)
class LevelGrid:
    """Levels of any spacing: float64, ascending, (L,); ``clips_beyond`` tells whether far values count as clipped."""

    levels: Array
    clips_beyond: bool = True

    @property
    def low(self) -> float:
        """Smallest level."""
        return float(self.levels[0])

    @property
    def high(self) -> float:
        """Largest level."""
        return float(self.levels[-1])

    @property
    def count(self) -> int:
        """Number of levels."""
        return len(self.levels)

    @property
    def borders(self) -> Array:
        """Where one level ends and the next begins, (count - 1,)."""
        middle: Array = (self.levels[1:] + self.levels[:-1]) / 2
        return middle

    @property
    def limits(self) -> tuple[float, float]:
        """Beyond these, values are clipped: half a step from the outermost levels."""
        if not self.clips_beyond:
            return -np.inf, np.inf
        first, last = np.diff(self.levels[:2]) / 2, np.diff(self.levels[-2:]) / 2
        return self.low - float(first[0]), self.high + float(last[0])

    def error(self, units: Array) -> Array:
        """Return ``units - nearest level``."""
        error: Array = units - self.levels[self.numbers(units)]
        return error

    def numbers(self, units: Array) -> Array:
        """Return the number of the nearest level, from 0."""
        return np.searchsorted(self.borders, units)

    def clips(self, units: Array) -> Array:
        """Return which values are clipped."""
        low, high = self.limits
        return (units < low) | (units > high)

    def largest_rounding(self, units: Array) -> Array:
        """Return the largest error of rounding around values that are not clipped."""
        half_steps = np.diff(self.levels) / 2
        reach = np.maximum(np.append(half_steps, half_steps[-1]), np.insert(half_steps, 0, half_steps[0]))
        return np.asarray(reach[self.numbers(units)])

    def squared_error(self, edges: Array, counts: Array, outliers: Array, scale: float) -> float:
        """Return the sum of squared errors of values spread evenly within bins, and of single values.

        The antiderivative of the squared error is what the levels passed have added, and a cubic since the last one.
        """
        single = self.error(outliers / scale)
        total = float(single @ single)
        if len(counts):
            borders = self.borders
            # Of each level from its own place to its upper border, and from its lower border to its place.
            behind, before = (borders - self.levels[:-1]) ** 3 / 3, (self.levels[1:] - borders) ** 3 / 3
            passed = np.concatenate([[0.0], np.cumsum(behind + before)])
            units = edges / scale
            number = self.numbers(units)
            integral = passed[number] + (units - self.levels[number]) ** 3 / 3
            total += float(counts @ np.diff(integral)) * (scale / float(edges[1] - edges[0]))
        return total * scale**2


Grid = UnitGrid | LevelGrid


def grid_of(qparams: QParams, fmt: Format) -> tuple[Grid, float]:
    """Return the grid and the scale of the first group.

    Raises:
        ValueError: the format has no grid (float16, bfloat16).
    """
    match fmt:
        case IntFormat():
            return UnitGrid.of(qparams, fmt)
        case MinifloatFormat() | TableFormat():
            return uneven_grid(fmt), float(qparams.scale.reshape(-1)[0])
        case CodebookFormat() if qparams.levels is not None:
            return LevelGrid(np.unique(qparams.levels[0].astype(np.float64)), clips_beyond=False), 1.0
        case _:
            raise ValueError(f"{fmt} has no grid.")


def uneven_grid(fmt: UnevenFormat) -> LevelGrid:
    """Return the grid of a minifloat or table."""
    return LevelGrid(level_table(fmt).astype(np.float64))


def quantized_levels(qparams: QParams, fmt: Format, group: int = 0) -> Array:
    """Return the values of one group's grid in ascending order, float64 (L,)."""
    levels = None if qparams.levels is None else qparams.levels[group : group + 1]
    one = QParams(qparams.scale[group : group + 1], qparams.zero_point[group : group + 1], levels)
    grid, scale = grid_of(one, fmt)
    if isinstance(grid, UnitGrid):
        return np.arange(grid.low, grid.high + 1) * scale
    return np.asarray(grid.levels * scale)


def covered_range(qparams: QParams, fmt: Format) -> tuple[Array, Array]:
    """Return the smallest and largest value each group's grid holds, both float64 (G,)."""
    if qparams.levels is not None:
        return qparams.levels[:, 0].astype(np.float64), qparams.levels[:, -1].astype(np.float64)
    scale = qparams.scale.astype(np.float64)
    if isinstance(fmt, IntFormat):
        low, high = grid_ends(qparams, fmt)
        return low * scale, high * scale
    grid, _ = grid_of(qparams, fmt)
    return grid.low * scale, grid.high * scale
