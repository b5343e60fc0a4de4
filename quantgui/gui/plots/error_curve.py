"""The error as a function of the clipping limit, with a mark where each range estimator lies and a limit to drag."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyqtgraph as pg
from PySide6.QtCore import QRectF, Qt, Signal
from PySide6.QtGui import QFontMetrics, QKeyEvent
from PySide6.QtWidgets import QWidget

from quantgui.gui.plots.base import Plot, pen
from quantgui.gui.plots.histogram import SMALLEST_RANGE, LimitLine
from quantgui.gui.theme import AXIS_PIXELS, Tokens, current, ui_font
from quantgui.results import Array

_REACH = 11.0
"""Pixels around a mark within which the pointer means it."""
_KEY_STEP = 0.01
_LOWEST_DB, _MOST_DB = -6.0, 200.0
_GAP = 3.0


@dataclass(frozen=True, slots=True)
class CurveMark:
    """One mark: the value it stands for, the word beside it, and its place."""

    value: object
    label: str
    threshold: float
    sqnr_db: float


class ErrorCurvePlot(Plot):
    """SQNR by clipping limit; a second, dotted curve where there are two ways to set the limit.

    Up and down go from mark to mark, enter chooses the one pointed at, Ctrl + left and right move the limit.

    Signals:
        threshold_dragged: where the limit stands, while the user moves it.
        threshold_chosen: where the limit stands, when the user has let it go.
        mark_pointed: the `CurveMark` below the pointer or reached by keys, or None.
        mark_chosen: the value of the mark that was clicked.
    """

    threshold_dragged = Signal(float)
    threshold_chosen = Signal(float)
    mark_pointed = Signal(object)
    mark_chosen = Signal(object)

    def __init__(self, name: str, x_label: str, y_label: str, parent: QWidget | None = None) -> None:
        super().__init__(name, x_label, y_label, parent)
        self._marks: tuple[CurveMark, ...] = ()
        self._pointed: int | None = None
        self._largest = 1.0
        self._curve = pg.PlotDataItem(antialias=True)
        self._common = pg.PlotDataItem(antialias=True)
        self._symbols = pg.ScatterPlotItem(symbol="d", size=10)
        self._point = pg.ScatterPlotItem(symbol="o", size=11)
        self._limit = LimitLine(left=False)
        for depth, item in enumerate((self._common, self._curve, self._limit, self._symbols, self._point), 1):
            item.setZValue(depth)
            self.addItem(item)
        self._texts: list[pg.TextItem] = []
        self._limit.label.setVisible(False)
        self._limit.sigDragged.connect(self._on_dragged)
        self._limit.sigPositionChangeFinished.connect(self._on_dropped)
        self.hovered.connect(self._on_hovered)
        self.clicked.connect(self._on_plot_clicked)
        self.view.sigXRangeChanged.connect(self._place_labels)
        self.plotItem.showGrid(x=False, y=True, alpha=0.12)
        self.set_unit("left", " dB")
        self.hide_limit()
        self.restyle(current())

    # --- values in ---

    def show_curve(
        self,
        curve: tuple[Array, Array] | None,
        common: tuple[Array, Array] | None,
        marks: Sequence[CurveMark],
        largest: float,
    ) -> None:
        """Show limits and sqnr, (T,) each, of both curves, the marks, and everything up to a limit of `largest`."""
        self._largest = largest or 1.0
        places: list[Array] = []
        for item, values in ((self._curve, curve), (self._common, common)):
            if values is None:
                item.setData([], [])
                continue
            heights = np.where(np.isfinite(values[1]), np.clip(values[1], _LOWEST_DB, _MOST_DB), np.nan)
            item.setData(values[0], heights)
            places.append(heights[np.isfinite(heights)])
        self._marks = tuple(mark for mark in marks if np.isfinite(mark.sqnr_db) and np.isfinite(mark.threshold))
        places.append(np.array([mark.sqnr_db for mark in self._marks]))
        heights = np.concatenate(places)
        low, high = (float(heights.min()), float(heights.max())) if heights.size else (0.0, 1.0)
        margin = max(0.14 * (high - low), 0.5)
        right = max([1.1 * self._largest, *(1.04 * mark.threshold for mark in self._marks)])
        self.set_home(0.0, right, max(low, _LOWEST_DB) - 0.3 * margin, high + margin, keep_zoom=True)
        self._pointed = None
        self._draw_marks()
        self._place_labels()

    def show_limit(self, threshold: float, sqnr_db: float) -> None:
        """Show where the limit stands and the error it leads to."""
        blocked = self._limit.blockSignals(True)
        self._limit.setPos(threshold)
        self._limit.blockSignals(blocked)
        self._limit.setVisible(True)
        if not self.is_dragging():
            self._place_labels()
        held = np.isfinite(sqnr_db)
        self._point.setData([threshold] if held else [], [np.clip(sqnr_db, _LOWEST_DB, _MOST_DB)] if held else [])

    def hide_limit(self) -> None:
        """Show no limit."""
        self._limit.setVisible(False)
        self._point.setData([], [])

    def is_dragging(self) -> bool:
        """Return whether the user holds the limit."""
        return bool(self._limit.moving)

    def threshold(self) -> float:
        """Return where the limit stands."""
        return float(self._limit.value())

    def marks(self) -> tuple[CurveMark, ...]:
        """Return the marks that are drawn."""
        return self._marks

    # --- drawing ---

    def paint_items(self, tokens: Tokens) -> None:
        self._curve.setPen(pen(tokens.quantized, 1.6))
        self._common.setPen(pen(tokens.color("muted", 0.9), 1.3, Qt.PenStyle.DotLine))
        self._limit.setPen(pen(tokens.accent, 1.4, Qt.PenStyle.DashLine))
        self._limit.setHoverPen(pen(tokens.accent, 2.4))
        self._point.setPen(pen(tokens.panel, 1.5))
        self._point.setBrush(tokens.color("accent"))
        self._draw_marks()

    def _draw_marks(self) -> None:
        tokens = current()
        self._symbols.setData(
            [mark.threshold for mark in self._marks],
            [mark.sqnr_db for mark in self._marks],
            brush=[tokens.color("text" if i == self._pointed else "panel") for i in range(len(self._marks))],
            pen=pen(tokens.text, 1.3),
        )
        while len(self._texts) < len(self._marks):
            text = pg.TextItem(anchor=(0.5, 1.0))
            text.setFont(ui_font(AXIS_PIXELS))
            text.setZValue(6)
            self.addItem(text, ignoreBounds=True)
            self._texts.append(text)
        for i, text in enumerate(self._texts):
            text.setVisible(i < len(self._marks))
            if i < len(self._marks):
                text.setText(self._marks[i].label, tokens.color("text" if i == self._pointed else "muted"))

    def _place_labels(self, *_: object) -> None:
        """Put each word above or below its mark, wherever it hits neither a mark nor another word."""
        if not self._marks:
            return
        width, height = self.view.viewPixelSize()
        if not (width > 0 and height > 0):
            return
        metrics = QFontMetrics(ui_font(AXIS_PIXELS))
        (left, right), (bottom, top) = self.view.viewRange()
        pixels = [((m.threshold - left) / width, (top - m.sqnr_db) / height) for m in self._marks]
        frame = QRectF(0, 0, (right - left) / width, (top - bottom) / height)
        taken = [QRectF(x - 5, y - 5, 10, 10) for x, y in pixels]
        if self._limit.isVisible():
            taken.append(QRectF((self.threshold() - left) / width - 3, 0.0, 6.0, frame.height()))
        for mark, (x, y), text in zip(self._marks, pixels, self._texts, strict=False):
            size = metrics.horizontalAdvance(mark.label) + 2 * _GAP, float(metrics.height())
            best = min(_places(x, y, *size), key=lambda place: _cost(place, taken, frame))
            taken.append(best)
            text.setAnchor((0.5, 0.5))
            text.setPos(left + best.center().x() * width, top - best.center().y() * height)

    def resizeEvent(self, event: Any) -> None:
        super().resizeEvent(event)
        if event is not None and self.plotItem is not None:
            self._place_labels()

    # --- input ---

    def _mark_at(self, point: tuple[float, float]) -> int | None:
        width, height = self.view.viewPixelSize()
        if not self._marks or not (width > 0 and height > 0):
            return None
        distances = [np.hypot((m.threshold - point[0]) / width, (m.sqnr_db - point[1]) / height) for m in self._marks]
        nearest = int(np.argmin(distances))
        return nearest if distances[nearest] <= _REACH else None

    def _point_at(self, index: int | None) -> None:
        if index == self._pointed:
            return
        self._pointed = index
        self._draw_marks()
        self.mark_pointed.emit(None if index is None else self._marks[index])

    def _on_hovered(self, point: tuple[float, float] | None) -> None:
        index = None if point is None else self._mark_at(point)
        self.setCursor(Qt.CursorShape.ArrowCursor if index is None else Qt.CursorShape.PointingHandCursor)
        self._point_at(index)

    def _on_plot_clicked(self, point: tuple[float, float]) -> None:
        index = self._mark_at(point)
        if index is not None:
            self.mark_chosen.emit(self._marks[index].value)

    def _on_dragged(self, line: Any) -> None:
        self._move(float(line.value()))

    def _move(self, value: float) -> None:
        value = min(max(value, SMALLEST_RANGE * self._largest), 4.0 * self._largest)
        blocked = self._limit.blockSignals(True)
        self._limit.setPos(value)
        self._limit.blockSignals(blocked)
        self.threshold_dragged.emit(value)

    def _on_dropped(self, _line: Any) -> None:
        self.threshold_chosen.emit(self.threshold())

    def keyPressEvent(self, event: QKeyEvent) -> None:
        steps = {Qt.Key.Key_Left.value: -1, Qt.Key.Key_Right.value: 1}
        modifiers = event.modifiers() & ~Qt.KeyboardModifier.KeypadModifier
        if modifiers == Qt.KeyboardModifier.ControlModifier and event.key() in steps and self._limit.isVisible():
            self._move(self.threshold() + steps[event.key()] * _KEY_STEP * self._largest)
            self.threshold_chosen.emit(self.threshold())
        elif event.key() in (Qt.Key.Key_Up, Qt.Key.Key_Down) and self._marks:
            order = sorted(range(len(self._marks)), key=lambda i: self._marks[i].threshold)
            step = 1 if event.key() == Qt.Key.Key_Up else -1
            place = order.index(self._pointed) + step if self._pointed is not None else 0
            self._point_at(order[place % len(order)])
        elif event.key() in (Qt.Key.Key_Return, Qt.Key.Key_Enter, Qt.Key.Key_Space) and self._pointed is not None:
            self.mark_chosen.emit(self._marks[self._pointed].value)
        else:
            super().keyPressEvent(event)
            return
        event.accept()


def _places(x: float, y: float, width: float, height: float) -> list[QRectF]:
    """Return where a word may stand: above and below its mark, beside it, and farther away."""
    places = []
    for away in range(3):
        reach = 7 + (away + 0.5) * height
        middles = [(x + shift, y + sign * reach) for sign in (-1, 1) for shift in (0.0, width / 2, -width / 2)]
        if away == 0:
            middles += [(x + 7 + width / 2, y), (x - 7 - width / 2, y)]
        places += [QRectF(left - width / 2, top - height / 2, width, height) for left, top in middles]
    return places


def _cost(place: QRectF, taken: Sequence[QRectF], frame: QRectF) -> float:
    """Return how much of a word would be hidden; the first of equal places is the nearest."""
    hidden = sum(_area(place.intersected(other)) for other in taken)
    return round(hidden + 2.0 * (_area(place) - _area(place.intersected(frame))), 3)


def _area(rect: QRectF) -> float:
    return max(rect.width(), 0.0) * max(rect.height(), 0.0)
