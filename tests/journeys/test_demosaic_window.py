"""The journey of the README in a real window under Xvfb, and again by the command line, with the same numbers."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import onnxruntime
import pytest
from demosaic import Material, write_material
from PySide6.QtCore import QItemSelectionModel, Qt
from PySide6.QtWidgets import QApplication
from pytestqt.qtbot import QtBot
from windows import PathChooser, open_window, real_session

from quantgui.gui.main_window import MainWindow
from quantgui.gui.theme import apply_theme
from quantgui.results import Evaluation, Verification
from quantgui.spec.serialization import save_config

pytestmark = [pytest.mark.x11, pytest.mark.network, pytest.mark.timeout(600)]
ROOT = Path(__file__).parents[2]
PATIENCE_MS = 120_000


@pytest.fixture
def material(tmp_path: Path) -> Material:
    return write_material(tmp_path)


@pytest.fixture
def window(qtbot: QtBot, qapp: QApplication, tmp_path: Path) -> Iterator[MainWindow]:
    apply_theme(qapp, "dark")
    session = real_session(tmp_path)
    window = open_window(qtbot, session, tmp_path, chooser=PathChooser(), size=(1440, 900))
    yield window
    window.close()
    session.close()


def trigger(window: MainWindow, qtbot: QtBot, action: str) -> None:
    """Trigger an action as soon as it can be."""
    qtbot.waitUntil(window.actions_by_id[action].isEnabled, timeout=PATIENCE_MS)
    window.actions_by_id[action].trigger()


def quality(window: MainWindow, qtbot: QtBot) -> Evaluation:
    """Wait until the present configuration has been evaluated on all samples."""

    def complete() -> bool:
        evaluation = window.session.evaluation
        return evaluation is not None and evaluation.complete

    qtbot.waitUntil(complete, timeout=PATIENCE_MS)
    evaluation = window.session.evaluation
    assert evaluation is not None
    return evaluation


def command_line(*arguments: str) -> dict:
    """Run the program without a window and return what it prints."""
    command = [sys.executable, "-m", "quantgui", *arguments, "--json"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def test_that_a_network_is_opened_spoiled_mended_exported_and_verified(
    window: MainWindow, qtbot: QtBot, material: Material, tmp_path: Path
) -> None:
    session, panels = window.session, window.panels
    chooser = window.commands._chooser
    assert QApplication.platformName() == "xcb"

    # open the network, then the data and one's own metric
    chooser.path = str(material.network)
    with qtbot.waitSignal(session.network_opened, timeout=PATIENCE_MS):
        trigger(window, qtbot, "open")
    trigger(window, qtbot, "data")
    dialog = window.commands.data.dialog
    dialog.path.setText(str(material.data))
    with qtbot.waitSignal(session.data_opened, timeout=PATIENCE_MS):
        qtbot.mouseClick(dialog.open_button, Qt.MouseButton.LeftButton)
    dialog._metric_own.click()
    dialog.metric_line.setText(material.metric)
    qtbot.mouseClick(dialog.metric_apply, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: session.evaluation is not None and session.evaluation.metric == "psnr", timeout=PATIENCE_MS)
    dialog.close()
    before = quality(window, qtbot)
    assert before.float_score.value == pytest.approx(before.quantized_score.value)
    assert 35 < before.float_score.value < 45

    # three layers to 4 bits: the quality falls
    table = panels.layers.table
    chosen = table.selectionModel()
    rows = QItemSelectionModel.SelectionFlag.Select | QItemSelectionModel.SelectionFlag.Rows
    chosen.clearSelection()
    for row in (2, 3, 4):
        chosen.select(table.model().index(row, 0), rows)
    assert len(session.selection) == 3
    table.setFocus()
    qtbot.keyClick(table, Qt.Key.Key_4)
    three = session.config
    assert session.undo_stack.count() == 1
    spoiled = quality(window, qtbot)
    assert spoiled.quantized_score.value < before.quantized_score.value - 1
    size_at_4_bits = session.size()

    # undo: nothing is computed again
    trigger(window, qtbot, "undo")
    assert session.evaluation is not None
    assert session.evaluation.complete
    assert session.evaluation.quantized_score == before.quantized_score

    # the preset W8A8
    next(action for action in window.toolbar.presets.presets_menu.actions() if action.text() == "W8A8").trigger()
    eight = quality(window, qtbot)
    assert eight.quantized_score.value > spoiled.quantized_score.value
    assert session.size() < size_at_4_bits

    # export, verify
    exported = tmp_path / "demosaicnet-w8a8.onnx"
    trigger(window, qtbot, "export")
    export_dialog = window.commands.exports.dialog
    export_dialog.path.setText(str(exported))
    with qtbot.waitSignal(session.exported, timeout=PATIENCE_MS):
        qtbot.mouseClick(export_dialog.export_button, Qt.MouseButton.LeftButton)
    with qtbot.waitSignal(session.verified, timeout=PATIENCE_MS) as verified:
        qtbot.mouseClick(export_dialog.verify_button, Qt.MouseButton.LeftButton)
    verification: Verification = verified.args[0]
    export_dialog.close()
    window.commands.exports.verification.close()
    assert exported.stat().st_size == verification.file_bytes
    assert verification.simulated.quantized_score.value == pytest.approx(eight.quantized_score.value, abs=1e-6)
    assert verification.deployed.quantized_score.value == pytest.approx(eight.quantized_score.value, abs=0.5)
    onnxruntime.InferenceSession(str(exported), providers=["CPUExecutionProvider"])

    # the same by the command line
    arguments = [str(material.network), "--data", str(material.data), "--metric", material.metric]
    config = tmp_path / "three.json"
    save_config(three, config)
    by_hand = command_line("evaluate", *arguments, "--config", str(config))
    assert by_hand["quantized"]["value"] == pytest.approx(spoiled.quantized_score.value, abs=1e-6)
    assert by_hand["float"]["value"] == pytest.approx(before.float_score.value, abs=1e-6)
    assert by_hand["bytes"] == size_at_4_bits
    preset = command_line("evaluate", *arguments, "--preset", "W8A8", "--as-is")
    assert preset["quantized"]["value"] == pytest.approx(eight.quantized_score.value, abs=1e-6)
    assert preset["output_sqnr_db"] == pytest.approx(eight.output_sqnr_db, abs=1e-6)
    proof = command_line("verify", str(material.network), str(exported), *arguments[1:])
    assert proof["deployed"]["value"] == pytest.approx(verification.deployed.quantized_score.value, abs=1e-6)
    assert proof["file_bytes"] == verification.file_bytes
