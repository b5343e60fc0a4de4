from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from PySide6.QtCore import QLocale
from PySide6.QtWidgets import QApplication
from pytestqt.qtbot import QtBot

from quantgui.gui.app import install_translation
from quantgui.gui.panels.jobs import JobsPanel

ROOT = Path(__file__).parents[2]
TOOLS = Path(sys.executable).parent


def test_that_texts_are_extracted_translated_and_shown(qtbot: QtBot, qapp: QApplication, tmp_path: Path) -> None:
    source, compiled = tmp_path / "quantgui_de.ts", tmp_path / "quantgui_de.qm"
    panel_file = ROOT / "quantgui" / "gui" / "panels" / "jobs.py"
    subprocess.run([TOOLS / "pyside6-lupdate", panel_file, "-ts", source], check=True, capture_output=True, timeout=60)
    text = source.read_text()
    assert "<source>Jobs</source>" in text
    translated = text.replace(
        '<source>Jobs</source>\n        <translation type="unfinished"></translation>',
        "<source>Jobs</source>\n        <translation>Aufträge</translation>",
    )
    assert translated != text
    source.write_text(translated)
    subprocess.run([TOOLS / "pyside6-lrelease", source, "-qm", compiled], check=True, capture_output=True, timeout=60)
    assert install_translation(qapp, QLocale("kn_IN"), tmp_path) is None
    translator = install_translation(qapp, QLocale("de_DE"), tmp_path)
    assert translator is not None
    panel = JobsPanel()
    qtbot.addWidget(panel)
    assert panel.tr("Jobs") == "Aufträge"
    qapp.removeTranslator(translator)
