"""Cheap guesses of sensitivity, against loops in numpy, derivatives in torch and sessions made by hand."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Generator
from pathlib import Path
from typing import Any

import builders
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper

from quantgui.analysis.gradient_proxy import first_order_sqnr
from quantgui.analysis.layer_alone import LayerAlone, input_moments, layer_nodes, with_part
from quantgui.analysis.proxies import (
    ALONE_SAMPLES,
    GRADIENT_SAMPLES,
    GRADIENT_SQNR,
    INPUT_WEIGHTED_SQNR,
    OWN_OUTPUT_SQNR,
    Change,
    Proxies,
    guess,
)
from quantgui.analysis.simulation import fake_quantized
from quantgui.network.batch import Batch
from quantgui.network.datasets import open_dataset
from quantgui.network.differentiation import differentiable
from quantgui.network.executor import Executor
from quantgui.network.network import Network
from quantgui.network.reader import open_network
from quantgui.network.simulation import TensorQuantizer
from quantgui.results import Progress
from quantgui.spec.formats import IntFormat
from quantgui.spec.presets import activation_spec, weight_spec
from quantgui.spec.quantizer import LayerSpec

INT3, INT8 = LayerSpec(weight_spec(3)), LayerSpec(weight_spec(8))


def opened(model: onnx.ModelProto, folder: Path) -> Network:
    onnx.save(model, folder / "network.onnx")
    return open_network(folder / "network.onnx")


def drained(work: Generator[Progress, None, Any]) -> tuple[int, Any]:
    """Return how often a computation could be cancelled, and its result."""
    count = 0
    while True:
        try:
            assert isinstance(next(work), Progress)
            count += 1
        except StopIteration as end:
            return count, end.value


def guessed(network: Network, specs=(INT3, INT8), samples: int = 8) -> tuple[Proxies, list[Batch]]:
    summary = network.summary
    data = open_dataset(f"random:{samples}", summary.inputs, summary, network=network)
    changes = [Change((layer.name, spec), layer, spec, {}) for layer in summary.layers for spec in specs]
    count, proxies = drained(guess(network, data, changes, {}))
    assert count >= len(changes)
    return proxies, list(data.batches(ALONE_SAMPLES, ALONE_SAMPLES))


def decibels(signal: np.ndarray, noise: np.ndarray) -> float:
    return 10 * math.log10(np.square(signal, dtype=np.float64).sum() / np.square(noise, dtype=np.float64).sum())


def quantized(network: Network, name: str, spec: LayerSpec) -> np.ndarray:
    assert spec.weights is not None
    return fake_quantized(network, network.layers[name], spec.weights, {})


# --- each layer alone --------------------------------------------------------------------------------------------


def test_that_the_own_output_error_is_that_of_the_layer_with_its_bias(tmp_path: Path) -> None:
    network = opened(builders.mlp_model((8, 16, 12, 5)), tmp_path)
    proxies, [batch] = guessed(network)
    h = batch.inputs["x"]
    for i, layer in enumerate(network.summary.layers):
        w, b = network.weight(layer), network.constants[f"b{i}"]
        for spec in (INT3, INT8):
            changed = quantized(network, layer.name, spec)
            expected = decibels(h @ w.T + b, h @ (changed - w).T)
            assert proxies.values[layer.name, spec][OWN_OUTPUT_SQNR] == pytest.approx(expected, abs=0.02)
        h = np.maximum(h @ w.T + b, 0)


def test_that_the_input_weighted_error_multiplies_each_error_with_its_input(tmp_path: Path) -> None:
    network = opened(builders.mlp_model((8, 16, 12, 5)), tmp_path)
    proxies, [batch] = guessed(network)
    x, layer = batch.inputs["x"], network.summary.layers[0]
    w, changed = network.weight(layer), quantized(network, layer.name, INT3)
    signal = noise = 0.0
    for row in x:
        for c in range(w.shape[0]):
            for k in range(w.shape[1]):
                signal += float(w[c, k] * row[k]) ** 2
                noise += float((changed[c, k] - w[c, k]) * row[k]) ** 2
    expected = 10 * math.log10(signal / noise)
    assert proxies.values[layer.name, INT3][INPUT_WEIGHTED_SQNR] == pytest.approx(expected, abs=1e-3)


def test_that_parts_of_recurrent_weights_have_errors_of_their_own(tmp_path: Path) -> None:
    model = builders.lstm_model()
    network = opened(model, tmp_path)
    proxies, [*batches] = guessed(network, (INT3,))
    layers = [layer for layer in network.summary.layers if layer.op == "LSTM"]
    assert len({layer.weight for layer in layers}) < len(layers)
    nodes = layer_nodes(network, network.layers)
    inputs = nodes[layers[0].name][0].inputs
    captured = [values for _, (values,) in filter(None, Executor(network).run_sequence(batches, fetch=inputs))]
    captured = [{**batch.inputs, **values} for batch, values in zip(batches, captured, strict=True)]
    for layer in layers:
        [user] = nodes[layer.name]
        whole = {name: network.constants[name].copy() for name in user.initializers}
        references = [_run_node(user.node, values, whole, network) for values in captured]
        start, stop = layer.rows or (0, 0)
        whole[layer.weight].reshape(-1, whole[layer.weight].shape[-1])[start:stop] = quantized(
            network, layer.name, INT3
        )
        outputs = [_run_node(user.node, values, whole, network) for values in captured]
        expected = decibels(np.stack(references), np.stack(outputs) - np.stack(references))
        assert proxies.values[layer.name, INT3][OWN_OUTPUT_SQNR] == pytest.approx(expected, abs=0.05)
        assert math.isfinite(proxies.values[layer.name, INT3][INPUT_WEIGHTED_SQNR])


def _run_node(node, values, initializers, network) -> np.ndarray:
    feeds = {name: values[name] for name in node.input if name in values}
    inputs = [
        builders.tensor_info(name, [None] * value.ndim, helper.np_dtype_to_tensor_dtype(value.dtype))
        for name, value in feeds.items()
    ]
    output = next(name for name in node.output if name)
    graph = helper.make_graph(
        [node], "node", inputs, [onnx.ValueInfoProto(name=output)],
        [onnx.numpy_helper.from_array(value, name) for name, value in initializers.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=network.skeleton.opset_import, ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run([output], feeds)[0])


def test_that_quantized_inputs_count_in_the_own_output_error(tmp_path: Path) -> None:
    network = opened(builders.mlp_model((8, 16, 5)), tmp_path)
    layer = network.summary.layers[0]
    spec = LayerSpec(None, activation_spec(4))
    data = open_dataset("random:4", network.summary.inputs, network.summary, network=network)
    quantizer = TensorQuantizer(IntFormat(4, signed=False), 0.5, 8, frozenset({layer.node}))
    change = Change((layer.name, spec), layer, spec, {"x": (quantizer,)})
    _, proxies = drained(guess(network, data, [change], {}))
    x = next(data.batches(ALONE_SAMPLES, ALONE_SAMPLES)).inputs["x"]
    rounded = (np.clip(np.rint(x / np.float32(0.5)) + 8, 0, 15) - 8) * np.float32(0.5)
    w, b = network.weight(layer), network.constants["b0"]
    found = proxies.values[layer.name, spec]
    assert found[OWN_OUTPUT_SQNR] == pytest.approx(decibels(x @ w.T + b, (rounded - x) @ w.T), abs=0.02)
    assert INPUT_WEIGHTED_SQNR not in found
    assert GRADIENT_SQNR not in found


def test_that_layers_inside_of_branches_are_seen_where_a_sample_reaches_them(tmp_path: Path) -> None:
    network = opened(builders.if_model(), tmp_path)
    assert any(layer.scope for layer in network.summary.layers)
    proxies, _ = guessed(network)
    known = {
        layer.name: math.isfinite(proxies.values[layer.name, INT3].get(OWN_OUTPUT_SQNR, math.nan))
        for layer in network.summary.layers
    }
    inside = [known[layer.name] for layer in network.summary.layers if layer.scope]
    assert any(inside)
    if not all(inside):
        assert any("no sample reached" in note for note in proxies.notes)


def layer_of(node: onnx.NodeProto, x: np.ndarray, weight: np.ndarray, folder: Path, rank: int) -> Network:
    model = builders.model_of(
        [node],
        [builders.tensor_info("x", list(x.shape), helper.np_dtype_to_tensor_dtype(x.dtype))],
        [builders.tensor_info("y", [f"y{i}" for i in range(rank)])],
        {"w": weight},
    )
    return opened(model, folder)


PRODUCTS = {
    "Gemm": (("x", "w"), (6, 8), (8, 16), {}),
    "Gemm transB": (("x", "w"), (6, 8), (16, 8), {"transB": 1}),
    "Gemm transA": (("x", "w"), (8, 6), (8, 16), {"transA": 1}),
    "Gemm first": (("w", "x"), (8, 6), (16, 8), {}),
    "Gemm first, both": (("w", "x"), (6, 8), (8, 16), {"transA": 1, "transB": 1}),
    "MatMul": (("x", "w"), (2, 6, 8), (8, 16), {}),
    "MatMul first": (("w", "x"), (2, 8, 6), (16, 8), {}),
    "MatMul of many": (("x", "w"), (3, 6, 8), (3, 8, 16), {}),
    "MatMul of many, first": (("w", "x"), (2, 3, 8, 6), (1, 3, 16, 8), {}),
    "Conv": (("x", "w"), (2, 8, 5, 5), (16, 8, 1, 1), {}),
    "Conv grouped": (("x", "w"), (2, 8, 5, 5), (16, 4, 1, 1), {"group": 2}),
    "ConvTranspose": (("x", "w"), (2, 8, 5, 5), (8, 4, 1, 1), {"group": 2}),
}


@pytest.mark.parametrize("name", list(PRODUCTS))
def test_that_moments_of_inputs_are_the_second_derivatives_of_the_output_energy(name: str, tmp_path: Path) -> None:
    """The energy of a linear layer's output is a square of its weight: half its second derivative is the sum of x^2."""
    order, shape, weight_shape, attributes = PRODUCTS[name]
    x, w = builders.values(*shape, seed=1), builders.values(*weight_shape, seed=2)
    op = name.split(maxsplit=1)[0]
    node = helper.make_node(op, list(order), ["y"], name="n", **attributes)
    network = layer_of(node, x, w, tmp_path, x.ndim)
    [layer] = network.summary.layers
    [node] = layer_nodes(network, {layer.name: layer})[layer.name]
    tensors = {"x": torch.from_numpy(x)}
    weight = torch.from_numpy(network.constants[layer.weight].copy()).requires_grad_()
    run = differentiable(network)
    energy = run.run(tensors, {layer.weight: weight})["y"].double().square().sum()
    [gradient] = torch.autograd.grad(energy, weight, create_graph=True)
    flat = gradient.reshape(-1)
    places = range(0, flat.numel(), 7)
    diagonal = [torch.autograd.grad(flat[i], weight, retain_graph=True)[0].reshape(-1)[i].item() / 2 for i in places]
    moments = input_moments(node, {"x": x}, run.run(tensors)["y"].detach().numpy())
    assert moments is not None
    found = np.broadcast_to(moments, layer.shape).reshape(-1)[places]
    # Both are sums over the same places but for one factor, which is how many there are.
    np.testing.assert_allclose(found / found.sum(), np.array(diagonal) / sum(diagonal), rtol=1e-4)


def test_that_rows_of_a_table_weigh_as_much_as_they_are_looked_up(tmp_path: Path) -> None:
    indices = np.array([[1, 1, -1], [0, 1, 2]], np.int64)
    table = builders.values(5, 300)
    network = layer_of(helper.make_node("Gather", ["w", "x"], ["y"], name="n"), indices, table, tmp_path, 3)
    [layer] = network.summary.layers
    [node] = layer_nodes(network, {layer.name: layer})[layer.name]
    moments = input_moments(node, {"x": indices}, table[indices])
    assert moments is not None
    assert (moments[:, 0] * 6).tolist() == [1, 3, 1, 0, 1]
    alone = LayerAlone(network, node, 1)
    np.testing.assert_array_equal(alone.run({"x": indices}, with_part(network, layer, table * 2)), table[indices] * 2)


def test_that_a_layer_runs_alone_behind_the_transpose_of_its_weight(tmp_path: Path) -> None:
    table = builders.values(300, 8)
    nodes = [
        helper.make_node("Gather", ["w", "tokens"], ["h"], name="embed"),
        helper.make_node("Transpose", ["w"], ["wt"], name="turn", perm=[1, 0]),
        helper.make_node("MatMul", ["h", "wt"], ["y"], name="unembed"),
    ]
    tokens = builders.tensor_info("tokens", ["batch", 4], TensorProto.INT64)
    model = builders.model_of(nodes, [tokens], [builders.tensor_info("y", ["batch", 4, 300])], {"w": table})
    network = opened(model, tmp_path)
    [layer] = network.summary.layers
    found = {node.node.op_type: node for node in layer_nodes(network, {layer.name: layer})[layer.name]}
    assert set(found) == {"Gather", "MatMul"}
    h = builders.values(2, 4, 8, seed=3)
    alone = LayerAlone(network, found["MatMul"], 1).run({"h": h}, table)
    np.testing.assert_allclose(alone, h @ table.T, rtol=1e-4, atol=1e-4)
    moments = input_moments(found["MatMul"], {"h": h}, alone)
    assert moments is not None
    np.testing.assert_allclose(moments, np.square(h).mean((0, 1)).reshape(1, -1), rtol=1e-5)


# --- gradients ---------------------------------------------------------------------------------------------------


def _first_order(network: Network, batches: list[Batch], changes: dict[str, np.ndarray], directions: int):
    asked = {name: [(name, lambda change=change: change)] for name, change in changes.items()}
    _, found = drained(first_order_sqnr(differentiable(network), batches, network.layers, asked, directions=directions))
    return found


def _small_changes(network: Network) -> dict[str, np.ndarray]:
    return {layer.name: 1e-3 * builders.values(*layer.shape, seed=i) for i, layer in enumerate(network.summary.layers)}


def conv_model() -> onnx.ModelProto:
    nodes = [
        helper.make_node("Conv", ["x", "w0"], ["h"], name="c0", pads=[1, 1, 1, 1]),
        helper.make_node("Tanh", ["h"], ["a"], name="t"),
        helper.make_node("ConvTranspose", ["a", "w1"], ["y"], name="c1", strides=[2, 2]),
    ]
    shapes = builders.tensor_info("x", ["n", 3, 5, 5]), builders.tensor_info("y", ["n", 2, 10, 10])
    constants = {"w0": builders.values(4, 3, 3, 3, scale=0.3), "w1": builders.values(4, 2, 2, 2, seed=1)}
    return builders.model_of(nodes, [shapes[0]], [shapes[1]], constants)


@pytest.mark.parametrize("model", [builders.mlp_model((6, 12, 4)), conv_model()], ids=["mlp", "conv"])
def test_that_many_directions_give_the_noise_of_each_channel_exactly(model: onnx.ModelProto, tmp_path: Path) -> None:
    network = opened(model, tmp_path)
    summary = network.summary
    data = open_dataset("random:3", summary.inputs, summary, network=network)
    batches = list(data.batches(1, 3))
    changes = _small_changes(network)
    found = _first_order(network, batches, changes, 600)
    run = differentiable(network)
    for layer in summary.layers:
        weight = torch.from_numpy(network.constants[layer.weight].copy())
        signal = noise = 0.0
        for batch in batches:

            def outputs(w: torch.Tensor, batch: Batch = batch, layer=layer) -> torch.Tensor:
                [values] = run.run(batch.inputs, {layer.weight: w}).values()
                return values

            for channel in range(layer.channels):
                part = np.zeros(layer.shape, np.float32)
                place = (slice(None),) * layer.channel_axis + (channel,)
                part[place] = changes[layer.name][place]
                y, along = torch.autograd.functional.jvp(outputs, weight, torch.from_numpy(part))
                noise += along.double().square().sum().item()
            signal += y.double().square().sum().item()
        assert found[layer.name] == pytest.approx(10 * math.log10(signal / noise), abs=0.6)


@pytest.mark.parametrize("vocabulary", [4, 300])
def test_that_rows_of_a_table_that_nothing_looks_up_add_no_noise(vocabulary: int, tmp_path: Path) -> None:
    """Three of four rows or of three hundred: the same noise, however the gradient is kept."""
    tokens = np.array([[0, 1], [1, 2]], np.int64)
    weights = {"w": builders.values(vocabulary, 8), "v": builders.values(8, 4, seed=1)}
    nodes = [
        helper.make_node("Gather", ["w", "tokens"], ["h"], name="embed"),
        helper.make_node("MatMul", ["h", "v"], ["y"], name="head"),
    ]
    info = builders.tensor_info("tokens", ["batch", 2], TensorProto.INT64)
    model = builders.model_of(nodes, [info], [builders.tensor_info("y", ["batch", 2, 4])], weights)
    network = opened(model, tmp_path)
    batches = [Batch({"tokens": tokens[i : i + 1]}, None, i, 1, key=str(i)) for i in range(2)]
    embed = next(layer for layer in network.summary.layers if layer.op == "Gather")
    change = 1e-3 * builders.values(*embed.shape, seed=2)
    found = _first_order(network, batches, {embed.name: change}, 2000)
    energy, noise = 0.0, 0.0
    for row in tokens:
        energy += float(np.square(weights["w"][row] @ weights["v"]).sum())
        for token in set(row.tolist()):
            noise += float(np.square(change[token] @ weights["v"]).sum())
    assert found[embed.name] == pytest.approx(10 * math.log10(energy / noise), abs=0.3)


def test_that_the_last_layer_s_guess_is_the_output_sqnr_itself(tmp_path: Path) -> None:
    network = opened(builders.mlp_model((6, 12, 300)), tmp_path)
    layer = network.summary.layers[-1]
    summary = network.summary
    batches = list(open_dataset("random:8", summary.inputs, summary, network=network).batches(1, 8))
    change = _small_changes(network)[layer.name]
    found = _first_order(network, batches, {layer.name: change}, 4)
    executor = Executor(network)
    signal = np.concatenate([executor.run(batch)["y"] for batch in batches])
    hidden = np.concatenate([executor.run(batch, fetch=["a0"])["a0"] for batch in batches])
    assert found[layer.name] == pytest.approx(decibels(signal, hidden @ change.T), abs=0.5)


def test_that_outputs_count_alike_however_large_they_are(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "a"], ["small"], name="a_node"),
        helper.make_node("MatMul", ["x", "b"], ["large"], name="b_node"),
    ]
    info = builders.tensor_info
    constants = {"a": 1e-3 * builders.values(8, 64), "b": 1e3 * builders.values(8, 64, seed=1)}
    model = builders.model_of(
        nodes, [info("x", ["n", 8])], [info("small", ["n", 64]), info("large", ["n", 64])], constants
    )
    network = opened(model, tmp_path)
    summary = network.summary
    batches = list(open_dataset("random:8", summary.inputs, summary, network=network).batches(1, 8))
    changes = {layer.name: 0.01 * network.weight(layer) for layer in summary.layers}
    found = _first_order(network, batches, changes, 20)
    # Each layer disturbs one of both outputs by 1 %: 40 dB, and 3 dB more as the other one is exact.
    assert list(found.values()) == pytest.approx([43.0, 43.0], abs=0.7)


def test_that_samples_repeated_to_fill_a_batch_count_once(tmp_path: Path) -> None:
    network = opened(builders.mlp_model((6, 12, 4), batch=4), tmp_path)
    free = opened(builders.mlp_model((6, 12, 4)), tmp_path)
    x = builders.values(1, 6)
    padded = Batch({"x": np.repeat(x, 4, 0)}, None, 0, 1, "padded", rows=4)
    alone = Batch({"x": x}, None, 0, 1, "alone")
    changes = _small_changes(network)
    by_padded, by_alone = (_first_order(n, [b], changes, 50) for n, b in ((network, padded), (free, alone)))
    for name, value in by_alone.items():
        assert by_padded[name] == pytest.approx(value, abs=0.01)


# --- what is missing ---------------------------------------------------------------------------------------------


def test_that_everything_but_the_gradient_is_there_without_torch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = opened(builders.mlp_model((8, 16, 5)), tmp_path)
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "torch" else find(name))
    proxies, _ = guessed(network)
    assert any("PyTorch is not installed" in note for note in proxies.notes)
    for values in proxies.values.values():
        assert set(values) == {OWN_OUTPUT_SQNR, INPUT_WEIGHTED_SQNR}
        assert all(math.isfinite(value) for value in values.values())


def test_that_a_network_that_torch_does_not_cover_is_told(tmp_path: Path) -> None:
    model = builders.mlp_model((8, 16, 5))
    scale, zero = onnx.numpy_helper.from_array(np.array(0.1, np.float32), "s"), np.array(0, np.int8)
    model.graph.initializer.extend([scale, onnx.numpy_helper.from_array(zero, "z")])
    model.graph.node[-1].output[0] = "before"
    model.graph.node.extend(
        [
            helper.make_node("QuantizeLinear", ["before", "s", "z"], ["q"], name="q"),
            helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"], name="dq"),
        ]
    )
    proxies, _ = guessed(opened(model, tmp_path))
    assert any("QuantizeLinear" in note for note in proxies.notes)
    assert all(OWN_OUTPUT_SQNR in values and GRADIENT_SQNR not in values for values in proxies.values.values())


def test_that_fewer_samples_are_differentiated_where_few_are_measured(tmp_path: Path) -> None:
    network = opened(builders.mlp_model(), tmp_path)
    summary = network.summary
    data = open_dataset("random:8", summary.inputs, summary, network=network)
    changes = [Change((layer.name, INT3), layer, INT3, {}) for layer in summary.layers]
    seen: list[int | None] = []

    class Counted:
        def batches(self, batch_size=None, samples=None):
            if batch_size == 1:
                seen.append(samples)
            return data.batches(batch_size, samples)

    for measured in (None, 64, 24, 8, 3, 1000):
        drained(guess(network, Counted(), changes, {}, measured=measured))
    assert seen == [GRADIENT_SAMPLES, 8, 4, 3, 3, GRADIENT_SAMPLES]
