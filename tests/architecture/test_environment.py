from __future__ import annotations

import sys

from PySide6.QtGui import QImage, QPainter


def test_that_qt_calls_keep_the_references_to_none() -> None:
    """PySide6 6.12.0 on Python 3.11 loses one reference per call, and the process is aborted after seconds."""
    image = QImage(8, 8, QImage.Format.Format_ARGB32)
    painter = QPainter(image)
    before = sys.getrefcount(None)
    for _ in range(2000):
        painter.translate(0, 0)
    painter.end()
    assert sys.getrefcount(None) > before - 100
