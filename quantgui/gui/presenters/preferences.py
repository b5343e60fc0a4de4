"""Carries look and language between the settings, their dialog and the application."""

from __future__ import annotations

from PySide6.QtCore import QObject, QSettings
from PySide6.QtWidgets import QApplication, QWidget

from quantgui.gui.dialogs.preferences import PreferencesDialog
from quantgui.gui.languages import SYSTEM, code_in_use, languages
from quantgui.gui.theme import apply_theme, theme_events
from quantgui.gui.widgets.front import bring_to_front


class PreferencesPresenter(QObject):
    """Connects the user's settings with the dialog, which is made when it is first needed.

    Attributes:
        dialog: the dialog; None before it was first needed.
    """

    def __init__(self, settings: QSettings, window: QWidget, parent: QObject) -> None:
        super().__init__(parent)
        self._settings = settings
        self._window = window
        self.dialog: PreferencesDialog | None = None

    def show(self) -> None:
        """Show the dialog."""
        if self.dialog is None:
            known = languages()
            language = code_in_use(self.language, known)
            self.dialog = PreferencesDialog(theme_events().scheme, known, language, self._window)
            self.dialog.language_chosen.connect(self.set_language)
            self.dialog.scheme_chosen.connect(self.set_scheme)
        self.dialog.show_scheme(theme_events().scheme)
        bring_to_front(self.dialog)

    def toggle_theme(self) -> None:
        """Switch between light and dark."""
        self.set_scheme("light" if theme_events().tokens.is_dark else "dark")

    def set_scheme(self, scheme: str) -> None:
        """Use a look, and remember it."""
        app = QApplication.instance()
        if isinstance(app, QApplication) and scheme in ("system", "light", "dark"):
            self._settings.setValue("scheme", scheme)
            apply_theme(app, scheme)  # type: ignore[arg-type]

    @property
    def language(self) -> str:
        """The language that the user has chosen for the next start: its code, or ``system``."""
        return str(self._settings.value("language", SYSTEM))

    def set_language(self, code: str) -> None:
        """Remember a language for the next start."""
        self._settings.setValue("language", code)
