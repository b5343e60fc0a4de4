"""What the cells of the heat map mean: the scale of damage, guesses, the present format."""

from __future__ import annotations

import math

from PySide6.QtCore import QRectF, QSize, Qt
from PySide6.QtGui import QLinearGradient, QPainter, QPaintEvent
from PySide6.QtWidgets import QSizePolicy, QWidget

from quantgui.gui.colormap import damage_color
from quantgui.gui.damage import DamageScale
from quantgui.gui.models.heat_map import draw_cell, draw_frame
from quantgui.gui.models.sensitivity import Cell
from quantgui.gui.quality import metric_name
from quantgui.gui.theme import SMALL_PIXELS, current, theme_events, ui_font

_BAR, _SWATCH = QSize(68, 10), QSize(22, 14)
_GAP, _WIDE_GAP = 6, 14


class DamageLegend(QWidget):
    """The scale with its ends and direction, and samples of what else a cell can look like."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setFont(ui_font(SMALL_PIXELS))
        self._scale: DamageScale | None = None
        self._guesses = False
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        theme_events().changed.connect(self._on_theme_changed)

    def show_scale(self, scale: DamageScale | None, *, guesses: bool) -> None:
        """Show a scale (None before anything is measured), and whether some cells are guesses."""
        if (scale, guesses) == (self._scale, self._guesses):
            return
        self._scale, self._guesses = scale, guesses
        words = [self.tr("Framed: the layer's present format.")]
        if scale is not None:
            low, high = scale.texts()
            words.insert(
                0,
                self.tr("Colour: {metric} from {low} (hurts least) to {high} (hurts most).").format(
                    metric=metric_name(scale.metric), low=low, high=high
                ),
            )
        if guesses:
            words.append(self.tr("Hatched: not measured yet; the number is the SQNR of the weights in dB."))
        words.append(self.tr("~: the place of the layer in its column is not certain."))
        self.setToolTip("\n".join(words))
        self.setAccessibleName(" ".join(words))
        self.update()

    def sizeHint(self) -> QSize:
        return QSize(300, max(20, self.fontMetrics().height() + 4))

    def minimumSizeHint(self) -> QSize:
        return QSize(120, self.sizeHint().height())

    def paintEvent(self, event: QPaintEvent) -> None:
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        x = self._draw_scale(painter, 0) if self._scale is not None else 0
        if self._guesses:
            guess = Cell("", 0.6, True, False, False)
            x = self._draw_sample(painter, x, guess, self.tr("guess"))
        x = self._draw_sample(painter, x, Cell("", math.nan, True, True, False), self.tr("present"))
        uncertain = self.tr("~ not certain")
        if x + self.fontMetrics().horizontalAdvance(uncertain) <= self.width():
            self._draw_text(painter, x, uncertain)
        painter.end()

    def _draw_scale(self, painter: QPainter, x: int) -> int:
        scale = self._scale
        assert scale is not None
        low, high = scale.texts()
        x = self._draw_text(painter, x, metric_name(scale.metric)) + _GAP
        x = self._draw_text(painter, x, low) + _GAP
        bar = QRectF(x, (self.height() - _BAR.height()) / 2, _BAR.width(), _BAR.height())
        gradient = QLinearGradient(bar.topLeft(), bar.topRight())
        on_dark = current().is_dark
        for step in range(11):
            gradient.setColorAt(step / 10, damage_color(step / 10, on_dark=on_dark))
        painter.setBrush(gradient)
        painter.setPen(current().color("border"))
        painter.drawRoundedRect(bar, 2, 2)
        x = self._draw_text(painter, x + _BAR.width() + _GAP, high)
        return self._draw_text(painter, x + _GAP, self.tr("hurts most")) + _WIDE_GAP

    def _draw_sample(self, painter: QPainter, x: int, cell: Cell, text: str) -> int:
        width = _SWATCH.width() + _GAP + self.fontMetrics().horizontalAdvance(text)
        if x + width > self.width():
            return x
        rect = QRectF(x, (self.height() - _SWATCH.height()) / 2, _SWATCH.width(), _SWATCH.height())
        tokens = current()
        if not math.isnan(cell.share):
            draw_cell(painter, rect, cell, tokens)
        if cell.present:
            draw_frame(painter, rect, tokens)
        return self._draw_text(painter, x + _SWATCH.width() + _GAP, text) + _WIDE_GAP

    def _draw_text(self, painter: QPainter, x: int, text: str) -> int:
        painter.setPen(current().color("muted"))
        painter.drawText(x, 0, self.width() - x, self.height(), int(Qt.AlignmentFlag.AlignVCenter), text)
        return x + self.fontMetrics().horizontalAdvance(text)

    def _on_theme_changed(self, _tokens: object) -> None:
        self.update()
