"""Sweeps of tiny networks, against networks that are changed and run by hand."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import builders
import numpy as np
import onnx
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from quantgui.analysis.calibration import calibrate
from quantgui.analysis.evaluation import evaluate
from quantgui.analysis.metric_function import load_metric
from quantgui.analysis.ranking import is_certain, rank_errors, ranked, spearman
from quantgui.analysis.scores import Estimate, SampleRows, difference_error, joined
from quantgui.analysis.sensitivity import FIRST_SAMPLES, measure_sensitivity
from quantgui.analysis.simulation import activation_tensors
from quantgui.analysis.sweep_store import SweepStore, open_sweep, question_key
from quantgui.errors import MetricError, NetworkError, SpecError
from quantgui.network import segments
from quantgui.network.datasets import open_dataset
from quantgui.network.executor import Executor
from quantgui.network.reader import open_network
from quantgui.results import Calibrated, EvaluationReady, Progress, Sensitivity, SensitivityReady
from quantgui.spec.config import QuantConfig
from quantgui.spec.presets import activation_spec, weight_spec
from quantgui.spec.quantizer import LayerSpec
from quantgui.spec.sweep import Sweep, bits_specs

BITS = bits_specs((3, 5, 8))
MODELS = {
    "mlp": builders.mlp_model((8, 32, 32, 5)),
    "residual": builders.residual_model(),
    "lstm": builders.lstm_model(),
    "if": builders.if_model(),
}


@pytest.fixture(autouse=True)
def _cut_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments, "SECONDS_PER_SEGMENT", 1e-9)
    monkeypatch.setattr(segments, "WEIGHTED_NODES_PER_SEGMENT", 1)


class Opened:
    """A network with data, and an executor of its own for each sweep."""

    def __init__(self, model: onnx.ModelProto, folder: Path, samples: int = 24) -> None:
        onnx.save(model, folder / "network.onnx")
        self.network = open_network(folder / "network.onnx")
        summary = self.network.summary
        self.data = open_dataset(f"random:{samples}", summary.inputs, summary, network=self.network)
        self.data = _in_batches_of(self.data, 4)
        self.executor = Executor(self.network)
        *_, last = calibrate(self.executor, self.data, activation_tensors(self.network))
        assert isinstance(last, Calibrated)
        self.activations = last.activations

    def events(self, sweep, metric=None, store=None, executor=None):
        return measure_sensitivity(executor or self.executor, self.data, sweep, self.activations, metric, store)

    def table(self, sweep, metric=None, store=None, executor=None) -> Sensitivity:
        *_, last = self.events(sweep, metric, store, executor)
        assert isinstance(last, Sensitivity)
        assert last.complete
        return last

    def evaluation(self, config):
        *_, last = [
            e
            for e in evaluate(Executor(self.network), self.data, config, self.activations)
            if isinstance(e, EvaluationReady)
        ]
        return last.evaluation


def _in_batches_of(data, size):
    """Let a dataset give small batches unless it is told otherwise."""

    class Small:
        summary, carried = data.summary, data.carried

        def batches(self, batch_size=None, samples=None):
            return data.batches(batch_size or size, samples)

    return Small()


def values(table: Sensitivity) -> dict[tuple[str, str], tuple[float, float, int]]:
    return {(c.layer, c.format): (c.value, c.stderr, c.samples) for c in table.candidates}


@pytest.mark.parametrize("name", list(MODELS))
def test_that_a_candidate_is_worth_what_its_configuration_evaluates_to(name: str, tmp_path: Path) -> None:
    opened = Opened(MODELS[name], tmp_path)
    sweep = Sweep(BITS, exact=True)
    table = opened.table(sweep)
    assert len(table.candidates) == 3 * len(opened.network.summary.layers)
    for candidate in table.candidates:
        config = QuantConfig().with_overrides({candidate.layer: LayerSpec(candidate.spec.weights)})
        expected = opened.evaluation(config).scores["output_sqnr_db"]
        assert candidate.samples == table.total_samples == 24
        assert candidate.value == pytest.approx(expected.value, abs=0.01)
        assert candidate.stderr == pytest.approx(expected.stderr, rel=0.01)


@pytest.mark.parametrize("what", ["weights", "activations", "both"])
def test_that_one_layer_is_changed_within_the_present_configuration(what: str, tmp_path: Path) -> None:
    opened = Opened(MODELS["residual"], tmp_path)
    present = QuantConfig(LayerSpec(weight_spec(6), activation_spec(8)))
    sweep = Sweep(bits_specs((4,)), what, present, exact=True)
    table = opened.table(sweep)
    assert table.reference.value == pytest.approx(opened.evaluation(present).output_sqnr_db, abs=1e-3)
    for candidate in table.candidates:
        weights = weight_spec(6 if what == "activations" else 4)
        inputs = activation_spec(8 if what == "weights" else 4)
        assert candidate.spec == LayerSpec(weights, inputs)
        config = present.with_overrides({candidate.layer: candidate.spec})
        # A last-bit difference before a quantizer moves a code by one here and there.
        assert candidate.value == pytest.approx(opened.evaluation(config).output_sqnr_db, abs=0.3)


@pytest.mark.parametrize("operators", [("Sub",), ("Sub", "Log")])
def test_that_outputs_that_never_change_are_told(operators: tuple[str, ...], tmp_path: Path) -> None:
    model = builders.mlp_model((8, 16, 5))
    output = model.graph.output[0].name
    for operator in operators:  # y - y = 0, and the logarithm of 0 is not finite
        inputs = [output, output] if operator == "Sub" else [output]
        model.graph.node.append(onnx.helper.make_node(operator, inputs, [f"{output}_"], name=f"end {operator}"))
        output += "_"
    model.graph.output[0].name = output
    table = Opened(model, tmp_path).table(Sweep(BITS))
    assert any("No candidate changes the outputs" in note for note in table.notes)
    (tmp_path / "usual").mkdir()
    usual = Opened(builders.mlp_model((8, 16, 5)), tmp_path / "usual").table(Sweep(BITS))
    assert not any("No candidate" in note for note in usual.notes)


@pytest.mark.parametrize("metric", ["kl", "cosine", "agreement"])
def test_that_any_metric_can_be_swept(metric: str, tmp_path: Path) -> None:
    model = onnx.ModelProto()
    model.CopyFrom(MODELS["mlp"])
    model.graph.node.append(onnx.helper.make_node("Softmax", ["y"], ["p"], name="softmax"))
    model.graph.output[0].name = "p"
    opened = Opened(model, tmp_path)
    table = opened.table(Sweep(BITS, metric=metric, exact=True))
    assert table.higher_is_better == (metric != "kl")
    for candidate in table.candidates:
        expected = opened.evaluation(QuantConfig().with_overrides({candidate.layer: candidate.spec})).scores[metric]
        assert (candidate.value, candidate.stderr) == pytest.approx(
            (expected.value, expected.stderr), rel=1e-3, abs=1e-5
        )


def test_that_the_users_metric_can_be_swept_and_one_without_meaning_is_refused(tmp_path: Path) -> None:
    opened = Opened(MODELS["mlp"], tmp_path)
    (tmp_path / "m.py").write_text("def first(outputs, labels):\n    return outputs[:, 0]\n")
    metric = load_metric(f"{tmp_path}/m.py:first")
    table = opened.table(Sweep(BITS, metric="user"), metric)
    assert table.metric == "first"
    y = np.concatenate([opened.executor.run(batch)["y"] for batch in opened.data.batches()])
    assert table.reference.value == pytest.approx(y[: table.reference.samples, 0].mean(), rel=1e-4)
    with pytest.raises(MetricError, match="accuracy"):
        opened.table(Sweep(BITS, metric="accuracy"))
    with pytest.raises(MetricError, match="none is loaded"):
        opened.table(Sweep(BITS, metric="user"))
    with pytest.raises(SpecError, match="no metric 'nonsense'"):
        Sweep(BITS, metric="nonsense")
    with pytest.raises(NetworkError, match="no layer 'nowhere'"):
        opened.table(Sweep(BITS, layers=("nowhere",)))


def test_that_a_ranking_comes_before_anything_runs_and_gets_better(tmp_path: Path) -> None:
    opened = Opened(MODELS["mlp"], tmp_path)
    executor = Executor(opened.network)
    tables = [e for e in opened.events(Sweep(BITS, exact=True), executor=executor) if isinstance(e, Sensitivity)]
    samples = [{c.format: c.samples for c in table.candidates} for table in tables]
    first = {"int3": 0, "int5": FIRST_SAMPLES, "int8": 0}
    guessed, every = (dict.fromkeys(first, count) for count in (0, 24))
    assert samples == [guessed, first, first, first, every]
    assert [table.complete for table in tables] == [False, False, False, False, True]
    first, measured, weighed, *_, last = tables
    # The finest format needs no search of ranges, the middle one is measured before those of all others are found.
    assert {label: len(order) for label, order in first.orders.items()} == {"int3": 0, "int5": 0, "int8": 3}
    assert {label: len(order) for label, order in measured.orders.items()} == {"int3": 0, "int5": 3, "int8": 3}
    assert {label: len(order) for label, order in weighed.orders.items()} == {"int3": 3, "int5": 3, "int8": 3}
    assert not any(place.certain for order in first.orders.values() for place in order)
    for table, known in ((first, {"int8"}), (measured, {"int8", "int5"}), (weighed, {"int8", "int5", "int3"})):
        assert {c.format for c in table.candidates if math.isfinite(c.weight_sqnr_db)} == known
    for label, order in last.orders.items():
        column = {c.layer: c.value for c in last.candidates if c.format == label}
        assert [place.layer for place in order] == sorted(column, key=lambda layer: column[layer])


def test_that_values_from_few_samples_are_those_of_all_samples_as_far_as_others_tell(tmp_path: Path) -> None:
    opened = Opened(MODELS["mlp"], tmp_path, samples=160)
    batches = list(opened.data.batches())

    class Louder:  # the samples behind the first ones are another kind
        summary, carried = opened.data.summary, opened.data.carried

        def batches(self, batch_size=None, samples=None):
            for batch in batches:
                factor = np.float32(1 if batch.first < FIRST_SAMPLES else 50)
                yield replace(batch, inputs={"x": batch.inputs["x"] * factor}, key=f"louder {batch.first}")

    opened.data = Louder()
    specs = bits_specs((2, 3))
    few, every = opened.table(Sweep(specs)), opened.table(Sweep(specs, exact=True))
    assert len({c.samples for c in few.candidates}) > 1
    for a, b in zip(few.candidates, every.candidates, strict=True):
        assert a.value == pytest.approx(b.value, abs=6)


def test_that_more_samples_go_only_where_the_order_needs_them(tmp_path: Path) -> None:
    opened = Opened(MODELS["residual"], tmp_path, samples=64)
    table = opened.table(Sweep(BITS))
    samples = [c.samples for c in table.candidates]
    assert min(samples) >= FIRST_SAMPLES
    assert sum(samples) < 64 * len(samples)
    exact = opened.table(Sweep(BITS, exact=True))
    for label in table.orders:
        rough, fine = ({c.layer: c.value for c in t.candidates if c.format == label} for t in (table, exact))
        assert spearman(np.array(list(rough.values())), np.array(list(fine.values()))) > 0.8


@pytest.mark.parametrize("name", ["residual", "lstm"])
@pytest.mark.parametrize("stop", [1, 9, 20])
def test_that_a_stopped_sweep_goes_on_and_ends_with_the_same_table(name: str, stop: int, tmp_path: Path) -> None:
    opened = Opened(MODELS[name], tmp_path)
    sweep = Sweep(BITS, exact=True)
    undisturbed = opened.table(sweep, executor=Executor(opened.network))
    path = tmp_path / "sweeps" / "one.jsonl"
    with SweepStore(path) as store:
        ready = 0
        for event in opened.events(sweep, store=store, executor=Executor(opened.network)):
            ready += isinstance(event, SensitivityReady)
            if ready > len(BITS) and len(path.read_bytes().splitlines()) > stop:
                break
    done = len(path.read_bytes().splitlines())
    with path.open("ab") as file:
        file.write(b'{"layer": "half a li')  # what a crash leaves
    with SweepStore(path) as store:
        resumed = opened.table(sweep, store=store, executor=Executor(opened.network))
    assert values(resumed) == values(undisturbed)
    assert resumed.reference == undisturbed.reference
    assert resumed.resumed > 0 or name == "lstm"
    assert len(path.read_bytes().splitlines()) > done
    assert all(json.loads(line) for line in path.read_text().splitlines())


def test_that_what_an_earlier_sweep_found_does_not_count_as_pace(tmp_path: Path) -> None:
    opened = Opened(MODELS["mlp"], tmp_path)
    sweep = Sweep(BITS, exact=True)
    path = tmp_path / "one.jsonl"

    def measuring(event: object) -> bool:
        return isinstance(event, Progress) and event.label.startswith("Measuring")

    with SweepStore(path) as store:
        next(e for e in opened.events(sweep, store=store) if measuring(e) and e.done >= 5)
    with SweepStore(path) as store:
        told = [e for e in opened.events(sweep, store=store, executor=Executor(opened.network)) if measuring(e)]
    # Until the first is measured anew nothing is said of the time: those before it took none.
    known = max(event.done for event in told if event.seconds_left is None)
    assert known >= 5
    assert all((event.seconds_left is None) == (event.done <= known) for event in told)
    assert told[-1].done > known


def test_that_a_finished_sweep_runs_nothing_again(tmp_path: Path) -> None:
    opened = Opened(MODELS["mlp"], tmp_path)
    with SweepStore(tmp_path / "one.jsonl") as store:
        first = opened.table(Sweep(BITS), store=store)
    size = (tmp_path / "one.jsonl").stat().st_size
    executor = Executor(opened.network)
    with SweepStore(tmp_path / "one.jsonl") as store:
        again = opened.table(Sweep(BITS), store=store, executor=executor)
    assert values(again) == values(first)
    assert executor.segments_run == 0
    assert (tmp_path / "one.jsonl").stat().st_size == size
    assert again.resumed == len(again.candidates)


def test_that_a_candidate_is_on_the_disk_before_the_next_one_starts(tmp_path: Path) -> None:
    opened = Opened(MODELS["residual"], tmp_path)
    measured = 0
    with SweepStore(tmp_path / "one.jsonl") as store:
        for event in opened.events(Sweep(BITS, exact=True), store=store):
            if isinstance(event, Progress) and event.label.startswith("Measuring"):
                if event.done == 0:
                    written = len(store.path.read_bytes().splitlines())
                assert len(store.path.read_bytes().splitlines()) - written == event.done
                measured += 1
    assert measured >= 3 * 3 * 8


CHILD = """
import sys
from pathlib import Path
sys.path[:0] = [{tests!r}]
import builders, test_analysis_sensitivity as t
t.segments.SECONDS_PER_SEGMENT, t.segments.WEIGHTED_NODES_PER_SEGMENT = 1e-9, 1
opened = t.Opened(t.MODELS["residual"], Path({folder!r}))
with t.SweepStore(Path({folder!r}) / "killed.jsonl") as store:
    for event in opened.events(t.Sweep(t.BITS, exact=True), store=store):
        print(len(store.path.read_bytes().splitlines()), flush=True)
        if len(store.path.read_bytes().splitlines()) > 8:
            sys.stdin.readline()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
def test_that_a_killed_sweep_loses_nothing_it_has_finished(tmp_path: Path) -> None:
    tests = str(Path(__file__).parent)
    code = CHILD.format(tests=tests, folder=str(tmp_path))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([tests, str(Path(__file__).parents[1])])}
    child = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    )
    assert child.stdout is not None
    assert child.stdin is not None
    for line in child.stdout:
        if int(line) > 8:
            break
    child.send_signal(signal.SIGKILL)
    child.communicate()
    kept = len((tmp_path / "killed.jsonl").read_bytes().splitlines())
    assert kept > 8
    opened = Opened(MODELS["residual"], tmp_path)
    sweep = Sweep(BITS, exact=True)
    with SweepStore(tmp_path / "killed.jsonl") as store:
        resumed = opened.table(sweep, store=store, executor=Executor(opened.network))
    assert values(resumed) == values(opened.table(sweep, executor=Executor(opened.network)))


def test_that_sweeps_used_longest_ago_make_room(tmp_path: Path) -> None:
    for age, name in enumerate(["new", "middle", "old", "used"]):
        (tmp_path / f"{name}.jsonl").write_bytes(b'{"layer": 0}\n' * 100)
        os.utime(tmp_path / f"{name}.jsonl", (1000 - age, 1000 - age))
    (tmp_path / "notes.txt").write_bytes(bytes(5000))

    def left() -> set[str]:
        return {path.name for path in tmp_path.iterdir()}

    open_sweep(tmp_path, "used", 4 * 1300).close()
    assert left() == {"new.jsonl", "middle.jsonl", "old.jsonl", "used.jsonl", "notes.txt"}
    open_sweep(tmp_path, "another", 3 * 1300).close()
    assert left() == {"new.jsonl", "middle.jsonl", "used.jsonl", "another.jsonl", "notes.txt"}
    open_sweep(tmp_path, "another", 1300).close()
    assert left() == {"used.jsonl", "another.jsonl", "notes.txt"}
    open_sweep(tmp_path, "used", 0).close()
    assert left() == {"used.jsonl", "notes.txt"}


def test_that_a_question_is_named_by_everything_its_answers_depend_on(tmp_path: Path) -> None:
    opened = Opened(MODELS["mlp"], tmp_path)
    network, sweep = opened.network, Sweep(BITS)
    (tmp_path / "m.py").write_text("def first(outputs, labels):\n    return outputs[:, 0]\n")
    metric = load_metric(f"{tmp_path}/m.py:first")
    user = Sweep(BITS, metric="user")
    base = Sweep(BITS, base=QuantConfig(LayerSpec(weight_spec(8)), name="W8"))
    other = replace(network, constants={**network.constants, "w1": network.constants["w1"] * 2})
    keys = [
        question_key(network, "data", sweep, None),
        question_key(network, "other data", sweep, None),
        question_key(other, "data", sweep, None),
        question_key(network, "data", replace(sweep, metric="kl"), None),
        question_key(network, "data", base, None),
        question_key(network, "data", sweep, None, "ranges"),
        question_key(network, "data", user, metric),
    ]
    (tmp_path / "m.py").write_text("def first(outputs, labels):\n    return outputs[:, 1]\n")
    keys.append(question_key(network, "data", user, metric))
    assert len(set(keys)) == len(keys)
    # Numbers of a candidate are the same whatever else is tried, and whatever the configuration is called.
    renamed = replace(base, base=replace(base.base, name="mine"), specs=bits_specs((4,)), samples=8)
    assert question_key(network, "data", renamed, None) == keys[4]


# --- how certain an order is ------------------------------------------------------------------------------------------


def mean_of(samples: np.ndarray) -> Estimate:
    return SampleRows(len(samples), values=samples, weights=np.ones(len(samples))).estimate()


def test_that_networks_are_compared_sample_by_sample() -> None:
    rng = np.random.default_rng(0)
    common = rng.normal(0, 10, 50)
    a, b = mean_of(common), mean_of(common + 0.1 + rng.normal(0, 0.01, 50))
    assert a.score.stderr > 1
    assert is_certain(a, b)
    assert difference_error(a, b) == pytest.approx(scipy.stats.sem(a.influences - b.influences))
    assert not is_certain(a, mean_of(rng.normal(0, 10, 50)))
    assert not is_certain(a, a)


def test_that_networks_on_different_numbers_of_samples_are_compared_on_those_that_both_have() -> None:
    rng = np.random.default_rng(1)
    samples = rng.normal(0, 1, 40)
    other = (samples + rng.normal(1, 0.1, 40))[:10]
    error = difference_error(mean_of(samples), mean_of(other))
    assert error == pytest.approx(scipy.stats.sem(samples[:10] - other))
    assert math.isnan(difference_error(mean_of(samples), mean_of(other[:1])))


def test_that_a_rank_is_as_uncertain_as_the_order_of_its_neighbours() -> None:
    rng = np.random.default_rng(2)
    names = ["far", "near", "nearer", "top"]
    estimates = [(n, mean_of(rng.normal(mean, 1, 9))) for n, mean in zip(names, (-50, 0, 0.5, 50), strict=True)]
    order = ranked(estimates, higher_is_better=True)
    assert (order[0].layer, order[0].certain, order[-1].layer) == ("far", True, "top")
    assert [r.layer for r in ranked(estimates, higher_is_better=False)] == [r.layer for r in reversed(order)]
    errors = rank_errors(estimates, 100)
    assert errors.variances["far"] < 1e-6 > errors.variances["top"]
    assert errors.variances["near"] > 0.01
    assert rank_errors(estimates, 9).correlation == 1  # these were all samples
    noisier = [(n, replace(e, influences=e.influences * 30)) for n, e in estimates]
    assert rank_errors(noisier, 100).correlation < errors.correlation < 1


def test_that_the_expected_correlation_is_that_of_the_ranks_to_come() -> None:
    rng = np.random.default_rng(5)
    found, expected = [], []
    for _ in range(200):
        truth = rng.normal(0, 1, 12)
        rows = truth[:, None] + rng.normal(0, 1.5, (12, 60))
        few = [(str(i), mean_of(row[:12])) for i, row in enumerate(rows)]
        found.append(scipy.stats.spearmanr([e.value for _, e in few], rows.mean(1)).statistic)
        expected.append(rank_errors(few, 60).correlation)
    assert np.mean(expected) == pytest.approx(np.mean(found), abs=0.05)


@given(st.lists(st.tuples(st.integers(-5, 5), st.integers(-5, 5)), min_size=2, max_size=30))
def test_that_rank_correlation_is_that_of_scipy(pairs: list[tuple[int, int]]) -> None:
    a, b = np.array(pairs, float).T
    found = spearman(a, b)
    if len(set(a)) == 1 or len(set(b)) == 1:
        assert math.isnan(found)
    else:
        assert found == pytest.approx(scipy.stats.spearmanr(a, b).statistic)


def test_that_rows_of_batches_joined_are_those_of_all_samples() -> None:
    rng = np.random.default_rng(3)
    signal, noise = rng.uniform(1, 2, 12), rng.uniform(0.1, 0.2, 12)
    whole = SampleRows(12, {"y": (signal, noise)}).estimate()
    parts = joined([SampleRows(n, {"y": (signal[i : i + n], noise[i : i + n])}) for i, n in ((0, 5), (5, 7))])
    assert parts.estimate().score == whole.score
    assert whole.value == pytest.approx(10 * np.log10(signal.sum() / noise.sum()))
