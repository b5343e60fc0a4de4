"""Scales of least squared error on symmetric integer grids of few levels, without rounding all values for each.

With the codes that a scale gives, ``P = sum(x q)`` and ``Q = sum(q^2)``, the best scale is ``P / Q`` and leaves
``sum(x^2) - P^2 / Q``; the gain ``P^2 / Q`` is what is looked for. First it is computed on a few scales, widely spaced
and then around the best. There each value changes its code at one scale at most, so one weighted count of the changes
gives the gains on `_CHANGES` scales, each as exact as if all values had been rounded there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from quantgui.results import Array

BITS = range(2, 6)
"""On finer grids, values change their codes too often."""

_COARSE = 1.2
"""Ratio of one limit to the next over the whole range."""

_FINER = {
    2: (),
    3: (1.06, 1.12),
    4: (1.05, 1.05**2, 1.05**3),
    5: (1.025, 1.025**2, 1.025**3, 1.025**4, 1.025**5, 1.025**6),
}
"""Ratios, to either side of the best of these, of the limits tried next."""

_CHANGES = 64
_PIECE = 1 << 12


@dataclass(frozen=True, slots=True)
class NarrowGrid:
    """The integers ``low`` ... ``high`` of `bits` bits times a scale, of which `divisor` make the limit."""

    bits: int
    low: float
    high: float
    divisor: float

    @property
    def reach(self) -> float:
        """How far scales may go from one, as a share of it, so that no value changes its code twice."""
        return min(0.15, 0.499 / (max(-self.low, self.high) - 0.5))


def best_limits(rows: Array, largest: Array, smallest: Array, grid: NarrowGrid) -> Array:
    """Return the limits (G,), float64, of least squared error of groups (G, N) of finite float32 values.

    `largest`, (G,), are their largest magnitudes, neither huge nor tiny; no limit below the share `smallest` of them,
    (G,), needs to be tried.
    """
    # Groups that need the smallest limits come first: the others are left out there.
    order = np.argsort(smallest, kind="stable")
    units = rows[order]
    units *= (1.0 / largest[order]).astype(np.float32)[:, None]
    room = np.empty_like(units)
    scale, gain = _coarse_scale(units, smallest[order], grid, room)
    units *= (1.0 / scale).astype(np.float32)[:, None]
    if _FINER[grid.bits]:
        factor = _finer_factor(units, gain / scale**2, grid, room)
        units *= (1.0 / factor).astype(np.float32)[:, None]
        scale *= factor
    scale *= _last_factor(units, grid, room)
    limits = np.empty(len(rows))
    limits[order] = scale * grid.divisor
    limits *= largest
    return limits


def _gains(units: Array, factor: float, grid: NarrowGrid, room: Array) -> Array:
    """Return ``P^2 / Q``, float64 (G,), with the codes of values times a factor."""
    np.multiply(units, np.float32(factor), out=room)
    np.rint(room, out=room)
    np.clip(room, np.float32(grid.low), np.float32(grid.high), out=room)
    product, square = _dots(units, room), _dots(room, room)
    gains: Array = product * product / np.maximum(square, 0.5)
    return gains


def _dots(a: Array, b: Array) -> Array:
    """Return the products of rows, float64 (G,): of short pieces, which neither lose digits nor start threads."""
    products: Array = np.vecdot(a[:, :_PIECE], b[:, :_PIECE]).astype(np.float64)
    for at in range(_PIECE, a.shape[1], _PIECE):
        products += np.vecdot(a[:, at : at + _PIECE], b[:, at : at + _PIECE])
    return products


def _coarse_scale(units: Array, smallest: Array, grid: NarrowGrid, room: Array) -> tuple[Array, Array]:
    """Return the best of a few scales, and its gain, both (G,); the largest of the values is 1.

    `smallest` is in ascending order.
    """
    best, found = np.full(len(units), -1.0), np.ones(len(units))
    ratio, count = _COARSE**0.5, len(units)
    while count:
        gain = _gains(units[:count], grid.divisor / ratio, grid, room[:count])
        better = gain > best[:count]
        best[:count][better], found[:count][better] = gain[better], ratio
        count = int(np.searchsorted(smallest, ratio, side="right"))
        ratio /= _COARSE
    return found / grid.divisor, best


def _finer_factor(units: Array, best: Array, grid: NarrowGrid, room: Array) -> Array:
    """Return the best of 1, with the gains `best`, and some scales around it, (G,)."""
    found = np.ones(len(units))
    for step in _FINER[grid.bits]:
        for factor in (step, 1.0 / step):
            gain = _gains(units, 1.0 / factor, grid, room)
            better = gain > best
            best, found = np.where(better, gain, best), np.where(better, factor, found)
    return found


def _last_factor(units: Array, grid: NarrowGrid, room: Array) -> Array:
    """Return the best of many scales around 1, (G,); `units` are lost."""
    groups, bins = len(units), _CHANGES + 2
    # Beyond the last level no value changes its code.
    inside = np.float32(1.0 - 1e-6)
    np.clip(units, np.float32(grid.low) * inside, np.float32(grid.high) * inside, out=room)
    np.abs(units, out=units)
    np.abs(room, out=room)
    middles = np.floor(room)
    middles += np.float32(0.5)
    # Where, from the smallest scale to the largest, each value changes from the code above to that below.
    index = room / middles
    index -= np.float32(1.0 - grid.reach)
    index *= np.float32(_CHANGES / (2.0 * grid.reach))
    np.floor(index, out=index)
    # The sums at 1, by the same comparison, so that what lies on a border is not counted twice.
    np.greater_equal(index, np.float32(_CHANGES // 2), out=room)
    room += middles
    room -= np.float32(0.5)
    product, square = _dots(units, room), _dots(room, room)
    np.clip(index, np.float32(-1), np.float32(_CHANGES), out=index)
    index += (np.arange(groups, dtype=np.float32) * bins + 1)[:, None]
    # Two sums by one count: the middles of two codes are multiples of 1/2, and what is added to them stays below 1/4.
    share = 2.0 ** -(3 + math.ceil(math.log2(units.shape[1] * max(-grid.low, grid.high))))
    units.clip(np.float32(0), np.float32(max(-grid.low, grid.high)), out=units)
    weights = np.multiply(units, share, dtype=np.float64)
    weights += middles
    both = np.bincount(index.astype(np.intp).ravel(), weights.ravel(), minlength=groups * bins)
    both = both.reshape(groups, bins)[:, 1:-1]
    halves = np.rint(both * 2.0)
    # Running sums of two numbers at once take no longer than of one.
    sums = np.zeros((groups, _CHANGES + 1), np.complex128)
    sums.imag[:, 1:] = halves
    halves *= 0.5
    np.subtract(both, halves, out=sums.real[:, 1:])
    np.cumsum(sums, axis=1, out=sums)
    # Codes grow where the scale shrinks.
    middle = sums[:, _CHANGES // 2, None]
    products = (middle.real - sums.real) * (1.0 / share) + product[:, None]
    squares = middle.imag - sums.imag + square[:, None]
    fitted = products / np.maximum(squares, 0.5)
    products *= fitted
    return np.asarray(fitted[np.arange(groups), products.argmax(axis=1)])
