"""The one mutable object: the open network, its configuration, what is selected, and what the engine found out.

A change of the configuration is one undo step; what is known of the new one is shown in the same frame, what is
missing is asked of the engine. Results arrive under the key they answer, so none can be stale.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol, assert_never

from PySide6.QtCore import QObject, Qt, QTimer, Signal
from PySide6.QtGui import QUndoStack

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
    Calibrate,
    Evaluate,
    Export,
    FindMix,
    MeasureSensitivity,
    OpenData,
    OpenNetwork,
    Priority,
    Request,
    SetMetric,
    TraceNoise,
    Verify,
    ViewSample,
    WeightErrors,
)
from quantgui.errors import SpecError
from quantgui.results import (
    ActivationReady,
    AdviceReady,
    Calibrated,
    DataOpened,
    DataSummary,
    Evaluation,
    EvaluationReady,
    Event,
    Exported,
    ImageOptions,
    LayerInfo,
    MixReady,
    NetworkOpened,
    NetworkSummary,
    NoiseReady,
    Progress,
    SampleReady,
    Sensitivity,
    SensitivityReady,
    TensorError,
    Verification,
    WeightErrorReady,
    WeightView,
    WeightViewReady,
)
from quantgui.session.jobs import Job, JobList, JobState
from quantgui.session.project import Autosave, Project
from quantgui.session.recent import RecentFile, RecentFiles
from quantgui.session.results_store import ResultStore
from quantgui.session.undo import SetConfig
from quantgui.session.wanted import Situation, Wanted, wanted_requests
from quantgui.spec.config import QuantConfig, UnknownName, changed_layers, unknown_names
from quantgui.spec.mix import Mix
from quantgui.spec.quantizer import FLOAT, LayerSpec
from quantgui.spec.serialization import load_config, save_config
from quantgui.spec.size import network_bytes
from quantgui.spec.sweep import Sweep

_LOG = logging.getLogger(__name__)

AUTOSAVE_MS = 800
SETTLE_MS = 250
"""How long a dragged configuration must rest before it is evaluated."""
LISTEN_SECONDS = 0.008
"""How long the events of the engine may hold up the window's thread at a time."""
_DEATHS_BEFORE_GIVING_UP = 2
"""A request whose work has ended the engine this often is not sent again by itself."""

_EDITED = " edited"
_OF_DATA = ("calibrate", "evaluate", "advise", "verify", "sensitivity", "mix", "noise", "sample")
_ASKED_FOR: Mapping[str, Priority] = {
    "sensitivity": Priority.SWEEP,
    "mix": Priority.SWEEP,
    "noise": Priority.EVALUATE,
    "sample": Priority.EVALUATE,
}
"""Topics of what the user asks for and waits for: asked again by itself where the engine has died over it."""
_OF_METRIC = ("evaluate", "advise", "verify", "sensitivity", "mix")


Side = Literal["A", "B"]
"""One of the two configurations that are compared."""


class Engine(Protocol):
    """What the session needs of `quantgui.engine.client.EngineClient`."""

    def submit(self, request: Request, *, topic: str, priority: Priority) -> int: ...
    def cancel(self, job: int) -> None: ...
    def restart(self) -> None: ...
    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Tried:
    """A configuration that has been evaluated, for the quality-against-size plot."""

    config: QuantConfig
    bytes: int
    evaluation: Evaluation


@dataclass(slots=True)
class _AfterOpening:
    """What follows when the network has been opened."""

    data: str = ""
    image_options: ImageOptions | None = None
    metric: str = ""
    config: QuantConfig | None = None
    config_path: str = ""
    recovered: bool = False
    calibration: str = ""


class Session(QObject):
    """The open document.

    Args:
        make_engine: starts the engine; it is given the function that hears events, in any thread.
        folder: where the autosave and the list of recent files lie.
    """

    network_opened = Signal(object)  # NetworkSummary
    network_closed = Signal()
    data_opened = Signal(object)  # DataSummary
    config_changed = Signal(object)  # frozenset of layer names
    selection_changed = Signal(object)  # tuple of layer names
    weight_view_ready = Signal(str)
    weight_error_ready = Signal(str)
    activation_ready = Signal(str)
    evaluation_ready = Signal(object)  # EvaluationReady
    advice_ready = Signal(object)  # AdviceReady
    sensitivity_ready = Signal(object)  # Sensitivity, the newest numbers merged in
    mix_ready = Signal(object)  # MixReady
    noise_ready = Signal(object)  # NoiseReady
    sample_ready = Signal(object)  # SampleReady
    pins_changed = Signal()
    exported = Signal(object)
    verified = Signal(object)
    job_changed = Signal(object)  # Job
    failed = Signal(str)
    noticed = Signal(str)  # something worth a sentence that is no failure
    engine_state_changed = Signal(str)
    saved_changed = Signal()  # the configuration's file, or whether it is saved

    _heard = Signal()
    _writing_failed = Signal(str)

    def __init__(
        self,
        make_engine: Callable[[Callable[[EngineEvent], None]], Engine],
        folder: Path,
        parent: QObject | None = None,
    ) -> None:
        super().__init__(parent)
        self.undo_stack = QUndoStack(self)
        self.jobs = JobList(self.job_changed.emit)
        self.recent = RecentFiles(folder / "recent.json")
        self.store = ResultStore()
        self.evaluates_automatically = True
        self._autosave = Autosave(folder)
        # Waiting for a slow disk is nothing for the window's thread.
        self._writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="quantgui writer")
        self._autosave_timer = QTimer(self, singleShot=True, interval=AUTOSAVE_MS)
        self._autosave_timer.timeout.connect(self._write_autosave)
        self._settle_timer = QTimer(self, singleShot=True, interval=SETTLE_MS)
        self._settle_timer.timeout.connect(self.refresh)
        self._summary: NetworkSummary | None = None
        self._layers: dict[str, LayerInfo] = {}
        self._data: DataSummary | None = None
        self._metric = ""
        self._config = self._saved_config = QuantConfig()
        self._config_path = ""
        self._selection: tuple[str, ...] = ()
        self._shows_activations = False
        self._tried: dict[object, Tried] = {}
        self._newest_evaluation: Evaluation | None = None
        self._last_export: Exported | None = None
        self._pins: dict[Side, QuantConfig | None] = {"A": None, "B": None}
        self._engine_state = "starting"
        self._closed = False
        self._requests: dict[int, Request] = {}
        self._refused: dict[Request, int] = {}
        self._interrupted: dict[str, Wanted] = {}
        self._after_opening = _AfterOpening()
        self._events: deque[EngineEvent] = deque()
        self._listen_timer = QTimer(self, singleShot=True, interval=0)
        self._listen_timer.timeout.connect(self._listen)
        # Queued, so that a job's events never arrive before its number is known.
        self._heard.connect(self._listen_timer.start, Qt.ConnectionType.QueuedConnection)
        self._writing_failed.connect(self.failed, Qt.ConnectionType.QueuedConnection)
        self._engine = make_engine(self._hear)

    # --- state ---------------------------------------------------------------------------------------------------

    @property
    def summary(self) -> NetworkSummary | None:
        """The open network."""
        return self._summary

    @property
    def data(self) -> DataSummary | None:
        """The open data."""
        return self._data

    @property
    def metric(self) -> str:
        """The user's metric function, ``FILE.py:function``; empty for the automatic metric."""
        return self._metric

    @property
    def config(self) -> QuantConfig:
        """The current configuration."""
        return self._config

    @property
    def config_path(self) -> str:
        """The file the configuration was read from or saved to, or empty."""
        return self._config_path

    @property
    def is_saved(self) -> bool:
        """Whether nothing would be lost without saving the configuration."""
        return self._summary is None or self._config == self._saved_config

    @property
    def engine_state(self) -> str:
        """One of starting, ready, restarting, stopped."""
        return self._engine_state

    @property
    def selection(self) -> tuple[str, ...]:
        """Names of the selected layers; the first is the one the tabs show."""
        return self._selection

    @property
    def selected_layers(self) -> tuple[LayerInfo, ...]:
        """The selected layers."""
        return tuple(self._layers[name] for name in self._selection)

    @property
    def current(self) -> LayerInfo | None:
        """The layer that the tabs show."""
        return self._layers[self._selection[0]] if self._selection else None

    @property
    def current_view(self) -> WeightView | None:
        """What is known of the current layer's weight under its current spec."""
        if self.current is None:
            return None
        return self.store.view(self.current.name, self.spec_for(self.current.name).weights)

    @property
    def evaluation(self) -> Evaluation | None:
        """What is known of the quality under the current configuration."""
        return self.store.evaluation(self._config)

    @property
    def newest_evaluation(self) -> Evaluation | None:
        """The newest evaluation of any configuration, for the float network's value."""
        return self.evaluation or self._newest_evaluation

    @property
    def tried(self) -> tuple[Tried, ...]:
        """All configurations evaluated on the open data, in the order in which they were first tried."""
        return tuple(self._tried.values())

    @property
    def sensitivity(self) -> Sensitivity | None:
        """The newest table of sensitivity for the open data and metric, as far as it is measured."""
        return self.store.sensitivity

    @property
    def mix(self) -> MixReady | None:
        """The newest search for a mix of formats for the open data and metric, as far as it is known."""
        return self.store.mix

    @property
    def noise(self) -> NoiseReady | None:
        """Where noise is made under the current configuration; None while unknown."""
        return self.store.noise(self._config)

    @property
    def pins(self) -> tuple[QuantConfig | None, QuantConfig | None]:
        """The configurations A and B that are compared."""
        return self._pins["A"], self._pins["B"]

    @property
    def last_export(self) -> Exported | None:
        """The file exported last from this network."""
        return self._last_export

    def layer(self, name: str) -> LayerInfo | None:
        """Return the layer called `name`."""
        return self._layers.get(name)

    def spec_for(self, name: str) -> LayerSpec:
        """Return what happens to a layer; those that cannot be changed stay as they are in the file."""
        return self._config.spec_for(name) if self.is_editable(name) else FLOAT

    def weight_error(self, name: str) -> TensorError | None:
        """Return the weight error of a layer under its current spec; None where it is float, or not known yet."""
        spec = self.spec_for(name).weights
        return None if spec is None else self.store.error(name, spec)

    def similar_layers(self, name: str) -> tuple[LayerInfo, ...]:
        """Return all layers that can be changed and have the operator of the layer `name`."""
        op = self._layers[name].op
        return tuple(x for x in self._layers.values() if x.op == op and self.is_editable(x.name))

    def size(self, config: QuantConfig | None = None) -> int:
        """Return the bytes of the network under `config`, or under the current one."""
        if self._summary is None:
            return 0
        return network_bytes(self._summary.float_bytes, self._summary.layers, config or self._config)

    def current_tried(self) -> int | None:
        """Return the place of the current configuration in `tried`."""
        key = self.store.key(self._config)
        return next((i for i, known in enumerate(self._tried) if known == key), None)

    # --- opening -------------------------------------------------------------------------------------------------

    def open_network(
        self,
        path: str,
        data: str = "",
        config: QuantConfig | None = None,
        image_options: ImageOptions | None = None,
        calibration: str = "",
    ) -> None:
        """Open the network at `path`, then `data` (if any), with `config` (or everything float)."""
        self._after_opening = _AfterOpening(data, image_options, config=config, calibration=calibration)
        self._submit(Wanted("network", OpenNetwork(_absolute(path)), Priority.OPEN))

    def open_data(self, source: str, image_options: ImageOptions | None = None, calibration: str = "") -> None:
        """Open data for evaluation, and for calibration if `calibration` names no other.

        Each is a file, a folder of images, or ``random:N``.
        """
        request = OpenData(_absolute(source), image_options, _absolute(calibration))
        self._submit(Wanted("data", request, Priority.OPEN))

    def set_metric(self, function: str) -> None:
        """Measure quality with the user's ``FILE.py:function``; empty for the automatic metric."""
        self._submit(Wanted("metric", SetMetric(_absolute(function)), Priority.OPEN))

    def recover(self) -> bool:
        """Open again what a crashed program has left behind; return whether there was anything."""
        project = self._autosave.take_left_behind()
        if project is None or not Path(project.network).is_file():
            return False
        self._after_opening = _AfterOpening(
            project.data,
            project.image_options,
            project.metric,
            project.config,
            project.config_path,
            True,
            project.calibration,
        )
        self._submit(Wanted("network", OpenNetwork(project.network), Priority.OPEN))
        return True

    def close_network(self) -> None:
        """Forget the open network; its configuration can no longer be saved."""
        if self._summary is None:
            return
        for number in tuple(self._requests):
            self._engine.cancel(number)
        self._requests.clear()
        self._reset(None)
        self.forget_autosave()
        self.network_closed.emit()
        self.saved_changed.emit()

    # --- configuration -------------------------------------------------------------------------------------------

    def set_config(self, new: QuantConfig, text: str, *, merge_key: str = "") -> None:
        """Replace the configuration in one undo step; steps with the same `merge_key` that follow become one."""
        self._settle_timer.stop()
        self._push(new, text, merge_key)

    def drag_config(self, new: QuantConfig, text: str, *, merge_key: str) -> None:
        """Replace the configuration while something is dragged; it is evaluated when it has rested for a moment.

        Calls with the same `merge_key` that follow are one undo step.
        """
        self._settle_timer.start()
        self._push(new, text, merge_key)

    def _push(self, new: QuantConfig, text: str, merge_key: str) -> None:
        if self._summary is not None and new != self._config:
            self.undo_stack.push(SetConfig(self._apply, self._config, new, text, merge_key))

    def pin(self, side: Side, config: QuantConfig | None) -> None:
        """Hold a configuration fast as one of the two that are compared; None lets it go."""
        if self._pins[side] != config:
            self._pins[side] = config
            self.pins_changed.emit()

    def set_specs(self, specs: Mapping[str, LayerSpec], text: str, *, merge_key: str = "") -> None:
        """Give layers new specs in one undo step; read-only and non-finite layers keep theirs."""
        editable = {name: spec for name, spec in specs.items() if self.is_editable(name)}
        new = self._config.with_overrides(editable)
        self.set_config(replace(new, name=_edited_name(self._config.name)), text, merge_key=merge_key)

    def is_editable(self, name: str) -> bool:
        """Return whether the spec of a layer can be changed."""
        layer = self._layers.get(name)
        return layer is not None and not layer.read_only and layer.finite

    def load_config(self, path: Path) -> tuple[UnknownName, ...]:
        """Take over the configuration at `path` in one undo step; return its names that match no layer.

        Raises:
            SpecError: the file holds no configuration.
        """
        config = load_config(path)
        unknown = unknown_names(config, self._layers)
        known = {name: spec for name, spec in config.overrides.items() if name in self._layers}
        config = QuantConfig(config.default, name=config.name or path.stem).with_overrides(known)
        self.set_config(config, self.tr("Load {name}").format(name=path.name))
        self._mark_saved(config, path)
        return unknown

    def save_config(self, path: Path) -> None:
        """Write the configuration to `path`.

        Raises:
            SpecError: the file cannot be written.
        """
        save_config(self._config, path)
        self._mark_saved(self._config, path)

    def _mark_saved(self, config: QuantConfig, path: Path) -> None:
        self._saved_config = config
        self._config_path = str(path)
        self._autosave_timer.start()
        self.saved_changed.emit()

    def _apply(self, config: QuantConfig, *, reveal: bool) -> None:
        changed = changed_layers(self._config, config, self._layers)
        self._config = config
        if reveal:
            self._settle_timer.stop()
        if reveal and changed and not changed.intersection(self._selection):
            self.select(name for name in self._layers if name in changed)
        self.config_changed.emit(changed)
        self.saved_changed.emit()
        self._autosave_timer.start()
        if self.evaluation is not None:
            self.evaluation_ready.emit(EvaluationReady(config, self.evaluation))
        self.advice_ready.emit(AdviceReady(config, self.store.advice(config)))
        self.refresh()

    # --- selection -----------------------------------------------------------------------------------------------

    def select(self, names: Iterable[str]) -> None:
        """Select layers; the first one is shown in the tabs. Not an undo step."""
        selection = tuple(name for name in names if name in self._layers)
        if selection != self._selection:
            self._selection = selection
            self.selection_changed.emit(selection)
            self.refresh()

    def show_activations(self, visible: bool) -> None:  # noqa: FBT001 -- what a tab says of itself
        """Note whether the user looks at activations; they are calibrated only when needed."""
        self._shows_activations = visible
        if visible:
            self._refused.pop(Calibrate(), None)
        self.refresh()

    # --- work ----------------------------------------------------------------------------------------------------

    def evaluate(self) -> None:
        """Evaluate the current configuration now, even where it failed before or nothing is evaluated by itself."""
        if self._summary is None or self._data is None:
            return
        self._ask(Wanted("evaluate", Evaluate(self._config), Priority.EVALUATE))

    def calibrate(self) -> None:
        """Calibrate now."""
        if self._data is not None:
            self._ask(Wanted("calibrate", Calibrate(), Priority.CALIBRATE))

    def measure_sensitivity(self, sweep: Sweep) -> None:
        """Measure what each layer does to the metric; one that was cancelled goes on from what is on disk."""
        if self._summary is not None:
            self._ask(Wanted("sensitivity", MeasureSensitivity(sweep), Priority.SWEEP))

    def find_mix(self, mix: Mix) -> None:
        """Look for the best choice of a format for each layer."""
        if self._summary is not None:
            self._ask(Wanted("mix", FindMix(mix), Priority.SWEEP))

    def trace_noise(self) -> None:
        """Find out where noise is made under the current configuration; what is known is told at once."""
        if self._summary is None:
            return
        if self.noise is not None:
            self.noise_ready.emit(self.noise)
        if self.noise is None or not self.noise.complete:
            self._ask(Wanted("noise", TraceNoise(self._config), Priority.EVALUATE))

    def view_sample(self, index: int) -> None:
        """Run one sample of the data through the float network and under the current configuration."""
        if self._summary is not None:
            self._ask(Wanted("sample", ViewSample(self._config, index), Priority.EVALUATE))

    def retry(self) -> None:
        """Ask again for what has failed."""
        self._refused.clear()
        self.refresh()

    def export(self, path: str) -> None:
        """Write the quantized network to `path`."""
        self._submit(Wanted("export", Export(self._config, path), Priority.EXPORT))

    def verify(self, path: str) -> None:
        """Compare the exported file at `path` with what the window shows."""
        config = self._config
        if self._last_export is not None and self._last_export.path == path:
            config = self._last_export.config
        self._submit(Wanted("verify", Verify(config, path), Priority.EXPORT))

    def cancel(self, topic: str) -> None:
        """Cancel the job of `topic`; it is not started again until something changes."""
        job = self.jobs.of_topic(topic)
        if job is not None and job.is_active:
            self._interrupted.pop(topic, None)
            if job.number in self._requests:
                self._refused[_frozen(self._requests[job.number])] = _DEATHS_BEFORE_GIVING_UP
            self._engine.cancel(job.number)

    def restart_engine(self) -> None:
        """End the engine process and start a new one; nothing of the document is lost."""
        self._set_engine_state("restarting")
        self._refused.clear()
        self._interrupted.clear()
        self._engine.restart()

    def refresh(self) -> None:
        """Ask the engine for everything that is missing for what the user sees."""
        if self._summary is None or self._engine_state in ("restarting", "stopped") or self.jobs.is_active("network"):
            return
        situation = Situation(
            self._summary,
            self._config,
            self.current,
            self._data is not None and not self.jobs.is_active("data") and not self.jobs.is_active("metric"),
            self._shows_activations,
            self.evaluates_automatically and not self._settle_timer.isActive(),
        )
        wanted = wanted_requests(situation, self.store)
        self._drop_outdated("noise")
        for topic in ("evaluate", "advise"):
            if topic not in {w.topic for w in wanted}:
                self._drop_outdated(topic)
        for request in wanted:
            if self._refused.get(_frozen(request.request), 0) < _DEATHS_BEFORE_GIVING_UP:
                self._submit(request)

    def close(self) -> None:
        """End the engine at once; nothing is heard of it any more."""
        if not self._closed:
            self._closed = True
            if self._autosave_timer.isActive():
                self._autosave_timer.stop()
                self._write_autosave()
            # The stack tells of its own end, when those who listen may be gone already.
            self.undo_stack.blockSignals(True)
            self._engine.close()
            self._writer.shutdown(wait=True)

    def forget_autosave(self) -> None:
        """Remove the recovery file: the work has been saved, or was given up."""
        self._autosave_timer.stop()
        if self._closed:
            return
        # After what is being written.
        self._writer.submit(self._autosave.remove)

    def _drop_outdated(self, topic: str) -> None:
        job = self.jobs.of_topic(topic)
        request = None if job is None else self._requests.get(job.number)
        config = getattr(request, "config", None)
        if job is not None and job.is_active and config is not None and config != self._config:
            self._engine.cancel(job.number)

    def _submit(self, wanted: Wanted) -> None:
        busy = self.jobs.of_topic(wanted.topic)
        if busy is not None and busy.is_active and self._requests.get(busy.number) == wanted.request:
            return
        request: Any = wanted.request
        number = self._engine.submit(request, topic=wanted.topic, priority=wanted.priority)
        self._requests[number] = request
        self.jobs.add(number, wanted.topic, request)

    def _ask(self, wanted: Wanted) -> None:
        """Submit what the user asks for, even where it has failed before."""
        self._refused.pop(_frozen(wanted.request), None)
        self._interrupted.pop(wanted.topic, None)
        self._submit(wanted)

    # --- what the engine says ------------------------------------------------------------------------------------

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
        if self._closed:
            return
        match event:
            case JobStarted(job):
                self.jobs.start(job)
            case JobEvent(job, _, content):
                self._on_job_event(job, content)
            case JobDone(job):
                self._on_done(job)
            case JobFailed(job, topic, sentence, details):
                self._on_failed(job, topic, sentence, details)
            case JobCancelled(job):
                self._requests.pop(job, None)
                self.jobs.end(job, JobState.CANCELLED)
            case EngineDied(sentence, restarting):
                self._set_engine_state("restarting" if restarting else "stopped")
                self.failed.emit(sentence)
            case EngineReady():
                self._set_engine_state("ready")
                self._take_up_again()
                self.refresh()
            case _:
                assert_never(event)

    def _take_up_again(self) -> None:
        """Ask again for what went down with the engine; sweeps go on from what is on disk."""
        interrupted, self._interrupted = self._interrupted, {}
        for wanted in interrupted.values():
            self._submit(wanted)

    def _on_job_event(self, job: int, event: Event) -> None:
        if isinstance(event, Progress):
            self.jobs.report(job, event)
        elif job in self._requests:
            # What is left of a network or data that is no longer open has no request any more.
            self._on_result(event)

    def _on_result(self, event: Event) -> None:  # noqa: C901 -- one case for each kind of result
        match event:
            case NetworkOpened(summary):
                self._on_network_opened(summary)
            case DataOpened(summary):
                self._on_data_opened(summary)
            case WeightViewReady(view):
                self.store.put_view(view)
                self.weight_view_ready.emit(view.layer)
                self.weight_error_ready.emit(view.layer)
            case WeightErrorReady(layer, spec, error):
                self.store.put_error(layer, spec, error)
                self.weight_error_ready.emit(layer)
            case ActivationReady(tensor):
                self.store.put_activation(event)
                self.activation_ready.emit(tensor)
            case Calibrated(activations):
                for activation in activations.values():
                    self.store.put_activation(activation)
                self.store.calibrated = True
                for tensor in activations:
                    self.activation_ready.emit(tensor)
            case EvaluationReady(config, evaluation):
                self._on_evaluation(config, evaluation)
            case AdviceReady(config, advice):
                self.store.put_advice(config, advice)
                if config == self._config:
                    self.advice_ready.emit(event)
            case Exported():
                self._last_export = event
                self.exported.emit(event)
            case Verification():
                self.verified.emit(event)
            case Sensitivity() | SensitivityReady():
                if self.store.put_sensitivity(event):
                    self.sensitivity_ready.emit(self.store.sensitivity)
            case MixReady():
                self.store.mix = event
                self.mix_ready.emit(event)
            case NoiseReady():
                self.store.put_noise(event)
                self.noise_ready.emit(event)
            case SampleReady():
                self.sample_ready.emit(event)
            case Progress():
                pass
            case _:
                assert_never(event)

    def _on_network_opened(self, summary: NetworkSummary) -> None:
        after = self._after_opening
        for number, request in tuple(self._requests.items()):
            if not isinstance(request, OpenNetwork | OpenData | SetMetric):
                self._engine.cancel(number)
                del self._requests[number]
        self._reset(summary)
        if after.config is not None:
            self._config = after.config
            self._saved_config = QuantConfig() if after.recovered else after.config
            self._config_path = after.config_path
        if summary.layers:
            self._selection = (next((x for x in summary.layers if self.is_editable(x.name)), summary.layers[0]).name,)
        self.network_opened.emit(summary)
        self.selection_changed.emit(self._selection)
        self.config_changed.emit(frozenset(self._layers))
        self.saved_changed.emit()
        if after.recovered:
            self.noticed.emit(
                self.tr("The last session ended unexpectedly; its network and configuration are open again.")
            )
        if after.metric:
            self.set_metric(after.metric)
        if after.data:
            self.open_data(after.data, after.image_options, after.calibration)
        self._remember_recent()
        self._autosave_timer.start()

    def _reset(self, summary: NetworkSummary | None) -> None:
        self._summary = summary
        self._layers = {} if summary is None else {layer.name: layer for layer in summary.layers}
        self.store = ResultStore(self._layers)
        self._data = None
        self._tried = {}
        self._refused = {}
        self._newest_evaluation = None
        self._last_export = None
        self._interrupted = {}
        self._settle_timer.stop()
        self._config = self._saved_config = QuantConfig()
        self._config_path = ""
        self._selection = ()
        self.undo_stack.clear()
        self.pin("A", None)
        self.pin("B", None)

    def _on_data_opened(self, summary: DataSummary) -> None:
        self._drop_jobs(_OF_DATA)
        self._data = summary
        self.store.forget_data()
        self._forget_quality()
        self.data_opened.emit(summary)
        self._remember_recent()
        self._autosave_timer.start()

    def _drop_jobs(self, topics: Iterable[str]) -> None:
        for topic in topics:
            self._interrupted.pop(topic, None)
            job = self.jobs.of_topic(topic)
            if job is not None and job.is_active:
                self._engine.cancel(job.number)
                self._requests.pop(job.number, None)

    def _forget_quality(self) -> None:
        self.store.forget_quality()
        self._tried = {}
        self._newest_evaluation = None
        self._refused = {}

    def _on_evaluation(self, config: QuantConfig, evaluation: Evaluation) -> None:
        self.store.put_evaluation(config, evaluation)
        self._newest_evaluation = evaluation
        key = self.store.key(config)
        name = self._tried[key].config if key in self._tried and not config.name else config
        self._tried[key] = Tried(name, self.size(config), evaluation)
        self.evaluation_ready.emit(EvaluationReady(config, evaluation))

    def _on_done(self, job: int) -> None:
        request = self._requests.pop(job, None)
        self.jobs.end(job, JobState.DONE)
        match request:
            case Evaluate(config):
                self.store.mark_evaluated(config)
                if (evaluation := self.store.evaluation(config)) is not None:
                    self.evaluation_ready.emit(EvaluationReady(config, evaluation))
            case SetMetric(function):
                self._metric = function
                self._drop_jobs(_OF_METRIC)
                self._forget_quality()
                self.config_changed.emit(frozenset())
                self._autosave_timer.start()
            case _:
                pass
        self.refresh()

    def _on_failed(self, job: int, topic: str, sentence: str, details: str) -> None:
        request = self._requests.pop(job, None)
        self.jobs.end(job, JobState.FAILED, sentence)
        if details:
            _LOG.error("%s", details)
        died = self._engine_state in ("restarting", "stopped")
        if request is not None:
            key = _frozen(request)
            # What failed with a sentence would fail again; what went down with the engine deserves a second try.
            self._refused[key] = self._refused.get(key, 0) + 1 if died else _DEATHS_BEFORE_GIVING_UP
            if topic in _ASKED_FOR and self._refused[key] < _DEATHS_BEFORE_GIVING_UP:
                self._interrupted[topic] = Wanted(topic, request, _ASKED_FOR[topic])
        if not died:
            self.failed.emit(sentence)
            self.refresh()
        elif request is None or isinstance(request, OpenNetwork | OpenData | SetMetric | Export | Verify):
            self.failed.emit(sentence)

    def _set_engine_state(self, state: str) -> None:
        if state != self._engine_state:
            self._engine_state = state
            self.engine_state_changed.emit(state)

    # --- files of the user's state -------------------------------------------------------------------------------

    def _remember_recent(self) -> None:
        if self._summary is None:
            return
        data, calibration = ("", "") if self._data is None else (self._data.source, self._data.calibration)
        self._writer.submit(self._write_recent, RecentFile(self._summary.path, data, self._config_path, calibration))

    def _write_recent(self, entry: RecentFile) -> None:
        # A full disk must not keep the user from working; there is nothing he could do about this list.
        with contextlib.suppress(SpecError, OSError):
            self.recent.add(entry)

    def _write_autosave(self) -> None:
        if self._summary is None:
            return
        data = self._data
        project = Project(
            self._summary.path,
            self._config,
            "" if data is None else data.source,
            None if data is None else data.image_options,
            self._metric,
            self._config_path,
            "" if data is None else data.calibration,
        )
        self._writer.submit(self._write_project, project)

    def _write_project(self, project: Project) -> None:
        try:
            self._autosave.write(project)
        except SpecError as error:
            self._writing_failed.emit(
                self.tr("The configuration could not be saved for recovery: {error}").format(error=error)
            )


def _edited_name(name: str) -> str:
    """Return the name of a configuration that was called `name` and has been changed by hand."""
    return name if not name or name.endswith(_EDITED) else f"{name}{_EDITED}"


def _absolute(source: str) -> str:
    """Return a path as it is found again from any folder: by the recovery and the recent files of the next start."""
    if not source or source.startswith("random:"):
        return source
    return str(Path(source).expanduser().absolute())


def _frozen(request: Any) -> Request:
    """Return a hashable stand-in for `request`."""
    frozen: Request = (
        replace(request, specs=frozenset(request.specs.items())) if isinstance(request, WeightErrors) else request  # type: ignore[arg-type]
    )
    return frozen


__all__ = ["Engine", "Job", "Session", "Tried"]
