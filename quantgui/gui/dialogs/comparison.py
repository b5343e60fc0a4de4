"""The window of its own in which A and B are compared; it stays open beside the work."""

from __future__ import annotations

from PySide6.QtWidgets import QDialog, QHBoxLayout, QPushButton, QVBoxLayout, QWidget

from quantgui.gui.panels.comparison import ComparisonPanel


class ComparisonDialog(QDialog):
    """Holds the comparison of A and B, with a button that flips between them."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setWindowTitle(self.tr("Compare A | B"))
        self.resize(760, 480)
        self.panel = ComparisonPanel()
        self.flip = QPushButton(self.tr("Flip A | B"))
        self.flip.setAccessibleName(self.tr("Flip between A and B"))
        self.flip.setToolTip(self.tr("Put the other one to use, at once (Ctrl+B in the window)."))
        close = QPushButton(self.tr("Close"))
        close.setAccessibleName(self.tr("Close"))
        close.setToolTip(self.tr("Close this dialog; A and B stay pinned."))
        close.clicked.connect(self.close)
        row = QHBoxLayout()
        row.addWidget(self.flip)
        row.addStretch(1)
        row.addWidget(close)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(16, 14, 16, 14)
        layout.setSpacing(10)
        layout.addWidget(self.panel, 1)
        layout.addLayout(row)
