"""Operators in torch, one by one with awkward attributes, against ONNX Runtime (or onnx where that has no kernel)."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import builders
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import helper
from onnx.reference import ReferenceEvaluator

from quantgui.errors import NetworkError
from quantgui.network.differentiable import OPERATORS, DifferentiableNetwork, uncovered_operators

F = np.float32
Given = Sequence[np.ndarray | None]


def x(*shape: int, seed: int = 0, low: float = -2.0, high: float = 2.0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(low, high, shape).astype(F)


def positive(*shape: int) -> np.ndarray:
    return x(*shape, low=0.1, high=3.0)


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def number(value: float, dtype: Any = F) -> np.ndarray:
    return np.array(value, dtype)


class Case(NamedTuple):
    op: str
    given: Given
    attributes: dict[str, Any]
    opset: int
    outputs: int

    @property
    def label(self) -> str:
        attributes = ",".join(f"{k}={v}".replace(" ", "") for k, v in self.attributes.items())
        shapes = ",".join("-" if a is None else "x".join(map(str, a.shape)) for a in self.given)
        return f"{self.op}-{self.opset}({shapes};{attributes})"[:110]


def case(op: str, *given: np.ndarray | None, opset: int = 17, outputs: int = 1, **attributes: Any) -> Case:
    return Case(op, given, attributes, opset, outputs)


SIMPLE = (
    "Abs", "Atan", "Asinh", "Ceil", "Celu", "Cos", "Cosh", "Elu", "Erf", "Exp", "Floor", "HardSigmoid", "HardSwish",
    "Identity", "LeakyRelu", "Mish", "Neg", "Relu", "Round", "Selu", "Shrink", "Sigmoid", "Sign", "Sin", "Sinh",
    "Softplus", "Softsign", "Tan", "Tanh", "ThresholdedRelu",
)  # fmt: skip


def elementwise() -> Iterator[Case]:
    for op in SIMPLE:
        yield case(op, x(3, 5), opset=18)
    yield case("Round", np.array([-2.5, -1.5, -0.5, 0.5, 1.5, 2.5], F))
    for op in ("Sqrt", "Log", "Reciprocal"):
        yield case(op, positive(3, 5))
    yield case("Sqrt", np.array([0, 1, 4, -1], F))
    yield case("Acosh", x(3, 4, low=1.1, high=3))
    for op in ("Acos", "Asin", "Atanh"):
        yield case(op, x(3, 4, low=-0.9, high=0.9))
    yield case("Softplus", x(3, 4, low=-90, high=90))
    yield case("Elu", x(3, 4, low=-90, high=90), alpha=0.3)
    yield case("Selu", x(3, 4), alpha=1.1, gamma=0.7)
    yield case("Celu", x(3, 4), alpha=2.0)
    yield case("LeakyRelu", x(3, 4), alpha=-0.3)
    yield case("HardSigmoid", x(3, 4, low=-9, high=9), alpha=0.16, beta=0.4)
    yield case("ThresholdedRelu", x(3, 4), alpha=0.4)
    yield case("Shrink", x(3, 4), lambd=0.4, bias=0.3)
    yield case("Gelu", x(3, 4), opset=20)
    yield case("Gelu", x(3, 4), opset=20, approximate="tanh")
    yield case("Swish", x(3, 4), opset=24, alpha=1.7)
    yield case("PRelu", x(2, 3, 4, 4), x(3, 1, 1, seed=1))
    yield case("PRelu", x(2, 3, 4), x(1, seed=1))
    for op in ("Add", "Sub", "Mul", "Div"):
        yield case(op, x(2, 1, 4), x(3, 1, seed=1))
        yield case(op, x(2, 3), number(0.3))
        yield case(op, ints(7, -7, 5, -3), ints(2, 2, -3, -2))
    yield case("Pow", positive(2, 3), x(3, seed=1))
    for exponent in (2.0, 0.5, 3.0, -1.0, 0.0):
        yield case("Pow", positive(2, 3), number(exponent))
    yield case("Pow", x(2, 3), number(2, np.int64))
    yield case("Pow", x(2, 3), np.array([[[2.0]]], F))
    yield case("Mod", ints(7, -7, 5, -3), ints(3, 3, -3, -2))
    yield case("Mod", x(3, 4), x(3, 4, seed=1), fmod=1)
    for op in ("Equal", "Less", "Greater", "LessOrEqual", "GreaterOrEqual"):
        yield case(op, ints(1, 2, 3), ints(3, 2, 1))
    booleans = np.array([[True], [False]]), np.array([True, False])
    for op in ("And", "Or", "Xor"):
        yield case(op, *booleans)
    yield case("Not", booleans[0])
    for op in ("BitwiseAnd", "BitwiseOr", "BitwiseXor"):
        yield case(op, ints(12, -5), ints(10, 7), opset=18)
    yield case("BitwiseNot", ints(12, -5), opset=18)
    for direction in ("LEFT", "RIGHT"):
        yield case("BitShift", np.array([16, 4], np.uint8), np.array([1, 2], np.uint8), direction=direction)
    for op in ("Max", "Min", "Sum", "Mean"):
        yield case(op, x(2, 1), x(3, seed=1), x(2, 3, seed=2))
        yield case(op, x(2, 3))
    strange = np.array([np.nan, np.inf, -np.inf, 1], F)
    yield case("IsNaN", strange)
    yield case("IsInf", strange)
    yield case("IsInf", strange, detect_negative=0)
    yield case("IsInf", strange, detect_positive=0)
    yield case("Clip", x(3, 4), number(-0.5), number(0.7))
    yield case("Clip", x(3, 4), None, number(0.7))
    yield case("Clip", x(3, 4), number(-0.5))
    yield case("Clip", x(3, 4), opset=10, max=0.5)
    yield case("Where", np.array([[True], [False]]), x(2, 3), x(3, seed=1))
    for kind in (onnx.TensorProto.INT32, onnx.TensorProto.BOOL, onnx.TensorProto.DOUBLE, onnx.TensorProto.FLOAT16):
        yield case("Cast", x(3, 4), to=kind)
    yield case("Cast", np.array([True, False]), to=onnx.TensorProto.FLOAT)
    yield case("CastLike", x(3, 4), ints(1))
    yield case("Dropout", x(3, 4))
    yield case("Dropout", x(3, 4), outputs=2)


def arrangement() -> Iterator[Case]:
    yield case("Reshape", x(2, 3, 4), ints(0, -1))
    yield case("Reshape", x(2, 3, 4), ints(4, 0, 2))
    yield case("Reshape", x(0, 3), ints(3, 0), allowzero=1)
    yield case("Flatten", x(2, 3, 4), axis=0)
    yield case("Flatten", x(2, 3, 4), axis=-1)
    yield case("Flatten", x(2, 3, 4), axis=3)
    yield case("Squeeze", x(1, 3, 1))
    yield case("Squeeze", x(1, 3, 1), ints(-1))
    yield case("Squeeze", x(1, 3, 1), opset=11, axes=[0, 2])
    yield case("Unsqueeze", x(3, 4), ints(-1, 0))
    yield case("Unsqueeze", x(3, 4), ints(3, 1))
    yield case("Unsqueeze", x(3, 4), opset=11, axes=[0, 2])
    yield case("Transpose", x(2, 3, 4))
    yield case("Transpose", x(2, 3, 4), perm=[1, 0, 2])
    yield case("Concat", x(2, 3), x(2, 1, seed=1), axis=-1)
    yield case("Split", x(7, 2), outputs=2)._replace(given=(x(7, 2), ints(3, 4)))
    yield case("Split", x(2, 6), outputs=3, axis=-1)
    yield case("Split", x(7, 2), outputs=3, opset=18, num_outputs=3)
    yield case("Split", x(6, 2), outputs=2, opset=11, split=[2, 4])
    low = np.iinfo(np.int64).min
    for starts, ends, axes, steps in (
        ((1,), (3,), (0,), (1,)),
        ((-1,), (low,), (1,), (-1,)),
        ((-2,), (-100,), (0,), (-1,)),
        ((3,), (1,), (1,), (-1,)),
        ((0, 1), (np.iinfo(np.int64).max, 100), (-1, -2), (2, 1)),
        ((9,), (12,), (0,), (1,)),
        ((-100,), (2,), (1,), (1,)),
        ((3,), (1,), (1,), (1,)),
        ((100,), (0,), (1,), (-2,)),
    ):
        yield case("Slice", x(4, 5), ints(*starts), ints(*ends), ints(*axes), ints(*steps))
    yield case("Slice", x(4, 5), ints(1, 2), ints(3, 4))
    yield case("Slice", x(4, 5), opset=9, starts=[1], ends=[-1], axes=[1])
    yield case("Gather", x(4, 5), ints(0, -1, 2))
    yield case("Gather", x(4, 5), np.array([[0, -1], [2, 2]], np.int32), axis=-1)
    yield case("Gather", x(4, 5), number(-2, np.int64), axis=1)
    yield case("Gather", x(4), number(1, np.int64))
    yield case("GatherElements", x(3, 3), np.array([[0, -1, 1], [2, 0, 0]], np.int64), axis=0)
    yield case("GatherElements", x(3, 3), np.array([[0, -1], [2, 0], [1, 1]], np.int64), axis=-1)
    yield case("GatherND", x(3, 4, 5), np.array([[0, 1], [-1, -2]], np.int64))
    yield case("GatherND", x(2, 3, 4), np.array([[[1]], [[-1]]], np.int64), batch_dims=1)
    yield case("GatherND", x(2, 3, 4), np.array([[[1], [0]], [[2], [2]]], np.int64), batch_dims=1)
    for reduction in ("none", "add", "mul", "max", "min"):
        index = np.array([[0, -1, 1]], np.int64)
        yield case("ScatterElements", x(3, 3), index, x(1, 3, seed=1), axis=0, opset=18, reduction=reduction)
    index = np.array([[0, 1], [-1, 2]], np.int64)
    yield case("ScatterND", x(3, 4, 2), index, x(2, 2, seed=1))
    yield case("ScatterND", x(3, 4), np.array([[0, 1], [0, 1]], np.int64), x(2, seed=1), opset=18, reduction="add")
    yield case("Expand", x(3, 1), ints(2, 1, 4))
    yield case("Expand", x(3, 4), ints(1))
    yield case("Tile", x(2, 3), ints(2, 1))
    pads = ints(1, -1, 2, 2)
    yield case("Pad", x(3, 4), pads, number(0.7))
    yield case("Pad", x(3, 4), ints(0, 1, 0, -1))
    yield case("Pad", x(3, 4), ints(1, 2, 2, 1), mode="reflect")
    yield case("Pad", x(3, 4), ints(1, 5, 2, 6), mode="edge")
    yield case("Pad", x(3, 4), ints(1, 2, 2, 1), mode="wrap", opset=19)
    yield case("Pad", x(3, 4), ints(1, 2), None, ints(-1), opset=18)
    yield case("Pad", x(3, 4), opset=10, pads=[1, 0, 0, 2], value=0.5)
    yield case("Shape", x(2, 3, 4))
    yield case("Shape", x(2, 3, 4), start=1)
    yield case("Shape", x(2, 3, 4), start=-2, end=-1)
    yield case("Size", x(2, 3, 4))
    yield case("ConstantOfShape", ints(2, 3))
    yield case("ConstantOfShape", ints(2, 3), value=helper.make_tensor("v", onnx.TensorProto.INT64, [1], [7]))
    yield case("Range", number(1, np.int64), number(10, np.int64), number(3, np.int64))
    yield case("Range", number(5), number(0), number(-1.5))
    yield case("Range", number(5, np.int64), number(0, np.int64), number(1, np.int64))
    yield case("NonZero", np.array([[0, 1], [2, 0]], F))
    yield case("OneHot", ints(0, -1, 2), number(4, np.int64), np.array([0.1, 3], F))
    yield case("OneHot", np.array([[0, 1], [2, 3]], np.int64), ints(4), np.array([0, 1], F), axis=0)
    yield case("OneHot", np.array([[0, 1], [2, 3]], np.int64), ints(4), np.array([0, 1], F), axis=-2)
    yield case("Trilu", x(2, 3, 4))
    yield case("Trilu", x(3, 4), number(-1, np.int64), upper=0)
    for mode in ("DCR", "CRD"):
        yield case("DepthToSpace", x(2, 12, 3, 2), blocksize=2, mode=mode)
    yield case("SpaceToDepth", x(2, 3, 6, 4), blocksize=2)
    yield case("EyeLike", x(3, 4), k=-1)
    yield case("Compress", x(3, 4), np.array([True, False, True]), axis=1)
    yield case("Compress", x(3, 4), np.array([True, False, True]))


def reduction() -> Iterator[Case]:
    for op in ("L1", "L2", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare", "LogSumExp"):
        axes = (ints(-1),) if op == "Sum" else ()
        attributes = {} if op == "Sum" else {"axes": [-1]}
        yield case(f"Reduce{op}", x(2, 3, 4), *axes, **attributes)
        yield case(f"Reduce{op}", x(2, 3, 4), keepdims=0)
        yield case(f"Reduce{op}", x(2, 3, 4), ints(0, -1), opset=18, keepdims=0)
        yield case(f"Reduce{op}", x(2, 3), opset=18, noop_with_empty_axes=1)
    yield case("ReduceLogSum", positive(2, 3), axes=[1])
    yield case("ReduceSum", ints(1, 2, 3), keepdims=0)
    yield case("ReduceMean", np.array([3, -4, 2], np.int32), keepdims=0)
    equal = np.array([[1, 3, 3, 2], [5, 5, 0, 0]], F)
    for op, last in itertools.product(("ArgMax", "ArgMin"), (0, 1)):
        yield case(op, equal, axis=-1, keepdims=0, select_last_index=last)
    yield case("TopK", equal, ints(3), outputs=2)
    yield case("TopK", equal, ints(1), outputs=2, axis=0, largest=0)
    for exclusive, reverse in itertools.product((0, 1), repeat=2):
        yield case("CumSum", x(3, 4), number(1, np.int64), exclusive=exclusive, reverse=reverse)
    yield case("MatMul", x(2, 3, 4), x(4, 5, seed=1))
    yield case("MatMul", x(4), x(2, 4, 5, seed=1))
    yield case("MatMul", x(2, 1, 3, 4), x(5, 4, 3, seed=1))
    yield case("MatMul", x(2, 3, 4), x(4, seed=1))
    yield case("Gemm", x(4, 3), x(5, 4, seed=1), x(5, seed=2), transA=1, transB=1, alpha=0.3, beta=-2.0)
    yield case("Gemm", x(3, 4), x(4, 5, seed=1), x(3, 1, seed=2))
    yield case("Gemm", x(3, 4), x(4, 5, seed=1), alpha=0.5)
    yield case("Einsum", x(2, 3, 4), x(2, 4, 5, seed=1), equation="bij, bjk -> bik")
    yield case("Einsum", x(2, 3, 4), equation="...ij->...ji")
    for op in ("Softmax", "LogSoftmax", "Hardmax"):
        yield case(op, x(2, 3, 4))
        yield case(op, x(2, 3, 4), axis=1)
        yield case(op, x(2, 3, 4), opset=11)
        yield case(op, x(2, 3, 4), opset=11, axis=2)
    channels = [x(3, seed=i) for i in range(1, 4)]
    yield case("BatchNormalization", x(2, 3, 4, 4), *channels, positive(3), epsilon=1e-3)
    yield case("BatchNormalization", x(2, 3), *channels, positive(3))
    yield case("InstanceNormalization", x(2, 3, 4, 5), *channels[:2], epsilon=1e-3)
    yield case("LayerNormalization", x(2, 3, 4), x(4, seed=1), x(4, seed=2), epsilon=1e-3)
    yield case("LayerNormalization", x(2, 3, 4), x(3, 4, seed=1), axis=-2, outputs=3)
    yield case("GroupNormalization", x(2, 6, 4), x(2, seed=1), x(2, seed=2), num_groups=2, opset=18)
    yield case("GroupNormalization", x(2, 6, 4, 4), x(6, seed=1), x(6, seed=2), num_groups=3, opset=21)
    yield case("RMSNormalization", x(2, 3, 4), x(4, seed=1), opset=23)
    yield case("LRN", x(2, 7, 3, 3), size=3, alpha=0.1, beta=0.6, bias=1.5)
    yield case("LRN", x(2, 7, 3, 3), size=5, alpha=0.1)
    yield case("LpNormalization", x(2, 3, 4), p=1, axis=1)
    yield case("LpNormalization", x(2, 3, 4))
    yield case("MeanVarianceNormalization", x(2, 3, 4, 4))
    codes = np.arange(-6, 6, dtype=np.int8).reshape(3, 4)
    yield case("DequantizeLinear", codes, number(0.3), number(2, np.int8))
    yield case("DequantizeLinear", codes, positive(3), np.array([1, 2, 3], np.int8), axis=0)
    yield case("DequantizeLinear", codes, positive(3, 2), axis=1, block_size=2, opset=21)


def convolution() -> Iterator[Case]:
    yield case("Conv", x(2, 4, 9), x(6, 2, 3, seed=1), x(6, seed=2), group=2, dilations=[2], pads=[3, 0])
    yield case("Conv", x(1, 3, 7, 6), x(4, 3, 3, 2, seed=1), pads=[0, 1, 2, 1], strides=[2, 1])
    yield case("Conv", x(1, 2, 5, 4, 3), x(2, 2, 2, 2, 2, seed=1), pads=[1, 0, 1, 1, 0, 1])
    for mode in ("SAME_UPPER", "SAME_LOWER", "VALID"):
        yield case("Conv", x(1, 3, 7, 8), x(4, 3, 4, 3, seed=1), auto_pad=mode, strides=[2, 3])
        yield case("Conv", x(1, 4, 7, 8), x(4, 1, 3, 3, seed=1), auto_pad=mode, group=4)
        yield case("MaxPool", x(1, 3, 7, 8), kernel_shape=[3, 2], strides=[2, 3], auto_pad=mode)
        yield case("AveragePool", x(1, 3, 7, 8), kernel_shape=[3, 2], strides=[2, 3], auto_pad=mode)
        yield case("ConvTranspose", x(1, 3, 4, 5), x(3, 2, 3, 4, seed=1), strides=[2, 2], auto_pad=mode)
    yield case("ConvTranspose", x(2, 4, 5), x(4, 3, 3, seed=1), x(6, seed=2), group=2, strides=[2], pads=[1, 0])
    yield case(
        "ConvTranspose", x(1, 3, 4, 5), x(3, 2, 3, 3, seed=1), x(2, seed=2),
        strides=[3, 2], output_padding=[2, 1], pads=[1, 0, 0, 2], dilations=[1, 2],
    )  # fmt: skip
    yield case("ConvTranspose", x(1, 3, 4, 5), x(3, 2, 3, 3, seed=1), strides=[3, 2], output_shape=[10, 9])
    yield case("ConvTranspose", x(1, 2, 3, 3, 3), x(2, 2, 2, 2, 2, seed=1), strides=[2, 2, 2], pads=[1, 0, 1, 0, 1, 0])
    for ceil in (0, 1):
        yield case("MaxPool", x(1, 2, 10), kernel_shape=[3], strides=[2], pads=[1, 0], ceil_mode=ceil)
        yield case("MaxPool", x(1, 2, 8, 7), kernel_shape=[2, 3], strides=[3, 2], ceil_mode=ceil, pads=[1, 1, 0, 1])
        yield case("MaxPool", x(1, 2, 9, 9), kernel_shape=[2, 3], dilations=[2, 3], ceil_mode=ceil, strides=[2, 2])
        yield case("MaxPool", x(1, 1, 4, 4, 4), kernel_shape=[2, 2, 2], strides=[3, 3, 3], ceil_mode=ceil)
        for counted in (0, 1):
            attributes = {"ceil_mode": ceil, "count_include_pad": counted}
            yield case("AveragePool", x(1, 2, 8, 7), kernel_shape=[3, 3], strides=[2, 3], **attributes)
            yield case(
                "AveragePool", x(1, 2, 8, 7), kernel_shape=[3, 3], strides=[2, 2], pads=[1, 0, 1, 2], **attributes
            )
            yield case("AveragePool", x(1, 2, 10), kernel_shape=[4], strides=[3], pads=[2, 1], **attributes)
            yield case(
                "AveragePool", x(1, 2, 9, 9), kernel_shape=[2, 3], dilations=[2, 1], pads=[1, 1, 1, 1], opset=19,
                **attributes,
            )  # fmt: skip
    yield case("LpPool", x(1, 2, 8, 7), kernel_shape=[3, 2], strides=[2, 1], p=3)
    for op in ("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"):
        yield case(op, x(2, 3, 4, 5))
        yield case(op, x(2, 3, 4))


def resizing() -> Iterator[Case]:
    modes = ("half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric")
    for mode, coordinates in itertools.product(("nearest", "linear", "cubic"), modes):
        for scales in ((1, 1, 2.5, 0.6), (1, 1, 0.4, 3.0), (1, 1, 0.2, 2)):
            given = (x(1, 2, 5, 7), None, np.array(scales, F))
            yield case("Resize", *given, mode=mode, coordinate_transformation_mode=coordinates)
        sizes = (x(1, 2, 5, 7), None, None, ints(1, 2, 8, 3))
        yield case("Resize", *sizes, mode=mode, coordinate_transformation_mode=coordinates)
    for rounding in ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil"):
        for coordinates in modes:
            yield case(
                "Resize", x(1, 2, 5, 7), None, np.array([1, 1, 1.7, 0.6], F),
                nearest_mode=rounding, coordinate_transformation_mode=coordinates,
            )  # fmt: skip
    scales = np.array([1, 1, 1.7, 0.6], F)
    yield case("Resize", x(1, 2, 5, 7), None, scales, mode="cubic", exclude_outside=1, cubic_coeff_a=-0.5)
    yield case("Resize", x(1, 2, 5, 7), None, scales[2:], mode="linear", axes=[3, 2], opset=18)
    yield case(
        "Resize", x(1, 2, 5, 7), None, scales, mode="linear", coordinate_transformation_mode="half_pixel_symmetric",
        opset=19,
    )  # fmt: skip
    yield case("Resize", x(1, 2, 5, 7), np.array([1, 1, 2, 3], F), opset=10)
    yield case("Resize", x(1, 2, 5, 7), np.array([1, 1, 2, 3], F), opset=10, mode="linear")
    yield case("Upsample", x(1, 2, 5, 7), np.array([1, 1, 2, 3], F), opset=9)
    yield case("Upsample", x(1, 2, 5, 7), opset=7, mode="linear", scales=[1.0, 1.0, 2.0, 3.0])
    grid = x(2, 4, 3, 2, seed=1, low=-1.3, high=1.3)
    for mode, padding, corners in itertools.product(
        ("bilinear", "nearest", "bicubic"), ("zeros", "border", "reflection"), (0, 1)
    ):
        yield case("GridSample", x(2, 3, 5, 7), grid, mode=mode, padding_mode=padding, align_corners=corners)
    yield case("GridSample", x(2, 3, 5, 7), grid, mode="cubic", opset=20)
    yield case("GridSample", x(1, 2, 5, 4, 3), x(1, 2, 4, 3, 3, seed=1, low=-1.3, high=1.3), mode="linear", opset=20)


def spectrum() -> Iterator[Case]:
    for length in (None, number(5, np.int64), number(9, np.int64)):
        yield case("DFT", x(2, 7, 1), length)
        yield case("DFT", x(2, 7, 1), length, onesided=1)
    yield case("DFT", x(2, 3, 6, 2), None, axis=2)
    yield case("DFT", x(2, 3, 6, 2), None, axis=2, inverse=1)
    yield case("DFT", x(2, 3, 6, 2), None, number(1, np.int64), opset=20)
    yield case("DFT", x(2, 6, 1), opset=20)
    for signal in (x(2, 40, 1), x(2, 40)):
        yield case("STFT", signal, number(4, np.int64), positive(10))
        yield case("STFT", signal, number(4, np.int64), positive(10), number(10, np.int64), onesided=0)
    yield case("STFT", x(2, 40, 1), number(5, np.int64), None, number(8, np.int64))


def recurrent() -> Iterator[Case]:
    gates, states = {"LSTM": 4, "GRU": 3, "RNN": 1}, {"LSTM": 2, "GRU": 1, "RNN": 1}
    h, features, time, batch = 4, 3, 5, 2
    for op, direction in itertools.product(gates, ("forward", "reverse", "bidirectional")):
        d = 2 if direction == "bidirectional" else 1
        w, r = x(d, gates[op] * h, features, seed=1), x(d, gates[op] * h, h, seed=2)
        b = x(d, 2 * gates[op] * h, seed=3)
        first = [x(d, batch, h, seed=4 + i) for i in range(states[op])]
        common = {"hidden_size": h, "direction": direction, "outputs": 1 + states[op]}
        steps = x(time, batch, features)
        yield case(op, steps, w, r, **common)
        yield case(op, steps, w, r, b, None, *first, **common)
        yield case(op, steps, w, r, b, np.array([5, 3], np.int32), *first, **common)
        if op == "GRU":
            yield case(op, steps, w, r, b, None, *first, linear_before_reset=1, **common)
        if op == "LSTM":
            yield case(op, steps, w, r, b, None, *first, x(d, 3 * h, seed=9), **common)
    w, r = x(1, 16, 3, seed=1), x(1, 16, 4, seed=2)
    yield case("LSTM", x(5, 2, 3), w, r, hidden_size=4, activations=["Sigmoid", "Relu", "Softsign"])
    yield case("RNN", x(5, 2, 3), w[:, :4], r[:, :4], hidden_size=4, activations=["Relu"])


CASES = [*elementwise(), *arrangement(), *reduction(), *convolution(), *resizing(), *recurrent(), *spectrum()]
BY_ONNX = {"GroupNormalization", "RMSNormalization", "Swish", "CastLike", "BitwiseNot", "EyeLike"}
"""Operators (or forms of them) without a kernel of ONNX Runtime, or split up by it."""


def model_of(each: Case) -> onnx.ModelProto:
    names = [f"i{k}" if value is not None else "" for k, value in enumerate(each.given)]
    outputs = [f"o{k}" for k in range(each.outputs)]
    node = helper.make_node(each.op, names, outputs, name="node", **each.attributes)
    inputs = [
        builders.tensor_info(name, value.shape, helper.np_dtype_to_tensor_dtype(value.dtype))
        for name, value in zip(names, each.given, strict=True)
        if value is not None
    ]
    # Where onnx does not infer the type it is that of the data.
    results = [onnx.ValueInfoProto(name=name) for name in outputs]
    if each.op in ("GroupNormalization", "RMSNormalization"):
        results = [builders.tensor_info("o0", None)]
    graph = helper.make_graph([node], "tiny", inputs, results)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", each.opset)], ir_version=10)
    return onnx.shape_inference.infer_shapes(model)


def expected(each: Case, model: onnx.ModelProto) -> list[np.ndarray]:
    feeds = {f"i{k}": value for k, value in enumerate(each.given) if value is not None}
    if each.op in BY_ONNX:
        return list(ReferenceEvaluator(model).run(None, feeds))
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return list(session.run(None, feeds))


@pytest.mark.parametrize("each", CASES, ids=[each.label for each in CASES])
def test_that_an_operator_in_torch_is_that_of_onnx_runtime(each: Case) -> None:
    model = model_of(each)
    wanted = expected(each, model)
    network = DifferentiableNetwork(builders.network_of(model))
    found = network.run({f"i{k}": value for k, value in enumerate(each.given) if value is not None})
    assert list(found) == [f"o{k}" for k in range(each.outputs)]
    for value, truth in zip(found.values(), wanted, strict=True):
        assert value.numpy().dtype == truth.dtype
        assert value.shape == truth.shape
        np.testing.assert_allclose(value.numpy(), truth, rtol=1e-4, atol=2e-5)


def test_that_every_operator_has_a_case() -> None:
    assert {each.op for each in CASES} >= OPERATORS.keys()


# --- what goes beyond single operators ---------------------------------------------------------------------------


def test_that_gradients_of_every_smooth_operator_are_those_of_finite_differences() -> None:
    smooth = [each for each in CASES if each.op in SMOOTH and each.given[0] is not None]
    assert {each.op for each in smooth} == SMOOTH
    for each in smooth:
        if each.given[0].dtype != F:
            continue
        network = DifferentiableNetwork(builders.network_of(model_of(each)))
        floats = {f"i{k}" for k, value in enumerate(each.given) if value is not None and value.dtype == F}
        # Shapes, scales of Resize and the like have no gradient.
        names = sorted(floats & {"i0", *(["i1"] if each.op in TWO_GRADIENTS else [])})
        given = {f"i{k}": torch.from_numpy(value) for k, value in enumerate(each.given) if value is not None}
        given = {k: v.double() if k in floats else v for k, v in given.items()}

        def run(*values: torch.Tensor, network=network, given=given, names=names) -> torch.Tensor:
            return next(iter(network.run({**given, **dict(zip(names, values, strict=True))}).values()))

        assert torch.autograd.gradcheck(run, [given[name].requires_grad_() for name in names]), each.label


SMOOTH = {
    "AveragePool", "Conv", "ConvTranspose", "DFT", "Einsum", "Erf", "Exp", "GRU", "Gather", "GatherND", "Gelu", "Gemm",
    "GroupNormalization", "InstanceNormalization", "LSTM", "LayerNormalization", "LogSoftmax", "LpNormalization",
    "MatMul", "Pad", "Pow", "ReduceL2", "ReduceLogSumExp", "Resize", "STFT", "ScatterND", "Sigmoid", "Slice", "Softmax",
    "Tanh", "Transpose",
}  # fmt: skip
TWO_GRADIENTS = {"Conv", "ConvTranspose", "Gemm", "MatMul", "LSTM", "GRU", "Einsum"}


def test_that_the_gradient_of_a_root_at_zero_is_zero() -> None:
    model = model_of(case("Sqrt", np.zeros(3, F)))
    network = DifferentiableNetwork(builders.network_of(model))
    value = torch.zeros(3, requires_grad=True)
    network.run({"i0": value})["o0"].sum().backward()
    assert value.grad is not None
    assert value.grad.tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("each", "words"),
    [
        (case("NonMaxSuppression", x(1, 5, 4), x(1, 1, 5)), "the operator NonMaxSuppression"),
        (case("QuantizeLinear", x(3, 4), number(0.3), number(2, np.int8)), "the operator QuantizeLinear"),
    ],
    ids=["NonMaxSuppression", "QuantizeLinear"],
)
def test_that_an_operator_outside_is_named_when_the_network_is_opened(each: Case, words: str) -> None:
    network = builders.network_of(model_of(each))
    assert uncovered_operators(network) == (each.op,)
    with pytest.raises(NetworkError, match=words):
        DifferentiableNetwork(network)


@pytest.mark.parametrize(
    ("each", "words"),
    [
        (case("MaxPool", x(1, 2, 8, 7), kernel_shape=[2, 2], outputs=2), "MaxPool .*Indices"),
        (
            case("Resize", x(1, 2, 8, 7), None, np.array([1, 1, 2, 2], F), mode="linear", antialias=1, opset=18),
            "antial",
        ),
        (case("LSTM", x(5, 2, 3), x(1, 16, 3), x(1, 16, 4), hidden_size=4, clip=1.0), "LSTM .*clip"),
    ],
    ids=["MaxPool", "Resize", "LSTM"],
)
def test_that_a_form_of_an_operator_outside_is_named_when_it_runs(each: Case, words: str) -> None:
    network = DifferentiableNetwork(builders.network_of(model_of(each)))
    with pytest.raises(NetworkError, match=words):
        network.run({f"i{k}": value for k, value in enumerate(each.given) if value is not None})
