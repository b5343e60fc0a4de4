"""Layers under two configurations: a table whose columns say what is compared."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from PySide6.QtCore import QAbstractTableModel, QModelIndex, QObject, QPersistentModelIndex, Qt
from PySide6.QtGui import QBrush

from quantgui.gui import numbers
from quantgui.gui.theme import current, theme_events

Index = QModelIndex | QPersistentModelIndex
ROOT = QModelIndex()
Row = TypeVar("Row")
"""What is known of one layer in both."""


@dataclass(frozen=True, slots=True)
class LayerColumn(Generic[Row]):
    """A column of compared layers.

    Attributes:
        title: what stands above it.
        help: what it means, with its unit.
        text: what is shown of a layer.
        key: what layers are sorted by; NaN where it is not known.
        tip: what the pointer is told; the text where that is not given.
        token: the colour of the text; empty for the usual one.
        is_number: whether it stands at the right.
        width: pixels; 0 for all the room that the others leave.
    """

    title: str
    help: str
    text: Callable[[Row], str]
    key: Callable[[Row], Any]
    tip: Callable[[Row], str] | None = None
    token: Callable[[Row], str] | None = None
    is_number: bool = False
    width: int = 0


class ComparedLayersModel(QAbstractTableModel, Generic[Row]):
    """One row per layer, in the network's order until a header is clicked; those that differ are highlighted.

    Args:
        columns: what is shown of a layer, from left to right.
        differs: whether a layer is not the same in both.
        only_different: whether the layers that are the same are left out at first.
    """

    def __init__(
        self,
        columns: Sequence[LayerColumn[Row]],
        differs: Callable[[Row], bool],
        parent: QObject | None = None,
        *,
        only_different: bool,
    ) -> None:
        super().__init__(parent)
        self.columns = tuple(columns)
        self._differs = differs
        self._all: tuple[Row, ...] = ()
        self._rows: list[Row] = []
        self._only_different = only_different
        self._sort: tuple[int, Qt.SortOrder] = (-1, Qt.SortOrder.AscendingOrder)
        theme_events().changed.connect(self._rebuild)

    def show_layers(self, layers: Sequence[Row]) -> None:
        """Show these layers."""
        self._all = tuple(layers)
        self._rebuild()

    def show_only_different(self, *, only: bool) -> None:
        """Leave out the layers that are the same in both."""
        self._only_different = only
        self._rebuild()

    def layer(self, row: int) -> Row:
        """Return the layer in `row`."""
        return self._rows[row]

    # --- Qt's interface ------------------------------------------------------------------------------------------

    def rowCount(self, parent: Index = ROOT) -> int:
        return 0 if parent.isValid() else len(self._rows)

    def columnCount(self, parent: Index = ROOT) -> int:
        return 0 if parent.isValid() else len(self.columns)

    def headerData(self, section: int, orientation: Qt.Orientation, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        if orientation != Qt.Orientation.Horizontal or not 0 <= section < len(self.columns):
            return None
        column = self.columns[section]
        match role:
            case Qt.ItemDataRole.DisplayRole:
                return column.title
            case Qt.ItemDataRole.ToolTipRole:
                return column.help
            case Qt.ItemDataRole.TextAlignmentRole:
                side = Qt.AlignmentFlag.AlignRight if column.is_number else Qt.AlignmentFlag.AlignLeft
                return side | Qt.AlignmentFlag.AlignVCenter
            case _:
                return None

    def data(self, index: Index, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        if not index.isValid() or index.row() >= len(self._rows):
            return None
        row, column = self._rows[index.row()], self.columns[index.column()]
        match role:
            case Qt.ItemDataRole.DisplayRole:
                return column.text(row)
            case Qt.ItemDataRole.ToolTipRole:
                return (column.tip or column.text)(row)
            case Qt.ItemDataRole.BackgroundRole if self._differs(row):
                return QBrush(current().color("quantized", 0.12))
            case Qt.ItemDataRole.ForegroundRole if column.token is not None and (token := column.token(row)):
                return current().color(token)
            case Qt.ItemDataRole.TextAlignmentRole if column.is_number:
                return Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
            case _:
                return None

    def sort(self, column: int, order: Qt.SortOrder = Qt.SortOrder.AscendingOrder) -> None:
        self._sort = (column, order)
        self._rebuild()

    def _rebuild(self, _: object = None) -> None:
        rows = [row for row in self._all if self._differs(row) or not self._only_different]
        column, order = self._sort
        if column >= 0:
            key = self.columns[column].key
            known = [row for row in rows if not is_unknown(key(row))]
            known.sort(key=key, reverse=order == Qt.SortOrder.DescendingOrder)
            # What is not known is at the end in either order.
            rows = known + [row for row in rows if is_unknown(key(row))]
        self.beginResetModel()
        self._rows = rows
        self.endResetModel()


def is_unknown(value: object) -> bool:
    """Return whether `value` is the number that stands for one that is not known."""
    return isinstance(value, float) and math.isnan(value)


def difference(first: float, second: float) -> float:
    """Return `second` minus `first`; 0 for two that are endless alike, NaN where one is not known."""
    return 0.0 if first == second else second - first


def decibel(value: float) -> str:
    """Return dB in words; a dash where it is not known."""
    return "–" if math.isnan(value) else numbers.decibel(value)


def signed_decibel(value: float) -> str:
    """Return a difference in dB, with its sign.

    >>> signed_decibel(1.5), signed_decibel(0.0), signed_decibel(math.nan)
    ('+1.5 dB', '0', '–')
    """
    return f"{'+' if value > 0 else ''}{decibel(value)}" if value else "0"
