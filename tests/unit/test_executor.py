"""Segments, sessions and the cache, against one session of the whole network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import builders
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from quantgui.errors import DataError, NetworkError
from quantgui.network import segments
from quantgui.network.batch import Batch
from quantgui.network.cache import ByteCache
from quantgui.network.datasets import open_dataset
from quantgui.network.executor import Executor
from quantgui.network.network import Network
from quantgui.network.simulation import FLOAT_SIMULATION, Override, Simulation, TensorQuantizer
from quantgui.results import LayerInfo
from quantgui.spec.formats import FloatFormat, IntFormat


@pytest.fixture
def cut_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut tiny networks too."""
    monkeypatch.setattr(segments, "SECONDS_PER_SEGMENT", 1e-9)
    monkeypatch.setattr(segments, "WEIGHTED_NODES_PER_SEGMENT", 1)


def batch_for(network: Network, count: int = 4) -> Batch:
    dataset = open_dataset(f"random:{count}", network.summary.inputs, network.summary, network=network)
    return next(dataset.batches())


def whole(model: onnx.ModelProto, batch: Batch) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, dict(batch.inputs))


def with_constant(model: onnx.ModelProto, name: str, array: np.ndarray) -> onnx.ModelProto:
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    tensor = next(t for t in changed.graph.initializer if t.name == name)
    tensor.CopyFrom(onnx.numpy_helper.from_array(array, name))
    return changed


def doubled(network: Network, *names: str) -> Simulation:
    return Simulation({n: Override(("doubled", n), lambda n=n: network.constants[n] * 2) for n in names})


def assert_equal(results: dict[str, np.ndarray], expected: Sequence[np.ndarray]) -> None:
    for value, wanted in zip(results.values(), expected, strict=True):
        np.testing.assert_allclose(value, wanted, rtol=1e-5, atol=1e-5 * np.abs(wanted).max())


MODELS = {
    "mlp": builders.mlp_model(),
    "residual": builders.residual_model(6),
    "lstm": builders.lstm_model(),
    "if": builders.if_model(),
}


@pytest.mark.usefixtures("cut_everywhere")
@pytest.mark.parametrize("name", list(MODELS))
def test_that_segments_give_what_the_whole_network_gives(name: str) -> None:
    model = MODELS[name]
    network = builders.network_of(model)
    batch = batch_for(network)
    executor = Executor(network)
    assert_equal(executor.run(batch), whole(model, batch))
    assert executor.segment_count >= 2


@pytest.mark.usefixtures("cut_everywhere")
@pytest.mark.parametrize(
    ("name", "constant"),
    [("mlp", "w1"), ("mlp", "b0"), ("residual", "block0.w"), ("lstm", "r"), ("if", "w1"), ("if", "w2")],
)
def test_that_an_override_gives_what_the_changed_network_gives(name: str, constant: str) -> None:
    network = builders.network_of(MODELS[name])
    batch = batch_for(network)
    executor = Executor(network)
    executor.run(batch)
    changed = with_constant(MODELS[name], constant, network.constants[constant] * 2)
    assert_equal(executor.run(batch, doubled(network, constant)), whole(changed, batch))
    assert_equal(executor.run(batch), whole(MODELS[name], batch))


@pytest.mark.usefixtures("cut_everywhere")
def test_that_a_change_runs_only_what_lies_behind_it_and_a_known_configuration_nothing() -> None:
    network = builders.network_of(builders.mlp_model((8,) + (64,) * 8))
    batch = batch_for(network)
    executor = Executor(network)
    executor.run(batch)
    count = executor.segment_count
    assert count == 8
    assert (executor.segments_run, executor.sessions_built) == (count, count)
    executor.run(batch, doubled(network, "w5"))
    assert executor.segments_run == count + 3
    assert executor.sessions_built == count + 1  # those behind it are the float ones
    for simulation in (FLOAT_SIMULATION, doubled(network, "w5")):
        executor.run(batch, simulation)
    assert executor.segments_run == count + 3
    executor.run(batch, doubled(network, "w2", "w5"))
    assert executor.segments_run == count + 3 + 6
    assert executor.sessions_built == count + 2


def exchanged(network: Network, name: str, factor: float) -> Simulation:
    override = Override((name, factor), lambda: network.constants[name] * np.float32(factor), exchanged=True)
    return Simulation({name: override})


@pytest.mark.usefixtures("cut_everywhere")
@pytest.mark.parametrize(
    ("name", "constant"),
    [("mlp", "w1"), ("mlp", "b1"), ("residual", "block0.w"), ("lstm", "r"), ("if", "w1"), ("if", "w2")],
)
def test_that_exchanged_values_give_what_the_changed_network_gives_without_another_session(
    name: str, constant: str
) -> None:
    network = builders.network_of(MODELS[name])
    batch = batch_for(network)
    executor = Executor(network)
    executor.run(batch)
    built = None
    for factor in (2.0, 0.5, -1.0, 2.0):
        outputs = executor.run(batch, exchanged(network, constant, factor))
        changed = with_constant(MODELS[name], constant, network.constants[constant] * np.float32(factor))
        assert_equal(outputs, whole(changed, batch))
        assert built in (None, executor.sessions_built)
        built = executor.sessions_built
    assert_equal(executor.run(batch), whole(MODELS[name], batch))


@pytest.mark.usefixtures("cut_everywhere")
def test_that_exchanged_values_stand_beside_built_in_ones_and_quantizers() -> None:
    network = builders.network_of(MODELS["mlp"])
    batch = batch_for(network)
    executor = Executor(network, cache_bytes=0)
    quantizers = {"a0": (TensorQuantizer(IntFormat(8, False), 0.02, 0),)}
    for factor in (2.0, 3.0):
        both = {**exchanged(network, "w1", factor).weights, **doubled(network, "b1").weights}
        plain = {name: Override(override.key, override.load) for name, override in both.items()}
        outputs = executor.run(batch, Simulation(both, quantizers))
        assert_equal(outputs, list(executor.run(batch, Simulation(plain, quantizers)).values()))


@pytest.mark.usefixtures("cut_everywhere")
@pytest.mark.parametrize(("name", "opset"), [("mlp", 9), ("mlp", 10), ("mlp", 21), ("residual", 17), ("if", 17)])
def test_that_exchanged_quantizers_give_what_built_in_ones_give_without_another_session(name: str, opset: int) -> None:
    model = builders.mlp_model(opset=opset) if name == "mlp" else MODELS[name]
    network = builders.network_of(model)
    batch = batch_for(network)
    tensor, reader = {"mlp": ("a0", "fc1"), "residual": ("r1", None), "if": ("a", None)}[name]
    consumers = None if reader is None else frozenset({reader})
    plain, curious = Executor(network), Executor(network)
    curious.run(batch)
    built: dict[int, int] = {}
    for fmt in (
        IntFormat(8, False),
        IntFormat(3, False),
        IntFormat(5, False),
        IntFormat(12, False),
        IntFormat(16, False),
    ):
        levels = fmt.quant_max - fmt.quant_min
        quantizer = TensorQuantizer(fmt, 2.0 / levels, levels // 4, consumers)
        expected = plain.run(batch, Simulation({}, {tensor: (quantizer,)}))
        outputs = curious.run(batch, Simulation({}, {tensor: (replace(quantizer, exchanged=True),)}))
        for value, wanted in zip(outputs.values(), expected.values(), strict=True):
            np.testing.assert_array_equal(value, wanted)
        stored = 8 if fmt.bits <= 8 else 16
        assert built.setdefault(stored, curious.sessions_built) == curious.sessions_built


@pytest.mark.usefixtures("cut_everywhere")
def test_that_what_is_not_to_be_kept_is_not_cached() -> None:
    network = builders.network_of(MODELS["residual"])
    batch = batch_for(network)
    executor = Executor(network)
    executor.run(batch)
    kept, runs = executor.cached_bytes, executor.segments_run
    outputs = executor.run(batch, doubled(network, "block1.w"), keep=False)
    assert executor.cached_bytes == kept
    before = executor.segments_run
    assert before < 2 * runs  # the float tensors before it come from the cache
    assert_equal(executor.run(batch, doubled(network, "block1.w"), keep=False), list(outputs.values()))
    assert executor.segments_run - before == before - runs


@pytest.mark.parametrize("name", list(MODELS))
def test_that_one_more_cut_changes_no_result_and_runs_the_front_once(name: str) -> None:
    network = builders.network_of(MODELS[name])
    batch = batch_for(network)
    executor = Executor(network)
    assert len(executor.run(batch)) == len(network.summary.outputs)
    kept, segments_run = executor.cached_bytes, executor.segments_run
    weights = {"mlp": ("w1", "w2"), "residual": ("block1.w", "head.w"), "lstm": ("r", "out.w"), "if": ("w1", "w3")}
    for constant in weights[name]:
        cut = frozenset({constant})
        for factor in (2.0, 0.5, -1.0):
            simulation = exchanged(network, constant, factor)
            outputs = executor.run(batch, simulation, keep=FLOAT_SIMULATION, cut=cut)
            changed = with_constant(MODELS[name], constant, network.constants[constant] * np.float32(factor))
            assert_equal(outputs, whole(changed, batch))
        assert executor.segments_run == segments_run + 4  # the front once, what is behind it for each value
        segments_run = executor.segments_run
        assert executor.cached_bytes > kept
        executor.close_cut(cut)
        assert executor.cached_bytes == kept
    assert_equal(executor.run(batch), whole(MODELS[name], batch))
    assert executor.segments_run == segments_run


@pytest.mark.usefixtures("cut_everywhere")
def test_that_a_cut_that_exists_is_not_made_again_and_what_lies_behind_its_segment_is_one_piece() -> None:
    network = builders.network_of(builders.mlp_model((8,) + (64,) * 8))
    batch = batch_for(network)
    executor = Executor(network)
    executor.run(batch)
    count = executor.segments_run
    outputs = executor.run(batch, exchanged(network, "w5", 2.0), keep=FLOAT_SIMULATION, cut=frozenset({"w5"}))
    assert executor.segments_run == count + 2
    plain = executor.run(batch, exchanged(network, "w5", 2.0), keep=False)
    assert_equal(outputs, list(plain.values()))
    executor.close_cuts()
    count, built = executor.segments_run, executor.sessions_built
    few = executor.run(
        batch, exchanged(network, "w5", 3.0), keep=FLOAT_SIMULATION, cut=frozenset({"w5"}), rows_behind=8
    )
    assert_equal(few, list(executor.run(batch, exchanged(network, "w5", 3.0), keep=False).values()))
    assert executor.segments_run == count + 2 * 3
    assert executor.sessions_built == built  # for few runs the sessions that are there do
    executor.close_cuts()


def test_that_only_weights_are_exchanged_that_run_as_well_from_an_input() -> None:
    layers = tuple(
        LayerInfo(f"fc{i}", "Gemm", f"w{i}", (64, 64), 0, 64, 64, (f"fc{i}",), macs=macs)
        for i, macs in enumerate((512, 10**12))
    )
    network = builders.network_of(builders.mlp_model(), layers)
    executor = Executor(network)
    assert not executor.exchangeable("w0", 4)  # nothing is known before the first run
    executor.run(batch_for(network))
    assert executor.exchangeable("w0", 4)
    assert not executor.exchangeable("w1", 4)


@pytest.mark.usefixtures("cut_everywhere")
def test_that_another_batch_is_not_answered_from_the_cache() -> None:
    network = builders.network_of(MODELS["mlp"])
    first = batch_for(network)
    second = replace(first, inputs={"x": first.inputs["x"] + 1}, key="second")
    executor = Executor(network)
    executor.run(first)
    assert_equal(executor.run(second), whole(MODELS["mlp"], second))


@pytest.mark.usefixtures("cut_everywhere")
@pytest.mark.parametrize("budget", [0, 3000, 10**9])
def test_that_the_cache_never_exceeds_its_budget(budget: int) -> None:
    network = builders.network_of(MODELS["residual"])
    executor = Executor(network, cache_bytes=budget)
    dataset = open_dataset("random:8", network.summary.inputs, network.summary, network=network)
    for simulation in (FLOAT_SIMULATION, doubled(network, "block1.w"), FLOAT_SIMULATION):
        for batch in dataset.batches(2):
            constants = network.constants
            model = with_constant(
                MODELS["residual"], "block1.w", constants["block1.w"] * (2 if simulation.weights else 1)
            )
            assert_equal(executor.run(batch, simulation), whole(model, batch))
            assert executor.cached_bytes <= budget


@pytest.mark.usefixtures("cut_everywhere")
def test_that_internal_tensors_are_fetched_as_the_network_makes_them() -> None:
    model = MODELS["residual"]
    network = builders.network_of(model)
    batch = batch_for(network)
    names = ["c0", "r0", "sum2", "pooled", "image", "stem.w", "logits"]
    extended = onnx.ModelProto()
    extended.CopyFrom(model)
    extended.graph.output.extend(onnx.ValueInfoProto(name=n) for n in names[:4])
    logits, r, *inner = whole(extended, batch)
    executor = Executor(network)
    assert all(executor.fetchable(name) for name in names)
    fetched = executor.run(batch, fetch=names)
    assert_equal(fetched, [logits, r, *inner, batch.inputs["image"], network.constants["stem.w"]])
    streamed = dict(executor.stream(batch, FLOAT_SIMULATION, names))
    assert streamed.keys() == set(names)
    np.testing.assert_allclose(streamed["sum2"], fetched["sum2"], rtol=1e-5, atol=1e-6)


@pytest.mark.usefixtures("cut_everywhere")
def test_that_float_and_simulated_batches_in_turns_build_each_session_once() -> None:
    network = builders.network_of(builders.mlp_model((2048,) * 5))  # 67 MB, more than the least budget of sessions
    dataset = open_dataset("random:4", network.summary.inputs, network.summary, network=network)
    executor = Executor(network, cache_bytes=0)
    simulation = doubled(network, *(f"w{i}" for i in range(4)))
    for batch in dataset.batches(1):
        executor.run(batch)
        executor.run(batch, simulation)
    assert executor.segment_count >= 3
    assert executor.sessions_built == 2 * executor.segment_count


@pytest.mark.usefixtures("cut_everywhere")
def test_that_streaming_stops_behind_the_last_wanted_tensor() -> None:
    network = builders.network_of(builders.mlp_model((8,) + (64,) * 8))
    executor = Executor(network)
    batch = batch_for(network)
    assert [name for name, _ in executor.stream(batch, FLOAT_SIMULATION, ["h0", "h1"])] == ["h0", "h1"]
    assert executor.segments_run == 2


@pytest.mark.usefixtures("cut_everywhere")
def test_that_results_do_not_depend_on_what_was_fetched_before() -> None:
    network = builders.network_of(MODELS["residual"])
    batch = batch_for(network)
    curious, plain = Executor(network), Executor(network)
    dict(curious.stream(batch, FLOAT_SIMULATION, [f"c{i}" for i in range(6)]))
    for name, value in plain.run(batch).items():
        np.testing.assert_array_equal(curious.run(batch)[name], value)


def test_that_tensors_inside_bodies_are_not_offered() -> None:
    network = builders.network_of(MODELS["if"])
    executor = Executor(network)
    assert executor.fetchable("a")
    assert executor.fetchable("branch")
    assert not executor.fetchable("t")
    assert not executor.fetchable("e0")
    assert "t" not in executor.run(batch_for(network), fetch=["t"])


def quantized(x: np.ndarray, scale: float, zero_point: int, low: int, high: int) -> np.ndarray:
    codes = np.clip(np.rint(x / np.float32(scale)) + zero_point, low, high)
    return ((codes - zero_point) * np.float32(scale)).astype(np.float32)


def mlp_by_hand(network: Network, x: np.ndarray, before: dict[str, object]) -> np.ndarray:
    constants = network.constants
    for i in range(3):
        x = before.get(f"fc{i}", lambda v: v)(x) @ constants[f"w{i}"].T + constants[f"b{i}"]
        x = np.maximum(x, 0) if i < 2 else x
    return x


@pytest.mark.parametrize(
    "fmt",
    [
        IntFormat(8, False),
        IntFormat(4, False),
        IntFormat(8),
        IntFormat(5, True, narrow_range=True),
        IntFormat(16, False),
        IntFormat(12),
    ],
    ids=str,
)
@pytest.mark.parametrize("opset", [9, 12, 17, 21])
def test_that_a_quantizer_rounds_and_clips_what_its_consumers_read(fmt: IntFormat, opset: int) -> None:
    network = builders.network_of(builders.mlp_model(opset=opset))
    batch = batch_for(network, 32)
    scale = 2.0 / (fmt.quant_max - fmt.quant_min)
    zero_point = 1 if fmt.signed else 3
    quantizer = TensorQuantizer(fmt, scale, zero_point, frozenset({"fc1"}))
    result = Executor(network).run(batch, Simulation(quantizers={"a0": (quantizer,)}))["y"]

    def grid(x: np.ndarray) -> np.ndarray:
        return quantized(x, scale, zero_point, fmt.quant_min, fmt.quant_max)

    np.testing.assert_allclose(result, mlp_by_hand(network, batch.inputs["x"], {"fc1": grid}), rtol=2e-4, atol=2e-5)
    assert np.abs(result - Executor(network).run(batch)["y"]).max() > 1e-5


@pytest.mark.parametrize("name", ["float16", "bfloat16"])
@pytest.mark.parametrize("opset", [12, 17])
def test_that_a_float_format_rounds_what_its_consumers_read(name: str, opset: int) -> None:
    import ml_dtypes

    network = builders.network_of(builders.mlp_model(opset=opset))
    batch = batch_for(network, 32)
    quantizer = TensorQuantizer(FloatFormat("float16" if name == "float16" else "bfloat16"))
    result = Executor(network).run(batch, Simulation(quantizers={"x": (quantizer,)}))["y"]
    dtype = np.float16 if name == "float16" else ml_dtypes.bfloat16
    by_hand = mlp_by_hand(network, batch.inputs["x"], {"fc0": lambda x: x.astype(dtype).astype(np.float32)})
    np.testing.assert_allclose(result, by_hand, rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("cut_everywhere")
def test_that_each_consumer_sees_its_own_quantizer_across_cuts() -> None:
    model = MODELS["residual"]
    network = builders.network_of(model)
    batch = batch_for(network)
    coarse = TensorQuantizer(IntFormat(3, False), 0.5, 0, frozenset({"conv1"}))
    fine = TensorQuantizer(IntFormat(8, False), 0.02, 0)
    simulation = Simulation(quantizers={"r0": (coarse, fine), "r": (fine,)})
    in_one = Executor(network, segmented=False).run(batch, simulation, ["r0", "c1", "sum1"])
    cut = Executor(network).run(batch, simulation, ["r0", "c1", "sum1"])
    for name, value in in_one.items():
        np.testing.assert_allclose(cut[name], value, rtol=1e-5, atol=1e-5)
    # The residual connection is no named consumer of `coarse`: it reads `fine`.
    np.testing.assert_allclose(cut["sum1"] - cut["c1"], quantized(cut["r0"], 0.02, 0, 0, 255), rtol=1e-5, atol=1e-5)


@pytest.mark.usefixtures("cut_everywhere")
def test_that_an_output_is_quantized_unless_consumers_are_named() -> None:
    network = builders.network_of(MODELS["residual"])
    batch = batch_for(network)
    executor = Executor(network)
    plain = executor.run(batch)["r"]
    default = Simulation(quantizers={"r": (TensorQuantizer(IntFormat(8, False), 0.02, 0),)})
    named = Simulation(quantizers={"r": (TensorQuantizer(IntFormat(8, False), 0.02, 0, frozenset({"conv0"})),)})
    for _ in range(2):  # computed, then cached
        np.testing.assert_allclose(executor.run(batch, default)["r"], quantized(plain, 0.02, 0, 0, 255), atol=1e-6)
        np.testing.assert_array_equal(executor.run(batch, named)["r"], plain)
    streamed = dict(executor.stream(batch, default, ["r"]))
    np.testing.assert_array_equal(streamed["r"], plain)


def test_that_nodes_inside_bodies_read_quantized_tensors() -> None:
    network = builders.network_of(MODELS["if"])
    batch = batch_for(network)
    x = batch.inputs["x"]
    on, off = (replace(batch, inputs={"x": x, "flag": np.array(flag)}, key=str(flag)) for flag in (True, False))
    quantizer = TensorQuantizer(IntFormat(4, False), 0.2, 0, frozenset({"then/fc"}))
    inner = TensorQuantizer(IntFormat(4), 0.3, 0)
    simulation = Simulation(quantizers={"a": (quantizer,), "e0": (inner,)})
    executor = Executor(network)
    c = network.constants
    a = np.maximum(x @ c["w0"], 0)
    then = quantized(a, 0.2, 0, 0, 15) @ c["w1"] @ c["w3"]
    other = (quantized(a @ c["w2"], 0.3, 0, -8, 7) + x) @ c["w3"]
    np.testing.assert_allclose(executor.run(on, simulation)["y"], then, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(executor.run(off, simulation)["y"], other, rtol=1e-4, atol=1e-4)


def test_that_state_flows_through_a_sequence() -> None:
    model = MODELS["lstm"]
    network = builders.network_of(model)
    dataset = open_dataset("random:5", network.summary.inputs, network.summary, network=network)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    h = c = np.zeros((1, 1, 16), np.float32)
    executor = Executor(network)
    for _ in range(2):
        for index, answer in enumerate(filter(None, executor.run_sequence(dataset.batches()))):
            batch, (outputs,) = answer
            if index == 0:
                h = c = np.zeros((1, 1, 16), np.float32)
            y, h, c = session.run(None, {"x": batch.inputs["x"], "h": h, "c": c})
            np.testing.assert_allclose(outputs["y"], y, rtol=1e-6)
    assert executor.segments_run == 5  # the second pass comes from the cache


def test_that_outputs_which_are_inputs_or_constants_are_returned() -> None:
    nodes = [helper.make_node("Relu", ["x"], ["y"], name="relu")]
    names = ("x", "constant", "y")
    model = builders.model_of(
        nodes,
        [builders.tensor_info("x", [2, 3])],
        [builders.tensor_info("y", [2, 3])],
        {"constant": builders.values(2, 3)},
    )
    for name in ("x", "constant"):
        model.graph.output.append(builders.tensor_info(name, [2, 3]))
    network = builders.network_of(model)
    x = builders.values(2, 3, seed=5)
    results = Executor(network).run(Batch({"x": x}, None, 0, 1, "k"))
    assert set(results) == set(names)
    np.testing.assert_array_equal(results["constant"], network.constants["constant"])


def test_that_a_constant_listed_among_the_inputs_need_not_be_given() -> None:
    model = builders.mlp_model()
    model.graph.input.append(builders.tensor_info("b0", [64]))
    batch = Batch({"x": builders.values(4, 8)}, None, 0, 4, "k")
    assert_equal(Executor(builders.network_of(model)).run(batch), whole(builders.mlp_model(), batch))


def test_that_a_missing_input_and_a_failing_network_are_sentences() -> None:
    executor = Executor(builders.network_of(MODELS["mlp"]))
    with pytest.raises(DataError, match="lacks the network's input 'x'"):
        executor.run(Batch({}, None, 0, 1, "k"))
    with pytest.raises(NetworkError):
        executor.run(Batch({"x": builders.values(2, 9)}, None, 0, 2, "k"))


def test_that_a_cut_is_never_made_where_something_crosses_that_is_no_tensor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments, "SECONDS_PER_SEGMENT", 1e-9)
    monkeypatch.setattr(segments, "WEIGHTED_NODES_PER_SEGMENT", 1)
    constants = {f"w{i}": builders.values(16, 16, seed=i) for i in range(3)} | {"at": np.array(0)}
    nodes = [
        helper.make_node("MatMul", ["x", "w0"], ["a"], name="fc0"),
        helper.make_node("SequenceConstruct", ["a", "x"], ["list"], name="pack"),
        helper.make_node("MatMul", ["a", "w1"], ["b"], name="fc1"),
        helper.make_node("SequenceAt", ["list", "at"], ["first"], name="unpack"),
        helper.make_node("Add", ["first", "b"], ["c"], name="add"),
        helper.make_node("MatMul", ["c", "w2"], ["y"], name="fc2"),
    ]
    inputs, outputs = [builders.tensor_info("x", ["n", 16])], [builders.tensor_info("y", ["n", 16])]
    model = builders.model_of(nodes, inputs, outputs, constants)
    network = builders.network_of(model)
    batch = Batch({"x": builders.values(3, 16)}, None, 0, 3, "k")
    executor = Executor(network)
    assert_equal(executor.run(batch), whole(model, batch))
    assert not executor.fetchable("list")


def test_that_float16_tensors_are_quantized_through_float32() -> None:
    nodes = [
        helper.make_node("Cast", ["x"], ["half"], name="to", to=TensorProto.FLOAT16),
        helper.make_node("Relu", ["half"], ["r"], name="relu"),
        helper.make_node("Cast", ["r"], ["y"], name="back", to=TensorProto.FLOAT),
    ]
    inputs, outputs = [builders.tensor_info("x", ["n", 4])], [builders.tensor_info("y", ["n", 4])]
    network = builders.network_of(builders.model_of(nodes, inputs, outputs, {}))
    x = builders.values(3, 4)
    quantizer = TensorQuantizer(IntFormat(4, False), 0.25, 0)
    batch = Batch({"x": x}, None, 0, 3, "k")
    result = Executor(network).run(batch, Simulation(quantizers={"r": (quantizer,)}))["y"]
    np.testing.assert_array_equal(
        result, quantized(np.maximum(x.astype(np.float16), 0).astype(np.float32), 0.25, 0, 0, 15)
    )


def test_that_the_cache_drops_what_was_used_longest_ago() -> None:
    cache: ByteCache[str] = ByteCache(10)
    for key in "abc":
        cache.put(key, key, 3)
    assert cache.get("a") == "a"
    cache.put("d", "d", 4)
    assert [key in cache for key in "abcd"] == [True, False, True, True]
    cache.put("e", "e", 11)
    assert "e" not in cache
    assert cache.used == 10


def test_that_passes_over_more_data_than_fits_find_as_much_as_fits() -> None:
    def hits(cache: ByteCache[int]) -> int:
        found = 0
        for i in list(range(100)) * 3:
            if cache.get(i) is None:
                cache.put(i, i, 1)
            else:
                found += 1
            assert cache.used <= 50
        return found

    assert hits(ByteCache(50)) == 0
    assert hits(ByteCache(50, patience=2)) == 2 * 50


def test_that_values_unused_for_long_make_room() -> None:
    cache: ByteCache[int] = ByteCache(2, patience=2)
    for key in (0, 1, 2):
        cache.put(key, key, 1)
    assert 2 not in cache
    for _ in range(2):
        cache.next_age()
        assert cache.get(1) == 1
    cache.put(2, 2, 1)
    assert [key in cache for key in (0, 1, 2)] == [False, True, True]
    cache.put(3, 3, 1)
    assert 3 not in cache
