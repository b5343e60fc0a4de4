"""Choosing files; the window asks through these functions, so that a test can answer in their place."""

from __future__ import annotations

import os
import re
from pathlib import Path

from PySide6.QtCore import QSettings
from PySide6.QtWidgets import QFileDialog, QMessageBox, QWidget

from quantgui.gui.texts import translate
from quantgui.paths import sample_models

_KEY = "folder"


class FileChooser:
    """Asks the user for files, starting where he was last, be it in an earlier run of the program.

    Args:
        settings: where the folder is kept; None keeps it for this run only.
    """

    def __init__(self, settings: QSettings | None = None) -> None:
        self._settings = settings
        kept = "" if settings is None else str(settings.value(_KEY, ""))
        self._folder = kept if kept and Path(kept).is_dir() else str(Path.home())

    @property
    def folder(self) -> str:
        """The folder in which the next question starts."""
        return self._folder

    def visit(self, path: str) -> None:
        """Start the next question in the folder of `path`, a file that has been opened by other ways."""
        folder = Path(path).parent
        # Nobody keeps his own files among the samples, which lie inside the program.
        if path and folder.is_dir() and not folder.resolve().is_relative_to(sample_models().resolve()):
            self._go_to(str(folder))

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
            self._go_to(str(Path(path).parent))
        return path

    def _go_to(self, folder: str) -> None:
        self._folder = folder
        if self._settings is not None:
            self._settings.setValue(_KEY, folder)


def suggested_file(network: str, configuration: str) -> Path:
    """Return where files about a network's configuration go, without a suffix: beside the network, if one may write."""
    source = Path(network).absolute()
    # Names of configurations are free text, those of files are not.
    name = re.sub(r"[^\w.+-]+", "-", configuration).strip("-.") or "quantized"
    folder = source.parent if os.access(source.parent, os.W_OK) else Path.home()
    return folder / f"{source.stem}.{name}"


def ask_to_replace(parent: QWidget, path: Path) -> bool:
    """Return whether the user agrees that the existing file at `path` is replaced."""
    box = QMessageBox(parent)
    box.setIcon(QMessageBox.Icon.Question)
    box.setWindowTitle(translate("files", "Replace the file"))
    box.setText(translate("files", "“{name}” exists already. Replace it?").format(name=path.name))
    box.setInformativeText(str(path.parent))
    replace = box.addButton(translate("files", "Replace"), QMessageBox.ButtonRole.DestructiveRole)
    keep = box.addButton(translate("files", "Cancel"), QMessageBox.ButtonRole.RejectRole)
    box.setDefaultButton(keep)
    box.setEscapeButton(keep)
    box.exec()
    chosen = box.clickedButton() is replace
    box.deleteLater()
    return chosen
