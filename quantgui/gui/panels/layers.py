"""The layers table with its filter; keys set the bits of the selected layers."""

from __future__ import annotations

from collections.abc import Sequence

from PySide6.QtCore import (
    QItemSelection,
    QItemSelectionModel,
    QModelIndex,
    QPersistentModelIndex,
    QPoint,
    Qt,
    Signal,
)
from PySide6.QtGui import QAction, QKeyEvent, QResizeEvent
from PySide6.QtWidgets import (
    QAbstractItemView,
    QHBoxLayout,
    QHeaderView,
    QLabel,
    QLineEdit,
    QMenu,
    QTableView,
    QVBoxLayout,
    QWidget,
)

from quantgui.errors import SpecError
from quantgui.gui import numbers
from quantgui.gui.format_menu import (
    ACTIVATION_GROUPS,
    USUAL_ACTIVATIONS,
    USUAL_WEIGHTS,
    WEIGHT_GROUPS,
    FormatList,
)
from quantgui.gui.icons import set_icon
from quantgui.gui.models.delegates import BarDelegate, BitsDelegate
from quantgui.gui.models.heat_map import DamageBarDelegate
from quantgui.gui.models.layers import Column, LayersModel
from quantgui.gui.widgets.card import Card
from quantgui.results import NetworkSummary
from quantgui.session.edits import FormatChoice
from quantgui.spec.formats import Format, IntFormat

ROW_HEIGHT = 26
_WIDTHS = {
    Column.OP: 56,
    Column.SHAPE: 104,
    Column.PARAMETERS: 58,
    Column.WEIGHT_BITS: 57,
    Column.ACTIVATION_BITS: 57,
    Column.SCHEME: 92,
    Column.SQNR: 84,
    Column.SENSITIVITY: 88,
}
_NARROW_SQNR, _NARROW_SENSITIVITY = 50, 74
"""Room for the number without its bar, and for the bar without its number."""
_NAME_WIDTH = 128
_WIDEST_NAME = 240
_LEAST_NAME = 76
_MARGINS = 18
_FITTED = (Column.OP, Column.PARAMETERS)
_WIDEST_TEXT = 112
_JUDGED_ROWS = 200
_OPTIONAL = (Column.SCHEME, Column.SHAPE, Column.OP, Column.PARAMETERS)
"""Columns that give way when the table is narrow, the last one longest."""


class LayersTable(QTableView):
    """The table itself.

    Signals:
        format_keyed: a key chose a weight format for the selected layers; None is float32.
        formats_requested: Return, or Shift+Return for activations, wants the menu of formats of a cell.
    """

    format_keyed = Signal(object)
    formats_requested = Signal(object)

    def take_format_key(self, event: QKeyEvent) -> bool:
        """Return whether `event` is a key that chooses a format, and choose it."""
        if event.modifiers() not in (Qt.KeyboardModifier.NoModifier, Qt.KeyboardModifier.KeypadModifier):
            return False
        if event.text() in tuple("2345678"):
            self.format_keyed.emit(IntFormat(int(event.text())))
        elif event.text().lower() == "f":
            self.format_keyed.emit(None)
        else:
            return False
        return True

    def keyPressEvent(self, event: QKeyEvent) -> None:
        if self.take_format_key(event):
            return
        if event.key() in (Qt.Key.Key_Return, Qt.Key.Key_Enter) and self.currentIndex().isValid():
            with_activations = bool(event.modifiers() & Qt.KeyboardModifier.ShiftModifier)
            column = Column.ACTIVATION_BITS if with_activations else Column.WEIGHT_BITS
            self.formats_requested.emit(self.currentIndex().siblingAtColumn(column))
        else:
            super().keyPressEvent(event)

    def keyboardSearch(self, search: str) -> None:
        """Do nothing: typing digits sets bits, and names are sought with the filter."""


class LayersPanel(Card):
    """Filter and table of all layers.

    Signals:
        layers_selected: names of the selected layers; the first is the one under the cursor.
        format_chosen: a key chose a weight format (None: float32) for the selected layers.
    """

    layers_selected = Signal(object)
    format_chosen = Signal(object)

    def __init__(self, model: LayersModel, parent: QWidget | None = None) -> None:
        super().__init__("", parent)
        self.set_title(self.tr("Layers"))
        self._model = model
        self._total = ""
        self._syncing = False
        self._chosen_columns: dict[Column, bool] = {}
        self._widths = dict(_WIDTHS)
        self._text_widths: dict[Column, int] = {}
        self.filter = QLineEdit()
        self.table = LayersTable()
        self.formats = {
            Column.WEIGHT_BITS: FormatList(self.tr("Format of the weights"), WEIGHT_GROUPS, self, usual=USUAL_WEIGHTS),
            Column.ACTIVATION_BITS: FormatList(
                self.tr("Format of the activations"), ACTIVATION_GROUPS, self, usual=USUAL_ACTIVATIONS
            ),
        }
        for menu in self.formats.values():
            menu.chosen.connect(self._on_format_chosen)
        self._cell = QPersistentModelIndex()
        self._error = QLabel()
        self._make_filter()
        self._make_table()
        line = QHBoxLayout()
        line.setContentsMargins(0, 0, 7, 0)
        line.addWidget(self.filter)
        self.body.addLayout(line)
        self.body.addWidget(self._error)
        self.body.addWidget(self.table, 1)
        layout = self.layout()
        assert isinstance(layout, QVBoxLayout)
        layout.setContentsMargins(8, 7, 1, 1)
        self.header.setContentsMargins(3, 0, 8, 0)
        model.rows_changed.connect(self._on_rows_changed)
        model.modelAboutToBeReset.connect(self._on_about_to_reset)
        model.modelReset.connect(self._on_reset)
        model.sensitivity_shown.connect(self._fit_columns)
        self._selected: tuple[str, ...] = ()

    # --- in ------------------------------------------------------------------------------------------------------

    def show_network(self, summary: NetworkSummary | None) -> None:
        """Show how much there is to see; the rows come from the item model."""
        self._total = ""
        if summary is not None:
            values = numbers.amount(summary.parameters)
            self._total = self.tr("{layers} layers · {values} parameters").format(
                layers=len(summary.layers), values=values
            )
        self.filter.clear()
        self._widen_columns()
        self._fit_columns()
        self._on_rows_changed()

    def show_selection(self, names: Sequence[str]) -> None:
        """Select these layers; those hidden by the filter are left out."""
        self._selected = tuple(names)
        rows = [row for name in names if (row := self._model.row_of(name)) is not None]
        selection = QItemSelection()
        last = self._model.columnCount() - 1
        for row in rows:
            selection.select(self._model.index(row, 0), self._model.index(row, last))
        flag = QItemSelectionModel.SelectionFlag
        self._syncing = True
        chosen = self.table.selectionModel()
        current = self._model.index(rows[0], Column.NAME) if rows else self._model.index(-1, -1)
        chosen.setCurrentIndex(current, flag.NoUpdate)
        chosen.select(selection, flag.ClearAndSelect)
        self._syncing = False
        if rows:
            self.table.scrollTo(current)

    def set_filter(self, text: str) -> None:
        """Show only the layers that the filter `text` lets pass."""
        self.filter.setText(text)

    def focus_filter(self) -> None:
        """Put the cursor into the filter."""
        self.filter.setFocus(Qt.FocusReason.ShortcutFocusReason)
        self.filter.selectAll()

    # --- parts ---------------------------------------------------------------------------------------------------

    def _make_filter(self) -> None:
        self.filter.setPlaceholderText(self.tr("Filter: conv bits>4 sqnr<20"))
        self.filter.setAccessibleName(self.tr("Filter layers"))
        self.filter.setToolTip(
            self.tr(
                "Words must occur in name or operator, -word must not. Compare bits, abits, sqnr (dB), params, macs, "
                "bytes with a number, as in bits>4 sqnr<20 params>=10k; op=conv, w=nf4 and format=int4 compare text; "
                "violates finds what the target does not run."
            )
        )
        self.filter.setClearButtonEnabled(True)
        action = QAction(self)
        set_icon(action, "filter", "muted")
        self.filter.addAction(action, QLineEdit.ActionPosition.LeadingPosition)
        self.filter.textChanged.connect(self._on_filter_changed)
        self.filter.returnPressed.connect(self.table.setFocus)
        self._error.setProperty("role", "note")
        self._error.setProperty("tone", "bad")
        self._error.setWordWrap(True)
        self._error.hide()

    def _make_table(self) -> None:
        table = self.table
        table.setModel(self._model)
        table.setAccessibleName(self.tr("Layers"))
        table.setToolTip("")
        table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        table.setSelectionMode(QAbstractItemView.SelectionMode.ExtendedSelection)
        table.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        table.setShowGrid(False)
        table.setWordWrap(False)
        table.setTextElideMode(Qt.TextElideMode.ElideLeft)  # the ends of names tell them apart
        table.setTabKeyNavigation(False)
        table.setHorizontalScrollMode(QAbstractItemView.ScrollMode.ScrollPerPixel)
        table.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        table.verticalHeader().setVisible(False)
        table.verticalHeader().setDefaultSectionSize(ROW_HEIGHT)
        table.verticalHeader().setSectionResizeMode(QHeaderView.ResizeMode.Fixed)
        header = table.horizontalHeader()
        header.setHighlightSections(False)
        header.setSortIndicatorClearable(True)
        header.setSortIndicator(-1, Qt.SortOrder.AscendingOrder)
        header.setSectionResizeMode(Column.NAME, QHeaderView.ResizeMode.Stretch)
        header.setMinimumSectionSize(40)
        header.setContextMenuPolicy(Qt.ContextMenuPolicy.CustomContextMenu)
        header.customContextMenuRequested.connect(self._on_header_menu)
        for column, width in _WIDTHS.items():
            table.setColumnWidth(column, width)
        table.setSortingEnabled(True)
        for column in self.formats:
            table.setItemDelegateForColumn(column, BitsDelegate(table))
        table.setItemDelegateForColumn(Column.SQNR, BarDelegate(table))
        table.setItemDelegateForColumn(Column.SENSITIVITY, DamageBarDelegate(table))
        table.selectionModel().selectionChanged.connect(self._on_selection_changed)
        table.clicked.connect(self._on_clicked)
        table.format_keyed.connect(self._on_format_keyed)
        table.formats_requested.connect(self.open_formats)

    # --- out -----------------------------------------------------------------------------------------------------

    def _on_selection_changed(self) -> None:
        if self._syncing:
            return
        chosen = self.table.selectionModel()
        rows = sorted(index.row() for index in chosen.selectedRows())
        current = chosen.currentIndex().row()
        if current in rows:
            rows.remove(current)
            rows.insert(0, current)
        names = tuple(self._model.layer(row).name for row in rows)
        if names:
            self._selected = names
            self.layers_selected.emit(names)

    def _on_clicked(self, index: QModelIndex) -> None:
        self.open_formats(index)

    def open_formats(self, index: QModelIndex) -> None:
        """Open the menu of formats below a cell that can be changed."""
        menu = self.formats.get(Column(index.column()))
        if menu is None or not self._model.flags(index) & Qt.ItemFlag.ItemIsEditable:
            return
        self._cell = QPersistentModelIndex(index)
        menu.show_choice(self._model.choice(index))
        menu.show_refusals(lambda choice: self._model.refusal(self._cell, choice) if self._cell.isValid() else "")
        self.table.scrollTo(index)
        menu.popup(self.table.viewport().mapToGlobal(self.table.visualRect(index).bottomLeft()))

    def _on_format_chosen(self, chosen: FormatChoice) -> None:
        if self._cell.isValid():
            self._model.setData(self._cell, chosen)

    def _on_format_keyed(self, chosen: Format | None) -> None:
        self.format_chosen.emit(chosen)

    def _on_filter_changed(self, text: str) -> None:
        try:
            self._model.set_filter(text)
        except SpecError as error:
            self._error.setText(str(error))
            self._error.show()
        else:
            self._error.hide()

    # --- rows and columns ----------------------------------------------------------------------------------------

    def _on_rows_changed(self) -> None:
        shown = self._model.rowCount()
        if self.filter.text() and self._total:
            self.set_note(self.tr("{shown} shown · {total}").format(shown=shown, total=self._total))
        else:
            self.set_note(self._total)

    def _on_about_to_reset(self) -> None:
        self._syncing = True
        self._text_widths = {}

    def _on_reset(self) -> None:
        self._syncing = False
        self.show_selection(self._selected)
        self._fit_columns()

    def _widen_columns(self) -> None:
        """Give operators and counts of a new network the width they need."""
        for column in _FITTED:
            width = self._text_width(column) + _MARGINS
            self._widths[column] = max(_WIDTHS[column], min(width, _WIDEST_TEXT))
            self.table.setColumnWidth(column, self._widths[column])

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        self._fit_columns()

    def _fit_columns(self) -> None:
        """Hide the columns that do not fit, unless the user has asked for them."""
        room = self.width() - 24
        wanted = dict.fromkeys(Column, True) | {Column.SENSITIVITY: self._model.has_sensitivity()}
        wanted |= self._chosen_columns
        widths = {column: self.table.columnWidth(column) or width for column, width in self._widths.items()}
        widths |= {column: self._widths[column] for column in (Column.SQNR, Column.SENSITIVITY)}
        needed = self._name_width() + sum(width for column, width in widths.items() if wanted[column])
        for column in _OPTIONAL:
            if wanted[column] and column not in self._chosen_columns and needed > room:
                wanted[column] = False
                needed -= widths[column]
        if needed > room:
            for column, narrow in ((Column.SQNR, _NARROW_SQNR), (Column.SENSITIVITY, _NARROW_SENSITIVITY)):
                needed -= (widths[column] - narrow) if wanted[column] else 0
                widths[column] = narrow
        for column in (Column.SENSITIVITY, Column.SQNR):
            # Numbers that belong to no name say nothing.
            spare = self._name_width() - _LEAST_NAME
            if wanted[column] and column not in self._chosen_columns and needed - spare > room:
                wanted[column] = False
                needed -= widths[column]
        for column in (Column.SQNR, Column.SENSITIVITY):
            self.table.setColumnWidth(column, widths[column])
        for column in Column:
            self.table.setColumnHidden(column, not wanted[column])

    def _name_width(self) -> int:
        """Return the width that shows most names whole."""
        return max(_NAME_WIDTH, min(self._text_width(Column.NAME) + _MARGINS, _WIDEST_NAME))

    def _text_width(self, column: Column) -> int:
        """Return the width of the widest text of a column, judged by its first rows."""
        if column not in self._text_widths:
            metrics = self.table.fontMetrics()
            rows = range(min(self._model.rowCount(), _JUDGED_ROWS))
            texts = {str(self._model.index(row, column).data()) for row in rows}
            self._text_widths[column] = max((metrics.horizontalAdvance(text) for text in texts), default=0)
        return self._text_widths[column]

    def _on_header_menu(self, position: QPoint) -> None:
        menu = QMenu(self)
        for column in Column:
            if column is Column.NAME:
                continue
            action = menu.addAction(str(self._model.headerData(column, Qt.Orientation.Horizontal)))
            action.setCheckable(True)
            action.setChecked(not self.table.isColumnHidden(column))
            action.setData(int(column))
        chosen = menu.exec(self.table.horizontalHeader().mapToGlobal(position))
        if chosen is not None:
            self.set_column_visible(Column(chosen.data()), visible=chosen.isChecked())
        menu.deleteLater()

    def set_column_visible(self, column: Column, *, visible: bool) -> None:
        """Show or hide a column for good."""
        self._chosen_columns[column] = visible
        self._fit_columns()
