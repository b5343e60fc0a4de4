"""Which job takes the next step: the part of the engine's loop that knows neither processes nor networks.

A job is a generator of events; one `next()` is one step. Requests that change what is open (`OpenNetwork`,
`OpenData`, `SetMetric`) run in the order in which they came and before everything else; all others run by priority,
then by age. So something the user looks at overtakes a sweep at the sweep's next step.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from quantgui.engine.messages import Cancel, EngineEvent, JobCancelled, JobDone, JobEvent, JobFailed, JobStarted, Submit
from quantgui.engine.requests import OpenData, OpenNetwork, Request, SetMetric
from quantgui.errors import QuantGuiError, is_out_of_memory
from quantgui.results import Event

_LOG = logging.getLogger(__name__)


@dataclass(eq=False)
class _Job:
    command: Submit
    age: int
    steps: Iterator[Event] | None = None
    rank: tuple[int, int, int] = field(init=False)

    def __post_init__(self) -> None:
        sets_up = isinstance(self.command.request, OpenNetwork | OpenData | SetMetric)
        self.rank = (0, 0, self.age) if sets_up else (1, self.command.priority, self.age)


class Scheduler:
    """The jobs that wait or run, and the rule by which they take turns.

    Args:
        handle: answers a request with a generator of events.
        report: receives what happens, in order. An event it cannot take fails the job.
    """

    def __init__(self, handle: Callable[[Request], Iterator[Event]], report: Callable[[EngineEvent], None]) -> None:
        self._handle = handle
        self._report = report
        self._jobs: dict[int, _Job] = {}
        self._ages = count()

    @property
    def is_idle(self) -> bool:
        """Whether no job waits or runs."""
        return not self._jobs

    def obey(self, command: Submit | Cancel) -> None:
        """Take a new job, or drop one."""
        if isinstance(command, Cancel):
            self.cancel(command.job)
            return
        for job in [j for j in self._jobs.values() if j.command.topic == command.topic]:
            self.cancel(job.command.job)
        self._jobs[command.job] = _Job(command, next(self._ages))

    def cancel(self, number: int) -> None:
        """Drop the job `number`; nothing happens where it has ended already."""
        if job := self._jobs.pop(number, None):
            _close(job)
            self._report(JobCancelled(number, job.command.topic))

    def close(self) -> None:
        """Drop all jobs without a report, so that half-written files are removed."""
        for job in self._jobs.values():
            _close(job)
        self._jobs.clear()

    def step(self) -> None:
        """Let the job whose turn it is take one step."""
        if not self._jobs:
            return
        job = min(self._jobs.values(), key=lambda j: j.rank)
        number, topic = job.command.job, job.command.topic
        try:
            if job.steps is None:
                self._report(JobStarted(number, topic))
                job.steps = self._handle(job.command.request)
            event = next(job.steps)
            self._report(JobEvent(number, topic, event))
        except StopIteration:
            del self._jobs[number]
            self._finish(job)
        except Exception as error:  # noqa: BLE001 -- a job that fails, for whatever reason, must not end the others
            del self._jobs[number]
            _close(job)
            self._fail(job, error)

    def _finish(self, job: _Job) -> None:
        number, topic = job.command.job, job.command.topic
        if isinstance(job.command.request, OpenNetwork):
            # What was asked of the network before has no one left who waits for it.
            for old in [j for j in self._jobs.values() if j.age < job.age]:
                self.cancel(old.command.job)
        self._report(JobDone(number, topic))

    def _fail(self, job: _Job, error: Exception) -> None:
        number, topic = job.command.job, job.command.topic
        sentence, details = describe(error)
        if details:
            _LOG.error("%s failed\n%s", type(job.command.request).__name__, details)
        self._report(JobFailed(number, topic, sentence, details))
        if isinstance(job.command.request, OpenNetwork):
            self._fail_what_was_meant_for(job)

    def _fail_what_was_meant_for(self, opening: _Job) -> None:
        """Fail the data and metrics that were sent after a network that could not be opened."""
        for job in sorted(self._jobs.values(), key=lambda j: j.age):
            request = job.command.request
            if job.age < opening.age:
                continue
            if isinstance(request, OpenNetwork):
                return
            if isinstance(request, OpenData):
                del self._jobs[job.command.job]
                sentence = "The data was not opened, because its network could not be opened."
                self._report(JobFailed(job.command.job, job.command.topic, sentence))


def describe(error: BaseException) -> tuple[str, str]:
    """Return a sentence for the user, and the traceback where the error is a bug (else empty)."""
    match error:
        case QuantGuiError():
            return str(error), ""
        case _ if is_out_of_memory(error):
            return "There is not enough memory for this; use fewer samples or a smaller network.", ""
        case _:
            details = "".join(traceback.format_exception(error))
            what = " ".join(f"{type(error).__name__}: {error}".split())
            return f"Unexpected error, which is a fault of the program: {what[:300]}", details


def _close(job: _Job) -> None:
    steps: Any = job.steps
    job.steps = None
    if isinstance(steps, Generator):
        try:
            steps.close()
        except Exception:  # noqa: BLE001 -- what fails while it is being dropped has nobody left to tell but the log
            _LOG.exception("%s failed while it was cancelled", type(job.command.request).__name__)
