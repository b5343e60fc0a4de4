"""The canonical form of a network gives the outputs of its file, and its layers reach its weights."""

from __future__ import annotations

import warnings

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from networks import network_names, network_path
from torch import nn

from quantgui.network.network import INJECTED
from quantgui.network.reader import open_network
from quantgui.network.session import create_session

LENGTHS = {"wakeword-mel": 16000, "silero": 576, "minilm": 19, "mtcnn-pnet": 60, "demosaicnet": 96}


def original_session(path):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def feeds_for(name, session, batch, seed=0):
    rng = np.random.default_rng(seed)
    length = next((size for key, size in LENGTHS.items() if name.startswith(key)), 64)
    feeds = {}
    for value in session.get_inputs():
        dims = list(value.shape)
        for axis, dim in enumerate(dims):
            if not isinstance(dim, int):
                is_batch = axis == 0 or (value.name == "state" and axis == 1)
                dims[axis] = batch if is_batch else length
        if value.name == "sr":
            feeds["sr"] = np.array(8000 if seed else 16000, np.int64)
        elif "int" in value.type:
            high = 2 if "mask" in value.name or "type" in value.name else 200
            feeds[value.name] = rng.integers(0, high, dims).astype(value.type[7:-1])
        else:
            feeds[value.name] = rng.standard_normal(dims).astype(np.float32)
    if seed and "sr" in feeds:
        feeds["input"] = feeds["input"][:, :288]
    return feeds


def assert_same_outputs(network, path, feeds, tolerance=1e-5):
    original = original_session(path)
    canonical = create_session(network.skeleton, network.constants)
    names = [value.name for value in original.get_outputs()]
    assert [value.name for value in canonical.get_outputs()] == names
    for name, before, after in zip(names, original.run(None, feeds), canonical.run(None, feeds), strict=True):
        assert after.shape == before.shape
        assert after.dtype == before.dtype
        # Probabilities near zero differ by the rounding of a sigmoid.
        scale = max(float(np.abs(before).max()), 0.1)
        assert np.abs(after - before).max() <= tolerance * scale, name


@pytest.mark.network
@pytest.mark.parametrize("name", network_names())
def test_that_the_canonical_network_gives_the_outputs_of_the_file(name):
    path = network_path(name)
    network = open_network(path)
    session = original_session(path)
    for seed in (0, 1) if name in ("silero", "silero-ifless") else (0,):
        assert_same_outputs(network, path, feeds_for(name, session, 1, seed))
    if not isinstance(session.get_inputs()[0].shape[0], int) and name != "silero-sequence":
        assert_same_outputs(network, path, feeds_for(name, session, 2))


@pytest.mark.network
@pytest.mark.parametrize("name", network_names())
def test_that_layers_reach_the_weights(name):
    network = open_network(network_path(name))
    layers = network.summary.layers
    assert sum(layer.parameters for layer in layers) >= 0.98 * network.summary.parameters
    assert not any(layer.read_only for layer in layers)
    for layer in layers:
        weight = network.weight(layer)
        assert weight.shape == layer.shape
        assert weight.dtype == np.float32
        assert layer.shape[layer.channel_axis] == layer.channels
        assert layer.channels * layer.elements_per_channel == weight.size


@pytest.mark.network
@pytest.mark.parametrize("name", network_names())
def test_that_names_are_unique_and_every_constant_is_declared_in_the_main_graph(name):
    network = open_network(network_path(name))
    nodes, values = [], []

    def collect(graph, *, is_main):
        assert is_main or not graph.initializer
        values.extend(t.name for t in graph.initializer)
        values.extend(v.name for v in graph.input)
        for node in graph.node:
            assert node.op_type not in ("Constant", "BatchNormalization")
            nodes.append(node.name)
            values.extend(filter(None, node.output))
            for attribute in node.attribute:
                if attribute.HasField("g"):
                    collect(attribute.g, is_main=False)

    collect(network.skeleton.graph, is_main=True)
    assert len(nodes) == len(set(nodes))
    assert len(values) == len(set(values))
    assert {t.name for t in network.skeleton.graph.initializer} == set(network.constants)
    assert set(nodes) == {node.name for node in network.summary.nodes}
    users = {user for layer in network.summary.layers for user in layer.users}
    assert users <= set(nodes)
    assert network.skeleton.ByteSize() < 200_000


@pytest.mark.network
@pytest.mark.parametrize("name", network_names())
def test_that_only_fourier_and_mel_bases_are_taken_for_signal_transforms(name):
    layers = open_network(network_path(name)).summary.layers
    found = [layer.name for layer in layers if layer.signal_transform]
    if name == "wakeword-mel":
        assert found == ["Conv_2", "Conv_3", "MatMul_15"]
    elif name.startswith("silero"):
        assert len(found) == (2 if name in ("silero", "silero-ifless") else 1)
        assert all(layer.shape[0] in (130, 258) for layer in layers if layer.signal_transform)
    else:
        assert found == []


@pytest.mark.network
def test_that_scaled_integers_become_float_weights_that_say_so():
    layers = open_network(network_path("minilm")).summary.layers
    scaled = [layer for layer in layers if layer.dtype == "int8 with scale"]
    assert len(scaled) == 38
    assert all(layer.parameters <= layer.stored_bytes < 1.1 * layer.parameters for layer in scaled)


@pytest.mark.network
def test_that_macs_are_those_of_the_architecture():
    # Tan and Le, EfficientNet-Lite0: 407 million multiply-accumulates at 224 x 224 with its biases and pooling.
    layers = open_network(network_path("efficientnet-lite0")).summary.layers
    assert sum(layer.macs for layer in layers) == pytest.approx(385e6, rel=0.06)


# --- exports of torch --------------------------------------------------------------------------------------------


def exported(module, inputs, path, **options):
    module.eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(module, inputs, str(path), opset_version=options.pop("opset", 17), dynamo=False, **options)
    return path


class Last(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        return self.layer(x)[0]


GATES = {
    "LSTM": (("input", 0), ("output", 3), ("forget", 1), ("cell", 2)),
    "GRU": (("update", 1), ("reset", 0), ("hidden", 2)),
    "RNN": (("", 0),),
}


@pytest.mark.parametrize("op", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_that_recurrent_weights_are_layers_per_direction_and_gate(tmp_path, op, bidirectional):
    torch.manual_seed(0)
    layer = getattr(nn, op)(5, 7, bidirectional=bidirectional)
    path = exported(Last(layer), (torch.randn(4, 1, 5),), tmp_path / "net.onnx")
    network = open_network(path)
    feeds = {original_session(path).get_inputs()[0].name: torch.randn(4, 1, 5).numpy()}
    assert_same_outputs(network, path, feeds)
    directions = ("forward", "reverse")[: 1 + bidirectional]
    by_suffix = {layer.name.rsplit("/", 1)[1]: layer for layer in network.summary.layers}
    assert len(by_suffix) == 2 * len(directions) * len(GATES[op])
    for direction in directions:
        for kind, name in (("W", "weight_ih_l0"), ("R", "weight_hh_l0")):
            weights = getattr(layer, name + ("_reverse" if direction == "reverse" else "")).detach().numpy()
            for gate, at in GATES[op]:
                found = by_suffix[f"{kind}.{direction}" + (f".{gate}" if gate else "")]
                np.testing.assert_array_equal(network.weight(found), weights[7 * at : 7 * at + 7])
                assert found.channels == 7
                assert not found.quantizes_activations


CONVOLUTIONS = {
    "conv1d": (lambda: nn.Conv1d(4, 6, 3), nn.BatchNorm1d, 6, (2, 4, 9)),
    "conv2d without bias": (lambda: nn.Conv2d(4, 6, 3, bias=False), nn.BatchNorm2d, 6, (2, 4, 9, 8)),
    "conv3d": (lambda: nn.Conv3d(2, 5, 2), nn.BatchNorm3d, 5, (2, 2, 4, 4, 4)),
    "grouped": (lambda: nn.Conv2d(4, 6, 3, groups=2), nn.BatchNorm2d, 6, (2, 4, 9, 8)),
    "depthwise": (lambda: nn.Conv2d(4, 4, 3, groups=4, bias=False), nn.BatchNorm2d, 4, (2, 4, 9, 8)),
    "transposed": (lambda: nn.ConvTranspose2d(4, 6, 3, stride=2), nn.BatchNorm2d, 6, (2, 4, 9, 8)),
    "transposed grouped": (lambda: nn.ConvTranspose2d(4, 6, 2, groups=2, bias=False), nn.BatchNorm2d, 6, (2, 4, 5, 5)),
    "linear": (lambda: nn.Linear(4, 6), nn.BatchNorm1d, 6, (3, 4)),
}


@pytest.mark.parametrize("kind", CONVOLUTIONS)
def test_that_batchnorm_is_folded_into_its_convolution(tmp_path, kind):
    torch.manual_seed(0)
    build, norm, channels, shape = CONVOLUTIONS[kind]
    batchnorm = norm(channels)
    for parameter in (batchnorm.weight, batchnorm.bias, batchnorm.running_mean):
        nn.init.normal_(parameter)
    nn.init.uniform_(batchnorm.running_var, 0.1, 3.0)
    module = nn.Sequential(build(), batchnorm, nn.ReLU6())
    x = torch.randn(shape)
    options = {"do_constant_folding": False, "training": torch.onnx.TrainingMode.EVAL, "input_names": ["x"]}
    path = exported(module, (x,), tmp_path / "net.onnx", **options)
    # The exporter folds some of them by itself.
    network = open_network(path)
    assert "BatchNormalization" not in {node.op_type for node in network.skeleton.graph.node}
    assert_same_outputs(network, path, {"x": x.numpy()})
    [layer] = network.summary.layers
    assert layer.channel_axis == (1 if kind.startswith("transposed") else 0)
    assert layer.input_tensor == "x"
    assert layer.output_tensor == network.summary.outputs[0].name
    assert layer.quantizes_activations
    assert layer.macs > 0


def test_that_tied_embeddings_are_one_layer_stored_once(tmp_path):
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Embedding(50, 12)

        def forward(self, tokens):
            return self.table(tokens) @ self.table.weight.T

    tokens = torch.randint(0, 50, (2, 5))
    options = {"do_constant_folding": False, "input_names": ["x"]}
    path = exported(Tied(), (tokens,), tmp_path / "net.onnx", **options)
    network = open_network(path)
    assert_same_outputs(network, path, {"x": tokens.numpy()})
    [layer] = network.summary.layers
    assert layer.shape == (50, 12)
    assert layer.channel_axis == 0
    assert len(layer.users) == 2
    assert sum(values.size for values in network.constants.values() if values.dtype == np.float32) == 600


def test_that_a_transformer_exported_by_dynamo_keeps_its_outputs(tmp_path):
    module = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True).eval()
    x = torch.randn(1, 6, 16)
    path = tmp_path / "net.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(module, (x,), str(path), dynamo=True, verbose=False)
    network = open_network(path)
    feeds = {original_session(path).get_inputs()[0].name: x.numpy()}
    assert_same_outputs(network, path, feeds)
    assert len([layer for layer in network.summary.layers if layer.op in ("Gemm", "MatMul")]) == 4


def test_that_skeletons_hold_no_large_values(tmp_path):
    path = exported(nn.Linear(64, 64), (torch.randn(1, 64),), tmp_path / "net.onnx")
    network = open_network(path)
    large = [t for t in network.skeleton.graph.initializer if t.data_location == onnx.TensorProto.EXTERNAL]
    assert [t.name for t in large] == [network.summary.layers[0].weight]
    assert {e.key: e.value for e in large[0].external_data}["location"] == INJECTED
