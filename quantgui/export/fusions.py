"""What ONNX Runtime would do to quantized weights and the operators that use them, where that goes wrong."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import onnx

from quantgui.analysis.simulation import (
    BiasPlan,
    seen_quantizer,
)
from quantgui.export.lookup import needs_lookup
from quantgui.network.network import Network
from quantgui.network.simulation import TensorQuantizer
from quantgui.network.surgery import subgraphs
from quantgui.results import LayerInfo
from quantgui.spec.formats import FloatFormat, IntFormat
from quantgui.spec.granularity import PerTensor
from quantgui.spec.quantizer import QuantizerSpec


class Fusions:
    """What ONNX Runtime 1.31 would do to a quantized weight and the operator that uses it.

    Attributes:
        biases: biases that become int32, by name.
    """

    def __init__(
        self, network: Network, quantizers: Mapping[str, tuple[TensorQuantizer, ...]], biases: Mapping[str, BiasPlan]
    ) -> None:
        self.biases = biases
        self._quantizers = quantizers
        self._constants = network.constants
        self._nodes = dict(_nodes_by_name(network.skeleton.graph))

    def harm(self, layer: LayerInfo, spec: QuantizerSpec | None) -> bool:
        """Return whether fusing the weight of `layer` with its users gives wrong results, or none.

        - With quantized inputs, convolutions and MatMul of 2-bit weights become QLinearConv and QLinearMatMul, which
          do not take them. MatMul of weights of rank 3 and more with a scale per channel fails when it runs.
        - MatMul and Gemm take scales per channel for those of the columns of their product, whatever axis they are of:
          a matrix that one node multiplies from the left and another from the right has them along the inputs of one.
        - MatMul and Gemm with 2-bit weights become MatMulNBits, which computes nonsense unless the number of columns
          is a multiple of 4.
        - Between quantized inputs, ONNX Runtime rounds weights of other formats to 8 bits per tensor.
        - A float bias between quantized inputs becomes int32 with the scale of the products, whether or not that can
          hold it (16-bit weights or activations), and in whatever shape the scales have (groups).
        """
        if spec is None or isinstance(spec.format, FloatFormat):
            return False
        users = [self._nodes[user] for user in layer.users]
        integers = any(self._sees_integers(node) for node in users)
        if needs_lookup(spec) or not isinstance(spec.format, IntFormat):
            return integers
        if spec.format.storage_bits == 2:
            return integers or layer.channels % 4 != 0 or any(node.op_type != "MatMul" for node in users)
        if integers and not isinstance(spec.granularity, PerTensor):
            if len(layer.shape) > 2 and any(node.op_type == "MatMul" for node in users):
                return True
            if any(_output_axis(node, layer.weight) not in (None, layer.channel_axis) for node in users):
                return True
        return any(self._sees_integers(node) and self._has_float_bias(node) for node in users)

    def _sees_integers(self, node: onnx.NodeProto) -> bool:
        seen = (seen_quantizer(self._quantizers.get(name, ()), node.name) for name in node.input[:2])
        return any(quantizer is not None and isinstance(quantizer.format, IntFormat) for quantizer in seen)

    def _has_float_bias(self, node: onnx.NodeProto) -> bool:
        if len(node.input) < 3 or node.op_type not in ("Conv", "ConvTranspose", "Gemm"):
            return False
        return node.input[2] in self._constants and node.input[2] not in self.biases


def _output_axis(node: onnx.NodeProto, matrix: str) -> int | None:
    """Return the axis of `matrix` along which `node` makes its outputs; None where that is not told by its place."""
    if node.op_type not in ("MatMul", "Gemm") or matrix not in node.input[:2]:
        return None
    place = list(node.input).index(matrix)
    transposed = any(a.i for a in node.attribute if a.name == ("transA", "transB")[place])
    return 1 - place if transposed else place


def _nodes_by_name(graph: onnx.GraphProto) -> Iterator[tuple[str, onnx.NodeProto]]:
    for node in graph.node:
        yield node.name, node
        for body in subgraphs(node):
            yield from _nodes_by_name(body)
