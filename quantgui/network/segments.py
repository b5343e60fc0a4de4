"""Cuts a network at narrow places into segments that run one after the other.

Nodes keep their order, so a segment is a range of nodes; what crosses a cut are the tensors made before and read after
it. A cut is good where few bytes cross it and where it does not part operators that ONNX Runtime would fuse.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper

from quantgui.network.network import Network
from quantgui.network.surgery import all_names, node_names, used_names
from quantgui.network.whole import whole_session
from quantgui.results import Array

MOST_SEGMENTS = 16
WEIGHTED_NODES_PER_SEGMENT = 3
SECONDS_PER_SEGMENT = 1e-3
# Rough speed of two cores, only to see which networks are too small to be cut.
MACS_PER_SECOND = 1.2e11
_VALUES_PER_SECOND, _SECONDS_PER_NODE = 5e9, 3e-6
_NOMINAL_ROWS = 8
_WINDOW = 0.45
_FUSION_PENALTY = 1.5

_ORT_TYPES = {
    "float": TensorProto.FLOAT, "double": TensorProto.DOUBLE, "float16": TensorProto.FLOAT16,
    "int8": TensorProto.INT8, "uint8": TensorProto.UINT8, "int16": TensorProto.INT16, "uint16": TensorProto.UINT16,
    "int32": TensorProto.INT32, "uint32": TensorProto.UINT32, "int64": TensorProto.INT64,
    "uint64": TensorProto.UINT64, "bool": TensorProto.BOOL,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class TensorType:
    """Element type of a tensor (ONNX), and its dimensions where they are known to be fixed."""

    kind: int
    shape: tuple[int | None, ...] | None


@dataclass(frozen=True, eq=False)
class Segment:
    """A range of nodes of the skeleton.

    Attributes:
        index: position in the chain.
        nodes: in the order of the skeleton.
        inputs: tensors it reads from the network's inputs and from earlier segments.
        outputs: tensors that later segments or the network's outputs need.
        initializers: names of the initializers it reads, those read by nested bodies included.
        produced: tensors made by its own nodes (not those inside of nested bodies).
    """

    index: int
    nodes: tuple[NodeProto, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    initializers: frozenset[str]
    produced: frozenset[str]

    @property
    def place(self) -> tuple[str, str]:
        """Names of its first and last node, which no other segment has both of."""
        return (self.nodes[0].name, self.nodes[-1].name) if self.nodes else ("", "")

    @cached_property
    def node_names(self) -> frozenset[str]:
        """Names of its nodes, nested ones included."""
        return frozenset(node_names(self.nodes))

    @cached_property
    def tensors(self) -> frozenset[str]:
        """Names of all tensors and nodes that occur in it, nested ones included."""
        names = set(self.inputs)
        names.update(all_names(onnx.GraphProto(node=self.nodes)))
        return frozenset(names)

    @cached_property
    def read(self) -> frozenset[str]:
        """Tensors that its nodes, or nodes nested in them, read."""
        return frozenset(_read_names(self.nodes))


def _read_names(nodes: Sequence[NodeProto]) -> set[str]:
    names: set[str] = set()
    for node in nodes:
        names.update(node.input)
        for attribute in node.attribute:
            bodies = [attribute.g] if attribute.type == onnx.AttributeProto.GRAPH else list(attribute.graphs)
            for body in bodies:
                names |= _read_names(body.node)
                names.update(value.name for value in body.output)
    return names


def tensor_types(network: Network) -> dict[str, TensorType]:
    """Return the types of all tensors of the main graph that numpy can hold, as ONNX Runtime infers them.

    Raises:
        NetworkError: ONNX Runtime refuses the network.
    """
    graph = network.skeleton.graph
    types = {
        value.name: TensorType(value.type.tensor_type.elem_type, _dims(value))
        for value in graph.input
        if value.type.HasField("tensor_type")
    }
    model = onnx.ModelProto()
    model.CopyFrom(network.skeleton)
    outputs = {value.name for value in graph.output}
    names = [name for node in graph.node for name in node.output if name]
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in outputs)
    config = {"session.disable_prepacking": "1"}
    whole = whole_session(model, network.constants, threads=1, optimize=False, config=config)
    for info in whole.session.get_outputs():
        kind = _ORT_TYPES.get(info.type.removeprefix("tensor(").removesuffix(")"))
        if kind is not None and info.type.startswith("tensor("):
            shape = None if info.shape is None else tuple(d if isinstance(d, int) else None for d in info.shape)
            types[info.name] = TensorType(kind, shape)
    return types


def _dims(value: onnx.ValueInfoProto) -> tuple[int | None, ...] | None:
    if not value.type.tensor_type.HasField("shape"):
        return None
    return tuple(
        dim.dim_value if dim.HasField("dim_value") and dim.dim_value > 0 else None
        for dim in value.type.tensor_type.shape.dim
    )


def traced_shapes(
    network: Network, types: Mapping[str, TensorType], feeds: Mapping[str, Array], *, threads: int
) -> dict[str, tuple[int, ...]]:
    """Return the shape of every tensor in `types` when the network runs on `feeds`; no tensor is kept."""
    graph = network.skeleton.graph
    model = onnx.ModelProto()
    model.CopyFrom(network.skeleton)
    taken = set(all_names(graph))
    shapes: dict[str, str] = {}
    for tensor in (name for node in graph.node for name in node.output if name in types):
        name = f"{tensor}_shape"
        while name in taken:
            name += "_"
        taken.add(name)
        shapes[name] = tensor
        model.graph.node.append(helper.make_node("Shape", [tensor], [name], name=name))
        model.graph.output.append(helper.make_tensor_value_info(name, TensorProto.INT64, None))
    if not shapes:
        return {}
    whole = whole_session(model, network.constants, threads=threads, shapes_first=True)
    values = whole.run(list(shapes), feeds)
    return {tensor: tuple(int(d) for d in value) for tensor, value in zip(shapes.values(), values, strict=True)}


@dataclass(frozen=True, eq=False)
class Uses:
    """What each node of a graph reads and makes, bodies included."""

    reads: tuple[frozenset[str], ...]
    makes: tuple[tuple[str, ...], ...]


def graph_uses(graph: onnx.GraphProto) -> Uses:
    """Return what each node of `graph` reads and makes."""
    return Uses(
        tuple(frozenset(used_names(node)) for node in graph.node),
        tuple(tuple(name for name in node.output if name) for node in graph.node),
    )


def choose_cuts(
    network: Network, types: Mapping[str, TensorType], shapes: Mapping[str, tuple[int, ...]], rows: int
) -> list[int]:
    """Return the indices of the nodes before which the network is cut, rising; empty where it should stay whole.

    Args:
        network: what to cut.
        types: of the tensors that may cross a cut.
        shapes: of all tensors, traced on a batch.
        rows: samples in that batch.
    """
    graph = network.skeleton.graph
    uses = graph_uses(graph)
    costs = _node_costs(network, uses, shapes) * (_NOMINAL_ROWS / max(rows, 1))
    weighted = sum(1 for reads in uses.reads if any(_is_weight(network, name) for name in reads))
    count = min(MOST_SEGMENTS, weighted // WEIGHTED_NODES_PER_SEGMENT, int(float(costs.sum()) / SECONDS_PER_SEGMENT))
    if count < 2:
        return []
    live = _live_bytes(graph, uses, types, shapes)
    for i in range(1, len(graph.node)):
        # A cut before an operator with a weight parts nothing that would be fused.
        if not any(_is_weight(network, name) for name in uses.reads[i]):
            live[i] *= _FUSION_PENALTY
    before = np.concatenate([[0.0], np.cumsum(costs)])
    step = before[-1] / count
    cuts: list[int] = []
    for goal in np.arange(1, count) * step:
        near = np.flatnonzero(np.abs(before[:-1] - goal) <= _WINDOW * step)
        near = near[(near > (cuts[-1] if cuts else 0)) & np.isfinite(live[near])]
        if near.size:
            # Of equally narrow places the one nearest to the goal.
            best = min(near.tolist(), key=lambda i: (live[i], abs(before[i] - goal)))
            cuts.append(int(best))
    return cuts


def _is_weight(network: Network, name: str) -> bool:
    values = network.constants.get(name)
    return values is not None and values.ndim >= 2 and values.dtype.kind == "f"


def _node_costs(
    network: Network, uses: Uses, shapes: Mapping[str, tuple[int, ...]]
) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Return a rough time in seconds of each node."""
    costs = np.empty(len(uses.reads))
    for i, node in enumerate(network.skeleton.graph.node):
        made = sum(_size(shapes.get(name)) for name in uses.makes[i])
        costs[i] = _SECONDS_PER_NODE + made / _VALUES_PER_SECOND + _macs(node, network, shapes) / MACS_PER_SECOND
        if node.op_type in ("If", "Loop", "Scan"):
            weights = (network.constants[n] for n in uses.reads[i] if _is_weight(network, n))
            costs[i] += sum(w.size for w in weights) / MACS_PER_SECOND
    return costs


def _size(shape: tuple[int, ...] | None) -> int:
    return 0 if shape is None else int(np.prod(shape, dtype=np.int64))


def _macs(node: NodeProto, network: Network, shapes: Mapping[str, tuple[int, ...]]) -> int:
    def shape(name: str) -> tuple[int, ...]:
        values = network.constants.get(name)
        return shapes.get(name, ()) if values is None else values.shape

    inputs = [shape(name) for name in node.input]
    output = _size(shapes.get(node.output[0])) if node.output else 0
    match node.op_type:
        case "Conv":
            return output * _size(inputs[1][1:])
        case "ConvTranspose":
            return _size(inputs[0]) * _size(inputs[1][1:])
        case "MatMul" | "Gemm" | "MatMulInteger":
            transposed = any(a.name == "transA" and a.i for a in node.attribute)
            return output * (inputs[0][0 if transposed else -1] if inputs[0] else 1)
        case "LSTM" | "GRU" | "RNN":
            steps = _size(inputs[0][:2])
            return steps * (_size(inputs[1]) + _size(inputs[2]))
        case _:
            return 0


def _live_bytes(
    graph: onnx.GraphProto, uses: Uses, types: Mapping[str, TensorType], shapes: Mapping[str, tuple[int, ...]]
) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Return the bytes that cross a cut before each node; infinite where something crosses that cannot be kept."""
    count = len(graph.node)
    last: dict[str, int] = {}
    for i, reads in enumerate(uses.reads):
        for name in reads:
            last[name] = i
    change = np.zeros(count + 1)
    barred = np.zeros(count + 1)
    for i, makes in enumerate(uses.makes):
        for name in makes:
            end = last.get(name, i)
            if end == i:
                continue
            if name in types and name in shapes:
                size = _bytes(types[name], shapes[name])
                change[i + 1] += size
                change[end + 1] -= size
            else:
                barred[i + 1] += 1
                barred[end + 1] -= 1
    live = np.cumsum(change)[:count] + 1.0
    live[np.cumsum(barred)[:count] > 0] = np.inf
    return live


def widest_cut(
    segments: Sequence[Segment], types: Mapping[str, TensorType], shapes: Mapping[str, tuple[int, ...]]
) -> int:
    """Return the most bytes that cross one of the cuts between `segments`, the network's inputs not counted."""
    widest = 0
    for at in range(1, len(segments)):
        made = {name for segment in segments[:at] for name in segment.outputs}
        crossing = made & {name for segment in segments[at:] for name in segment.inputs}
        widest = max(widest, sum(_bytes(types[name], shapes[name]) for name in crossing))
    return widest


def _bytes(kind: TensorType, shape: tuple[int, ...]) -> int:
    return _size(shape) * helper.tensor_dtype_to_np_dtype(kind.kind).itemsize


def split(network: Network, cuts: Sequence[int]) -> tuple[Segment, ...]:
    """Return the segments of `network` between `cuts`."""
    graph = network.skeleton.graph
    uses = graph_uses(graph)
    initializers = {tensor.name for tensor in graph.initializer}
    network_outputs = {value.name for value in graph.output}
    bounds = [0, *cuts, len(graph.node)]
    read_after: list[set[str]] = [set(network_outputs)]
    for start, stop in zip(reversed(bounds[1:-1]), reversed(bounds[2:]), strict=True):
        read_after.append(read_after[-1].union(*uses.reads[start:stop]))
    read_after.reverse()
    segments = []
    for index, (start, stop) in enumerate(itertools.pairwise(bounds)):
        made = dict.fromkeys(name for makes in uses.makes[start:stop] for name in makes)
        read = dict.fromkeys(name for reads in uses.reads[start:stop] for name in sorted(reads))
        segments.append(
            Segment(
                index,
                tuple(graph.node[start:stop]),
                tuple(name for name in read if name not in made and name not in initializers),
                tuple(name for name in made if name in read_after[index]),
                frozenset(read) & initializers,
                frozenset(made),
            )
        )
    return tuple(segments)


def split_before(segment: Segment, names: Collection[str]) -> tuple[Segment, Segment] | None:
    """Return `segment` in two, the second beginning with the first node that is or reads one of `names`.

    None where no node does, or where it is the segment's first one.
    """
    wanted = set(names)
    reads = [used_names(node) for node in segment.nodes]
    at = next((i for i, node in enumerate(segment.nodes) if reads[i] & wanted or node_names([node]) & wanted), 0)
    if at == 0:
        return None
    halves = []
    for index, nodes, read_here in ((0, segment.nodes[:at], reads[:at]), (1, segment.nodes[at:], reads[at:])):
        read = dict.fromkeys(name for each in read_here for name in sorted(each))
        made = dict.fromkeys(name for node in nodes for name in node.output if name)
        needed = {*segment.outputs, *(set().union(*reads[at:]) if index == 0 else ())}
        halves.append(
            Segment(
                segment.index,
                nodes,
                tuple(name for name in read if name not in made and name not in segment.initializers),
                tuple(name for name in made if name in needed),
                frozenset(read) & segment.initializers,
                frozenset(made),
            )
        )
    return halves[0], halves[1]


def joined(segments: Sequence[Segment], network_outputs: Collection[str]) -> Segment:
    """Return `segments`, the last ones of a chain, as one that makes no more than the network's outputs."""
    made = frozenset().union(*(segment.produced for segment in segments))
    read = dict.fromkeys(name for segment in segments for name in segment.inputs)
    return Segment(
        segments[0].index,
        tuple(node for segment in segments for node in segment.nodes),
        tuple(name for name in read if name not in made),
        tuple(name for segment in segments for name in segment.outputs if name in network_outputs),
        frozenset().union(*(segment.initializers for segment in segments)),
        made,
    )


def part_of(network: Network, nodes: Collection[str], output: str) -> Segment:
    """Return a few nodes of the main graph as a segment that returns `output`; it is in no chain."""
    found = tuple(node for node in network.skeleton.graph.node if node.name in nodes)
    initializers = {tensor.name for tensor in network.skeleton.graph.initializer}
    read = dict.fromkeys(name for node in found for name in sorted(used_names(node)))
    made = dict.fromkeys(name for node in found for name in node.output if name)
    inputs = tuple(name for name in read if name not in made and name not in initializers)
    return Segment(-1, found, inputs, (output,), frozenset(read) & initializers, frozenset(made))


def inner_of(network: Network, segment: Segment) -> frozenset[str]:
    """Return the tensors of `Network.inner` that bodies in `segment` make."""
    return frozenset(name for name, tensor in network.inner.items() if tensor.path[0] in segment.node_names)


def check_traced(types: Mapping[str, TensorType], shapes: Mapping[str, tuple[int, ...]]) -> dict[str, TensorType]:
    """Return `types` with only those dimensions that the traced shapes confirm."""
    checked = {}
    for name, kind in types.items():
        traced = shapes.get(name)
        if kind.shape is None or traced is None:
            checked[name] = kind
        elif len(kind.shape) != len(traced):
            checked[name] = TensorType(kind.kind, None)
        else:
            dims = tuple(d if d == t else None for d, t in zip(kind.shape, traced, strict=True))
            checked[name] = TensorType(kind.kind, dims)
    return checked
