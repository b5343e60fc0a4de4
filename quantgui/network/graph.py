"""The graph while it is brought into canonical form: nodes with bodies, unique names, constants beside them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import onnx

from quantgui.network.files import stored_bytes
from quantgui.network.network import INLINE_BYTES, external_tensor
from quantgui.results import Array


@dataclass(frozen=True)
class Origin:
    """How a constant is stored in the file."""

    dtype: str
    stored_bytes: int


OWN_OUTPUT = "quantgui.own_output"
"""What a node's metadata calls the name that its output had before another node was folded into it."""


@dataclass(eq=False)
class Node:
    """An operator; the graphs among its attributes are `bodies`.

    `own_output` is what its output was called before another node was folded into it; empty if none was.
    """

    name: str
    op: str
    domain: str
    inputs: list[str]
    outputs: list[str]
    attributes: dict[str, onnx.AttributeProto]
    bodies: dict[str, Graph] = field(default_factory=dict)
    scope: tuple[str, ...] = ()
    own_output: str = ""

    def attribute(self, name: str, default: object = None) -> object:
        """Return the value of an attribute; strings as text."""
        if name not in self.attributes:
            return default
        value = onnx.helper.get_attribute_value(self.attributes[name])
        return value.decode("utf-8", "replace") if isinstance(value, bytes) else value

    def integer(self, name: str, default: int) -> int:
        """Return the value of an integer attribute."""
        value = self.attribute(name, default)
        return value if isinstance(value, int) else default

    def number(self, name: str, default: float) -> float:
        """Return the value of an attribute that is a real number."""
        value = self.attribute(name, default)
        return value if isinstance(value, float) else default

    def integers(self, name: str) -> tuple[int, ...]:
        """Return the value of an attribute that is a list of integers; empty where it is absent."""
        return tuple(self.attributes[name].ints) if name in self.attributes else ()


@dataclass(eq=False)
class Graph:
    """The main graph, or the body of a control-flow node."""

    nodes: list[Node]
    inputs: list[onnx.ValueInfoProto]
    outputs: list[onnx.ValueInfoProto]


@dataclass(eq=False)
class Program:
    """A network under construction. All names of values and of nodes are unique, bodies included.

    Attributes:
        graph: the main graph.
        constants: all constants, of bodies too.
        origins: how they are stored in the file.
        opsets: version of each operator set.
        ir_version: of the file.
        value_info: declared types of values of the main graph.
        used_names: all names of values ever used.
    """

    graph: Graph
    constants: dict[str, Array]
    origins: dict[str, Origin]
    opsets: dict[str, int]
    ir_version: int
    value_info: dict[str, onnx.ValueInfoProto]
    used_names: set[str]

    @property
    def opset(self) -> int:
        """Version of the standard operators."""
        return self.opsets.get("", 1)

    def walk(self) -> Iterator[tuple[Graph, Node]]:
        """Yield every node with the graph it is in; the nodes of a body before the node that has it."""
        yield from walk_graph(self.graph)

    def graphs(self) -> Iterator[Graph]:
        """Yield the main graph and all bodies."""
        yield from _graphs(self.graph)

    def consumers(self) -> dict[str, list[Node]]:
        """Return the nodes that use each value; a body counts for the node inside it."""
        users: dict[str, list[Node]] = {}
        for _, node in self.walk():
            for name in dict.fromkeys(node.inputs):
                if name:
                    users.setdefault(name, []).append(node)
        return users

    def output_names(self) -> set[str]:
        """Return the names of the outputs of the network and of all bodies."""
        return {value.name for graph in self.graphs() for value in graph.outputs}

    def producers(self) -> dict[str, Node]:
        """Return the node that makes each value."""
        return {name: node for _, node in self.walk() for name in node.outputs if name}

    def unique(self, wish: str) -> str:
        """Return a name of a value that nothing has, and reserve it."""
        return reserve_name(wish, self.used_names)

    def add_constant(self, wish: str, values: Array, origin: Origin | None = None) -> str:
        """Add a constant and return its name."""
        name = self.unique(wish)
        self.constants[name] = values
        self.origins[name] = origin or origin_of(values)
        return name


def origin_of(values: Array) -> Origin:
    """Return the origin of a constant that is stored as it is."""
    return Origin(str(values.dtype), stored_bytes(values))


def walk_graph(graph: Graph) -> Iterator[tuple[Graph, Node]]:
    """Yield each node with the graph it is in; nodes inside of bodies come before the node that holds them."""
    for node in graph.nodes:
        for body in node.bodies.values():
            yield from walk_graph(body)
        yield graph, node


def _graphs(graph: Graph) -> Iterator[Graph]:
    yield graph
    for node in graph.nodes:
        for body in node.bodies.values():
            yield from _graphs(body)


def reserve_name(wish: str, used: set[str]) -> str:
    """Return a name like `wish` that is not in `used`, and put it there."""
    name, number = wish, 1
    while name in used:
        name = f"{wish}_{number}"
        number += 1
    used.add(name)
    return name


def free_values(node: Node) -> Iterator[str]:
    """Yield all values a node uses, those used inside its bodies included."""
    yield from filter(None, node.inputs)
    for body in node.bodies.values():
        for inner in body.nodes:
            yield from free_values(inner)
        yield from (value.name for value in body.outputs)


# --- to a skeleton -----------------------------------------------------------------------------------------------


def to_skeleton(program: Program, *, producer: str = "") -> onnx.ModelProto:
    """Return the network as a ModelProto whose large initializers are declared external."""
    used = {node.domain for _, node in program.walk()} | {""}
    model = onnx.ModelProto(ir_version=max(program.ir_version, 4), producer_name=producer)
    for domain, version in program.opsets.items():
        if domain in used:
            model.opset_import.add(domain=domain, version=version)
    _fill(model.graph, program.graph)
    model.graph.name = "network"
    needed = {name for _, node in program.walk() for name in node.inputs}
    for name, values in program.constants.items():
        if name in needed:
            model.graph.initializer.append(initializer(name, values))
    made = {name for node in program.graph.nodes for name in node.outputs} - program.output_names()
    model.graph.value_info.extend(value for name, value in program.value_info.items() if name in made)
    return model


def initializer(name: str, values: Array) -> onnx.TensorProto:
    """Return the declaration of a constant: inline if it is small, else injected."""
    if values.dtype.kind in "OSU" or values.nbytes <= INLINE_BYTES:
        return onnx.numpy_helper.from_array(values, name)
    return external_tensor(name, values)


def _fill(proto: onnx.GraphProto, graph: Graph) -> None:
    proto.input.extend(graph.inputs)
    proto.output.extend(graph.outputs)
    for node in graph.nodes:
        proto.node.append(node_proto(node))


def node_proto(node: Node) -> onnx.NodeProto:
    """Return the node with its bodies."""
    proto = onnx.NodeProto(name=node.name, op_type=node.op, domain=node.domain, input=node.inputs, output=node.outputs)
    proto.attribute.extend(node.attributes.values())
    if node.own_output:
        proto.metadata_props.add(key=OWN_OUTPUT, value=node.own_output)
    for name, body in node.bodies.items():
        attribute = proto.attribute.add(name=name, type=onnx.AttributeProto.GRAPH)
        attribute.g.name = f"{node.name}.{name}"
        _fill(attribute.g, body)
    return proto
