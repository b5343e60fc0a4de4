"""The rule by which jobs take turns, without any process."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import numpy as np
import pytest
from engine_peer import TinyBench

from quantgui.engine.messages import Cancel, EngineEvent, JobCancelled, JobDone, JobEvent, JobFailed, JobStarted, Submit
from quantgui.engine.requests import Evaluate, OpenData, OpenNetwork, Priority, Request, SetMetric, ViewWeight
from quantgui.engine.scheduler import Scheduler, describe
from quantgui.errors import QuantGuiError
from quantgui.results import Event, Progress
from quantgui.spec.config import QuantConfig


class Stage:
    """A scheduler whose reports are kept."""

    def __init__(self) -> None:
        self.bench = TinyBench()
        self.reports: list[EngineEvent] = []
        self.scheduler = Scheduler(self.bench.handle, self.reports.append)
        self.jobs = 0

    def submit(self, request: Request | str, topic: str = "", priority: Priority = Priority.SWEEP) -> int:
        self.jobs += 1
        request = ViewWeight(request, None) if isinstance(request, str) else request
        self.scheduler.obey(Submit(self.jobs, topic or f"topic {self.jobs}", priority, request))
        return self.jobs

    def run(self) -> None:
        while not self.scheduler.is_idle:
            self.scheduler.step()

    def order(self) -> list[int]:
        return [r.job for r in self.reports if isinstance(r, JobEvent)]

    def ends(self) -> dict[int, type]:
        return {r.job: type(r) for r in self.reports if isinstance(r, JobDone | JobFailed | JobCancelled)}


@pytest.fixture
def stage() -> Stage:
    return Stage()


def test_that_a_job_is_started_then_reports_then_ends(stage: Stage) -> None:
    stage.submit("count 2", "look")
    stage.run()
    assert stage.reports[0] == JobStarted(1, "look")
    assert [r.event for r in stage.reports if isinstance(r, JobEvent)] == [Progress(0, 2), Progress(1, 2)]
    assert stage.reports[-1] == JobDone(1, "look")


def test_that_a_look_overtakes_a_sweep_at_its_next_step(stage: Stage) -> None:
    sweep = stage.submit("count 4")
    stage.scheduler.step()
    look = stage.submit("count 2", priority=Priority.LOOK)
    stage.run()
    assert stage.order() == [sweep, look, look, sweep, sweep, sweep]


def test_that_jobs_of_one_priority_run_one_after_the_other(stage: Stage) -> None:
    first, second = stage.submit("count 2"), stage.submit("count 2")
    stage.run()
    assert stage.order() == [first, first, second, second]


def test_that_the_newest_request_of_a_topic_replaces_one_that_waits(stage: Stage) -> None:
    old, new = stage.submit("count 2", "look"), stage.submit("count 3", "look")
    stage.run()
    assert stage.order() == [new] * 3
    assert stage.ends() == {old: JobCancelled, new: JobDone}


def test_that_the_newest_request_of_a_topic_replaces_one_that_runs(stage: Stage) -> None:
    old = stage.submit("forever", "evaluate")
    stage.scheduler.step()
    new = stage.submit("count 1", "evaluate")
    stage.run()
    assert stage.order() == [old, new]
    assert stage.ends() == {old: JobCancelled, new: JobDone}


def test_that_opening_runs_first_and_in_the_order_of_the_requests(stage: Stage) -> None:
    stage.submit("opened", priority=Priority.OPEN)
    stage.submit(OpenNetwork("a.onnx"), priority=Priority.SWEEP)
    stage.submit(SetMetric("m.py:f"), priority=Priority.LOOK)
    stage.submit(OpenData("d.npz"), priority=Priority.OPEN)
    shown = stage.submit("opened")
    stage.run()
    labels = [r.event.label for r in stage.reports if isinstance(r, JobEvent) and r.job == shown]
    assert labels == ["a.onnx m.py:f d.npz"]


def test_that_opening_a_network_drops_what_was_asked_of_the_one_before(stage: Stage) -> None:
    sweep = stage.submit("forever")
    stage.scheduler.step()
    opening, later = stage.submit(OpenNetwork("b.onnx")), stage.submit("count 1")
    stage.run()
    assert stage.ends() == {sweep: JobCancelled, opening: JobDone, later: JobDone}


def test_that_a_network_that_cannot_be_opened_leaves_the_jobs_of_the_open_one_alone(stage: Stage) -> None:
    sweep = stage.submit("count 5")
    stage.scheduler.step()
    opening, data = stage.submit(OpenNetwork("missing.onnx")), stage.submit(OpenData("d.npz"))
    stage.run()
    assert stage.ends() == {opening: JobFailed, data: JobFailed, sweep: JobDone}
    assert stage.bench.opened == []


def test_that_a_cancelled_job_takes_no_further_step_and_cleans_up(stage: Stage, tmp_path) -> None:
    partial = tmp_path / "partial"
    job = stage.submit(f"file {partial}")
    stage.scheduler.step()
    assert partial.exists()
    stage.scheduler.obey(Cancel(job))
    assert not partial.exists()
    assert stage.scheduler.is_idle
    assert stage.reports[-1] == JobCancelled(job, "topic 1")


def test_that_cancelling_a_job_that_has_ended_reports_nothing(stage: Stage) -> None:
    job = stage.submit("count 1")
    stage.run()
    before = list(stage.reports)
    stage.scheduler.obey(Cancel(job))
    assert stage.reports == before


def test_that_closing_cleans_up_all_jobs_without_a_report(stage: Stage, tmp_path) -> None:
    partial = tmp_path / "partial"
    stage.submit(f"file {partial}")
    stage.scheduler.step()
    before = len(stage.reports)
    stage.scheduler.close()
    assert not partial.exists()
    assert len(stage.reports) == before


def test_that_a_users_mistake_fails_the_job_with_its_sentence_and_no_traceback(stage: Stage) -> None:
    stage.submit("mistake", "look")
    stage.run()
    assert stage.reports[-1] == JobFailed(1, "look", "The data has no images.")


def test_that_a_bug_fails_only_its_own_job_and_shows_the_traceback(stage: Stage) -> None:
    bug, other = stage.submit("bug"), stage.submit("count 1")
    stage.run()
    failure = next(r for r in stage.reports if isinstance(r, JobFailed))
    assert "Unexpected error" in failure.sentence
    assert "ZeroDivisionError" in failure.sentence
    assert "engine_peer.py" in failure.details
    assert stage.ends() == {bug: JobFailed, other: JobDone}


@pytest.mark.parametrize(
    "error",
    [MemoryError(), RuntimeError("std::bad_alloc"), np._core._exceptions._ArrayMemoryError((9,), np.dtype("i8"))],
)
def test_that_every_kind_of_exhausted_memory_is_the_same_sentence(error: Exception) -> None:
    sentence, details = describe(error)
    assert "not enough memory" in sentence
    assert details == ""


def test_that_the_error_tree_is_shown_as_it_speaks() -> None:
    assert describe(QuantGuiError("One sentence.")) == ("One sentence.", "")


def test_that_nothing_of_an_ended_job_stays_in_memory() -> None:
    alive: list[weakref.ref[np.ndarray]] = []

    def handle(request: Request) -> Iterator[Event]:
        values = np.zeros(1000)
        alive.append(weakref.ref(values))
        yield Progress(int(values.sum()), 1)
        if isinstance(request, ViewWeight):
            raise MemoryError
        yield Progress(1, 1)

    scheduler = Scheduler(handle, lambda _event: None)
    scheduler.obey(Submit(1, "a", Priority.LOOK, ViewWeight("", None)))
    scheduler.obey(Submit(2, "b", Priority.SWEEP, Evaluate(QuantConfig())))
    scheduler.obey(Submit(3, "c", Priority.SWEEP, Evaluate(QuantConfig())))
    while len(alive) < 3:
        scheduler.step()
    scheduler.obey(Cancel(3))
    gc.collect()
    assert scheduler.is_idle
    assert [reference() for reference in alive] == [None, None, None]
