"""A session whose engine writes down what it is asked, so that a test can answer when and how it likes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from gui_examples import W4_CHANNEL, layer, weight_view, weights
from PySide6.QtWidgets import QApplication

from quantgui.engine.messages import EngineReady, JobDone, JobEvent, JobFailed, JobStarted
from quantgui.engine.requests import OpenData, OpenNetwork
from quantgui.results import (
    Candidate,
    DataOpened,
    DataSummary,
    Evaluation,
    EvaluationReady,
    LayerInfo,
    MixPoint,
    MixReady,
    NetworkOpened,
    NetworkSummary,
    NoiseReady,
    Score,
    Sensitivity,
    SensitivityReady,
    TensorInfo,
    WeightViewReady,
)
from quantgui.session.session import Session
from quantgui.spec.config import QuantConfig
from quantgui.spec.mix import Mix
from quantgui.spec.quantizer import LayerSpec
from quantgui.spec.sweep import Sweep

LAYERS = (
    layer("conv1", 8, 4),
    layer("conv2", 8, 8),
    layer("frozen", 8, 8, read_only=True, dtype="int8", stored_bytes=640),
    layer("table", 8, 8, op="Gather", finite=False, quantizes_activations=False),
    layer("stft", 8, 8, signal_transform=True),
    layer("fc", 8, 8, op="Gemm", macs=1000),
)


@dataclass
class RecordingEngine:
    """Answers nothing by itself."""

    hear: Callable
    requests: dict = field(default_factory=dict)
    topics: dict = field(default_factory=dict)
    cancelled: list = field(default_factory=list)
    restarts: int = 0
    closed: bool = False

    def submit(self, request, *, topic, priority) -> int:
        number = len(self.requests) + 1
        self.requests[number] = request
        self.topics[number] = (topic, priority)
        return number

    def cancel(self, job) -> None:
        self.cancelled.append(job)

    def restart(self) -> None:
        self.restarts += 1

    def close(self) -> None:
        self.closed = True

    # --- what a test says --------------------------------------------------------------------------------------

    def newest(self, kind: type) -> int:
        """Return the number of the newest request of a kind; 0 where there is none."""
        return max((n for n, request in self.requests.items() if isinstance(request, kind)), default=0)

    def count(self, kind: type) -> int:
        return sum(isinstance(request, kind) for request in self.requests.values())

    def say(self, *events) -> None:
        for event in events:
            self.hear(event)
            # One by one: of many at once the session takes what fits into a part of a frame, and it begins a turn
            # of the event loop later.
            QApplication.processEvents()
            QApplication.processEvents()

    def answer(self, job: int, *results) -> None:
        topic = self.topics[job][0]
        self.say(JobStarted(job, topic), *(JobEvent(job, topic, r) for r in results), JobDone(job, topic))

    def fail(self, job: int, sentence: str) -> None:
        self.say(JobStarted(job, self.topics[job][0]), JobFailed(job, self.topics[job][0], sentence))


def summary(layers: tuple[LayerInfo, ...] = LAYERS, path: str = "net.onnx") -> NetworkSummary:
    return NetworkSummary(
        name="net",
        path=path,
        fingerprint="f",
        opset=17,
        ir_version=8,
        producer="tests",
        parameters=sum(x.parameters for x in layers),
        file_bytes=100_000,
        float_bytes=sum(640 if x.read_only else 4 * x.parameters for x in layers) + 1000,
        inputs=(TensorInfo("x", "float32", (1, 3, 8, 8)),),
        outputs=(TensorInfo("y", "float32", (1, 10)),),
        layers=layers,
    )


def data(source: str = "samples.npz", **changes) -> DataSummary:
    values = {"samples": 100, "inputs": (), "has_labels": True, "trustworthy": True, "fingerprint": "d"}
    return DataSummary(source, **(values | changes))


def evaluation(value: float = 0.9, samples: int = 100, total: int = 100) -> Evaluation:
    score = Score(value, 0.01, samples)
    return Evaluation("accuracy", True, Score(0.95, 0.01, samples), score, 20.0, {"accuracy": score}, 0.1, total)


def make_session(folder: Path) -> tuple[Session, RecordingEngine]:
    engines: list[RecordingEngine] = []

    def make(hear) -> RecordingEngine:
        engines.append(RecordingEngine(hear))
        return engines[0]

    return Session(make, folder), engines[0]


def open_network(session: Session, engine: RecordingEngine, path: str = "net.onnx", layers=LAYERS) -> None:
    session.open_network(path)
    engine.say(EngineReady())
    engine.answer(engine.newest(OpenNetwork), NetworkOpened(summary(layers, path)))


def open_data(session: Session, engine: RecordingEngine, source: str = "samples.npz", **changes) -> None:
    session.open_data(source)
    engine.answer(engine.newest(OpenData), DataOpened(data(source, **changes)))


def view(name: str, spec=W4_CHANNEL) -> WeightViewReady:
    return WeightViewReady(weight_view(weights(8, 72, ()), spec, name))


def evaluated(config, value: float = 0.9, samples: int = 100) -> EvaluationReady:
    return EvaluationReady(config, evaluation(value, samples))


def candidate(sweep: Sweep, name: str, spec: LayerSpec, value: float = float("nan"), samples: int = 0) -> Candidate:
    return Candidate(name, sweep.label(spec), sweep.candidate(name, spec), value, 0.1, samples, 1000, 20.0)


def sensitivity(sweep: Sweep) -> Sensitivity:
    """Return the table of a sweep before anything is measured."""
    candidates = tuple(candidate(sweep, name, spec) for name in sweep.swept(LAYERS) for spec in sweep.specs)
    score = Score(30.0, 0.1, 64)
    return Sensitivity(sweep, sweep.metric, True, score, candidates, {}, float("nan"), 64, 1.0, 0.0, 1, 0, 0, False)


def sensitivity_news(sweep: Sweep, name: str, spec: LayerSpec | None = None, value: float = 10.0) -> SensitivityReady:
    return SensitivityReady(sweep, (candidate(sweep, name, spec or sweep.specs[0], value, 64),))


def mix_ready(mix: Mix) -> MixReady:
    points = (MixPoint(QuantConfig(mix.sweep.specs[0]), 1e5, 100_000, 10.0),)
    return MixReady(mix, "output_sqnr_db", True, Score(30.0, 0.1, 64), points, 0, 0.1, None, (), 0.0, 1.0, True)


def noise_ready(config: QuantConfig, samples: int, *, complete: bool = True) -> NoiseReady:
    nothing = np.zeros((0, samples), np.float32)
    return NoiseReady(config, (), samples, nothing, nothing > 0, np.zeros(samples, bool), False, complete)
