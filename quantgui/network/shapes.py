"""Shapes of the values of a network, as far as ONNX's shape inference knows them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import onnx

from quantgui.network.graph import Program, to_skeleton

Shapes = dict[str, tuple[int | None, ...]]


def infer_shapes(
    program: Program,
    inputs: Mapping[str, tuple[int, ...]] | None = None,
    known: Mapping[str, tuple[int, ...]] | None = None,
) -> Shapes:
    """Return the shapes of values by name, None for dimensions that are not known.

    Args:
        program: the network; names are unique, so values of bodies are among the answers.
        inputs: shapes to assume for inputs of the network, in place of the declared ones.
        known: shapes of values of the main graph that have been seen; their types come from inference.
    """
    model = to_skeleton(program)
    # Declared shapes of inner values may be stale; the inputs' and the operators' are what holds.
    del model.graph.value_info[:]
    _forget_outputs(model.graph)
    for value in model.graph.input:
        if inputs and value.name in inputs:
            _set_shape(value, inputs[value.name])
    inferred = _inferred(model)
    if known and inferred is not None:
        for value in inferred.graph.value_info:
            if value.name in known and value.type.HasField("tensor_type"):
                _set_shape(value, known[value.name])
                model.graph.value_info.append(value)
        inferred = _inferred(model)
    return {} if inferred is None else dict(_known(inferred.graph))


def _inferred(model: onnx.ModelProto) -> onnx.ModelProto | None:
    try:
        return onnx.shape_inference.infer_shapes(model, data_prop=True)
    except (onnx.shape_inference.InferenceError, ValueError, RuntimeError):
        return None


def _set_shape(value: onnx.ValueInfoProto, sizes: tuple[int, ...]) -> None:
    shape = value.type.tensor_type.shape
    shape.Clear()
    value.type.tensor_type.shape.SetInParent()
    for size in sizes:
        shape.dim.add(dim_value=size)


def _forget_outputs(graph: onnx.GraphProto) -> None:
    for value in graph.output:
        if value.type.HasField("tensor_type"):
            value.type.tensor_type.ClearField("shape")
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                _forget_outputs(attribute.g)


def _known(graph: onnx.GraphProto) -> Iterator[tuple[str, tuple[int | None, ...]]]:
    for value in (*graph.input, *graph.output, *graph.value_info):
        if value.type.HasField("tensor_type") and value.type.tensor_type.HasField("shape"):
            yield value.name, dimensions(value)
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _known(attribute.g)


def dimensions(value: onnx.ValueInfoProto) -> tuple[int | None, ...]:
    """Return the dimensions of a value that has a shape; None for those that are free."""
    # Exporters write -1 and 0 for dimensions that are free.
    return tuple(
        d.dim_value if d.HasField("dim_value") and d.dim_value > 0 else None for d in value.type.tensor_type.shape.dim
    )
