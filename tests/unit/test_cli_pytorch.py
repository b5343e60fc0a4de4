"""PyTorch networks on the command line: every command takes them, and what goes wrong is one sentence."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from quantgui.cli.main import main
from quantgui.paths import sample_models
from tests.pytorch_modules import picture

CODE = f"{Path(__file__).parents[1] / 'pytorch_modules.py'}"
SHAPE = ["--input-shape", "1x3x16x16", "--exporter", "old"]


@pytest.fixture
def weights(tmp_path: Path) -> str:
    path = tmp_path / "net.pth"
    torch.save(picture().state_dict(), path)
    return str(path)


def sentence(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    line = err.strip().splitlines()[-1]
    assert line.startswith("quantgui: ")
    assert line.endswith(".")
    return line


def test_that_commands_take_code_with_weights(weights, tmp_path, capsys) -> None:
    network = [f"{CODE}:picture", "--weights", weights, "--trust", *SHAPE]
    data, out = str(tmp_path / "x.npz"), str(tmp_path / "out.onnx")
    np.savez(data, x=np.random.default_rng(0).normal(size=(6, 3, 16, 16)).astype(np.float32))
    assert main(["inspect", *network, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["network"] == "picture"
    assert found["path"] == f"{CODE}:picture"
    assert [layer["name"] for layer in found["layers"]] == [
        "stem", "blocks.0.conv1", "blocks.1", "blocks.2.conv1", "head"
    ]  # fmt: skip
    assert found["conversion"]["exporter"] == "old"
    assert found["conversion"]["difference"] < 1e-5
    assert main(["export", *network, "--data", data, "--preset", "W8", "-o", out, "--json"]) == 0
    capsys.readouterr()
    assert main(["verify", *network[:1], out, *network[1:], "--data", data, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["output_sqnr_db"] != "-inf"


def test_that_data_says_what_the_network_takes(weights, tmp_path, capsys) -> None:
    data = str(tmp_path / "x.npz")
    np.savez(data, x=np.zeros((4, 3, 16, 16), np.float32))
    words = ["evaluate", f"{CODE}:picture", "--weights", weights, "--trust", "--exporter", "old", "--data", data]
    assert main([*words, "--preset", "W8", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["samples"] == 4


def test_that_what_goes_wrong_is_one_sentence(weights, capsys) -> None:
    digits = str(sample_models() / "digits" / "digits.onnx")
    for words, said in (
        ([f"{CODE}:picture"], "--trust"),
        ([f"{CODE}:picture", "--trust"], "--input-shape"),
        ([f"{CODE}:picture", "--trust", "--input-shape", "3by4"], "1x3x224x224"),
        ([f"{CODE}:picture", "--trust", "--free-axes", "batch", *SHAPE], "names no axes"),
        ([f"{CODE}:pictures", "--trust"], "did you mean 'picture'"),
        ([f"{CODE}:frames", "--trust", "--weights", weights], "do not fit the module"),
        ([f"{CODE}:picture", "--trust", "--weights", "none.pth"], "none.pth"),
        ([digits, "--trust"], "--trust belongs to"),
        ([weights], "module:factory"),
        (["none.pt2"], "no file"),
    ):
        assert said in sentence(["inspect", *words], capsys)


def test_that_the_switch_of_the_exporter_decides_whether_time_may_vary(capsys) -> None:
    code = str(Path(__file__).parents[1] / "pytorch_calls.py")
    words = ["inspect", f"{code}:steps", "--trust", "--free-axes", "0,1", "--json", "--exporter"]
    found = {}
    for exporter in ("dynamo", "old"):
        assert main([*words, exporter]) == 0
        found[exporter] = json.loads(capsys.readouterr().out)
        assert found[exporter]["conversion"]["exporter"] == exporter
    assert any("froze axis 1 of 'x' at 4" in note and "the old" in note for note in found["dynamo"]["warnings"])
    assert found["dynamo"]["conversion"]["frozen_axes"] == ["axis 1 of 'x' at 4"]
    assert found["old"]["conversion"]["frozen_axes"] == []
    assert found["old"]["warnings"] == []
