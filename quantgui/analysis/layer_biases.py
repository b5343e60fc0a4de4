"""Which constants are biases of which layers: what operators take as their bias, and what is added right behind them.

Exporters write a linear layer as Gemm, or as MatMul and Add, maybe with a Reshape or Cast between the two.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

import onnx

from quantgui.network.network import Network
from quantgui.network.wiring import Wiring
from quantgui.results import Array, LayerInfo

_BIAS_PLACES: Final[Mapping[str, int]] = {"Conv": 2, "ConvTranspose": 2, "Gemm": 2, "LSTM": 3, "GRU": 3, "RNN": 3}
"""Position of the input that is the bias."""
_FOLLOWED: Final = frozenset({"Gemm", "MatMul"})
"""Operators behind which an Add may stand for the bias; those behind convolutions are folded when a network is read."""
_PASSING: Final = frozenset({"Cast", "Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"})


def constant_biases(network: Network) -> dict[str, dict[str, str]]:
    """Return the constant biases of each layer, with the first of its nodes that takes or adds each, by layer.

    Nothing but layers uses them, each as its bias; one that several layers share is named for all of them. The biases
    of all gates of a recurrent node are one constant.
    """
    graph = network.wiring
    weights = {layer.weight for layer in network.summary.layers}
    places = {layer.name: tuple(_places(network, layer)) for layer in network.summary.layers}
    users: dict[str, set[str]] = {}
    for found in places.values():
        for name, _, user in found:
            users.setdefault(name, set()).add(user)
    ours = {
        name
        for name, nodes in users.items()
        if name not in weights and name not in graph.outputs and {each.name for each in graph.consumers[name]} <= nodes
    }
    biases: dict[str, dict[str, str]] = {}
    for layer, found in places.items():
        own = biases.setdefault(layer, {})
        for name, node, _ in found:
            if name in ours:
                own.setdefault(name, node)
    return biases


def _places(network: Network, layer: LayerInfo) -> Iterator[tuple[str, str, str]]:
    """Yield each constant bias of a layer with the layer's node, and with the node that reads it."""
    graph = network.wiring
    for user in layer.users:
        node = graph.nodes[user]
        place = _BIAS_PLACES.get(node.op_type, len(node.input))
        name, reader = node.input[place] if place < len(node.input) else "", node
        if not name and node.op_type in _FOLLOWED:
            name, reader = _added(graph, node, layer, network.constants)
        if name in network.constants and network.constants[name].dtype.kind == "f":
            yield name, node.name, reader.name


def _added(
    graph: Wiring, node: onnx.NodeProto, layer: LayerInfo, constants: Mapping[str, Array]
) -> tuple[str, onnx.NodeProto]:
    """Return the constant with one value per channel that is added to what `node` makes, or "", and what adds it."""
    tensor = node.output[0]
    while len(graph.consumers.get(tensor, ())) == 1 and tensor not in graph.outputs:
        (reader,) = graph.consumers[tensor]
        if reader.op_type == "Add" and not reader.domain:
            other = str(reader.input[0] if reader.input[1] == tensor else reader.input[1])
            values = constants.get(other)
            # One axis holds all values; a table of positions is no bias.
            fits = values is not None and values.size == layer.channels == max(values.shape, default=1)
            return (other, reader) if fits else ("", node)
        if reader.op_type not in _PASSING or reader.domain or reader.input[0] != tensor:
            break
        tensor = reader.output[0]
    return "", node
