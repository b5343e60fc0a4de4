"""Where the nodes of a network are drawn: layers by longest path, order by barycenters, places by regression.

Long edges are led through dummy nodes, one per layer they pass, so that they do not run across nodes. Works in small
steps (a generator), because a network of 2000 nodes takes longer than one frame of the window.

Source: K. Sugiyama, S. Tagawa, M. Toda, "Methods for visual understanding of hierarchical system structures", 1981.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

LONGEST_ROUTED = 60
"""Edges that pass more layers than this are drawn straight: dummies for them would outnumber the nodes."""

_LAYERS_PER_STEP = 500
_ORDER_SWEEPS = 6
_PLACE_SWEEPS = 8
_DUMMY_WIDTH = 10.0
_GAP = 22.0
_UPRIGHT = 0.99
"""Each layer is drawn this little towards the middle, so that tall networks do not drift to one side."""


@dataclass(frozen=True, slots=True)
class Route:
    """The way of one edge: from node to node, through points (x, layer)."""

    source: int
    target: int
    points: tuple[tuple[float, int], ...]


@dataclass(frozen=True, slots=True)
class Layout:
    """Where everything is: center x and layer (0 at the top) of each node, and the way of each edge."""

    x: tuple[float, ...]
    layer: tuple[int, ...]
    routes: tuple[Route, ...]

    @property
    def layers(self) -> int:
        """Number of layers."""
        return 1 + max(self.layer, default=-1)


def layout(inputs: Sequence[Sequence[int]], widths: Sequence[float]) -> Layout:
    """Return where to draw nodes of the given `widths`; ``inputs[i]`` are the indices of the nodes that feed node i."""
    *_, result = layout_steps(inputs, widths)
    assert result is not None
    return result


def layout_steps(inputs: Sequence[Sequence[int]], widths: Sequence[float]) -> Iterator[Layout | None]:
    """Yield None after each step of `layout`, and the layout at the end."""
    edges = [(source, target) for target, sources in enumerate(inputs) for source in dict.fromkeys(sources)]
    layer = _longest_paths(len(inputs), edges)
    yield None
    graph = _Proper.of(edges, layer, widths)
    yield None
    for sweep in range(_ORDER_SWEEPS):
        yield from graph.order(downwards=sweep % 2 == 0)
    for sweep in range(_PLACE_SWEEPS):
        yield from graph.place(downwards=sweep % 2 == 0, last=sweep >= _PLACE_SWEEPS - 2)
    yield graph.result(len(inputs))


def _longest_paths(nodes: int, edges: Sequence[tuple[int, int]]) -> list[int]:
    """Return the layer of each node: below all that feed it; what nothing feeds stands right above its first user."""
    feeds: list[list[int]] = [[] for _ in range(nodes)]
    missing = [0] * nodes
    for source, target in edges:
        feeds[source].append(target)
        missing[target] += 1
    layer = [0] * nodes
    is_source = [count == 0 for count in missing]
    waiting = deque(node for node in range(nodes) if missing[node] == 0)
    while waiting:
        node = waiting.popleft()
        for target in feeds[node]:
            layer[target] = max(layer[target], layer[node] + 1)
            missing[target] -= 1
            if missing[target] == 0:
                waiting.append(target)
    for node in range(nodes):
        if is_source[node] and feeds[node]:
            layer[node] = max(0, min(layer[target] for target in feeds[node]) - 1)
    return layer


class _Proper:
    """A layered graph in which edges join neighbouring layers only."""

    def __init__(self, layers: list[list[int]], above: list[list[int]], below: list[list[int]]) -> None:
        self.layers = layers
        self.above = above
        self.below = below
        self.width: list[float] = []
        self.layer: list[int] = []
        self.x: list[float] = []
        self.chains: list[tuple[int, int, list[int]]] = []
        self.nodes = 0

    @staticmethod
    def of(edges: Sequence[tuple[int, int]], layer: Sequence[int], widths: Sequence[float]) -> _Proper:
        nodes = len(layer)
        graph = _Proper([[] for _ in range(1 + max(layer, default=-1))], [], [])
        graph.nodes = nodes
        graph.width = list(widths)
        graph.layer = list(layer)
        graph.above = [[] for _ in range(nodes)]
        graph.below = [[] for _ in range(nodes)]
        for node in range(nodes):
            graph.layers[layer[node]].append(node)
        for source, target in edges:
            graph.chains.append((source, target, graph._chain(source, target)))
        # First places, only to have an order: in the order given.
        graph.x = [0.0] * len(graph.layer)
        for members in graph.layers:
            for place, node in enumerate(members):
                graph.x[node] = float(place)
        return graph

    def _chain(self, source: int, target: int) -> list[int]:
        first, last = self.layer[source] + 1, self.layer[target]
        if last - first > LONGEST_ROUTED or last < first:
            return []
        dummies = []
        previous = source
        for layer in range(first, last):
            dummy = len(self.layer)
            self.layer.append(layer)
            self.width.append(_DUMMY_WIDTH)
            self.above.append([])
            self.below.append([])
            self.layers[layer].append(dummy)
            self._join(previous, dummy)
            dummies.append(dummy)
            previous = dummy
        self._join(previous, target)
        return dummies

    def _join(self, upper: int, lower: int) -> None:
        self.below[upper].append(lower)
        self.above[lower].append(upper)

    def sweep(self, *, downwards: bool) -> Iterator[list[int] | None]:
        """Yield layer after layer, and None now and then."""
        for number, members in enumerate(self.layers if downwards else reversed(self.layers)):
            yield members
            if number % _LAYERS_PER_STEP == _LAYERS_PER_STEP - 1:
                yield None

    def order(self, *, downwards: bool) -> Iterator[None]:
        """Sort each layer by the mean place of the neighbours in the layer before."""
        neighbours = self.above if downwards else self.below
        for members in self.sweep(downwards=downwards):
            if members is None:
                yield None
                continue
            means = {}
            for place, node in enumerate(members):
                near = neighbours[node]
                means[node] = sum(self.x[other] for other in near) / len(near) if near else float(place)
            members.sort(key=means.__getitem__)
            for place, node in enumerate(members):
                self.x[node] = float(place)

    def place(self, *, downwards: bool, last: bool) -> Iterator[None]:
        """Move the nodes of each layer near their neighbours, in their order and without overlap."""
        for members in self.sweep(downwards=downwards):
            if members is None:
                yield None
                continue
            wanted = []
            for node in members:
                near = self.above[node] if downwards else self.below[node]
                if last or not near:
                    near = self.above[node] + self.below[node]
                # A dummy follows its dummies closely: long edges become straight.
                strong = [other for other in near if other >= self.nodes] if node >= self.nodes else []
                near = strong or near
                mean = sum(self.x[other] for other in near) / len(near) if near else self.x[node]
                wanted.append(mean * _UPRIGHT)
            widths = [self.width[node] for node in members]
            for node, x in zip(members, spread(wanted, widths), strict=True):
                self.x[node] = x

    def result(self, nodes: int) -> Layout:
        routes = []
        for source, target, dummies in self.chains:
            routes.append(Route(source, target, tuple((self.x[dummy], self.layer[dummy]) for dummy in dummies)))
        return Layout(tuple(self.x[:nodes]), tuple(self.layer[:nodes]), tuple(routes))


def spread(wanted: Sequence[float], widths: Sequence[float]) -> list[float]:
    """Return the places nearest to the `wanted` ones (least squares) at which boxes in a row do not overlap.

    Pool-adjacent-violators: boxes that would overlap are moved together as a block.

    >>> spread([0.0, 0.0], [10.0, 30.0])
    [-21.0, 21.0]
    """
    offsets, offset = [], 0.0
    for index, width in enumerate(widths):
        if index:
            offset += (widths[index - 1] + width) / 2 + _GAP
        offsets.append(offset)
    blocks: list[tuple[float, int]] = []  # mean, members
    for place, shift in zip(wanted, offsets, strict=True):
        mean, members = place - shift, 1
        while blocks and blocks[-1][0] > mean:
            other_mean, other_members = blocks.pop()
            mean = (mean * members + other_mean * other_members) / (members + other_members)
            members += other_members
        blocks.append((mean, members))
    places: list[float] = []
    for mean, members in blocks:
        places += [mean + offset for offset in offsets[len(places) : len(places) + members]]
    return places
