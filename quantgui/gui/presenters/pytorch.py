"""Carries the opening of PyTorch networks between session and its dialog."""

from __future__ import annotations

from collections.abc import Callable

from PySide6.QtCore import QObject
from PySide6.QtWidgets import QWidget

from quantgui.gui.dialogs.files import FileChooser
from quantgui.gui.dialogs.pytorch import PytorchDialog
from quantgui.gui.widgets.front import bring_to_front
from quantgui.session.jobs import Job, JobState
from quantgui.session.session import Session
from quantgui.spec.pytorch_source import DEFAULT_OPTIONS, PytorchOptions

_TOPIC = "network"


class PytorchPresenter(QObject):
    """Connects `Session` with the dialog, which is made when it is first needed.

    Args:
        may_leave: asks what to do with unsaved work; returns whether another network may be opened.

    Attributes:
        dialog: the dialog; None before it was first needed.
    """

    def __init__(
        self, session: Session, chooser: FileChooser, window: QWidget, may_leave: Callable[[], bool], parent: QObject
    ) -> None:
        super().__init__(parent)
        self._session = session
        self._chooser = chooser
        self._window = window
        self._may_leave = may_leave
        self._data = ("", "")
        self._asked = ""
        self.dialog: PytorchDialog | None = None
        session.job_changed.connect(self._on_job_changed)
        session.network_opened.connect(self._on_opened)

    def ask(
        self, network: str = "", options: PytorchOptions = DEFAULT_OPTIONS, data: str = "", calibration: str = ""
    ) -> None:
        """Show the dialog with what is known of `network`; `data` is opened with it."""
        self._data = (data, calibration)
        self._made().show_source(network, options)
        self._present()

    def ask_for_code(self, weights: str, data: str = "") -> None:
        """Show the dialog for a file of weights."""
        self.ask(data=data)
        self._made().show_weights(weights)

    def _present(self) -> None:
        bring_to_front(self._made())

    def _made(self) -> PytorchDialog:
        if self.dialog is None:
            self.dialog = PytorchDialog(self._chooser, self._window)
            self.dialog.open_requested.connect(self._open)
            self.dialog.cancel_requested.connect(lambda: self._session.cancel(_TOPIC))
        return self.dialog

    def _open(self, network: str, options: PytorchOptions) -> None:
        if self._may_leave():
            self._asked = network
            data, calibration = self._data
            self._session.open_network(network, data, calibration=calibration, pytorch=options)

    def _on_job_changed(self, job: Job) -> None:
        if job.topic != _TOPIC or self.dialog is None or not self._asked:
            return
        if job.state is JobState.RUNNING:
            self.dialog.show_progress(job.progress)
        elif job.state in (JobState.FAILED, JobState.CANCELLED):
            self._asked = ""
            self.dialog.show_failure(job.sentence or self.tr("Stopped; no other network was opened."))

    def _on_opened(self) -> None:
        if self.dialog is not None and self._asked:
            self.dialog.show_opened()
        self._asked = ""
