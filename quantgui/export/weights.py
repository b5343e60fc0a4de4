"""How a quantized weight lies in an ONNX file: codes as initializers, and the nodes that make the float weight of them.

The nodes' last output carries the weight's own name, so whatever used the weight stays as it is. A weight is stored
in the shape in which `DequantizeLinear` can address its groups: as it is where scales belong to the tensor or to its
channels, otherwise as a matrix whose blocks run along one axis, followed by Reshape (and Transpose where the channels
are neither the first nor the last axis). What `DequantizeLinear` does not know is looked up (`lookup`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np
from onnx import helper

from quantgui.export.lookup import add_looked_up, add_scales, needs_lookup
from quantgui.export.opset import BLOCKS, FLOAT8, PER_CHANNEL, QUANTIZE_LINEAR, TWO_BITS
from quantgui.export.stored import INTEGERS, Part, Rename, StoredWeight, Writer
from quantgui.network.surgery import FLOATS8
from quantgui.results import Array
from quantgui.spec.formats import IntFormat, MinifloatFormat
from quantgui.spec.granularity import PerGroup
from quantgui.spec.quantizer import QuantizerSpec


def store_weight(
    name: str,
    parts: Sequence[Part],
    shape: Sequence[int],
    dtype: np.dtype[Any],
    rename: Rename,
    *,
    apart: bool = False,
) -> StoredWeight:
    """Return how the weight called `name` is stored.

    Args:
        name: name of the float weight, which the last node makes.
        parts: the weight; or consecutive rows of it seen as a matrix, where each is a part of a recurrent weight.
        shape: shape of the float weight.
        dtype: type of the float weight.
        rename: makes names unique.
        apart: whether to keep ONNX Runtime from fusing DequantizeLinear with what uses the weight.
    """
    writer = Writer(name, rename, np.dtype(dtype), apart=apart)
    runs = _join_rows(parts) if len(parts) > 1 else list(parts)
    pieces = [_add_float(writer, part) for part in runs]
    if len(pieces) > 1:
        writer.shape = ()
        pieces = [writer.add("Concat", pieces, axis=0)]
    if writer.shape != tuple(shape):
        writer.add("Reshape", [*pieces, writer.constant("shape", np.array(shape, np.int64))])
    return _finish(writer)


def _join_rows(parts: Sequence[Part]) -> list[Part]:
    """Return the parts of a recurrent weight, neighbours that are stored alike joined to one.

    One scale per tensor becomes one per row, as ONNX has no operator for a scale per range of rows.
    """
    joined = []
    for _, group in groupby(parts, key=_storage_key):
        alike = list(group)
        if len(alike) == 1:
            joined.append(replace(alike[0], channel_axis=0))
            continue
        values = np.concatenate([part.values for part in alike])
        encoded = alike[0].scale is not None
        scale = np.concatenate([_per_row(part.scale, part) for part in alike]) if encoded else None
        zero_point = np.concatenate([_per_row(part.zero_point, part) for part in alike]) if encoded else None
        joined.append(Part(alike[0].spec, values, 0, scale, zero_point))
    return joined


def _per_row(values: Array | None, part: Part) -> Array:
    assert values is not None
    return np.broadcast_to(values, (len(part.values), values.shape[1]))


def _storage_key(part: Part) -> tuple[object, ...]:
    if part.spec is None or (part.scale is None and part.levels is None):
        return (part.values.dtype,)
    alone = needs_lookup(part.spec) or part.double_scales is not None or part.spec.scale_format == "e4m3"
    block, scales = _block_size(part), part.spec.scale_format
    return (_data_type(part.spec), _has_zero_point(part.spec), block, scales, id(part) if alone else 0)


def _data_type(spec: QuantizerSpec) -> int:
    """Return the ONNX type of codes; of those that are looked up, any."""
    match spec.format:
        case IntFormat() as fmt:
            return INTEGERS[fmt.storage_bits, fmt.signed]
        case MinifloatFormat(bits=8) as fmt:
            return FLOATS8[fmt]
        case _:
            return 0


def _has_zero_point(spec: QuantizerSpec) -> bool:
    return isinstance(spec.format, IntFormat) and not (spec.symmetric and spec.format.signed)


def _block_size(part: Part) -> int:
    """Return the block size, 0 where no channel has more than one scale."""
    if part.spec is None or part.scale is None or not isinstance(part.spec.granularity, PerGroup):
        return 0
    return part.spec.granularity.group_size if part.scale.shape[1] > 1 else 0


def _add_float(writer: Writer, part: Part) -> str:
    """Add what makes the float values of `part`, and return their name."""
    writer.shape = part.values.shape
    stored = np.dtype(np.float32)
    if part.spec is None or (part.scale is None and part.levels is None):
        output, stored = writer.constant("stored", part.values), part.values.dtype
        if stored.name == "bfloat16":
            writer.need(PER_CHANNEL)
    elif needs_lookup(part.spec):
        output = add_looked_up(writer, part, part.spec)
    else:
        output = _dequantize(writer, part, part.spec)
    if stored != writer.dtype:
        output = writer.add("Cast", [output], to=helper.np_dtype_to_tensor_dtype(writer.dtype))
    return output


def _dequantize(writer: Writer, part: Part, spec: QuantizerSpec) -> str:
    layout = _layout(part, spec)
    if writer.apart and layout.codes.shape == part.values.shape:
        layout = _lifted(layout)
    writer.need(layout.opset)
    kind = _data_type(spec)
    codes = writer.constant("quantized", layout.codes, kind)
    inputs = [codes, add_scales(writer, part, layout.scale_shape, transposed=layout.transposed)]
    if _has_zero_point(spec):
        inputs.append(writer.constant("zero_point", layout.zero_point, kind))
    output = writer.add("DequantizeLinear", inputs, **layout.attributes)
    writer.shape = layout.codes.shape
    if layout.moved:
        # The channels come first; put them back where they belong.
        axis, rank = part.channel_axis, part.values.ndim
        order = [0 if i == axis else i + (i < axis) for i in range(rank)]
        output = writer.add("Reshape", [output, writer.constant("moved", np.array(layout.moved, np.int64))])
        output = writer.add("Transpose", [output], perm=order)
        writer.shape = part.values.shape
    return output


def _finish(writer: Writer) -> StoredWeight:
    """Let the last node make the weight under its own name."""
    if writer.nodes:
        writer.nodes[-1].output[0] = writer.name
    else:  # float16 values of a weight that has been float16 all along
        writer.initializers[0].tensor.name = writer.name
    return StoredWeight(tuple(writer.nodes), tuple(writer.initializers), writer.opset)


class _Layout(NamedTuple):
    """How one part lies in the file; `moved` is its shape with the channels first where a Transpose is needed."""

    codes: Array
    zero_point: Array
    scale_shape: tuple[int, ...]
    attributes: dict[str, int]
    opset: int
    moved: tuple[int, ...] = ()
    transposed: bool = False


def _layout(part: Part, spec: QuantizerSpec) -> _Layout:
    codes, axis = part.values, part.channel_axis
    assert part.scale is not None
    assert part.zero_point is not None
    zero_point = part.zero_point.astype(codes.dtype)
    narrow = _opset_of_codes(spec)
    if part.scale.size == 1:
        return _Layout(codes, zero_point.reshape(()), (), {}, max(narrow, QUANTIZE_LINEAR))
    block = _block_size(part)
    if not block:
        opset = max(narrow, PER_CHANNEL)
        return _Layout(codes, zero_point.reshape(-1), (part.scale.size,), {"axis": axis}, opset)
    opset = max(narrow, BLOCKS)
    if axis and axis == codes.ndim - 1:
        matrix = codes.reshape(-1, codes.shape[-1])
        attributes = {"axis": 0, "block_size": block}
        return _Layout(matrix, zero_point.T, zero_point.T.shape, attributes, opset, transposed=True)
    first = np.moveaxis(codes, axis, 0)
    attributes = {"axis": 1, "block_size": block}
    moved = first.shape if axis else ()
    return _Layout(first.reshape(len(first), -1), zero_point, zero_point.shape, attributes, opset, moved)


def _opset_of_codes(spec: QuantizerSpec) -> int:
    if isinstance(spec.format, MinifloatFormat):
        return FLOAT8
    bits = spec.format.storage_bits
    return TWO_BITS if bits == 2 else BLOCKS if bits != 8 else 0


def _lifted(layout: _Layout) -> _Layout:
    """Return a layout with a leading axis of 1, so that a Reshape, which costs nothing, follows DequantizeLinear."""
    attributes = {key: value + (key == "axis") for key, value in layout.attributes.items()}
    lifted = layout._replace(codes=layout.codes[np.newaxis], attributes=attributes)
    if "block_size" in attributes:
        lifted = lifted._replace(zero_point=layout.zero_point[np.newaxis], scale_shape=(1, *layout.scale_shape))
    return lifted
