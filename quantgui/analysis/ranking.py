"""The order of layers by sensitivity, and how certain it is."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np

from quantgui.analysis.scores import Estimate, difference_error
from quantgui.results import Array, RankedLayer

CERTAIN_ERRORS = 2.0
"""Standard errors that lie between two values whose order is certain."""
NEGLIGIBLE = 0.1
"""Part of the spread of all layers below which an error can change the order of like layers only."""


def ranked(estimates: Sequence[tuple[str, Estimate]], *, higher_is_better: bool) -> tuple[RankedLayer, ...]:
    """Return the layers, most sensitive first."""
    order = sorted(estimates, key=lambda each: _badness(each[1].value, higher_is_better=higher_is_better))
    certain = [is_certain(a, b) for (_, a), (_, b) in itertools.pairwise(order)]
    return tuple(RankedLayer(name, sure) for (name, _), sure in zip(order, [*certain, True], strict=True))


def is_certain(a: Estimate, b: Estimate) -> bool:
    """Return whether the order of two values is certain."""
    if a.value == b.value:
        return False
    return bool(abs(a.value - b.value) > CERTAIN_ERRORS * difference_error(a, b))


def undecided(estimates: Sequence[tuple[str, Estimate]], *, higher_is_better: bool) -> frozenset[str]:
    """Return the layers that more samples should be spent on: their order among their neighbours is not certain.

    Neighbours that are known well enough to be called alike are left out, else those would take all the time.
    """
    order = sorted(estimates, key=lambda each: _badness(each[1].value, higher_is_better=higher_is_better))
    finite = np.array([estimate.value for _, estimate in order if math.isfinite(estimate.value)])
    alike = NEGLIGIBLE * float(finite.std()) if finite.size else 0.0
    found: set[str] = set()
    for (first, a), (second, b) in itertools.pairwise(order):
        error = difference_error(a, b)
        if not is_certain(a, b) and not error <= alike:
            found |= {first, second}
    return frozenset(found)


def spearman(a: Array, b: Array) -> float:
    """Return Spearman's rank correlation of two arrays, -1 ... 1; NaN where one of them does not vary."""
    known = ~(np.isnan(a) | np.isnan(b))
    x, y = _ranks(a[known]), _ranks(b[known])
    if len(x) < 2 or x.std() == 0 or y.std() == 0:
        return math.nan
    return float(np.corrcoef(x, y)[0, 1])


def _badness(value: float, *, higher_is_better: bool) -> float:
    if math.isnan(value):
        return -math.inf
    return value if higher_is_better else -value


def _ranks(values: Array) -> Array:
    """Return the ranks from 0; equal values share the mean of theirs."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray((last - (counts + 1) / 2)[inverse], np.float64)
