"""What AIMET takes for one candidate of its per-layer sensitivity: ``child_aimet NETWORK SAMPLES [SWEEP ...]``.

SWEEP is ``both`` (weights and activations), ``few`` (both, on as many samples as it takes), ``weights`` or ``adaptive``
(weights, on as many samples as it takes); all of them unless named.

It needs aimet-onnx (2.42 was tried), which is no dependency of the project: run it in an environment that has both.
AIMET's own `analyze_per_layer_sensitivity` evaluates the network with one operator's quantizers enabled, once for every
operator; it is stopped after a few, as every one costs alike. The sweep of `analysis.sensitivity` runs in the same
process on the same batches, with weights and activations quantized as AIMET does, and with weights alone. F is one
float forward of the samples in whole-graph ONNX Runtime, timed before, between and after.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime

from quantgui.analysis.sensitivity import measure_sensitivity
from quantgui.engine.machine import usable_cores
from quantgui.network.datasets import open_dataset
from quantgui.network.executor import Executor
from quantgui.network.reader import open_network
from quantgui.results import Sensitivity
from quantgui.spec.sweep import Sweep, What, bits_specs
from tests.benchmarks.child_sensitivity import CACHE_BYTES, Forward, calibrated
from tests.benchmarks.measuring import tell
from tests.networks import network_path, write_samples

SWEEPS: dict[str, tuple[What, bool]] = {
    "both": ("both", True), "weights": ("weights", True), "adaptive": ("weights", False), "few": ("both", False),
}  # fmt: skip
"""What is changed of a layer, and whether all samples are run for every candidate."""
TRIED = 10
"""Operators that AIMET evaluates before it is stopped."""


class EnoughError(Exception):
    """Stops AIMET's loop."""


def now() -> tuple[float, float]:
    """Return the clock and the time of the processor, in seconds."""
    return time.perf_counter(), time.process_time()


def aimet_seconds(path: Path, batches: list[dict[str, np.ndarray]]) -> np.ndarray:
    """Return what each of AIMET's evaluations takes, elapsed and of the processor; the first row is its preparation."""
    from aimet_onnx import QuantizationSimModel, analyze_per_layer_sensitivity  # type: ignore[import-not-found]

    started = now()
    sim = QuantizationSimModel(onnx.load(path), providers=["CPUExecutionProvider"])
    reference = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    expected = [reference.run(None, feeds)[0] for feeds in batches]
    sim.compute_encodings(batches)
    stamps = [started, now()]

    def score(session: onnxruntime.InferenceSession) -> float:
        noise = sum(float(np.square(session.run(None, f)[0] - e).sum()) for f, e in zip(batches, expected, strict=True))
        stamps.append(now())
        if len(stamps) > TRIED + 1:
            raise EnoughError
        return -noise

    with contextlib.suppress(EnoughError):
        analyze_per_layer_sensitivity(sim, score)
    return np.diff(stamps, axis=0)


def sweep_seconds(run: Callable[[], Sensitivity]) -> np.ndarray:
    """Return what one of our candidates takes, all overheads in: elapsed and of the processor."""
    start = np.array(now())
    table = run()
    return (np.array(now()) - start) / len(table.candidates)


def main() -> None:
    """Print what was measured, in F for one candidate: elapsed, and of the processor."""
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    name, samples = sys.argv[1], int(sys.argv[2])
    path = network_path(name)
    network = open_network(path)
    with tempfile.TemporaryDirectory() as folder:
        file = write_samples(name, Path(folder), samples)
        data = open_dataset(str(file), network.summary.inputs, network.summary, network=network)
        forward = Forward(network, data)
        batches = [dict(batch.inputs) for batch in data.batches()]
        forwards = [forward.run() for _ in range(3)]
        preparation, *theirs = aimet_seconds(path, batches)
        forwards += [forward.run() for _ in range(3)]
        executor = Executor(network, cache_bytes=CACHE_BYTES, threads=usable_cores())
        activations = calibrated(executor, data)
        ours = {}
        for kind in sys.argv[3:] or SWEEPS:
            what, exact = SWEEPS[kind]
            sweep = Sweep(bits_specs((2, 3, 4, 5, 6, 7, 8)), what=what, exact=exact)

            def run(sweep: Sweep = sweep) -> Sensitivity:
                executor = Executor(network, cache_bytes=CACHE_BYTES, threads=usable_cores())
                *_, table = measure_sensitivity(executor, data, sweep, activations)
                assert isinstance(table, Sensitivity)
                return table

            ours[kind] = sweep_seconds(run)
            forwards += [forward.run() for _ in range(3)]
    unit = np.median(forwards, axis=0)
    told = {"aimet": np.median(theirs, axis=0), "aimet prepares": preparation, **ours}
    tell(
        {"network": name, "samples": samples, "forward": unit.tolist(), "columns": ["elapsed, F", "processor, F"]}
        | {what: np.round(seconds / unit, 2).tolist() for what, seconds in told.items()}
    )


if __name__ == "__main__":
    main()
