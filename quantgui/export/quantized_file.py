"""The configuration that a quantized ONNX file of any tool stands for, read from its operators.

Known are Q/DQ pairs, the integer operators (QLinearConv, QLinearMatMul, ConvInteger, MatMulInteger and ONNX Runtime's
relatives) and MatMulNBits. A layer is found by the name of its node, its weight or its output, whatever suffix the
tool has added, or by what its product is scaled and shifted to, and only if it has as many values.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import numpy as np

from quantgui.errors import ExportError, NetworkError
from quantgui.export.dialects.material import Imported
from quantgui.export.dialects.reading import ReadLayer, imported
from quantgui.network.files import read_file
from quantgui.network.graph import Node, Program
from quantgui.network.graph_reading import read_program
from quantgui.network.network import Network
from quantgui.network.quantized import QuantizedWeight, find_quantized
from quantgui.results import Array, LayerInfo
from quantgui.spec.formats import IntFormat
from quantgui.spec.granularity import Granularity, PerChannel, PerGroup, PerTensor
from quantgui.spec.presets import activation_spec
from quantgui.spec.quantizer import FixedRange, MinMax, QuantizerSpec

_SUFFIXES = re.compile(r"(_quant(ized)?|_Q\d+G?|_QuantizeLinear|_DequantizeLinear|_output_quantized|_MatMulNBits)$")
_ADDED = re.compile(r"(_quantized|_QuantizeLinear_Input|_DequantizeLinear_Output|_output_0_quantized|_Q\d+G?\d*)$")
# Operator -> positions of data scale and zero point, and of the weight's; -1 where it has none.
_OPERANDS = {
    "QLinearConv": (1, 2, 4, 5),
    "QLinearMatMul": (1, 2, 4, 5),
    "QGemm": (1, 2, 4, 5),
    "ConvInteger": (-1, -1, -1, 3),
    "MatMulInteger": (-1, -1, -1, 3),
    "DynamicQuantizeMatMul": (-1, -1, 2, 3),
    "MatMulIntegerToFloat": (-1, -1, 3, 5),
}


_RECURRENT = {
    "LSTM": {1: (-1, -1), 2: (-1, -1)},
    "GRU": {1: (-1, -1), 2: (-1, -1)},
    "RNN": {1: (-1, -1), 2: (-1, -1)},
    "DynamicQuantizeLSTM": {1: (8, 9), 2: (10, 11)},
}
"""Recurrent operator -> its weights W and R -> where it has their scale and zero point itself, else -1."""


@dataclass(frozen=True, eq=False)
class _Grid:
    """Integers with their scales (None where another node has them) and zero points, and the size of blocks."""

    format: IntFormat
    scale: Array | None
    zero_point: Array | None
    block: int = 0

    @property
    def symmetric(self) -> bool:
        middle = 0 if self.format.signed else 1 << (self.format.bits - 1)
        zero_point = np.zeros(1) if self.zero_point is None else self.zero_point.astype(np.int64)
        return bool(np.all(zero_point == middle))

    def part(self, start: int, end: int) -> _Grid:
        """Return the grid of the rows from `start` to `end` - 1; one scale where all of theirs are equal."""
        scale, zero_point = (_of_rows(x, start, end, blocks=self.block > 0) for x in (self.scale, self.zero_point))
        return _Grid(self.format, scale, zero_point, self.block)


def _of_rows(values: Array | None, start: int, end: int, *, blocks: bool) -> Array | None:
    if values is None or values.size == 1:
        return values
    found = values.reshape(-1, values.shape[-1] if blocks else 1)[start:end]
    return found[:1] if not blocks and bool(np.all(found == found[0])) else found


def is_network(path: Path) -> bool:
    """Return whether the file at `path` is meant to be an ONNX network."""
    return path.suffix.lower() in (".onnx", ".ort")


def read_quantized(path: Path, network: Network) -> Imported:
    """Return the configuration that the quantized file at `path` stands for, as layers of the float `network`.

    Raises:
        ExportError: the file cannot be read, or nothing in it is quantized.
    """
    try:
        program = read_program(read_file(path))
    except NetworkError as error:
        raise ExportError(str(error)) from error
    producers, consumers = program.producers(), program.consumers()
    names = _Layers(network)
    found: dict[str, ReadLayer] = {}
    unmatched: list[str] = []
    dynamic = 0
    for _, node in program.walk():
        if node.op in _RECURRENT:
            for gates in _recurrent(node, names, program, producers):
                found |= {layer.name: ReadLayer(_weight_spec(grid, layer)) for layer, grid in gates}
                unmatched += [] if gates else [node.name]
            continue
        for weight in find_quantized(node, program, producers):
            grid = _weight_grid(node, weight, program, producers)
            layer = names.find(node, weight, _scaled(node, consumers))
            if layer is None or grid is None:
                unmatched.append(node.name)
                continue
            activations = _activations(node, program, producers)
            if node.op in ("ConvInteger", "MatMulInteger", "DynamicQuantizeMatMul", "MatMulIntegerToFloat"):
                activations = activation_spec(8)
                dynamic += 1
            found[layer.name] = ReadLayer(_weight_spec(grid, layer), activations)
    if not found and not unmatched:
        raise ExportError(f"Nothing in '{path.name}' is quantized in a way that is known here.")
    known = [layer.name for layer in network.summary.layers]
    read = imported(found, dict.fromkeys(unmatched), network.summary, known=known, name=path.name)
    notes = read.notes
    if dynamic:
        layers = "1 layer quantizes its" if dynamic == 1 else f"{dynamic} layers quantize their"
        get = "it gets" if dynamic == 1 else "they get"
        notes += (f"{layers} activations anew at each run; here {get} ranges of the data instead.",)
    return Imported(read.config, read.unknown, notes)


class _Layers:
    """The float layers by all names they may have in another file."""

    def __init__(self, network: Network) -> None:
        self._by_name: dict[str, list[LayerInfo]] = {}
        self._parts: dict[tuple[str, int], list[LayerInfo]] = {}
        outputs = {node.name: node.output[0] for node in network.skeleton.graph.node if node.output}
        for layer in network.summary.layers:
            told = (layer.name, layer.node, layer.weight, layer.output_tensor, outputs.get(layer.node, ""))
            for name in dict.fromkeys((*told, *layer.users)):
                if name and layer.rows is None:
                    self._by_name.setdefault(name, []).append(layer)
                elif name:
                    position = 2 if layer.name.startswith(f"{layer.node}/R") else 1
                    self._parts.setdefault((name, position), []).append(layer)

    def parts(self, node: Node, position: int, rows: int) -> list[LayerInfo]:
        """Return the gates of one weight of a recurrent node; empty where there are none, or not as many rows."""
        for name in (node.name, _SUFFIXES.sub("", node.name), *node.outputs):
            found = self._parts.get((name, position), [])
            if found and max(layer.rows[1] for layer in found if layer.rows) == rows:
                return found
        return []

    def find(self, node: Node, weight: QuantizedWeight, scaled: Iterable[str]) -> LayerInfo | None:
        """Return the layer that `node` stands for; `scaled` are the values its product becomes."""
        names = [node.name, _SUFFIXES.sub("", node.name), *node.outputs, *(_ADDED.sub("", x) for x in node.outputs)]
        names += [weight.weight, _ADDED.sub("", weight.weight), _SUFFIXES.sub("", weight.weight), *scaled]
        count = math.prod(weight.shape)
        for name in names:
            for layer in self._by_name.get(name, ()):
                if layer.parameters == count:
                    return layer
        return None


def _scaled(node: Node, consumers: Mapping[str, list[Node]]) -> list[str]:
    """Return the values that the product of an integer operator becomes by its scales and its bias, one by one.

    A tool that takes a Gemm apart may keep no more of it than the name of the last of them.
    """
    found: list[str] = []
    value = node.outputs[0]
    while len(users := consumers.get(value, [])) == 1 and users[0].op in ("Cast", "Mul", "Add") and len(found) < 3:
        value = users[0].outputs[0]
        found.append(value)
    return found


def _weight_grid(node: Node, weight: QuantizedWeight, program: Program, producers: Mapping[str, Node]) -> _Grid | None:
    if node.op == "MatMulNBits":
        bits = node.integer("bits", 4)
        packed = len(node.inputs) > 3 and bool(node.inputs[3])
        # Without zero points they are in the middle.
        zero_point = None if packed else np.array([1 << (bits - 1)])
        values = program.constants.get(node.inputs[2])
        grid = IntFormat(bits, signed=False)
        return _Grid(grid, values, np.array([-1]) if zero_point is None else zero_point, node.integer("block_size", 32))
    values = program.constants.get(weight.weight)
    fmt = None if values is None else _format(values)
    if fmt is None:
        return None
    if node.op in _OPERANDS:
        _, _, scale, zero_point_at = _OPERANDS[node.op]
        return _Grid(fmt, _constant(node, scale, program), _constant(node, zero_point_at, program))
    for name in node.inputs:
        maker = _dequantizer(name, producers)
        if maker is not None and maker.inputs[0] == weight.weight:
            block = maker.integer("block_size", 0)
            return _Grid(fmt, _constant(maker, 1, program), _constant(maker, 2, program), block)
    return None


def _recurrent(
    node: Node, names: _Layers, program: Program, producers: Mapping[str, Node]
) -> Iterator[list[tuple[LayerInfo, _Grid]]]:
    """Yield the gates of each weight that a recurrent node has quantized, with what they are quantized to.

    No gates where a weight is quantized in a way that is not known, or belongs to no layer.
    """
    for position, (scale_at, zero_point_at) in _RECURRENT[node.op].items():
        if position >= len(node.inputs):
            continue
        if scale_at >= 0:
            scale, zero_point = _constant(node, scale_at, program), _constant(node, zero_point_at, program)
            rows = _integer_rows(program.constants.get(node.inputs[position]), scale, zero_point)
        else:
            rows = _rows(node.inputs[position], program, producers)
        if rows is None or not any(grid is not None for grid, _ in rows):
            if rows is None and node.inputs[position] not in program.constants:
                yield []
            continue
        ends = [0, *accumulate(count for _, count in rows)]
        yield [
            (layer, grid.part(layer.rows[0] - start, layer.rows[1] - start))
            for layer in names.parts(node, position, ends[-1])
            for (grid, _), start, end in zip(rows, ends, ends[1:], strict=False)
            if grid is not None and layer.rows is not None and start <= layer.rows[0] and layer.rows[1] <= end
        ]


def _rows(name: str, program: Program, producers: Mapping[str, Node]) -> list[tuple[_Grid | None, int]] | None:
    """Return the pieces of a weight of gates, each with its rows (None where float); None where one is not known."""
    for _ in range(8):
        if name in program.constants:
            values = program.constants[name]
            return [(None, values.size // values.shape[-1])] if values.ndim >= 2 and _format(values) is None else None
        maker = producers.get(name)
        if maker is None or not maker.inputs:
            return None
        if maker.op == "Concat":
            pieces = [_rows(each, program, producers) for each in maker.inputs]
            return None if None in pieces else [row for piece in pieces for row in piece or []]
        if maker.op == "DequantizeLinear":
            codes = program.constants.get(maker.inputs[0])
            fmt = None if codes is None else _format(codes)
            if codes is None or fmt is None or codes.ndim < 2:
                return None
            grid = _Grid(
                fmt, _constant(maker, 1, program), _constant(maker, 2, program), maker.integer("block_size", 0)
            )
            return [(grid, codes.size // codes.shape[-1])]
        if maker.op not in ("Reshape", "Cast", "Squeeze", "Unsqueeze", "Identity"):
            return None
        name = maker.inputs[0]
    return None


def _integer_rows(
    codes: Array | None, scale: Array | None, zero_point: Array | None
) -> list[tuple[_Grid | None, int]] | None:
    """Return the rows of a weight that is stored transposed, with one scale for each direction or each row."""
    fmt = None if codes is None else _format(codes)
    if codes is None or fmt is None or codes.ndim != 3:
        return None
    directions, _, columns = codes.shape
    scale, zero_point = (
        np.repeat(x.reshape(-1), columns) if x is not None and x.size == directions else x for x in (scale, zero_point)
    )
    return [(_Grid(fmt, scale, zero_point), directions * columns)]


def _dequantizer(name: str, producers: Mapping[str, Node]) -> Node | None:
    """Return the DequantizeLinear whose values reach `name`, possibly rearranged."""
    for _ in range(8):
        maker = producers.get(name)
        if maker is None or not maker.inputs:
            return None
        if maker.op == "DequantizeLinear":
            return maker
        if maker.op not in ("Transpose", "Reshape", "Cast", "Squeeze", "Unsqueeze", "Identity"):
            return None
        name = maker.inputs[0]
    return None


def _format(values: Array) -> IntFormat | None:
    match = re.fullmatch(r"(u?)int(\d+)", values.dtype.name)
    return IntFormat(int(match[2]), not match[1]) if match and 2 <= int(match[2]) <= 16 else None


def _constant(node: Node, position: int, program: Program) -> Array | None:
    inside = 0 <= position < len(node.inputs)
    return program.constants.get(node.inputs[position]) if inside else None


def _weight_spec(grid: _Grid, layer: LayerInfo) -> QuantizerSpec:
    granularity: Granularity = PerTensor()
    sizes = [x.size for x in (grid.scale, grid.zero_point) if x is not None]
    if grid.block:
        granularity = PerGroup(grid.block)
    elif max(sizes, default=1) > 1:
        granularity = PerChannel()
    if grid.symmetric:
        # An unsigned grid around its middle is a signed one.
        return QuantizerSpec(IntFormat(grid.format.bits), True, granularity, MinMax())
    return QuantizerSpec(IntFormat(grid.format.bits, signed=False), False, granularity, MinMax())


def _activations(node: Node, program: Program, producers: Mapping[str, Node]) -> QuantizerSpec | None:
    """Return the quantizer of the data that a layer reads; None where it is float."""
    if node.op in _OPERANDS:
        scale_at, zero_point_at, _, _ = _OPERANDS[node.op]
        scale, zero_point = _constant(node, scale_at, program), _constant(node, zero_point_at, program)
        return _fixed(scale, zero_point)
    for name in _data_inputs(node, program):
        maker = producers.get(name)
        if maker is not None and maker.op == "DequantizeLinear" and maker.inputs[0] not in program.constants:
            return _fixed(_constant(maker, 1, program), _constant(maker, 2, program))
    return None


def _data_inputs(node: Node, program: Program) -> Iterator[str]:
    for name in node.inputs[:2]:
        if name and name not in program.constants:
            yield name


def _fixed(scale: Array | None, zero_point: Array | None) -> QuantizerSpec | None:
    """Return a quantizer with the range of one scale and zero point."""
    if scale is None or scale.size != 1:
        return None
    fmt = IntFormat(8, signed=False) if zero_point is None else _format(zero_point)
    if fmt is None:
        return None
    step, zero = float(scale.reshape(-1)[0]), 0 if zero_point is None else int(zero_point.reshape(-1)[0])
    low, high = step * (fmt.quant_min - zero), step * (fmt.quant_max - zero)
    symmetric = fmt.signed and zero == 0
    return QuantizerSpec(fmt, symmetric, PerTensor(), FixedRange(min(low, 0.0), max(high, 0.0)))
