from __future__ import annotations

import numpy as np
import pytest

from quantgui.numerics.coarsening import coarsened
from quantgui.numerics.statistics import collect, estimate_error
from quantgui.spec.formats import IntFormat


def values(seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal(200_000) * 0.05 + 0.01).astype(np.float32)


def test_that_counts_fall_into_the_wider_bins_they_lie_in() -> None:
    x = values()
    coarse = coarsened(collect(x), 1000)
    assert len(coarse.counts) <= 1000
    assert (coarse.counts == np.histogram(x.astype(np.float64), coarse.edges)[0]).all()


def test_that_few_bins_stay_as_they_are() -> None:
    statistics = collect(np.linspace(-1, 1, 100, dtype=np.float32))
    assert coarsened(statistics, 1 << 17) is statistics


def test_that_exact_zeros_stay_in_the_bin_at_zero() -> None:
    x = values()
    x[:50_000] = 0.0
    coarse = coarsened(collect(x), 512)
    assert coarse.zeros == 50_000
    assert coarse.counts[-coarse.first_bin] >= 50_000


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_that_estimates_hardly_change(bits: int) -> None:
    x = values(1)
    for high in (0.05, 0.2):
        fine = estimate_error(collect(x), -high, high, IntFormat(bits), symmetric=True)
        coarse = estimate_error(coarsened(collect(x)), -high, high, IntFormat(bits), symmetric=True)
        assert coarse.sqnr_db == pytest.approx(fine.sqnr_db, abs=0.01)
        assert coarse.clipped == pytest.approx(fine.clipped, abs=1e-4)
