"""Reference cycles are collected in the window's thread alone.

Python collects in whichever thread happens to allocate next. What it frees in the engine client's thread may be a
widget or a timer, and Qt destroys those in their own thread only; elsewhere the program crashes, now and then.
"""

from __future__ import annotations

import gc
from typing import Final

from PySide6.QtCore import QObject, QTimer

_EVERY_MS: Final = 250


def collect_due() -> None:
    """Collect the generations for which Python itself would do it now."""
    due = [count > threshold > 0 for count, threshold in zip(gc.get_count(), gc.get_threshold(), strict=True)]
    if any(due):
        gc.collect(max(generation for generation, is_due in enumerate(due) if is_due))


class CycleCollector(QObject):
    """Takes the collection of cycles over from Python, for as long as the program runs."""

    def __init__(self, parent: QObject) -> None:
        super().__init__(parent)
        gc.disable()
        self._timer = QTimer(self)
        self._timer.timeout.connect(collect_due)
        self._timer.start(_EVERY_MS)
