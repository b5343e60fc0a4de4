"""Operators that work on each element: arithmetic, comparisons, activation functions, casts."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from quantgui.network.torch_operators.node import Operator, OperatorNode, torch_dtype


def _unary(function: Callable[[Tensor], Tensor]) -> Operator:
    return lambda _, x: function(x)


def _binary(function: Callable[[Tensor, Tensor], Tensor]) -> Operator:
    def operator(node: OperatorNode, a: Tensor, b: Tensor) -> Tensor:
        if node.opset < 7 and a.shape != b.shape:
            raise node.uncovered("broadcasting of opsets before 7")
        return function(a, b)

    return operator


def _variadic(function: Callable[[Tensor, Tensor], Tensor]) -> Operator:
    return lambda _, *tensors: functools.reduce(function, tensors)


def square_root(x: Tensor) -> Tensor:
    """Return the square root, whose gradient at 0 is 0: infinity there would make the whole gradient NaN."""
    zero = x == 0
    return torch.where(zero, torch.zeros_like(x), torch.where(zero, torch.ones_like(x), x).sqrt())


def _divide(a: Tensor, b: Tensor) -> Tensor:
    return a / b if a.is_floating_point() else torch.div(a, b, rounding_mode="trunc")


def _power(_: OperatorNode, a: Tensor, b: Tensor) -> Tensor:
    if b.numel() == 1 and not b.requires_grad and b.dim() <= a.dim():
        exponent = b.item()
        power = square_root(a) if exponent == 0.5 and a.is_floating_point() else torch.pow(a, exponent)
    else:
        power = torch.pow(a, b)
    return power.to(a.dtype)


def _modulo(node: OperatorNode, a: Tensor, b: Tensor) -> Tensor:
    return torch.fmod(a, b) if node.get("fmod", 0) else torch.remainder(a, b)


def _mean(_: OperatorNode, *tensors: Tensor) -> Tensor:
    return functools.reduce(torch.add, tensors) / len(tensors)


def _clip(node: OperatorNode, x: Tensor, low: Tensor | None = None, high: Tensor | None = None) -> Tensor:
    if node.opset < 11:
        return torch.clamp(x, node.get("min", -math.inf), node.get("max", math.inf))
    if low is None and high is None:
        return x
    if not any(limit is not None and limit.requires_grad for limit in (low, high)):
        # Limits as numbers take a third of the time, there and back.
        return torch.clamp(x, None if low is None else low.item(), None if high is None else high.item())
    if low is not None:
        x = torch.maximum(x, low)
    return x if high is None else torch.minimum(x, high)


def _prelu(node: OperatorNode, x: Tensor, slope: Tensor) -> Tensor:
    if node.opset < 9 and slope.dim() == 1 and slope.numel() > 1:
        slope = slope.reshape(-1, *[1] * (x.dim() - 2))
    return torch.where(x < 0, slope * x, x)


def _cast(node: OperatorNode, x: Tensor) -> Tensor:
    if isinstance(node.get("to", 1), str):
        raise node.uncovered("a type given as text")
    return x.to(torch_dtype(node, node.get("to", 1)))


def _hard_sigmoid(node: OperatorNode, x: Tensor) -> Tensor:
    return (node.get("alpha", 0.2) * x + node.get("beta", 0.5)).clamp(0, 1)


def _elu(node: OperatorNode, x: Tensor) -> Tensor:
    # expm1 of large values would be infinite, and so would be its part of the gradient.
    return torch.where(x > 0, x, node.get("alpha", 1.0) * torch.expm1(x.clamp(max=0)))


def _celu(node: OperatorNode, x: Tensor) -> Tensor:
    return functional.celu(x, node.get("alpha", 1.0))


def _selu(node: OperatorNode, x: Tensor) -> Tensor:
    alpha, gamma = node.get("alpha", 1.67326319217681884765625), node.get("gamma", 1.05070102214813232421875)
    return gamma * torch.where(x > 0, x, alpha * torch.expm1(x.clamp(max=0)))


def _leaky_relu(node: OperatorNode, x: Tensor) -> Tensor:
    return torch.where(x < 0, node.get("alpha", 0.01) * x, x)


def _thresholded_relu(node: OperatorNode, x: Tensor) -> Tensor:
    return torch.where(x > node.get("alpha", 1.0), x, torch.zeros_like(x))


def _gelu(node: OperatorNode, x: Tensor) -> Tensor:
    return functional.gelu(x, approximate=node.get("approximate", "none"))


def _swish(node: OperatorNode, x: Tensor) -> Tensor:
    return x * torch.sigmoid(node.get("alpha", 1.0) * x)


def _shrink(node: OperatorNode, x: Tensor) -> Tensor:
    threshold, bias = node.get("lambd", 0.5), node.get("bias", 0.0)
    zero = torch.zeros_like(x)
    return torch.where(x < -threshold, x + bias, torch.where(x > threshold, x - bias, zero))


def _is_infinite(node: OperatorNode, x: Tensor) -> Tensor:
    found = torch.zeros_like(x, dtype=torch.bool)
    if node.get("detect_positive", 1):
        found = found | (x == math.inf)
    return found | (x == -math.inf) if node.get("detect_negative", 1) else found


def _shift(node: OperatorNode, a: Tensor, b: Tensor) -> Tensor:
    left = node.get("direction", "") == "LEFT"
    return torch.bitwise_left_shift(a, b) if left else torch.bitwise_right_shift(a, b)


def _dropout(node: OperatorNode, x: Tensor, *_: Tensor | None) -> list[Tensor]:
    return [x, torch.ones_like(x, dtype=torch.bool)] if node.wants(1) else [x]


ELEMENTWISE: dict[str, Operator] = {
    "Abs": _unary(torch.abs),
    "Acos": _unary(torch.acos),
    "Acosh": _unary(torch.acosh),
    "Add": _binary(torch.add),
    "And": _binary(torch.logical_and),
    "Asin": _unary(torch.asin),
    "Asinh": _unary(torch.asinh),
    "Atan": _unary(torch.atan),
    "Atanh": _unary(torch.atanh),
    "BitShift": _shift,
    "BitwiseAnd": _binary(torch.bitwise_and),
    "BitwiseNot": _unary(torch.bitwise_not),
    "BitwiseOr": _binary(torch.bitwise_or),
    "BitwiseXor": _binary(torch.bitwise_xor),
    "Cast": _cast,
    "CastLike": lambda _, x, like: x.to(like.dtype),
    "Ceil": _unary(torch.ceil),
    "Celu": _celu,
    "Clip": _clip,
    "Cos": _unary(torch.cos),
    "Cosh": _unary(torch.cosh),
    "Div": _binary(_divide),
    "Dropout": _dropout,
    "Elu": _elu,
    "Equal": _binary(torch.eq),
    "Erf": _unary(torch.erf),
    "Exp": _unary(torch.exp),
    "Floor": _unary(torch.floor),
    "Gelu": _gelu,
    "Greater": _binary(torch.gt),
    "GreaterOrEqual": _binary(torch.ge),
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _unary(functional.hardswish),
    "Identity": _unary(lambda x: x),
    "IsInf": _is_infinite,
    "IsNaN": _unary(torch.isnan),
    "LeakyRelu": _leaky_relu,
    "Less": _binary(torch.lt),
    "LessOrEqual": _binary(torch.le),
    "Log": _unary(torch.log),
    "Max": _variadic(torch.maximum),
    "Mean": _mean,
    "Min": _variadic(torch.minimum),
    "Mish": _unary(functional.mish),
    "Mod": _modulo,
    "Mul": _binary(torch.mul),
    "Neg": _unary(torch.neg),
    "Not": _unary(torch.logical_not),
    "Or": _binary(torch.logical_or),
    "PRelu": _prelu,
    "Pow": _power,
    "Reciprocal": _unary(torch.reciprocal),
    "Relu": _unary(torch.relu),
    "Round": _unary(torch.round),
    "Selu": _selu,
    "Shrink": _shrink,
    "Sigmoid": _unary(torch.sigmoid),
    "Sign": _unary(torch.sign),
    "Sin": _unary(torch.sin),
    "Sinh": _unary(torch.sinh),
    "Softplus": _unary(functional.softplus),
    "Softsign": _unary(functional.softsign),
    "Sqrt": _unary(square_root),
    "Sub": _binary(torch.sub),
    "Sum": _variadic(torch.add),
    "Swish": _swish,
    "Tan": _unary(torch.tan),
    "Tanh": _unary(torch.tanh),
    "ThresholdedRelu": _thresholded_relu,
    "Where": lambda _, condition, a, b: torch.where(condition, a, b),
    "Xor": _binary(torch.logical_xor),
}
