"""Networks of every kind of layer, held to weights quantized here by simple loops and put into the original file.

The oracle knows nothing of the program: it changes initializers of the file, and ONNX Runtime runs it as it is.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
import pytest
from builders import tensor_info, values
from onnx import TensorProto, helper, numpy_helper

from quantgui.cli.main import main

node = helper.make_node
Array = np.ndarray


@dataclass(frozen=True)
class Case:
    """A network, its data, and the axis of the channels of each weight; (gates,) where it is recurrent."""

    nodes: list[onnx.NodeProto]
    inputs: list[onnx.ValueInfoProto]
    outputs: list[str]
    constants: dict[str, Array]
    data: dict[str, Array]
    axes: Mapping[str, int | tuple[int]]


def weight(*shape: int, seed: int = 1) -> Array:
    return values(*shape, seed=seed, scale=1 / math.sqrt(math.prod(shape[1:])))


def convolutions() -> Case:
    nodes = [
        node("Conv", ["x", "w1", "b1"], ["a"], "signal: 1", group=2, pads=[2, 2]),
        node("Relu", ["a"], ["r"], "relu"),
        node("Unsqueeze", ["r", "axes"], ["u"], "unsqueeze"),
        node("Conv", ["u", "w3"], ["v"], "volume/é;", strides=[1, 1, 2]),
        node("Squeeze", ["v", "axes"], ["s"], "squeeze"),
        node("ConvTranspose", ["s", "wt", "bt"], ["y"], "up", group=2, strides=[2]),
    ]
    constants = {
        "w1": weight(8, 3, 5), "b1": weight(8), "axes": np.array([2, 3]), "w3": weight(6, 8, 1, 1, 3),
        "wt": weight(6, 4, 3), "bt": weight(8),
    }  # fmt: skip
    return Case(
        nodes, [tensor_info("x", ["n", 6, 40])], ["y"], constants, {"x": values(9, 6, 40)}, {"w1": 0, "w3": 0, "wt": 1}
    )


def products() -> Case:
    nodes = [
        node("Gemm", ["x", "g0", "b0"], ["a"], "gemm", alpha=0.5, beta=2.0),
        node("Relu", ["a"], ["r"], "relu"),
        node("Gemm", ["r", "g1"], ["c"], "gemm_t", alpha=1.5, transB=1),
        node("MatMul", ["left", "z"], ["d"], "left"),
        node("MatMul", ["d", "w3"], ["e"], "rank 3"),
        node("Tanh", ["e"], ["y"], "tanh"),
    ]
    constants = {
        "g0": weight(20, 33), "b0": weight(33), "g1": weight(10, 33), "left": weight(4, 6), "w3": weight(1, 10, 7),
    }  # fmt: skip
    inputs = [tensor_info("x", ["n", 20]), tensor_info("z", ["n", 6, 10])]
    data = {"x": values(8, 20), "z": values(8, 6, 10, seed=2)}
    return Case(nodes, inputs, ["c", "y"], constants, data, {"g0": 1, "g1": 0, "left": 0, "w3": 2})


def recurrent(op: str, gates: int) -> Case:
    hidden = 12
    states = ["h0", "c0"] if op == "LSTM" else ["h0"]
    nodes = [node("Transpose", ["x"], ["xt"], "turn", perm=[1, 0, 2])]
    nodes += [node("Transpose", [name[0]], [name], f"turn {name}", perm=[1, 0, 2]) for name in states]
    nodes += [
        node(
            op,
            ["xt", "W", "R", "B", "lengths", *states],
            ["", "last"],
            "rnn/0",
            hidden_size=hidden,
            direction="bidirectional",
        ),
        node("Transpose", ["last"], ["y"], "back", perm=[1, 0, 2]),
    ]
    inputs = [tensor_info("x", ["n", 9, 8]), tensor_info("lengths", ["n"], TensorProto.INT32)]
    inputs += [tensor_info(name[0], ["n", 2, hidden]) for name in states]
    constants = {"W": weight(2, gates * hidden, 8), "R": weight(2, gates * hidden, hidden)}
    constants["B"] = weight(2, 2 * gates * hidden)
    data = {"x": values(7, 9, 8), "lengths": np.array([9, 3, 1, 5, 9, 2, 4], np.int32)}
    data |= {name[0]: values(7, 2, hidden, seed=i) for i, name in enumerate(states)}
    return Case(nodes, inputs, ["y"], constants, data, {"W": (gates,), "R": (gates,)})


def tied() -> Case:
    nodes = [
        node("Gather", ["table", "ids"], ["e"], "embedding"),
        node("ReduceMean", ["e"], ["m"], "mean", axes=[1], keepdims=0),
        node("Transpose", ["table"], ["t"], "turn", perm=[1, 0]),
        node("MatMul", ["m", "t"], ["y"], "head"),
    ]
    ids = np.random.default_rng(0).integers(0, 50, (6, 4))
    inputs = [tensor_info("ids", ["n", 4], TensorProto.INT64)]
    return Case(nodes, inputs, ["y"], {"table": values(50, 24)}, {"ids": ids}, {"table": 0})


def branches() -> Case:
    inner = helper.make_graph([node("Conv", ["s", "w1"], ["i"], "inner")], "inner", [], [tensor_info("i", None)])
    other = helper.make_graph([node("Neg", ["s"], ["o"], "other")], "other", [], [tensor_info("o", None)])
    choice = node("If", ["positive"], ["chosen"], "if", then_branch=inner, else_branch=other)
    state = [tensor_info("i_", [], TensorProto.INT64), tensor_info("go", [], TensorProto.BOOL), tensor_info("s", None)]
    body = helper.make_graph(
        [choice, node("Tanh", ["chosen"], ["next"], "tanh"), node("Identity", ["go"], ["on"], "on")],
        "body",
        state,
        [tensor_info("on", [], TensorProto.BOOL), tensor_info("next", None)],
    )
    nodes = [
        node("Conv", ["x", "w0"], ["stem"], "stem"),
        node("ReduceSum", ["x"], ["sum"], "sum", keepdims=0),
        node("Greater", ["sum", "least"], ["positive"], "greater"),
        node("Loop", ["three", "", "stem"], ["y"], "loop", body=body),
    ]
    constants = {"w0": weight(4, 3, 3, 3), "w1": weight(4, 4, 1, 1), "least": np.float32(-1e9), "three": np.int64(3)}
    data = {"x": values(5, 3, 8, 8)}
    return Case(nodes, [tensor_info("x", ["n", 3, 8, 8])], ["y"], constants, data, {"w0": 0, "w1": 0})


CASES = {
    "convolutions": convolutions,
    "products": products,
    "LSTM": lambda: recurrent("LSTM", 4),
    "GRU": lambda: recurrent("GRU", 3),
    "RNN": lambda: recurrent("RNN", 1),
    "tied": tied,
    "branches": branches,
}
SPECS: dict[str, dict[str, Any]] = {
    "int8": {"format": "int8"},
    "int8 per tensor": {"format": "int8", "granularity": "tensor"},
    "int3 full range": {"format": "int3", "full_range": True},
    "int4 narrow range": {"format": "int4", "narrow_range": True, "full_range": True},
    "uint4 asymmetric": {"format": "uint4", "symmetric": False},
    "uint6 symmetric": {"format": "uint6"},
    "int5 in groups of 7": {"format": "int5", "symmetric": False, "granularity": {"group_size": 7}},
    "uint2 in groups of 3": {"format": "uint2", "symmetric": False, "granularity": {"group_size": 3}},
    "int12 fixed": {"format": "int12", "range": {"low": -0.3, "high": 0.1}},
    "float16": {"format": "float16"},
    "bfloat16": {"format": "bfloat16"},
}


def write(case: Case, path: Path, constants: Mapping[str, Array]) -> Path:
    initializers = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    outputs = [tensor_info(name, None) for name in case.outputs]
    graph = helper.make_graph(case.nodes, "g", case.inputs, outputs, initializers)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def rounded(group: Array, spec: Mapping[str, Any]) -> Array:
    """Return one group's values on its grid."""
    name = spec["format"]
    signed, bits = not name.startswith("u"), int(name.lstrip("uint"))
    most = 2 ** (bits - signed) - 1
    least = (-(2 ** (bits - 1)) if signed else 0) + bool(spec.get("narrow_range"))
    given = spec.get("range", {"low": min(group.min(), 0), "high": max(group.max(), 0)})
    low, high = float(given["low"]), float(given["high"])
    if spec.get("symmetric", True):
        zero = 0 if signed else 2 ** (bits - 1)
        scale = np.float32(max(-low, high) / ((most - least) / 2 if spec.get("full_range") else most - zero))
    else:
        scale = np.float32((high - low) / (most - least))
        zero = int(np.clip(np.rint(least - low / scale), least, most))
    codes = np.clip(np.rint(group / scale) + zero, least, most)
    return ((codes - zero) * scale).astype(np.float32)


def quantized(matrix: Array, spec: Mapping[str, Any]) -> Array:
    """Return a matrix of channels by elements, quantized group by group."""
    if "float" in spec["format"]:
        kind = np.float16 if spec["format"] == "float16" else ml_dtypes.bfloat16
        return matrix.astype(kind).astype(np.float32)
    granularity = spec.get("granularity", "channel")
    if granularity == "tensor":
        return rounded(matrix, spec)
    size = matrix.shape[1] if granularity == "channel" else granularity["group_size"]
    result = np.empty_like(matrix)
    for channel in range(matrix.shape[0]):
        for start in range(0, matrix.shape[1], size):
            part = slice(start, start + size)
            result[channel, part] = rounded(matrix[channel, part], spec)
    return result


def replaced(values: Array, axis: int | tuple[int], spec: Mapping[str, Any]) -> Array:
    if isinstance(axis, tuple):
        parts = values.reshape(-1, values.shape[1] // axis[0], values.shape[2])
        return np.stack([quantized(part, spec) for part in parts]).reshape(values.shape)
    turned = np.moveaxis(values, axis, 0)
    matrix = quantized(turned.reshape(len(turned), -1), spec)
    return np.ascontiguousarray(np.moveaxis(matrix.reshape(turned.shape), 0, axis))


def run(path: Path, data: Mapping[str, Array]) -> list[Array]:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    return list(onnxruntime.InferenceSession(str(path), options).run(None, dict(data)))


def sqnr(reference: list[Array], answer: list[Array]) -> float:
    pairs = [(a.astype(np.float64), b.astype(np.float64)) for a, b in zip(reference, answer, strict=True)]
    return -10 * math.log10(float(np.mean([((a - b) ** 2).sum() / (a**2).sum() for a, b in pairs])))


def command(capsys: pytest.CaptureFixture[str], *words: str | Path) -> dict[str, Any]:
    code = main([*map(str, words), "--json"])
    captured = capsys.readouterr()
    assert code == 0, captured.err
    found: dict[str, Any] = json.loads(captured.out)
    return found


@pytest.mark.parametrize("name", CASES)
def test_that_weights_quantized_by_simple_loops_give_the_same_quality(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    case = CASES[name]()
    path = write(case, tmp_path / "network.onnx", case.constants)
    np.savez(tmp_path / "data.npz", **case.data)
    layers = command(capsys, "inspect", path)["layers"]
    assert {layer["weight"] for layer in layers} == set(case.axes)
    assert sum(layer["parameters"] for layer in layers) == sum(case.constants[weight].size for weight in case.axes)
    reference = run(path, case.data)
    for label, spec in SPECS.items():
        changed = {key: replaced(case.constants[key], axis, spec) for key, axis in case.axes.items()}
        oracle = write(case, tmp_path / "oracle.onnx", {**case.constants, **changed})
        expected = sqnr(reference, run(oracle, case.data))
        config = tmp_path / "config.json"
        config.write_text(json.dumps({"version": 1, "default": {"weights": spec}}))
        found = command(capsys, "evaluate", path, "--data", tmp_path / "data.npz", "--config", config)
        assert found["output_sqnr_db"] == pytest.approx(expected, abs=0.02), label


@pytest.mark.parametrize("preset", ["W8A8", "W4A8", "W16A16"])
@pytest.mark.parametrize("name", CASES)
def test_that_the_exported_file_run_plainly_has_the_quality_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, preset: str
) -> None:
    case = CASES[name]()
    path, data, out = tmp_path / "network.onnx", tmp_path / "data.npz", tmp_path / "out.onnx"
    write(case, path, case.constants)
    np.savez(data, **case.data)
    words = [path, "--data", data, "--preset", preset, "--as-is"]
    shown = command(capsys, "evaluate", *words)["output_sqnr_db"]
    exported = command(capsys, "export", *words, "-o", out)
    assert exported["file_bytes"] == out.stat().st_size
    # A value between two codes may fall to either side where sums are added in another order.
    assert sqnr(run(path, case.data), run(out, case.data)) == pytest.approx(shown, abs=0.3 if shown < 80 else 3)
