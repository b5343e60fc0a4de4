"""Noise of real networks, against evaluations and whole runs of the same configurations."""

from __future__ import annotations

import math
from pathlib import Path

import networks
import numpy as np
import pytest

from quantgui.analysis.calibration import calibrate
from quantgui.analysis.evaluation import evaluate
from quantgui.analysis.noise import trace_noise
from quantgui.analysis.simulation import activation_tensors, as_stored, build_simulation
from quantgui.network.batch import Batch
from quantgui.network.datasets import open_dataset
from quantgui.network.executor import Executor
from quantgui.network.reader import open_network
from quantgui.results import Calibrated, EvaluationReady, NoiseReady
from quantgui.spec.config import QuantConfig
from quantgui.spec.presets import find_preset, preset_config
from quantgui.spec.quantizer import LayerSpec

SAMPLES = Path(__file__).parents[2] / "sample_models"


def _opened(path: Path, source: str):
    network = open_network(path)
    return network, open_dataset(source, network.summary.inputs, network.summary, network=network)


def _traced(network, data, preset: str, samples: int):
    config = preset_config(find_preset(preset), network.summary.layers)
    executor = Executor(network)
    activations = {}
    if tensors := activation_tensors(network, config):
        *_, last = calibrate(executor, data, tensors, samples=samples)
        assert isinstance(last, Calibrated)
        activations = last.activations
    *_, noise = trace_noise(executor, data, config, activations, samples=samples)
    assert isinstance(noise, NoiseReady)
    assert noise.complete
    return config, activations, noise


def _db(reference, values) -> float:
    noise = float(((reference.astype(np.float64) - values) ** 2).sum())
    return 10 * math.log10(float((reference.astype(np.float64) ** 2).sum()) / noise) if noise else math.inf


def _check(network, data, preset: str, samples: int, every: int) -> NoiseReady:
    """Compare some layers with whole networks in one piece, run in other batches."""
    config, activations, noise = _traced(network, data, preset, samples)
    whole = Executor(network, segmented=False)
    outputs = {info.name for info in network.summary.outputs}

    def values(batch: Batch, wanted: QuantConfig, tensor: str):
        simulation = build_simulation(network, wanted, activations)
        found = whole.run(batch, simulation, [tensor])[tensor]
        return found if tensor in outputs else as_stored(found, simulation.quantizers.get(tensor, ()))

    for row in range(0, len(noise.layers), every):
        each = noise.layers[row]
        alone = QuantConfig().with_overrides({each.layer: config.spec_for(each.layer)})
        others = config.with_overrides({each.layer: LayerSpec()})
        (batch,) = data.batches(samples, samples)
        reference = values(batch, QuantConfig(), each.tensor)
        for found, wanted in (
            (each.own_sqnr_db, alone),
            (each.inherited_sqnr_db, others),
            (each.total_sqnr_db, config),
        ):
            assert min(found, 70) == pytest.approx(min(_db(reference, values(batch, wanted, each.tensor)), 70), abs=0.1)
        evaluations = evaluate(whole, data, alone, activations, samples=samples)
        *_, last = (event.evaluation for event in evaluations if isinstance(event, EvaluationReady))
        if "agreement" in last.scores:
            assert 1 - noise.flips[row].mean() == pytest.approx(last.scores["agreement"].value, abs=1e-6)
    return noise


@pytest.mark.parametrize("preset", ["W3-g32", "W8A8"])
def test_that_noise_of_the_sample_network_is_that_of_whole_networks(preset: str) -> None:
    network, data = _opened(SAMPLES / "digits" / "digits.onnx", str(SAMPLES / "digits" / "digits.evaluation.npz"))
    noise = _check(network, data, preset, 48, 3)
    assert noise.has_classes
    # Noise adds up on the way: the last layers inherit far more than the first ones.
    assert noise.layers[0].inherited_sqnr_db == math.inf
    assert noise.layers[-1].inherited_sqnr_db < noise.layers[1].inherited_sqnr_db


@pytest.mark.network
@pytest.mark.parametrize(("name", "preset"), [("ppocr-cls", "W8A8"), ("facenet-rnet", "W4"), ("demosaicnet", "W4")])
def test_that_noise_of_a_real_network_is_that_of_whole_networks(name: str, preset: str, tmp_path: Path) -> None:
    source = "random:4"
    if name == "demosaicnet":
        source = str(tmp_path / "data.npy")
        np.save(source, networks.mosaics(4, 64)[0])
    network, data = _opened(networks.network_path(name), source)
    noise = _check(network, data, preset, 4, 5)
    assert len(noise.layers) == len(network.summary.layers)
    assert all(each.tensor for each in noise.layers)


@pytest.mark.network
def test_that_layers_inside_the_bodies_of_a_real_network_are_seen() -> None:
    network, data = _opened(networks.network_path("silero"), "random:3")
    _, _, noise = _traced(network, data, "W4", 3)
    assert len(noise.layers) == len(network.summary.layers)
    assert all(each.tensor and not math.isnan(each.inherited_sqnr_db) for each in noise.layers)
    assert any(each.own_sqnr_db < 60 for each in noise.layers)
