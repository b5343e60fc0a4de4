"""Carries data and metric between session and their dialog."""

from __future__ import annotations

from PySide6.QtCore import QObject
from PySide6.QtWidgets import QWidget

from quantgui.gui.dialogs.data import DataDialog
from quantgui.gui.dialogs.files import FileChooser
from quantgui.gui.widgets.front import bring_to_front
from quantgui.results import DataSummary
from quantgui.session.jobs import Job, JobState
from quantgui.session.session import Session

_TOPICS = ("data", "metric")


class DataPresenter(QObject):
    """Connects `Session` with the dialog, which is made when it is first needed.

    Attributes:
        dialog: the dialog; None before it was first needed.
    """

    def __init__(self, session: Session, chooser: FileChooser, window: QWidget, parent: QObject) -> None:
        super().__init__(parent)
        self._session = session
        self._chooser = chooser
        self._window = window
        self.dialog: DataDialog | None = None
        session.data_opened.connect(self._on_data_opened)
        session.job_changed.connect(self._on_job_changed)

    def show(self) -> None:
        """Show the dialog."""
        if self._session.summary is None:
            return
        if self.dialog is None:
            self.dialog = DataDialog(self._chooser, self._window)
            self.dialog.data_chosen.connect(self._session.open_data)
            self.dialog.metric_chosen.connect(self._session.set_metric)
        self.dialog.show_network(self._session.summary.inputs)
        self.dialog.show_data(self._session.data)
        self.dialog.show_metric(self._session.metric)
        bring_to_front(self.dialog)

    def _on_data_opened(self, summary: DataSummary) -> None:
        if self.dialog is not None:
            self.dialog.show_data(summary)

    def _on_job_changed(self, job: Job) -> None:
        if job.topic in _TOPICS and self.dialog is not None and job.state is JobState.FAILED:
            self.dialog.show_failure(job.sentence)
