"""Taste: what changes no number."""

from __future__ import annotations

from collections.abc import Sequence

from PySide6.QtCore import Signal
from PySide6.QtWidgets import (
    QComboBox,
    QDialog,
    QFormLayout,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from quantgui.gui.languages import SYSTEM, Language
from quantgui.gui.widgets.labels import set_style


class PreferencesDialog(QDialog):
    """The look of the window, and its language.

    Args:
        scheme: the look in use.
        known: languages that can be chosen.
        language: the code of the one chosen, or ``system``.

    Signals:
        scheme_chosen: ``system``, ``light`` or ``dark``.
        language_chosen: ``system``, or the code of a language.
    """

    scheme_chosen = Signal(str)
    language_chosen = Signal(str)

    def __init__(self, scheme: str, known: Sequence[Language], language: str, parent: QWidget | None = None) -> None:
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
        self.show_scheme(scheme)
        self.scheme.activated.connect(lambda: self.scheme_chosen.emit(str(self.scheme.currentData())))
        self.language = QComboBox()
        self.language.setAccessibleName(self.tr("Language"))
        self.language.setToolTip(
            self.tr("Language of menus, panels and dialogs; by default that of the desktop. Help pages are in English.")
        )
        self.language.addItem(self.tr("As the system"), SYSTEM)
        for each in known:
            self.language.addItem(each.name, each.code)
        self.language.setCurrentIndex(max(self.language.findData(language), 0))
        self.language.activated.connect(self._on_language)
        words = self.tr("Another language is used from the next start of the program on.")
        if len(known) < 2:
            words = self.tr(
                "English is the only language so far; a translation is a file quantgui_CODE.qm in {folder}."
            )
        self.note = QLabel(words.format(folder="resources/translations"))
        self.note.setProperty("role", "note")
        self.note.setWordWrap(True)
        close = QPushButton(self.tr("Close"))
        close.setAccessibleName(close.text())
        close.setToolTip(self.tr("Close this dialog."))
        close.clicked.connect(self.close)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(16, 14, 16, 14)
        form = QFormLayout()
        form.setHorizontalSpacing(14)
        form.setVerticalSpacing(9)
        form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        form.addRow(self.tr("&Look"), self.scheme)
        form.addRow(self.tr("L&anguage"), self.language)
        form.addRow("", self.note)
        layout.addLayout(form)
        layout.addStretch(1)
        row = QHBoxLayout()
        row.addStretch(1)
        row.addWidget(close)
        layout.addLayout(row)

    def show_scheme(self, scheme: str) -> None:
        """Show the look in use, which can be switched elsewhere too."""
        self.scheme.setCurrentIndex(max(self.scheme.findData(scheme), 0))

    def _on_language(self) -> None:
        self.note.setText(self.tr("Close the program and start it again: then it speaks this language."))
        set_style(self.note, "tone", "accent")
        self.language_chosen.emit(str(self.language.currentData()))
