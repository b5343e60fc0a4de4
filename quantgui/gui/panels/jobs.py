"""What the engine is doing: a row per kind of job, with progress, time left and a button that stops it."""

from __future__ import annotations

from collections.abc import Collection

from PySide6.QtCore import Qt, Signal
from PySide6.QtWidgets import QFrame, QPushButton, QScrollArea, QVBoxLayout, QWidget

from quantgui.gui.widgets.card import Card, Pages
from quantgui.gui.widgets.progress import ProgressRow
from quantgui.gui.widgets.state_page import StatePage
from quantgui.session.jobs import Job, JobState

ROWS_KEPT = 12


class JobsPanel(Card):
    """The list of jobs, the newest change on top.

    Signals:
        cancel_requested: topic of the job to be stopped.
    """

    cancel_requested = Signal(str)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__("", parent)
        self.set_title(self.tr("Jobs"))
        # As high as that of the card beside it, which has buttons: titles stand in one line.
        self.header.addStrut(QPushButton(self.tr("Jobs")).sizeHint().height())
        self._rows: dict[str, ProgressRow] = {}
        self._numbers: dict[str, int] = {}
        self._active: set[str] = set()
        self._empty = StatePage()
        self._empty.show_state("check", self.tr("Nothing to do"), self.tr("Work of the engine appears here."))
        self._list = QWidget()
        self._layout = QVBoxLayout(self._list)
        self._layout.setContentsMargins(3, 0, 6, 0)
        self._layout.setSpacing(7)
        self._layout.addStretch(1)
        area = QScrollArea()
        area.setWidgetResizable(True)
        area.setFrameShape(QFrame.Shape.NoFrame)
        area.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        area.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        area.setAccessibleName(self.tr("Jobs"))
        area.setWidget(self._list)
        self._area = area
        self._pages = Pages(self._empty, area)
        self.body.addWidget(self._pages)

    def show_job(self, job: Job) -> None:
        """Show the state of `job`; it takes the place of the job of its topic."""
        row = self._rows.get(job.topic)
        if row is None:
            row = self._add_row(job)
        elif self._numbers[job.topic] != job.number:
            row.start_anew(job.title)
            self._numbers[job.topic] = job.number
        self._active.discard(job.topic)
        match job.state:
            case JobState.WAITING:
                row.show_progress(0, 0, self.tr("waiting"))
                row.bar.setRange(0, 1)
                self._active.add(job.topic)
            case JobState.RUNNING:
                progress = job.progress
                if job.stalled:
                    row.show_stalled(self.tr("no news for long"))
                else:
                    row.show_progress(progress.done, progress.total, progress.label, progress.seconds_left)
                self._active.add(job.topic)
            case JobState.DONE:
                row.show_state(_duration(job.seconds), "muted")
            case JobState.CANCELLED:
                row.show_state(self.tr("stopped"), "muted")
            case JobState.FAILED:
                row.show_state(self.tr("failed"), "bad")
        row.bar.setVisible(job.is_active)
        row.setToolTip(job.sentence)
        self._show_count()

    def keep_only(self, topics: Collection[str]) -> None:
        """Take the rows of all other topics away: what they were about is no longer open."""
        for topic in [each for each in self._rows if each not in topics]:
            row = self._rows.pop(topic)
            del self._numbers[topic]
            self._active.discard(topic)
            self._layout.removeWidget(row)
            row.hide()
            row.deleteLater()
        if not self._rows:
            self._pages.show_page(self._empty)
        self._show_count()

    def text_of(self, topic: str) -> str:
        """Return what stands at the right of the row of `topic`; empty where there is none."""
        row = self._rows.get(topic)
        return "" if row is None else row.text()

    def _add_row(self, job: Job) -> ProgressRow:
        row = ProgressRow(job.title, self._list)
        topic = job.topic
        self._layout.insertWidget(0, row)
        row.cancelled.connect(lambda: self.cancel_requested.emit(topic))
        self._rows[job.topic] = row
        self._numbers[job.topic] = job.number
        self._pages.show_page(self._area)
        return row

    def _show_count(self) -> None:
        running = len(self._active)
        self.set_note(self.tr("{count} under way").format(count=running) if running else self.tr("idle"))


def _duration(seconds: float) -> str:
    if seconds < 0.0005:
        return "done"
    return (
        f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s" if seconds < 60 else f"{seconds / 60:.1f} min"
    )
