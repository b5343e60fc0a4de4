"""What a node of constants computes, where that is no larger than what it is computed from."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import onnx

from quantgui.errors import NetworkError
from quantgui.network.graph import Node, initializer, node_proto
from quantgui.network.network import INLINE_BYTES
from quantgui.network.session import create_session, runtime_errors
from quantgui.results import Array

SMALL = 4096
"""Elements a folded tensor may always have, however small its inputs are."""


def evaluate_node(node: Node, inputs: Sequence[Array | None], opset: int) -> list[Array] | None:
    """Return the outputs of a node of constants, or None if it is better left in the graph.

    Args:
        node: an operator of the standard set without bodies.
        inputs: one array per input, None where it is absent.
        opset: version of the standard set.
    """
    if node.op in _VIEWS and len(node.outputs) == 1 and inputs[0] is not None:
        view = _VIEWS[node.op](node, inputs)
        return None if view is None else [view]
    present = [values for values in inputs if values is not None]
    if any(values.dtype.kind not in "biuf" for values in present):
        return _cast_exotic(node, present)
    if not _is_modest(node, inputs, opset):
        return None
    model = onnx.ModelProto(ir_version=8)
    model.opset_import.add(domain="", version=opset)
    model.graph.name = "constant"
    model.graph.node.append(node_proto(node))
    feeds = {}
    for name, values in zip(node.inputs, inputs, strict=True):
        if values is not None and name not in feeds:
            kind = onnx.helper.np_dtype_to_tensor_dtype(values.dtype)
            model.graph.input.append(onnx.helper.make_tensor_value_info(name, kind, values.shape))
            feeds[name] = np.ascontiguousarray(values)
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in node.outputs if name)
    try:
        session = create_session(model, {}, threads=1, optimize=False)
        with runtime_errors("run"):
            results = iter(session.run(None, feeds))
    except NetworkError:
        # Left in the graph, it shows its error when the network is loaded, if it matters there.
        return None
    made = [next(results) if name else np.zeros(0, np.float32) for name in node.outputs]
    return made if all(isinstance(values, np.ndarray) for values in made) else None


def _is_modest(node: Node, inputs: Sequence[Array | None], opset: int) -> bool:
    """Whether the results are known to be no larger than the inputs, or small."""
    model = onnx.ModelProto(ir_version=8)
    model.opset_import.add(domain="", version=opset)
    model.graph.name = "constant"
    model.graph.node.append(node_proto(node))
    total = 0
    for name, values in zip(node.inputs, inputs, strict=True):
        if values is None:
            continue
        total += values.size
        kind = onnx.helper.np_dtype_to_tensor_dtype(values.dtype)
        model.graph.input.append(onnx.helper.make_tensor_value_info(name, kind, values.shape))
        if values.nbytes <= INLINE_BYTES:
            model.graph.initializer.append(initializer(name, values))
    try:
        inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    except onnx.shape_inference.InferenceError:
        return False
    known = {value.name: value.type for value in inferred.graph.value_info}
    for name in filter(None, node.outputs):
        if name not in known or not known[name].HasField("tensor_type"):
            return False
        shape = known[name].tensor_type.shape
        if not known[name].tensor_type.HasField("shape") or not all(d.HasField("dim_value") for d in shape.dim):
            return total <= SMALL and node.op in ("NonZero", "Compress", "Unique")
        if math.prod(d.dim_value for d in shape.dim) > max(total, SMALL):
            return False
    return True


def _cast_exotic(node: Node, inputs: Sequence[Array]) -> list[Array] | None:
    """Cast a type numpy has no name for (bfloat16, float8, 4 bits) to a float type."""
    target = node.integer("to", 0)
    if node.op != "Cast" or target not in (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE):
        return None
    if inputs[0].dtype.kind in "OSU":
        return None
    return [inputs[0].astype(onnx.helper.tensor_dtype_to_np_dtype(target))]


def _axes(node: Node, inputs: Sequence[Array | None], rank: int) -> list[int] | None:
    axes = node.integers("axes")
    if len(inputs) > 1 and inputs[1] is not None:
        axes = tuple(int(axis) for axis in inputs[1].reshape(-1))
    elif "axes" not in node.attributes:
        return None
    return [axis + rank if axis < 0 else axis for axis in axes]


def _first(inputs: Sequence[Array | None]) -> Array:
    if inputs[0] is None:
        raise NetworkError("An operator lacks its first input, so the file is damaged.")
    return inputs[0]


def _transpose(node: Node, inputs: Sequence[Array | None]) -> Array | None:
    values = _first(inputs)
    order = node.integers("perm") or tuple(reversed(range(values.ndim)))
    # A copy once, rather than each time a session is made.
    return values.transpose(order).copy() if sorted(order) == list(range(values.ndim)) else None


def _squeeze(node: Node, inputs: Sequence[Array | None]) -> Array | None:
    values = _first(inputs)
    axes = _axes(node, inputs, values.ndim)
    if axes is None:
        axes = [i for i, dim in enumerate(values.shape) if dim == 1]
    if any(not 0 <= axis < values.ndim or values.shape[axis] != 1 for axis in axes):
        return None
    return values.reshape([dim for i, dim in enumerate(values.shape) if i not in axes])


def _unsqueeze(node: Node, inputs: Sequence[Array | None]) -> Array | None:
    values = _first(inputs)
    count = len(_axes(node, inputs, 0) or [])
    axes = _axes(node, inputs, values.ndim + count) or []
    if len(set(axes)) != count or any(not 0 <= axis < values.ndim + count for axis in axes):
        return None
    return np.expand_dims(values, tuple(axes))


def _reshape(node: Node, inputs: Sequence[Array | None]) -> Array | None:
    values = _first(inputs)
    if len(inputs) < 2 or inputs[1] is None:
        return None
    shape = [int(dim) for dim in inputs[1].reshape(-1)]
    if not node.integer("allowzero", 0):
        if any(dim == 0 and i >= values.ndim for i, dim in enumerate(shape)):
            return None
        shape = [values.shape[i] if dim == 0 else dim for i, dim in enumerate(shape)]
    known = math.prod(dim for dim in shape if dim != -1)
    if shape.count(-1) > 1 or min(shape, default=0) < -1:
        return None
    if -1 in shape:
        return values.reshape(shape) if known and values.size % known == 0 else None
    return values.reshape(shape) if known == values.size else None


def _flatten(node: Node, inputs: Sequence[Array | None]) -> Array | None:
    values = _first(inputs)
    axis = node.integer("axis", 1)
    axis += values.ndim if axis < 0 else 0
    if not 0 <= axis <= values.ndim:
        return None
    return values.reshape(math.prod(values.shape[:axis]), math.prod(values.shape[axis:]))


_VIEWS: dict[str, Callable[[Node, Sequence[Array | None]], Array | None]] = {
    "Identity": lambda _node, inputs: _first(inputs),
    "Transpose": _transpose,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Reshape": _reshape,
    "Flatten": _flatten,
}
