"""With which operator ONNX Runtime runs each layer of a file, as its own optimized graph tells."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx

from quantgui.export.deployed import DeployedFile
from quantgui.network.network import Network
from quantgui.network.surgery import subgraphs
from quantgui.results import LayerInfo

LARGEST_BYTES = 1 << 30
"""Larger networks are not written out once more to be looked at."""
_INTEGER = (
    "QLinearConv", "QLinearMatMul", "QGemm", "MatMulIntegerToFloat", "MatMulInteger", "ConvInteger",
    "DynamicQuantizeMatMul", "DynamicQuantizeLSTM", "MatMulNBits", "GatherBlockQuantized", "QAttention",
)  # fmt: skip
_CARRYING = ("QuantizeLinear", "DequantizeLinear", "ReorderInput", "ReorderOutput", "Transpose", "Cast", "Reshape")
_SUFFIX = re.compile(r"(_nchwc|_nhwc)?(_token_\d+)?$")
"""What ONNX Runtime appends to the names of nodes that it makes."""
_FEW = 6
"""Nodes between a weight's DequantizeLinear and the operator that uses it, at most."""


@dataclass(frozen=True, slots=True)
class Kernel:
    """What runs a layer.

    Attributes:
        name: the operator of ONNX Runtime.
        is_float: whether it computes with float weights.
        each_run: whether the weights are made float at every run, not once at loading.
    """

    name: str
    is_float: bool
    each_run: bool = False

    def __str__(self) -> str:
        if not self.is_float:
            return self.name
        return f"{self.name}, float" + (" (dequantized at each run)" if self.each_run else "")


def kernels_of(network: Network, file: DeployedFile, *, threads: int) -> dict[str, Kernel]:
    """Return the kernel of each layer that can be found in the optimized graph, by layer.

    Raises:
        ExportError: ONNX Runtime does not load the file.
    """
    if file.file_bytes > LARGEST_BYTES or network.summary.float_bytes > LARGEST_BYTES:
        return {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "optimized.onnx")
        file.session(threads=threads, optimized=path)
        model = onnx.load(path)
    nodes = list(_all_nodes(model.graph))
    by_name = {_SUFFIX.sub("", node.name): node for node in nodes if node.op_type not in _CARRYING}
    makers = {output: node for node in nodes for output in node.output}
    found = {}
    for layer in network.summary.layers:
        node = _node_of(layer, by_name, makers, network)
        if node is not None:
            is_float = node.op_type not in _INTEGER
            found[layer.name] = Kernel(node.op_type, is_float, is_float and _dequantizes(node, makers, layer.weight))
    return found


def _node_of(
    layer: LayerInfo, by_name: Mapping[str, onnx.NodeProto], makers: Mapping[str, onnx.NodeProto], network: Network
) -> onnx.NodeProto | None:
    original = next((node for node in network.skeleton.graph.node if node.name == layer.node), None)
    outputs = [layer.output_tensor, *([] if original is None else original.output)]
    # What is laid out anew is called after its output.
    for name in (layer.node, *outputs):
        if name and name in by_name:
            return by_name[name]
    made = [makers[name] for name in outputs if name and name in makers]
    return next((node for node in made if node.op_type not in _CARRYING), None)


def _dequantizes(node: onnx.NodeProto, makers: Mapping[str, onnx.NodeProto], weight: str) -> bool:
    """Return whether a DequantizeLinear of the weight's own codes stands in front of `node`."""
    names = list(node.input)
    for _ in range(_FEW):
        before = [makers[name] for name in names if name in makers]
        if any(each.op_type == "DequantizeLinear" and each.input[0].startswith(weight) for each in before):
            return True
        names = [name for each in before if each.op_type in _PASSING for name in each.input]
    return False


_PASSING = ("Reshape", "Transpose", "Cast", "Concat", "Mul", "Unsqueeze", "Squeeze")


def _all_nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for body in subgraphs(node):
            yield from _all_nodes(body)
