"""Windows that come to the user."""

from __future__ import annotations

from PySide6.QtWidgets import QWidget


def bring_to_front(window: QWidget) -> None:
    """Show a window above the others, with the focus in it."""
    window.show()
    window.raise_()
    window.activateWindow()
