"""Tells a tab what is new when it is seen: drawing for nobody would hold up what is."""

from __future__ import annotations

from collections.abc import Callable

from PySide6.QtCore import QEvent, QObject
from PySide6.QtWidgets import QWidget


class WhenSeen(QObject):
    """Keeps what is to be shown on a widget until it comes into sight; goes with the widget.

    `key` names what replaces what: of two calls with the same one only the last is made.
    """

    def __init__(self, widget: QWidget) -> None:
        super().__init__(widget)
        self._widget = widget
        self._late: dict[object, Callable[[], None]] = {}
        widget.installEventFilter(self)

    def __call__(self, show: Callable[[], None], key: object = None) -> None:
        """Call `show` now, or when the widget comes into sight; `key` is `show` itself if not given."""
        key = show if key is None else key
        self._late.pop(key, None)
        if self._widget.isHidden():
            self._late[key] = show
        else:
            show()

    def forget(self) -> None:
        """Drop what waits."""
        self._late.clear()

    def eventFilter(self, _watched: QObject, event: QEvent) -> bool:
        if event.type() == QEvent.Type.Show:
            late, self._late = self._late, {}
            for show in late.values():
                show()
        return False
