"""Histogram of a float tensor, the quantized values on the same axis, the grid, and the limits of the range."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyqtgraph as pg
from PySide6.QtCore import Qt, Signal
from PySide6.QtGui import QKeyEvent
from PySide6.QtWidgets import QWidget

from quantgui.gui.numbers import short
from quantgui.gui.plots.base import SHARP_PIXELS, Bars, CountAxis, Plot, pen, rounded_up
from quantgui.gui.theme import AXIS_PIXELS, Tokens, current, ui_font
from quantgui.results import Array, Histogram

LOWEST_LOG = -0.3
"""Where an empty bin lies on the logarithmic axis: log10 of half a value."""

SMALLEST_RANGE = 1e-3
"""Limits keep at least this share of the largest absolute value, so that a grid never collapses."""

_MARGIN = 0.04
_KEY_STEP = 0.01
_CLOSEST_LEVELS = 5.0
"""Pixels between levels below which the grid is left out: it would be a grey area."""
_GRIP = 5.0
"""Pixels to either side of a limit within which the pointer takes hold of it."""


class HistogramPlot(Plot):
    """Float values as a filled curve, quantized levels as bars, grid as dotted lines, limits as dashed lines.

    Signals:
        limits_dragged: low and high, while the user moves a limit.
        limits_chosen: low and high, when the user has let it go.
        zoomed: the visible part of the x axis, after it has changed.
    """

    limits_dragged = Signal(float, float)
    limits_chosen = Signal(float, float)
    zoomed = Signal(float, float)

    def __init__(self, name: str, x_label: str, y_label: str, parent: QWidget | None = None) -> None:
        self._counts = CountAxis("left")
        super().__init__(name, x_label, y_label, parent, y_axis=self._counts)
        self._log = True
        self._symmetric = False
        self._float: Histogram | None = None
        self._detail: Histogram | None = None
        self._quantized: Histogram | None = None
        self._levels: Array = np.zeros(0)
        self._absmax = 1.0
        # Steps have no slopes to smooth; sharp they are drawn four times as fast.
        self._curve = pg.PlotDataItem(stepMode="center", fillLevel=LOWEST_LOG, antialias=False)
        self._bars = Bars(x=[], height=[], width=1)
        self._grid = pg.PlotDataItem(connect="pairs")
        for item, depth in ((self._grid, 1), (self._curve, 2), (self._bars, 3)):
            item.setZValue(depth)
            self.addItem(item)
        self._low = LimitLine(left=True)
        self._high = LimitLine(left=False)
        for line in (self._low, self._high):
            line.setZValue(10)
            line.setVisible(False)
            self.addItem(line)
            line.sigDragged.connect(self._on_dragged)
            line.sigPositionChangeFinished.connect(self._on_dropped)
        self.plotItem.showGrid(x=False, y=True, alpha=0.12)
        self.view.sigXRangeChanged.connect(self._on_x_range_changed)
        self.restyle(current())

    # --- values in ---

    def show_float(self, histogram: Histogram | None) -> None:
        """Show the float values and fit the view to them; None empties the plot."""
        self._float = histogram
        self._detail = None
        self._quantized = None
        self._levels = np.zeros(0)
        if histogram is not None:
            edges = histogram.edges
            self._absmax = float(max(abs(edges[0]), abs(edges[-1]))) or 1.0
        self._draw_curve()
        self._draw_bars()
        self._draw_grid()

    def show_detail(self, histogram: Histogram) -> None:
        """Show the float values in finer bins where the user looks closely; the home view stays."""
        self._detail = histogram
        self._draw_curve()

    def show_quantized(self, histogram: Histogram | None) -> None:
        """Show how many values lie on each level; None hides them."""
        self._quantized = histogram
        self._draw_bars()

    def show_levels(self, levels: Array) -> None:
        """Show the values of the grid, shape (L,); an empty array hides them."""
        self._levels = levels
        self._draw_grid()

    def show_limits(self, low: float, high: float, *, symmetric: bool) -> None:
        """Show the limits of the range; if `symmetric`, moving one moves the other."""
        self._symmetric = symmetric
        for line, value in ((self._low, low), (self._high, high)):
            line.setVisible(True)
            self._place(line, value)

    def hide_limits(self) -> None:
        """Show no limits."""
        self._low.setVisible(False)
        self._high.setVisible(False)

    def is_dragging(self) -> bool:
        """Return whether the user holds a limit."""
        return bool(self._low.moving or self._high.moving)

    def limits(self) -> tuple[float, float]:
        """Return where the limits stand."""
        return float(self._low.value()), float(self._high.value())

    def set_log(self, log: bool) -> None:  # noqa: FBT001 - a switch
        """Count logarithmically or linearly."""
        self._log = log
        self._counts.log = log
        self._counts.picture = None
        self._curve.setFillLevel(self._floor())
        self._draw_curve()
        self._draw_bars()
        self.fit()

    def set_series_visible(self, *, float_: bool, quantized: bool, grid: bool) -> None:
        """Show or hide the three series."""
        self._curve.setVisible(float_)
        self._bars.setVisible(quantized)
        self._grid.setVisible(grid)

    def fit(self, *, keep_zoom: bool = False) -> None:
        """Make the home view hold all values, levels and limits."""
        if self._float is None:
            return
        low, high = float(self._float.edges[0]), float(self._float.edges[-1])
        if self._low.isVisible():
            low, high = min(low, self._low.value()), max(high, self._high.value())
        margin = _MARGIN * (high - low) or 0.5
        self.set_home(low - margin, high + margin, *self._heights(), keep_zoom=keep_zoom)
        self._draw_grid()

    def fit_height(self) -> None:
        """Make room for the tallest bar; along x nothing moves."""
        if self._home is not None and self._float is not None:
            self.set_home(*self._home[:2], *self._heights(), keep_zoom=True)
            self._draw_grid()

    def _heights(self) -> tuple[float, float]:
        if self._float is None:
            return 0.0, 1.0
        tallest = float(self._float.counts.max(initial=1.0))
        if self._quantized is not None:
            tallest = max(tallest, float(self._quantized.counts.max(initial=1.0)))
        top = self._height(np.array([tallest]))[0]
        return self._floor(), rounded_up(float(top), log=self._log)

    # --- drawing: data is set on the same items again and again ---

    def _floor(self) -> float:
        return LOWEST_LOG if self._log else 0.0

    def _height(self, counts: Array) -> Array:
        if not self._log:
            return np.asarray(counts, np.float64)
        return np.log10(np.maximum(counts, 10**LOWEST_LOG))

    def _draw_curve(self) -> None:
        if self._float is None:
            self._curve.setData([0.0, 0.0], [self._floor()])
            return
        histogram = self._detail or self._float
        self._curve.setData(histogram.edges, self._height(histogram.counts))

    def _draw_bars(self) -> None:
        floor = self._floor()
        if self._quantized is None:
            self._bars.setOpts(x=[], height=[], y0=floor, width=1)
            return
        counts = self._quantized.counts
        shown = np.flatnonzero(counts > 0)
        centers = ((self._quantized.edges[:-1] + self._quantized.edges[1:]) / 2)[shown]
        spacing = float(np.diff(centers).min()) if len(centers) > 1 else float(np.diff(self._quantized.edges).max())
        pixels = spacing / max(self.value_per_pixel(), 1e-300)
        # Bars too close to be told apart become an area that lets the curve through.
        share, opacity = (0.28, 1.0) if pixels >= 10 else (0.5, 1.0) if pixels >= 4 else (1.0, 0.5)
        heights = self._height(counts[shown]) - floor
        if pixels < SHARP_PIXELS:
            centers, heights, spacing = _one_per_pixel(centers, heights, SHARP_PIXELS * self.value_per_pixel())
        brush = current().color("quantized", opacity)
        self._bars.setOpts(x=centers, height=heights, y0=floor, width=spacing * share, brush=brush)

    def _draw_grid(self) -> None:
        levels = self._levels
        if len(levels) > 1 and levels[1] - levels[0] < _CLOSEST_LEVELS * self.value_per_pixel():
            levels = levels[:0]
        _, _, bottom, top = self._home or (0.0, 1.0, 0.0, 1.0)
        self._grid.setData(np.repeat(levels, 2), np.tile([bottom, top], len(levels)))

    def paint_items(self, tokens: Tokens) -> None:
        self._curve.setPen(pen(tokens.float_))
        self._curve.setFillBrush(tokens.color("float_", 0.28))
        self._bars.setOpts(pen=pg.mkPen(None))
        self._draw_bars()
        self._grid.setPen(pen(tokens.color("muted", 0.5), 1.0, Qt.PenStyle.DotLine))
        for line in (self._low, self._high):
            line.setPen(pen(tokens.accent, 1.4, Qt.PenStyle.DashLine))
            line.setHoverPen(pen(tokens.accent, 2.4))
            line.label.setColor(tokens.color("accent"))
            line.label.fill = pg.mkBrush(tokens.color("panel", 0.86))
            line.label.border = pg.mkPen(None)

    def _on_x_range_changed(self, _view: object, visible: tuple[float, float]) -> None:
        self._draw_grid()
        self._draw_bars()
        self.zoomed.emit(float(visible[0]), float(visible[1]))

    def resizeEvent(self, event: Any) -> None:
        super().resizeEvent(event)
        if event is not None and self._float is not None:
            self._draw_grid()
            self._draw_bars()

    # --- limits ---

    def _place(self, line: Any, value: float) -> None:
        line.setBounds((None, None))
        blocked = line.blockSignals(True)
        line.setPos(value)
        line.blockSignals(blocked)
        line.label.setFormat(short(value))

    def _on_dragged(self, line: Any) -> None:
        self._move(line, float(line.value()))

    def _move(self, line: Any, value: float) -> None:
        least = SMALLEST_RANGE * self._absmax
        is_low = line is self._low
        value = (
            min(value, -least if self._symmetric else 0.0) if is_low else max(value, least if self._symmetric else 0.0)
        )
        self._place(line, value)
        other = self._high if is_low else self._low
        if self._symmetric:
            self._place(other, -value)
        elif abs(other.value() - value) < least:
            self._place(line, other.value() + (-least if is_low else least))
        self.limits_dragged.emit(*self.limits())

    def _on_dropped(self, _line: Any) -> None:
        self.limits_chosen.emit(*self.limits())

    def keyPressEvent(self, event: QKeyEvent) -> None:
        modifiers = event.modifiers() & ~Qt.KeyboardModifier.KeypadModifier
        lines = {Qt.KeyboardModifier.ShiftModifier: self._low, Qt.KeyboardModifier.ControlModifier: self._high}
        steps = {Qt.Key.Key_Left.value: -1, Qt.Key.Key_Right.value: 1}
        line = lines.get(modifiers)
        if line is None or event.key() not in steps or not line.isVisible():
            super().keyPressEvent(event)
            return
        self._move(line, float(line.value()) + steps[event.key()] * _KEY_STEP * self._absmax)
        self.limits_chosen.emit(*self.limits())
        event.accept()


class LimitLine(pg.InfiniteLine):
    """A vertical line that can be taken hold of within a few pixels, with its value beside it."""

    def __init__(self, *, left: bool) -> None:
        # The labels stand between the lines, one higher than the other, so that they stay readable when lines meet.
        # They hang from their place: in a low plot they would else be cut at its top.
        anchors = [(0.0, 0.0), (0.0, 0.0)] if left else [(1.0, 0.0), (1.0, 0.0)]
        options = {"position": 1.0 if left else 0.87, "anchors": anchors, "movable": False}
        super().__init__(0.0, angle=90, movable=True, label="", labelOpts=options)
        self._maxMarkerSize = _GRIP
        self.label.setFont(ui_font(AXIS_PIXELS))
        self.setCursor(Qt.CursorShape.SizeHorCursor)


def _one_per_pixel(x: Array, heights: Array, width: float) -> tuple[Array, Array, float]:
    """Return the tallest bar in each stretch of `width`: all that can be seen, in a third of the time."""
    places = np.floor(x / width).astype(np.int64)
    first = np.flatnonzero(np.diff(places, prepend=places[:1] - 1))
    return (places[first] + 0.5) * width, np.maximum.reduceat(heights, first), width
