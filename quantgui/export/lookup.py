"""Weights in formats that DequantizeLinear does not know, made of operators that every runtime has.

Codes lie packed in bytes, two of 4 bits or eight of 1 bit; shifts take them apart, Gather looks their levels up in a
table, and Mul puts them on their scales. That is the arithmetic of `numerics.affine` in the same order, so the values
are the same to the bit. ONNX Runtime computes all of it once, when it loads the file: the file is small, the memory
and the time are those of float weights.
"""

from __future__ import annotations

import math

import numpy as np
from onnx import TensorProto

from quantgui.export.opset import FLOAT8, LOOKUP, PER_CHANNEL
from quantgui.export.stored import Part, Writer, pack
from quantgui.network.surgery import FLOATS8
from quantgui.numerics.levels import level_table
from quantgui.numerics.minifloat import decode_minifloat, to_bfloat16
from quantgui.numerics.qparams import SMALLEST_SCALE
from quantgui.numerics.scales import DoubleScales
from quantgui.results import Array
from quantgui.spec.formats import CodebookFormat, IntFormat, MinifloatFormat, TableFormat
from quantgui.spec.granularity import PerBlock, PerGroup
from quantgui.spec.quantizer import QuantizerSpec, ScaleFormat
from quantgui.spec.size import SUPERBLOCK


def needs_lookup(spec: QuantizerSpec) -> bool:
    """Return whether DequantizeLinear, as ONNX Runtime 1.31 has it, cannot make the weight."""
    match spec.format:
        case IntFormat():
            return isinstance(spec.granularity, PerBlock)
        case MinifloatFormat() as fmt:
            return fmt.bits != 8 or isinstance(spec.granularity, PerBlock)
        case TableFormat() | CodebookFormat():
            return True
        case _:
            return False


def add_looked_up(writer: Writer, part: Part, spec: QuantizerSpec) -> str:
    """Add what makes the float32 values of `part`, in its shape, and return their name."""
    codes = part.values
    channels = codes.shape[part.channel_axis]
    first = np.moveaxis(codes, part.channel_axis, 0)
    matrix = first.reshape(channels, -1)
    if part.levels is not None:
        output = _from_codebooks(writer, part, spec, matrix)
    else:
        assert part.scale is not None
        units = _add_units(writer, part, spec, matrix)
        output = writer.add("Mul", [units, _spread(writer, part, spec, add_scales(writer, part, part.scale.shape))])
    if first.shape != matrix.shape:
        output = writer.add("Reshape", [output, writer.constant("moved", np.array(first.shape, np.int64))])
    if part.channel_axis:
        # The channels come first; put them back where they belong.
        axis, rank = part.channel_axis, codes.ndim
        output = writer.add("Transpose", [output], perm=[0 if i == axis else i + (i < axis) for i in range(rank)])
    writer.shape = codes.shape
    return _kept_from_folding(writer, output) if writer.apart else output


def _kept_from_folding(writer: Writer, output: str) -> str:
    """Multiply by a one that ONNX Runtime does not take for a constant, lest it round the weight to 8 bits."""
    inputs = [writer.constant("one", np.array(1, np.int8)), writer.constant("one_scale", np.array(1, np.float32))]
    return writer.add("Mul", [output, writer.add("DequantizeLinear", inputs)])


# --- codes -------------------------------------------------------------------------------------------------------


def _add_units(writer: Writer, part: Part, spec: QuantizerSpec, matrix: Array) -> str:
    """Add the values of codes (C, K) in units of their scale, float32."""
    match spec.format:
        case IntFormat() as fmt:
            # Counted from the lowest, so that they can be taken out of their bytes without a sign.
            lowest = -(1 << (fmt.storage_bits - 1)) if fmt.signed else 0
            units = _add_codes(writer, "quantized", matrix.astype(np.int32) - lowest, fmt.storage_bits)
            units = writer.add("Cast", [units], to=TensorProto.FLOAT)
            if spec.symmetric:
                middle = 0 if fmt.signed else 1 << (fmt.bits - 1)
                return writer.add("Sub", [units, writer.constant("middle", np.array(middle - lowest, np.float32))])
            assert part.zero_point is not None
            middles = _add_codes(writer, "zero_point", part.zero_point - lowest, fmt.storage_bits)
            middles = writer.add("Cast", [middles], to=TensorProto.FLOAT)
            return writer.add("Sub", [units, _spread(writer, part, spec, middles)])
        case MinifloatFormat(bits=8) as fmt:
            writer.need(FLOAT8)
            return writer.add("Cast", [writer.constant("quantized", matrix, FLOATS8[fmt])], to=TensorProto.FLOAT)
        case MinifloatFormat() as fmt:
            return _looked_up(writer, decode_minifloat(np.arange(1 << fmt.bits), fmt), matrix, fmt.storage_bits)
        case TableFormat() as fmt:
            return _looked_up(writer, level_table(fmt), matrix, fmt.storage_bits)
        case _:
            raise ValueError(f"{spec.format} has no codes.")


def _looked_up(writer: Writer, table: Array, codes: Array, bits: int) -> str:
    indices = writer.add("Cast", [_add_codes(writer, "quantized", codes, bits)], to=TensorProto.INT32)
    return writer.add("Gather", [writer.constant("table", table.astype(np.float32)), indices], axis=0)


def _add_codes(writer: Writer, suffix: str, codes: Array, bits: int) -> str:
    """Add unsigned codes of 1, 2, 4, 8 or 16 bits, in the shape they have; the result is uint8, or uint16."""
    if bits >= 8:
        return writer.constant(suffix, codes.astype(np.uint8 if bits == 8 else np.uint16))
    writer.need(LOOKUP)
    per_byte = 8 // bits
    packed = writer.constant(suffix, pack(codes, bits)[:, np.newaxis])
    shifts = writer.constant("shifts", np.arange(0, 8, bits, dtype=np.uint8))
    parts = writer.add("BitShift", [packed, shifts], direction="RIGHT")
    output = writer.add("Mod", [parts, writer.constant("modulus", np.array(1 << bits, np.uint8))])
    if codes.size % per_byte:
        output = writer.add("Reshape", [output, writer.constant("flat", np.array([-1], np.int64))])
        ends = (writer.constant(name, np.array([end], np.int64)) for name, end in (("start", 0), ("end", codes.size)))
        output = writer.add("Slice", [output, *ends])
    return writer.add("Reshape", [output, writer.constant("shape", np.array(codes.shape, np.int64))])


def _from_codebooks(writer: Writer, part: Part, spec: QuantizerSpec, matrix: Array) -> str:
    """Add the values of codes (C, K) under a table for each group."""
    assert part.levels is not None
    assert isinstance(spec.format, CodebookFormat)
    rows, columns, size = part.levels.shape
    table = _add_stored(writer, "table", part.levels.reshape(-1), spec.scale_format)
    codes = _add_codes(writer, "quantized", matrix, spec.format.storage_bits)
    indices = writer.add("Cast", [codes], to=TensorProto.INT64)
    height, width = _group_size(part, spec)
    if columns > 1:
        along = _numbers(writer, matrix.shape[1], width)
        indices = writer.add("Add", [indices, writer.add("Mul", [along, _number(writer, size)])])
    if rows > 1:
        down = writer.add("Mul", [_numbers(writer, matrix.shape[0], height), _number(writer, columns * size)])
        down = writer.add("Reshape", [down, writer.constant("column", np.array([-1, 1], np.int64))])
        indices = writer.add("Add", [indices, down])
    return writer.add("Gather", [table, indices], axis=0)


# --- groups ------------------------------------------------------------------------------------------------------


def _spread(writer: Writer, part: Part, spec: QuantizerSpec, values: str) -> str:
    """Add what repeats values (C, groups per channel), or of blocks, so that they broadcast to the matrix (C, K)."""
    assert part.scale is not None
    rows, columns = part.scale.shape
    height, width = _group_size(part, spec)
    channels = part.values.shape[part.channel_axis]
    if columns > 1:
        along = _numbers(writer, part.values.size // channels, width)
        values = writer.add("Gather", [values, along], axis=1)
    if rows not in (1, channels):
        values = writer.add("Gather", [values, _numbers(writer, channels, height)], axis=0)
    return values


def _group_size(part: Part, spec: QuantizerSpec) -> tuple[int, int]:
    """Return how many channels, and how many values of each, share a grid."""
    match spec.granularity:
        case PerGroup(size):
            return 1, size
        case PerBlock(rows, columns):
            return rows, columns
        case _:
            return 1, math.prod(part.values.shape)


def _numbers(writer: Writer, count: int, size: int) -> str:
    """Add the number of the group of each of `count` neighbours: 0, 0, 0, 1, 1, 1, ..."""
    writer.need(LOOKUP)
    numbers = writer.add("Range", [_number(writer, 0), _number(writer, count), _number(writer, 1)])
    return numbers if size == 1 else writer.add("Div", [numbers, _number(writer, size)])


def _number(writer: Writer, value: int) -> str:
    return writer.constant(f"number_{value}", np.array(value, np.int64))


# --- scales ------------------------------------------------------------------------------------------------------


def add_scales(writer: Writer, part: Part, shape: tuple[int, ...], *, transposed: bool = False) -> str:
    """Add the float32 scales of `part` in `shape`, and return their name.

    They lie in the file as small as their format is: 16 bits, a byte where there are at most 256 different ones
    (E8M0, E4M3), or a byte and a float32 for each superblock where they are quantized themselves. With `transposed`
    the groups of a channel lie below each other.
    """
    assert part.scale is not None
    assert part.spec is not None
    scale = (part.scale.T if transposed else part.scale).reshape(shape).astype(np.float32)
    if part.double_scales is not None:
        return _add_double(writer, part.double_scales, part.scale.shape, shape, transposed=transposed)
    if part.scale.size == 1:
        return writer.constant("scale", scale)
    if part.spec.scale_format in ("e8m0", "e4m3"):
        different, numbers = np.unique(scale, return_inverse=True)
        indices = writer.constant("scale", numbers.reshape(shape).astype(np.uint8))
        indices = writer.add("Cast", [indices], to=TensorProto.INT32)
        return writer.add("Gather", [writer.constant("scale_table", different), indices], axis=0)
    return _add_stored(writer, "scale", scale, part.spec.scale_format)


def _add_stored(writer: Writer, suffix: str, values: Array, stored: ScaleFormat) -> str:
    match stored:
        case "float16":
            output = writer.constant(suffix, values.astype(np.float16))
        case "bfloat16":
            writer.need(PER_CHANNEL)
            output = writer.constant(suffix, to_bfloat16(values), TensorProto.BFLOAT16)
        case _:
            return writer.constant(suffix, values)
    return writer.add("Cast", [output], to=TensorProto.FLOAT)


def _add_double(
    writer: Writer, scales: DoubleScales, grid: tuple[int, ...], shape: tuple[int, ...], *, transposed: bool
) -> str:
    codes = writer.add("Cast", [writer.constant("scale", scales.codes)], to=TensorProto.FLOAT)
    second = writer.constant("scale_scale", scales.scale)
    if scales.scale.size > 1:
        second = writer.add("Gather", [second, _numbers(writer, scales.codes.size, SUPERBLOCK)], axis=0)
    output = writer.add("Mul", [codes, second])
    output = writer.add("Add", [output, writer.constant("scale_mean", np.array(scales.mean, np.float32))])
    output = writer.add("Max", [output, writer.constant("smallest", np.array(SMALLEST_SCALE, np.float32))])
    if transposed:
        output = writer.add("Reshape", [output, writer.constant("grid", np.array(grid, np.int64))])
        output = writer.add("Transpose", [output], perm=[1, 0])
        if shape == grid[::-1]:
            return output
    return writer.add("Reshape", [output, writer.constant("scale_shape", np.array(shape, np.int64))])
