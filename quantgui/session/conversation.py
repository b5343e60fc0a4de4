"""What has been asked of the engine and what it says: one request under way per topic, no answer nobody waits for.

What failed is not asked again by itself, what the engine died over is asked once more; what the user asks for is
asked in any case.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Protocol, assert_never

from PySide6.QtCore import QObject, Qt, QTimer, Signal

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
from quantgui.engine.requests import (
    Export,
    FindMix,
    MeasureSensitivity,
    OpenData,
    OpenNetwork,
    Priority,
    Request,
    SetMetric,
    TraceNoise,
    Train,
    Verify,
    ViewSample,
    WeightErrors,
)
from quantgui.results import Progress
from quantgui.session.jobs import Job, JobList, JobState
from quantgui.session.wanted import Wanted
from quantgui.spec.config import QuantConfig

_LOG = logging.getLogger(__name__)

LISTEN_SECONDS = 0.008
"""How long the events of the engine may hold up the window's thread at a time."""
SILENCE_SECONDS = 30.0
"""After how long without an event a running job is said to be stalled: each of its steps should take less."""
WATCH_MS = 1000
_ATTEMPTS = 2
"""A request whose work has ended the engine this often is not sent again by itself."""

_SETS_UP = (OpenNetwork, OpenData, SetMetric)
_TAKEN_UP_AGAIN = (MeasureSensitivity, FindMix, TraceNoise, ViewSample, Train)
"""What the user has asked for once and waits for; nothing else would ask for it again."""


class Engine(Protocol):
    """What is needed of `quantgui.engine.client.EngineClient`."""

    def submit(self, request: Request, *, topic: str, priority: Priority) -> int: ...
    def cancel(self, job: int) -> None: ...
    def restart(self) -> None: ...
    def close(self) -> None: ...


class Conversation(QObject):
    """The engine, as far as the session is concerned. Everything is heard in the window's thread.

    Args:
        make_engine: starts the engine; it is given the function that hears events, in any thread.
        clock: seconds, for telling how long nothing has been heard.

    Attributes:
        jobs: the newest job of each topic.

    Signals:
        answered: a result of a request that has not been dropped.
        done: a request, all of whose results have been told.
        failed: a sentence for the user.
        stalled: a running `Job` of which nothing has been heard for `SILENCE_SECONDS`. Its step may just be long, or
            hang for ever in the user's own code; only `restart` ends it then.
        resumed: something has been heard of the engine again.
        settled: something has ended or begun anew; perhaps more is to be asked.
        job_changed: a `Job`.
        state_changed: one of starting, ready, restarting, stopped.
    """

    answered = Signal(object)
    done = Signal(object)
    failed = Signal(str)
    stalled = Signal(object)
    resumed = Signal()
    settled = Signal()
    job_changed = Signal(object)
    state_changed = Signal(str)

    _heard = Signal()

    def __init__(
        self,
        make_engine: Callable[[Callable[[EngineEvent], None]], Engine],
        parent: QObject | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(parent)
        self.jobs = JobList(self.job_changed.emit)
        self._clock = clock
        self._last_heard = clock()
        self._stalled: int | None = None
        self._watch = QTimer(self, interval=WATCH_MS)
        self._watch.timeout.connect(self.watch)
        self._state = "starting"
        self._is_closed = False
        self._under_way: dict[int, Wanted] = {}
        self._refused: dict[Request, int] = {}
        self._interrupted: dict[str, Wanted] = {}
        self._events: deque[EngineEvent] = deque()
        self._listen_timer = QTimer(self, singleShot=True, interval=0)
        self._listen_timer.timeout.connect(self._listen)
        # Queued, so that a job's events never arrive before its number is known.
        self._heard.connect(self._listen_timer.start, Qt.ConnectionType.QueuedConnection)
        self.engine = make_engine(self._hear)

    @property
    def state(self) -> str:
        """One of starting, ready, restarting, stopped."""
        return self._state

    @property
    def is_down(self) -> bool:
        """Whether there is no engine to ask at the moment."""
        return self._state in ("restarting", "stopped")

    # --- asking --------------------------------------------------------------------------------------------------

    def ask(self, topic: str, request: Request, priority: Priority) -> None:
        """Send what the user asks for, even where it has failed before."""
        self.forgive(request)
        self._interrupted.pop(topic, None)
        self._submit(Wanted(topic, request, priority))

    def offer(self, wanted: Iterable[Wanted]) -> None:
        """Send what would be of use, unless it is under way, has failed, or was cancelled by the user."""
        for each in wanted:
            # Requests name a spec for each layer: they are looked up only where something has failed at all.
            if not self._refused or self._refused.get(_hashable(each.request), 0) < _ATTEMPTS:
                self._submit(each)

    def forgive(self, request: Request | None = None) -> None:
        """Let what has failed be offered again: `request`, or everything."""
        if request is None:
            self._refused.clear()
        elif self._refused:
            self._refused.pop(_hashable(request), None)

    def _submit(self, wanted: Wanted) -> None:
        busy = self.jobs.of_topic(wanted.topic)
        if busy is not None and busy.is_active and self._under_way.get(busy.number) == wanted:
            return
        if not any(job.is_active for job in self.jobs):
            self._last_heard = self._clock()
            self._watch.start()
        number = self.engine.submit(wanted.request, topic=wanted.topic, priority=wanted.priority)
        self._under_way[number] = wanted
        self.jobs.add(number, wanted.topic, wanted.request)

    # --- giving up -----------------------------------------------------------------------------------------------

    def cancel(self, topic: str) -> None:
        """Cancel the job of `topic` because the user wants it; it is not offered again."""
        job = self.jobs.of_topic(topic)
        if job is not None and job.is_active:
            if job.number in self._under_way:
                self._refused[_hashable(self._under_way[job.number].request)] = _ATTEMPTS
            self.engine.cancel(job.number)
        self._interrupted.pop(topic, None)

    def drop(self, topics: Iterable[str]) -> None:
        """Cancel the jobs of `topics`, whose answers have no meaning any more."""
        for topic in topics:
            self._interrupted.pop(topic, None)
            job = self.jobs.of_topic(topic)
            if job is not None and job.is_active:
                self.engine.cancel(job.number)
                self._under_way.pop(job.number, None)

    def drop_all(self, *, but_opening: bool = False) -> None:
        """Cancel everything, or all that asks something of what is open."""
        self._interrupted = {}
        self._refused = {}
        for number, wanted in tuple(self._under_way.items()):
            if not (but_opening and isinstance(wanted.request, _SETS_UP)):
                self.engine.cancel(number)
                del self._under_way[number]
        self.jobs.forget_ended()

    def drop_outdated(self, topics: Iterable[str], config: QuantConfig) -> None:
        """Cancel the jobs of `topics` that are about another configuration; what they have found stays of use."""
        for topic in topics:
            job = self.jobs.of_topic(topic)
            wanted = None if job is None else self._under_way.get(job.number)
            asked = None if wanted is None else getattr(wanted.request, "config", None)
            if job is not None and job.is_active and asked is not None and asked != config:
                self.engine.cancel(job.number)

    def restart(self) -> None:
        """End the engine process and start a new one."""
        self._set_state("restarting")
        self._refused.clear()
        self._interrupted.clear()
        if self._stalled is not None and (stalled := self._under_way.get(self._stalled)):
            # It would hang again.
            self._refused[_hashable(stalled.request)] = _ATTEMPTS
        self._on_sign_of_life()
        self.engine.restart()

    def close(self) -> None:
        """End the engine at once; nothing is heard of it any more."""
        self._is_closed = True
        self._watch.stop()
        self.engine.close()

    # --- hearing -------------------------------------------------------------------------------------------------

    def _hear(self, event: EngineEvent) -> None:
        """Keep an event for the window's thread; called in another one."""
        self._events.append(event)
        self._heard.emit()

    def _listen(self) -> None:
        """Take what the engine has said, for a part of a frame: a busy engine must not hold up what the user does."""
        end = time.perf_counter() + LISTEN_SECONDS
        while self._events and time.perf_counter() < end:
            self._on_heard(self._events.popleft())
        if self._events:
            self._listen_timer.start()

    def _on_heard(self, event: EngineEvent) -> None:
        if self._is_closed:
            return
        self._on_sign_of_life()
        match event:
            case JobStarted(job):
                self.jobs.start(job)
            case JobEvent(job, _, Progress() as progress):
                self.jobs.report(job, progress)
            case JobEvent(job, _, result):
                # What is left of a network or data that is no longer open is not under way any more.
                if job in self._under_way:
                    self.answered.emit(result)
            case JobDone(job):
                self._on_done(job)
            case JobFailed(job, _, sentence, details):
                self._on_failed(job, sentence, details)
            case JobCancelled(job):
                self._under_way.pop(job, None)
                self.jobs.end(job, JobState.CANCELLED)
            case EngineDied(sentence, restarting):
                self._set_state("restarting" if restarting else "stopped")
                self.failed.emit(sentence)
            case EngineReady():
                self._on_ready()
            case _:
                assert_never(event)

    # --- silence -------------------------------------------------------------------------------------------------

    def watch(self) -> None:
        """Look whether the engine has gone silent over a job."""
        active = [job for job in self.jobs if job.is_active]
        if not active:
            self._watch.stop()
        elif self._stalled is None and self._is_silent():
            stalled = min(active, key=self._turn)
            self._stalled = stalled.number
            self.jobs.mark_stalled(stalled.number, stalled=True)
            self.stalled.emit(replace(stalled, stalled=True))

    def _is_silent(self) -> bool:
        # What has been heard and not been taken yet is a sign of life, too.
        expected = self._state == "ready" and not self._events
        return expected and self._clock() - self._last_heard >= SILENCE_SECONDS

    def _turn(self, job: Job) -> tuple[bool, Priority, int]:
        """Return the order in which the engine works on jobs: the first is the one that it cannot get on with."""
        wanted = self._under_way.get(job.number)
        return job.state is not JobState.RUNNING, Priority.SWEEP if wanted is None else wanted.priority, job.number

    def _on_sign_of_life(self) -> None:
        self._last_heard = self._clock()
        if self._stalled is not None:
            self.jobs.mark_stalled(self._stalled, stalled=False)
            self._stalled = None
            self.resumed.emit()

    def _on_ready(self) -> None:
        self._set_state("ready")
        interrupted, self._interrupted = self._interrupted, {}
        for wanted in interrupted.values():
            self._submit(wanted)
        self.settled.emit()

    def _on_done(self, job: int) -> None:
        wanted = self._under_way.pop(job, None)
        self.jobs.end(job, JobState.DONE)
        if wanted is not None:
            self.done.emit(wanted.request)
        self.settled.emit()

    def _on_failed(self, job: int, sentence: str, details: str) -> None:
        wanted = self._under_way.pop(job, None)
        self.jobs.end(job, JobState.FAILED, sentence)
        if details:
            _LOG.error("%s", details)
        if not self.is_down:
            if wanted is not None:
                # What failed with a sentence would fail again.
                self._refused[_hashable(wanted.request)] = _ATTEMPTS
            self.failed.emit(sentence)
            self.settled.emit()
            return
        if wanted is not None:
            self._on_died_over(wanted)
        if wanted is None or isinstance(wanted.request, (*_SETS_UP, Export, Verify)):
            self.failed.emit(sentence)

    def _on_died_over(self, wanted: Wanted) -> None:
        """Note what went down with the engine: it deserves a second try, and no third one."""
        key = _hashable(wanted.request)
        self._refused[key] = self._refused.get(key, 0) + 1
        if isinstance(wanted.request, _TAKEN_UP_AGAIN) and self._refused[key] < _ATTEMPTS:
            self._interrupted[wanted.topic] = wanted

    def _set_state(self, state: str) -> None:
        if state != self._state:
            self._state = state
            self.state_changed.emit(state)


def _hashable(request: Request) -> Request:
    """Return a stand-in for `request` that can be a key."""
    if isinstance(request, WeightErrors):
        return replace(request, specs=frozenset(request.specs.items()))  # type: ignore[arg-type]
    return request
