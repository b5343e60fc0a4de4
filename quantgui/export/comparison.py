"""Another tool's quantized network beside one's own configuration: both against the float network, on the same data."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from quantgui.analysis.evaluation import Tally
from quantgui.analysis.metric_function import Metric
from quantgui.analysis.samples import Samples
from quantgui.analysis.simulation import build_simulation
from quantgui.export.deployed import DeployedFile, open_deployed
from quantgui.export.side_by_side import SideBySide
from quantgui.network.batch import Batch
from quantgui.network.executor import Executor
from quantgui.network.network import Network
from quantgui.network.simulation import FLOAT_SIMULATION, Simulation
from quantgui.numerics.metrics import sqnr_db
from quantgui.results import ActivationReady, Event, LayerComparison, NetworkComparison, Progress
from quantgui.spec.config import QuantConfig

_THREADS = 2
_LAYER_SAMPLES = 8
"""Samples whose inner tensors are compared."""
_UNKNOWN = (math.nan, math.nan)


def compare(
    executor: Executor,
    dataset: Samples,
    config: QuantConfig,
    other: QuantConfig,
    activations: Mapping[str, ActivationReady],
    metric: Metric | None,
    path: Path,
    *,
    samples: int | None = None,
) -> Iterator[Event]:
    """Compare `config` with the quantized file at `path`: yields Progress ... and NetworkComparison.

    Args:
        executor: runs the float network.
        dataset: what all three run on.
        config: one's own.
        other: what the file was read as, for the formats of its layers.
        activations: statistics of the activations that `config` quantizes.
        metric: the user's own metric, or None.
        path: the file, which runs as its users run it.
        samples: how many samples to run, None for all.

    Raises:
        ExportError: the file cannot be run, or is not the quantized form of this network.
    """
    started = time.perf_counter()
    network = executor.network
    file = open_deployed(path, network)
    simulation = build_simulation(network, config, activations)
    together = SideBySide(executor, simulation, file, file.session(threads=_THREADS))
    total = dataset.summary.samples if samples is None else min(samples, dataset.summary.samples)
    own, others = Tally(network, total, metric), Tally(network, total, metric)
    for batch in dataset.batches(None, samples):
        yield Progress(batch.first, total, "Running both networks")
        reference, shown, answer = together.run(batch)
        own.add(batch, reference, shown)
        others.add(batch, reference, answer)
    yield Progress(0, 0, "Comparing layers")
    few = next(iter(dataset.batches(_LAYER_SAMPLES, min(_LAYER_SAMPLES, total))))
    errors = _layer_errors(executor, simulation, file, few)
    layers = tuple(
        LayerComparison(name, str(config.spec_for(name)), str(other.spec_for(name)), *errors.get(name, _UNKNOWN))
        for name in network.layers
    )
    seconds = time.perf_counter() - started
    yield NetworkComparison(
        str(path), config, other, own.evaluation(seconds), others.evaluation(seconds), layers, file.file_bytes
    )


def _layer_errors(
    executor: Executor, simulation: Simulation, file: DeployedFile, batch: Batch
) -> dict[str, tuple[float, float]]:
    """Return the SQNR in dB at each layer's output against the float network: of the simulation, and of the file.

    Layers whose outputs cannot be compared are left out.
    """
    tensors = _tensors(executor.network, executor, file)
    if not tensors:
        return {}
    names = list(dict.fromkeys(tensors.values()))
    wanted = executor.run(batch, FLOAT_SIMULATION, names)
    mine = executor.run(batch, simulation, names)
    forms = {name: file.deployed_form(name)[0] or name for name in names}
    # Looking at tensors in between keeps ONNX Runtime from fusing, so these are the file's exact values.
    theirs = file.run(file.session(threads=_THREADS, outputs=list(forms.values())), batch)
    return {
        layer: (
            sqnr_db(wanted[tensor], mine[tensor]),
            sqnr_db(wanted[tensor], np.asarray(theirs[forms[tensor]], np.float32)),
        )
        for layer, tensor in tensors.items()
        if wanted[tensor].shape == theirs[forms[tensor]].shape
    }


def _tensors(network: Network, executor: Executor, file: DeployedFile) -> dict[str, str]:
    """Return the output tensor of each layer that both networks have by name."""
    makers = {node.name: next(filter(None, node.output), "") for node in network.skeleton.graph.node}
    kinds = {info.name: info.type.tensor_type.elem_type for info in file.model.graph.value_info}
    found = {}
    for layer in network.summary.layers:
        tensor = layer.output_tensor or makers.get(layer.node, "")
        if tensor and executor.fetchable(tensor) and file.deployed_form(tensor)[0] and kinds.get(tensor, 1) == 1:
            found[layer.name] = tensor
    return found
