"""Formats and targets in the whole window, with the real engine and a sample network."""

from __future__ import annotations

import pytest
from PySide6.QtCore import Qt
from windows import open_window, real_session

from quantgui.gui.app import make_settings
from quantgui.gui.models.layers import VIOLATION_MARK
from quantgui.results import Evaluation
from quantgui.session.samples import read_samples
from quantgui.spec.presets import activation_spec, find_preset, preset_config, weight_spec
from quantgui.spec.quantizer import LayerSpec

pytestmark = pytest.mark.qt_log_ignore("This plugin does not support")
PATIENCE = 60_000
SAMPLE = read_samples()[0]


@pytest.fixture
def window(qtbot, tmp_path):
    window = open_window(qtbot, real_session(tmp_path), tmp_path)
    with qtbot.waitSignal(window.session.data_opened, timeout=PATIENCE):
        window.commands.open_sample(SAMPLE)
    qtbot.waitUntil(lambda: window.session.evaluation is not None, timeout=PATIENCE)
    return window


def evaluated(window, qtbot) -> Evaluation:
    """Wait until the present configuration has been evaluated on all samples."""
    session = window.session
    qtbot.waitUntil(lambda: session.evaluation is not None and session.evaluation.complete, timeout=PATIENCE)
    return session.evaluation


def test_that_mxfp4_for_two_layers_moves_quality_and_is_one_undo_step(window, qtbot) -> None:
    session, inspector = window.session, window.panels.inspector
    names = [layer.name for layer in session.summary.layers if session.is_editable(layer.name)][:2]
    session.select(names)
    before = evaluated(window, qtbot)
    inspector.weights.more.choices["mxfp4"].trigger()
    assert [str(session.spec_for(name).weights) for name in names] == ["mxfp4", "mxfp4"]
    assert evaluated(window, qtbot).output_sqnr_db < before.output_sqnr_db
    assert session.size() < session.summary.float_bytes
    assert "MXFP4" in session.undo_stack.undoText()
    session.undo_stack.undo()
    assert all(session.spec_for(name).weights is None for name in names)
    # It was known: nothing has to be computed for it.
    assert session.evaluation is not None
    assert session.evaluation.complete
    assert session.evaluation.quantized_score == before.quantized_score


def test_that_a_target_greys_marks_counts_and_is_remembered(window, qtbot, tmp_path) -> None:
    session, panels = window.session, window.panels
    session.set_config(preset_config(find_preset("W3-g32"), session.summary.layers), "three bits")
    assert panels.status.violations.isHidden()
    inspector = panels.inspector
    inspector.target.setCurrentText("QNN (Hexagon HTP)")
    inspector.target.activated.emit(inspector.target.currentIndex())
    assert session.target.name == "qnn"
    assert not panels.status.violations.isHidden()
    count = len(session.violations())
    assert str(count) in panels.status.violations.text()
    panels.status.violations.click()
    model = panels.model
    assert model.rowCount() == count
    assert model._mark(model.layer(0)) == VIOLATION_MARK
    assert "QNN" in model.index(0, 0).data(3)  # the tooltip
    window.toolbar.presets.refuse()
    assert not window.toolbar.presets.actions_by_name["MXFP4"].isEnabled()
    assert window.toolbar.presets.actions_by_name["W8A8"].isEnabled()
    assert not panels.sensitivity.controls.bits.button(3).isEnabled()
    session.set_config(preset_config(find_preset("W8A8"), session.summary.layers), "integers")
    assert panels.status.violations.isHidden()
    assert make_settings(tmp_path / "layout.ini").value("target") == "qnn"


def test_that_the_target_can_be_chosen_without_a_selection_and_its_refusals_are_listed(window, qtbot) -> None:
    session, panels = window.session, window.panels
    status = panels.status
    session.set_config(preset_config(find_preset("W8A8"), session.summary.layers), "integers")
    session.set_specs({"/stem/stem.0/Conv": LayerSpec(weight_spec(3), activation_spec(8))}, "three bits")
    session.select(())
    assert status.target.isVisible()
    window.actions_by_id["target"].trigger()
    qtbot.waitUntil(lambda: status.target.view().isVisible())
    status.target.hidePopup()
    status.target.setCurrentText("QNN (Hexagon HTP)")
    status.target.activated.emit(status.target.currentIndex())
    assert session.target.name == "qnn"
    # One truth, shown in two places.
    assert panels.inspector.target.currentText() == status.target.currentText()
    assert status.violations.text().startswith("1 layer")
    assert "/stem/stem.0/Conv: QNN" in status.violations.toolTip()
    qtbot.mouseClick(status.violations, Qt.MouseButton.LeftButton)
    assert panels.model.rowCount() == 1
    qtbot.mouseClick(status.violations, Qt.MouseButton.LeftButton)
    assert panels.model.rowCount() == len(session.summary.layers)
    qtbot.mouseClick(status.violations, Qt.MouseButton.LeftButton)
    session.undo_stack.undo()
    # Nothing is refused any more: all layers are seen again.
    assert status.violations.isHidden()
    assert panels.model.rowCount() == len(session.summary.layers)
    session.close_network()
    assert not status.target.isVisible()


def test_that_settings_go_to_torchao_and_come_back_in_one_undo_step(window, qtbot, tmp_path) -> None:
    session, commands = window.session, window.commands
    config = preset_config(find_preset("W8"), session.summary.layers)
    session.set_config(config, "eight bits")
    window.actions_by_id["write_settings"].trigger()
    dialog = commands.settings_files.dialog
    dialog.dialect.setCurrentText("torchao FqnToConfig")
    path = tmp_path / "torchao.json"
    dialog.path.setText(str(path))
    with qtbot.waitSignal(session.settings_written, timeout=PATIENCE):
        dialog.write.click()
    assert "torchao.json" in dialog.status.text()
    weights = {layer.name: session.spec_for(layer.name).weights for layer in session.summary.layers}
    session.undo_stack.undo()
    with qtbot.waitSignal(session.settings_read, timeout=PATIENCE):
        commands.open_files([str(path)])
    assert commands.settings_files.import_dialog.take.isEnabled()
    commands.settings_files.import_dialog.take.click()
    assert "torchao.json" in session.undo_stack.undoText()
    taken = {name: session.spec_for(name).weights for name in weights}
    assert any(taken.values())
    assert all(taken[name] is None or taken[name].bits == weights[name].bits for name in weights)
    session.undo_stack.undo()
    assert not session.quantizes


def test_that_writing_for_another_tool_can_be_stopped_and_leaves_the_old_file(window, qtbot, tmp_path) -> None:
    session, commands = window.session, window.commands
    session.set_config(preset_config(find_preset("W8A8"), session.summary.layers), "integers")
    window.actions_by_id["write_settings"].trigger()
    dialog = commands.settings_files.dialog
    dialog.dialect.setCurrentText("AIMET encodings 1.0.0")
    path = tmp_path / "aimet.json"
    path.write_text("theirs")
    dialog.path.setText(str(path))
    dialog.may_replace = lambda _: True
    dialog.write.click()
    # Before the window hears anything of it.
    dialog.stop.click()
    qtbot.waitUntil(lambda: not dialog.stop.isVisible(), timeout=PATIENCE)
    assert "Stopped" in dialog.status.text()
    assert path.read_text() == "theirs"


def test_that_a_report_is_written(window, qtbot, tmp_path, monkeypatch) -> None:
    path = tmp_path / "report.html"
    monkeypatch.setattr(window.commands._chooser, "save_file", lambda *_: str(path))
    with qtbot.waitSignal(window.session.report_written, timeout=PATIENCE):
        window.actions_by_id["report"].trigger()
    assert path.read_text(encoding="utf-8").lstrip().lower().startswith("<!doctype html")
