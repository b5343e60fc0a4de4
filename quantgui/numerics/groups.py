"""Which elements share a scale, as views: one vectorised kernel serves every granularity and memory order.

A weight of any shape is seen as a box (A, C, B): the axes before the channel axis, the channels, and the axes behind
it. The box is walked in pieces that fit the processor's cache; each piece is a view with a shape to which the scales
of its groups broadcast, so a weight whose channels lie last is never transposed in memory.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from quantgui.results import Array
from quantgui.spec import granularity as spec_granularity
from quantgui.spec.granularity import Granularity, PerBlock, PerChannel, PerGroup, PerTensor

CHUNK = 1 << 17
"""Elements per piece: half a MiB of float32. Smaller ones fit the cache better, but threads meet too often."""

SEARCHED = 1 << 19
"""Elements of the groups that are searched at once, in many short passes: threads meet after each of them."""

PARALLEL = 1 << 20
"""Smallest number of elements for which threads pay."""

Part = TypeVar("Part")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a box (A, C, B) with whole or partial groups.

    Attributes:
        slices: where it lies in the box.
        shape: shape of the piece's view, to which `spread` scales broadcast.
        grid: where its groups lie in the grid of scales (C, groups per channel).
        axes: axes of the view along which a group extends.
        transposed: whether the view holds the group's number before the channel.
        block: whether a group holds several channels, which lie on axis 0, or on axis 2 if transposed.
    """

    slices: tuple[slice, slice, slice]
    shape: tuple[int, int, int]
    grid: tuple[slice, slice]
    axes: tuple[int, ...]
    transposed: bool = False
    block: bool = False

    def take(self, box: Array) -> Array:
        """Return the piece of `box` as a view; what is written to it is written to the box."""
        part = box[self.slices]
        return part if part.shape == self.shape else part.reshape(self.shape, copy=False)

    def spread(self, grid: Array) -> Array:
        """Return the values of `grid` (C, groups per channel) in a shape that broadcasts to the piece."""
        return self.spread_own(grid[self.grid])

    def spread_own(self, part: Array) -> Array:
        """Return the values of this piece's own part of a grid in a shape that broadcasts to the piece."""
        return np.expand_dims(part.T if self.transposed else part, self.axes).reshape(self._spread_shape)

    def gather(self, reduced: Array) -> Array:
        """Return values reduced along `axes` in the shape of the piece's part of the grid."""
        rows, columns = (s.stop - s.start for s in self.grid)
        return reduced.reshape(columns, rows).T if self.transposed else reduced.reshape(rows, columns)

    @property
    def _spread_shape(self) -> tuple[int, ...]:
        return tuple(1 if axis in self.axes else size for axis, size in enumerate(self.shape))


def as_matrix(x: Array, channel_axis: int) -> Array:
    """Return `x` as a matrix (C, K), channels by elements per channel; a view where memory order allows."""
    channels = x.shape[channel_axis]
    return np.moveaxis(x, channel_axis, 0).reshape(channels, elements_per_channel(x.shape, channel_axis))


def from_matrix(matrix: Array, shape: tuple[int, ...], channel_axis: int) -> Array:
    """Return a matrix (C, K) in the `shape` it had before `as_matrix`; a view where memory order allows."""
    axis = channel_axis % len(shape)
    moved = (shape[axis], *shape[:axis], *shape[axis + 1 :])
    return np.moveaxis(matrix.reshape(moved), 0, axis)


def as_float32(part: Array) -> Array:
    """Return `part` as float32, itself if it is."""
    if part.dtype == np.float32:
        return part
    with np.errstate(over="ignore", under="ignore"):
        return part.astype(np.float32)


def elements_per_channel(shape: tuple[int, ...], channel_axis: int) -> int:
    """Return K.

    >>> elements_per_channel((8, 3, 5, 5), 0)
    75
    """
    axis = channel_axis % len(shape)
    return math.prod(shape[:axis]) * math.prod(shape[axis + 1 :])


def grid_shape(shape: tuple[int, ...], channel_axis: int, granularity: Granularity) -> tuple[int, int]:
    """Return the shape of the scales: (C, groups per channel), (1, 1) per tensor.

    >>> grid_shape((10, 70), 0, PerGroup(32))
    (10, 3)
    """
    channels = shape[channel_axis]
    return spec_granularity.grid_shape(channels, elements_per_channel(shape, channel_axis), granularity)


def as_box(x: Array, channel_axis: int) -> Array:
    """Return `x` as a box (A, C, B); a view unless `x` has a memory order in which axes cannot be joined."""
    axis = channel_axis % x.ndim
    return x.reshape(math.prod(x.shape[:axis]), x.shape[axis], math.prod(x.shape[axis + 1 :]))


def needs_reordering(shape: tuple[int, ...], channel_axis: int, granularity: Granularity) -> bool:
    """Return whether a group spans both sides of the channel axis, so that no view holds it in one piece."""
    axis = channel_axis % len(shape)
    spans = math.prod(shape[:axis]) > 1 and math.prod(shape[axis + 1 :]) > 1
    return spans and isinstance(granularity, PerGroup | PerBlock)


def pieces(box_shape: tuple[int, int, int], granularity: Granularity, chunk: int = CHUNK) -> Iterator[Piece]:
    """Yield the pieces of a box (A, C, B), each of about `chunk` elements, in a fixed order.

    A piece holds whole groups `PerGroup` and `PerBlock`, but may hold a part of a channel or tensor.
    """
    before, channels, behind = box_shape
    if 0 in box_shape:
        return
    match granularity:
        case PerTensor():
            for part in _blocks(box_shape, chunk):
                yield Piece(part, _shape(part), (slice(0, 1), slice(0, 1)), (0, 1, 2))
        case PerChannel():
            for part in _blocks(box_shape, chunk):
                yield Piece(part, _shape(part), (part[1], slice(0, 1)), (0, 2))
        case PerGroup(group_size):
            if before > 1 and behind > 1:
                raise ValueError("A group spans both sides of the channel axis; reorder the weight first.")
            if behind > 1 or before == 1:
                yield from _row_groups(channels, behind, group_size, chunk)
            else:
                yield from _column_groups(before, channels, group_size, chunk)
        case PerBlock(rows, columns):
            if before > 1 and behind > 1:
                raise ValueError("A block spans both sides of the channel axis; reorder the weight first.")
            if behind > 1 or before == 1:
                yield from _row_blocks(channels, behind, (rows, columns), chunk)
            else:
                yield from _column_blocks(before, channels, (rows, columns), chunk)


def _blocks(box_shape: tuple[int, int, int], chunk: int) -> Iterator[tuple[slice, slice, slice]]:
    before, channels, behind = box_shape
    width = min(behind, chunk)
    height = min(channels, max(1, chunk // width))
    depth = min(before, max(1, chunk // (width * height)))
    for a in _steps(before, depth):
        for c in _steps(channels, height):
            for b in _steps(behind, width):
                yield a, c, b


def _row_groups(channels: int, elements: int, size: int, chunk: int) -> Iterator[Piece]:
    whole, rest = divmod(elements, size)
    width = min(max(whole, 1), max(1, chunk // size))
    height = min(channels, max(1, chunk // (width * size)))
    for c in _steps(channels, height):
        rows = c.stop - c.start
        for g in _steps(whole, width):
            part = (slice(0, 1), c, slice(g.start * size, g.stop * size))
            yield Piece(part, (rows, g.stop - g.start, size), (c, g), (2,))
        if rest:
            part = (slice(0, 1), c, slice(whole * size, elements))
            yield Piece(part, (rows, 1, rest), (c, slice(whole, whole + 1)), (2,))


def _column_groups(elements: int, channels: int, size: int, chunk: int) -> Iterator[Piece]:
    whole, rest = divmod(elements, size)
    width = min(channels, max(1, chunk // size))
    depth = min(max(whole, 1), max(1, chunk // (width * size)))
    for c in _steps(channels, width):
        columns = c.stop - c.start
        for g in _steps(whole, depth):
            part = (slice(g.start * size, g.stop * size), c, slice(0, 1))
            yield Piece(part, (g.stop - g.start, size, columns), (c, g), (1,), transposed=True)
        if rest:
            part = (slice(whole * size, elements), c, slice(0, 1))
            yield Piece(part, (1, rest, columns), (c, slice(whole, whole + 1)), (1,), transposed=True)


def _row_blocks(channels: int, elements: int, size: tuple[int, int], chunk: int) -> Iterator[Piece]:
    """Yield rows of blocks, views (channels of a block, blocks, columns of a block)."""
    rows, columns = size
    for down, c in enumerate(_steps(channels, rows)):
        height = c.stop - c.start
        for b, along, width in _block_runs(elements, columns, max(1, chunk // (height * columns))):
            shape = (height, along.stop - along.start, width)
            yield Piece((slice(0, 1), c, b), shape, (slice(down, down + 1), along), (0, 2), block=True)


def _column_blocks(elements: int, channels: int, size: tuple[int, int], chunk: int) -> Iterator[Piece]:
    """Yield rows of blocks where channels lie last, views (blocks, columns of a block, channels of a block)."""
    rows, columns = size
    for down, c in enumerate(_steps(channels, rows)):
        height = c.stop - c.start
        for a, along, width in _block_runs(elements, columns, max(1, chunk // (height * columns))):
            shape = (along.stop - along.start, width, height)
            grid = (slice(down, down + 1), along)
            yield Piece((a, c, slice(0, 1)), shape, grid, (1, 2), transposed=True, block=True)


def _block_runs(elements: int, columns: int, most: int) -> Iterator[tuple[slice, slice, int]]:
    """Yield runs of at most `most` blocks: their elements, their numbers, and the columns of each."""
    whole, rest = divmod(elements, columns)
    for run in _steps(whole, most):
        yield slice(run.start * columns, run.stop * columns), run, columns
    if rest:
        yield slice(whole * columns, elements), slice(whole, whole + 1), rest


def _steps(total: int, step: int) -> Iterator[slice]:
    for start in range(0, total, step):
        yield slice(start, min(start + step, total))


def _shape(part: tuple[slice, slice, slice]) -> tuple[int, int, int]:
    a, c, b = part
    return a.stop - a.start, c.stop - c.start, b.stop - b.start


def ordered_box(x: Array, channel_axis: int) -> Array:
    """Return the box (A, C, B) of `x`; the transposed view of a matrix is walked as it lies in memory."""
    if x.ndim == 2 and channel_axis % 2 == 0 and abs(x.strides[0]) < abs(x.strides[1]):
        return x.T[:, :, None]
    return as_box(x, channel_axis)


def whole_groups(box: Array, granularity: Granularity) -> Iterator[Piece]:
    """Yield pieces that hold whole groups, whatever their size."""
    a, c, b = box.shape
    if isinstance(granularity, PerTensor):
        everything = (slice(0, a), slice(0, c), slice(0, b))
        yield Piece(everything, (a, c, b), (slice(0, 1), slice(0, 1)), (0, 1, 2))
        return
    if not isinstance(granularity, PerChannel):
        yield from pieces((a, c, b), granularity)
        return
    # Channels that lie last are gathered from cache lines of 16 values.
    step = max(SEARCHED // max(a * b, 1), 1 if a == 1 else 16)
    for start in range(0, c, step):
        rows = slice(start, min(start + step, c))
        part = (slice(0, a), rows, slice(0, b))
        yield Piece(part, (a, rows.stop - start, b), (rows, slice(0, 1)), (0, 2))


def group_rows(box: Array, piece: Piece) -> Array:
    """Return the groups of a piece as float32 rows (G, N), in the order of the piece's part of the grid."""
    part = piece.take(box)
    rows, columns = (s.stop - s.start for s in piece.grid)
    if piece.transposed and not piece.block:
        part = part.transpose(2, 0, 1)
    elif piece.axes == (0, 2):
        part = part.transpose(1, 0, 2)
    return np.ascontiguousarray(as_float32(part)).reshape(rows * columns, part.size // (rows * columns))


def compute_each(
    compute: Callable[[Part], Result], parts: Iterable[Part], elements: int, *, single: bool = False
) -> list[Result]:
    """Return ``compute(part)`` for each part, in order; in threads where `elements` are many.

    numpy releases the interpreter's lock inside its loops. The result does not depend on the number of threads.
    """
    threads = 1 if single or elements < PARALLEL else min(4, _processors())
    if threads == 1:
        return [compute(part) for part in parts]
    items = list(parts)
    # A few large runs of parts rather than one task per part: the hand-over costs as much as a small piece.
    run = max(1, len(items) // (8 * threads))
    runs = [items[start : start + run] for start in range(0, len(items), run)]
    with ThreadPoolExecutor(threads) as pool:
        return [result for results in pool.map(lambda part: [compute(p) for p in part], runs) for result in results]


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
