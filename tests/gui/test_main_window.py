"""The whole window with the real engine and a sample network."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from PySide6.QtCore import QMimeData, QPointF, QSettings, Qt, QUrl
from PySide6.QtGui import QDropEvent, QKeySequence
from PySide6.QtWidgets import (
    QAbstractButton,
    QAbstractItemView,
    QAbstractSpinBox,
    QApplication,
    QComboBox,
    QDialog,
    QFrame,
    QLineEdit,
    QTabBar,
    QTextEdit,
    QWidget,
)
from windows import PathChooser, open_window, real_session

from quantgui.gui.actions import ACTIONS, MENUS
from quantgui.gui.app import ERROR_INTERVAL_SECONDS, ExceptionHook
from quantgui.gui.dialogs.help import HelpDialog
from quantgui.gui.main_window import MainWindow
from quantgui.gui.menus import plain_text, shortcut_text, shortcuts_page
from quantgui.gui.models.layers import Column
from quantgui.gui.presenters.configuration_file import Answer
from quantgui.gui.theme import apply_theme
from quantgui.results import Advice
from quantgui.session.recent import RecentFile
from quantgui.session.samples import read_samples
from quantgui.spec.config import QuantConfig
from quantgui.spec.presets import PRESETS, find_preset
from quantgui.spec.serialization import load_config

pytestmark = pytest.mark.qt_log_ignore("This plugin does not support")
PATIENCE = 60_000
SAMPLE = read_samples()[0]
ROOT = Path(__file__).parents[2]


def make_window(qtbot, folder: Path) -> MainWindow:
    return open_window(qtbot, real_session(folder), folder, chooser=PathChooser())


@pytest.fixture
def window(qtbot, qapp, tmp_path):
    apply_theme(qapp, "dark")
    window = make_window(qtbot, tmp_path)
    yield window
    window.close()


@pytest.fixture
def opened(window, qtbot):
    with qtbot.waitSignal(window.session.network_opened, timeout=PATIENCE):
        window.welcome.sample_chosen.emit(SAMPLE)
    qtbot.waitUntil(lambda: window.session.data is not None, timeout=PATIENCE)
    return window


def settled(qtbot, window) -> None:
    def idle() -> bool:
        session = window.session
        return session.engine_state == "ready" and not any(job.is_active for job in session.jobs)

    qtbot.waitUntil(idle, timeout=PATIENCE)
    QApplication.processEvents()


# --- the loop ----------------------------------------------------------------------------------------------------


def test_that_one_click_on_a_sample_gives_a_picture_and_its_quality(window, qtbot) -> None:
    button = next(b for b in window.welcome.findChildren(QAbstractButton) if SAMPLE.title in b.accessibleName())
    qtbot.mouseClick(button, Qt.MouseButton.LeftButton)
    session = window.session
    qtbot.waitUntil(lambda: session.current_view is not None, timeout=PATIENCE)
    qtbot.waitUntil(lambda: session.evaluation is not None and session.evaluation.complete, timeout=PATIENCE)
    settled(qtbot, window)
    assert window.panels.weights.isVisible()
    assert window.panels.layers.table.model().rowCount() == len(session.summary.layers)
    assert "accuracy" in window.panels.status.quality_label.text()
    assert session.recent.entries()[0].network == SAMPLE.network


def test_that_keys_set_bits_and_size_and_quality_follow(opened, qtbot) -> None:
    window, session = opened, opened.session
    settled(qtbot, window)
    table = window.panels.layers.table
    table.setFocus()
    table.selectAll()
    assert len(session.selection) == len(session.summary.layers)
    before = window.panels.status.size_label.text()
    qtbot.keyClick(table, Qt.Key.Key_2)
    assert session.undo_stack.count() == 1
    assert "→" in window.panels.status.size_label.text()
    assert window.panels.status.size_label.text() != before
    assert "…" in window.panels.status.quality_label.text()
    settled(qtbot, window)
    assert session.evaluation.complete
    assert session.evaluation.quantized_score.value < session.evaluation.float_score.value
    assert "±" in window.panels.status.quality_label.text()
    assert len(session.tried) == 2
    for row in range(table.model().rowCount()):
        assert table.model().index(row, Column.SQNR).data()


def test_that_keys_set_bits_beside_the_table_and_never_where_text_is_typed(opened, qtbot) -> None:
    window, session = opened, opened.session
    settled(qtbot, window)
    window.panels.weights.histogram.setFocus()
    qtbot.keyClick(window.panels.weights.histogram, Qt.Key.Key_4)
    assert session.spec_for(session.current.name).weights.bits == 4
    line = window.panels.layers.filter
    line.setFocus()
    qtbot.keyClick(line, Qt.Key.Key_5)
    assert line.text() == "5"
    assert session.undo_stack.count() == 1


def test_that_changing_the_tab_does_not_pass_the_focus_on_to_the_filter(opened, qtbot) -> None:
    window = opened
    settled(qtbot, window)
    window.activateWindow()
    qtbot.waitUntil(window.isActiveWindow, timeout=5000)
    window.panels.weights.histogram.setFocus()
    for name in ("tab_activations", "tab_channels", "tab_graph", "tab_weights"):
        window.actions_by_id[name].trigger()
        settled(qtbot, window)
        assert window.focusWidget() is window.tabs.tabBar()


def test_that_what_is_stopped_is_called_not_evaluated(opened, qtbot) -> None:
    window, session = opened, opened.session
    settled(qtbot, window)
    session.evaluates_automatically = False
    window.presenter.apply_preset(find_preset("W8A8"))
    assert "not evaluated" in window.panels.status.quality_label.text()
    session.evaluate()
    assert window.panels.status.quality_label.text().endswith("…")
    session.cancel("evaluate")
    settled(qtbot, window)
    assert "not evaluated" in window.panels.status.quality_label.text()


def test_that_ctrl_z_undoes_while_a_line_has_the_focus(opened, qtbot) -> None:
    window, session = opened, opened.session
    window.presenter.apply_preset(find_preset("W4"))
    window.activateWindow()
    line = window.panels.layers.filter
    qtbot.waitUntil(window.isActiveWindow, timeout=5000)
    line.setFocus()
    qtbot.keyClicks(line, "conv")
    qtbot.keyClick(line, Qt.Key.Key_Z, Qt.KeyboardModifier.ControlModifier)
    assert session.config == QuantConfig()
    assert line.text() == "conv"
    assert "Undone: Preset W4" in window.panels.status.currentMessage()


def test_that_a_dragged_limit_becomes_a_fixed_range_in_one_step(opened, qtbot) -> None:
    window, session = opened, opened.session
    window.presenter.apply_preset(find_preset("W8"))
    name = session.current.name
    steps = session.undo_stack.count()
    window.panels.weights.limits_chosen.emit(-0.25, 0.5)
    estimator = session.spec_for(name).weights.range_estimator
    assert (estimator.low, estimator.high) == (-0.25, 0.5)
    assert session.undo_stack.count() == steps + 1


def test_that_applying_to_similar_reaches_all_of_the_operator_and_no_other(opened) -> None:
    window, session = opened, opened.session
    window.panels.layers.format_chosen.emit(find_preset("W6").spec.weights.format)
    window.panels.inspector.similar.click()
    bits = {
        layer.op: {session.spec_for(x.name).weights for x in session.summary.layers if x.op == layer.op}
        for layer in session.summary.layers
    }
    assert {spec.bits for spec in bits[session.current.op]} == {6}
    assert all(specs == {None} for op, specs in bits.items() if op != session.current.op)


def test_that_a_point_tried_brings_its_configuration_back(opened, qtbot) -> None:
    window, session = opened, opened.session
    settled(qtbot, window)
    window.presenter.apply_preset(find_preset("W4"))
    settled(qtbot, window)
    window.panels.trade_off.point_picked.emit(0)
    assert session.config == QuantConfig()
    assert session.undo_stack.undoText() == "Return to float32"
    assert session.evaluation.complete


def test_that_activations_are_measured_when_their_tab_is_looked_at(opened, qtbot) -> None:
    window, session = opened, opened.session
    settled(qtbot, window)
    assert not session.store.activations
    window.actions_by_id["tab_activations"].trigger()
    qtbot.waitUntil(lambda: session.store.calibrated, timeout=PATIENCE)
    assert session.store.activation(session.current.input_tensor) is not None


def test_that_export_and_verification_go_through_their_dialogs(opened, qtbot, tmp_path) -> None:
    window, session = opened, opened.session
    window.presenter.apply_preset(find_preset("W8A8"))
    settled(qtbot, window)
    window.actions_by_id["export"].trigger()
    dialog = window.commands.exports.dialog
    assert "10 of 10 layers" in dialog.summary.text()
    dialog.path.setText(str(tmp_path / "out.onnx"))
    with qtbot.waitSignal(session.exported, timeout=PATIENCE):
        dialog.export_button.click()
    assert "opset" in dialog.status.text()
    with qtbot.waitSignal(session.verified, timeout=PATIENCE):
        dialog.verify_button.click()
    shown = window.commands.exports.verification
    assert "out.onnx" in shown.heading.text()
    assert shown.table.rowCount() > 0
    assert "±" in shown.deployed.text()
    last = shown.table.rowCount() - 1
    shown.table.setCurrentCell(last, 0)
    qtbot.keyClick(shown.table, Qt.Key.Key_Return)
    assert session.selection == (shown.table.item(last, 0).text(),)
    shown.close()
    dialog.close()


def test_that_a_failed_export_is_mended_by_the_keyboard_and_its_sentence_goes(opened, qtbot, tmp_path) -> None:
    window, session = opened, opened.session
    session.set_config(QuantConfig(find_preset("W8").spec, name="a/b, mended"), "Name it")
    settled(qtbot, window)
    window.actions_by_id["export"].trigger()
    dialog = window.commands.exports.dialog
    assert Path(dialog.path.text()).name == f"{Path(SAMPLE.network).stem}.a-b-mended.onnx"
    dialog.path.setText(str(tmp_path / "nowhere" / "out.onnx"))
    with qtbot.waitSignal(session.failed, timeout=PATIENCE):
        qtbot.keyClick(dialog.path, Qt.Key.Key_Return)
    assert window.notice.sentence() == dialog.status.text()
    assert dialog.focusWidget() is dialog.path
    dialog.path.setText(str(tmp_path / "out.onnx"))
    with qtbot.waitSignal(session.exported, timeout=PATIENCE):
        qtbot.keyClick(dialog.path, Qt.Key.Key_Return)
    settled(qtbot, window)
    assert window.notice.sentence() == ""
    assert dialog.focusWidget() is dialog.verify_button
    dialog.close()


# --- data, files, drops ------------------------------------------------------------------------------------------


def test_that_the_data_dialog_opens_random_numbers_and_says_not_to_trust_them(opened, qtbot) -> None:
    window = opened
    window.actions_by_id["data"].trigger()
    dialog = window.commands.data.dialog
    assert "picture" in dialog._inputs.text()
    dialog.from_random.click()
    dialog.samples.setValue(6)
    with qtbot.waitSignal(window.session.data_opened, timeout=PATIENCE):
        dialog.open_button.click()
    assert "trusted" in dialog.status.text()
    settled(qtbot, window)
    assert "do not trust" in window.panels.status.quality_label.text()
    dialog.close()


def test_that_data_and_metric_are_two_questions_and_return_answers_each(opened, qtbot, tmp_path) -> None:
    window = opened
    settled(qtbot, window)
    source = window.session.data.source
    (tmp_path / "mine.py").write_text("def metric(outputs, labels):\n    return outputs.max(axis=1)\n")
    window.actions_by_id["data"].trigger()
    dialog = window.commands.data.dialog
    dialog._metric_own.click()
    assert dialog.from_file.isChecked()
    assert not dialog._metric_automatic.isChecked()
    dialog.metric_line.setText(str(tmp_path / "mine.py:metric"))
    qtbot.keyClick(dialog.metric_line, Qt.Key.Key_Return)
    qtbot.waitUntil(lambda: window.session.metric.endswith("mine.py:metric"), timeout=PATIENCE)
    assert window.session.data.source == source
    dialog.path.setText("")
    qtbot.keyClicks(dialog.path, "nowhere.npz")
    assert dialog.status.text() == ""
    with qtbot.waitSignal(window.session.failed, timeout=PATIENCE):
        qtbot.keyClick(dialog.path, Qt.Key.Key_Return)
    assert "nowhere.npz" in dialog.status.text()
    dialog.close()


def test_that_data_that_does_not_fit_is_explained_and_the_open_data_stays(opened, qtbot, tmp_path) -> None:
    window = opened
    (tmp_path / "wrong.npz").write_bytes(b"no zip")
    before = window.session.data
    window.actions_by_id["data"].trigger()
    dialog = window.commands.data.dialog
    dialog.path.setText(str(tmp_path / "wrong.npz"))
    with qtbot.waitSignal(window.session.failed, timeout=PATIENCE) as failed:
        dialog.open_button.click()
    assert dialog.status.text() == failed.args[0]
    assert window.session.data == before
    dialog.close()


def test_that_image_options_are_shown_for_correction_and_applied(opened, qtbot, tmp_path) -> None:
    from PySide6.QtGui import QColor, QImage

    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(3):
        image = QImage(40, 30, QImage.Format.Format_RGB32)
        image.fill(QColor(number * 80, 90, 100))
        assert image.save(str(folder / f"{number}.png"))
    window = opened
    window.actions_by_id["data"].trigger()
    dialog = window.commands.data.dialog
    window.commands._chooser.path = str(folder)
    with qtbot.waitSignal(window.session.data_opened, timeout=PATIENCE):
        dialog.folder_button.click()
    assert dialog._image_box.isVisible()
    assert (dialog.images.height_box.value(), dialog.images.width_box.value()) == (28, 28)
    dialog.images.mean.setText("a half")
    dialog.apply_images.click()
    assert "Mean" in dialog.status.text()
    dialog.images.mean.setText("0.5")
    with qtbot.waitSignal(window.session.data_opened, timeout=PATIENCE):
        dialog.apply_images.click()
    assert window.session.data.image_options.mean == (0.5,)
    dialog.close()


def test_that_a_file_that_is_no_network_gives_a_sentence_and_the_window_goes_on(opened, qtbot, tmp_path) -> None:
    window = opened
    (tmp_path / "broken.onnx").write_bytes(b"\x08\x07 this is no network")
    with qtbot.waitSignal(window.session.failed, timeout=PATIENCE):
        window.commands.open_path(str(tmp_path / "broken.onnx"))
    assert window.notice.sentence().endswith(".")
    assert window.session.summary is not None
    window.presenter.apply_preset(find_preset("W8"))
    settled(qtbot, window)
    assert window.session.evaluation.complete
    window.notice.dismiss.click()
    assert window.notice.sentence() == ""


def drop(window: MainWindow, *paths: str) -> None:
    mime = QMimeData()
    mime.setUrls([QUrl.fromLocalFile(path) for path in paths])
    none = Qt.KeyboardModifier.NoModifier
    event = QDropEvent(QPointF(10, 10), Qt.DropAction.CopyAction, mime, Qt.MouseButton.LeftButton, none)
    window.dropEvent(event)


def test_that_a_network_and_its_data_can_be_dropped_together(window, qtbot) -> None:
    drop(window, SAMPLE.calibration)
    assert "network" in window.notice.sentence()
    with qtbot.waitSignal(window.session.data_opened, timeout=PATIENCE):
        drop(window, SAMPLE.evaluation, SAMPLE.network)
    assert window.session.summary.path == SAMPLE.network


def test_that_configurations_are_saved_loaded_and_wrong_names_reported(opened, qtbot, tmp_path) -> None:
    window, session = opened, opened.session
    window.commands._chooser.path = str(tmp_path / "mine.json")
    window.presenter.apply_preset(find_preset("W4"))
    assert window.isWindowModified()
    window.actions_by_id["save_config"].trigger()
    assert not window.isWindowModified()
    assert load_config(tmp_path / "mine.json") == session.config
    assert "mine.json" in window.windowTitle()
    text = (tmp_path / "mine.json").read_text().replace('"layers": {}', '"layers": {"/head/Gem": {}}')
    (tmp_path / "other.json").write_text(text)
    window.commands._chooser.path = str(tmp_path / "other.json")
    window.actions_by_id["load_config"].trigger()
    assert "/head/Gemm" in window.notice.sentence()
    window.commands._chooser.path = str(tmp_path / "mine.json")
    window.actions_by_id["load_config"].trigger()
    assert window.notice.sentence() == ""


# --- what must not be lost ---------------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
def test_that_the_window_survives_a_killed_engine_and_goes_on(opened, qtbot) -> None:
    window, session = opened, opened.session
    settled(qtbot, window)
    window.presenter.apply_preset(find_preset("W4"))
    settled(qtbot, window)
    with qtbot.waitSignal(session.failed, timeout=PATIENCE):
        os.kill(session.engine.process_id, signal.SIGKILL)
    assert "again" in window.notice.sentence()
    assert session.undo_stack.canUndo()
    qtbot.waitUntil(lambda: session.engine_state == "ready", timeout=PATIENCE)
    window.presenter.apply_preset(find_preset("W8"))
    settled(qtbot, window)
    assert session.evaluation.complete


@pytest.mark.parametrize(("answer", "closes"), [(Answer.SAVE, True), (Answer.DISCARD, True), (Answer.CANCEL, False)])
def test_that_an_unsaved_configuration_is_not_left_without_asking(opened, qtbot, tmp_path, answer, closes) -> None:
    window = opened
    asked = []

    def ask() -> Answer:
        asked.append(1)
        return answer

    window.commands._chooser.path = str(tmp_path / "kept.json")
    window.commands.configuration_file.ask_to_save = ask
    window.presenter.apply_preset(find_preset("W4"))
    assert window.close() == closes
    assert asked == [1]
    assert (tmp_path / "kept.json").exists() == (answer is Answer.SAVE)
    window.commands.configuration_file.ask_to_save = lambda: Answer.DISCARD


def test_that_nothing_is_asked_where_nothing_would_be_lost(opened) -> None:
    def ask() -> Answer:
        raise AssertionError("asked")

    opened.commands.configuration_file.ask_to_save = ask
    assert opened.close()


def test_that_the_layers_get_their_width_back_when_the_window_grows_again(opened, qtbot) -> None:
    window = opened
    window.resize(1440, 860)
    window.actions_by_id["reset_layout"].trigger()
    QApplication.processEvents()
    wide = window.docks["layers"].width()
    window.resize(1024, 640)
    qtbot.waitUntil(lambda: window.docks["layers"].width() < wide, timeout=5000)
    window.resize(1440, 860)
    qtbot.waitUntil(lambda: window.docks["layers"].width() == wide, timeout=5000)


def test_that_paths_are_kept_as_they_are_found_from_any_folder(window, qtbot, tmp_path, monkeypatch) -> None:
    shutil.copytree(Path(SAMPLE.network).parent, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    with qtbot.waitSignal(window.session.data_opened, timeout=PATIENCE):
        window.session.open_network(Path(SAMPLE.network).name, Path(SAMPLE.evaluation).name)
    assert window.session.summary.path == str(tmp_path / "here" / Path(SAMPLE.network).name)
    assert window.session.data.source == str(tmp_path / "here" / Path(SAMPLE.evaluation).name)


def test_that_layout_and_look_are_kept_in_the_settings(qtbot, qapp, tmp_path) -> None:
    window = make_window(qtbot, tmp_path)
    with qtbot.waitSignal(window.session.network_opened, timeout=PATIENCE):
        window.session.open_network(SAMPLE.network)
    window.docks["jobs"].hide()
    window.commands.preferences.set_scheme("light")
    window.close()
    settings = QSettings(str(tmp_path / "layout.ini"), QSettings.Format.IniFormat)
    assert settings.value("scheme") == "light"
    assert settings.contains("geometry")
    again = make_window(qtbot, tmp_path)
    with qtbot.waitSignal(again.session.network_opened, timeout=PATIENCE):
        again.session.open_network(SAMPLE.network)
    assert again.docks["jobs"].isHidden()
    again.actions_by_id["reset_layout"].trigger()
    qtbot.waitUntil(again.docks["jobs"].isVisible)
    again.close()


def test_that_an_unexpected_error_is_told_once_logged_and_survived(window, qtbot, caplog) -> None:
    clock = [100.0]
    hook = ExceptionHook(window, lambda: clock[0])
    for _ in range(50):
        try:
            raise ZeroDivisionError("a bug")
        except ZeroDivisionError as error:
            hook(type(error), error, error.__traceback__)
    assert hook.count == 50
    assert hook.dialog.isVisible()
    assert "ZeroDivisionError: a bug" in hook.dialog.sentence.text()
    assert "Traceback" in hook.dialog.details.toPlainText()
    assert len(caplog.records) == 50
    hook.dialog.close()
    hook(ValueError, ValueError("soon"), None)
    assert not hook.dialog.isVisible()
    clock[0] += ERROR_INTERVAL_SECONDS
    hook(ValueError, ValueError("later"), None)
    assert hook.dialog.isVisible()
    hook.dialog.close()


# --- actions, help, accessibility --------------------------------------------------------------------------------


@pytest.mark.parametrize("spec", ACTIONS, ids=lambda spec: spec.id)
def test_that_every_action_explains_itself_in_a_sentence(spec) -> None:
    assert spec.help.endswith(".")
    assert spec.menu in MENUS


def test_that_every_action_has_a_handler_and_a_key_of_its_own(window) -> None:
    assert set(window.commands.handlers()) == {spec.id for spec in ACTIONS}
    keys = [QKeySequence(spec.shortcut).toString() for spec in ACTIONS if spec.shortcut]
    assert len(keys) == len(set(keys))
    assert all(keys)


def test_that_what_is_not_possible_is_disabled_and_says_why(window, qtbot) -> None:
    for spec in ACTIONS:
        action = window.actions_by_id[spec.id]
        assert action.toolTip()
        if spec.needs:
            assert not action.isEnabled()
            assert "\n" in action.toolTip()
    assert "Open a network first." in window.actions_by_id["export"].toolTip()
    with qtbot.waitSignal(window.session.network_opened, timeout=PATIENCE):
        window.session.open_network(SAMPLE.network)
    qtbot.waitUntil(window.actions_by_id["export"].isEnabled, timeout=5000)
    assert "Open data first" in window.actions_by_id["evaluate"].toolTip()


def test_that_the_page_of_keys_names_every_key() -> None:
    page = shortcuts_page()
    for spec in ACTIONS:
        if shortcut_text(spec):
            assert f"`{shortcut_text(spec)}`" in page


def test_that_the_help_shows_every_page(qtbot) -> None:
    dialog = HelpDialog()
    qtbot.addWidget(dialog)
    titles = [dialog.pages.item(row).text() for row in range(dialog.pages.count())]
    assert titles[0] == "Getting started"
    assert len(titles) == len(set(titles)) == len(list((ROOT / "resources" / "help").glob("*.md"))) + 1
    for row in range(dialog.pages.count()):
        dialog.pages.setCurrentRow(row)
        assert len(dialog.text.toPlainText()) > 100


def test_that_search_finds_layers_actions_and_presets(opened, qtbot) -> None:
    window = opened
    window.actions_by_id["search"].trigger()
    dialog = window.commands.search_dialog
    qtbot.keyClicks(dialog.line, "head gemm")
    qtbot.keyClick(dialog.line, Qt.Key.Key_Return)
    assert not dialog.isVisible()
    assert window.session.current.name == "/head/Gemm"
    window.actions_by_id["search"].trigger()
    qtbot.keyClicks(dialog.line, "w4a8")
    qtbot.keyClick(dialog.line, Qt.Key.Key_Return)
    assert window.session.config.name == "W4A8"
    window.actions_by_id["search"].trigger()
    qtbot.keyClicks(dialog.line, plain_text(next(spec for spec in ACTIONS if spec.id == "undo")))
    qtbot.keyClick(dialog.line, Qt.Key.Key_Return)
    assert window.session.config == QuantConfig()


@pytest.mark.parametrize("preset", PRESETS[1:4], ids=lambda preset: preset.name)
def test_that_presets_leave_what_must_stay_float(opened, preset) -> None:
    action = next(a for a in opened.toolbar.presets.presets_menu.actions() if a.text() == preset.name)
    assert action.toolTip() == preset.help
    action.trigger()
    assert opened.session.config.name == preset.name
    assert opened.session.undo_stack.undoText() == f"Preset {preset.name}"


def focusable(root: QWidget):
    for widget in [root, *root.findChildren(QWidget)]:
        inside = isinstance(widget.parent(), QLineEdit | QComboBox | QAbstractSpinBox)
        if widget.focusPolicy() == Qt.FocusPolicy.NoFocus or inside or widget.objectName().startswith("qt_"):
            continue
        if widget.isHidden() or isinstance(widget.window(), QFrame):  # lists of combo boxes are frames
            continue
        if isinstance(widget, QAbstractButton) and isinstance(widget.parent(), QTabBar):
            continue
        yield widget


NAMED = QAbstractButton | QLineEdit | QComboBox | QAbstractSpinBox | QAbstractItemView | QTextEdit | QTabBar
EXPLAINED = QAbstractButton | QLineEdit | QComboBox | QAbstractSpinBox


def test_that_everything_that_takes_the_focus_has_a_name_and_a_tooltip(opened, qtbot) -> None:
    window = opened
    window.presenter.apply_preset(find_preset("W4A16-g32"))
    settled(qtbot, window)
    for name in ("data", "export", "help", "preferences"):
        window.actions_by_id[name].trigger()
    dialogs = [d for d in window.findChildren(QDialog) if d.isVisible()]
    assert len(dialogs) == 4
    advice = Advice(window.session.config, "Keep some float.", ("/head/Gemm",), QuantConfig())
    window.panels.inspector.advice.show_advice(advice)
    window.notice.show_sentence("The engine stopped.", "failure", "Restart")
    window.welcome.show_recent([RecentFile(SAMPLE.network, SAMPLE.evaluation)])
    nameless, silent = [], []
    for widget in focusable(window):
        if isinstance(widget, NAMED) and not widget.accessibleName():
            nameless.append(f"{type(widget).__name__} in {type(widget.parent()).__name__} {widget.objectName()}")
        if isinstance(widget, EXPLAINED) and not widget.toolTip():
            silent.append(f"{type(widget).__name__} {widget.accessibleName()} in {type(widget.parent()).__name__}")
    for dialog in dialogs:
        dialog.close()
    assert "\n".join(nameless + silent) == ""


# --- the process -------------------------------------------------------------------------------------------------


def test_that_the_window_opens_a_sample_without_loading_what_computes(tmp_path) -> None:
    script = f"""
import sys
from pathlib import Path
from PySide6.QtCore import QTimer
from PySide6.QtWidgets import QApplication
import quantgui.gui.app as app

def end(window):
    heavy = [name for name in ("torch", "onnx", "onnxruntime", "scipy") if name in sys.modules]
    print("loaded:", *heavy)
    window.close()

start = app.start
def start_and_watch(window, *what):
    start(window, *what)
    window.session.weight_view_ready.connect(lambda _: QTimer.singleShot(0, lambda: end(window)))
app.start = start_and_watch
folder = Path({str(tmp_path)!r})
code = app.run_app({SAMPLE.network!r}, None, argv=["quantgui"], settings_path=folder / "s.ini", folder=folder)
print("code:", code)
"""
    environment = {**os.environ, "QT_QPA_PLATFORM": "offscreen"}
    result = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=90
    )
    assert result.stdout.split() == ["loaded:", "code:", "0"], result.stderr


def test_that_all_buttons_of_the_toolbar_are_in_sight_however_long_the_words(window) -> None:
    for action in window.actions_by_id.values():
        action.setIconText(f"{action.iconText()} in a language of long words")
    window.resize(1280, 720)
    QApplication.processEvents()
    for name in ("open", "export", "search", "theme"):
        button = window.toolbar.widgetForAction(window.actions_by_id[name])
        assert button.isVisible()
        assert button.geometry().right() <= window.toolbar.width()
