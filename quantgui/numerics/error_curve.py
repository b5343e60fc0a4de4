"""The error of a tensor as a function of its clipping limit, and where each range estimator lies on that curve.

A threshold is the absolute value of the larger end of the range. Symmetric ranges run from ``-threshold`` to
``threshold``; of asymmetric ones both ends of min-max are scaled in proportion. Of a weight with a range for each
group, all ranges are scaled by one factor, and the threshold is that of the widest.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from quantgui.numerics.affine import choose_weight_grid, fake_quantize_with
from quantgui.numerics.coarsening import coarsened
from quantgui.numerics.groups import as_matrix
from quantgui.numerics.levels import grid_of, quantized_levels
from quantgui.numerics.qparams import QParams
from quantgui.numerics.ranges import Extrema, estimate_range_from_statistics, weight_ranges
from quantgui.numerics.scales import choose_grid
from quantgui.numerics.statistics import decibels_each, nonzero_counts
from quantgui.results import Array, ErrorCurve, Pick, TensorStatistics
from quantgui.spec.formats import CodebookFormat, FloatFormat, IntFormat, UnevenFormat
from quantgui.spec.granularity import PerBlock, PerTensor
from quantgui.spec.quantizer import (
    Entropy,
    HalfQuadratic,
    InputWeightedError,
    LeastSquaredError,
    MinMax,
    MovingAverage,
    Percentile,
    QuantizerSpec,
    RangeEstimator,
    SampleMean,
    Trained,
    TwoSidedPercentile,
)

POINTS = 96
"""Thresholds of a curve from statistics."""

GROUP_POINTS = 28
"""Thresholds of a curve from a weight itself, each of which quantizes it."""

MOST_VALUES = 1 << 18
"""Weights of more values are known by some of their channels, evenly spaced."""

_UNEVEN_BINS = 1024
"""Bins in which the least error of an uneven grid is searched: each costs a search for its level."""

_MANY_LEVELS_BINS = 2048
"""Bins on which grids of many levels are measured."""

_FEW_LEVELS_BITS = 8
_AT_ONCE = 16
"""Grids measured at once, so that temporary arrays stay in the processor's cache."""

_BEYOND = 1.08
_NARROWEST = (0.005, 0.2)
"""The smallest threshold is half a root mean square, but between these shares of the largest value."""

_FROM_STATISTICS: tuple[RangeEstimator, ...] = (
    MinMax(),
    Percentile(),
    TwoSidedPercentile(),
    LeastSquaredError(),
    Entropy(),
)
_FROM_SAMPLES: tuple[RangeEstimator, ...] = (MovingAverage(), SampleMean())


def has_curve(spec: QuantizerSpec | None) -> bool:
    """Return whether the error depends on a clipping limit; codebooks and 16-bit floats have none.

    That of trained weights, each of which has found its place on its grid, says nothing about another grid.
    """
    return spec is not None and spec.has_scale and not isinstance(spec.range_estimator, Trained)


def thresholds_of(statistics: TensorStatistics, points: int = POINTS) -> Array:
    """Return the thresholds worth looking at, ascending in equal ratios, float64 (T,); none where all values are 0."""
    absmax = largest_value(statistics)
    if absmax == 0.0:
        return np.zeros(0)
    rms = math.sqrt(statistics.total_square / max(statistics.count, 1))
    lowest = min(max(0.5 * rms / absmax, _NARROWEST[0]), _NARROWEST[1])
    return np.geomspace(lowest, _BEYOND, points) * absmax


def largest_value(statistics: TensorStatistics) -> float:
    """Return the largest absolute value."""
    return max(-statistics.minimum, statistics.maximum, 0.0) if statistics.count else 0.0


def range_at(statistics: TensorStatistics, spec: QuantizerSpec, threshold: float) -> tuple[float, float]:
    """Return the range (low, high) with a threshold."""
    if spec.symmetric:
        return -threshold, threshold
    ratio = threshold / (largest_value(statistics) or 1.0)
    return min(statistics.minimum, 0.0) * ratio, max(statistics.maximum, 0.0) * ratio


def error_curve(
    statistics: TensorStatistics, spec: QuantizerSpec, thresholds: Array | None = None
) -> tuple[Array, Array]:
    """Return thresholds and the sqnr in dB with one range for all values, both (T,), from the fine histogram."""
    thresholds = thresholds_of(statistics) if thresholds is None else thresholds
    lows, highs = np.array([range_at(statistics, spec, float(t)) for t in thresholds]).reshape(-1, 2).T
    return thresholds, _Measured.of(statistics, spec).sqnr_db(lows, highs)


def statistics_curve(statistics: TensorStatistics, spec: QuantizerSpec, extrema: Extrema | None = None) -> ErrorCurve:
    """Return the curve of a tensor with one range, with the picks of all estimators that need no more than this.

    Half-quadratic quantization needs the values themselves. `extrema` are the smallest and the largest value of each
    sample; without them the estimators that average over samples are left out.
    """
    thresholds, sqnr_db = error_curve(statistics, spec)
    if not len(thresholds):
        return ErrorCurve(thresholds, sqnr_db, ())
    # Extrema and percentiles cost nothing; a search is quick enough on fewer bins.
    coarse = coarsened(statistics) if spec.is_integer else coarsened(statistics, _UNEVEN_BINS)
    estimators = with_own(_FROM_STATISTICS + (() if extrema is None else _FROM_SAMPLES), spec)
    ranges = []
    for estimator in estimators:
        source = coarse if isinstance(estimator, LeastSquaredError) else statistics
        ends = estimate_range_from_statistics(source, replace(spec, range_estimator=estimator), extrema)
        ranges.append(_limits(ends, spec))
    lows, highs = np.array(ranges).T
    errors = _Measured.of(statistics, spec).sqnr_db(lows, highs)
    picks = (Pick(each, *ends, float(error)) for each, ends, error in zip(estimators, ranges, errors, strict=True))
    return ErrorCurve(thresholds, sqnr_db, tuple(picks))


def with_own(estimators: Sequence[RangeEstimator], spec: QuantizerSpec) -> tuple[RangeEstimator, ...]:
    """Return `estimators`, with the one of `spec` in the place of that of its kind: its parameters may differ."""
    own = spec.range_estimator
    return tuple(own if type(own) is type(each) else each for each in estimators)


# --- weights with many ranges ------------------------------------------------------------------------------------


def weight_curve(
    x: Array, spec: QuantizerSpec, channel_axis: int, *, importance: Array | None = None
) -> Iterator[ErrorCurve | None]:
    """Yield None after each step, and at the end the curve of a weight whose groups have ranges of their own.

    Large weights are known by `MOST_VALUES` of their values: some whole channels, evenly spaced. The estimator that
    weighs errors by the `importance` of elements, (K,) or (C, K), is left out where that is not known.
    """
    matrix, rows = _some_channels(as_matrix(x, channel_axis), spec)
    used = len(matrix) / max(x.shape[channel_axis], 1)
    counts = importance[rows] if importance is not None and importance.ndim > 1 else importance
    lows, highs = weight_ranges(matrix, replace(spec, range_estimator=MinMax()), 0)
    absmax = max(float(-lows.min(initial=0.0)), float(highs.max(initial=0.0)))
    if absmax == 0.0:
        yield ErrorCurve(np.zeros(0), np.zeros(0), (), used)
        return
    signal = float(np.einsum("ck,ck->", matrix, matrix, dtype=np.float64))
    memory: Array = np.empty(matrix.shape, np.float32)

    def sqnr(low: Array, high: Array) -> float:
        qparams = choose_weight_grid(low, high, spec)
        return fake_quantize_with(matrix, spec, qparams, 0, out=memory)[1].sqnr_db

    # Of each group the share of its own range, from where hardly anything but clipping is left.
    widths = np.maximum(-lows, highs)
    rms = math.sqrt(signal / max(matrix.size, 1))
    typical = float(np.median(widths[widths > 0]))
    lowest = min(max(0.5 * rms / typical, 0.05), 0.35)
    shares = np.geomspace(lowest, _BEYOND, GROUP_POINTS)
    found = []
    for share in shares:
        found.append(sqnr(lows * share, highs * share))
        yield None
    picks = []
    for estimator in with_own(_WEIGHT_ESTIMATORS, spec):
        if isinstance(estimator, HalfQuadratic) and (spec.symmetric or not isinstance(spec.format, IntFormat)):
            continue
        weighs = isinstance(estimator, InputWeightedError)
        if weighs and counts is None:
            continue
        own = replace(spec, range_estimator=estimator)
        low, high = weight_ranges(matrix, own, 0, importance=counts if weighs else None)
        widest = int(np.argmax(np.maximum(-low, high)))
        ends = float(low.flat[widest]), float(high.flat[widest])
        picks.append(Pick(estimator, *_limits(ends, spec), sqnr(low, high)))
        yield None
    yield ErrorCurve(shares * absmax, np.array(found), tuple(picks), used)


_WEIGHT_ESTIMATORS: tuple[RangeEstimator, ...] = (*_FROM_STATISTICS, InputWeightedError(), HalfQuadratic())


def _limits(ends: tuple[float, float], spec: QuantizerSpec) -> tuple[float, float]:
    low, high = ends
    return (-max(-low, high), max(-low, high)) if spec.symmetric else (low, high)


def _some_channels(matrix: Array, spec: QuantizerSpec) -> tuple[Array, Array]:
    """Return the channels that are measured, and their places; blocks of several channels stay whole."""
    channels, elements = matrix.shape
    together = spec.granularity.rows if isinstance(spec.granularity, PerBlock) else 1
    blocks = -(-channels // together)
    most = max(MOST_VALUES // max(elements * together, 1), 1)
    if blocks <= most or isinstance(spec.granularity, PerTensor):
        return np.ascontiguousarray(matrix, np.float32), np.arange(channels)
    first = np.linspace(0, blocks - 1, most).round().astype(np.intp) * together
    rows = (first[:, None] + np.arange(together)).ravel()
    rows = rows[rows < channels]
    return np.ascontiguousarray(matrix[rows], np.float32), rows


@dataclass(frozen=True, eq=False)
class _Measured:
    """What the error with one range follows from, made ready once.

    Grids of few levels are measured by the moments of the values between the borders of their levels, which are
    differences of cumulative sums: the time depends on the number of levels and not on that of bins.
    """

    statistics: TensorStatistics
    spec: QuantizerSpec
    format: IntFormat | UnevenFormat
    edges: Array
    counts: Array
    cumulative: Array
    """Number, sum and sum of squares of the values below each edge, (3, B + 1)."""

    @staticmethod
    def of(statistics: TensorStatistics, spec: QuantizerSpec) -> _Measured:
        if isinstance(spec.format, FloatFormat | CodebookFormat):
            raise ValueError(f"{spec.format} has no range.")
        if spec.bits > _FEW_LEVELS_BITS:
            statistics = coarsened(statistics, _MANY_LEVELS_BINS)
        edges, counts = statistics.edges, nonzero_counts(statistics)
        width = statistics.bin_width
        cumulative = np.zeros((3, len(counts) + 1))
        if len(counts):
            powers = [np.diff(edges ** (n + 1)) / ((n + 1) * width) for n in range(3)]
            np.cumsum([counts * power for power in powers], axis=1, out=cumulative[:, 1:])
        return _Measured(statistics, spec, spec.format, edges, counts, cumulative)

    def sqnr_db(self, lows: Array, highs: Array) -> Array:
        """Return the sqnr on each of the grids that cover ``lows`` ... ``highs``, both (T,)."""
        # One grid after the other: stored scales of several groups depend on each other.
        found = [choose_grid(lows[i : i + 1], highs[i : i + 1], self.spec, self.format) for i in range(len(lows))]
        if self.spec.bits > _FEW_LEVELS_BITS:
            noise = np.array([self._noise_by_bins(qparams) for qparams in found])
        else:
            noise = np.zeros(len(found))
            for i in range(0, len(found), _AT_ONCE):
                noise[i : i + _AT_ONCE] = self._noise_by_levels(found[i : i + _AT_ONCE])
        return decibels_each(np.full(len(noise), self.statistics.total_square), noise)

    def _noise_by_bins(self, qparams: QParams) -> float:
        grid, scale = grid_of(qparams, self.format)
        noise = grid.squared_error(self.edges, self.counts, self.statistics.outliers, scale)
        return noise + self.statistics.zeros * float(grid.error(np.zeros(1))[0] * scale) ** 2

    def _noise_by_levels(self, grids: Sequence[QParams]) -> Array:
        levels = np.array([quantized_levels(qparams, self.format) for qparams in grids])
        borders = (levels[:, 1:] + levels[:, :-1]) / 2
        below = self._moments_below(borders)
        first, last = np.zeros((3, len(grids), 1)), np.broadcast_to(self.cumulative[:, None, -1:], (3, len(grids), 1))
        number, total, square = np.diff(np.concatenate([first, below, last], axis=2), axis=2)
        noise: Array = (square - 2.0 * levels * total + levels * levels * number).sum(axis=1)
        single = np.append(self.statistics.outliers, 0.0)
        weights = np.append(np.ones(len(self.statistics.outliers)), self.statistics.zeros)
        for i, own in enumerate(levels):
            error = single - own[np.searchsorted(borders[i], single)]
            noise[i] += float(weights @ (error * error))
        return np.maximum(noise, 0.0)

    def _moments_below(self, values: Array) -> Array:
        """Return the three cumulative moments at `values`; within a bin values are spread evenly."""
        bins = len(self.counts)
        if not bins:
            return np.zeros((3, *values.shape))
        width, first = self.statistics.bin_width, self.statistics.first_bin
        inside = np.clip(values, self.edges[0], self.edges[-1])
        index = np.clip((inside / width - first).astype(np.intp), 0, bins - 1)
        start, density = self.edges[index], self.counts[index] / width
        powers = [(inside ** (n + 1) - start ** (n + 1)) * density / (n + 1) for n in range(3)]
        return np.asarray(self.cumulative[:, index] + powers)


__all__ = [
    "error_curve",
    "has_curve",
    "largest_value",
    "range_at",
    "statistics_curve",
    "thresholds_of",
    "weight_curve",
    "with_own",
]
