from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from quantgui.errors import ExportError
from quantgui.export.files import data_path, refuse_source, write_network
from quantgui.export.stored import initializer

WEIGHT = np.arange(40 * 50, dtype=np.float32).reshape(40, 50)
BIAS = np.arange(50, dtype=np.float32)


def network() -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["xw"]), helper.make_node("Add", ["xw", "b"], ["y"])]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes, "network", [value("x", TensorProto.FLOAT, ["n", 40])], [value("y", TensorProto.FLOAT, ["n", 50])]
    )
    graph.initializer.extend([initializer("w", WEIGHT).tensor, initializer("b", BIAS).tensor])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return model, {"w": WEIGHT, "b": BIAS}


@pytest.mark.parametrize("limit", [1000, 10**6], ids=["two files", "one file"])
def test_that_the_file_holds_the_network(tmp_path: Path, limit: int) -> None:
    path = tmp_path / "out.onnx"
    size = write_network(path, *network(), inline_limit=limit)
    files = sorted(file.name for file in tmp_path.iterdir() if not file.name.startswith("xdg"))
    assert files == (["out.onnx", "out.onnx.data"] if limit == 1000 else ["out.onnx"])
    assert size == sum((tmp_path / name).stat().st_size for name in files)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    x = np.ones((2, 40), np.float32)
    np.testing.assert_allclose(session.run(None, {"x": x})[0], x @ WEIGHT + BIAS, rtol=1e-6)


def test_that_the_file_has_the_usual_permissions(tmp_path: Path) -> None:
    write_network(tmp_path / "out.onnx", *network())
    plain = tmp_path / "plain"
    plain.write_text("")
    assert (tmp_path / "out.onnx").stat().st_mode == plain.stat().st_mode


def test_that_an_invalid_network_leaves_the_old_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "out.onnx"
    path.write_bytes(b"old")
    model, data = network()
    del model.graph.initializer[1:]
    with pytest.raises(ExportError, match=r"no valid ONNX network|was not written"):
        write_network(path, model, data)
    assert path.read_bytes() == b"old"
    assert [file.name for file in tmp_path.iterdir()] == ["out.onnx"]


def test_that_a_network_onnx_runtime_cannot_run_is_not_written(tmp_path: Path) -> None:
    model, data = network()
    # Far beyond what any release of ONNX Runtime reads; the checker lets it pass.
    model.opset_import[0].version = 999
    with pytest.raises(ExportError, match=r"^The quantized network was not written, as "):
        write_network(tmp_path / "out.onnx", model, data)
    assert not list(tmp_path.iterdir())


def test_that_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="There is no folder"):
        write_network(tmp_path / "missing" / "out.onnx", *network())


def test_that_a_folder_is_no_file_name(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="is a folder"):
        write_network(tmp_path, *network())


def test_that_a_folder_that_cannot_be_written_is_one_sentence() -> None:
    with pytest.raises(ExportError, match=r"^Cannot write '/proc/out.onnx': .*\.$"):
        write_network(Path("/proc/out.onnx"), *network())


_FULL_DISK = """
import resource, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_export_files import network
from quantgui.errors import ExportError
from quantgui.export.files import write_network
resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))  # as if the disk ended there
try:
    write_network(Path(sys.argv[1]), *network(), inline_limit=int(sys.argv[3]))
except ExportError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="the limit of a file's size is a feature of Unix")
@pytest.mark.parametrize("limit", [1000, 10**6], ids=["two files", "one file"])
def test_that_a_full_disk_leaves_the_old_file_alone(tmp_path: Path, limit: int) -> None:
    folder = tmp_path / "folder"  # other files may appear in the test's home
    folder.mkdir()
    path = folder / "out.onnx"
    path.write_bytes(b"old")
    result = subprocess.run(
        [sys.executable, "-B", "-c", _FULL_DISK, str(path), str(Path(__file__).parent), str(limit)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.stdout.startswith(f"Cannot write '{path}': "), result.stderr
    assert len(result.stdout.splitlines()) == 1
    assert path.read_bytes() == b"old"
    assert [file.name for file in folder.iterdir()] == ["out.onnx"]


def test_that_a_pipe_or_device_is_left_where_it_is(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ExportError, match="is no file"):
        write_network(tmp_path / "pipe", *network())
    assert (tmp_path / "pipe").is_fifo()
    assert [path.name for path in tmp_path.iterdir()] == ["pipe"]


def test_that_an_impossible_name_gives_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / f"{'x' * 300}.onnx"
    with pytest.raises(ExportError, match="too long"):
        refuse_source(path, tmp_path)
    with pytest.raises(ExportError, match="too long"):
        write_network(path, *network())


def test_that_the_opened_network_is_not_overwritten(tmp_path: Path) -> None:
    source = tmp_path / "net.onnx"
    write_network(source, *network())
    (tmp_path / "link.onnx").symlink_to(source)
    for path in (source, tmp_path / "link.onnx"):
        with pytest.raises(ExportError, match="is the opened network itself"):
            refuse_source(path, source)
    refuse_source(tmp_path / "other.onnx", source)


def test_that_the_opened_networks_weights_are_not_overwritten(tmp_path: Path) -> None:
    source, model = tmp_path / "net.onnx", network()
    write_network(tmp_path / "out.onnx", *model, inline_limit=1000)
    (tmp_path / "out.onnx").rename(source)
    assert data_path(tmp_path / "out.onnx").exists()
    for name in ("out.onnx", "out.onnx.data"):
        with pytest.raises(ExportError, match="holds the opened network's weights"):
            refuse_source(tmp_path / name, source)
    refuse_source(Path("."), source)
