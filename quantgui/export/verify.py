"""The exported file against the simulation: whether it does in a user's runtime what the window shows.

The file runs as a whole with ONNX Runtime's default options, so with all fusions and real integer kernels. Where the
two part, the file is run again with one thing changed at a time, and what closes the gap is named as the reason.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnxruntime

from quantgui.analysis.evaluation import Tally
from quantgui.analysis.importance import with_squares
from quantgui.analysis.metric_function import Metric
from quantgui.analysis.samples import Samples
from quantgui.analysis.simulation import build_simulation, through, weight_spec
from quantgui.export.deployed import DeployedFile, open_deployed
from quantgui.export.kernels import kernels_of
from quantgui.export.metadata import CONFIG_KEY, exported_profile, exported_ranges, exported_squares
from quantgui.export.reasons import PLAIN, THREADS, Comparison, named, reasons
from quantgui.export.side_by_side import SideBySide
from quantgui.network.batch import Batch
from quantgui.network.executor import Executor
from quantgui.network.network import Network
from quantgui.network.session import create_session, runtime_errors
from quantgui.network.simulation import Simulation, TensorQuantizer
from quantgui.numerics.metrics import sqnr_db
from quantgui.results import (
    ActivationReady,
    Array,
    Evaluation,
    Event,
    LayerDeviation,
    LayerInfo,
    Progress,
    Verification,
)
from quantgui.spec.config import QuantConfig
from quantgui.spec.serialization import config_from_json
from quantgui.spec.size import network_bytes, weight_bytes

LAYER_SAMPLES = 4
"""Samples whose inner tensors are compared."""
LAYERS_PER_SESSION, MOST_SESSIONS = 16, 8
"""Neighbours are looked at in different sessions, as an output in between keeps ONNX Runtime from fusing them."""
LATENCY_SECONDS = 1.5
FEWEST_ROUNDS, MOST_ROUNDS = 5, 60
PARTED_DB = 40.0
"""A layer below this has parted: about what rounding its activations to 8 bits costs."""


def verify(
    executor: Executor,
    dataset: Samples,
    config: QuantConfig,
    activations: Mapping[str, ActivationReady],
    metric: Metric | None,
    path: Path | str,
    *,
    samples: int | None = None,
) -> Iterator[Event]:
    """Compare the file at `path` with the simulation of `config`: yields Progress ... and Verification.

    Args:
        executor: runs the float network.
        dataset: what both are run on.
        config: what the file should be.
        activations: statistics of those activations that `config` needs and the file records nothing of.
        metric: the user's own metric, or None.
        path: the exported file.
        samples: how many samples to run, None for all.

    Raises:
        ExportError: the file cannot be run, or is not the quantized form of this network.
        DataError: `config` quantizes an activation that `activations` does not hold.
        MetricError: the user's metric fails.
    """
    started = time.perf_counter()
    network = executor.network
    file = open_deployed(Path(path), network)
    ranges, profile = exported_ranges(Path(path)), exported_profile(Path(path))
    activations = with_squares(activations, exported_squares(Path(path)))
    simulation = build_simulation(network, config, activations, ranges=ranges, profile=profile)
    together = SideBySide(executor, simulation, file, file.session(threads=THREADS))
    total = dataset.summary.samples if samples is None else min(samples, dataset.summary.samples)
    simulated, deployed, parted = (Tally(network, total, each) for each in (metric, metric, None))
    for batch in dataset.batches(None, samples):
        yield Progress(batch.first, total, "Running the file")
        reference, shown, answer = together.run(batch)
        simulated.add(batch, reference, shown)
        deployed.add(batch, reference, answer)
        parted.add(batch, shown, answer)
    gap = parted.evaluation(0.0).output_sqnr_db
    few = next(iter(dataset.batches(LAYER_SAMPLES, min(LAYER_SAMPLES, total))))
    layers = yield from _layer_deviations(executor, simulation, file, few)
    layers = _with_kernels(network, config, file, layers)
    latency = yield from _measure_latency(network, file, next(iter(dataset.batches(1, 1))))
    yield Progress(0, 0, "Looking for reasons")
    parted_at = next((layer for layer in layers if layer.layer == first_parting(layers)), None)
    comparison = Comparison(executor, simulation, file, few)
    notes = [
        *_score_notes(simulated.evaluation(0.0), deployed.evaluation(0.0)),
        *_file_notes(network, config, file),
        *_kernel_notes(network, config, layers),
        *reasons(network, config, comparison, gap, parted_at),
        *latency.notes,
    ]
    seconds = time.perf_counter() - started
    yield Verification(
        path=str(path),
        simulated=simulated.evaluation(seconds),
        deployed=deployed.evaluation(seconds),
        output_sqnr_db=gap,
        file_bytes=file.file_bytes,
        float_file_bytes=network.summary.file_bytes,
        latency_ratio=latency.ratio,
        latency_quartiles=latency.quartiles,
        first_parting=first_parting(layers),
        float_latency_ms=latency.float_ms,
        deployed_latency_ms=latency.deployed_ms,
        layers=layers,
        notes=tuple(notes),
        seconds=seconds,
    )


# --- layers ------------------------------------------------------------------------------------------------------


def _layer_deviations(
    executor: Executor, simulation: Simulation, file: DeployedFile, batch: Batch
) -> Generator[Event, None, tuple[LayerDeviation, ...]]:
    """Return the deviation of each layer's output that exists by name in both, in the order of the layers."""
    network = executor.network
    makers = {node.name: next(filter(None, node.output), "") for node in network.skeleton.graph.node}
    final = {output.name for output in network.skeleton.graph.output}
    wanted: dict[str, LayerInfo] = {}
    for layer in network.summary.layers:
        tensor = layer.output_tensor or makers.get(layer.node, "")
        if tensor and executor.fetchable(tensor) and file.deployed_form(tensor)[0]:
            wanted.setdefault(tensor, layer)
    names = list(wanted)
    count = min(MOST_SESSIONS, -(-len(names) // LAYERS_PER_SESSION))
    found: dict[str, float] = {}
    for number in range(count):
        yield Progress(number, count, "Comparing layers")
        part = names[number::count]
        forms = {name: (name, False) if name in final else file.deployed_form(name) for name in part}
        session = file.session(threads=THREADS, outputs=[form for form, _ in forms.values()])
        answers = file.run(session, batch)
        shown = executor.run(batch, simulation, part)
        for name, (form, quantized) in forms.items():
            value = _as_quantized(shown[name], simulation.quantizers.get(name, ())) if quantized else shown[name]
            answer = answers[form]
            if value.dtype.kind == "f" and value.shape == answer.shape:
                found[name] = sqnr_db(value, answer) if np.isfinite(answer).all() else -math.inf
    return tuple(LayerDeviation(wanted[name].name, name, found[name]) for name in names if name in found)


def _as_quantized(values: Array, quantizers: Sequence[TensorQuantizer]) -> Array:
    """Return the values behind the first of `quantizers`, as they are where there is none."""
    return through(quantizers[0], values) if quantizers else values


def first_parting(layers: Sequence[LayerDeviation]) -> str:
    """Return the first layer, in the network's order, whose output is not the simulated one; "" if there is none."""
    return next((layer.layer for layer in layers if layer.sqnr_db < PARTED_DB), "")


def _with_kernels(
    network: Network, config: QuantConfig, file: DeployedFile, layers: Sequence[LayerDeviation]
) -> tuple[LayerDeviation, ...]:
    """Return the deviations with what runs each layer, and the bytes of its weight."""
    kernels = kernels_of(network, file, threads=THREADS)
    found = []
    for each in layers:
        layer, kernel = network.layers[each.layer], kernels.get(each.layer)
        size = weight_bytes(
            layer.channels,
            layer.elements_per_channel,
            weight_spec(layer, config),
            stored=True,
            float_bits=layer.float_bits,
        )
        name, is_float = ("", False) if kernel is None else (str(kernel), kernel.is_float)
        found.append(replace(each, kernel=name, is_float=is_float, stored_bytes=size))
    return tuple(found)


def _kernel_notes(network: Network, config: QuantConfig, layers: Sequence[LayerDeviation]) -> Iterator[str]:
    """Yield a sentence on the quantized layers that ONNX Runtime computes with float weights."""
    quantized = [each for each in layers if weight_spec(network.layers[each.layer], config) is not None and each.kernel]
    floats = [each.layer for each in quantized if each.is_float]
    if floats:
        yield (
            f"Of {len(quantized)} quantized layers ONNX Runtime computes {len(floats)} with float weights "
            f"({named(floats)}), as it has no kernel for their formats there: they are small on disk, but not faster."
        )


def _score_notes(simulated: Evaluation, deployed: Evaluation) -> Iterator[str]:
    """Yield a sentence where deployed and simulated quality differ by more than the standard error."""
    shown, found = simulated.quantized_score, deployed.quantized_score
    difference = abs(found.value - shown.value)
    error = max(shown.stderr, found.stderr)
    if math.isfinite(difference) and math.isfinite(error) and difference > error:
        yield (
            f"Deployed quality ({found.value:.4g}) differs from simulated ({shown.value:.4g}) by {difference:.2g}, "
            f"more than the standard error of {error:.2g}: do not rely on the simulated number."
        )


# --- latency -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Latency:
    """Median times of one sample."""

    float_ms: float
    deployed_ms: float
    ratio: float
    quartiles: tuple[float, float]
    notes: tuple[str, ...] = ()


def _measure_latency(network: Network, file: DeployedFile, batch: Batch) -> Generator[Event, None, _Latency]:
    """Return the latency of float and deployed network on one sample."""
    reference = create_session(network.skeleton, network.constants, threads=THREADS, simulate=False)
    deployed = file.session(threads=THREADS)
    rounds = yield from _interleaved([reference, deployed], batch)
    times = [float(np.median(own)) for own in rounds]
    # Both are timed in each round, so what slows the machine for a while slows both.
    lower, ratio, upper = (float(each) for each in np.percentile(rounds[1] / rounds[0], [25, 50, 75]))
    notes: tuple[str, ...] = ()
    if times[1] > 1.1 * times[0]:
        plain = file.session(threads=THREADS, config=PLAIN)
        again = [float(np.median(own)) for own in (yield from _interleaved([deployed, plain], batch))]
        if again[1] < 0.9 * again[0]:
            sentence = (
                "ONNX Runtime dequantizes weights anew at each run; with the session option "
                f"session.disable_quant_qdq=1 it does so once, and takes {again[1] / again[0]:.2f} of the time."
            )
            notes = (sentence,)
    return _Latency(times[0], times[1], ratio, (lower, upper), notes)


def _interleaved(sessions: Sequence[onnxruntime.InferenceSession], batch: Batch) -> Generator[Event, None, list[Array]]:
    """Return the milliseconds of each session in each round, run in turns."""
    feeds = [{info.name: batch.inputs[info.name] for info in session.get_inputs()} for session in sessions]
    times: list[list[float]] = [[] for _ in sessions]
    started = time.perf_counter()
    rounds = 0
    while rounds < FEWEST_ROUNDS or (rounds < MOST_ROUNDS and time.perf_counter() - started < LATENCY_SECONDS):
        if rounds % 5 == 0:
            yield Progress(rounds, MOST_ROUNDS, "Measuring latency")
        for own, session, feed in zip(times, sessions, feeds, strict=True):
            with runtime_errors("run"):
                before = time.perf_counter()
                session.run(None, feed)
                own.append(1000 * (time.perf_counter() - before))
        rounds += 1
    # The first round allocates.
    return [np.array(own[1:]) for own in times]


# --- the file ----------------------------------------------------------------------------------------------------


def _file_notes(network: Network, config: QuantConfig, file: DeployedFile) -> Iterator[str]:
    """Yield sentences on the file itself."""
    recorded = file.metadata.get(CONFIG_KEY)
    if recorded is None:
        yield "The file does not say which configuration it was made with."
    elif not _same_config(network, recorded, config):
        yield "The file was made with another configuration than the one it is compared with."
    summary = network.summary
    predicted = network_bytes(summary.float_bytes, summary.layers, config, stored=True)
    extra = file.file_bytes - predicted
    if extra >= 0:
        yield f"Of {file.file_bytes:,} bytes, {predicted:,} are the constants as counted, {extra:,} the graph."
    else:
        yield f"The file has {file.file_bytes:,} bytes, {-extra:,} fewer than its constants were counted."


def _same_config(network: Network, recorded: str, config: QuantConfig) -> bool:
    try:
        other = config_from_json(json.loads(recorded))
    except ValueError:
        return False
    return all(config.spec_for(layer) == other.spec_for(layer) for layer in network.layers)
