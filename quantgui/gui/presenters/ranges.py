"""Ranges set on the curves of the weights and activations tabs, and the pages these tabs are turned to."""

from __future__ import annotations

from dataclasses import replace

from PySide6.QtCore import QObject

from quantgui.gui.estimators import estimator_name
from quantgui.gui.panels.activations import ActivationsPanel
from quantgui.gui.panels.weights import WeightsPanel
from quantgui.session.session import Session
from quantgui.spec.quantizer import FixedRange, RangeEstimator


class RangesPresenter(QObject):
    """Takes what is clicked and dragged on error curves to the current layer, one undo step each."""

    def __init__(self, session: Session, weights: WeightsPanel, activations: ActivationsPanel, parent: QObject) -> None:
        super().__init__(parent)
        self._session = session
        weights.estimator_chosen.connect(self._on_weight_estimator)
        activations.estimator_chosen.connect(self._on_activation_estimator)
        activations.limits_chosen.connect(self._on_activation_limits)

    def _on_weight_estimator(self, estimator: RangeEstimator) -> None:
        layer = self._session.current
        if layer is None or not self._session.is_editable(layer.name):
            return
        spec = self._session.spec_for(layer.name)
        if spec.weights is None or not spec.weights.has_scale:
            return
        words = self.tr("Set range of {layer} to {range}")
        self._session.set_specs(
            {layer.name: replace(spec, weights=replace(spec.weights, range_estimator=estimator))},
            words.format(layer=layer.name, range=estimator_name(estimator)),
        )

    def _on_activation_estimator(self, estimator: RangeEstimator) -> None:
        words = self.tr("Set range of the activations of {layer} to {range}")
        self._set_activation_range(estimator, words, estimator_name(estimator))

    def _on_activation_limits(self, low: float, high: float) -> None:
        words = self.tr("Drag the limits of the activations of {layer}")
        self._set_activation_range(FixedRange(min(low, 0.0), max(high, 0.0)), words, "")

    def _set_activation_range(self, estimator: RangeEstimator, words: str, name: str) -> None:
        layer = self._session.current
        if layer is None:
            return
        spec = self._session.spec_for(layer.name)
        if spec.activations is None or not spec.activations.has_scale:
            return
        self._session.set_specs(
            {layer.name: replace(spec, activations=replace(spec.activations, range_estimator=estimator))},
            words.format(layer=layer.name, range=name),
        )
