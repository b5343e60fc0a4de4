"""One sample that is no picture: its values as a curve."""

from __future__ import annotations

import numpy as np
import pyqtgraph as pg
from PySide6.QtWidgets import QWidget

from quantgui.gui.plots.base import Plot, pen
from quantgui.gui.theme import Tokens, current
from quantgui.results import Array


class SignalPlot(Plot):
    """Values in their order."""

    def __init__(self, name: str, x_label: str, y_label: str, parent: QWidget | None = None) -> None:
        super().__init__(name, x_label, y_label, parent)
        # Where there are more values than pixels, the smallest and the largest of each pixel are drawn.
        self._curve = pg.PlotDataItem(autoDownsample=True, downsampleMethod="peak", clipToView=True)
        self.addItem(self._curve)
        self.restyle(current())

    def show_values(self, values: Array) -> None:
        """Show the values, (N,)."""
        shown = np.where(np.isfinite(values), values, 0.0).astype(np.float64)
        self._curve.setData(np.arange(len(shown)), shown)
        low, high = float(shown.min(initial=0.0)), float(shown.max(initial=0.0))
        margin = 0.05 * (high - low) or 0.5
        self.set_home(0, max(len(shown) - 1, 1), low - margin, high + margin)

    def paint_items(self, tokens: Tokens) -> None:
        self._curve.setPen(pen(tokens.color("float_"), 1.2))
