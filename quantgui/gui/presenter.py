"""Carries what the session says to the panels, and what the panels say to the session."""

from __future__ import annotations

from PySide6.QtCore import QObject

from quantgui.gui.layer_words import describe_layers, format_words
from quantgui.gui.panels.advice import proposal_words
from quantgui.gui.panels.all_panels import Panels
from quantgui.gui.presenters.data_check import DataCheckPresenter
from quantgui.gui.presenters.graph_colours import GraphColours
from quantgui.gui.presenters.noise import NoisePresenter
from quantgui.gui.presenters.pins import PinsPresenter
from quantgui.gui.presenters.ranges import RangesPresenter
from quantgui.gui.presenters.sensitivity import SensitivityPresenter
from quantgui.gui.presenters.sight import WhenSeen
from quantgui.gui.presenters.targets import TargetPresenter
from quantgui.gui.presenters.trade_off import TradeOffPresenter
from quantgui.gui.presenters.training import TrainingPresenter
from quantgui.results import EvaluationReady, LayerInfo, NetworkSummary
from quantgui.session.edits import adapted, fitting, with_weight_format, with_weights
from quantgui.session.jobs import Job, JobState
from quantgui.session.session import Session
from quantgui.spec.config import QuantConfig
from quantgui.spec.formats import Format
from quantgui.spec.presets import Preset, preset_config
from quantgui.spec.quantizer import FixedRange, LayerSpec, QuantizerSpec


class Presenter(QObject):
    """Connects `Session` and `Panels`.

    Tabs that are not seen are told only when they come into sight: drawing for nobody would hold up what is seen.
    """

    def __init__(self, session: Session, panels: Panels) -> None:
        # It goes with the panels, which may go before the session.
        super().__init__(panels)
        self._session = session
        self._panels = panels
        self._weights_seen, self._channels_seen, self._activations_seen = (
            WhenSeen(panel) for panel in (panels.weights, panels.channels, panels.activations)
        )
        self._listen_to_session()
        self._listen_to_panels()
        self.sensitivity = SensitivityPresenter(session, panels.sensitivity, panels.model, self)
        self.noise = NoisePresenter(session, panels.noise, self)
        self.data_check = DataCheckPresenter(session, panels.data_check, self)
        self.training = TrainingPresenter(session, panels.training, self)
        self._ranges = RangesPresenter(session, panels.weights, panels.activations, self)
        self.targets = TargetPresenter(session, panels, self)
        self._graph_colours = GraphColours(session, panels.graph, self)
        self.trade_off = TradeOffPresenter(session, panels.trade_off, self)
        self.pins = PinsPresenter(session, panels.trade_off, self)
        for job in session.jobs:
            panels.jobs.show_job(job)
        self._on_engine_state(session.engine_state)

    def _listen_to_session(self) -> None:
        session = self._session
        session.network_opened.connect(self._on_network_opened)
        session.network_closed.connect(self._on_network_closed)
        session.data_opened.connect(self._on_data_opened)
        session.config_changed.connect(self._on_config_changed)
        session.selection_changed.connect(self._on_selection_changed)
        session.weight_view_ready.connect(self._on_view_ready)
        session.weight_error_ready.connect(self._on_error_ready)
        session.activation_ready.connect(self._on_activation_ready)
        session.evaluation_ready.connect(self._on_evaluation_ready)
        session.advice_ready.connect(self._show_advice)
        session.job_changed.connect(self._on_job_changed)
        session.engine_state_changed.connect(self._on_engine_state)

    def _listen_to_panels(self) -> None:
        panels, session = self._panels, self._session
        panels.layers.layers_selected.connect(session.select)
        panels.layers.format_chosen.connect(self.set_weight_format)
        panels.inspector.specs_edited.connect(self._on_specs_edited)
        panels.inspector.apply_to_similar.connect(self.apply_to_similar)
        panels.inspector.proposal_accepted.connect(self._accept_proposal)
        panels.weights.limits_chosen.connect(self._on_limits_chosen)
        panels.weights.retry_requested.connect(session.retry)
        panels.activations.calibration_requested.connect(session.calibrate)
        panels.graph.layer_picked.connect(self._on_layer_picked)
        panels.jobs.cancel_requested.connect(session.cancel)

    # --- what the user wants -------------------------------------------------------------------------------------

    def set_weight_format(self, chosen: Format | None) -> None:
        """Give the selected layers weights in the format `chosen`; None makes them float altogether."""
        session = self._session
        layers = [layer for layer in session.selected_layers if session.is_editable(layer.name)]
        if not layers:
            return
        if chosen is None:
            specs = {layer.name: LayerSpec() for layer in layers}
        else:
            specs = {layer.name: with_weight_format(session.spec_for(layer.name), chosen) for layer in layers}
        words = describe_layers([layer.name for layer in layers])
        session.set_specs(specs, self.tr("Set {layers} to {format}").format(layers=words, format=format_words(chosen)))

    def apply_preset(self, preset: Preset) -> None:
        """Make `preset` the configuration of the whole network."""
        if self._session.summary is not None:
            config = preset_config(preset, self._session.summary.layers)
            self._session.set_config(config, self.tr("Preset {name}").format(name=preset.name))

    def apply_to_similar(self) -> None:
        """Give all layers of the current one's operator its spec."""
        layer = self._session.current
        if layer is None:
            return
        spec = self._session.spec_for(layer.name)
        specs = {x.name: fitting(x, spec) for x in self._session.similar_layers(layer.name) if not x.signal_transform}
        text = self.tr("Apply {layer} to {n} {op} layers").format(layer=layer.name, n=len(specs), op=layer.op)
        self._session.set_specs(specs, text)

    def _on_specs_edited(self, specs: dict[str, LayerSpec], text: str, merge_key: str) -> None:
        self._session.set_specs(specs, text, merge_key=merge_key)

    def _accept_proposal(self) -> None:
        advice = self._session.store.advice(self._session.config)
        if advice is not None and advice.proposal is not None:
            self._session.set_config(advice.proposal, proposal_words(advice))

    def _on_limits_chosen(self, low: float, high: float) -> None:
        layer = self._session.current
        if layer is None or not self._session.is_editable(layer.name):
            return

        def fix(spec: QuantizerSpec) -> QuantizerSpec:
            return adapted(spec, range_estimator=FixedRange(min(low, 0.0), max(high, 0.0)))[0]

        spec = with_weights(self._session.spec_for(layer.name), fix)
        self._session.set_specs({layer.name: spec}, self.tr("Drag the limits of {layer}").format(layer=layer.name))

    def _on_layer_picked(self, name: str) -> None:
        self._session.select((name,))

    # --- what the session says -----------------------------------------------------------------------------------

    def _on_network_opened(self, summary: NetworkSummary) -> None:
        self._panels.jobs.keep_only({job.topic for job in self._session.jobs})
        self._panels.layers.show_network(summary)
        self._panels.graph.show_network(summary)
        self._panels.inspector.advice.show_advice(None)
        self._show_sizes()
        self._panels.status.show_quality(None, current=False)

    def _on_network_closed(self) -> None:
        self._panels.jobs.keep_only({job.topic for job in self._session.jobs})
        self._panels.layers.show_network(None)
        self._on_selection_changed(())
        self._show_sizes()
        self._panels.status.show_quality(None, current=False)

    def _on_data_opened(self, _: object) -> None:
        self._panels.inspector.advice.show_advice(None)
        self._panels.status.show_quality(None, current=False)
        self._show_activations()
        self._show_inspector()

    def _on_config_changed(self, changed: frozenset[str]) -> None:
        self._show_sizes()
        self._show_quality()
        self._show_inspector()
        current = self._session.current
        if current is not None and current.name in changed:
            self._show_view()
            self._show_activations()

    def _on_selection_changed(self, names: tuple[str, ...]) -> None:
        panels, layer = self._panels, self._session.current
        panels.layers.show_selection(names)
        panels.weights.show_layer(layer)
        panels.channels.show_layer(layer)
        panels.activations.show_layer(layer)
        if layer is not None:
            panels.graph.select(layer.name)
        self._show_view()
        self._show_activations()
        self._show_inspector()

    def _on_view_ready(self, name: str) -> None:
        current = self._session.current
        if current is not None and current.name == name:
            self._show_view()
            self._show_inspector()

    def _on_error_ready(self, name: str) -> None:
        if self._session.selection == (name,):
            self._panels.inspector.show_error(self._session.weight_error(name))

    def _on_activation_ready(self, tensor: str) -> None:
        layer = self._session.current
        if layer is not None and tensor in (layer.input_tensor, layer.output_tensor):
            self._show_activations()

    def _on_evaluation_ready(self, ready: EvaluationReady) -> None:
        if ready.config == self._session.config:
            self._show_quality()

    def _show_advice(self, _: object) -> None:
        self._panels.inspector.advice.show_advice(self._session.store.advice(self._session.config))

    def _on_job_changed(self, job: Job) -> None:
        self._panels.jobs.show_job(job)
        self._on_engine_state(self._session.engine_state)
        if job.state is JobState.FAILED and job.topic == "look":
            self._weights_seen.forget()
            self._panels.weights.show_failure(job.sentence)
            self._channels_seen.forget()
            self._panels.channels.show_failure(job.sentence)
        if job.topic == "calibrate":
            self._on_calibrating(job)
        if job.topic == "evaluate" and job.state is not JobState.RUNNING:
            self._show_quality()

    def _on_calibrating(self, job: Job) -> None:
        if job.state is JobState.RUNNING:
            self._panels.activations.show_calibrating(job.progress.done, job.progress.total)
        elif job.state is JobState.FAILED:
            self._activations_seen.forget()
            self._panels.activations.show_failure(job.sentence)

    def _on_engine_state(self, state: str) -> None:
        busy = [job.title for job in self._session.jobs if job.is_active]
        shown = "busy" if state == "ready" and busy else state
        tip = self.tr("The engine computes in a process of its own; the window never waits for it.")
        self._panels.status.show_engine(shown, "\n".join([tip, *busy]))

    # --- showing -------------------------------------------------------------------------------------------------

    def _show_view(self) -> None:
        self._weights_seen(self._show_weights)
        self._channels_seen(self._show_channels)

    def _show_weights(self) -> None:
        view = self._session.current_view
        if view is not None:
            self._panels.weights.show_view(view)
        elif self._session.current is not None:
            self._panels.weights.show_computing()

    def _show_channels(self) -> None:
        view = self._session.current_view
        if view is not None:
            self._panels.channels.show_view(view)
        elif self._session.current is not None:
            self._panels.channels.show_computing()

    def _show_activations(self) -> None:
        self._activations_seen(self._show_statistics)

    def _show_statistics(self) -> None:
        session, layer, panel = self._session, self._session.current, self._panels.activations
        if layer is None:
            return
        if session.data is None:
            panel.show_needs_data()
            return
        spec = session.spec_for(layer.name).activations
        panel.show_statistics(
            session.store.activation(layer.input_tensor), session.store.activation(layer.output_tensor), spec
        )

    def _show_inspector(self) -> None:
        session = self._session
        layers = session.selected_layers
        similar = len(session.similar_layers(layers[0].name)) if layers else 0
        view = session.current_view
        specs = [session.spec_for(layer.name) for layer in layers]
        has_data = session.data is not None
        self._panels.inspector.show_layers(layers, specs, similar=similar, view=view, has_data=has_data)
        if view is None and len(layers) == 1:
            self._panels.inspector.show_error(session.weight_error(layers[0].name))

    def _show_sizes(self) -> None:
        self._panels.status.show_size(self._session.size(QuantConfig()), self._session.size())

    def _show_quality(self) -> None:
        session = self._session
        own = session.evaluation
        shown = own or session.newest_evaluation
        trustworthy = session.data is None or session.data.trustworthy
        self._panels.status.show_quality(
            shown,
            current=own is not None,
            trustworthy=trustworthy,
            coming=session.jobs.is_active("evaluate"),
        )

    def _layers(self) -> tuple[LayerInfo, ...]:
        return () if self._session.summary is None else self._session.summary.layers

    def colour_graph_soon(self) -> None:
        """Colour the graph when it has come into sight."""
        self._graph_colours.soon()
