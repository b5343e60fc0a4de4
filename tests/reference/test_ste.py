"""Quantization that gradients pass: forwards against the product's own, backwards against torch and by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from quantgui.numerics.affine import fake_quantize_with, weight_qparams
from quantgui.numerics.qparams import QParams
from quantgui.numerics.ste import (
    BINARY_REACH,
    fake_quantize,
    fake_quantize_uneven,
    fake_quantize_weight,
    gradient_factor,
    round_straight_through,
    straight_through,
)
from quantgui.spec.formats import CodebookFormat, IntFormat, MinifloatFormat, TableFormat
from quantgui.spec.granularity import PerBlock, PerChannel, PerGroup, PerTensor
from quantgui.spec.quantizer import LeastSquaredError, MinMax, QuantizerSpec

SHAPES = (((6, 10), 0), ((10, 6), 1), ((4, 3, 3, 3), 0), ((3, 4, 2), 1), ((7, 1, 3), 0), ((5, 4, 6), 2))
FORMATS = [IntFormat(bits, signed) for bits in (2, 3, 4, 8, 16) for signed in (True, False)] + [
    IntFormat(2, narrow_range=True),
    IntFormat(8, narrow_range=True),
]


def _weight(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@settings(max_examples=150)
@given(
    st.sampled_from(SHAPES),
    st.sampled_from(FORMATS),
    st.booleans(),
    st.sampled_from([PerTensor(), PerChannel(), PerGroup(4), PerBlock(2, 4)]),
    st.sampled_from([MinMax(), LeastSquaredError()]),
    st.integers(0, 5),
)
def test_that_weights_are_quantized_bit_for_bit_as_numpy_does(shape_axis, fmt, symmetric, granularity, estimator, seed):
    shape, axis = shape_axis
    weight = _weight(shape, seed)
    spec = QuantizerSpec(fmt, symmetric, granularity, estimator)
    qparams = weight_qparams(weight, spec, axis)
    expected, _ = fake_quantize_with(weight, spec, qparams, axis)
    scale, zero = torch.from_numpy(qparams.scale), torch.from_numpy(qparams.zero_point.astype(np.float32))
    found = fake_quantize_weight(torch.from_numpy(weight), scale, zero, spec, axis)
    assert found.numpy().tobytes() == expected.tobytes()


def test_that_gradients_of_values_are_those_of_torchs_fake_quantization():
    x = torch.from_numpy(_weight((64,)) * 3).requires_grad_()
    twin = x.detach().clone().requires_grad_()
    upstream = torch.from_numpy(_weight((64,), 1))
    fake_quantize(x, torch.tensor(0.25), torch.tensor(3.0), IntFormat(4)).backward(upstream)
    torch.fake_quantize_per_tensor_affine(twin, 0.25, 3, -8, 7).backward(upstream)
    assert torch.equal(x.grad, twin.grad)
    assert (x.grad == 0).any()
    assert (x.grad != 0).any()


def test_that_gradients_of_scales_and_zero_points_are_those_of_torchs_learnable_fake_quantization():
    x = torch.from_numpy(_weight((256,)) * 3).requires_grad_()
    scale, zero = torch.tensor([0.25], requires_grad=True), torch.tensor([3.0], requires_grad=True)
    twins = [each.detach().clone().requires_grad_() for each in (x, scale, zero)]
    upstream = torch.from_numpy(_weight((256,), 1))
    fake_quantize(x, scale, zero, IntFormat(4), factor=0.125).backward(upstream)
    torch._fake_quantize_learnable_per_tensor_affine(*twins, -8, 7, 0.125).backward(upstream)
    for own, twin in zip((x, scale, zero), twins, strict=True):
        torch.testing.assert_close(own.grad, twin.grad, rtol=1e-5, atol=1e-6)


def test_that_gradients_of_scales_of_channels_are_those_of_torch():
    weight = torch.from_numpy(_weight((6, 10)) * 2).requires_grad_()
    scale = torch.linspace(0.1, 0.6, 6).requires_grad_()
    zero = torch.zeros(6)
    twins = [weight.detach().clone().requires_grad_(), scale.detach().clone().requires_grad_()]
    upstream = torch.from_numpy(_weight((6, 10), 1))
    fake_quantize_weight(weight, scale, zero, QuantizerSpec(IntFormat(3)), 0).backward(upstream)
    factor = gradient_factor(10, IntFormat(3))
    torch._fake_quantize_learnable_per_channel_affine(*twins, zero, 0, -4, 3, factor).backward(upstream)
    assert factor == 1 / math.sqrt(10 * 3)
    torch.testing.assert_close(weight.grad, twins[0].grad)
    torch.testing.assert_close(scale.grad, twins[1].grad, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("granularity", [PerGroup(4), PerBlock(2, 4)])
def test_that_the_gradient_of_a_scale_sums_over_its_own_group_alone(granularity):
    weight = _weight((5, 3, 3)) * 2
    spec = QuantizerSpec(IntFormat(3), granularity=granularity)
    qparams = weight_qparams(weight, spec, 0)
    scale = torch.from_numpy(qparams.scale * np.float32(0.7)).requires_grad_()
    upstream = _weight((5, 3, 3), 1)
    zero = torch.zeros(scale.shape)
    fake_quantize_weight(torch.from_numpy(weight), scale, zero, spec, 0).backward(torch.from_numpy(upstream))
    rows, columns = (1, 4) if isinstance(granularity, PerGroup) else (2, 4)
    matrix, gradients = weight.reshape(5, 9), upstream.reshape(5, 9)
    along = -(-9 // columns)
    sums = np.zeros(scale.numel())
    for c in range(5):
        for k in range(9):
            group = c // rows * along + k // columns
            units = matrix[c, k] / scale.detach().numpy()[group]
            q = np.clip(np.rint(units), -4, 3)
            sums[group] += gradients[c, k] * (q - units if q == np.rint(units) else q)
    sums *= gradient_factor(45 // scale.numel(), IntFormat(3))
    np.testing.assert_allclose(scale.grad.numpy(), sums, rtol=1e-4, atol=1e-5)


def test_that_scales_of_clipped_values_have_the_slope_of_finite_differences():
    x = torch.tensor([9.0, -9.0, 30.0])
    scale = torch.tensor(0.5, requires_grad=True)
    fake_quantize(x, scale, torch.tensor(0.0), IntFormat(4)).sum().backward()
    step = 1e-2
    ends = [
        fake_quantize(x, torch.tensor(0.5 + sign * step), torch.tensor(0.0), IntFormat(4)).sum() for sign in (1, -1)
    ]
    assert float(scale.grad) == pytest.approx(float(ends[0] - ends[1]) / (2 * step), rel=1e-3) == 6.0


def test_that_learned_zero_points_are_rounded_forwards():
    x = torch.linspace(-2, 2, 50)
    found = fake_quantize(x, torch.tensor(0.1), torch.tensor(7.4), IntFormat(4, signed=False))
    qparams = QParams(np.array([0.1], np.float32), np.array([7], np.int32))
    spec = QuantizerSpec(IntFormat(4, signed=False), symmetric=False, granularity=PerTensor())
    assert found.numpy().tobytes() == fake_quantize_with(x.numpy(), spec, qparams)[0].tobytes()


def test_that_rounding_and_functions_in_numpy_pass_gradients_on():
    x = torch.tensor([0.5, 1.5, -2.4], requires_grad=True)
    rounded = round_straight_through(x)
    assert rounded.tolist() == [0.0, 2.0, -2.0]
    (rounded * torch.tensor([1.0, 2.0, 3.0])).sum().backward()
    assert x.grad.tolist() == [1.0, 2.0, 3.0]
    y = torch.tensor([1.23456789], requires_grad=True)
    half = straight_through(lambda v: v.astype(np.float16).astype(np.float32), y)
    half.backward(torch.tensor([4.0]))
    assert half.tolist() == [float(np.float16(1.23456789))]
    assert y.grad.tolist() == [4.0]


# --- levels that are not evenly spaced ---------------------------------------------------------------------------

UNEVEN = [TableFormat("binary"), TableFormat("nf4"), MinifloatFormat(2, 1), MinifloatFormat(4, 3)]


@settings(max_examples=80)
@given(
    st.sampled_from(SHAPES),
    st.sampled_from(UNEVEN),
    st.sampled_from([PerTensor(), PerChannel(), PerGroup(4), PerBlock(2, 4)]),
    st.sampled_from([MinMax(), LeastSquaredError()]),
    st.integers(0, 5),
)
def test_that_uneven_levels_are_those_of_numpy_bit_for_bit(shape_axis, fmt, granularity, estimator, seed):
    shape, axis = shape_axis
    weight = _weight(shape, seed)
    weight[np.unravel_index(0, shape)] = 0.0
    spec = QuantizerSpec(fmt, True, granularity, estimator)
    qparams = weight_qparams(weight, spec, axis)
    expected, _ = fake_quantize_with(weight, spec, qparams, axis)
    scale = torch.from_numpy(qparams.scale)
    found = fake_quantize_weight(torch.from_numpy(weight), scale, torch.zeros(scale.shape), spec, axis)
    assert found.numpy().tobytes() == expected.tobytes()


def _learned_levels(x: torch.Tensor, scale: torch.Tensor, fmt: TableFormat) -> torch.Tensor:
    """Return what learned step sizes make of `x`, by torch's own gradients: levels found by their distance."""
    levels = torch.tensor(fmt.levels)
    low, high = levels[0] - (levels[1] - levels[0]) / 2, levels[-1] + (levels[-1] - levels[-2]) / 2
    units = (x / scale).clamp(float(low), float(high))
    nearest = levels[(units.detach()[..., None] - levels).abs().argmin(-1)]
    # Beyond the ends the level counts alone, and no longer where the value was clipped.
    return scale * (units - units.detach() + nearest)


@pytest.mark.parametrize("fmt", [TableFormat("nf4")], ids=str)
def test_that_gradients_of_uneven_levels_are_those_of_learned_step_sizes(fmt):
    weight = torch.from_numpy(_weight((6, 40)) * 2).requires_grad_()
    scale = torch.linspace(0.4, 1.6, 6).requires_grad_()
    twins = [each.detach().clone().requires_grad_() for each in (weight, scale)]
    upstream = torch.from_numpy(_weight((6, 40), 1))
    fake_quantize_weight(weight, scale, torch.zeros(6), QuantizerSpec(fmt), 0).backward(upstream)
    _learned_levels(twins[0], twins[1][:, None], fmt).backward(upstream)
    torch.testing.assert_close(weight.grad, twins[0].grad)
    factor = gradient_factor(40, fmt)
    torch.testing.assert_close(scale.grad, twins[1].grad * factor, rtol=1e-4, atol=1e-5)
    assert 0 < int((weight.grad == 0).sum()) < 240


def test_that_gradients_of_binary_weights_are_those_of_a_clipped_sign():
    weight = torch.from_numpy(_weight((6, 40))).requires_grad_()
    scale = weight.detach().abs().mean(1).requires_grad_()
    twins = [each.detach().clone().requires_grad_() for each in (weight, scale)]
    upstream = torch.from_numpy(_weight((6, 40), 1))
    binary = TableFormat("binary")
    found = fake_quantize_weight(weight, scale, torch.zeros(6), QuantizerSpec(binary), 0)
    found.backward(upstream)
    # sign(x) forwards, x clipped to its reach backwards.
    alpha = twins[1][:, None]
    reach = BINARY_REACH * alpha.detach()
    hard = twins[0].detach().sign()
    soft = torch.minimum(torch.maximum(twins[0], -reach), reach)
    wanted = alpha * hard + soft - soft.detach()
    torch.testing.assert_close(found, wanted)
    wanted.backward(upstream)
    torch.testing.assert_close(weight.grad, twins[0].grad)
    torch.testing.assert_close(scale.grad, twins[1].grad * gradient_factor(40, binary))
    assert 0 < int((weight.grad == 0).sum()) < 120


def test_that_zero_becomes_the_lower_level_and_what_has_no_scale_is_refused():
    found = fake_quantize_uneven(torch.tensor([0.0, -0.0, 1e-9]), torch.tensor(0.5), TableFormat("binary"))
    assert found.tolist() == [-0.5, -0.5, 0.5]
    with pytest.raises(ValueError, match="codebook2 has no scale"):
        fake_quantize_weight(torch.zeros(2, 2), torch.ones(2), torch.zeros(2), QuantizerSpec(CodebookFormat(2)), 0)
