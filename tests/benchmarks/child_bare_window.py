"""Shows a window of PySide6 and pyqtgraph with nothing but a plot, and tells when it can be used."""

from __future__ import annotations

import time

import pyqtgraph
from PySide6.QtCore import QTimer
from PySide6.QtWidgets import QApplication, QMainWindow

from tests.benchmarks.measuring import tell


def main() -> None:
    """Open the window, tell the time and leave."""
    app = QApplication([])
    window = QMainWindow()
    plot = pyqtgraph.PlotWidget()
    plot.plot(range(256))
    window.setCentralWidget(plot)
    window.resize(1440, 900)
    window.show()

    def usable() -> None:
        app.processEvents()
        assert window.windowHandle().isExposed()
        tell({"usable_at": time.monotonic()})
        app.quit()

    QTimer.singleShot(0, usable)
    app.exec()


if __name__ == "__main__":
    main()
