"""Files for other tools, held against the tools themselves as far as they run on a bare machine."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from quantgui.engine.bench import Bench
from quantgui.engine.requests import Export, OpenData, OpenNetwork, WriteSettings
from quantgui.spec.presets import find_preset, preset_config

DIGITS = Path(__file__).parents[2] / "sample_models/digits"


def outputs(path: Path, pictures: np.ndarray) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    session = onnxruntime.InferenceSession(
        str(path), options, providers=["CPUExecutionProvider"], disabled_optimizers=["WeightBiasQuantization"]
    )
    return session.run(None, {"picture": pictures})[0]


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
