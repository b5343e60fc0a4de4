"""Sweeps a network in a process of its own: ``child_sensitivity NETWORK SAMPLES``; prints times and memory.

F is one float forward of the same samples in one session of the whole network, in the same batches, with as many
threads. It is timed again and again while the sweep goes on, so that other work on the machine slows both alike.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from quantgui.analysis.ranking import spearman
from quantgui.analysis.sensitivity import measure_sensitivity
from quantgui.analysis.sweep_store import SweepStore
from quantgui.engine.bench import usable_cores
from quantgui.network.batch import Batch
from quantgui.network.datasets import Dataset, open_dataset
from quantgui.network.executor import Executor
from quantgui.network.network import Network
from quantgui.network.reader import open_network
from quantgui.network.segments import build_segment, check_traced, choose_cuts, split, tensor_types, traced_shapes
from quantgui.network.session import create_session
from quantgui.results import Sensitivity, SensitivityReady
from quantgui.spec.sweep import Sweep
from tests.benchmarks.measuring import peak_memory, tell
from tests.networks import mosaics, network_path, photographs

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
    network: Network, dataset: Dataset, folder: Path, forward: Forward, *, exact: bool
) -> tuple[dict[str, float], Sensitivity]:
    """Return the cost of one sweep, in F where it is a time, and its table."""
    executor = Executor(network, cache_bytes=CACHE_BYTES, threads=usable_cores())
    start, used = time.perf_counter(), time.process_time()
    between = [forward.run()]
    first_guess = first_table = 0.0
    table: Sensitivity | None = None
    layers = 0
    with SweepStore(folder / f"{exact}.jsonl") as store:
        for event in measure_sensitivity(executor, dataset, Sweep(exact=exact), {}, None, store):
            if isinstance(event, SensitivityReady):
                first_guess = first_guess or _since(start, between)
                if len(between) * FORWARD_EVERY <= (layers := layers + 1):
                    between.append(forward.run())
            elif isinstance(event, Sensitivity):
                table = event
                if not first_table and event.candidates[0].samples:
                    first_table = _since(start, between)
    assert table is not None
    elapsed, processor = np.mean(between, axis=0).tolist()
    count = len(table.candidates)
    costs = {
        "elapsed": _since(start, between) / count / elapsed,
        "processor": (time.process_time() - used - sum(each for _, each in between)) / count / processor,
        "first_guess": first_guess / elapsed,
        "first_table": first_table / elapsed,
        "samples": float(np.mean([each.samples for each in table.candidates])),
    }
    return costs, table


def _since(start: float, between: Sequence[tuple[float, float]]) -> float:
    return time.perf_counter() - start - sum(seconds for seconds, _ in between)


def main() -> None:
    """Print what was measured."""
    name, samples = sys.argv[1], int(sys.argv[2])
    network = open_network(network_path(name))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "data.npy")
        np.save(path, photographs(samples) if name.startswith("efficientnet") else mosaics(samples)[0])
        dataset = open_dataset(str(path), network.summary.inputs, network.summary, network=network)
        forward = Forward(network, dataset)
        limit = share_behind(network, next(dataset.batches()))
        few, rough = swept(network, dataset, Path(folder), forward, exact=False)
        full, fine = swept(network, dataset, Path(folder), forward, exact=True)
    correlations = []
    for label in fine.orders:
        a, b = (np.array([c.value for c in table.candidates if c.format == label]) for table in (rough, fine))
        correlations.append(spearman(a, b))
    tell(
        {
            "candidates": len(fine.candidates),
            "limit": limit,
            "full": full,
            "few": few,
            "spearman": min(correlations),
            "cut_segments": fine.cut_segments,
            "peak_cache": fine.peak_cache_bytes,
            "peak_memory": peak_memory(),
        }
    )


if __name__ == "__main__":
    main()
