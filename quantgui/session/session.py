"""The one mutable object: the open network, its configuration, what is selected, and what the engine found out.

A change of the configuration is one undo step; what is known of the new one is shown in the same frame, what is
missing is asked of the engine. Results arrive under the key they answer, so none can be stale.

Where what lies: the document is a value (`session.document`), results are kept in `session.results_store`, what can be
read and heard is declared in `session.reading`, the engine is asked and heard by `session.conversation`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from PySide6.QtCore import QObject, QTimer
from PySide6.QtGui import QUndoStack

from quantgui.engine.messages import EngineEvent
from quantgui.engine.requests import (
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
    Priority,
    ReadSettings,
    Request,
    SetMetric,
    TraceNoise,
    Train,
    Verify,
    ViewSample,
    WriteReport,
    WriteSettings,
)
from quantgui.results import (
    AdviceReady,
    DataOpened,
    DataSummary,
    EvaluationReady,
    Event,
    ImageOptions,
    NetworkOpened,
    NetworkSummary,
)
from quantgui.session.conversation import SILENCE_SECONDS, Conversation, Engine
from quantgui.session.document import Document, Side
from quantgui.session.jobs import Job
from quantgui.session.project import Project, absolute_network, absolute_source
from quantgui.session.reading import ReadableSession
from quantgui.session.recent import RecentFiles
from quantgui.session.results_store import ResultStore
from quantgui.session.state_files import StateFiles
from quantgui.session.undo import SetConfig
from quantgui.session.wanted import Situation, wanted_requests
from quantgui.spec.config import QuantConfig, UnknownName, changed_layers
from quantgui.spec.mix import Mix
from quantgui.spec.profiles import ExportProfile
from quantgui.spec.pytorch_source import DEFAULT_OPTIONS, PytorchOptions
from quantgui.spec.quantizer import LayerSpec
from quantgui.spec.serialization import load_config, save_config
from quantgui.spec.sweep import Sweep
from quantgui.spec.targets import Target, find_target
from quantgui.spec.training import Training

SETTLE_MS = 250
"""How long a dragged configuration must rest before it is evaluated."""

_OF_METRIC = ("evaluate", "advise", "verify", "comparison", "sensitivity", "mix", "training", "left training")
_OF_DATA = (*_OF_METRIC, "calibrate", "noise", "sample", "calibration sample", "data check")
"""Topics whose answers have no meaning any more with another metric, or with other data."""
_OF_WEIGHTS = ("look", "table")
"""Topics whose answers may depend on data, where ranges of weights do."""


class Session(ReadableSession):
    """The open document.

    Args:
        make_engine: starts the engine; it is given the function that hears events, in any thread.
        folder: where the autosave and the list of recent files lie.

    Attributes:
        undo_stack: the history of the configuration.
        evaluates_automatically: whether every change is evaluated.
    """

    def __init__(
        self,
        make_engine: Callable[[Callable[[EngineEvent], None]], Engine],
        folder: Path,
        parent: QObject | None = None,
    ) -> None:
        super().__init__(parent)
        self.undo_stack = QUndoStack(self)
        self.evaluates_automatically = True
        self._shows_activations = False
        self._opening = Project("")
        self._is_recovering = False
        self._is_closed = False
        self._settle_timer = QTimer(self, singleShot=True, interval=SETTLE_MS)
        self._settle_timer.timeout.connect(self.refresh)
        self._files = StateFiles(folder, self)
        self._files.failed.connect(self.failed)
        self._conversation = Conversation(make_engine, self)
        self._conversation.answered.connect(self._on_answer)
        self._conversation.done.connect(self._on_done)
        self._conversation.settled.connect(self.refresh)
        self._conversation.failed.connect(self.failed)
        self._conversation.stalled.connect(self._on_stalled)
        self._conversation.resumed.connect(self.resumed)
        self._conversation.job_changed.connect(self.job_changed)
        self._conversation.state_changed.connect(self.engine_state_changed)
        self.jobs = self._conversation.jobs

    @property
    def engine(self) -> Engine:
        """The engine."""
        return self._conversation.engine

    @property
    def engine_state(self) -> str:
        """One of starting, ready, restarting, stopped."""
        return self._conversation.state

    @property
    def recent(self) -> RecentFiles:
        """What was opened lately."""
        return self._files.recent

    # --- opening -------------------------------------------------------------------------------------------------

    def open_network(
        self,
        path: str,
        data: str = "",
        config: QuantConfig | None = None,
        image_options: ImageOptions | None = None,
        calibration: str = "",
        pytorch: PytorchOptions = DEFAULT_OPTIONS,
    ) -> None:
        """Open the network at `path`, then `data` (if any), with `config` (or everything float).

        `pytorch` says how a PyTorch network is opened; the code of one is run only if it says that it is trusted.
        """
        network, config = absolute_network(path), config or QuantConfig()
        project = Project(network, config, data, image_options, calibration=calibration, pytorch=pytorch)
        self._open(project, recovering=False)

    def _open(self, project: Project, *, recovering: bool) -> None:
        self._opening, self._is_recovering = project, recovering
        self._ask("network", OpenNetwork(project.network, project.pytorch), Priority.OPEN)

    def open_data(self, source: str, image_options: ImageOptions | None = None, calibration: str = "") -> None:
        """Open data for evaluation, and for calibration if `calibration` names no other.

        Each is a file, a folder of images, or ``random:N``.
        """
        self._ask("data", OpenData(absolute_source(source), image_options, absolute_source(calibration)), Priority.OPEN)

    def set_metric(self, function: str) -> None:
        """Measure quality with the user's ``FILE.py:function``; empty for the automatic metric."""
        self._ask("metric", SetMetric(absolute_source(function)), Priority.OPEN)

    def recover(self) -> bool:
        """Open again what a crashed program has left behind; return whether there was anything."""
        project = self._files.take_left_behind()
        if project is not None:
            self._open(project, recovering=True)
        return project is not None

    def close_network(self) -> None:
        """Forget the open network; its configuration can no longer be saved."""
        if self.summary is None:
            return
        self._conversation.drop_all()
        self._replace_document(self._document.with_network(None))
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

    def set_specs(self, specs: Mapping[str, LayerSpec], text: str, *, merge_key: str = "") -> None:
        """Give layers new specs in one undo step; read-only and non-finite layers keep theirs."""
        self.set_config(self._document.with_specs(specs), text, merge_key=merge_key)

    def load_config(self, path: Path) -> tuple[UnknownName, ...]:
        """Take over the configuration at `path` in one undo step; return its names that match no layer.

        Raises:
            SpecError: the file holds no configuration.
        """
        config, unknown = self._document.fitted(load_config(path))
        config = replace(config, name=config.name or path.stem)
        self.set_config(config, self.tr("Load {name}").format(name=path.name))
        self._mark_saved(config, path)
        return unknown

    def save_config(self, path: Path) -> None:
        """Write the configuration to `path`.

        Raises:
            SpecError: the file cannot be written.
        """
        save_config(self.config, path)
        self._mark_saved(self.config, path)

    def pin(self, side: Side, config: QuantConfig | None) -> None:
        """Hold a configuration fast as one of the two that are compared; None lets it go."""
        pinned = self._document.with_pin(side, config)
        if pinned.pins != self.pins:
            self._document = pinned
            self.pins_changed.emit()

    def set_target(self, target: Target) -> None:
        """Mean the network for another runtime; nothing of the configuration is changed by it."""
        if target != self.target:
            self._edit(target=target)
            self.target_changed.emit(target)
            self._autosave_soon()

    def _push(self, new: QuantConfig, text: str, merge_key: str) -> None:
        if self.summary is not None and new != self.config:
            self.undo_stack.push(SetConfig(self._apply, self.config, new, text, merge_key))

    def _apply(self, config: QuantConfig, *, reveal: bool) -> None:
        layers = self._document.layers
        changed = changed_layers(self.config, config, layers)
        self._edit(config=config)
        if reveal:
            self._settle_timer.stop()
            if changed and not changed.intersection(self.selection):
                self.select(name for name in layers if name in changed)
        self.config_changed.emit(changed)
        self.saved_changed.emit()
        self._autosave_soon()
        if self.evaluation is not None:
            self.evaluation_ready.emit(EvaluationReady(config, self.evaluation))
        self.advice_ready.emit(AdviceReady(config, self.store.advice(config)))
        self.refresh()

    def _mark_saved(self, config: QuantConfig, path: Path) -> None:
        self._edit(saved_config=config, config_path=str(path))
        self._autosave_soon()
        self.saved_changed.emit()

    # --- selection -----------------------------------------------------------------------------------------------

    def select(self, names: Iterable[str]) -> None:
        """Select layers; the first one is shown in the tabs. Not an undo step."""
        selection = self._document.known(names)
        if selection != self.selection:
            self._edit(selection=selection)
            self.selection_changed.emit(selection)
            self.refresh()

    def show_activations(self, visible: bool) -> None:  # noqa: FBT001 -- what a tab says of itself
        """Note whether the user looks at activations; they are calibrated only when needed."""
        self._shows_activations = visible
        if visible:
            self._conversation.forgive(Calibrate())
        self.refresh()

    # --- work ----------------------------------------------------------------------------------------------------

    def evaluate(self) -> None:
        """Evaluate the current configuration now, even where it failed before or nothing is evaluated by itself."""
        if self.data is not None:
            self._ask("evaluate", Evaluate(self.config), Priority.EVALUATE)

    def calibrate(self) -> None:
        """Calibrate now."""
        if self.data is not None:
            self._ask("calibrate", Calibrate(), Priority.CALIBRATE)

    def examine_data(self) -> None:
        """Check the open data, and the ranges of activations under the current configuration."""
        if self.data is not None:
            self._ask("data check", ExamineData(self.config), Priority.CALIBRATE)

    def measure_sensitivity(self, sweep: Sweep) -> None:
        """Measure what each layer does to the metric; one that was cancelled goes on from what is on disk."""
        if self.summary is not None:
            self._ask("sensitivity", MeasureSensitivity(sweep), Priority.SWEEP)

    def find_mix(self, mix: Mix) -> None:
        """Look for the best choice of a format for each layer."""
        if self.summary is not None:
            self._ask("mix", FindMix(mix), Priority.SWEEP)

    def trace_noise(self) -> None:
        """Find out where noise is made under the current configuration; what is known is told at once."""
        if self.summary is None:
            return
        if self.noise is not None:
            self.noise_ready.emit(self.noise)
        if self.noise is None or not self.noise.complete:
            self._ask("noise", TraceNoise(self.config), Priority.EVALUATE)

    def view_sample(self, index: int, *, calibration: bool = False) -> None:
        """Run one sample of the data through the float network and under the current configuration.

        With `calibration` it is one of the data that ranges come from.
        """
        if self.summary is not None:
            # Each under a topic of its own: the noise tab and the data tab must not overtake each other.
            topic = "calibration sample" if calibration else "sample"
            self._ask(topic, ViewSample(self.config, index, calibration), Priority.EVALUATE)

    def train(self, training: Training) -> None:
        """Train the present configuration; one that has stopped with the same settings goes on from its checkpoint.

        What is found is told by `training_ready`, and changes nothing until `keep_training`.
        """
        if self.data is not None:
            self._ask_training(Train(self.config, training))

    def resume_training(self) -> None:
        """Let the newest training go on, from the configuration that it began with."""
        if self.store.asked_training is not None:
            self._ask_training(self.store.asked_training)

    def look_for_training(self) -> None:
        """Look once for a training on the open data that an earlier session has left; `training_ready` tells of it."""
        if self.data is not None and self.asked_training is None and not self.store.looked_for_training:
            self.store.looked_for_training = True
            self._ask("left training", FindTraining(), Priority.LOOK)

    def discard_training(self) -> None:
        """Give the newest training up: its checkpoint is deleted, and an older one that was left is offered if any."""
        discarded = self.store.asked_training
        if discarded is None:
            return
        self.cancel("training")
        self.store.training = self.store.asked_training = None
        self.store.training_was_left = False
        self._ask("left training", FindTraining(discarded), Priority.LOOK)
        self.training_ready.emit(None)

    def keep_training(self) -> None:
        """Make what training has found best the configuration, in one undo step; a running training stops."""
        training = self.training
        if training is None or training.trained is None:
            return
        self.cancel("training")
        name = training.config.name or self.tr("the network")
        text = self.tr("Keep trained weights: {name}, step {n}").format(name=name, n=training.best)
        # Named for people: beside the configuration that it came from it stands in lists and plots.
        self.set_config(replace(training.trained, name=self.tr("{name} trained").format(name=name)), text)

    def _ask_training(self, request: Train) -> None:
        known = self.store.training
        if known is not None and (known.complete or Train(known.config, known.training) != request):
            self.store.training = None
        self.store.asked_training, self.store.training_was_left = request, False
        self._ask("training", request, Priority.SWEEP)

    def export(self, path: str, profile: ExportProfile = "qdq", convert: bool = False) -> None:  # noqa: FBT001, FBT002 -- a slot
        """Write the quantized network to `path`, for the runtime that `profile` names; `convert` what it refuses."""
        self._ask("export", Export(self.config, path, profile, convert), Priority.EXPORT)

    def verify(self, path: str) -> None:
        """Compare the exported file at `path` with what the window shows."""
        exported = self.last_export
        config = exported.config if exported is not None and exported.path == path else self.config
        self._ask("verify", Verify(config, path), Priority.EXPORT)

    def write_settings(self, path: str, dialect: str) -> None:
        """Write the configuration as the file of another tool, `dialect` (`export.dialects.table`), to `path`."""
        self._ask("settings", WriteSettings(self.config, path, dialect, self.sensitivity), Priority.EXPORT)

    def compare_network(self, path: str) -> None:
        """Run the quantized network of another tool at `path` beside the configuration; needs data."""
        self._ask("comparison", CompareNetwork(self.config, path), Priority.EXPORT)

    def read_settings(self, path: str, dialect: str = "") -> None:
        """Read another tool's file; `settings_read` brings the configuration, which is not taken over by itself."""
        self._ask("settings", ReadSettings(path, dialect), Priority.EXPORT)

    def write_report(self, path: str) -> None:
        """Write all that is known of the configuration as one HTML file to `path`."""
        self._ask("report", WriteReport(self.config, path, self.sensitivity, self.mix), Priority.EXPORT)

    def cancel(self, topic: str) -> None:
        """Cancel the job of `topic`; it is not started again until something changes."""
        self._conversation.cancel(topic)

    def retry(self) -> None:
        """Ask again for what has failed."""
        self._conversation.forgive()
        self.refresh()

    def restart_engine(self) -> None:
        """End the engine process and start a new one; nothing of the document is lost."""
        self._conversation.restart()

    def refresh(self) -> None:
        """Ask the engine for everything that is missing for what the user sees."""
        if self.summary is None or self._conversation.is_down or self.jobs.is_active("network"):
            return
        situation = Situation(
            self.summary,
            self.config,
            self.current,
            self.data is not None and not self.jobs.is_active("data") and not self.jobs.is_active("metric"),
            self._shows_activations,
            self.evaluates_automatically and not self._settle_timer.isActive(),
        )
        wanted = wanted_requests(situation, self.store)
        unwanted = {"evaluate", "advise", "noise"} - {each.topic for each in wanted}
        self._conversation.drop_outdated(sorted(unwanted), self.config)
        self._conversation.offer(wanted)

    def _ask(self, topic: str, request: Request, priority: Priority) -> None:
        self._conversation.ask(topic, request, priority)

    # --- end -----------------------------------------------------------------------------------------------------

    def forget_autosave(self) -> None:
        """Remove the recovery file: the work has been saved, or was given up."""
        self._files.forget_autosave()

    def close(self) -> None:
        """End the engine at once; nothing is heard of it any more."""
        if not self._is_closed:
            self._is_closed = True
            # The stack tells of its own end, when those who listen may be gone already.
            self.undo_stack.blockSignals(True)
            self._files.close()
            self._conversation.close()

    # --- what the engine says ------------------------------------------------------------------------------------

    def _on_answer(self, result: Event) -> None:
        match result:
            case NetworkOpened(summary):
                self._on_network_opened(summary)
            case DataOpened(summary):
                self._on_data_opened(summary)
            case _:
                self._take(result)

    def _on_done(self, request: Request) -> None:
        match request:
            case Evaluate(config):
                self.store.mark_evaluated(config)
                if (evaluation := self.store.evaluation(config)) is not None:
                    self.evaluation_ready.emit(EvaluationReady(config, evaluation))
            case SetMetric(function):
                self._on_metric_set(function)
            case _:
                pass

    def _on_network_opened(self, summary: NetworkSummary) -> None:
        project, recovered = self._opening, self._is_recovering
        self._conversation.drop_all(but_opening=True)
        self._replace_document(self._document.with_network(summary))
        saved = QuantConfig() if recovered else project.config
        self._edit(config=project.config, saved_config=saved, config_path=project.config_path)
        if recovered:
            self.set_target(find_target(project.target))
        self.network_opened.emit(summary)
        self.selection_changed.emit(self.selection)
        self.config_changed.emit(frozenset(self._document.layers))
        self.saved_changed.emit()
        if recovered:
            self.noticed.emit(
                self.tr("The last session ended unexpectedly; its network and configuration are open again.")
            )
        if project.metric:
            self.set_metric(project.metric)
        if project.data:
            self.open_data(project.data, project.image_options, project.calibration)
        self._remember()

    def _on_data_opened(self, summary: DataSummary) -> None:
        self._conversation.drop((*_OF_DATA, *_OF_WEIGHTS))
        self._conversation.forgive()
        self._edit(data=summary)
        self.store.forget_data()
        self.data_opened.emit(summary)
        if changed := self._document.layers_by_data():
            self.config_changed.emit(changed)
        self._remember()

    def _on_metric_set(self, function: str) -> None:
        self._conversation.drop(_OF_METRIC)
        self._conversation.forgive()
        self._edit(metric=function)
        self.store.forget_quality()
        self.config_changed.emit(frozenset())
        self._autosave_soon()

    def _on_stalled(self, job: Job) -> None:
        seconds = round(SILENCE_SECONDS)
        function = self.metric.rpartition(":")[2]
        if function and job.topic in _OF_METRIC:
            sentence = self.tr(
                "The metric “{name}” has not answered for {seconds} s. Wait, or restart the engine and choose another "
                "metric; your work is kept."
            ).format(name=function, seconds=seconds)
        else:
            sentence = self.tr(
                "Nothing has been heard of “{job}” for {seconds} s. Wait if it is large, or restart the engine; your "
                "work is kept."
            ).format(job=job.title, seconds=seconds)
        self.stalled.emit(sentence)

    # --- the document --------------------------------------------------------------------------------------------

    def _edit(self, **changes: Any) -> None:
        self._document = replace(self._document, **changes)

    def _replace_document(self, document: Document) -> None:
        had_pins = any(self.pins)
        self._document = document
        self.store = ResultStore(document.layers)
        self._settle_timer.stop()
        self.undo_stack.clear()
        if had_pins:
            self.pins_changed.emit()

    def _remember(self) -> None:
        self._files.remember_recent(self._document.recent())
        self._autosave_soon()

    def _autosave_soon(self) -> None:
        self._files.autosave_soon(self._document.project())
