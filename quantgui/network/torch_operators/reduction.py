"""Operators that reduce axes, sort, and normalize; and products of matrices."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from quantgui.network.torch_operators.elementwise import square_root
from quantgui.network.torch_operators.node import Operator, OperatorNode

Reduce = Callable[[Tensor, list[int], bool], Tensor]


def _reduction(reduce: Reduce) -> Operator:
    def operator(node: OperatorNode, x: Tensor, *given: Tensor | None) -> Tensor:
        axes = node.integers("axes", (x, *given), 1)
        if not axes:
            if node.get("noop_with_empty_axes", 0):
                return _OF_ONE.get(node.op, _unchanged)(x)
            axes = list(range(x.dim()))
        return reduce(x, axes, bool(node.get("keepdims", 1))) if x.dim() else reduce(x.reshape(1), [0], False)

    return operator


def _sum(x: Tensor, axes: list[int], keep: bool) -> Tensor:  # noqa: FBT001 (called by one place, by position)
    return x.sum(axes, keepdim=keep, dtype=x.dtype)


def _average(x: Tensor, axes: list[int], keep: bool) -> Tensor:  # noqa: FBT001
    if x.is_floating_point():
        return x.mean(axes, keepdim=keep)
    count = math.prod(x.shape[axis] for axis in axes)
    return torch.div(_sum(x, axes, keep), count, rounding_mode="trunc")


def _product(x: Tensor, axes: list[int], keep: bool) -> Tensor:  # noqa: FBT001
    for axis in sorted((axis % x.dim() for axis in axes), reverse=True):
        x = x.prod(axis, keepdim=keep, dtype=x.dtype)
    return x


_REDUCTIONS: dict[str, Reduce] = {
    "ReduceL1": lambda x, axes, keep: _sum(x.abs(), axes, keep),
    "ReduceL2": lambda x, axes, keep: square_root(_sum(x * x, axes, keep)),
    "ReduceLogSum": lambda x, axes, keep: _sum(x, axes, keep).log(),
    "ReduceLogSumExp": lambda x, axes, keep: torch.logsumexp(x, axes, keepdim=keep),
    "ReduceMax": lambda x, axes, keep: x.amax(axes, keepdim=keep),
    "ReduceMean": _average,
    "ReduceMin": lambda x, axes, keep: x.amin(axes, keepdim=keep),
    "ReduceProd": _product,
    "ReduceSum": _sum,
    "ReduceSumSquare": lambda x, axes, keep: _sum(x * x, axes, keep),
}


_OF_ONE: dict[str, Callable[[Tensor], Tensor]] = {
    "ReduceL1": torch.abs,
    "ReduceL2": torch.abs,
    "ReduceLogSum": torch.log,
    "ReduceSumSquare": torch.square,
}
"""What a reduction over no axes does to each element."""


def _unchanged(x: Tensor) -> Tensor:
    return x


def _arg(node: OperatorNode, x: Tensor) -> Tensor:
    axis, keep = node.get("axis", 0), bool(node.get("keepdims", 1))
    find = torch.argmax if node.op == "ArgMax" else torch.argmin
    if node.get("select_last_index", 0):
        return x.shape[axis] - 1 - find(x.flip(axis), axis, keepdim=keep)
    return find(x, axis, keepdim=keep)


def _top_k(node: OperatorNode, x: Tensor, *given: Tensor | None) -> tuple[Tensor, Tensor]:
    k = node.attributes["k"] if "k" in node.attributes else (node.integers("", (x, *given), 1) or [0])[0]
    axis, largest = node.get("axis", -1), bool(node.get("largest", 1))
    # A stable sort puts the lower index first among equals, as ONNX wants it.
    values, indices = torch.sort(x, dim=axis, descending=largest, stable=True)
    return values.narrow(axis, 0, k), indices.narrow(axis, 0, k)


def _cumulative_sum(node: OperatorNode, x: Tensor, axis: Tensor) -> Tensor:
    at = int(axis)
    x = x.flip(at) if node.get("reverse", 0) else x
    total = x.cumsum(at, dtype=x.dtype)
    total = total - x if node.get("exclusive", 0) else total
    return total.flip(at) if node.get("reverse", 0) else total


# --- products ----------------------------------------------------------------------------------------------------


def _gemm(node: OperatorNode, a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
    a = a.T if node.get("transA", 0) else a
    b = b.T if node.get("transB", 0) else b
    alpha, beta = node.get("alpha", 1.0), node.get("beta", 1.0)
    product = a @ b if alpha == 1.0 else alpha * (a @ b)
    if c is None or beta == 0.0:
        return product
    return product + (c if beta == 1.0 else beta * c)


def _einsum(node: OperatorNode, *tensors: Tensor) -> Tensor:
    return torch.einsum(node.attributes["equation"].replace(" ", ""), *tensors)


# --- normalization -----------------------------------------------------------------------------------------------


def _along_axis(function: Callable[..., Tensor]) -> Operator:
    def operator(node: OperatorNode, x: Tensor) -> Tensor:
        if node.opset >= 13:
            return function(x, node.get("axis", -1))
        # Older operators see a matrix: all axes from this one on are one.
        axis = node.get("axis", 1)
        axis += x.dim() if axis < 0 else 0
        return function(x.reshape(math.prod(x.shape[:axis]), -1), 1).reshape(x.shape)

    return operator


def _hardmax(x: Tensor, axis: int) -> Tensor:
    return torch.zeros_like(x).scatter(axis, x.argmax(axis, keepdim=True), 1.0)


def _per_channel(values: Tensor, rank: int) -> Tensor:
    return values.reshape(-1, *[1] * (rank - 2))


def _batch_norm(
    node: OperatorNode, x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, variance: Tensor
) -> list[Tensor]:
    if node.get("training_mode", 0) or any(node.wants(i) for i in range(1, len(node.outputs))):
        raise node.uncovered("training")
    if node.opset < 9 and node.get("spatial", 1) == 0:
        raise node.uncovered("normalization of each place")
    factor = scale / torch.sqrt(variance + node.get("epsilon", 1e-5))
    return [
        ((x - _per_channel(mean, x.dim())) * _per_channel(factor, x.dim()) + _per_channel(bias, x.dim())).to(x.dtype)
    ]


def _normalized(x: Tensor, axes: list[int], epsilon: float) -> tuple[Tensor, Tensor, Tensor]:
    mean = x.mean(axes, keepdim=True)
    centred = x - mean
    inverse = torch.rsqrt((centred * centred).mean(axes, keepdim=True) + epsilon)
    return centred * inverse, mean, inverse


def _instance_norm(node: OperatorNode, x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    normal, _, _ = _normalized(x, list(range(2, x.dim())), node.get("epsilon", 1e-5))
    return normal * _per_channel(scale, x.dim()) + _per_channel(bias, x.dim())


def _layer_norm(node: OperatorNode, x: Tensor, scale: Tensor, bias: Tensor | None = None) -> tuple[Tensor, ...]:
    axis = node.get("axis", -1)
    axes = list(range(axis + x.dim() if axis < 0 else axis, x.dim()))
    # The mean is taken in float32 where the network itself has less.
    exact = x.to(torch.float32) if x.dtype in (torch.float16, torch.bfloat16) else x
    normal, mean, inverse = _normalized(exact, axes, node.get("epsilon", 1e-5))
    result = normal.to(x.dtype) * scale
    return (result if bias is None else result + bias), mean, inverse


def _rms_norm(node: OperatorNode, x: Tensor, scale: Tensor) -> Tensor:
    axis = node.get("axis", -1)
    axes = list(range(axis + x.dim() if axis < 0 else axis, x.dim()))
    exact = x.to(torch.float32) if x.dtype in (torch.float16, torch.bfloat16) else x
    inverse = torch.rsqrt((exact * exact).mean(axes, keepdim=True) + node.get("epsilon", 1e-5))
    return (exact * inverse).to(x.dtype) * scale


def _group_norm(node: OperatorNode, x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    groups = node.attributes["num_groups"]
    grouped = x.reshape(x.shape[0], groups, -1)
    normal, _, _ = _normalized(grouped, [2], node.get("epsilon", 1e-5))
    if node.opset < 21:
        # Up to there, scale and bias belong to groups.
        return (normal * scale.reshape(-1, 1) + bias.reshape(-1, 1)).reshape(x.shape)
    return normal.reshape(x.shape) * _per_channel(scale, x.dim()) + _per_channel(bias, x.dim())


def _response_norm(node: OperatorNode, x: Tensor) -> Tensor:
    size = node.attributes["size"]
    before = (size - 1) // 2
    squares = functional.pad((x * x).transpose(1, -1), (before, size - 1 - before))
    total = squares.unfold(-1, size, 1).sum(-1).transpose(1, -1)
    return x / (node.get("bias", 1.0) + node.get("alpha", 1e-4) / size * total) ** node.get("beta", 0.75)


def _lp_norm(node: OperatorNode, x: Tensor) -> Tensor:
    axis = node.get("axis", -1)
    first = node.get("p", 2) == 1
    norm = x.abs().sum(axis, keepdim=True) if first else square_root((x * x).sum(axis, keepdim=True))
    return torch.where(norm == 0, torch.zeros_like(x), x / torch.where(norm == 0, torch.ones_like(norm), norm))


def _mean_variance_norm(node: OperatorNode, x: Tensor) -> Tensor:
    axes = list(node.get("axes", (0, 2, 3)))
    centred = x - x.mean(axes, keepdim=True)
    return centred / (square_root((centred * centred).mean(axes, keepdim=True)) + 1e-9)


def _dequantize(node: OperatorNode, x: Tensor, scale: Tensor, zero_point: Tensor | None = None) -> Tensor:
    axis, block = node.get("axis", 1), node.get("block_size", 0)
    if scale.dim() == 1 and x.dim() and not block:
        shape = [1] * x.dim()
        shape[axis] = -1
        scale, zero_point = scale.reshape(shape), None if zero_point is None else zero_point.reshape(shape)
    elif block:
        scale = scale.repeat_interleave(block, axis).narrow(axis, 0, x.shape[axis])
        if zero_point is not None:
            zero_point = zero_point.repeat_interleave(block, axis).narrow(axis, 0, x.shape[axis])
    values = x.to(torch.float32)
    values = values if zero_point is None else values - zero_point.to(torch.float32)
    return (values * scale.to(torch.float32)).to(scale.dtype)


REDUCTION: dict[str, Operator] = {
    **{name: _reduction(reduce) for name, reduce in _REDUCTIONS.items()},
    "ArgMax": _arg,
    "ArgMin": _arg,
    "BatchNormalization": _batch_norm,
    "CumSum": _cumulative_sum,
    "DequantizeLinear": _dequantize,
    "Einsum": _einsum,
    "Gemm": _gemm,
    "GroupNormalization": _group_norm,
    "Hardmax": _along_axis(_hardmax),
    "InstanceNormalization": _instance_norm,
    "LRN": _response_norm,
    "LayerNormalization": _layer_norm,
    "LogSoftmax": _along_axis(torch.log_softmax),
    "LpNormalization": _lp_norm,
    "MatMul": lambda _, a, b: torch.matmul(a, b),
    "MeanVarianceNormalization": _mean_variance_norm,
    "RMSNormalization": _rms_norm,
    "Softmax": _along_axis(torch.softmax),
    "TopK": _top_k,
}
