"""Writing a network file: whole or not at all.

Everything is written into a folder beside the target, checked there as a user's runtime would load it, and only then
put in place. Networks beyond protobuf's limit of 2 GB get their large tensors into a second file, ``NAME.onnx.data``.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
import onnx
import onnxruntime
from google.protobuf.message import EncodeError  # type: ignore[import-untyped]

from quantgui.errors import ExportError
from quantgui.export.weights import Initializer
from quantgui.network.session import RUNTIME_ERRORS, describe_error
from quantgui.results import Array

INLINE_LIMIT = 1_800_000_000
"""Bytes of tensors up to which one file holds all; protobuf ends at 2 GiB."""
_LARGE = 1024
"""Bytes of the smallest tensor that goes into the second file."""
_ALIGNMENT = 4096
"""Offsets in the second file are multiples of a page, so that it can be memory-mapped."""
_STEP = 1 << 24


def refuse_source(path: Path, source: Path) -> None:
    """Refuse to write over the opened network, or over the data beside it.

    Raises:
        ExportError: `path`, or the data file beside it, belongs to the network at `source`.
    """
    if not source.exists():
        return
    if path.exists() and path.samefile(source):
        raise ExportError(f"'{path.name}' is the opened network itself; choose another name for the quantized one.")
    data = data_path(path)
    if not data.exists():
        return
    model = onnx.load(source, load_external_data=False)
    if any(data.samefile(other) for other in external_files(source, model)):
        raise ExportError(f"'{data.name}' holds the opened network's weights; choose another file name.")


def external_files(path: Path, model: onnx.ModelProto) -> list[Path]:
    """Return the existing data files of the network `model` that lies at `path`."""
    locations = {
        entry.value
        for tensor in model.graph.initializer
        for entry in tensor.external_data
        if entry.key == "location" and tensor.data_location == onnx.TensorProto.EXTERNAL
    }
    return [file for file in (path.parent / location for location in sorted(locations)) if file.is_file()]


def data_path(path: Path) -> Path:
    """Return where the tensors of a large network at `path` lie."""
    return path.with_name(f"{path.name}.data")


def write_network(
    path: Path, model: onnx.ModelProto, initializers: Sequence[Initializer], *, inline_limit: int = INLINE_LIMIT
) -> int:
    """Write `model` with `initializers` appended to its own, and return the bytes of all files written.

    Raises:
        ExportError: the folder cannot be written, the disk is full, or ONNX Runtime does not load the result.
    """
    beside = sum(each.data.nbytes for each in initializers) > inline_limit
    with _folder_beside(path) as folder, _write_errors(path):
        written = folder / path.name
        if beside:
            with data_path(written).open("wb") as file:
                _write_tensors(file, model, initializers, data_path(path).name)
                _flush(file)
        else:
            for each in initializers:
                tensor = model.graph.initializer.add()
                tensor.CopyFrom(each.tensor)
                tensor.raw_data = each.data.tobytes()
        with written.open("wb") as file:
            file.write(model.SerializeToString())
            _flush(file)
        _check(written, model.graph.output)
        size = written.stat().st_size
        if beside:
            size += data_path(written).stat().st_size
            data_path(written).replace(data_path(path))
        written.replace(path)
        return size


def _write_tensors(file: BinaryIO, model: onnx.ModelProto, initializers: Sequence[Initializer], location: str) -> None:
    for each in initializers:
        tensor = model.graph.initializer.add()
        tensor.CopyFrom(each.tensor)
        if each.data.nbytes < _LARGE:
            tensor.raw_data = each.data.tobytes()
            continue
        offset = -(-file.tell() // _ALIGNMENT) * _ALIGNMENT
        file.seek(offset)
        file.writelines(_bytes_of(each.data))
        tensor.data_location = onnx.TensorProto.EXTERNAL
        entries = {"location": location, "offset": str(offset), "length": str(each.data.nbytes)}
        for key, value in entries.items():
            tensor.external_data.add(key=key, value=value)


def _bytes_of(values: Array) -> Iterator[bytes]:
    flat = values.reshape(-1).view(np.uint8)
    for start in range(0, flat.size, _STEP):
        yield flat[start : start + _STEP].tobytes()


def _flush(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _check(path: Path, outputs: Sequence[onnx.ValueInfoProto]) -> None:
    """Load the file at `path` as a user's runtime would."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        if all(output.type.tensor_type.HasField("shape") for output in outputs):
            # The checker refuses outputs of unknown rank, which ONNX allows and ONNX Runtime runs.
            onnx.checker.check_model(str(path))
        onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except onnx.checker.ValidationError as error:
        text = " ".join(str(error).split())
        raise ExportError(f"The quantized network is no valid ONNX network: {text[:300].rstrip('. ')}.") from error
    except RUNTIME_ERRORS as error:
        raise ExportError(
            f"The quantized network was not written, as {_lower(describe_error(error, 'load'))}"
        ) from error


def _lower(sentence: str) -> str:
    return sentence if sentence.startswith("ONNX") else sentence[0].lower() + sentence[1:]


@contextmanager
def _folder_beside(path: Path) -> Iterator[Path]:
    """Make a folder on the disk of `path` for the time of the block."""
    if path.is_dir():
        raise ExportError(f"'{path}' is a folder; give the quantized network a file name.")
    if not path.parent.is_dir():
        raise ExportError(f"There is no folder '{path.parent}'; choose another place for the quantized network.")
    with _write_errors(path):
        folder = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _write_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ExportError(f"Cannot write '{path}': {error.strerror or error}.") from error
    except EncodeError as error:
        raise ExportError(f"Cannot write '{path}': the graph alone is larger than 2 GB.") from error
