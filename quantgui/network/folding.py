"""Constant folding: what is computed from constants only becomes a constant; Identity nodes and dead nodes go.

An already quantized weight (DequantizeLinear of a constant) is not folded, random operators never are, and nothing
that would make a tensor larger than those it comes from. Operators are computed by ONNX Runtime itself; those that only
re-arrange are done on views, so that a mapped weight stays mapped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from quantgui.network.graph import Graph, Node, Origin, Program, origin_of
from quantgui.network.network import INLINE_BYTES
from quantgui.network.node_values import evaluate_node
from quantgui.results import Array

_COUNTING = ("int32", "int64", "uint32", "uint64")
"""Integers too wide for those of a quantized weight."""
_NEVER = {
    "Bernoulli",
    "DequantizeLinear",
    "DynamicQuantizeLinear",
    "Multinomial",
    "RandomNormal",
    "RandomNormalLike",
    "RandomUniform",
    "RandomUniformLike",
}


def fold(program: Program, shapes: dict[str, tuple[int | None, ...]]) -> None:
    """Fold constants in all graphs of `program`, in place.

    Args:
        program: the network.
        shapes: what is known of the shapes of its values (`quantgui.network.shapes`).
    """
    folding = _Folding(program, shapes)
    folding.graph(program.graph)
    folding.rename()
    remove_dead(program)


@dataclass(eq=False)
class _Folding:
    program: Program
    shapes: dict[str, tuple[int | None, ...]]
    renamed: dict[str, str] = field(default_factory=dict)
    computed: dict[tuple[object, ...], str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.consumers = self.program.consumers()
        self.outputs = self.program.output_names()

    def graph(self, graph: Graph) -> None:
        own_inputs = {value.name for value in graph.inputs}
        made: set[str] = set()
        kept: list[Node] = []
        waiting = list(reversed(graph.nodes))
        while waiting:
            node = waiting.pop()
            node.inputs = [self._current(name) for name in node.inputs]
            if _is_identity(node) and self._bypass(node, made - own_inputs):
                continue
            branch = self._chosen_branch(node)
            if branch is not None:
                waiting.extend(reversed(self._inlined(node, branch)))
                continue
            if self._fold_node(node):
                continue
            for body in node.bodies.values():
                self.graph(body)
            made.update(node.outputs)
            kept.append(node)
        graph.nodes = kept

    def _current(self, name: str) -> str:
        while name in self.renamed:
            name = self.renamed[name]
        return name

    def rename(self) -> None:
        """Apply the new names everywhere."""
        for _, node in self.program.walk():
            node.inputs = [self._current(name) for name in node.inputs]
            node.outputs = [self._current(name) for name in node.outputs]
        for graph in self.program.graphs():
            for value in graph.outputs:
                value.name = self._current(value.name)

    def _bypass(self, node: Node, made: set[str]) -> bool:
        """Remove a node that hands its input on; False where its output's name has to stay beside the input's."""
        source, target = node.inputs[0], node.outputs[0]
        if target not in self.outputs:
            self.renamed[target] = source
            self._merge_consumers(source, target)
            return True
        if source not in made or source in self.outputs:
            return False
        # The output's name stays: whoever makes the input makes the output instead.
        self.renamed[source] = target
        made.add(target)
        self._merge_consumers(target, source)
        return True

    def _merge_consumers(self, kept: str, gone: str) -> None:
        self.consumers[kept] = self.consumers.get(kept, []) + self.consumers.pop(gone, [])

    def _chosen_branch(self, node: Node) -> Graph | None:
        if node.op != "If" or node.domain or node.inputs[0] not in self.program.constants:
            return None
        condition = self.program.constants[node.inputs[0]]
        branch = node.bodies.get("then_branch" if condition.reshape(-1)[:1].any() else "else_branch")
        return branch if branch and len(branch.outputs) == len(node.outputs) else None

    def _inlined(self, node: Node, branch: Graph) -> list[Node]:
        """Return the nodes of the branch that is always taken, its outputs under the names of the If's."""
        self.outputs -= {value.name for value in branch.outputs}
        nodes = list(branch.nodes)
        for inner in nodes:
            _shorten_scope(inner, len(node.scope))
        for i, (value, name) in enumerate(zip(branch.outputs, node.outputs, strict=True)):
            if name:
                nodes.append(Node(f"{node.name}.{i}", "Identity", "", [value.name], [name], {}, {}, node.scope))
        return nodes

    def _fold_node(self, node: Node) -> bool:
        if node.domain or node.bodies or node.op in _NEVER or any(name in self.outputs for name in node.outputs):
            return False
        if node.op in ("Shape", "Size") and (value := self._static_shape(node)) is not None:
            self._replace(node, [value], [])
            return True
        names = [name for name in node.inputs if name]
        constants = self.program.constants
        if not names or not all(name in constants for name in names) or self._is_tied(node):
            return False
        key = (node.op, *(self._input_key(name) for name in node.inputs), *sorted(_attribute_keys(node)))
        if key in self.computed and len(node.outputs) == 1:
            self.renamed[node.outputs[0]] = self.computed[key]
            self._merge_consumers(self.computed[key], node.outputs[0])
            return True
        results = evaluate_node(node, [constants[name] if name else None for name in node.inputs], self.program.opset)
        if results is None:
            return False
        self._replace(node, results, names)
        self.computed[key] = node.outputs[0]
        return True

    def _input_key(self, name: str) -> object:
        """Return what two inputs have in common when they hold the same: small constants are compared by value."""
        values = self.program.constants.get(name)
        if values is None or values.nbytes > INLINE_BYTES or values.dtype.kind == "O":
            return name
        return (values.dtype.str, values.shape, values.tobytes())

    def _static_shape(self, node: Node) -> Array | None:
        constants = self.program.constants
        source = node.inputs[0]
        shape = constants[source].shape if source in constants else self.shapes.get(source)
        if shape is None or any(dim is None for dim in shape):
            return None
        sizes = np.array(shape, np.int64)
        if node.op == "Size":
            return np.array(sizes.prod(), np.int64)
        end = node.integer("end", len(sizes))
        return sizes[node.integer("start", 0) : end]

    def _is_tied(self, node: Node) -> bool:
        """Whether a transposed table is also looked up in: folding would store it twice."""
        if node.op != "Transpose" or self.program.constants[node.inputs[0]].ndim != 2:
            return False
        users = self.consumers.get(node.inputs[0], [])
        return any(user.op == "Gather" and user.inputs[0] == node.inputs[0] for user in users)

    def _replace(self, node: Node, results: Sequence[Array], sources: Sequence[str]) -> None:
        for name, values in zip(node.outputs, results, strict=False):
            if name:
                self.program.constants[name] = values
                self.program.origins[name] = _origin(node, values, self.program, sources)


def _shorten_scope(node: Node, depth: int) -> None:
    node.scope = node.scope[:depth] + node.scope[depth + 1 :]
    for body in node.bodies.values():
        for inner in body.nodes:
            _shorten_scope(inner, depth)


def _is_identity(node: Node) -> bool:
    if node.domain or len([name for name in node.outputs if name]) != 1:
        return False
    if node.op == "Dropout":
        return len(node.inputs) < 3 or not node.inputs[2]
    return node.op == "Identity"


def _attribute_keys(node: Node) -> list[bytes]:
    return [attribute.SerializeToString(deterministic=True) for attribute in node.attributes.values()]


def _origin(node: Node, values: Array, program: Program, sources: Sequence[str]) -> Origin:
    """Return how the weight that became `values` is stored: the format of the largest input."""
    if not sources:
        return origin_of(values)
    main = max(sources, key=lambda name: program.constants[name].size)
    origin = program.origins[main]
    dtype = origin.dtype
    if dtype.startswith(_COUNTING) and values.dtype.kind in "fV":
        # Sizes and positions, from which a window, a Fourier matrix or a filled tensor has been computed.
        return origin_of(values)
    if dtype.startswith(("int", "uint")) and values.dtype.kind == "f" and node.op in ("Mul", "Div"):
        dtype = f"{dtype.removesuffix(' with scale')} with scale"
    if dtype == "bool" or (values.size < program.constants[main].size and node.op not in ("Slice", "Split", "Gather")):
        return origin_of(values)
    stored = sum(program.origins[name].stored_bytes for name in dict.fromkeys(sources))
    if program.constants[main].size:
        stored = stored * min(values.size, program.constants[main].size) // program.constants[main].size
    return Origin(dtype if dtype.endswith("scale") or values.dtype.kind in "fV" else str(values.dtype), stored)


def remove_dead(program: Program) -> None:
    """Remove nodes nothing needs, and constants nothing uses."""
    while True:
        needed = program.output_names() | {name for _, node in program.walk() for name in node.inputs}
        removed = False
        for graph in program.graphs():
            alive = [node for node in graph.nodes if any(name in needed for name in node.outputs)]
            removed |= len(alive) != len(graph.nodes)
            graph.nodes = alive
        if not removed:
            break
    for name in set(program.constants) - needed:
        del program.constants[name]
        program.origins.pop(name, None)
