"""Levels fitted to the values of each group: k-means on a line.

On a line, the values that belong to a level lie side by side, so with sorted values and their running sums a step of
Lloyd's algorithm costs one search per border instead of one look at every value. It starts from the cells that are made
by cutting, again and again, where a cut saves most; lone outliers get a level of their own that way, as they should.
"""

from __future__ import annotations

import numpy as np

from quantgui.numerics.groups import (
    Piece,
    as_matrix,
    compute_each,
    grid_shape,
    group_rows,
    needs_reordering,
    ordered_box,
    whole_groups,
)
from quantgui.numerics.qparams import QParams
from quantgui.numerics.scales import rounded_scales
from quantgui.numerics.statistics import collect, nonzero_counts
from quantgui.results import Array, TensorStatistics
from quantgui.spec.formats import CodebookFormat
from quantgui.spec.quantizer import QuantizerSpec

LARGE_GROUP = 1 << 20
"""Groups of more values than this are fitted to their fine histogram."""

_STEPS = 60
_CANDIDATES = 513
_ENDS = 33


def weight_codebooks(x: Array, spec: QuantizerSpec, channel_axis: int, fmt: CodebookFormat) -> QParams:
    """Return the codebook of each group of a weight, channel by channel; levels (G, L) as `spec` stores them."""
    shape = grid_shape(x.shape, channel_axis, spec.granularity)
    if needs_reordering(x.shape, channel_axis, spec.granularity):
        x, channel_axis = np.ascontiguousarray(as_matrix(x, channel_axis)), 0
    box = ordered_box(x, channel_axis)
    levels = np.zeros((*shape, fmt.size), np.float32)

    def fit(piece: Piece) -> tuple[Piece, Array]:
        if piece.take(box).size > LARGE_GROUP and levels[piece.grid].size == fmt.size:
            return piece, fit_statistics(collect(piece.take(box)), fmt.size)[None]
        return piece, fit_rows(group_rows(box, piece), fmt.size)

    if x.size:
        for piece, found in compute_each(fit, whole_groups(box, spec.granularity), x.size):
            levels[piece.grid] = found.reshape(levels[piece.grid].shape)
    flat = _stored(levels.reshape(-1, fmt.size), spec)
    return QParams(np.ones(len(flat), np.float32), np.zeros(len(flat), np.int32), flat)


def fit_rows(rows: Array, size: int) -> Array:
    """Return `size` levels, float32 (G, size) in ascending order, for each row of values (G, N)."""
    values = np.sort(rows, axis=1)
    count = values.shape[1]
    if count <= size:
        # Each value is a level, the largest as often as is needed.
        return np.pad(np.asarray(values, np.float32), ((0, 0), (0, size - count)), mode="edge")
    held = np.broadcast_to(np.arange(count + 1, dtype=np.float64), (len(values), count + 1))
    return _fitted(values, held, _running(values.astype(np.float64)), size, _candidates(count))


def fit_statistics(statistics: TensorStatistics, size: int) -> Array:
    """Return `size` levels, float32 in ascending order, for values known by their fine histogram."""
    centers = (statistics.first_bin + np.arange(len(statistics.counts)) + 0.5) * statistics.bin_width
    values = np.concatenate([centers, statistics.outliers, [0.0]])
    counts = np.concatenate([nonzero_counts(statistics), np.ones(len(statistics.outliers)), [statistics.zeros]])
    order = np.argsort(values)
    order = order[counts[order] > 0]
    values, counts = values[None, order], counts[None, order]
    everywhere = np.arange(values.shape[1] + 1)
    return np.asarray(_fitted(values, _running(counts), _running(values * counts), size, everywhere)[0])


def _candidates(count: int) -> Array:
    """Return where `count` sorted values may first be cut: anywhere among few or at the ends, else at equal shares."""
    ends = np.arange(min(_ENDS, count + 1))
    return np.unique(np.concatenate([ends, np.linspace(0, count, _CANDIDATES).astype(np.intp), count - ends]))


def _fitted(values: Array, held: Array, sums: Array, size: int, candidates: Array) -> Array:
    """Return the levels for sorted values (G, N), with running counts and running sums, both (G, N + 1)."""
    search = _Search(values)
    cuts = candidates[_split(held[:, candidates], sums[:, candidates], size)]
    levels = np.take_along_axis(values, np.minimum(cuts[:, :-1], values.shape[1] - 1), 1).astype(np.float64)
    for _ in range(_STEPS):
        count = np.diff(np.take_along_axis(held, cuts, 1), axis=1)
        total = np.diff(np.take_along_axis(sums, cuts, 1), axis=1)
        # A level without values stays where it is.
        levels = np.where(count > 0, total / np.maximum(count, 1.0), levels)
        levels = np.maximum.accumulate(levels, axis=1)
        places = search((levels[:, 1:] + levels[:, :-1]) / 2)
        if np.array_equal(places, cuts[:, 1:-1]):
            break
        cuts[:, 1:-1] = places
    return np.asarray(levels, np.float32)


def _split(held: Array, sums: Array, size: int) -> Array:
    """Return where sorted rows are cut into `size` cells, (G, size + 1), each time where a cut saves most.

    What a cut at i of the cell from a to b saves is ``s(a, i)^2 / n(a, i) + s(i, b)^2 / n(i, b) - s(a, b)^2 / n(a, b)``
    with the sums s and counts n of its parts.
    """
    rows, last = sums.shape[0], sums.shape[1] - 1
    place, row = np.arange(last), np.arange(rows)
    # Sums around the mean of each row, or large offsets would leave no digits for the differences.
    sums = sums - held * (sums[:, -1:] / held[:, -1:])
    count, total = held[:, :-1], sums[:, :-1]
    start, end = np.zeros((rows, last), np.intp), np.full((rows, last), last)
    first_count, first_total = np.zeros((rows, last)), np.zeros((rows, last))
    last_count, last_total = (np.repeat(each[:, -1:], last, axis=1) for each in (held, sums))
    cuts = np.full((rows, size + 1), last)
    cuts[:, 0] = 0
    for number in range(1, size):
        left, right = count - first_count, last_count - count
        saved = _square_per(total - first_total, left) + _square_per(last_total - total, right)
        saved -= _square_per(last_total - first_total, left + right)
        best = np.argmax(saved, axis=1)
        cuts[:, number] = np.where(saved[row, best] > 0, best, last)
        cut, first, behind = (each[:, None] for each in (best, start[row, best], end[row, best]))
        after, before = (place >= cut) & (place < behind), (place >= first) & (place < cut)
        np.copyto(start, cut, where=after)
        np.copyto(first_count, count[row, best][:, None], where=after)
        np.copyto(first_total, total[row, best][:, None], where=after)
        np.copyto(end, cut, where=before)
        np.copyto(last_count, count[row, best][:, None], where=before)
        np.copyto(last_total, total[row, best][:, None], where=before)
    return np.sort(cuts, axis=1)


def _square_per(total: Array, count: Array) -> Array:
    """Return ``total^2 / count``, 0 where nothing is counted."""
    square: Array = total * total
    return np.divide(square, count, out=np.zeros_like(square), where=count > 0)


class _Search:
    """Finds places in sorted rows (G, N), all rows at once: each is moved to a stretch of its own of one long line."""

    def __init__(self, rows: Array) -> None:
        exact = rows.astype(np.float64)
        self._first = exact[:, :1]
        self._width = np.maximum(exact[:, -1:] - self._first, np.finfo(np.float64).tiny)
        self._stretch = 2.0 * np.arange(len(rows))[:, None]
        self._columns = rows.shape[1]
        self._line = ((exact - self._first) / self._width + self._stretch).ravel()

    def __call__(self, wanted: Array) -> Array:
        """Return how many values of each row are not above each of its `wanted` (G, M)."""
        keys = np.clip((wanted - self._first) / self._width, -0.5, 1.25) + self._stretch
        places = np.searchsorted(self._line, keys.ravel(), side="right").reshape(wanted.shape)
        own: Array = places - np.arange(len(wanted))[:, None] * self._columns
        return np.clip(own, 0, self._columns, out=own)


def _running(values: Array) -> Array:
    """Return 0 and the sums of the first 1, 2, ... values of each row, (G, N + 1)."""
    sums = np.zeros((values.shape[0], values.shape[1] + 1))
    np.cumsum(values, axis=1, out=sums[:, 1:])
    return sums


def _stored(levels: Array, spec: QuantizerSpec) -> Array:
    """Return levels as `spec` stores them; scales, which are positive, are rounded by the same rule."""
    if spec.scale_format == "float32":
        return levels
    magnitude = rounded_scales(np.abs(levels).ravel(), spec.scale_format).reshape(levels.shape)
    return np.where(levels == 0.0, np.float32(0.0), np.copysign(magnitude, levels))
