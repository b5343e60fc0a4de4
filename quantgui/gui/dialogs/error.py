"""An unexpected error: a fault of the program, told without ending it."""

from __future__ import annotations

from PySide6.QtWidgets import (
    QApplication,
    QDialog,
    QHBoxLayout,
    QLabel,
    QPlainTextEdit,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from quantgui.gui.theme import mono_font


class ErrorDialog(QDialog):
    """A sentence, and the details for a report."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setWindowTitle(self.tr("Unexpected error"))
        self.setMinimumWidth(540)
        self.sentence = QLabel()
        self.sentence.setWordWrap(True)
        self.details = QPlainTextEdit()
        self.details.setReadOnly(True)
        self.details.setFont(mono_font())
        self.details.setAccessibleName(self.tr("Details of the error"))
        self.details.setToolTip(self.tr("What the developers need to know."))
        copy = QPushButton(self.tr("Copy the details"))
        copy.setAccessibleName(copy.text())
        copy.setToolTip(self.tr("Put the details on the clipboard, for a report."))
        copy.clicked.connect(lambda: QApplication.clipboard().setText(self.details.toPlainText()))
        close = QPushButton(self.tr("Close"))
        close.setAccessibleName(close.text())
        close.setToolTip(self.tr("Go on working."))
        close.setDefault(True)
        close.clicked.connect(self.close)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(16, 14, 16, 14)
        layout.setSpacing(10)
        layout.addWidget(self.sentence)
        layout.addWidget(self.details, 1)
        row = QHBoxLayout()
        row.addWidget(copy)
        row.addStretch(1)
        row.addWidget(close)
        layout.addLayout(row)

    def show_error(self, what: str, details: str) -> None:
        """Show an error; your work is kept whatever it was."""
        self.sentence.setText(
            self.tr(
                "Something went wrong inside the program: {what}\nYour configuration is kept; you can go on."
            ).format(what=what)
        )
        self.details.setPlainText(details)
        self.show()
        self.raise_()
