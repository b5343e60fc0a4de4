"""Scales of activations that are stored in few bits: the same in simulation, in the exported file, and by hand."""

from __future__ import annotations

from dataclasses import replace

import ml_dtypes
import numpy as np
import onnx
import pytest
from export_examples import calibrated, config_of, convolutions, data_for, exported, opened, run_file, simulated

from quantgui.results import Array
from quantgui.spec.formats import IntFormat, MinifloatFormat
from quantgui.spec.granularity import PerTensor
from quantgui.spec.presets import activation_spec
from quantgui.spec.quantizer import LayerSpec, LeastSquaredError, QuantizerSpec

ASYMMETRIC = activation_spec(8)
SYMMETRIC = QuantizerSpec(IntFormat(8), True, PerTensor())
FLOAT8 = QuantizerSpec(MinifloatFormat(4, 3), True, PerTensor())
STORED = {"float16": np.float16, "bfloat16": ml_dtypes.bfloat16}


def scales(model: onnx.ModelProto) -> dict[str, float]:
    """Return the scale of each quantized activation."""
    constants = {each.name: onnx.numpy_helper.to_array(each) for each in model.graph.initializer}
    return {
        node.input[0]: float(constants[node.input[1]].reshape(-1)[0])
        for node in model.graph.node
        if node.op_type == "QuantizeLinear" and node.input[0] not in constants
    }


@pytest.mark.parametrize("spec", [ASYMMETRIC, SYMMETRIC, FLOAT8], ids=["asymmetric", "symmetric", "float8"])
@pytest.mark.parametrize("stored", ["float16", "bfloat16", "e8m0"])
def test_that_a_file_computes_with_the_scale_as_it_is_stored(tmp_path, spec, stored) -> None:
    network = opened(tmp_path, convolutions())
    data = data_for(network)
    spec = replace(spec, scale_format=stored)
    if stored == "e8m0":
        # Which searches among the powers, where the largest value says which otherwise.
        spec = replace(spec, range_estimator=LeastSquaredError())
    config = config_of(network, LayerSpec(None, spec))
    activations = calibrated(network, config, data)
    path = tmp_path / "stored.onnx"
    exported(network, config, activations, path)
    # Floats are divided and multiplied by it where integers have an operator of their own.
    constants = ((each.name, onnx.numpy_helper.to_array(each)) for each in onnx.load(path).graph.initializer)
    found = [float(value.reshape(-1)[0]) for name, value in constants if "scale" in name]
    assert len(found) >= 4
    for scale in found:
        if stored == "e8m0":
            assert np.frexp(scale)[0] == 0.5
        else:
            assert np.float32(STORED[stored](scale)) == np.float32(scale)
    batch = next(iter(data.batches(6, 6)))
    shown, deployed = simulated(network, config, activations, batch), run_file(path, batch)
    for name, values in deployed.items():
        np.testing.assert_array_equal(shown[name], values)


@pytest.mark.parametrize("spec", [ASYMMETRIC, SYMMETRIC], ids=["asymmetric", "symmetric"])
def test_that_a_power_of_two_follows_from_the_extremes_by_hand(tmp_path, spec) -> None:
    network = opened(tmp_path, convolutions())
    data = data_for(network)
    config = config_of(network, LayerSpec(None, replace(spec, scale_format="e8m0")))
    activations = calibrated(network, config, data)
    path = tmp_path / "powers.onnx"
    exported(network, config, activations, path)
    model = onnx.load(path)
    inputs = next(iter(data.batches(6, 6))).inputs
    for tensor, scale in scales(model).items():
        if tensor not in inputs:
            continue
        values: Array = inputs[tensor]
        low, high = min(float(values.min()), 0.0), max(float(values.max()), 0.0)
        if spec.symmetric:
            # OCP Microscaling: the exponent of the largest value less that of the largest level, 127.
            wanted = 2.0 ** (np.floor(np.log2(max(-low, high))) - 6)
        else:
            wanted = 2.0 ** np.ceil(np.log2((high - low) / 255))
        assert scale == wanted
