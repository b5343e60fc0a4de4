"""Multiply-accumulates of a network's operators."""

from __future__ import annotations

import math

import onnx

from quantgui.network.graph import Node, Program
from quantgui.network.shapes import Shapes, dimensions, infer_shapes

_PICTURE = 224
_SEQUENCE = 128
_SAMPLES = 16000


def count_macs(program: Program) -> dict[str, int]:
    """Return the multiply-accumulates of one sample for each operator whose shapes are known, by node name.

    Free dimensions are assumed: one sample, pictures of 224 x 224, sequences of 128 steps.
    """
    shapes = infer_shapes(program, assumed_shapes(program.graph.inputs))
    return {node.name: macs for _, node in program.walk() if (macs := _macs(node, program, shapes))}


def assumed_shapes(inputs: list[onnx.ValueInfoProto]) -> dict[str, tuple[int, ...]]:
    """Return a plausible shape for each input that has free dimensions and a known rank."""
    assumed = {}
    for value in inputs:
        if value.type.HasField("tensor_type") and value.type.tensor_type.HasField("shape"):
            known = dimensions(value)
            if None in known:
                assumed[value.name] = tuple(
                    size if size is not None else _assumed(axis, known) for axis, size in enumerate(known)
                )
    return assumed


def _assumed(axis: int, shape: tuple[int | None, ...]) -> int:
    if axis == 0:
        return 1
    if len(shape) == 4:
        is_channels = axis == 1 and shape[3] not in (1, 3)
        return 3 if is_channels else _PICTURE
    return _SEQUENCE


def _macs(node: Node, program: Program, shapes: Shapes) -> int:
    if node.domain or not node.outputs or not node.outputs[0]:
        return 0

    def size(name: str) -> tuple[int, ...] | None:
        shape = program.constants[name].shape if name in program.constants else shapes.get(name)
        return None if shape is None or None in shape else shape  # type: ignore[return-value]

    data, result = size(node.inputs[0]) if node.inputs else None, size(node.outputs[0])
    weight = size(node.inputs[1]) if len(node.inputs) > 1 else None
    if data is None or weight is None:
        return 0
    match node.op:
        case "Conv" if result:
            return math.prod(result) * math.prod(weight[1:])
        case "ConvTranspose":
            return math.prod(data) * math.prod(weight[1:])
        case "Gemm" if result:
            return math.prod(result) * data[0 if node.integer("transA", 0) else 1]
        case "MatMul" if result is not None:
            return math.prod(result) * data[-1]
        case "LSTM" | "GRU" | "RNN":
            recurrent = size(node.inputs[2])
            steps = data[0] * data[1]
            return steps * (math.prod(weight) + math.prod(recurrent)) if recurrent else 0
    return 0
