"""A layer run alone: its operator with the weight as an input, on what the float network feeds it.

So many values of a weight can be tried for the price of the operator itself. This works for every kind of layer: for
convolutions and products of matrices, for parts of recurrent weights (the other parts stay float), for embeddings, and
for tables that are transposed before they are multiplied.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnxruntime

from quantgui.network.built_segments import build_segment
from quantgui.network.network import Network, as_contiguous
from quantgui.network.segments import Segment, TensorType
from quantgui.network.session import create_session, runtime_errors
from quantgui.network.surgery import subgraphs
from quantgui.results import Array, LayerInfo

_GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


@dataclass(frozen=True, eq=False)
class LayerNode:
    """One operator that uses a layer's weight.

    Attributes:
        layer: whose weight it is.
        node: the operator.
        nodes: it and, before it, the Transpose that stands between it and the weight, if there is one.
        inputs: the tensors it needs beside initializers.
        initializers: those it needs, the weight included.
        output: the tensor it is judged by.
    """

    layer: LayerInfo
    node: onnx.NodeProto
    nodes: tuple[onnx.NodeProto, ...]
    inputs: tuple[str, ...]
    initializers: frozenset[str]
    output: str

    @property
    def transposed(self) -> bool:
        """Whether the weight is transposed before the operator sees it."""
        return len(self.nodes) > 1

    @property
    def position(self) -> int:
        """Index of the weight among the operator's inputs."""
        name = self.nodes[0].output[0] if self.transposed else self.layer.weight
        return list(self.node.input).index(name)

    def attribute(self, name: str, default: Any) -> Any:
        """Return an attribute of the operator."""
        found = next((each for each in self.node.attribute if each.name == name), None)
        return default if found is None else onnx.helper.get_attribute_value(found)


def layer_nodes(network: Network, layers: Mapping[str, LayerInfo]) -> dict[str, tuple[LayerNode, ...]]:
    """Return the operators that use each layer's weight, in bodies of If and Loop too."""
    nodes = {node.name: node for node in _nodes(network.skeleton.graph)}
    producers = {name: node for node in nodes.values() for name in node.output if name}
    initializers = {tensor.name for tensor in network.skeleton.graph.initializer}
    found = {}
    for name, layer in layers.items():
        users = [_layer_node(layer, nodes[user], producers, initializers) for user in layer.users]
        found[name] = tuple(user for user in users if user is not None)
    return found


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for body in subgraphs(node):
            yield from _nodes(body)


def _layer_node(
    layer: LayerInfo, node: onnx.NodeProto, producers: Mapping[str, onnx.NodeProto], initializers: set[str]
) -> LayerNode | None:
    nodes: tuple[onnx.NodeProto, ...] = (node,)
    if layer.weight not in node.input:
        makers = [producers[name] for name in node.input if name in producers]
        between = next((maker for maker in makers if layer.weight in maker.input and len(maker.input) == 1), None)
        if between is None:
            return None
        nodes = (between, node)
    made = {name for each in nodes[:-1] for name in each.output}
    read = dict.fromkeys(name for each in nodes for name in each.input if name and name not in made)
    output = next(name for name in node.output if name)
    inputs = tuple(name for name in read if name not in initializers)
    return LayerNode(layer, node, nodes, inputs, frozenset(read) & initializers, output)


class LayerAlone:
    """The operator of one `LayerNode` as a session, with the weight as an input."""

    def __init__(self, network: Network, node: LayerNode, threads: int) -> None:
        self.node = node
        self._network = network
        self._threads = threads
        self._session: onnxruntime.InferenceSession | None = None

    def run(self, values: Mapping[str, Array], weight: Array) -> Array:
        """Return the operator's output from the tensors it reads and values of the whole initializer.

        Raises:
            NetworkError: ONNX Runtime cannot run the operator alone.
        """
        node = self.node
        feeds = {name: as_contiguous(values[name]) for name in node.inputs}
        if self._session is None:
            made = frozenset(name for each in node.nodes for name in each.output if name)
            segment = Segment(-1, node.nodes, node.inputs, (node.output,), node.initializers, made)
            types = {
                name: TensorType(onnx.helper.np_dtype_to_tensor_dtype(value.dtype), (None,) * value.ndim)
                for name, value in feeds.items()
            }
            outputs = [node.output]
            # A network input has fixed sizes where it was declared so, which is no harm.
            built = build_segment(self._network, segment, types, outputs=outputs, fed=[node.layer.weight])
            self._session = create_session(built.model, self._network.constants, threads=self._threads)
        with runtime_errors("run"):
            results = self._session.run([node.output], {**feeds, node.layer.weight: as_contiguous(weight)})
        return np.asarray(results[0])


def with_part(network: Network, layer: LayerInfo, part: Array) -> Array:
    """Return the initializer that holds the layer's values with `part` instead of them."""
    values = network.constants[layer.weight]
    if layer.rows is None:
        return part.astype(values.dtype, copy=False)
    whole = np.array(values)
    start, stop = layer.rows
    whole.reshape(-1, whole.shape[-1])[start:stop] = part
    return whole


# --- second moments of the inputs --------------------------------------------------------------------------------


def input_moments(node: LayerNode, values: Mapping[str, Array], output: Array) -> Array | None:
    """Return the mean square of the input that multiplies each element of the layer's weight.

    Args:
        node: the operator.
        values: the tensors it reads.
        output: what it makes of them; the hidden states multiply recurrent weights.

    Returns:
        float64, of a shape that broadcasts to that of the layer; None where it is not known. For convolutions the mean
        is over all places of the input channel, borders not told apart.
    """
    find = _MOMENTS.get(node.node.op_type)
    return None if find is None else find(node, values, output)


def _data(node: LayerNode, values: Mapping[str, Array], position: int) -> Array | None:
    name = node.node.input[position]
    return values.get(name)


def _mean_squares(x: Array, axis: int) -> Array:
    """Return the mean square of `x` at each index of `axis`, float64."""
    others = tuple(other for other in range(x.ndim) if other != axis % x.ndim)
    count = max(x.size // max(x.shape[axis], 1), 1)
    return np.asarray(np.square(x, dtype=np.float32).sum(others, dtype=np.float64) / count)


def _convolution_moments(node: LayerNode, values: Mapping[str, Array], output: Array) -> Array | None:
    x = _data(node, values, 0)
    if x is None:
        return None
    rank = len(node.layer.shape) - 2
    moments = _mean_squares(x, 1)
    if node.node.op_type == "ConvTranspose":
        return moments.reshape(-1, 1, *[1] * rank)
    groups = node.attribute("group", 1)
    outputs = node.layer.shape[0]
    per_group = np.repeat(moments.reshape(groups, -1), outputs // groups, axis=0)
    return per_group.reshape(outputs, -1, *[1] * rank)


def _product_moments(node: LayerNode, values: Mapping[str, Array], output: Array) -> Array | None:
    position, gemm = node.position, node.node.op_type == "Gemm"
    x = _data(node, values, 1 - position)
    if x is None:
        return None
    if len(node.layer.shape) > 2:
        return None if node.transposed or gemm else _moments_of_many(x, node.layer.shape, position)
    # The axis of the data that the product sums over.
    if gemm:
        flag = bool(node.attribute("transA" if position == 1 else "transB", 0))
        axis = int(flag != (position == 1))
    else:
        axis = -1 if position == 1 or x.ndim == 1 else -2
    moments = _mean_squares(x, axis)
    return moments.reshape(1, -1) if node.layer.channel_axis == 0 else moments.reshape(-1, 1)


def _moments_of_many(x: Array, shape: tuple[int, ...], position: int) -> Array:
    """Return the moments where the weight is a stack of matrices, each of which sees a part of the data."""
    if x.ndim == 1:
        x = x.reshape(1, -1) if position == 1 else x.reshape(-1, 1)
    squares = np.square(x, dtype=np.float32).mean(-2 if position == 1 else -1, keepdims=True, dtype=np.float64)
    moments = np.swapaxes(squares, -1, -2)
    # What the weight does not tell apart is averaged.
    moments = moments.mean(tuple(range(max(moments.ndim - len(shape), 0))))
    same = tuple(i - len(shape) for i, size in enumerate(shape[:-2]) if size == 1 and moments.ndim >= len(shape) - i)
    return np.asarray(moments.mean(same, keepdims=True))


def _table_moments(node: LayerNode, values: Mapping[str, Array], output: Array) -> Array | None:
    indices = _data(node, values, 1)
    if indices is None:
        return None
    size = node.layer.shape[0]
    flat = indices.reshape(-1).astype(np.int64)
    counts = np.bincount(np.where(flat < 0, flat + size, flat), minlength=size)
    return (counts / max(flat.size, 1)).reshape(-1, *[1] * (len(node.layer.shape) - 1))


def _recurrent_moments(node: LayerNode, values: Mapping[str, Array], output: Array) -> Array | None:
    if node.position == 1:
        x = _data(node, values, 0)
        return None if x is None else _mean_squares(x, -1).reshape(1, -1)
    if not node.layer.rows or not node.node.output[0]:
        return None
    hidden = output.shape[-1]
    direction = node.layer.rows[0] // (_GATES[node.node.op_type] * hidden)
    axis = 2 if node.attribute("layout", 0) else 1
    return _mean_squares(np.take(output, direction, axis), -1).reshape(1, -1)


_MOMENTS: Mapping[str, Callable[[LayerNode, Mapping[str, Array], Array], Array | None]] = {
    "Conv": _convolution_moments,
    "ConvTranspose": _convolution_moments,
    "Gather": _table_moments,
    "Gemm": _product_moments,
    "GRU": _recurrent_moments,
    "LSTM": _recurrent_moments,
    "MatMul": _product_moments,
    "RNN": _recurrent_moments,
}
