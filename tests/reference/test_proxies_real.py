"""Cheap guesses on real networks, against whole networks with one layer changed."""

from __future__ import annotations

import importlib
import math
from pathlib import Path

import networks
import numpy as np
import pytest

from quantgui.analysis.proxies import ALONE_SAMPLES, OWN_OUTPUT_SQNR, PROXIES, Change, guess
from quantgui.analysis.sensitivity import measure_sensitivity
from quantgui.analysis.simulation import build_simulation
from quantgui.network.batch import Batch
from quantgui.network.datasets import open_dataset
from quantgui.network.executor import Executor
from quantgui.network.reader import open_network
from quantgui.network.simulation import FLOAT_SIMULATION, Simulation
from quantgui.numerics.statistics import decibels
from quantgui.results import Sensitivity
from quantgui.spec.config import QuantConfig
from quantgui.spec.presets import weight_spec
from quantgui.spec.quantizer import LayerSpec
from quantgui.spec.sweep import Sweep, bits_specs

pytestmark = pytest.mark.network

INT4 = LayerSpec(weight_spec(4))


def outputs_of(executor: Executor, batches: list[Batch], simulation: Simulation, tensor: str) -> np.ndarray:
    """Return a tensor on all batches, whose recurrent states are those of the float network."""
    found = [executor.run(batch, simulation, [tensor])[tensor] for batch in batches]
    return np.concatenate([each.ravel() for each in found]).astype(np.float64)


@pytest.mark.parametrize("name", ["ppocr-cls", "demosaicnet", "magika", "silero-sequence", "facenet-onet", "minilm"])
def test_that_the_own_output_error_is_that_in_the_whole_network_with_this_layer_changed(name: str) -> None:
    network = open_network(networks.network_path(name))
    summary = network.summary
    data = open_dataset("random:4", summary.inputs, summary, network=network)
    layers = [layer for layer in summary.layers if not layer.keeps_float and not layer.scope]
    layers = layers[:: max(1, len(layers) // 6)]
    changes = [Change((layer.name, INT4), layer, INT4, {}) for layer in layers]
    work = guess(network, data, changes, {})
    try:
        while True:
            next(work)
    except StopIteration as end:
        proxies = end.value
    executor = Executor(network, segmented=False)
    answers = filter(None, executor.run_sequence(data.batches(ALONE_SAMPLES, ALONE_SAMPLES)))
    batches = [batch for batch, _ in answers]
    nodes = {node.name: node for node in network.skeleton.graph.node}
    for layer in layers:
        # Where several nodes use a weight, one may feed another, whose input the whole network then disturbs too.
        if len(layer.users) > 1:
            continue
        config = QuantConfig().with_overrides({layer.name: INT4})
        tensor = next(each for each in nodes[layer.node].output if each)
        reference = outputs_of(executor, batches, FLOAT_SIMULATION, tensor)
        noise = outputs_of(executor, batches, build_simulation(network, config, {}), tensor) - reference
        expected = decibels(float((reference**2).sum()), float((noise**2).sum()))
        assert proxies.values[layer.name, INT4][OWN_OUTPUT_SQNR] == pytest.approx(expected, abs=0.05)
    assert not proxies.notes
    assert all(not math.isnan(value) for found in proxies.values.values() for value in found.values())


@pytest.mark.parametrize("name", ["demosaicnet", "silero"])
def test_that_the_gradient_ranks_layers_better_than_the_error_of_their_weights(name: str, tmp_path: Path) -> None:
    importlib.import_module("torch")  # the sweep would not load it for what is measured so soon
    network = open_network(networks.network_path(name))
    source = "random:6"
    if name == "demosaicnet":
        source = str(tmp_path / "data.npy")
        np.save(source, networks.mosaics(8, 80)[0])
    data = open_dataset(source, network.summary.inputs, network.summary, network=network)
    tables = [
        each
        for each in measure_sensitivity(Executor(network), data, Sweep(bits_specs((3, 4, 8)), exact=True), {})
        if isinstance(each, Sensitivity)
    ]
    early, last = next(table for table in tables if table.proxy_seconds), tables[-1]
    assert all(set(each.proxies) == set(PROXIES) for each in early.candidates)
    assert last.correlations["gradient_sqnr_db"] > 0.9
    assert last.correlations["weight_sqnr_db"] == last.weight_error_correlation
    assert last.layer_correlations["gradient_sqnr_db"] > 0.6
    assert last.layer_correlations["gradient_sqnr_db"] > last.layer_correlations["weight_sqnr_db"]
    assert 0 < last.proxy_seconds < last.seconds
    # What is not measured yet stands in the order of the gradient.
    for label, order in early.orders.items():
        column = [each for each in early.candidates if each.format == label]
        if any(each.samples for each in column):
            continue
        found = {each.layer: each.proxies["gradient_sqnr_db"] for each in column}
        assert [found[place.layer] for place in order] == sorted(found.values())
