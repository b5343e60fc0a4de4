"""Starts the program as ``quantgui`` does, and tells when its window can be used and what has been imported."""

from __future__ import annotations

import sys
import time
from typing import Any

from PySide6.QtCore import QTimer
from PySide6.QtWidgets import QApplication

from quantgui.cli import main as cli
from quantgui.gui import app
from quantgui.gui.main_window import MainWindow
from tests.benchmarks.measuring import tell

_HEAVY = ("torch", "onnxruntime", "onnx")


def main() -> None:
    """Open the window, tell and leave."""
    begin = app.start
    found: dict[str, object] = {}

    def start(window: MainWindow, *what: Any) -> None:
        begin(window, *what)
        QTimer.singleShot(0, lambda: usable(window))

    def usable(window: MainWindow) -> None:
        QApplication.processEvents()
        assert window.windowHandle().isExposed()
        found["usable_at"] = time.monotonic()
        wait_for_panels(window)

    def wait_for_panels(window: MainWindow) -> None:
        if not window.is_finished():
            QTimer.singleShot(1, window, lambda: wait_for_panels(window))
            return
        found["finished_at"] = time.monotonic()
        found["imported"] = [name for name in _HEAVY if name in sys.modules]
        tell(found)
        QApplication.exit(0)

    app.start = start
    cli.main([])


if __name__ == "__main__":
    main()
