"""The scale of a colour map with its ends."""

from __future__ import annotations

from collections.abc import Callable

from PySide6.QtCore import QRectF, QSize, Qt
from PySide6.QtGui import QColor, QLinearGradient, QPainter, QPaintEvent
from PySide6.QtWidgets import QSizePolicy, QWidget

from quantgui.gui.colormap import color_of
from quantgui.gui.theme import SMALL_PIXELS, current, theme_events, ui_font

_BAR = QSize(90, 9)


class ColorLegend(QWidget):
    """What is coloured, and a bar from the smallest to the largest value."""

    def __init__(self, parent: QWidget | None = None, *, colors: Callable[[float], QColor] = color_of) -> None:
        super().__init__(parent)
        self._colors = colors
        self.setFont(ui_font(SMALL_PIXELS))
        self._label, self._low, self._high = "", "", ""
        self.setSizePolicy(QSizePolicy.Policy.Fixed, QSizePolicy.Policy.Fixed)
        theme_events().changed.connect(self._on_theme_changed)

    def show_scale(self, label: str, low: str, high: str) -> None:
        """Show what the colours mean and the values at both ends."""
        self._label, self._low, self._high = label, low, high
        self.setAccessibleName(self.tr("Colour: {label}, {low} to {high}").format(label=label, low=low, high=high))
        self.setToolTip(self.accessibleName())
        self.updateGeometry()
        self.update()

    def sizeHint(self) -> QSize:
        metrics = self.fontMetrics()
        texts = sum(metrics.horizontalAdvance(text) for text in (self._label, self._low, self._high))
        return QSize(texts + _BAR.width() + 28, max(18, metrics.height() + 2))

    def paintEvent(self, event: QPaintEvent) -> None:
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setPen(current().color("muted"))
        metrics = self.fontMetrics()
        x = 0
        for text in (self._label, self._low):
            painter.drawText(x, 0, self.width() - x, self.height(), int(Qt.AlignmentFlag.AlignVCenter), text)
            x += metrics.horizontalAdvance(text) + 8
        bar = QRectF(x, (self.height() - _BAR.height()) / 2, _BAR.width(), _BAR.height())
        gradient = QLinearGradient(bar.topLeft(), bar.topRight())
        for step in range(11):
            gradient.setColorAt(step / 10, self._colors(step / 10))
        painter.setBrush(gradient)
        painter.setPen(current().color("border"))
        painter.drawRoundedRect(bar, 2, 2)
        painter.setPen(current().color("muted"))
        x += _BAR.width() + 8
        painter.drawText(x, 0, self.width() - x, self.height(), int(Qt.AlignmentFlag.AlignVCenter), self._high)
        painter.end()

    def _on_theme_changed(self, _tokens: object) -> None:
        self.update()
