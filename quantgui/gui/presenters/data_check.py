"""Carries the check of the data between the session and the data tab."""

from __future__ import annotations

from PySide6.QtCore import QObject, Signal

from quantgui.gui.panels.data_check import DataCheckPanel, alarming
from quantgui.gui.presenters.sight import WhenSeen
from quantgui.results import DataReport, SampleReady
from quantgui.session.jobs import Job, JobState
from quantgui.session.session import Session

TOPIC, SAMPLE_TOPIC = "data check", "calibration sample"


class DataCheckPresenter(QObject):
    """Connects `Session` and `DataCheckPanel`; a tab that is not seen is told when it comes into sight.

    Signals:
        found: the findings of a report that the user should look at, perhaps none.
        alarmed: a finding that makes everything measured on the data misleading, told once for the open data.
    """

    found = Signal(tuple)
    alarmed = Signal(object)

    def __init__(self, session: Session, panel: DataCheckPanel, parent: QObject) -> None:
        super().__init__(parent)
        self._session = session
        self._panel = panel
        self._when_seen = WhenSeen(panel)
        self._failure = ""
        self._asked: int | None = None
        self._told: set[str] = set()
        session.network_opened.connect(self._on_network)
        session.network_closed.connect(self._on_network)
        session.data_opened.connect(self._on_network)
        session.selection_changed.connect(self._on_selection_changed)
        session.data_examined.connect(self._on_report)
        session.sample_ready.connect(self._on_sample)
        session.job_changed.connect(self._on_job)
        panel.check_requested.connect(self.check)
        panel.stop_requested.connect(self._on_stop)
        panel.layers_picked.connect(session.select)
        panel.sample_picked.connect(self._on_sample_picked)
        self._show_state()

    # --- what the user wants -------------------------------------------------------------------------------------

    def check(self) -> None:
        """Check the data and what the present configuration makes of its ranges."""
        self._failure = ""
        self._session.examine_data()

    def _on_stop(self) -> None:
        self._session.cancel(TOPIC)

    def _on_sample_picked(self, index: int) -> None:
        self._asked = index
        self._session.view_sample(index, calibration=True)

    # --- what the session says -----------------------------------------------------------------------------------

    def _on_network(self, _: object = None) -> None:
        self._failure, self._asked, self._told = "", None, set()
        # What is shown belongs to another network or other data.
        self._panel.show_no_network()
        self.found.emit(())
        self._when_seen(self._show_state)

    def _on_selection_changed(self, _: object) -> None:
        self._when_seen(self._show_selection)

    def _on_report(self, report: DataReport) -> None:
        self._failure = ""
        findings = alarming(report)
        self.found.emit(findings)
        worst = next((each for each in findings if each.severity == "error"), None)
        if worst is not None and worst.sentence not in self._told:
            self._told.add(worst.sentence)
            self.alarmed.emit(worst)
        self._when_seen(self._show_state)

    def _on_sample(self, ready: SampleReady) -> None:
        if ready.calibration and ready.sample == self._asked:
            self._panel.show_sample(ready)

    def _on_job(self, job: Job) -> None:
        if job.topic == TOPIC:
            self._failure = job.sentence if job.state is JobState.FAILED else ""
            self._when_seen(self._show_state)
        elif job.topic == SAMPLE_TOPIC and job.state is JobState.FAILED:
            self._panel.show_sample_failure(job.sentence)

    # --- showing -------------------------------------------------------------------------------------------------

    def _show_selection(self) -> None:
        self._panel.show_layer(self._session.current)

    def _show_state(self) -> None:
        session, panel = self._session, self._panel
        report = session.data_report
        job = session.jobs.of_topic(TOPIC)
        if session.summary is None:
            panel.show_no_network()
        elif session.data is None:
            panel.show_needs_data()
        elif self._failure:
            panel.show_failure(self._failure)
        else:
            if report is not None and report is not panel.report():
                panel.show_report(report)
            if job is not None and job.is_active:
                panel.show_checking(
                    job.progress.label, job.progress.done, job.progress.total, job.progress.seconds_left
                )
            else:
                panel.show_not_checked()
        self._show_selection()
