"""Finds the best mix of a network in a process of its own: ``child_mix NETWORK SAMPLES SHARE``; prints what it gives.

Its rivals get the bytes they take, and a mix is found for just as many: uniform bits; greedy by the same table (from
float, again and again the step down that adds least noise for a byte saved); and ranking by weight SQNR (again and
again a step down where the weight error stays smallest). All are measured on samples that no search has seen.
"""

from __future__ import annotations

import math
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np

from quantgui.analysis.evaluation import evaluate
from quantgui.analysis.metric_function import Metric, load_metric
from quantgui.analysis.mixed_precision import find_mix
from quantgui.analysis.sensitivity import measure_sensitivity
from quantgui.engine.machine import usable_cores
from quantgui.network.datasets import Dataset, open_dataset
from quantgui.network.executor import Executor
from quantgui.network.network import Network
from quantgui.network.reader import open_network
from quantgui.results import Evaluation, EvaluationReady, MixReady, Sensitivity
from quantgui.spec.config import QuantConfig
from quantgui.spec.mix import Mix
from quantgui.spec.quantizer import FLOAT, LayerSpec
from quantgui.spec.size import network_bytes, weight_bytes
from quantgui.spec.sweep import Sweep
from tests.benchmarks.measuring import peak_memory, tell
from tests.networks import mosaics, network_path, photographs

CACHE_BYTES = 256 * 2**20
PSNR = """
import numpy as np

def psnr(outputs, labels):
    return -10 * np.log10(((np.clip(outputs, 0, 1) - labels) ** 2).mean((1, 2, 3)))
"""

Noise = Mapping[tuple[str, LayerSpec], float]


class Trial:
    """A network with samples to search on and others to judge by."""

    def __init__(self, name: str, samples: int, folder: Path) -> None:
        self.network: Network = open_network(network_path(name))
        self.metric: Metric | None = None
        if name == "demosaicnet":
            x, truth = mosaics(2 * samples)
            (folder / "psnr.py").write_text(PSNR)
            self.metric = load_metric(f"{folder / 'psnr.py'}:psnr")
        else:
            x, truth = photographs(2 * samples), None
        summary = self.network.summary
        self.data: list[Dataset] = []
        for part in (slice(None, samples), slice(samples, None)):
            arrays = {summary.inputs[0].name: x[part]} | ({} if truth is None else {"labels": truth[part]})
            path = folder / f"data{part.start}.npz"
            np.savez(path, **arrays)
            self.data.append(open_dataset(str(path), summary.inputs, summary, network=self.network))
        self.executor = Executor(self.network, cache_bytes=CACHE_BYTES, threads=usable_cores())

    def bytes(self, config: QuantConfig) -> int:
        """Return the bytes of the network under a configuration."""
        return network_bytes(self.network.summary.float_bytes, self.network.summary.layers, config)

    def judged(self, config: QuantConfig) -> Evaluation:
        """Return the quality on the other samples."""
        *_, last = evaluate(self.executor, self.data[1], config, {}, self.metric)
        assert isinstance(last, EvaluationReady)
        return last.evaluation

    def found(self, table: Sensitivity, limit: float) -> MixReady:
        """Return the mix for some bytes."""
        *_, last = find_mix(self.executor, self.data[0], Mix(table.sweep, limit=limit), table, {})
        assert isinstance(last, MixReady)
        return last


def uniform(trial: Trial, table: Sensitivity, limit: float) -> QuantConfig:
    """Return the most bits that fit, the same for all layers."""
    names = tuple(dict.fromkeys(each.layer for each in table.candidates))
    configs = [
        QuantConfig().with_overrides({name: table.sweep.candidate(name, spec) for name in names})
        for spec in table.sweep.specs
    ]
    return max((config for config in configs if trial.bytes(config) <= limit), key=trial.bytes)


def greedy(
    trial: Trial, table: Sensitivity, limit: float, noise: Noise, price: Callable[[float, float, int], float]
) -> QuantConfig:
    """Return what single steps down from float lead to; `price` of (noise before, after, bytes saved) decides."""
    specs: dict[str, list[LayerSpec]] = {}
    for each in table.candidates:
        specs.setdefault(each.layer, []).append(each.spec)
    sizes = {(each.layer, each.spec): each.bytes for each in table.candidates}
    for name, found in specs.items():
        found.append(FLOAT)
        layer = trial.network.layers[name]
        sizes[name, FLOAT] = weight_bytes(layer.channels, layer.elements_per_channel, None)
    places = {name: len(found) - 1 for name, found in specs.items()}

    def config() -> QuantConfig:
        return QuantConfig().with_overrides({name: specs[name][place] for name, place in places.items()})

    def steps() -> Iterator[tuple[float, str]]:
        for name, place in places.items():
            if place:
                old, new = (name, specs[name][place]), (name, specs[name][place - 1])
                yield price(noise.get(old, 0.0), noise[new], sizes[old] - sizes[new]), name

    while trial.bytes(config()) > limit:
        places[min(steps())[1]] -= 1
    return config()


def main() -> None:
    """Print what was measured."""
    name, samples, share = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
    with tempfile.TemporaryDirectory() as folder:
        trial = Trial(name, samples, Path(folder))
        limit = share * trial.network.summary.float_bytes
        start = time.perf_counter()
        *_, table = measure_sensitivity(trial.executor, trial.data[0], Sweep(), {})
        swept, sweep_memory = time.perf_counter() - start, peak_memory()
        assert isinstance(table, Sensitivity)
        best = trial.found(table, limit)
        searched, search_memory = time.perf_counter() - start - swept, peak_memory()
        measured = {(c.layer, c.spec): 10 ** (-c.value / 10) for c in table.candidates}
        guessed = {(c.layer, c.spec): 10 ** (-c.weight_sqnr_db / 10) for c in table.candidates}
        rivals = {
            "uniform bits": uniform(trial, table, limit),
            "greedy by the same table": greedy(
                trial, table, limit, measured, lambda old, new, saved: (new - old) / max(saved, 1)
            ),
            "ranking by weight SQNR": greedy(trial, table, limit, guessed, lambda _, new, __: new),
        }
        told = {"best": _told(trial, best), "rivals": {}}
        for words, config in rivals.items():
            size = trial.bytes(config)
            told["rivals"][words] = {"rival": _quality(trial, config), "ours": _told(trial, trial.found(table, size))}
        forward = table.float_forward_seconds
        tell(
            {
                **told,
                "float_bytes": trial.network.summary.float_bytes,
                "swept": swept / forward,
                "searched": searched / forward,
                "sweep_memory": sweep_memory,
                "search_memory": search_memory,
            }
        )


def _told(trial: Trial, ready: MixReady) -> dict[str, object]:
    assert ready.chosen is not None
    assert ready.refined is not None
    error = ready.additivity_error
    return {
        **_quality(trial, ready.refined.config),
        "gained": ready.gained,
        "predicted": ready.points[ready.chosen].predicted,
        "additivity_error": error if math.isfinite(error) else None,
        "unrefined": _quality(trial, ready.points[ready.chosen].config),
    }


def _quality(trial: Trial, config: QuantConfig) -> dict[str, object]:
    evaluation = trial.judged(config)
    score = evaluation.scores["output_sqnr_db"]
    return {
        "bytes": trial.bytes(config),
        "sqnr_db": score.value,
        "stderr": score.stderr,
        "metric": evaluation.metric,
        "value": evaluation.quantized_score.value,
    }


if __name__ == "__main__":
    main()
