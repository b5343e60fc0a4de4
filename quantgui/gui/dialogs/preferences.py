"""Taste: what changes no number."""

from __future__ import annotations

from PySide6.QtCore import Signal
from PySide6.QtWidgets import QComboBox, QDialog, QFormLayout, QHBoxLayout, QPushButton, QVBoxLayout, QWidget


class PreferencesDialog(QDialog):
    """The look of the window.

    Signals:
        scheme_chosen: ``system``, ``light`` or ``dark``.
    """

    scheme_chosen = Signal(str)

    def __init__(self, scheme: str, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setWindowTitle(self.tr("Preferences"))
        self.setMinimumWidth(340)
        self.scheme = QComboBox()
        self.scheme.setAccessibleName(self.tr("Look"))
        self.scheme.setToolTip(self.tr("Colours of the window; by default as the desktop asks for."))
        for value, text in (
            ("system", self.tr("As the system")),
            ("light", self.tr("Light")),
            ("dark", self.tr("Dark")),
        ):
            self.scheme.addItem(text, value)
        self.scheme.setCurrentIndex(max(self.scheme.findData(scheme), 0))
        self.scheme.activated.connect(lambda: self.scheme_chosen.emit(str(self.scheme.currentData())))
        close = QPushButton(self.tr("Close"))
        close.setAccessibleName(close.text())
        close.setToolTip(self.tr("Close this dialog."))
        close.clicked.connect(self.close)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(16, 14, 16, 14)
        form = QFormLayout()
        form.addRow(self.tr("&Look"), self.scheme)
        layout.addLayout(form)
        layout.addStretch(1)
        row = QHBoxLayout()
        row.addStretch(1)
        row.addWidget(close)
        layout.addLayout(row)
