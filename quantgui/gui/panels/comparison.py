"""Two configurations beside each other, layer by layer."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from PySide6.QtCore import QObject, Qt, Signal
from PySide6.QtWidgets import QCheckBox, QGridLayout, QHBoxLayout, QLabel, QPushButton, QVBoxLayout, QWidget

from quantgui.gui import numbers
from quantgui.gui.models.compared_layers import (
    ComparedLayersModel,
    LayerColumn,
    difference,
    is_unknown,
    signed_decibel,
)
from quantgui.gui.numbers import MINUS
from quantgui.gui.quality import metric_name, score_text
from quantgui.gui.widgets.compared_layers import ComparedLayersTable
from quantgui.gui.widgets.labels import MetricLabel
from quantgui.results import Score


@dataclass(frozen=True, slots=True)
class ComparedLayer:
    """A layer under A and B: formats as words, bytes of its weight, SQNR of the weight in dB (NaN: not known)."""

    name: str
    formats: tuple[str, str]
    bytes: tuple[int, int]
    sqnr_db: tuple[float, float]
    differs: bool


@dataclass(frozen=True, slots=True)
class ComparedSide:
    """One of the two configurations as a whole; `score` is None where it has not been evaluated."""

    label: str
    bytes: int
    score: Score | None
    in_use: bool


@dataclass(frozen=True, slots=True)
class Comparison:
    """What is compared: A and B, by a metric, layer by layer."""

    sides: tuple[ComparedSide, ComparedSide]
    metric: str
    layers: tuple[ComparedLayer, ...]


class ComparedColumn(IntEnum):
    """Columns in their order."""

    NAME = 0
    A = 1
    B = 2
    BYTES = 3
    SQNR = 4


class ComparisonModel(ComparedLayersModel[ComparedLayer]):
    """Formats, bytes and error of each layer under A and B; at first those that differ."""

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(self._make_columns(), lambda layer: layer.differs, parent, only_different=True)

    def _make_columns(self) -> tuple[LayerColumn[ComparedLayer], ...]:
        return (
            LayerColumn(
                self.tr("Layer"),
                self.tr("Name of the layer in the network."),
                text=lambda layer: layer.name,
                key=lambda layer: layer.name.lower(),
                token=_token,
            ),
            LayerColumn(
                self.tr("A"),
                self.tr("Weights and activations under A."),
                text=lambda layer: layer.formats[0],
                key=lambda layer: layer.formats[0],
                tip=lambda layer: layer.name,
                token=_token,
                width=128,
            ),
            LayerColumn(
                self.tr("B"),
                self.tr("Weights and activations under B."),
                text=lambda layer: layer.formats[1],
                key=lambda layer: layer.formats[1],
                tip=lambda layer: layer.name,
                token=_token,
                width=128,
            ),
            LayerColumn(
                self.tr("Bytes, B − A"),
                self.tr("How much more the weight takes under B."),
                text=lambda layer: _signed_size(layer.bytes[1] - layer.bytes[0]),
                key=lambda layer: layer.bytes[1] - layer.bytes[0],
                tip=lambda layer: self._both(*(numbers.data_size(each) for each in layer.bytes)),
                token=_token,
                is_number=True,
                width=104,
            ),
            LayerColumn(
                self.tr("SQNR, B − A"),
                self.tr("How much better the weight is kept under B, in dB; larger is better."),
                text=lambda layer: signed_decibel(difference(*layer.sqnr_db)),
                key=lambda layer: difference(*layer.sqnr_db),
                tip=self._sqnr_tip,
                token=_token,
                is_number=True,
                width=104,
            ),
        )

    def _sqnr_tip(self, layer: ComparedLayer) -> str:
        if any(map(is_unknown, layer.sqnr_db)):
            return self.tr("Not known yet: it is computed when the configuration is in use.")
        return self._both(*(numbers.decibel(each) for each in layer.sqnr_db))

    def _both(self, first: str, second: str) -> str:
        return self.tr("A: {a}, B: {b}").format(a=first, b=second)


class ComparisonPanel(QWidget):
    """A and B: sizes, quality, and the layers that differ.

    Signals:
        side_chosen: ``A`` or ``B`` is to become the configuration.
        layer_picked: name of the layer whose row was clicked.
    """

    side_chosen = Signal(str)
    layer_picked = Signal(str)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setAccessibleName(self.tr("Comparison of A and B"))
        self.model = ComparisonModel(self)
        self.table = ComparedLayersTable(
            self.model, [column.width for column in self.model.columns], self.tr("Layers under A and B")
        )
        self.only = QCheckBox(self.tr("Only layers that differ"))
        self.summary = QLabel()
        self.summary.setProperty("role", "note")
        self._titles: dict[str, QLabel] = {}
        self._sizes: dict[str, MetricLabel] = {}
        self._scores: dict[str, MetricLabel] = {}
        self.buttons: dict[str, QPushButton] = {}
        self.only.setChecked(True)
        self.only.setAccessibleName(self.only.text())
        self.only.setToolTip(self.tr("Leave out the layers that are the same under A and B."))
        heads = QHBoxLayout()
        heads.setSpacing(24)
        for side in ("A", "B"):
            heads.addWidget(self._make_head(side), 1)
        line = QHBoxLayout()
        line.addWidget(self.only)
        line.addStretch(1)
        line.addWidget(self.summary)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(10)
        layout.addLayout(heads)
        layout.addLayout(line)
        layout.addWidget(self.table, 1)
        self.only.toggled.connect(lambda on: self.model.show_only_different(only=on))
        self.table.row_picked.connect(self._on_picked)

    def show_comparison(self, comparison: Comparison) -> None:
        """Show two configurations."""
        smaller = min(side.bytes for side in comparison.sides)
        for name, side in zip(("A", "B"), comparison.sides, strict=True):
            label = self.tr("{side}: {label}").format(side=name, label=side.label)
            self._titles[name].setText(self.tr("{label}, in use").format(label=label) if side.in_use else label)
            self._sizes[name].show_value(
                numbers.data_size(side.bytes),
                "good" if side.bytes == smaller < self._other(comparison, name) else "text",
            )
            self._scores[name].show_value("–" if side.score is None else score_text(side.score, comparison.metric))
            self._scores[name].show_caption(metric_name(comparison.metric) if comparison.metric else self.tr("quality"))
            self.buttons[name].setEnabled(not side.in_use)
        different = sum(layer.differs for layer in comparison.layers)
        self.summary.setText(
            self.tr("{n} of {all} layers differ").format(n=different, all=len(comparison.layers))
            if different
            else self.tr("A and B are the same")
        )
        self.model.show_layers(comparison.layers)

    def _other(self, comparison: Comparison, name: str) -> int:
        return comparison.sides[1 if name == "A" else 0].bytes

    def _make_head(self, side: str) -> QWidget:
        head = QWidget()
        self._titles[side] = QLabel()
        self._titles[side].setProperty("role", "title")
        self._sizes[side] = MetricLabel(
            self.tr("size"), self.tr("Bytes of the whole network under this configuration.")
        )
        self._scores[side] = MetricLabel(self.tr("quality"), self.tr("Measured, with its standard error."))
        button = QPushButton(self.tr("Use {side}").format(side=side))
        button.setAccessibleName(button.text())
        button.setToolTip(self.tr("Make {side} the configuration, in one undo step.").format(side=side))
        button.clicked.connect(lambda: self.side_chosen.emit(side))
        self.buttons[side] = button
        grid = QGridLayout(head)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.addWidget(self._titles[side], 0, 0, 1, 3)
        grid.addWidget(self._sizes[side], 1, 0)
        grid.addWidget(self._scores[side], 1, 1)
        grid.addWidget(button, 1, 2, Qt.AlignmentFlag.AlignVCenter)
        grid.setColumnStretch(1, 1)
        grid.setColumnMinimumWidth(0, 88)
        return head

    def _on_picked(self, row: int) -> None:
        self.layer_picked.emit(self.model.layer(row).name)


def _token(layer: ComparedLayer) -> str:
    return "" if layer.differs else "muted"


def _signed_size(value: int) -> str:
    return "0" if value == 0 else f"+{numbers.data_size(value)}" if value > 0 else f"{MINUS}{numbers.data_size(-value)}"
