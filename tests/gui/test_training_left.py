"""A training that was left when the window closed is offered again by the next one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from PySide6.QtCore import Qt
from windows import open_window, real_session

from quantgui.gui.main_window import MainWindow
from quantgui.session.jobs import JobState
from quantgui.session.samples import read_samples
from quantgui.session.session import Session
from quantgui.spec.config import QuantConfig
from quantgui.spec.presets import weight_spec
from quantgui.spec.quantizer import LayerSpec

pytestmark = [pytest.mark.qt_log_ignore("This plugin does not support"), pytest.mark.timeout(240)]
PATIENCE = 120_000
W2 = QuantConfig(LayerSpec(weight_spec(2)), name="W2")


@contextmanager
def _window(qtbot, folder: Path) -> Iterator[MainWindow]:
    """Open the window with the sample and its training tab in sight; close it as a user does."""
    session = real_session(folder)
    session.evaluates_automatically = False
    window = open_window(qtbot, session, folder)
    with qtbot.waitSignal(session.network_opened, timeout=PATIENCE):
        window.welcome.sample_chosen.emit(read_samples()[0])
    qtbot.waitUntil(lambda: session.data is not None, timeout=PATIENCE)
    window.tabs.setCurrentWidget(window.panels.training)
    yield window
    window.close()
    session.close()


def _looked(session: Session) -> bool:
    job = session.jobs.of_topic("left training")
    return job is not None and job.state is JobState.DONE


def test_that_a_training_left_is_offered_once_to_continue_or_to_discard(qtbot, qapp, tmp_path) -> None:
    with _window(qtbot, tmp_path) as window:
        session, panel = window.session, window.panels.training
        qtbot.waitUntil(lambda: _looked(session), timeout=PATIENCE)
        assert panel.training() is None
        session.set_config(W2, "W2")
        panel.controls.steps.setValue(40)
        panel.controls.patience.setValue(0)
        panel.start()
        qtbot.waitUntil(lambda: session.training is not None and session.training.steps > 0, timeout=PATIENCE)
        session.cancel("training")
        qtbot.waitUntil(lambda: session.jobs.of_topic("training").state is JobState.CANCELLED, timeout=PATIENCE)
        left = session.training.steps
        assert not panel.discard.isVisible()
    assert 0 < left < 40
    with _window(qtbot, tmp_path) as window:
        session, panel = window.session, window.panels.training
        qtbot.waitUntil(lambda: panel.training() is not None, timeout=PATIENCE)
        found = session.training
        assert found.steps >= left
        assert (found.config, found.training.steps) == (W2, 40)
        assert panel.state_text() == (f"A training of W2 was left at step {found.steps} of 40: continue or discard it.")
        assert panel.side.text() == "Continue"
        assert panel.discard.isVisible()
        qtbot.mouseClick(panel.side, Qt.MouseButton.LeftButton)
        assert not panel.discard.isVisible()
        qtbot.waitUntil(lambda: session.training is not None and session.training.resumed > 0, timeout=PATIENCE)
        assert session.training.resumed == found.steps
        session.cancel("training")
        qtbot.waitUntil(lambda: session.jobs.of_topic("training").state is JobState.CANCELLED, timeout=PATIENCE)
    with _window(qtbot, tmp_path) as window:
        session, panel = window.session, window.panels.training
        qtbot.waitUntil(panel.discard.isVisible, timeout=PATIENCE)
        qtbot.mouseClick(panel.discard, Qt.MouseButton.LeftButton)
        qtbot.waitUntil(lambda: _looked(session), timeout=PATIENCE)
        assert panel.training() is None
    with _window(qtbot, tmp_path) as window:
        session, panel = window.session, window.panels.training
        qtbot.waitUntil(lambda: _looked(session), timeout=PATIENCE)
        assert session.training is None
