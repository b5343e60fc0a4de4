"""Carries the comparison with another tool's quantized network between session and its dialog."""

from __future__ import annotations

from pathlib import Path

from PySide6.QtCore import QObject
from PySide6.QtWidgets import QWidget

from quantgui.gui.dialogs.files import FileChooser
from quantgui.gui.dialogs.network_comparison import NetworkComparisonDialog, Sizes
from quantgui.gui.widgets.front import bring_to_front
from quantgui.results import NetworkComparison
from quantgui.session.jobs import Job, JobState
from quantgui.session.session import Session
from quantgui.spec.config import QuantConfig, changed_layers

TOPIC = "comparison"
PATTERN = "Quantized networks (*.onnx *.ort);;All files (*)"


class NetworkComparisonPresenter(QObject):
    """Connects `Session` with the dialog, which is made when it is first needed.

    Attributes:
        dialog: the dialog; None before it was first needed.
    """

    def __init__(self, session: Session, chooser: FileChooser, window: QWidget, parent: QObject) -> None:
        super().__init__(parent)
        self._session = session
        self._chooser = chooser
        self._window = window
        self._path = ""
        self._result: NetworkComparison | None = None
        self.dialog: NetworkComparisonDialog | None = None
        session.network_compared.connect(self._on_compared)
        session.job_changed.connect(self._on_job_changed)
        session.config_changed.connect(self._show_present)
        for signal in (session.network_opened, session.network_closed, session.data_opened):
            signal.connect(self._forget)

    def choose(self) -> None:
        """Ask for a quantized file and compare with it; the dialog alone where a comparison is under way."""
        if self._session.jobs.is_active(TOPIC):
            self._present()
            return
        title = self.tr("Compare with a quantized file")
        if path := self._chooser.open_file(self._window, title, PATTERN):
            self._compare(path)

    def _compare(self, path: str) -> None:
        self._path = path
        self._session.compare_network(path)
        self._present()

    def _present(self) -> None:
        bring_to_front(self._made())

    def _made(self) -> NetworkComparisonDialog:
        if self.dialog is None:
            self.dialog = NetworkComparisonDialog(self._window)
            self.dialog.layer_picked.connect(self._on_layer_picked)
            self.dialog.accepted_config.connect(self._take_over)
            self.dialog.again_requested.connect(lambda: self._compare(self._path))
            self.dialog.file_requested.connect(self.choose)
            self.dialog.cancel_requested.connect(lambda: self._session.cancel(TOPIC))
        return self.dialog

    # --- what the user wants -------------------------------------------------------------------------------------

    def _on_layer_picked(self, layer: str) -> None:
        if self._session.layer(layer) is not None:
            self._session.select((layer,))

    def _take_over(self) -> None:
        if self._result is not None:
            text = self.tr("Take over {name}").format(name=Path(self._result.path).name)
            self._session.set_config(self._result.other, text)

    # --- what the session says -----------------------------------------------------------------------------------

    def _on_job_changed(self, job: Job) -> None:
        if job.topic != TOPIC:
            return
        match job.state:
            case JobState.FAILED:
                self._made().show_failure(job.sentence)
            case JobState.CANCELLED:
                self._made().show_stopped()
            case JobState.DONE:
                pass
            case _:
                self._made().show_progress(self._path, job.progress)

    def _on_compared(self, result: NetworkComparison) -> None:
        session = self._session
        if session.summary is None:
            return
        self._result = result
        sizes = Sizes(session.size(result.config), session.size(result.other), session.size(QuantConfig()))
        self._made().show_comparison(result, sizes)
        self._show_present()

    def _show_present(self, _: object = None) -> None:
        session, result = self._session, self._result
        if result is None or self.dialog is None or session.summary is None:
            return
        layers = [layer.name for layer in session.summary.layers]
        editable = [name for name in layers if session.is_editable(name)]
        changed = changed_layers(session.config, result.other, editable)
        outdated = bool(changed_layers(session.config, result.config, layers))
        self.dialog.show_present(changed=len(changed), outdated=outdated)

    def _forget(self, _: object = None) -> None:
        """Close the dialog: what it shows is of another network, or measured on other data."""
        self._result = None
        if self.dialog is not None:
            self.dialog.clear()
            self.dialog.close()
