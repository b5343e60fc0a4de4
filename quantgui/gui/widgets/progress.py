"""A line of a running job: what, how far, how long still, and a button that stops it."""

from __future__ import annotations

import math

from PySide6.QtCore import Qt, Signal
from PySide6.QtWidgets import QGridLayout, QProgressBar, QSizePolicy, QToolButton, QWidget

from quantgui.gui.icons import set_icon
from quantgui.gui.texts import translate
from quantgui.gui.widgets.labels import ElidedLabel, Tone, set_style

_STEPS = 1000
_TITLE_WIDTH = 148


class ProgressRow(QWidget):
    """A job with a thin bar; its name gives way down to `least` pixels.

    Signals:
        cancelled: the user asked to stop the job.
    """

    cancelled = Signal()

    def __init__(self, label: str, parent: QWidget | None = None, *, least: int = _TITLE_WIDTH) -> None:
        super().__init__(parent)
        self._label = ElidedLabel(label, least=least)
        self._state = ElidedLabel()
        self._state.setProperty("role", "note")
        self._state.setAlignment(Qt.AlignmentFlag.AlignRight)
        self.bar = QProgressBar()
        self.bar.setTextVisible(False)
        self.bar.setRange(0, _STEPS)
        self.stop = QToolButton()
        self.stop.setProperty("flat", "true")
        set_icon(self.stop, "x", "muted")
        layout = QGridLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setHorizontalSpacing(8)
        layout.setVerticalSpacing(3)
        layout.addWidget(self._label, 0, 0)
        layout.addWidget(self._state, 0, 1)
        layout.addWidget(self.stop, 0, 2, 2, 1)
        layout.addWidget(self.bar, 1, 0, 1, 2)
        layout.setColumnStretch(0, 1)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.stop.clicked.connect(self.cancelled)
        self.set_label(label)

    def set_label(self, label: str) -> None:
        """Change what the job is called."""
        self._label.setText(label)
        self.setAccessibleName(label)
        self.bar.setAccessibleName(label)
        self.stop.setAccessibleName(self.tr("Stop: {job}").format(job=label))
        self.stop.setToolTip(self.tr("Stop: {job}").format(job=label))

    def start_anew(self, label: str) -> None:
        """Make the row that of another job, which has just begun."""
        self.set_label(label)
        for widget in (self._state, self.bar):
            set_style(widget, "tone", "")
        self.stop.show()

    def show_progress(self, done: int, total: int, detail: str = "", seconds_left: float | None = None) -> None:
        """Show `done` of `total` steps; 0 of 0 where the number is not known."""
        # A job that failed or stalled may have begun again.
        for widget in (self._state, self.bar):
            if widget.property("tone"):
                set_style(widget, "tone", "")
        self._set_bar(round(_STEPS * min(done / total, 1.0)) if total else 0, _STEPS if total else 0)
        # What changes stands first: the end gives way where there is no room.
        parts = [self.tr("{done} / {total}").format(done=f"{done:,}", total=f"{total:,}")] if total else []
        parts += [words for words in (time_left(seconds_left), detail) if words]
        self._state.setText(" · ".join(parts))

    def show_stalled(self, text: str) -> None:
        """Show that a job has not reported for long; it can still be stopped."""
        self._state.setText(text)
        set_style(self._state, "tone", "warning")

    def show_state(self, text: str, tone: Tone = "muted") -> None:
        """Show that the job has ended (done, failed, cancelled): no bar in motion, nothing to stop."""
        self._state.setText(text)
        set_style(self._state, "tone", tone)
        set_style(self.bar, "tone", tone)
        self._set_bar(_STEPS, _STEPS)
        self.stop.hide()

    def _set_bar(self, value: int, most: int) -> None:
        # QProgressBar paints itself at once, and with it all that waits to be painted in the window: several times in
        # a frame where several jobs move. So it is kept from painting until the next frame.
        self.bar.setUpdatesEnabled(False)
        self.bar.setRange(0, most)
        self.bar.setValue(value)
        self.bar.setUpdatesEnabled(True)

    def text(self) -> str:
        """Return what stands at the right."""
        return self._state.text()


def time_left(seconds: float | None) -> str:
    """Return words for the time until something is done; empty where it is not known."""
    if seconds is None or not math.isfinite(seconds):
        return ""
    if seconds < 1:
        return translate("ProgressRow", "less than 1 s left")
    if seconds < 90:
        return translate("ProgressRow", "{seconds} s left").format(seconds=round(seconds))
    minutes = round(seconds / 60)
    if minutes < 90:
        return translate("ProgressRow", "{minutes} min left").format(minutes=minutes)
    words = translate("ProgressRow", "{hours} h {minutes} min left")
    return words.format(hours=minutes // 60, minutes=minutes % 60)
