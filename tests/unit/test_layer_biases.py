"""Biases of layers: which constants they are, that training moves them as torch would, and that the file adds them."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path

import builders
import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from quantgui.analysis.layer_biases import constant_biases
from quantgui.analysis.qat.network import TrainableNetwork
from quantgui.analysis.qat.training import train
from quantgui.analysis.simulation import build_simulation, trained_biases
from quantgui.export.qdq import export_qdq
from quantgui.network.batch import Batch
from quantgui.network.datasets import open_dataset
from quantgui.network.differentiable import DifferentiableNetwork
from quantgui.network.executor import Executor
from quantgui.network.network import Network
from quantgui.network.reader import open_network
from quantgui.network.session import create_session
from quantgui.spec.config import QuantConfig
from quantgui.spec.presets import weight_spec
from quantgui.spec.quantizer import FLOAT, LayerSpec
from quantgui.spec.training import Training

W3 = QuantConfig(LayerSpec(weight_spec(3)))


class Encoder(nn.Module):
    """A block of a transformer as its exporter writes it: linear layers of MatMul and Add."""

    def __init__(self, width: int = 16, heads: int = 2) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        self.wide, self.narrow = nn.Linear(width, 32), nn.Linear(32, width)
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = (
            each(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for each in (self.query, self.key, self.value)
        )
        scores = (query @ key.transpose(-1, -2) / 8**0.5).softmax(-1)
        x = self.norm(x + self.out((scores @ value).transpose(1, 2).flatten(2)))
        return x + self.narrow(nn.functional.gelu(self.wide(x)))


def encoder(folder: Path) -> tuple[Encoder, Network]:
    torch.manual_seed(0)
    module = Encoder().eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module, (torch.zeros(1, 5, 16),), str(folder / "encoder.onnx"), input_names=["x"], output_names=["y"],
            dynamic_axes={"x": {0: "n"}}, opset_version=17, dynamo=False,
        )  # fmt: skip
    return module, open_network(folder / "encoder.onnx")


def opened(folder: Path, nodes: list[onnx.NodeProto], constants: dict[str, np.ndarray], shape: list[int | str]):
    output = builders.tensor_info("y", [f"y{axis}" for axis, _ in enumerate(shape)])
    model = builders.model_of(nodes, [builders.tensor_info("x", shape)], [output], constants)
    onnx.save(model, folder / "network.onnx")
    return open_network(folder / "network.onnx")


def of_layers(network: Network) -> dict[str, list[str]]:
    return {name: list(found) for name, found in constant_biases(network).items()}


# --- which they are ----------------------------------------------------------------------------------------------


def test_that_a_constant_added_behind_a_product_is_its_bias_also_when_cast_and_reshaped(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["product"], name="layer"),
        helper.make_node("Cast", ["product"], ["double"], to=TensorProto.DOUBLE),
        helper.make_node("Cast", ["double"], ["single"], to=TensorProto.FLOAT),
        helper.make_node("Reshape", ["single", "shape"], ["apart"]),
        helper.make_node("Add", ["b", "apart"], ["y"]),
    ]
    constants = {"w": builders.values(8, 6), "shape": np.array([-1, 2, 6]), "b": builders.values(1, 6)}
    assert of_layers(opened(tmp_path, nodes, constants, ["n", 2, 8])) == {"layer": ["b"]}


def test_that_tables_and_constants_that_others_read_are_no_biases(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["first"], name="first"),
        helper.make_node("Add", ["first", "places"], ["placed"]),
        helper.make_node("MatMul", ["placed", "w2"], ["second"], name="second"),
        helper.make_node("Add", ["second", "b"], ["biased"]),
        helper.make_node("Mul", ["biased", "b"], ["y"]),
    ]
    constants = {
        "w": builders.values(6, 6), "places": builders.values(4, 6), "w2": builders.values(6, 6, seed=1),
        "b": builders.values(6),
    }  # fmt: skip
    assert of_layers(opened(tmp_path, nodes, constants, ["n", 4, 6])) == {"first": [], "second": []}


def test_that_all_gates_of_a_recurrent_node_share_theirs(tmp_path: Path) -> None:
    onnx.save(builders.lstm_model(), tmp_path / "lstm.onnx")
    network = open_network(tmp_path / "lstm.onnx")
    (node,) = (each for each in network.skeleton.graph.node if each.op_type == "LSTM")
    found = of_layers(network)
    gates = [biases for name, biases in found.items() if "/W." in name or "/R." in name]
    assert gates == [[node.input[3]]] * 8


# --- that they are trained ---------------------------------------------------------------------------------------


def test_that_gradients_of_biases_are_those_of_torch(tmp_path: Path) -> None:
    module, network = encoder(tmp_path)
    trainable = TrainableNetwork(network, W3, {}, learn_scales=False)
    x = builders.values(3, 5, 16, seed=1)
    target = builders.values(3, 5, 16, seed=2)
    piece = DifferentiableNetwork(network)
    (outputs,) = trainable.run(piece, {"x": x}).values()
    (outputs - torch.from_numpy(target)).square().mean().backward()
    # The same weights in the module itself.
    quantized = copy.deepcopy(module)
    overrides = build_simulation(network, W3, {}).weights
    for layer in network.summary.layers:
        linear = getattr(quantized, layer.name.split("/")[1])
        linear.weight.data = torch.from_numpy(np.array(overrides[layer.weight].load()).T.copy())
    (quantized(torch.from_numpy(x)) - torch.from_numpy(target)).square().mean().backward()
    compared = 0
    for name in ("query", "key", "value", "out", "wide", "narrow"):
        wanted = getattr(quantized, name).bias.grad
        found = trainable.parameters[f"bias:{name}.bias"].value.grad
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-6)
        compared += wanted.numel()
    assert compared == 16 * 5 + 32


def trained_encoder(folder: Path, scope: str = "network") -> tuple[Network, Executor, QuantConfig, Batch]:
    _, network = encoder(folder)
    np.savez(folder / "data.npz", x=builders.values(32, 5, 16, seed=1))
    dataset = open_dataset(str(folder / "data.npz"), network.summary.inputs, network.summary)
    executor = Executor(network)
    training = Training(steps=20, batch_size=8, learning_rate=1e-2, patience=0, scope=scope)
    *_, last = train(executor, dataset, dataset, W3, {}, training, folder=folder / "checkpoints")
    assert last.trained is not None
    return network, executor, last.trained, next(dataset.batches(8))


@pytest.mark.parametrize("scope", ["network", "blocks"])
def test_that_the_exported_file_adds_the_trained_biases(tmp_path: Path, scope: str) -> None:
    network, executor, config, batch = trained_encoder(tmp_path, scope)
    list(export_qdq(network, config, {}, tmp_path / "trained.onnx"))
    held = {each.name: numpy_helper.to_array(each) for each in onnx.load(tmp_path / "trained.onnx").graph.initializer}
    kept = trained_biases(network, config)
    assert set(kept) == {f"{name}.bias" for name in ("query", "key", "value", "out", "wide", "narrow")}
    for name, (layer, spec) in kept.items():
        trained = network.trained(spec.range_estimator.state).layers[layer.name].biases[name]
        np.testing.assert_array_equal(held[name], trained)
    assert all((held[name] != network.constants[name]).mean() > 0.5 for name in ("value.bias", "narrow.bias"))
    simulated = executor.run(batch, build_simulation(network, config, {}))["y"]
    model = onnx.load(tmp_path / "trained.onnx")
    session = create_session(model, {}, threads=1, config={"session.disable_quant_qdq": "1"})
    (found,) = session.run(None, dict(batch.inputs))
    np.testing.assert_allclose(found, simulated, atol=2e-5)


# --- shared by several layers ------------------------------------------------------------------------------------


@pytest.fixture
def sharing(tmp_path: Path) -> Network:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["first"], name="first"),
        helper.make_node("Add", ["first", "b"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("MatMul", ["r", "w2"], ["second"], name="second"),
        helper.make_node("Add", ["second", "b"], ["y"]),
    ]
    constants = {"w": builders.values(6, 6), "w2": builders.values(6, 6, seed=1), "b": builders.values(6, seed=2)}
    return opened(tmp_path, nodes, constants, ["n", 6])


def test_that_a_bias_that_layers_share_is_one_that_all_of_them_train(sharing: Network, tmp_path: Path) -> None:
    assert of_layers(sharing) == {"first": ["b"], "second": ["b"]}
    trainable = TrainableNetwork(sharing, W3, {}, learn_scales=False)
    x = builders.values(4, 6, seed=3)
    (outputs,) = trainable.run(DifferentiableNetwork(sharing), {"x": x}).values()
    outputs.square().mean().backward()
    overrides = build_simulation(sharing, W3, {}).weights
    w, w2 = (torch.from_numpy(np.array(overrides[name].load())) for name in ("w", "w2"))
    b = torch.from_numpy(sharing.constants["b"].copy()).requires_grad_()
    (((torch.from_numpy(x) @ w + b).relu() @ w2) + b).square().mean().backward()
    torch.testing.assert_close(trainable.parameters["bias:b"].value.grad, b.grad, rtol=1e-4, atol=1e-6)
    held = {name: list(layer.biases) for name, layer in trainable.state().layers.items()}
    assert held == {"first": ["b"], "second": []}


def test_that_training_begins_at_the_shared_bias_that_is_simulated(sharing: Network, tmp_path: Path) -> None:
    # Trained by the second layer alone, and from then on by both.
    alone = W3.with_overrides({"first": FLOAT})
    first = TrainableNetwork(sharing, alone, {})
    with torch.no_grad():
        first.parameters["bias:b"].value.add_(1.0)
    name, _ = sharing.states.keep(first.state())
    config = first.configured(name).with_overrides({"first": W3.default})
    again = TrainableNetwork(sharing, config, {})
    simulated = build_simulation(sharing, config, {}).weights["b"].load()
    np.testing.assert_array_equal(again.values()["bias:b"], simulated)
    np.testing.assert_allclose(simulated, sharing.constants["b"] + 1)


def test_that_a_piece_begins_between_a_product_and_its_bias(sharing: Network) -> None:
    trainable = TrainableNetwork(sharing, W3, {})
    graph = onnx.GraphProto(name="piece", node=sharing.skeleton.graph.node[1:3])
    graph.input.append(onnx.ValueInfoProto(name="first"))
    graph.output.append(onnx.ValueInfoProto(name="r"))
    graph.initializer.append(onnx.TensorProto(name="b"))
    skeleton = onnx.ModelProto(graph=graph, opset_import=sharing.skeleton.opset_import)
    piece = DifferentiableNetwork(Network(sharing.summary, skeleton, sharing.constants, whole=sharing))
    assert set(trainable.trained_in(piece)) == {"bias:b"}
    assert set(trainable.weights_of(piece)) == {"b"}
