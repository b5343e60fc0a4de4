"""Carries the configuration between session and its file, and sees to it that none is lost."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, auto
from pathlib import Path

from PySide6.QtCore import QObject, Signal
from PySide6.QtWidgets import QMessageBox, QWidget

from quantgui.errors import QuantGuiError
from quantgui.gui.dialogs.files import FileChooser
from quantgui.session.session import Session
from quantgui.spec.config import QuantConfig
from quantgui.spec.serialization import load_config

PATTERN = "Configuration (*.json)"


class Answer(Enum):
    """What to do with a configuration that has not been saved."""

    SAVE = auto()
    DISCARD = auto()
    CANCEL = auto()


class ConfigurationFilePresenter(QObject):
    """Loads and saves the session's configuration.

    Attributes:
        ask_to_save: asks what to do with an unsaved configuration; a test puts its own answer here.

    Signals:
        saved: the configuration is in a file; its path.
        noticed: a sentence on what is wrong with a file.
        withdrawn: a sentence that is not true any more.
    """

    saved = Signal(str)
    noticed = Signal(str)
    withdrawn = Signal(str)

    def __init__(self, session: Session, chooser: FileChooser, window: QWidget, parent: QObject) -> None:
        super().__init__(parent)
        self._session = session
        self._chooser = chooser
        self._window = window
        self._complaint = ""
        self.ask_to_save: Callable[[], Answer] = self._ask_to_save

    def may_leave(self) -> bool:
        """Return whether the configuration may be left behind, after asking the user if it is not saved."""
        if self._session.is_saved:
            return True
        match self.ask_to_save():
            case Answer.SAVE:
                return self.save()
            case Answer.DISCARD:
                return True
            case Answer.CANCEL:
                return False

    def choose(self) -> None:
        """Ask for a configuration and take it over."""
        if path := self._chooser.open_file(self._window, self.tr("Load configuration"), PATTERN):
            self.load(Path(path))

    def load(self, path: Path) -> None:
        """Take over the configuration in a file, and say which of its names the network does not have."""
        try:
            unknown = self._session.load_config(path)
        except QuantGuiError as error:
            self._complain(str(error))
            return
        more = self.tr(" ({n} names in all)").format(n=len(unknown)) if len(unknown) > 1 else ""
        self._complain(f"{unknown[0]}{more}" if unknown else "")

    def read(self, path: Path) -> QuantConfig | None:
        """Return the configuration in a file without taking it over; None, and a complaint, where that fails."""
        try:
            return load_config(path)
        except QuantGuiError as error:
            self._complain(str(error))
            return None

    def save(self) -> bool:
        """Save the configuration where it came from; return whether it has been saved."""
        return self._save(self._session.config_path) if self._session.config_path else self.save_as()

    def save_as(self) -> bool:
        """Ask for a file and save the configuration; return whether it has been saved."""
        summary = self._session.summary
        suggestion = f"{Path(summary.path).stem}.quantization.json" if summary is not None else "quantization.json"
        path = self._chooser.save_file(self._window, self.tr("Save configuration"), suggestion, PATTERN)
        return bool(path) and self._save(path)

    def _save(self, path: str) -> bool:
        try:
            self._session.save_config(Path(path))
        except QuantGuiError as error:
            self._complain(str(error))
            return False
        self._complain("")
        self.saved.emit(path)
        return True

    def _complain(self, sentence: str) -> None:
        """Say what is wrong with a file, or take back what was said of the last one."""
        if self._complaint:
            self.withdrawn.emit(self._complaint)
        self._complaint = sentence
        if sentence:
            self.noticed.emit(sentence)

    def _ask_to_save(self) -> Answer:
        box = QMessageBox(self._window)
        box.setIcon(QMessageBox.Icon.Question)
        box.setWindowTitle(self.tr("Unsaved configuration"))
        box.setText(self.tr("Save the configuration before you leave it?"))
        save = box.addButton(self.tr("Save"), QMessageBox.ButtonRole.AcceptRole)
        discard = box.addButton(self.tr("Discard"), QMessageBox.ButtonRole.DestructiveRole)
        box.addButton(self.tr("Cancel"), QMessageBox.ButtonRole.RejectRole)
        box.setDefaultButton(save)
        box.exec()
        clicked = box.clickedButton()
        box.deleteLater()
        return Answer.SAVE if clicked is save else Answer.DISCARD if clicked is discard else Answer.CANCEL
