"""What the engine is doing for the open document, one row per topic."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from PySide6.QtCore import QCoreApplication

from quantgui.engine.requests import (
    Advise,
    Calibrate,
    CompareNetwork,
    Evaluate,
    ExamineData,
    Export,
    FindMix,
    FindTraining,
    MeasureSensitivity,
    OpenData,
    OpenNetwork,
    ReadSettings,
    Request,
    SetMetric,
    TraceNoise,
    Train,
    Verify,
    ViewSample,
    ViewWeight,
    WeightErrors,
    WriteReport,
    WriteSettings,
)
from quantgui.results import Progress

translate = QCoreApplication.translate


class JobState(StrEnum):
    """Life of a job; the last three end it."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


ENDED = (JobState.DONE, JobState.FAILED, JobState.CANCELLED)


@dataclass(frozen=True, slots=True)
class Job:
    """One request under way, or ended.

    `seconds` since its start; `sentence` says why it failed. `stalled` where nothing has been heard of it for long.
    """

    number: int
    topic: str
    title: str
    state: JobState = JobState.WAITING
    progress: Progress = field(default_factory=lambda: Progress(0, 0))
    seconds: float = 0.0
    sentence: str = ""
    stalled: bool = False

    @property
    def is_active(self) -> bool:
        """Whether it waits or runs."""
        return self.state not in ENDED


def title_of(request: Request) -> str:  # noqa: C901 -- one case for each request
    """Return the words for `request` in the list of jobs."""
    match request:
        case OpenNetwork(path):
            return translate("jobs", "Open {name}").format(name=Path(path).name)
        case OpenData(source):
            name = source if source.startswith("random:") else Path(source).name
            return translate("jobs", "Read {name}").format(name=name)
        case SetMetric(function):
            name = function.rpartition(":")[2] or translate("jobs", "automatic")
            return translate("jobs", "Load the metric {name}").format(name=name)
        case ViewWeight(layer):
            return translate("jobs", "Weights of {layer}").format(layer=layer)
        case WeightErrors(specs):
            return translate("jobs", "Weight errors ({n})").format(n=len(specs))
        case Calibrate():
            return translate("jobs", "Calibrate activations")
        case Evaluate(config):
            return translate("jobs", "Evaluate {name}").format(name=config.name or translate("jobs", "the network"))
        case Advise(config):
            return translate("jobs", "Advice on {name}").format(name=config.name or translate("jobs", "the network"))
        case MeasureSensitivity(sweep):
            match sweep.what:
                case "weights":
                    return translate("jobs", "Sensitivity of weights")
                case "activations":
                    return translate("jobs", "Sensitivity of activations")
                case "both":
                    return translate("jobs", "Sensitivity of weights and activations")
        case FindMix(mix):
            return translate("jobs", "Find a mix of {n} formats").format(n=len(mix.sweep.specs))
        case ExamineData():
            return translate("jobs", "Check the data")
        case TraceNoise(config):
            return translate("jobs", "Noise of {name}").format(name=config.name or translate("jobs", "the network"))
        case ViewSample(_, sample):
            return translate("jobs", "Outputs for sample {n}").format(n=sample)
        case Train(config):
            return translate("jobs", "Train {name}").format(name=config.name or translate("jobs", "the network"))
        case FindTraining():
            return translate("jobs", "Look for a training that was left")
        case Export(path=path):
            return translate("jobs", "Export {name}").format(name=Path(path).name)
        case Verify(_, path):
            return translate("jobs", "Verify {name}").format(name=Path(path).name)
        case WriteSettings(_, path) | WriteReport(_, path):
            return translate("jobs", "Write {name}").format(name=Path(path).name)
        case CompareNetwork(_, path):
            return translate("jobs", "Compare with {name}").format(name=Path(path).name)
        case ReadSettings(path):
            return translate("jobs", "Read {name}").format(name=Path(path).name)


class JobList:
    """The newest job of each topic, in the order in which the topics came up."""

    def __init__(self, on_change: Callable[[Job], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._on_change = on_change
        self._clock = clock
        self._by_topic: dict[str, Job] = {}
        self._begun: dict[int, float] = {}

    def __iter__(self) -> Iterator[Job]:
        return iter(tuple(self._by_topic.values()))

    def of_topic(self, topic: str) -> Job | None:
        """Return the newest job of `topic`, ended or not."""
        return self._by_topic.get(topic)

    def is_active(self, topic: str) -> bool:
        """Return whether the newest job of `topic` waits or runs."""
        job = self._by_topic.get(topic)
        return job is not None and job.is_active

    def forget_ended(self) -> None:
        """Forget the jobs that have ended: what they were about is no longer open."""
        self._by_topic = {topic: job for topic, job in self._by_topic.items() if job.is_active}

    def add(self, number: int, topic: str, request: Request) -> None:
        """Note a job that has been sent to the engine."""
        self._set(Job(number, topic, title_of(request)))

    def start(self, number: int) -> None:
        """Note that the engine has begun with a job."""
        self._begun[number] = self._clock()
        self._change(number, state=JobState.RUNNING)

    def report(self, number: int, progress: Progress) -> None:
        """Note how far a job is."""
        self._change(number, progress=progress)

    def mark_stalled(self, number: int, *, stalled: bool) -> None:
        """Note that nothing has been heard of a job for long, or that it goes on after all."""
        self._change(number, stalled=stalled)

    def end(self, number: int, state: JobState, sentence: str = "") -> None:
        """Note how a job has ended."""
        self._change(number, state=state, sentence=sentence, stalled=False)
        self._begun.pop(number, None)

    def _change(self, number: int, **changes: Any) -> None:
        job = next((j for j in self._by_topic.values() if j.number == number), None)
        if job is None:
            return
        begun = self._begun.get(number)
        seconds = 0.0 if begun is None else self._clock() - begun
        self._set(replace(job, seconds=seconds, **changes))

    def _set(self, job: Job) -> None:
        self._by_topic[job.topic] = job
        self._on_change(job)
