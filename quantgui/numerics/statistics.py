"""What is known of a tensor's values whatever its format becomes: streamed, mergeable, bit-width-independent.

The fine histogram has bins whose width is a power of two, aligned to 0, so that two histograms merge exactly: the
finer one is made coarser by adding up neighbours. Bins reach ``HALF_BINS`` widths to either side of 0; the width is
the smallest power of two (of a fixed series) that leaves at most ``OUTLIERS`` values outside. Those are kept one by
one, so a lone outlier does not blur all other values. Both rules depend only on the set of values seen, never on the
order or the batches in which they came.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from quantgui.numerics.groups import as_box, as_float32, pieces
from quantgui.numerics.levels import Grid, LevelGrid, UnitGrid, grid_of
from quantgui.numerics.qparams import QParams, choose_qparams, normal_scale
from quantgui.results import Array, ChannelStatistics, Histogram, TensorError, TensorStatistics
from quantgui.spec.formats import Format, IntFormat, UnevenFormat
from quantgui.spec.granularity import PerChannel, PerTensor

HALF_BINS = 1 << 15
OUTLIERS = 256
"""Most values kept one by one outside the bins."""

DEEPEST = 12
"""Bins are at most 2**12 times finer than those that would hold all values."""

SERIES = 4
"""Finer widths are tried in steps of 2**4."""

_SMALLEST_EXPONENT = -149 - 15
_NONE = np.empty(0)


def collect(x: Array) -> TensorStatistics:
    """Return the statistics of all values of `x` (any shape), taken as float32; non-finite ones are only counted.

    One thread: counting holds the interpreter's lock, so more of them gain nothing here.
    """
    if x.size == 0:
        return _empty(0)
    box = as_box(x, 0) if x.ndim else x.reshape(1, 1, 1)
    parts = [piece.take(box) for piece in pieces(_shape3(box), PerTensor(), 1 << 17)]
    ends = _Ends.joined([_Ends.of(part) for part in parts])
    if ends.count == 0:
        return _empty(ends.non_finite)
    full = _exponent(max(-ends.minimum, ends.maximum))
    first, counts = _count(parts, full, ends)
    exponent = _finest(full, first, counts)
    outliers = _NONE
    if exponent < full:
        limit = math.ldexp(HALF_BINS, exponent)
        outliers = np.sort(np.concatenate([_outside(part, limit) for part in parts]))
        first, counts = _count(parts, exponent, ends)
    return TensorStatistics(
        count=ends.count,
        minimum=ends.minimum,
        maximum=ends.maximum,
        total=ends.total,
        total_square=ends.total_square,
        bin_width=math.ldexp(1.0, exponent),
        first_bin=first,
        counts=counts,
        zeros=ends.zeros,
        non_finite=ends.non_finite,
        outliers=outliers,
    )


def merge(a: TensorStatistics, b: TensorStatistics) -> TensorStatistics:
    """Return the statistics of the values of both together, as if they had been collected at once."""
    if not a.count or not b.count:
        some = a if a.count else b
        return _with_non_finite(some, a.non_finite + b.non_finite)
    minimum, maximum = min(a.minimum, b.minimum), max(a.maximum, b.maximum)
    exponent = max(math.frexp(a.bin_width)[1], math.frexp(b.bin_width)[1]) - 1
    loose = np.sort(np.concatenate([a.outliers, b.outliers]))
    loose_bins = np.floor(np.ldexp(loose, -exponent))
    while True:
        inside = (loose_bins >= -HALF_BINS) & (loose_bins < HALF_BINS)
        outside = len(loose) - int(np.count_nonzero(inside))
        if _allowed(exponent, _exponent(max(-minimum, maximum))) and outside <= OUTLIERS:
            break
        exponent += 1
        loose_bins = np.floor(np.ldexp(loose, -exponent))
    parts = [_coarser(a, exponent), _coarser(b, exponent)]
    if inside.any():
        parts.append(_bincount(loose_bins[inside].astype(np.intp)))
    first, counts = _added(parts)
    return TensorStatistics(
        count=a.count + b.count,
        minimum=minimum,
        maximum=maximum,
        total=a.total + b.total,
        total_square=a.total_square + b.total_square,
        bin_width=math.ldexp(1.0, exponent),
        first_bin=first,
        counts=counts,
        zeros=a.zeros + b.zeros,
        non_finite=a.non_finite + b.non_finite,
        outliers=loose[~inside],
    )


def channel_statistics(matrix: Array) -> ChannelStatistics:
    """Return minimum, maximum, mean and standard deviation of each row of a matrix (C, K); 0 where K is 0."""
    channels, elements = matrix.shape
    if matrix.size == 0:
        zeros = np.zeros(channels)
        return ChannelStatistics(zeros, zeros, zeros, zeros)
    low, high = np.full(channels, np.inf), np.full(channels, -np.inf)
    total, square = np.zeros(channels), np.zeros(channels)
    # Channels that lie last in memory are walked as they lie.
    box = matrix.T[:, :, None] if matrix.strides[0] < matrix.strides[1] else matrix[None]
    for piece in pieces(_shape3(box), PerChannel()):
        rows = piece.grid[0]
        part = piece.take(box)
        low[rows] = np.minimum(low[rows], part.min(axis=(0, 2)))
        high[rows] = np.maximum(high[rows], part.max(axis=(0, 2)))
        part = part.astype(np.float64)
        total[rows] += part.sum(axis=(0, 2))
        square[rows] += np.einsum("acb,acb->c", part, part)
    mean = total / elements
    return ChannelStatistics(low, high, mean, np.sqrt(np.maximum(square / elements - mean**2, 0.0)))


def rebin(statistics: TensorStatistics, bins: int, low: float | None = None, high: float | None = None) -> Histogram:
    """Return a histogram of `bins` bins for drawing, from `low` to `high` (default: smallest and largest value).

    Counts are float64: a fine bin that is cut by an edge is divided in proportion.
    """
    low = statistics.minimum if low is None else low
    high = statistics.maximum if high is None else high
    if high <= low:
        margin = abs(low) * 1e-3 or 0.5
        low, high = low - margin, high + margin
    edges = np.linspace(low, high, bins + 1)
    cumulative = _cumulative(statistics, edges)
    if high >= statistics.maximum:
        # The largest value lies on the last edge, the bin that holds it may reach beyond.
        cumulative[-1] = statistics.counts.sum() - statistics.zeros
    counts = np.diff(cumulative)
    if statistics.zeros:
        counts[_bin_of(edges, 0.0)] += statistics.zeros if low <= 0.0 <= high else 0
    inside = (statistics.outliers >= low) & (statistics.outliers <= high)
    counts += np.histogram(statistics.outliers[inside], edges)[0]
    return Histogram(edges, counts)


def quantile(statistics: TensorStatistics, share: float) -> float:
    """Return the value below which `share` (0 ... 1) of all values lie, exact to one fine bin."""
    if statistics.count == 0:
        return 0.0
    outliers = statistics.outliers
    below = int(np.count_nonzero(outliers < 0.0))
    rank = share * (statistics.count - 1)
    if rank < below:
        return float(outliers[int(rank)])
    above = len(outliers) - below
    if rank > statistics.count - 1 - above and above:
        return float(outliers[min(len(outliers) - 1, below + math.ceil(rank - (statistics.count - above)))])
    cumulative = np.cumsum(statistics.counts)
    index = int(np.searchsorted(cumulative, rank - below, side="right"))
    index = min(index, len(statistics.counts) - 1)
    start = cumulative[index] - statistics.counts[index]
    within = (rank - below - start) / max(int(statistics.counts[index]), 1)
    value = (statistics.first_bin + index + within) * statistics.bin_width
    return float(min(max(value, statistics.minimum), statistics.maximum))


def estimate_error(
    statistics: TensorStatistics,
    low: float,
    high: float,
    fmt: IntFormat | UnevenFormat,
    *,
    symmetric: bool = False,
    full_range: bool = False,
) -> TensorError:
    """Return the error the tensor would have with the range ``low`` ... ``high``, from the fine histogram alone.

    Minifloats and tables are always symmetric.
    """
    if isinstance(fmt, IntFormat):
        qparams = choose_qparams(low, high, fmt, symmetric=symmetric, full_range=full_range)
    else:
        scale = normal_scale(np.array([max(-low, high, 0.0) / fmt.largest]))
        qparams = QParams(scale, np.zeros(1, np.int32))
    return estimate_error_with(statistics, qparams, fmt)


def estimate_error_with(statistics: TensorStatistics, qparams: QParams, fmt: Format) -> TensorError:
    """Return the error the tensor would have on a given grid (one scale), evenly spaced or not.

    Values are taken to be spread evenly within each fine bin, apart from exact zeros.
    """
    if statistics.count == 0:
        return TensorError(math.inf, 0.0, 0.0, 0.0)
    grid, scale = grid_of(qparams, fmt)
    counts, edges = nonzero_counts(statistics), statistics.edges
    noise = grid.squared_error(edges, counts, statistics.outliers, scale)
    noise += statistics.zeros * float(grid.error(np.zeros(1))[0] * scale) ** 2
    below, not_above = _cumulative(statistics, np.array(grid.limits) * scale)
    inside = not_above - below + statistics.zeros
    outside = int(np.count_nonzero(grid.clips(statistics.outliers / scale)))
    clipped = outside + (statistics.count - len(statistics.outliers) - inside)
    return TensorError(
        sqnr_db=decibels(statistics.total_square, noise),
        mse=noise / statistics.count,
        max_abs=_largest_error(statistics, counts, edges / scale, grid, scale),
        clipped=min(max(float(clipped) / statistics.count, 0.0), 1.0),
    )


def quantized_levels_histogram(
    statistics: TensorStatistics, qparams: QParams, fmt: Format, *, max_bins: int = 1024
) -> Histogram:
    """Return how many values come to lie on each level of a grid (one scale).

    Of an evenly spaced grid each bin is one scale wide with a level in its middle; grids of more than `max_bins` levels
    have several levels in each bin. Uneven levels lie in bins of equal width, narrow enough to tell most of them apart.
    Counts are float64 estimates from the fine histogram.
    """
    grid, scale = grid_of(qparams, fmt)
    if isinstance(grid, LevelGrid):
        return _uneven_histogram(statistics, grid, scale, max_bins)
    per_bin = -(-grid.count // max_bins)
    bins = -(-grid.count // per_bin)
    borders = grid.low - 0.5 + per_bin * np.arange(bins + 1)
    cumulative = _cumulative(statistics, borders * scale)
    cumulative[0], cumulative[-1] = 0.0, statistics.counts.sum() - statistics.zeros
    counts = np.diff(cumulative)
    counts += np.bincount(grid.numbers(statistics.outliers / scale) // per_bin, minlength=bins)
    counts[int(-grid.low // per_bin)] += statistics.zeros
    return Histogram(borders * scale, counts)


def _uneven_histogram(statistics: TensorStatistics, grid: LevelGrid, scale: float, bins: int) -> Histogram:
    borders = np.concatenate([[-np.inf], grid.borders, [np.inf]])
    counts = np.diff(_cumulative(statistics, borders * scale))
    counts += np.bincount(grid.numbers(statistics.outliers / scale), minlength=grid.count)
    counts[grid.numbers(np.zeros(1))] += statistics.zeros
    # An odd number of bins has one around 0 where the levels lie symmetrically.
    bins = (bins - 1) | 1
    margin = max(grid.high - grid.low, abs(grid.high)) / (2 * (bins - 1)) or 0.5
    edges = np.linspace(grid.low - margin, grid.high + margin, bins + 1)
    return Histogram(edges * scale, np.histogram(grid.levels, edges, weights=counts)[0])


def estimate_error_histogram(statistics: TensorStatistics, qparams: QParams, fmt: Format, bins: int = 101) -> Histogram:
    """Return the histogram of ``x - x'`` on a grid (one scale), estimated from the fine histogram."""
    grid, scale = grid_of(qparams, fmt)
    centers = (statistics.first_bin + np.arange(len(statistics.counts)) + 0.5) * statistics.bin_width / scale
    counts = nonzero_counts(statistics)
    errors = np.concatenate([grid.error(centers), grid.error(statistics.outliers / scale), grid.error(np.zeros(1))])
    weights = np.concatenate([counts, np.ones(len(statistics.outliers)), [statistics.zeros]])
    held = weights > 0
    least = 0.5 if isinstance(grid, UnitGrid) else 1e-6 * (abs(grid.low) + abs(grid.high)) or 0.5
    reach = max(float(np.abs(errors[held]).max(initial=0.0)), least)
    edges = np.linspace(-reach, reach, bins + 1)
    index = np.minimum(((errors[held] + reach) * (bins / (2 * reach))).astype(np.intp), bins - 1)
    return Histogram(edges * scale, np.bincount(index, weights[held], minlength=bins))


def decibels(signal: float, noise: float) -> float:
    """Return 10 log10(signal / noise); inf where there is no noise, -inf where there is nothing but noise."""
    if noise == 0.0:
        return math.inf
    if signal == 0.0 or math.isinf(noise) or math.isnan(noise):
        return -math.inf
    return 10.0 * (math.log10(signal) - math.log10(noise))


def decibels_each(signal: Array, noise: Array) -> Array:
    """Return `decibels` element by element."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(noise == 0.0, np.inf, 10.0 * (np.log10(signal) - np.log10(noise)))


@dataclass(frozen=True, slots=True)
class _Ends:
    count: int
    non_finite: int
    zeros: int
    minimum: float
    maximum: float
    total: float
    total_square: float

    @staticmethod
    def of(part: Array) -> _Ends:
        values = as_float32(part)
        low, high = float(values.min()), float(values.max())
        non_finite = 0
        if not (math.isfinite(low) and math.isfinite(high)):
            finite = values[np.isfinite(values)]
            non_finite = values.size - finite.size
            values = finite
            if not values.size:
                return _Ends(0, non_finite, 0, math.inf, -math.inf, 0.0, 0.0)
            low, high = float(values.min()), float(values.max())
        zeros = int(np.count_nonzero(values == 0))  # several times as fast as counting in floats
        total = float(values.sum(dtype=np.float64))
        return _Ends(values.size, non_finite, zeros, low, high, total, sum_of_squares(values, max(-low, high)))

    @staticmethod
    def joined(parts: list[_Ends]) -> _Ends:
        return _Ends(
            sum(p.count for p in parts),
            sum(p.non_finite for p in parts),
            sum(p.zeros for p in parts),
            min(p.minimum for p in parts),
            max(p.maximum for p in parts),
            math.fsum(p.total for p in parts),
            math.fsum(p.total_square for p in parts),
        )


def sum_of_squares(values: Array, largest: float) -> float:
    """Return the sum of the squares of float32 `values`, none larger than `largest`, as float64.

    Squares of very small or large values leave the range of float32; those are taken in float64.
    """
    if largest == 0.0:
        return 0.0
    if not 1e-12 < largest < 1e15:
        values = values.astype(np.float64)
    letters = "abc"[: values.ndim]
    return float(np.einsum(f"{letters},{letters}->", values, values))


def _shape3(box: Array) -> tuple[int, int, int]:
    a, c, b = box.shape
    return a, c, b


def _empty(non_finite: int) -> TensorStatistics:
    counts = np.zeros(0, np.int64)
    width = math.ldexp(1.0, _SMALLEST_EXPONENT)
    return TensorStatistics(0, 0.0, 0.0, 0.0, 0.0, width, 0, counts, 0, non_finite, _NONE)


def _with_non_finite(s: TensorStatistics, non_finite: int) -> TensorStatistics:
    return TensorStatistics(
        s.count, s.minimum, s.maximum, s.total, s.total_square, s.bin_width, s.first_bin, s.counts, s.zeros, non_finite,
        s.outliers,
    )  # fmt: skip


def _exponent(largest: float) -> int:
    """Return the exponent of the smallest power of two with ``largest < HALF_BINS * width``."""
    return max(math.frexp(largest)[1] - 15, _SMALLEST_EXPONENT) if largest else _SMALLEST_EXPONENT


def _allowed(exponent: int, full: int) -> bool:
    """Return whether bins may have the width 2**exponent where 2**full would hold all values.

    Finer widths come from one fixed series, so that whatever width a union of tensors needs, its parts have it or a
    finer one.
    """
    return exponent == full or (exponent % SERIES == 0 and full - DEEPEST <= exponent < full)


def _finest(full: int, first: int, counts: Array) -> int:
    """Return the smallest allowed exponent that leaves few enough values outside the bins."""
    cumulative = np.concatenate([[0], np.cumsum(counts)])
    best = full
    for exponent in range(full - 1, full - DEEPEST - 1, -1):
        reach = HALF_BINS >> (full - exponent)
        low, high = (min(max(edge - first, 0), len(counts)) for edge in (-reach, reach))
        if cumulative[-1] - (cumulative[high] - cumulative[low]) > OUTLIERS:
            break
        if exponent >= _SMALLEST_EXPONENT and _allowed(exponent, full):
            best = exponent
    return best


def _outside(part: Array, limit: float) -> Array:
    values = as_float32(part)
    with np.errstate(invalid="ignore"):
        outside = values[(values < -limit) | (values >= limit)]
    return outside[np.isfinite(outside)].astype(np.float64)


def _count(parts: list[Array], exponent: int, ends: _Ends) -> tuple[int, Array]:
    """Return the first bin and the counts of all finite values that lie in the bins of width 2**exponent."""
    first, last = (
        min(max(math.floor(math.ldexp(end, -exponent)), -HALF_BINS), HALF_BINS - 1)
        for end in (ends.minimum, ends.maximum)
    )
    all_fit = not ends.non_finite and _exponent(max(-ends.minimum, ends.maximum)) <= exponent
    # Of a power of two, exact; and a value that is not 0 cannot become 0.
    dtype, factor = (np.float32, np.float32(math.ldexp(1.0, -exponent))) if -100 < exponent <= 0 else (np.float64, None)
    memory: Array = np.empty(max(part.size for part in parts), dtype)
    counts = np.zeros(last - first + 1, np.int64)
    for part in parts:
        values = as_float32(part).ravel()
        bins = memory[: values.size]
        if factor is None:
            np.ldexp(values.astype(np.float64), -exponent, out=bins)
        else:
            np.multiply(values, factor, out=bins)
        np.floor(bins, out=bins)
        if not all_fit:
            bins = bins[(bins >= first) & (bins <= last)]
        if first:
            bins -= bins.dtype.type(first)
        counts += np.bincount(bins.astype(np.intp), minlength=len(counts))
    if all_fit:
        return first, counts
    held = np.flatnonzero(counts)
    return (first + int(held[0]), counts[held[0] : held[-1] + 1]) if len(held) else (0, counts[:0])


def _bincount(bins: Array) -> tuple[int, Array]:
    first = int(bins.min())
    return first, np.bincount(bins - first)


def _added(parts: list[tuple[int, Array]]) -> tuple[int, Array]:
    parts = [part for part in parts if len(part[1])]
    if not parts:
        return 0, np.zeros(0, np.int64)
    first = min(start for start, _ in parts)
    counts = np.zeros(max(start + len(part) for start, part in parts) - first, np.int64)
    for start, part in parts:
        counts[start - first : start - first + len(part)] += part
    return first, counts


def _coarser(statistics: TensorStatistics, exponent: int) -> tuple[int, Array]:
    """Return first bin and counts at the width 2**exponent, which is not finer than the statistics' own."""
    steps = exponent - (math.frexp(statistics.bin_width)[1] - 1)
    counts = statistics.counts
    if steps == 0 or not len(counts):
        return statistics.first_bin, counts
    bins = np.arange(statistics.first_bin, statistics.first_bin + len(counts)) >> min(steps, 62)
    first = int(bins[0])
    return first, np.bincount(bins - first, counts).astype(np.int64)


def nonzero_counts(statistics: TensorStatistics) -> Array:
    """Return the counts of the fine bins without exact zeros, float64 (B,)."""
    counts = statistics.counts.astype(np.float64)
    if statistics.zeros:
        counts[-statistics.first_bin] -= statistics.zeros
    return counts


def _cumulative(statistics: TensorStatistics, values: Array) -> Array:
    """Return how many values of the bins, exact zeros apart, lie below each of `values`."""
    if not len(statistics.counts):
        return np.zeros(len(values))
    cumulative = np.concatenate([[0.0], np.cumsum(nonzero_counts(statistics))])
    position = np.clip(values / statistics.bin_width - statistics.first_bin, 0.0, len(statistics.counts))
    # The outermost bins hold nothing beyond the extremes, where a clipped activation has many of its values.
    position = np.where(values >= statistics.maximum, float(len(statistics.counts)), position)
    position = np.where(values <= statistics.minimum, 0.0, position)
    index = np.minimum(position.astype(np.intp), len(statistics.counts) - 1)
    below: Array = cumulative[index] + (position - index) * (cumulative[index + 1] - cumulative[index])
    return below


def _bin_of(edges: Array, value: float) -> int:
    return int(np.clip(np.searchsorted(edges, value, side="right") - 1, 0, len(edges) - 2))


def _largest_error(statistics: TensorStatistics, counts: Array, edges: Array, grid: Grid, scale: float) -> float:
    held = np.flatnonzero(counts)
    centers = (edges[held] + edges[held + 1]) / 2
    inside = np.clip(centers, grid.low, grid.high)
    half_width = statistics.bin_width / scale / 2
    within = np.minimum(np.abs(grid.error(inside)) + half_width, grid.largest_rounding(inside))
    rounding = float(within.max(initial=0.0))
    single = np.concatenate([statistics.outliers, [statistics.minimum, statistics.maximum]]) / scale
    return max(rounding, float(np.abs(grid.error(single)).max())) * scale


__all__ = [
    "channel_statistics", "collect", "decibels",
    "decibels_each", "estimate_error", "estimate_error_histogram", "estimate_error_with",
    "merge", "quantile", "quantized_levels_histogram", "rebin", "sum_of_squares",
]  # fmt: skip
