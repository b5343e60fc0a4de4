"""Colours the drawn network by what the user wants to see."""

from __future__ import annotations

from collections.abc import Mapping

from PySide6.QtCore import QObject, QTimer

from quantgui.gui.layer_damage import layer_damages
from quantgui.gui.panels.graph import GraphPanel
from quantgui.gui.quality import metric_name
from quantgui.results import LayerInfo
from quantgui.session.session import Session
from quantgui.spec.quantizer import bits_of

_SOON_MS = 250


class GraphColours(QObject):
    """Keeps the colours of the graph true while it is seen."""

    def __init__(self, session: Session, panel: GraphPanel, parent: QObject) -> None:
        super().__init__(parent)
        self._session = session
        self._panel = panel
        self._chosen = "weight"
        self._timer = QTimer(self, singleShot=True, interval=_SOON_MS)
        self._timer.timeout.connect(self._show)
        panel.colouring_chosen.connect(self._on_chosen)
        session.config_changed.connect(self._on_changed)
        session.weight_error_ready.connect(self._on_changed)
        session.noise_ready.connect(self._on_changed)
        session.sensitivity_ready.connect(self._on_changed)
        session.data_opened.connect(self._on_changed)

    def soon(self) -> None:
        """Colour the graph when it has come into sight."""
        if not self._timer.isActive():
            self._timer.start()

    def _on_changed(self, _: object) -> None:
        self.soon()

    def _on_chosen(self, key: str) -> None:
        self._chosen = key
        self._show()

    def _show(self) -> None:
        if not self._panel.isVisible():
            return
        match self._chosen:
            case "own":
                self._panel.color_by(self._noise("own"), self.tr("Own noise: SQNR, dB"), self._trace_first())
            case "inherited":
                self._panel.color_by(
                    self._noise("inherited"), self.tr("Inherited noise: SQNR, dB"), self._trace_first()
                )
            case "sensitivity":
                values, label = self._sensitivity()
                self._panel.color_by(values, label, self.tr("Measure sensitivity first (F6)."))
            case "bits":
                bits = {x.name: float(bits_of(self._session.spec_for(x.name).weights)) for x in self._layers()}
                self._panel.color_by(bits, self.tr("Bits of the weights"))
            case _:
                errors = ((layer.name, self._session.weight_error(layer.name)) for layer in self._layers())
                self._panel.color_by(
                    {name: error.sqnr_db for name, error in errors if error is not None}, self.tr("Weight SQNR, dB")
                )

    def _trace_first(self) -> str:
        return self.tr("Trace noise first (F8).")

    def _noise(self, which: str) -> Mapping[str, float]:
        noise = self._session.noise
        layers = () if noise is None else noise.layers
        return {x.layer: x.own_sqnr_db if which == "own" else x.inherited_sqnr_db for x in layers}

    def _sensitivity(self) -> tuple[Mapping[str, float], str]:
        table = self._session.sensitivity
        if table is None:
            return {}, self.tr("Sensitivity")
        has_activations = {layer.name: layer.quantizes_activations for layer in self._layers()}
        found, _ = layer_damages(table, self._session.spec_for, lambda name: has_activations.get(name, False))
        label = self.tr("Sensitivity: {metric}").format(metric=metric_name(table.metric))
        return {name: each.candidate.value for name, each in found.items()}, label

    def _layers(self) -> tuple[LayerInfo, ...]:
        return () if self._session.summary is None else self._session.summary.layers
