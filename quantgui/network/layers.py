"""Finding the layers: every weight of a network, with the operators that use it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from quantgui.network.files import let_go, stored_bytes
from quantgui.network.graph import Node, Program
from quantgui.network.quantized import QuantizedWeight, find_quantized
from quantgui.network.transforms import is_signal_transform
from quantgui.results import Array, LayerInfo

_GATES = {
    "LSTM": ("input", "output", "forget", "cell"),
    "GRU": ("update", "reset", "hidden"),
    "RNN": ("",),
}
_DIRECTIONS = {"forward": ("forward",), "reverse": ("reverse",), "bidirectional": ("forward", "reverse")}
_FUSED = ("Relu", "Clip")
_WITH_ACTIVATIONS = ("Conv", "ConvTranspose", "Gemm", "MatMul")


@dataclass(frozen=True)
class _Use:
    """A weight as one operator uses it.

    `axis` is the axis of the stored tensor that holds the channels, `data` the position of the data input, -1 where
    its activation is not quantized.
    """

    node: Node
    weight: str
    axis: int
    data: int
    suffix: str = ""
    rows: tuple[int, int] | None = None


def find_layers(program: Program, macs: Mapping[str, int]) -> tuple[LayerInfo, ...]:
    """Return the layers of a canonical network in the order of its nodes.

    Args:
        program: the network.
        macs: multiply-accumulates of each node by name, 0 or absent where not known.
    """
    uses: dict[tuple[str, tuple[int, int] | None], list[_Use | QuantizedWeight]] = {}
    producers, consumers = program.producers(), program.consumers()
    outputs = program.output_names()
    for _, node in program.walk():
        for use in _uses(node, program, producers):
            uses.setdefault((use.weight, use.rows), []).append(use)
        for found in find_quantized(node, program, producers):
            uses.setdefault((found.weight, None), []).append(found)
    names: set[str] = set()
    layers = []
    for users in uses.values():
        plain = [use for use in users if isinstance(use, _Use)]
        if plain:
            layer = _float_layer(plain, program, consumers, outputs, macs)
        else:
            layer = _quantized_layer([use for use in users if isinstance(use, QuantizedWeight)], program, macs)
        layers.append(_with_unique_name(layer, names))
    return tuple(layers)


def _with_unique_name(layer: LayerInfo, names: set[str]) -> LayerInfo:
    name, number = layer.name, 2
    while name in names:
        name = f"{layer.name}#{number}"
        number += 1
    names.add(name)
    return layer if name == layer.name else replace(layer, name=name)


# --- float weights -----------------------------------------------------------------------------------------------


def _uses(node: Node, program: Program, producers: Mapping[str, Node]) -> Iterator[_Use]:
    if node.domain:
        return
    match node.op:
        case "Conv" | "ConvTranspose":
            if _is_weight(node, 1, program) and program.constants[node.inputs[1]].ndim >= 3:
                yield _Use(node, node.inputs[1], 0 if node.op == "Conv" else 1, 0)
        case "Gemm":
            yield from _gemm_uses(node, program)
        case "MatMul":
            found = (_matmul_use(node, position, end, program, producers) for position, end in ((1, 1), (0, 2)))
            yield from [use for use in found if use][:1]
        case "Gather":
            if _is_weight(node, 0, program) and node.integer("axis", 0) == 0:
                yield _Use(node, node.inputs[0], 0, -1)
        case "LSTM" | "GRU" | "RNN":
            yield from _recurrent_uses(node, program)
        case _:
            pass


def _gemm_uses(node: Node, program: Program) -> Iterator[_Use]:
    if _is_weight(node, 1, program):
        yield _Use(node, node.inputs[1], 0 if node.integer("transB", 0) else 1, 0)
    elif _is_weight(node, 0, program):
        yield _Use(node, node.inputs[0], 1 if node.integer("transA", 0) else 0, 1)


def _is_weight(node: Node, position: int, program: Program) -> bool:
    values = program.constants.get(node.inputs[position]) if position < len(node.inputs) else None
    return values is not None and _is_float(values) and values.ndim >= 2 and values.size > 0


def _is_float(values: Array) -> bool:
    return values.dtype.kind == "f" or values.dtype.name == "bfloat16"


def _matmul_use(
    node: Node, position: int, from_end: int, program: Program, producers: Mapping[str, Node]
) -> _Use | None:
    name = node.inputs[position]
    if _is_weight(node, position, program):
        return _Use(node, name, program.constants[name].ndim - from_end, 1 - position)
    # A table that is looked up in too stays stored once, transposed where it is multiplied.
    transpose = producers.get(name)
    if transpose is None or transpose.op != "Transpose" or not _is_weight(transpose, 0, program):
        return None
    values = program.constants[transpose.inputs[0]]
    order = transpose.integers("perm") or tuple(reversed(range(values.ndim)))
    return _Use(node, transpose.inputs[0], order[len(order) - from_end], 1 - position)


def _recurrent_uses(node: Node, program: Program) -> Iterator[_Use]:
    gates = _GATES[node.op]
    directions = _DIRECTIONS.get(str(node.attribute("direction", "forward")), ("forward",))
    for position, kind in ((1, "W"), (2, "R")):
        if not _is_weight(node, position, program):
            continue
        values = program.constants[node.inputs[position]]
        if values.ndim != 3 or values.shape[0] != len(directions) or values.shape[1] % len(gates):
            continue
        hidden = values.shape[1] // len(gates)
        for d, direction in enumerate(directions):
            for g, gate in enumerate(gates):
                start = (d * len(gates) + g) * hidden
                suffix = f"/{kind}.{direction}" + (f".{gate}" if gate else "")
                yield _Use(node, node.inputs[position], 0, -1, suffix, (start, start + hidden))


def _float_layer(
    uses: list[_Use],
    program: Program,
    consumers: Mapping[str, list[Node]],
    outputs: set[str],
    macs: Mapping[str, int],
) -> LayerInfo:
    use = uses[0]
    node = use.node
    stored = program.constants[use.weight]
    origin = program.origins[use.weight]
    values = stored if use.rows is None else stored.reshape(-1, stored.shape[-1])[slice(*use.rows)]
    axis = use.axis
    channels = values.shape[axis]
    finite = is_finite(values)
    signal_transform = finite and node.op in _WITH_ACTIVATIONS and is_signal_transform(values, axis)
    let_go(stored)
    has_activations = node.op in _WITH_ACTIVATIONS and use.data >= 0
    share = values.size / stored.size
    return LayerInfo(
        name=node.name + use.suffix,
        op=node.op,
        weight=use.weight,
        rows=use.rows,
        shape=values.shape,
        channel_axis=axis,
        channels=channels,
        elements_per_channel=values.size // channels,
        users=tuple(dict.fromkeys(u.node.name for u in uses)),
        node=node.name,
        input_tensor=node.inputs[use.data] if has_activations else "",
        output_tensor=_output_tensor(node, consumers, outputs) if has_activations else "",
        macs=round(sum(macs.get(u.node.name, 0) * _macs_share(u, program) for u in uses)),
        dtype=origin.dtype,
        finite=finite,
        signal_transform=signal_transform,
        quantizes_activations=has_activations,
        scope=node.scope,
        stored_bytes=round(origin.stored_bytes * share),
        float_bits=8 * stored.dtype.itemsize,
    )


def _macs_share(use: _Use, program: Program) -> float:
    """Return the part of the node's work that this weight does: recurrent nodes have several."""
    if use.rows is None:
        return 1.0
    total = sum(program.constants[name].size for name in use.node.inputs[1:3] if name in program.constants)
    return float((use.rows[1] - use.rows[0]) * program.constants[use.weight].shape[-1] / total)


def is_finite(values: Array) -> bool:
    """Return whether all values are finite, looking at them in chunks."""
    flat = values.reshape(-1)
    return all(_is_finite_chunk(flat[i : i + (1 << 20)]) for i in range(0, flat.size, 1 << 20))


def _is_finite_chunk(chunk: Array) -> bool:
    finite = bool(np.isfinite(chunk).all())
    let_go(chunk)
    return finite


def _output_tensor(node: Node, consumers: Mapping[str, list[Node]], outputs: set[str]) -> str:
    """Return the output after the Relu or Clip that alone uses it."""
    name = node.outputs[0]
    users = consumers.get(name, [])
    if name in outputs or len(users) != 1 or users[0].domain or users[0].op not in _FUSED:
        return name
    is_data = users[0].inputs[0] == name and name not in users[0].inputs[1:]
    return users[0].outputs[0] if is_data and users[0].scope == node.scope else name


# --- already quantized -------------------------------------------------------------------------------------------


def _quantized_layer(found: list[QuantizedWeight], program: Program, macs: Mapping[str, int]) -> LayerInfo:
    first = found[0]
    parameters = math.prod(first.shape)
    channels = first.shape[first.channel_axis]
    return LayerInfo(
        name=first.node.name + first.suffix,
        op=first.node.op,
        weight=first.weight,
        shape=first.shape,
        channel_axis=first.channel_axis,
        channels=channels,
        elements_per_channel=parameters // max(channels, 1),
        users=tuple(dict.fromkeys(f.node.name for f in found)),
        node=first.node.name,
        macs=sum(macs.get(f.node.name, 0) for f in found),
        dtype=first.dtype,
        read_only=True,
        scope=first.node.scope,
        stored_bytes=stored_bytes(program.constants[first.weight]),
    )
