from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from quantgui.numerics.affine import fake_quantize
from quantgui.numerics.error_curve import error_curve, statistics_curve, thresholds_of, weight_curve
from quantgui.numerics.statistics import collect
from quantgui.spec.formats import IntFormat, MinifloatFormat, TableFormat
from quantgui.spec.granularity import PerBlock, PerChannel, PerGroup, PerTensor
from quantgui.spec.quantizer import (
    Entropy,
    FixedRange,
    HalfQuadratic,
    LeastSquaredError,
    MinMax,
    MovingAverage,
    Percentile,
    QuantizerSpec,
    SampleMean,
    TwoSidedPercentile,
)

ONE = PerTensor()
NF4 = TableFormat("nf4")
SPECS = [
    QuantizerSpec(IntFormat(2), True, ONE),
    QuantizerSpec(IntFormat(4), True, ONE),
    QuantizerSpec(IntFormat(8), True, ONE),
    QuantizerSpec(IntFormat(3), True, ONE, full_range=True),
    QuantizerSpec(IntFormat(4, signed=False), False, ONE),
    QuantizerSpec(IntFormat(8, signed=False), False, ONE),
    QuantizerSpec(MinifloatFormat(2, 1), True, ONE),
    QuantizerSpec(MinifloatFormat(4, 3), True, ONE),
    QuantizerSpec(NF4, True, ONE),
    QuantizerSpec(IntFormat(4), True, ONE, scale_format="e8m0"),
]


def values(kind: str, size: int = 40_000) -> np.ndarray:
    random = np.random.default_rng(3)
    if kind == "normal":
        return random.standard_normal(size).astype(np.float32)
    if kind == "relu":
        return np.maximum(random.standard_normal(size) - 0.4, 0).astype(np.float32)
    skewed = random.laplace(size=size) * 0.1
    skewed[:7] = (3.0, -1.0, 2.5, 2.9, 1.8, -0.7, 2.2)
    return skewed.astype(np.float32)


def brute_force(x: np.ndarray, spec: QuantizerSpec, low: float, high: float) -> float:
    """Return the sqnr in dB of the values themselves with a range set by hand."""
    fake, _ = fake_quantize(x, replace(spec, range_estimator=FixedRange(low, high)), 0)
    noise = ((x.astype(np.float64) - fake) ** 2).sum()
    return 10 * np.log10((x.astype(np.float64) ** 2).sum() / noise)


@pytest.mark.parametrize("kind", ["normal", "relu", "skewed"])
@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_that_the_curve_is_what_quantizing_at_each_threshold_gives(kind: str, spec: QuantizerSpec) -> None:
    x = values(kind).reshape(1, -1)
    statistics = collect(x)
    thresholds, sqnr_db = error_curve(statistics, spec, thresholds_of(statistics, 9))
    largest = float(np.abs(x).max())
    for threshold, found in zip(thresholds, sqnr_db, strict=True):
        share = threshold / largest
        ends = (-threshold, threshold) if spec.symmetric else (min(x.min(), 0) * share, max(x.max(), 0) * share)
        assert found == pytest.approx(brute_force(x, spec, *map(float, ends)), abs=0.06)


@pytest.mark.parametrize("spec", SPECS[:6], ids=str)
def test_that_the_picks_are_what_the_estimators_give_on_the_values(spec: QuantizerSpec) -> None:
    x = values("skewed").reshape(1, -1)
    curve = statistics_curve(collect(x), spec)
    kinds = [type(pick.estimator) for pick in curve.picks]
    assert kinds == [MinMax, Percentile, TwoSidedPercentile, LeastSquaredError, Entropy]
    for pick in curve.picks:
        _, error = fake_quantize(x, replace(spec, range_estimator=pick.estimator), 0)
        assert pick.sqnr_db == pytest.approx(error.sqnr_db, abs=0.12)
    best = max(pick.sqnr_db for pick in curve.picks)
    assert best == pytest.approx(max(best, curve.sqnr_db.max()), abs=0.1)
    assert curve.picks[3].sqnr_db == best


def test_that_symmetric_picks_lie_on_the_curve() -> None:
    spec = SPECS[1]
    statistics = collect(values("skewed"))
    for pick in statistics_curve(statistics, spec).picks:
        _, (here,) = error_curve(statistics, spec, np.array([pick.threshold]))
        assert pick.sqnr_db == pytest.approx(here, abs=0.02)


def test_that_the_largest_threshold_is_a_little_beyond_the_largest_value() -> None:
    thresholds = thresholds_of(collect(values("skewed")))
    assert np.all(np.diff(thresholds) > 0)
    assert 3.0 < thresholds[-1] < 3.5
    assert 0.01 < thresholds[0] < 0.1


def test_that_averages_over_samples_are_picked_where_the_samples_are_known() -> None:
    minima, maxima = np.array([-1.0, -3.0]), np.array([2.0, 1.0])
    spec = replace(SPECS[5], range_estimator=MovingAverage(0.5))
    picks = statistics_curve(collect(values("skewed")), spec, (minima, maxima)).picks
    moving, mean = picks[-2:]
    assert (moving.estimator, moving.low, moving.high) == (MovingAverage(0.5), -2.0, 1.5)
    assert (mean.estimator, mean.low, mean.high) == (SampleMean(), -2.0, 1.5)


def test_that_the_parameters_of_the_own_estimator_are_kept() -> None:
    spec = replace(SPECS[1], range_estimator=Percentile(97.0))
    statistics = collect(values("normal"))
    picked = next(p for p in statistics_curve(statistics, spec).picks if isinstance(p.estimator, Percentile))
    assert picked.estimator == Percentile(97.0)
    assert picked.threshold == pytest.approx(2.17, abs=0.06)


def test_that_values_of_zero_have_no_curve() -> None:
    curve = statistics_curve(collect(np.zeros(10, np.float32)), SPECS[1])
    assert (len(curve.thresholds), curve.picks) == (0, ())
    (last,) = weight_curve(np.zeros((4, 8), np.float32), QuantizerSpec(IntFormat(4)), 0)
    assert last is not None
    assert len(last.thresholds) == 0


@pytest.mark.parametrize("granularity", [PerChannel(), PerGroup(32), PerBlock(8, 16)], ids=str)
@pytest.mark.parametrize("symmetric", [True, False])
def test_that_the_curve_of_groups_scales_all_of_their_ranges(granularity, symmetric: bool) -> None:
    random = np.random.default_rng(0)
    x = (random.standard_normal((24, 96)) * np.exp(random.standard_normal((24, 1)))).astype(np.float32)
    spec = QuantizerSpec(IntFormat(3, signed=symmetric), symmetric, granularity)
    *_, curve = weight_curve(x, spec, 0)
    rows, columns = {PerChannel: (1, 96), PerGroup: (1, 32), PerBlock: (8, 16)}[type(granularity)]
    for index in (0, 9, 20, 27):
        share = curve.thresholds[index] / np.abs(x).max()
        noise = 0.0
        for i in range(0, 24, rows):
            for j in range(0, 96, columns):
                block = x[i : i + rows, j : j + columns].reshape(1, -1)
                low, high = min(float(block.min()), 0.0) * share, max(float(block.max()), 0.0) * share
                one = replace(spec, granularity=ONE, range_estimator=FixedRange(low, high))
                noise += ((fake_quantize(block, one, 0)[0].astype(np.float64) - block) ** 2).sum()
        expected = 10 * np.log10((x.astype(np.float64) ** 2).sum() / noise)
        assert curve.sqnr_db[index] == pytest.approx(expected, abs=1e-3)
    for pick in curve.picks:
        _, error = fake_quantize(x, replace(spec, range_estimator=pick.estimator), 0)
        assert pick.sqnr_db == pytest.approx(error.sqnr_db, abs=1e-6)
    assert any(isinstance(pick.estimator, HalfQuadratic) for pick in curve.picks) != symmetric
    assert curve.share == 1.0


def test_that_large_weights_are_known_by_some_channels() -> None:
    random = np.random.default_rng(0)
    x = random.standard_normal((1024, 1024)).astype(np.float32)
    spec = QuantizerSpec(IntFormat(4))
    *steps, curve = weight_curve(x, spec, 0)
    assert set(steps) == {None}
    assert curve.share == 0.25
    _, error = fake_quantize(x, spec, 0)
    assert next(p for p in curve.picks if p.estimator == MinMax()).sqnr_db == pytest.approx(error.sqnr_db, abs=0.1)
