"""How a quantized weight lies in an ONNX file: integer initializers, and the nodes that make the float weight of them.

The nodes' last output carries the weight's own name, so whatever used the weight stays as it is. A weight is stored
in the shape in which `DequantizeLinear` can address its groups: as it is where scales belong to the tensor or to its
channels, otherwise as a matrix whose blocks run along one axis, followed by Reshape (and Transpose where the channels
are neither the first nor the last axis).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np
import onnx
from onnx import TensorProto, helper

from quantgui.export.opset import BLOCKS, PER_CHANNEL, QUANTIZE_LINEAR, TWO_BITS
from quantgui.results import Array
from quantgui.spec.formats import IntFormat
from quantgui.spec.granularity import PerGroup
from quantgui.spec.quantizer import QuantizerSpec

_INTEGERS = {
    (2, True): TensorProto.INT2,
    (2, False): TensorProto.UINT2,
    (4, True): TensorProto.INT4,
    (4, False): TensorProto.UINT4,
    (8, True): TensorProto.INT8,
    (8, False): TensorProto.UINT8,
    (16, True): TensorProto.INT16,
    (16, False): TensorProto.UINT16,
}
Rename = Callable[[str], str]
"""Makes a name unique in the network."""


@dataclass(frozen=True, eq=False)
class Initializer:
    """A constant as it lies in the file.

    Attributes:
        tensor: name, type and shape, without values.
        data: the values' bytes as ONNX stores them: little-endian, types below 8 bits packed.
    """

    tensor: TensorProto
    data: Array


@dataclass(frozen=True, eq=False)
class Part:
    """A weight, or the rows of a recurrent weight that belong to one gate, with its encoding.

    Attributes:
        spec: how it is quantized; None keeps float32.
        values: integer codes, or float values, in the shape of the part.
        channel_axis: axis of the channels.
        scale: shape (C, groups per channel), or (1, 1) for one scale per tensor; None for float formats.
        zero_point: as `scale`.
    """

    spec: QuantizerSpec | None
    values: Array
    channel_axis: int
    scale: Array | None = None
    zero_point: Array | None = None


@dataclass(frozen=True, eq=False)
class StoredWeight:
    """The initializers of a weight and the nodes that dequantize it, in the order of execution.

    `opset` is the oldest that has these nodes.
    """

    nodes: tuple[onnx.NodeProto, ...]
    initializers: tuple[Initializer, ...]
    opset: int


def initializer(name: str, values: Array, data_type: int | None = None) -> Initializer:
    """Return `values` as a constant called `name`; `data_type` is needed for codes of fewer than 8 bits."""
    kind = helper.np_dtype_to_tensor_dtype(values.dtype) if data_type is None else data_type
    bits = next((width for (width, _), code in _INTEGERS.items() if code == kind), 8)
    data = pack(values, bits) if bits < 8 else np.ascontiguousarray(values)
    if data.dtype.byteorder == ">":
        data = data.astype(data.dtype.newbyteorder("<"))
    return Initializer(TensorProto(name=name, data_type=kind, dims=values.shape), data)


def pack(codes: Array, bits: int) -> Array:
    """Return the codes packed into bytes, the first in the lowest bits.

    Source: ONNX, onnx.proto, TensorProto.raw_data.

    >>> pack(np.array([1, -1, 3], np.int8), 4).tolist()
    [241, 3]
    """
    per_byte = 8 // bits
    flat = np.zeros(-(-codes.size // per_byte) * per_byte, np.uint8)
    flat[: codes.size] = codes.reshape(-1).astype(np.uint8) & np.uint8((1 << bits) - 1)
    packed = flat[::per_byte].copy()
    for i in range(1, per_byte):
        packed |= flat[i::per_byte] << np.uint8(bits * i)
    return packed


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
    writer = _Writer(name, rename, np.dtype(dtype), apart=apart)
    runs = _join_rows(parts) if len(parts) > 1 else list(parts)
    pieces = [writer.float_part(part) for part in runs]
    if len(pieces) > 1:
        writer.shape = ()
        pieces = [writer.add("Concat", pieces, axis=0)]
    if writer.shape != tuple(shape):
        writer.add("Reshape", [*pieces, writer.constant("shape", np.array(shape, np.int64))])
    return writer.finish()


def _join_rows(parts: Sequence[Part]) -> list[Part]:
    """Return the parts of a recurrent weight, neighbours that are stored alike joined to one.

    One scale per tensor becomes one per row, as ONNX has no operator for a scale per range of rows.
    """
    joined = []
    for _, group in groupby(parts, key=_storage_key):
        alike = list(group)
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
    if part.spec is None or not isinstance(part.spec.format, IntFormat):
        return (part.values.dtype,)
    return (_data_type(part.spec.format), _has_zero_point(part.spec), _block_size(part))


def _data_type(fmt: IntFormat) -> int:
    return _INTEGERS[fmt.storage_bits, fmt.signed]


def _has_zero_point(spec: QuantizerSpec) -> bool:
    return not (spec.symmetric and isinstance(spec.format, IntFormat) and spec.format.signed)


def _block_size(part: Part) -> int:
    """Return the block size, 0 where no channel has more than one scale."""
    if part.spec is None or part.scale is None or part.scale.shape[1] == 1:
        return 0
    assert isinstance(part.spec.granularity, PerGroup)
    return part.spec.granularity.group_size


class _Writer:
    """Collects the nodes and initializers of one weight; `shape` is the shape of what the last node makes."""

    def __init__(self, name: str, rename: Rename, dtype: np.dtype[Any], *, apart: bool) -> None:
        self.name = name
        self.rename = rename
        self.dtype = dtype
        self.apart = apart
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[Initializer] = []
        self.shape: tuple[int, ...] = ()
        self.opset = 1

    def add(self, op: str, inputs: Sequence[str], **attributes: Any) -> str:
        output = self.rename(f"{self.name}_{op}")
        self.nodes.append(helper.make_node(op, inputs, [output], name=output, **attributes))
        return output

    def constant(self, suffix: str, values: Array, data_type: int | None = None) -> str:
        name = self.rename(f"{self.name}_{suffix}")
        self.initializers.append(initializer(name, values, data_type))
        return name

    def need(self, opset: int) -> None:
        self.opset = max(self.opset, opset)

    def float_part(self, part: Part) -> str:
        """Add what makes the float values of `part`, and return their name."""
        self.shape = part.values.shape
        if part.spec is None or not isinstance(part.spec.format, IntFormat):
            output, stored = self.constant("stored", part.values), part.values.dtype
            if stored.name == "bfloat16":
                self.need(PER_CHANNEL)
        else:
            output, stored = self._dequantize(part, part.spec, part.spec.format), np.dtype(np.float32)
        if stored != self.dtype:
            output = self.add("Cast", [output], to=helper.np_dtype_to_tensor_dtype(self.dtype))
        return output

    def _dequantize(self, part: Part, spec: QuantizerSpec, fmt: IntFormat) -> str:
        layout = _layout(part, spec, fmt)
        if self.apart and layout.codes.shape == part.values.shape:
            layout = _lifted(layout)
        self.need(layout.opset)
        kind = _data_type(fmt)
        inputs = [self.constant("quantized", layout.codes, kind), self.constant("scale", layout.scale)]
        if _has_zero_point(spec):
            inputs.append(self.constant("zero_point", layout.zero_point, kind))
        output = self.add("DequantizeLinear", inputs, **layout.attributes)
        self.shape = layout.codes.shape
        if layout.moved:
            # The channels come first; put them back where they belong.
            axis, rank = part.channel_axis, part.values.ndim
            order = [0 if i == axis else i + (i < axis) for i in range(rank)]
            output = self.add("Reshape", [output, self.constant("moved", np.array(layout.moved, np.int64))])
            output = self.add("Transpose", [output], perm=order)
            self.shape = part.values.shape
        return output

    def finish(self) -> StoredWeight:
        """Let the last node make the weight under its own name."""
        if self.nodes:
            self.nodes[-1].output[0] = self.name
        else:  # float16 values of a weight that has been float16 all along
            self.initializers[0].tensor.name = self.name
        return StoredWeight(tuple(self.nodes), tuple(self.initializers), self.opset)


class _Layout(NamedTuple):
    """How one part lies in the file; `moved` is its shape with the channels first where a Transpose is needed."""

    codes: Array
    scale: Array
    zero_point: Array
    attributes: dict[str, int]
    opset: int
    moved: tuple[int, ...] = ()


def _layout(part: Part, spec: QuantizerSpec, fmt: IntFormat) -> _Layout:
    codes, axis = part.values, part.channel_axis
    assert part.scale is not None
    assert part.zero_point is not None
    scale, zero_point = part.scale.astype(np.float32), part.zero_point.astype(codes.dtype)
    narrow = TWO_BITS if fmt.storage_bits == 2 else BLOCKS if fmt.storage_bits != 8 else 0
    if scale.size == 1:
        return _Layout(codes, scale.reshape(()), zero_point.reshape(()), {}, max(narrow, QUANTIZE_LINEAR))
    block = _block_size(part)
    if not block:
        opset = max(narrow, PER_CHANNEL)
        return _Layout(codes, scale.reshape(-1), zero_point.reshape(-1), {"axis": axis}, opset)
    opset = max(narrow, BLOCKS)
    if axis and axis == codes.ndim - 1:
        matrix = codes.reshape(-1, codes.shape[-1])
        return _Layout(matrix, scale.T, zero_point.T, {"axis": 0, "block_size": block}, opset)
    first = np.moveaxis(codes, axis, 0)
    attributes = {"axis": 1, "block_size": block}
    return _Layout(first.reshape(len(first), -1), scale, zero_point, attributes, opset, first.shape if axis else ())


def _lifted(layout: _Layout) -> _Layout:
    """Return a layout with a leading axis of 1, so that a Reshape, which costs nothing, follows DequantizeLinear."""
    attributes = {key: value + (key == "axis") for key, value in layout.attributes.items()}
    scale, zero_point = (x[np.newaxis] if "block_size" in attributes else x for x in (layout.scale, layout.zero_point))
    return _Layout(layout.codes[np.newaxis], scale, zero_point, attributes, layout.opset)
