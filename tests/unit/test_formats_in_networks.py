"""Every format where it is used: simulated, shown, measured by a sweep, and sized."""

from __future__ import annotations

from dataclasses import replace

import builders
import ml_dtypes
import numpy as np
import onnx
import onnxruntime as ort
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
    through,
)
from quantgui.analysis.tensor_error import view_weight, weight_errors
from quantgui.network.datasets import open_dataset
from quantgui.network.executor import Executor
from quantgui.network.reader import open_network
from quantgui.network.simulation import TensorQuantizer
from quantgui.network.surgery import insert_quantizers
from quantgui.numerics.affine import activation_qparams, decode, fake_quantize, weight_qparams
from quantgui.numerics.levels import quantized_levels
from quantgui.results import Calibrated
from quantgui.session.edits import with_granularity, with_symmetry, with_weight_format
from quantgui.spec.config import QuantConfig
from quantgui.spec.formats import (
    MINIFLOAT_NAMES,
    CodebookFormat,
    IntFormat,
    MinifloatFormat,
    TableFormat,
    parse_format,
)
from quantgui.spec.granularity import PerBlock, PerGroup, PerTensor
from quantgui.spec.presets import PRESETS, activation_spec, find_preset, preset_config, usual_weight_spec, weight_spec
from quantgui.spec.quantizer import (
    BLOCK_FORMATS,
    FLOAT,
    HalfQuadratic,
    LayerSpec,
    LeastSquaredError,
    MinMax,
    MovingAverage,
    QuantizerSpec,
    SampleMean,
)
from quantgui.spec.size import network_bytes, weight_bytes

ML_DTYPES = {
    "float8_e4m3fn": ml_dtypes.float8_e4m3fn,
    "float8_e5m2": ml_dtypes.float8_e5m2,
    "float8_e4m3fnuz": ml_dtypes.float8_e4m3fnuz,
    "float8_e5m2fnuz": ml_dtypes.float8_e5m2fnuz,
    "float6_e2m3": ml_dtypes.float6_e2m3fn,
    "float6_e3m2": ml_dtypes.float6_e3m2fn,
    "float4_e2m1": ml_dtypes.float4_e2m1fn,
}
MINIFLOATS = [pytest.param(MinifloatFormat(*key), id=name) for key, name in MINIFLOAT_NAMES.items()]
NAMED = {
    **BLOCK_FORMATS,
    "float8_e4m3fn": QuantizerSpec(MinifloatFormat(4, 3)),
    "nf4": usual_weight_spec(TableFormat("nf4")),
    "binary": usual_weight_spec(TableFormat("binary")),
    "codebook4": usual_weight_spec(CodebookFormat(4)),
    "in blocks of 4 x 8": QuantizerSpec(IntFormat(4), granularity=PerBlock(4, 8)),
    "with e8m0 scales": QuantizerSpec(IntFormat(8), scale_format="e8m0"),
    "scales that are quantized themselves": QuantizerSpec(IntFormat(4), double_quantization=True),
}
NEW = [pytest.param(spec, id=name.replace(" ", "-")) for name, spec in NAMED.items()]


def opened(folder, model=None):
    onnx.save(model or convolution(), folder / "network.onnx")
    return open_network(folder / "network.onnx")


def convolution():
    constants = {"w": builders.values(8, 6, 3, 3, seed=1, scale=0.2), "b": builders.values(8, seed=2)}
    nodes = [helper.make_node("Conv", ["x", "w", "b"], ["y"], name="conv")]
    ends = [builders.tensor_info("x", ["n", 6, 8, 8]), builders.tensor_info("y", ["n", 8, 6, 6])]
    return builders.model_of(nodes, ends[:1], ends[1:], constants)


def calibrated(network, folder, x):
    np.savez(folder / "data.npz", x=x)
    dataset = open_dataset(str(folder / "data.npz"), network.summary.inputs, network.summary)
    executor = Executor(network)
    *_, last = calibrate(executor, dataset, activation_tensors(network))
    assert isinstance(last, Calibrated)
    (batch,) = dataset.batches()
    return executor, batch, last.activations


@pytest.mark.parametrize("spec", NEW)
def test_that_the_network_computes_with_the_quantized_weight(tmp_path, spec):
    network = opened(tmp_path)
    executor, batch, _ = calibrated(network, tmp_path, builders.values(3, 6, 8, 8))
    got = executor.run(batch, build_simulation(network, QuantConfig(LayerSpec(spec)), {}))["y"]
    weight, _ = fake_quantize(network.constants["w"], spec, 0)
    arguments = (batch.inputs["x"], weight, network.constants["b"])
    expected = torch.nn.functional.conv2d(*(torch.tensor(each) for each in arguments)).numpy()
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)
    # Grids that are kept from one configuration to the next give the same values.
    grids = {}
    for _ in range(2):
        simulation = build_simulation(network, QuantConfig(LayerSpec(spec)), {}, grids=grids)
        assert np.array_equal(simulation.weights["w"].load(), weight)
    assert list(grids) == [("conv", spec)]


@pytest.mark.parametrize("spec", NEW)
def test_that_the_weight_is_shown_with_its_levels(tmp_path, spec):
    network = opened(tmp_path)
    *_, ready = view_weight(network, "conv", spec)
    view = ready.view
    values, error = fake_quantize(network.constants["w"], spec, 0)
    assert view.error.mse == pytest.approx(error.mse, rel=1e-5)
    assert view.low <= values.min() < values.max() <= view.high
    assert (len(view.scales) == 0) == isinstance(spec.format, CodebookFormat)
    qparams = weight_qparams(network.constants["w"], spec, 0)
    all_levels = [quantized_levels(qparams, spec.format, group) for group in range(len(qparams.scale))]
    assert any(np.array_equal(view.levels, levels) for levels in all_levels)
    assert view.quantized.counts.sum() == values.size
    (event,) = weight_errors(network, {"conv": spec})
    assert event.error.sqnr_db == pytest.approx(view.error.sqnr_db, abs=1e-4)


@pytest.mark.parametrize("preset", PRESETS, ids=lambda preset: preset.name)
def test_that_every_preset_runs_and_its_size_is_the_sum_of_its_parts(tmp_path, preset):
    network = opened(tmp_path)
    executor, batch, activations = calibrated(network, tmp_path, builders.values(3, 6, 8, 8))
    config = preset_config(preset, network.summary.layers)
    got = executor.run(batch, build_simulation(network, config, activations))["y"]
    plain = executor.run(batch)["y"]
    noise = ((got - plain) ** 2).sum() / (plain**2).sum()
    assert noise < (0.7 if preset.spec.weights and preset.spec.weights.bits <= 2 else 0.1)
    (layer,) = network.summary.layers
    size = network_bytes(network.summary.float_bytes, network.summary.layers, config)
    saved = weight_bytes(8, 54, None) - weight_bytes(8, 54, config.spec_for("conv").weights)
    assert layer.channels * layer.elements_per_channel == 8 * 54
    assert size == network.summary.float_bytes - saved


def test_that_recurrent_gates_take_formats_of_their_own(tmp_path):
    network = opened(tmp_path, builders.lstm_model())
    gates = [layer for layer in network.summary.layers if layer.weight == "w"]
    formats = [BLOCK_FORMATS["mxfp4"], usual_weight_spec(TableFormat("nf4")), usual_weight_spec(CodebookFormat(3))]
    config = QuantConfig(FLOAT, {gate.name: LayerSpec(spec) for gate, spec in zip(gates, formats, strict=False)})
    values = build_simulation(network, config, {}).weights["w"].load()
    for gate, spec in zip(gates, formats, strict=False):
        start, stop = gate.rows
        expected, _ = fake_quantize(network.weight(gate), spec, gate.channel_axis)
        assert np.array_equal(values.reshape(-1, values.shape[-1])[start:stop].reshape(gate.shape), expected)


# --- activations ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("opset", [9, 13, 17, 21])
@pytest.mark.parametrize("fmt", MINIFLOATS)
@pytest.mark.parametrize("scale", [1.0, 0.037])
def test_that_activations_are_rounded_as_the_format_is_defined_in_every_opset(fmt, opset, scale):
    node = helper.make_node("Identity", ["x"], ["y"], name="node")
    ends = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n"]) for name in "xy"]
    graph = helper.make_graph([node], "graph", ends[:1], ends[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    quantizer = TensorQuantizer(fmt, scale)
    insert_quantizers(model, {"x": (quantizer,)})
    onnx.checker.check_model(model)
    bits = np.random.default_rng(0).integers(0, 1 << 32, 100_000, dtype=np.uint64).astype(np.uint32)
    x = np.concatenate([bits.view(np.float32), np.arange(-4096, 4096, dtype=np.float32) / 512 * np.float32(scale)])
    x = x[np.isfinite(x) & (np.abs(x) < 1e37)]
    y = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]
    with np.errstate(over="ignore", under="ignore"):
        units = np.clip(x / np.float32(scale), -fmt.largest, fmt.largest)
        expected = units.astype(ML_DTYPES[str(fmt)]).astype(np.float32) * np.float32(scale)
    assert np.array_equal(y, expected)
    assert np.array_equal(through(quantizer, x), expected)


@pytest.mark.parametrize("fmt", MINIFLOATS)
def test_that_minifloat_activations_have_a_range_and_leave_biases_float(tmp_path, fmt):
    network = opened(tmp_path)
    executor, batch, activations = calibrated(network, tmp_path, builders.values(3, 6, 8, 8))
    spec = LayerSpec(weight_spec(8), QuantizerSpec(fmt, granularity=PerTensor()))
    config = QuantConfig(spec)
    assert sorted(activation_tensors(network, config)) == ["x", "y"]
    quantizers = quantizers_for(network, config, activations)
    assert plan_biases(network, config, quantizers) == {}
    (seen,) = quantizers["x"]
    assert seen.scale == pytest.approx(np.abs(batch.inputs["x"]).max() / fmt.largest)
    got = executor.run(batch, build_simulation(network, config, activations))["y"]
    (output,) = quantizers["y"]
    units = np.unique(got / np.float32(output.scale))
    levels = np.array(fmt.levels)
    assert np.abs(units[:, None] - levels).min(axis=1).max() < 1e-5 * fmt.largest


def test_that_powers_of_two_keep_their_form_where_a_bias_raises_the_scale(tmp_path):
    model = convolution()
    weight = next(each for each in model.graph.initializer if each.name == "w")
    values = onnx.numpy_helper.to_array(weight).copy()
    values[3] *= 1e-12
    weight.CopyFrom(onnx.numpy_helper.from_array(values, "w"))
    network = opened(tmp_path, model)
    _, _, activations = calibrated(network, tmp_path, builders.values(3, 6, 8, 8))
    spec = QuantizerSpec(IntFormat(8), scale_format="e8m0")
    config = QuantConfig(LayerSpec(spec, activation_spec(8)))
    (plan,) = plan_biases(network, config, quantizers_for(network, config, activations)).values()
    encoded = encode_layer(network, network.layers["conv"], spec, plan)
    assert np.array_equal(np.frexp(encoded.qparams.scale)[0], np.full(8, 0.5))
    assert encode_bias(network, plan).clipped == 0
    np.testing.assert_allclose(decode_bias(encode_bias(network, plan)), network.constants["b"], rtol=0.05, atol=1e-3)
    assert decode(encoded, spec, 0).shape == (8, 6, 3, 3)


# --- estimators -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
def test_that_moving_averages_follow_the_samples_in_their_order(tmp_path, momentum):
    network = opened(tmp_path)
    x = builders.values(12, 6, 8, 8) * np.linspace(0.5, 3.0, 12, dtype=np.float32)[:, None, None, None]
    _, _, activations = calibrated(network, tmp_path, x)
    ready = activations["x"]
    low, high = float(x[0].min()), float(x[0].max())
    for sample in x[1:]:
        low = momentum * low + (1 - momentum) * float(sample.min())
        high = momentum * high + (1 - momentum) * float(sample.max())
    spec = QuantizerSpec(IntFormat(8, signed=False), False, PerTensor(), MovingAverage(momentum))
    qparams = activation_qparams(ready.statistics, spec, (ready.sample_minima, ready.sample_maxima))
    assert qparams.scale[0] == pytest.approx((high - low) / 255, rel=1e-5)
    config = QuantConfig(LayerSpec(None, spec))
    assert quantizers_for(network, config, activations)["x"][0].scale == qparams.scale[0]


def test_that_the_mean_of_samples_is_narrower_than_all_of_them(tmp_path):
    network = opened(tmp_path)
    x = builders.values(12, 6, 8, 8)
    _, _, activations = calibrated(network, tmp_path, x)
    spec = QuantizerSpec(IntFormat(8), True, PerTensor(), SampleMean())
    (quantizer,) = quantizers_for(network, QuantConfig(LayerSpec(None, spec)), activations)["x"]
    rows = x.reshape(12, -1)
    assert quantizer.scale == pytest.approx(max(-rows.min(1).mean(), rows.max(1).mean()) / 127, rel=1e-5)


def test_that_half_quadratic_weights_run(tmp_path):
    network = opened(tmp_path)
    executor, batch, _ = calibrated(network, tmp_path, builders.values(3, 6, 8, 8))
    spec = QuantizerSpec(IntFormat(4, signed=False), False, PerGroup(16), HalfQuadratic())
    got = executor.run(batch, build_simulation(network, QuantConfig(LayerSpec(spec)), {}))["y"]
    plain = executor.run(batch)["y"]
    assert ((got - plain) ** 2).sum() / (plain**2).sum() < 0.02


# --- edits ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["float8_e4m3fn", "nf4", "binary", "codebook4", "float16"])
def test_that_choosing_a_format_and_an_integer_after_it_gives_usual_specs(name):
    start = LayerSpec(weight_spec(4, PerGroup(32)), activation_spec(8))
    chosen = with_weight_format(start, parse_format(name))
    assert chosen == LayerSpec(usual_weight_spec(parse_format(name)), activation_spec(8))
    assert with_weight_format(chosen, IntFormat(3)).weights == weight_spec(3)


def test_that_a_granularity_or_symmetry_that_scales_or_ranges_do_not_fit_takes_them_along():
    double = QuantizerSpec(IntFormat(4), granularity=PerGroup(64), double_quantization=True)
    assert with_granularity(double, PerTensor()) == QuantizerSpec(IntFormat(4), granularity=PerTensor())
    assert with_granularity(double, PerGroup(32)) == replace(double, granularity=PerGroup(32))
    half_quadratic = QuantizerSpec(IntFormat(4), symmetric=False, range_estimator=HalfQuadratic())
    assert with_symmetry(half_quadratic, symmetric=True) == QuantizerSpec(IntFormat(4))
    assert with_symmetry(half_quadratic, symmetric=False) == half_quadratic


def test_that_few_levels_are_searched_for_and_many_are_not():
    assert usual_weight_spec(IntFormat(2)).range_estimator == LeastSquaredError()
    assert usual_weight_spec(IntFormat(8)).range_estimator == MinMax()
    assert find_preset("ternary").spec.weights.format == IntFormat(2, narrow_range=True)
