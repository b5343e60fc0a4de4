"""Networks that other tools have quantized open read-only, with the format, shape and name their layers have."""

from __future__ import annotations

import math

import ml_dtypes
import numpy as np
import onnx
import pytest
from builders import lstm_model, mlp_model, model_of, residual_model, tensor_info, values
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import QuantFormat, QuantType, quantize_dynamic, quantize_static
from onnxruntime.quantization.calibrate import CalibrationDataReader
from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

from quantgui.network.reader import open_network
from quantgui.network.session import create_session

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")


class Samples(CalibrationDataReader):
    def __init__(self, *feeds):
        self.feeds = iter(feeds)

    def get_next(self):
        return next(self.feeds, None)


def quantized(tmp_path, model, **options):
    source, target = tmp_path / "float.onnx", tmp_path / "quantized.onnx"
    onnx.save(model, source)
    quantize_dynamic(str(source), str(target), **options)
    return target


def static(tmp_path, quant_format, **options):
    source, target = tmp_path / "float.onnx", tmp_path / "quantized.onnx"
    onnx.save(residual_model(batch=1), source)
    data = Samples(*({"image": values(1, 3, 8, 8, seed=i)} for i in range(3)))
    quantize_static(str(source), str(target), data, quant_format=quant_format, **options)
    return target


def same_outputs(network, path, feeds):
    before = create_session(onnx.load(path), {}, simulate=False, optimize=False).run(None, feeds)
    after = create_session(network.skeleton, network.constants, simulate=False, optimize=False).run(None, feeds)
    for a, b in zip(before, after, strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-5, atol=1e-6)


def check_read_only(network):
    for layer in network.summary.layers:
        assert layer.read_only
        assert layer.keeps_float
        assert not layer.quantizes_activations
        assert layer.weight in network.constants
        assert layer.parameters == math.prod(layer.shape)
        assert layer.channels == layer.shape[layer.channel_axis]
    assert "already quantized" in network.summary.warnings[0]


@pytest.mark.parametrize("per_channel", [False, True])
def test_that_layers_behind_dequantize_are_shown_with_their_format(tmp_path, per_channel):
    path = static(tmp_path, QuantFormat.QDQ, per_channel=per_channel)
    network = open_network(path)
    same_outputs(network, path, {"image": values(1, 3, 8, 8)})
    layers = {layer.name.removesuffix("_quant"): layer for layer in network.summary.layers}
    assert set(layers) >= {"stem", "conv0", "conv1", "head"}
    check_read_only(network)
    assert {layer.dtype for layer in network.summary.layers} == {"int8"}
    assert layers["stem"].shape == (8, 3, 3, 3)
    assert network.constants[layers["stem"].weight].dtype == np.int8
    assert layers["head"].channel_axis == 1


def test_that_operators_on_integers_are_shown_with_their_format(tmp_path):
    path = static(tmp_path, QuantFormat.QOperator, weight_type=QuantType.QUInt8, activation_type=QuantType.QUInt8)
    network = open_network(path)
    same_outputs(network, path, {"image": values(1, 3, 8, 8)})
    check_read_only(network)
    ops = [layer.op for layer in network.summary.layers]
    assert ops.count("QLinearConv") >= 2
    assert "QLinearMatMul" in ops
    assert {layer.dtype for layer in network.summary.layers} == {"uint8"}


def test_that_dynamically_quantized_layers_are_shown(tmp_path):
    path = quantized(tmp_path, residual_model(), weight_type=QuantType.QUInt8)
    network = open_network(path)
    same_outputs(network, path, {"image": values(1, 3, 8, 8)})
    check_read_only(network)
    assert {layer.op for layer in network.summary.layers} == {"ConvInteger", "MatMulInteger"}


def test_that_a_dynamically_quantized_lstm_is_shown(tmp_path):
    path = quantized(tmp_path, lstm_model(), op_types_to_quantize=["LSTM"])
    network = open_network(path)
    layers = {layer.name: layer for layer in network.summary.layers}
    quantized_names = [name for name, layer in layers.items() if layer.read_only]
    assert [name.rsplit("/", 1)[1] for name in quantized_names] == ["W", "R"]
    recurrent = layers[quantized_names[1]]
    assert (recurrent.op, recurrent.shape, recurrent.channels) == ("DynamicQuantizeLSTM", (1, 16, 64), 64)
    assert not layers["out"].read_only
    assert network.summary.warnings == ("2 of 3 layers are already quantized and shown as they are.",)


@pytest.mark.parametrize("bits", [4, 8])
def test_that_block_quantized_weights_have_the_shape_of_the_matrix(tmp_path, bits):
    constants = {"w": values(64, 48)}
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"], name="fc")],
        "g",
        [tensor_info("x", [2, 64])],
        [tensor_info("y", [2, 48])],
        [numpy_helper.from_array(constants["w"], "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    quantizer = MatMulNBitsQuantizer(model, bits=bits, block_size=32, is_symmetric=True)
    quantizer.process()
    path = tmp_path / "net.onnx"
    onnx.save(quantizer.model.model, path)
    network = open_network(path)
    same_outputs(network, path, {"x": values(2, 64)})
    check_read_only(network)
    [layer] = network.summary.layers
    assert (layer.op, layer.shape, layer.channel_axis) == ("MatMulNBits", (48, 64), 0)
    assert layer.dtype == f"uint{bits} in groups of 32"
    assert layer.stored_bytes == 48 * 64 * bits // 8
    assert network.summary.parameters >= 48 * 64


def dequantized(tmp_path, nodes, weight, scale, *, shape=(2, 64), more=()):
    graph = helper.make_graph(
        nodes,
        "g",
        [tensor_info("x", shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(weight, "w"), numpy_helper.from_array(scale, "s"), *more],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    path = tmp_path / "net.onnx"
    onnx.save(model, path)
    return path


def test_that_blocks_of_four_bits_are_named(tmp_path):
    weight = (np.arange(64 * 48) % 16 - 8).reshape(64, 48).astype(ml_dtypes.int4)
    nodes = [
        helper.make_node("DequantizeLinear", ["w", "s"], ["d"], axis=0, block_size=16),
        helper.make_node("MatMul", ["x", "d"], ["y"], name="fc"),
    ]
    path = dequantized(tmp_path, nodes, weight, np.full((4, 48), 0.1, np.float32))
    network = open_network(path)
    same_outputs(network, path, {"x": values(2, 64)})
    [layer] = network.summary.layers
    assert layer.dtype == "int4 in groups of 16"
    assert (layer.shape, layer.channel_axis) == ((64, 48), 1)
    assert layer.stored_bytes == 64 * 48 // 2


def test_that_a_transposed_integer_weight_keeps_its_channels(tmp_path):
    weight = (np.arange(48 * 64) % 200 - 100).reshape(48, 64).astype(np.int8)
    nodes = [
        helper.make_node("DequantizeLinear", ["w", "s"], ["d"], axis=0),
        helper.make_node("Transpose", ["d"], ["t"], perm=[1, 0]),
        helper.make_node("MatMul", ["x", "t"], ["y"], name="fc"),
    ]
    path = dequantized(tmp_path, nodes, weight, np.full(48, 0.1, np.float32))
    network = open_network(path)
    same_outputs(network, path, {"x": values(2, 64)})
    [layer] = network.summary.layers
    assert (layer.shape, layer.channel_axis, layer.channels) == ((48, 64), 0, 48)


def test_that_a_float_weight_before_quantize_is_shown_as_what_it_becomes(tmp_path):
    nodes = [
        helper.make_node("QuantizeLinear", ["w", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"]),
        helper.make_node("MatMul", ["x", "d"], ["y"], name="fc"),
    ]
    zero = numpy_helper.from_array(np.int8(0), "z")
    path = dequantized(tmp_path, nodes, values(64, 48), np.float32(0.05), more=[zero])
    network = open_network(path)
    same_outputs(network, path, {"x": values(2, 64)})
    [layer] = network.summary.layers
    assert (layer.dtype, layer.read_only) == ("int8", True)


def test_that_float_layers_beside_quantized_ones_stay_editable(tmp_path):
    path = quantized(tmp_path, mlp_model(), nodes_to_exclude=["fc1_MatMul"])
    read_only = {layer.name.split("_")[0]: layer.read_only for layer in open_network(path).summary.layers}
    assert read_only == {"fc0": True, "fc1": False, "fc2": True}


@pytest.mark.parametrize("kind", ["dynamic", "QDQ", "QOperator"])
def test_that_a_quantized_table_that_is_looked_up_and_multiplied_is_one_layer(tmp_path, kind):
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["e"], name="embedding"),
        helper.make_node("ReduceMean", ["e"], ["m"], name="mean", axes=[1], keepdims=0),
        helper.make_node("Transpose", ["table"], ["t"], name="turn", perm=[1, 0]),
        helper.make_node("MatMul", ["m", "t"], ["y"], name="head"),
    ]
    ids = np.arange(12).reshape(3, 4)
    inputs, outputs = [tensor_info("ids", ["n", 4], TensorProto.INT64)], [tensor_info("y", ["n", 100])]
    onnx.save(model_of(nodes, inputs, outputs, {"table": values(100, 32)}), tmp_path / "float.onnx")
    path = tmp_path / "net.onnx"
    if kind == "dynamic":
        quantize_dynamic(tmp_path / "float.onnx", path)
    else:
        quantize_static(tmp_path / "float.onnx", path, Samples({"ids": ids}), quant_format=QuantFormat[kind])
    network = open_network(path)
    same_outputs(network, path, {"ids": ids})
    check_read_only(network)
    [layer] = network.summary.layers
    assert (layer.shape, layer.channel_axis, layer.read_only) == ((100, 32), 0, True)
    # ONNX Runtime's QDQ quantizes the transposed table once more, as an activation.
    assert len(layer.users) == (1 if kind == "QDQ" else 2)
