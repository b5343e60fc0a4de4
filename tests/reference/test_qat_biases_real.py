"""Training of a real transformer: its biases, which are added behind MatMul, are trained and exported."""

from __future__ import annotations

from pathlib import Path

import networks
import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from quantgui.analysis.qat.training import train
from quantgui.analysis.simulation import build_simulation, trained_biases
from quantgui.export.qdq import export_qdq
from quantgui.network.datasets import open_dataset
from quantgui.network.executor import Executor
from quantgui.network.reader import open_network
from quantgui.network.session import create_session
from quantgui.spec.config import QuantConfig
from quantgui.spec.presets import weight_spec
from quantgui.spec.quantizer import LayerSpec
from quantgui.spec.training import Training

pytestmark = pytest.mark.network


def test_that_a_sentence_encoder_learns_its_biases_and_the_file_adds_them(tmp_path: Path) -> None:
    network = open_network(networks.network_path("minilm"))
    dataset = open_dataset(str(networks.write_samples("minilm", tmp_path, 8)), network.summary.inputs, network.summary)
    executor = Executor(network)
    layers = [layer.name for layer in network.summary.layers if layer.op == "MatMul"]
    config = QuantConfig().with_overrides(dict.fromkeys(layers, LayerSpec(weight_spec(3))))
    training = Training(steps=6, batch_size=2, learning_rate=2e-3, patience=0)
    *_, last = train(executor, dataset, dataset, config, {}, training, folder=tmp_path / "checkpoints")
    assert last.trained is not None
    assert last.after.output_sqnr_db > last.before.output_sqnr_db
    assert len(trained_biases(network, last.trained)) == len(layers) == 36
    list(export_qdq(network, last.trained, {}, tmp_path / "trained.onnx"))
    model = onnx.load(tmp_path / "trained.onnx")
    held = {each.name: each for each in model.graph.initializer}
    for name in trained_biases(network, last.trained):
        assert (numpy_helper.to_array(held[name]) != network.constants[name]).any()
    batch = next(dataset.batches(2))
    simulated = executor.run(batch, build_simulation(network, last.trained, {}))
    session = create_session(model, {}, threads=2, config={"session.disable_quant_qdq": "1"})
    for name, found in zip(simulated, session.run(list(simulated), dict(batch.inputs)), strict=True):
        np.testing.assert_allclose(found, simulated[name], atol=1e-4 * np.abs(simulated[name]).max())
