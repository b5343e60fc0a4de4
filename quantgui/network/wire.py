"""The protobuf message that a network file is, read without the raw data of its large tensors."""

from __future__ import annotations

from collections.abc import Iterator

import onnx

KEEP_BYTES = 1 << 14
"""Raw data of fewer bytes is parsed with the structure."""
PLACE = "quantgui.place"
"""Key of a tensor's external data whose value is ``offset,length`` within the file itself."""
_MAX_DEPTH = 60


class WireError(Exception):
    """The bytes are no protobuf message."""


# Field number -> kind of the message it holds, for the fields that can lead to a tensor.
_CHILDREN = {
    "model": {7: "graph", 25: "function"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {},
}
_RAW_DATA = 9


def without_raw_data(content: memoryview) -> list[bytes | memoryview]:
    """Return the pieces of a network's message in which large tensors say where their data lies (`PLACE`).

    Raises:
        WireError: the bytes are no protobuf message.
    """
    return _strip(content, 0, len(content), "model", 0)


def _strip(data: memoryview, start: int, end: int, kind: str, depth: int) -> list[bytes | memoryview]:
    """Return the message at [start, end) without the raw data of large tensors."""
    children = _CHILDREN[kind]
    parts: list[bytes | memoryview] = []
    kept = start
    for tag, at, value, stop in _fields(data, start, end):
        number, wire = tag >> 3, tag & 7
        if wire != 2 or stop - value <= KEEP_BYTES:
            continue
        if kind == "tensor" and number == _RAW_DATA:
            replacement = _place(value, stop - value)
        elif number in children and depth < _MAX_DEPTH:
            inner = _strip(data, value, stop, children[number], depth + 1)
            replacement = b"".join((_varint(tag), _varint(sum(map(len, inner))), *inner))
        else:
            continue
        parts += [data[kept:at], replacement]
        kept = stop
    parts.append(data[kept:end])
    return parts


def _place(offset: int, length: int) -> bytes:
    entry = onnx.StringStringEntryProto(key=PLACE, value=f"{offset},{length}")
    place: bytes = onnx.TensorProto(data_location=onnx.TensorProto.EXTERNAL, external_data=[entry]).SerializeToString()
    return place


def _fields(data: memoryview, start: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """Yield (tag, start of the field, start of its value, end) of each field of a message."""
    at = start
    while at < end:
        tag, value = _read_varint(data, at, end)
        match tag & 7:
            case 0:
                _, stop = _read_varint(data, value, end)
            case 1:
                stop = value + 8
            case 2:
                length, value = _read_varint(data, value, end)
                stop = value + length
            case 5:
                stop = value + 4
            case _:
                raise WireError
        if stop > end or tag >> 3 == 0:
            raise WireError
        yield tag, at, value, stop
        at = stop


def _read_varint(data: memoryview, at: int, end: int) -> tuple[int, int]:
    result = shift = 0
    while at < end and shift < 64:
        byte = data[at]
        at += 1
        result |= (byte & 0x7F) << shift
        if byte < 0x80:
            return result, at
        shift += 7
    raise WireError


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
