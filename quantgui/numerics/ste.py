"""Quantization that gradients pass: straight-through rounding, learned step sizes. No other file here imports torch.

Forwards, integers are what `numerics.affine` makes of them, bit for bit. Backwards, rounding counts as the identity:
the gradient of a value is passed on where it lies within the grid, and is 0 where it is clipped. The gradient of a
scale is, for each value x with integer q (before the zero point is added),

    q - x / scale            within the grid        lowest or highest q        where clipped

(LSQ: S. Esser et al., "Learned step size quantization", 2020), that of a zero point -scale where clipped, else 0
(LSQ+: Y. Bhalgat et al., "LSQ+: Improving low-bit quantization through learnable offsets and better initialization",
2020), both times ``1 / sqrt(N * largest q)`` so that they are as large as those of the N weights. Zero points are
real while they are learned, and rounded wherever they are used.

Levels that are not evenly spaced are passed in the same way, q being a level. Binary weights are ``scale * sign(x)``:
the gradient of x is passed on up to `BINARY_REACH` scales (M. Courbariaux et al., "Binarized neural networks", 2016,
clip there), and that of the scale is the true one, the sign, for no value of the scale changes a level.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final, assert_never

import numpy as np
import torch
from torch import Tensor

from quantgui.numerics.groups import grid_shape
from quantgui.numerics.levels import nearest_levels, uneven_grid
from quantgui.results import Array
from quantgui.spec.formats import IntFormat, MinifloatFormat, TableFormat, UnevenFormat
from quantgui.spec.granularity import PerBlock, PerChannel, PerGroup, PerTensor
from quantgui.spec.quantizer import QuantizerSpec

_PIECE: Final = 1 << 17
"""Values that are quantized at once: half a MiB."""
_BINARY: Final = TableFormat("binary")
BINARY_REACH: Final = 2.0
"""In scales: how far from 0 the gradient of a binary weight is passed on."""


def round_straight_through(x: Tensor) -> Tensor:
    """Return `x` rounded half to even; its gradient is passed on unchanged."""
    return x + (x.round() - x).detach()


def fake_quantize(x: Tensor, scale: Tensor, zero_point: Tensor, fmt: IntFormat, *, factor: float = 1.0) -> Tensor:
    """Return `x` as integers of `fmt` represent it.

    Args:
        x: float32 values of any shape.
        scale: float32 of a shape that broadcasts to that of `x`, positive.
        zero_point: float32 like `scale`; rounded here.
        fmt: the integers.
        factor: of the gradients of `scale` and `zero_point` (see `gradient_factor`).
    """
    result: Tensor = _FakeQuantize.apply(x, scale, zero_point, float(fmt.quant_min), float(fmt.quant_max), factor)
    return result


def fake_quantize_uneven(x: Tensor, scale: Tensor, fmt: UnevenFormat, *, factor: float = 1.0) -> Tensor:
    """Return `x` as the nearest levels of `fmt` times `scale` represent it; the rest is as in `fake_quantize`."""
    result: Tensor = _FakeQuantizeUneven.apply(x, scale, fmt, factor)
    return result


def gradient_factor(values: int, fmt: IntFormat | UnevenFormat) -> float:
    """Return ``1 / sqrt(N * largest q)`` for a scale that N values share."""
    largest = fmt.quant_max if isinstance(fmt, IntFormat) else fmt.largest
    return 1.0 / math.sqrt(max(values, 1) * largest)


def fake_quantize_weight(
    weight: Tensor, scale: Tensor, zero_point: Tensor, spec: QuantizerSpec, channel_axis: int
) -> Tensor:
    """Return a weight as `spec` with the grids `scale` and `zero_point`, (G,) channel by channel, represents it.

    Raises:
        ValueError: `spec` has no scale.
    """
    if not isinstance(spec.format, IntFormat | MinifloatFormat | TableFormat):
        raise ValueError(f"{spec.format} has no scale.")
    factor = gradient_factor(weight.numel() // max(scale.numel(), 1), spec.format)
    spread = spread_groups(scale, weight.shape, channel_axis, spec)
    if not isinstance(spec.format, IntFormat):
        return fake_quantize_uneven(weight, spread, spec.format, factor=factor)
    zeros = spread_groups(zero_point, weight.shape, channel_axis, spec)
    return fake_quantize(weight, spread, zeros, spec.format, factor=factor)


def spread_groups(values: Tensor, shape: torch.Size, channel_axis: int, spec: QuantizerSpec) -> Tensor:
    """Return one value per group, (G,) channel by channel, in a shape that broadcasts to a weight of `shape`."""
    axis = channel_axis % len(shape)
    match spec.granularity:
        case PerTensor():
            return values.reshape([1] * len(shape))
        case PerChannel():
            return values.reshape([size if i == axis else 1 for i, size in enumerate(shape)])
        case PerGroup(group_size):
            rows, columns = 1, group_size
        case PerBlock(rows, columns):
            pass
        case _:
            assert_never(spec.granularity)
    channels = shape[axis]
    behind = [size for i, size in enumerate(shape) if i != axis]
    matrix = values.reshape(grid_shape(tuple(shape), axis, spec.granularity))
    matrix = matrix.repeat_interleave(rows, 0)[:channels] if rows > 1 else matrix
    matrix = matrix.repeat_interleave(columns, 1)[:, : math.prod(behind)]
    return matrix.reshape(channels, *behind).movedim(0, axis)


def straight_through(function: Callable[[Array], Array], x: Tensor) -> Tensor:
    """Return ``function(x)``, computed in numpy; the gradient is passed on unchanged."""
    result: Tensor = _StraightThrough.apply(x, function)
    return result


class _StraightThrough(torch.autograd.Function):  # type: ignore[misc]  # torch is not typed here
    @staticmethod
    def forward(_context: Any, x: Tensor, function: Callable[[Array], Array]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(function(x.detach().numpy())))

    @staticmethod
    def backward(_context: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None


class _FakeQuantize(torch.autograd.Function):  # type: ignore[misc]  # torch is not typed here
    @staticmethod
    def forward(
        context: Any, x: Tensor, scale: Tensor, zero_point: Tensor, quant_min: float, quant_max: float, factor: float
    ) -> Tensor:
        zero = zero_point.round()
        context.save_for_backward(x, scale, zero)
        context.ends = quant_min, quant_max, factor
        if scale.numel() == 1:
            return _one_grid(x, scale.reshape(()), quant_min - float(zero), quant_max - float(zero))
        # Integers know no negative zero.
        levels = (x / scale).round_().clamp_(quant_min - zero, quant_max - zero).add_(0.0)
        return levels.mul_(scale)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, scale, zero = context.saved_tensors
        quant_min, quant_max, factor = context.ends
        if scale.numel() == 1:
            low, high = quant_min - float(zero), quant_max - float(zero)
            of_x, *others = _one_grid_gradients(gradient, x, scale.reshape(()), low, high)
            of_scale, of_zero = (x.new_full(scale.shape, each * factor) for each in others)
            return of_x, of_scale, of_zero, None, None, None
        units = x / scale
        rounded = units.round()
        levels = rounded.clamp(quant_min - zero, quant_max - zero)
        inside = levels == rounded
        of_x = of_scale = of_zero = None
        if context.needs_input_grad[0]:
            of_x = gradient * inside
        if context.needs_input_grad[1]:
            slope = levels.sub_(units.mul_(inside))
            of_scale = slope.mul_(gradient).sum_to_size(scale.shape).mul_(factor)
        if context.needs_input_grad[2]:
            outside = torch.where(inside, gradient.new_zeros(()), gradient)
            of_zero = (outside * -scale).sum_to_size(zero.shape).mul_(factor)
        return of_x, of_scale, of_zero, None, None, None


class _FakeQuantizeUneven(torch.autograd.Function):  # type: ignore[misc]  # torch is not typed here
    @staticmethod
    def forward(context: Any, x: Tensor, scale: Tensor, fmt: UnevenFormat, factor: float) -> Tensor:
        units = x / scale
        levels = torch.from_numpy(nearest_levels(units.numpy(), fmt))
        context.save_for_backward(units, levels, scale)
        context.form = fmt, factor
        return levels * scale

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        units, levels, scale = context.saved_tensors
        fmt, factor = context.form
        low, high = (-BINARY_REACH, BINARY_REACH) if fmt == _BINARY else uneven_grid(fmt).limits
        inside = (units >= low) & (units <= high)
        of_scale = None
        if context.needs_input_grad[1]:
            slope = levels if fmt == _BINARY else levels - units * inside
            of_scale = (slope * gradient).sum_to_size(scale.shape) * factor
        return gradient * inside, of_scale, None, None


def _one_grid(x: Tensor, scale: Tensor, low: float, high: float) -> Tensor:
    """Return `x` on one grid of levels `low` ... `high`, piece by piece: each stays in the cache for all operations."""
    x = x.contiguous()
    out = torch.empty_like(x)
    for part, target in zip(x.view(-1).split(_PIECE), out.view(-1).split(_PIECE), strict=True):
        torch.div(part, scale, out=target)
        target.round_().clamp_(low, high).add_(0.0).mul_(scale)
    return out


def _one_grid_gradients(
    gradient: Tensor, x: Tensor, scale: Tensor, low: float, high: float
) -> tuple[Tensor, float, float]:
    """Return the gradients of `x`, of the scale and of the zero point of one grid, without factor."""
    gradient, x = gradient.contiguous(), x.contiguous()
    of_x = torch.empty_like(x)
    slope_sum = outside_sum = 0.0
    units, rounded, levels = (x.new_empty(min(_PIECE, x.numel())) for _ in range(3))
    for given, part, target in zip(*(each.view(-1).split(_PIECE) for each in (gradient, x, of_x)), strict=True):
        unit, whole, level = (each[: part.numel()] for each in (units, rounded, levels))
        torch.div(part, scale, out=unit)
        torch.round(unit, out=whole)
        torch.clamp(whole, low, high, out=level)
        inside = torch.eq(whole, level, out=whole)
        torch.mul(given, inside, out=target)
        slope_sum += float(level.addcmul_(unit, inside, value=-1).dot(given))
        outside_sum += float(given.sum()) - float(target.sum())
    return of_x, slope_sum, -outside_sum * float(scale)
