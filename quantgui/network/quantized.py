"""Recognising weights that are already quantized in the file; they are shown with the format they have."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from quantgui.network.graph import Node, Program
from quantgui.results import Array


@dataclass(frozen=True)
class QuantizedWeight:
    """An integer weight as an operator uses it; `shape` is that of the weight, not of its packed bytes."""

    node: Node
    weight: str
    shape: tuple[int, ...]
    channel_axis: int
    dtype: str
    suffix: str = ""


_MICROSOFT = "com.microsoft"
# Operator -> positions of its integer weights and the axis of the channels, counted from the end where negative.
_INTEGER_OPERATORS: dict[tuple[str, str], tuple[tuple[int, int, str], ...]] = {
    ("", "QLinearConv"): ((3, 0, ""),),
    ("", "ConvInteger"): ((1, 0, ""),),
    ("", "QLinearMatMul"): ((3, -1, ""), (0, -2, "")),
    ("", "MatMulInteger"): ((1, -1, ""), (0, -2, "")),
    (_MICROSOFT, "DynamicQuantizeMatMul"): ((1, -1, ""),),
    (_MICROSOFT, "MatMulIntegerToFloat"): ((1, -1, ""),),
    (_MICROSOFT, "MatMulInteger16"): ((1, -1, ""),),
    (_MICROSOFT, "QAttention"): ((1, -1, ""),),
    # W is stored transposed: (directions, inputs, gates * hidden).
    (_MICROSOFT, "DynamicQuantizeLSTM"): ((1, -1, "/W"), (2, -1, "/R")),
}
_QDQ_POSITIONS = {
    "Conv": (1,),
    "ConvTranspose": (1,),
    "Gemm": (1, 0),
    "MatMul": (1, 0),
    "Gather": (0,),
    "LSTM": (1, 2),
    "GRU": (1, 2),
    "RNN": (1, 2),
}
_REARRANGING = ("Transpose", "Reshape", "Cast", "Squeeze", "Unsqueeze", "Identity")


def find_quantized(node: Node, program: Program, producers: Mapping[str, Node]) -> Iterator[QuantizedWeight]:
    """Yield the already quantized weights `node` uses."""
    if (node.domain, node.op) in _INTEGER_OPERATORS:
        for position, axis, suffix in _INTEGER_OPERATORS[node.domain, node.op]:
            source = _integer_source(node, position, program, producers)
            if source is not None and source.dequantize is None:
                values = source.values
                channel_axis = source.axis(axis % values.ndim)
                yield QuantizedWeight(node, source.name, values.shape, channel_axis, str(values.dtype), suffix)
                if not suffix:
                    return
    elif node.domain == _MICROSOFT:
        yield from _blocked(node, program)
    elif node.op == "DequantizeLinear":
        yield from _looked_up(node, program, producers)
    elif not node.domain and node.op in _QDQ_POSITIONS:
        for position in _QDQ_POSITIONS[node.op]:
            if found := _behind_dequantize(node, position, program, producers):
                yield found


def _integers(node: Node, position: int, program: Program) -> Array | None:
    values = program.constants.get(node.inputs[position]) if position < len(node.inputs) else None
    return values if values is not None and "int" in values.dtype.name else None


def _blocked(node: Node, program: Program) -> Iterator[QuantizedWeight]:
    match node.op:
        case "QGemm":
            values = _integers(node, 3, program)
            if values is not None and values.ndim == 2:
                axis = 0 if node.integer("transB", 0) else 1
                yield QuantizedWeight(node, node.inputs[3], values.shape, axis, str(values.dtype))
        case "MatMulNBits" | "MatMulBnb4":
            if node.inputs[1] in program.constants:
                shape = (node.integer("N", 0), node.integer("K", 0))
                bits, block = node.integer("bits", 4), node.integer("block_size", 32)
                kind = f"uint{bits}" if node.op == "MatMulNBits" else "4-bit float"
                yield QuantizedWeight(node, node.inputs[1], shape, 0, f"{kind} in groups of {block}")
        case "GatherBlockQuantized":
            values = _integers(node, 0, program)
            if values is not None and values.ndim >= 2:
                shape, dtype = values.shape, str(values.dtype)
                bits = node.integer("bits", 4)
                if dtype == "uint8":
                    # Several values share a byte along the last axis.
                    shape, dtype = (*shape[:-1], shape[-1] * 8 // bits), f"uint{bits}"
                block = node.integer("block_size", 128)
                yield QuantizedWeight(node, node.inputs[0], shape, 0, f"{dtype} in groups of {block}")
        case _:
            pass


def _looked_up(node: Node, program: Program, producers: Mapping[str, Node]) -> Iterator[QuantizedWeight]:
    """Yield the integer table whose rows are looked up first and dequantized by `node` then."""
    lookup = producers.get(node.inputs[0])
    if lookup is None or lookup.domain or lookup.op != "Gather" or lookup.integer("axis", 0) != 0:
        return
    values = _integers(lookup, 0, program)
    if values is not None and values.ndim >= 2:
        yield QuantizedWeight(lookup, lookup.inputs[0], values.shape, 0, str(values.dtype))


@dataclass(frozen=True)
class _Source:
    """An integer constant, and what lies between it and an operator."""

    name: str
    values: Array
    dequantize: Node | None
    orders: tuple[tuple[int, ...], ...]
    """Axes of the transpositions on the way, the operator's first; empty where one reverses them."""

    def axis(self, axis: int) -> int:
        """Return the axis of the constant that the operator sees as its `axis`."""
        for given in self.orders:
            order = given or tuple(reversed(range(self.values.ndim)))
            axis = order[axis] if len(order) == self.values.ndim else axis
        return axis


def _integer_source(node: Node, position: int, program: Program, producers: Mapping[str, Node]) -> _Source | None:
    """Return the integer matrix that feeds an input, behind rearrangements and one DequantizeLinear."""
    name = node.inputs[position] if position < len(node.inputs) else ""
    orders: list[tuple[int, ...]] = []
    dequantize: Node | None = None
    for _ in range(8):
        if name in program.constants:
            values = program.constants[name]
            fits = "int" in values.dtype.name and values.ndim >= 2
            return _Source(name, values, dequantize, tuple(orders)) if fits else None
        before = producers.get(name)
        if before is None:
            return None
        if before.op == "DequantizeLinear" and dequantize is None:
            dequantize = before
        elif before.domain or before.op not in _REARRANGING:
            return None
        elif before.op == "Transpose":
            orders.append(tuple(before.integers("perm") or ()))
        name = before.inputs[0]
    return None


def _behind_dequantize(
    node: Node, position: int, program: Program, producers: Mapping[str, Node]
) -> QuantizedWeight | None:
    """Return the integer constant behind the DequantizeLinear that feeds an input."""
    source = _integer_source(node, position, program, producers)
    if source is None or source.dequantize is None:
        return None
    values = source.values
    axis = source.axis(_channel_axis(node, position, values.ndim))
    block = source.dequantize.integer("block_size", 0)
    dtype = str(values.dtype) + (f" in groups of {block}" if block else "")
    suffix = {1: "/W", 2: "/R"}[position] if node.op in ("LSTM", "GRU", "RNN") else ""
    return QuantizedWeight(node, source.name, values.shape, axis, dtype, suffix)


def _channel_axis(node: Node, position: int, rank: int) -> int:
    match node.op:
        case "ConvTranspose":
            return 1
        case "Gemm":
            transposed = node.integer("transB" if position == 1 else "transA", 0)
            return int((position == 1) != bool(transposed))
        case "MatMul":
            return rank - 1 if position == 1 else rank - 2
        case "LSTM" | "GRU" | "RNN":
            return 1
        case _:
            return 0
