"""Where NVIDIA TensorRT wants activations quantized: in front of operators, never behind them.

A convolution quantizes what it reads. What it writes stays float, so that TensorRT can fuse it with what follows, and
the next operator quantizes it again where it wants it so. An Add of a residual block quantizes the branch that does
not come straight out of an operator with weights, so that TensorRT fuses the Add with the other.

Source: NVIDIA, TensorRT developer guide, "Working with quantized types", "Q/DQ layer-placement recommendations".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import onnx

from quantgui.network.network import Network
from quantgui.network.simulation import TensorQuantizer
from quantgui.network.surgery import subgraphs
from quantgui.spec.config import QuantConfig

WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")


def in_front_of_operators(
    network: Network, config: QuantConfig, quantizers: Mapping[str, tuple[TensorQuantizer, ...]]
) -> dict[str, tuple[TensorQuantizer, ...]]:
    """Return `quantizers` moved to where TensorRT wants them: each names the nodes that read through it."""
    nodes = list(_all_nodes(network.skeleton.graph))
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in nodes:
        for tensor in dict.fromkeys(node.input):
            readers.setdefault(tensor, []).append(node)
    makers = {output: node for node in nodes for output in node.output}
    asking = {
        user
        for layer in network.summary.layers
        if layer.quantizes_activations and config.spec_for(layer.name).activations is not None
        for user in layer.users
    }
    branches = {node.name: _residual(node, makers) for node in nodes if node.op_type == "Add"}
    moved: dict[str, tuple[TensorQuantizer, ...]] = {}
    for tensor, present in quantizers.items():
        named = {name for each in present for name in each.consumers or ()}
        found = []
        for place, quantizer in enumerate(present):
            names = set(quantizer.consumers or ())
            if quantizer.consumers is None:
                rest = (node for node in readers.get(tensor, ()) if node.name not in named)
                names = {node.name for node in rest if node.op_type in WEIGHTED and node.name in asking}
            if place == 0:
                names |= {node.name for node in readers.get(tensor, ()) if branches.get(node.name) == tensor}
            if names:
                found.append(replace(quantizer, consumers=frozenset(names)))
        if found:
            moved[tensor] = tuple(found)
    return moved


def _residual(node: onnx.NodeProto, makers: Mapping[str, onnx.NodeProto]) -> str:
    """Return the input of an Add that its other input's operator cannot be fused with; "" if there is none."""
    first, second = (tensor in makers and makers[tensor].op_type in WEIGHTED for tensor in node.input)
    if not first and not second:
        return ""
    return str(node.input[1] if first else node.input[0])


def _all_nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for body in subgraphs(node):
            yield from _all_nodes(body)
