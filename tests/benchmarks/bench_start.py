"""How soon the window can be used, against a bare window of the same libraries."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.benchmarks.measuring import Row, medians, milliseconds, own_home, ratio_row, run_child

ROUNDS = 5


def rows() -> Iterator[Row]:
    """Yield the rows of starting the program."""
    imported: set[str] = set()
    finished: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        # As on a user's machine, where Python keeps the compiled modules of both.
        compiled = {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(Path(folder, "compiled"))}
        environment = own_home(Path(folder)) | compiled

        def usable_after(module: str) -> float:
            start = time.monotonic()
            told = run_child(module, environment=environment)
            imported.update(told.get("imported", ()))
            if "finished_at" in told:
                finished.append(told["finished_at"] - start)
            return float(told["usable_at"] - start)

        for module in ("child_bare_window", "child_start"):
            usable_after(module)
        bare, own = medians(
            lambda: usable_after("child_bare_window"), lambda: usable_after("child_start"), rounds=ROUNDS
        )
    yield ratio_row(
        f"window usable after start, median of {ROUNDS}",
        milliseconds(own),
        f"bare PySide6 + pyqtgraph window {milliseconds(bare)}",
        own / bare,
        1.5,
    )
    complete = statistics.median(finished)
    yield Row(
        "its panels and plots made too, behind the first picture",
        milliseconds(complete),
        f"bare PySide6 + pyqtgraph window {milliseconds(bare)}",
        complete / bare,
    )
    yield Row(
        "torch, onnxruntime or onnx in the window's process",
        ", ".join(sorted(imported)) or "none",
        budget="none",
        held=not imported,
    )
