"""From a file's graph to a program: constants beside it, unique names, nodes in the order in which they can run."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import inliner

from quantgui.errors import NetworkError
from quantgui.network.files import NetworkFile
from quantgui.network.graph import Graph, Node, Program, free_values, origin_of, reserve_name, walk_graph
from quantgui.results import Array

_MAX_SPARSE = 1 << 28
_OPSET_BEFORE_28 = 27


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
            name = reserve_name(f"Identity_{value.name}", self.node_names)
            graph.nodes.append(Node(name, "Identity", "", [source], [value.name], {}, {}, scope))

    def _rename_uses(self, graph: Graph, old: str, new: str) -> None:
        for _, node in walk_graph(graph):
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
