"""How much memory calibration takes, and opening a network of more than 2 GB."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from tests.benchmarks.measuring import Row, megabytes, milliseconds, ratio_row, run_child
from tests.networks import mosaics, network_path

FEW, MANY = 32, 256
SIZE = 80
"""Pixels of a mosaic: demosaicnet then has 1 M activations for each."""
WIDTH, LAYERS = 4096, 34
"""34 matrices of 64 MB."""


def rows() -> Iterator[Row]:
    """Yield the rows of memory."""
    with tempfile.TemporaryDirectory() as name:
        yield _calibration(Path(name))
    with tempfile.TemporaryDirectory() as name:
        yield _large_network(Path(name))


def _calibration(folder: Path) -> Row:
    data = folder / "mosaics.npy"
    np.save(data, mosaics(MANY, SIZE)[0])
    few, many = (run_child("child_calibration", network_path("demosaicnet"), data, samples) for samples in (FEW, MANY))
    most = 1.25  # the data file, mapped, counts too
    return ratio_row(
        f"peak memory of calibration with {MANY} samples, demosaicnet: {megabytes(many['bytes'])} of activations",
        megabytes(many["peak"]),
        f"with {FEW} samples {megabytes(few['peak'])}",
        many["peak"] / few["peak"],
        most,
    )


def _large_network(folder: Path) -> Row:
    size = 4 * WIDTH * WIDTH * LAYERS
    if shutil.disk_usage(folder).free < 2**28:
        raise OSError("There is no room for a temporary file.")
    path = _write_large_network(folder)
    opened = run_child("child_open", path)
    assert opened["layers"] == LAYERS
    most = 0.5
    return ratio_row(
        f"peak memory of opening {size / 1e9:.1f} GB with external data and showing a layer "
        f"(in {milliseconds(opened['seconds'])})",
        megabytes(opened["peak"]),
        f"file {megabytes(size)}",
        opened["peak"] / size,
        most,
    )


def _write_large_network(folder: Path) -> Path:
    """Write a row of matrix products whose weights lie in a sparse file: its zeros take no room on the disk."""
    nodes, tensors = [], []
    bytes_each = 4 * WIDTH * WIDTH
    for i in range(LAYERS):
        tensor = TensorProto(name=f"w{i}", data_type=TensorProto.FLOAT, dims=(WIDTH, WIDTH))
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (("location", "weights"), ("offset", i * bytes_each), ("length", bytes_each)):
            tensor.external_data.add(key=key, value=str(value))
        tensors.append(tensor)
        nodes.append(helper.make_node("MatMul", [f"x{i}", f"w{i}"], [f"x{i + 1}"], name=f"layer{i}"))
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", WIDTH]) for name in ("x0", f"x{LAYERS}")]
    graph = helper.make_graph(nodes, "large", ends[:1], ends[1:], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    with (folder / "weights").open("wb") as file:
        file.truncate(bytes_each * LAYERS)
    path = folder / "large.onnx"
    onnx.save(model, path)
    return path
