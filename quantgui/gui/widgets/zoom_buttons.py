"""Buttons beside a plot or drawing: closer, farther, everything."""

from __future__ import annotations

from PySide6.QtCore import Signal
from PySide6.QtWidgets import QHBoxLayout, QToolButton, QWidget

from quantgui.gui.icons import set_icon

_STEP = 1.6


class ZoomButtons(QWidget):
    """Three small buttons.

    Signals:
        zoomed: the factor, above 1 for closer.
        reset: everything is to be seen.
    """

    zoomed = Signal(float)
    reset = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        layout = QHBoxLayout(self)
        self._row = layout
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(2)
        self.closer = self._add("zoom-in", self.tr("Zoom in"), self.tr("Show less, larger (plus key)"))
        self.farther = self._add("zoom-out", self.tr("Zoom out"), self.tr("Show more, smaller (minus key)"))
        self.all = self._add("maximize", self.tr("Show everything"), self.tr("Show everything (0 key, double click)"))
        self.closer.clicked.connect(self._on_closer)
        self.farther.clicked.connect(self._on_farther)
        self.all.clicked.connect(self.reset)

    def _add(self, icon_name: str, name: str, help_text: str) -> QToolButton:
        button = QToolButton(self)
        button.setProperty("flat", "true")
        button.setAccessibleName(name)
        button.setToolTip(help_text)
        set_icon(button, icon_name, "muted")
        self._row.addWidget(button)
        return button

    def _on_closer(self) -> None:
        self.zoomed.emit(_STEP)

    def _on_farther(self) -> None:
        self.zoomed.emit(1 / _STEP)
