"""Files the program keeps for the user without being asked: what to recover after a crash, what was opened lately."""

from __future__ import annotations

import contextlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from PySide6.QtCore import QObject, Qt, QTimer, Signal

from quantgui.errors import SpecError
from quantgui.session.project import Autosave, Project
from quantgui.session.recent import RecentFile, RecentFiles

AUTOSAVE_MS = 800


class StateFiles(QObject):
    """Writes in a thread of its own: waiting for a slow disk is nothing for the window's.

    Args:
        folder: where the files lie.

    Signals:
        failed: a sentence that says why work could not be saved for recovery.
    """

    failed = Signal(str)
    _writing_failed = Signal(str)

    def __init__(self, folder: Path, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.recent = RecentFiles(folder / "recent.json")
        self._autosave = Autosave(folder)
        self._project: Project | None = None
        self._writer: ThreadPoolExecutor | None = ThreadPoolExecutor(1, thread_name_prefix="quantgui writer")
        self._timer = QTimer(self, singleShot=True, interval=AUTOSAVE_MS)
        self._timer.timeout.connect(self._write)
        self._writing_failed.connect(self.failed, Qt.ConnectionType.QueuedConnection)
        self._writer.submit(self._autosave.prune)

    def autosave_soon(self, project: Project | None) -> None:
        """Write `project` to the recovery file when it has not changed for a moment; None has nothing to recover."""
        self._project = project
        self._timer.start()

    def forget_autosave(self) -> None:
        """Remove the recovery file: the work has been saved, or was given up."""
        self._timer.stop()
        if self._writer is not None:
            # After what is being written.
            self._writer.submit(self._autosave.remove)

    def take_left_behind(self) -> Project | None:
        """Return what a crashed program has left behind, once."""
        return self._autosave.take_left_behind()

    def remember_recent(self, entry: RecentFile | None) -> None:
        """Put `entry` first in the list of what was opened lately."""
        if entry is not None and self._writer is not None:
            self._writer.submit(self._write_recent, entry)

    def close(self) -> None:
        """Write what has not been written yet, and wait for it."""
        if self._timer.isActive():
            self._timer.stop()
            self._write()
        if self._writer is not None:
            self._writer.shutdown(wait=True)
            self._writer = None

    def _write(self) -> None:
        if self._project is not None and self._writer is not None:
            self._writer.submit(self._write_project, self._project)

    def _write_project(self, project: Project) -> None:
        try:
            self._autosave.write(project)
        except SpecError as error:
            self._writing_failed.emit(
                self.tr("The configuration could not be saved for recovery: {error}").format(error=error)
            )

    def _write_recent(self, entry: RecentFile) -> None:
        # A full disk must not keep the user from working; there is nothing he could do about this list.
        with contextlib.suppress(SpecError, OSError):
            self.recent.add(entry)
