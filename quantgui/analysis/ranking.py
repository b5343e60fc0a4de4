"""The order of layers by sensitivity, and how certain it is."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from quantgui.analysis.scores import Estimate, difference_error
from quantgui.results import Array, RankedLayer

CERTAIN_ERRORS = 2.0
"""Standard errors that lie between two values whose order is certain."""
_PRIOR_ROWS = 8.0
"""Rows that the usual spread counts for beside the rows of a layer."""
_DRAWS = 200


@dataclass(frozen=True)
class RankErrors:
    """How far the ranks of some layers may be from those that all samples give.

    Attributes:
        variances: expected square of the distance, by layer.
        correlation: Spearman's rank correlation to expect.
    """

    variances: Mapping[str, float]
    correlation: float


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


def rank_errors(estimates: Sequence[tuple[str, Estimate]], total_samples: int) -> RankErrors:
    """Return how uncertain the ranks of layers are, where `total_samples` would make them exact.

    What is common to all layers on a sample changes no rank. What is left of each layer's influences tells how far its
    value may move; ranks are drawn at random from that, always the same ones.
    """
    names = [name for name, _ in estimates]
    values = np.array([estimate.value for _, estimate in estimates])
    errors = _own_errors([estimate for _, estimate in estimates], total_samples)
    order = np.nan_to_num(values)  # infinite becomes the largest
    drawn = order + np.random.default_rng(0).standard_normal((_DRAWS, len(values))) * errors
    distances = (_each_ranks(drawn) - _each_ranks(order[None])) ** 2
    count = len(values)
    lost = 6 * float(distances.sum(1).mean()) / (count * (count**2 - 1)) if count > 1 else 0.0
    return RankErrors(dict(zip(names, distances.mean(0).tolist(), strict=True)), max(-1.0, 1 - lost))


def _own_errors(estimates: Sequence[Estimate], total_samples: int) -> Array:
    """Return the standard error of each value, (N,), against all samples, without what is common to all values."""
    rows = np.array([len(estimate.influences) for estimate in estimates])
    influences = np.full((len(estimates), rows.max(initial=0)), np.nan)
    for row, estimate in zip(influences, estimates, strict=True):
        row[: len(estimate.influences)] = estimate.influences
    known = np.isfinite(influences)
    clean = np.where(known, influences, 0.0)
    common = clean.sum(0) / np.maximum(known.sum(0), 1)
    squares = np.where(known, (clean - common) ** 2, 0.0).sum(1)
    usual = squares.sum() / max(known.sum(), 1)
    # Few rows do not show the rare ones: what is usual counts as well.
    variances = (squares + _PRIOR_ROWS * usual) / (known.sum(1) + _PRIOR_ROWS) / np.maximum(rows - 1, 1)
    # Of all samples, those that were measured are certain.
    samples = np.array([estimate.samples for estimate in estimates])
    return np.asarray(np.sqrt(variances * np.maximum(0.0, 1 - samples / total_samples)))


def _each_ranks(values: Array) -> Array:
    """Return the ranks from 0 within each row of values, (D, N)."""
    return np.asarray(values.argsort(axis=1, kind="stable").argsort(axis=1, kind="stable"), np.float64)


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
