"""Scores and their uncertainty, against formulas written out, and through real executors."""

from __future__ import annotations

import math

import builders
import numpy as np
import onnx
import pytest
from onnx import helper

from quantgui.analysis.evaluation import Tally, evaluate
from quantgui.analysis.metric_function import load_metric
from quantgui.analysis.simulation import build_simulation
from quantgui.network.batch import Batch
from quantgui.network.datasets import open_dataset
from quantgui.network.executor import Executor
from quantgui.network.reader import open_network
from quantgui.results import EvaluationReady
from quantgui.spec.config import QuantConfig
from quantgui.spec.presets import weight_spec
from quantgui.spec.quantizer import LayerSpec

W4 = QuantConfig(LayerSpec(weight_spec(4)))


def opened(model, folder, **arrays):
    onnx.save(model, folder / "network.onnx")
    network = open_network(folder / "network.onnx")
    np.savez(folder / "data.npz", **arrays)
    return Executor(network), open_dataset(str(folder / "data.npz"), network.summary.inputs, network.summary)


def evaluations(executor, dataset, config, **options):
    events = evaluate(executor, dataset, config, {}, **options)
    return [event.evaluation for event in events if isinstance(event, EvaluationReady)]


def batch_of(samples, labels=None, first=0, carried=None):
    return Batch({}, labels, first, samples, str(first), samples, carried=carried or {})


def tally_of(reference, answer, labels=None, name="y", metric=None, batches=1):
    outputs = [builders.tensor_info(name, ["n", "c"])]
    model = builders.model_of(
        [helper.make_node("Identity", ["x"], [name])], [builders.tensor_info("x", ["n", "c"])], outputs, {}
    )
    samples = len(reference)
    tally = Tally(builders.network_of(model), samples, metric)
    for part in np.array_split(np.arange(samples), batches):
        some = None if labels is None else labels[part]
        tally.add(batch_of(len(part), some, int(part[0])), {name: reference[part]}, {name: answer[part]})
    return tally.evaluation(0.0)


def test_that_output_sqnr_is_energy_over_all_samples_with_its_jackknife_error():
    x = builders.values(40, 6, seed=1) * np.linspace(0.1, 3, 40, dtype=np.float32)[:, None]
    y = x + builders.values(40, 6, seed=2, scale=0.1)
    score = tally_of(x, y, batches=7).scores["output_sqnr_db"]
    signal, noise = (x.astype(float) ** 2).sum(1), ((y.astype(float) - x) ** 2).sum(1)
    assert score.value == pytest.approx(10 * math.log10(signal.sum() / noise.sum()), abs=1e-5)
    left_out = [10 * math.log10((signal.sum() - s) / (noise.sum() - n)) for s, n in zip(signal, noise, strict=True)]
    jackknife = math.sqrt(39 / 40 * ((np.array(left_out) - np.mean(left_out)) ** 2).sum())
    assert score.stderr == pytest.approx(jackknife, rel=0.1)
    assert score.samples == 40


def test_that_the_number_of_batches_changes_nothing():
    x, y = builders.values(12, 5, seed=1), builders.values(12, 5, seed=2)
    first, second = tally_of(x, y, batches=1), tally_of(x, y, batches=5)
    for key, score in first.scores.items():
        assert score.value == pytest.approx(second.scores[key].value)
        assert score.stderr == pytest.approx(second.scores[key].stderr)


def test_that_equal_outputs_are_perfect():
    x = builders.values(5, 3)
    evaluation = tally_of(x, x)
    assert evaluation.output_sqnr_db == math.inf
    assert evaluation.scores["cosine"].value == 1.0
    assert evaluation.metric == "output_sqnr_db"
    assert evaluation.complete
    assert evaluation.notes == ()


def test_that_an_exact_output_does_not_hide_a_bad_one():
    x = builders.values(6, 3)
    model = builders.model_of(
        [helper.make_node("Identity", ["x"], ["y"]), helper.make_node("Identity", ["x"], ["z"])],
        [builders.tensor_info("x", ["n", "c"])],
        [builders.tensor_info("y", ["n", "c"]), builders.tensor_info("z", ["n", "c"])],
        {},
    )
    tally = Tally(builders.network_of(model), 6)
    tally.add(batch_of(6), {"y": x, "z": x}, {"y": x, "z": x * 1.1})
    # Half of the noise per signal of the bad one: 3 dB better than it, however exact the other is.
    assert tally.evaluation(0.0).output_sqnr_db == pytest.approx(20 + 10 * math.log10(2), abs=0.01)


def test_that_agreement_accuracy_and_divergence_follow_their_formulas():
    p = np.array([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.3, 0.3, 0.4], [0.5, 0.25, 0.25]], np.float32)
    q = np.array([[0.6, 0.3, 0.1], [0.5, 0.4, 0.1], [0.3, 0.3, 0.4], [0.25, 0.5, 0.25]], np.float32)
    labels = np.array([0, 1, 0, 0])
    evaluation = tally_of(p, q, labels)
    assert evaluation.metric == "accuracy"
    assert evaluation.float_score.value == 0.75
    assert evaluation.quantized_score.value == 0.25
    assert evaluation.quantized_score.stderr == pytest.approx(math.sqrt(0.25 * 0.75 / 3))
    assert evaluation.scores["agreement"].value == 0.5
    assert evaluation.scores["kl"].value == pytest.approx((p * np.log(p / q)).sum(1).mean(), rel=1e-5)
    assert tally_of(p, q).metric == "agreement"
    assert tally_of(p, q).float_score.value == 1.0


def test_that_labels_of_frames_may_be_padded():
    logits = np.zeros((2, 3, 4), np.float32)
    logits[0, [0, 1, 2], [1, 2, 3]] = 1
    logits[1, [0, 1, 2], [0, 0, 0]] = 1
    labels = np.array([[1, 2, 0], [0, -1, -1]])
    evaluation = tally_of(logits, logits, labels)
    assert evaluation.metric == "accuracy"
    assert evaluation.float_score.value == pytest.approx((2 / 3 + 1) / 2)


@pytest.mark.parametrize("shape", [(4, 3), (4, 3, 1, 1), (4, 3, 2, 2)])
@pytest.mark.parametrize("kind", [np.int64, np.uint8, np.float32])
def test_that_classes_may_lie_on_the_second_axis_and_labels_may_be_whole_floats(shape, kind):
    logits = builders.values(*shape)
    labels = logits.argmax(1).squeeze()
    labels[0] = (labels[0] + 1) % 3
    evaluation = tally_of(logits, logits, labels.astype(kind))
    assert evaluation.metric == "accuracy"
    assert evaluation.float_score.value == 0.75
    assert evaluation.notes == ()


def test_that_decisions_of_the_network_are_held_against_labels():
    decisions, labels = np.array([[2], [0], [1], [1]]), np.array([2, 0, 1, 0])
    evaluation = tally_of(decisions, decisions, labels)
    assert (evaluation.metric, evaluation.float_score.value) == ("accuracy", 0.75)


@pytest.mark.parametrize("labels", [np.eye(3)[[0, 1, 2, 0]], np.array([0.5, 1.0, 2.0, 3.0]), np.array([0, 1, 2, 9])])
def test_that_labels_that_fit_no_output_are_said_to_be_unused(labels):
    evaluation = tally_of(builders.values(4, 3), builders.values(4, 3), labels)
    assert "accuracy" not in evaluation.scores
    assert any("labels are not used" in note for note in evaluation.notes)


def test_that_a_network_that_gives_no_numbers_agrees_with_itself():
    x = np.exp(builders.values(4, 3))
    x /= x.sum(1, keepdims=True)
    batches = np.concatenate([x, np.full_like(x, np.nan)])
    evaluation = tally_of(batches, batches, batches=2)
    assert evaluation.quantized_score.value == evaluation.float_score.value == 1.0


def test_that_a_binary_probability_agrees_on_the_same_side_of_one_half():
    p = np.array([[0.9], [0.6], [0.1], [0.4]], np.float32)
    q = np.array([[0.8], [0.4], [0.2], [0.45]], np.float32)
    evaluation = tally_of(p, q, name="speech_prob")
    assert evaluation.metric == "agreement"
    assert evaluation.quantized_score.value == 0.75
    assert tally_of(p, q, np.array([1, 1, 0, 1]), name="speech_prob").quantized_score.value == 0.5


def test_that_an_embedding_is_not_taken_for_classes():
    x = builders.values(4, 384)
    evaluation = tally_of(x, x * 1.01)
    assert evaluation.metric == "output_sqnr_db"
    assert set(evaluation.scores) == {"output_sqnr_db", "cosine"}


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_that_a_sample_that_is_not_finite_counts_as_lost_and_is_told(bad):
    x = np.ones((4, 8), np.float32)
    y = x.copy()
    y[1, 3] = bad
    evaluation = tally_of(x, y)
    assert evaluation.output_sqnr_db == pytest.approx(10 * math.log10(4))
    assert evaluation.scores["cosine"].value == pytest.approx(0.75)
    assert evaluation.notes == ("The quantized network gives values that are not finite in 'y' in 1 of 4 samples.",)


def test_that_places_where_the_float_network_is_not_finite_are_left_out_and_told():
    x = np.ones((4, 8), np.float32)
    x[:, 0] = -np.inf
    evaluation = tally_of(x, x)
    assert evaluation.output_sqnr_db == math.inf
    assert "The float network gives values that are not finite in 'y' in 4 of 4 samples." in evaluation.notes


def test_that_outputs_of_another_shape_count_as_lost():
    x = np.ones((4, 8), np.float32)
    evaluation = tally_of(x, np.ones((4, 7), np.float32))
    assert evaluation.output_sqnr_db == 0.0
    assert "another shape in 4 of 4 samples" in evaluation.notes[0]


def test_that_lost_samples_do_not_agree():
    p = np.tile(np.array([[0.7, 0.3]], np.float32), (4, 1))
    q = p.copy()
    q[0] = np.nan
    evaluation = tally_of(p, q, np.zeros(4, np.int64))
    assert evaluation.scores["agreement"].value == 0.75
    assert evaluation.scores["accuracy"].value == 0.75


def test_that_one_sample_has_no_standard_error():
    evaluation = tally_of(builders.values(1, 3), builders.values(1, 3, seed=1))
    assert math.isnan(evaluation.quantized_score.stderr)


def test_that_recurrent_state_is_no_output():
    x, state = builders.values(1, 3), builders.values(1, 3, seed=5)
    model = builders.model_of(
        [helper.make_node("Identity", ["x"], ["y"]), helper.make_node("Identity", ["h"], ["hn"])],
        [builders.tensor_info("x", ["n", "c"]), builders.tensor_info("h", ["n", "c"])],
        [builders.tensor_info("y", ["n", "c"]), builders.tensor_info("hn", ["n", "c"])],
        {},
    )
    tally = Tally(builders.network_of(model), 1)
    tally.add(batch_of(1, carried={"h": "hn"}), {"y": x, "hn": state}, {"y": x, "hn": -state})
    assert tally.evaluation(0.0).output_sqnr_db == math.inf


def test_that_every_batch_tells_what_is_known_and_the_last_is_complete(tmp_path):
    executor, dataset = opened(builders.mlp_model(), tmp_path, x=builders.values(10, 8))
    seen = evaluations(executor, dataset, W4, batch_size=4)
    assert [e.quantized_score.samples for e in seen] == [4, 8, 10]
    assert [e.complete for e in seen] == [False, False, True]
    assert all(e.total_samples == 10 for e in seen)
    (first,) = evaluations(executor, dataset, W4, batch_size=4, samples=4)
    assert first.complete
    assert first.output_sqnr_db == seen[0].output_sqnr_db


def test_that_more_bits_are_better(tmp_path):
    executor, dataset = opened(builders.mlp_model(), tmp_path, x=builders.values(16, 8))
    scores = [
        evaluations(executor, dataset, QuantConfig(LayerSpec(weight_spec(bits))))[-1].output_sqnr_db
        for bits in (3, 5, 8, 12)
    ]
    assert scores == sorted(scores)
    assert scores[2] > 30


def test_that_the_float_configuration_is_exact(tmp_path):
    executor, dataset = opened(builders.mlp_model(), tmp_path, x=builders.values(16, 8))
    evaluation = evaluations(executor, dataset, QuantConfig())[-1]
    assert evaluation.output_sqnr_db == math.inf


def test_that_each_network_carries_its_own_recurrent_state(tmp_path):
    executor, dataset = opened(builders.lstm_model(), tmp_path, x=builders.values(6, 1, 8))
    evaluation = evaluations(executor, dataset, W4)[-1]
    network = executor.network
    with_states = {}
    for label, config in (("float", QuantConfig()), ("quantized", W4)):
        simulation = build_simulation(network, config, {})
        answers = filter(None, executor.run_sequence(dataset.batches(), [simulation]))
        with_states[label] = [out["y"] for _, (out,) in answers]
    x, y = (np.concatenate(with_states[label]).astype(float) for label in ("float", "quantized"))
    assert evaluation.output_sqnr_db == pytest.approx(10 * math.log10((x**2).sum() / ((x - y) ** 2).sum()), abs=1e-4)


def test_that_the_users_metric_is_the_headline(tmp_path):
    (tmp_path / "mine.py").write_text(
        "def error(outputs, labels):\n    return abs(outputs - labels).mean(1)\nerror.higher_is_better = False\n"
    )
    metric = load_metric(f"{tmp_path / 'mine.py'}:error")
    x, y = builders.values(9, 3), builders.values(9, 3, seed=1)
    evaluation = tally_of(x, y, x, metric=metric, batches=2)
    assert evaluation.metric == "error"
    assert not evaluation.higher_is_better
    assert evaluation.float_score.value == 0.0
    scores = np.abs(y - x).mean(1)
    assert evaluation.quantized_score.value == pytest.approx(scores.mean(), rel=1e-5)
    assert evaluation.quantized_score.stderr == pytest.approx(scores.std(ddof=1) / 3, rel=1e-5)
    assert evaluation.scores["user"] == evaluation.quantized_score


def test_that_scores_that_are_no_numbers_are_told(tmp_path):
    (tmp_path / "mine.py").write_text("import numpy\ndef log(outputs, labels):\n    return numpy.log(outputs[:, 0])\n")
    x = np.array([[1.0, 1], [4, 1], [9, 1]], np.float32)
    y = np.array([[1.0, 1], [0, 1], [9, 1]], np.float32)
    with np.errstate(divide="ignore"):
        evaluation = tally_of(x, y, metric=load_metric(f"{tmp_path / 'mine.py'}:log"))
    assert evaluation.notes == ("The metric 'log' of the quantized network is not finite in 1 of 3 samples.",)


def test_that_one_score_per_batch_counts_as_many_samples_as_the_batch(tmp_path):
    (tmp_path / "mine.py").write_text("def mean(outputs, labels):\n    return outputs.mean()\n")
    metric = load_metric(f"{tmp_path / 'mine.py'}:mean")
    x = builders.values(7, 4)
    assert tally_of(x, x, metric=metric, batches=3).quantized_score.value == pytest.approx(x.mean(), rel=1e-5)
