"""The dialogs by themselves: what they ask, what they say, what they keep."""

from __future__ import annotations

from pathlib import Path

import pytest
from gui_examples import shown
from PySide6.QtCore import Qt
from PySide6.QtWidgets import QFileDialog, QWidget
from sessions import data, evaluation

from quantgui.gui.app import make_settings
from quantgui.gui.dialogs.data import DataDialog
from quantgui.gui.dialogs.export import ExportDialog
from quantgui.gui.dialogs.files import FileChooser
from quantgui.gui.dialogs.settings_files import WriteSettingsDialog
from quantgui.gui.dialogs.verification import VerificationDialog
from quantgui.results import ImageOptions, LayerDeviation, Progress, Verification
from quantgui.session.samples import read_samples
from quantgui.spec.profiles import EXPORT_PROFILES


class Chooser(FileChooser):
    """Answers with the path a user would have chosen."""

    path = ""

    def open_file(self, *_: object) -> str:
        return self.path

    def open_folder(self, *_: object) -> str:
        return self.path

    def save_file(self, *_: object) -> str:
        return self.path


# --- where the questions start -----------------------------------------------------------------------------------


def test_that_files_are_asked_for_where_the_open_network_lies(tmp_path: Path) -> None:
    chooser = FileChooser()
    assert chooser.folder == str(Path.home())
    chooser.visit(str(tmp_path / "net.onnx"))
    assert chooser.folder == str(tmp_path)
    chooser.visit(read_samples()[0].network)
    assert chooser.folder == str(tmp_path)
    chooser.visit("gone/net.onnx")
    assert chooser.folder == str(tmp_path)


def test_that_the_last_folder_is_kept_for_the_next_start_and_passed_over_where_it_is_gone(
    qtbot, tmp_path: Path, monkeypatch
) -> None:
    used = tmp_path / "used"
    used.mkdir()
    asked = []

    def answer(_parent: QWidget, _title: str, folder: str, _pattern: str) -> tuple[str, str]:
        asked.append(folder)
        return str(used / "net.onnx"), ""

    monkeypatch.setattr(QFileDialog, "getOpenFileName", answer)
    settings = tmp_path / "settings.ini"
    for _ in range(2):
        kept = make_settings(settings)
        FileChooser(kept).open_file(None, "Open", "*")
        kept.sync()
    assert asked == [str(Path.home()), str(used)]
    used.rmdir()
    assert FileChooser(make_settings(settings)).folder == str(Path.home())


# --- export ------------------------------------------------------------------------------------------------------


@pytest.fixture
def export(qtbot) -> ExportDialog:
    dialog = ExportDialog(Chooser())
    qtbot.addWidget(dialog)
    dialog.requests = []
    dialog.profiles = []
    dialog.converts = []
    dialog.export_requested.connect(
        lambda path, profile, converts: (
            dialog.requests.append(path),
            dialog.profiles.append(profile),
            dialog.converts.append(converts),
        )
    )
    return dialog


def test_that_what_a_runtime_refuses_is_converted_only_where_that_is_offered_and_chosen(export, tmp_path) -> None:
    export.show_plan(str(tmp_path / "out.onnx"), "Plan")
    assert not export.convert.isVisibleTo(export)
    export.convert.setChecked(True)
    export.export_button.click()
    export.show_plan(str(tmp_path / "out.onnx"), "Plan")
    export.profile.setCurrentIndex(export.profile.findData("tensorrt"))
    assert export.convert.isVisibleTo(export)
    export.export_button.click()
    export.show_plan(str(tmp_path / "out.onnx"), "Plan")
    export.convert.setChecked(False)
    export.export_button.click()
    assert export.converts == [False, True, False]


@pytest.mark.parametrize("agrees", [False, True])
def test_that_a_file_named_by_hand_is_replaced_only_where_the_user_agrees(export, tmp_path, agrees) -> None:
    there = tmp_path / "there.onnx"
    there.write_bytes(b"x")
    questions = []
    export.may_replace = lambda path: questions.append(path) or agrees
    export.show_plan(str(there), "Plan")
    export.export_button.click()
    assert questions == [there]
    assert export.requests == ([str(there)] if agrees else [])
    assert export.export_button.isEnabled() is not agrees


def test_that_a_folder_is_not_offered_to_be_replaced(export, tmp_path) -> None:
    export.may_replace = lambda _: pytest.fail("asked")
    export.show_plan(str(tmp_path), "Plan")
    export.export_button.click()
    assert export.requests == [str(tmp_path)]  # the engine says that it is a folder


def test_that_new_files_and_those_agreed_to_in_the_file_dialog_raise_no_question(export, tmp_path) -> None:
    there = tmp_path / "there.onnx"
    there.write_bytes(b"x")
    export.may_replace = lambda _: pytest.fail("asked")
    export.show_plan(str(tmp_path / "new.onnx"), "Plan")
    export.export_button.click()
    export.show_failure("Disk full.")
    export._chooser.path = str(there)
    export.browse.click()
    export.export_button.click()
    assert export.requests == [str(tmp_path / "new.onnx"), str(there)]


def test_that_agreeing_once_is_no_leave_for_the_next_export(export, tmp_path) -> None:
    there = tmp_path / "there.onnx"
    there.write_bytes(b"x")
    export._chooser.path = str(there)
    export.show_plan("", "Plan")
    export.browse.click()
    export.export_button.click()
    export.show_failure("Disk full.")
    questions = []
    export.may_replace = lambda path: questions.append(path) or True
    export.export_button.click()
    assert questions == [there]


@pytest.mark.parametrize("profile", EXPORT_PROFILES)
def test_that_the_file_is_asked_for_the_chosen_runtime(export, tmp_path, profile) -> None:
    export.show_plan(str(tmp_path / "new.onnx"), "Plan")
    assert export.profile.currentData() == "qdq"
    export.profile.setCurrentIndex(export.profile.findData(profile))
    assert export.profile.toolTip()
    export.export_button.click()
    assert export.profiles == [profile]
    assert not export.profile.isEnabled()


# --- files of other tools ----------------------------------------------------------------------------------------


@pytest.fixture
def settings(qtbot, tmp_path) -> WriteSettingsDialog:
    dialog = WriteSettingsDialog(Chooser())
    qtbot.addWidget(dialog)
    dialog.show()
    dialog.requests = []
    dialog.write_requested.connect(lambda path, dialect: dialog.requests.append((path, dialect)))
    dialog.show_plan(tmp_path / "net", has_data=True, has_sensitivity=False)
    return dialog


@pytest.mark.parametrize("agrees", [False, True])
def test_that_a_file_of_another_tool_is_replaced_only_where_the_user_agrees(settings, agrees) -> None:
    there = Path(settings.path.text())
    there.write_text("theirs")
    questions = []
    settings.may_replace = lambda path: questions.append(path) or agrees
    settings.write.click()
    assert questions == [there]
    assert [path for path, _ in settings.requests] == ([str(there)] if agrees else [])
    assert settings.stop.isVisible() is agrees


def test_that_a_file_agreed_to_in_the_file_dialog_raises_no_second_question(settings, tmp_path) -> None:
    there = tmp_path / "there.json"
    there.write_text("theirs")
    settings._chooser.path = str(there)
    settings.may_replace = lambda _: pytest.fail("asked")
    settings.browse.click()
    settings.write.click()
    assert [path for path, _ in settings.requests] == [str(there)]


def test_that_writing_for_another_tool_shows_how_far_it_is_and_can_be_stopped(settings) -> None:
    stopped = []
    settings.cancel_requested.connect(lambda: stopped.append(True))
    settings.show_progress(Progress(1, 4, "Nobody has asked for it here"))
    assert not settings.progress.isVisible()
    settings.write.click()
    settings.show_progress(Progress(3, 8, "Calibrating"))
    assert "3 / 8" in settings.progress.text()
    assert not settings.write.isEnabled()
    assert not settings.path.isEnabled()
    settings.stop.click()
    assert stopped == [True]
    settings.show_stopped()
    assert settings.write.isEnabled()
    assert not settings.stop.isVisible()
    assert "nothing was written" in settings.status.text()


def test_that_the_export_dialog_grows_with_what_it_shows(export, qtbot, tmp_path) -> None:
    export.show_plan(str(tmp_path / "new.onnx"), "A sentence that needs a second line where it is long. " * 3)
    with qtbot.waitExposed(export):
        export.show()
    export.show_progress(Progress(3, 10, "Writing"))
    qtbot.waitUntil(lambda: export.height() >= export.layout().totalHeightForWidth(export.width()))
    assert export.summary.height() >= export.summary.heightForWidth(export.summary.width())


# --- data --------------------------------------------------------------------------------------------------------


@pytest.fixture
def data_dialog(qtbot) -> DataDialog:
    dialog = DataDialog(Chooser())
    qtbot.addWidget(dialog)
    dialog.chosen = []
    dialog.data_chosen.connect(lambda *answer: dialog.chosen.append(answer))
    return dialog


def test_that_ranges_can_be_taken_from_other_data_than_quality(data_dialog, qtbot) -> None:
    data_dialog.path.setText("test.npz")
    data_dialog._chooser.path = "train.npz"
    data_dialog.calibration_file.click()
    assert data_dialog.chosen == []
    data_dialog.open_button.click()
    data_dialog._chooser.path = "pictures"
    data_dialog.calibration_folder.click()
    qtbot.keyClick(data_dialog.calibration, Qt.Key.Key_Return)
    data_dialog.calibration.clear()
    data_dialog.open_button.click()
    assert data_dialog.chosen == [
        ("test.npz", None, "train.npz"),
        ("test.npz", None, "pictures"),
        ("test.npz", None, ""),
    ]


def test_that_the_data_dialog_shows_both_sources_and_keeps_them_for_other_pictures(data_dialog) -> None:
    options = ImageOptions(28, 28)
    data_dialog.show_data(data("test", calibration="train", image_options=options))
    assert (data_dialog.path.text(), data_dialog.calibration.text()) == ("test", "train")
    data_dialog.apply_images.click()
    source, chosen, calibration = data_dialog.chosen[0]
    assert (source, calibration) == ("test", "train")
    assert (chosen.height, chosen.width) == (28, 28)
    data_dialog.show_data(None)
    assert data_dialog.calibration.text() == ""


# --- verification ------------------------------------------------------------------------------------------------


def test_that_a_row_of_the_verification_leads_to_its_layer(qtbot) -> None:
    dialog = VerificationDialog()
    qtbot.addWidget(dialog)
    layers = (LayerDeviation("conv1", "a", 50.0), LayerDeviation("fc", "b", 12.0))
    dialog.show_verification(
        Verification("out.onnx", evaluation(), evaluation(), 40.0, 100, 400, 1.0, 1.0, 1.0, layers)
    )
    chosen = []
    dialog.layer_activated.connect(chosen.append)
    dialog.table.setCurrentCell(0, 0)
    dialog.show()
    qtbot.keyClick(dialog.table, Qt.Key.Key_Return)
    # The worst stands first.
    assert chosen == ["fc"]
    place = dialog.table.visualItemRect(dialog.table.item(1, 2)).center()
    qtbot.mouseClick(dialog.table.viewport(), Qt.MouseButton.LeftButton, pos=place)
    qtbot.mouseDClick(dialog.table.viewport(), Qt.MouseButton.LeftButton, pos=place)
    assert chosen[-1] == "conv1"


def test_that_the_plan_of_an_export_is_in_sight_however_long(qtbot) -> None:
    dialog = ExportDialog(Chooser())
    dialog.show_plan("out.onnx", "10 of 10 layers with quantized weights, 10 with quantized activations. " * 3)
    shown(qtbot, dialog, 520, 176)
    assert dialog.summary.height() >= dialog.summary.heightForWidth(dialog.summary.width())
