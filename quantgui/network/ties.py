"""Which layers meet: those whose outputs one Add or Concat reads, and which runtimes therefore want in one format."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

import onnx

from quantgui.network.network import Network

_JOINS: Final = frozenset({"Add", "Concat", "Max", "Mean", "Min", "Sub", "Sum"})
"""Add, Concat, and what runtimes treat alike."""
_PASSING: Final = frozenset(
    {"Cast", "Clip", "Dropout", "Elu", "Flatten", "Gelu", "HardSigmoid", "HardSwish", "Identity", "LeakyRelu", "Mish"}
    | {"PRelu", "Pad", "Relu", "Reshape", "Selu", "Sigmoid", "Slice", "Softplus", "Split", "Squeeze", "Tanh"}
    | {"ThresholdedRelu", "Transpose", "Unsqueeze"}
)
"""Operators that change each value alone, or only where it lies: what comes out was made by the layer before them."""
_SCALING: Final = frozenset({"Add", "Div", "Mul", "Sub"})
"""Operators that do so too if all other inputs are constants."""


def tied_layers(network: Network) -> tuple[tuple[str, ...], ...]:
    """Return the groups of layers that feed one Add or Concat, in the order of the layers; no layer is in two of them.

    A layer feeds it through activation functions, through operators that only move values, through constants that are
    added or multiplied, and through another Add or Concat; not through a normalization, a pooling or a product of two
    activations.
    """
    nodes, makers = network.wiring.nodes.values(), network.wiring.producers
    layers = {user: layer.name for layer in network.summary.layers for user in layer.users}
    found: dict[str, dict[str, None]] = {}
    for node in nodes:
        if not _joins(node, network.constants):
            continue
        group: dict[str, None] = {}
        for tensor in node.input:
            group |= dict.fromkeys(_feeding(tensor, makers, layers, network.constants))
        for name in list(group):
            group |= found.get(name, {})
        for name in group:
            found[name] = group
    order = {layer.name: place for place, layer in enumerate(network.summary.layers)}
    groups = {tuple(sorted(group, key=order.__getitem__)) for group in found.values() if len(group) > 1}
    return tuple(sorted(groups, key=lambda group: order[group[0]]))


def _feeding(
    tensor: str, makers: Mapping[str, onnx.NodeProto], layers: Mapping[str, str], constants: Mapping[str, object]
) -> Iterator[str]:
    """Yield the layers that made the values of a tensor."""
    waiting, seen = [tensor], set()
    while waiting:
        node = makers.get(waiting.pop())
        if node is None or node.name in seen:
            continue
        seen.add(node.name)
        varying = [name for name in node.input if name and name not in constants]
        if node.name in layers:
            yield layers[node.name]
        elif node.op_type in _PASSING:
            waiting += node.input[:1]
        elif node.op_type in _JOINS or (node.op_type in _SCALING and len(varying) == 1):
            waiting += varying


def _joins(node: onnx.NodeProto, constants: Mapping[str, object]) -> bool:
    return node.op_type in _JOINS and sum(bool(name) and name not in constants for name in node.input) > 1
