"""What calibration, evaluation and a change cost, against float forwards of the same pictures in plain ONNX Runtime."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnxruntime

from quantgui.engine.bench import Bench
from quantgui.engine.machine import usable_cores
from quantgui.engine.requests import Calibrate, Evaluate, Export, OpenData, OpenNetwork, Request
from quantgui.results import NetworkSummary
from quantgui.spec.config import QuantConfig
from quantgui.spec.presets import find_preset, preset_config, weight_spec
from quantgui.spec.quantizer import LayerSpec
from tests.benchmarks.measuring import Row, milliseconds, ratio_row, seconds, timed
from tests.benchmarks.work import NETWORK, SAMPLES, data_file, network_file

MOST_FORWARDS = 15
MOST_OF_A_FORWARD = 0.7
FRAME = 0.016
BATCH = 8
"""Pictures at a time, as the program takes them."""


def rows() -> Iterator[Row]:
    """Yield the rows of the engine's work."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        forward = _float_forward(folder)
        yield from _whole_evaluations(folder, forward)
        yield from _changes(folder, forward)


def _float_forward(folder: Path) -> Callable[[], None]:
    """Return one forward of all pictures by a session of the whole network.

    Threads that spin while they wait are faster on a quiet machine and much slower on a busy one: the faster way is
    the reference.
    """
    pictures = np.load(data_file(folder))

    def forward(session: onnxruntime.InferenceSession) -> None:
        for start in range(0, SAMPLES, BATCH):
            session.run(None, {"input": pictures[start : start + BATCH]})

    ways = []
    for spinning in ("0", "1"):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = usable_cores()
        options.add_session_config_entry("session.intra_op.allow_spinning", spinning)
        session = onnxruntime.InferenceSession(network_file(), options, providers=["CPUExecutionProvider"])
        ways.append(functools.partial(forward, session))
    times = seconds(*ways, rounds=3)
    return ways[times.index(min(times))]


def _ask(bench: Bench, request: Request) -> None:
    """Wait for the whole answer."""
    for _ in bench.handle(request):
        pass


def _opened(folder: Path) -> tuple[Bench, NetworkSummary]:
    bench = Bench()
    _ask(bench, OpenNetwork(str(network_file())))
    _ask(bench, OpenData(str(data_file(folder))))
    return bench, bench.network.summary


def _preset(name: str, summary: NetworkSummary) -> QuantConfig:
    return preset_config(find_preset(name), summary.layers)


def _whole_evaluations(folder: Path, forward: Callable[[], None]) -> Iterator[Row]:
    """Yield what it costs from open files to ranges, quality and an exported file, sessions included."""
    # A new bench each time: what the first one has computed would cost the second one nothing.
    calibrations, evaluations, exports, forwards = [], [], [], []
    for _ in range(2):
        bench, summary = _opened(folder)
        config = _preset("W8A8", summary)
        forwards += seconds(forward, rounds=2)
        calibrations.append(timed(lambda bench=bench: _ask(bench, Calibrate())))
        evaluations.append(timed(lambda bench=bench, config=config: _ask(bench, Evaluate(config))))
        out = folder / "exported.onnx"
        exports.append(timed(lambda bench=bench, config=config, out=out: _ask(bench, Export(config, str(out)))))
    reference, calibration, evaluation = min(forwards), min(calibrations), min(evaluations)
    pictures = f"{SAMPLES} pictures, {NETWORK}"
    yield ratio_row(
        f"calibrate and evaluate W8A8 for the first time: {pictures}",
        f"{milliseconds(calibration)} + {milliseconds(evaluation)}",
        f"float forward of them {milliseconds(reference)}",
        (calibration + evaluation) / reference,
        MOST_FORWARDS,
    )
    yield Row(
        f"export W8A8: {NETWORK}",
        milliseconds(min(exports)),
        f"float forward of {SAMPLES} pictures {milliseconds(reference)}",
        min(exports) / reference,
    )


def _changes(folder: Path, forward: Callable[[], None]) -> Iterator[Row]:
    """Yield what a change of one layer costs, and what going back costs."""
    bench, summary = _opened(folder)
    config = _preset("W8", summary)
    _ask(bench, Evaluate(config))
    middle = summary.layers[len(summary.layers) // 2].name
    # Each a configuration that has not been seen, so that nothing of what lies behind the layer is known.
    changed = [config.with_overrides({middle: LayerSpec(weight_spec(bits))}) for bits in (2, 3, 4, 5, 6)]
    waiting = iter(changed)
    again, whole = seconds(lambda: _ask(bench, Evaluate(next(waiting))), forward, rounds=4)
    yield ratio_row(
        f"change of the layer in the middle of {NETWORK}: quality of all {SAMPLES} pictures again",
        milliseconds(again),
        f"float forward of them {milliseconds(whole)}",
        again / whole,
        MOST_OF_A_FORWARD,
    )
    (known,) = seconds(lambda: _ask(bench, Evaluate(config)), rounds=3)
    yield Row(
        "the engine's answer for a configuration evaluated before",
        milliseconds(known),
        f"float forward of {SAMPLES} pictures {milliseconds(whole)}",
        known / whole,
    )
