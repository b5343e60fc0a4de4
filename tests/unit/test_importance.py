"""Ranges of weights that depend on their inputs: how much each element counts, and that all use the same."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import builders
import export_examples as examples
import numpy as np
import onnx
import pytest
from onnx import helper

from quantgui.analysis.calibration import calibrate
from quantgui.analysis.importance import importance, input_reads, input_tensors, summed_axes
from quantgui.analysis.sensitivity import measure_sensitivity
from quantgui.analysis.simulation import build_simulation, calibrated_tensors
from quantgui.analysis.tensor_error import view_weight, weight_errors
from quantgui.engine.bench import Bench
from quantgui.engine.requests import (
    Evaluate,
    Export,
    FindMix,
    MeasureSensitivity,
    OpenData,
    OpenNetwork,
    Verify,
    ViewWeight,
    WeightErrors,
    WriteReport,
    WriteSettings,
)
from quantgui.errors import DataError, SpecError
from quantgui.export.dialects.material import gather
from quantgui.export.metadata import exported_squares
from quantgui.network.datasets import Dataset, open_dataset
from quantgui.network.executor import Executor
from quantgui.network.network import Network
from quantgui.numerics.affine import weight_qparams
from quantgui.numerics.groups import as_matrix
from quantgui.numerics.metrics import sqnr_db
from quantgui.results import (
    ActivationReady,
    Calibrated,
    EvaluationReady,
    Exported,
    MixReady,
    Sensitivity,
    SettingsWritten,
    Verification,
    WeightErrorReady,
    WeightViewReady,
)
from quantgui.spec.config import QuantConfig
from quantgui.spec.formats import IntFormat
from quantgui.spec.granularity import PerChannel, PerGroup, PerTensor
from quantgui.spec.mix import Mix
from quantgui.spec.presets import activation_spec, weight_spec
from quantgui.spec.quantizer import InputWeightedError, LayerSpec, LeastSquaredError, QuantizerSpec
from quantgui.spec.sweep import Sweep

Array = np.ndarray
INT8 = activation_spec(8)
AWARE4 = weight_spec(4, range_estimator=InputWeightedError())
PLAIN4 = weight_spec(4, range_estimator=LeastSquaredError())
SPECS = {
    "w4": LayerSpec(AWARE4),
    "w3 per tensor": LayerSpec(weight_spec(3, PerTensor(), InputWeightedError())),
    "uint4 g8 double": LayerSpec(
        QuantizerSpec(IntFormat(4, signed=False), False, PerGroup(8), InputWeightedError(), double_quantization=True)
    ),
    "w8a8": LayerSpec(weight_spec(8, range_estimator=InputWeightedError()), INT8),
}


def statistics_of(network: Network, data: Dataset) -> dict[str, ActivationReady]:
    """Return the statistics of everything that multiplies a weight."""
    axes = summed_axes(network)
    *_, last = calibrate(Executor(network), data, axes, axes=axes)
    assert isinstance(last, Calibrated)
    return dict(last.activations)


# --- the search --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("granularity", [PerTensor(), PerChannel(), PerGroup(20)], ids=str)
@pytest.mark.parametrize("bits", [2, 3, 4, 6])
@pytest.mark.parametrize("own", [False, True], ids=["alike", "by channel"])
def test_that_no_threshold_weighs_less_than_the_one_found(granularity, bits: int, *, own: bool) -> None:
    random = np.random.default_rng(bits)
    x = random.standard_t(4, (12, 60)).astype(np.float32)
    counts = np.exp(random.standard_normal((12, 60) if own else 60))
    spec = QuantizerSpec(IntFormat(bits), granularity=granularity, range_estimator=InputWeightedError())
    found = weight_qparams(x, spec, 0, importance=counts).scale
    size = {PerTensor: x.size, PerChannel: 60}.get(type(granularity), 20)
    groups, weights = x.reshape(-1, size), np.broadcast_to(counts, x.shape).reshape(-1, size)
    highest = 2 ** (bits - 1) - 1

    def error(scales: Array, rows: Array, counts: Array) -> Array:
        codes = np.clip(np.rint(rows / scales), -highest - 1, highest)
        return (counts * (rows - codes * scales) ** 2).sum(-1)

    # Every threshold there could be, by brute force. Finer grids have many dents in their error.
    shares = np.linspace(0.02, 1.1, 4000)[:, None] / highest
    pairs = list(zip(groups.astype(np.float64), weights, strict=True))
    least = sum(float(error(shares * np.abs(rows).max(), rows, counts).min()) for rows, counts in pairs)
    scales = zip(pairs, found.astype(np.float64), strict=True)
    reached = sum(float(error(scale, rows, counts)) for (rows, counts), scale in scales)
    assert reached <= least * (1.01 if bits <= 4 else 1.05)


# --- what counts -------------------------------------------------------------------------------------------------


def product_network(op: str, weight: Array, x: list, **attributes: object) -> onnx.ModelProto:
    """Return one operator with a weight, at the second place unless the name says otherwise."""
    name, _, first = op.partition(" ")
    inputs = ["w", "x"] if first else ["x", "w"]
    node = helper.make_node(name, inputs, ["y"], name="layer", **attributes)
    y = builders.tensor_info("y", [f"y{axis}" for axis in range(len(x))])
    return builders.model_of([node], [builders.tensor_info("x", x)], [y], {"w": weight})


def transposed_table() -> onnx.ModelProto:
    """Return a table that is looked up, and multiplied transposed."""
    nodes = [
        helper.make_node("Transpose", ["w"], ["t"], name="turn", perm=[1, 0]),
        helper.make_node("MatMul", ["x", "t"], ["y"], name="layer"),
        helper.make_node("Gather", ["w", "ids"], ["e"], name="look up"),
    ]
    inputs = [builders.tensor_info("x", ["n", 9]), builders.tensor_info("ids", ["m"], onnx.TensorProto.INT64)]
    outputs = [builders.tensor_info("y", ["n", 5]), builders.tensor_info("e", ["m", 9])]
    return builders.model_of(nodes, inputs, outputs, {"w": builders.values(5, 9)})


PRODUCTS = {
    "Gemm": product_network("Gemm", builders.values(9, 5), ["n", 9]),
    "Gemm transB": product_network("Gemm", builders.values(5, 9), ["n", 9], transB=1),
    "Gemm transA": product_network("Gemm", builders.values(9, 5), [9, 7], transA=1),
    "Gemm weight first": product_network("Gemm first", builders.values(5, 9), [9, 7]),
    "Gemm weight first, all transposed": product_network(
        "Gemm first", builders.values(9, 5), [7, 9], transA=1, transB=1
    ),
    "MatMul": product_network("MatMul", builders.values(9, 5), ["n", 6, 9]),
    "MatMul of stacks": product_network("MatMul", builders.values(1, 9, 5), ["n", 6, 9]),
    "MatMul weight first": product_network("MatMul first", builders.values(5, 9), ["n", 9, 4]),
    "MatMul of a transposed table": transposed_table(),
    "ConvTranspose": product_network("ConvTranspose", builders.values(4, 6, 3, 3), ["n", 4, 8, 8]),
    "ConvTranspose grouped": product_network("ConvTranspose", builders.values(4, 3, 3, 3), ["n", 4, 8, 8], group=2),
    "Conv 1x1": product_network("Conv", builders.values(6, 4, 1, 1), ["n", 4, 8, 8]),
    "Conv 1x1 grouped": product_network("Conv", builders.values(6, 2, 1), ["n", 4, 8], group=2),
    "Conv 3x3": product_network("Conv", builders.values(6, 4, 3, 3), ["n", 4, 40, 40], pads=[1, 1, 1, 1]),
    "Conv depthwise": product_network("Conv", builders.values(4, 1, 3, 3), ["n", 4, 40, 40], group=4),
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_that_an_element_counts_as_much_as_its_error_costs_the_output(tmp_path: Path, name: str) -> None:
    network = examples.opened(tmp_path, PRODUCTS[name])
    layer = network.layers["layer"]
    random = np.random.default_rng(0)
    (read,) = input_reads(network, layer)
    shape = [7 if isinstance(dim, str) else dim for dim in network.summary.inputs[0].shape or ()]
    x = random.standard_normal(shape)
    axis = read.axis % x.ndim
    # Each index of the axis is of a strength of its own.
    strength = np.exp(random.standard_normal(shape[axis]))
    x = (x * np.moveaxis(strength.reshape(-1, *[1] * (x.ndim - 1)), 0, axis)).astype(np.float32)
    fed = {info.name: np.zeros(3, np.int64) if info.name == "ids" else x for info in network.summary.inputs}
    path = tmp_path / "x.npz"
    np.savez(path, **fed)

    squares = (x.astype(np.float64) ** 2).mean(tuple(i for i in range(x.ndim) if i != axis)).astype(np.float32)
    nothing = np.empty(0, np.float32)
    empty = statistics_of(network, examples.data_for(network, 1))[read.tensor].statistics
    ready = ActivationReady(read.tensor, empty, 1, nothing, nothing, {read.axis: squares})
    found = importance(network, layer, {read.tensor: ready})
    found = np.broadcast_to(found, as_matrix(network.weight(layer), layer.channel_axis).shape)

    model = PRODUCTS[name]
    cost = np.zeros(layer.shape)
    floats = run(model, fed)
    weight = network.weight(layer)
    for index in np.ndindex(*layer.shape):
        changed = weight.copy()
        changed[index] += 1.0
        cost[index] = ((run(with_weight(model, changed), fed) - floats) ** 2).sum()
    cost = as_matrix(cost, layer.channel_axis)
    ratio = (cost / cost.max()) / (found / found.max())
    assert ratio.min() > 0.85
    assert ratio.max() < 1.15
    if "3x3" not in name and "depthwise" not in name:
        np.testing.assert_allclose(ratio, 1.0, rtol=1e-3)


def with_weight(model: onnx.ModelProto, weight: Array) -> onnx.ModelProto:
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    (tensor,) = [each for each in changed.graph.initializer if each.name == "w"]
    tensor.CopyFrom(onnx.numpy_helper.from_array(weight, "w"))
    return changed


def run(model: onnx.ModelProto, fed: dict[str, Array]) -> Array:
    import onnxruntime

    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(["y"], fed)[0], np.float64)


def test_that_calibration_keeps_the_mean_squares_of_all_samples_and_none_of_the_padding(tmp_path: Path) -> None:
    network = examples.opened(tmp_path, builders.residual_model(batch=4))
    image = builders.values(6, 3, 8, 8, seed=7)
    np.save(tmp_path / "images.npy", image)
    data = open_dataset(str(tmp_path / "images.npy"), network.summary.inputs, network.summary, network=network)
    assert [batch.rows for batch in data.batches()] == [4, 4]
    found = statistics_of(network, data)["image"]
    np.testing.assert_allclose(found.squares[1], (image.astype(np.float64) ** 2).mean((0, 2, 3)), rtol=1e-5)


def test_that_an_input_that_never_came_still_counts_a_little(tmp_path: Path) -> None:
    network = examples.opened(tmp_path, builders.mlp_model())
    known = statistics_of(network, examples.data_for(network))
    squares = np.array([0, 1, 1, 1, 1, 1, 1, 0], np.float32)
    seen = {**known, "x": replace(known["x"], squares={1: squares})}
    found = importance(network, network.layers["fc0"], seen)
    assert found.min() == pytest.approx(0.75e-3)
    dead = {**known, "x": replace(known["x"], squares={1: 0 * squares})}
    np.testing.assert_array_equal(importance(network, network.layers["fc0"], dead), np.ones(8))


def test_that_a_weight_with_several_users_counts_what_all_of_them_read(tmp_path: Path) -> None:
    network = examples.opened(tmp_path, builders.residual_model())
    layer = next(each for each in network.summary.layers if len(each.users) > 1)
    known = statistics_of(network, examples.data_for(network))
    reads = list(input_reads(network, layer))
    assert len({read.tensor for read in reads}) == len(layer.users)
    total = sum(known[read.tensor].squares[1].astype(np.float64) for read in reads)
    expected = np.repeat(total / total.max(), layer.elements_per_channel // len(total))
    expected = np.maximum(expected, 1e-3 * expected.mean())
    np.testing.assert_allclose(importance(network, layer, known), expected, rtol=1e-5)


# --- everywhere the same -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS.keys())
@pytest.mark.parametrize("model", ["mlp", "residual", "convolutions"])
def test_that_plain_networks_agree_bit_for_bit(tmp_path: Path, model: str, spec: LayerSpec) -> None:
    network = examples.opened(tmp_path, examples.MODELS[model]())
    config = QuantConfig(spec)
    data = examples.data_for(network)
    activations = statistics_of(network, data) | dict(examples.calibrated(network, config, data))
    activations |= {name: each for name, each in statistics_of(network, data).items() if each.squares}
    path = tmp_path / "quantized.onnx"
    examples.exported(network, config, activations, path)
    batch = next(data.batches())
    shown = examples.simulated(network, config, activations, batch)
    for name, values in shown.items():
        np.testing.assert_array_equal(examples.run_file(path, batch)[name], values)
    recorded = exported_squares(path)
    assert recorded.keys() == input_tensors(network, config).keys()
    for tensor, squares in recorded.items():
        for axis, values in squares.items():
            np.testing.assert_array_equal(values, activations[tensor].squares[axis])


def test_that_the_weights_shown_measured_and_written_have_one_grid(tmp_path: Path) -> None:
    network = examples.opened(tmp_path, builders.mlp_model())
    known = statistics_of(network, examples.data_for(network))
    layer = network.layers["fc1"]
    counts = importance(network, layer, known)
    expected = weight_qparams(network.weight(layer), AWARE4, layer.channel_axis, importance=counts).scale
    plain = weight_qparams(network.weight(layer), PLAIN4, layer.channel_axis).scale
    assert not np.array_equal(expected, plain)
    events = list(view_weight(network, "fc1", AWARE4, curve=True, activations=known))
    views = [event.view for event in events if isinstance(event, WeightViewReady)]
    np.testing.assert_array_equal(views[0].scales, expected)
    (error,) = [e for e in weight_errors(network, {"fc1": AWARE4}, known) if isinstance(e, WeightErrorReady)]
    assert error.error == views[0].error
    config = QuantConfig().with_overrides({"fc1": LayerSpec(AWARE4)})
    parameter = gather(network, config, known).parameter_of(layer)
    assert parameter is not None
    np.testing.assert_array_equal(np.ravel(parameter.scale), expected)
    assert views[-1].curve is not None
    picks = {type(pick.estimator): pick for pick in views[-1].curve.picks}
    assert picks[InputWeightedError].sqnr_db == pytest.approx(error.error.sqnr_db)
    assert picks[LeastSquaredError].sqnr_db >= picks[InputWeightedError].sqnr_db
    without = [e.view for e in view_weight(network, "fc1", PLAIN4, curve=True) if isinstance(e, WeightViewReady)]
    assert without[-1].curve is not None
    assert InputWeightedError not in {type(pick.estimator) for pick in without[-1].curve.picks}


def test_that_other_data_makes_other_keys_and_the_same_data_the_same(tmp_path: Path) -> None:
    network = examples.opened(tmp_path, examples.MODELS["convolutions"]())
    config = QuantConfig(SPECS["w8a8"])
    known = statistics_of(network, examples.data_for(network, 4))
    known |= dict(examples.calibrated(network, config, examples.data_for(network, 4)))
    known |= statistics_of(network, examples.data_for(network, 4))
    doubled = {
        name: replace(each, squares={axis: values[::-1].copy() for axis, values in each.squares.items()})
        for name, each in known.items()
    }

    def keys(activations: dict[str, ActivationReady]) -> dict[str, object]:
        return {name: each.key for name, each in build_simulation(network, config, activations).weights.items()}

    first, again, other = keys(known), keys(known), keys(doubled)
    assert first == again
    assert {"stem.w", "stem.b", "up.w", "up.b"} <= first.keys()
    assert all(first[name] != other[name] for name in first)
    batch = next(examples.data_for(network, 4).batches())
    executor = Executor(network)
    answers = [executor.run(batch, build_simulation(network, config, each))["y"] for each in (known, doubled, known)]
    np.testing.assert_array_equal(answers[0], answers[2])
    assert not np.array_equal(answers[0], answers[1])


def test_that_a_sweep_within_such_a_configuration_measures_it(tmp_path: Path) -> None:
    network = examples.opened(tmp_path, builders.mlp_model())
    data = examples.data_for(network, 16)
    config = QuantConfig(LayerSpec(AWARE4))
    known = statistics_of(network, data)
    for what in ("weights", "activations"):
        activations = known | dict(examples.calibrated(network, QuantConfig(LayerSpec(None, INT8)), data))
        activations |= known
        sweep = Sweep(specs=(LayerSpec(weight_spec(8), INT8),), what=what, base=config)
        events = measure_sensitivity(Executor(network), data, sweep, activations)
        *_, table = (event for event in events if isinstance(event, Sensitivity))
        batch = next(data.batches(16))
        floats = Executor(network).run(batch)["y"]
        shown = examples.simulated(network, config, activations, batch)["y"]
        assert table.reference.value == pytest.approx(sqnr_db(floats, shown), abs=0.05)
        assert table.complete


# --- without data ------------------------------------------------------------------------------------------------


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    onnx.save(builders.mlp_model(), tmp_path / "network.onnx")
    made = Bench(threads=1)
    answer(made, OpenNetwork(str(tmp_path / "network.onnx")))
    return made


def answer(bench: Bench, request: object) -> list:
    return list(bench.handle(request))


def last(bench: Bench, request: object, kind: type) -> object:
    return [event for event in answer(bench, request) if isinstance(event, kind)][-1]


CONFIG = QuantConfig(LayerSpec(AWARE4))


@pytest.mark.parametrize(
    "request_",
    [
        ViewWeight("fc0", AWARE4),
        WeightErrors({"fc0": AWARE4}),
        Export(CONFIG, "quantized.onnx"),
        WriteSettings(CONFIG, "settings.json", "aimet-1.0"),
        WriteReport(CONFIG, "report.html"),
    ],
    ids=lambda request: type(request).__name__,
)
def test_that_without_data_a_sentence_says_that_it_is_needed(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request_: object
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="data"):
        answer(bench, request_)
    assert not list(tmp_path.glob("quantized*"))


def test_that_layers_that_need_no_data_are_measured_before_the_sentence(bench: Bench) -> None:
    events: Iterator = bench.handle(WeightErrors({"fc0": AWARE4, "fc1": PLAIN4}))
    assert next(events).layer == "fc1"
    with pytest.raises(DataError, match="'fc0' is input-weighted, which needs data"):
        list(events)


def test_that_with_data_everything_is_answered_and_calibrated_by_itself(bench: Bench, tmp_path: Path) -> None:
    answer(bench, OpenData("random:16"))
    view = last(bench, ViewWeight("fc0", AWARE4), WeightViewReady).view
    error = last(bench, WeightErrors({"fc0": AWARE4, "fc1": PLAIN4}), WeightErrorReady)
    assert error.layer == "fc0"
    assert error.error == view.error
    assert last(bench, Evaluate(CONFIG), EvaluationReady).evaluation.output_sqnr_db > 5
    assert last(bench, WriteSettings(CONFIG, str(tmp_path / "a.json"), "aimet-1.0"), SettingsWritten)
    sweep = Sweep(specs=(LayerSpec(AWARE4), LayerSpec(weight_spec(8))))
    assert last(bench, MeasureSensitivity(sweep), Sensitivity).complete


@pytest.mark.parametrize("layers", [(), ("fc1",)], ids=["all layers", "one layer"])
def test_that_a_sweep_within_such_a_configuration_calibrates_what_it_needs(
    bench: Bench, layers: tuple[str, ...]
) -> None:
    answer(bench, OpenData("random:16"))
    sweep = Sweep(specs=(LayerSpec(weight_spec(8)), LayerSpec(weight_spec(4))), base=CONFIG, layers=layers)
    table = last(bench, MeasureSensitivity(sweep), Sensitivity)
    assert table.complete


def test_that_a_mix_with_such_a_layer_held_fast_calibrates_what_it_needs(bench: Bench) -> None:
    answer(bench, OpenData("random:16"))
    sweep = Sweep(specs=(LayerSpec(weight_spec(8)), LayerSpec(AWARE4)))
    assert last(bench, FindMix(Mix(sweep, pinned={"fc0": LayerSpec(AWARE4)})), MixReady).points


def test_that_ranges_follow_the_data_and_a_file_is_verified_with_those_it_was_made_with(
    bench: Bench, tmp_path: Path
) -> None:
    def data(seed: int) -> str:
        random = np.random.default_rng(seed)
        path = tmp_path / f"{seed}.npy"
        np.save(path, (random.standard_normal((32, 8)) * np.exp(2 * random.standard_normal(8))).astype(np.float32))
        return str(path)

    scales = []
    for seed in (1, 2):
        answer(bench, OpenData(data(seed)))
        scales.append(last(bench, ViewWeight("fc0", AWARE4), WeightViewReady).view.scales)
        if seed == 1:
            assert last(bench, Export(CONFIG, str(tmp_path / "quantized.onnx")), Exported)
    assert not np.array_equal(*scales)
    verified = last(bench, Verify(CONFIG, str(tmp_path / "quantized.onnx")), Verification)
    assert verified.output_sqnr_db > 100 or verified.notes
    plain = examples.run_file(tmp_path / "quantized.onnx", next(bench._data.dataset.batches()))
    floats = Executor(bench.network).run(next(bench._data.dataset.batches()))
    assert verified.simulated.output_sqnr_db == pytest.approx(sqnr_db(floats["y"], plain["y"]), abs=0.1)


def test_that_what_no_data_tells_is_refused(tmp_path: Path) -> None:
    network = examples.opened(tmp_path, builders.lstm_model())
    layer = next(each for each in network.summary.layers if each.op == "LSTM")
    with pytest.raises(SpecError, match=rf"multiplies the weight of '{layer.name}' \(LSTM\) is not seen"):
        importance(network, layer, {})
    with pytest.raises(SpecError, match="is for weights"):
        LayerSpec(None, replace(INT8, range_estimator=InputWeightedError()))
    tokens = examples.opened(tmp_path, examples.MODELS["tokens"]())
    embedding = next(each for each in tokens.summary.layers if each.op == "Gather")
    with pytest.raises(SpecError, match="choose another range estimator"):
        importance(tokens, embedding, {})


def test_that_a_layer_no_sample_reaches_and_inputs_that_are_not_finite_are_named(tmp_path: Path) -> None:
    network = examples.opened(tmp_path, builders.mlp_model())
    known = statistics_of(network, examples.data_for(network))
    layer = network.layers["fc0"]
    with pytest.raises(DataError, match="No sample of the data reaches 'fc0'"):
        importance(network, layer, {"x": replace(known["x"], squares={})})
    with pytest.raises(DataError, match="Inputs of 'fc0' are not finite"):
        importance(network, layer, {"x": replace(known["x"], squares={1: np.full(8, np.inf, np.float32)})})


def test_that_only_what_needs_it_is_calibrated(tmp_path: Path) -> None:
    network = examples.opened(tmp_path, builders.mlp_model())
    assert calibrated_tensors(network, QuantConfig(LayerSpec(PLAIN4))) == {}
    config = QuantConfig().with_overrides({"fc1": LayerSpec(AWARE4)})
    assert calibrated_tensors(network, config) == {"a0": ()}
    both = QuantConfig().with_overrides({"fc1": LayerSpec(AWARE4, INT8)})
    assert calibrated_tensors(network, both) == {"a0": (INT8,)}
