"""Histogram of the quantization error."""

from __future__ import annotations

import numpy as np
import pyqtgraph as pg
from PySide6.QtCore import Qt
from PySide6.QtWidgets import QWidget

from quantgui.gui.plots.base import CountAxis, Plot, pen, rounded_up
from quantgui.gui.plots.histogram import LOWEST_LOG
from quantgui.gui.theme import Tokens, current
from quantgui.results import Array, Histogram


class ErrorPlot(Plot):
    """Histogram of the error, with half a step to either side of 0 shaded: what rounding alone can do."""

    def __init__(self, name: str, x_label: str, y_label: str, parent: QWidget | None = None) -> None:
        self._counts = CountAxis("left")
        super().__init__(name, x_label, y_label, parent, y_axis=self._counts)
        self._log = True
        self._histogram: Histogram | None = None
        self._region = pg.LinearRegionItem((0.0, 0.0), movable=False)
        # Steps have no slopes to smooth; sharp they are drawn four times as fast.
        self._curve = pg.PlotDataItem(stepMode="center", fillLevel=LOWEST_LOG, antialias=False)
        self._region.setZValue(1)
        self._curve.setZValue(2)
        self._region.hide()
        self.addItem(self._region)
        self.addItem(self._curve)
        self.plotItem.showGrid(x=False, y=True, alpha=0.12)
        self.restyle(current())

    def show_error(self, histogram: Histogram | None, step: float | None) -> None:
        """Show the histogram of ``x - x'``; `step` is the grid's scale where there is one scale."""
        self._histogram = histogram
        self._region.setVisible(step is not None)
        if step is not None:
            self._region.setRegion((-step / 2, step / 2))
        self._draw()

    def set_log(self, log: bool) -> None:  # noqa: FBT001 - a switch
        """Count logarithmically or linearly."""
        self._log = log
        self._counts.log = log
        self._counts.picture = None
        self._curve.setFillLevel(LOWEST_LOG if log else 0.0)
        self._draw()

    def _draw(self) -> None:
        floor = LOWEST_LOG if self._log else 0.0
        if self._histogram is None:
            self._curve.setData([0.0, 0.0], [floor])
            return
        heights = self._height(self._histogram.counts)
        edges = self._histogram.edges
        self._curve.setData(edges, heights)
        reach = float(max(abs(edges[0]), abs(edges[-1]))) * 1.05
        self.set_home(-reach, reach, floor, rounded_up(float(heights.max(initial=0.0)), log=self._log))

    def _height(self, counts: Array) -> Array:
        return np.log10(np.maximum(counts, 10**LOWEST_LOG)) if self._log else np.asarray(counts, np.float64)

    def paint_items(self, tokens: Tokens) -> None:
        self._curve.setPen(pen(tokens.error))
        self._curve.setFillBrush(tokens.color("error", 0.28))
        self._region.setBrush(tokens.color("muted", 0.12))
        for line in self._region.lines:
            line.setPen(pen(tokens.color("muted", 0.7), 1.0, Qt.PenStyle.DashLine))
