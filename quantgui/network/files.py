"""Reading network files without trusting them: the structure is parsed, the weights stay mapped until they are used.

An .onnx file is one protobuf message, most of it raw tensor data. `read_file` copies the message without the raw data
of large tensors (their place in the file is noted instead) and lets protobuf parse only that, so memory never holds the
file twice. Nothing outside the folder of the file is ever opened.
"""

from __future__ import annotations

import hashlib
import math
import mmap
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from quantgui.errors import NetworkError
from quantgui.network.pytorch.archive import archive_sentence, weights_sentence
from quantgui.network.wire import PLACE, WireError, without_raw_data
from quantgui.results import Array

COPY_BYTES = 1 << 28
"""Tensors inside files smaller than this are copied, so that overwriting the file cannot pull them away."""
FULL_HASH_BYTES = 1 << 28
"""Files up to this size are hashed completely, larger ones by samples."""
_HASH_SAMPLE = 1 << 16


@dataclass(frozen=True, eq=False)
class NetworkFile:
    """An opened .onnx file: its structure, and where its tensors lie.

    Attributes:
        path: the file.
        model: the structure; large tensors are without data.
        file_bytes: size of the file and the external data it uses.
    """

    path: Path
    model: onnx.ModelProto
    content: memoryview
    maps: dict[Path, memoryview] = field(default_factory=dict)

    @property
    def file_bytes(self) -> int:
        """Size of the file and of the external data files opened so far."""
        return len(self.content) + sum(len(view) for view in self.maps.values())

    def array(self, tensor: onnx.TensorProto) -> Array:
        """Return the values of a tensor of this file; large ones are views of the mapped file where possible.

        Raises:
            NetworkError: the data is missing, has the wrong size, or lies outside the folder.
        """
        if any(dim < 0 for dim in tensor.dims):
            raise NetworkError(f"The tensor '{tensor.name}' has a negative dimension, so the file is damaged.")
        entries = {entry.key: entry.value for entry in tensor.external_data}
        if PLACE in entries:
            offset, length = (_integer(tensor, part) for part in entries[PLACE].split(","))
            return self._view(tensor, self.content, offset, length, copy=len(self.content) < COPY_BYTES)
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            view = self._external(tensor, entries.get("location", ""))
            offset = _integer(tensor, entries.get("offset", "0"))
            length = _integer(tensor, entries.get("length", str(byte_size(tensor))))
            return self._view(tensor, view, offset, length, copy=False)
        return _inline(tensor)

    def _external(self, tensor: onnx.TensorProto, location: str) -> memoryview:
        path = locate_external(self.path, location, tensor.name)
        if path not in self.maps:
            try:
                self.maps[path] = _map(path)
            except OSError as error:
                raise NetworkError(
                    f"The data file '{location}' of the network cannot be read: {error.strerror}."
                ) from error
        return self.maps[path]

    def _view(self, tensor: onnx.TensorProto, data: memoryview, offset: int, length: int, *, copy: bool) -> Array:
        expected = byte_size(tensor)
        if length != expected or offset < 0 or offset + length > len(data):
            raise NetworkError(
                f"The tensor '{tensor.name}' needs {expected} bytes, but its data has {min(length, len(data) - offset)}"
                "; the file is damaged or incomplete."
            )
        return _decode(tensor, np.frombuffer(data, np.uint8, length, offset), copy=copy)

    def fingerprint(self) -> str:
        """Return a hash of the file and its external data; of samples of them where they are large."""
        digest = hashlib.blake2b(digest_size=16)
        for view in (self.content, *(self.maps[path] for path in sorted(self.maps))):
            digest.update(str(len(view)).encode())
            for region in _regions(view):
                digest.update(region[:_HASH_SAMPLE])
                let_go(np.frombuffer(region, np.uint8))
        return digest.hexdigest()


def read_file(path: Path) -> NetworkFile:
    """Open the .onnx file at `path`.

    Raises:
        NetworkError: it is missing, empty, damaged, or no ONNX network.
    """
    if path.is_dir():
        raise NetworkError(f"'{path.name}' is a folder; choose an .onnx file.")
    try:
        content = _map(path)
    except FileNotFoundError as error:
        raise NetworkError(f"There is no file '{path}'.") from error
    except OSError as error:
        raise NetworkError(f"'{path}' cannot be read: {error.strerror}.") from error
    _refuse_other_types(path, content)
    model = onnx.ModelProto()
    try:
        model.ParseFromString(b"".join(without_raw_data(content)))
    except (DecodeError, WireError) as error:
        raise NetworkError(f"'{path.name}' is damaged, incomplete or no ONNX network.") from error
    if not _is_text(model):
        raise NetworkError(f"'{path.name}' is damaged: names in it are no text.")
    if not model.HasField("graph") or not (model.graph.node or model.graph.output):
        raise NetworkError(f"'{path.name}' holds no ONNX network.")
    return NetworkFile(path, model, content)


_NAMES = ("name", "input", "output", "op_type", "domain", "dim_param")


def _is_text(message: Any) -> bool:
    """Return whether all strings inside a message are text, and names are one line.

    Protobuf hands damaged strings over as bytes.
    """
    for descriptor, value in message.ListFields():
        if descriptor.type == descriptor.TYPE_STRING:
            texts = (value,) if isinstance(value, (str, bytes)) else value
            if any(isinstance(text, bytes) for text in texts):
                return False
            if descriptor.name in _NAMES and any(ord(sign) < 32 for text in texts for sign in str(text)):
                return False
        elif descriptor.type == descriptor.TYPE_MESSAGE:
            children = (value,) if hasattr(value, "ListFields") else value
            if not all(_is_text(child) for child in children):
                return False
    return True


def _refuse_other_types(path: Path, content: memoryview) -> None:
    start = bytes(content[:16])
    if not start:
        raise NetworkError(f"'{path.name}' is empty.")
    if path.suffix.lower() == ".py":
        raise NetworkError(
            f"'{path.name}' is Python code: name the function in it that makes the network, as in {path.name}:function."
        )
    pickles = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
    if start.startswith(b"PK\x03\x04"):
        raise NetworkError(archive_sentence(path))
    if start.startswith(pickles) or start[8:10] == b'{"':
        raise NetworkError(weights_sentence(path.name))
    others = {
        b"\x89HDF": "a Keras or HDF5 file",
        b"GGUF": "a GGUF file",
        b"\x93NUMPY": "a numpy file",
        b"\x89PNG": "a picture",
        b"\xff\xd8\xff": "a picture",
        b"%PDF": "a PDF file",
        b"\x1f\x8b": "a compressed file",
        b"version https://": "a pointer to a file in Git LFS, not the file itself",
    }
    for magic, kind in others.items():
        if start.startswith(magic):
            raise NetworkError(f"'{path.name}' is {kind}; an ONNX network is needed.")
    if start[4:8] == b"TFL3":
        raise NetworkError(f"'{path.name}' is a TensorFlow Lite file; an ONNX network is needed.")
    if start[4:8] == b"ORTM":
        raise NetworkError(f"'{path.name}' is in ONNX Runtime's own format; open the .onnx file it was made from.")


def locate_external(network: Path, location: str, tensor: str) -> Path:
    """Return the path of an external data file.

    Raises:
        NetworkError: it lies outside the folder of the network, or there is none.
    """
    folder = network.parent.resolve()
    parts = location.replace("\\", "/").split("/")
    inside = bool(location) and "\0" not in location and not os.path.isabs(location) and ".." not in parts
    path = (folder / location).resolve() if inside else folder
    if not inside or not path.is_relative_to(folder) or ":" in parts[0]:
        raise NetworkError(
            f"The data of the tensor '{tensor}' lies outside the network's folder ('{location}'), which is not allowed."
        )
    if not path.is_file():
        raise NetworkError(f"The data file '{location}' of the network is missing; put it beside the network.")
    return path


def _map(path: Path) -> memoryview:
    with path.open("rb") as file:
        if not os.fstat(file.fileno()).st_size:
            return memoryview(b"")
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def let_go(values: Array) -> None:
    """Give back the memory of `values` if they lie in a mapped file; what is used later is read again.

    A file that is read from end to end would otherwise count as memory of this process altogether.
    """
    owner: object = values
    while isinstance(owner, np.ndarray):
        owner = owner.base
    mapped = owner.obj if isinstance(owner, memoryview) else owner
    if not isinstance(mapped, mmap.mmap) or not values.flags.c_contiguous or not hasattr(mapped, "madvise"):
        return
    start = values.ctypes.data - np.frombuffer(mapped, np.uint8).ctypes.data
    page = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE
    if page < start + values.nbytes:
        mapped.madvise(mmap.MADV_DONTNEED, page, start + values.nbytes - page)


def _regions(view: memoryview) -> Iterator[memoryview]:
    """Yield regions whose beginnings are hashed."""
    step = _HASH_SAMPLE
    if len(view) > FULL_HASH_BYTES:
        step = -(-len(view) * _HASH_SAMPLE // FULL_HASH_BYTES)
    for start in range(0, len(view), step):
        yield view[start : start + step]
    yield view[-_HASH_SAMPLE:]


def _integer(tensor: onnx.TensorProto, text: str) -> int:
    if not text.isdecimal() or len(text) > 18:
        raise NetworkError(f"The tensor '{tensor.name}' has no valid place in its data file, so the file is damaged.")
    return int(text)


# --- tensors -----------------------------------------------------------------------------------------------------

_BITS: dict[int, int] = {
    onnx.TensorProto.INT4: 4,
    onnx.TensorProto.UINT4: 4,
    onnx.TensorProto.INT2: 2,
    onnx.TensorProto.UINT2: 2,
    onnx.TensorProto.FLOAT4E2M1: 4,
}


def _numpy_type(tensor: onnx.TensorProto) -> np.dtype[Any]:
    try:
        return np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type))
    except (KeyError, ValueError, TypeError) as error:
        raise NetworkError(
            f"The tensor '{tensor.name}' has the unknown type {tensor.data_type}, so the file is damaged or too new."
        ) from error


def byte_size(tensor: onnx.TensorProto) -> int:
    """Return the bytes the raw data of a tensor takes."""
    bits = _BITS.get(tensor.data_type) or 8 * int(_numpy_type(tensor).itemsize)
    return int(-(-math.prod(tensor.dims) * bits // 8))


def stored_bytes(values: Array) -> int:
    """Return the bytes ONNX takes to store `values`: types below 8 bits are packed."""
    if values.dtype.kind in "OSU":
        return sum(len(v) for v in values.reshape(-1))
    kind = onnx.helper.np_dtype_to_tensor_dtype(values.dtype)
    return -(-values.size * _BITS.get(kind, 8 * values.dtype.itemsize) // 8)


def _decode(tensor: onnx.TensorProto, raw: Array, *, copy: bool) -> Array:
    bits = _BITS.get(tensor.data_type)
    shape = tuple(tensor.dims)
    if bits:
        small = onnx.TensorProto(data_type=tensor.data_type, dims=tensor.dims, raw_data=raw.tobytes())
        return onnx.numpy_helper.to_array(small)
    values: Array = raw.view(_numpy_type(tensor)) if raw.size else np.zeros(0, _numpy_type(tensor))
    if copy or not values.flags.aligned:
        values = values.copy()
    return values.reshape(shape)


def _inline(tensor: onnx.TensorProto) -> Array:
    elements = math.prod(tensor.dims)
    if tensor.data_type == onnx.TensorProto.STRING:
        held = len(tensor.string_data)
    else:
        expected = byte_size(tensor)
        if tensor.HasField("raw_data"):
            if len(tensor.raw_data) != expected:
                raise NetworkError(
                    f"The tensor '{tensor.name}' needs {expected} bytes, but the file has {len(tensor.raw_data)}; "
                    "it is damaged."
                )
            return _decode(tensor, np.frombuffer(tensor.raw_data, np.uint8), copy=False)
        lists = (tensor.float_data, tensor.int32_data, tensor.int64_data, tensor.double_data, tensor.uint64_data)
        held = max(len(values) for values in lists)
        # Complex numbers take two entries, packed types one per byte or one per value.
        elements = min(elements, -(-expected // 4) if elements > held else elements)
    if held < elements:
        raise NetworkError(f"The tensor '{tensor.name}' has {held} values where {elements} are needed: it is damaged.")
    try:
        return onnx.numpy_helper.to_array(tensor)
    except (ValueError, TypeError) as error:
        raise NetworkError(f"The values of the tensor '{tensor.name}' do not fit its shape: it is damaged.") from error
