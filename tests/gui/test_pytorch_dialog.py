"""Opening PyTorch networks in the window: the dialog, what is dropped, what is remembered."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from gui_examples import shown
from PySide6.QtCore import Qt
from sessions import LAYERS, make_session, summary
from windows import open_window

from quantgui.engine.messages import EngineReady
from quantgui.engine.requests import OpenNetwork
from quantgui.gui.dialogs.files import FileChooser
from quantgui.gui.dialogs.pytorch import PytorchDialog
from quantgui.results import Conversion, NetworkOpened, Progress
from quantgui.spec.pytorch_source import DEFAULT_OPTIONS, ExampleInput, PytorchOptions

pytestmark = pytest.mark.qt_log_ignore("This plugin does not support")
OPTIONS = PytorchOptions(
    "/w/net.pth", True, (ExampleInput((1, 3, 8, 8)), ExampleInput((1, 4), "int64")), "", ((0, 2), ())
)


@pytest.fixture
def dialog(qtbot) -> PytorchDialog:
    result = PytorchDialog(FileChooser())
    shown(qtbot, result, 580, 460)
    return result


@pytest.fixture
def window(qtbot, tmp_path: Path):
    session, engine = make_session(tmp_path / "state")
    engine.say(EngineReady())
    result = open_window(qtbot, session, tmp_path)
    result.engine = engine
    yield result
    result.close()


def test_that_nothing_is_opened_before_the_user_agrees(dialog, qtbot) -> None:
    dialog.show_source("net.py:make", OPTIONS)
    assert not dialog.trust.isChecked()
    assert not dialog.open_button.isEnabled()
    assert "Agree" in dialog.open_button.toolTip()
    dialog.trust.click()
    with qtbot.waitSignal(dialog.open_requested) as opened:
        qtbot.mouseClick(dialog.open_button, Qt.MouseButton.LeftButton)
    assert opened.args == ["net.py:make", OPTIONS]


def test_that_consent_is_to_the_code_that_stands_there(dialog, qtbot) -> None:
    dialog.show_source("net.py:make", OPTIONS)
    dialog.trust.click()
    qtbot.keyClicks(dialog.factory, "2")
    assert not dialog.trust.isChecked()
    assert not dialog.open_button.isEnabled()


def test_that_a_field_that_cannot_be_read_says_why(dialog) -> None:
    dialog.show_source("net.py:make", OPTIONS)
    dialog.trust.click()
    dialog.inputs.setText("3 by 4")
    assert not dialog.open_button.isEnabled()
    assert "1x3x224x224" in dialog.open_button.toolTip()
    dialog.inputs.setText("")
    dialog.axes.setText("batch")
    assert "names no axes" in dialog.open_button.toolTip()


def test_that_a_failure_stays_in_sight_with_what_was_typed(dialog) -> None:
    dialog.show_source("net.py:make", OPTIONS)
    dialog.trust.click()
    dialog.show_progress(Progress(0, 0, "Exporting to ONNX"))
    assert dialog.progress.isVisible()
    assert not dialog.open_button.isEnabled()
    dialog.show_failure("It failed.")
    assert (dialog.status.text(), dialog.progress.isVisible()) == ("It failed.", False)
    assert dialog.open_button.isEnabled()
    assert dialog.factory.text() == "make"


def test_that_everything_in_the_dialog_has_a_name_and_a_tip(dialog) -> None:
    for widget in (
        dialog.code,
        dialog.factory,
        dialog.weights,
        dialog.inputs,
        dialog.axes,
        dialog.exporter,
        dialog.trust,
    ):
        assert widget.accessibleName()
        assert widget.toolTip()


def test_that_weights_dropped_alone_ask_for_the_code(window, tmp_path: Path) -> None:
    path = tmp_path / "net.pth"
    path.write_bytes(b"")
    window.commands.open_files([str(path)])
    dialog = window.commands.pytorch.dialog
    assert dialog.isVisible()
    assert dialog.weights.text() == str(path)
    assert "do not say what network" in dialog.status.text()


def test_that_code_and_weights_dropped_together_fill_the_dialog(window, tmp_path: Path) -> None:
    window.commands.open_files([str(tmp_path / "net.py"), str(tmp_path / "net.safetensors")])
    dialog = window.commands.pytorch.dialog
    assert (Path(dialog.code.text()).name, Path(dialog.weights.text()).name) == ("net.py", "net.safetensors")


def test_that_code_chosen_as_a_network_is_no_file_of_settings(window, tmp_path: Path, monkeypatch) -> None:
    code = tmp_path / "net.py"
    code.write_text("")
    monkeypatch.setattr(FileChooser, "open_file", lambda *_: str(code))
    window.session.open_network(str(tmp_path / "other.onnx"))
    window.engine.answer(window.engine.newest(OpenNetwork), NetworkOpened(summary(LAYERS, "other.onnx")))
    window.commands.open_network()
    dialog = window.commands.pytorch.dialog
    assert dialog is not None
    assert dialog.isVisible()
    assert dialog.code.text() == str(code)


def test_that_a_program_opens_without_a_question(window, tmp_path: Path) -> None:
    window.commands.open_files([str(tmp_path / "net.pt2")])
    request = window.engine.requests[window.engine.newest(OpenNetwork)]
    assert (request.path, request.pytorch) == (str(tmp_path / "net.pt2"), DEFAULT_OPTIONS)


def test_that_code_is_asked_about_again_in_another_session_and_not_after_a_crash(window, tmp_path: Path) -> None:
    code = tmp_path / "net.py"
    code.write_text("")
    network = f"{code}:make"
    window.commands.open_path(network, pytorch=OPTIONS)
    request = window.engine.requests[window.engine.newest(OpenNetwork)]
    assert (request.path, request.pytorch) == (network, OPTIONS)
    opened = replace(summary(LAYERS, network), conversion=Conversion(OPTIONS, "dynamo", 0.0))
    window.engine.answer(window.engine.newest(OpenNetwork), NetworkOpened(opened))
    assert window.session._document.project().pytorch == OPTIONS
    (entry,) = window.session.recent.entries()
    assert entry.pytorch == OPTIONS.untrusted()
    window.commands.open_recent(entry)
    dialog = window.commands.pytorch.dialog
    assert dialog.isVisible()
    assert not dialog.trust.isChecked()
    assert dialog.inputs.text() == "1x3x8x8; 1x4:int64"
    assert dialog.axes.text() == "0,2; none"
