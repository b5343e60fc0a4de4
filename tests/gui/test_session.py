from __future__ import annotations

import json
import os
from dataclasses import replace

import numpy as np
import pytest
from gui_examples import W8_TENSOR, activation, weight_view, weights
from sessions import (
    LAYERS,
    evaluated,
    make_session,
    mix_ready,
    noise_ready,
    open_data,
    open_network,
    sensitivity,
    sensitivity_news,
    summary,
    view,
)

from quantgui.engine.messages import EngineDied, EngineReady, JobCancelled, JobEvent, JobFailed, JobStarted
from quantgui.engine.requests import (
    Advise,
    Calibrate,
    Evaluate,
    FindMix,
    MeasureSensitivity,
    OpenData,
    OpenNetwork,
    Priority,
    SetMetric,
    TraceNoise,
    ViewSample,
    ViewWeight,
    WeightErrors,
)
from quantgui.errors import SpecError
from quantgui.gui.panels.jobs import JobsPanel
from quantgui.paths import trained_folder
from quantgui.results import (
    Advice,
    AdviceReady,
    Calibrated,
    ErrorCurve,
    NetworkOpened,
    Pick,
    Progress,
    TensorError,
    WeightErrorReady,
    WeightViewReady,
)
from quantgui.session.edits import with_weight_format
from quantgui.session.jobs import JobState
from quantgui.session.project import LEFT_KEPT, Project, project_to_json
from quantgui.spec.config import QuantConfig
from quantgui.spec.formats import IntFormat
from quantgui.spec.mix import Mix
from quantgui.spec.presets import find_preset, preset_config, weight_spec
from quantgui.spec.quantizer import FLOAT, FixedRange, InputWeightedError, LayerSpec, LeastSquaredError, Trained
from quantgui.spec.size import weight_bytes
from quantgui.spec.sweep import Sweep

W4 = LayerSpec(weight_spec(4))
W8 = LayerSpec(weight_spec(8))


@pytest.fixture
def opened(qtbot, tmp_path):
    session, engine = make_session(tmp_path)
    open_network(session, engine)
    yield session, engine
    session.close()


@pytest.fixture
def measured(opened):
    session, engine = opened
    open_data(session, engine)
    return session, engine


def set_bits(session, bits: int, *names: str, merge_key: str = "") -> None:
    specs = {name: with_weight_format(session.spec_for(name), IntFormat(bits)) for name in names}
    session.set_specs(specs, f"Set {bits} bits", merge_key=merge_key)


def test_that_ended_jobs_of_another_network_are_forgotten(measured, qtbot):
    session, engine = measured
    panel = JobsPanel()
    qtbot.addWidget(panel)
    session.job_changed.connect(panel.show_job)
    session.network_opened.connect(lambda _: panel.keep_only({job.topic for job in session.jobs}))
    number = engine.newest(Evaluate)
    engine.answer(number, evaluated(session.config))
    assert session.jobs.of_topic("evaluate").state is JobState.DONE
    assert panel.text_of("evaluate")
    open_network(session, engine, "other.onnx")
    assert session.jobs.of_topic("evaluate") is None
    assert session.jobs.of_topic("network") is not None
    assert not panel.text_of("evaluate")
    assert panel.text_of("network")


# --- undo --------------------------------------------------------------------------------------------------------


def test_that_a_change_is_one_step_and_undo_brings_back_the_same_value(opened) -> None:
    session, _ = opened
    before = session.config
    set_bits(session, 4, "conv1", "conv2", "fc")
    assert session.undo_stack.count() == 1
    assert session.spec_for("fc").weights.bits == 4
    session.undo_stack.undo()
    assert session.config == before
    session.undo_stack.redo()
    assert session.spec_for("conv2").weights.bits == 4


def test_that_steps_of_one_drag_become_one_and_vanish_where_nothing_is_left_of_them(opened) -> None:
    session, _ = opened
    set_bits(session, 8, "conv1")
    for high in (1.0, 2.0, 3.0):
        spec = LayerSpec(replace(session.spec_for("conv1").weights, range_estimator=FixedRange(-high, high)))
        session.set_specs({"conv1": spec}, "Drag", merge_key="limits")
    assert session.undo_stack.count() == 2
    session.set_specs({"conv1": LayerSpec(weight_spec(8))}, "Drag", merge_key="limits")
    assert session.undo_stack.count() == 1


def test_that_undo_selects_what_it_changed(opened) -> None:
    session, _ = opened
    session.select(["conv1"])
    set_bits(session, 4, "conv1")
    session.select(["fc"])
    session.undo_stack.undo()
    assert session.selection == ("conv1",)


def test_that_undo_of_an_evaluated_configuration_asks_the_engine_for_nothing(measured) -> None:
    session, engine = measured
    engine.answer(engine.newest(Evaluate), evaluated(session.config))
    engine.answer(engine.newest(ViewWeight), view("conv1", None))
    set_bits(session, 4, "conv1")
    engine.answer(engine.newest(WeightErrors), WeightErrorReady("conv1", session.spec_for("conv1").weights, _error()))
    asked = len(engine.requests)
    heard = []
    session.evaluation_ready.connect(heard.append)
    session.undo_stack.undo()
    assert len(engine.requests) == asked
    assert heard[0].config == session.config
    assert session.current_view is not None


def test_that_layers_that_cannot_be_changed_keep_what_they_have(opened) -> None:
    session, _ = opened
    session.set_specs({layer.name: W4 for layer in LAYERS}, "All")
    assert session.spec_for("frozen") == FLOAT
    assert session.spec_for("table") == FLOAT
    assert session.spec_for("conv1") == W4


# --- size --------------------------------------------------------------------------------------------------------


def test_that_the_size_is_known_at_once_and_counts_what_stays(opened) -> None:
    session, _ = opened
    whole = session.size()
    assert whole == summary().float_bytes
    set_bits(session, 4, "conv1")
    conv1 = LAYERS[0]
    assert whole - session.size() == 4 * conv1.parameters - weight_bytes(8, 36, weight_spec(4))
    config = preset_config(find_preset("W4"), LAYERS)
    session.set_config(config, "W4")
    kept = sum(4 * x.parameters for x in LAYERS if x.name in ("table", "stft")) + 640 + 1000
    packed = sum(weight_bytes(x.channels, x.elements_per_channel, weight_spec(4)) for x in LAYERS if not x.keeps_float)
    assert session.size() == kept + packed


# --- what is asked for -------------------------------------------------------------------------------------------


def test_that_the_layer_looked_at_is_asked_for_before_the_table(opened) -> None:
    session, engine = opened
    session.set_config(QuantConfig(W4), "W4")
    look, table = engine.newest(ViewWeight), engine.newest(WeightErrors)
    assert engine.topics[look] == ("look", Priority.LOOK)
    assert engine.topics[table] == ("table", Priority.TABLE)
    assert Priority.LOOK < Priority.TABLE < Priority.EVALUATE
    assert set(engine.requests[table].specs) == {"conv1", "conv2", "stft", "fc"}


def test_that_nothing_is_asked_twice_while_it_is_under_way(opened) -> None:
    session, engine = opened
    session.set_config(QuantConfig(W4), "W4")
    asked = len(engine.requests)
    session.refresh()
    session.refresh()
    assert len(engine.requests) == asked


def test_that_a_change_evaluates_by_itself_and_the_newest_wins(measured) -> None:
    session, engine = measured
    set_bits(session, 4, "conv1")
    set_bits(session, 3, "conv1")
    newest = engine.newest(Evaluate)
    assert engine.requests[newest].config == session.config
    assert engine.topics[newest][0] == "evaluate"


def test_that_without_data_nothing_is_evaluated_or_calibrated(opened) -> None:
    session, engine = opened
    session.set_config(QuantConfig(find_preset("W8A8").spec), "W8A8")
    assert engine.count(Evaluate) == engine.count(Calibrate) == 0


def test_that_activations_are_calibrated_when_they_are_quantized_or_looked_at(measured) -> None:
    session, engine = measured
    assert engine.count(Calibrate) == 0
    session.show_activations(True)
    assert engine.count(Calibrate) == 1
    engine.answer(engine.newest(Calibrate), Calibrated({"conv1_input": activation("conv1_input", 8)}, 8, 0.1))
    session.set_config(QuantConfig(find_preset("W8A8").spec), "W8A8")
    assert engine.count(Calibrate) == 1
    assert session.store.activation("conv1_input") is not None


def test_that_advice_is_asked_for_after_the_evaluation_and_dropped_with_the_next_change(measured) -> None:
    session, engine = measured
    set_bits(session, 4, "conv1")
    assert engine.count(Advise) == 0
    engine.answer(engine.newest(Evaluate), evaluated(session.config))
    job = engine.newest(Advise)
    assert engine.requests[job].config == session.config
    set_bits(session, 5, "conv1")
    assert job in engine.cancelled


def test_that_advice_is_shown_for_its_own_configuration_only(measured) -> None:
    session, engine = measured
    set_bits(session, 4, "conv1")
    first = session.config
    engine.answer(engine.newest(Evaluate), evaluated(first))
    heard = []
    advice = Advice(first, "Mend it.", ("conv1",), QuantConfig(W8))
    engine.answer(engine.newest(Advise), AdviceReady(first, advice))
    session.advice_ready.connect(heard.append)
    set_bits(session, 8, "conv1")
    assert heard[-1].advice is None
    session.undo_stack.undo()
    assert heard[-1].advice == advice


def test_that_an_evaluation_that_stops_early_is_not_asked_for_again(measured) -> None:
    session, engine = measured
    engine.answer(engine.newest(Evaluate), evaluated(session.config, samples=40))
    asked = engine.count(Evaluate)
    session.refresh()
    assert engine.count(Evaluate) == asked


def test_that_results_of_the_old_network_are_not_taken_for_those_of_the_new(opened) -> None:
    session, engine = opened
    old = engine.newest(ViewWeight)
    open_network(session, engine, "other.onnx", LAYERS[:2])
    assert old in engine.cancelled
    engine.say(JobEvent(old, "look", view("conv1", None)))
    assert session.store.view("conv1", None) is None


def test_that_results_on_old_data_are_not_taken_for_those_on_the_new(measured) -> None:
    session, engine = measured
    old = engine.newest(Evaluate)
    engine.say(JobStarted(old, "evaluate"), JobEvent(old, "evaluate", evaluated(session.config, 0.5, 10)))
    open_data(session, engine, "others.npz")
    engine.say(JobEvent(old, "evaluate", evaluated(session.config, 0.5, 100)))
    assert session.evaluation is None
    assert session.tried == ()


AWARE = LayerSpec(weight_spec(4, range_estimator=InputWeightedError()))


def test_that_ranges_that_follow_the_data_are_asked_for_again_with_other_data(measured) -> None:
    session, engine = measured
    session.set_specs({"conv1": AWARE, "conv2": W4}, "Weigh errors by inputs")
    engine.answer(engine.newest(ViewWeight), view("conv1", AWARE.weights))
    table = engine.newest(WeightErrors)
    assert set(engine.requests[table].specs) >= {"conv2"}
    error = TensorError(20.0, 0.1, 0.2, 0.0)
    engine.say(JobStarted(table, "table"))
    for name, spec in (("conv1", AWARE), ("conv2", W4)):
        engine.say(JobEvent(table, "table", WeightErrorReady(name, spec.weights, error)))
    assert session.weight_error("conv1") is not None
    changes = []
    session.config_changed.connect(changes.append)
    open_data(session, engine, "others.npz")
    assert session.weight_error("conv1") is None
    assert session.weight_error("conv2") == error
    assert session.current_view is None
    assert frozenset({"conv1"}) in changes
    assert engine.requests[engine.newest(ViewWeight)] == ViewWeight("conv1", AWARE.weights)
    assert "conv1" in engine.requests[engine.newest(WeightErrors)].specs
    # What was found with the old data is not listened to any more.
    engine.say(JobEvent(table, "table", WeightErrorReady("conv1", AWARE.weights, error)))
    assert session.weight_error("conv1") is None


def test_that_without_data_the_table_leaves_out_what_needs_it(opened) -> None:
    session, engine = opened
    session.set_specs({"conv1": AWARE, "conv2": W4}, "Weigh errors by inputs")
    assert set(engine.requests[engine.newest(WeightErrors)].specs) == {"conv2"}


def test_that_a_curve_is_looked_at_again_once_it_can_show_what_inputs_choose(measured) -> None:
    session, engine = measured
    session.set_specs({"conv1": W4}, "Set 4 bits")
    plain = view("conv1", W4.weights).view
    curve = ErrorCurve(np.ones(1), np.ones(1), (Pick(LeastSquaredError(), -1.0, 1.0, 20.0),))
    engine.answer(engine.newest(ViewWeight), WeightViewReady(replace(plain, curve=curve)))
    asked = engine.newest(ViewWeight)
    session.calibrate()
    engine.answer(engine.newest(Calibrate), Calibrated({}, 8, 0.1))
    again = engine.newest(ViewWeight)
    assert again > asked
    seen = replace(curve, picks=(*curve.picks, Pick(InputWeightedError(), -0.9, 0.9, 19.0)))
    engine.answer(again, WeightViewReady(replace(plain, curve=seen)))
    session.calibrate()
    engine.answer(engine.newest(Calibrate), Calibrated({}, 8, 0.1))
    assert engine.newest(ViewWeight) == again


def test_that_a_saved_configuration_takes_trained_weights_with_it(opened, tmp_path) -> None:
    session, _ = opened
    state = "ab" * 32
    trained_folder().mkdir(parents=True)
    (trained_folder() / f"{state}.safetensors").write_bytes(b"weights")
    spec = LayerSpec(replace(weight_spec(4), range_estimator=Trained(state)))
    session.set_specs({"conv1": spec}, "Train")
    folder = tmp_path / "saved"
    folder.mkdir()
    session.save_config(folder / "config.json")
    assert (folder / f"{state}.safetensors").read_bytes() == b"weights"
    (trained_folder() / f"{state}.safetensors").unlink()
    session.load_config(folder / "config.json")
    assert session.spec_for("conv1") == spec
    assert (trained_folder() / f"{state}.safetensors").read_bytes() == b"weights"


def test_that_a_new_metric_forgets_quality_but_keeps_weights(measured) -> None:
    session, engine = measured
    engine.answer(engine.newest(ViewWeight), view("conv1", None))
    engine.answer(engine.newest(Evaluate), evaluated(session.config))
    session.set_metric("/mine.py:psnr")
    engine.answer(engine.newest(SetMetric))
    assert session.metric == "/mine.py:psnr"
    assert session.evaluation is None
    assert session.current_view is not None
    assert isinstance(engine.requests[max(engine.requests)], Evaluate)


def test_that_two_ways_of_writing_the_same_configuration_share_their_results(measured) -> None:
    session, engine = measured
    one = QuantConfig(W4)
    other = QuantConfig().with_overrides({layer.name: W4 for layer in LAYERS})
    assert one != other
    session.set_config(one, "one")
    engine.answer(engine.newest(Evaluate), evaluated(one))
    session.set_config(other, "other")
    assert session.evaluation is not None
    assert len(session.tried) == 1


def test_that_views_of_a_layer_share_its_float_statistics(opened) -> None:
    session, engine = opened
    matrix = weights(8, 72, ())
    engine.answer(engine.newest(ViewWeight), WeightViewReady(weight_view(matrix, None, "conv1")))
    set_bits(session, 8, "conv1")
    spec = session.spec_for("conv1").weights
    answer = WeightViewReady(replace(weight_view(matrix, W8_TENSOR, "conv1"), spec=spec))
    engine.answer(engine.newest(ViewWeight), answer)
    assert session.store.view("conv1", spec).statistics is session.store.view("conv1", None).statistics


# --- sweeps, mixes, noise ----------------------------------------------------------------------------------------

SWEEP = Sweep((W4, W8))


def test_that_news_of_a_sweep_are_merged_into_its_table(measured) -> None:
    session, engine = measured
    tables = []
    session.sensitivity_ready.connect(tables.append)
    session.measure_sensitivity(SWEEP)
    job = engine.newest(MeasureSensitivity)
    assert engine.topics[job] == ("sensitivity", Priority.SWEEP)
    engine.say(JobStarted(job, "sensitivity"))
    for event in (sensitivity(SWEEP), sensitivity_news(SWEEP, "fc", W4, 12.5), sensitivity_news(Sweep((W4,)), "fc")):
        engine.say(JobEvent(job, "sensitivity", event))
    # What belongs to another sweep has no place in this table.
    assert len(tables) == 2
    values = {(each.layer, each.spec): (each.value, each.samples) for each in session.sensitivity.candidates}
    assert values["fc", W4] == (12.5, 64)
    assert values["fc", W8][1] == values["conv1", W4][1] == 0
    assert [(c.layer, c.spec) for c in tables[0].candidates] == [(c.layer, c.spec) for c in tables[1].candidates]


def test_that_a_sweep_goes_on_while_the_configuration_is_edited(measured) -> None:
    session, engine = measured
    session.measure_sensitivity(SWEEP)
    session.find_mix(Mix(SWEEP))
    jobs = engine.newest(MeasureSensitivity), engine.newest(FindMix)
    set_bits(session, 4, "conv1")
    engine.answer(engine.newest(Evaluate), evaluated(session.config))
    assert not set(jobs) & set(engine.cancelled)
    assert all(session.jobs.is_active(topic) for topic in ("sensitivity", "mix"))


@pytest.mark.parametrize("change", ["data", "metric", "network"])
def test_that_what_was_measured_is_forgotten_with_the_data_the_metric_and_the_network(measured, change) -> None:
    session, engine = measured
    session.measure_sensitivity(SWEEP)
    session.find_mix(Mix(SWEEP))
    engine.say(
        JobEvent(engine.newest(MeasureSensitivity), "sensitivity", sensitivity(SWEEP)),
        JobEvent(engine.newest(FindMix), "mix", mix_ready(Mix(SWEEP))),
    )
    assert session.sensitivity.sweep == session.mix.mix.sweep == SWEEP
    under_way = engine.newest(MeasureSensitivity), engine.newest(FindMix)
    match change:
        case "data":
            open_data(session, engine, "other.npz")
        case "metric":
            session.set_metric("/mine.py:psnr")
            engine.answer(engine.newest(SetMetric))
        case "network":
            open_network(session, engine, "other.onnx")
    assert session.sensitivity is session.mix is None
    assert set(under_way) <= set(engine.cancelled)
    engine.say(JobEvent(under_way[0], "sensitivity", sensitivity(SWEEP)))
    assert session.sensitivity is None


def test_that_a_sweep_the_engine_died_over_is_asked_for_once_more_and_then_left_alone(measured) -> None:
    session, engine = measured
    session.measure_sensitivity(SWEEP)
    for asked in (2, 2):
        job = engine.newest(MeasureSensitivity)
        engine.say(JobStarted(job, "sensitivity"), EngineDied("Killed."), JobFailed(job, "sensitivity", "…"))
        engine.say(EngineReady())
        assert engine.count(MeasureSensitivity) == asked
    session.measure_sensitivity(SWEEP)
    assert engine.count(MeasureSensitivity) == 3


def test_that_a_sweep_that_was_cancelled_goes_on_only_when_asked_for(measured) -> None:
    session, engine = measured
    session.measure_sensitivity(SWEEP)
    job = engine.newest(MeasureSensitivity)
    session.cancel("sensitivity")
    engine.say(JobCancelled(job, "sensitivity"), EngineDied("Killed."), EngineReady())
    assert engine.count(MeasureSensitivity) == 1
    session.measure_sensitivity(SWEEP)
    assert engine.count(MeasureSensitivity) == 2


def test_that_noise_is_that_of_the_configuration_in_front_of_the_user(measured) -> None:
    session, engine = measured
    heard = []
    session.noise_ready.connect(heard.append)
    set_bits(session, 4, "conv1")
    session.trace_noise()
    job = engine.newest(TraceNoise)
    assert engine.requests[job].config == session.config
    engine.answer(job, noise_ready(session.config, 10, complete=False), noise_ready(session.config, 100))
    assert session.noise.samples == 100
    set_bits(session, 5, "conv1")
    assert session.noise is None
    session.trace_noise()
    outdated = engine.newest(TraceNoise)
    session.undo_stack.undo()
    assert outdated in engine.cancelled
    assert session.noise.samples == 100
    asked = engine.count(TraceNoise)
    session.trace_noise()
    assert (engine.count(TraceNoise), heard[-1].samples) == (asked, 100)


def test_that_a_sample_is_looked_at_under_the_present_configuration(measured) -> None:
    session, engine = measured
    set_bits(session, 4, "conv1")
    session.view_sample(7)
    assert engine.requests[engine.newest(ViewSample)] == ViewSample(session.config, 7)


def test_that_what_is_dragged_is_one_step_and_evaluated_when_it_rests(measured, qtbot) -> None:
    session, engine = measured
    engine.answer(engine.newest(Evaluate), evaluated(session.config))
    for bits in (8, 7, 6):
        session.drag_config(session.config.with_overrides({"fc": LayerSpec(weight_spec(bits))}), "Drag", merge_key="d")
    assert (engine.count(Evaluate), session.undo_stack.count()) == (1, 1)
    qtbot.waitUntil(lambda: engine.count(Evaluate) == 2, timeout=5000)
    assert engine.requests[engine.newest(Evaluate)].config == session.config
    assert session.spec_for("fc").weights.bits == 6


def test_that_a_change_that_is_no_drag_is_evaluated_at_once(measured) -> None:
    session, engine = measured
    session.drag_config(session.config.with_overrides({"fc": W8}), "Drag", merge_key="d")
    set_bits(session, 4, "conv1")
    assert engine.requests[engine.newest(Evaluate)].config == session.config


def test_that_pins_stay_until_another_network_is_opened(opened) -> None:
    session, engine = opened
    changes = []
    session.pins_changed.connect(lambda: changes.append(session.pins))
    session.pin("A", QuantConfig())
    session.pin("B", QuantConfig(W4))
    session.pin("B", QuantConfig(W4))
    set_bits(session, 4, "conv1")
    assert changes == [(QuantConfig(), None), (QuantConfig(), QuantConfig(W4))]
    open_network(session, engine, "other.onnx")
    assert session.pins == (None, None)


# --- failure -----------------------------------------------------------------------------------------------------


def test_that_what_failed_with_a_sentence_is_said_and_not_asked_again_until_the_user_wants(measured) -> None:
    session, engine = measured
    sentences = []
    session.failed.connect(sentences.append)
    engine.fail(engine.newest(Evaluate), "The network lacks an operator.")
    assert sentences == ["The network lacks an operator."]
    asked = engine.count(Evaluate)
    session.refresh()
    assert engine.count(Evaluate) == asked
    session.evaluate()
    assert engine.count(Evaluate) == asked + 1


def test_that_an_engine_that_dies_takes_nothing_with_it(measured) -> None:
    session, engine = measured
    set_bits(session, 4, "conv1")
    job = engine.newest(Evaluate)
    sentences, states = [], []
    session.failed.connect(sentences.append)
    session.engine_state_changed.connect(states.append)
    engine.say(JobStarted(job, "evaluate"), EngineDied("The engine was killed."), JobFailed(job, "evaluate", "…"))
    assert sentences == ["The engine was killed."]
    assert session.config.spec_for("conv1").weights.bits == 4
    assert session.undo_stack.canUndo()
    engine.say(EngineReady())
    assert states == ["restarting", "ready"]
    again = engine.newest(Evaluate)
    assert again > job
    assert engine.requests[again].config == session.config


def test_that_a_request_that_kills_the_engine_twice_is_left_alone(measured) -> None:
    session, engine = measured
    for _ in range(2):
        job = engine.newest(Evaluate)
        died = EngineDied("The engine was killed.")
        engine.say(JobStarted(job, "evaluate"), died, JobFailed(job, "evaluate", "…"), EngineReady())
    asked = engine.count(Evaluate)
    assert asked == 2
    session.refresh()
    assert engine.count(Evaluate) == asked


def test_that_a_network_that_cannot_be_opened_leaves_the_open_one_alone(opened) -> None:
    session, engine = opened
    set_bits(session, 4, "conv1")
    session.open_network("broken.onnx")
    engine.fail(engine.newest(OpenNetwork), "'broken.onnx' is no ONNX network.")
    assert session.summary.path == "net.onnx"
    assert session.config.spec_for("conv1").weights.bits == 4


def test_that_a_cancelled_job_is_not_started_again_by_itself(measured) -> None:
    session, engine = measured
    job = engine.newest(Evaluate)
    session.cancel("evaluate")
    assert job in engine.cancelled
    asked = engine.count(Evaluate)
    session.refresh()
    assert engine.count(Evaluate) == asked


def test_that_jobs_tell_how_far_they_are(measured) -> None:
    session, engine = measured
    seen = []
    session.job_changed.connect(seen.append)
    job = engine.newest(Evaluate)
    engine.say(JobStarted(job, "evaluate"), JobEvent(job, "evaluate", Progress(3, 10, "batch", 4.0)))
    assert seen[-1].state is JobState.RUNNING
    assert (seen[-1].progress.done, seen[-1].progress.total, seen[-1].progress.seconds_left) == (3, 10, 4.0)


# --- files -------------------------------------------------------------------------------------------------------


def test_that_a_saved_configuration_is_loaded_as_it_was_in_one_step(opened, tmp_path) -> None:
    session, _ = opened
    set_bits(session, 4, "conv1", "fc")
    wanted = session.config
    assert not session.is_saved
    session.save_config(tmp_path / "c.json")
    assert session.is_saved
    session.set_config(QuantConfig(), "float")
    assert not session.is_saved
    assert session.load_config(tmp_path / "c.json") == ()
    assert session.config == wanted
    assert session.is_saved
    session.undo_stack.undo()
    assert session.config == QuantConfig()


def test_that_names_without_a_layer_are_reported_with_the_nearest_and_left_out(opened, tmp_path) -> None:
    session, _ = opened
    path = tmp_path / "c.json"
    spec = {"weights": {"format": "int4"}}
    path.write_text(json.dumps({"version": 1, "layers": {"konv1": spec, "fc": spec}}))
    unknown = session.load_config(path)
    assert [(u.name, u.nearest) for u in unknown] == [("konv1", "conv1")]
    assert session.spec_for("fc").weights.bits == 4
    assert "konv1" not in session.config.overrides


def test_that_a_file_that_is_no_configuration_changes_nothing(opened, tmp_path) -> None:
    session, _ = opened
    path = tmp_path / "c.json"
    path.write_text('{"version": 1, "colour": "red"}')
    with pytest.raises(SpecError, match="colour"):
        session.load_config(path)
    assert session.undo_stack.count() == 0


def test_that_a_crash_loses_nothing(qtbot, tmp_path, monkeypatch) -> None:
    network = tmp_path / "net.onnx"
    network.write_bytes(b"x")
    folder = tmp_path / "state"
    session, engine = make_session(folder)
    open_network(session, engine, str(network))
    open_data(session, engine, "random:8")
    set_bits(session, 4, "conv1")
    wanted = session.config
    (own,) = _waited(qtbot, lambda: [p for p in folder.glob("autosave-*.json") if "int4" in p.read_text()])
    session.close()
    # The number of a program that has ended.
    own.rename(folder / "autosave-999999999.json")

    again, engine = make_session(folder)
    assert again.recover()
    engine.say(EngineReady())
    engine.answer(engine.newest(OpenNetwork), NetworkOpened(summary(path=str(network))))
    assert again.config == wanted
    assert not again.is_saved
    assert engine.requests[engine.newest(OpenData)].source == "random:8"
    again.forget_autosave()
    again.close()
    third, _ = make_session(folder)
    assert not third.recover()
    third.close()


def left_behind(folder, network, count: int) -> None:
    """Write what `count` crashed programs would have left, the newest last."""
    folder.mkdir(exist_ok=True)
    for number in range(count):
        path = folder / f"autosave-{999_999_000 + number}.json"
        project = Project(str(network), QuantConfig(name=f"crash {number}"))
        path.write_text(json.dumps(project_to_json(project)))
        os.utime(path, (number, number))


def test_that_what_crashed_programs_left_is_bounded_and_the_newest_is_recovered(qtbot, tmp_path) -> None:
    network, folder = tmp_path / "net.onnx", tmp_path / "state"
    network.write_bytes(b"x")
    left_behind(folder, network, LEFT_KEPT + 3)
    half_written = folder / ".autosave-12.json.x1"
    half_written.write_text("{")
    os.utime(half_written, (1, 1))
    session, engine = make_session(folder)
    _waited(qtbot, lambda: len(list(folder.glob("autosave-*.json"))) == LEFT_KEPT)
    assert not half_written.exists()
    assert session.recover()
    engine.say(EngineReady())
    engine.answer(engine.newest(OpenNetwork), NetworkOpened(summary(path=str(network))))
    assert session.config.name == f"crash {LEFT_KEPT + 2}"
    # Given up, it is not offered again; the one before it still is.
    session.forget_autosave()
    session.close()
    assert len(list(folder.glob("autosave-*.json"))) == LEFT_KEPT - 1
    again, _ = make_session(folder)
    assert again.recover()
    again.close()


def test_that_a_project_is_not_lost_where_its_recovery_crashes_as_well(qtbot, tmp_path) -> None:
    network, folder = tmp_path / "net.onnx", tmp_path / "state"
    network.write_bytes(b"x")
    left_behind(folder, network, 1)
    for _ in range(3):
        session, engine = make_session(folder)
        assert session.recover()
        assert engine.newest(OpenNetwork)
        session.close()


def test_that_damaged_projects_and_those_without_a_network_are_passed_over(qtbot, tmp_path) -> None:
    network, folder = tmp_path / "net.onnx", tmp_path / "state"
    network.write_bytes(b"x")
    left_behind(folder, network, 1)
    for number, content in ((1, "{"), (2, json.dumps(project_to_json(Project(str(tmp_path / "gone.onnx")))))):
        (folder / f"autosave-99999999{number}.json").write_text(content)
    session, engine = make_session(folder)
    assert session.recover()
    assert engine.requests[engine.newest(OpenNetwork)].path == str(network)
    session.forget_autosave()
    session.close()
    assert not list(folder.glob("autosave-*.json"))


def test_that_a_program_closed_in_good_order_leaves_nothing_to_recover(qtbot, tmp_path) -> None:
    network = tmp_path / "net.onnx"
    network.write_bytes(b"x")
    session, engine = make_session(tmp_path)
    open_network(session, engine, str(network))
    set_bits(session, 4, "conv1")
    _waited(qtbot, lambda: list(tmp_path.glob("autosave-*.json")))
    session.forget_autosave()
    session.close()
    assert not list(tmp_path.glob("autosave-*.json"))


def test_that_recent_networks_come_back_newest_first_with_their_data(qtbot, tmp_path) -> None:
    session, engine = make_session(tmp_path / "state")
    for name in ("a.onnx", "b.onnx", "a.onnx"):
        (tmp_path / name).write_bytes(b"x")
        open_network(session, engine, str(tmp_path / name))
        open_data(session, engine, f"{name}.npz")
    session.close()
    entries = session.recent.entries()
    assert [entry.network.rsplit("/", 1)[-1] for entry in entries] == ["a.onnx", "b.onnx"]
    assert entries[0].data == "a.onnx.npz"
    (tmp_path / "a.onnx").unlink()
    assert len(session.recent.entries()) == 1


def test_that_a_folder_that_cannot_be_written_is_told_and_survived(qtbot, tmp_path) -> None:
    (tmp_path / "state").write_text("a file where the folder should be")
    session, engine = make_session(tmp_path / "state")
    sentences = []
    session.failed.connect(sentences.append)
    open_network(session, engine)
    set_bits(session, 4, "conv1")
    qtbot.waitUntil(lambda: bool(sentences), timeout=5000)
    assert "recovery" in sentences[0]
    session.close()


def test_that_after_closing_nothing_is_heard_any_more(opened) -> None:
    session, engine = opened
    job = engine.newest(ViewWeight)
    session.close()
    assert engine.closed
    engine.say(JobEvent(job, "look", view("conv1", None)))
    assert session.store.view("conv1", None) is None


def _error() -> TensorError:
    return TensorError(20.0, 0.1, 0.1, 0.0)


def _waited(qtbot, found):
    qtbot.waitUntil(lambda: bool(found()), timeout=5000)
    return found()
