"""The session's conversation with an engine that does what a test tells it to."""

from __future__ import annotations

import pytest
from sessions import RecordingEngine, evaluated

from quantgui.engine.messages import EngineReady, JobCancelled, JobEvent, JobStarted
from quantgui.engine.requests import Evaluate, MeasureSensitivity, Priority
from quantgui.gui.panels.jobs import JobsPanel
from quantgui.results import Progress
from quantgui.session.conversation import SILENCE_SECONDS, Conversation
from quantgui.session.wanted import Wanted
from quantgui.spec.config import QuantConfig
from quantgui.spec.sweep import Sweep

EVALUATE = Evaluate(QuantConfig())


class Talk:
    """A conversation, its engine, and a clock that a test sets forward."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.stalled, self.resumed = [], 0
        self.conversation = Conversation(RecordingEngine, clock=lambda: self.now)
        self.engine = self.conversation.engine
        self.conversation.stalled.connect(self.stalled.append)
        self.conversation.resumed.connect(self._on_resumed)
        self.engine.say(EngineReady())

    def _on_resumed(self) -> None:
        self.resumed += 1

    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.conversation.watch()

    def begin(self, topic: str, request, priority: Priority) -> int:
        self.conversation.ask(topic, request, priority)
        job = self.engine.newest(type(request))
        self.engine.say(JobStarted(job, topic))
        return job


@pytest.fixture
def talk(qtbot) -> Talk:
    return Talk()


def test_that_a_job_of_which_nothing_is_heard_is_told_once_and_taken_back_when_it_goes_on(talk) -> None:
    job = talk.begin("evaluate", EVALUATE, Priority.EVALUATE)
    talk.wait(SILENCE_SECONDS - 1)
    assert not talk.stalled
    talk.wait(1)
    talk.wait(100)
    assert [(each.topic, each.stalled) for each in talk.stalled] == [("evaluate", True)]
    talk.engine.say(JobEvent(job, "evaluate", Progress(1, 2)))
    assert talk.resumed == 1
    assert not talk.conversation.jobs.of_topic("evaluate").stalled


def test_that_an_idle_engine_may_be_silent_and_time_counts_from_the_next_request(talk) -> None:
    talk.wait(10 * SILENCE_SECONDS)
    job = talk.begin("evaluate", EVALUATE, Priority.EVALUATE)
    talk.engine.answer(job, evaluated(QuantConfig()))
    talk.wait(10 * SILENCE_SECONDS)
    talk.conversation.ask("evaluate", EVALUATE, Priority.EVALUATE)
    talk.wait(SILENCE_SECONDS - 1)
    assert not talk.stalled


def test_that_of_several_jobs_the_one_whose_turn_it_is_is_told(talk) -> None:
    talk.begin("sensitivity", MeasureSensitivity(Sweep()), Priority.SWEEP)
    talk.begin("evaluate", EVALUATE, Priority.EVALUATE)
    talk.wait(SILENCE_SECONDS)
    assert [job.topic for job in talk.stalled] == ["evaluate"]


def test_that_a_job_that_was_replaced_in_the_middle_of_a_long_step_is_not_forgotten(talk) -> None:
    talk.begin("evaluate", EVALUATE, Priority.EVALUATE)
    newer = Evaluate(QuantConfig(name="newer"))
    talk.conversation.ask("evaluate", newer, Priority.EVALUATE)
    talk.wait(SILENCE_SECONDS)
    assert [job.topic for job in talk.stalled] == ["evaluate"]


def test_that_what_hung_is_not_offered_again_after_a_restart(talk) -> None:
    job = talk.begin("evaluate", EVALUATE, Priority.EVALUATE)
    talk.wait(SILENCE_SECONDS)
    talk.conversation.restart()
    assert (talk.engine.restarts, talk.resumed) == (1, 1)
    talk.engine.say(JobCancelled(job, "evaluate"), EngineReady())
    talk.conversation.offer([Wanted("evaluate", EVALUATE, Priority.EVALUATE)])
    assert talk.engine.count(Evaluate) == 1
    talk.conversation.ask("evaluate", EVALUATE, Priority.EVALUATE)
    assert talk.engine.count(Evaluate) == 2


def test_that_a_silent_job_says_so_in_its_row_and_can_still_be_stopped(talk, qtbot) -> None:
    panel = JobsPanel()
    qtbot.addWidget(panel)
    talk.conversation.job_changed.connect(panel.show_job)
    job = talk.begin("evaluate", EVALUATE, Priority.EVALUATE)
    talk.wait(SILENCE_SECONDS)
    assert "no news" in panel.text_of("evaluate")
    with qtbot.waitSignal(panel.cancel_requested):
        panel._rows["evaluate"].stop.click()
    talk.engine.say(JobEvent(job, "evaluate", Progress(1, 2)))
    assert "1 / 2" in panel.text_of("evaluate")
