"""What the window reads of the session and hears from it; `session.session` adds what the window may do to it."""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_never

from PySide6.QtCore import QObject, Signal

from quantgui.engine.requests import Train
from quantgui.results import (
    ActivationReady,
    AdviceReady,
    Calibrated,
    DataExamined,
    DataOpened,
    DataReport,
    DataSummary,
    Evaluation,
    EvaluationReady,
    Event,
    Exported,
    LayerInfo,
    MixReady,
    NetworkComparison,
    NetworkOpened,
    NetworkSummary,
    NoiseReady,
    Progress,
    ReportWritten,
    SampleReady,
    Sensitivity,
    SensitivityReady,
    SettingsRead,
    SettingsWritten,
    TensorError,
    TrainingLeft,
    TrainingReady,
    Verification,
    WeightErrorReady,
    WeightView,
    WeightViewReady,
)
from quantgui.session.document import Document
from quantgui.session.results_store import ResultStore, Tried
from quantgui.spec.config import QuantConfig
from quantgui.spec.quantizer import LayerSpec
from quantgui.spec.targets import Target

if TYPE_CHECKING:
    from quantgui.session.jobs import JobList


class ReadableSession(QObject):
    """The open document and what is known of it, as far as it can be read, and news of both.

    Attributes:
        store: results for the open network.
        jobs: what the engine is doing.
    """

    network_opened = Signal(object)  # NetworkSummary
    network_closed = Signal()
    data_opened = Signal(object)  # DataSummary
    config_changed = Signal(object)  # frozenset of layer names
    selection_changed = Signal(object)  # tuple of layer names
    pins_changed = Signal()
    target_changed = Signal(object)  # Target
    saved_changed = Signal()  # the configuration's file, or whether it is saved

    weight_view_ready = Signal(str)
    weight_error_ready = Signal(str)
    activation_ready = Signal(str)
    evaluation_ready = Signal(object)  # EvaluationReady
    advice_ready = Signal(object)  # AdviceReady
    sensitivity_ready = Signal(object)  # Sensitivity, the newest numbers merged in
    mix_ready = Signal(object)  # MixReady
    noise_ready = Signal(object)  # NoiseReady
    sample_ready = Signal(object)  # SampleReady
    training_ready = Signal(object)  # TrainingReady
    data_examined = Signal(object)  # DataReport
    exported = Signal(object)
    verified = Signal(object)
    settings_written = Signal(object)  # SettingsWritten
    settings_read = Signal(object)  # SettingsRead
    network_compared = Signal(object)  # NetworkComparison
    report_written = Signal(object)  # ReportWritten

    job_changed = Signal(object)  # Job
    engine_state_changed = Signal(str)
    stalled = Signal(str)  # a sentence: nothing has been heard of a job for long
    resumed = Signal()  # it goes on after all
    failed = Signal(str)
    noticed = Signal(str)  # something worth a sentence that is no failure

    jobs: JobList

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.store = ResultStore()
        self._document = Document()

    # --- the document --------------------------------------------------------------------------------------------

    @property
    def summary(self) -> NetworkSummary | None:
        """The open network."""
        return self._document.summary

    @property
    def data(self) -> DataSummary | None:
        """The open data."""
        return self._document.data

    @property
    def metric(self) -> str:
        """The user's metric function, ``FILE.py:function``; empty for the automatic metric."""
        return self._document.metric

    @property
    def config(self) -> QuantConfig:
        """The current configuration."""
        return self._document.config

    @property
    def config_path(self) -> str:
        """The file the configuration was read from or saved to, or empty."""
        return self._document.config_path

    @property
    def is_saved(self) -> bool:
        """Whether nothing would be lost without saving the configuration."""
        return self._document.is_saved

    @property
    def selection(self) -> tuple[str, ...]:
        """Names of the selected layers; the first is the one the tabs show."""
        return self._document.selection

    @property
    def selected_layers(self) -> tuple[LayerInfo, ...]:
        """The selected layers."""
        return self._document.selected_layers

    @property
    def current(self) -> LayerInfo | None:
        """The layer that the tabs show."""
        return self._document.current

    @property
    def pins(self) -> tuple[QuantConfig | None, QuantConfig | None]:
        """The configurations A and B that are compared."""
        return self._document.pins

    @property
    def target(self) -> Target:
        """The runtime that the network is meant for."""
        return self._document.target

    def violation(self, name: str) -> str:
        """Return why the target cannot run a layer as it is configured; empty where it can."""
        return self._document.violation(name)

    def violations(self) -> tuple[str, ...]:
        """Return the layers that the target cannot run as they are configured."""
        return self._document.violations()

    def layer(self, name: str) -> LayerInfo | None:
        """Return the layer called `name`."""
        return self._document.layers.get(name)

    def is_editable(self, name: str) -> bool:
        """Return whether the spec of a layer can be changed."""
        return self._document.is_editable(name)

    def spec_for(self, name: str) -> LayerSpec:
        """Return what happens to a layer; those that cannot be changed stay as they are in the file."""
        return self._document.spec_for(name)

    @property
    def quantizes(self) -> bool:
        """Whether the current configuration quantizes anything."""
        specs = ((layer, self.spec_for(layer.name)) for layer in self._document.layers.values())
        return any(x.weights is not None or (x.activations and layer.quantizes_activations) for layer, x in specs)

    def similar_layers(self, name: str) -> tuple[LayerInfo, ...]:
        """Return all layers that can be changed and have the operator of the layer `name`."""
        return self._document.similar_layers(name)

    def size(self, config: QuantConfig | None = None) -> int:
        """Return the bytes of the network under `config`, or under the current one."""
        return self.store.size(config or self.config, self._document.size)

    # --- what is known of it -------------------------------------------------------------------------------------

    @property
    def current_view(self) -> WeightView | None:
        """What is known of the current layer's weight under its current spec."""
        if self.current is None:
            return None
        return self.store.view(self.current.name, self.spec_for(self.current.name).weights)

    def weight_error(self, name: str) -> TensorError | None:
        """Return the weight error of a layer under its current spec; None where it is float, or not known yet."""
        spec = self.spec_for(name).weights
        return None if spec is None else self.store.error(name, spec)

    @property
    def evaluation(self) -> Evaluation | None:
        """What is known of the quality under the current configuration."""
        return self.store.evaluation(self.config)

    @property
    def newest_evaluation(self) -> Evaluation | None:
        """The newest evaluation of any configuration, for the float network's value."""
        return self.evaluation or self.store.newest_evaluation

    @property
    def tried(self) -> tuple[Tried, ...]:
        """All configurations evaluated on the open data, in the order in which they were first tried."""
        return self.store.tried

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
        return self.store.noise(self.config)

    @property
    def training(self) -> TrainingReady | None:
        """The newest training on the open data, as far as it has come."""
        return self.store.training

    @property
    def training_was_left(self) -> bool:
        """Whether that is one of an earlier session, which nobody has asked to go on since."""
        return self.store.training_was_left

    @property
    def asked_training(self) -> Train | None:
        """What the newest training on the open data was asked for with; None where there was none."""
        return self.store.asked_training

    def is_in_use(self, config: QuantConfig) -> bool:
        """Return whether `config` means the same for this network as the current configuration."""
        return self.store.key(config) == self.store.key(self.config)

    @property
    def data_report(self) -> DataReport | None:
        """What the newest check of the open data found; None while unknown."""
        return self.store.report

    @property
    def last_export(self) -> Exported | None:
        """The file exported last from this network."""
        return self.store.last_export

    # --- news ----------------------------------------------------------------------------------------------------

    def _take(self, result: Event) -> None:  # noqa: C901 -- one case for each kind of result
        """Keep a result of the engine, and tell of it."""
        store = self.store
        match result:
            case WeightViewReady(view):
                store.put_view(view)
                self.weight_view_ready.emit(view.layer)
                self.weight_error_ready.emit(view.layer)
            case WeightErrorReady(layer, spec, error):
                store.put_error(layer, spec, error)
                self.weight_error_ready.emit(layer)
            case ActivationReady(tensor):
                store.put_activation(result)
                self.activation_ready.emit(tensor)
            case Calibrated(activations):
                for activation in activations.values():
                    store.put_activation(activation)
                store.mark_calibrated()
                for tensor in activations:
                    self.activation_ready.emit(tensor)
            case EvaluationReady(config, evaluation):
                store.put_evaluation(config, evaluation, self.size(config))
                self.evaluation_ready.emit(result)
            case AdviceReady(config, advice):
                store.put_advice(config, advice)
                if config == self.config:
                    self.advice_ready.emit(result)
            case Sensitivity() | SensitivityReady():
                if store.put_sensitivity(result):
                    self.sensitivity_ready.emit(store.sensitivity)
            case MixReady():
                store.mix = result
                self.mix_ready.emit(result)
            case NoiseReady():
                store.put_noise(result)
                self.noise_ready.emit(result)
            case TrainingReady(config, training):
                # One that was overtaken may have had something to say still.
                if store.asked_training == Train(config, training):
                    store.training = result
                    self.training_ready.emit(result)
            case TrainingLeft(training):
                if training is not None and store.asked_training is None:
                    store.asked_training, store.training = Train(training.config, training.training), training
                    store.training_was_left = True
                    self.training_ready.emit(training)
            case DataExamined(report):
                store.report = report
                self.data_examined.emit(report)
            case SampleReady():
                self.sample_ready.emit(result)
            case Exported():
                store.last_export = result
                self.exported.emit(result)
            case Verification():
                self.verified.emit(result)
            case SettingsWritten():
                self.settings_written.emit(result)
            case SettingsRead():
                self.settings_read.emit(result)
            case NetworkComparison():
                self.network_compared.emit(result)
            case ReportWritten():
                self.report_written.emit(result)
            case NetworkOpened() | DataOpened() | Progress():
                pass
            case _:
                assert_never(result)
