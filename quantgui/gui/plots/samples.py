"""What each calibration sample contributes to the range of a tensor."""

from __future__ import annotations

import numpy as np
import pyqtgraph as pg
from PySide6.QtCore import Qt
from PySide6.QtWidgets import QWidget

from quantgui.gui.plots.base import Bars, pen
from quantgui.gui.plots.channels import ChannelPlot
from quantgui.gui.theme import Tokens, current
from quantgui.results import Array


class SamplesPlot(ChannelPlot):
    """Smallest to largest value in each sample; the samples that set the ends of the range stand out."""

    def __init__(self, name: str, x_label: str, y_label: str, parent: QWidget | None = None) -> None:
        super().__init__(name, x_label, y_label, parent)
        self._bars = Bars(x=[], y0=[], y1=[], width=1)
        self._extreme = Bars(x=[], y0=[], y1=[], width=1)
        self._low = pg.InfiniteLine(0.0, angle=0, movable=False)
        self._high = pg.InfiniteLine(0.0, angle=0, movable=False)
        for depth, item in enumerate((self._bars, self._extreme, self._low, self._high), 1):
            item.setZValue(depth)
            self.addItem(item)
        self.restyle(current())

    def show_samples(self, minima: Array, maxima: Array, limits: tuple[float, float] | None) -> None:
        """Show the ends of each sample, both (S,), and the limits of the range where there is one."""
        places = np.arange(len(minima), dtype=np.float64)
        extreme = np.zeros(len(minima), bool)
        for ends in (-minima, maxima):
            # Behind a Relu all samples have the same smallest value, and none stands out.
            if len(ends) and np.count_nonzero(ends == ends.max()) == 1:
                extreme[int(np.argmax(ends))] = True
        width = 0.8 if len(minima) <= 200 else 1.0
        usual = ~extreme
        wide = max(width, 0.006 * len(minima))  # the two that matter are seen among thousands
        self._bars.setOpts(x=places[usual], y0=minima[usual], y1=maxima[usual], height=None, width=width)
        self._extreme.setOpts(x=places[extreme], y0=minima[extreme], y1=maxima[extreme], height=None, width=wide)
        bottom, top = float(minima.min(initial=0.0)), float(maxima.max(initial=0.0))
        for line, value in zip((self._low, self._high), limits or (None, None), strict=True):
            line.setVisible(value is not None)
            if value is not None:
                line.setPos(value)
                bottom, top = min(bottom, value), max(top, value)
        margin = 0.05 * (top - bottom) or 0.5
        self.set_places(len(minima), bottom - margin, top + margin)

    def move_limits(self, low: float, high: float) -> None:
        """Move the limits while they are dragged; the view stays."""
        self._low.setPos(low)
        self._high.setPos(high)

    def paint_items(self, tokens: Tokens) -> None:
        super().paint_items(tokens)
        nothing = pg.mkPen(None)
        self._bars.setOpts(brush=tokens.color("float_", 0.5), pen=nothing)
        self._extreme.setOpts(brush=tokens.color("warning"), pen=nothing)
        for line in (self._low, self._high):
            line.setPen(pen(tokens.accent, 1.2, Qt.PenStyle.DashLine))
