"""Networks on which an optimizer of ONNX Runtime ends the process, and which optimizer to leave out for them."""

from __future__ import annotations

from collections.abc import Iterator

import onnx
from onnx import NodeProto, TensorProto

from quantgui.network.surgery import all_graphs

_FUSES_TRANSPOSES = "MatmulTransposeFusion"


def faulty_optimizers(model: onnx.ModelProto) -> tuple[str, ...]:
    """Return the names of the optimizers that crash on `model`.

    A Transpose that moves the first axis to the last but one, a Cast, and a MatMul with a constant matrix become one
    operator that the arrangement of ONNX Runtime 1.31 and 1.32 cannot follow: a segmentation fault when the session is
    made. In networks of float16 the runtime inserts the Cast by itself.
    """
    casts_itself = _holds_half_floats(model)
    for graph in all_graphs(model.graph):
        moved = {node.output[0] for node in graph.node if _moves_first_axis_inside(node)}
        if moved and any(_is_cast_or_product(node, casts_itself=casts_itself) for node in _readers(graph, moved)):
            return (_FUSES_TRANSPOSES,)
    return ()


def _readers(graph: onnx.GraphProto, tensors: set[str]) -> Iterator[NodeProto]:
    return (node for node in graph.node if not tensors.isdisjoint(node.input))


def _moves_first_axis_inside(node: NodeProto) -> bool:
    if node.op_type != "Transpose" or node.domain:
        return False
    order = next((list(attribute.ints) for attribute in node.attribute if attribute.name == "perm"), [])
    last = len(order) - 1
    return last >= 2 and order == [*range(1, last), 0, last]


def _is_cast_or_product(node: NodeProto, *, casts_itself: bool) -> bool:
    return node.op_type == "Cast" or (casts_itself and node.op_type == "MatMul")


def _holds_half_floats(model: onnx.ModelProto) -> bool:
    half = (TensorProto.FLOAT16, TensorProto.BFLOAT16)
    return any(
        any(value.type.tensor_type.elem_type in half for value in graph.input)
        or any(tensor.data_type in half for tensor in graph.initializer)
        for graph in all_graphs(model.graph)
    )
