"""Docks: panels the user can move, with a thin grip instead of a title bar, as cards have titles of their own."""

from __future__ import annotations

from PySide6.QtCore import QEvent, QObject, QSize, Qt, QTimer
from PySide6.QtGui import QPainter, QPaintEvent
from PySide6.QtWidgets import QApplication, QDockWidget, QMainWindow, QWidget

from quantgui.gui.theme import GAP, current, theme_events

_DOTS, _SPACING = 5, 5


class Grip(QWidget):
    """Where a dock is held to be moved: a row of dots."""

    def __init__(self, title: str, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setFixedHeight(GAP)
        self.setCursor(Qt.CursorShape.OpenHandCursor)
        self.setToolTip(self.tr("{title}: drag to move, double-click to detach.").format(title=title))
        self.setAccessibleName(self.tr("Move {title}").format(title=title))
        theme_events().changed.connect(self._on_theme_changed)

    def sizeHint(self) -> QSize:
        return QSize(40, GAP)

    def minimumSizeHint(self) -> QSize:
        return self.sizeHint()

    def paintEvent(self, event: QPaintEvent) -> None:
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(current().color("muted", 0.9 if self.underMouse() else 0.45))
        left = self.width() / 2 - (_DOTS - 1) * _SPACING / 2
        for dot in range(_DOTS):
            painter.drawEllipse(int(left + dot * _SPACING) - 1, self.height() // 2 - 1, 2, 2)
        painter.end()

    def enterEvent(self, event: object) -> None:
        self.update()

    def leaveEvent(self, event: object) -> None:
        self.update()

    def _on_theme_changed(self, _: object) -> None:
        self.update()


def make_dock(name: str, title: str, panel: QWidget) -> QDockWidget:
    """Return a dock around `panel`; `name` is what the saved layout knows it by."""
    dock = QDockWidget(title)
    dock.setObjectName(name)
    feature = QDockWidget.DockWidgetFeature
    dock.setFeatures(feature.DockWidgetMovable | feature.DockWidgetFloatable | feature.DockWidgetClosable)
    dock.setTitleBarWidget(Grip(title))
    dock.setWidget(panel)
    return dock


class SideWidths(QObject):
    """Gives the docks at the sides their widths back after the window was too small for them."""

    def __init__(self, window: QMainWindow, docks: tuple[QDockWidget, ...]) -> None:
        super().__init__(window)
        self._window = window
        self._widths: dict[QDockWidget, int] = {}
        self._timer = QTimer(self, singleShot=True, interval=0)
        self._timer.timeout.connect(self._give_back)
        for watched in (window, *docks):
            watched.installEventFilter(self)

    def want(self, widths: dict[QDockWidget, int]) -> None:
        """Set the widths, and keep them until the user drags a border."""
        self._widths = dict(widths)
        self._give_back()

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        if event.type() == QEvent.Type.Resize:
            if watched is self._window:
                self._timer.start()
            elif isinstance(watched, QDockWidget) and QApplication.mouseButtons() & Qt.MouseButton.LeftButton:
                # Not the window but a border within it is being dragged.
                self._widths[watched] = watched.width()
        return False

    def _give_back(self) -> None:
        docks = [dock for dock in self._widths if dock.isVisible() and not dock.isFloating()]
        if docks:
            self._window.resizeDocks(docks, [self._widths[dock] for dock in docks], Qt.Orientation.Horizontal)
