"""Icons in the colours of the theme, drawn from the SVG files in ``resources/icons`` (Lucide)."""

from __future__ import annotations

from collections.abc import Sequence

from PySide6.QtCore import QByteArray, QObject, QRectF, Qt
from PySide6.QtGui import QAction, QGuiApplication, QIcon, QPainter, QPixmap, QPixmapCache
from PySide6.QtSvg import QSvgRenderer
from PySide6.QtWidgets import QAbstractButton

from quantgui.gui.theme import current, theme_events
from quantgui.paths import resources

_SIZES = (16, 20, 24, 32)
_BUTTON_SIZES = (16, 20)
"""What buttons and menus show; drawing more than that in advance would take a fifth of the start of the window."""
_DISABLED_OPACITY = 0.4


def icon(name: str, color: str | None = None, sizes: Sequence[int] = _SIZES) -> QIcon:
    """Return the icon called `name` in `color` (``#rrggbb``; the theme's text colour by default), for all screens.

    Raises:
        FileNotFoundError: there is no such icon.
    """
    result = QIcon()
    for size in sizes:
        for ratio in {screen.devicePixelRatio() for screen in QGuiApplication.screens()}:
            result.addPixmap(pixmap(name, size, color, ratio))
            result.addPixmap(pixmap(name, size, color, ratio, _DISABLED_OPACITY), QIcon.Mode.Disabled)
    return result


def pixmap(name: str, size: int, color: str | None = None, ratio: float = 1.0, opacity: float = 1.0) -> QPixmap:
    """Return the icon called `name` as a picture of `size` x `size` device-independent pixels; it is drawn once."""
    color = color or current().text
    key = f"icon {name} {size} {color} {ratio} {opacity}"
    known = QPixmap()
    if QPixmapCache.find(key, known):
        return known
    svg = (resources() / "icons" / f"{name}.svg").read_text(encoding="utf-8")
    renderer = QSvgRenderer(QByteArray(svg.replace("currentColor", color).encode()))
    picture = QPixmap(round(size * ratio), round(size * ratio))
    picture.fill(Qt.GlobalColor.transparent)
    painter = QPainter(picture)
    painter.setOpacity(opacity)
    renderer.render(painter, QRectF(0, 0, size * ratio, size * ratio))
    painter.end()
    picture.setDevicePixelRatio(ratio)
    QPixmapCache.insert(key, picture)
    return picture


def set_icon(target: QAction | QAbstractButton, name: str, token: str = "text") -> None:
    """Give `target` an icon in the colour of a token, and keep that colour when the theme changes."""
    for old in target.findChildren(_IconBinding):
        old.setParent(None)
        old.deleteLater()
    _IconBinding(target, name, token)


class _IconBinding(QObject):
    """Re-draws the icon of its parent when the theme changes."""

    def __init__(self, target: QAction | QAbstractButton, name: str, token: str) -> None:
        super().__init__(target)
        self._name = name
        self._token = token
        self.refresh()
        theme_events().changed.connect(self.refresh)

    def refresh(self) -> None:
        target = self.parent()
        if isinstance(target, QAction | QAbstractButton):
            target.setIcon(icon(self._name, getattr(current(), self._token), _BUTTON_SIZES))
