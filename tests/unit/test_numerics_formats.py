"""Weights of any shape in formats with uneven levels, in blocks, and with scales of few bits."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quantgui.errors import SpecError
from quantgui.numerics.affine import (
    activation_qparams,
    decode,
    encode,
    fake_quantize,
    measure_weight,
    weight_qparams,
)
from quantgui.numerics.groups import as_matrix, from_matrix, grid_shape, pieces
from quantgui.numerics.levels import covered_range, grid_of, quantized_levels
from quantgui.numerics.qparams import QParams
from quantgui.numerics.statistics import (
    collect,
    estimate_error_histogram,
    estimate_error_with,
    quantized_levels_histogram,
)
from quantgui.spec.formats import CodebookFormat, FloatFormat, Format, IntFormat, MinifloatFormat, TableFormat
from quantgui.spec.granularity import Granularity, PerBlock, PerChannel, PerGroup, PerTensor
from quantgui.spec.quantizer import (
    BLOCK_FORMATS,
    Entropy,
    FixedRange,
    LeastSquaredError,
    MinMax,
    Percentile,
    QuantizerSpec,
    TwoSidedPercentile,
)

FORMATS: list[Format] = [
    MinifloatFormat(4, 3),
    MinifloatFormat(5, 2, "fnuz"),
    MinifloatFormat(2, 1),
    TableFormat("nf4"),
    TableFormat("binary"),
    CodebookFormat(2),
    CodebookFormat(7),
    IntFormat(4),
]
GRANULARITIES: list[Granularity] = [
    PerTensor(),
    PerChannel(),
    PerGroup(5),
    PerBlock(3, 4),
    PerBlock(1, 8),
    PerBlock(64, 1),
]
SHAPES = [((8, 3, 5, 5), 0), ((6, 8, 3, 3), 1), ((70, 20), 1), ((20, 70), 0), ((7,), 0), ((1, 1), 0), ((2, 4, 9), -1)]
SPECS = [
    *(QuantizerSpec(fmt, granularity=granularity) for fmt in FORMATS for granularity in GRANULARITIES),
    *BLOCK_FORMATS.values(),
    QuantizerSpec(IntFormat(4), False, PerBlock(2, 3)),
    QuantizerSpec(IntFormat(3, signed=False), False, PerGroup(4), scale_format="e8m0"),
    QuantizerSpec(TableFormat("nf4"), granularity=PerGroup(4), double_quantization=True),
    QuantizerSpec(MinifloatFormat(2, 3), granularity=PerBlock(2, 8), scale_format="e4m3"),
]


def name_of(spec: object) -> str:
    if not isinstance(spec, QuantizerSpec):
        return str(spec)
    scales = "double" if spec.double_quantization else spec.scale_format
    return f"{spec.format} {spec.granularity} {scales}"


def weights(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def group_slices(shape: tuple[int, int], granularity: Granularity) -> list[tuple[slice, slice]]:
    """Return where the groups lie in the matrix (C, K), in the order of their scales."""
    channels, elements = shape
    match granularity:
        case PerTensor():
            rows, columns = channels, elements
        case PerChannel():
            rows, columns = 1, elements
        case PerGroup(size):
            rows, columns = 1, size
        case PerBlock(rows, columns):
            pass
    return [
        (slice(down, down + rows), slice(along, along + columns))
        for down in range(0, channels, rows)
        for along in range(0, elements, columns)
    ]


@pytest.mark.parametrize(("shape", "axis"), SHAPES)
@pytest.mark.parametrize("spec", SPECS, ids=name_of)
def test_that_every_value_becomes_the_nearest_level_of_its_own_group(spec, shape, axis):
    x = weights(shape)
    qparams = weight_qparams(x, spec, axis)
    values, error = fake_quantize(x, spec, axis)
    matrix, quantized = as_matrix(x, axis), as_matrix(values, axis)
    groups = group_slices(matrix.shape, spec.granularity)
    assert len(groups) == len(qparams.scale) == np.prod(grid_shape(shape, axis, spec.granularity))
    for number, place in enumerate(groups):
        levels = quantized_levels(qparams, spec.format, number)
        distance = np.abs(matrix[place][..., None].astype(np.float64) - levels)
        found = np.abs(matrix[place] - quantized[place].astype(np.float64))
        assert np.allclose(found, distance.min(axis=-1), rtol=1e-5, atol=1e-6 * np.abs(levels).max())
        assert np.isclose(quantized[place][..., None], levels, rtol=1e-5, atol=1e-30).any(axis=-1).all()
    assert error.mse == pytest.approx(((matrix - quantized).astype(np.float64) ** 2).mean(), rel=1e-5, abs=1e-14)


@pytest.mark.parametrize(("shape", "axis"), SHAPES)
@pytest.mark.parametrize("spec", SPECS, ids=name_of)
def test_that_the_layout_in_memory_does_not_matter(spec, shape, axis):
    x = weights(shape)
    values, error = fake_quantize(x, spec, axis)
    matrix = np.ascontiguousarray(as_matrix(x, axis))
    plain, plain_error = fake_quantize(matrix, spec, 0)
    assert np.array_equal(values, from_matrix(plain, x.shape, axis))
    assert error.mse == pytest.approx(plain_error.mse, rel=1e-5, abs=1e-14)
    transposed, _ = fake_quantize(np.asfortranarray(matrix), spec, 0)
    assert np.array_equal(transposed, plain)


@pytest.mark.parametrize("spec", SPECS, ids=name_of)
def test_that_codes_are_decoded_to_the_same_values(spec):
    for shape, axis in SHAPES:
        x = weights(shape)
        encoded = encode(x, spec, axis)
        assert encoded.codes.shape == shape
        assert encoded.codes.dtype == (np.uint8 if not spec.is_integer or not spec.format.signed else np.int8)
        assert np.array_equal(decode(encoded, spec, axis), fake_quantize(x, spec, axis)[0])


@pytest.mark.parametrize(("shape", "axis"), [((12, 30), 0), ((30, 12), 1), ((3, 12, 10), 1)])
@pytest.mark.parametrize("spec", SPECS, ids=name_of)
def test_that_what_is_measured_is_that_of_the_quantized_values(spec, shape, axis):
    x = weights(shape)
    values, error = fake_quantize(x, spec, axis)
    measured = measure_weight(x, spec, axis, bins=64)
    assert measured.error.mse == pytest.approx(error.mse, rel=1e-5)
    assert measured.error.max_abs == pytest.approx(error.max_abs, rel=1e-6)
    assert measured.error.clipped == error.clipped
    for histogram, held in ((measured.quantized, values), (measured.error_histogram, x - values)):
        edges = histogram.edges
        assert histogram.counts.sum() == x.size
        assert edges[0] <= held.min() + 1e-5
        assert edges[-1] >= held.max() - 1e-5
    difference = as_matrix(x - values, axis).astype(np.float64)
    with np.errstate(divide="ignore"):
        expected = 10 * np.log10((as_matrix(x, axis).astype(np.float64) ** 2).sum(axis=1) / (difference**2).sum(axis=1))
    assert np.allclose(measured.channel_sqnr_db, expected, atol=1e-3)


ADVERSARIAL = {
    "constant": np.full((6, 40), 0.3, np.float32),
    "negative constant": np.full((6, 40), -2.0, np.float32),
    "zero": np.zeros((6, 40), np.float32),
    "negative zero": np.full((6, 40), -0.0, np.float32),
    "zero channel": np.where(np.arange(6)[:, None] == 2, 0.0, weights((6, 40))).astype(np.float32),
    "one outlier": np.where(np.arange(240).reshape(6, 40) == 9, 1e6, weights((6, 40))).astype(np.float32),
    "denormal": weights((6, 40)) * np.float32(1e-40),
    "huge": weights((6, 40)) * np.float32(5e37),
    "empty channels": np.zeros((0, 40), np.float32),
    "no elements": np.zeros((6, 0), np.float32),
}


@pytest.mark.parametrize("name", ADVERSARIAL)
@pytest.mark.parametrize("spec", SPECS, ids=name_of)
def test_that_no_tensor_breaks_the_arithmetic(spec, name):
    x = ADVERSARIAL[name]
    before = x.copy()
    values, error = fake_quantize(x, spec, 0)
    assert np.isfinite(values).all()
    assert np.array_equal(x, before)
    assert np.isfinite(error.mse)
    if spec.format != TableFormat("binary") and x.size and name != "denormal":
        assert error.mse <= (x.astype(np.float64) ** 2).mean()
    if not x.any():
        assert np.abs(values).max(initial=0.0) <= 1e-37
    measured = measure_weight(x, spec, 0)
    assert measured.quantized.counts.sum() == measured.error_histogram.counts.sum() == x.size
    if x.size and measured.qparams.scale.size:
        assert (measured.qparams.scale > 0).all()
        low, high = covered_range(measured.qparams, spec.format)
        assert (low <= high).all()


@pytest.mark.parametrize("spec", SPECS, ids=name_of)
def test_that_values_that_are_no_numbers_are_refused(spec):
    x = weights((6, 40))
    x[3, 5] = np.nan
    with pytest.raises(SpecError, match="not numbers"):
        fake_quantize(x, spec, 0)


def test_that_float_formats_have_no_codes():
    with pytest.raises(SpecError, match="has no scale and no codes"):
        encode(weights((3, 4)), QuantizerSpec(FloatFormat("float16")), 0)


@pytest.mark.parametrize(
    "spec", [BLOCK_FORMATS["mxfp4"], QuantizerSpec(CodebookFormat(4), granularity=PerTensor())], ids=str
)
def test_that_memory_beside_the_result_is_small(spec):
    x = weights((1000, 2000))
    out = np.empty_like(x)
    fake_quantize(x[:10], spec, 0)
    tracemalloc.start()
    result, _ = fake_quantize(x, spec, 0, out=out)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert result is out
    assert peak < 2 * x.nbytes


@settings(max_examples=60)
@given(
    st.integers(1, 9), st.integers(1, 12), st.integers(1, 12), st.integers(1, 10), st.integers(1, 10), st.booleans(),
    st.integers(1, 64),
)  # fmt: skip
def test_that_pieces_of_blocks_cover_every_element_once(before, channels, behind, rows, columns, last, chunk):
    box = (before, channels, 1) if last else (1, channels, behind)
    granularity = PerBlock(rows, columns + (rows == 1))
    shape = (channels, box[0] * box[2])
    seen = np.zeros(box, int)
    numbers = np.arange(np.prod(grid_shape(shape, 0, granularity))).reshape(grid_shape(shape, 0, granularity))
    found = np.full(box, -1)
    for piece in pieces(box, granularity, chunk):
        piece.take(seen)[...] += 1
        piece.take(found)[...] = piece.spread(numbers)
    assert (seen == 1).all()
    expected = np.zeros(shape, int)
    for number, place in enumerate(group_slices(shape, granularity)):
        expected[place] = number
    assert np.array_equal(found.reshape(box[0], channels, box[2]).transpose(1, 0, 2).reshape(shape), expected)


# --- estimates from statistics --------------------------------------------------------------------------------------

UNEVEN: list[Format] = [
    MinifloatFormat(4, 3),
    MinifloatFormat(2, 1),
    TableFormat("nf4"),
    TableFormat("binary"),
    CodebookFormat(3),
]


@pytest.mark.parametrize("fmt", UNEVEN, ids=str)
@pytest.mark.parametrize("part", [1.0, 0.4, 1.7], ids=["whole", "clipped", "too wide"])
@pytest.mark.parametrize("zeros", [0, 5000])
def test_that_the_error_estimated_from_statistics_is_that_of_the_values(fmt, part, zeros):
    x = weights((100, 300))
    x.ravel()[:zeros] = 0.0
    x[50, 50] = 40.0
    spec = QuantizerSpec(fmt, granularity=PerTensor())
    qparams = weight_qparams(x, spec, 0)
    qparams = QParams(qparams.scale * np.float32(part), qparams.zero_point, qparams.levels)
    values = fake_quantize_on(x, spec, qparams)
    statistics = collect(x)
    estimated = estimate_error_with(statistics, qparams, fmt)
    difference = (x - values).astype(np.float64)
    assert estimated.mse == pytest.approx((difference**2).mean(), rel=2e-3)
    assert estimated.max_abs == pytest.approx(np.abs(difference).max(), rel=1e-2)
    grid, scale = grid_of(qparams, fmt)
    low, high = grid.limits
    assert estimated.clipped == pytest.approx(np.mean((x / scale < low) | (x / scale > high)), abs=1e-4)
    held = quantized_levels_histogram(statistics, qparams, fmt)
    assert held.counts.sum() == pytest.approx(x.size)
    centers = (held.edges[:-1] + held.edges[1:]) / 2
    assert float(held.counts @ centers) / x.size == pytest.approx(float(values.mean()), abs=(centers[1] - centers[0]))
    errors = estimate_error_histogram(statistics, qparams, fmt)
    assert errors.counts.sum() == pytest.approx(x.size)
    assert errors.edges[-1] == pytest.approx(np.abs(difference).max(), rel=1e-2)


def fake_quantize_on(x: np.ndarray, spec: QuantizerSpec, qparams: QParams) -> np.ndarray:
    """Return the nearest levels, in double precision."""
    levels = quantized_levels(qparams, spec.format)
    return levels[np.abs(x[..., None].astype(np.float64) - levels).argmin(axis=-1)]


@pytest.mark.parametrize(
    "estimator",
    [MinMax(), Percentile(99.0), TwoSidedPercentile(2.0, 99.0), LeastSquaredError(), Entropy(), FixedRange(-1, 2)],
)
@pytest.mark.parametrize("fmt", [MinifloatFormat(4, 3), MinifloatFormat(2, 1), TableFormat("nf4")], ids=str)
def test_that_every_estimator_gives_uneven_levels_a_range(estimator, fmt):
    x = np.random.default_rng(0).standard_t(4, (20, 500)).astype(np.float32)
    spec = QuantizerSpec(fmt, range_estimator=estimator)
    scale = weight_qparams(x, spec, 0).scale
    limit = np.abs(x).max(axis=1) / np.float32(fmt.largest)
    match estimator:
        case MinMax():
            assert np.allclose(scale, limit)
        case FixedRange():
            assert np.allclose(scale, 2 / fmt.largest)
        case _:
            assert (scale <= limit * 1.09).all()
    of_activation = activation_qparams(collect(x), spec)
    assert of_activation.scale.shape == (1,)
    least = fake_quantize(x, QuantizerSpec(fmt, range_estimator=LeastSquaredError()), 0)[1].mse
    assert least <= fake_quantize(x, spec, 0)[1].mse * (1 + 1e-6)
