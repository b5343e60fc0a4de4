"""Quality against size of every configuration tried."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyqtgraph as pg
from PySide6.QtCore import Qt, Signal
from PySide6.QtGui import QKeyEvent
from PySide6.QtWidgets import QWidget

from quantgui.gui.plots.base import Plot, pen
from quantgui.gui.theme import Tokens, current
from quantgui.results import Array

_REACH = 12.0
"""Pixels around a point within which the pointer means it."""


class TriedPlot(Plot):
    """Points with error bars; the best ones for their size are joined, the current one is a star.

    Signals:
        point_hovered: index of the point below the pointer or the keyboard's mark, or None.
        point_clicked: index of the point that was clicked, or chosen with the enter key.
    """

    point_hovered = Signal(object)
    point_clicked = Signal(int)

    def __init__(self, name: str, x_label: str, y_label: str, parent: QWidget | None = None) -> None:
        super().__init__(name, x_label, y_label, parent)
        self._sizes: Array = np.zeros(0)
        self._values: Array = np.zeros(0)
        self._marked: int | None = None
        self._bars = pg.ErrorBarItem(x=np.zeros(1), y=np.zeros(1), height=np.zeros(1), beam=0.0)
        self._bars.hide()
        self._front = pg.PlotDataItem()
        self._dots = pg.ScatterPlotItem(size=7, pxMode=True)
        self._best = pg.ScatterPlotItem(size=8, pxMode=True)
        self._ring = pg.ScatterPlotItem(size=16, pxMode=True)
        self._star = pg.ScatterPlotItem(size=17, symbol="star", pxMode=True)
        items = (self._bars, self._front, self._dots, self._best, self._ring, self._star)
        for depth, item in enumerate(items, 1):
            item.setZValue(depth)
            self.addItem(item)
        self.view.setMouseEnabled(x=True, y=False)
        self.plotItem.showGrid(x=False, y=True, alpha=0.12)
        self.hovered.connect(self._on_hovered)
        self.clicked.connect(self._on_point_clicked)
        self.restyle(current())

    def show_points(
        self, sizes: Array, values: Array, stderrs: Array, front: Array, current: int | None, reference: float | None
    ) -> None:
        """Show the points.

        Args:
            sizes: in the unit of the axis, (P,).
            values: the metric, (P,).
            stderrs: its standard error, (P,).
            front: indices of the best points for their size, smallest first.
            current: index of the configuration in use.
            reference: value that is to be in sight (the float network's), or None.
        """
        self._sizes, self._values = sizes, values
        self._marked = None
        self._ring.setData([], [])
        on_front = np.zeros(len(sizes), bool)
        on_front[front] = True
        plain = ~on_front
        self._dots.setData(sizes[plain], values[plain])
        self._best.setData(sizes[front], values[front])
        self._front.setData(sizes[front], values[front])
        chosen = np.zeros(0, np.intp) if current is None else np.array([current])
        self._star.setData(sizes[chosen], values[chosen])
        self._bars.setVisible(bool((stderrs > 0).any()))
        if len(sizes):
            self._bars.setData(x=sizes, y=values, height=2 * stderrs)
            self._fit(sizes, values - stderrs, values + stderrs, reference)

    def _fit(self, sizes: Array, lows: Array, highs: Array, reference: float | None) -> None:
        ends = [] if reference is None else [reference]
        bottom, top = float(min([lows.min(), *ends])), float(max([highs.max(), *ends]))
        y_margin = 0.1 * (top - bottom) or abs(top) * 0.05 or 0.5
        left, right = float(sizes.min()), float(sizes.max())
        x_margin = 0.06 * (right - left) or abs(right) * 0.1 or 0.5
        self.set_home(max(left - x_margin, 0.0), right + x_margin, bottom - y_margin, top + y_margin)

    def mark(self, index: int | None) -> None:
        """Draw a ring around a point."""
        self._marked = index
        chosen = np.zeros(0, np.intp) if index is None else np.array([index])
        self._ring.setData(self._sizes[chosen], self._values[chosen])

    def point_at(self, x: float, y: float) -> int | None:
        """Return the index of the point nearest to a place in the plot, None if none is near."""
        if not len(self._sizes):
            return None
        width, height = self.view.viewPixelSize()
        distance = np.hypot((self._sizes - x) / width, (self._values - y) / height)
        nearest = int(np.argmin(distance))
        return nearest if distance[nearest] <= _REACH else None

    def paint_items(self, tokens: Tokens) -> None:
        nothing = pg.mkPen(None)
        self._bars.setOpts(pen=pen(tokens.color("muted", 0.6)))
        self._front.setPen(pen(tokens.float_, 1.4))
        self._dots.setPen(nothing)
        self._dots.setBrush(tokens.color("muted", 0.75))
        self._best.setPen(pen(tokens.panel))
        self._best.setBrush(tokens.color("float_"))
        self._ring.setPen(pen(tokens.text, 1.4))
        self._ring.setBrush(pg.mkBrush(None))
        self._star.setPen(pen(tokens.panel))
        self._star.setBrush(tokens.color("quantized"))

    def keyPressEvent(self, event: QKeyEvent) -> None:
        steps = {Qt.Key.Key_Left.value: -1, Qt.Key.Key_Right.value: 1}
        if event.key() in steps and len(self._sizes) and not self.is_zoomed():
            order = list(np.argsort(self._sizes, kind="stable"))
            place = -1 if self._marked is None else order.index(self._marked)
            self.point_hovered.emit(int(order[min(max(place + steps[event.key()], 0), len(order) - 1)]))
            event.accept()
        elif event.key() in (Qt.Key.Key_Return.value, Qt.Key.Key_Enter.value) and self._marked is not None:
            self.point_clicked.emit(self._marked)
            event.accept()
        else:
            super().keyPressEvent(event)

    def _on_hovered(self, point: Any) -> None:
        self.point_hovered.emit(None if point is None else self.point_at(*point))

    def _on_point_clicked(self, point: tuple[float, float]) -> None:
        index = self.point_at(*point)
        if index is not None:
            self.point_clicked.emit(index)
