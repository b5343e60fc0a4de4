"""Carries the trace of noise between the session and the noise tab."""

from __future__ import annotations

from PySide6.QtCore import QObject

from quantgui.gui.panels.noise import NoisePanel
from quantgui.gui.presenters.sight import WhenSeen
from quantgui.gui.presenters.waiting import is_waiting, waiting_words
from quantgui.results import NoiseReady, SampleReady
from quantgui.session.jobs import Job, JobState
from quantgui.session.session import Session

TOPIC, SAMPLE_TOPIC = "noise", "sample"


class NoisePresenter(QObject):
    """Connects `Session` and `NoisePanel`; a tab that is not seen is told when it comes into sight."""

    def __init__(self, session: Session, panel: NoisePanel, parent: QObject) -> None:
        super().__init__(parent)
        self._session = session
        self._panel = panel
        self._when_seen = WhenSeen(panel)
        self._failure = ""
        session.network_opened.connect(self._on_network)
        session.network_closed.connect(self._on_network)
        session.data_opened.connect(self._on_network)
        session.config_changed.connect(self._on_config_changed)
        session.selection_changed.connect(self._on_selection_changed)
        session.noise_ready.connect(self._on_noise)
        session.sample_ready.connect(self._on_sample)
        session.job_changed.connect(self._on_job)
        panel.trace_requested.connect(self.trace)
        panel.stop_requested.connect(self._on_stop)
        panel.layer_picked.connect(self._on_layer_picked)
        panel.sample_picked.connect(session.view_sample)
        self._show_state()

    # --- what the user wants -------------------------------------------------------------------------------------

    def trace(self) -> None:
        """Find out where noise is made under the present configuration, unless that is under way."""
        if not self._session.jobs.is_active(TOPIC):
            self._failure = ""
            self._session.trace_noise()

    def _on_stop(self) -> None:
        self._session.cancel(TOPIC)

    def _on_layer_picked(self, name: str) -> None:
        self._session.select((name,))

    # --- what the session says -----------------------------------------------------------------------------------

    def _on_network(self, _: object = None) -> None:
        self._failure = ""
        # What is shown belongs to another network or other data.
        self._panel.show_no_network()
        self._when_seen(self._show_state)

    def _on_config_changed(self, _: object) -> None:
        self._failure = ""
        self._when_seen(self._show_state)

    def _on_selection_changed(self, _: object) -> None:
        self._when_seen(self._show_selection)

    def _on_noise(self, ready: NoiseReady) -> None:
        if ready.config == self._session.config:
            self._when_seen(self._show_state)

    def _on_sample(self, ready: SampleReady) -> None:
        if not ready.calibration:
            self._panel.show_sample(ready)

    def _on_job(self, job: Job) -> None:
        if job.topic == TOPIC:
            self._failure = job.sentence if job.state is JobState.FAILED else ""
            self._when_seen(self._show_state)
        elif is_waiting(self._session.jobs, TOPIC):
            self._when_seen(self._show_state)
        if job.topic == SAMPLE_TOPIC and job.state is JobState.FAILED:
            self._panel.show_sample_failure(job.sentence)

    # --- showing -------------------------------------------------------------------------------------------------

    def _show_selection(self) -> None:
        current = self._session.current
        self._panel.select("" if current is None else current.name)

    def _show_state(self) -> None:
        session, panel = self._session, self._panel
        noise = session.noise
        job = session.jobs.of_topic(TOPIC)
        if session.summary is None:
            panel.show_no_network()
        elif session.data is None:
            panel.show_needs_data()
        elif self._failure:
            panel.show_failure(self._failure)
        else:
            if noise is not None and (noise is not panel.noise() or panel.is_stale()):
                panel.show_noise(noise)
            if job is not None and job.is_active:
                progress = job.progress
                words = waiting_words(session.jobs, TOPIC) or progress.label
                panel.show_tracing(words, progress.done, progress.total, progress.seconds_left)
            elif noise is not None:
                panel.show_stopped()
            elif not session.quantizes:
                panel.show_nothing_quantized()
            else:
                panel.show_not_traced()
        self._show_selection()
