"""Carries exports, their verification and the report between session and their dialogs."""

from __future__ import annotations

from pathlib import Path

from PySide6.QtCore import QObject
from PySide6.QtWidgets import QWidget

from quantgui.gui import numbers
from quantgui.gui.dialogs.export import ExportDialog
from quantgui.gui.dialogs.files import FileChooser, suggested_file
from quantgui.gui.dialogs.verification import VerificationDialog
from quantgui.gui.status_line import StatusLine
from quantgui.gui.widgets.front import bring_to_front
from quantgui.results import Exported, NetworkSummary, ReportWritten, Verification
from quantgui.session.jobs import Job, JobState
from quantgui.session.session import Session
from quantgui.spec.quantizer import bits_of

TOPIC = "export"
EXPORTED = "Exported networks (*.onnx);;All files (*)"
REPORTS = "Report (*.html)"


class ExportPresenter(QObject):
    """Connects `Session` with the dialogs, which are made when they are first needed.

    Attributes:
        dialog: the dialog of exports; None before it was first needed.
        verification: the dialog of their verification; None before it was first needed.
    """

    def __init__(
        self, session: Session, chooser: FileChooser, status: StatusLine, window: QWidget, parent: QObject
    ) -> None:
        super().__init__(parent)
        self._session = session
        self._chooser = chooser
        self._status = status
        self._window = window
        self.dialog: ExportDialog | None = None
        self.verification: VerificationDialog | None = None
        session.exported.connect(self._on_exported)
        session.verified.connect(self._on_verified)
        session.report_written.connect(self._on_report_written)
        session.job_changed.connect(self._on_job_changed)

    # --- what the user wants -------------------------------------------------------------------------------------

    def show(self) -> None:
        """Show the dialog of exports."""
        session = self._session
        if session.summary is None:
            return
        if self.dialog is None:
            self.dialog = ExportDialog(self._chooser, self._window)
            self.dialog.export_requested.connect(session.export)
            self.dialog.cancel_requested.connect(lambda: session.cancel(TOPIC))
            self.dialog.verify_requested.connect(session.verify)
        path = suggested_file(session.summary.path, session.config.name)
        self.dialog.show_plan(f"{path}.onnx", self._plan(session.summary))
        bring_to_front(self.dialog)

    def verify(self) -> None:
        """Verify the file exported last, or one the user chooses."""
        exported = self._session.last_export
        path = exported.path if exported is not None and Path(exported.path).is_file() else ""
        path = path or self._chooser.open_file(self._window, self.tr("Verify an exported file"), EXPORTED)
        if path:
            self._session.verify(path)

    def write_report(self) -> None:
        """Ask for a file and write the report."""
        if self._session.summary is None:
            return
        suggestion = f"{suggested_file(self._session.summary.path, self._session.config.name)}.html"
        if path := self._chooser.save_file(self._window, self.tr("Write report"), suggestion, REPORTS):
            self._session.write_report(path if Path(path).suffix else f"{path}.html")

    def _plan(self, summary: NetworkSummary) -> str:
        session = self._session
        specs = [session.spec_for(layer.name) for layer in summary.layers]
        quantized = sum(spec.weights is not None for spec in specs)
        activations = sum(spec.activations is not None for spec in specs)
        before, after = numbers.data_size(summary.float_bytes), numbers.data_size(session.size())
        sentence = self.tr(
            "{n} of {all} layers with quantized weights, {a} with quantized activations: {b} → {c}."
        ).format(n=quantized, all=len(specs), a=activations, b=before, c=after)
        odd = {bits_of(spec.weights) for spec in specs if spec.weights is not None and spec.weights.is_integer}
        if odd - {2, 4, 8, 16}:
            sentence += "\n" + self.tr("Odd bit-widths are stored in the next larger type of ONNX.")
        return sentence

    # --- what the session says -----------------------------------------------------------------------------------

    def _on_exported(self, exported: Exported) -> None:
        if self.dialog is not None:
            self.dialog.show_exported(exported, can_verify=self._session.data is not None)

    def _on_verified(self, result: Verification) -> None:
        if self.verification is None:
            self.verification = VerificationDialog(self._window)
            self.verification.layer_activated.connect(self._on_layer_activated)
        self.verification.show_verification(result)
        bring_to_front(self.verification)

    def _on_layer_activated(self, layer: str) -> None:
        if self._session.layer(layer) is not None:
            self._session.select((layer,))

    def _on_report_written(self, report: ReportWritten) -> None:
        words = self.tr("Report written: {name} ({size})")
        name, size = Path(report.path).name, numbers.data_size(report.file_bytes)
        self._status.show_notice(words.format(name=name, size=size))

    def _on_job_changed(self, job: Job) -> None:
        if job.topic != TOPIC or self.dialog is None:
            return
        if job.state is JobState.RUNNING:
            self.dialog.show_progress(job.progress)
        elif job.state in (JobState.FAILED, JobState.CANCELLED):
            self.dialog.show_failure(job.sentence or self.tr("Stopped; nothing was written."))
