"""Scales of least squared error on symmetric integer grids of few levels, each tried by one short pass over all values.

With the codes that a scale gives, ``P = sum(x q)`` and ``Q = sum(q^2)``, the best scale is ``P / Q`` and leaves
``sum(x^2) - P^2 / Q``; the gain ``P^2 / Q`` is what is looked for. It is computed on a few scales, widely spaced and
then closer and closer around the best of them. In the end the best is moved to its ``P / Q``, which never loses.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from quantgui.results import Array

BITS = range(2, 8)

_SMOOTH = (1.3, ((1.14,), (1.07,), (1.03,), (1.015,)))
_ROUGH = (1.2, ((1.05, 1.1), (1.02,), (1.01,), (1.005,)))
_STEPS = {
    2: _SMOOTH,
    3: _SMOOTH,
    4: _ROUGH,
    5: _ROUGH,
    6: (1.1, ((1.02, 1.04, 1.06), (1.005, 1.01), (1.0025,))),
    7: (1.1, ((1.01, 1.02, 1.03, 1.04, 1.05, 1.06, 1.07), (1.003, 1.006))),
}
"""By bits: ratio of one limit to the next over the whole range, and the ratios tried to either side of the best, again
and again. The more levels, the rougher is the error as a function of the limit."""

_REFITS = 2
_PIECE = 1 << 12


@dataclass(frozen=True, slots=True)
class NarrowGrid:
    """The integers ``low`` ... ``high`` of `bits` bits times a scale, of which `divisor` make the limit."""

    bits: int
    low: float
    high: float
    divisor: float


def best_limits(rows: Array, largest: Array, smallest: Array, grid: NarrowGrid) -> Array:
    """Return the limits (G,), float64, of least squared error of groups (G, N) of finite float32 values.

    `largest`, (G,), are their largest magnitudes, neither huge nor tiny; no limit below the share `smallest` of them,
    (G,), needs to be tried. Where all values are 0, so is the limit.
    """
    # Groups that need the smallest limits come first: the others are left out there.
    order = np.argsort(smallest, kind="stable")
    units = rows[order]
    units *= (1.0 / largest[order]).astype(np.float32)[:, None]
    search = _Search(units, grid)
    coarse, finer = _STEPS[grid.bits]
    ratio, count, shares = coarse**0.5, len(rows), smallest[order]
    while count:
        search.attempt(ratio / grid.divisor, count)
        count = int(np.searchsorted(shares, ratio, side="right"))
        ratio /= coarse
    for steps in finer:
        search.move(search.tried)
        for step in steps:
            search.attempt(step, len(rows))
            search.attempt(1.0 / step, len(rows))
    for _ in range(_REFITS):
        search.move(search.fitted)
        search.attempt(1.0, len(rows))
    limits = np.empty(len(rows))
    limits[order] = np.where(search.gain > 0.0, search.fitted, 0.0) * grid.divisor
    limits *= largest
    return limits


class _Search:
    """The best scales found so far for groups (G, N), all (G,).

    Attributes:
        tried: the scales that gave the codes.
        fitted: the scales that fit these codes best.
        gain: what these gain, 0 and less where nothing does.
    """

    def __init__(self, values: Array, grid: NarrowGrid) -> None:
        """Start with no scale tried; `values` are written to."""
        self.tried = np.ones(len(values))
        self.fitted = np.ones(len(values))
        self.gain = np.full(len(values), -1.0)
        # Values are kept in units of one scale for each group, so that one factor serves all groups.
        self._values, self._unit = values, np.ones(len(values))
        self._room = np.empty_like(values)
        self._grid = grid

    def move(self, unit: Array) -> None:
        """Make `unit`, (G,), the scales that what is tried next is relative to."""
        self._values *= (self._unit / unit).astype(np.float32)[:, None]
        self._unit = unit.copy()

    def attempt(self, factor: float, count: int) -> None:
        """Try `factor` times the unit in the first `count` groups."""
        values, codes, unit = self._values[:count], self._room[:count], self._unit[:count]
        np.multiply(values, np.float32(1.0 / factor), out=codes)
        np.rint(codes, out=codes)
        np.clip(codes, np.float32(self._grid.low), np.float32(self._grid.high), out=codes)
        product, square = _dots(values, codes), _dots(codes, codes)
        # Without any code but 0 there is nothing to gain, and no scale that fits.
        fitted = product / np.maximum(square, 0.5) * unit
        gain = product * fitted * unit
        better = gain > self.gain[:count]
        better &= fitted > 0.0
        for best, new in ((self.gain, gain), (self.fitted, fitted), (self.tried, factor * unit)):
            np.copyto(best[:count], new, where=better)


def _dots(a: Array, b: Array) -> Array:
    """Return the products of rows, float64 (G,): of short pieces, which neither lose digits nor start threads."""
    products: Array = np.vecdot(a[:, :_PIECE], b[:, :_PIECE]).astype(np.float64)
    for at in range(_PIECE, a.shape[1], _PIECE):
        products += np.vecdot(a[:, at : at + _PIECE], b[:, at : at + _PIECE])
    return products
