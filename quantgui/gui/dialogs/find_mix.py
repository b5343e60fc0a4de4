"""The dialog that looks for a mix: settings, progress, and what was found."""

from __future__ import annotations

from PySide6.QtCore import Signal
from PySide6.QtWidgets import QDialog, QHBoxLayout, QLabel, QPushButton, QVBoxLayout, QWidget

from quantgui.gui.panels.mix_controls import MixControls
from quantgui.gui.widgets.labels import Tone, set_style
from quantgui.gui.widgets.progress import ProgressRow
from quantgui.session.jobs import Job

_WIDTH = 470


class FindMixDialog(QDialog):
    """Stays open while the search runs, so that the result can be seen and the question changed.

    Signals:
        start_requested: what the settings ask is to be found.
        cancel_requested: the search is to be stopped.
        accepted_mix: the answer is to become the configuration.
        data_requested: the user wants to open data.
    """

    start_requested = Signal()
    cancel_requested = Signal()
    accepted_mix = Signal()
    data_requested = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setWindowTitle(self.tr("Find mix"))
        self.setMinimumWidth(_WIDTH)
        self._running = False
        heading = QLabel(self.tr("The best format for each layer"))
        heading.setProperty("role", "heading")
        intro = QLabel(
            self.tr(
                "Measures what each layer does to the outputs, finds the best choice for every size, "
                "and evaluates what it found."
            )
        )
        intro.setWordWrap(True)
        intro.setProperty("role", "note")
        self.controls = MixControls()
        self.progress = ProgressRow(self.tr("Finding a mix"))
        self.progress.hide()
        self.sentence = QLabel()
        self.sentence.setWordWrap(True)
        self.sentence.hide()
        self.start = self._button(self.tr("Find mix"), self.tr("Begin the search."))
        self.start.setProperty("primary", "true")
        self.start.setDefault(True)
        self.use = self._button(self.tr("Use it"), self.tr("Make the answer the configuration, in one undo step."))
        self.data = self._button(self.tr("Open data…"), self.tr("Open data to measure on."))
        close = self._button(self.tr("Close"), self.tr("Close this dialog; a search goes on."))
        self.use.hide()
        self.data.hide()
        row = QHBoxLayout()
        row.addWidget(close)
        row.addStretch(1)
        row.addWidget(self.data)
        row.addWidget(self.use)
        row.addWidget(self.start)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(16, 14, 16, 14)
        layout.setSpacing(10)
        for widget in (heading, intro, self.controls, self.progress, self.sentence):
            layout.addWidget(widget)
        layout.addStretch(1)
        layout.addLayout(row)
        self.start.clicked.connect(self._on_start)
        self.use.clicked.connect(self.accepted_mix)
        self.data.clicked.connect(self.data_requested)
        self.progress.cancelled.connect(self.cancel_requested)
        close.clicked.connect(self.close)

    def show_state(self, *, reason: str, needs_data: bool = False) -> None:
        """Say why nothing can be started; empty where it can."""
        self.start.setEnabled(self._running or not reason)
        tip = self.tr("Begin the search.")
        self.start.setToolTip(f"{tip}\n{reason}" if reason else tip)
        self.data.setVisible(needs_data)

    def show_job(self, job: Job | None) -> None:
        """Show how far the search is."""
        self._running = job is not None and job.is_active
        self.progress.setVisible(self._running)
        self.controls.setEnabled(not self._running)
        self.start.setText(self.tr("Stop") if self._running else self.tr("Find mix"))
        self.start.setAccessibleName(self.start.text())
        if job is not None and self._running:
            progress = job.progress
            self.progress.show_progress(progress.done, progress.total, progress.label, progress.seconds_left)

    def show_outcome(self, sentence: str, tone: Tone, *, usable: bool) -> None:
        """Show what was found; `usable` offers to take it over."""
        self.sentence.setText(sentence)
        set_style(self.sentence, "tone", tone)
        self.sentence.setVisible(bool(sentence))
        self.use.setVisible(usable)

    def _button(self, text: str, tip: str) -> QPushButton:
        button = QPushButton(text)
        button.setAccessibleName(text)
        button.setToolTip(tip)
        button.setAutoDefault(False)
        return button

    def _on_start(self) -> None:
        if self._running:
            self.cancel_requested.emit()
        else:
            self.start_requested.emit()
