"""Ranges by the error of a layer's output, on real networks and their data."""

from __future__ import annotations

from pathlib import Path

import networks
import numpy as np
import pytest

from quantgui.analysis.calibration import calibrate
from quantgui.analysis.importance import importance, summed_axes
from quantgui.analysis.layer_alone import input_moments, layer_nodes
from quantgui.analysis.proxies import INPUT_WEIGHTED_SQNR, OWN_OUTPUT_SQNR, Change, guess
from quantgui.network.datasets import open_dataset
from quantgui.network.executor import Executor
from quantgui.network.reader import open_network
from quantgui.numerics.groups import as_matrix
from quantgui.results import ActivationReady, Calibrated
from quantgui.spec.presets import weight_spec
from quantgui.spec.quantizer import InputWeightedError, LayerSpec, LeastSquaredError

pytestmark = pytest.mark.network

AWARE = LayerSpec(weight_spec(4, range_estimator=InputWeightedError()))
PLAIN = LayerSpec(weight_spec(4, range_estimator=LeastSquaredError()))


@pytest.mark.parametrize(
    ("name", "samples", "better", "worse"), [("efficientnet-lite0", 16, 24, 10), ("demosaicnet", 8, 14, 4)]
)
def test_that_most_layers_give_less_noise_than_with_the_least_error_of_their_weights(
    tmp_path: Path, name: str, samples: int, better: int, worse: int, record_property: pytest.RecordProperty
) -> None:
    network = open_network(networks.network_path(name))
    source = networks.write_samples(name, tmp_path, samples)
    data = open_dataset(str(source), network.summary.inputs, network.summary, network=network)
    axes = summed_axes(network)
    *_, last = calibrate(Executor(network), data, axes, axes=axes)
    assert isinstance(last, Calibrated)
    layers = [layer for layer in network.summary.layers if not layer.keeps_float and layer.quantizes_activations]
    changes = [Change((layer.name, spec), layer, spec, {}) for layer in layers for spec in (PLAIN, AWARE)]
    work = guess(network, data, changes, {}, last.activations, measured=1)
    try:
        while True:
            next(work)
    except StopIteration as end:
        found = end.value.values
    gains = np.array([found[x.name, AWARE][OWN_OUTPUT_SQNR] - found[x.name, PLAIN][OWN_OUTPUT_SQNR] for x in layers])
    record_property("gains", gains.tolist())
    print(name, "better", (gains > 0.01).sum(), "worse", (gains < -0.01).sum(), "of", len(gains), np.nanmean(gains))
    assert (gains > 0.01).sum() >= better
    assert (gains < -0.01).sum() <= worse
    # What is made small is the error weighted by the inputs: no layer has more of that, up to the search's steps.
    aims = [found[x.name, AWARE][INPUT_WEIGHTED_SQNR] - found[x.name, PLAIN][INPUT_WEIGHTED_SQNR] for x in layers]
    assert np.nanmin(aims) > -0.05


@pytest.mark.parametrize(
    "name", ["ppocr-cls", "ppocr-rec", "efficientnet-lite0", "demosaicnet", "facenet-onet", "magika"]
)
def test_that_importance_is_the_mean_square_that_a_layer_run_alone_sees(name: str) -> None:
    network = open_network(networks.network_path(name))
    data = open_dataset("random:2", network.summary.inputs, network.summary, network=network)
    axes = summed_axes(network)
    executor = Executor(network)
    *_, last = calibrate(executor, data, axes, axes=axes)
    assert isinstance(last, Calibrated)
    known: dict[str, ActivationReady] = dict(last.activations)
    nodes = layer_nodes(network, network.layers)
    wanted = sorted({read for users in nodes.values() for node in users for read in node.inputs} & axes.keys())
    batch = next(data.batches(2))
    values = executor.run(batch, fetch=wanted)
    compared = 0
    for layer in network.summary.layers:
        users = nodes[layer.name]
        if not layer.quantizes_activations or len(users) != 1 or users[0].inputs[0] not in values:
            continue
        moments = input_moments(users[0], values, np.empty(0))
        if moments is None:
            continue
        expected = as_matrix(np.broadcast_to(moments, layer.shape), layer.channel_axis)
        expected = expected / (expected.max() or 1.0)
        found = np.broadcast_to(importance(network, layer, known), expected.shape)
        np.testing.assert_allclose(found, np.maximum(expected, 1e-3 * expected.mean()), rtol=1e-2, atol=1e-6)
        compared += 1
    assert compared > 2
