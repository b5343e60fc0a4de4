"""Carries the files of other tools between session and the dialogs that write and import them."""

from __future__ import annotations

from pathlib import Path

from PySide6.QtCore import QObject
from PySide6.QtWidgets import QWidget

from quantgui.gui.dialogs.files import FileChooser, suggested_file
from quantgui.gui.dialogs.settings_files import ImportDialog, WriteSettingsDialog
from quantgui.gui.widgets.front import bring_to_front
from quantgui.results import SettingsRead, SettingsWritten
from quantgui.session.jobs import Job, JobState
from quantgui.session.session import Session
from quantgui.spec.config import changed_layers

TOPIC = "settings"
PATTERN = "Settings of other tools (*.json *.encodings *.py *.txt);;All files (*)"
SUFFIXES = (".encodings", ".py", ".txt")


class SettingsFilesPresenter(QObject):
    """Connects `Session` with the dialogs, which are made when they are first needed.

    Attributes:
        dialog: the dialog that writes; None before it was first needed.
        import_dialog: the dialog that shows what has been read; None before it was first needed.
    """

    def __init__(self, session: Session, chooser: FileChooser, window: QWidget, parent: QObject) -> None:
        super().__init__(parent)
        self._session = session
        self._chooser = chooser
        self._window = window
        self.dialog: WriteSettingsDialog | None = None
        self.import_dialog: ImportDialog | None = None
        session.settings_written.connect(self._on_written)
        session.settings_read.connect(self._on_read)
        session.job_changed.connect(self._on_job_changed)

    # --- what the user wants -------------------------------------------------------------------------------------

    def show(self) -> None:
        """Show the dialog that writes files of other tools."""
        session = self._session
        if session.summary is None:
            return
        if self.dialog is None:
            self.dialog = WriteSettingsDialog(self._chooser, self._window)
            self.dialog.write_requested.connect(session.write_settings)
            self.dialog.cancel_requested.connect(lambda: session.cancel(TOPIC))
        self.dialog.show_plan(
            suggested_file(session.summary.path, session.config.name),
            has_data=session.data is not None,
            has_sensitivity=session.sensitivity is not None,
        )
        bring_to_front(self.dialog)

    def choose(self) -> None:
        """Ask for the file of another tool and look at it."""
        if path := self._chooser.open_file(self._window, self.tr("Import settings"), PATTERN):
            self._session.read_settings(path)

    def _take_over(self, settings: SettingsRead) -> None:
        self._session.set_config(settings.config, self.tr("Import {name}").format(name=Path(settings.path).name))

    # --- what the session says -----------------------------------------------------------------------------------

    def _on_written(self, written: SettingsWritten) -> None:
        if self.dialog is not None:
            self.dialog.show_written(written)

    def _on_read(self, settings: SettingsRead) -> None:
        session = self._session
        if session.summary is None:
            return
        if self.import_dialog is None:
            self.import_dialog = ImportDialog(self._window)
            self.import_dialog.accepted_settings.connect(self._take_over)
        editable = [layer.name for layer in session.summary.layers if session.is_editable(layer.name)]
        changed = changed_layers(session.config, settings.config, editable)
        self.import_dialog.show_settings(settings, len(changed), len(session.summary.layers))
        bring_to_front(self.import_dialog)

    def _on_job_changed(self, job: Job) -> None:
        if job.topic != TOPIC or self.dialog is None:
            return
        match job.state:
            case JobState.RUNNING:
                self.dialog.show_progress(job.progress)
            case JobState.CANCELLED:
                self.dialog.show_stopped()
            case JobState.FAILED:
                self.dialog.show_failure(job.sentence)
            case _:
                pass
