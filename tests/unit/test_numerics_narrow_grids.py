"""Least squared error on symmetric integer grids of few levels, in weights large enough for the short search."""

from __future__ import annotations

import numpy as np
import pytest

from quantgui.numerics.narrow_grids import NarrowGrid, best_limits
from quantgui.numerics.ranges import MANY, weight_ranges
from quantgui.spec.formats import IntFormat
from quantgui.spec.granularity import PerChannel, PerGroup
from quantgui.spec.quantizer import LeastSquaredError, QuantizerSpec

CHANNELS, ELEMENTS = 700, 384
BITS = [2, 3, 4, 5, 6, 7]
AS_GOOD = 1 + 2e-4
"""Squared error, relative to that of the common search; less than 0.001 dB."""


def gaussian(rng: np.random.Generator) -> np.ndarray:
    return rng.standard_normal((CHANNELS, ELEMENTS))


def heavy(rng: np.random.Generator) -> np.ndarray:
    return rng.standard_t(3, (CHANNELS, ELEMENTS))


def stored_as_int8(rng: np.random.Generator) -> np.ndarray:
    x = gaussian(rng)
    scale = np.abs(x).max(axis=1, keepdims=True) / 127.0
    return np.rint(x / scale) * scale


def with_outliers(rng: np.random.Generator) -> np.ndarray:
    x = gaussian(rng)
    x[np.arange(CHANNELS), rng.integers(0, ELEMENTS, CHANNELS)] = np.linspace(1.0, 1000.0, CHANNELS)
    return x


def sparse(rng: np.random.Generator) -> np.ndarray:
    return gaussian(rng) * (rng.random((CHANNELS, ELEMENTS)) < 0.02)


KINDS = [gaussian, heavy, stored_as_int8, with_outliers, sparse]


def noise(x: np.ndarray, high: np.ndarray, fmt: IntFormat, divisor: float) -> np.ndarray:
    """Return the squared error of each row, (C,), on grids with the limits `high`, in float64."""
    scale = np.where(high > 0, high, 1.0).reshape(-1, 1) / divisor
    middle = 0 if fmt.signed else 1 << (fmt.bits - 1)
    codes = np.clip(np.rint(x / scale), fmt.quant_min - middle, fmt.quant_max - middle)
    return ((x.astype(np.float64) - codes * scale) ** 2).sum(axis=1)


def searched(x: np.ndarray, spec: QuantizerSpec) -> tuple[np.ndarray, np.ndarray]:
    """Return the limits (C,) found for the whole weight, and those of a hundred channels at a time, the common way."""
    assert x.size > MANY
    low, high = weight_ranges(x, spec, 0)
    assert np.array_equal(low, -high)
    parts = (weight_ranges(x[start : start + 100], spec, 0)[1] for start in range(0, len(x), 100))
    return high.ravel(), np.concatenate([part.ravel() for part in parts])


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("bits", BITS)
def test_that_short_passes_find_ranges_as_good_as_the_common_search(kind, bits):
    x = kind(np.random.default_rng(bits)).astype(np.float32)
    fmt = IntFormat(bits)
    short, passed = searched(x, QuantizerSpec(fmt, range_estimator=LeastSquaredError()))
    mine, theirs = noise(x, short, fmt, fmt.quant_max), noise(x, passed, fmt, fmt.quant_max)
    assert mine.sum() <= theirs.sum() * AS_GOOD
    assert (mine <= theirs * 1.01 + 1e-12).mean() > 0.9


@pytest.mark.parametrize(
    ("fmt", "full_range"),
    [(IntFormat(2, narrow_range=True), False), (IntFormat(4, signed=False), False), (IntFormat(3), True)],
    ids=["int2 narrow", "uint4", "int3 full range"],
)
def test_that_short_passes_know_every_symmetric_grid(fmt, full_range):
    x = heavy(np.random.default_rng(0)).astype(np.float32)
    short, passed = searched(x, QuantizerSpec(fmt, range_estimator=LeastSquaredError(), full_range=full_range))
    middle = 0 if fmt.signed else 1 << (fmt.bits - 1)
    divisor = (fmt.quant_max - fmt.quant_min) / 2 if full_range else fmt.quant_max - middle
    assert noise(x, short, fmt, divisor).sum() <= noise(x, passed, fmt, divisor).sum() * AS_GOOD


@pytest.mark.parametrize("bits", BITS)
def test_that_short_passes_come_close_to_an_exhaustive_search_in_each_group(bits):
    x = gaussian(np.random.default_rng(7))[:40].astype(np.float32)
    fmt, divisor = IntFormat(bits), float((1 << (bits - 1)) - 1)
    largest = np.abs(x).max(axis=1).astype(np.float64)
    found = best_limits(x, largest, np.full(len(x), 0.1), NarrowGrid(bits, -divisor - 1.0, divisor, divisor))
    every = [noise(x, largest * ratio, fmt, divisor) for ratio in np.geomspace(0.1, 1.2, 6000)]
    assert (noise(x, found, fmt, divisor) <= np.min(every, axis=0) * 1.02).all()
    assert noise(x, found, fmt, divisor).sum() <= np.min(every, axis=0).sum() * 1.002


@pytest.mark.parametrize("bits", BITS)
def test_that_values_already_on_a_grid_stay_where_they_are(bits):
    rng = np.random.default_rng(0)
    high = (1 << (bits - 1)) - 1
    codes = rng.integers(-high, high + 1, (CHANNELS, ELEMENTS))
    codes[:, 0] = high
    x = (codes * np.exp(rng.standard_normal((CHANNELS, 1)))).astype(np.float32)
    fmt = IntFormat(bits)
    _, limits = weight_ranges(x, QuantizerSpec(fmt, range_estimator=LeastSquaredError()), 0)
    assert (noise(x, limits, fmt, high) <= 1e-10 * (x.astype(np.float64) ** 2).sum(axis=1)).all()


@pytest.mark.parametrize("bits", BITS)
def test_that_constants_zeros_and_lone_values_are_kept_exactly(bits):
    x = np.zeros((CHANNELS, ELEMENTS), np.float32)
    x[0], x[1], x[2, 5], x[3, 7] = 0.3, -0.7, 1.5, -2.5
    x[4] = np.where(np.arange(ELEMENTS) % 2, 0.25, -0.25)
    fmt = IntFormat(bits)
    _, limits = weight_ranges(x, QuantizerSpec(fmt, range_estimator=LeastSquaredError()), 0)
    assert (noise(x, limits, fmt, fmt.quant_max) < 1e-9).all()
    assert (limits[5:] == 0).all()


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_that_values_of_any_size_and_type_are_searched_without_warning(dtype):
    x = heavy(np.random.default_rng(1))
    x[:100] *= 1e-6
    if dtype is not np.float16:
        x[100:200] *= 1e-36
        x[200:300] *= 1e30
        x[300:310] *= 1e-42
    x = np.clip(x, -6e4, 6e4).astype(dtype) if dtype is np.float16 else x.astype(dtype)
    fmt = IntFormat(4)
    short, passed = searched(x, QuantizerSpec(fmt, range_estimator=LeastSquaredError()))
    mine, theirs = noise(x, short, fmt, 7.0), noise(x, passed, fmt, 7.0)
    for rows in (slice(0, 100), slice(100, 200), slice(200, 300), slice(310, None)):
        assert mine[rows].sum() <= theirs[rows].sum() * AS_GOOD


def test_that_channels_that_are_not_finite_do_not_spoil_others():
    x = gaussian(np.random.default_rng(2)).astype(np.float32)
    spec = QuantizerSpec(IntFormat(4), range_estimator=LeastSquaredError())
    clean = weight_ranges(x, spec, 0)[1].ravel()
    x[3, 4], x[10, 0], x[20, 1] = np.nan, np.inf, -np.inf
    spoiled = [3, 10, 20]
    high = weight_ranges(x, spec, 0)[1].ravel()
    assert np.array_equal(high[spoiled], weight_ranges(x[spoiled], spec, 0)[1].ravel(), equal_nan=True)
    others = np.delete(np.arange(CHANNELS), spoiled)
    assert np.allclose(high[others], clean[others], rtol=1e-12)


@pytest.mark.parametrize("granularity", [PerChannel(), PerGroup(512)], ids=str)
@pytest.mark.parametrize("axis", [0, 1])
def test_that_memory_order_and_granularity_do_not_matter(granularity, axis):
    x = heavy(np.random.default_rng(3)).astype(np.float32).reshape(175, 1536)
    spec = QuantizerSpec(IntFormat(3), granularity=granularity, range_estimator=LeastSquaredError())
    expected = weight_ranges(x, spec, 0)[1]
    found = weight_ranges(x if axis == 0 else np.ascontiguousarray(x.T), spec, axis)[1]
    assert np.allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("bits", [3, 5])
def test_that_long_channels_lose_no_digits(bits):
    x = np.random.default_rng(4).standard_t(4, (3, 250_000)).astype(np.float32)
    fmt = IntFormat(bits)
    spec = QuantizerSpec(fmt, range_estimator=LeastSquaredError())
    short = weight_ranges(x, spec, 0)[1]
    passed = np.concatenate([weight_ranges(row[None], spec, 0)[1] for row in x])
    assert (noise(x, short, fmt, fmt.quant_max) <= noise(x, passed, fmt, fmt.quant_max) * (1 + 1e-5)).all()
