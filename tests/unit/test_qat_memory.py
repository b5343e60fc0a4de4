"""Training where memory really is short, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize(
    ("scope", "megabytes", "advice"),
    [
        ("network", 60, "take fewer, or train the network piece by piece."),
        ("network", 250, "take fewer, or train the network piece by piece."),
        ("blocks", 60, "take fewer, or smaller samples."),
    ],
)
def test_that_training_without_memory_says_what_to_do(tmp_path: Path, scope: str, megabytes: int, advice: str) -> None:
    child = Path(__file__).parents[1] / "child_training_memory.py"
    root = str(child.parents[1])
    environment = {**os.environ, "XDG_STATE_HOME": str(tmp_path / "state"), "PYTHONPATH": root}
    words = [sys.executable, str(child), str(tmp_path), str(megabytes << 20), scope]
    run = subprocess.run(words, capture_output=True, text=True, timeout=200, env=environment, check=False)
    assert run.returncode == 0, run.stderr
    first, *last = run.stdout.strip().split("\n")
    assert first == "trained"
    assert last == [f"There is not enough memory to train with 24 samples per step: {advice}"]
