"""Training of real networks: it begins at what is simulated, and the exported file gives what it ends with."""

from __future__ import annotations

from pathlib import Path

import networks
import numpy as np
import pytest
import torch

from quantgui.analysis.calibration import calibrate
from quantgui.analysis.qat.network import TrainableNetwork
from quantgui.analysis.qat.training import train
from quantgui.analysis.simulation import activation_tensors, build_simulation
from quantgui.export.qdq import export_qdq
from quantgui.network.datasets import open_dataset
from quantgui.network.differentiable import DifferentiableNetwork
from quantgui.network.executor import Executor
from quantgui.network.reader import open_network
from quantgui.network.session import create_session
from quantgui.results import TrainingReady
from quantgui.spec.config import QuantConfig
from quantgui.spec.presets import activation_spec, weight_spec
from quantgui.spec.quantizer import LayerSpec, MinMax
from quantgui.spec.training import Training

pytestmark = pytest.mark.network


def _opened(name: str, folder: Path, **arrays: np.ndarray):
    network = open_network(networks.network_path(name))
    np.savez(folder / "data.npz", **{network.summary.inputs[0].name: arrays.pop("x")}, **arrays)
    return network, open_dataset(str(folder / "data.npz"), network.summary.inputs, network.summary)


@pytest.mark.parametrize("name", ["ccexam-mnist", "demosaicnet", "facenet-onet"])
def test_that_training_begins_at_what_is_simulated(name: str, tmp_path: Path) -> None:
    x = {
        "ccexam-mnist": lambda: networks.digits(8)[0],
        "demosaicnet": lambda: networks.mosaics(2)[0],
        "facenet-onet": lambda: np.random.default_rng(0).uniform(-1, 1, (8, 3, 48, 48)).astype(np.float32),
    }[name]()
    network, dataset = _opened(name, tmp_path, x=x)
    executor = Executor(network)
    *_, calibrated = calibrate(executor, dataset, activation_tensors(network))
    config = QuantConfig(LayerSpec(weight_spec(4), activation_spec(8)))
    trainable = TrainableNetwork(network, config, calibrated.activations)
    batch = next(dataset.batches())
    expected = executor.run(batch, build_simulation(network, config, calibrated.activations))
    with torch.no_grad():
        found = trainable.run(DifferentiableNetwork(network), batch.inputs)
    for output, values in expected.items():
        assert np.abs(found[output].numpy() - values).max() <= 1e-4 * np.abs(values).max()
    ranged = executor.run(batch, build_simulation(network, trainable.ranged(), calibrated.activations))
    assert all((ranged[output] == values).all() for output, values in expected.items())


def test_that_two_bits_learn_digits_and_the_file_computes_what_was_told(tmp_path: Path) -> None:
    x, labels = networks.digits(640)
    network, dataset = _opened("ccexam-mnist", tmp_path, x=x, labels=labels)
    executor = Executor(network)
    *_, calibrated = calibrate(executor, dataset, activation_tensors(network))
    config = QuantConfig(LayerSpec(weight_spec(2, range_estimator=MinMax()), activation_spec(8)))
    training = Training(steps=40, batch_size=32, learning_rate=2e-2, patience=0)
    *_, last = train(
        executor, dataset, dataset, config, calibrated.activations, training, folder=tmp_path / "checkpoints"
    )
    assert isinstance(last, TrainingReady)
    assert last.before.quantized_score.value < 0.6
    assert last.after.quantized_score.value > last.before.quantized_score.value + 0.2
    list(export_qdq(network, last.trained, calibrated.activations, tmp_path / "trained.onnx"))
    import onnx

    session = create_session(
        onnx.load(tmp_path / "trained.onnx"), {}, threads=1, config={"session.disable_quant_qdq": "1"}
    )
    (scores,) = session.run(None, {network.summary.inputs[0].name: x})
    accuracy = float((scores.argmax(1) == labels).mean())
    assert accuracy == pytest.approx(last.after.quantized_score.value, abs=0.005)
