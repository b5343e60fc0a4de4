"""Files for other tools, held against the tools themselves as far as they run on a bare machine."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
from pathlib import Path

import builders
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper

from quantgui.engine.bench import Bench
from quantgui.engine.requests import Export, OpenData, OpenNetwork, WriteSettings
from quantgui.spec.presets import find_preset, preset_config

DIGITS = Path(__file__).parents[2] / "sample_models/digits"


def outputs(path: Path, pictures: np.ndarray, name: str = "picture") -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    session = onnxruntime.InferenceSession(
        str(path), options, providers=["CPUExecutionProvider"], disabled_optimizers=["WeightBiasQuantization"]
    )
    return session.run(None, {name: pictures})[0]


def sqnr(reference: np.ndarray, other: np.ndarray) -> float:
    return float(10 * np.log10((reference**2).sum() / ((reference - other) ** 2).sum()))


@pytest.mark.parametrize(("preset", "least"), [("W8A8", 45), ("W4A8", 45), ("W16A16", 75)])
def test_that_onnx_runtimes_own_quantizer_makes_the_same_network(preset: str, least: float, tmp_path: Path) -> None:
    bench = Bench(cache_bytes=2**26)
    list(bench.handle(OpenNetwork(str(DIGITS / "digits.onnx"))))
    list(bench.handle(OpenData(str(DIGITS / "digits.calibration.npz"))))
    config = preset_config(find_preset(preset), bench.network.summary.layers)
    program, ours, theirs = (tmp_path / name for name in ("quantize.py", "ours.onnx", "theirs.onnx"))
    list(bench.handle(WriteSettings(config, str(program), "ort")))
    list(bench.handle(Export(config, str(ours))))
    pictures = np.load(DIGITS / "digits.calibration.npz")["picture"].astype(np.float32)
    np.savez(tmp_path / "few.npz", picture=pictures[:4])
    command = [sys.executable, str(program), str(DIGITS / "digits.onnx"), str(theirs)]
    subprocess.run([*command, "--data", str(tmp_path / "few.npz")], check=True, capture_output=True, env=os.environ)
    reference = outputs(DIGITS / "digits.onnx", pictures)
    answer, wanted = outputs(theirs, pictures), outputs(ours, pictures)
    # What differs is where the rounding of two exact computations falls to either side.
    assert sqnr(wanted, answer) > least
    assert sqnr(reference, answer) == pytest.approx(sqnr(reference, wanted), abs=0.5)


def normalized(groups: int) -> onnx.ModelProto:
    """Return convolutions, plain and transposed, and a Gemm, each with a BatchNormalization behind it."""
    random = np.random.default_rng(0)
    shapes = {"conv": (8, 3, 3, 3), "up": (8, 12 // groups, 2, 2), "fc": (10, 12)}
    constants = {f"{name}.weight": builders.values(*shape, seed=i) for i, (name, shape) in enumerate(shapes.items())}
    constants["fc.bias"] = builders.values(10, seed=9)
    for name, channels in (("conv", 8), ("up", 12), ("fc", 10)):
        for part, low in (("scale", 0.5), ("shift", -1.0), ("mean", -1.0), ("variance", 0.2)):
            constants[f"{name}.{part}"] = random.uniform(low, low + 2, channels).astype(np.float32)

    def behind(name: str, tensor: str) -> onnx.NodeProto:
        inputs = [f"{name}_out", *(f"{name}.{part}" for part in ("scale", "shift", "mean", "variance"))]
        return helper.make_node("BatchNormalization", inputs, [tensor], name=f"{name}_bn", epsilon=1e-3)

    nodes = [
        helper.make_node("Conv", ["x", "conv.weight"], ["conv_out"], name="conv"),
        behind("conv", "a"),
        helper.make_node("Relu", ["a"], ["b"], name="relu"),
        helper.make_node("ConvTranspose", ["b", "up.weight"], ["up_out"], name="up", group=groups, strides=[2, 2]),
        behind("up", "c"),
        helper.make_node("GlobalAveragePool", ["c"], ["d"], name="pool"),
        helper.make_node("Flatten", ["d"], ["e"], name="flatten"),
        helper.make_node("Gemm", ["e", "fc.weight", "fc.bias"], ["fc_out"], name="fc", transB=1, beta=0.5),
        behind("fc", "y"),
    ]
    x, y = builders.tensor_info("x", ["n", 3, 8, 8]), builders.tensor_info("y", ["n", 10])
    return builders.model_of(nodes, [x], [y], constants)


def test_that_the_program_for_onnx_runtime_folds_batch_normalization_as_the_table_needs_it(tmp_path: Path) -> None:
    path, data = tmp_path / "normalized.onnx", tmp_path / "data.npz"
    onnx.save(normalized(1), path)
    inputs = np.random.default_rng(1).normal(size=(16, 3, 8, 8)).astype(np.float32)
    np.savez(data, x=inputs)
    bench = Bench(cache_bytes=2**26)
    list(bench.handle(OpenNetwork(str(path))))
    list(bench.handle(OpenData(str(data))))
    config = preset_config(find_preset("W8A8"), bench.network.summary.layers)
    program, ours, theirs = (tmp_path / name for name in ("quantize.py", "ours.onnx", "theirs.onnx"))
    list(bench.handle(WriteSettings(config, str(program), "ort")))
    list(bench.handle(Export(config, str(ours))))
    command = [sys.executable, str(program), str(path), str(theirs), "--data", str(data)]
    subprocess.run(command, check=True, capture_output=True, env=os.environ)
    reference, wanted, answer = (outputs(each, inputs, "x") for each in (path, ours, theirs))
    assert sqnr(wanted, answer) > 35
    assert sqnr(reference, answer) == pytest.approx(sqnr(reference, wanted), abs=1.0)


@pytest.mark.parametrize("groups", [1, 2])
def test_that_what_the_program_folds_computes_the_same(groups: int, tmp_path: Path) -> None:
    path, folded = tmp_path / "normalized.onnx", tmp_path / "folded.onnx"
    onnx.save(normalized(groups), path)
    bench = Bench(cache_bytes=2**26)
    list(bench.handle(OpenNetwork(str(path))))
    list(bench.handle(OpenData("random:4")))
    config = preset_config(find_preset("W8A8"), bench.network.summary.layers)
    list(bench.handle(WriteSettings(config, str(tmp_path / "quantize.py"), "ort")))
    program = runpy.run_path(str(tmp_path / "quantize.py"))
    model = onnx.load(path)
    program["fold"](model)
    assert not [node for node in model.graph.node if node.op_type == "BatchNormalization"]
    onnx.save(model, folded)
    inputs = np.random.default_rng(1).normal(size=(4, 3, 8, 8)).astype(np.float32)
    assert sqnr(outputs(path, inputs, "x"), outputs(folded, inputs, "x")) > 100
