"""Quantization-aware training on small networks whose best answer is known, and on the sample network."""

from __future__ import annotations

from dataclasses import replace

import builders
import numpy as np
import onnx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper

from quantgui.analysis.calibration import calibrate
from quantgui.analysis.evaluation import evaluate
from quantgui.analysis.qat.checkpoint import Checkpoint, History, LossCurve
from quantgui.analysis.qat.course import require_finite
from quantgui.analysis.qat.network import TrainableNetwork, range_of
from quantgui.analysis.qat.quality import split_samples
from quantgui.analysis.qat.training import train
from quantgui.analysis.simulation import activation_tensors, build_simulation
from quantgui.errors import DataError, NetworkError, SpecError
from quantgui.network.datasets import open_dataset
from quantgui.network.differentiable import DifferentiableNetwork
from quantgui.network.executor import Executor
from quantgui.network.reader import open_network
from quantgui.numerics.scales import choose_grid
from quantgui.paths import sample_models
from quantgui.results import EvaluationReady, TrainingReady
from quantgui.spec.config import QuantConfig
from quantgui.spec.formats import IntFormat, TableFormat
from quantgui.spec.granularity import PerTensor
from quantgui.spec.presets import activation_spec, usual_weight_spec, weight_spec
from quantgui.spec.quantizer import BLOCK_FORMATS, FixedRange, LayerSpec, MinMax, QuantizerSpec
from quantgui.spec.serialization import config_from_json, config_to_json
from quantgui.spec.trained_files import trained_states
from quantgui.spec.training import Training

W2A8 = QuantConfig(LayerSpec(weight_spec(2, range_estimator=MinMax()), activation_spec(8)))
DIGITS = sample_models() / "digits"


class Material:
    """A network with data, ready to be trained."""

    def __init__(self, network, source, calibration=None):
        self.network = network
        self.executor = Executor(network)
        self.dataset = self.open(source)
        self.training_data = self.dataset if calibration is None else self.open(calibration)
        self.activations = {}

    def open(self, source):
        return open_dataset(str(source), self.network.summary.inputs, self.network.summary)

    def events(self, config, training, folder, executor=None):
        tensors = activation_tensors(self.network, config)
        if missing := [name for name in tensors if name not in self.activations]:
            *_, last = calibrate(self.executor, self.training_data, missing)
            self.activations |= last.activations
        return train(
            executor or self.executor, self.dataset, self.training_data, config, self.activations, training,
            folder=folder,
        )  # fmt: skip

    def trained(self, config, training, folder, executor=None):
        *_, last = self.events(config, training, folder, executor)
        assert isinstance(last, TrainingReady)
        assert last.complete
        return last


def opened(model, folder):
    onnx.save(model, folder / "network.onnx")
    return open_network(folder / "network.onnx")


def ternary(folder, *, labels=None, count=200):
    """Return a layer whose weights are 0.5 times -1, 0 or 1, with data."""
    weight = np.random.default_rng(0).integers(-1, 2, (6, 16)).astype(np.float32) * 0.5
    model = builders.model_of(
        [helper.make_node("Gemm", ["x", "w", "b"], ["embedding"], name="layer", transB=1)],
        [builders.tensor_info("x", ["n", 16])],
        [builders.tensor_info("embedding", ["n", 6])],
        {"w": weight, "b": builders.values(6, seed=1)},
    )
    network = opened(model, folder)
    arrays = {"x": builders.values(count, 16, seed=2)} | ({} if labels is None else {"labels": labels})
    np.savez(folder / "data.npz", **arrays)
    return Material(network, folder / "data.npz")


def inverted_residuals(folder, *, blocks=8, width=24, count=64):
    """Return a classifier of depthwise convolutions, its channels as different as folded BatchNorm leaves them."""
    rng = np.random.default_rng(0)
    nodes, constants = [], {}

    def convolution(name, x, inputs, outputs, kernel, groups, sizes, *, relu=True):
        spread = np.sqrt(2 / (inputs // groups * kernel**2))
        weight = rng.standard_normal((outputs, inputs // groups, kernel, kernel)) * spread
        constants[f"{name}.w"] = (weight * sizes[:, None, None, None]).astype(np.float32)
        constants[f"{name}.b"] = (0.1 * rng.standard_normal(outputs) * sizes).astype(np.float32)
        names, pads = [x, f"{name}.w", f"{name}.b"], [kernel // 2] * 4
        nodes.append(helper.make_node("Conv", names, [f"{name}.y"], name=name, group=groups, pads=pads))
        if relu:
            nodes.append(helper.make_node("Relu", [f"{name}.y"], [f"{name}.relu"]))
        return nodes[-1].output[0]

    x, inner = convolution("stem", "x", 3, width, 3, 1, np.ones(width)), 4 * width
    for i in range(blocks):
        first, second = (10 ** rng.uniform(-0.3, 0.3, inner) for _ in range(2))
        y = convolution(f"{i}.expand", x, width, inner, 1, 1, first)
        y = convolution(f"{i}.depthwise", y, inner, inner, 3, inner, second / first)
        y = convolution(f"{i}.project", y, inner, width, 1, 1, np.full(width, 0.5), relu=False)
        nodes.append(helper.make_node("Add", [x, y], [f"{i}.sum"]))
        x = f"{i}.sum"
    nodes += [helper.make_node("GlobalAveragePool", [x], ["pooled"]), helper.make_node("Flatten", ["pooled"], ["flat"])]
    data = (rng.standard_normal((count, 3, 1, 1)) + rng.standard_normal((count, 3, 6, 6))).astype(np.float32)
    declared = [builders.tensor_info("x", ["n", 3, 6, 6])], [builders.tensor_info("flat", ["n", width])]
    features = DifferentiableNetwork(opened(builders.model_of(nodes, *declared, constants), folder))
    flat = features.run({"x": data})["flat"].numpy()
    weight = rng.standard_normal((10, width)) * 3 / flat.std(0) / np.sqrt(width)
    constants["fc.w"], constants["fc.b"] = (each.astype(np.float32) for each in (weight, -weight @ flat.mean(0)))
    nodes.append(helper.make_node("Gemm", ["flat", "fc.w", "fc.b"], ["logits"], name="fc", transB=1))
    model = builders.model_of(nodes, declared[0], [builders.tensor_info("logits", ["n", 10])], constants)
    np.savez(folder / "data.npz", x=data)
    return Material(opened(model, folder), folder / "data.npz")


@pytest.fixture
def digits(tmp_path):
    network = open_network(DIGITS / "digits.onnx")
    for name in ("evaluation", "calibration"):
        with np.load(DIGITS / f"digits.{name}.npz") as file:
            np.savez(tmp_path / f"{name}.npz", **{array: file[array][:128] for array in file.files})
    return Material(network, tmp_path / "evaluation.npz", tmp_path / "calibration.npz")


def narrow(low, high):
    fmt = IntFormat(2, narrow_range=True)
    return QuantConfig(LayerSpec(QuantizerSpec(fmt, range_estimator=FixedRange(low, high))))


def test_that_scales_are_found_at_which_the_weights_are_exact(tmp_path):
    material = ternary(tmp_path)
    training = Training(steps=400, batch_size=8, learning_rate=1e-2, patience=0)
    found = material.trained(narrow(-0.4, 0.4), training, tmp_path / "checkpoints")
    (state,) = trained_states(found.trained)
    layer = material.network.trained(state).layers["layer"]
    np.testing.assert_allclose(layer.qparams.scale, 0.5, rtol=0.05)
    assert found.before.output_sqnr_db < 15
    assert found.evaluations[-1][1].output_sqnr_db > found.before.output_sqnr_db + 10
    assert found.losses[-1] < 0.1 * found.losses[0]


def test_that_fixed_scales_stay_as_the_range_estimators_found_them(tmp_path):
    material = ternary(tmp_path)
    training = Training(steps=40, batch_size=32, learning_rate=1e-2, learn_scales=False, patience=0)
    found = material.trained(narrow(-0.4, 0.4), training, tmp_path / "checkpoints")
    (state,) = trained_states(found.trained)
    layer = material.network.trained(state).layers["layer"]
    assert (layer.qparams.scale == np.float32(0.4)).all()
    assert (layer.weight != material.network.constants["w"]).any()
    assert (layer.biases["b"] != material.network.constants["b"]).any()


def test_that_labels_can_teach_what_the_float_network_does_not_know(tmp_path):
    # The float network multiplies by 0.5; the labels by 1.
    x = builders.values(200, 16, seed=2)
    weight = np.random.default_rng(0).integers(-1, 2, (6, 16)).astype(np.float32)
    material = ternary(tmp_path, labels=x @ weight.T + builders.values(6, seed=1))
    training = Training(steps=150, batch_size=16, learning_rate=1e-2, teacher="labels", patience=0)
    before = dict(material.network.constants)
    found = material.trained(narrow(-0.85, 0.85), training, tmp_path / "checkpoints")
    assert found.losses[-1] < 0.3 * found.losses[0]
    assert all((material.network.constants[name] == values).all() for name, values in before.items())


def test_that_what_is_told_is_what_the_configuration_gives(digits, tmp_path):
    training = Training(steps=10, batch_size=16, learning_rate=2e-2, patience=0)
    found = digits.trained(W2A8, training, tmp_path)
    start = evaluate(digits.executor, digits.dataset, W2A8, digits.activations)
    *_, before = (event.evaluation for event in start if isinstance(event, EvaluationReady))
    fresh = Executor(open_network(DIGITS / "digits.onnx"))
    config = config_from_json(config_to_json(found.trained))
    *_, after = (
        event.evaluation
        for event in evaluate(fresh, digits.dataset, config, digits.activations)
        if isinstance(event, EvaluationReady)
    )
    for told, measured in ((found.before, before), (found.after, after)):
        assert told.quantized_score == measured.quantized_score
        assert told.output_sqnr_db == pytest.approx(measured.output_sqnr_db, abs=1e-4)
    assert found.after.quantized_score.value > found.before.quantized_score.value + 0.1
    assert found.layers == tuple(layer.name for layer in digits.network.summary.layers)
    assert [step for step, _ in found.evaluations][-1] == found.steps == 10


@pytest.mark.parametrize("stop_after", [7, 24])
def test_that_a_training_stopped_anywhere_goes_on_to_the_same_end(digits, tmp_path, stop_after):
    training = Training(steps=6, batch_size=12, learning_rate=1e-2)
    undisturbed = digits.trained(W2A8, training, tmp_path / "undisturbed")
    events = digits.events(W2A8, training, tmp_path / "stopped")
    for _ in range(stop_after + 1):
        next(events)
    events.close()
    again = digits.trained(W2A8, training, tmp_path / "stopped")
    assert (again.losses == undisturbed.losses).all()
    assert (again.best, again.trained) == (undisturbed.best, undisturbed.trained)
    assert [each.quantized_score for _, each in again.evaluations] == [
        each.quantized_score for _, each in undisturbed.evaluations
    ]
    assert again.resumed > 0 or stop_after < 24


def test_that_a_finished_training_is_answered_at_once(digits, tmp_path):
    training = Training(steps=4, batch_size=16, learning_rate=1e-2)
    first = digits.trained(W2A8, training, tmp_path)
    again = digits.trained(W2A8, training, tmp_path)
    assert again.resumed == first.steps == again.steps
    assert again.trained == first.trained
    assert (again.losses == first.losses).all()


def test_that_training_goes_on_from_trained_weights(digits, tmp_path):
    first = digits.trained(W2A8, Training(steps=6, batch_size=16, learning_rate=2e-2), tmp_path)
    again = digits.trained(first.trained, Training(steps=1, batch_size=8, learning_rate=1e-5), tmp_path)
    assert again.before.quantized_score == first.after.quantized_score
    values = TrainableNetwork(digits.network, first.trained, digits.activations).values()
    (state,) = trained_states(first.trained)
    for name, layer in digits.network.trained(state).layers.items():
        # Where the smallest step would round a weight otherwise, it begins at its level like all others.
        scale = layer.qparams.scale.reshape(-1, *[1] * (layer.weight.ndim - 1))
        levels = values[f"weight:{name}"] / scale
        np.testing.assert_allclose(levels, np.rint(levels), atol=1e-5)
        fmt = layer.spec.format
        np.testing.assert_array_equal(np.rint(levels), np.rint(layer.weight / scale).clip(fmt.quant_min, fmt.quant_max))
        assert (values[f"scale:{name}"] == layer.qparams.scale).all()


def test_that_a_deep_network_of_depthwise_convolutions_gets_better_and_never_much_worse(tmp_path):
    # At the usual rate, plain steps foretell many times the loss there is to lose: at 8 bits 25 dB became 10.
    material = inverted_residuals(tmp_path)
    training = Training(steps=24, batch_size=8, patience=0)
    w8a8, w4a8 = (QuantConfig(LayerSpec(weight_spec(bits), activation_spec(8))) for bits in (8, 4))
    found = material.trained(w8a8, training, tmp_path / "8 bits")
    assert found.before.output_sqnr_db > 20
    assert min(each.output_sqnr_db for _, each in found.evaluations) > found.before.output_sqnr_db - 6
    found = material.trained(w4a8, training, tmp_path / "4 bits")
    assert found.evaluations[-1][1].output_sqnr_db > found.before.output_sqnr_db + 3


def test_that_training_stops_when_nothing_gets_better(tmp_path):
    material = ternary(tmp_path)
    exact = QuantConfig(LayerSpec(QuantizerSpec(IntFormat(2), range_estimator=FixedRange(-0.5, 0.5))))
    found = material.trained(exact, Training(steps=200, batch_size=32, patience=2), tmp_path / "checkpoints")
    # The rate is still high in the first half: what comes then tells nothing.
    assert 100 < found.steps < 200
    assert found.best is None
    assert found.trained is None
    assert not list((tmp_path / "xdg_state_home" / "quantgui" / "trained").iterdir())


# --- samples -----------------------------------------------------------------------------------------------------


def test_that_one_data_set_is_split_and_the_held_out_samples_are_not_trained_on(tmp_path):
    material = ternary(tmp_path, count=1000)
    split = split_samples(material.dataset, material.dataset)
    judging = {first + i for first in split.judging for i in range(material.dataset.batch_size)}
    assert judging.isdisjoint(split.trained.tolist())
    assert len(split.trained) + len(judging & set(range(1000))) == 1000
    assert "1000" in split.notes[0]
    few = ternary(tmp_path, count=40)
    whole = split_samples(few.dataset, few.dataset)
    assert (len(whole.trained), whole.judging) == (40, None)
    assert "too few" in whole.notes[0]


# --- the forward pass and ranges ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("weights", "activations"),
    [
        (weight_spec(4), activation_spec(8)),
        (replace(weight_spec(4), symmetric=False), activation_spec(6)),
        (weight_spec(3), None),
        (usual_weight_spec(TableFormat("binary")), activation_spec(8)),
        (BLOCK_FORMATS["nvfp4"], None),
    ],
)
def test_that_training_begins_at_what_is_simulated(digits, weights, activations):
    config = QuantConfig(LayerSpec(weights, activations))
    *_, last = calibrate(digits.executor, digits.training_data, activation_tensors(digits.network))
    trainable = TrainableNetwork(digits.network, config, last.activations)
    batch = next(digits.dataset.batches(64))
    expected = digits.executor.run(batch, build_simulation(digits.network, config, last.activations))
    with torch.no_grad():
        found = trainable.run(DifferentiableNetwork(digits.network), batch.inputs)
    for name, values in expected.items():
        # Sums of float32 in another order put a few activations on the other side of a border.
        close = np.abs(found[name].numpy() - values).max(1) <= 1e-4 * np.abs(values).max()
        assert close.mean() > 0.9


@given(
    st.floats(2.0**-100, 2.0**100, width=32),
    st.sampled_from([IntFormat(b, s, n) for b in (2, 3, 4, 8, 16) for s in (True, False) for n in (True, False)]),
    st.booleans(),
    st.booleans(),
    st.floats(0, 1),
)
def test_that_a_learned_grid_comes_back_from_its_range(scale, fmt, symmetric, full_range, place):
    spec = QuantizerSpec(fmt, symmetric, PerTensor(), full_range=full_range and symmetric)
    zero_point = round(fmt.quant_min + place * (fmt.quant_max - fmt.quant_min))
    if symmetric:
        zero_point = 0 if fmt.signed else 1 << (fmt.bits - 1)
    low, high = range_of(scale, zero_point, spec, fmt)
    again = replace(spec, range_estimator=FixedRange(low, high))
    qparams = choose_grid(np.array([low]), np.array([high]), again, fmt)
    assert (float(qparams.scale[0]), int(qparams.zero_point[0])) == (scale, zero_point)


# --- mistakes ----------------------------------------------------------------------------------------------------


def test_that_what_cannot_be_trained_is_refused_in_a_sentence(tmp_path):
    material = ternary(tmp_path)
    one = Training(steps=1)
    with pytest.raises(SpecError, match="no weights to a format with a scale"):
        material.trained(QuantConfig(), one, tmp_path)
    with pytest.raises(DataError, match="no labels to train with"):
        material.trained(narrow(-0.5, 0.5), replace(one, teacher="labels"), tmp_path)
    with pytest.raises(NetworkError, match="step 5; choose a smaller learning rate"):
        require_finite(float("nan"), 4)


@pytest.fixture
def with_det(tmp_path):
    """Return a network with an operator in its middle that torch does not run, with data."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"], name="first"),
        helper.make_node("Relu", ["h"], ["r"], name="relu"),
        helper.make_node("Det", ["r"], ["d"], name="det"),
        helper.make_node("Unsqueeze", ["d", "axis"], ["u"], name="column"),
        helper.make_node("MatMul", ["u", "w2"], ["y"], name="second"),
    ]
    constants = {"w": builders.values(4, 4), "w2": builders.values(1, 8), "axis": np.array([1])}
    inputs, outputs = [builders.tensor_info("x", ["n", 4, 4])], [builders.tensor_info("y", ["n", 8])]
    network = opened(builders.model_of(nodes, inputs, outputs, constants), tmp_path)
    np.savez(tmp_path / "data.npz", x=builders.values(64, 4, 4))
    return Material(network, tmp_path / "data.npz")


def test_that_an_operator_without_gradient_is_named_and_pieces_are_offered(with_det, tmp_path):
    with pytest.raises(NetworkError, match=r"Det .*piece by piece") as refused:
        with_det.trained(narrow(-0.5, 0.5), Training(steps=1), tmp_path)
    assert refused.value.option == "--scope blocks"


def test_that_pieces_around_it_are_trained_and_go_on_after_a_stop(with_det, tmp_path):
    training = Training(steps=20, batch_size=8, learning_rate=1e-2, scope="blocks")
    undisturbed = with_det.trained(narrow(-0.5, 0.5), training, tmp_path / "undisturbed")
    assert undisturbed.layers == ("first", "second")
    assert any("Det" in note for note in undisturbed.notes)
    assert undisturbed.steps == 20
    # Each piece learns its own half of the steps.
    assert undisturbed.losses[9] < undisturbed.losses[0]
    for stop_after in (30, 70):
        events = with_det.events(narrow(-0.5, 0.5), training, tmp_path / str(stop_after))
        for _ in range(stop_after):
            next(events)
        events.close()
        again = with_det.trained(narrow(-0.5, 0.5), training, tmp_path / str(stop_after))
        assert again.resumed > 0
        assert (again.losses == undisturbed.losses).all()
        assert again.trained == undisturbed.trained


def test_that_pieces_give_the_float_networks_outputs_back(digits, tmp_path):
    training = Training(steps=12, batch_size=8, learning_rate=2e-2, scope="blocks")
    found = digits.trained(W2A8, training, tmp_path)
    assert found.evaluations[-1][1].output_sqnr_db > found.before.output_sqnr_db + 1
    with pytest.raises(DataError, match="labels teach the whole network only"):
        digits.trained(W2A8, replace(training, teacher="labels"), tmp_path)


# --- what is kept ------------------------------------------------------------------------------------------------


def test_that_a_loss_curve_never_grows_too_long_and_keeps_its_mean():
    curve = LossCurve()
    for step in range(1, 10_001):
        curve.add(step, float(step))
    steps, losses = curve.arrays()
    assert len(steps) == len(losses) < 2000
    assert steps[0] >= 1
    assert steps[-1] <= 10_000
    assert (np.diff(steps) == curve.width).all()
    np.testing.assert_allclose(losses, steps - (curve.width - 1) / 2)


def test_that_damaged_checkpoints_are_nothing_and_the_oldest_go_first(tmp_path):
    checkpoint = Checkpoint(tmp_path, "a" * 32)
    assert checkpoint.load() is None
    checkpoint.save(History(step=3), {"x": np.arange(4.0)})
    history, arrays = checkpoint.load()
    assert history.step == 3
    assert (arrays["x"] == np.arange(4.0)).all()
    whole = checkpoint.path.read_bytes()
    for damaged in (b"", b"PK", whole[: len(whole) // 2], b"\0" * 100):
        checkpoint.path.write_bytes(damaged)
        assert checkpoint.load() is None
    checkpoint.save(History(), {})
    Checkpoint(tmp_path, "b" * 32, most_bytes=10).save(History(), {"x": np.zeros(100)})
    assert [path.name for path in tmp_path.iterdir()] == [f"{'b' * 32}.npz"]
