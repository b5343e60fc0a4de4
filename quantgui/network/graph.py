"""The graph while it is brought into canonical form: nodes with bodies, unique names, constants beside them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import inliner

from quantgui.errors import NetworkError
from quantgui.network.files import NetworkFile, stored_bytes
from quantgui.network.network import INLINE_BYTES, external_tensor
from quantgui.results import Array

_MAX_SPARSE = 1 << 28


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
        yield from _walk(self.graph)

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
        return _reserve(wish, self.used_names)

    def add_constant(self, wish: str, values: Array, origin: Origin | None = None) -> str:
        """Add a constant and return its name."""
        name = self.unique(wish)
        self.constants[name] = values
        self.origins[name] = origin or origin_of(values)
        return name


def origin_of(values: Array) -> Origin:
    """Return the origin of a constant that is stored as it is."""
    return Origin(str(values.dtype), stored_bytes(values))


def _walk(graph: Graph) -> Iterator[tuple[Graph, Node]]:
    for node in graph.nodes:
        for body in node.bodies.values():
            yield from _walk(body)
        yield graph, node


def _graphs(graph: Graph) -> Iterator[Graph]:
    yield graph
    for node in graph.nodes:
        for body in node.bodies.values():
            yield from _graphs(body)


def _reserve(wish: str, used: set[str]) -> str:
    name, number = wish, 1
    while name in used:
        name = f"{wish}_{number}"
        number += 1
    used.add(name)
    return name


# --- from a file -------------------------------------------------------------------------------------------------


def read_program(file: NetworkFile) -> Program:
    """Return the network of a file with its constants beside it.

    Raises:
        NetworkError: the graph is damaged or cyclic.
    """
    model = file.model
    if model.functions:
        model = inliner.inline_local_functions(model)
    program = Program(
        Graph([], [], []),
        {},
        {},
        {"" if o.domain == "ai.onnx" else o.domain: _runnable(o) for o in model.opset_import},
        model.ir_version,
        {},
        set(),
    )
    reading = _Reading(file, program, Counter(node.name for node in _proto_nodes(model.graph)))
    program.graph = reading.graph(model.graph, {}, ())
    names = {name for node in program.graph.nodes for name in node.outputs}
    program.value_info = {value.name: value for value in model.graph.value_info if value.name in names}
    return program


def _runnable(opset: onnx.OperatorSetIdProto) -> int:
    """Return the version of an operator set under which ONNX Runtime has kernels for it.

    ONNX Runtime 1.32 reads opset 28 but has none for its Cast, QuantizeLinear and others, which only took new types in;
    28 changes nothing that is valid in 27 too, and what is not is refused when the network is loaded (onnx,
    Changelog.md, version 28).
    """
    standard = opset.domain in ("", "ai.onnx")
    return _OPSET_BEFORE_28 if standard and opset.version == _OPSET_BEFORE_28 + 1 else opset.version


_OPSET_BEFORE_28 = 27


def _proto_nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for body in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                yield from _proto_nodes(body)


@dataclass(eq=False)
class _Reading:
    file: NetworkFile
    program: Program
    wishes: Counter[str]
    node_names: set[str] = field(default_factory=set)

    def graph(self, proto: onnx.GraphProto, outer: Mapping[str, str], scope: tuple[str, ...]) -> Graph:
        names: dict[str, str] = {}
        tensors = [*((t.name, t) for t in proto.initializer), *((t.values.name, t) for t in proto.sparse_initializer)]
        held = {name for name, _ in tensors}
        # Up to IR 3 every initializer is listed as an input too.
        inputs = [_renamed(v, self._define(v.name, names)) for v in proto.input if v.name not in held]
        for name, tensor in tensors:
            values = self._values(tensor)
            self._add_constant(self._define(name, names), values)
        constant_nodes = [node for node in proto.node if _is_constant(node)]
        for node in proto.node:
            for output in filter(None, node.output):
                self._define(output, names)
        for node in constant_nodes:
            if len(node.output) != 1 or not node.output[0]:
                raise NetworkError("A constant of the network has no name, so the file is damaged.")
            self._add_constant(names[node.output[0]], self._constant(node))
        env = {**outer, **names}
        nodes = [self._node(node, env, scope) for node in proto.node if not _is_constant(node)]
        outputs = [_renamed(value, self._lookup(value.name, env, "the outputs")) for value in proto.output]
        graph = Graph(_sorted(nodes), inputs, outputs)
        self._make_outputs_own(graph, scope)
        return graph

    def _define(self, name: str, names: dict[str, str]) -> str:
        if name in names:
            raise NetworkError(f"The graph defines the value '{name}' twice, so the file is damaged.")
        names[name] = self.program.unique(name)
        return names[name]

    def _lookup(self, name: str, env: Mapping[str, str], user: str) -> str:
        if name and name not in env:
            raise NetworkError(f"The value '{name}' is used by {user}, but nothing makes it: the file is damaged.")
        return env[name] if name else ""

    def _add_constant(self, name: str, values: Array) -> None:
        self.program.constants[name] = values
        self.program.origins[name] = origin_of(values)

    def _values(self, tensor: onnx.TensorProto | onnx.SparseTensorProto) -> Array:
        if isinstance(tensor, onnx.TensorProto):
            return self.file.array(tensor)
        shape = tuple(tensor.dims)
        if math.prod(shape) > _MAX_SPARSE:
            raise NetworkError(f"The sparse tensor '{tensor.values.name}' is too large to be opened.")
        values, indices = self.file.array(tensor.values), self.file.array(tensor.indices)
        dense = np.zeros(shape, values.dtype)
        try:
            if indices.ndim == 1:
                dense.reshape(-1)[indices] = values
            else:
                dense[tuple(indices.T)] = values
        except (IndexError, ValueError) as error:
            raise NetworkError(f"The sparse tensor '{tensor.values.name}' is damaged.") from error
        return dense

    def _constant(self, node: onnx.NodeProto) -> Array:
        attribute = node.attribute[0] if node.attribute else onnx.AttributeProto()
        match attribute.name:
            case "value":
                return self.file.array(attribute.t)
            case "sparse_value":
                return self._values(attribute.sparse_tensor)
            case "value_float":
                return np.array(attribute.f, np.float32)
            case "value_floats":
                return np.array(attribute.floats, np.float32)
            case "value_int":
                return np.array(attribute.i, np.int64)
            case "value_ints":
                return np.array(attribute.ints, np.int64)
            case "value_string":
                return np.array(attribute.s, object)
            case "value_strings":
                return np.array(list(attribute.strings), object)
            case _:
                pass
        raise NetworkError(f"The constant '{node.output[0] if node.output else node.name}' has no value.")

    def _node(self, proto: onnx.NodeProto, env: Mapping[str, str], scope: tuple[str, ...]) -> Node:
        name = self._node_name(proto)
        self._check_arity(proto, name)
        inputs = [self._lookup(value, env, f"the node '{name}'") for value in proto.input]
        outputs = [env[value] if value else "" for value in proto.output]
        attributes, bodies = {}, {}
        for attribute in proto.attribute:
            if attribute.HasField("g"):
                bodies[attribute.name] = self.graph(attribute.g, env, (*scope, name))
            else:
                if attribute.HasField("t") and attribute.t.data_location == onnx.TensorProto.EXTERNAL:
                    attribute.t.CopyFrom(onnx.numpy_helper.from_array(self.file.array(attribute.t)))
                attributes[attribute.name] = attribute
        domain = "" if proto.domain == "ai.onnx" else proto.domain
        return Node(name, proto.op_type, domain, inputs, outputs, attributes, bodies, scope)

    def _check_arity(self, proto: onnx.NodeProto, name: str) -> None:
        """Check the number of inputs and outputs of a standard operator; what runs on it relies on them."""
        if not _is_standard(proto) or not onnx.defs.has(proto.op_type, self.program.opset, ""):
            return
        schema = onnx.defs.get_schema(proto.op_type, self.program.opset, "")
        single = onnx.defs.OpSchema.FormalParameterOption.Single
        required = [i for i, formal in enumerate(schema.inputs) if formal.option == single]
        if (
            not schema.min_input <= len(proto.input) <= schema.max_input
            or not schema.min_output <= len(proto.output) <= schema.max_output
            or any(not proto.input[i] for i in required if i < len(proto.input))
        ):
            raise NetworkError(
                f"The node '{name}' has not as many inputs and outputs as the operator {proto.op_type} needs: "
                "the file is damaged."
            )

    def _node_name(self, proto: onnx.NodeProto) -> str:
        wish = proto.name or f"{proto.op_type}_{next(filter(None, proto.output), '')}"
        number, name = 0, wish
        # A made-up name must not take the one another node really has.
        while name in self.node_names or (name != proto.name and name in self.wishes):
            number += 1
            name = f"{wish}_{number}"
        self.node_names.add(name)
        return name

    def _make_outputs_own(self, graph: Graph, scope: tuple[str, ...]) -> None:
        """Give the outputs that are constants, inputs or outer values of a body a node of their own."""
        made = {name for node in graph.nodes for name in node.outputs}
        seen: set[str] = set()
        for value in graph.outputs:
            is_input = any(value.name == i.name for i in graph.inputs)
            if value.name in made and value.name not in seen:
                seen.add(value.name)
                continue
            source = value.name
            if not scope and is_input:
                continue
            if not scope:
                # The network's own output keeps its name; the constant gives its up.
                if source in self.program.constants:
                    source = self.program.add_constant(f"{source}_value", self.program.constants.pop(source))
                    self.program.origins.pop(value.name, None)
                    self._rename_uses(graph, value.name, source)
                else:
                    raise NetworkError(f"The output '{value.name}' is listed twice, so the file is damaged.")
            else:
                value.name = self.program.unique(f"{source}_out")
            name = _reserve(f"Identity_{value.name}", self.node_names)
            graph.nodes.append(Node(name, "Identity", "", [source], [value.name], {}, {}, scope))

    def _rename_uses(self, graph: Graph, old: str, new: str) -> None:
        for _, node in _walk(graph):
            node.inputs = [new if name == old else name for name in node.inputs]


def _is_standard(node: onnx.NodeProto) -> bool:
    return node.domain in ("", "ai.onnx")


def _is_constant(node: onnx.NodeProto) -> bool:
    return node.op_type == "Constant" and _is_standard(node)


def _renamed(value: onnx.ValueInfoProto, name: str) -> onnx.ValueInfoProto:
    copy = onnx.ValueInfoProto()
    copy.CopyFrom(value)
    copy.name = name
    return copy


def free_values(node: Node) -> Iterator[str]:
    """Yield all values a node uses, those used inside its bodies included."""
    yield from filter(None, node.inputs)
    for body in node.bodies.values():
        for inner in body.nodes:
            yield from free_values(inner)
        yield from (value.name for value in body.outputs)


def _sorted(nodes: list[Node]) -> list[Node]:
    """Return the nodes so that each follows those it depends on, else in the order of the file."""
    maker = {name: i for i, node in enumerate(nodes) for name in node.outputs if name}
    needs = [sorted({maker[name] for name in free_values(node) if name in maker}) for node in nodes]
    if all(not need or need[-1] < i for i, need in enumerate(needs)):
        return nodes
    order: list[Node] = []
    state = [0] * len(nodes)
    for root in range(len(nodes)):
        stack = [(root, 0)]
        while stack:
            i, at = stack.pop()
            if at == 0:
                if state[i]:
                    continue
                state[i] = 1
            if at < len(needs[i]):
                stack.append((i, at + 1))
                child = needs[i][at]
                if state[child] == 1:
                    raise NetworkError(
                        f"The graph is cyclic: the node '{nodes[child].name}' depends on its own output."
                    )
                if not state[child]:
                    stack.append((child, 0))
            else:
                state[i] = 2
                order.append(nodes[i])
    return order


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
