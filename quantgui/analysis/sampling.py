"""Which candidates of a sweep are worth more samples: where the order of layers gains most for the cost."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import TypeVar

import numpy as np

from quantgui.analysis.ranking import RankErrors
from quantgui.results import LayerInfo

BUDGET = 0.145
"""Float forwards of all samples that a candidate may cost on average, where the order matters and not every number."""
GOOD_CORRELATION = 0.99
"""Expected rank correlation at which an order is good enough."""
_NEGLIGIBLE = 1e-3
"""Expected square of the distance to the exact rank that needs no more samples."""

K = TypeVar("K", bound=Hashable)


def shares_behind(layers: Sequence[LayerInfo]) -> dict[str, float]:
    """Return the part of a float forward that lies behind each layer, itself included, by multiply-accumulates."""
    macs = np.array([max(layer.macs, 1) for layer in layers], np.float64)
    behind = macs[::-1].cumsum()[::-1] / macs.sum()
    return dict(zip((layer.name for layer in layers), behind.tolist(), strict=True))


def worth_more(
    columns: Sequence[tuple[Sequence[K], RankErrors]],
    names: Mapping[K, str],
    costs: Mapping[K, float],
    allowance: float,
) -> set[K]:
    """Return the candidates whose ranks become most certain for the cost, as many as the allowance pays for.

    Args:
        columns: candidates of each format, and how uncertain their ranks are. No more of them are chosen than make the
            order good, if more samples made their ranks exact.
        names: the layer of each candidate.
        costs: what more samples of each would cost; candidates without are left out.
        allowance: what may be spent, in the same unit.
    """
    worth = []
    for keys, errors in columns:
        of_column = [(errors.variances[names[key]] / costs[key], key) for key in keys if key in costs]
        lost = 1.0 - errors.correlation
        for gain, key in sorted(of_column, key=lambda each: -each[0]):
            variance = errors.variances[names[key]]
            if lost <= 1.0 - GOOD_CORRELATION or variance < _NEGLIGIBLE:
                break
            worth.append((gain, key))
            # What Spearman's correlation loses by it.
            lost -= 6.0 * variance / (len(keys) * (len(keys) ** 2 - 1))
    chosen = set()
    for _, key in sorted(worth, key=lambda each: -each[0]):
        allowance -= costs[key]
        if allowance < 0:
            break
        chosen.add(key)
    return chosen
