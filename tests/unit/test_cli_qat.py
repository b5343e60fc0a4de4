"""The command ``quantgui qat`` on a sample network."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from quantgui.cli.main import main
from quantgui.engine.bench import Bench
from quantgui.interrupts import EXIT_INTERRUPTED
from quantgui.paths import sample_models
from quantgui.results import TrainingReady
from quantgui.spec.config import QuantConfig
from quantgui.spec.presets import activation_spec, weight_spec
from quantgui.spec.quantizer import LayerSpec, MinMax
from quantgui.spec.serialization import load_config, save_config
from quantgui.spec.trained_files import trained_states

ROOT = Path(__file__).parents[2]
DIGITS = sample_models() / "digits"


@pytest.fixture
def words(tmp_path):
    """Write data and configuration, and return a command that trains for a few steps."""
    for name in ("evaluation", "calibration"):
        with np.load(DIGITS / f"digits.{name}.npz") as file:
            np.savez(tmp_path / f"{name}.npz", **{array: file[array][:64] for array in file.files})
    spec = LayerSpec(weight_spec(2, range_estimator=MinMax()), activation_spec(8))
    save_config(QuantConfig(spec), tmp_path / "c.json")
    command = ["qat", str(DIGITS / "digits.onnx"), "--data", str(tmp_path / "evaluation.npz")]
    command += ["--calibration", str(tmp_path / "calibration.npz"), "--config", str(tmp_path / "c.json")]
    command += ["--steps", "6", "--batch", "16", "--learning-rate", "0.02", "--json"]
    return [*command, "-o", str(tmp_path / "trained.onnx"), "--config-out", str(tmp_path / "trained.json")]


def test_that_the_written_file_and_configuration_are_what_was_best(words, tmp_path, capsys):
    assert main(words) == 0
    answer = json.loads(capsys.readouterr().out)
    assert {"float", "before", "after", "steps", "seconds"} <= answer.keys()
    assert answer["after"]["value"] > answer["before"]["value"]
    assert answer["steps"] == 6
    found = {step: each["value"] for step, each in answer["evaluations"]}
    assert found[answer["best_step"]] == answer["after"]["value"] == max(found.values())
    config = load_config(tmp_path / "trained.json")
    assert sorted(trained_states(config)) == answer["states"]
    verify = [
        "verify",
        words[1],
        str(tmp_path / "trained.onnx"),
        *words[2:6],
        "--config",
        str(tmp_path / "trained.json"),
    ]
    assert main([*verify, "--json"]) == 0
    checked = json.loads(capsys.readouterr().out)
    assert checked["simulated"]["value"] == answer["after"]["value"]
    assert checked["deployed"]["value"] == pytest.approx(answer["after"]["value"], abs=0.05)


def test_that_mistakes_are_told_in_a_sentence(words, capsys):
    assert main([*words, "--learning-rate", "2"]) == 2
    assert "learning rate must be above 0" in capsys.readouterr().err
    assert main([*words, "--steps", "0"]) == 2
    assert "whole number from 1" in capsys.readouterr().err


def test_that_an_interrupt_writes_the_best_and_the_same_command_goes_on(words, tmp_path, capsys, monkeypatch):
    handle = Bench.handle

    def interrupted(bench, request):
        for event in handle(bench, request):
            yield event
            if isinstance(event, TrainingReady) and event.trained is not None:
                raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Bench, "handle", interrupted)
        assert main(words) == EXIT_INTERRUPTED
    told = capsys.readouterr()
    assert "the same command goes on from there" in told.err
    answer = json.loads(told.out)
    assert answer["interrupted"]
    assert answer["after"]["value"] > answer["before"]["value"]
    assert (tmp_path / "trained.onnx").stat().st_size > 0
    assert load_config(tmp_path / "trained.json") != load_config(tmp_path / "c.json")
    assert main(words) == 0
    assert json.loads(capsys.readouterr().out)["steps"] == 6


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
def test_that_a_killed_training_goes_on_to_the_same_end(words, tmp_path, capsys):
    assert main(words) == 0
    undisturbed = json.loads(capsys.readouterr().out)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "XDG_STATE_HOME": str(tmp_path / "killed")}
    command = [sys.executable, "-m", "quantgui", *words]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment)
    while not list((tmp_path / "killed").glob("quantgui/training/[0-9a-f]*.npz")):
        assert child.poll() is None, child.stderr.read()
    child.send_signal(signal.SIGKILL)
    child.communicate()
    again = subprocess.run(command, capture_output=True, env=environment, check=True)
    answer = json.loads(again.stdout)
    assert answer["resumed"] > 0
    for key in ("losses", "evaluations", "states", "best_step", "after"):
        assert answer[key] == undisturbed[key]
