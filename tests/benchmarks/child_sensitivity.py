"""Sweeps a network in a process of its own: ``child_sensitivity NETWORK SAMPLES [WHAT]``; prints times and memory.

WHAT is ``weights``, ``activations``, ``both``, or ``memory``: a sweep of weights by itself, so that the process holds
nothing else.

F is one float forward of the same samples in one session of the whole network, in the same batches, with as many
threads. It is timed again and again while the sweep goes on, so that other work on the machine slows both alike.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from quantgui.analysis.calibration import calibrate
from quantgui.analysis.ranking import spearman
from quantgui.analysis.sensitivity import measure_sensitivity
from quantgui.analysis.simulation import activation_tensors
from quantgui.analysis.sweep_store import SweepStore
from quantgui.engine.machine import usable_cores
from quantgui.network.batch import Batch
from quantgui.network.built_segments import build_segment
from quantgui.network.datasets import Dataset, open_dataset
from quantgui.network.executor import Executor
from quantgui.network.network import Network
from quantgui.network.reader import open_network
from quantgui.network.segments import check_traced, choose_cuts, split, tensor_types, traced_shapes
from quantgui.network.session import create_session
from quantgui.results import ActivationReady, Calibrated, Sensitivity, SensitivityReady
from quantgui.spec.sweep import Sweep
from tests.benchmarks.measuring import peak_memory, tell
from tests.networks import network_path, write_samples

CACHE_BYTES = 256 * 2**20
ROUNDS = 5
FORWARD_EVERY = 3


class Forward:
    """The float network as one session, and the times of all its runs."""

    def __init__(self, network: Network, dataset: Dataset) -> None:
        self._session = create_session(network.skeleton, network.constants, threads=usable_cores())
        self._inputs = [dict(batch.inputs) for batch in dataset.batches()]
        self.run()

    def run(self) -> tuple[float, float]:
        """Return elapsed seconds and seconds of the processor."""
        start, used = time.perf_counter(), time.process_time()
        for inputs in self._inputs:
            self._session.run(None, inputs)
        return time.perf_counter() - start, time.process_time() - used


def share_behind(network: Network, batch: Batch) -> float:
    """Return the mean share of the float forward that lies behind a layer, itself included; timed by segments."""
    threads = usable_cores()
    types = tensor_types(network)
    shapes = traced_shapes(network, types, dict(batch.inputs), threads=threads)
    borders = check_traced(types, shapes)
    values = dict(batch.inputs)
    seconds: list[float] = []
    segments = split(network, choose_cuts(network, types, shapes, batch.samples))
    for segment in segments:
        built = build_segment(network, segment, borders, outputs=segment.outputs)
        session = create_session(built.model, network.constants, threads=threads)
        feeds = {name: values[name] for name in segment.inputs}
        times = []
        for _ in range(ROUNDS):
            start = time.perf_counter()
            results = session.run(list(segment.outputs), feeds)
            times.append(time.perf_counter() - start)
        seconds.append(min(times))
        values.update(zip(segment.outputs, results, strict=True))
    shares = []
    for index, segment in enumerate(segments):
        inside = [layer for layer in network.summary.layers if layer.weight in segment.initializers]
        macs = [max(layer.macs, 1) for layer in inside]
        for position, layer in enumerate(inside):
            if not layer.keeps_float:
                own = sum(macs[position:]) / sum(macs) * seconds[index]
                shares.append((own + sum(seconds[index + 1 :])) / sum(seconds))
    return float(np.mean(shares))


def swept(
    executor: Executor,
    dataset: Dataset,
    activations: Mapping[str, ActivationReady],
    sweep: Sweep,
    folder: Path,
    forward: Forward,
) -> tuple[dict[str, float], Sensitivity]:
    """Return the cost of one sweep, in F where it is a time, and its table; cheap guesses are counted apart."""
    start, used = time.perf_counter(), time.process_time()
    told = np.array([start, used])
    between = [forward.run()]
    first_guess = first_table = 0.0
    guessing = np.zeros(2)
    table: Sensitivity | None = None
    layers = 0
    with SweepStore(folder / f"{sweep.exact}.jsonl") as store:
        for event in measure_sensitivity(executor, dataset, sweep, activations, None, store):
            if isinstance(event, SensitivityReady):
                first_guess = first_guess or _since(start, between)
                if len(between) * FORWARD_EVERY <= (layers := layers + 1):
                    between.append(forward.run())
            elif isinstance(event, Sensitivity):
                now = np.array([time.perf_counter(), time.process_time()])
                if event.proxy_seconds and not guessing.any():
                    guessing = now - told
                table, told = event, now
                if not first_table and any(candidate.samples for candidate in event.candidates):
                    first_table = _since(start, between)
    assert table is not None
    elapsed, processor = np.mean(between, axis=0).tolist()
    count = len(table.candidates)
    sweeping = time.process_time() - used - sum(each for _, each in between)
    costs = {
        "elapsed": (_since(start, between) - guessing[0]) / count / elapsed,
        "processor": (sweeping - guessing[1]) / count / processor,
        "guesses": guessing[0] / elapsed,
        "first_guess": first_guess / elapsed,
        "first_table": first_table / elapsed,
        "samples": float(np.mean([each.samples for each in table.candidates])),
    }
    return costs, table


def _since(start: float, between: Sequence[tuple[float, float]]) -> float:
    return time.perf_counter() - start - sum(seconds for seconds, _ in between)


def main() -> None:
    """Print what was measured."""
    name, samples, what = sys.argv[1], int(sys.argv[2]), (*sys.argv[3:], "weights")[0]
    network = open_network(network_path(name))
    with tempfile.TemporaryDirectory() as folder:
        path = write_samples(name, Path(folder), samples)
        dataset = open_dataset(str(path), network.summary.inputs, network.summary, network=network)
        executor = Executor(network, cache_bytes=CACHE_BYTES, threads=usable_cores())
        if what == "memory":
            *_, table = measure_sensitivity(executor, dataset, Sweep(), {})
            assert isinstance(table, Sensitivity)
            tell({"peak_cache": table.peak_cache_bytes, "peak_memory": peak_memory()})
            return
        activations = {} if what == "weights" else calibrated(executor, dataset)
        forward = Forward(network, dataset)
        limit = share_behind(network, next(dataset.batches()))
        sweep = Sweep(what=what, exact=True)  # type: ignore[arg-type]
        told: dict[str, object] = {"limit": limit}
        if what == "weights":
            told["few"], rough = swept(executor, dataset, {}, replace(sweep, exact=False), Path(folder), forward)
        executor = Executor(network, cache_bytes=CACHE_BYTES, threads=usable_cores())
        told["full"], fine = swept(executor, dataset, activations, sweep, Path(folder), forward)
    told |= {"candidates": len(fine.candidates), "cut_segments": fine.cut_segments}
    if what == "weights":
        columns = [[i for i, each in enumerate(fine.candidates) if each.format == label] for label in fine.orders]
        few, every = (np.array([each.value for each in table.candidates]) for table in (rough, fine))
        told["spearman"] = [spearman(few[column], every[column]) for column in columns]
    tell(told)


def calibrated(executor: Executor, dataset: Dataset) -> Mapping[str, ActivationReady]:
    """Return the ranges of all activations on the samples."""
    *_, last = calibrate(executor, dataset, activation_tensors(executor.network))
    assert isinstance(last, Calibrated)
    return last.activations


if __name__ == "__main__":
    main()
