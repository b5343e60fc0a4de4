"""Arrays in .npy and .npz files, memory-mapped wherever the file stores them plainly. Pickles are refused."""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np

from quantgui.errors import DataError
from quantgui.results import Array

_LOCAL_HEADER = 30
_KINDS = "biuf"


@dataclass(frozen=True, eq=False)
class Column:
    """One array of the data, read piece by piece.

    Attributes:
        name: of the array; empty in a .npy file.
        shape: whole shape.
        dtype: as it is stored.
        read: returns the rows ``[start, stop)`` of the first axis.
        whole: returns everything.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    read: Callable[[int, int], Array]
    whole: Callable[[], Array]


def open_npy(path: Path) -> Column:
    """Open a .npy file without reading its values.

    Raises:
        DataError: it is no array of numbers.
    """
    try:
        with path.open("rb") as file:
            return _column("", _open_member(path, file, path.name, 0, path.stat().st_size))
    except OSError as error:
        raise DataError(f"Cannot read '{path}': {error.strerror or error}.") from error


def open_npz(path: Path) -> dict[str, Column]:
    """Open a .npz file without reading the values of arrays that are not compressed; the others are read when used.

    Raises:
        DataError: it is no archive of arrays of numbers.
    """
    try:
        with zipfile.ZipFile(path) as archive, path.open("rb") as file:
            members = [m for m in archive.infolist() if m.filename.endswith(".npy") and not m.is_dir()]
            columns = {}
            for member in members:
                name = member.filename.removesuffix(".npy")
                columns[name] = _open_npz_member(path, archive, file, member, name)
    except OSError as error:
        raise DataError(f"Cannot read '{path}': {error.strerror or error}.") from error
    except (zipfile.BadZipFile, struct.error, NotImplementedError, RuntimeError, EOFError, zlib.error) as error:
        raise DataError(f"'{path.name}' is no readable .npz file: {error}.") from error
    if not columns:
        raise DataError(f"'{path.name}' holds no arrays; it must hold one array per network input.")
    return columns


def _open_npz_member(
    path: Path, archive: zipfile.ZipFile, file: IO[bytes], member: zipfile.ZipInfo, name: str
) -> Column:
    place = f"{path.name}/{name}"
    if member.compress_type == zipfile.ZIP_STORED and not member.flag_bits & 1:
        file.seek(member.header_offset)
        header = file.read(_LOCAL_HEADER)
        name_length, extra_length = struct.unpack("<HH", header[26:30])
        start = member.header_offset + _LOCAL_HEADER + name_length + extra_length
        return _column(name, _open_member(path, file, place, start, member.file_size))
    with archive.open(member) as stream:
        shape, fortran, dtype = _read_header(stream, place)
        if stream.tell() + _nbytes(shape, dtype) != member.file_size:
            raise DataError(f"'{place}' is damaged: its size does not fit the shape it declares.")
    return _deferred(path, member.filename, name, shape, dtype, fortran=fortran)


def _deferred(
    path: Path, member: str, name: str, shape: tuple[int, ...], dtype: np.dtype[Any], *, fortran: bool
) -> Column:
    loaded: list[Array] = []

    def whole() -> Array:
        if not loaded:
            try:
                with zipfile.ZipFile(path) as archive, archive.open(member) as stream:
                    _read_header(stream, f"{path.name}/{name}")
                    values = np.frombuffer(stream.read(), dtype)
            except (OSError, zipfile.BadZipFile, zlib.error, EOFError) as error:
                raise DataError(f"'{path.name}/{name}' cannot be unpacked: {error}.") from error
            loaded.append(values.reshape(shape, order="F" if fortran else "C"))
        return loaded[0]

    return Column(name, shape, dtype, lambda start, stop: whole()[start:stop], whole)


def _open_member(path: Path, file: IO[bytes], place: str, start: int, size: int) -> Array:
    """Return the array that begins at byte `start`, memory-mapped."""
    file.seek(start)
    shape, fortran, dtype = _read_header(file, place)
    offset = file.tell()
    nbytes = _nbytes(shape, dtype)
    if offset - start + nbytes > size or offset + nbytes > path.stat().st_size:
        raise DataError(f"'{place}' is truncated: it declares {nbytes} bytes of values and holds fewer.")
    order: Literal["F", "C"] = "F" if fortran else "C"
    if nbytes == 0:
        return np.empty(shape, dtype, order)
    if not shape:  # numpy maps no scalars
        return np.fromfile(path, dtype, 1, offset=offset).reshape(())
    return np.memmap(path, dtype=dtype, mode="r", offset=offset, shape=shape, order=order)


def _read_header(stream: IO[bytes], place: str) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    try:
        version = np.lib.format.read_magic(stream)
        if version == (1, 0):
            shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
        elif version == (2, 0):
            shape, fortran, dtype = np.lib.format.read_array_header_2_0(stream)
        else:
            raise DataError(f"'{place}' is an .npy file of version {version}, which holds no plain numbers.")
    except (ValueError, EOFError, SyntaxError, OverflowError, RecursionError) as error:
        raise DataError(f"'{place}' is no .npy file: {' '.join(str(error).split())[:200]}.") from error
    if dtype.hasobject:
        raise DataError(f"'{place}' holds pickled Python objects, which are not read; save an array of numbers.")
    if dtype.kind not in _KINDS:
        raise DataError(f"'{place}' has the dtype {dtype}; an array of numbers is needed.")
    if any(dim < 0 for dim in shape):
        raise DataError(f"'{place}' declares the impossible shape {shape}.")
    return shape, fortran, dtype


def _nbytes(shape: tuple[int, ...], dtype: np.dtype[Any]) -> int:
    count = 1
    for dim in shape:
        count *= dim
    return count * dtype.itemsize


def _column(name: str, values: Array) -> Column:
    return Column(name, values.shape, values.dtype, lambda start, stop: values[start:stop], lambda: values)
