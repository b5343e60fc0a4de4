"""Which nodes make and read each tensor of a graph, all bodies of If, Loop and Scan included."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import onnx

from quantgui.network.surgery import all_graphs

_FUSED = ("Relu", "Clip")


@dataclass(frozen=True, eq=False)
class Wiring:
    """Nodes by name in the order of the graph, those that read each tensor, the one that makes it, and all outputs."""

    nodes: Mapping[str, onnx.NodeProto]
    consumers: Mapping[str, Sequence[onnx.NodeProto]]
    producers: Mapping[str, onnx.NodeProto]
    outputs: frozenset[str]

    @staticmethod
    def of(graph: onnx.GraphProto) -> Wiring:
        """Return the wiring of a graph whose names are unique."""
        nodes: dict[str, onnx.NodeProto] = {}
        consumers: dict[str, list[onnx.NodeProto]] = {}
        producers: dict[str, onnx.NodeProto] = {}
        outputs: set[str] = set()
        for each in all_graphs(graph):
            outputs.update(value.name for value in each.output)
            for node in each.node:
                nodes[node.name] = node
                producers.update(dict.fromkeys(filter(None, node.output), node))
                for tensor in dict.fromkeys(node.input):
                    consumers.setdefault(tensor, []).append(node)
        return Wiring(nodes, consumers, producers, frozenset(outputs))

    def data_input(self, node: onnx.NodeProto, weight: str) -> str:
        """Return the input of a layer's node that is not its weight, nor the weight transposed."""
        first = node.input[0]
        producer = self.producers.get(first)
        is_weight = first == weight or (
            producer is not None and producer.op_type == "Transpose" and producer.input[0] == weight
        )
        return str(node.input[1] if is_weight else first)

    def fused_output(self, node: onnx.NodeProto) -> str:
        """Return the output of a convolution, behind the Relu or Clip that alone reads it."""
        tensor = node.output[0]
        readers = self.consumers.get(tensor, ())
        if len(readers) == 1 and readers[0].op_type in _FUSED and tensor not in self.outputs:
            return str(readers[0].output[0])
        return str(tensor)
