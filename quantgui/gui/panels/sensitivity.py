"""The sensitivity tab: how much the network suffers from each layer in each format, measured while one looks."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence

from PySide6.QtCore import QEvent, QItemSelection, QItemSelectionModel, QModelIndex, QObject, QRect, Qt, QTimer, Signal
from PySide6.QtGui import QFontMetrics, QKeyEvent, QMouseEvent, QPainter, QPaintEvent
from PySide6.QtWidgets import QAbstractItemView, QHeaderView, QTableView, QVBoxLayout, QWidget

from quantgui.gui.models.heat_map import ROW_HEIGHT, RowLook, draw_row
from quantgui.gui.models.sensitivity import UNCERTAIN, Fixed, SensitivityModel, proxy_name
from quantgui.gui.numbers import MINUS, count
from quantgui.gui.panels.sweep_controls import Question, SweepControls, question_words
from quantgui.gui.quality import metric_name, samples_text
from quantgui.gui.theme import SMALL_PIXELS, ui_font
from quantgui.gui.widgets.card import Card, Pages
from quantgui.gui.widgets.damage_legend import DamageLegend
from quantgui.gui.widgets.labels import ElidedLabel, set_style
from quantgui.gui.widgets.progress import ProgressRow
from quantgui.gui.widgets.state_page import StatePage
from quantgui.results import Candidate, DataSummary, NetworkSummary, Sensitivity
from quantgui.session.jobs import Job, JobState
from quantgui.spec.config import QuantConfig
from quantgui.spec.quantizer import LayerSpec

_RESORT_MS = 400
_NAME_WIDTH, _PRESENT_WIDTH, _LEAST_WIDTH = 140, 46, 44
_GOOD_WIDTH = 54
_COUNT_WIDTH = 170
"""What "12,345 of 12,345 measured" needs: how far the sweep is matters more than what it is at."""
_HEADER_MARGINS, _TITLE_MARGINS, _ARROW = 12, 8, 12
_NAMES_LOOKED_AT = 200
_FIRST_SAMPLES = 8
_FORWARD_SHARE = 0.6
"""About the part of a forward pass that a candidate takes: what lies behind its layer."""


class HeatTable(QTableView):
    """The heat map: a table that draws its rows itself. A click or Enter on a cell chooses it.

    Digits go on to the window, which sets bits by them.

    Signals:
        cell_chosen: row and column.
    """

    cell_chosen = Signal(int, int)

    def __init__(self) -> None:
        super().__init__()
        self._pressed = QModelIndex()
        self.setMouseTracking(True)
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.setSelectionMode(QAbstractItemView.SelectionMode.ExtendedSelection)
        self.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.setShowGrid(False)
        self.setWordWrap(False)
        self.setTextElideMode(Qt.TextElideMode.ElideLeft)  # the ends of names tell them apart
        self.setTabKeyNavigation(False)
        self.setHorizontalScrollMode(QAbstractItemView.ScrollMode.ScrollPerPixel)
        self.verticalHeader().setVisible(False)
        self.verticalHeader().setDefaultSectionSize(ROW_HEIGHT)
        self.verticalHeader().setSectionResizeMode(QHeaderView.ResizeMode.Fixed)
        header = self.horizontalHeader()
        header.setHighlightSections(False)
        header.setMinimumSectionSize(_LEAST_WIDTH)
        header.setSortIndicatorClearable(True)
        header.setSortIndicator(-1, Qt.SortOrder.AscendingOrder)

    def paintEvent(self, event: QPaintEvent) -> None:
        model, chosen = self.model(), self.selectionModel()
        if not isinstance(model, SensitivityModel) or not model.rowCount():
            return
        region, rect = event.region(), event.rect()
        header = self.horizontalHeader()
        columns = [
            (column, self.columnViewportPosition(column), self.columnWidth(column))
            for column in map(header.logicalIndex, range(header.count()))
        ]
        columns = [each for each in columns if each[1] <= rect.right() and each[1] + each[2] >= rect.left()]
        current = self.currentIndex() if self.hasFocus() else QModelIndex()
        first, last = max(self.rowAt(rect.top()), 0), self.rowAt(rect.bottom())
        painter = QPainter(self.viewport())
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        for row in range(first, (model.rowCount() - 1 if last < 0 else last) + 1):
            top = self.rowViewportPosition(row)
            if columns and region.intersects(QRect(rect.left(), top, rect.width(), ROW_HEIGHT)):
                selected = chosen.isRowSelected(row, QModelIndex())
                focused = current.column() if current.row() == row else -1
                look = RowLook(model.name_text(row), model.present_text(row), selected, focused)
                draw_row(painter, look, model.cells(row), columns, top)
        painter.end()

    def keyPressEvent(self, event: QKeyEvent) -> None:
        index = self.currentIndex()
        plain = event.modifiers() in (Qt.KeyboardModifier.NoModifier, Qt.KeyboardModifier.KeypadModifier)
        if event.key() in (Qt.Key.Key_Return, Qt.Key.Key_Enter, Qt.Key.Key_Space) and plain and index.isValid():
            self.cell_chosen.emit(index.row(), index.column())
        elif event.key() == Qt.Key.Key_S and plain and index.isValid():
            self.sort_next(index.column())
        elif plain and event.text().strip():
            event.ignore()
        else:
            super().keyPressEvent(event)

    def sort_next(self, column: int) -> None:
        """Sort by a column as a click on its header does: up, down, not at all."""
        header = self.horizontalHeader()
        up, down = Qt.SortOrder.AscendingOrder, Qt.SortOrder.DescendingOrder
        if header.sortIndicatorSection() != column:
            self.sortByColumn(column, up)
        elif header.sortIndicatorOrder() == up:
            self.sortByColumn(column, down)
        else:
            self.sortByColumn(-1, up)

    def mousePressEvent(self, event: QMouseEvent) -> None:
        index = self.indexAt(event.position().toPoint())
        simple = event.button() == Qt.MouseButton.LeftButton and not event.modifiers()
        self._pressed = index if simple else QModelIndex()
        super().mousePressEvent(event)

    def mouseReleaseEvent(self, event: QMouseEvent) -> None:
        super().mouseReleaseEvent(event)
        index = self.indexAt(event.position().toPoint())
        if self._pressed.isValid() and index == self._pressed and event.button() == Qt.MouseButton.LeftButton:
            self.cell_chosen.emit(index.row(), index.column())
        self._pressed = QModelIndex()


class SensitivityPanel(QWidget):
    """Settings, progress, the heat map, and in words what the pointer or the keys are at.

    Signals:
        start_requested: a `Question` is to be answered, or gone on with.
        pause_requested: the engine should stop; what is measured is kept.
        data_requested: the user wants to open data.
        layers_selected: names of the selected layers; the first is the one under the cursor.
        candidates_chosen: the candidates (a list) whose formats their layers should get.
        question_changed: the settings ask something else.
    """

    start_requested = Signal(object)
    pause_requested = Signal()
    data_requested = Signal()
    layers_selected = Signal(object)
    candidates_chosen = Signal(object)
    question_changed = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("sensitivity")
        self.setAccessibleName(self.tr("Sensitivity"))
        self._summary: NetworkSummary | None = None
        self._data: DataSummary | None = None
        self._job: Job | None = None
        self._answered = False
        self._waits = ""
        self._sample_seconds = math.nan
        self._selected: tuple[str, ...] = ()
        self._syncing = False
        self._fitted: tuple[int, ...] = ()
        self.model = SensitivityModel(self)
        self.controls = SweepControls()
        self.progress = ProgressRow("", least=_COUNT_WIDTH)
        self.progress.stop.hide()
        self.progress.hide()
        self.table = HeatTable()
        self.legend = DamageLegend()
        self.detail = ElidedLabel()
        self.proxies = ElidedLabel()
        self.state = StatePage()
        self.card = Card(self.tr("Sensitivity"))
        self._resort = QTimer(self, singleShot=True, interval=_RESORT_MS)
        self._lay_out()
        self._connect()
        self.show_network(None)

    # --- in ------------------------------------------------------------------------------------------------------

    def show_network(self, summary: NetworkSummary | None) -> None:
        """Take over a network; None where none is open. Its data comes later."""
        self._summary, self._data, self._job = summary, None, None
        self._selected = ()
        self.model.show_layers(() if summary is None else summary.layers)
        self.show_data(None)

    def show_data(self, data: DataSummary | None) -> None:
        """Take over the data that is measured on; None without any."""
        self._data = data
        self.controls.show_data(0 if data is None else data.samples)
        self.show_table(None)

    def show_metrics(self, possible: Collection[str] | None, user: str) -> None:
        """Offer the metrics that mean something (None: not known yet), and the user's own function if there is one."""
        self.controls.show_metrics(possible, user)

    def show_cost(self, sample_seconds: float) -> None:
        """Take over what one sample takes in the float network; NaN where it is not known."""
        self._sample_seconds = sample_seconds
        self._show_page()

    def show_table(self, table: Sensitivity | None) -> None:
        """Show what is known of a sweep, as far as it has come."""
        old = self.model.table
        self.model.show_table(table)
        if table is not None and (old is None or old.sweep != table.sweep):
            self._fit_columns()
        self.legend.show_scale(self.model.scale, guesses=self.model.has_guesses())
        self._show_proxies()
        self._show_page()
        self._show_detail(self.table.currentIndex())
        if table is not None:
            self._resort.start()

    def show_present(self, specs: Mapping[str, LayerSpec]) -> None:
        """Take over what layers are now; the cells that say so are framed."""
        self.model.show_present(specs)
        self._fit_columns()
        self._show_detail(self.table.currentIndex())

    def show_answered(self, *, answered: bool) -> None:
        """Say whether the table shown answers what the settings ask, as far as it has come."""
        self._answered = answered
        self._show_buttons()

    def show_only(self, names: frozenset[str] | None) -> None:
        """Show the layers `names` alone; None for all."""
        self.model.show_only(names)
        self._show_note()

    def show_selection(self, names: Sequence[str]) -> None:
        """Select these layers; those that are not shown are left out."""
        self._selected = tuple(names)
        self._show_selected()

    def show_job(self, job: Job, waits: str = "") -> None:
        """Show how far the sweep is; `waits` says for what it waits, if it does."""
        before = self._job
        goes_on = before is not None and before.number == job.number and before.state is job.state
        goes_on = goes_on and waits == self._waits
        self._job, self._waits = job, waits
        if job.state is JobState.RUNNING:
            progress = job.progress
            self.progress.show_progress(progress.done, progress.total, self._stage(), progress.seconds_left)
        elif job.state is JobState.WAITING:
            self.progress.show_progress(0, 0, waits)
        if not goes_on or self.model.table is None:
            self._show_page()
            self._show_proxies()

    # --- parts ---------------------------------------------------------------------------------------------------

    def _lay_out(self) -> None:
        table = self.table
        table.setModel(self.model)
        table.setSortingEnabled(True)
        table.setAccessibleName(self.tr("Sensitivity of every layer in every format"))
        table.setToolTip("")
        self.detail.setProperty("role", "note")
        self.proxies.setProperty("role", "note")
        inner = QWidget()
        column = QVBoxLayout(inner)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(4)
        column.addWidget(table, 1)
        column.addWidget(self.legend)
        column.addWidget(self.detail)
        column.addWidget(self.proxies)
        self._inner = inner
        self._pages = Pages(inner, self.state)
        # In the header, where a narrow window has room for it.
        self.card.header.addWidget(self.controls.button)
        self.card.body.addWidget(self.controls)
        self.card.body.addWidget(self.progress)
        self.card.body.addWidget(self._pages, 1)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.card)

    def _connect(self) -> None:
        self.controls.changed.connect(self._on_question_changed)
        self.controls.start_requested.connect(self.start)
        self.controls.pause_requested.connect(self.pause_requested)
        self.table.cell_chosen.connect(self._on_cell_chosen)
        self.table.selectionModel().selectionChanged.connect(self._on_selection_changed)
        self.table.selectionModel().currentChanged.connect(self._show_detail)
        self.table.entered.connect(self._show_detail)
        self.table.viewport().installEventFilter(self)
        self.model.modelAboutToBeReset.connect(self._on_about_to_reset)
        self.model.modelReset.connect(self._on_reset)
        self.model.layoutChanged.connect(self._show_selected)
        self._resort.timeout.connect(self._resort_now)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        if event.type() == QEvent.Type.Resize:
            self._fit_columns()
        if event.type() == QEvent.Type.Leave:
            self._show_detail(self.table.currentIndex())
            if not self._resort.isActive() and not self.model.is_sorted():
                self._resort.start()
        return False

    # --- out -----------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Ask for what the settings say."""
        question = self.controls.asked()
        if question is not None and not self._reason():
            self.start_requested.emit(question)

    def asked(self) -> Question | None:
        """Return what the settings ask; None where no format is chosen."""
        return self.controls.asked()

    def _on_question_changed(self) -> None:
        self.question_changed.emit()
        self._show_page()

    def _on_cell_chosen(self, row: int, column: int) -> None:
        """Choose a format: for all selected layers where the cell's is one of them."""
        rows = {index.row() for index in self.table.selectionModel().selectedRows()}
        rows = rows if row in rows else {row}
        found = [self.model.candidate(each, column) for each in sorted(rows)]
        candidates: list[Candidate] = [each for each in found if each is not None]
        if candidates:
            self.candidates_chosen.emit(candidates)

    def _on_selection_changed(self) -> None:
        if self._syncing:
            return
        chosen = self.table.selectionModel()
        rows = sorted(index.row() for index in chosen.selectedRows())
        current = chosen.currentIndex().row()
        if current in rows:
            rows.remove(current)
            rows.insert(0, current)
        names = tuple(self.model.layer(row) for row in rows)
        if names:
            self._selected = names
            self.layers_selected.emit(names)

    # --- showing -------------------------------------------------------------------------------------------------

    def _show_selected(self) -> None:
        rows = [row for name in self._selected if (row := self.model.row_of(name)) is not None]
        chosen, flag = self.table.selectionModel(), QItemSelectionModel.SelectionFlag
        if sorted(index.row() for index in chosen.selectedRows()) == sorted(rows):
            return
        selection = QItemSelection()
        last = self.model.columnCount() - 1
        for row in rows:
            selection.select(self.model.index(row, 0), self.model.index(row, last))
        column = max(self.table.currentIndex().column(), 0)
        current = self.model.index(rows[0], column) if rows else QModelIndex()
        self._syncing = True
        chosen.setCurrentIndex(current, flag.NoUpdate)
        chosen.select(selection, flag.ClearAndSelect)
        self._syncing = False
        if rows:
            self.table.scrollTo(self.model.index(rows[0], max(column, 0)))

    def _on_about_to_reset(self) -> None:
        self._syncing = True

    def _on_reset(self) -> None:
        self._syncing = False
        self._show_selected()

    def _resort_now(self) -> None:
        # Rows must not slip away below a pointer that is about to click.
        if not self.table.viewport().underMouse():
            self.model.resort()

    def _fit_columns(self) -> None:
        """Share the room among the formats; where they need more, let the map be scrolled."""
        header, metrics, model = self.table.horizontalHeader(), self.table.fontMetrics(), self.model
        columns = range(len(Fixed), model.columnCount())
        present = {model.present_text(row) for row in range(model.rowCount())}
        widest = max(map(metrics.horizontalAdvance, present), default=0)
        fixed = {Fixed.NAME: _NAME_WIDTH, Fixed.PRESENT: max(_PRESENT_WIDTH, widest + _HEADER_MARGINS)}
        small = QFontMetrics(ui_font(SMALL_PIXELS))
        titles = {column: small.horizontalAdvance(UNCERTAIN + model.column_text(column)) for column in columns}
        needed = {column: max(width + _TITLE_MARGINS, _LEAST_WIDTH) for column, width in titles.items()}
        room = self.table.viewport().width() - sum(fixed.values())
        # What the formats can spare goes to the names.
        spare = max(room - sum(max(width, _GOOD_WIDTH) for width in needed.values()), 0)
        names = {model.name_text(row) for row in range(min(model.rowCount(), _NAMES_LOOKED_AT))}
        longest = max(map(metrics.horizontalAdvance, names), default=0) + _HEADER_MARGINS + 2
        extra = min(max(longest - _NAME_WIDTH, 0), spare)
        fixed[Fixed.NAME] += extra
        room -= extra
        wanted = room, *fixed.values(), *needed.values()
        if wanted == self._fitted:
            return
        self._fitted = wanted
        fits = sum(needed.values()) <= room
        header.setSectionResizeMode(QHeaderView.ResizeMode.Stretch if fits else QHeaderView.ResizeMode.Interactive)
        for front, width in fixed.items():
            header.setSectionResizeMode(front, QHeaderView.ResizeMode.Interactive)
            self.table.setColumnWidth(front, width)
        if not fits:
            for column, width in needed.items():
                self.table.setColumnWidth(column, width + _ARROW)

    def _reason(self) -> str:
        """Return why nothing can be measured; empty where it can."""
        if self._summary is None:
            return self.tr("Open a network first.")
        if not self._summary.layers:
            return self.tr("The network has no layer with weights.")
        if self._data is None:
            return self.tr("Open data first: quality is measured on it.")
        if self.controls.asked() is None:
            return self.tr("Choose at least one format to try.")
        return ""

    def _is_running(self) -> bool:
        return self._job is not None and self._job.is_active

    def _show_buttons(self) -> None:
        table = self.model.table
        reason = self._reason()
        if not reason and table is not None and table.complete and self._answered:
            reason = self.tr("All of this has been measured.")
        resumes = table is not None and not table.complete and self._answered
        self.controls.show_state(running=self._is_running(), resumes=resumes, reason=reason)
        self.controls.setEnabled(self._summary is not None and self._data is not None)

    def _show_page(self) -> None:
        """Show the table if there is one, else why there is none."""
        self._show_buttons()
        self._show_note()
        job, running = self._job, self._is_running()
        has_table = self.model.table is not None
        self.progress.setVisible(running or (has_table and self._ended_early()))
        if has_table and self._ended_early():
            self._show_ending()
        elif running:
            set_style(self.progress.bar, "tone", "")
        self.progress.bar.setVisible(running)
        for widget in (self.controls, self.controls.button):
            widget.setVisible(self._data is not None)
        if has_table:
            self._pages.show_page(self._inner)
            return
        self._pages.show_page(self.state)
        if running and job is not None:
            progress = job.progress
            self.progress.hide()
            self.state.show_busy(
                "gauge",
                self.tr("Measuring sensitivity"),
                self._stage() or self._waits,
                progress.done,
                progress.total,
                seconds_left=progress.seconds_left,
            )
        else:
            self._show_nothing()

    def _ended_early(self) -> bool:
        return self._job is not None and self._job.state in (JobState.FAILED, JobState.CANCELLED)

    def _show_ending(self) -> None:
        job = self._job
        assert job is not None
        done, total = self.model.measured()
        if job.state is JobState.FAILED:
            self.progress.show_state(job.sentence or self.tr("failed"), "bad")
            self.progress.set_label(self.tr("Failed"))
        else:
            words = self.tr("{done} of {total} measured; goes on where it stopped")
            self.progress.show_state(words.format(done=count(done), total=count(total)), "muted")
            self.progress.set_label(self.tr("Paused"))
        self.progress.stop.hide()

    def _show_nothing(self) -> None:
        page, job = self.state, self._job
        if self._summary is None:
            page.show_state("gauge", self.tr("No network open"), self.tr("Open one to find its sensitive layers."))
        elif self._data is None:
            page.show_state(
                "database",
                self.tr("Sensitivity needs data"),
                self.tr("It is measured at the network's outputs. A few dozen samples are enough."),
                action=self.tr("Open data…"),
                does=self.data_requested.emit,
            )
        elif job is not None and job.state is JobState.FAILED:
            page.show_state(
                "circle-alert",
                self.tr("Sensitivity could not be measured"),
                job.sentence,
                action=self.tr("Try again"),
                does=self.start,
                token="bad",
            )
        elif job is not None and job.state is JobState.CANCELLED:
            page.show_state(
                "square",
                self.tr("Paused"),
                self.tr("What is measured is kept: the sweep goes on where it stopped."),
                action=self.tr("Resume"),
                does=self.start,
            )
        else:
            action = self.tr("Measure") if not self._reason() else ""
            page.show_state("gauge", self.tr("Not measured yet"), self._plan(), action=action, does=self.start)

    def _plan(self) -> str:
        """Return what a sweep would do and what it would cost."""
        question = self.controls.asked()
        if question is None or self._summary is None or self._data is None or not self._summary.layers:
            return self._reason()
        layers = len(list(question.sweep(QuantConfig()).swept(self._summary.layers)))
        candidates = layers * len(question.specs)
        most = self._data.samples if question.samples is None else question.samples
        first = most if question.exact else min(_FIRST_SAMPLES, most)
        words = self.tr(
            "One layer at a time gets each of the formats, and the whole network is measured: {layers} layers in "
            "{formats} formats, {candidates} candidates on {samples} each{more}. A ranking from the error of "
            "the weights comes first; you can pause at any time."
        ).format(
            layers=count(layers),
            formats=len(question.specs),
            candidates=count(candidates),
            samples=samples_text(first),
            more="" if question.exact else self.tr(", more where the order is not certain"),
        )
        seconds = self._sample_seconds * _FORWARD_SHARE * candidates * first
        return words if math.isnan(seconds) else f"{words} {self._cost_words(seconds)}"

    def _cost_words(self, seconds: float) -> str:
        if seconds < 1:
            return self.tr("That takes about a second.")
        if seconds < 90:
            return self.tr("That takes about {n} s.").format(n=math.ceil(seconds))
        return self.tr("That takes about {n} min.").format(n=math.ceil(seconds / 60))

    def _stage(self) -> str:
        """Return what the sweep is doing, and what it took from an earlier one."""
        parts = []
        if self._job is not None and self._job.progress.label:
            parts.append(self._job.progress.label)
        table = self.model.table
        if table is not None and table.resumed:
            parts.append(self.tr("{n} resumed from earlier").format(n=count(table.resumed)))
        self.progress.set_label(self._measured_words() or self.tr("Sweep"))
        self.progress.stop.hide()
        return " · ".join(parts)

    def _measured_words(self) -> str:
        done, total = self.model.measured()
        return self.tr("{done} of {total} measured").format(done=count(done), total=count(total)) if total else ""

    def _show_note(self) -> None:
        table = self.model.table
        if table is None:
            self.card.set_note("")
            return
        done, total = self.model.measured()
        parts = [metric_name(table.metric), question_words(table.sweep)]
        if done < total and not self._is_running():
            parts.append(self._measured_words())
        shown, layers = self.model.rowCount(), len({each.layer for each in table.candidates})
        if shown < layers:
            parts.append(self.tr("{n} of {all} layers shown").format(n=count(shown), all=count(layers)))
        self.card.set_note(" · ".join(parts))

    def _show_proxies(self) -> None:
        """Say which cheap guess is to be trusted on this network."""
        table = self.model.table
        known: Mapping[str, float] = {}
        if table is not None:
            known = table.layer_correlations or table.correlations
            known = known or {"weight_sqnr_db": table.weight_error_correlation}
        found = sorted(((value, name) for name, value in known.items() if not math.isnan(value)), reverse=True)
        parts = [f"{proxy_name(name)} {f'{value:.2f}'.replace('-', MINUS)}" for value, name in found]
        self.proxies.setVisible(bool(parts) and not self._is_running())
        self.proxies.setText(self.tr("Best guess: {parts}").format(parts=" · ".join(parts)))
        self.proxies.set_help(
            self.tr(
                "Which cheap guess to trust on this network: Spearman's rank correlation of each with the measured "
                "values of the layers in one format, the mean over the formats. 1 orders the layers alike, 0 says "
                "nothing about them. Trust the first one, if it is near 1.\nThe guesses are the error of the weights, "
                "the same weighted by the layer's inputs, the error at the layer's own output, and the change of the "
                "outputs that gradients foretell."
            )
            + "".join(f"\n{note}" for note in (() if table is None else table.notes))
        )

    def _show_detail(self, index: QModelIndex, _: object = None) -> None:
        if not index.isValid() or index.row() >= self.model.rowCount():
            self.detail.setText(self.tr("Click a cell, or press Enter, to give the layer this format; S sorts."))
            return
        self.detail.setText(self.model.sentence(index.row(), index.column()))
