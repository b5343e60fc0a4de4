"""How a table of compared layers looks and is used."""

from __future__ import annotations

from collections.abc import Sequence

from PySide6.QtCore import QAbstractItemModel, QModelIndex, Qt, Signal
from PySide6.QtWidgets import QAbstractItemView, QHeaderView, QTableView, QWidget

_ROW_HEIGHT = 26


class ComparedLayersTable(QTableView):
    """Rows of layers that can be sorted by any column.

    Args:
        model: the layers.
        widths: pixels of its columns; 0 for all the room that the others leave.
        name: what the table is called where it is read out.

    Signals:
        row_picked: the row that was clicked, or on which Return was pressed.
    """

    row_picked = Signal(int)

    def __init__(
        self, model: QAbstractItemModel, widths: Sequence[int], name: str, parent: QWidget | None = None
    ) -> None:
        super().__init__(parent)
        self.setModel(model)
        self.setAccessibleName(name)
        self.setToolTip("")
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.setShowGrid(False)
        self.setWordWrap(False)
        self.setTextElideMode(Qt.TextElideMode.ElideLeft)  # the ends of names tell them apart
        self.setTabKeyNavigation(False)
        self.verticalHeader().setVisible(False)
        self.verticalHeader().setDefaultSectionSize(_ROW_HEIGHT)
        header = self.horizontalHeader()
        header.setHighlightSections(False)
        header.setSortIndicatorClearable(True)
        header.setSortIndicator(-1, Qt.SortOrder.AscendingOrder)
        for column, width in enumerate(widths):
            if width:
                self.setColumnWidth(column, width)
            else:
                header.setSectionResizeMode(column, QHeaderView.ResizeMode.Stretch)
        self.setSortingEnabled(True)
        self.clicked.connect(self._on_picked)
        self.activated.connect(self._on_picked)

    def _on_picked(self, index: QModelIndex) -> None:
        self.row_picked.emit(index.row())
