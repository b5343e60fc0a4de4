"""What all plots share: look, axes with readable numbers, zoom and pan by mouse and keyboard, a live theme."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyqtgraph as pg
from PySide6.QtCore import QPointF, Qt, Signal
from PySide6.QtGui import QColor, QFocusEvent, QKeyEvent, QPainter, QPen, QResizeEvent
from PySide6.QtWidgets import QWidget

from quantgui.gui.numbers import MINUS
from quantgui.gui.theme import AXIS_PIXELS, Tokens, current, theme_events, ui_font
from quantgui.results import Array

# Without the limit of 100 moves a second, which drops the last place of a quick drag or hover.
pg.setConfigOptions(antialias=True, mouseRateLimit=-1)

_BOTTOM_WITH_LABEL, _BOTTOM, _LEFT = 38, 21, 54
_TIGHT = 145
"""Pixels of height below which the label of the x axis is left out."""

_MARK_SHARE = 0.08
"""Part of the plot's height that half the mark of a point takes."""
SHARP_PIXELS = 2.0
ZOOM_STEP = 1.25
PAN_STEP = 0.1
_ONE_POWER = 1.1
"""Decades up to which there is one power of ten in sight: the next would stand at the end of the axis."""
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_LARGEST_PLAIN = 1e5
_SMALLEST_PLAIN = 1e-4


def tick_text(value: float, spacing: float) -> str:
    """Return `value` with as many decimals as ticks `spacing` apart need.

    >>> tick_text(-0.15, 0.05), tick_text(2.0, 1.0), tick_text(3e-6, 1e-6), tick_text(250000.0, 50000.0)
    ('−0.15', '2', '3e−6', '2.5e5')
    """
    if abs(value) < spacing * 1e-6:
        return "0"
    if spacing < _SMALLEST_PLAIN or abs(value) >= _LARGEST_PLAIN:
        digits = max(math.floor(math.log10(abs(value)) + 1e-9) - math.floor(math.log10(spacing) + 1e-9), 0)
        mantissa, power = f"{value:.{digits}e}".split("e")
        if "." in mantissa:
            mantissa = mantissa.rstrip("0").rstrip(".")
        return f"{mantissa}e{int(power)}".replace("-", MINUS)
    decimals = max(0, math.ceil(-math.log10(spacing) - 1e-9))
    return f"{value:.{decimals}f}".replace("-", MINUS)


class NumberAxis(pg.AxisItem):
    """An axis that writes numbers out instead of scaling them by a factor named in the label."""

    def __init__(self, orientation: str) -> None:
        self.unit = ""
        """Written behind every number, with a blank where it needs one."""
        self.ends = (-math.inf, math.inf)
        """Beyond these values, in the unit of the plot, numbers have no meaning: none are written there."""
        super().__init__(orientation)
        self.enableAutoSIPrefix(False)
        self.setStyle(tickFont=ui_font(AXIS_PIXELS), tickLength=-4, tickTextOffset=5)
        self.setTickDensity(1.3)
        if orientation == "bottom":
            self.setStyle(autoExpandTextSpace=False, tickTextHeight=14)
            self.setHeight(_BOTTOM_WITH_LABEL)
        else:
            # One width for all plots, so that plots above each other share their left edge.
            self.setStyle(autoExpandTextSpace=False, tickTextWidth=_LEFT - 20)
            self.setWidth(_LEFT)

    def resizeEvent(self, event: object = None) -> None:
        super().resizeEvent(event)
        # A label longer than its axis would be cut; what it says stands in the title or tooltip too.
        if self.label is not None and self.orientation == "left":
            self.label.setOpacity(float(self.label.boundingRect().width() <= self.size().height()))

    def tickValues(self, low: float, high: float, size: float) -> list[tuple[float, list[float]]]:
        result: list[tuple[float, list[float]]] = super().tickValues(low, high, size)
        slack = 1e-9 * (high - low)
        first, last = self.ends[0] - slack, self.ends[1] + slack
        return [(spacing, [value for value in values if first <= value <= last]) for spacing, values in result[:1]]

    def tickStrings(self, values: Sequence[float], scale: float, spacing: float) -> list[str]:
        return [tick_text(value * scale, spacing * scale) + self.unit for value in values]


class CountAxis(NumberAxis):
    """An axis of counts; in log mode the values are decimal logarithms and the ticks powers of ten.

    Attributes:
        log: whether values are logarithms.
    """

    def __init__(self, orientation: str) -> None:
        super().__init__(orientation)
        self.log = True

    def tickValues(self, low: float, high: float, size: float) -> list[tuple[float, list[float]]]:
        if not self.log:
            return super().tickValues(low, high, size)
        first, last = max(math.ceil(low - 1e-9), 0), math.floor(high + 1e-9)
        if high < first + _ONE_POWER:
            # Of powers of ten there would be one number: round ones between them as well.
            factors = [power + math.log10(factor) for power in (first, first + 1) for factor in (1.0, 2.0, 5.0)]
            return [(1.0, [tick for tick in factors if low <= tick <= high])]
        room = max(1, int(size // 24))
        step = max(1, math.ceil((last - first + 1) / room))
        return [(float(step), [float(power) for power in range(first, last + 1, step)])]

    def tickStrings(self, values: Sequence[float], scale: float, spacing: float) -> list[str]:
        if not self.log:
            return super().tickStrings(values, scale, spacing)
        return [_count_text(value) for value in values]


def _count_text(logarithm: float) -> str:
    power = round(logarithm)
    if power < 2 or abs(power - logarithm) > 1e-6:
        return f"{10.0**logarithm:.0f}"
    return f"10{str(power).translate(_SUPERSCRIPTS)}"


class Bars(pg.BarGraphItem):
    """Bars with sharp edges: several times faster to draw than smoothed ones.

    Bars narrower than two pixels are smoothed all the same, or some of them would vanish between pixels.
    """

    def paint(self, painter: QPainter, *args: Any) -> None:
        pixel = self.pixelWidth()
        sharp = pixel > 0 and self.opts["width"] >= SHARP_PIXELS * pixel
        painter.setRenderHint(QPainter.RenderHint.Antialiasing, not sharp)
        super().paint(painter, *args)


class Plot(pg.PlotWidget):
    """A plot that follows the theme.

    The wheel zooms along x around the pointer, dragging pans, a double click or the key 0 shows everything; plus,
    minus and the arrow keys do the same.

    Signals:
        hovered: x and y of the pointer in the plot's own units, or None when it has left.
        clicked: x and y of a click with the left button.
    """

    hovered = Signal(object)
    clicked = Signal(object)

    def __init__(
        self,
        name: str,
        x_label: str,
        y_label: str,
        parent: QWidget | None = None,
        *,
        x_axis: pg.AxisItem | None = None,
        y_axis: pg.AxisItem | None = None,
    ) -> None:
        axes = {"bottom": x_axis or NumberAxis("bottom"), "left": y_axis or NumberAxis("left")}
        super().__init__(parent, background=None, axisItems=axes, enableMenu=False)
        self.setAccessibleName(name)
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.setMinimumSize(120, 90)
        self._labels = {"bottom": x_label, "left": y_label}
        self._tight = False
        self._home: tuple[float, float, float, float] | None = None
        self.view = self.getViewBox()
        self.view.setMouseEnabled(x=True, y=False)
        self.view.setDefaultPadding(0)
        self.view.disableAutoRange()
        self.plotItem.hideButtons()
        self.plotItem.setMenuEnabled(False)
        self.plotItem.layout.setContentsMargins(0, 2, 4, 0)
        self.scene().sigMouseMoved.connect(self._on_moved)
        self.scene().sigMouseClicked.connect(self._on_clicked)
        theme_events().changed.connect(self.restyle)

    # --- look ---

    def restyle(self, tokens: Tokens) -> None:
        """Give everything in the plot the colours of `tokens`."""
        if self.plotItem is None:
            return
        self.setBackground(tokens.panel)
        for side, text in self._labels.items():
            axis = self.getAxis(side)
            axis.setPen(pg.mkPen(tokens.border))
            axis.setTextPen(pg.mkPen(tokens.muted))
            axis.setTickPen(pg.mkPen(tokens.color("muted", 0.5)))
            self.set_label(side, text)
        self.view.setBorder(None)
        self.paint_items(tokens)

    def paint_items(self, tokens: Tokens) -> None:
        """Give the plot's own items the colours of `tokens`."""

    def set_label(self, side: str, text: str) -> None:
        """Change the label of the axis at `side` (``bottom``, ``left``)."""
        self._labels[side] = text
        axis = self.getAxis(side)
        axis.setLabel(text or None, color=current().muted, **{"font-size": f"{AXIS_PIXELS}px"})
        axis.label.setFont(ui_font(AXIS_PIXELS))
        axis.showLabel(bool(text))
        if side == "bottom":
            shown = bool(text) and not self._tight
            axis.showLabel(shown)
            axis.setHeight(_BOTTOM_WITH_LABEL if shown else _BOTTOM)
        # pyqtgraph centres a label when the axis changes its size, not when the label does.
        axis.resizeEvent()

    def set_unit(self, side: str, unit: str) -> None:
        """Write `unit` behind every number of the axis at `side`."""
        axis = self.getAxis(side)
        if isinstance(axis, NumberAxis) and axis.unit != unit:
            axis.unit = unit
            axis.picture = None
            axis.update()

    def set_meaning(self, side: str, *, factor: float = 1.0, ends: tuple[float, float] = (-math.inf, math.inf)) -> None:
        """Write the numbers of the axis at `side` `factor` times as large, and none beyond `ends`, in its own unit."""
        axis = self.getAxis(side)
        if isinstance(axis, NumberAxis) and (axis.scale, axis.ends) != (factor, ends):
            axis.ends = ends
            axis.setScale(factor)
            axis.picture = None
            axis.update()

    def within_meaning(self, side: str, low: float, high: float) -> tuple[float, float]:
        """Return the ends of an axis for values of `low` to `high`, not beyond what they can mean.

        A point at such an end has still as much room there as half its mark needs.
        """
        axis = self.getAxis(side)
        least, most = axis.ends if isinstance(axis, NumberAxis) else (-math.inf, math.inf)
        mark = _MARK_SHARE * (high - low)
        return max(low, least - mark), min(high, most + mark)

    # --- view ---

    def set_home(self, x_low: float, x_high: float, y_low: float, y_high: float, *, keep_zoom: bool = False) -> None:
        """Set what the whole plot is; it is shown unless `keep_zoom` and the user has zoomed."""
        if x_high <= x_low:
            x_low, x_high = x_low - 0.5, x_high + 0.5
        if y_high <= y_low:
            y_high = y_low + 1.0
        home = (x_low, x_high, y_low, y_high)
        zoomed = self.is_zoomed()
        if home == self._home and (keep_zoom or not zoomed):
            return
        if self._home is None or home[:2] != self._home[:2]:
            self.view.setLimits(xMin=x_low, xMax=x_high, minXRange=(x_high - x_low) * 1e-5)
        self._home = home
        if zoomed and keep_zoom:
            self.view.setYRange(y_low, y_high, padding=0)
        else:
            self.view.setRange(xRange=(x_low, x_high), yRange=(y_low, y_high), padding=0)
        # Else it would be found out while painting, and everything painted a second time.
        self.view.updateMatrix()

    def is_zoomed(self) -> bool:
        """Return whether less than the whole plot is seen."""
        if self._home is None:
            return False
        low, high = self.view.viewRange()[0]
        return bool(high - low < 0.999 * (self._home[1] - self._home[0]))

    def zoom(self, factor: float) -> None:
        """Show `factor` times less (or more, below 1) along x, around the middle."""
        self.view.scaleBy(x=1 / factor)

    def reset_view(self) -> None:
        """Show the whole plot."""
        if self._home is not None:
            self.view.setRange(xRange=self._home[:2], yRange=self._home[2:], padding=0)

    def pan(self, share: float) -> None:
        """Move by `share` of the visible width."""
        low, high = self.view.viewRange()[0]
        self.view.translateBy(x=share * (high - low))

    def value_per_pixel(self) -> float:
        """Return how far apart two pixels are in x."""
        return float(self.view.viewPixelSize()[0])

    def resizeEvent(self, event: QResizeEvent | None) -> None:
        super().resizeEvent(event)
        # Where space is short, the values need it more than the label below them. pyqtgraph calls this before all
        # else exists, without an event.
        if event is not None and self.plotItem is not None:
            tight = self.height() < _TIGHT
            if tight != self._tight:
                self._tight = tight
                self.set_label("bottom", self._labels["bottom"])

    # --- input ---

    def keyPressEvent(self, event: QKeyEvent) -> None:
        match event.key():
            case Qt.Key.Key_Plus | Qt.Key.Key_Equal:
                self.zoom(ZOOM_STEP)
            case Qt.Key.Key_Minus:
                self.zoom(1 / ZOOM_STEP)
            case Qt.Key.Key_0 | Qt.Key.Key_Home:
                self.reset_view()
            case Qt.Key.Key_Left:
                self.pan(-PAN_STEP)
            case Qt.Key.Key_Right:
                self.pan(PAN_STEP)
            case _:
                event.ignore()
                return
        event.accept()

    def leaveEvent(self, event: Any) -> None:
        super().leaveEvent(event)
        self.hovered.emit(None)

    def focusInEvent(self, event: QFocusEvent) -> None:
        super().focusInEvent(event)
        by_key = event.reason() in (Qt.FocusReason.TabFocusReason, Qt.FocusReason.BacktabFocusReason)
        self._show_focus(focused=by_key)

    def focusOutEvent(self, event: QFocusEvent) -> None:
        super().focusOutEvent(event)
        self._show_focus(focused=False)

    def _show_focus(self, *, focused: bool) -> None:
        if self.plotItem is None:  # closed: pyqtgraph takes everything apart
            return
        tokens = current()
        for side, text in self._labels.items():
            self.getAxis(side).setPen(pg.mkPen(tokens.accent if focused else tokens.border))
            self.set_label(side, text)

    def _on_moved(self, position: QPointF) -> None:
        if not self.view.sceneBoundingRect().contains(position):
            self.hovered.emit(None)
            return
        point = self.view.mapSceneToView(position)
        self.hovered.emit((point.x(), point.y()))

    def _on_clicked(self, event: Any) -> None:
        if event.button() != Qt.MouseButton.LeftButton:
            return
        if event.double():
            self.reset_view()
        elif self.view.sceneBoundingRect().contains(event.scenePos()):
            point = self.view.mapSceneToView(event.scenePos())
            self.clicked.emit((point.x(), point.y()))


def pen(color: QColor | str, width: float = 1.0, style: Qt.PenStyle = Qt.PenStyle.SolidLine) -> QPen:
    """Return a pen whose width does not grow with the zoom."""
    result: QPen = pg.mkPen(color, width=width, style=style)
    return result


def error_bars() -> pg.ErrorBarItem:
    """Return error bars without ends, of no points yet."""
    bars = pg.ErrorBarItem(x=np.zeros(1), y=np.zeros(1), height=np.zeros(1), beam=0.0)
    bars.hide()
    return bars


def show_error_bars(bars: pg.ErrorBarItem, xs: Array, ys: Array, stderrs: Array) -> None:
    """Show one standard error on both sides of points, (P,) each; an unknown error shows none."""
    heights = 2 * np.nan_to_num(stderrs, posinf=0.0)
    bars.setVisible(bool((heights > 0).any()))
    if len(xs):
        bars.setData(x=xs, y=ys, height=heights)


def rounded_up(value: float, *, log: bool = False) -> float:
    """Return the upper end of an axis for values up to `value`: some air above, and steps, so that it rarely moves.

    >>> rounded_up(3.7, log=True), 100 < rounded_up(100.0) < 112
    (4.0, True)
    """
    if log:
        return max(math.ceil((value + 0.1) * 4) / 4, 0.5)
    if value <= 0:
        return 1.0
    return float(1.05 ** math.ceil(math.log(value * 1.03) / math.log(1.05)))
