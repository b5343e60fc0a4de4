"""Whether the window stays fluent: while the engine works, on undo, while a limit is dragged."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.benchmarks.measuring import Row, answer, milliseconds, own_home, run_child, start_child
from tests.benchmarks.ticks import between
from tests.benchmarks.work import NETWORK, SAMPLES, data_file, long_network, network_file

GAP = 0.050
FRAME = 0.016
LAYERS = (20, 200, 1000)
_STEPS = {"open": "opened", "preset": "all changed by a preset", "layer": "another chosen", "graph": "drawn"}
_GAPS = {
    "calibrate and evaluate": f"the engine calibrates and evaluates {NETWORK}, {SAMPLES} pictures",
    "export": f"it exports {NETWORK}",
    "sensitivity": f"a sweep of {NETWORK} begins, its first tables fill the tab",
    "open": f"it opens {NETWORK}, the window fills with it",
    "click": "a click that changes all layers by a preset, with the first picture of it",
}


def rows() -> Iterator[Row]:
    """Yield the rows of the window."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        told, others = _beside_an_empty_loop("child_window", network_file(), data_file(folder), folder)
    idle = max(told["gaps"]["idle"])
    for what, name in _GAPS.items():
        longest = max(told["gaps"][what])
        bare = max(between(others, *told["spans"][what]), default=0.0)
        yield Row(
            f"longest gap of the event loop: {name}",
            milliseconds(longest),
            f"engine idle {milliseconds(idle)}, empty loop of another process meanwhile {milliseconds(bare)}",
            longest / idle,
            f"<= {GAP * 1e3:.0f} ms",
            longest <= GAP,
        )
    undo, drawn, repaint = (statistics.median(told[name]) for name in ("undo", "undo_drawn", "repaint"))
    yield Row(
        "undo or redo of a whole preset, both known: everything shown is set (median; worst)",
        f"{milliseconds(undo)}; {milliseconds(max(told['undo']))}, {told['undo_requests']} requests to the engine",
        budget=f"<= {FRAME * 1e3:.0f} ms, no request",
        held=undo <= FRAME and told["undo_requests"] == 0,
    )
    yield Row(
        "the same until the window is painted (median; worst)",
        f"{milliseconds(drawn)}; {milliseconds(max(told['undo_drawn']))}",
        f"painting the whole window once {milliseconds(repaint)}",
        drawn / repaint,
    )
    drag = statistics.median(told["drag"])
    yield Row(
        "dragged limit of 10 M weights: histogram, grid and error drawn (median; worst)",
        f"{milliseconds(drag)}; {milliseconds(max(told['drag']))}",
        budget=f"<= {FRAME * 1e3:.0f} ms",
        held=drag <= FRAME,
    )
    for layers in LAYERS:
        yield _many_layers(layers)


def _many_layers(layers: int) -> Row:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        told, others = _beside_an_empty_loop("child_long", *long_network(folder, layers), folder)
    longest = [max(told["gaps"][what]) for what in _STEPS]
    bare = max(max(between(others, *told["spans"][what]), default=0.0) for what in _STEPS)
    return Row(
        f"longest gap of the event loop: {layers} layers; {', '.join(_STEPS.values())}",
        "; ".join(milliseconds(each) for each in longest),
        f"empty loop of another process meanwhile {milliseconds(bare)}",
        budget=f"<= {GAP * 1e3:.0f} ms",
        held=max(longest) <= GAP,
    )


def _beside_an_empty_loop(child: str, *arguments: object) -> tuple[Any, list[tuple[float, float]]]:
    """Return what a child of the benchmark tells, and the gaps of an event loop that had nothing to do meanwhile."""
    folder = Path(str(arguments[-1]))
    environment = own_home(folder)
    end = folder / "end"
    beside = start_child("child_loop", end, environment=environment)
    try:
        told = run_child(child, *arguments, environment=environment)
    finally:
        end.touch()
    return told, answer(beside)
