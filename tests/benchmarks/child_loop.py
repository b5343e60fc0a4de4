"""Runs an empty event loop with a timer until a file appears, and tells how late the timer came.

What it finds while other processes work is what the machine does to any event loop.
"""

from __future__ import annotations

import sys
from pathlib import Path

from PySide6.QtCore import QCoreApplication, QTimer

from tests.benchmarks.measuring import tell
from tests.benchmarks.ticks import Ticks


def main() -> None:
    """Tick until the file named on the command line exists."""
    app = QCoreApplication([])
    ticks = Ticks()
    end = Path(sys.argv[1])
    watch = QTimer(interval=500)
    watch.timeout.connect(lambda: app.quit() if end.exists() or not end.parent.exists() else None)
    watch.start()
    app.exec()
    tell(ticks.gaps)


if __name__ == "__main__":
    main()
