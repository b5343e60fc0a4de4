"""Choosing files; the window asks through these functions, so that a test can answer in their place."""

from __future__ import annotations

from pathlib import Path

from PySide6.QtWidgets import QFileDialog, QWidget


class FileChooser:
    """Asks the user for files, starting where he was last."""

    def __init__(self) -> None:
        self._folder = str(Path.home())

    def open_file(self, parent: QWidget, title: str, pattern: str) -> str:
        """Return an existing file, or an empty string."""
        path, _ = QFileDialog.getOpenFileName(parent, title, self._folder, pattern)
        return self._remember(path)

    def open_folder(self, parent: QWidget, title: str) -> str:
        """Return an existing folder, or an empty string."""
        return self._remember(QFileDialog.getExistingDirectory(parent, title, self._folder))

    def save_file(self, parent: QWidget, title: str, suggestion: str, pattern: str) -> str:
        """Return a file to be written, or an empty string; the user has agreed to replace an existing one."""
        start = suggestion if Path(suggestion).is_absolute() else str(Path(self._folder) / suggestion)
        path, _ = QFileDialog.getSaveFileName(parent, title, start, pattern)
        return self._remember(path)

    def _remember(self, path: str) -> str:
        if path:
            self._folder = str(Path(path).parent)
        return path
