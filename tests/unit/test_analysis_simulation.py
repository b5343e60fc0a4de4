"""What a configuration changes in the network, against torch's convolution on numbers quantized by hand."""

from __future__ import annotations

from dataclasses import replace

import builders
import numpy as np
import onnx
import pytest
import torch
from onnx import helper

from quantgui.analysis.calibration import calibrate
from quantgui.analysis.simulation import (
    activation_tensors,
    build_simulation,
    decode_bias,
    encode_bias,
    encode_layer,
    plan_biases,
    quantizers_for,
    seen_quantizer,
    unreached_tensors,
)
from quantgui.errors import DataError
from quantgui.network.datasets import open_dataset
from quantgui.network.executor import Executor
from quantgui.network.reader import open_network
from quantgui.numerics.affine import decode
from quantgui.numerics.statistics import collect
from quantgui.results import ActivationReady, Calibrated
from quantgui.spec.config import QuantConfig
from quantgui.spec.formats import FloatFormat
from quantgui.spec.granularity import PerTensor
from quantgui.spec.presets import activation_spec, find_preset, preset_config, weight_spec
from quantgui.spec.quantizer import FLOAT, FixedRange, LayerSpec, QuantizerSpec

W8A8 = LayerSpec(weight_spec(8), activation_spec(8))


def opened(model, folder):
    onnx.save(model, folder / "network.onnx")
    return open_network(folder / "network.onnx")


def activation(values, name="x"):
    rows = values.reshape(len(values), -1)
    return ActivationReady(name, collect(values), len(values), rows.min(1), rows.max(1))


def calibrated(network, folder, **arrays):
    np.savez(folder / "data.npz", **arrays)
    dataset = open_dataset(str(folder / "data.npz"), network.summary.inputs, network.summary)
    executor = Executor(network)
    *_, last = calibrate(executor, dataset, activation_tensors(network))
    assert isinstance(last, Calibrated)
    return executor, dataset, last.activations


def two_convolutions(dead_channel=False):
    constants = {
        "w0": builders.values(8, 3, 3, 3, seed=1, scale=0.2),
        "b0": builders.values(8, seed=2),
        "w1": builders.values(4, 8, 3, 3, seed=3, scale=0.2),
        "b1": builders.values(4, seed=4),
    }
    if dead_channel:
        constants["w0"][2] *= 1e-12
    nodes = [
        helper.make_node("Conv", ["x", "w0", "b0"], ["h"], name="first"),
        helper.make_node("Relu", ["h"], ["a"], name="relu"),
        helper.make_node("Conv", ["a", "w1", "b1"], ["c"], name="second"),
        helper.make_node("Tanh", ["c"], ["t"], name="tanh"),
        helper.make_node("Add", ["t", "c"], ["y"], name="add"),
    ]
    return builders.model_of(
        nodes,
        [builders.tensor_info("x", ["n", 3, 10, 10])],
        [builders.tensor_info("y", ["n", 4, 6, 6])],
        constants,
    )


def fake(values, quantizer):
    fmt = quantizer.format
    scale = np.float32(quantizer.scale)
    codes = np.clip(np.rint(values / scale) + quantizer.zero_point, fmt.quant_min, fmt.quant_max)
    return ((codes - quantizer.zero_point) * scale).astype(np.float32)


def test_that_a_fixed_range_holds_for_what_is_read_and_another_for_what_is_stored(tmp_path):
    network = opened(two_convolutions(), tmp_path)
    _, _, activations = calibrated(network, tmp_path, x=builders.values(4, 3, 10, 10))
    first, second = (layer.name for layer in network.summary.layers)
    wide, narrow = (-4.0, 4.0), (-1.0, 1.0)
    spec = replace(activation_spec(8), symmetric=True)

    def ranged(*ends, output=None):
        return LayerSpec(weight_spec(8), replace(spec, range_estimator=FixedRange(*ends, output)))

    config = QuantConfig().with_overrides({first: ranged(*wide, output=narrow), second: ranged(*narrow)})
    layers = network.summary.layers
    quantizers = quantizers_for(network, config, activations)
    assert quantizers[layers[0].input_tensor][0].scale == np.float32(4.0 / 127)
    # The second convolution reads what the first one stores, so one quantizer serves both.
    (between,) = quantizers[layers[0].output_tensor]
    assert (between.scale, between.consumers) == (np.float32(1.0 / 127), None)


@pytest.mark.parametrize("dead_channel", [False, True])
def test_that_the_simulation_is_the_arithmetic_of_integer_kernels(tmp_path, dead_channel):
    network = opened(two_convolutions(dead_channel), tmp_path)
    executor, dataset, activations = calibrated(network, tmp_path, x=builders.values(6, 3, 10, 10, seed=9))
    config = QuantConfig(W8A8)
    quantizers = quantizers_for(network, config, activations)
    plans = plan_biases(network, config, quantizers)
    assert sorted(quantizers) == ["a", "c", "x"]
    assert sorted(plan.layer.name for plan in plans.values()) == ["first", "second"]
    (batch,) = dataset.batches()

    def convolution(layer, x):
        plan = next(p for p in plans.values() if p.layer.name == layer)
        spec = W8A8.weights
        encoded = encode_layer(network, network.layers[layer], spec, plan)
        bias = encode_bias(network, plan)
        assert bias.codes.dtype == np.int32
        assert bias.clipped == 0
        np.testing.assert_allclose(bias.scale, plan.input_scale * encoded.qparams.scale, rtol=1e-6)
        arguments = (x, decode(encoded, spec, 0), decode_bias(bias))
        return torch.nn.functional.conv2d(*(torch.from_numpy(v) for v in arguments)).numpy()

    x = fake(batch.inputs["x"], seen_quantizer(quantizers["x"], "first"))
    hidden = fake(np.maximum(convolution("first", x), 0), seen_quantizer(quantizers["a"], "second"))
    c = fake(convolution("second", hidden), seen_quantizer(quantizers["c"], "add"))
    got = executor.run(batch, build_simulation(network, config, activations))["y"]
    step = quantizers["c"][0].scale
    difference = np.abs(got - (np.tanh(c) + c))
    # Sums in another order may fall on the other side of a rounding border, by one step, here and there.
    assert difference.max() <= 2.001 * step
    assert (difference > 0.01 * step).mean() < 0.01


def test_that_a_bias_of_a_channel_without_weight_survives(tmp_path):
    network = opened(two_convolutions(dead_channel=True), tmp_path)
    _, _, activations = calibrated(network, tmp_path, x=builders.values(6, 3, 10, 10, seed=9))
    plans = plan_biases(network, QuantConfig(W8A8), quantizers_for(network, QuantConfig(W8A8), activations))
    plan = next(p for p in plans.values() if p.layer.name == "first")
    bias = network.constants[plan.bias]
    np.testing.assert_allclose(decode_bias(encode_bias(network, plan)), bias, rtol=0.05, atol=1e-3)
    np.testing.assert_allclose(decode_bias(encode_bias(network, plan))[2], bias[2], rtol=1e-5)


def test_that_a_consumer_reads_with_its_own_spec_and_others_what_the_convolution_stores(tmp_path):
    network = opened(two_convolutions(), tmp_path)
    _, _, activations = calibrated(network, tmp_path, x=builders.values(4, 3, 10, 10))
    four = replace(W8A8, activations=activation_spec(4))
    quantizers = quantizers_for(network, QuantConfig(FLOAT, {"first": W8A8, "second": four}), activations)
    assert seen_quantizer(quantizers["a"], "second").format.bits == 4
    assert seen_quantizer(quantizers["a"], "anything else").format.bits == 8
    quantizers = quantizers_for(network, QuantConfig(FLOAT, {"first": W8A8}), activations)
    assert seen_quantizer(quantizers["a"], "second").format.bits == 8, "the tensor is stored quantized"
    quantizers = quantizers_for(network, QuantConfig(FLOAT, {"second": four}), activations)
    assert seen_quantizer(quantizers["a"], "second").format.bits == 4
    assert seen_quantizer(quantizers["a"], "anything else") is None
    assert "x" not in quantizers


def test_that_the_range_is_taken_behind_the_relu(tmp_path):
    network = opened(two_convolutions(), tmp_path)
    _, _, activations = calibrated(network, tmp_path, x=builders.values(4, 3, 10, 10))
    (quantizer,) = quantizers_for(network, QuantConfig(FLOAT, {"first": W8A8}), activations)["a"]
    assert quantizer.zero_point == 0
    assert activations["a"].statistics.minimum >= 0


@pytest.mark.parametrize(
    "spec",
    [
        LayerSpec(weight_spec(8)),
        LayerSpec(None, activation_spec(8)),
        LayerSpec(weight_spec(16), activation_spec(8)),
        LayerSpec(weight_spec(8), activation_spec(16)),
        LayerSpec(weight_spec(8), QuantizerSpec(FloatFormat("bfloat16"), granularity=PerTensor())),
    ],
)
def test_that_a_bias_stays_float_where_no_integer_kernel_takes_it(tmp_path, spec):
    network = opened(two_convolutions(), tmp_path)
    _, _, activations = calibrated(network, tmp_path, x=builders.values(4, 3, 10, 10))
    config = QuantConfig(spec)
    assert plan_biases(network, config, quantizers_for(network, config, activations)) == {}


def test_that_only_what_needs_data_is_asked_for(tmp_path):
    network = opened(two_convolutions(), tmp_path)
    assert sorted(activation_tensors(network)) == ["a", "c", "x"]
    assert activation_tensors(network, QuantConfig(LayerSpec(weight_spec(4)))) == {}
    assert sorted(activation_tensors(network, QuantConfig(FLOAT, {"second": W8A8}))) == ["a", "c"]
    half = LayerSpec(None, QuantizerSpec(FloatFormat("float16"), granularity=PerTensor()))
    assert activation_tensors(network, QuantConfig(half)) == {}
    assert len(quantizers_for(network, QuantConfig(half), {})) == 3


def test_that_missing_statistics_ask_for_data(tmp_path):
    network = opened(two_convolutions(), tmp_path)
    with pytest.raises(DataError, match="quantizes the activation 'x', whose range is not known; open data"):
        build_simulation(network, QuantConfig(W8A8), {})


def test_that_a_tensor_no_sample_reached_stays_float(tmp_path):
    network = opened(two_convolutions(), tmp_path)
    _, _, activations = calibrated(network, tmp_path, x=builders.values(4, 3, 10, 10))
    activations = {**activations, "a": replace(activations["a"], statistics=collect(np.empty(0, np.float32)))}
    assert "a" not in quantizers_for(network, QuantConfig(W8A8), activations)
    assert unreached_tensors(network, QuantConfig(W8A8), activations) == ("a",)


def test_that_gates_of_one_recurrent_weight_are_quantized_each_by_its_own_spec(tmp_path):
    network = opened(builders.lstm_model(), tmp_path)
    gates = [layer for layer in network.summary.layers if layer.rows is not None and layer.weight == "w"]
    assert len(gates) == 4
    specs = {gate.name: LayerSpec(weight_spec(bits)) for gate, bits in zip(gates[:3], (2, 4, 8), strict=True)}
    simulation = build_simulation(network, QuantConfig(FLOAT, specs), {})
    override = simulation.weights["w"]
    assert set(simulation.weights) == {"w"}
    values = override.load()
    assert values.shape == network.constants["w"].shape
    for gate in gates:
        start, stop = gate.rows
        part = values.reshape(-1, values.shape[-1])[start:stop]
        spec = specs.get(gate.name, FLOAT).weights
        original = network.weight(gate)
        if spec is None:
            np.testing.assert_array_equal(part, original)
        else:
            np.testing.assert_array_equal(part, decode(encode_layer(network, gate, spec), spec, 0))
    other = build_simulation(network, QuantConfig(FLOAT, dict(list(specs.items())[:2])), {}).weights["w"]
    assert other.key != override.key
    assert build_simulation(network, QuantConfig(FLOAT, specs), {}).weights["w"].key == override.key


def test_that_layers_that_are_not_finite_or_read_only_stay_as_they_are(tmp_path):
    model = builders.mlp_model()
    weight = onnx.numpy_helper.to_array(model.graph.initializer[0]).copy()
    weight[0, 0] = -np.inf
    model.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(weight, model.graph.initializer[0].name))
    network = opened(model, tmp_path)
    simulation = build_simulation(network, QuantConfig(LayerSpec(weight_spec(4))), {})
    assert set(simulation.weights) == {layer.weight for layer in network.summary.layers if layer.finite}
    assert len(simulation.weights) == 2


def test_that_a_grouped_transposed_convolution_repeats_its_scales_along_the_bias(tmp_path):
    constants = {"w": builders.values(4, 3, 2, 2, seed=1), "b": builders.values(6, seed=2)}
    model = builders.model_of(
        [helper.make_node("ConvTranspose", ["x", "w", "b"], ["y"], name="up", group=2, strides=[2, 2])],
        [builders.tensor_info("x", ["n", 4, 3, 3])],
        [builders.tensor_info("y", ["n", 6, 6, 6])],
        constants,
    )
    network = opened(model, tmp_path)
    _, _, activations = calibrated(network, tmp_path, x=builders.values(4, 4, 3, 3))
    (plan,) = plan_biases(network, QuantConfig(W8A8), quantizers_for(network, QuantConfig(W8A8), activations)).values()
    encoding = encode_bias(network, plan)
    assert encoding.scale.shape == (6,)
    np.testing.assert_array_equal(encoding.scale[:3], encoding.scale[3:])
    np.testing.assert_allclose(decode_bias(encoding), constants["b"], atol=encoding.scale.max())


def test_that_a_shared_bias_with_two_scales_stays_float(tmp_path):
    constants = {f"w{i}": builders.values(8, 8, seed=i, scale=i + 1.0) for i in range(2)} | {"b": builders.values(8)}
    nodes = [
        helper.make_node("Gemm", ["x", "w0", "b"], ["h"], name="fc0"),
        helper.make_node("Gemm", ["h", "w1", "b"], ["y"], name="fc1"),
    ]
    model = builders.model_of(
        nodes, [builders.tensor_info("x", ["n", 8])], [builders.tensor_info("y", ["n", 8])], constants
    )
    network = opened(model, tmp_path)
    _, _, activations = calibrated(network, tmp_path, x=builders.values(4, 8))
    config = QuantConfig(W8A8)
    assert plan_biases(network, config, quantizers_for(network, config, activations)) == {}


def test_that_a_float_configuration_changes_nothing(tmp_path):
    network = opened(two_convolutions(), tmp_path)
    config = preset_config(find_preset("float32"), network.summary.layers)
    simulation = build_simulation(network, config, {})
    assert simulation.weights == {}
    assert simulation.quantizers == {}


def test_that_loaded_weights_are_kept_for_the_next_configuration(tmp_path):
    network = opened(two_convolutions(), tmp_path)
    kept = {}
    first = build_simulation(network, QuantConfig(LayerSpec(weight_spec(4))), {}, loaded=kept)
    values = {name: override.load() for name, override in first.weights.items()}
    again = build_simulation(network, QuantConfig(LayerSpec(weight_spec(4))), {}, loaded=kept)
    assert all(again.weights[name].load() is values[name] for name in values)
