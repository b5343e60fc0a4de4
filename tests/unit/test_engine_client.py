"""The engine process as the window sees it: real processes, killed for real."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from engine_peer import COMMAND

from quantgui.engine.client import EngineClient
from quantgui.engine.messages import (
    EngineDied,
    EngineEvent,
    EngineReady,
    JobCancelled,
    JobDone,
    JobEvent,
    JobFailed,
    JobStarted,
)
from quantgui.engine.requests import OpenData, OpenNetwork, Priority, Request, SetMetric, ViewWeight
from quantgui.paths import engine_log

ROOT = Path(__file__).parents[2]

ORPHAN = """
import json, queue, sys
from quantgui.engine.client import EngineClient
from quantgui.engine.messages import JobEvent
from quantgui.engine.requests import Priority, ViewWeight
events = queue.SimpleQueue()
client = EngineClient(events.put, json.loads(sys.argv[1]))
client.submit(ViewWeight(sys.argv[2], None), topic="", priority=Priority.LOOK)
while not isinstance(events.get(), JobEvent):
    pass
print(client.process_id, flush=True)
while True:
    events.get()
"""


class Engine:
    """A client of the tiny engine, with its events in a queue."""

    def __init__(self, command: list[str] | None = None) -> None:
        self.events: queue.SimpleQueue[EngineEvent] = queue.SimpleQueue()
        self.heard: list[EngineEvent] = []
        self.client = EngineClient(self.events.put, command or COMMAND)

    def submit(self, request: Request | str, topic: str = "", priority: Priority = Priority.LOOK) -> int:
        request = ViewWeight(request, None) if isinstance(request, str) else request
        return self.client.submit(request, topic=topic or str(request), priority=priority)

    def until(self, wanted: Callable[[EngineEvent], bool]) -> EngineEvent:
        """Return the next event that is `wanted`."""
        while True:
            event = self.events.get(timeout=60)
            self.heard.append(event)
            if wanted(event):
                return event

    def until_kind(self, *kinds: type) -> EngineEvent:
        return self.until(lambda event: isinstance(event, kinds))

    def end_of(self, job: int) -> EngineEvent:
        return self.until(lambda e: isinstance(e, JobDone | JobFailed | JobCancelled) and e.job == job)

    def label_of(self, job: int) -> str:
        event = self.until(lambda e: isinstance(e, JobEvent) and e.job == job)
        assert isinstance(event, JobEvent)
        return event.event.label


@pytest.fixture
def engine() -> Iterator[Engine]:
    engine = Engine()
    yield engine
    engine.client.close()


def test_that_requests_sent_before_the_process_runs_are_answered(engine: Engine) -> None:
    job = engine.submit("count 3", "look")
    assert engine.end_of(job) == JobDone(job, "look")
    assert [type(e) for e in engine.heard] == [EngineReady, JobStarted, JobEvent, JobEvent, JobEvent, JobDone]


def test_that_prints_and_native_output_do_not_disturb_the_conversation(engine: Engine) -> None:
    assert isinstance(engine.end_of(engine.submit("print")), JobDone)


def test_that_a_running_job_is_cancelled(engine: Engine) -> None:
    job = engine.submit("forever", "sweep")
    engine.until_kind(JobEvent)
    engine.client.cancel(job)
    assert engine.end_of(job) == JobCancelled(job, "sweep")


def test_that_the_newest_request_of_a_topic_wins_over_a_running_one(engine: Engine) -> None:
    old = engine.submit("forever", "evaluate")
    engine.until_kind(JobEvent)
    new = engine.submit("count 1", "evaluate")
    assert engine.end_of(old) == JobCancelled(old, "evaluate")
    assert engine.end_of(new) == JobDone(new, "evaluate")


def test_that_a_look_is_answered_while_a_sweep_runs(engine: Engine) -> None:
    engine.submit("forever", "sweep", Priority.SWEEP)
    engine.until_kind(JobEvent)
    look = engine.submit("count 1", "look", Priority.LOOK)
    assert engine.end_of(look) == JobDone(look, "look")


def test_that_a_bug_in_the_engine_is_a_sentence_with_the_traceback_in_the_log(engine: Engine) -> None:
    failure = engine.end_of(engine.submit("bug"))
    assert isinstance(failure, JobFailed)
    assert "Unexpected error" in failure.sentence
    assert "ZeroDivisionError" in failure.details
    assert "ZeroDivisionError" in engine_log().read_text()


@pytest.mark.parametrize(("command", "words"), [("kill", "memory ran out"), ("crash", "SIGSEGV")])
def test_that_a_death_in_a_job_fails_it_and_what_was_open_is_opened_again(
    engine: Engine, command: str, words: str
) -> None:
    for request in (OpenNetwork("first.onnx"), OpenNetwork("a.onnx"), SetMetric("m.py:f"), OpenData("d.npz")):
        engine.end_of(engine.submit(request))
    fatal = engine.submit(command)
    died = engine.until_kind(EngineDied)
    assert isinstance(died, EngineDied)
    assert words in died.sentence
    assert died.restarting
    assert isinstance(engine.end_of(fatal), JobFailed)
    engine.until_kind(EngineReady)
    assert engine.label_of(engine.submit("opened")) == "a.onnx m.py:f d.npz"


def test_that_an_engine_killed_from_outside_in_the_middle_of_a_job_comes_back(engine: Engine) -> None:
    job = engine.submit("native")
    engine.until_kind(JobEvent)
    assert engine.client.process_id is not None
    os.kill(engine.client.process_id, signal.SIGKILL)
    assert isinstance(engine.end_of(job), JobFailed)
    engine.until_kind(EngineReady)
    assert isinstance(engine.end_of(engine.submit("count 1")), JobDone)


def test_that_jobs_that_had_not_begun_survive_a_death(engine: Engine) -> None:
    fatal = engine.submit("kill", priority=Priority.LOOK)
    waiting = engine.submit("count 1", priority=Priority.SWEEP)
    assert isinstance(engine.end_of(fatal), JobFailed)
    assert isinstance(engine.end_of(waiting), JobDone)


def test_that_an_engine_that_dies_again_and_again_is_left_alone_until_it_is_restarted(engine: Engine) -> None:
    deaths = []
    for _ in range(3):
        engine.submit("kill")
        deaths.append(engine.until_kind(EngineDied))
    assert [death.restarting for death in deaths] == [True, True, False]
    assert "3 times" in deaths[-1].sentence
    refused = engine.end_of(engine.submit("count 1"))
    assert isinstance(refused, JobFailed)
    assert "restart it" in refused.sentence
    engine.client.restart()
    engine.until_kind(EngineReady)
    assert isinstance(engine.end_of(engine.submit("count 1")), JobDone)


def test_that_a_finished_job_between_two_deaths_makes_the_engine_start_again(engine: Engine) -> None:
    for _ in range(4):
        engine.submit("kill")
        died = engine.until_kind(EngineDied)
        assert isinstance(died, EngineDied)
        assert died.restarting
        engine.end_of(engine.submit("count 1"))


def test_that_an_engine_that_cannot_start_is_given_up_with_a_sentence() -> None:
    engine = Engine([sys.executable, "-c", "raise SystemExit(7)"])
    job = engine.submit("count 1")
    died = engine.until(lambda e: isinstance(e, EngineDied) and not e.restarting)
    assert isinstance(died, EngineDied)
    assert "exit code 7" in died.sentence
    assert isinstance(engine.end_of(job), JobFailed)
    engine.client.close()


def test_that_a_program_that_does_not_exist_is_a_sentence() -> None:
    engine = Engine(["/nonexistent/python"])
    died = engine.until_kind(EngineDied)
    assert isinstance(died, EngineDied)
    assert "cannot be started" in died.sentence
    engine.client.close()


def test_that_restarting_ends_a_native_call_and_cancels_all_jobs(engine: Engine) -> None:
    engine.end_of(engine.submit(OpenNetwork("a.onnx")))
    busy = engine.submit("native")
    engine.until_kind(JobEvent)
    waiting = engine.submit("count 1")
    engine.client.restart()
    assert isinstance(engine.end_of(busy), JobCancelled)
    assert isinstance(engine.end_of(waiting), JobCancelled)
    engine.until_kind(EngineReady)
    assert engine.label_of(engine.submit("opened")) == "a.onnx"
    assert not any(isinstance(e, EngineDied) for e in engine.heard)


def test_that_what_cannot_be_opened_again_is_told(tmp_path: Path) -> None:
    engine = Engine()
    engine.end_of(engine.submit(OpenNetwork("a.onnx")))
    engine.client._opened["network"] = OpenNetwork("missing.onnx")
    engine.submit("kill")
    failure = engine.until(lambda e: isinstance(e, JobFailed) and e.topic == "reopen")
    assert isinstance(failure, JobFailed)
    assert failure.sentence == "There is no such file."
    engine.until_kind(EngineReady)
    engine.client.close()


@pytest.mark.parametrize("command", ["count 1", "forever", "native"])
def test_that_closing_ends_the_process_whatever_it_does(command: str) -> None:
    engine = Engine()
    engine.submit(command)
    engine.until_kind(JobEvent)
    number = engine.client.process_id
    assert number is not None
    engine.client.close()
    assert not psutil.pid_exists(number)
    assert not engine.client._thread.is_alive()


def test_that_closing_removes_the_half_written_file_of_a_running_job(tmp_path: Path) -> None:
    engine = Engine()
    partial = tmp_path / "partial"
    engine.submit(f"file {partial}")
    engine.until_kind(JobEvent)
    assert partial.exists()
    engine.client.close()
    assert not partial.exists()


def test_that_a_client_can_be_closed_before_its_process_runs() -> None:
    engine = Engine()
    engine.client.close()
    assert not engine.client._thread.is_alive()
    assert engine.client.process_id is None


@pytest.mark.parametrize("command", ["forever", "native"])
def test_that_no_engine_survives_its_parent(command: str) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", ORPHAN, json.dumps(COMMAND), command],
        stdout=subprocess.PIPE,
        cwd=ROOT,
        text=True,
    )
    assert parent.stdout is not None
    child = psutil.Process(int(parent.stdout.readline()))
    parent.kill()
    parent.wait()
    parent.stdout.close()
    child.wait(timeout=30)


def test_that_the_client_imports_neither_onnxruntime_nor_torch_nor_onnx_nor_qt() -> None:
    script = (
        "import sys; import quantgui.engine.client; "
        "print(*({'onnxruntime', 'torch', 'onnx', 'PySide6', 'quantgui.network', 'quantgui.analysis'} "
        "& set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    assert result.stdout.split() == []
