"""Where in a network the nodes go that dequantize its weights.

A weight used inside the branches of an If is dequantized inside the branch, so that a branch that does not run costs
nothing; its codes lie there too, as ONNX Runtime fuses only constants of the same graph. Out of the body of a Loop or
Scan the nodes are lifted, so that they run once and not once per step.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence

import onnx

from quantgui.export.stored import StoredWeight
from quantgui.network.surgery import subgraphs

Path = tuple[tuple[int, int], ...]
"""The way from the main graph into a body: index of the node, and which of its bodies."""


def insert_stored(model: onnx.ModelProto, stored: Mapping[str, StoredWeight]) -> None:
    """Insert what makes each named value into `model`, in place, before whatever uses the value.

    The initializers get no data here. Values that nothing uses are left out.
    """
    homes: dict[str, Path] = {}
    for name, path in _uses(model.graph, stored.keys(), (), frozen=False):
        homes[name] = _common(homes[name], path) if name in homes else path
    weights: dict[Path, list[StoredWeight]] = defaultdict(list)
    for name, path in homes.items():
        weights[path].append(stored[name])
    if homes:
        _insert(model.graph, (), weights)


def _uses(graph: onnx.GraphProto, names: Collection[str], path: Path, *, frozen: bool) -> Iterator[tuple[str, Path]]:
    """Yield each use of `names` with the innermost graph around it that runs at most once; `frozen`: a loop's body."""
    for index, node in enumerate(graph.node):
        for name in node.input:
            if name in names:
                yield name, path
        for number, body in enumerate(subgraphs(node)):
            inside = frozen or node.op_type != "If"
            yield from _uses(body, names, path if inside else (*path, (index, number)), frozen=inside)
    for value in graph.output:
        if value.name in names:
            yield value.name, path


def _common(first: Path, second: Path) -> Path:
    length = 0
    while length < min(len(first), len(second)) and first[length] == second[length]:
        length += 1
    return first[:length]


def _insert(graph: onnx.GraphProto, path: Path, weights: Mapping[Path, Sequence[StoredWeight]]) -> None:
    for index, node in enumerate(graph.node):
        for number, body in enumerate(subgraphs(node)):
            _insert(body, (*path, (index, number)), weights)
    if path in weights:
        rest = list(graph.node)
        del graph.node[:]
        graph.node.extend([*(node for weight in weights[path] for node in weight.nodes), *rest])
        graph.initializer.extend(each.tensor for weight in weights[path] for each in weight.initializers)
