"""Carries the sweep between the session and the sensitivity tab."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

from PySide6.QtCore import QObject

from quantgui.gui.layer_words import describe_layers
from quantgui.gui.models.layers import LayersModel
from quantgui.gui.panels.sensitivity import SensitivityPanel
from quantgui.gui.panels.sweep_controls import Question
from quantgui.gui.presenters.sight import WhenSeen
from quantgui.gui.presenters.waiting import is_waiting, waiting_words
from quantgui.results import Candidate, NetworkSummary
from quantgui.session.edits import fitting
from quantgui.session.jobs import Job
from quantgui.session.session import Session
from quantgui.spec.quantizer import LayerSpec
from quantgui.spec.sweep import What

TOPIC = "sensitivity"
_RUNS_OF_AN_EVALUATION = 2
"""The float network and the quantized one."""


class SensitivityPresenter(QObject):
    """Connects `Session` and `SensitivityPanel`; a tab that is not seen is told when it comes into sight."""

    def __init__(self, session: Session, panel: SensitivityPanel, layers: LayersModel, parent: QObject) -> None:
        super().__init__(parent)
        self._session = session
        self._panel = panel
        self._layers = layers
        self._when_seen = WhenSeen(panel)
        session.network_opened.connect(self._on_network)
        session.network_closed.connect(self._on_network)
        session.data_opened.connect(self._on_data)
        session.config_changed.connect(self._on_config_changed)
        session.selection_changed.connect(self._on_selection_changed)
        session.evaluation_ready.connect(self._on_evaluation)
        session.sensitivity_ready.connect(self._on_sensitivity)
        session.job_changed.connect(self._on_job)
        layers.rows_changed.connect(self._on_rows_changed)
        panel.start_requested.connect(self._on_start)
        panel.pause_requested.connect(self._on_pause)
        panel.layers_selected.connect(session.select)
        panel.candidates_chosen.connect(self.choose)
        panel.question_changed.connect(self._show_answered)
        if session.summary is not None:
            self._on_network(session.summary)
            self._on_data()

    # --- what the user wants -------------------------------------------------------------------------------------

    def measure(self) -> None:
        """Measure what the settings of the panel ask, unless that is under way."""
        if not self._session.jobs.is_active(TOPIC):
            self._panel.start()

    def choose(self, candidates: list[Candidate]) -> None:
        """Give layers the formats of candidates, as far as the sweep changes them, in one undo step."""
        session, table = self._session, self._session.sensitivity
        if table is None:
            return
        specs: dict[str, LayerSpec] = {}
        for each in candidates:
            layer = session.layer(each.layer)
            if layer is not None:
                specs[each.layer] = fitting(layer, _taken(session.spec_for(each.layer), each.spec, table.sweep.what))
        if specs:
            text = self.tr("Set {layers} to {format}")
            session.set_specs(specs, text.format(layers=describe_layers(list(specs)), format=candidates[0].format))

    def _on_start(self, question: Question) -> None:
        self._session.measure_sensitivity(question.sweep(self._session.config))

    def _on_pause(self) -> None:
        self._session.cancel(TOPIC)

    # --- what the session says -----------------------------------------------------------------------------------

    def _on_network(self, summary: NetworkSummary | None = None) -> None:
        self._when_seen.forget()
        self._panel.show_network(summary)
        self._show_all_present()

    def _on_data(self, _: object = None) -> None:
        self._panel.show_data(self._session.data)
        self._show_metrics()
        self._on_rows_changed()

    def _on_config_changed(self, changed: frozenset[str]) -> None:
        if not changed:
            # The metric is another one.
            self._when_seen(self._show_metrics)
            self._when_seen(self._show_table)
        self._when_seen(self._show_all_present)
        self._when_seen(self._show_answered)

    def _on_selection_changed(self, _: object) -> None:
        self._when_seen(self._show_selection)

    def _on_evaluation(self, _: object) -> None:
        self._when_seen(self._show_metrics)

    def _on_sensitivity(self, _: object) -> None:
        self._when_seen(self._show_table)

    def _on_job(self, job: Job) -> None:
        if job.topic == TOPIC or is_waiting(self._session.jobs, TOPIC):
            self._when_seen(self._show_job)

    def _on_rows_changed(self) -> None:
        self._when_seen(self._show_rows)

    # --- showing -------------------------------------------------------------------------------------------------

    def _show_table(self) -> None:
        self._panel.show_table(self._session.sensitivity)
        self._show_answered()
        self._show_selection()

    def _show_job(self) -> None:
        job = self._session.jobs.of_topic(TOPIC)
        if job is not None:
            self._panel.show_job(job, waiting_words(self._session.jobs, TOPIC))

    def _show_all_present(self) -> None:
        summary = self._session.summary
        layers = () if summary is None else summary.layers
        self._panel.show_present({layer.name: self._session.spec_for(layer.name) for layer in layers})

    def _show_answered(self) -> None:
        """Say whether the table is the answer to what the settings ask now."""
        question, table = self._panel.asked(), self._session.sensitivity
        answered = question is not None and table is not None and question.sweep(self._session.config) == table.sweep
        self._panel.show_answered(answered=answered)

    def _show_selection(self) -> None:
        self._panel.show_selection(self._session.selection)

    def _show_rows(self) -> None:
        summary = self._session.summary
        names = () if summary is None else tuple(layer.name for layer in summary.layers)
        shown = frozenset(name for name in names if self._layers.row_of(name) is not None)
        self._panel.show_only(None if len(shown) == len(names) else shown)

    def _show_metrics(self) -> None:
        session = self._session
        evaluation = session.newest_evaluation
        possible: set[str] | None = None
        if evaluation is not None:
            possible = {"output_sqnr_db", "cosine", *evaluation.scores}
            if "agreement" in possible:
                possible.add("kl")
        name = session.metric.rpartition(":")[2] or Path(session.metric).stem
        self._panel.show_metrics(possible, name)
        self._panel.show_cost(self._sample_seconds())

    def _sample_seconds(self) -> float:
        """Return about what one sample takes in the float network; NaN where nothing has been measured."""
        evaluation = self._session.newest_evaluation
        if evaluation is None or not evaluation.quantized_score.samples:
            return math.nan
        return evaluation.seconds / evaluation.quantized_score.samples / _RUNS_OF_AN_EVALUATION


def _taken(old: LayerSpec, tried: LayerSpec, what: What) -> LayerSpec:
    """Return `old` with the part that the sweep changes taken from `tried`."""
    match what:
        case "weights":
            return replace(old, weights=tried.weights)
        case "activations":
            return replace(old, activations=tried.activations)
        case "both":
            return tried
