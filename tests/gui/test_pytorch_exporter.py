"""The switch of the exporter in the dialog, on a network that needs it, with the real engine."""

from __future__ import annotations

from pathlib import Path

import pytest
from PySide6.QtCore import Qt

from quantgui.engine.client import EngineClient
from quantgui.gui.app import make_settings
from quantgui.gui.commands import Answer
from quantgui.gui.dialogs.files import FileChooser
from quantgui.gui.main_window import MainWindow
from quantgui.session.session import Session

pytestmark = [pytest.mark.qt_log_ignore("This plugin does not support"), pytest.mark.timeout(240)]
PATIENCE = 120_000
CODE = str(Path(__file__).parents[1] / "pytorch_calls.py")


def test_that_the_old_exporter_chosen_in_the_dialog_keeps_time_free(qtbot, qapp, tmp_path) -> None:
    session = Session(EngineClient, tmp_path / "state")
    window = MainWindow(session, make_settings(tmp_path / "layout.ini"), FileChooser())
    window.commands.ask_to_save = lambda: Answer.DISCARD
    qtbot.addWidget(window, before_close_func=lambda w: w.session.close())
    with qtbot.waitExposed(window):
        window.show()
    frozen = {}
    for exporter in ("dynamo", "old"):
        window.commands.pytorch.ask()
        dialog = window.commands.pytorch.dialog
        dialog.code.setText(CODE)
        dialog.factory.setText("steps")
        dialog.axes.setText("0,1")
        dialog.exporter.setCurrentIndex(dialog.exporter.findData(exporter))
        dialog.trust.setChecked(True)
        with qtbot.waitSignal(session.network_opened, timeout=PATIENCE):
            qtbot.mouseClick(dialog.open_button, Qt.MouseButton.LeftButton)
        assert session.summary.conversion.exporter == exporter
        frozen[exporter] = session.summary.conversion.frozen
    assert frozen == {"dynamo": ("axis 1 of 'x' at 4",), "old": ()}
    window.close()
