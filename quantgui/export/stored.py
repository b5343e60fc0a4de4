"""Constants as they lie in an ONNX file, and the writer that collects them with the nodes that make floats of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from quantgui.numerics.scales import DoubleScales
from quantgui.results import Array
from quantgui.spec.quantizer import QuantizerSpec

INTEGERS = {
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
        scale: shape (C, groups per channel), (1, 1) for one scale per tensor, fewer rows than channels for blocks; None
            for float formats and codebooks.
        zero_point: as `scale`.
        levels: codebooks, (C, groups per channel, L).
        double_scales: what `scale` is made of where scales are quantized themselves.
    """

    spec: QuantizerSpec | None
    values: Array
    channel_axis: int
    scale: Array | None = None
    zero_point: Array | None = None
    levels: Array | None = None
    double_scales: DoubleScales | None = None


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
    bits = next((width for (width, _), code in INTEGERS.items() if code == kind), 8)
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


class Writer:
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
