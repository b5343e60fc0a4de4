"""Tabs that stay as they are while something inside them is laid out."""

from __future__ import annotations

from PySide6.QtCore import QEvent, QSize
from PySide6.QtWidgets import QTabWidget


class Tabs(QTabWidget):
    """A QTabWidget that lays itself out anew only where its size changes.

    Qt's does so, and paints all that is inside, whenever anything inside asks for a layout: a number that gets one more
    digit would draw every plot a second time.
    """

    def __init__(self) -> None:
        super().__init__()
        self._hints: tuple[QSize, QSize] | None = None

    def event(self, event: QEvent) -> bool:
        if event.type() == QEvent.Type.LayoutRequest:
            hints = self.minimumSizeHint(), self.tabBar().sizeHint()
            if hints == self._hints:
                return True
            self._hints = hints
        return super().event(event)
