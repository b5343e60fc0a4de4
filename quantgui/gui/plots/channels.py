"""What the channels of a weight look like side by side: their ranges, their errors."""

from __future__ import annotations

import numpy as np
import pyqtgraph as pg
from PySide6.QtCore import Qt, Signal
from PySide6.QtGui import QKeyEvent
from PySide6.QtWidgets import QWidget

from quantgui.gui.plots.base import Bars, Plot, pen
from quantgui.gui.theme import Tokens, current
from quantgui.results import Array

_NO_CHANNEL = -1


class ChannelPlot(Plot):
    """A plot with one place along x for each channel.

    Signals:
        channel_hovered: place (0 ... C - 1) below the pointer or the keyboard's mark, None when it has left.
        channel_clicked: place that was clicked, or chosen with the enter key.
    """

    channel_hovered = Signal(object)
    channel_clicked = Signal(int)

    def __init__(self, name: str, x_label: str, y_label: str, parent: QWidget | None = None) -> None:
        super().__init__(name, x_label, y_label, parent)
        self._places = 0
        self._marked = _NO_CHANNEL
        self._mark = pg.LinearRegionItem((0.0, 0.0), movable=False)
        self._mark.setZValue(9)
        self._mark.hide()
        self.addItem(self._mark)
        self.plotItem.showGrid(x=False, y=True, alpha=0.12)
        self.hovered.connect(self._on_hovered)
        self.clicked.connect(self._on_place_clicked)

    def mark(self, place: int | None) -> None:
        """Mark a channel; None marks none."""
        self._marked = _NO_CHANNEL if place is None else place
        self._mark.setVisible(place is not None)
        if place is not None:
            self._mark.setRegion((place - 0.5, place + 0.5))

    def marked(self) -> int | None:
        """Return the marked place."""
        return None if self._marked == _NO_CHANNEL else self._marked

    def set_places(self, places: int, y_low: float, y_high: float) -> None:
        """Make room for `places` channels and for values from `y_low` to `y_high`."""
        self._places = places
        self.set_home(-0.5 - 0.01 * places, places - 0.5 + 0.01 * places, y_low, y_high)

    def paint_items(self, tokens: Tokens) -> None:
        self._mark.setBrush(tokens.color("text", 0.16))
        for line in self._mark.lines:
            line.setPen(pen(tokens.color("text", 0.25)))

    def keyPressEvent(self, event: QKeyEvent) -> None:
        steps = {Qt.Key.Key_Left.value: -1, Qt.Key.Key_Right.value: 1}
        if event.key() in steps and self._places and not self.is_zoomed():
            place = min(max(self._marked + steps[event.key()], 0), self._places - 1)
            self.channel_hovered.emit(place)
            event.accept()
        elif event.key() in (Qt.Key.Key_Return.value, Qt.Key.Key_Enter.value) and self._marked != _NO_CHANNEL:
            self.channel_clicked.emit(self._marked)
            event.accept()
        else:
            super().keyPressEvent(event)

    def _place(self, point: tuple[float, float] | None) -> int | None:
        if point is None:
            return None
        place = round(point[0])
        return place if 0 <= place < self._places else None

    def _on_hovered(self, point: tuple[float, float] | None) -> None:
        self.channel_hovered.emit(self._place(point))

    def _on_place_clicked(self, point: tuple[float, float]) -> None:
        place = self._place(point)
        if place is not None:
            self.channel_clicked.emit(place)


class ChannelRangePlot(ChannelPlot):
    """Smallest to largest value of each channel, mean ± standard deviation within, and what the grid covers."""

    def __init__(self, name: str, x_label: str, y_label: str, parent: QWidget | None = None) -> None:
        super().__init__(name, x_label, y_label, parent)
        self._ranges = Bars(x=[], y0=[], y1=[], width=1)
        self._outliers = Bars(x=[], y0=[], y1=[], width=1)
        self._deviations = Bars(x=[], y0=[], y1=[], width=1)
        self._covered_low = pg.PlotDataItem(stepMode="center")
        self._covered_high = pg.PlotDataItem(stepMode="center")
        items = (self._ranges, self._outliers, self._deviations, self._covered_low, self._covered_high)
        for depth, item in enumerate(items, 1):
            item.setZValue(depth)
            self.addItem(item)
        self.restyle(current())

    def show_channels(
        self, low: Array, high: Array, mean: Array, std: Array, outliers: Array, covered: tuple[Array, Array] | None
    ) -> None:
        """Show the channels in the order given, each argument of shape (C,).

        `outliers` is true for channels to be marked; `covered` holds the ends of each channel's grid.
        """
        places = np.arange(len(low), dtype=np.float64)
        width = 0.8 if len(low) <= 200 else 1.0
        bottom, top = float(low.min(initial=0.0)), float(high.max(initial=0.0))
        usual = ~outliers
        self._ranges.setOpts(x=places[usual], y0=low[usual], y1=high[usual], height=None, width=width)
        self._outliers.setOpts(x=places[outliers], y0=low[outliers], y1=high[outliers], height=None, width=width)
        inner_low, inner_high = np.maximum(mean - std, low), np.minimum(mean + std, high)
        self._deviations.setOpts(x=places, y0=inner_low, y1=inner_high, height=None, width=width)
        edges = np.arange(len(low) + 1) - 0.5
        for item, values in zip((self._covered_low, self._covered_high), covered or (None, None), strict=True):
            item.setVisible(values is not None)
            if values is not None:
                item.setData(edges, values)
                bottom, top = min(bottom, float(values.min())), max(top, float(values.max()))
        margin = 0.05 * (top - bottom) or 0.5
        self.set_places(len(low), bottom - margin, top + margin)

    def paint_items(self, tokens: Tokens) -> None:
        super().paint_items(tokens)
        nothing = pg.mkPen(None)
        self._ranges.setOpts(brush=tokens.color("float_", 0.38), pen=nothing)
        self._outliers.setOpts(brush=tokens.color("warning", 0.75), pen=nothing)
        self._deviations.setOpts(brush=tokens.color("float_", 0.9), pen=nothing)
        for item in (self._covered_low, self._covered_high):
            item.setPen(pen(tokens.color("muted", 0.9)))


class ChannelErrorPlot(ChannelPlot):
    """A bar for the SQNR of each channel."""

    def __init__(self, name: str, x_label: str, y_label: str, parent: QWidget | None = None) -> None:
        super().__init__(name, x_label, y_label, parent)
        self._bars = Bars(x=[], height=[], y0=0.0, width=1)
        self._weak = Bars(x=[], height=[], y0=0.0, width=1)
        self._average = pg.InfiniteLine(0.0, angle=0, movable=False)
        for depth, item in enumerate((self._bars, self._weak, self._average), 1):
            item.setZValue(depth)
            self.addItem(item)
        self.restyle(current())

    def show_sqnr(self, sqnr_db: Array, weak: Array, average_db: float) -> None:
        """Show the channels in the order given; `weak` is true for those to be marked.

        Channels without error (infinite SQNR) reach the top.
        """
        finite = sqnr_db[np.isfinite(sqnr_db)]
        top = float(finite.max(initial=0.0)) * 1.08 or 1.0
        bottom = min(float(finite.min(initial=0.0)), 0.0)
        heights = np.clip(np.nan_to_num(sqnr_db, nan=0.0, posinf=top, neginf=bottom), bottom, top)
        places = np.arange(len(sqnr_db), dtype=np.float64)
        width = 0.8 if len(places) <= 200 else 1.0
        self._bars.setOpts(x=places[~weak], height=heights[~weak], y0=0.0, width=width)
        self._weak.setOpts(x=places[weak], height=heights[weak], y0=0.0, width=width)
        self._average.setVisible(bool(np.isfinite(average_db)))
        if np.isfinite(average_db):
            self._average.setPos(average_db)
        self.set_places(len(places), bottom * 1.08, top)

    def paint_items(self, tokens: Tokens) -> None:
        super().paint_items(tokens)
        nothing = pg.mkPen(None)
        self._bars.setOpts(brush=tokens.color("quantized", 0.8), pen=nothing)
        self._weak.setOpts(brush=tokens.color("error"), pen=nothing)
        self._average.setPen(pen(tokens.muted, 1.2, Qt.PenStyle.DashLine))
