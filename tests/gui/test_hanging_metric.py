"""A metric that never returns, in the real engine behind the real window."""

from __future__ import annotations

from pathlib import Path

import pytest
from PySide6.QtCore import Qt
from windows import open_window, real_session

from quantgui.session import conversation
from quantgui.session.samples import read_samples

pytestmark = pytest.mark.qt_log_ignore("This plugin does not support")
PATIENCE = 60_000
SAMPLE = read_samples()[0]


@pytest.fixture
def opened(qtbot, qapp, tmp_path):
    session = real_session(tmp_path)
    window = open_window(qtbot, session, tmp_path)
    session.open_network(SAMPLE.network, SAMPLE.evaluation)
    qtbot.waitUntil(lambda: session.evaluation is not None and session.evaluation.complete, timeout=PATIENCE)
    yield window
    window.close()


def test_that_a_metric_that_hangs_is_told_and_left_behind_by_one_button(
    opened, qtbot, tmp_path: Path, monkeypatch
) -> None:
    window, session = opened, opened.session
    monkeypatch.setattr(conversation, "SILENCE_SECONDS", 2.0)
    source = tmp_path / "mine.py"
    source.write_text("def wait(outputs, labels):\n    while True:\n        pass\n")
    session.set_metric(f"{source}:wait")
    qtbot.waitUntil(lambda: "metric “wait” has not answered" in window.notice.sentence(), timeout=PATIENCE)
    assert window.notice.action.isVisible()
    hung = session.engine.process_id
    # It does not hear of being stopped.
    session.cancel("evaluate")
    qtbot.mouseClick(window.notice.action, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: session.engine_state == "ready", timeout=PATIENCE)
    assert session.engine.process_id != hung
    assert window.notice.sentence() == ""
    assert not session.jobs.is_active("evaluate")
    assert session.summary is not None
    assert session.data is not None
    session.set_metric("")
    qtbot.waitUntil(lambda: session.evaluation is not None and session.evaluation.complete, timeout=PATIENCE)
