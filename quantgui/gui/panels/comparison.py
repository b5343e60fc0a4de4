"""Two configurations beside each other, layer by layer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from PySide6.QtCore import QAbstractTableModel, QModelIndex, QObject, QPersistentModelIndex, Qt, Signal
from PySide6.QtGui import QBrush
from PySide6.QtWidgets import (
    QAbstractItemView,
    QCheckBox,
    QGridLayout,
    QHBoxLayout,
    QHeaderView,
    QLabel,
    QPushButton,
    QTableView,
    QVBoxLayout,
    QWidget,
)

from quantgui.gui import numbers
from quantgui.gui.numbers import MINUS
from quantgui.gui.quality import metric_name, score_text
from quantgui.gui.theme import current, theme_events
from quantgui.gui.widgets.labels import MetricLabel
from quantgui.results import Score

Index = QModelIndex | QPersistentModelIndex
ROOT = QModelIndex()
_ROW_HEIGHT = 26


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


class ComparisonModel(QAbstractTableModel):
    """One row per layer; those that differ are highlighted."""

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._all: tuple[ComparedLayer, ...] = ()
        self._rows: list[ComparedLayer] = []
        self._only_different = True
        self._sort: tuple[int, Qt.SortOrder] = (-1, Qt.SortOrder.AscendingOrder)
        theme_events().changed.connect(self._rebuild)

    def show_layers(self, layers: Sequence[ComparedLayer]) -> None:
        """Show these layers."""
        self._all = tuple(layers)
        self._rebuild()

    def show_only_different(self, *, only: bool) -> None:
        """Leave out the layers that are the same."""
        self._only_different = only
        self._rebuild()

    def layer(self, row: int) -> ComparedLayer:
        """Return the layer in `row`."""
        return self._rows[row]

    def rowCount(self, parent: Index = ROOT) -> int:
        return 0 if parent.isValid() else len(self._rows)

    def columnCount(self, parent: Index = ROOT) -> int:
        return 0 if parent.isValid() else len(ComparedColumn)

    def headerData(self, section: int, orientation: Qt.Orientation, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        if orientation != Qt.Orientation.Horizontal or not 0 <= section < len(ComparedColumn):
            return None
        title, help_text = self._titles()[ComparedColumn(section)]
        match role:
            case Qt.ItemDataRole.DisplayRole:
                return title
            case Qt.ItemDataRole.ToolTipRole:
                return help_text
            case Qt.ItemDataRole.TextAlignmentRole:
                side = Qt.AlignmentFlag.AlignRight if section >= ComparedColumn.BYTES else Qt.AlignmentFlag.AlignLeft
                return side | Qt.AlignmentFlag.AlignVCenter
            case _:
                return None

    def data(self, index: Index, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        if not index.isValid() or index.row() >= len(self._rows):
            return None
        layer, column = self._rows[index.row()], ComparedColumn(index.column())
        match role:
            case Qt.ItemDataRole.DisplayRole:
                return self._text(layer, column)
            case Qt.ItemDataRole.ToolTipRole:
                return self._tip(layer, column)
            case Qt.ItemDataRole.BackgroundRole if layer.differs:
                return QBrush(current().color("quantized", 0.12))
            case Qt.ItemDataRole.ForegroundRole:
                return None if layer.differs else current().color("muted")
            case Qt.ItemDataRole.TextAlignmentRole if column >= ComparedColumn.BYTES:
                return Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
            case _:
                return None

    def sort(self, column: int, order: Qt.SortOrder = Qt.SortOrder.AscendingOrder) -> None:
        self._sort = (column, order)
        self._rebuild()

    def _rebuild(self, _: object = None) -> None:
        rows = [layer for layer in self._all if layer.differs or not self._only_different]
        column, order = self._sort
        if column >= 0:
            chosen = ComparedColumn(column)
            rows.sort(key=lambda layer: _sort_key(layer, chosen), reverse=order == Qt.SortOrder.DescendingOrder)
        self.beginResetModel()
        self._rows = rows
        self.endResetModel()

    def _titles(self) -> dict[ComparedColumn, tuple[str, str]]:
        return {
            ComparedColumn.NAME: (self.tr("Layer"), self.tr("Name of the layer in the network.")),
            ComparedColumn.A: (self.tr("A"), self.tr("Weights and activations under A.")),
            ComparedColumn.B: (self.tr("B"), self.tr("Weights and activations under B.")),
            ComparedColumn.BYTES: (self.tr("Bytes, B − A"), self.tr("How much more the weight takes under B.")),
            ComparedColumn.SQNR: (
                self.tr("SQNR, B − A"),
                self.tr("How much better the weight is kept under B, in dB; larger is better."),
            ),
        }

    def _text(self, layer: ComparedLayer, column: ComparedColumn) -> str:
        match column:
            case ComparedColumn.NAME:
                return layer.name
            case ComparedColumn.A:
                return layer.formats[0]
            case ComparedColumn.B:
                return layer.formats[1]
            case ComparedColumn.BYTES:
                return _signed_size(layer.bytes[1] - layer.bytes[0])
            case ComparedColumn.SQNR:
                return _signed_db(_sqnr_difference(layer))

    def _tip(self, layer: ComparedLayer, column: ComparedColumn) -> str:
        match column:
            case ComparedColumn.BYTES:
                first, second = (numbers.data_size(each) for each in layer.bytes)
                return self.tr("A: {a}, B: {b}").format(a=first, b=second)
            case ComparedColumn.SQNR if any(math.isnan(each) for each in layer.sqnr_db):
                return self.tr("Not known yet: it is computed when the configuration is in use.")
            case ComparedColumn.SQNR:
                first, second = (numbers.decibel(each) for each in layer.sqnr_db)
                return self.tr("A: {a}, B: {b}").format(a=first, b=second)
            case _:
                return layer.name


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
        self.table = QTableView()
        self.only = QCheckBox(self.tr("Only layers that differ"))
        self.summary = QLabel()
        self.summary.setProperty("role", "note")
        self._titles: dict[str, QLabel] = {}
        self._sizes: dict[str, MetricLabel] = {}
        self._scores: dict[str, MetricLabel] = {}
        self.buttons: dict[str, QPushButton] = {}
        self._make_table()
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
        self.table.clicked.connect(self._on_clicked)
        self.table.activated.connect(self._on_clicked)

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

    def _make_table(self) -> None:
        table = self.table
        table.setModel(self.model)
        table.setAccessibleName(self.tr("Layers under A and B"))
        table.setToolTip("")
        table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        table.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        table.setShowGrid(False)
        table.setWordWrap(False)
        table.setTextElideMode(Qt.TextElideMode.ElideLeft)
        table.setTabKeyNavigation(False)
        table.verticalHeader().setVisible(False)
        table.verticalHeader().setDefaultSectionSize(_ROW_HEIGHT)
        header = table.horizontalHeader()
        header.setHighlightSections(False)
        header.setSortIndicatorClearable(True)
        header.setSortIndicator(-1, Qt.SortOrder.AscendingOrder)
        header.setSectionResizeMode(ComparedColumn.NAME, QHeaderView.ResizeMode.Stretch)
        for column, width in (
            (ComparedColumn.A, 128),
            (ComparedColumn.B, 128),
            (ComparedColumn.BYTES, 104),
            (ComparedColumn.SQNR, 104),
        ):
            table.setColumnWidth(column, width)
        table.setSortingEnabled(True)

    def _on_clicked(self, index: QModelIndex) -> None:
        self.layer_picked.emit(self.model.layer(index.row()).name)


def _sort_key(layer: ComparedLayer, column: ComparedColumn) -> Any:
    match column:
        case ComparedColumn.NAME:
            return layer.name.lower()
        case ComparedColumn.A:
            return layer.formats[0]
        case ComparedColumn.B:
            return layer.formats[1]
        case ComparedColumn.BYTES:
            return layer.bytes[1] - layer.bytes[0]
        case ComparedColumn.SQNR:
            difference = _sqnr_difference(layer)
            return math.inf if math.isnan(difference) else difference


def _sqnr_difference(layer: ComparedLayer) -> float:
    first, second = layer.sqnr_db
    return 0.0 if first == second else second - first


def _signed_size(value: int) -> str:
    return "0" if value == 0 else f"+{numbers.data_size(value)}" if value > 0 else f"{MINUS}{numbers.data_size(-value)}"


def _signed_db(value: float) -> str:
    if math.isnan(value):
        return "–"
    return "0" if value == 0 else f"+{numbers.decibel(value)}" if value > 0 else numbers.decibel(value)
