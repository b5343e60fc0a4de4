"""Range estimators: from values or statistics to (low, high) of each group. Ranges always contain 0.

Least squared error is searched in each group on its own: the clipping limit runs from around the root mean square to
a little beyond the largest value, first in coarse then in finer steps, and the scale is then refitted to the codes
it gives (``scale = sum(x q) / sum(q^2)``), which never makes the error larger. Scales that are powers of two are few
enough to try them all; for grids of few levels there is a shorter way (`narrow_grids`), which large weights take.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np

from quantgui.errors import SpecError
from quantgui.numerics.groups import (
    Piece,
    as_float32,
    as_matrix,
    compute_each,
    grid_shape,
    group_rows,
    needs_reordering,
    ordered_box,
    pieces,
    whole_groups,
)
from quantgui.numerics.half_quadratic import half_quadratic_ranges
from quantgui.numerics.levels import Grid, UnitGrid, nearest_levels, uneven_grid
from quantgui.numerics.minifloat import largest_power
from quantgui.numerics.narrow_grids import BITS, NarrowGrid, best_limits
from quantgui.numerics.qparams import SMALLEST_SCALE
from quantgui.numerics.scales import largest_level
from quantgui.numerics.statistics import collect, nonzero_counts, quantile, rebin
from quantgui.results import Array, TensorStatistics
from quantgui.spec.formats import CodebookFormat, FloatFormat, IntFormat, UnevenFormat
from quantgui.spec.granularity import PerTensor
from quantgui.spec.quantizer import (
    Entropy,
    FixedRange,
    HalfQuadratic,
    InputWeightedError,
    LeastSquaredError,
    MinMax,
    MovingAverage,
    Percentile,
    QuantizerSpec,
    SampleMean,
    Trained,
    TwoSidedPercentile,
)

LARGE_GROUP = 1 << 20
"""Groups of more values than this are searched on their fine histogram."""

POOLED = 4096
"""Groups of fewer values are too small for a histogram of their own: entropy gives them one common clipping ratio."""

MANY = 1 << 16
"""Long groups of weights of more values than this are searched by short passes, on grids of few levels."""

LONG_GROUP = 256
"""Shorter groups are searched in the common way, whatever their number."""

_COARSE_STEPS = 20
_REFITS = 3
_RATIOS = np.linspace(1.0, 0.1, 73)
_ENTROPY_BITS = 11

_POWERS_TRIED = (2, 1, -1, -2, -3, -4)
"""How far from its first choice the exponent of a scale is tried."""

Ranges = tuple[Array, Array]
Extrema = tuple[Array, Array]
"""Smallest and largest value of each sample, both (S,)."""

_Scaled = IntFormat | UnevenFormat


def estimate_ranges(matrix: Array, spec: QuantizerSpec) -> Ranges:
    """Return (low, high), each float64 (G,), of a weight seen as a matrix (C, K); groups run channel by channel."""
    low, high = weight_ranges(matrix, spec, 0)
    return low.reshape(-1), high.reshape(-1)


def weight_ranges(x: Array, spec: QuantizerSpec, channel_axis: int, *, importance: Array | None = None) -> Ranges:
    """Return (low, high) of a weight of any shape, each float64 (rows, columns) of its grid, (1, 1) per tensor.

    `importance`, (K,), or (C, K) where channels differ in it, is how much the squared error of each of a channel's
    elements counts where the least squared error is looked for; the mean square of the input that it is multiplied by
    makes that the error of the output, as far as inputs are not correlated.

    Raises:
        SpecError: the estimator averages over samples, which a weight has not.
    """
    fmt = _scaled_format(spec)
    shape = grid_shape(x.shape, channel_axis, spec.granularity)
    if needs_reordering(x.shape, channel_axis, spec.granularity):
        x, channel_axis = np.ascontiguousarray(as_matrix(x, channel_axis)), 0
    box = ordered_box(x, channel_axis)
    match spec.range_estimator:
        case FixedRange(low, high):
            return np.full(shape, low), np.full(shape, high)
        case MinMax():
            return _min_max(box, spec, shape)
        case MovingAverage() | SampleMean():
            raise SpecError("Weights have no samples to average over; choose another range estimator for them.")
        case Trained():
            raise ValueError("Trained weights bring their scales with them.")
        case InputWeightedError() if importance is None:
            raise ValueError("Errors can be weighted only by the inputs' mean squares.")
        case _ if x.size == 0:
            return np.zeros(shape), np.zeros(shape)
        case Entropy():
            return _weight_entropy(box, spec, fmt, shape)
        case Percentile() | TwoSidedPercentile() | LeastSquaredError() | InputWeightedError() | HalfQuadratic():
            pass
    is_large = isinstance(spec.granularity, PerTensor) and x.size > LARGE_GROUP
    if is_large and importance is None and not isinstance(spec.range_estimator, HalfQuadratic):
        low_one, high_one = estimate_range_from_statistics(collect(box), spec)
        return np.full(shape, low_one), np.full(shape, high_one)
    weights = None if importance is None else _spread_importance(importance, box.shape)

    def estimate(piece: Piece) -> tuple[Piece, Array, Array]:
        rows = None if weights is None else group_rows(weights, piece)
        return piece, *_group_ranges(group_rows(box, piece), spec, fmt, rows, many=x.size > MANY)

    return _filled(compute_each(estimate, whole_groups(box, spec.granularity), x.size), shape)


def estimate_range_from_statistics(
    statistics: TensorStatistics, spec: QuantizerSpec, extrema: Extrema | None = None
) -> tuple[float, float]:
    """Return (low, high) of a tensor quantized with one scale, such as an activation, from its statistics.

    Estimators that average over samples take `extrema`, in the order of the samples.

    Raises:
        SpecError: the estimator is not for activations.
    """
    fmt = _scaled_format(spec)
    low, high = min(statistics.minimum, 0.0), max(statistics.maximum, 0.0)
    match spec.range_estimator:
        case FixedRange(low, high):
            return low, high
        case MinMax():
            return low, high
        case MovingAverage() | SampleMean() as estimator:
            if extrema is None:
                raise ValueError("Averages over samples need the extrema of each.")
            momentum = estimator.momentum if isinstance(estimator, MovingAverage) else None
            return _average_extrema(extrema, momentum)
        case HalfQuadratic():
            raise SpecError("Half-quadratic quantization is for weights; choose another range estimator.")
        case InputWeightedError():
            raise SpecError("Input-weighted error is for weights; choose another range estimator.")
        case Trained():
            raise ValueError("Trained weights bring their scales with them.")
        case _ if statistics.count == 0 or low == high:
            return low, high
        case Percentile() | TwoSidedPercentile() as estimator:
            lower, upper = _tails(estimator)
            return min(quantile(statistics, lower), 0.0), max(quantile(statistics, upper), 0.0)
        case LeastSquaredError():
            lows, highs = _search(_Bins.of(statistics, fmt), spec, fmt)
            return float(lows[0]), float(highs[0])
        case Entropy():
            ratio = _entropy_ratio(_Nonzero.of(statistics, fmt, symmetric=spec.symmetric), spec, fmt)
            return low * ratio, high * ratio


def _average_extrema(extrema: Extrema, momentum: float | None) -> tuple[float, float]:
    """Return the mean of the extrema of samples, or with a momentum their moving average."""
    minima, maxima = (np.asarray(each, np.float64) for each in extrema)
    held = np.isfinite(minima) & np.isfinite(maxima)
    minima, maxima = minima[held], maxima[held]
    if not minima.size:
        return 0.0, 0.0
    shares = np.full(minima.size, 1.0 / minima.size)
    if momentum is not None:
        shares = (1.0 - momentum) * momentum ** np.arange(minima.size - 1, -1, -1.0)
        # The first sample is where the average starts.
        shares[0] = momentum ** (minima.size - 1)
    return min(float(shares @ minima), 0.0), max(float(shares @ maxima), 0.0)


def _tails(estimator: Percentile | TwoSidedPercentile) -> tuple[float, float]:
    """Return the shares of all values below the lower and below the upper end."""
    if isinstance(estimator, TwoSidedPercentile):
        return estimator.lower / 100.0, estimator.upper / 100.0
    tail = (1.0 - estimator.percentile / 100.0) / 2.0
    return tail, 1.0 - tail


# --- walking the groups --------------------------------------------------------------------------------------------


def _scaled_format(spec: QuantizerSpec) -> _Scaled:
    match spec.format:
        case FloatFormat() | CodebookFormat():
            raise ValueError(f"{spec.format} has no range.")
        case fmt:
            return fmt


def _spread_importance(importance: Array, shape: tuple[int, ...]) -> Array:
    """Return the importance, (K,) or (C, K), of the elements of each channel as a box (A, C, B), a view."""
    before, channels, behind = shape
    weights = np.asarray(importance, np.float32)
    if weights.ndim > 1:
        return weights.reshape(channels, before, behind).transpose(1, 0, 2)
    weights = weights.reshape(before, 1, behind)
    return np.broadcast_to(weights, (before, channels, behind))


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


def _group_ranges(rows: Array, spec: QuantizerSpec, fmt: _Scaled, weights: Array | None, *, many: bool) -> Ranges:
    match spec.range_estimator:
        case Percentile() | TwoSidedPercentile() as estimator:
            lower, upper = _tails(estimator)
            low, high = np.percentile(rows, [100.0 * lower, 100.0 * upper], axis=1)
            return np.minimum(low, 0.0), np.maximum(high, 0.0)
        case HalfQuadratic() if isinstance(fmt, IntFormat):
            return half_quadratic_ranges(rows, fmt)
        case _ if rows.shape[1] > LARGE_GROUP and weights is None:
            found = [_search(_Bins.of(collect(row), fmt), spec, fmt) for row in rows]
            return np.concatenate([low for low, _ in found]), np.concatenate([high for _, high in found])
        case _:
            if many and weights is None and _is_narrow(rows, spec, fmt):
                return _search_narrow(rows, spec, fmt)
            return _search(_Values.of(rows, fmt, weights), spec, fmt)


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
    format: _Scaled
    room: tuple[Array, Array]
    weights: Array | None = None

    @staticmethod
    def of(rows: Array, fmt: _Scaled, weights: Array | None = None) -> _Values:
        axis = 1 if rows.shape[1] >= 256 else 0
        values = rows if axis == 1 else np.ascontiguousarray(rows.T)
        if weights is not None and axis == 0:
            weights = np.ascontiguousarray(weights.T)
        low = np.minimum(values.min(axis=axis), 0.0).astype(np.float64)
        high = np.maximum(values.max(axis=axis), 0.0).astype(np.float64)
        # Values of one chunk are brought near 1, so that no square leaves the range of float32.
        largest = np.maximum(np.maximum(-low, high), SMALLEST_SCALE)
        exponent = np.clip(np.frexp(largest)[1], -120, 120)
        scaled = np.ldexp(values, np.expand_dims(-exponent, axis))
        rms = np.sqrt(_sum_of_squares(scaled, axis) / max(rows.shape[1], 1))
        if weights is not None:
            # Where small values count most, more is worth clipping.
            total = np.maximum(weights.sum(axis, dtype=np.float64), SMALLEST_SCALE)
            weighted = np.sqrt((scaled * scaled * weights).sum(axis, dtype=np.float64) / total)
            rms = np.minimum(rms, weighted)
        rms = rms * np.ldexp(1.0, exponent)
        room = np.empty_like(values), np.empty_like(values)
        return _Values(values, axis, low, high, rms, fmt, room, weights)

    def error(self, scale: Array, low: Array | float, high: Array | float) -> Array:
        rest, codes = self._rounded(scale, low, high)
        rest -= codes
        error: Array = self._products(rest, rest) * scale**2
        return error

    def refitted(self, scale: Array, low: Array | float, high: Array | float) -> Array:
        units, codes = self._rounded(scale, low, high)
        products, squares = self._products(units, codes), self._products(codes, codes)
        fits = (squares > 0) & (products > 0)
        fitted: Array = scale * np.where(fits, products / np.where(fits, squares, 1.0), 1.0)
        return fitted

    def _rounded(self, scale: Array, low: Array | float, high: Array | float) -> tuple[Array, Array]:
        """Return the values in units of the scale, and their codes; the next call writes over both."""
        units, codes = self.room
        np.multiply(self.values, self._along(1.0 / scale), out=units)
        if not isinstance(self.format, IntFormat):
            return units, nearest_levels(units, self.format, out=codes)
        np.rint(units, out=codes)
        return units, np.clip(codes, self._along(low), self._along(high), out=codes)

    def _products(self, a: Array, b: Array) -> Array:
        if self.weights is not None:
            a = a * self.weights
        products: Array = np.einsum("gn,gn->g" if self.axis else "ng,ng->g", a, b).astype(np.float64)
        return products

    def _along(self, per_group: Array | float) -> Array | float:
        if isinstance(per_group, float):
            return per_group
        return np.expand_dims(per_group, self.axis).astype(np.float32)


def _sum_of_squares(values: Array, axis: int) -> Array:
    squares: Array = np.einsum("gn,gn->g" if axis else "ng,ng->g", values, values).astype(np.float64)
    return squares


@dataclass(frozen=True, eq=False)
class _Bins:
    """One group, known by its fine histogram; exact zeros are counted apart, as most grids hold them."""

    minimum: Array
    maximum: Array
    rms: Array
    bin_width: float
    edges: Array
    counts: Array
    outliers: Array
    zeros: int
    format: _Scaled

    @staticmethod
    def of(statistics: TensorStatistics, fmt: _Scaled) -> _Bins:
        return _Bins(
            np.array([min(statistics.minimum, 0.0)]),
            np.array([max(statistics.maximum, 0.0)]),
            np.array([math.sqrt(statistics.total_square / max(statistics.count, 1))]),
            statistics.bin_width,
            statistics.edges,
            nonzero_counts(statistics),
            statistics.outliers,
            statistics.zeros,
            fmt,
        )

    def error(self, scale: Array, low: Array | float, high: Array | float) -> Array:
        grid = self._grid(low, high)
        of_zeros = self.zeros * float(grid.error(np.zeros(1))[0] * scale[0]) ** 2
        return np.array([grid.squared_error(self.edges, self.counts, self.outliers, float(scale[0])) + of_zeros])

    def refitted(self, scale: Array, low: Array | float, high: Array | float) -> Array:
        values = np.concatenate([self.edges[:-1] + self.bin_width / 2, self.outliers, [0.0]])
        weights = np.concatenate([self.counts, np.ones(len(self.outliers)), [self.zeros]])
        units = values / scale
        codes = units - self._grid(low, high).error(units)
        squares = float(weights @ (codes * codes))
        product = float(weights @ (codes * values))
        return scale if squares == 0.0 or product <= 0.0 else np.array([product / squares])

    def _grid(self, low: Array | float, high: Array | float) -> Grid:
        if isinstance(self.format, IntFormat):
            return UnitGrid(float(np.ravel(low)[0]), float(np.ravel(high)[0]))
        return uneven_grid(self.format)


def _is_narrow(rows: Array, spec: QuantizerSpec, fmt: _Scaled) -> bool:
    """Return whether `narrow_grids` finds the scales of rows, which is the shorter way."""
    is_narrow = isinstance(fmt, IntFormat) and fmt.bits in BITS and rows.shape[1] >= LONG_GROUP
    return is_narrow and spec.symmetric and spec.scale_format != "e8m0"


def _search_narrow(rows: Array, spec: QuantizerSpec, fmt: _Scaled) -> Ranges:
    grid = NarrowGrid(fmt.bits, *_ends(fmt), _divisor(spec, fmt))
    largest = np.maximum(-rows.min(axis=1), rows.max(axis=1)).astype(np.float64)
    # Neither NaN nor what leaves the range of float32 when squared.
    usual = (largest > 1e-15) & (largest < 1e15)
    unit = np.where(usual, largest, 1.0)
    rms = np.sqrt(_sum_of_squares(rows, 1) / rows.shape[1])
    smallest = np.where(usual, rms * _smallest_limit(fmt) / unit, 1.0)
    rest = ~(usual | (largest == 0.0))
    limit = np.zeros(len(rows))
    if not rest.any():
        limit = best_limits(rows, unit, smallest, grid)
    else:
        if not rest.all():
            limit[~rest] = best_limits(rows[~rest], unit[~rest], smallest[~rest], grid)
        _, limit[rest] = _search(_Values.of(rows[rest], fmt), spec, fmt)
    return -limit, limit


def _search(objective: _Objective, spec: QuantizerSpec, fmt: _Scaled) -> Ranges:
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        if not spec.symmetric and isinstance(fmt, IntFormat):
            return _search_asymmetric(objective, spec, fmt)
        if spec.scale_format == "e8m0":
            return _search_powers(objective, fmt)
        return _search_symmetric(objective, spec, fmt)


def _ends(fmt: _Scaled) -> tuple[float, float]:
    """Return the smallest and the largest level of a symmetric grid."""
    if not isinstance(fmt, IntFormat):
        return fmt.levels[0], fmt.largest
    middle = 0 if fmt.signed else 1 << (fmt.bits - 1)
    return float(fmt.quant_min - middle), float(fmt.quant_max - middle)


def _divisor(spec: QuantizerSpec, fmt: _Scaled) -> float:
    """Return the scales in the limit of a symmetric grid."""
    low, high = _ends(fmt)
    return (high - low) / 2 if spec.full_range else high


def _search_symmetric(objective: _Objective, spec: QuantizerSpec, fmt: _Scaled) -> Ranges:
    low, high = _ends(fmt)
    divisor = _divisor(spec, fmt)
    absmax = np.maximum(-objective.minimum, objective.maximum)

    def error(limit: Array) -> Array:
        return objective.error(np.maximum(limit / divisor, SMALLEST_SCALE), low, high)

    if fmt.bits == 1:
        # The signs are the same at every scale, so the first fit of the scale to them is the best.
        limit = np.where(absmax > 0, objective.refitted(np.maximum(absmax, SMALLEST_SCALE), low, high), 0.0)
        return -limit, limit
    best = _Best(absmax, error(absmax))
    best = _scan_limits(best, np.minimum(objective.rms * _smallest_limit(fmt), absmax), absmax * 1.08, error)
    for _ in range(_REFITS):
        scale = np.maximum(best.limit / divisor, SMALLEST_SCALE)
        best = best.better(objective.refitted(scale, low, high) * divisor, error)
    limit = np.where(absmax > 0, best.limit, 0.0)
    return -limit, limit


def _search_powers(objective: _Objective, fmt: _Scaled) -> Ranges:
    """Try the powers of two around the one that the largest value asks for; the largest of equals."""
    low, high = _ends(fmt)
    absmax = np.maximum(-objective.minimum, objective.maximum)
    # The limit at which `scales.choose_grid` picks the power, not the largest value of the grid.
    power = largest_power(largest_level(fmt))
    limit = np.ldexp(1.0, np.frexp(np.maximum(absmax, SMALLEST_SCALE))[1] - 1)

    def error(limit: Array) -> Array:
        return objective.error(np.maximum(np.ldexp(limit, -power), SMALLEST_SCALE), low, high)

    best = _Best(limit, error(limit))
    for step in _POWERS_TRIED:
        best = best.better(np.ldexp(limit, step), error)
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
    )
    low, high, least = minimum * both.limit, maximum * both.limit, both.error
    for spread, coarse in ((2.5, 8), (1.15, 4)):
        for end in (_second, _first):
            of_ratio = partial(end, error, low, high)
            best = _scan_limits(_Best(one, least), one / spread, one * spread, of_ratio, coarse=coarse, fine=(1,))
            low, high = (low, high * best.limit) if end is _second else (low * best.limit, high)
            least = best.error
    for _ in range(_REFITS):
        scale, first = grid(low, high)
        refitted = objective.refitted(scale, first, first + levels)
        keep = objective.error(refitted, first, first + levels) < least
        low, high = np.where(keep, first * refitted, low), np.where(keep, (first + levels) * refitted, high)
        least = error(low, high)
    held = absmax > 0
    return np.where(held, np.minimum(low, 0.0), 0.0), np.where(held, np.maximum(high, 0.0), 0.0)


def _first(error: Callable[[Array, Array], Array], low: Array, high: Array, ratio: Array) -> Array:
    return error(low * ratio, high)


def _second(error: Callable[[Array, Array], Array], low: Array, high: Array, ratio: Array) -> Array:
    return error(low, high * ratio)


def _smallest_limit(fmt: _Scaled) -> float:
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
    def of(statistics: TensorStatistics, fmt: _Scaled, *, symmetric: bool) -> _Nonzero:
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


def _entropy_ratio(histogram: _Nonzero, spec: QuantizerSpec, fmt: _Scaled) -> float:
    """Return the share of the range (0.1 ... 1) with the least divergence; the widest of equals."""
    if fmt.bits > _ENTROPY_BITS or histogram.counts.sum() == 0.0:
        return 1.0
    divergences = [_divergence(histogram, float(ratio), fmt) for ratio in _RATIOS]
    return float(_RATIOS[int(np.argmin(divergences))])


def _divergence(histogram: _Nonzero, ratio: float, fmt: _Scaled) -> float:
    """Return the KL divergence, in nats, of the histogram quantized on a clipped range from the histogram."""
    low, high = histogram.edges[0] * ratio, histogram.edges[-1] * ratio
    centers = (histogram.edges[1:] + histogram.edges[:-1]) / 2
    inside = (centers >= low) & (centers <= high)
    if not inside.any():
        return math.inf
    clipped = histogram.counts[inside]
    reference = clipped.copy()
    first = int(np.argmax(inside))
    reference[0] += histogram.counts[:first].sum()
    reference[-1] += histogram.counts[first + len(clipped) :].sum()
    if isinstance(fmt, IntFormat):
        levels = fmt.quant_max - fmt.quant_min
        scale = (high - low) / levels
        codes = np.clip(np.rint((centers[inside] - low) / scale), 0, levels).astype(np.intp)
    else:
        codes = uneven_grid(fmt).numbers(centers[inside] * (fmt.largest / high))
    sums = np.bincount(codes, clipped)
    filled = np.bincount(codes, reference > 0)
    held = reference > 0
    spread = (sums / np.maximum(filled, 1.0))[codes][held]
    total = spread.sum()
    if total == 0.0:
        return math.inf
    p = reference[held] / reference.sum()
    # Bins that only clipped values fill have no probability after quantization; a millionth keeps the sum finite.
    q = np.maximum(spread / total, 1e-6 / len(spread))
    return float(p @ np.log(p / q))


def _weight_entropy(box: Array, spec: QuantizerSpec, fmt: _Scaled, shape: tuple[int, int]) -> Ranges:
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
            for row in group_rows(box, piece)
        ]
        return piece, np.array(found), np.array(found)

    ratio_grid, _ = _filled(compute_each(ratios, whole_groups(box, spec.granularity), box.size), shape)
    return low * ratio_grid, high * ratio_grid


def _pooled_entropy(box: Array, spec: QuantizerSpec, fmt: _Scaled, ranges: Ranges) -> Ranges:
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
