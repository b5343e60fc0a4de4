from __future__ import annotations

import ast
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

import pytest
from PySide6.QtCore import QLocale
from PySide6.QtWidgets import QApplication
from pytestqt.qtbot import QtBot
from sessions import make_session

from quantgui.gui.actions import ACTIONS, MENUS
from quantgui.gui.app import make_settings
from quantgui.gui.dialogs.preferences import PreferencesDialog
from quantgui.gui.languages import Language, code_in_use, install_language, install_translation, languages
from quantgui.gui.main_window import MainWindow
from quantgui.gui.panels.jobs import JobsPanel

ROOT = Path(__file__).parents[2]
TOOLS = Path(sys.executable).parent
SOURCES = sorted(p for folder in ("gui", "session") for p in (ROOT / "quantgui" / folder).rglob("*.py"))

Text = tuple[str, str]
"""Context and source of a text."""


def extracted(sources: list[Path], target: Path) -> set[Text]:
    """Return what `lupdate` finds, as translators will get it."""
    subprocess.run([TOOLS / "pyside6-lupdate", *sources, "-ts", target], check=True, capture_output=True, timeout=120)
    contexts = ET.parse(target).getroot().iter("context")
    return {
        (context.findtext("name") or "", message.findtext("source") or "")
        for context in contexts
        for message in context.iter("message")
    }


def shown(tree: ast.Module) -> Iterator[Text]:
    """Yield the texts that a module looks up or marks, by what PySide does at run time."""

    def visit(node: ast.AST, class_name: str) -> Iterator[Text]:
        for child in ast.iter_child_nodes(node):
            yield from visit(child, child.name if isinstance(child, ast.ClassDef) else class_name)
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            literals = [each.value if isinstance(each, ast.Constant) else None for each in node.args]
            match name, literals:
                case "tr", [str(source), *_] if isinstance(node.func, ast.Attribute):
                    yield class_name, source
                case "translate" | "QT_TRANSLATE_NOOP", [str(context), str(source), *_]:
                    yield context, source
                case "QT_TR_NOOP", [str(source)]:
                    yield class_name, source

    yield from visit(tree, "")


def misleading(tree: ast.Module) -> Iterator[int]:
    """Yield lines with names for translation that `lupdate` does not know, or takes for a method's `tr`."""
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Name(id="tr" | "_tr"), args=[ast.Constant(), *_]):
                yield node.lineno
            case ast.Assign(targets=[ast.Name(id="tr" | "_tr")]):
                yield node.lineno


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> set[Text]:
    return extracted(SOURCES, tmp_path_factory.mktemp("texts") / "quantgui.ts")


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT / "quantgui")))
def test_that_every_text_reaches_the_translators_under_the_context_it_is_looked_up_in(
    path: Path, found: set[Text]
) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert not sorted(set(shown(tree)) - found)
    assert not list(misleading(tree))


def test_that_the_texts_of_actions_reach_the_translators(found: set[Text]) -> None:
    texts = {text for spec in ACTIONS for text in (spec.text, spec.help, spec.toolbar) if text} | set(MENUS)
    assert {("", text) for text in texts} <= found
    assert len(texts) > 2 * len(ACTIONS)


def translated(source: Path, changes: dict[str, str]) -> None:
    """Fill translations into the file of a translator."""
    tree = ET.parse(source)
    for message in tree.getroot().iter("message"):
        translation = message.find("translation")
        if translation is not None and (text := changes.get(message.findtext("source") or "")):
            translation.text = text
            translation.attrib.pop("type", None)
    tree.write(source, encoding="utf-8", xml_declaration=True)


def test_that_texts_are_extracted_translated_and_shown(qtbot: QtBot, qapp: QApplication, tmp_path: Path) -> None:
    source, compiled = tmp_path / "quantgui_de.ts", tmp_path / "quantgui_de.qm"
    gui = ROOT / "quantgui" / "gui"
    extracted([gui / "panels" / "jobs.py", gui / "actions.py", gui / "needs.py"], source)
    words = {
        "Jobs": "Aufträge",
        "&Undo": "&Rückgängig",
        "Weights of &{n} bits": "Gewichte mit &{n} Bit",
        "There is nothing to undo.": "Es gibt nichts rückgängig zu machen.",
    }
    translated(source, words)
    subprocess.run([TOOLS / "pyside6-lrelease", source, "-qm", compiled], check=True, capture_output=True, timeout=60)
    assert install_translation(qapp, QLocale("kn_IN"), tmp_path) is None
    translator = install_translation(qapp, QLocale("de_DE"), tmp_path)
    assert translator is not None
    panel = JobsPanel()
    qtbot.addWidget(panel)
    assert panel.tr("Jobs") == "Aufträge"
    texts = {spec.id: spec.words(spec.text) for spec in ACTIONS}
    assert (texts["undo"], texts["bits_4"]) == ("&Rückgängig", "Gewichte mit &4 Bit")
    qapp.removeTranslator(translator)


@pytest.fixture
def german(tmp_path: Path) -> Path:
    """Translate a few texts of the window into a folder, and return it."""
    folder = tmp_path / "translations"
    folder.mkdir()
    gui = ROOT / "quantgui" / "gui"
    extracted([gui / "actions.py", gui / "workspace.py", gui / "panels" / "layers.py"], folder / "quantgui_de.ts")
    words = {"&File": "&Datei", "&Open network…": "Netz &öffnen …", "Weights": "Gewichte", "Layers": "Schichten"}
    translated(folder / "quantgui_de.ts", words)
    source, compiled = folder / "quantgui_de.ts", folder / "quantgui_de.qm"
    subprocess.run([TOOLS / "pyside6-lrelease", source, "-qm", compiled], check=True, capture_output=True, timeout=60)
    return folder


@pytest.mark.qt_log_ignore("This plugin does not support")
def test_that_a_language_chosen_in_the_preferences_is_spoken_after_the_next_start(
    qtbot: QtBot, qapp: QApplication, tmp_path: Path, german: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("quantgui.gui.languages.translations", lambda: german)

    def started() -> MainWindow:
        settings = make_settings(tmp_path / "settings.ini")
        installed = install_language(qapp, str(settings.value("language", "en")))
        window = MainWindow(make_session(tmp_path / "state")[0], settings)
        qtbot.addWidget(window, before_close_func=lambda w: w.session.close())
        window.installed = installed
        return window

    first = started()
    assert first.actions_by_id["open"].text() == "&Open network…"
    first.actions_by_id["preferences"].trigger()
    dialog = first.commands.preferences.dialog
    dialog.language.setCurrentText("Deutsch")
    dialog.language.activated.emit(dialog.language.currentIndex())
    assert "start it again" in dialog.note.text()
    # Nothing half translated meanwhile.
    assert first.actions_by_id["open"].text() == "&Open network…"
    dialog.close()
    second = started()
    try:
        assert second.commands.preferences.language == "de"
        assert second.actions_by_id["open"].text() == "Netz &öffnen …"
        assert second.menuBar().actions()[0].text() == "&Datei"
        assert second.tabs.tabText(0) == "Gewichte"
        assert second.docks["layers"].windowTitle() == "Schichten"
    finally:
        for translator in second.installed:
            qapp.removeTranslator(translator)


def test_that_languages_are_those_with_a_file_and_one_that_has_gone_is_forgotten(qtbot: QtBot, tmp_path: Path) -> None:
    assert languages(tmp_path) == (Language("en", "English"),)
    for code in ("kn", "pt_BR"):
        (tmp_path / f"quantgui_{code}.qm").write_bytes(b"")
    known = languages(tmp_path)
    assert [each.code for each in known] == ["en", "kn", "pt_BR"]
    assert all(each.name for each in known)
    assert code_in_use("kn", known) == "kn"
    assert code_in_use("fr", known) == "system"
    dialog = PreferencesDialog("dark", known, "kn")
    qtbot.addWidget(dialog)
    assert dialog.language.currentData() == "kn"
    assert dialog.language.count() == 4
