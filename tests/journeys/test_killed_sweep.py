"""A sweep that is killed on the command line, and what is left of it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from quantgui.paths import sample_models

ROOT = Path(__file__).parents[2]
DIGITS = sample_models() / "digits"
COMMAND = [sys.executable, "-m", "quantgui", "sensitivity", str(DIGITS / "digits.onnx")]
COMMAND += ["--data", str(DIGITS / "digits.calibration.npz"), "--exact", "--json"]


def started(state: Path) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "XDG_STATE_HOME": str(state)}
    return subprocess.Popen(COMMAND, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def finished(state: Path) -> dict[str, Any]:
    child = started(state)
    out, err = child.communicate(timeout=300)
    assert child.returncode == 0, err
    value: dict[str, Any] = json.loads(out)
    return value


def measured(state: Path) -> Counter[tuple[str, str, int]]:
    """Return how often each candidate was measured on each batch, from the whole lines on the disk."""
    found: Counter[tuple[str, str, int]] = Counter()
    for path in state.glob("quantgui/sweeps/*.jsonl"):
        for line in path.read_bytes().splitlines(keepends=True):
            if line.endswith(b"\n"):
                record = json.loads(line)
                for batch in record.get("batches", ()):
                    found[record["layer"], json.dumps(record["spec"]), batch["first"]] += 1
    return found


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
def test_that_a_killed_command_goes_on_where_it_was_and_measures_nothing_twice(tmp_path: Path) -> None:
    undisturbed = finished(tmp_path / "undisturbed")
    child = started(tmp_path / "killed")
    while len(measured(tmp_path / "killed")) < 20:
        assert child.poll() is None
    child.send_signal(signal.SIGKILL)
    child.communicate()
    kept = measured(tmp_path / "killed")
    everything = measured(tmp_path / "undisturbed")
    assert 20 <= len(kept) < len(everything)
    answer = finished(tmp_path / "killed")
    assert answer["resumed"] > 0
    assert measured(tmp_path / "killed") == everything
    assert set(everything.values()) == {1}
    assert answer["orders"] == undisturbed["orders"]
    for layer, expected in zip(answer["layers"], undisturbed["layers"], strict=True):
        for candidate, wanted in zip(layer["candidates"], expected["candidates"], strict=True):
            assert candidate["value"] == pytest.approx(wanted["value"], abs=1e-3)
            assert candidate["samples"] == wanted["samples"]
