"""A picture that fills the room it has."""

from __future__ import annotations

from PySide6.QtCore import QRect, QRectF, QSize, Qt
from PySide6.QtGui import QImage, QPainter, QPaintEvent
from PySide6.QtWidgets import QSizePolicy, QWidget

from quantgui.gui.theme import current, theme_events
from quantgui.results import Array

_ENLARGED = 2.0
"""From this enlargement on single pixels are drawn as squares: they are what the network sees."""


class PictureView(QWidget):
    """Pixels, as large as they fit; their proportions are kept unless they mean nothing."""

    def __init__(self, name: str, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setAccessibleName(name)
        self.setMinimumSize(64, 64)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Expanding)
        self._image = QImage()
        self._keeps_proportions = True
        theme_events().changed.connect(self._on_theme_changed)

    def show_pixels(self, pixels: Array, *, keep_proportions: bool = True) -> None:
        """Show (H, W, 3) uint8."""
        height, width, _ = pixels.shape
        # A copy, as the image does not hold the array.
        self._image = QImage(pixels.tobytes(), width, height, 3 * width, QImage.Format.Format_RGB888).copy()
        self._keeps_proportions = keep_proportions
        self.update()

    def image(self) -> QImage:
        """Return what is shown."""
        return self._image

    def sizeHint(self) -> QSize:
        return QSize(150, 150)

    def place(self) -> QRect:
        """Return where the picture is drawn."""
        room = self.rect().adjusted(1, 1, -1, -1)
        if self._image.isNull() or not self._keeps_proportions:
            return room
        size = self._image.size().scaled(room.size(), Qt.AspectRatioMode.KeepAspectRatio)
        place = QRect(room.topLeft(), size)
        place.moveCenter(room.center())
        return place

    def paintEvent(self, event: QPaintEvent) -> None:
        if self._image.isNull():
            return
        place = self.place()
        painter = QPainter(self)
        enlarged = place.width() >= _ENLARGED * self._image.width()
        painter.setRenderHint(QPainter.RenderHint.SmoothPixmapTransform, not enlarged)
        painter.drawImage(QRectF(place), self._image)
        painter.setPen(current().color("border"))
        painter.drawRect(place.adjusted(-1, -1, 0, 0))
        painter.end()

    def _on_theme_changed(self, _tokens: object) -> None:
        self.update()
