"""Scales, codes and fake quantization of weights of any shape."""

from __future__ import annotations

import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quantgui.errors import SpecError
from quantgui.numerics.affine import (
    activation_qparams,
    code_dtype,
    decode,
    dequantize_groups,
    encode,
    fake_quantization_error,
    fake_quantize,
    fake_quantize_with,
    measure_weight,
    quantize_groups,
    weight_qparams,
)
from quantgui.numerics.groups import as_matrix, elements_per_channel, from_matrix, grid_shape
from quantgui.numerics.levels import covered_range
from quantgui.numerics.qparams import QParams, choose_qparams
from quantgui.numerics.statistics import collect
from quantgui.spec.formats import FloatFormat, IntFormat
from quantgui.spec.granularity import PerChannel, PerGroup, PerTensor
from quantgui.spec.quantizer import Entropy, FixedRange, LeastSquaredError, MinMax, Percentile, QuantizerSpec

FORMATS = [
    IntFormat(bits, signed, narrow) for bits in (2, 3, 4, 5, 8, 11, 16) for signed in (True, False)
    for narrow in (True, False)
]  # fmt: skip
GRANULARITIES = [PerTensor(), PerChannel(), PerGroup(4), PerGroup(32)]
SHAPES = [((8, 3, 5, 5), 0), ((6, 8, 3, 3), 1), ((70, 20), 1), ((20, 70), 0), ((7,), 0), ((1, 1), 0), ((3, 700), 0),
          ((2, 4, 9), -1)]  # fmt: skip


def weights(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def plain_fake_quantize(x, qparams, fmt, granularity, axis):
    """Return what a straightforward loop over groups gives."""
    matrix = np.moveaxis(x, axis, 0).reshape(x.shape[axis], -1).astype(np.float32)
    channels, elements = matrix.shape
    size = {PerTensor: elements, PerChannel: elements}.get(type(granularity)) or granularity.group_size
    out = np.empty_like(matrix)
    group = 0
    for channel in range(channels):
        for start in range(0, elements, size):
            index = 0 if isinstance(granularity, PerTensor) else group
            scale, zero_point = qparams.scale[index], qparams.zero_point[index]
            units = np.rint(matrix[channel, start : start + size] / scale)
            q = np.clip(units + zero_point, fmt.quant_min, fmt.quant_max)
            out[channel, start : start + size] = (q - zero_point).astype(np.float32) * scale
            group += 1
    return np.moveaxis(out.reshape(np.moveaxis(x, axis, 0).shape), 0, axis)


@pytest.mark.parametrize(("shape", "axis"), SHAPES)
@pytest.mark.parametrize("granularity", GRANULARITIES, ids=str)
@pytest.mark.parametrize("symmetric", [True, False])
def test_that_every_granularity_and_axis_agrees_with_a_loop_over_groups(shape, axis, granularity, symmetric):
    x, fmt = weights(shape), IntFormat(4)
    spec = QuantizerSpec(fmt, symmetric, granularity)
    encoded = encode(x, spec, axis)
    rows, columns = grid_shape(shape, axis, granularity)
    assert encoded.qparams.scale.shape == encoded.qparams.zero_point.shape == (rows * columns,)
    expected = plain_fake_quantize(x, encoded.qparams, fmt, granularity, axis)
    values, error = fake_quantize(x, spec, axis)
    assert np.array_equal(values, expected)
    assert np.array_equal(decode(encoded, spec, axis), values)
    assert error.mse == pytest.approx(((x - expected).astype(np.float64) ** 2).mean(), rel=1e-5, abs=1e-14)


@pytest.mark.parametrize("granularity", [PerTensor(), PerChannel(), PerGroup(32)], ids=str)
@pytest.mark.parametrize(("shape", "axis"), [((300, 700), 0), ((700, 300), 1), ((40, 50, 3, 31), 1)])
def test_that_tensors_of_many_pieces_agree_with_a_loop_over_groups(shape, axis, granularity):
    x, fmt = weights(shape), IntFormat(3)
    spec = QuantizerSpec(fmt, False, granularity)
    encoded = encode(x, spec, axis)
    values, _ = fake_quantize(x, spec, axis)
    assert np.array_equal(values, plain_fake_quantize(x, encoded.qparams, fmt, granularity, axis))


@pytest.mark.parametrize("fmt", FORMATS, ids=lambda f: f"{f}{'-narrow' * f.narrow_range}")
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("full_range", [True, False])
def test_that_codes_stay_on_the_grid_and_errors_within_half_a_step(fmt, symmetric, full_range):
    x = weights((12, 40))
    spec = QuantizerSpec(fmt, symmetric, PerChannel(), full_range=full_range)
    encoded = encode(x, spec, 0)
    assert encoded.codes.dtype == code_dtype(fmt)
    assert encoded.codes.min() >= fmt.quant_min
    assert encoded.codes.max() <= fmt.quant_max
    values, error = fake_quantize(x, spec, 0)
    low, high = covered_range(encoded.qparams, fmt)
    inside = (x >= low[:, None]) & (x <= high[:, None])
    half = encoded.qparams.scale[:, None] * (0.5 + 1e-4 * 2 ** (fmt.bits - 8 if fmt.bits > 8 else 0))
    assert (np.abs(x - values) <= half)[inside].all()
    if symmetric and not full_range:
        assert error.clipped == 0.0


@pytest.mark.parametrize("fmt", FORMATS, ids=str)
@pytest.mark.parametrize("symmetric", [True, False])
def test_that_fake_quantizing_twice_changes_nothing(fmt, symmetric):
    x = weights((5, 60))
    spec = QuantizerSpec(fmt, symmetric, PerChannel())
    encoded = encode(x, spec, 0)
    once, _ = fake_quantize_with(x, spec, encoded.qparams)
    twice, error = fake_quantize_with(once, spec, encoded.qparams)
    assert np.array_equal(once, twice)
    assert error.sqnr_db == math.inf


@pytest.mark.parametrize("estimator", [MinMax(), Percentile(), LeastSquaredError(), Entropy(), FixedRange(-1, 2)])
@pytest.mark.parametrize("granularity", GRANULARITIES, ids=str)
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("shape", [(0, 4), (4, 0), (0,), (3, 0, 2)])
def test_that_empty_weights_have_no_error(estimator, granularity, symmetric, shape):
    x = np.zeros(shape, np.float32)
    spec = QuantizerSpec(IntFormat(8), symmetric, granularity, estimator)
    values, error = fake_quantize(x, spec, 0)
    assert values.shape == shape
    assert (error.sqnr_db, error.mse, error.max_abs, error.clipped) == (math.inf, 0.0, 0.0, 0.0)
    assert encode(x, spec, 0).codes.shape == shape
    assert measure_weight(x, spec, 0).error.mse == 0.0


@pytest.mark.parametrize("estimator", [MinMax(), Percentile(), LeastSquaredError(), Entropy()])
@pytest.mark.parametrize("granularity", GRANULARITIES, ids=str)
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("value", [0.0, 0.7, -0.7, 1e-45, -1e-40, 1e-37, 1e30, 65504.0])
def test_that_constant_weights_keep_normal_scales(estimator, granularity, symmetric, value):
    x = np.full((6, 70), value, np.float32)
    spec = QuantizerSpec(IntFormat(8), symmetric, granularity, estimator)
    encoded = encode(x, spec, 0)
    assert np.isfinite(encoded.qparams.scale).all()
    assert (encoded.qparams.scale >= np.finfo(np.float32).tiny).all()
    values, error = fake_quantize(x, spec, 0)
    assert np.isfinite(values).all()
    if value == 0.0:
        assert error.sqnr_db == math.inf
    elif abs(value) > 1e-36:
        assert error.sqnr_db > 35.0


@given(st.integers(2, 16), st.booleans(), st.floats(1e-30, 1e30), st.floats(1e-30, 1e30), st.booleans())
def test_that_the_grid_covers_the_range_and_holds_zero(bits, signed, low, high, symmetric):
    fmt = IntFormat(bits, signed)
    qparams = choose_qparams(-low, high, fmt, symmetric=symmetric)
    covered_low, covered_high = covered_range(qparams, fmt)
    # The zero point is rounded, which shifts the range by at most half a step; float32 scales round too.
    slack = float(qparams.scale[0]) * (0 if symmetric else 0.5) + 1e-5 * max(low, high)
    assert covered_low[0] <= -low + slack
    assert covered_high[0] >= high - slack
    assert fmt.quant_min <= qparams.zero_point[0] <= fmt.quant_max


def test_that_both_symmetric_conventions_are_as_stated():
    assert choose_qparams(-8.0, 8.0, IntFormat(4), symmetric=True).scale[0] == np.float32(8 / 7)
    full = choose_qparams(-8.0, 8.0, IntFormat(4), symmetric=True, full_range=True)
    assert full.scale[0] == np.float32(8 / 7.5)
    unsigned = choose_qparams(-8.0, 8.0, IntFormat(4, signed=False), symmetric=True)
    assert (unsigned.zero_point[0], unsigned.scale[0]) == (8, np.float32(8 / 7))


def test_that_full_range_gains_most_where_bits_are_few():
    x = weights((64, 4096))
    gains = []
    for bits in (2, 4, 8):
        plain = fake_quantize(x, QuantizerSpec(IntFormat(bits), True, PerGroup(32)), 0)[1].sqnr_db
        full = fake_quantize(x, QuantizerSpec(IntFormat(bits), True, PerGroup(32), full_range=True), 0)[1].sqnr_db
        gains.append(full - plain)
    assert gains[0] > 1.0 > gains[1] > gains[2] > -0.5


def test_that_one_more_bit_brings_six_decibels_on_uniform_values():
    x = np.random.default_rng(0).uniform(-1, 1, (4, 50_000)).astype(np.float32)
    quality = [fake_quantize(x, QuantizerSpec(IntFormat(b), False), 0)[1].sqnr_db for b in (6, 7, 8, 9)]
    assert np.diff(quality) == pytest.approx([6.02] * 3, abs=0.15)


@given(st.integers(-30, 30))
def test_that_scaling_the_weight_by_a_power_of_two_scales_the_result(exponent):
    x = weights((4, 30))
    spec = QuantizerSpec(IntFormat(5), False)
    scaled, _ = fake_quantize(np.ldexp(x, exponent), spec, 0)
    assert np.array_equal(scaled, np.ldexp(fake_quantize(x, spec, 0)[0], exponent))


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_that_other_float_types_are_taken_as_float32(dtype):
    x = weights((9, 50)).astype(dtype)
    spec = QuantizerSpec(IntFormat(4), False, PerGroup(8))
    assert np.array_equal(fake_quantize(x, spec, 0)[0], fake_quantize(x.astype(np.float32), spec, 0)[0])


def test_that_a_memory_mapped_read_only_weight_is_only_read(tmp_path):
    x = weights((300, 500))
    np.save(tmp_path / "x.npy", x)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    for spec in (None, QuantizerSpec(IntFormat(4), False, PerGroup(7), LeastSquaredError()),
                 QuantizerSpec(FloatFormat("bfloat16"))):  # fmt: skip
        for axis in (0, 1):
            assert np.array_equal(fake_quantize(mapped, spec, axis)[0], fake_quantize(x, spec, axis)[0])
            measure_weight(mapped, spec, axis)
    assert np.array_equal(np.load(tmp_path / "x.npy"), x)


@pytest.mark.parametrize("granularity", [PerTensor(), PerChannel(), PerGroup(30)], ids=str)
@pytest.mark.parametrize("estimator", [MinMax(), LeastSquaredError(), Percentile(), Entropy()])
def test_that_a_transposed_view_gives_the_transposed_result(granularity, estimator):
    x = weights((130, 90))
    spec = QuantizerSpec(IntFormat(4), False, granularity, estimator)
    assert np.allclose(fake_quantize(x.T, spec, 0)[0], fake_quantize(x, spec, 1)[0].T, atol=1e-5)
    assert np.array_equal(fake_quantize(x[:, ::2], spec, 0)[0], fake_quantize(x[:, ::2].copy(), spec, 0)[0])


@pytest.mark.parametrize("granularity", [PerChannel(), PerGroup(32)], ids=str)
@pytest.mark.parametrize("axis", [0, 1])
def test_that_temporaries_stay_small_whatever_the_memory_order(granularity, axis):
    x = weights((2048, 4096))
    out = np.empty_like(x)
    for view, view_axis in ((x, axis), (x.T, axis)):
        target = out if view is x else np.empty(x.T.shape, np.float32)
        tracemalloc.start()
        fake_quantize(view, QuantizerSpec(IntFormat(4), False, granularity), view_axis, out=target)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        # 262144 groups have scales and ranges of their own, in double precision while they are chosen.
        assert peak < (0.3 if isinstance(granularity, PerChannel) else 0.5) * x.nbytes


def test_that_no_spec_copies_and_reports_no_error():
    x = weights((4, 5))
    values, error = fake_quantize(x, None, 0)
    assert np.array_equal(values, x)
    assert not np.shares_memory(values, x)
    assert error.sqnr_db == math.inf


@pytest.mark.parametrize("name", ["float16", "bfloat16"])
def test_that_float_formats_have_values_but_no_codes(name):
    spec = QuantizerSpec(FloatFormat(name))
    assert fake_quantize(weights((4, 5)), spec, 0)[1].sqnr_db > 45
    with pytest.raises(SpecError, match="has no scale"):
        encode(weights((4, 5)), spec, 0)


@pytest.mark.parametrize("shape", [(30, 50), (50, 3, 3, 3), (4096, 9)])
@pytest.mark.parametrize(
    "spec",
    [
        None,
        QuantizerSpec(FloatFormat("bfloat16")),
        QuantizerSpec(IntFormat(4), True, PerChannel()),
        QuantizerSpec(IntFormat(4), False, PerGroup(8)),
        QuantizerSpec(IntFormat(3), False, PerTensor(), FixedRange(-0.5, 1.0)),
    ],
    ids=str,
)
def test_that_a_measurement_counts_every_value_and_agrees_with_the_quantized_weight(shape, spec):
    x = weights(shape)
    values, error = fake_quantize(x, spec, 0)
    measured = measure_weight(x, spec, 0)
    assert measured.error.mse == pytest.approx(error.mse, rel=1e-5)
    assert measured.error.clipped == error.clipped
    assert measured.quantized.counts.sum() == measured.error_histogram.counts.sum() == x.size
    assert measured.quantized.edges[0] <= values.min() + 1e-6
    assert measured.quantized.edges[-1] >= values.max() - 1e-6
    assert measured.error_histogram.edges[-1] >= error.max_abs * (1 - 1e-6)
    noise = ((x.astype(np.float64) - values) ** 2).reshape(shape[0], -1).sum(axis=1)
    signal = (x.astype(np.float64) ** 2).reshape(shape[0], -1).sum(axis=1)
    with np.errstate(divide="ignore"):
        assert measured.channel_sqnr_db == pytest.approx(10 * np.log10(signal / noise), abs=1e-3)


@given(st.integers(1, 5), st.integers(1, 40), st.integers(2, 16), st.booleans())
@settings(max_examples=30)
def test_that_groups_are_quantized_as_weights_of_as_many_channels(groups, size, bits, signed):
    x, fmt = weights((groups, size)), IntFormat(bits, signed)
    encoded = encode(x, QuantizerSpec(fmt, False), 0)
    codes = quantize_groups(x, encoded.qparams, fmt)
    assert np.array_equal(codes, encoded.codes)
    assert np.array_equal(dequantize_groups(codes, encoded.qparams), fake_quantize(x, QuantizerSpec(fmt, False), 0)[0])


@given(st.lists(st.integers(1, 5), min_size=1, max_size=4), st.data())
def test_that_from_matrix_inverts_as_matrix(shape, data):
    x = weights(tuple(shape))
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    matrix = as_matrix(x, axis)
    assert matrix.shape == (x.shape[axis], elements_per_channel(x.shape, axis))
    assert np.array_equal(from_matrix(matrix, x.shape, axis), x)


def test_that_an_activation_takes_its_scale_from_statistics():
    qparams = activation_qparams(
        collect(np.array([0.0, 5.1], np.float32)), QuantizerSpec(IntFormat(8, False), False, PerTensor())
    )
    assert qparams.scale[0] == np.float32(np.float64(np.float32(5.1)) / 255)
    assert qparams.zero_point[0] == 0


def test_that_infinite_quotients_are_clipped_without_a_warning():
    x = np.array([[3e38, -3e38, 0.0]], np.float32)
    qparams = QParams(np.array([1e-37], np.float32), np.array([0], np.int32))
    values, error = fake_quantize_with(x, QuantizerSpec(IntFormat(8)), qparams)
    assert np.array_equal(values, np.array([[127, -128, 0]], np.float32) * np.float32(1e-37))
    assert error.clipped == pytest.approx(2 / 3)


@pytest.mark.parametrize("granularity", [PerChannel(), PerGroup(4)])
def test_that_a_group_of_zeros_does_not_look_like_the_widest(granularity):
    x = np.array([[1e-3, -2e-3, 1e-3, 0], [0, 0, 0, 0], [4e-3, 0, 0, 1e-3]], np.float32)
    spec = QuantizerSpec(IntFormat(4), True, granularity)
    qparams = weight_qparams(x, spec, 0)
    assert qparams.scale[1] == qparams.scale.min()
    assert (fake_quantize(x, spec, 0)[0][1] == 0).all()


@pytest.mark.parametrize("granularity", [PerTensor(), PerChannel(), PerGroup(32)], ids=str)
@pytest.mark.parametrize("axis", [0, 1])
def test_that_the_error_is_the_same_without_the_quantized_weight(granularity, axis):
    x, spec = weights((48, 20, 9)), QuantizerSpec(IntFormat(4), granularity=granularity)
    qparams = weight_qparams(x, spec, axis)
    assert fake_quantization_error(x, spec, qparams, axis) == fake_quantize_with(x, spec, qparams, axis)[1]
