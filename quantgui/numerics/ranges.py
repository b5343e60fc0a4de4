"""Range estimators: from values or statistics to (low, high) of each group. Ranges always contain 0.

Least squared error is searched in each group on its own: the clipping limit runs from around the root mean square to
a little beyond the largest value, first in coarse then in finer steps, and the scale is then refitted to the codes
it gives (``scale = sum(x q) / sum(q^2)``), which never makes the error larger.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np

from quantgui.numerics.groups import (
    CHUNK,
    Piece,
    as_box,
    as_float32,
    as_matrix,
    compute_each,
    grid_shape,
    needs_reordering,
    pieces,
)
from quantgui.numerics.qparams import SMALLEST_SCALE
from quantgui.numerics.statistics import UnitGrid, collect, nonzero_counts, quantile, rebin
from quantgui.results import Array, TensorStatistics
from quantgui.spec.formats import FloatFormat, IntFormat
from quantgui.spec.granularity import PerChannel, PerTensor
from quantgui.spec.quantizer import Entropy, FixedRange, LeastSquaredError, MinMax, Percentile, QuantizerSpec

LARGE_GROUP = 1 << 20
"""Groups of more values than this are searched on their fine histogram."""

POOLED = 4096
"""Groups of fewer values are too small for a histogram of their own: entropy gives them one common clipping ratio."""

_COARSE_STEPS = 20
_REFITS = 3
_RATIOS = np.linspace(1.0, 0.1, 73)
_ENTROPY_BITS = 11

Ranges = tuple[Array, Array]


def estimate_ranges(matrix: Array, spec: QuantizerSpec) -> Ranges:
    """Return (low, high), each float64 (G,), of a weight seen as a matrix (C, K); groups run channel by channel."""
    low, high = weight_ranges(matrix, spec, 0)
    return low.reshape(-1), high.reshape(-1)


def weight_ranges(x: Array, spec: QuantizerSpec, channel_axis: int) -> Ranges:
    """Return (low, high) of a weight of any shape, each float64 (C, groups per channel), (1, 1) per tensor."""
    fmt = _int_format(spec)
    shape = grid_shape(x.shape, channel_axis, spec.granularity)
    if needs_reordering(x.shape, channel_axis, spec.granularity):
        x, channel_axis = np.ascontiguousarray(as_matrix(x, channel_axis)), 0
    box = _ordered_box(x, channel_axis)
    match spec.range_estimator:
        case FixedRange(low, high):
            return np.full(shape, low), np.full(shape, high)
        case MinMax():
            return _min_max(box, spec, shape)
        case _ if x.size == 0:
            return np.zeros(shape), np.zeros(shape)
        case Entropy():
            return _weight_entropy(box, spec, fmt, shape)
        case Percentile() | LeastSquaredError():
            pass
    if isinstance(spec.granularity, PerTensor) and x.size > LARGE_GROUP:
        low_one, high_one = estimate_range_from_statistics(collect(box), spec)
        return np.full(shape, low_one), np.full(shape, high_one)

    def estimate(piece: Piece) -> tuple[Piece, Array, Array]:
        return piece, *_group_ranges(_group_rows(box, piece), spec, fmt)

    return _filled(compute_each(estimate, _whole_groups(box, spec), x.size), shape)


def estimate_range_from_statistics(statistics: TensorStatistics, spec: QuantizerSpec) -> tuple[float, float]:
    """Return (low, high) of a tensor quantized with one scale, such as an activation, from its statistics."""
    fmt = _int_format(spec)
    low, high = min(statistics.minimum, 0.0), max(statistics.maximum, 0.0)
    match spec.range_estimator:
        case FixedRange(low, high):
            return low, high
        case MinMax():
            return low, high
        case _ if statistics.count == 0 or low == high:
            return low, high
        case Percentile(percentile):
            tail = (1.0 - percentile / 100.0) / 2.0
            return min(quantile(statistics, tail), 0.0), max(quantile(statistics, 1.0 - tail), 0.0)
        case LeastSquaredError():
            lows, highs = _search(_Bins.of(statistics), spec, fmt)
            return float(lows[0]), float(highs[0])
        case Entropy():
            ratio = _entropy_ratio(_Nonzero.of(statistics, fmt, symmetric=spec.symmetric), spec, fmt)
            return low * ratio, high * ratio


# --- walking the groups --------------------------------------------------------------------------------------------


def _int_format(spec: QuantizerSpec) -> IntFormat:
    match spec.format:
        case IntFormat() as fmt:
            return fmt
        case FloatFormat():
            raise ValueError("A floating-point format has no range.")


def _ordered_box(x: Array, channel_axis: int) -> Array:
    """Return the box (A, C, B) of `x`; the transposed view of a matrix is walked as it lies in memory."""
    if x.ndim == 2 and channel_axis % 2 == 0 and abs(x.strides[0]) < abs(x.strides[1]):
        return x.T[:, :, None]
    return as_box(x, channel_axis)


def _whole_groups(box: Array, spec: QuantizerSpec) -> Iterator[Piece]:
    """Yield pieces that hold whole groups, whatever their size."""
    a, c, b = box.shape
    if isinstance(spec.granularity, PerTensor):
        everything = (slice(0, a), slice(0, c), slice(0, b))
        yield Piece(everything, (a, c, b), (slice(0, 1), slice(0, 1)), (0, 1, 2))
        return
    if not isinstance(spec.granularity, PerChannel):
        yield from pieces((a, c, b), spec.granularity)
        return
    # Channels that lie last are gathered from cache lines of 16 values.
    step = max(CHUNK // max(a * b, 1), 1 if a == 1 else 16)
    for start in range(0, c, step):
        rows = slice(start, min(start + step, c))
        part = (slice(0, a), rows, slice(0, b))
        yield Piece(part, (a, rows.stop - start, b), (rows, slice(0, 1)), (0, 2))


def _group_rows(box: Array, piece: Piece) -> Array:
    """Return the groups of a piece as float32 rows (G, N), in the order of the piece's part of the grid."""
    part = piece.take(box)
    rows, columns = (s.stop - s.start for s in piece.grid)
    if piece.transposed:
        part = part.transpose(2, 0, 1)
    elif piece.axes == (0, 2):
        part = part.transpose(1, 0, 2)
    return np.ascontiguousarray(as_float32(part)).reshape(rows * columns, part.size // (rows * columns))


def _filled(results: list[tuple[Piece, Array, Array]], shape: tuple[int, int]) -> Ranges:
    low, high = np.zeros(shape), np.zeros(shape)
    for piece, part_low, part_high in results:
        part_shape = tuple(s.stop - s.start for s in piece.grid)
        low[piece.grid], high[piece.grid] = part_low.reshape(part_shape), part_high.reshape(part_shape)
    return low, high


def _min_max(box: Array, spec: QuantizerSpec, shape: tuple[int, int]) -> Ranges:
    low, high = np.zeros(shape), np.zeros(shape)

    def ends(piece: Piece) -> tuple[Piece, Array, Array]:
        part = piece.take(box)
        if piece.axes == (2,) and part.shape[2] < 256:
            # Reducing short rows costs a call each; reducing columns does not.
            part = np.ascontiguousarray(part.reshape(-1, part.shape[2]).T)
            return piece, part.min(axis=0), part.max(axis=0)
        if piece.axes == (0, 2) and part.shape[0] == 1 and part.shape[2] < 256:
            part = np.ascontiguousarray(part[0].T)
            return piece, part.min(axis=0), part.max(axis=0)
        return piece, part.min(axis=piece.axes), part.max(axis=piece.axes)

    a, c, b = box.shape
    for piece, part_low, part_high in compute_each(ends, pieces((a, c, b), spec.granularity), box.size):
        low[piece.grid] = np.minimum(low[piece.grid], piece.gather(part_low))
        high[piece.grid] = np.maximum(high[piece.grid], piece.gather(part_high))
    return low, high


def _group_ranges(rows: Array, spec: QuantizerSpec, fmt: IntFormat) -> Ranges:
    match spec.range_estimator:
        case Percentile(percentile):
            tail = (100.0 - percentile) / 2.0
            low, high = np.percentile(rows, [tail, 100.0 - tail], axis=1)
            return np.minimum(low, 0.0), np.maximum(high, 0.0)
        case _ if rows.shape[1] > LARGE_GROUP:
            found = [_search(_Bins.of(collect(row)), spec, fmt) for row in rows]
            return np.concatenate([low for low, _ in found]), np.concatenate([high for _, high in found])
        case _:
            return _search(_Values.of(rows), spec, fmt)


# --- least squared error -------------------------------------------------------------------------------------------


class _Objective(Protocol):
    """Something whose squared error on a grid can be told, group by group."""

    @property
    def minimum(self) -> Array: ...
    @property
    def maximum(self) -> Array: ...
    @property
    def rms(self) -> Array: ...
    def error(self, scale: Array, low: Array | float, high: Array | float) -> Array:
        """Return the squared error (G,) on the levels ``low`` ... ``high`` times `scale`."""

    def refitted(self, scale: Array, low: Array | float, high: Array | float) -> Array:
        """Return the scale (G,) that fits the codes given by `scale` best."""


@dataclass(frozen=True, eq=False)
class _Values:
    """Groups of values; short groups lie in columns, long ones in rows, so that inner loops are long."""

    values: Array
    axis: int
    minimum: Array
    maximum: Array
    rms: Array

    @staticmethod
    def of(rows: Array) -> _Values:
        axis = 1 if rows.shape[1] >= 256 else 0
        values = rows if axis == 1 else np.ascontiguousarray(rows.T)
        low = np.minimum(values.min(axis=axis), 0.0).astype(np.float64)
        high = np.maximum(values.max(axis=axis), 0.0).astype(np.float64)
        # Values of one chunk are brought near 1, so that no square leaves the range of float32.
        largest = np.maximum(np.maximum(-low, high), SMALLEST_SCALE)
        exponent = np.clip(np.frexp(largest)[1], -120, 120)
        scaled = np.ldexp(values, np.expand_dims(-exponent, axis))
        rms = np.sqrt(_sum_of_squares(scaled, axis) / max(rows.shape[1], 1)) * np.ldexp(1.0, exponent)
        return _Values(values, axis, low, high, rms)

    def error(self, scale: Array, low: Array | float, high: Array | float) -> Array:
        rest = self.values * self._along(1.0 / scale)
        codes = np.rint(rest)
        np.clip(codes, self._along(low), self._along(high), out=codes)
        rest -= codes
        error: Array = _sum_of_squares(rest, self.axis) * scale**2
        return error

    def refitted(self, scale: Array, low: Array | float, high: Array | float) -> Array:
        units = self.values * self._along(1.0 / scale)
        codes = np.rint(units)
        np.clip(codes, self._along(low), self._along(high), out=codes)
        letters = "gn,gn->g" if self.axis else "ng,ng->g"
        products = np.einsum(letters, units, codes).astype(np.float64)
        squares = _sum_of_squares(codes, self.axis)
        fits = (squares > 0) & (products > 0)
        fitted: Array = scale * np.where(fits, products / np.maximum(squares, 1.0), 1.0)
        return fitted

    def _along(self, per_group: Array | float) -> Array | float:
        if isinstance(per_group, float):
            return per_group
        return np.expand_dims(per_group, self.axis).astype(np.float32)


def _sum_of_squares(values: Array, axis: int) -> Array:
    squares: Array = np.einsum("gn,gn->g" if axis else "ng,ng->g", values, values).astype(np.float64)
    return squares


@dataclass(frozen=True, eq=False)
class _Bins:
    """One group, known by its fine histogram; exact zeros are left out, as every grid holds them."""

    minimum: Array
    maximum: Array
    rms: Array
    bin_width: float
    edges: Array
    counts: Array
    outliers: Array

    @staticmethod
    def of(statistics: TensorStatistics) -> _Bins:
        return _Bins(
            np.array([min(statistics.minimum, 0.0)]),
            np.array([max(statistics.maximum, 0.0)]),
            np.array([math.sqrt(statistics.total_square / max(statistics.count, 1))]),
            statistics.bin_width,
            statistics.edges,
            nonzero_counts(statistics),
            statistics.outliers,
        )

    def error(self, scale: Array, low: Array | float, high: Array | float) -> Array:
        grid = UnitGrid(float(np.ravel(low)[0]), float(np.ravel(high)[0]))
        return np.array([grid.squared_error(self.edges, self.counts, self.outliers, float(scale[0]))])

    def refitted(self, scale: Array, low: Array | float, high: Array | float) -> Array:
        values = np.concatenate([self.edges[:-1] + self.bin_width / 2, self.outliers])
        weights = np.concatenate([self.counts, np.ones(len(self.outliers))])
        codes = np.clip(np.rint(values / scale), low, high)
        squares = float(weights @ (codes * codes))
        product = float(weights @ (codes * values))
        return scale if squares == 0.0 or product <= 0.0 else np.array([product / squares])


def _search(objective: _Objective, spec: QuantizerSpec, fmt: IntFormat) -> Ranges:
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        search = _search_symmetric if spec.symmetric else _search_asymmetric
        return search(objective, spec, fmt)


def _search_symmetric(objective: _Objective, spec: QuantizerSpec, fmt: IntFormat) -> Ranges:
    middle = 0 if fmt.signed else 1 << (fmt.bits - 1)
    low, high = float(fmt.quant_min - middle), float(fmt.quant_max - middle)
    divisor = (high - low) / 2 if spec.full_range else high
    absmax = np.maximum(-objective.minimum, objective.maximum)

    def error(limit: Array) -> Array:
        return objective.error(np.maximum(limit / divisor, SMALLEST_SCALE), low, high)

    best = _Best(absmax, error(absmax))
    best = _scan_limits(best, np.minimum(objective.rms * _smallest_limit(fmt), absmax), absmax * 1.08, error)
    for _ in range(_REFITS):
        scale = np.maximum(best.limit / divisor, SMALLEST_SCALE)
        best = best.better(objective.refitted(scale, low, high) * divisor, error)
    limit = np.where(absmax > 0, best.limit, 0.0)
    return -limit, limit


def _search_asymmetric(objective: _Objective, spec: QuantizerSpec, fmt: IntFormat) -> Ranges:
    minimum, maximum = objective.minimum, objective.maximum
    levels = fmt.quant_max - fmt.quant_min

    def grid(low: Array, high: Array) -> tuple[Array, Array]:
        scale = np.maximum((high - low) / levels, SMALLEST_SCALE)
        return scale, np.maximum(np.rint(low / scale), -levels)

    def error(low: Array, high: Array) -> Array:
        scale, first = grid(low, high)
        return objective.error(scale, first, first + levels)

    absmax = np.maximum(-minimum, maximum)
    unit = np.maximum(absmax, SMALLEST_SCALE)
    lowest_ratio = np.minimum(objective.rms * _smallest_limit(fmt) / unit, 1.0)
    one = np.ones_like(unit)
    # Both ends together, then each alone around what was found.
    both = _scan_limits(
        _Best(one, error(minimum, maximum)),
        lowest_ratio,
        one * 1.08,
        lambda r: error(minimum * r, maximum * r),
        fine=(3,),
    ).limit
    low, high = minimum * both, maximum * both
    for spread, coarse in ((2.5, 8), (1.15, 4)):

        def scan(of_ratio: Callable[[Array], Array], spread: float = spread, coarse: int = coarse) -> Array:
            start = _Best(one, of_ratio(one))
            return _scan_limits(start, one / spread, one * spread, of_ratio, coarse=coarse, fine=(1,)).limit

        high = high * scan(partial(_second, error, low, high))
        low = low * scan(partial(_first, error, low, high))
    for _ in range(_REFITS):
        scale, first = grid(low, high)
        refitted = objective.refitted(scale, first, first + levels)
        keep = objective.error(refitted, first, first + levels) < error(low, high)
        low, high = np.where(keep, first * refitted, low), np.where(keep, (first + levels) * refitted, high)
    held = absmax > 0
    return np.where(held, np.minimum(low, 0.0), 0.0), np.where(held, np.maximum(high, 0.0), 0.0)


def _first(error: Callable[[Array, Array], Array], low: Array, high: Array, ratio: Array) -> Array:
    return error(low * ratio, high)


def _second(error: Callable[[Array, Array], Array], low: Array, high: Array, ratio: Array) -> Array:
    return error(low, high * ratio)


def _smallest_limit(fmt: IntFormat) -> float:
    """Return the smallest limit worth trying, in root mean squares; many levels leave no reason to clip much."""
    return 0.5 if fmt.bits <= 3 else 1.0 if fmt.bits <= 5 else 2.0


@dataclass(frozen=True, eq=False)
class _Best:
    """The best limit found for each group so far, with its error."""

    limit: Array
    error: Array

    def better(self, limit: Array, error: Callable[[Array], Array]) -> _Best:
        """Return the better of this and `limit`, group by group."""
        new = error(limit)
        keep = new < self.error
        return _Best(np.where(keep, limit, self.limit), np.where(keep, new, self.error))


def _scan_limits(
    best: _Best,
    smallest: Array,
    largest: Array,
    error: Callable[[Array], Array],
    *,
    coarse: int = _COARSE_STEPS,
    fine: tuple[int, ...] = (3, 3),
) -> _Best:
    """Try `coarse` limits from `smallest` to `largest` in equal ratios, then finer ones to both sides of the best."""
    smallest = np.maximum(smallest, largest * 1e-6)
    ratio = (largest / np.maximum(smallest, SMALLEST_SCALE)) ** (1.0 / (coarse - 1))
    limit = largest
    for _ in range(coarse):
        best = best.better(limit, error)
        limit = limit / ratio
    for steps in fine:
        center, finer = best.limit, ratio ** (1.0 / (steps + 1))
        for step in range(1, steps + 1):
            best = best.better(center * finer**step, error)
            best = best.better(center / finer**step, error)
        ratio = finer
    return best


# --- entropy -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Nonzero:
    """Histogram of all values but exact zeros, which every grid holds exactly."""

    edges: Array
    counts: Array

    @staticmethod
    def of(statistics: TensorStatistics, fmt: IntFormat, *, symmetric: bool) -> _Nonzero:
        low, high = min(statistics.minimum, 0.0), max(statistics.maximum, 0.0)
        if symmetric:
            low, high = -max(-low, high), max(-low, high)
        histogram = rebin(statistics, min(8 << fmt.bits, 1 << 14), low, high)
        counts = histogram.counts
        if statistics.zeros:
            counts[min(int(np.searchsorted(histogram.edges, 0.0, side="right")) - 1, len(counts) - 1)] -= (
                statistics.zeros
            )
        return _Nonzero(histogram.edges, np.maximum(counts, 0.0))


def _entropy_ratio(histogram: _Nonzero, spec: QuantizerSpec, fmt: IntFormat) -> float:
    """Return the share of the range (0.1 ... 1) with the least divergence; the widest of equals."""
    if fmt.bits > _ENTROPY_BITS or histogram.counts.sum() == 0.0:
        return 1.0
    divergences = [_divergence(histogram, float(ratio), spec, fmt) for ratio in _RATIOS]
    return float(_RATIOS[int(np.argmin(divergences))])


def _divergence(histogram: _Nonzero, ratio: float, spec: QuantizerSpec, fmt: IntFormat) -> float:
    """Return the KL divergence, in nats, of the histogram quantized on a clipped range from the histogram."""
    low, high = histogram.edges[0] * ratio, histogram.edges[-1] * ratio
    levels = fmt.quant_max - fmt.quant_min
    scale = (high - low) / levels
    centers = (histogram.edges[1:] + histogram.edges[:-1]) / 2
    inside = (centers >= low) & (centers <= high)
    if not inside.any():
        return math.inf
    clipped = histogram.counts[inside]
    reference = clipped.copy()
    first = int(np.argmax(inside))
    reference[0] += histogram.counts[:first].sum()
    reference[-1] += histogram.counts[first + len(clipped) :].sum()
    codes = np.clip(np.rint((centers[inside] - low) / scale), 0, levels).astype(np.intp)
    sums = np.bincount(codes, clipped, minlength=levels + 1)
    filled = np.bincount(codes, reference > 0, minlength=levels + 1)
    held = reference > 0
    spread = (sums / np.maximum(filled, 1.0))[codes][held]
    total = spread.sum()
    if total == 0.0:
        return math.inf
    p = reference[held] / reference.sum()
    # Bins that only clipped values fill have no probability after quantization; a millionth keeps the sum finite.
    q = np.maximum(spread / total, 1e-6 / len(spread))
    return float(p @ np.log(p / q))


def _weight_entropy(box: Array, spec: QuantizerSpec, fmt: IntFormat, shape: tuple[int, int]) -> Ranges:
    low, high = _min_max(box, spec, shape)
    group_size = box.size // max(shape[0] * shape[1], 1)
    if group_size < POOLED:
        return _pooled_entropy(box, spec, fmt, (low, high))
    if isinstance(spec.granularity, PerTensor):
        ratio = _entropy_ratio(_Nonzero.of(collect(box), fmt, symmetric=spec.symmetric), spec, fmt)
        return low * ratio, high * ratio

    def ratios(piece: Piece) -> tuple[Piece, Array, Array]:
        found = [
            _entropy_ratio(_Nonzero.of(collect(row), fmt, symmetric=spec.symmetric), spec, fmt)
            for row in _group_rows(box, piece)
        ]
        return piece, np.array(found), np.array(found)

    ratio_grid, _ = _filled(compute_each(ratios, _whole_groups(box, spec), box.size), shape)
    return low * ratio_grid, high * ratio_grid


def _pooled_entropy(box: Array, spec: QuantizerSpec, fmt: IntFormat, ranges: Ranges) -> Ranges:
    low, high = ranges
    absmax = np.maximum(-low, high)
    inverse = np.where(absmax > 0, 1.0 / np.maximum(absmax, SMALLEST_SCALE), 0.0).astype(np.float32)
    bins = min(8 << fmt.bits, 1 << 14)

    def count(piece: Piece) -> tuple[Array, int]:
        values = as_float32(piece.take(box)) * piece.spread(inverse)
        index = ((values.ravel() + 1.0) * (bins / 2)).astype(np.intp)
        zeros = values.size - int(np.count_nonzero(values))
        return np.bincount(np.clip(index, 0, bins - 1), minlength=bins), zeros

    a, c, b = box.shape
    counted = compute_each(count, pieces((a, c, b), spec.granularity), box.size)
    counts = np.sum([part for part, _ in counted], axis=0).astype(np.float64)
    counts[bins // 2] -= sum(zeros for _, zeros in counted)
    edges = np.linspace(-1.0, 1.0, bins + 1)
    if not spec.symmetric:
        held = np.flatnonzero(counts)
        first = min(int(held[0]), bins // 2) if len(held) else 0
        last = max(int(held[-1]) + 1, bins // 2, first + 1) if len(held) else bins
        edges, counts = edges[first : last + 1], counts[first:last]
    ratio = _entropy_ratio(_Nonzero(edges, counts), spec, fmt)
    return low * ratio, high * ratio
