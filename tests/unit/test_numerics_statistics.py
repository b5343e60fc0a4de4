"""Statistics that merge exactly and tell the error of any format."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from quantgui.numerics.affine import fake_quantize_with, measure_weight
from quantgui.numerics.qparams import choose_qparams
from quantgui.numerics.statistics import (
    HALF_BINS,
    OUTLIERS,
    channel_statistics,
    collect,
    estimate_error,
    estimate_error_histogram,
    merge,
    quantile,
    quantized_levels_histogram,
    rebin,
)
from quantgui.results import TensorStatistics
from quantgui.spec.formats import IntFormat
from quantgui.spec.granularity import PerTensor
from quantgui.spec.quantizer import QuantizerSpec


def assert_same(a: TensorStatistics, b: TensorStatistics) -> None:
    assert (a.count, a.minimum, a.maximum) == (b.count, b.minimum, b.maximum)
    assert (a.zeros, a.non_finite) == (b.zeros, b.non_finite)
    assert a.bin_width == b.bin_width
    if len(b.counts):
        assert a.first_bin == b.first_bin
    assert np.array_equal(a.counts, b.counts)
    assert np.array_equal(a.outliers, b.outliers)
    assert a.total == pytest.approx(b.total, rel=1e-5, abs=1e-5 * np.sqrt(a.total_square * max(a.count, 1)))
    assert a.total_square == pytest.approx(b.total_square, rel=1e-5)


floats = st.floats(width=32, allow_nan=True, allow_infinity=True)
arrays = hnp.arrays(np.float32, st.integers(0, 40), elements=floats)


@given(st.lists(arrays, min_size=1, max_size=4))
@settings(max_examples=150)
def test_that_merged_statistics_of_any_values_are_those_of_the_whole(parts):
    merged = collect(parts[0])
    for part in parts[1:]:
        merged = merge(merged, collect(part))
    assert_same(merged, collect(np.concatenate(parts)))


@given(
    st.lists(st.tuples(st.integers(0, 3000), st.integers(-60, 60), st.booleans()), min_size=2, max_size=6),
    st.integers(0, 99),
)
@settings(max_examples=80)
def test_that_batches_of_very_different_sizes_and_scales_merge_exactly(batches, seed):
    rng = np.random.default_rng(seed)
    parts = []
    for size, exponent, relu in batches:
        part = np.ldexp(rng.standard_t(2, size), exponent).astype(np.float32)
        parts.append(np.maximum(part, 0) if relu else part)
    merged = collect(parts[0])
    for part in parts[1:]:
        merged = merge(merged, collect(part))
    whole = collect(np.concatenate(parts))
    assert_same(merged, whole)
    assert whole.counts.sum() + len(whole.outliers) == whole.count
    assert len(whole.counts) <= 2 * HALF_BINS
    assert len(whole.outliers) <= OUTLIERS


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_that_large_tensors_of_any_type_and_order_are_counted_once(dtype):
    x = np.random.default_rng(0).standard_normal((600, 1000)).astype(dtype)
    s = collect(x)
    assert_same(s, collect(x.T))
    assert_same(s, collect(x.astype(np.float32)))
    assert s.mean == pytest.approx(x.astype(np.float64).mean(), abs=1e-6)
    assert s.std == pytest.approx(x.astype(np.float64).std(), rel=1e-4)


def test_that_scalars_zeros_and_nothing_have_statistics():
    assert collect(np.float32(3.0).reshape(())).maximum == 3.0
    assert collect(np.zeros((2, 0), np.float32)).count == 0
    zero = collect(np.zeros(10, np.float32))
    assert (zero.zeros, zero.counts.sum(), zero.minimum, zero.maximum) == (10, 10, 0.0, 0.0)
    broken = collect(np.array([np.nan, np.inf, -np.inf], np.float32))
    assert (broken.count, broken.non_finite) == (0, 3)


TENSORS = {
    "gaussian": lambda rng: rng.standard_normal(100_000) * 0.1,
    "laplace": lambda rng: rng.laplace(size=100_000),
    "relu": lambda rng: np.maximum(rng.standard_normal(100_000), 0),
    "relu6": lambda rng: np.clip(rng.standard_normal(100_000) * 3, 0, 6),
    "one outlier": lambda rng: np.concatenate([rng.standard_normal(100_000), [3000.0]]),
    "heavy tails": lambda rng: rng.standard_t(2, 100_000),
    "small": lambda rng: rng.standard_normal(200),
    "shifted": lambda rng: rng.standard_normal(100_000) + 5,
}


@pytest.mark.parametrize("name", TENSORS)
@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("share", [1.0, 0.5, 0.03])
def test_that_the_estimated_error_is_within_a_thousandth(name, bits, symmetric, share):
    x = TENSORS[name](np.random.default_rng(0)).astype(np.float32)
    s, fmt = collect(x), IntFormat(bits, signed=symmetric)
    low, high = min(s.minimum, 0.0) * share, max(s.maximum, 0.0) * share
    estimated = estimate_error(s, low, high, fmt, symmetric=symmetric)
    qparams = choose_qparams(low, high, fmt, symmetric=symmetric)
    _, exact = fake_quantize_with(x, QuantizerSpec(fmt, symmetric, PerTensor()), qparams)
    assert estimated.mse == pytest.approx(exact.mse, rel=1e-3)
    assert estimated.sqnr_db == pytest.approx(exact.sqnr_db, abs=5e-3)
    assert estimated.clipped == pytest.approx(exact.clipped, abs=2e-4)
    assert estimated.max_abs == pytest.approx(exact.max_abs, rel=0.03)


@pytest.mark.parametrize("bits", [8, 12, 14, 15, 16])
@pytest.mark.parametrize("ends", [(0.0, 6.0), (-1.0, 6.0), (-5.97, 0.0), (-3.1, 2.9)])
def test_that_a_range_that_covers_everything_clips_nothing(bits, ends):
    """Activations behind a Clip have many of their values at its ends, and 16 bits have steps as fine as the bins."""
    x = np.clip(np.random.default_rng(0).standard_normal(100_000) * 6, *ends).astype(np.float32)
    s, fmt = collect(x), IntFormat(bits, signed=False)
    estimated = estimate_error(s, s.minimum, s.maximum, fmt, symmetric=False)
    qparams = choose_qparams(s.minimum, s.maximum, fmt, symmetric=False)
    _, exact = fake_quantize_with(x, QuantizerSpec(fmt, False, PerTensor()), qparams)
    assert estimated.clipped == exact.clipped == 0.0


@pytest.mark.parametrize("name", TENSORS)
@pytest.mark.parametrize("bits", [2, 4, 8, 16])
def test_that_histograms_of_levels_and_errors_hold_every_value(name, bits):
    x = TENSORS[name](np.random.default_rng(0)).astype(np.float32)
    s, fmt = collect(x), IntFormat(bits)
    qparams = choose_qparams(s.minimum / 2, s.maximum / 2, fmt, symmetric=False)
    levels = quantized_levels_histogram(s, qparams, fmt)
    assert levels.counts.sum() == pytest.approx(x.size)
    assert len(levels.edges) == len(levels.counts) + 1 <= 1025
    values, _ = fake_quantize_with(x, QuantizerSpec(fmt, False, PerTensor()), qparams)
    exact = np.histogram(values, levels.edges)[0]
    assert np.abs(levels.counts - exact).max() <= 0.01 * x.size
    errors = estimate_error_histogram(s, qparams, fmt)
    assert errors.counts.sum() == pytest.approx(x.size)


@pytest.mark.parametrize("name", TENSORS)
def test_that_a_histogram_for_drawing_counts_as_numpy_does(name):
    x = TENSORS[name](np.random.default_rng(0)).astype(np.float32)
    drawn = rebin(collect(x), 200)
    assert drawn.counts.sum() == pytest.approx(x.size, rel=1e-3)
    exact = np.histogram(x, drawn.edges)[0]
    assert np.abs(drawn.counts - exact).max() <= 0.01 * x.size
    part = rebin(collect(x), 50, -0.1, 0.2)
    assert part.counts.sum() == pytest.approx(np.count_nonzero((x >= -0.1) & (x <= 0.2)), abs=0.02 * x.size)


@pytest.mark.parametrize("name", TENSORS)
@pytest.mark.parametrize("share", [0.0, 0.0001, 0.01, 0.3, 0.5, 0.9, 0.9999, 1.0])
def test_that_quantiles_lie_within_a_bin_of_the_exact_ones(name, share):
    x = np.sort(TENSORS[name](np.random.default_rng(0)).astype(np.float32))
    s = collect(x)
    rank = share * (len(x) - 1)
    found = quantile(s, share)
    assert x[int(np.floor(rank))] - s.bin_width <= found <= x[int(np.ceil(rank))] + s.bin_width


@pytest.mark.parametrize("transposed", [False, True])
def test_that_channel_statistics_are_numpys(transposed):
    x = np.random.default_rng(0).standard_normal((50, 3000)).astype(np.float32)
    matrix = np.ascontiguousarray(x.T).T if transposed else x
    s = channel_statistics(matrix)
    assert np.array_equal(s.minimum, x.min(axis=1))
    assert np.array_equal(s.maximum, x.max(axis=1))
    assert s.mean == pytest.approx(x.astype(np.float64).mean(axis=1), abs=1e-12)
    assert s.std == pytest.approx(x.astype(np.float64).std(axis=1), rel=1e-9)


def test_that_measured_and_estimated_levels_agree():
    x = np.random.default_rng(0).standard_normal((100, 1000)).astype(np.float32)
    spec = QuantizerSpec(IntFormat(3), True, PerTensor())
    measured = measure_weight(x, spec, 0, bins=700)
    estimated = quantized_levels_histogram(collect(x), measured.qparams, IntFormat(3))
    assert np.sort(measured.quantized.counts)[::-1][:7] == pytest.approx(
        np.sort(estimated.counts)[::-1][:7], abs=0.001 * x.size
    )
