"""How long an event loop does not turn."""

from __future__ import annotations

import time

from PySide6.QtCore import QObject, Qt, QTimer

PERIOD_MS = 10


class Ticks(QObject):
    """A timer of 10 ms in an event loop: what passes between two of its ticks is how long the loop was held up.

    Attributes:
        gaps: when each tick came (`time.monotonic`) and the seconds since the one before it.
    """

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.gaps: list[tuple[float, float]] = []
        self._last = time.monotonic()
        timer = QTimer(self, interval=PERIOD_MS, timerType=Qt.TimerType.PreciseTimer)
        timer.timeout.connect(self._tick)
        timer.start()

    def _tick(self) -> None:
        now = time.monotonic()
        self.gaps.append((now, now - self._last))
        self._last = now


def between(gaps: list[tuple[float, float]], start: float, stop: float) -> list[float]:
    """Return the gaps that ended from `start` to `stop`."""
    return [gap for at, gap in gaps if start <= at <= stop]
