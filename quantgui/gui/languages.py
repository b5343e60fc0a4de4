"""Languages of the window: which there are, and putting one to use when the program starts.

Texts are looked up where they are made, so another language is seen from the next start on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PySide6.QtCore import QLibraryInfo, QLocale, QTranslator
from PySide6.QtWidgets import QApplication

from quantgui.paths import resources

SYSTEM, SOURCE = "system", "en"
"""As the desktop asks for; the language that the texts are written in, which needs no translation."""
_PREFIX = "quantgui_"


@dataclass(frozen=True, slots=True)
class Language:
    """A language: its code as in the name of its file (``kn``, ``pt_BR``), and what its speakers call it."""

    code: str
    name: str


def languages(folder: Path | None = None) -> tuple[Language, ...]:
    """Return the languages there are: the source's, then those with a file in the folder of translations."""
    files = sorted((folder or translations()).glob(f"{_PREFIX}*.qm"))
    codes = [SOURCE, *(path.stem.removeprefix(_PREFIX) for path in files)]
    return tuple(Language(code, _name(code)) for code in dict.fromkeys(codes))


def install_language(app: QApplication, code: str, folder: Path | None = None) -> tuple[QTranslator, ...]:
    """Use a language for all that is made from now on; return what was installed, which is nothing for the source.

    Args:
        app: the application.
        code: ``system``, or the code of a `Language`; one that is not there is the source's.
        folder: where ``quantgui_CODE.qm`` lie.
    """
    if code == SOURCE:
        return ()
    locale = QLocale() if code == SYSTEM else QLocale(code)
    own = install_translation(app, locale, folder)
    if own is None:
        return ()
    # The words of Qt's own buttons and file dialogs, where Qt has them.
    of_qt = QTranslator(app)
    if not of_qt.load(locale, "qtbase", "_", QLibraryInfo.path(QLibraryInfo.LibraryPath.TranslationsPath)):
        return (own,)
    app.installTranslator(of_qt)
    return (own, of_qt)


def install_translation(app: QApplication, locale: QLocale, folder: Path | None = None) -> QTranslator | None:
    """Load ``quantgui_LANGUAGE.qm`` from the folder of translations and return it; None where `locale` has none."""
    translator = QTranslator(app)
    if not translator.load(locale, "quantgui", "_", str(folder or translations())):
        return None
    app.installTranslator(translator)
    return translator


def code_in_use(code: str, known: Sequence[Language]) -> str:
    """Return `code` if it can be chosen, else ``system``: a translation may have gone since it was."""
    return code if code in {each.code for each in known} else SYSTEM


def translations() -> Path:
    """Return the folder of translations."""
    return resources() / "translations"


def _name(code: str) -> str:
    name = QLocale(code).nativeLanguageName() if code != SOURCE else "English"
    return name[:1].upper() + name[1:] if name else code
