"""Writing a network file: whole or not at all.

Everything is written into a folder beside the target, checked there as a user's runtime would load it, and only then
put in place. Networks beyond protobuf's limit of 2 GB get their large tensors into a second file, ``NAME.onnx.data``.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
import onnx
import onnxruntime
from google.protobuf.message import EncodeError  # type: ignore[import-untyped]

from quantgui.errors import ExportError
from quantgui.network.runtime_faults import faulty_optimizers
from quantgui.network.session import RUNTIME_ERRORS, describe_error
from quantgui.network.surgery import subgraphs
from quantgui.results import Array
from quantgui.spec.pytorch_source import is_pytorch

INLINE_LIMIT = 1_800_000_000
"""Bytes of tensors up to which one file holds all; protobuf ends at 2 GiB."""
_LARGE = 1024
"""Bytes of the smallest tensor that goes into the second file."""
_ALIGNMENT = 4096
"""Offsets in the second file are multiples of a page, so that it can be memory-mapped."""
_STEP = 1 << 24


def refuse_source(path: Path, source: Path) -> None:
    """Refuse to write over the opened network, or over its data.

    Raises:
        ExportError: `path`, or the data file beside it, belongs to the network at `source`.
    """
    with _write_errors(path):
        if path.is_dir() or not source.exists():
            return
        targets = [target for target in (path, data_path(path)) if target.exists()]
    if any(target.samefile(source) for target in targets):
        raise ExportError(f"'{path.name}' is the opened network itself; choose another name for the quantized one.")
    if not targets or is_pytorch(source.name):
        return
    used = external_files(source, onnx.load(source, load_external_data=False))
    for target in targets:
        if any(target.samefile(other) for other in used):
            raise ExportError(f"'{target.name}' holds the opened network's weights; choose another file name.")


def external_files(path: Path, model: onnx.ModelProto) -> list[Path]:
    """Return the existing data files of the network `model` that lies at `path`."""
    locations = {
        entry.value
        for tensor in initializers(model.graph)
        for entry in tensor.external_data
        if entry.key == "location" and tensor.data_location == onnx.TensorProto.EXTERNAL
    }
    return [file for file in (path.parent / location for location in sorted(locations)) if file.is_file()]


def data_path(path: Path) -> Path:
    """Return where the tensors of a large network at `path` lie."""
    return path.with_name(f"{path.name}.data")


def write_network(
    path: Path,
    model: onnx.ModelProto,
    data: Mapping[str, Array],
    *,
    probe: Mapping[str, Array] | None = None,
    inline_limit: int = INLINE_LIMIT,
    fused: bool = True,
) -> int:
    """Write `model` and return the bytes of all files written.

    Args:
        path: where to.
        model: the network; `data` is put into its initializers, in place.
        data: bytes of initializers by name, as ONNX stores them.
        probe: inputs on which the file is run once before it is put in place.
        inline_limit: bytes of data up to which there is only one file.
        fused: whether the check lets ONNX Runtime fuse Q/DQ with operators, as it does unless told otherwise.

    Raises:
        ExportError: the folder cannot be written, the disk is full, or ONNX Runtime does not load the result.
    """
    beside = sum(values.nbytes for values in data.values()) > inline_limit
    with _folder_beside(path) as folder, _write_errors(path):
        written = folder / path.name
        tensors = [tensor for tensor in initializers(model.graph) if tensor.name in data]
        if beside:
            with data_path(written).open("wb") as file:
                _write_tensors(file, tensors, data, data_path(path).name)
                _flush(file)
        else:
            for tensor in tensors:
                tensor.raw_data = data[tensor.name].tobytes()
        with written.open("wb") as file:
            file.write(model.SerializeToString())
            _flush(file)
        _check(written, model, probe, fused=fused)
        size = written.stat().st_size
        if beside:
            size += data_path(written).stat().st_size
            data_path(written).replace(data_path(path))
        written.replace(path)
        return size


def initializers(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """Yield the initializers of `graph` and of the bodies inside it."""
    yield from graph.initializer
    for node in graph.node:
        for body in subgraphs(node):
            yield from initializers(body)


def _write_tensors(
    file: BinaryIO, tensors: Sequence[onnx.TensorProto], data: Mapping[str, Array], location: str
) -> None:
    for tensor in tensors:
        values = data[tensor.name]
        if values.nbytes < _LARGE:
            tensor.raw_data = values.tobytes()
            continue
        offset = -(-file.tell() // _ALIGNMENT) * _ALIGNMENT
        file.seek(offset)
        file.writelines(_bytes_of(values))
        tensor.data_location = onnx.TensorProto.EXTERNAL
        for key, value in (("location", location), ("offset", str(offset)), ("length", str(values.nbytes))):
            tensor.external_data.add(key=key, value=value)


def _bytes_of(values: Array) -> Iterator[bytes]:
    flat = values.reshape(-1).view(np.uint8)
    for start in range(0, flat.size, _STEP):
        yield flat[start : start + _STEP].tobytes()


def _flush(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _check(path: Path, model: onnx.ModelProto, probe: Mapping[str, Array] | None, *, fused: bool) -> None:
    """Load the file at `path`, of `model`, as a user's runtime would, and run it."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    if not fused:
        options.add_session_config_entry("session.disable_quant_qdq", "1")
    action = "load"
    try:
        if all(output.type.tensor_type.HasField("shape") for output in model.graph.output):
            # The checker refuses outputs of unknown rank, which ONNX allows and ONNX Runtime runs.
            onnx.checker.check_model(str(path))
        session = onnxruntime.InferenceSession(
            str(path),
            options,
            providers=["CPUExecutionProvider"],
            disabled_optimizers=list(faulty_optimizers(model)) or None,
        )
        action = "run"
        if probe is not None:
            session.run(None, {info.name: probe[info.name] for info in session.get_inputs()})
    except onnx.checker.ValidationError as error:
        text = " ".join(str(error).split())
        raise ExportError(f"The quantized network is no valid ONNX network: {text[:300].rstrip('. ')}.") from error
    except RUNTIME_ERRORS as error:
        raise ExportError(
            f"The quantized network was not written, as {_lower(describe_error(error, action))}"
        ) from error


def _lower(sentence: str) -> str:
    return sentence if sentence.startswith("ONNX") else sentence[0].lower() + sentence[1:]


@contextmanager
def _folder_beside(path: Path) -> Iterator[Path]:
    """Make a folder on the disk of `path` for the time of the block."""
    with _write_errors(path):
        is_folder, is_other = path.is_dir(), path.exists() and not path.is_file()
    if is_folder:
        raise ExportError(f"'{path}' is a folder; give the quantized network a file name.")
    if is_other:
        # A device or a pipe would be taken away and a file put in its place.
        raise ExportError(f"'{path}' is no file; choose another place for the quantized network.")
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
