"""Statistics with fewer bins, for estimates within one frame of a window."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from quantgui.results import TensorStatistics

FRAME_BINS = 8192
"""Few enough that all temporary arrays of an estimate stay in the processor's cache."""


def coarsened(statistics: TensorStatistics, most_bins: int = FRAME_BINS) -> TensorStatistics:
    """Return the same statistics with at most `most_bins` bins, each a power of two wider and still aligned to 0."""
    doublings = 0
    first, last = statistics.first_bin, statistics.first_bin + len(statistics.counts) - 1
    while (last >> doublings) - (first >> doublings) + 1 > most_bins:
        doublings += 1
    if doublings == 0:
        return statistics
    bins = np.arange(first, last + 1) >> doublings
    counts = np.bincount(bins - bins[0], statistics.counts).astype(np.int64)
    return replace(statistics, bin_width=statistics.bin_width * (1 << doublings), first_bin=int(bins[0]), counts=counts)
