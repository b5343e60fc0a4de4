"""Arguments, sentences and formats of the command line; whole runs are in the journeys."""

from __future__ import annotations

import json
import math
import sys
from io import StringIO
from pathlib import Path
from types import ModuleType

import pytest

from quantgui.cli.main import main
from quantgui.paths import sample_models, state_folder
from quantgui.results import Progress, Score
from quantgui.spec.presets import PRESETS
from quantgui.terminal import ProgressLine, json_text, table
from quantgui.wording import score_text

DIGITS = str(sample_models() / "digits" / "digits.onnx")
DATA = str(sample_models() / "digits" / "digits.calibration.npz")


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str | None, str | None]]:
    """Stand in for the window and note with what it was opened."""
    calls: list[tuple[str | None, str | None]] = []

    def run_app(network: str | None, data: str | None, **_: object) -> int:
        calls.append((network, data))
        return 0

    window = ModuleType("quantgui.gui.app")
    window.run_app, window.Beginning = run_app, lambda *_: None
    monkeypatch.setitem(sys.modules, "quantgui.gui.app", window)
    return calls


@pytest.mark.parametrize(
    ("words", "network", "data"),
    [
        ([], None, None),
        ([DIGITS], DIGITS, None),
        ([DIGITS, "--data", DATA], DIGITS, DATA),
        (["--data", "random:8", DIGITS], DIGITS, "random:8"),
        (["not-there-yet.onnx"], "not-there-yet.onnx", None),
    ],
)
def test_that_everything_but_a_command_opens_the_window(opened, words, network, data) -> None:
    assert main(words) == 0
    assert opened == [(network, data)]


def test_that_a_command_opens_no_window(opened, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", DIGITS]) == 0
    assert opened == []


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["evalute", "a.onnx"], "did you mean 'evaluate'?"),
        (["frobnicate"], "commands are inspect, check, evaluate, sensitivity, mix, noise, qat, export, verify"),
        (["evaluate", DIGITS], "--data"),
        (["evaluate", DIGITS, "--data", DATA, "--preset", "W9"], "There is no preset 'W9'"),
        (["evaluate", DIGITS, "--data", DATA, "--preset", "W8", "--config", "c.json"], "not allowed with"),
        (["evaluate", DIGITS, "--data", DATA, "--samples", "0"], "whole number from 1"),
        (["evaluate", DIGITS, "--data", "missing.npz"], "missing.npz"),
        (["evaluate", DIGITS, "--data", DATA, "--metric", "nothing.py"], "FILE.py:function"),
        (["evaluate", DIGITS, "--data", DATA, "--size", "32x32"], "takes no image options"),
        (["evaluate", DIGITS, "--data", DATA, "--size", "32"], "height x width"),
        (["evaluate", DIGITS, "--data", DATA, "--mean", "a,b"], "numbers with commas"),
        (["evaluate", DIGITS, "--data", DATA, "--config", "missing.json"], "Cannot read the configuration"),
        (["sensitivity", DIGITS, "--data", DATA, "--bits", "1-4"], "bit-widths from 2 to 16"),
        (["sensitivity", DIGITS, "--data", DATA, "--bits", "four"], "such as 2,4,8 or 2-8"),
        (["sensitivity", DIGITS, "--data", DATA, "--metric", "psnr"], "FILE.py:function"),
        (["export", DIGITS, "-o", "out.onnx"], "--config --preset is required"),
        (["export", DIGITS, "--preset", "W8A8", "-o", "out.onnx"], "ranges come from data"),
        (["inspect", "missing.onnx"], "missing.onnx"),
        (["inspect", DATA], "digits.calibration.npz"),
        (["inspect", DIGITS, "--nonsense"], "--nonsense"),
    ],
)
def test_that_a_mistake_is_one_sentence_and_exit_code_2(
    words: list[str], sentence: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert sentence in err
    assert err.startswith("quantgui: ")
    assert err.count("\n") == 1
    assert "Traceback" not in err
    assert not any(tmp_path.glob("*.onnx"))


def test_that_help_and_version_end_well(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    assert "quantgui evaluate" in capsys.readouterr().out
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("quantgui ")


def test_that_help_of_a_command_names_every_preset(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "--help"]) == 0
    shown = "".join(capsys.readouterr().out.split())
    assert all(preset.name in shown for preset in PRESETS)


def test_that_a_bug_is_a_sentence_and_its_traceback_lies_in_a_file(
    opened, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.modules["quantgui.gui.app"], "run_app", lambda *_, **__: 1 / 0)
    assert main([]) == 2
    err = capsys.readouterr().err
    assert "Unexpected error" in err
    assert "Traceback" not in err
    assert "ZeroDivisionError" in (state_folder() / "crash.log").read_text()


def test_that_an_interrupt_ends_with_its_own_code(opened, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object, **__: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(sys.modules["quantgui.gui.app"], "run_app", interrupt)
    assert main([]) == 130


def test_that_json_tells_what_is_endless_from_what_is_not_known() -> None:
    value = {"a": math.inf, "b": [math.nan, 1.5, True, None], "c": {"d": -math.inf}, "e": ("x", 2)}
    assert json.loads(json_text(value)) == {
        "a": "inf",
        "b": [None, 1.5, True, None],
        "c": {"d": "-inf"},
        "e": ["x", 2],
    }


@pytest.mark.parametrize(
    ("metric", "score", "text"),
    [
        ("accuracy", Score(0.5, math.nan, 1), "50.00 %"),
        ("output_sqnr_db", Score(math.inf, 0.0, 8), "exact"),
        ("psnr", Score(38.1234, 0.4, 8), "38.12 ± 0.40"),
        ("kl", Score(0.01234, 0.0021, 8), "0.0123 ± 0.0021"),
        ("user", Score(math.nan, math.nan, 8), "not a number"),
    ],
)
def test_that_a_score_is_written_with_its_unit(metric: str, score: Score, text: str) -> None:
    assert score_text(metric, score) == text


def test_that_columns_are_aligned() -> None:
    assert table([["layer", "bits"], ["a", "8"], ["long name", "16"]]) == (
        "  layer      bits\n  a             8\n  long name    16"
    )


class Terminal(StringIO):
    def isatty(self) -> bool:
        return True


def test_that_progress_is_shown_on_a_terminal_and_taken_away() -> None:
    terminal = Terminal()
    line = ProgressLine(terminal)
    line.show(Progress(1, 4, "Calibrating", 75.0))
    assert terminal.getvalue() == "\rCalibrating 25 %, 1:15 min left"
    line.clear()
    assert terminal.getvalue().endswith("\r" + " " * 31 + "\r")


def test_that_progress_is_silent_where_nobody_watches() -> None:
    stream = StringIO()
    line = ProgressLine(stream)
    line.show(Progress(1, 4, "Calibrating"))
    line.clear()
    assert stream.getvalue() == ""
