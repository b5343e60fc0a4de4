"""How clipping limits are found: a list of estimators, with the parameters of the chosen one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from PySide6.QtCore import Qt, Signal
from PySide6.QtGui import QStandardItemModel
from PySide6.QtWidgets import QComboBox, QDoubleSpinBox, QHBoxLayout, QSizePolicy, QVBoxLayout, QWidget

from quantgui.gui.widgets.spin import indented
from quantgui.session.edits import adapted
from quantgui.spec.quantizer import (
    Entropy,
    FixedRange,
    HalfQuadratic,
    InputWeightedError,
    LeastSquaredError,
    MinMax,
    MovingAverage,
    Percentile,
    QuantizerSpec,
    RangeEstimator,
    SampleMean,
    Trained,
    TwoSidedPercentile,
)

MIXED: Final = object()
"""Stands for "the layers differ" where a single value is shown."""


class Choice(QComboBox):
    """A combo box over values that can show that the layers differ."""

    def __init__(self, name: str, help_text: str, choices: Sequence[tuple[object, str, str]]) -> None:
        super().__init__()
        self.setAccessibleName(name)
        self.setToolTip(help_text)
        self.setPlaceholderText(self.tr("mixed"))
        self.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self.setMinimumContentsLength(8)
        self._help: list[str] = []
        for value, text, explanation in choices:
            self.addItem(text, value)
            self._help.append(explanation)
            self.setItemData(self.count() - 1, explanation, Qt.ItemDataRole.ToolTipRole)

    def show_value(self, value: object) -> None:
        index = next((i for i in range(self.count()) if self.itemData(i) == value), -1)
        self.setCurrentIndex(index)

    def offer(self, value: object, text: str, explanation: str, *, offered: bool) -> None:
        """Add a choice at the end, or take it away."""
        place = next((i for i in range(self.count()) if self.itemData(i) == value), -1)
        if offered and place < 0:
            self.addItem(text, value)
            self._help.append(explanation)
            self.setItemData(self.count() - 1, explanation, Qt.ItemDataRole.ToolTipRole)
        elif place >= 0 and not offered:
            self.removeItem(place)
            del self._help[place]

    def show_refusals(self, reasons: Mapping[object, str]) -> None:
        """Grey the choices that have a reason in `reasons`."""
        items = self.model()
        assert isinstance(items, QStandardItemModel)
        for place, explanation in enumerate(self._help):
            reason = reasons.get(self.itemData(place), "")
            items.item(place).setEnabled(not reason)
            self.setItemData(place, f"{explanation}\n{reason}".strip(), Qt.ItemDataRole.ToolTipRole)


class RangeEditor(QWidget):
    """Range estimator with its parameters.

    Signals:
        edited: a function from the old to the new `QuantizerSpec`, words for the undo step, and a merge key.
    """

    edited = Signal(object, str, str)

    def __init__(self, name: str, parent: QWidget | None = None, *, of_samples: bool = False) -> None:
        super().__init__(parent)
        self._name = name
        self._view_range: tuple[float, float] = (-1.0, 1.0)
        self._shown: RangeEstimator | None = None
        self._make_kind(of_samples=of_samples)
        self._make_values()
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(5)
        for widget in (self.kind, self.percentile, self._percentiles, self.momentum, self._limits):
            layout.addWidget(widget)
        self.kind.activated.connect(self._on_kind)
        self.percentile.valueChanged.connect(self._on_percentile)
        self.lower_percentile.valueChanged.connect(self._on_percentiles)
        self.upper_percentile.valueChanged.connect(self._on_percentiles)
        self.momentum.valueChanged.connect(self._on_momentum)
        self.low.editingFinished.connect(self._on_limits)
        self.high.editingFinished.connect(self._on_limits)

    def _make_kind(self, *, of_samples: bool) -> None:
        of_one = (
            (MovingAverage, self.tr("Moving average"), self.tr("Moving average of each sample's extremes.")),
            (
                SampleMean,
                self.tr("Mean of samples"),
                self.tr("Mean of each sample's extremes: odd samples count less."),
            ),
        )
        of_weights = (
            (
                InputWeightedError,
                self.tr("Input-weighted error"),
                self.tr("Squared error of the layer's output, by how strong each input is; needs data."),
            ),
            (
                HalfQuadratic,
                self.tr("Half-quadratic"),
                self.tr("HQQ: moves the zero point to where large errors are few; asymmetric integers, no data."),
            ),
        )
        self.kind = Choice(
            self.tr("Range of the {name}").format(name=self._name),
            self.tr("How the clipping limits are found."),
            (
                (MinMax, self.tr("Min–max"), self.tr("Smallest and largest value: nothing is clipped.")),
                (Percentile, self.tr("Percentile"), self.tr("Between which the central share of all values lies.")),
                (
                    TwoSidedPercentile,
                    self.tr("Two percentiles"),
                    self.tr("One percentile for each end: for values that lie more on one side."),
                ),
                (LeastSquaredError, self.tr("Least squared error"), self.tr("Searched in each group.")),
                (Entropy, self.tr("Entropy"), self.tr("Least KL divergence of the histogram.")),
                *(of_one if of_samples else of_weights),
                (FixedRange, self.tr("Fixed"), self.tr("Set by hand; dragging the limits does the same.")),
            ),
        )

    def _make_values(self) -> None:
        self.percentile = self._spin(self.tr("Percentile"), 50.0, 100.0, 4, 0.01, " %")
        self.percentile.setToolTip(self.tr("Share of the values inside the limits, 50 to 100 %."))
        self.lower_percentile = self._spin(self.tr("Lower percentile"), 0.0, 50.0, 4, 0.01, " %")
        self.lower_percentile.setToolTip(self.tr("Share of the values below the range, 0 to 50 %."))
        self.upper_percentile = self._spin(self.tr("Upper percentile"), 50.0, 100.0, 4, 0.01, " %")
        self.upper_percentile.setToolTip(self.tr("Share of the values below the upper end of the range, 50 to 100 %."))
        self.momentum = self._spin(self.tr("Momentum"), 0.0, 0.9999, 4, 0.01)
        self.momentum.setToolTip(self.tr("Weight of what was seen before, 0 to below 1; larger is slower."))
        self.low = self._spin(self.tr("Lower limit"), -1e9, 0.0, 5, 0.01)
        self.low.setToolTip(self.tr("Lower clipping limit, in units of the values; at most 0."))
        self.high = self._spin(self.tr("Upper limit"), 0.0, 1e9, 5, 0.01)
        self.high.setToolTip(self.tr("Upper clipping limit, in units of the values; at least 0."))
        self._limits = self._pair(self.low, self.high)
        self._percentiles = self._pair(self.lower_percentile, self.upper_percentile)

    def show_range(self, estimators: set[RangeEstimator], view_range: tuple[float, float] | None) -> None:
        """Show the common estimator, or that they differ; `view_range` is where a fixed range would start."""
        if view_range is not None:
            self._view_range = view_range
        kinds = {type(estimator) for estimator in estimators}
        self.kind.offer(
            Trained,
            self.tr("Trained"),
            self.tr("Values and scales as training left them; any other choice leaves them."),
            # Nobody but training can set it.
            offered=kinds == {Trained},
        )
        self.kind.show_value(next(iter(kinds)) if len(kinds) == 1 else MIXED)
        self._shown = next(iter(estimators)) if len(estimators) == 1 else None
        self.percentile.setVisible(kinds == {Percentile})
        self._limits.setVisible(kinds == {FixedRange})
        self._percentiles.setVisible(kinds == {TwoSidedPercentile})
        self.momentum.setVisible(kinds == {MovingAverage})
        if isinstance(self._shown, TwoSidedPercentile):
            self._set(self.lower_percentile, self._shown.lower)
            self._set(self.upper_percentile, self._shown.upper)
        if isinstance(self._shown, MovingAverage):
            self._set(self.momentum, self._shown.momentum)
        if isinstance(self._shown, Percentile):
            self._set(self.percentile, self._shown.percentile)
        if isinstance(self._shown, FixedRange):
            self._set(self.low, self._shown.low)
            self._set(self.high, self._shown.high)

    def _pair(self, first: QWidget, second: QWidget) -> QWidget:
        pair = QWidget()
        row = QHBoxLayout(pair)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(5)
        row.addWidget(first)
        row.addWidget(second)
        return pair

    def _spin(self, name: str, low: float, high: float, decimals: int, step: float, suffix: str = "") -> QDoubleSpinBox:
        spin = indented(QDoubleSpinBox())
        spin.setRange(low, high)
        spin.setDecimals(decimals)
        spin.setSingleStep(step)
        spin.setSuffix(suffix)
        spin.setStepType(QDoubleSpinBox.StepType.DefaultStepType)
        spin.setKeyboardTracking(False)
        spin.setAccessibleName(f"{name}: {self._name}")
        spin.setMinimumWidth(60)
        spin.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        return spin

    def _set(self, spin: QDoubleSpinBox, value: float) -> None:
        spin.blockSignals(True)
        spin.setValue(value)
        spin.blockSignals(False)

    def _on_kind(self) -> None:
        kind = self.kind.currentData()
        if kind is None or kind is Trained or kind is type(self._shown):
            return
        low, high = self._view_range
        estimator = FixedRange(min(low, 0.0), max(high, 0.0)) if kind is FixedRange else kind()
        self._emit(estimator, self.kind.currentText(), "")

    def _on_percentile(self, value: float) -> None:
        self._emit(Percentile(value), f"{value:g} %", "percentile")

    def _on_percentiles(self) -> None:
        lower, upper = self.lower_percentile.value(), self.upper_percentile.value()
        words = self.tr("{lower} % to {upper} %").format(lower=f"{lower:g}", upper=f"{upper:g}")
        self._emit(TwoSidedPercentile(lower, upper), words, "percentiles")

    def _on_momentum(self, value: float) -> None:
        self._emit(MovingAverage(value), self.tr("moving average {momentum}").format(momentum=f"{value:g}"), "momentum")

    def _on_limits(self) -> None:
        chosen = FixedRange(self.low.value(), self.high.value())
        if isinstance(self._shown, FixedRange):
            chosen = replace(chosen, output=self._shown.output)
            # The boxes show rounded limits; only what the user typed may change.
            if abs(chosen.low - self._shown.low) < 0.6e-5:
                chosen = replace(chosen, low=self._shown.low)
            if abs(chosen.high - self._shown.high) < 0.6e-5:
                chosen = replace(chosen, high=self._shown.high)
        if chosen != self._shown:
            self._emit(chosen, self.tr("a fixed range"), "")

    def _emit(self, estimator: RangeEstimator, words: str, merge: str) -> None:
        def change(spec: QuantizerSpec) -> QuantizerSpec:
            return adapted(spec, range_estimator=estimator)[0]

        text = self.tr("Set range of {name} to {range}").format(name=self._name, range=words)
        self.edited.emit(change, text, merge)
