"""Tensors inside the bodies of If, Loop and Scan: which can be looked at, and how a graph comes to return them.

A body's tensor is handed out as a further output of the node that has the body, and so on up to the main graph. Loop
and Scan stack what all rounds made, so each of them adds an axis in front; a branch of an If that is not taken hands
out nothing, which is an empty tensor.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import GraphProto, NodeProto, helper, numpy_helper

from quantgui.network.surgery import all_names, subgraphs
from quantgui.network.wiring import Wiring
from quantgui.results import Array, LayerInfo

_ROUNDS = ("Loop", "Scan")


@dataclass(frozen=True, slots=True)
class InnerTensor:
    """A tensor made in a body.

    Attributes:
        kind: its element type (ONNX).
        path: names of the nodes whose bodies it lies in, outermost first.
        rounds: how many of them are loops: axes in front that count rounds when it is handed out.
    """

    kind: int
    path: tuple[str, ...]
    rounds: int


def inner_tensors(
    skeleton: onnx.ModelProto, wiring: Wiring, layers: Sequence[LayerInfo], constants: Mapping[str, Array]
) -> dict[str, InnerTensor]:
    """Return the tensors of bodies whose activations layers quantize, as far as they can be handed out.

    Those in an If inside of a loop cannot: rounds that do not take its branch have nothing to stack.
    """
    kinds: dict[str, int] = {}
    for layer in layers:
        if not layer.quantizes_activations or layer.read_only:
            continue
        kind = helper.np_dtype_to_tensor_dtype(constants[layer.weight].dtype)
        for user in layer.users:
            node = wiring.nodes[user]
            read = wiring.data_input(node, layer.weight)
            kinds.update(dict.fromkeys((read, node.output[0], wiring.fused_output(node)), kind))
    found: dict[str, InnerTensor] = {}
    for path, body in _bodies(skeleton.graph, ()):
        operators = [node.op_type for node in path]
        loops = [operator in _ROUNDS for operator in operators]
        if not all(each in (*_ROUNDS, "If") for each in operators) or sorted(loops) != loops:
            continue
        names = tuple(node.name for node in path)
        for tensor in _made(body):
            if tensor in kinds:
                found[tensor] = InnerTensor(kinds[tensor], names, sum(loops))
    return found


def _bodies(graph: GraphProto, path: tuple[NodeProto, ...]) -> Iterator[tuple[tuple[NodeProto, ...], GraphProto]]:
    for node in graph.node:
        for body in subgraphs(node):
            yield (*path, node), body
            yield from _bodies(body, (*path, node))


def _made(body: GraphProto) -> Iterator[str]:
    for value in body.input:
        yield value.name
    for node in body.node:
        yield from node.output


def hand_out(graph: GraphProto, tensors: Mapping[str, InnerTensor]) -> dict[str, str]:
    """Let the nodes of `graph` return the inner `tensors`, in place; return the names that they have in `graph`."""
    taken = set(all_names(graph))
    return {name: _lift(graph, name, tensor.path, tensor.kind, taken) for name, tensor in tensors.items()}


def _lift(graph: GraphProto, name: str, path: Sequence[str], kind: int, taken: set[str]) -> str:
    """Return the name that the tensor has in `graph` once the first node of `path` returns it."""
    if not path:
        return name
    node = next(node for node in graph.node if node.name == path[0])
    outer = _unique(f"{name}_outside", taken)
    bodies = list(subgraphs(node))
    # Outputs that an exporter has left out at the end are still counted.
    for _ in range(len(bodies[0].output) - (node.op_type == "Loop") - len(node.output)):
        node.output.append("")
    for body in bodies:
        value = _unique(f"{name}_handed_out", taken)
        if _holds(body, name, path[1:]):
            source = _lift(body, name, path[1:], kind, taken)
            body.node.append(helper.make_node("Identity", [source], [value], name=_unique(value, taken)))
        else:
            nothing = np.empty(0, helper.tensor_dtype_to_np_dtype(kind))
            tensor = numpy_helper.from_array(nothing)
            body.node.append(helper.make_node("Constant", [], [value], name=_unique(value, taken), value=tensor))
        body.output.append(helper.make_tensor_value_info(value, kind, None))
    for attribute in node.attribute:
        if node.op_type == "Scan" and attribute.name in ("scan_output_axes", "scan_output_directions"):
            attribute.ints.append(0)
    node.output.append(outer)
    return outer


def _holds(body: GraphProto, name: str, path: Sequence[str]) -> bool:
    return any(node.name == path[0] for node in body.node) if path else name in _made(body)


def _unique(wish: str, taken: set[str]) -> str:
    name, number = wish, 1
    while name in taken:
        name, number = f"{wish}_{number}", number + 1
    taken.add(name)
    return name
