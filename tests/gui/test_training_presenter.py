"""The training tab on a session whose engine is answered by the test."""

from __future__ import annotations

from dataclasses import replace

import pytest
from sessions import make_session, open_data, open_network
from training_examples import training_ready

from quantgui.engine.messages import EngineDied, EngineReady, JobCancelled, JobEvent, JobFailed, JobStarted
from quantgui.engine.requests import SetMetric, Train
from quantgui.gui.panels.training import TrainingPanel
from quantgui.gui.presenters.training import TrainingPresenter
from quantgui.results import Progress
from quantgui.spec.presets import find_preset, preset_config
from quantgui.spec.quantizer import Trained
from quantgui.spec.training import Training

pytestmark = pytest.mark.qt_log_ignore("This plugin does not support")


class Bound:
    """A training tab on a session whose engine is answered by the test."""

    def __init__(self, qtbot, folder) -> None:
        self.session, self.engine = make_session(folder)
        self.panel = TrainingPanel()
        qtbot.addWidget(self.panel)
        self.panel.resize(620, 500)
        self.panel.show()
        self.presenter = TrainingPresenter(self.session, self.panel, self.panel)

    def open(self, preset: str = "W4") -> None:
        open_network(self.session, self.engine)
        open_data(self.session, self.engine)
        self.quantize(preset)

    def quantize(self, preset: str) -> None:
        self.session.set_config(preset_config(find_preset(preset), self.session.summary.layers), preset)

    def start(self) -> int:
        """Press the button; return the number of the job."""
        self.panel.controls.button.click()
        return self.job()

    def job(self) -> int:
        return self.engine.newest(Train)

    def asked(self) -> Train:
        return self.engine.requests[self.job()]

    def tell(self, steps: int = 400, **changes) -> None:
        """Let the engine say how far the newest training is."""
        asked = self.asked()
        result = training_ready(steps, trained_config(asked.config, steps), asked.training, **changes)
        result = replace(result, config=asked.config, trained=result.config if result.best is not None else None)
        self.engine.say(JobStarted(self.job(), "training"), JobEvent(self.job(), "training", result))

    def end(self, steps: int = 1000, **changes) -> None:
        self.tell(steps, complete=True, **changes)
        self.engine.answer(self.job())

    def button(self) -> str:
        return self.panel.controls.button.text()


def trained_config(config, steps: int):
    """Return `config` with trained weights in its first layer."""
    spec = config.spec_for("conv1")
    weights = replace(spec.weights, range_estimator=Trained(f"{steps:08x}"))
    return config.with_overrides({"conv1": replace(spec, weights=weights)})


@pytest.fixture
def bound(qtbot, tmp_path):
    made = Bound(qtbot, tmp_path)
    yield made
    made.session.close()


def test_that_the_tab_leads_from_nothing_to_a_training(bound) -> None:
    panel = bound.panel
    assert "No network" in panel.state.heading()
    open_network(bound.session, bound.engine)
    assert "needs data" in panel.state.heading()
    assert not panel.controls.button.isEnabled()
    open_data(bound.session, bound.engine)
    assert "Nothing is quantized" in panel.state.heading()
    assert "preset" in panel.controls.button.toolTip()
    bound.quantize("W4")
    assert panel.controls.button.isEnabled()
    job = bound.start()
    assert bound.asked() == Train(bound.session.config, Training())
    assert panel.state.heading() == "Preparing to train"
    bound.engine.say(JobStarted(job, "training"), JobEvent(job, "training", Progress(3, 64, "Calibrating")))
    assert panel.state.sentence() == "Calibrating"
    assert bound.button() == "Pause"
    bound.tell(100)
    assert panel.training().steps == 100
    assert panel.state_text() == "Training W4."
    bound.tell(400)
    assert panel.loss.steps.text().startswith("400")


def test_that_data_can_be_opened_from_the_tab(bound, qtbot) -> None:
    open_network(bound.session, bound.engine)
    with qtbot.waitSignal(bound.panel.data_requested):
        bound.panel.state.action_triggered.emit()


def test_that_a_paused_training_goes_on_with_the_same_request(bound) -> None:
    bound.open()
    job = bound.start()
    bound.tell(100)
    bound.panel.controls.button.click()
    assert bound.engine.cancelled[-1] == job
    bound.engine.say(JobCancelled(job, "training"))
    assert bound.panel.state_text() == "Paused at step 100; it goes on from there."
    assert bound.button() == "Resume"
    first = bound.asked()
    bound.start()
    assert bound.asked() == first
    assert bound.engine.count(Train) == 2
    assert bound.panel.training().steps == 100, "what was known stays in sight"
    bound.tell(300, resumed=100)
    assert bound.panel.state_text() == "Training W4, resumed at step 100."


def test_that_a_training_stopped_before_anything_is_known_can_go_on(bound) -> None:
    bound.open()
    job = bound.start()
    bound.panel.state.action_triggered.emit()
    assert bound.engine.cancelled[-1] == job
    bound.engine.say(JobCancelled(job, "training"))
    assert bound.panel.state.heading() == "Training has been stopped"
    bound.panel.state.action_triggered.emit()
    assert bound.engine.count(Train) == 2


def test_that_keeping_is_one_step_of_undo_that_brings_the_former_weights_back(bound) -> None:
    bound.open()
    before = bound.session.config
    bound.start()
    bound.end(1000)
    panel, session = bound.panel, bound.session
    assert panel.state_text() == "Finished: step 1\u202f000 is the best."
    assert panel.keep.isVisible()
    assert panel.keep.property("primary") == "true"
    steps = session.undo_stack.count()
    panel.keep.click()
    assert session.config == panel.training().trained
    assert session.config.name == "W4 trained"
    assert session.undo_stack.count() == steps + 1
    assert session.undo_stack.undoText() == "Keep trained weights: W4, step 1000"
    assert panel.state_text().startswith("In use: the weights of step 1\u202f000.")
    assert not panel.keep.isVisible()
    session.undo_stack.undo()
    assert session.config == before
    assert panel.keep.isVisible()


def test_that_stop_and_keep_best_ends_the_training_and_it_can_go_on_all_the_same(bound) -> None:
    bound.open()
    began = bound.session.config
    job = bound.start()
    bound.tell(400)
    assert bound.panel.keep.text() == "Stop and keep best"
    bound.panel.keep.click()
    assert bound.engine.cancelled[-1] == job
    bound.engine.say(JobCancelled(job, "training"))
    assert bound.session.config == bound.panel.training().trained
    assert "In use" in bound.panel.state_text()
    assert bound.panel.side.text() == "Resume at step 400"
    bound.panel.side.click()
    assert bound.asked().config == began


def test_that_an_edit_leaves_the_training_as_it_began_and_offers_the_present_configuration(bound) -> None:
    bound.open()
    began = bound.session.config
    job = bound.start()
    bound.tell(100)
    bound.quantize("W8")
    assert job not in bound.engine.cancelled
    assert bound.panel.state_text() == "The configuration has changed; training goes on with W4."
    bound.tell(200)
    assert bound.panel.training().steps == 200
    assert bound.panel.side.text() == "Train the present one"
    bound.panel.side.click()
    assert bound.asked().config == bound.session.config != began
    assert bound.panel.state.heading() == "Preparing to train", "the curves of the other one are gone"


def test_that_what_an_overtaken_training_still_says_is_not_shown(bound) -> None:
    bound.open()
    first = bound.start()
    bound.tell(100)
    asked = bound.asked()
    bound.quantize("W8")
    bound.panel.side.click()
    late = replace(training_ready(200, training=asked.training), config=asked.config)
    bound.engine.say(JobEvent(first, "training", late))
    assert bound.session.training is None


def test_that_other_settings_begin_anew_and_the_old_training_can_still_go_on(bound) -> None:
    bound.open()
    job = bound.start()
    bound.tell(100)
    bound.panel.controls.button.click()
    bound.engine.say(JobCancelled(job, "training"))
    bound.panel.controls.steps.setValue(200)
    assert bound.button() == "Start"
    assert bound.panel.side.text() == "Resume at step 100"
    bound.panel.controls.button.click()
    assert bound.asked().training.steps == 200


def test_that_a_training_at_its_end_is_not_asked_for_again_without_a_change(bound) -> None:
    bound.open()
    bound.start()
    bound.end(1000)
    assert not bound.panel.controls.button.isEnabled()
    assert "has ended" in bound.panel.controls.button.toolTip()
    bound.panel.controls.rate.setValue(0.01)
    assert bound.panel.controls.button.isEnabled()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"steps": 600}, "Finished early: 8 evaluations in a row were no better."),
        ({"steps": 1000, "best": None, "trained": None}, "Finished: nothing better was found."),
    ],
)
def test_that_the_end_is_told_with_its_reason(bound, changes, words) -> None:
    bound.open()
    bound.start()
    bound.end(**changes)
    assert bound.panel.state_text().startswith(words)


def test_that_a_network_that_cannot_be_trained_at_once_is_offered_block_by_block(bound) -> None:
    bound.open()
    job = bound.start()
    bound.engine.fail(job, "The operator 'Loop' cannot be differentiated.")
    assert bound.panel.state.sentence() == "The operator 'Loop' cannot be differentiated."
    bound.panel.state.action_triggered.emit()
    assert bound.asked().training.scope == "blocks"
    assert bound.panel.controls.scope.value() == "blocks"
    bound.engine.fail(bound.job(), "Nothing can be trained.")
    bound.panel.state.action_triggered.emit()
    assert bound.engine.count(Train) == 3


def test_that_a_failure_on_the_way_keeps_the_curves_in_sight(bound) -> None:
    bound.open()
    job = bound.start()
    bound.tell(300)
    bound.engine.say(JobFailed(job, "training", "The disk is full."))
    assert bound.panel.state_text() == "The disk is full."
    assert bound.panel.training().steps == 300
    assert bound.button() == "Resume"


def test_that_a_training_goes_on_by_itself_when_the_engine_comes_back_and_waits_for_the_user_the_next_time(
    bound,
) -> None:
    bound.open()
    engine = bound.engine
    for attempt in (1, 2):
        job = bound.start() if attempt == 1 else bound.job()
        bound.tell(100 * attempt)
        engine.say(EngineDied("The engine ended.", restarting=True))
        engine.say(JobFailed(job, "training", "The engine ended."))
        assert bound.panel.state_text().startswith(f"The engine ended at step {100 * attempt};")
        engine.say(EngineReady())
        assert engine.count(Train) == min(attempt + 1, 2)
    assert bound.button() == "Resume"
    bound.start()
    assert engine.count(Train) == 3


def test_that_other_data_and_another_metric_leave_nothing_of_a_training(bound) -> None:
    bound.open()
    job = bound.start()
    bound.tell(100)
    open_data(bound.session, bound.engine, "other.npz", has_labels=False)
    assert job in bound.engine.cancelled
    assert bound.session.training is None
    assert bound.panel.training() is None
    assert not bound.panel.controls.teacher.button("labels").isEnabled()
    job = bound.start()
    bound.tell(100)
    bound.session.set_metric("my.py:metric")
    bound.engine.answer(bound.engine.newest(SetMetric))
    assert job in bound.engine.cancelled
    assert bound.panel.training() is None


def test_that_a_hidden_tab_is_drawn_when_it_comes_into_sight(bound) -> None:
    bound.open()
    bound.start()
    bound.panel.hide()
    bound.tell(100)
    assert bound.panel.training() is None
    bound.panel.show()
    assert bound.panel.training().steps == 100


def test_that_without_data_nothing_is_asked(bound) -> None:
    open_network(bound.session, bound.engine)
    bound.quantize("W4")
    bound.session.train(Training())
    bound.session.resume_training()
    bound.session.keep_training()
    assert bound.engine.count(Train) == 0
