"""One sample: what the network sees, what both networks say of it, and which layers hurt it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from PySide6.QtCore import QSize, Qt, Signal
from PySide6.QtGui import QFont, QResizeEvent
from PySide6.QtWidgets import (
    QAbstractItemView,
    QBoxLayout,
    QComboBox,
    QHBoxLayout,
    QHeaderView,
    QLabel,
    QTableWidget,
    QTableWidgetItem,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from quantgui.gui.icons import set_icon
from quantgui.gui.names import brief_names
from quantgui.gui.numbers import count, decibel, percent, short
from quantgui.gui.pictures import OutputReading, picture_of, read_output
from quantgui.gui.plots.signal import SignalPlot
from quantgui.gui.theme import SMALL_PIXELS, current, theme_events, ui_font
from quantgui.gui.widgets.card import Card, Pages
from quantgui.gui.widgets.labels import ElidedLabel, set_style
from quantgui.gui.widgets.picture import PictureView
from quantgui.results import Array, SampleReady

MOST_CULPRITS = 30
_WRITTEN_OUT = 24
"""Most values that are written instead of drawn."""
_ROW_PIXELS = 22
_TALL = 400
"""Pixels of height from which the picture stands above the tables."""
_LOWEST = 165
"""Pixels of height that are enough for the picture beside the tables."""


@dataclass(frozen=True, slots=True)
class Culprit:
    """A layer and what it alone does to the sample: noise over signal at the network's outputs.

    `shown` is its name in few letters.
    """

    layer: str
    shown: str
    damage: float
    flips: bool


class SampleView(QWidget):
    """A sample of the data.

    Signals:
        closed: the user has seen enough.
        layer_picked: name of a culprit that was clicked or chosen with the enter key.
    """

    closed = Signal()
    layer_picked = Signal(str)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setAccessibleName(self.tr("Sample"))
        self._sample: SampleReady | None = None
        self.index: int | None = None
        self.card = Card(self.tr("Sample"))
        self.verdict = ElidedLabel()
        self.verdict.setProperty("role", "note")
        self.close_button = QToolButton()
        self.close_button.setProperty("flat", "true")
        set_icon(self.close_button, "x", "muted")
        self.close_button.setAccessibleName(self.tr("Back to the layers"))
        self.close_button.setToolTip(self.tr("Back to the noise of the layers (Esc)"))
        self.card.header.addWidget(self.verdict)
        self.card.header.addWidget(self.close_button)
        self.picture = PictureView(self.tr("The sample as a picture"))
        self.signal = SignalPlot(self.tr("Values of the sample"), "", "")
        self.signal.setToolTip(self.tr("The values in their order. Wheel: zoom. Drag: pan. Double click: everything."))
        self.words = QLabel()
        self.words.setWordWrap(True)
        self.words.setAlignment(Qt.AlignmentFlag.AlignTop | Qt.AlignmentFlag.AlignLeft)
        self.words.setProperty("role", "mono")
        self._input_pages = Pages(self.picture, self.signal, self.words)
        self.inputs = QComboBox()
        self.inputs.setAccessibleName(self.tr("Input"))
        self.inputs.setToolTip(self.tr("Which input of the network is shown"))
        self.source = ElidedLabel()
        self.source.setProperty("role", "note")
        self.outputs = _table(
            self.tr("Outputs of the sample"), [self.tr("Output"), self.tr("float"), self.tr("quantized")], (64, 74)
        )
        self.culprits = _table(
            self.tr("Layers that hurt this sample"), [self.tr("Hurt by"), self.tr("SQNR, dB"), ""], (64, 22)
        )
        self.culprits.setToolTip(
            self.tr(
                "What each layer alone, quantized, does to the outputs for this sample, worst first: SQNR in dB, "
                "larger is better.\n× the layer alone changes the top class. Click or press Enter to select the layer."
            )
        )
        self._build()
        self.close_button.clicked.connect(self.closed)
        self.inputs.currentIndexChanged.connect(self._show_input)
        self.culprits.cellClicked.connect(self._on_culprit)
        self.culprits.cellActivated.connect(self._on_culprit)
        theme_events().changed.connect(self._on_theme_changed)

    def _build(self) -> None:
        left = QVBoxLayout()
        left.setSpacing(4)
        left.addWidget(self.inputs)
        left.addWidget(self._input_pages, 1)
        left.addWidget(self.source)
        tables = QHBoxLayout()
        tables.setSpacing(10)
        tables.addWidget(self.outputs, 7)
        tables.addWidget(self.culprits, 7)
        self._columns = QBoxLayout(QBoxLayout.Direction.LeftToRight)
        self._columns.setSpacing(10)
        self._columns.addLayout(left, 4)
        self._columns.addLayout(tables, 14)
        self.card.body.addLayout(self._columns, 1)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.card)

    def minimumSizeHint(self) -> QSize:
        # Side by side it is low; it stands in one place with lower cards, which it must not keep from being low.
        hint = super().minimumSizeHint()
        return QSize(hint.width(), min(hint.height(), _LOWEST))

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        tall = self.height() >= _TALL
        self._columns.setDirection(QBoxLayout.Direction.TopToBottom if tall else QBoxLayout.Direction.LeftToRight)
        self._columns.setStretch(0, 12 if tall else 4)
        self._columns.setStretch(1, 14)

    # --- values in ---

    def show_culprits(self, index: int, culprits: Sequence[Culprit]) -> None:
        """Begin with sample `index`: its layers are known, the rest comes with `show_sample`."""
        if index != self.index:
            self._sample = None
            self.index = index
            self.card.set_title(self.tr("Sample {index}").format(index=index))
            self.verdict.setText(self.tr("Running it …"))
            set_style(self.verdict, "tone", "muted")
            self.source.setText("")
            self.inputs.hide()
            self.words.setText("")
            self._input_pages.show_page(self.words)
            self.outputs.setRowCount(0)
        self.culprits.setRowCount(len(culprits))
        for row, each in enumerate(culprits):
            name = _item(each.shown, align=Qt.AlignmentFlag.AlignLeft)
            name.setToolTip(each.layer)
            name.setData(Qt.ItemDataRole.UserRole, each.layer)
            self.culprits.setItem(row, 0, name)
            db = -10 * math.log10(each.damage) if 0 < each.damage < math.inf else math.copysign(math.inf, -each.damage)
            self.culprits.setItem(row, 1, _item(short(db if each.damage else math.inf)))
            mark = _item("×" if each.flips else "", align=Qt.AlignmentFlag.AlignCenter)
            mark.setToolTip(self.tr("The layer alone changes the top class.") if each.flips else "")
            self.culprits.setItem(row, 2, mark)

    def show_sample(self, sample: SampleReady) -> None:
        """Show the sample that was asked for; others are left alone."""
        if sample.sample != self.index:
            return
        self._sample = sample
        names = list(sample.inputs)
        self.inputs.blockSignals(True)
        self.inputs.clear()
        self.inputs.addItems(names)
        self.inputs.setVisible(len(names) > 1)
        self.inputs.setCurrentIndex(_most_telling(sample.inputs))
        self.inputs.blockSignals(False)
        self._show_input()
        self._show_outputs(sample)

    def show_failure(self, sentence: str) -> None:
        """Show why the sample could not be run."""
        self.verdict.setText(sentence)
        set_style(self.verdict, "tone", "bad")

    # --- drawing ---

    def _show_input(self) -> None:
        sample, place = self._sample, self.inputs.currentIndex()
        if sample is None or not 0 <= place < len(sample.inputs):
            return
        values = list(sample.inputs.values())[place]
        shape = " × ".join(str(size) for size in values.shape) or self.tr("one number")
        picture = None if values.size <= _WRITTEN_OUT else picture_of(values, sample.image_options)
        if picture is not None:
            self.picture.show_pixels(picture.pixels, keep_proportions=picture.is_natural)
            self._input_pages.show_page(self.picture)
            if picture.source == "options":
                self.source.setText(self.tr("{shape}, as the network gets it").format(shape=shape))
                self.source.set_help(self.tr("The preparation of the image options has been undone."))
            else:
                self.source.setText(
                    self.tr("{shape}, {low} … {high}").format(
                        shape=shape, low=short(picture.low), high=short(picture.high)
                    )
                )
                self.source.set_help(
                    self.tr("Guessed from the shape; the smallest value is shown black, the largest white.")
                )
            return
        self.source.setText(shape)
        self.source.set_help("")
        flat = values.reshape(-1)
        if values.dtype.kind == "f" and len(flat) > _WRITTEN_OUT:
            self.signal.show_values(flat)
            self._input_pages.show_page(self.signal)
            return
        shown = [short(float(x)) if values.dtype.kind == "f" else str(x) for x in flat[:400].tolist()]
        self.words.setText(" ".join(shown) + (" …" if len(flat) > len(shown) else ""))
        self._input_pages.show_page(self.words)

    def _show_outputs(self, sample: SampleReady) -> None:
        readings = [
            read_output(name, values, sample.quantized_outputs[name], sample.class_axes.get(name))
            for name, values in sample.float_outputs.items()
            if name in sample.quantized_outputs
        ]
        label = _class_of(sample.label)
        tops = next((each for each in readings if each.float_top is not None), None)
        self.outputs.setRowCount(0)
        for each in readings:
            if each.scores:
                self._add_scores(each, label, named=len(readings) > 1)
            elif each.positions:
                changed = self.tr("{n} of {all}").format(n=count(each.changed), all=count(each.positions))
                self._add_row(each.name, self.tr("changed"), changed, warn=each.changed > 0)
            self._add_row(
                self.tr("SQNR of {name}").format(name=each.name) if len(readings) > 1 else self.tr("SQNR"),
                "",
                decibel(each.sqnr_db),
            )
        self._show_verdict(tops, label)

    def _add_scores(self, reading: OutputReading, label: int | None, *, named: bool) -> None:
        if named:
            self._add_row(reading.name, "", "")
        for each in reading.scores:
            scores = [
                percent(score) if reading.are_probabilities else short(score)
                for score in (each.float_score, each.quantized_score)
            ]
            row = self._add_row(f"✓ {each.number}" if each.number == label else str(each.number), *scores)
            if each.number == label:
                self.outputs.item(row, 0).setToolTip(self.tr("The label"))  # type: ignore[union-attr]
            for column, top in ((1, reading.float_top), (2, reading.quantized_top)):
                if each.number == top:
                    item = self.outputs.item(row, column)
                    assert item is not None
                    item.setFont(_bold())
                    item.setText(f"▸ {item.text()}")
                    item.setToolTip(self.tr("Top class"))

    def _show_verdict(self, reading: OutputReading | None, label: int | None) -> None:
        if reading is None:
            self.verdict.setText("")
            return
        flipped = reading.float_top != reading.quantized_top
        words = (
            self.tr("class {before} becomes {after}").format(before=reading.float_top, after=reading.quantized_top)
            if flipped
            else self.tr("class {n} in both").format(n=reading.float_top)
        )
        if label is not None:
            words = self.tr("{words} · label {label}").format(words=words, label=label)
        self.verdict.setText(words)
        set_style(self.verdict, "tone", "bad" if flipped else "muted")

    def _add_row(self, name: str, float_text: str, quantized_text: str, *, warn: bool = False) -> int:
        row = self.outputs.rowCount()
        self.outputs.insertRow(row)
        first = _item(name, align=Qt.AlignmentFlag.AlignLeft)
        first.setToolTip(name)
        self.outputs.setItem(row, 0, first)
        self.outputs.setItem(row, 1, _item(float_text))
        last = _item(quantized_text)
        if warn:
            last.setFont(_bold())
        self.outputs.setItem(row, 2, last)
        return row

    def _on_culprit(self, row: int, _column: int) -> None:
        item = self.culprits.item(row, 0)
        if item is not None:
            self.layer_picked.emit(item.data(Qt.ItemDataRole.UserRole))

    def _on_theme_changed(self, _tokens: object) -> None:
        for table in (self.outputs, self.culprits):
            _paint_head(table)


def culprits_of(layers: Sequence[str], damage: Array, flips: Array) -> tuple[Culprit, ...]:
    """Return the layers that hurt a sample, worst first; those that do nothing are left out."""
    order = np.argsort(-damage, kind="stable")[:MOST_CULPRITS]
    shown = brief_names(layers)
    return tuple(
        Culprit(layers[i], shown[i], float(damage[i]), bool(flips[i])) for i in order if damage[i] > 0 or flips[i]
    )


def _most_telling(inputs: Mapping[str, Array]) -> int:
    """Return the place of the largest input: the others are masks, lengths and states."""
    sizes = [values.size for values in inputs.values()]
    return int(np.argmax(sizes)) if sizes else -1


def _class_of(label: Array | None) -> int | None:
    if label is None or label.size != 1 or label.dtype.kind not in "iubf":
        return None
    value = float(label.reshape(()))
    return int(value) if value >= 0 and value == int(value) else None


def _table(name: str, heads: Sequence[str], widths: Sequence[int]) -> QTableWidget:
    table = QTableWidget(0, len(heads))
    table.setAccessibleName(name)
    table.setHorizontalHeaderLabels(list(heads))
    table.verticalHeader().hide()
    table.verticalHeader().setDefaultSectionSize(_ROW_PIXELS)
    table.setShowGrid(False)
    table.setFont(ui_font(SMALL_PIXELS))
    table.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
    table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
    table.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
    table.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
    table.setTabKeyNavigation(False)
    table.setWordWrap(False)
    table.setTextElideMode(Qt.TextElideMode.ElideLeft)  # the ends of names tell them apart
    header = table.horizontalHeader()
    header.setHighlightSections(False)
    header.setSectionsClickable(False)
    header.setMinimumSectionSize(18)
    header.setSectionResizeMode(QHeaderView.ResizeMode.Fixed)
    for column, width in enumerate(widths, 1):
        header.resizeSection(column, width)
    header.setSectionResizeMode(0, QHeaderView.ResizeMode.Stretch)
    table.setToolTip(name)
    _paint_head(table)
    return table


def _paint_head(table: QTableWidget) -> None:
    for column in range(table.columnCount()):
        item = table.horizontalHeaderItem(column)
        if item is not None:
            side = Qt.AlignmentFlag.AlignLeft if column == 0 else Qt.AlignmentFlag.AlignRight
            item.setTextAlignment(side | Qt.AlignmentFlag.AlignVCenter)
            item.setForeground(current().color("muted"))


def _item(text: str, *, align: Qt.AlignmentFlag = Qt.AlignmentFlag.AlignRight) -> QTableWidgetItem:
    item = QTableWidgetItem(text)
    item.setTextAlignment(align | Qt.AlignmentFlag.AlignVCenter)
    return item


def _bold() -> QFont:
    font = ui_font(SMALL_PIXELS)
    font.setBold(True)
    return font
