"""The executor in torch: bodies, hooks, replaced weights, and what it keeps in memory."""

from __future__ import annotations

import weakref

import builders
import ml_dtypes
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper

from quantgui.errors import DataError, NetworkError
from quantgui.network.batch import Batch
from quantgui.network.differentiable import DifferentiableNetwork, TensorHook, uncovered_operators
from quantgui.network.executor import Executor
from quantgui.network.network import Network
from quantgui.network.simulation import Override, Simulation, TensorQuantizer
from quantgui.spec.formats import IntFormat

F = np.float32


def by_runtime(model: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return list(session.run(None, feeds))


def loop_model() -> onnx.ModelProto:
    """Return a loop of h = tanh(h @ w + x) until the sum of |h| exceeds the limit; all h are kept."""
    body = helper.make_graph(
        [
            helper.make_node("MatMul", ["h_in", "w"], ["hw"], name="inner"),
            helper.make_node("Add", ["hw", "x"], ["sum"], name="add"),
            helper.make_node("Tanh", ["sum"], ["h_out"], name="tanh"),
            helper.make_node("Identity", ["h_out"], ["kept"], name="keep"),
            helper.make_node("ReduceL1", ["h_out"], ["norm"], name="norm_of_h", keepdims=0),
            helper.make_node("Less", ["norm", "limit"], ["go_on"], name="test"),
        ],
        "body",
        [
            builders.tensor_info("i", [], TensorProto.INT64),
            builders.tensor_info("go_in", [], TensorProto.BOOL),
            builders.tensor_info("h_in", [2, 4]),
        ],
        [
            builders.tensor_info("go_on", [], TensorProto.BOOL),
            builders.tensor_info("h_out", [2, 4]),
            builders.tensor_info("kept", [2, 4]),
        ],
    )
    loop = helper.make_node("Loop", ["rounds", "", "h0"], ["h", "all"], name="loop", body=body)
    return builders.model_of(
        [loop],
        [builders.tensor_info("x", [2, 4]), builders.tensor_info("rounds", [], TensorProto.INT64)],
        [builders.tensor_info("h", [2, 4]), builders.tensor_info("all", [None, 2, 4])],
        {"w": builders.values(4, 4, seed=1), "h0": np.zeros((2, 4), F), "limit": np.array(5.5, F)},
    )


def scan_model() -> onnx.ModelProto:
    """Return a running sum over axis 1, from the end, with each product put out along axis 1 too."""
    body = helper.make_graph(
        [
            helper.make_node("Add", ["state", "element"], ["next"], name="add"),
            helper.make_node("Mul", ["next", "factor"], ["out"], name="mul"),
        ],
        "body",
        [builders.tensor_info("state", [3]), builders.tensor_info("element", [3])],
        [builders.tensor_info("next", [3]), builders.tensor_info("out", [3])],
    )
    scan = helper.make_node(
        "Scan", ["zero", "x"], ["last", "y"], name="scan", body=body, num_scan_inputs=1,
        scan_input_axes=[1], scan_input_directions=[1], scan_output_axes=[1], scan_output_directions=[1],
    )  # fmt: skip
    return builders.model_of(
        [scan],
        [builders.tensor_info("x", [3, 5])],
        [builders.tensor_info("last", [3]), builders.tensor_info("y", [3, 5])],
        {"zero": np.zeros(3, F), "factor": builders.values(3)},
    )


@pytest.mark.parametrize("rounds", [1, 2, 50])
def test_that_a_loop_does_as_many_rounds_as_in_onnx_runtime(rounds: int) -> None:
    model = loop_model()
    feeds = {"x": builders.values(2, 4, seed=3), "rounds": np.array(rounds, np.int64)}
    found = DifferentiableNetwork(builders.network_of(model)).run(feeds)
    for value, truth in zip(found.values(), by_runtime(model, feeds), strict=True):
        np.testing.assert_allclose(value.numpy(), truth, rtol=1e-5, atol=1e-6)


def test_that_scan_goes_along_its_axes_in_its_directions() -> None:
    model = scan_model()
    feeds = {"x": builders.values(3, 5)}
    found = DifferentiableNetwork(builders.network_of(model)).run(feeds)
    for value, truth in zip(found.values(), by_runtime(model, feeds), strict=True):
        np.testing.assert_allclose(value.numpy(), truth, rtol=1e-5, atol=1e-6)


def test_that_gradients_flow_through_the_rounds_of_a_loop() -> None:
    network = DifferentiableNetwork(builders.network_of(loop_model()))
    x = torch.from_numpy(builders.values(2, 4, seed=3)).double()
    feeds = {"x": x, "rounds": torch.tensor(2)}
    constants = {"h0": torch.zeros(2, 4, dtype=torch.float64), "limit": torch.tensor(100.0, dtype=torch.float64)}
    weight = network.constant("w").double().requires_grad_()

    def by_hand(w: torch.Tensor) -> torch.Tensor:
        return torch.tanh(torch.tanh(x) @ w + x)

    found = network.run(feeds, {**constants, "w": weight})["h"]
    gradient = torch.autograd.grad(found.sum(), weight)[0]
    expected = torch.autograd.grad(by_hand(weight).sum(), weight)[0]
    torch.testing.assert_close(gradient, expected)


@pytest.mark.parametrize("flag", [True, False])
def test_that_only_the_chosen_branch_runs_and_gets_gradients(flag: bool) -> None:
    model = builders.if_model()
    network = builders.network_of(model)
    differentiable = DifferentiableNetwork(network)
    feeds = {}
    for value in model.graph.input:
        kind = value.type.tensor_type
        shape = [dim.dim_value or 3 for dim in kind.shape.dim]
        feeds[value.name] = np.full(shape, flag) if kind.elem_type == TensorProto.BOOL else builders.values(*shape)
    weights = {
        name: torch.from_numpy(values.copy()).requires_grad_()
        for name, values in network.constants.items()
        if values.dtype == F
    }
    found = differentiable.run(feeds, weights)
    for value, truth in zip(found.values(), by_runtime(model, feeds), strict=True):
        np.testing.assert_allclose(value.detach().numpy(), truth, rtol=1e-5, atol=1e-6)
    sum(value.sum() for value in found.values() if value.is_floating_point()).backward()
    reached = {name for name, weight in weights.items() if weight.grad is not None}
    assert reached
    assert reached != set(weights)


def test_that_replaced_weights_and_hooks_give_what_the_simulation_gives() -> None:
    network = builders.network_of(builders.residual_model())
    x = builders.values(2, 3, 8, 8, seed=9)
    convolutions = [node for node in network.skeleton.graph.node if node.op_type == "Conv"]
    weight = convolutions[1].input[1]
    halved = network.constants[weight] * 0.5
    tensor = convolutions[1].input[0]
    # One consumer sees it in 4 bits, all others in 6.
    quantizers = (
        TensorQuantizer(IntFormat(4), 0.25, 0, frozenset({convolutions[1].name})),
        TensorQuantizer(IntFormat(6), 0.0625, 0, None),
    )
    simulation = Simulation({weight: Override("halved", lambda: halved)}, {tensor: quantizers})
    expected = Executor(network).run(Batch({"image": x}, None, 0, 2, "x"), simulation, [tensor])

    def fake_quantize(scale: float, low: int, high: int):
        return lambda t: torch.clamp(torch.round(t / scale), low, high) * scale

    hooks = {
        tensor: (
            TensorHook(fake_quantize(0.25, -8, 7), frozenset({convolutions[1].name})),
            TensorHook(fake_quantize(0.0625, -32, 31)),
        )
    }
    found = DifferentiableNetwork(network).run({"image": x}, {weight: torch.from_numpy(halved)}, [tensor], hooks)
    assert found.keys() == expected.keys()
    for name, truth in expected.items():
        np.testing.assert_allclose(found[name].numpy(), truth, rtol=1e-5, atol=1e-5)


def test_that_a_hook_makes_a_tensor_once_for_all_its_consumers_and_the_output() -> None:
    nodes = [helper.make_node("Relu", ["x"], ["a"]), helper.make_node("Mul", ["a", "a"], ["y"])]
    info = builders.tensor_info
    network = builders.network_of(builders.model_of(nodes, [info("x", [2])], [info("y", [2]), info("a", [2])], {}))
    calls = []

    def hook(t: torch.Tensor) -> torch.Tensor:
        calls.append(t)
        return t + 1

    found = DifferentiableNetwork(network).run(
        {"x": np.array([1, 2], F)}, fetch=["a"], quantize={"a": [TensorHook(hook)]}
    )
    assert found["y"].tolist() == [4, 9]
    assert found["a"].tolist() == [2, 3]
    assert len(calls) == 1


def test_that_a_tensor_is_freed_after_its_last_use() -> None:
    network = DifferentiableNetwork(builders.network_of(builders.mlp_model((8, 16, 16, 16, 4))))
    alive: list[weakref.ref[torch.Tensor]] = []
    most = 0

    def watch(t: torch.Tensor) -> torch.Tensor:
        nonlocal most
        alive.append(weakref.ref(t))
        most = max(most, sum(each() is not None for each in alive))
        return t

    hooks = {name: [TensorHook(watch)] for name in ("h0", "a0", "h1", "a1", "h2", "a2")}
    with torch.no_grad():
        network.run({"x": builders.values(3, 8)}, quantize=hooks)
    assert len(alive) == 6
    assert most <= 2


def test_that_weights_share_the_memory_of_the_network() -> None:
    network = builders.network_of(builders.mlp_model((8, 64, 4)))
    values = network.constants["w0"]
    values.flags.writeable = False
    tensor = DifferentiableNetwork(network).constant("w0")
    assert tensor.data_ptr() == values.__array_interface__["data"][0]
    del network, values
    assert torch.isfinite(tensor).all()


def test_that_a_missing_input_and_an_impossible_one_are_sentences() -> None:
    network = DifferentiableNetwork(builders.network_of(builders.mlp_model()))
    with pytest.raises(DataError, match="input 'x'"):
        network.run({})
    with pytest.raises(NetworkError, match=r"Gemm \(node 'fc0'\)"):
        network.run({"x": builders.values(2, 7)})


def test_that_an_operator_of_an_extension_is_named_with_its_domain() -> None:
    node = helper.make_node("Gelu", ["x"], ["y"], name="g", domain="com.microsoft")
    info = builders.tensor_info
    graph = helper.make_graph([node], "tiny", [info("x", [2])], [info("y", [2])])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    network: Network = builders.network_of(helper.make_model(graph, opset_imports=opsets, ir_version=8))
    assert uncovered_operators(network) == ("com.microsoft.Gelu",)
    with pytest.raises(NetworkError, match=r"com\.microsoft\.Gelu"):
        DifferentiableNetwork(network)


def test_that_weights_of_four_bits_are_computed_with():
    codes = (np.arange(32 * 8) % 16 - 8).reshape(32, 8).astype(ml_dtypes.int4)
    scales = builders.values(2, 8, seed=1)
    nodes = [
        helper.make_node("DequantizeLinear", ["codes", "scales"], ["w"], axis=0, block_size=16),
        helper.make_node("MatMul", ["x", "w"], ["y"]),
    ]
    ends = [builders.tensor_info("x", ["n", 32])], [builders.tensor_info("y", ["n", 8])]
    model = builders.model_of(nodes, *ends, {"codes": codes, "scales": scales}, opset=21)
    x = builders.values(3, 32, seed=2)
    network = DifferentiableNetwork(builders.network_of(model))
    expected = x @ (codes.astype(F) * scales.repeat(16, 0))
    np.testing.assert_allclose(network.run({"x": torch.from_numpy(x)})["y"].numpy(), expected, rtol=1e-5, atol=1e-5)
