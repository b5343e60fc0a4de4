"""One history for the whole window: undo keys pass the lines of text by."""

from __future__ import annotations

from PySide6.QtCore import QEvent, QObject
from PySide6.QtGui import QKeyEvent, QKeySequence
from PySide6.QtWidgets import QAbstractSpinBox, QLineEdit, QWidget


class UndoKeys(QObject):
    """Lets Ctrl+Z reach the window while a line has the focus: there is one history, that of the configuration."""

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        if event.type() == QEvent.Type.ShortcutOverride and isinstance(event, QKeyEvent):
            standard = QKeySequence.StandardKey
            if event.matches(standard.Undo) or event.matches(standard.Redo):
                # Not accepted by the line, so the key goes on to the window's shortcut.
                event.ignore()
                return True
        return False

    def follow_focus(self, old: QWidget | None, new: QWidget | None) -> None:
        """Watch the line that has the focus, and it alone: a filter on everything would cost at every event."""
        if isinstance(old, QLineEdit | QAbstractSpinBox):
            old.removeEventFilter(self)
        if isinstance(new, QLineEdit | QAbstractSpinBox):
            new.installEventFilter(self)
