"""Quality against size: every configuration tried, the frontier of a mix as predicted and as measured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyqtgraph as pg
from PySide6.QtCore import QPoint, QPointF, Qt, Signal
from PySide6.QtGui import QContextMenuEvent, QKeyEvent, QMouseEvent
from PySide6.QtWidgets import QApplication, QWidget

from quantgui.gui.plots.base import Plot, error_bars, pen, show_error_bars
from quantgui.gui.theme import AXIS_PIXELS, Tokens, current, ui_font
from quantgui.results import Array

_LEFT = 64
"""Pixels of width for the numbers of the left axis and its label."""
_REACH = 12.0
"""Pixels around a point within which the pointer means it."""
_LINE_REACH = 9.0
"""Pixels around the frontier within which it can be held."""
_FEW_POINTS = 60
"""Points of a frontier that are marked one by one."""

LimitSide = Literal["cost", "quality"]


@dataclass(frozen=True, eq=False, slots=True)
class Points:
    """Configurations that have been evaluated, (P,) each: costs and values in the axes' units, standard errors."""

    costs: Array
    values: Array
    stderrs: Array

    @classmethod
    def none(cls) -> Points:
        """Return no points."""
        return cls(np.zeros(0), np.zeros(0), np.zeros(0))


@dataclass(frozen=True, eq=False, slots=True)
class Frontier:
    """Points of rising cost, (P,) each; NaN where a value is not known or not finite."""

    costs: Array
    predicted: Array
    measured: Array
    stderrs: Array

    @classmethod
    def none(cls) -> Frontier:
        """Return no points."""
        return cls(np.zeros(0), np.zeros(0), np.zeros(0), np.zeros(0))

    def __len__(self) -> int:
        return len(self.costs)

    @property
    def values(self) -> Array:
        """What is known best of each point."""
        return np.where(np.isfinite(self.measured), self.measured, self.predicted)


@dataclass(frozen=True, slots=True)
class Spot:
    """Something in the plot that can be pointed at: a configuration tried, or a point of the frontier."""

    kind: Literal["tried", "frontier"]
    index: int


class TradeOffPlot(Plot):
    """Points with error bars, the frontier as a line to be dragged along, the present configuration as a star.

    Signals:
        spot_hovered: the `Spot` below the pointer or the keyboard's mark, or None.
        spot_clicked: the `Spot` that was clicked, or chosen with the enter key.
        menu_requested: the `Spot` at the pointer or None, and where the menu is to appear on the screen.
        pin_keyed: ``A`` or ``B``: the key was pressed, for the marked spot or the present configuration.
        frontier_dragged: index of the frontier's point under the hand.
        frontier_released: the hand has let go.
        limit_dragged: where the limit has been dragged to, in the unit of its axis.
        limit_released: the hand has let go of the limit.
    """

    spot_hovered = Signal(object)
    spot_clicked = Signal(object)
    menu_requested = Signal(object, object)
    pin_keyed = Signal(str)
    frontier_dragged = Signal(int)
    frontier_released = Signal()
    limit_dragged = Signal(float)
    limit_released = Signal()

    def __init__(self, name: str, x_label: str, y_label: str, parent: QWidget | None = None) -> None:
        super().__init__(name, x_label, y_label, parent)
        self._tried = Points.none()
        self._frontier = Frontier.none()
        self._marked: Spot | None = None
        self._grabbed: QPointF | None = None
        self._dragging = False
        self._ignores_click = False
        self._limit_side: LimitSide | None = None
        self._hollow = False
        # Percents and decibels with their units are wider than what other plots say there.
        self.getAxis("left").setWidth(_LEFT)
        self.getAxis("left").setStyle(tickTextWidth=_LEFT - 20)
        self._make_items()
        self.view.setMouseEnabled(x=True, y=False)
        self.plotItem.showGrid(x=False, y=True, alpha=0.12)
        self.hovered.connect(self._on_hovered)
        self.clicked.connect(self._on_clicked_at)
        self.restyle(current())

    def _make_items(self) -> None:
        self._bars = error_bars()
        self._front = pg.PlotDataItem()
        self._dots = pg.ScatterPlotItem(size=7, pxMode=True)
        self._best = pg.ScatterPlotItem(size=8, pxMode=True)
        self._line = pg.PlotDataItem()
        self._steps = pg.ScatterPlotItem(size=4, pxMode=True)
        self._misses = pg.PlotDataItem(connect="pairs")
        self._measured_bars = error_bars()
        self._measured = pg.ScatterPlotItem(size=8, symbol="s", pxMode=True)
        self._present_line = pg.InfiniteLine(angle=90)
        self._chosen = pg.ScatterPlotItem(size=17, symbol="d", pxMode=True)
        self._ring = pg.ScatterPlotItem(size=16, pxMode=True)
        self._star = pg.ScatterPlotItem(size=17, symbol="star", pxMode=True)
        items = (
            *(self._bars, self._front, self._dots, self._best, self._line, self._steps, self._misses),
            *(self._measured_bars, self._measured, self._present_line, self._chosen, self._ring, self._star),
        )
        for depth, item in enumerate(items, 1):
            item.setZValue(depth)
            self.addItem(item)
        self._pins = {side: _PinLabel(side) for side in ("A", "B")}
        for pin in self._pins.values():
            self.addItem(pin, ignoreBounds=True)
        self._limits = {"cost": _limit_line(90), "quality": _limit_line(0)}
        for line in self._limits.values():
            self.addItem(line, ignoreBounds=True)
            line.hide()
            line.sigDragged.connect(self._on_limit_dragged)
            line.sigPositionChangeFinished.connect(self._on_limit_released)
        self._present_line.hide()

    # --- in ------------------------------------------------------------------------------------------------------

    def show_points(self, tried: Points, front: Array, frontier: Frontier) -> None:
        """Show what has been tried, and the frontier.

        Args:
            tried: the configurations; all finite.
            front: indices of those no cheaper one beats, cheapest first; they are joined where there is no frontier.
            frontier: the frontier of a mix, or none.
        """
        self._tried, self._frontier = tried, frontier
        self.mark(None)
        best = front if not len(frontier) else np.zeros(0, np.intp)
        plain = np.ones(len(tried.costs), bool)
        plain[best] = False
        self._dots.setData(tried.costs[plain], tried.values[plain])
        self._best.setData(tried.costs[best], tried.values[best])
        self._front.setData(tried.costs[best], tried.values[best])
        show_error_bars(self._bars, tried.costs, tried.values, tried.stderrs)
        self._show_frontier(frontier)
        self._fit()

    def _show_frontier(self, frontier: Frontier) -> None:
        known = np.isfinite(frontier.predicted)
        self._line.setData(frontier.costs[known], frontier.predicted[known])
        few = known if known.sum() <= _FEW_POINTS else np.zeros(len(known), bool)
        self._steps.setData(frontier.costs[few], frontier.predicted[few])
        seen = np.isfinite(frontier.measured)
        costs, values = frontier.costs[seen], frontier.measured[seen]
        self._measured.setData(costs, values)
        show_error_bars(self._measured_bars, costs, values, frontier.stderrs[seen])
        both = seen & known
        ends = np.column_stack([frontier.predicted[both], frontier.measured[both]]).ravel()
        self._misses.setData(np.repeat(frontier.costs[both], 2), ends)

    def show_present(self, cost: float | None, value: float | None, *, measured: bool) -> None:
        """Show where the present configuration lies; only its cost where its value is not known."""
        self._present_line.setVisible(cost is not None and value is None)
        if cost is not None:
            self._present_line.setValue(cost)
        if cost is None or value is None:
            self._star.setData([], [])
            return
        if measured == self._hollow:
            self._hollow = not measured
            self._paint_star(current())
        self._star.setData([cost], [value])

    def show_chosen(self, cost: float | None, value: float | None) -> None:
        """Mark the answer to the limit."""
        empty = cost is None or value is None
        self._chosen.setData([] if empty else [cost], [] if empty else [value])

    def show_pin(self, side: str, cost: float | None, value: float | None) -> None:
        """Write A or B beside a configuration."""
        pin = self._pins[side]
        pin.setVisible(cost is not None and value is not None)
        if cost is not None and value is not None:
            pin.setPos(cost, value)

    def show_limit(self, side: LimitSide | None, value: float = 0.0, text: str = "") -> None:
        """Show the limit as a line that can be dragged; none without `side`."""
        self._limit_side = side
        for name, line in self._limits.items():
            line.setVisible(name == side)
        if side is not None:
            line = self._limits[side]
            self._label_limit(line, value, text)
            if not line.moving:
                line.blockSignals(True)
                line.setValue(value)
                line.blockSignals(False)

    def _label_limit(self, line: Any, value: float, text: str) -> None:
        low, high = self.view.viewRange()[0]
        if line is self._limits["cost"]:
            # On the side where there is more room.
            anchor = (1.0, 0.5) if value > (low + high) / 2 else (0.0, 0.5)
        else:
            anchor = (0.0, 1.0)
        line.label.anchors = [anchor, anchor]
        line.label.setAnchor(anchor)
        line.label.setFormat(text.replace("{", "{{").replace("}", "}}"))

    def mark(self, spot: Spot | None) -> None:
        """Draw a ring around a spot."""
        self._marked = spot
        if spot is None:
            self._ring.setData([], [])
        else:
            x, y = self._place(spot)
            self._ring.setData([x], [y])

    @property
    def marked(self) -> Spot | None:
        """The spot with the ring."""
        return self._marked

    def spot_at(self, x: float, y: float) -> Spot | None:
        """Return the spot nearest to a place in the plot, None if none is near; tried ones first."""
        spots = self._spots()
        if not spots:
            return None
        xs, ys = np.array([self._place(spot) for spot in spots]).T
        width, height = self.view.viewPixelSize()
        distance = np.hypot((xs - x) / width, (ys - y) / height)
        nearest = int(np.argmin(distance))
        return spots[nearest] if distance[nearest] <= _REACH else None

    def _spots(self) -> list[Spot]:
        tried = [Spot("tried", index) for index in range(len(self._tried.costs))]
        seen = np.flatnonzero(np.isfinite(self._frontier.measured))
        few = len(self._frontier) <= _FEW_POINTS
        known = np.flatnonzero(np.isfinite(self._frontier.values)) if few else seen
        return tried + [Spot("frontier", int(index)) for index in known]

    def _place(self, spot: Spot) -> tuple[float, float]:
        if spot.kind == "tried":
            return float(self._tried.costs[spot.index]), float(self._tried.values[spot.index])
        return float(self._frontier.costs[spot.index]), float(self._frontier.values[spot.index])

    def _fit(self) -> None:
        tried, frontier = self._tried, self._frontier
        spread = np.nan_to_num(frontier.stderrs)
        known = np.concatenate([frontier.predicted, frontier.measured])
        lows = np.concatenate([tried.values - tried.stderrs, frontier.predicted, frontier.measured - spread])
        highs = np.concatenate([tried.values + tried.stderrs, frontier.predicted, frontier.measured + spread])
        costs = np.concatenate([tried.costs, frontier.costs])
        if not len(costs) or not (len(tried.values) or np.isfinite(known).any()):
            return
        bottom, top = float(np.nanmin(lows)), float(np.nanmax(highs))
        y_margin = 0.1 * (top - bottom) or abs(top) * 0.05 or 0.5
        left, right = float(costs.min()), float(costs.max())
        x_margin = 0.06 * (right - left) or abs(right) * 0.1 or 0.5
        low, high = self.within_meaning("left", bottom - y_margin, top + y_margin)
        home = (max(left - x_margin, 0.0), right + x_margin, low, high)
        self.set_home(*home, keep_zoom=True)
        self._limits["cost"].setBounds((home[0], home[1]))
        self._limits["quality"].setBounds((home[2], home[3]))

    # --- look ----------------------------------------------------------------------------------------------------

    def paint_items(self, tokens: Tokens) -> None:
        nothing = pg.mkPen(None)
        self._bars.setOpts(pen=pen(tokens.color("muted", 0.6)))
        self._front.setPen(pen(tokens.float_, 1.4))
        self._dots.setPen(nothing)
        self._dots.setBrush(tokens.color("muted", 0.75))
        self._best.setPen(pen(tokens.panel))
        self._best.setBrush(tokens.color("float_"))
        self._line.setPen(pen(tokens.float_, 1.6))
        self._steps.setPen(nothing)
        self._steps.setBrush(tokens.color("float_"))
        self._misses.setPen(pen(tokens.color("muted", 0.8), 1.0, Qt.PenStyle.DotLine))
        self._measured_bars.setOpts(pen=pen(tokens.color("text", 0.8)))
        self._measured.setPen(pen(tokens.panel))
        self._measured.setBrush(tokens.color("text"))
        self._chosen.setPen(pen(tokens.good, 2.0))
        self._chosen.setBrush(tokens.color("good", 0.25))
        self._ring.setPen(pen(tokens.text, 1.4))
        self._ring.setBrush(pg.mkBrush(None))
        self._present_line.setPen(pen(tokens.color("quantized", 0.8), 1.2, Qt.PenStyle.DashLine))
        for line in self._limits.values():
            line.setPen(pen(tokens.accent, 1.4, Qt.PenStyle.DashLine))
            line.setHoverPen(pen(tokens.accent, 2.4))
            line.label.setColor(tokens.accent)
            line.label.fill = pg.mkBrush(tokens.color("panel", 0.8))
        for pin in self._pins.values():
            pin.setColor(tokens.text)
            pin.fill = pg.mkBrush(tokens.color("raised"))
            pin.border = pen(tokens.border)
            pin.update()
        self._paint_star(tokens)

    def _paint_star(self, tokens: Tokens) -> None:
        self._star.setPen(pen(tokens.quantized if self._hollow else tokens.panel, 1.6 if self._hollow else 1.0))
        self._star.setBrush(tokens.color("panel") if self._hollow else tokens.color("quantized"))

    # --- input ---------------------------------------------------------------------------------------------------

    def keyPressEvent(self, event: QKeyEvent) -> None:
        steps = {Qt.Key.Key_Left.value: -1, Qt.Key.Key_Right.value: 1}
        plain = event.modifiers() in (Qt.KeyboardModifier.NoModifier, Qt.KeyboardModifier.KeypadModifier)
        if event.key() in steps and not self.is_zoomed() and (spots := self._spots()):
            spots.sort(key=self._place)
            place = -1 if self._marked is None else spots.index(self._marked)
            self.spot_hovered.emit(spots[min(max(place + steps[event.key()], 0), len(spots) - 1)])
            event.accept()
        elif event.key() in (Qt.Key.Key_Return.value, Qt.Key.Key_Enter.value) and self._marked is not None:
            self.spot_clicked.emit(self._marked)
            event.accept()
        elif plain and event.key() in (Qt.Key.Key_A.value, Qt.Key.Key_B.value):
            self.pin_keyed.emit("A" if event.key() == Qt.Key.Key_A.value else "B")
            event.accept()
        else:
            super().keyPressEvent(event)

    def contextMenuEvent(self, event: QContextMenuEvent) -> None:
        if event.reason() == QContextMenuEvent.Reason.Keyboard:
            self.menu_requested.emit(self._marked, self.mapToGlobal(self.rect().center()))
        else:
            point = self._in_plot(QPointF(event.pos()))
            self.menu_requested.emit(self.spot_at(point.x(), point.y()), event.globalPos())
        event.accept()

    def mousePressEvent(self, event: QMouseEvent) -> None:
        self._grabbed = None
        left = event.button() == Qt.MouseButton.LeftButton
        if left and self._is_on_frontier(event.position()) and not self._is_on_limit(event.position()):
            self._grabbed = event.position()
        super().mousePressEvent(event)

    def mouseMoveEvent(self, event: QMouseEvent) -> None:
        if self._grabbed is None or not event.buttons() & Qt.MouseButton.LeftButton:
            super().mouseMoveEvent(event)
            return
        distance = (event.position() - self._grabbed).manhattanLength()
        if not self._dragging and distance < QApplication.startDragDistance() / 2:
            return
        self._dragging = True
        self.viewport().setCursor(Qt.CursorShape.ClosedHandCursor)
        x = self._in_plot(event.position()).x()
        self.frontier_dragged.emit(int(np.argmin(np.abs(self._frontier.costs - x))))

    def mouseReleaseEvent(self, event: QMouseEvent) -> None:
        dragged, self._dragging, self._grabbed = self._dragging, False, None
        self._ignores_click = dragged
        super().mouseReleaseEvent(event)
        self._ignores_click = False
        if dragged:
            self.viewport().unsetCursor()
            self.frontier_released.emit()

    def _in_plot(self, position: QPointF) -> QPointF:
        point: QPointF = self.view.mapSceneToView(self.mapToScene(QPoint(round(position.x()), round(position.y()))))
        return point

    def _is_on_frontier(self, position: QPointF) -> bool:
        known = np.isfinite(self._frontier.predicted)
        if known.sum() < 2:
            return False
        point = self._in_plot(position)
        width, height = self.view.viewPixelSize()
        xs = (self._frontier.costs[known] - point.x()) / width
        ys = (self._frontier.predicted[known] - point.y()) / height
        return bool(_distance_to_line(xs, ys) <= _LINE_REACH) or self._is_on_star(point)

    def _is_on_star(self, point: QPointF) -> bool:
        xs, ys = self._star.getData()
        width, height = self.view.viewPixelSize()
        return len(xs) > 0 and bool(np.hypot((xs[0] - point.x()) / width, (ys[0] - point.y()) / height) <= _REACH)

    def _is_on_limit(self, position: QPointF) -> bool:
        if self._limit_side is None:
            return False
        point, value = self._in_plot(position), self._limits[self._limit_side].value()
        width, height = self.view.viewPixelSize()
        distance = (point.x() - value) / width if self._limit_side == "cost" else (point.y() - value) / height
        return bool(abs(distance) <= _LINE_REACH / 2)

    def _on_hovered(self, point: Any) -> None:
        self.spot_hovered.emit(None if point is None else self.spot_at(*point))

    def _on_clicked_at(self, point: tuple[float, float]) -> None:
        spot = None if self._ignores_click else self.spot_at(*point)
        if spot is not None:
            self.spot_clicked.emit(spot)

    def _on_limit_dragged(self, line: Any) -> None:
        self.limit_dragged.emit(float(line.value()))

    def _on_limit_released(self, _: object) -> None:
        self.limit_released.emit()


class _PinLabel(pg.TextItem):
    """The letter of a pinned configuration, above it to the right."""

    def __init__(self, side: str) -> None:
        super().__init__(side, anchor=(-0.35, 1.1))
        self.setFont(ui_font(AXIS_PIXELS))
        self.setZValue(20)
        self.hide()


def _limit_line(angle: int) -> Any:
    label = {"position": 0.1 if angle else 0.06, "movable": False, "rotateAxis": None}
    line = pg.InfiniteLine(angle=angle, movable=True, label="", labelOpts=label)
    line.label.setFont(ui_font(AXIS_PIXELS))
    line.setZValue(15)
    return line


def _distance_to_line(xs: Array, ys: Array) -> float:
    """Return how far the origin is from the line through the points."""
    x0, y0, x1, y1 = xs[:-1], ys[:-1], xs[1:], ys[1:]
    dx, dy = x1 - x0, y1 - y0
    length = np.maximum(dx * dx + dy * dy, 1e-12)
    along = np.clip(-(x0 * dx + y0 * dy) / length, 0.0, 1.0)
    return float(np.hypot(x0 + along * dx, y0 + along * dy).min())
