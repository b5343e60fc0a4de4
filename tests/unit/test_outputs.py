"""Networks whose outputs are sequences or maps are run, compared, exported and verified like those of tensors."""

from __future__ import annotations

import json

import builders
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from quantgui.cli.main import main
from quantgui.network.outputs import as_array


def saved(path, nodes, outputs, constants):
    graph = helper.make_graph(
        nodes,
        "g",
        [builders.tensor_info("x", ["n", 8])],
        outputs,
        [numpy_helper.from_array(values, name) for name, values in constants.items()],
    )
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 2)]
    onnx.save(helper.make_model(graph, opset_imports=imports, ir_version=8), path)
    return path


def classifier(path):
    """Write what is made of a classifier of other libraries: labels, and a map from class to probability a sample."""
    probabilities = onnx.TypeProto()
    probabilities.sequence_type.elem_type.map_type.key_type = TensorProto.INT64
    probabilities.sequence_type.elem_type.map_type.value_type.tensor_type.elem_type = TensorProto.FLOAT
    nodes = [
        helper.make_node("Gemm", ["x", "w"], ["scores"], name="fc", transB=1),
        helper.make_node("Softmax", ["scores"], ["p"], axis=1),
        helper.make_node("ArgMax", ["p"], ["label"], axis=1, keepdims=0),
        helper.make_node("ZipMap", ["p"], ["maps"], domain="ai.onnx.ml", classlabels_int64s=[7, 3, 5]),
    ]
    outputs = [
        builders.tensor_info("label", ["n"], TensorProto.INT64),
        helper.make_value_info("maps", probabilities),
    ]
    return saved(path, nodes, outputs, {"w": builders.values(3, 8)})


def halves(path):
    """Write a network whose only output is a sequence of two tensors."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["y"], name="fc"),
        helper.make_node("SplitToSequence", ["y", "two"], ["parts"], axis=1),
    ]
    outputs = [helper.make_tensor_sequence_value_info("parts", TensorProto.FLOAT, None)]
    return saved(path, nodes, outputs, {"w": builders.values(8, 4), "two": np.array(2)})


def test_that_maps_become_rows_in_the_order_of_their_keys(tmp_path):
    path = classifier(tmp_path / "net.onnx")
    x = builders.values(6, 8, seed=1)
    maps = onnxruntime.InferenceSession(path).run(["maps"], {"x": x})[0]
    expected = np.array([[each[3], each[5], each[7]] for each in maps])
    np.testing.assert_array_equal(as_array(maps), expected.astype(np.float32))


def test_that_tensors_of_a_sequence_lie_side_by_side(tmp_path):
    path = halves(tmp_path / "net.onnx")
    x = builders.values(6, 8, seed=1)
    [parts] = onnxruntime.InferenceSession(path).run(None, {"x": x})
    np.testing.assert_array_equal(as_array(parts), np.concatenate(parts, 1))
    assert as_array([np.zeros(3), np.zeros((2, 2))]).shape == (7,)
    assert as_array([]).size == as_array(None).size == 0


@pytest.mark.parametrize("build", [classifier, halves])
def test_that_quality_is_measured_and_the_file_verified(build, tmp_path, capsys):
    network = build(tmp_path / "net.onnx")
    x = builders.values(40, 8, seed=2)
    np.savez(tmp_path / "x.npz", x=x)
    data, quantized = ["--data", str(tmp_path / "x.npz"), "--preset", "W8A8"], str(tmp_path / "q.onnx")
    assert main(["evaluate", str(network), *data, "--json"]) == 0
    evaluated = json.loads(capsys.readouterr().out)
    assert main(["export", str(network), *data, "-o", quantized, "--json"]) == 0
    capsys.readouterr()
    assert main(["verify", str(network), quantized, *data, "--json"]) == 0
    assert float(json.loads(capsys.readouterr().out)["output_sqnr_db"]) > 100
    sessions = (onnxruntime.InferenceSession(path) for path in (network, quantized))
    exact, rounded = (as_array(session.run(None, {"x": x})[-1]).astype(float) for session in sessions)
    ratio = (exact**2).sum() / ((rounded - exact) ** 2).sum()
    assert evaluated["output_sqnr_db"] == pytest.approx(10 * np.log10(ratio), abs=0.01)
