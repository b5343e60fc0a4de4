"""Where noise is made and what it does: own against inherited noise of each layer, and layers against samples."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyqtgraph as pg
from PySide6.QtCore import QRectF, Qt, Signal
from PySide6.QtGui import QColor, QFontMetricsF, QKeyEvent, QPainterPath
from PySide6.QtWidgets import QWidget

from quantgui.gui.colormap import damage_color
from quantgui.gui.plots.base import NumberAxis, Plot, pen
from quantgui.gui.plots.channels import ChannelPlot
from quantgui.gui.theme import AXIS_PIXELS, Tokens, current, ui_font
from quantgui.results import Array

CHANGED_DB = 0.5
"""A layer that changes the noise in what it reads by less than this neither amplifies nor eases it."""
MOST_DB = 90.0
"""Values above this are drawn here: there the rounding of float32 is not far."""
_SIDE = 0.16
_NAME_WIDTH = 128
_ROW_PIXELS = 13.0
_ABOVE_SHARE = 0.09
"""Height of the row above the layers, in parts of theirs, where those are many."""
_LEVELS = 256
_SMALLEST_MARK, _LARGEST_MARK = 3.5, 9.0
_MARK, _HALO = QColor("#ffffff"), QColor("#14161b")
"""A light cross in a dark one is seen on every colour of a cell."""


@dataclass(frozen=True, slots=True, eq=False)
class NoiseColumns:
    """SQNR of each layer in dB, in the order of the columns; all (L,), NaN or infinite where there is none to show."""

    own: Array
    inherited: Array
    total: Array
    before: Array


class LayerNoisePlot(ChannelPlot):
    """The noise each layer makes beside the noise it inherits; one column per layer, low is noisy.

    The mark of inherited noise is an arrow where the layer amplifies (down) or eases (up) what comes in, with a line
    from the noise in what it reads.
    """

    def __init__(self, name: str, x_label: str, y_label: str, parent: QWidget | None = None) -> None:
        super().__init__(name, x_label, y_label, parent)
        self._stems = pg.PlotDataItem(connect="pairs")
        self._ticks = pg.PlotDataItem(connect="pairs")
        self._own = pg.ScatterPlotItem(symbol="o", size=9)
        self._kept = pg.ScatterPlotItem(symbol="s", size=8)
        self._amplified = pg.ScatterPlotItem(symbol="t", size=10)
        self._eased = pg.ScatterPlotItem(symbol="t1", size=10)
        items = (self._stems, self._ticks, self._kept, self._amplified, self._eased, self._own)
        for depth, item in enumerate(items, 1):
            item.setZValue(depth)
            self.addItem(item)
        self.restyle(current())

    def show_noise(self, columns: NoiseColumns) -> None:
        """Show the noise of the layers."""
        places = np.arange(len(columns.own), dtype=np.float64)
        own, inherited, total, before = (
            np.where(np.isposinf(each), np.nan, np.minimum(each, MOST_DB))
            for each in (columns.own, columns.inherited, columns.total, columns.before)
        )
        # Nothing comes in where the input has no noise; then there is nothing to amplify.
        gain = np.where(np.isfinite(before), inherited - before, 0.0)
        left, right = places - _SIDE, places + _SIDE
        self._own.setData(*_shown(left, own))
        kept = np.abs(gain) < CHANGED_DB
        for item, chosen in (
            (self._kept, kept | np.isnan(gain)),
            (self._amplified, gain <= -CHANGED_DB),
            (self._eased, gain >= CHANGED_DB),
        ):
            item.setData(*_shown(right[chosen], inherited[chosen]))
        moved = np.isfinite(inherited) & np.isfinite(before)
        self._stems.setData(np.repeat(right[moved], 2), np.stack([before[moved], inherited[moved]], 1).ravel())
        known = np.isfinite(total)
        ends = np.stack([places[known] - 2.2 * _SIDE, places[known] + 2.2 * _SIDE], 1).ravel()
        self._ticks.setData(ends, np.repeat(total[known], 2))
        values = np.concatenate([own, inherited, total, before[moved]])
        values = values[np.isfinite(values)]
        low, high = (float(values.min()), float(values.max())) if len(values) else (0.0, 1.0)
        margin = max(0.12 * (high - low), 1.0)
        self.set_places(len(places), low - margin, high + margin)

    def paint_items(self, tokens: Tokens) -> None:
        super().paint_items(tokens)
        edge = pen(tokens.panel, 0.8)
        self._own.setPen(edge)
        self._own.setBrush(tokens.color("quantized"))
        for item in (self._kept, self._amplified, self._eased):
            item.setPen(edge)
            item.setBrush(tokens.color("float_"))
        self._stems.setPen(pen(tokens.color("float_", 0.75), 1.4))
        self._ticks.setPen(pen(tokens.color("text", 0.8), 1.4))


def _shown(x: Array, y: Array) -> tuple[Array, Array]:
    finite = np.isfinite(y)
    return x[finite], y[finite]


class NameAxis(pg.AxisItem):
    """A left axis with a name for each row, as many as there is room for."""

    def __init__(self) -> None:
        super().__init__("left")
        self._names: Sequence[str] = ()
        self._above, self._above_at = "", -1.0
        self.setStyle(
            tickFont=ui_font(AXIS_PIXELS), tickLength=0, autoExpandTextSpace=False, tickTextWidth=_NAME_WIDTH - 12
        )
        self.setWidth(_NAME_WIDTH)
        self._metrics = QFontMetricsF(ui_font(AXIS_PIXELS))

    def set_names(self, names: Sequence[str], above: str = "", above_at: float = -1.0) -> None:
        """Change the names of the rows 0, 1, ..., and of the one above them, whose middle is at `above_at`."""
        self._names, self._above, self._above_at = names, above, above_at
        self.picture = None
        self.update()

    def tickValues(self, low: float, high: float, size: float) -> list[tuple[float, list[float]]]:
        first, last = max(math.ceil(min(low, high)), 0), min(math.floor(max(low, high)), len(self._names) - 1)
        rows = max(abs(high - low), 1.0)
        step = max(1, math.ceil(_ROW_PIXELS * rows / max(size, 1.0)))
        shown = [float(row) for row in range(first, last + 1) if row % step == 0]
        if self._above and min(low, high) <= self._above_at:
            # Above rows too narrow for names its own needs the room of the next one.
            room = _ROW_PIXELS * rows / max(size, 1.0)
            shown = [self._above_at, *(row for row in shown if row - self._above_at >= room)]
        return [(float(step), shown)]

    def tickStrings(self, values: Sequence[float], scale: float, spacing: float) -> list[str]:
        width = _NAME_WIDTH - 14
        elide = Qt.TextElideMode.ElideLeft  # the ends of names tell them apart
        names = [self._above if value < 0 else self._names[round(value)] for value in values]
        return [self._metrics.elidedText(name, elide, width) for name in names]


@dataclass(frozen=True, slots=True, eq=False)
class DamageCells:
    """What the matrix shows: rows are layers, columns samples, in the order in which they are drawn.

    Attributes:
        names: of the rows.
        shares: (R, S), 0 harmless ... 1 worst.
        flips: (R, S), whether the layer alone changes the sample's top class.
        flipped: (S,), whether all layers together do; None where there are no classes.
        together: name of the row that says so.
    """

    names: tuple[str, ...]
    shares: Array
    flips: Array
    flipped: Array | None
    together: str = ""


def _cross() -> QPainterPath:
    path = QPainterPath()
    for slope in (-1, 1):
        path.moveTo(-0.5, -0.5 * slope)
        path.lineTo(0.5, 0.5 * slope)
    return path


class DamagePlot(Plot):
    """Layers against samples: the more a layer hurts a sample, the more its cell stands out; a cross is a flip.

    Above the layers stands a row for what all of them together do, where outputs are classes.

    Signals:
        cell_hovered: row and column of the cell below the pointer or the keyboard's mark, None when it has left; the
            row above the layers is -1.
        cell_clicked: row and column that were clicked, or chosen with the enter key.
    """

    cell_hovered = Signal(object)
    cell_clicked = Signal(int, int)

    def __init__(self, name: str, x_label: str, parent: QWidget | None = None) -> None:
        self._names = NameAxis()
        super().__init__(name, x_label, "", parent, x_axis=NumberAxis("bottom"), y_axis=self._names)
        self._cells: DamageCells | None = None
        self._cell: tuple[int, int] | None = None
        self._height = 0.0
        self._picked_row: int | None = None
        self._image = pg.ImageItem(axisOrder="row-major")
        self._halos, self._flips = (pg.ScatterPlotItem(symbol=_cross(), brush=None) for _ in range(2))
        self._ground = pg.ImageItem(axisOrder="row-major")
        self._row = pg.PlotCurveItem()
        self._cursor = pg.PlotCurveItem()
        for depth, item in enumerate((self._ground, self._image, self._halos, self._flips, self._row, self._cursor), 1):
            item.setZValue(depth)
            self.addItem(item)
        self.view.invertY(True)
        # Of many layers as of many samples a part is seen better.
        self.view.setMouseEnabled(x=True, y=True)
        self.hovered.connect(self._on_hovered)
        self.clicked.connect(self._on_cell_clicked)
        self.view.sigRangeChanged.connect(self._on_range_changed)
        self.restyle(current())

    def show_cells(self, cells: DamageCells, *, keep_zoom: bool = False) -> None:
        """Show the matrix."""
        self._cells = cells
        rows, columns = cells.shares.shape
        self._height = max(1.0, _ABOVE_SHARE * rows) if cells.flipped is not None else 0.0
        top = -0.5 - self._height
        self._image.setVisible(rows > 0)
        if rows:
            self._image.setImage(np.asarray(cells.shares, np.float32), autoLevels=False, levels=(0.0, 1.0))
            self._image.setRect(QRectF(-0.5, -0.5, columns, rows))
        self._ground.setVisible(cells.flipped is not None)
        self._ground.setImage(np.zeros((1, max(columns, 1)), np.float32), autoLevels=False, levels=(0.0, 1.0))
        self._ground.setRect(QRectF(-0.5, top, columns, max(self._height, 1.0)))
        above = cells.together if cells.flipped is not None else ""
        self._names.set_names(cells.names, above, -0.5 - self._height / 2)
        self.set_home(-0.5, columns - 0.5, top, rows - 0.5, keep_zoom=keep_zoom)
        self.view.setLimits(yMin=top, yMax=rows - 0.5)
        self._draw_flips()
        if self._cell is not None and (self._cell[0] >= rows or self._cell[1] >= columns):
            self._cell = None
        self._draw_cursor()
        self.mark_row(self._picked_row)

    def mark_row(self, row: int | None) -> None:
        """Frame the row of a layer; None frames none."""
        self._picked_row = row
        shown = row is not None and self._cells is not None and row < len(self._cells.names)
        self._row.setVisible(shown)
        if shown and self._cells is not None and row is not None:
            left, right = -0.5, self._cells.shares.shape[1] - 0.5
            self._row.setData([left, right, right, left, left], [row + d for d in (-0.5, -0.5, 0.5, 0.5, -0.5)])

    def mark_cell(self, cell: tuple[int, int] | None) -> None:
        """Frame a cell; None frames none."""
        self._cell = cell
        self._draw_cursor()

    def marked(self) -> tuple[int, int] | None:
        """Return the framed cell."""
        return self._cell

    def paint_items(self, tokens: Tokens) -> None:
        colors = [damage_color(i / (_LEVELS - 1), on_dark=tokens.is_dark) for i in range(_LEVELS)]
        table = np.array([[c.red(), c.green(), c.blue()] for c in colors], np.uint8)
        self._image.setLookupTable(table)
        ground = tokens.color("text", 0.07)
        self._ground.setLookupTable(
            np.array([[ground.red(), ground.green(), ground.blue(), ground.alpha()]] * 2, np.uint8)
        )
        self._halos.setPen(pen(_HALO, 2.8))
        self._flips.setPen(pen(_MARK, 1.3))
        self._row.setPen(pen(tokens.accent, 1.4))
        self._cursor.setPen(pen(tokens.text, 2.0))

    def _on_range_changed(self, *_: object) -> None:
        if self._cells is not None:
            self._draw_flips()

    def _draw_flips(self) -> None:
        assert self._cells is not None
        rows, columns = np.nonzero(self._cells.flips)
        if self._cells.flipped is not None:
            above = np.flatnonzero(self._cells.flipped)
            rows = np.concatenate([rows, np.full(len(above), -0.5 - self._height / 2)])
            columns = np.concatenate([columns, above])
        width, height = (1.0 / max(size, 1e-9) for size in self.view.viewPixelSize())
        size = min(max(0.7 * min(width, height) - 1.0, _SMALLEST_MARK), _LARGEST_MARK)
        for marks in (self._halos, self._flips):
            marks.setData(columns.astype(float), rows.astype(float), size=size)

    def _draw_cursor(self) -> None:
        self._cursor.setVisible(self._cell is not None)
        if self._cell is not None:
            row, column = self._cell
            top, bottom = (row - 0.5, row + 0.5) if row >= 0 else (-0.5 - self._height, -0.5)
            self._cursor.setData([column + d for d in (-0.5, 0.5, 0.5, -0.5, -0.5)], [top, top, bottom, bottom, top])

    # --- input ---

    def zoom(self, factor: float) -> None:
        """Show `factor` times fewer samples and layers."""
        self.view.scaleBy((1 / factor, 1 / factor))

    def keyPressEvent(self, event: QKeyEvent) -> None:
        steps = {
            Qt.Key.Key_Left.value: (0, -1),
            Qt.Key.Key_Right.value: (0, 1),
            Qt.Key.Key_Up.value: (-1, 0),
            Qt.Key.Key_Down.value: (1, 0),
        }
        if event.key() in steps and self._cells is not None and self._cells.shares.size:
            rows, columns = self._cells.shares.shape
            row, column = self._cell or (0, 0)
            if self._cell is not None:
                row, column = row + steps[event.key()][0], column + steps[event.key()][1]
            first = -1 if self._cells.flipped is not None else 0
            self.cell_hovered.emit((min(max(row, first), rows - 1), min(max(column, 0), columns - 1)))
            event.accept()
        elif event.key() in (Qt.Key.Key_Return.value, Qt.Key.Key_Enter.value) and self._cell is not None:
            self.cell_clicked.emit(*self._cell)
            event.accept()
        else:
            super().keyPressEvent(event)

    def _place(self, point: tuple[float, float] | None) -> tuple[int, int] | None:
        if point is None or self._cells is None:
            return None
        row, column = (round(point[1]) if point[1] >= -0.5 else -1), round(point[0])
        if point[1] < -0.5 - self._height:
            return None
        rows, columns = self._cells.shares.shape
        first = -1 if self._cells.flipped is not None else 0
        return (row, column) if first <= row < rows and 0 <= column < columns else None

    def _on_hovered(self, point: tuple[float, float] | None) -> None:
        self.cell_hovered.emit(self._place(point))

    def _on_cell_clicked(self, point: tuple[float, float]) -> None:
        place = self._place(point)
        if place is not None:
            self.cell_clicked.emit(*place)
