"""Another tool's quantized network beside one's own: the dialog, and the way there in the whole window."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static
from PySide6.QtCore import QAbstractItemModel, Qt
from PySide6.QtTest import QAbstractItemModelTester
from sessions import evaluation
from windows import open_window, real_session

from quantgui.gui.dialogs.network_comparison import NetworkComparisonDialog, Sizes
from quantgui.gui.main_window import MainWindow
from quantgui.gui.models.network_comparison import OtherColumn
from quantgui.results import LayerComparison, NetworkComparison, Progress
from quantgui.session.samples import read_samples
from quantgui.spec.config import QuantConfig
from quantgui.spec.presets import find_preset, preset_config

pytestmark = pytest.mark.qt_log_ignore("This plugin does not support")
PATIENCE = 60_000
SAMPLE = read_samples()[0]
LAYERS = (
    LayerComparison("conv1", "int4", "int8 / uint8", 20.0, 41.5),
    LayerComparison("conv2", "int4", "int4", 18.0, 17.0),
    LayerComparison("fc", "float32", "int8", math.nan, math.nan),
)


def comparison(**changes) -> NetworkComparison:
    values = {"unknown": (), "notes": ()} | changes
    own, other = evaluation(0.9), evaluation(0.94)
    return NetworkComparison("/x/theirs.onnx", QuantConfig(), QuantConfig(), own, other, LAYERS, 70_000, **values)


@pytest.fixture
def dialog(qtbot) -> NetworkComparisonDialog:
    result = NetworkComparisonDialog()
    qtbot.addWidget(result)
    result.show()
    return result


def column(model: QAbstractItemModel, place: OtherColumn) -> list[str]:
    return [model.index(row, place).data() for row in range(model.rowCount())]


def test_that_numbers_stand_side_by_side_and_layers_can_be_sorted(dialog, qtbot) -> None:
    tester = QAbstractItemModelTester(dialog.model, QAbstractItemModelTester.FailureReportingMode.Fatal)
    dialog.show_comparison(comparison(), Sizes(own=60_000, other=66_000, float_=240_000))
    assert (dialog.own.bytes.text(), dialog.other.bytes.text()) == ("60.0 KB", "70.0 KB")
    assert "66.0 KB" in dialog.other.bytes.toolTip()
    assert dialog.own.quality.text() != dialog.other.quality.text()
    assert "2 of 3" in dialog.summary.text()
    assert column(dialog.model, OtherColumn.DIFFERENCE) == ["+21.5 dB", "−1.0 dB", "–"]
    for order, names in (
        (Qt.SortOrder.AscendingOrder, ["conv2", "conv1", "fc"]),
        (Qt.SortOrder.DescendingOrder, ["conv1", "conv2", "fc"]),
    ):
        dialog.table.sortByColumn(OtherColumn.DIFFERENCE, order)
        assert column(dialog.model, OtherColumn.NAME) == names
    dialog.only.click()
    assert column(dialog.model, OtherColumn.NAME) == ["conv1", "fc"]
    picked = []
    dialog.layer_picked.connect(picked.append)
    cell = dialog.table.visualRect(dialog.model.index(1, OtherColumn.NAME)).center()
    qtbot.mouseClick(dialog.table.viewport(), Qt.MouseButton.LeftButton, pos=cell)
    assert picked == ["fc"]
    tester.deleteLater()


def test_that_names_that_match_nothing_are_told(dialog) -> None:
    dialog.show_comparison(comparison(), Sizes(1, 1, 1))
    assert dialog.unknown.isHidden()
    dialog.show_comparison(comparison(unknown=("'x' is no layer.",), notes=("A note.",)), Sizes(1, 1, 1))
    assert dialog.unknown.isVisible()
    assert dialog.unknown.toPlainText() == "'x' is no layer.\nA note."


def test_that_a_comparison_under_way_can_be_stopped_and_a_failure_is_a_sentence(dialog) -> None:
    stopped = []
    dialog.cancel_requested.connect(lambda: stopped.append(True))
    dialog.show_progress("/x/theirs.onnx", Progress(3, 10, "Running both networks"))
    assert "3 / 10" in dialog.progress.text()
    assert not dialog.file.isEnabled()
    dialog.progress.stop.click()
    assert stopped == [True]
    dialog.show_stopped()
    assert dialog.progress.isHidden()
    assert dialog.note.text()
    dialog.show_failure("It cannot be run.")
    assert dialog.note.text() == "It cannot be run."
    assert dialog.file.isEnabled()


# --- in the window -----------------------------------------------------------------------------------------------


class Pictures(CalibrationDataReader):
    def __init__(self) -> None:
        samples = np.load(SAMPLE.evaluation)
        name = next(key for key in samples.files if samples[key].dtype == np.float32)
        self._rows = iter([{name: samples[name][start : start + 8]} for start in (0, 8)])

    def get_next(self) -> dict | None:
        return next(self._rows, None)


@pytest.fixture(scope="module")
def theirs(tmp_path_factory) -> Path:
    # The sample network as ONNX Runtime's own quantizer makes it.
    path = tmp_path_factory.mktemp("theirs") / "theirs.onnx"
    quantize_static(SAMPLE.network, path, Pictures(), QuantFormat.QDQ, per_channel=True)
    return path


@pytest.fixture
def window(qtbot, tmp_path) -> MainWindow:
    session = real_session(tmp_path)
    result = open_window(qtbot, session, tmp_path)
    with qtbot.waitSignal(session.data_opened, timeout=PATIENCE):
        result.commands.open_sample(SAMPLE)
    return result


def test_that_a_file_of_another_tool_is_compared_and_taken_over_in_one_step(window, qtbot, theirs, monkeypatch) -> None:
    session, presenter = window.session, window.commands.network_comparison
    session.set_config(preset_config(find_preset("W4"), session.summary.layers), "four bits")
    own = session.config
    monkeypatch.setattr(window.commands._chooser, "open_file", lambda *_: str(theirs))
    qtbot.waitUntil(window.actions_by_id["compare_network"].isEnabled, timeout=PATIENCE)
    with qtbot.waitSignal(session.network_compared, timeout=PATIENCE) as answer:
        window.actions_by_id["compare_network"].trigger()
    result, dialog = answer.args[0], presenter.dialog
    assert dialog.isVisible()
    # What the file says and a configuration does not hold.
    assert result.notes
    assert dialog.unknown.toPlainText() == "\n".join((*result.unknown, *result.notes))
    assert dialog.model.rowCount() == len(session.summary.layers)
    # Four bits are worse than eight in every layer that is found in both.
    better = [each.other_sqnr_db - each.own_sqnr_db for each in result.layers if not math.isnan(each.own_sqnr_db)]
    assert len(better) > 5
    assert min(better) > 0
    cell = dialog.table.visualRect(dialog.model.index(3, OtherColumn.NAME)).center()
    qtbot.mouseClick(dialog.table.viewport(), Qt.MouseButton.LeftButton, pos=cell)
    assert session.current.name == dialog.model.layer(3).layer
    assert dialog.again.isHidden()
    steps = session.undo_stack.count()
    dialog.take.click()
    assert session.undo_stack.count() == steps + 1
    assert "theirs.onnx" in session.undo_stack.undoText()
    assert {str(session.spec_for(each.name).weights) for each in session.summary.layers} == {"int8"}
    assert not dialog.take.isEnabled()
    assert dialog.again.isVisible()
    session.undo_stack.undo()
    assert session.config == own
    assert dialog.take.isEnabled()
    session.close_network()
    assert not dialog.isVisible()


def test_that_a_comparison_can_be_stopped_in_the_window(window, qtbot, theirs, monkeypatch) -> None:
    monkeypatch.setattr(window.commands._chooser, "open_file", lambda *_: str(theirs))
    qtbot.waitUntil(window.actions_by_id["compare_network"].isEnabled, timeout=PATIENCE)
    window.actions_by_id["compare_network"].trigger()
    dialog = window.commands.network_comparison.dialog
    qtbot.waitUntil(dialog.progress.isVisible, timeout=PATIENCE)
    dialog.progress.stop.click()
    qtbot.waitUntil(lambda: "Stopped" in dialog.note.text(), timeout=PATIENCE)
    assert dialog.model.rowCount() == 0
    assert dialog.file.isEnabled()


def test_that_a_float_network_is_refused_with_a_sentence(window, qtbot, monkeypatch) -> None:
    monkeypatch.setattr(window.commands._chooser, "open_file", lambda *_: SAMPLE.network)
    qtbot.waitUntil(window.actions_by_id["compare_network"].isEnabled, timeout=PATIENCE)
    with qtbot.waitSignal(window.session.failed, timeout=PATIENCE):
        window.actions_by_id["compare_network"].trigger()
    dialog = window.commands.network_comparison.dialog
    qtbot.waitUntil(lambda: "quantized" in dialog.note.text(), timeout=PATIENCE)
    assert dialog.progress.isHidden()
