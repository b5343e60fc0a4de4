"""The layers of one's own configuration beside those of a network that another tool has quantized."""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import IntEnum
from typing import Any

from PySide6.QtCore import QAbstractTableModel, QModelIndex, QObject, QPersistentModelIndex, Qt
from PySide6.QtGui import QBrush

from quantgui.gui import numbers
from quantgui.gui.models.delegates import sqnr_token
from quantgui.gui.theme import current, theme_events
from quantgui.results import LayerComparison

Index = QModelIndex | QPersistentModelIndex
ROOT = QModelIndex()


class OtherColumn(IntEnum):
    """Columns in their order."""

    NAME = 0
    OWN = 1
    OTHER = 2
    OWN_SQNR = 3
    OTHER_SQNR = 4
    DIFFERENCE = 5


class NetworkComparisonModel(QAbstractTableModel):
    """One row per layer, in the network's order until a header is clicked; those with other formats are marked."""

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._all: tuple[LayerComparison, ...] = ()
        self._rows: list[LayerComparison] = []
        self._only_different = False
        self._sort: tuple[int, Qt.SortOrder] = (-1, Qt.SortOrder.AscendingOrder)
        theme_events().changed.connect(self._rebuild)

    def show_layers(self, layers: Sequence[LayerComparison]) -> None:
        """Show these layers."""
        self._all = tuple(layers)
        self._rebuild()

    def show_only_different(self, *, only: bool) -> None:
        """Leave out the layers that have the same formats in both."""
        self._only_different = only
        self._rebuild()

    def layer(self, row: int) -> LayerComparison:
        """Return the layer in `row`."""
        return self._rows[row]

    def rowCount(self, parent: Index = ROOT) -> int:
        return 0 if parent.isValid() else len(self._rows)

    def columnCount(self, parent: Index = ROOT) -> int:
        return 0 if parent.isValid() else len(OtherColumn)

    def headerData(self, section: int, orientation: Qt.Orientation, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        if orientation != Qt.Orientation.Horizontal or not 0 <= section < len(OtherColumn):
            return None
        title, help_text = self._titles()[OtherColumn(section)]
        match role:
            case Qt.ItemDataRole.DisplayRole:
                return title
            case Qt.ItemDataRole.ToolTipRole:
                return help_text
            case Qt.ItemDataRole.TextAlignmentRole:
                side = Qt.AlignmentFlag.AlignRight if section >= OtherColumn.OWN_SQNR else Qt.AlignmentFlag.AlignLeft
                return side | Qt.AlignmentFlag.AlignVCenter
            case _:
                return None

    def data(self, index: Index, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        if not index.isValid() or index.row() >= len(self._rows):
            return None
        layer, column = self._rows[index.row()], OtherColumn(index.column())
        match role:
            case Qt.ItemDataRole.DisplayRole:
                return _text(layer, column)
            case Qt.ItemDataRole.ToolTipRole:
                return self._tip(layer, column)
            case Qt.ItemDataRole.BackgroundRole if differs(layer):
                return QBrush(current().color("quantized", 0.12))
            case Qt.ItemDataRole.ForegroundRole:
                return _colour(layer, column)
            case Qt.ItemDataRole.TextAlignmentRole if column >= OtherColumn.OWN_SQNR:
                return Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
            case _:
                return None

    def sort(self, column: int, order: Qt.SortOrder = Qt.SortOrder.AscendingOrder) -> None:
        self._sort = (column, order)
        self._rebuild()

    def _rebuild(self, _: object = None) -> None:
        rows = [layer for layer in self._all if differs(layer) or not self._only_different]
        column, order = self._sort
        if column >= 0:
            chosen = OtherColumn(column)
            known = [layer for layer in rows if not _is_unknown(layer, chosen)]
            known.sort(key=lambda layer: _sort_key(layer, chosen), reverse=order == Qt.SortOrder.DescendingOrder)
            # What is not known is at the end in either order.
            rows = known + [layer for layer in rows if _is_unknown(layer, chosen)]
        self.beginResetModel()
        self._rows = rows
        self.endResetModel()

    def _titles(self) -> dict[OtherColumn, tuple[str, str]]:
        sqnr = self.tr("SQNR of the layer's output against the float network's, in dB; larger is better.")
        return {
            OtherColumn.NAME: (self.tr("Layer"), self.tr("Name of the layer in the network.")),
            OtherColumn.OWN: (self.tr("Yours"), self.tr("Weights and activations under your configuration.")),
            OtherColumn.OTHER: (self.tr("Theirs"), self.tr("Weights and activations as the file was read.")),
            OtherColumn.OWN_SQNR: (self.tr("SQNR, yours"), sqnr),
            OtherColumn.OTHER_SQNR: (self.tr("SQNR, theirs"), sqnr),
            OtherColumn.DIFFERENCE: (
                self.tr("Theirs − yours"),
                self.tr("How much better the file keeps the layer's output, in dB; below 0 yours is better."),
            ),
        }

    def _tip(self, layer: LayerComparison, column: OtherColumn) -> str:
        if _is_unknown(layer, column):
            return self.tr("The output of this layer is not found by its name in both networks.")
        return layer.layer if column in (OtherColumn.NAME, OtherColumn.DIFFERENCE) else _text(layer, column)


def differs(layer: LayerComparison) -> bool:
    """Return whether a layer has other formats in the two networks."""
    return layer.own != layer.other


def difference_db(layer: LayerComparison) -> float:
    """Return how many dB the other network is better at the layer's output; NaN where it is not known."""
    own, other = layer.own_sqnr_db, layer.other_sqnr_db
    return 0.0 if own == other else other - own


def _is_unknown(layer: LayerComparison, column: OtherColumn) -> bool:
    value = _sort_key(layer, column)
    return isinstance(value, float) and math.isnan(value)


def _text(layer: LayerComparison, column: OtherColumn) -> str:
    match column:
        case OtherColumn.NAME:
            return layer.layer
        case OtherColumn.OWN:
            return layer.own
        case OtherColumn.OTHER:
            return layer.other
        case OtherColumn.OWN_SQNR:
            return "–" if math.isnan(layer.own_sqnr_db) else numbers.decibel(layer.own_sqnr_db)
        case OtherColumn.OTHER_SQNR:
            return "–" if math.isnan(layer.other_sqnr_db) else numbers.decibel(layer.other_sqnr_db)
        case OtherColumn.DIFFERENCE:
            difference = difference_db(layer)
            if math.isnan(difference):
                return "–"
            sign = "+" if difference > 0 else ""
            return f"{sign}{numbers.decibel(difference)}" if difference else "0"


def _colour(layer: LayerComparison, column: OtherColumn) -> Any:
    tokens = current()
    if _is_unknown(layer, column):
        return tokens.color("muted")
    match column:
        case OtherColumn.OWN_SQNR:
            return tokens.color(sqnr_token(layer.own_sqnr_db))
        case OtherColumn.OTHER_SQNR:
            return tokens.color(sqnr_token(layer.other_sqnr_db))
        case _:
            return None


def _sort_key(layer: LayerComparison, column: OtherColumn) -> Any:
    match column:
        case OtherColumn.NAME:
            return layer.layer.lower()
        case OtherColumn.OWN:
            return layer.own
        case OtherColumn.OTHER:
            return layer.other
        case OtherColumn.OWN_SQNR:
            return layer.own_sqnr_db
        case OtherColumn.OTHER_SQNR:
            return layer.other_sqnr_db
        case OtherColumn.DIFFERENCE:
            return difference_db(layer)
