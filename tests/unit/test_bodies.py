"""Activations inside the bodies of If, Loop and Scan: looked at, calibrated, quantized and exported."""

from __future__ import annotations

import json

import builders
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from quantgui.analysis.calibration import calibrate
from quantgui.cli.main import main
from quantgui.network.datasets import open_dataset
from quantgui.network.executor import Executor
from quantgui.network.reader import open_network
from quantgui.network.simulation import FLOAT_SIMULATION
from quantgui.results import Calibrated

ROUNDS, SAMPLES = 3, 5
node = helper.make_node


def info(name, dims, kind=TensorProto.FLOAT):
    return builders.tensor_info(name, dims, kind)


def saved(path, nodes, constants, *, inputs=None, outputs=None, opset=17, kind=np.float32):
    element = helper.np_dtype_to_tensor_dtype(np.dtype(kind))
    graph = helper.make_graph(
        nodes,
        "g",
        inputs or [info("x", ["n", 6], element)],
        outputs or [info("y", ["n", 6], element)],
        [numpy_helper.from_array(values, name) for name, values in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    onnx.save(model, path)
    return path


def loop_body(nodes, *, result, kind=TensorProto.FLOAT):
    """Return the body of a Loop over one state `h` that goes on for all rounds; `nodes` make `result` of it."""
    return helper.make_graph(
        [*nodes, node("Identity", ["go"], ["go_on"])],
        "body",
        [info("i", [], TensorProto.INT64), info("go", [], TensorProto.BOOL), info("h", None, kind)],
        [info("go_on", [], TensorProto.BOOL), info(result, None, kind)],
    )


STEP = [node("MatMul", ["h", "w"], ["m"], name="inner"), node("Tanh", ["m"], ["next"], name="tanh")]


def loop_network(path, kind=np.float32):
    """Write h = tanh(h @ w), three times, then y = h @ v."""
    body = loop_body(STEP, result="next", kind=helper.np_dtype_to_tensor_dtype(np.dtype(kind)))
    nodes = [
        node("Loop", ["rounds", "", "x"], ["last"], name="loop", body=body),
        node("MatMul", ["last", "v"], ["y"], name="outer"),
    ]
    weights = {"w": builders.values(6, 6, scale=0.5), "v": builders.values(6, 6, seed=1)}
    constants = {name: values.astype(kind) for name, values in weights.items()} | {"rounds": np.array(ROUNDS)}
    return saved(path, nodes, constants, kind=kind)


def states_of(x, w, rounds=ROUNDS):
    """Return what the inner product of `loop_network` reads in each round."""
    states = [x]
    for _ in range(rounds - 1):
        states.append(np.tanh(states[-1] @ w))
    return np.stack(states)


def dataset_of(tmp_path, network, **arrays):
    np.savez(tmp_path / "x.npz", **arrays)
    return open_dataset(str(tmp_path / "x.npz"), network.summary.inputs, network.summary)


def streamed(network, dataset, names):
    [batch] = dataset.batches(SAMPLES)
    return dict(Executor(network).stream(batch, FLOAT_SIMULATION, names))


def statistics(network, dataset, names, axes=None):
    executor = Executor(network)
    [found] = [
        event for event in calibrate(executor, dataset, names, batch_size=2, axes=axes) if isinstance(event, Calibrated)
    ]
    return found.activations


def test_that_a_loop_hands_out_what_all_rounds_made(tmp_path):
    network = open_network(loop_network(tmp_path / "net.onnx"))
    x = builders.values(SAMPLES, 6, seed=2)
    found = streamed(network, dataset_of(tmp_path, network, x=x), ["h"])
    np.testing.assert_allclose(found["h"], states_of(x, network.constants["w"]), rtol=1e-5, atol=1e-6)


def test_that_samples_keep_their_own_ranges_over_all_rounds(tmp_path):
    network = open_network(loop_network(tmp_path / "net.onnx"))
    x = builders.values(SAMPLES, 6, seed=2)
    dataset = dataset_of(tmp_path, network, x=x)
    found = statistics(network, dataset, ["h"], {"h": [-1]})["h"]
    states = states_of(x, network.constants["w"])
    np.testing.assert_allclose(found.sample_minima, states.min((0, 2)), rtol=1e-5)
    np.testing.assert_allclose(found.sample_maxima, states.max((0, 2)), rtol=1e-5)
    np.testing.assert_allclose(found.squares[-1], (states**2).mean((0, 1)), rtol=1e-5)
    assert found.statistics.count == states.size


def test_that_a_scan_hands_out_what_all_steps_made(tmp_path):
    body = helper.make_graph(
        [
            node("MatMul", ["s", "w"], ["sw"], name="state"),
            node("Add", ["sw", "step"], ["sum"], name="add"),
            node("Tanh", ["sum"], ["t"], name="tanh"),
            node("Identity", ["t"], ["out"], name="id"),
        ],
        "body",
        [info("s", ["n", 6]), info("step", ["n", 6])],
        [info("t", ["n", 6]), info("out", ["n", 6])],
    )
    nodes = [
        node("Mul", ["x", "zero"], ["s0"]),
        node("Transpose", ["seq"], ["steps"], perm=[1, 0, 2]),
        node("Scan", ["s0", "steps"], ["y", "all"], name="scan", body=body, num_scan_inputs=1,
             scan_output_axes=[1], scan_output_directions=[1]),
    ]  # fmt: skip
    constants = {"w": builders.values(6, 6, scale=0.5), "zero": np.zeros(1, np.float32)}
    path = saved(
        tmp_path / "net.onnx",
        nodes,
        constants,
        inputs=[info("x", ["n", 6]), info("seq", ["n", 4, 6])],
        outputs=[info("y", ["n", 6]), info("all", ["n", 4, 6])],
    )
    network = open_network(path)
    x, seq = builders.values(SAMPLES, 6), builders.values(SAMPLES, 4, 6, seed=3)
    found = streamed(network, dataset_of(tmp_path, network, x=x, seq=seq), ["s"])
    [_, outputs] = onnxruntime.InferenceSession(path).run(None, {"x": x, "seq": seq})
    # Outputs are stacked backwards; each step reads the state of the one before.
    states = np.concatenate([np.zeros((1, SAMPLES, 6), np.float32), outputs[:, ::-1].transpose(1, 0, 2)[:-1]])
    np.testing.assert_allclose(found["s"], states, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("flag", [True, False])
def test_that_the_branch_that_is_not_taken_hands_out_nothing(flag, tmp_path):
    inner = node("Loop", ["rounds", "", "a"], ["looped"], name="loop", body=loop_body(STEP, result="next"))
    then = helper.make_graph([node("Neg", ["x"], ["a"], name="neg"), inner], "then", [], [info("looped", None)])
    other = helper.make_graph([node("MatMul", ["x", "u"], ["b"], name="other")], "else", [], [info("b", None)])
    nodes = [
        node("ReduceSum", ["x"], ["sum"], keepdims=0),
        node("Greater", ["sum", "limit"], ["yes"]),
        node("If", ["yes"], ["y"], name="if", then_branch=then, else_branch=other),
    ]
    constants = {"w": builders.values(6, 6, scale=0.5), "u": builders.values(6, 6), "rounds": np.array(ROUNDS)}
    constants["limit"] = np.array(-1e9 if flag else 1e9, np.float32)
    network = open_network(saved(tmp_path / "net.onnx", nodes, constants))
    assert network.inner["h"].path == ("if", "loop")
    x = builders.values(SAMPLES, 6, seed=2)
    found = streamed(network, dataset_of(tmp_path, network, x=x), ["h", "x"])
    if flag:
        np.testing.assert_allclose(found["h"], states_of(-x, network.constants["w"]), rtol=1e-5, atol=1e-6)
    else:
        assert found["h"].size == 0
    np.testing.assert_array_equal(found["x"], x)


def test_that_rounds_of_changing_shape_are_left_out_and_the_rest_is_there(tmp_path):
    grow = [
        node("MatMul", ["h", "w"], ["m"], name="inner"),
        node("Concat", ["h", "m"], ["next"], name="grow", axis=0),
    ]
    nodes = [
        node("MatMul", ["x", "w"], ["first"], name="before"),
        node("Loop", ["rounds", "", "first"], ["y"], name="loop", body=loop_body(grow, result="next")),
    ]
    constants = {"w": builders.values(6, 6, scale=0.5), "rounds": np.array(2)}
    network = open_network(saved(tmp_path / "net.onnx", nodes, constants, outputs=[info("y", None)]))
    x = builders.values(SAMPLES, 6)
    dataset = dataset_of(tmp_path, network, x=x)
    assert set(streamed(network, dataset, ["h", "x"])) == {"x"}
    known = statistics(network, dataset, ["h", "x"])
    assert (known["h"].statistics.count, known["x"].statistics.count) == (0, x.size)


def test_that_branches_inside_of_loops_are_not_handed_out(tmp_path):
    then = helper.make_graph([node("MatMul", ["h", "w"], ["a"], name="inner")], "then", [], [info("a", None)])
    other = helper.make_graph([node("Neg", ["h"], ["b"], name="neg")], "else", [], [info("b", None)])
    nodes = [node("If", ["go"], ["next"], name="if", then_branch=then, else_branch=other)]
    loop = node("Loop", ["rounds", "", "x"], ["y"], name="loop", body=loop_body(nodes, result="next"))
    constants = {"w": builders.values(6, 6), "rounds": np.array(ROUNDS)}
    network = open_network(saved(tmp_path / "net.onnx", [loop], constants))
    assert list(network.inner) == ["h"]


@pytest.mark.parametrize("kind", [np.float32, np.float16])
def test_that_bodies_are_quantized_exported_and_verified(kind, tmp_path, capsys):
    path, out = str(loop_network(tmp_path / "net.onnx", kind)), str(tmp_path / "q.onnx")
    x = builders.values(40, 6, seed=2).astype(kind)
    np.savez(tmp_path / "x.npz", x=x)
    options = ["--data", str(tmp_path / "x.npz"), "--preset", "W8A8", "--as-is", "--json"]
    assert main(["evaluate", path, *options]) == 0
    evaluated = json.loads(capsys.readouterr().out)
    assert not evaluated["notes"]
    assert main(["export", path, *options, "-o", out]) == 0
    [loop] = [each for each in onnx.load(out).graph.node if each.op_type == "Loop"]
    [body] = [attribute.g for attribute in loop.attribute if attribute.name == "body"]
    assert sum(each.op_type == "QuantizeLinear" for each in body.node) == 1
    sessions = [onnxruntime.InferenceSession(file) for file in (path, out)]
    exact, rounded = (session.run(None, {"x": x})[0].astype(float) for session in sessions)
    measured = 10 * np.log10((exact**2).sum() / ((rounded - exact) ** 2).sum())
    assert evaluated["output_sqnr_db"] == pytest.approx(measured, abs=0.5)
    assert measured > 25


def test_that_sweeps_of_activations_reach_into_bodies(tmp_path, capsys):
    path = str(loop_network(tmp_path / "net.onnx"))
    np.savez(tmp_path / "x.npz", x=builders.values(16, 6, seed=2))
    options = ["--data", str(tmp_path / "x.npz"), "--what", "activations", "--bits", "4,8", "--exact", "--json"]
    assert main(["sensitivity", path, *options]) == 0
    layers = json.loads(capsys.readouterr().out)["layers"]
    found = {layer["name"]: [each["value"] for each in layer["candidates"]] for layer in layers}
    assert all(5 < low < high - 10 for low, high in found.values()), found
    assert set(found) == {"inner", "outer"}
