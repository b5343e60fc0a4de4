"""The command ``quantgui sensitivity`` on a sample network."""

from __future__ import annotations

import importlib
import json
import math
import re
import subprocess
import sys
from pathlib import Path

import pytest

from quantgui.cli.main import main
from quantgui.cli.sensitivity_file import finite
from quantgui.engine.bench import Bench
from quantgui.interrupts import EXIT_INTERRUPTED
from quantgui.paths import sample_models, state_folder
from quantgui.results import SensitivityReady
from quantgui.spec.sweep import Sweep

DIGITS = str(sample_models() / "digits" / "digits.onnx")
DATA = str(sample_models() / "digits" / "digits.calibration.npz")
LABELLED_DATA = str(sample_models() / "digits" / "digits.evaluation.npz")
COMMAND = ["sensitivity", DIGITS, "--data", DATA, "--bits", "3,8", "--samples", "32"]

LABELLED = [LABELLED_DATA if word == DATA else word for word in COMMAND]


def run_json(words: list[str], capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    assert main([*words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_that_the_answer_names_every_layer_with_every_format(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    answer = run_json([*COMMAND, "--exact", "-o", str(tmp_path / "s.json")], capsys)
    assert json.loads((tmp_path / "s.json").read_text()) == answer
    assert main(["inspect", DIGITS, "--json"]) == 0
    layers = json.loads(capsys.readouterr().out)["layers"]
    assert [layer["name"] for layer in answer["layers"]] == [layer["name"] for layer in layers]
    assert [layer["parameters"] for layer in answer["layers"]] == [layer["parameters"] for layer in layers]
    for layer in answer["layers"]:
        coarse, fine = layer["candidates"]
        assert (coarse["format"], fine["format"]) == ("int3", "int8")
        assert coarse["value"] < fine["value"]
        assert coarse["bytes"] < fine["bytes"]
        assert coarse["samples"] == fine["samples"] == answer["samples"] == 32
        assert coarse["stderr"] > 0
    assert answer["metric"] == "output_sqnr_db"
    assert answer["complete"]
    assert answer["float_forward_seconds"] > 0
    assert answer["seconds"] > 0
    assert answer["cut_segments"] >= 1
    assert answer["peak_cache_bytes"] > 0
    assert answer["trustworthy"]


def test_that_a_second_run_takes_everything_from_the_first(capsys: pytest.CaptureFixture[str]) -> None:
    first = run_json(COMMAND, capsys)
    again = run_json(COMMAND, capsys)
    assert again["layers"] == first["layers"]
    assert again["orders"] == first["orders"]
    assert (first["resumed"], again["resumed"]) == (0, 2 * len(first["layers"]))
    assert len(list((state_folder() / "sweeps").iterdir())) == 1
    run_json([*COMMAND, "--metric", "kl"], capsys)
    assert len(list((state_folder() / "sweeps").iterdir())) == 2


def test_that_an_interrupt_keeps_what_is_done(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    handle = Bench.handle

    def interrupted(bench: Bench, request: object):
        measured = 0
        for event in handle(bench, request):
            yield event
            measured += isinstance(event, SensitivityReady) and any(c.samples for c in event.candidates)
            if measured == 1:
                raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Bench, "handle", interrupted)
        assert main([*COMMAND, "-o", str(tmp_path / "s.json")]) == EXIT_INTERRUPTED
    assert "goes on from there" in capsys.readouterr().err
    partial = json.loads((tmp_path / "s.json").read_text())
    assert not partial["complete"]
    known = [c["samples"] > 0 for layer in partial["layers"] for c in layer["candidates"]]
    assert 0 < sum(known) <= len(partial["layers"])  # the middle format comes first, for a first ranking
    answer = run_json(COMMAND, capsys)
    assert answer["resumed"] >= sum(known)
    assert all(c["samples"] > 0 for layer in answer["layers"] for c in layer["candidates"])


def test_that_one_layer_is_changed_within_a_configuration(capsys: pytest.CaptureFixture[str]) -> None:
    answer = run_json([*LABELLED, "--preset", "W8A8", "--what", "both", "--metric", "accuracy"], capsys)
    assert answer["what"] == "both"
    assert answer["metric"] == "accuracy"
    assert answer["config"]["name"] == "W8A8"
    assert 0.5 < answer["reference"]["value"] <= 1
    assert {c["format"] for layer in answer["layers"] for c in layer["candidates"]} == {"int3 / uint3", "int8 / uint8"}


def test_that_the_text_ranks_the_layers(capsys: pytest.CaptureFixture[str]) -> None:
    importlib.import_module("torch")  # for a network that is measured so soon, the program would not load it
    assert main(COMMAND) == 0
    text = capsys.readouterr().out
    assert "most sensitive first in int8" in text
    assert re.search(r", on (\d+ to )?32 samples of ", text)
    assert "32 to 32" not in text
    for guess in ("weight error", "input-weighted error", "own output error", "gradient"):
        assert -1 <= float(text.splitlines()[-1].split(f"{guess} ")[1].split()[0]) <= 1


def test_that_torch_is_not_loaded_for_what_is_measured_sooner() -> None:
    code = f"""
import sys
from quantgui.cli.main import main
assert main({[*COMMAND, "--json"]}) == 0
assert "torch" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    answer = json.loads(done.stdout)
    assert any("to load PyTorch" in note for note in answer["notes"])
    assert set(answer["layer_correlations"]) == {"weight_sqnr_db", "input_weighted_sqnr_db", "own_output_sqnr_db"}


@pytest.mark.parametrize(
    ("told", "metric", "samples", "value"),
    [
        ("inf", "output_sqnr_db", 8, math.inf),
        ("-inf", "output_sqnr_db", 8, -math.inf),
        (21.5, "kl", 8, 21.5),
        (None, "kl", 8, math.nan),
        (None, "output_sqnr_db", 0, math.nan),
        (None, "output_sqnr_db", 8, math.inf),  # what older files have for it
    ],
)
def test_that_what_is_endless_and_what_is_not_known_come_back(told, metric: str, samples: int, value: float) -> None:
    assert finite(told, Sweep(metric=metric), samples) == pytest.approx(value, nan_ok=True)
