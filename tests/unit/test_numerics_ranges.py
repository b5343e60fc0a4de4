"""Range estimators."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from quantgui.errors import SpecError
from quantgui.numerics.affine import fake_quantize, fake_quantize_with
from quantgui.numerics.groups import as_matrix
from quantgui.numerics.qparams import choose_qparams
from quantgui.numerics.ranges import estimate_range_from_statistics, estimate_ranges, weight_ranges
from quantgui.numerics.scales import choose_grid
from quantgui.numerics.statistics import collect
from quantgui.spec.formats import IntFormat, TableFormat
from quantgui.spec.granularity import PerChannel, PerGroup, PerTensor
from quantgui.spec.quantizer import (
    Entropy,
    FixedRange,
    HalfQuadratic,
    LeastSquaredError,
    MinMax,
    Percentile,
    QuantizerSpec,
    SampleMean,
    TwoSidedPercentile,
)

ESTIMATORS = [MinMax(), Percentile(99.0), LeastSquaredError(), Entropy(), FixedRange(-0.3, 0.2)]


def heavy(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_t(4, shape).astype(np.float32)


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=str)
@pytest.mark.parametrize("granularity", [PerTensor(), PerChannel(), PerGroup(32)], ids=str)
@pytest.mark.parametrize("symmetric", [True, False])
def test_that_ranges_contain_zero_even_where_values_do_not(estimator, granularity, symmetric):
    x = np.abs(heavy((10, 70))) + 1.0
    for values in (x, -x):
        spec = QuantizerSpec(IntFormat(4), symmetric, granularity, estimator)
        low, high = estimate_ranges(values, spec)
        assert low.dtype == high.dtype == np.float64
        assert (low <= 0.0).all()
        assert (high >= 0.0).all()
        assert (high > low).all()


def test_that_min_max_is_the_smallest_and_largest_value_of_each_group():
    x = heavy((3, 10))
    low, high = estimate_ranges(x, QuantizerSpec(IntFormat(8), granularity=PerGroup(4)))
    groups = [row[start : start + 4] for row in x for start in (0, 4, 8)]
    assert low == pytest.approx([min(group.min(), 0) for group in groups])
    assert high == pytest.approx([max(group.max(), 0) for group in groups])


def test_that_percentiles_are_numpys():
    x = heavy((5, 900))
    low, high = estimate_ranges(x, QuantizerSpec(IntFormat(8), range_estimator=Percentile(99.0)))
    assert low == pytest.approx(np.percentile(x, 0.5, axis=1))
    assert high == pytest.approx(np.percentile(x, 99.5, axis=1))


@pytest.mark.parametrize("bits", [2, 3, 4, 6, 8])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("granularity", [PerTensor(), PerChannel(), PerGroup(32), PerGroup(11)], ids=str)
@pytest.mark.parametrize("full_range", [False, True])
def test_that_least_squared_error_beats_every_other_range_tried(bits, symmetric, granularity, full_range):
    x = heavy((12, 600))
    fmt = IntFormat(bits)
    best = fake_quantize(
        x, QuantizerSpec(fmt, symmetric, granularity, LeastSquaredError(), full_range), 0
    )[1].mse  # fmt: skip
    low, high = weight_ranges(x, QuantizerSpec(fmt, symmetric, granularity), 0)
    spec = QuantizerSpec(fmt, symmetric, granularity)
    for ratio in np.linspace(0.2, 1.0, 41):
        qparams = choose_qparams(
            low.ravel() * ratio, high.ravel() * ratio, fmt, symmetric=symmetric, full_range=full_range
        )
        assert best <= fake_quantize_with(x, spec, qparams)[1].mse * 1.002


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_that_least_squared_error_is_close_to_an_exhaustive_search_in_each_group(bits):
    x = heavy((40, 32))
    fmt = IntFormat(bits)
    low, high = estimate_ranges(x, QuantizerSpec(fmt, True, PerChannel(), LeastSquaredError()))
    found = choose_qparams(low, high, fmt, symmetric=True).scale.astype(np.float64)[:, None]
    absmax = np.abs(x).max(axis=1).astype(np.float64)[:, None]

    def error(scale: np.ndarray) -> np.ndarray:
        return ((x - np.clip(np.rint(x / scale), fmt.quant_min, fmt.quant_max) * scale) ** 2).sum(axis=1)

    exhaustive = np.min([error(absmax / fmt.quant_max * r) for r in np.linspace(0.05, 1.3, 4000)], axis=0)
    assert error(found).sum() <= exhaustive.sum() * 1.02


def test_that_least_squared_error_of_two_groups_does_not_depend_on_their_neighbours():
    x = heavy((6, 64))
    spec = QuantizerSpec(IntFormat(3), True, PerChannel(), LeastSquaredError())
    _, together = estimate_ranges(x, spec)
    _, alone = estimate_ranges(x[2:3], spec)
    assert together[2] == pytest.approx(alone[0])


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=str)
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bits", [4, 8])
def test_that_statistics_give_the_range_that_the_values_give(estimator, symmetric, bits):
    x = heavy((200_000,))
    spec = QuantizerSpec(IntFormat(bits), symmetric, PerTensor(), estimator)
    low, high = estimate_range_from_statistics(collect(x), spec)
    values_low, values_high = estimate_ranges(x[None], spec)

    def error(a: float, b: float) -> float:
        qparams = choose_qparams(a, b, IntFormat(bits), symmetric=symmetric)
        return fake_quantize_with(x, spec, qparams)[1].mse

    assert error(low, high) == pytest.approx(error(float(values_low[0]), float(values_high[0])), rel=0.02)


@pytest.mark.parametrize("bits", [4, 6, 8])
def test_that_entropy_cuts_off_long_tails_and_keeps_short_ones(bits):
    tails = np.concatenate([heavy((50_000,)), [200.0, -300.0]]).astype(np.float32)
    spec = QuantizerSpec(IntFormat(bits), True, PerTensor(), Entropy())
    assert estimate_range_from_statistics(collect(tails), spec)[1] < 150.0
    uniform = np.random.default_rng(0).uniform(-1, 1, 50_000).astype(np.float32)
    assert estimate_range_from_statistics(collect(uniform), spec)[1] > 0.9


@pytest.mark.parametrize("estimator", [LeastSquaredError(), Percentile(), Entropy()], ids=str)
def test_that_huge_and_tiny_values_need_no_warning(estimator):
    for factor in (1e-43, 1e-38, 1e-20, 1e20, 1e37):
        x = (heavy((4, 300)) * factor).astype(np.float32)
        for symmetric in (True, False):
            _, error = fake_quantize(x, QuantizerSpec(IntFormat(4), symmetric, PerChannel(), estimator), 0)
            assert error.sqnr_db > 3.0 or factor < 1e-37


# --- estimators that look further -----------------------------------------------------------------------------------


@pytest.mark.parametrize("granularity", [PerTensor(), PerChannel(), PerGroup(50)], ids=str)
def test_that_both_tails_are_cut_each_at_its_own_percentile(granularity):
    x = np.random.default_rng(0).gamma(2.0, 1.0, (20, 500)).astype(np.float32) - 1.0
    spec = QuantizerSpec(IntFormat(8), False, granularity, TwoSidedPercentile(5.0, 99.0))
    low, high = weight_ranges(x, spec, 0)
    groups = x.reshape(low.size, -1)
    expected = np.percentile(groups, [5.0, 99.0], axis=1)
    assert np.allclose(low.ravel(), np.minimum(expected[0], 0.0), rtol=1e-3)
    assert np.allclose(high.ravel(), np.maximum(expected[1], 0.0), rtol=1e-3)
    of_tensor = estimate_range_from_statistics(collect(x), spec)
    assert np.allclose(of_tensor, np.percentile(x, [5.0, 99.0]), rtol=1e-3)


def loss_of_zero_points(rows, fmt, zero):
    """Return the sum of the errors to the power of 0.7, in steps, for integer zero points (G,)."""
    levels = fmt.quant_max - fmt.quant_min
    low, high = np.minimum(rows.min(axis=1), 0.0), np.maximum(rows.max(axis=1), 0.0)
    units = rows / ((high - low) / levels)[:, None]
    codes = np.clip(np.rint(units + zero[:, None]), 0, levels)
    return (np.abs(units - codes + zero[:, None]) ** 0.7).sum(axis=1)


@pytest.mark.parametrize("bits", [2, 3, 4])
@pytest.mark.parametrize("signed", [True, False])
def test_that_half_quadratic_zero_points_are_at_least_as_good_as_those_of_min_max(bits, signed):
    fmt = IntFormat(bits, signed)
    rows = np.random.default_rng(bits).standard_t(3, (200, 64)).astype(np.float32)
    levels = fmt.quant_max - fmt.quant_min
    spec = QuantizerSpec(fmt, False, PerChannel(), HalfQuadratic())
    qparams = choose_qparams(*estimate_ranges(rows, spec), fmt, symmetric=False)
    plain = choose_qparams(*estimate_ranges(rows, replace(spec, range_estimator=MinMax())), fmt, symmetric=False)
    assert np.allclose(qparams.scale, plain.scale, rtol=1e-6)
    found, first = qparams.zero_point - fmt.quant_min, plain.zero_point - fmt.quant_min
    losses = np.stack([loss_of_zero_points(rows, fmt, np.full(len(rows), zero)) for zero in range(levels + 1)])
    mine = loss_of_zero_points(rows, fmt, found)
    assert (mine <= loss_of_zero_points(rows, fmt, first) * (1 + 1e-6)).all()
    # Turns over errors and zero point end near the best there is, mostly in it.
    assert (mine <= losses.min(axis=0) * (1 + 1e-5)).mean() > 0.7


def test_that_half_quadratic_ranges_of_zeros_and_constants_are_those_of_min_max():
    rows = np.stack([np.zeros(8), np.full(8, 0.5), np.full(8, -0.5)]).astype(np.float32)
    spec = QuantizerSpec(IntFormat(4), False, PerChannel(), HalfQuadratic())
    low, high = estimate_ranges(rows, spec)
    assert np.allclose(low, [0.0, 0.0, -0.5])
    assert np.allclose(high, [0.0, 0.5, 0.0])


@pytest.mark.parametrize(("shape", "axis"), [((16, 60), 0), ((60, 16), 1), ((6, 16, 5, 2), 1)])
@pytest.mark.parametrize("granularity", [PerTensor(), PerChannel(), PerGroup(12)], ids=str)
@pytest.mark.parametrize(
    ("fmt", "symmetric"), [(IntFormat(3), True), (IntFormat(3), False), (TableFormat("nf4"), True)]
)
def test_that_weighing_by_importance_lowers_the_weighted_error(shape, axis, granularity, fmt, symmetric):
    rng = np.random.default_rng(0)
    x = rng.standard_normal(shape).astype(np.float32)
    importance = np.exp(2.0 * rng.standard_normal(60))
    spec = QuantizerSpec(fmt, symmetric, granularity, LeastSquaredError())

    def weighted(ranges):
        qparams = choose_grid(*(each.ravel() for each in ranges), spec, fmt)
        error = as_matrix(x - fake_quantize_with(x, spec, qparams, axis)[0], axis).astype(np.float64)
        return float((error**2 * importance).sum())

    plain, aware = weight_ranges(x, spec, axis), weight_ranges(x, spec, axis, importance=importance)
    assert weighted(aware) < weighted(plain) * (0.995 if isinstance(granularity, PerGroup) else 1.0)
    same = weight_ranges(x, spec, axis, importance=np.full(60, 3.0))
    assert weighted(same) == pytest.approx(weighted(plain), rel=0.02)


def test_that_averages_over_samples_are_not_for_weights():
    with pytest.raises(SpecError, match="Weights have no samples"):
        weight_ranges(np.ones((3, 4), np.float32), QuantizerSpec(range_estimator=SampleMean()), 0)
    spec = QuantizerSpec(IntFormat(8), False, PerTensor(), HalfQuadratic())
    with pytest.raises(SpecError, match="is for weights"):
        estimate_range_from_statistics(collect(np.ones(5, np.float32)), spec)


def test_that_samples_with_nothing_finite_do_not_count():
    spec = QuantizerSpec(IntFormat(8), False, PerTensor(), SampleMean())
    extrema = np.array([-1.0, np.inf, -3.0]), np.array([2.0, -np.inf, 4.0])
    assert estimate_range_from_statistics(collect(np.ones(5, np.float32)), spec, extrema) == (-2.0, 3.0)
