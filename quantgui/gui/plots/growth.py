"""How the range of an activation grows with the number of calibration samples."""

from __future__ import annotations

import numpy as np
import pyqtgraph as pg
from PySide6.QtCore import Qt
from PySide6.QtWidgets import QWidget

from quantgui.gui.plots.base import Plot, pen
from quantgui.gui.theme import Tokens, current
from quantgui.results import RangeGrowth

_WHOLE = 1.06


class GrowthPlot(Plot):
    """Range of the first n samples over that of all; the place where it reaches 99 % stands out."""

    def __init__(self, name: str, x_label: str, y_label: str, parent: QWidget | None = None) -> None:
        super().__init__(name, x_label, y_label, parent)
        self._others = pg.PlotDataItem(stepMode="left")
        self._curve = pg.PlotDataItem(stepMode="left")
        self._enough = pg.InfiniteLine(0.0, angle=90, movable=False)
        for depth, item in enumerate((self._others, self._enough, self._curve), 1):
            item.setZValue(depth)
            self.addItem(item)
        self.set_unit("left", " %")
        self.restyle(current())

    def show_growths(self, main: RangeGrowth, other: RangeGrowth | None) -> None:
        """Show how the range of `main` grows, and thinner that of `other`."""
        samples = len(main.shares)
        places = np.arange(1, samples + 1)
        self._curve.setData(places, 100 * main.shares)
        if other is None or len(other.shares) != samples:
            self._others.setData([], [])
        else:
            self._others.setData(places, 100 * other.shares)
        self._enough.setPos(main.enough)
        self.set_home(1, max(samples, 2), 0, 100 * _WHOLE)

    def paint_items(self, tokens: Tokens) -> None:
        self._curve.setPen(pen(tokens.color("float_"), 1.6))
        self._others.setPen(pen(tokens.color("muted", 0.8), 1.2, Qt.PenStyle.DashLine))
        self._enough.setPen(pen(tokens.color("accent", 0.8), 1.2, Qt.PenStyle.DotLine))
