"""The switch of the exporter in the dialog, on a network that needs it, with the real engine."""

from __future__ import annotations

from pathlib import Path

import pytest
from PySide6.QtCore import Qt
from windows import open_window, real_session

pytestmark = [pytest.mark.qt_log_ignore("This plugin does not support"), pytest.mark.timeout(240)]
PATIENCE = 120_000
CODE = str(Path(__file__).parents[1] / "pytorch_calls.py")


def test_that_the_old_exporter_chosen_in_the_dialog_keeps_time_free(qtbot, qapp, tmp_path) -> None:
    session = real_session(tmp_path)
    window = open_window(qtbot, session, tmp_path)
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
