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
            values = _integers(node, position, program)
            if values is not None and values.ndim >= 2:
                dtype = str(values.dtype)
                yield QuantizedWeight(node, node.inputs[position], values.shape, axis % values.ndim, dtype, suffix)
                if not suffix:
                    return
    elif node.domain == _MICROSOFT:
        yield from _blocked(node, program)
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


def _behind_dequantize(
    node: Node, position: int, program: Program, producers: Mapping[str, Node]
) -> QuantizedWeight | None:
    """Return the integer constant behind the DequantizeLinear that feeds an input."""
    name = node.inputs[position] if position < len(node.inputs) else ""
    order: tuple[int, ...] | None = None
    for _ in range(8):
        before = producers.get(name)
        if before is None:
            return None
        if before.op == "DequantizeLinear":
            break
        if before.domain or before.op not in _REARRANGING:
            return None
        if before.op == "Transpose":
            order = before.integers("perm") or None
            order = order or (1, 0)
        name = before.inputs[0]
    else:
        return None
    values = _integers(before, 0, program)
    if values is None or values.ndim < 2:
        return None
    axis = _channel_axis(node, position, values.ndim)
    if order is not None and len(order) == values.ndim:
        axis = order[axis]
    block = before.integer("block_size", 0)
    dtype = str(values.dtype) + (f" in groups of {block}" if block else "")
    suffix = {1: "/W", 2: "/R"}[position] if node.op in ("LSTM", "GRU", "RNN") else ""
    return QuantizedWeight(node, before.inputs[0], values.shape, axis, dtype, suffix)


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
