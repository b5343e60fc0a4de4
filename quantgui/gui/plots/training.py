"""Training as it goes on: the loss of each step, and the quality from evaluation to evaluation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyqtgraph as pg
from PySide6.QtCore import Qt, Signal
from PySide6.QtGui import QKeyEvent
from PySide6.QtWidgets import QWidget

from quantgui.gui.numbers import MINUS
from quantgui.gui.plots.base import NumberAxis, Plot, error_bars, pen, rounded_up, show_error_bars
from quantgui.gui.theme import AXIS_PIXELS, Tokens, current, ui_font
from quantgui.results import Array

_SMOOTH_SHARE = 0.05
"""Part of the points over which the smooth line averages."""
_FEWEST_STEPS = 10
_REACH = 14.0
"""Pixels around an evaluation within which the pointer means it."""
_FEW_DECADES = 0.6
"""Below so many powers of ten an axis names round numbers between them."""
_TICK_PIXELS = 20
_FACTORS = ((1.0, 2.0, 5.0), (1.0, 3.0))
"""What powers of ten are multiplied by where there is room for more numbers."""


class PowerAxis(NumberAxis):
    """An axis of decimal logarithms that writes the numbers themselves."""

    def tickValues(self, low: float, high: float, size: float) -> list[tuple[float, list[float]]]:
        decades = max(high - low, 1e-9)
        if decades < _FEW_DECADES:
            # Powers of ten would be too far apart: round numbers instead.
            return [
                (spacing, [math.log10(value) for value in values if value > 0])
                for spacing, values in super().tickValues(10.0**low, 10.0**high, size)
            ]
        room = max(1, int(size // _TICK_PIXELS))
        factors = next((each for each in _FACTORS if len(each) * decades <= room), (1.0,))
        step = max(1, math.ceil(decades / room))
        first = math.floor(low)
        powers = range(first - first % step, math.ceil(high) + 1, step)
        ticks = [power + math.log10(factor) for power in powers for factor in factors]
        return [(float(step), [tick for tick in ticks if low <= tick <= high])]

    def tickStrings(self, values: Sequence[float], scale: float, spacing: float) -> list[str]:
        return [power_text(10.0**value) + self.unit for value in values]


def power_text(value: float) -> str:
    """Return a number as short as can be.

    >>> power_text(0.02), power_text(1.0), power_text(5e-6), power_text(0.0123)
    ('0.02', '1', '5e−6', '0.0123')
    """
    text = f"{value:.3g}"
    if "e" in text:
        mantissa, power = text.split("e")
        text = f"{mantissa}e{int(power)}"
    return text.replace("-", MINUS)


class LossPlot(Plot):
    """The loss over the steps on a scale of powers of ten: every point faint, their run as a line.

    Signals:
        step_hovered: step and loss below the pointer, or None.
    """

    step_hovered = Signal(object)

    def __init__(self, name: str, x_label: str, y_label: str, parent: QWidget | None = None) -> None:
        super().__init__(name, x_label, y_label, parent, y_axis=PowerAxis("left"))
        self._steps, self._losses = np.zeros(0), np.zeros(0)
        self._points = pg.ScatterPlotItem(size=3, pxMode=True)
        self._line = pg.PlotDataItem()
        self._best = _best_line()
        for depth, item in enumerate((self._best, self._points, self._line), 1):
            item.setZValue(depth)
            self.addItem(item, ignoreBounds=True)
        self.plotItem.showGrid(x=False, y=True, alpha=0.12)
        self.hovered.connect(self._on_hovered)
        self.restyle(current())

    def show_losses(self, steps: Array, losses: Array, last: float, best: int | None) -> None:
        """Show losses (L,) taken at `steps` (L,), up to the step `last`, and where the best evaluation was."""
        # A loss of 0 or one that is not finite has no logarithm.
        known = np.isfinite(losses) & (losses > 0)
        self._steps, self._losses = np.asarray(steps, np.float64)[known], np.asarray(losses, np.float64)[known]
        heights = np.log10(self._losses)
        line = smoothed(heights)
        self._points.setData(self._steps, heights)
        self._line.setData(self._steps, line)
        _show_best(self._best, best)
        low, high = (float(heights.min()), float(heights.max())) if len(heights) else (-1.0, 0.0)
        margin = max(0.06 * (high - low), 0.05)
        self.set_home(0.0, shown_steps(last), low - margin, high + margin, keep_zoom=True)

    def losses(self) -> tuple[Array, Array]:
        """Return steps and losses that are drawn, (L,) each."""
        return self._steps, self._losses

    def paint_items(self, tokens: Tokens) -> None:
        self._points.setPen(None)
        self._points.setBrush(tokens.color("quantized", 0.35))
        self._line.setPen(pen(tokens.quantized, 1.8))
        self._best.setPen(pen(tokens.color("good", 0.9), 1.2, Qt.PenStyle.DashLine))

    def _on_hovered(self, point: tuple[float, float] | None) -> None:
        if point is None or not len(self._steps):
            self.step_hovered.emit(None)
            return
        place = int(np.argmin(np.abs(self._steps - point[0])))
        self.step_hovered.emit((int(self._steps[place]), float(self._losses[place])))


@dataclass(frozen=True, slots=True, eq=False)
class QualityCurve:
    """Evaluations of training in the axis' unit; NaN where a value is not known.

    Attributes:
        steps, values, stderrs: (E,) each.
        float_value, before: of the float network, and of the configuration before training.
        before_stderr: of `before`.
    """

    steps: Array
    values: Array
    stderrs: Array
    float_value: float
    before: float
    before_stderr: float


class QualityPlot(Plot):
    """Quality over the steps with its standard error, between the float network and what was before training.

    Up and down go from evaluation to evaluation.

    Signals:
        evaluation_pointed: number of the evaluation below the pointer or reached by keys, or None.
    """

    evaluation_pointed = Signal(object)

    def __init__(self, name: str, x_label: str, y_label: str, parent: QWidget | None = None) -> None:
        super().__init__(name, x_label, y_label, parent)
        self._curve: QualityCurve | None = None
        self._pointed: int | None = None
        # Training goes from below on the left to above on the right: the other corners are free for names.
        self._float = _named_line(self.tr("float"), 0.01)
        self._before = _named_line(self.tr("before"), 0.85)
        self._best_line = _best_line()
        self._bars = error_bars()
        self._line = pg.PlotDataItem()
        self._dots = pg.ScatterPlotItem(size=7, pxMode=True)
        self._ring = pg.ScatterPlotItem(size=13, pxMode=True, brush=None)
        self._star = pg.ScatterPlotItem(size=16, symbol="star", pxMode=True)
        items = (self._before, self._float, self._best_line, self._bars, self._line, self._dots, self._ring, self._star)
        for depth, item in enumerate(items, 1):
            item.setZValue(depth)
            self.addItem(item, ignoreBounds=True)
        for line in (self._float, self._before):
            line.hide()
        self.plotItem.showGrid(x=False, y=True, alpha=0.12)
        self.hovered.connect(self._on_hovered)
        self.restyle(current())

    def show_quality(self, curve: QualityCurve, last: float, best: int | None) -> None:
        """Show the evaluations up to the step `last`; `best` is the step of the best one."""
        self._curve = curve
        for line, value in ((self._float, curve.float_value), (self._before, curve.before)):
            line.setVisible(math.isfinite(value))
            if math.isfinite(value):
                line.setPos(value)
        # What was before is where the curve begins.
        steps = np.concatenate([[0.0], np.asarray(curve.steps, np.float64)])
        values = np.concatenate([[curve.before], curve.values])
        stderrs = np.concatenate([[curve.before_stderr], curve.stderrs])
        known = np.isfinite(values)
        self._line.setData(steps[known], values[known])
        self._dots.setData(steps[known], values[known])
        reach = np.where(np.isfinite(stderrs), stderrs, 0.0)
        show_error_bars(self._bars, steps[known], values[known], reach[known])
        at_best = known & (steps == best) if best is not None else np.zeros(len(steps), bool)
        self._star.setData(steps[at_best], values[at_best])
        _show_best(self._best_line, best)
        ends = np.concatenate([values[known] - reach[known], values[known] + reach[known], [curve.float_value]])
        ends = ends[np.isfinite(ends)]
        low, high = (float(ends.min()), float(ends.max())) if len(ends) else (0.0, 1.0)
        margin = 0.08 * (high - low) or max(0.02 * abs(high), 1e-3)
        low, high = self.within_meaning("left", low - margin, high + margin)
        self.set_home(0.0, shown_steps(last), low, high, keep_zoom=True)
        self._point_at(self._pointed if self._pointed is not None and self._pointed < len(curve.steps) else None)

    def pointed(self) -> int | None:
        """Return the evaluation that is pointed at."""
        return self._pointed

    def paint_items(self, tokens: Tokens) -> None:
        self._float.setPen(pen(tokens.color("float_"), 1.4, Qt.PenStyle.DashLine))
        self._before.setPen(pen(tokens.color("muted"), 1.2, Qt.PenStyle.DashLine))
        self._float.label.setColor(tokens.color("float_"))
        self._before.label.setColor(tokens.color("muted"))
        self._best_line.setPen(pen(tokens.color("good", 0.9), 1.2, Qt.PenStyle.DashLine))
        self._bars.setOpts(pen=pen(tokens.color("quantized", 0.8), 1.2))
        self._line.setPen(pen(tokens.color("quantized", 0.85), 1.6))
        self._dots.setPen(pen(tokens.panel, 0.8))
        self._dots.setBrush(tokens.color("quantized"))
        self._ring.setPen(pen(tokens.text, 1.4))
        self._star.setPen(pen(tokens.panel, 1.0))
        self._star.setBrush(tokens.color("good"))

    # --- input ---

    def keyPressEvent(self, event: QKeyEvent) -> None:
        count = 0 if self._curve is None else len(self._curve.steps)
        if event.key() in (Qt.Key.Key_Up, Qt.Key.Key_Down) and count:
            step = 1 if event.key() == Qt.Key.Key_Up else -1
            self._point_at(count - 1 if self._pointed is None else (self._pointed + step) % count)
            event.accept()
        else:
            super().keyPressEvent(event)

    def _on_hovered(self, point: tuple[float, float] | None) -> None:
        self._point_at(None if point is None else self._evaluation_at(point))

    def _evaluation_at(self, point: tuple[float, float]) -> int | None:
        curve = self._curve
        width, height = self.view.viewPixelSize()
        if curve is None or not len(curve.steps) or not (width > 0 and height > 0):
            return None
        distances = np.hypot((curve.steps - point[0]) / width, (curve.values - point[1]) / height)
        distances = np.where(np.isfinite(distances), distances, np.inf)
        nearest = int(np.argmin(distances))
        return nearest if distances[nearest] <= _REACH else None

    def _point_at(self, place: int | None) -> None:
        curve, steps, values = self._curve, [], []
        if curve is not None and place is not None and math.isfinite(float(curve.values[place])):
            steps, values = [curve.steps[place]], [curve.values[place]]
        self._ring.setData(steps, values)
        if place != self._pointed:
            self._pointed = place
            self.evaluation_pointed.emit(place)


def _named_line(name: str, position: float) -> Any:
    """Return a level line with its name at `position`, 0 (left) ... 1, on the side that has more room."""
    side = 0.0 if position < 0.5 else 1.0
    options = {"position": position, "movable": False, "anchors": [(side, 0.0), (side, 1.0)]}
    line = pg.InfiniteLine(angle=0, label=name, labelOpts=options)
    line.label.setFont(ui_font(AXIS_PIXELS))
    return line


def smoothed(values: Array) -> Array:
    """Return the run of `values`, (L,): at each place the mean of a few hundredths of them around it.

    >>> smoothed(np.array([1.0, 3.0, 1.0, 3.0])).tolist()
    [2.0, 1.6666666666666667, 2.3333333333333335, 2.0]
    """
    reach = max(1, round(_SMOOTH_SHARE * len(values) / 2))
    sums = np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])
    places = np.arange(len(values))
    first, last = np.maximum(places - reach, 0), np.minimum(places + reach + 1, len(values))
    result: Array = (sums[last] - sums[first]) / (last - first)
    return result


def shown_steps(last: float) -> float:
    """Return where the axis of steps ends: a little behind the last one, so that it moves rarely."""
    return max(rounded_up(last), float(_FEWEST_STEPS))


def _best_line() -> pg.InfiniteLine:
    line = pg.InfiniteLine(angle=90)
    line.hide()
    return line


def _show_best(line: pg.InfiniteLine, best: int | None) -> None:
    line.setVisible(best is not None)
    if best is not None:
        line.setPos(best)
