"""Carries training between the session and the training tab."""

from __future__ import annotations

from PySide6.QtCore import QObject

from quantgui.gui.panels.training import TrainingPanel
from quantgui.gui.presenters.sight import WhenSeen
from quantgui.gui.training_words import Phase, Standing
from quantgui.session.jobs import Job, JobState
from quantgui.session.session import Session
from quantgui.spec.training import Training

TOPIC = "training"


class TrainingPresenter(QObject):
    """Connects `Session` and `TrainingPanel`; a tab that is not seen is told when it comes into sight."""

    def __init__(self, session: Session, panel: TrainingPanel, parent: QObject) -> None:
        super().__init__(parent)
        self._session = session
        self._panel = panel
        self._when_seen = WhenSeen(panel)
        self._failure = ""
        self._interrupted = False
        session.network_opened.connect(self._on_network)
        session.network_closed.connect(self._on_network)
        session.data_opened.connect(self._on_network)
        session.config_changed.connect(self._on_config_changed)
        session.training_ready.connect(self._on_training)
        session.job_changed.connect(self._on_job)
        panel.start_requested.connect(self._on_start)
        panel.pause_requested.connect(self._on_pause)
        panel.resume_requested.connect(self._on_resume)
        panel.keep_requested.connect(session.keep_training)
        panel.discard_requested.connect(session.discard_training)
        self._show_data()
        self._show_state()

    # --- what the user wants -------------------------------------------------------------------------------------

    def train(self) -> None:
        """Do what the button of the settings would: begin, or go on; nothing while training is under way."""
        if not self._session.jobs.is_active(TOPIC):
            # A tab that has just come into sight is shown first, so that its button means what it says.
            self._show_state()
            self._panel.controls.button.click()

    def _on_start(self, training: Training) -> None:
        self._failure, self._interrupted = "", False
        self._session.train(training)
        self._show_state()

    def _on_resume(self) -> None:
        self._failure, self._interrupted = "", False
        self._session.resume_training()
        self._show_state()

    def _on_pause(self) -> None:
        self._session.cancel(TOPIC)

    # --- what the session says -----------------------------------------------------------------------------------

    def _on_network(self, _: object = None) -> None:
        self._failure, self._interrupted = "", False
        # What is shown belongs to another network or other data.
        self._panel.show_no_network()
        self._show_data()
        self._when_seen(self._show_state)

    def _on_config_changed(self, _: object) -> None:
        self._when_seen(self._show_state)

    def _on_training(self, _: object) -> None:
        self._when_seen(self._show_state)

    def _on_job(self, job: Job) -> None:
        if job.topic != TOPIC:
            return
        is_down = self._session.engine_state in ("restarting", "stopped")
        if job.state is JobState.FAILED:
            self._interrupted = is_down
            self._failure = "" if is_down else job.sentence
        else:
            self._failure, self._interrupted = "", False
        self._when_seen(self._show_state)

    # --- showing -------------------------------------------------------------------------------------------------

    def _show_data(self) -> None:
        data = self._session.data
        self._panel.show_data(
            samples=0 if data is None else data.samples, has_labels=data is not None and data.has_labels
        )

    def _show_state(self) -> None:
        session, panel = self._session, self._panel
        session.look_for_training()
        training, asked = session.training, session.asked_training
        if session.summary is None:
            panel.show_no_network()
        elif session.data is None:
            panel.show_needs_data()
        elif training is not None:
            panel.show_training(training, self._standing())
        elif self._failure:
            panel.show_failure(self._failure, None if asked is None else asked.training)
        elif self._interrupted:
            panel.show_interrupted()
        elif session.jobs.is_active(TOPIC):
            self._show_preparing()
        elif asked is not None:
            panel.show_stopped(changed=not session.is_in_use(asked.config))
        elif not session.quantizes:
            panel.show_nothing_quantized()
        else:
            panel.show_not_trained()

    def _show_preparing(self) -> None:
        job = self._session.jobs.of_topic(TOPIC)
        if job is not None:
            self._panel.show_preparing(job.progress.label, job.progress.done, job.progress.total)

    def _standing(self) -> Standing:
        session, training = self._session, self._session.training
        assert training is not None
        job = session.jobs.of_topic(TOPIC)
        in_use = training.trained is not None and session.is_in_use(training.trained)
        return Standing(
            self._phase(job),
            changed=not in_use and not session.is_in_use(training.config),
            in_use=in_use,
            label="" if job is None or training.steps else job.progress.label,
            sentence=self._failure,
            left=session.training_was_left,
            reason="" if session.quantizes else self.tr("Every layer is float: quantize some first."),
        )

    def _phase(self, job: Job | None) -> Phase:
        training = self._session.training
        if job is not None and job.state is JobState.WAITING:
            return "waiting"
        if job is not None and job.state is JobState.RUNNING:
            return "running"
        if self._failure:
            return "failed"
        if self._interrupted:
            return "interrupted"
        return "ended" if training is not None and training.complete else "paused"
