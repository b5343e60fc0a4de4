"""Which opset a quantized network needs, and how it gets there."""

from __future__ import annotations

import onnx
from onnx import version_converter

from quantgui.errors import ExportError
from quantgui.network.surgery import opset_of, subgraphs
from quantgui.spec.formats import CodebookFormat, FloatFormat, Format, IntFormat, MinifloatFormat, TableFormat

QUANTIZE_LINEAR = 10
"""Q/DQ with one scale per tensor, 8 bits; int32 for biases."""
PER_CHANNEL = 13
"""Q/DQ with an axis; bfloat16."""
BLOCKS = 21
"""Q/DQ in blocks, with 4 and with 16 bits."""
FLOAT8 = 19
"""Q/DQ and Cast with 8-bit floats."""
LOOKUP = 11
"""BitShift, Mod, Range: what lookup tables need."""
TWO_BITS = 25
"""Q/DQ with 2 bits."""
CLIP_INPUTS = 11
"""Clip takes its limits as inputs."""
_IR_FLOOR = 8
"""The converter wants initializers that are no inputs of the graph, and ONNX Runtime reads every version since."""


def opset_for_activations(fmt: Format) -> int:
    """Return the oldest opset that has standard operators for activations of format `fmt`."""
    match fmt:
        case FloatFormat(name):
            return PER_CHANNEL if name == "bfloat16" else 1
        case IntFormat(bits):
            if bits > 8:
                return BLOCKS
            return QUANTIZE_LINEAR if bits == 8 else CLIP_INPUTS
        case MinifloatFormat(bits=8):
            return FLOAT8
        case MinifloatFormat():
            return CLIP_INPUTS
        case TableFormat() | CodebookFormat():
            raise ExportError(f"Activations cannot be {fmt}; it is a format for weights.")


def raise_opset(model: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    """Return a copy of `model` in at least `opset`; external initializers stay declarations.

    Raises:
        ExportError: an operator of the network cannot be converted.
    """
    raised = onnx.ModelProto()
    raised.CopyFrom(model)
    if opset_of(model) < opset:
        raised.ir_version = max(raised.ir_version, _IR_FLOOR)
        try:
            converted = version_converter.convert_version(raised, opset)
        except (RuntimeError, version_converter.ConvertError) as error:
            raise ExportError(
                f"The chosen formats need opset {opset}, but {_culprit(error, model.graph)} cannot be converted from "
                f"opset {opset_of(model)}; choose 8-bit formats, or export the network again with opset {opset}."
            ) from error
        raised.graph.CopyFrom(converted.graph)
        for entry in raised.opset_import:
            if entry.domain in ("", "ai.onnx"):
                entry.version = opset
    raised.ir_version = max(raised.ir_version, onnx.helper.find_min_ir_version_for(raised.opset_import, True))
    return raised


def _culprit(error: Exception, graph: onnx.GraphProto) -> str:
    """Return the operator that an error of the converter speaks of."""
    text = " ".join(str(error).split())
    # The converter's sentence runs on without a gap: '... cannot convert it.Affine921'.
    detail = text.rsplit("failed: ", maxsplit=1)[-1]
    named = [op for op in operators(graph) if op in detail]
    return f"the operator {max(named, key=len)}" if named else f"an operator of the network ({detail[:160]})"


def operators(graph: onnx.GraphProto) -> set[str]:
    """Return the types of all operators of `graph` and of the bodies inside it."""
    found = {node.op_type for node in graph.node}
    return found.union(*(operators(body) for node in graph.node for body in subgraphs(node)))
