"""Training in the real window with the real engine, on the network of digits that travels with the program."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PySide6.QtCore import Qt
from PySide6.QtWidgets import QApplication
from trained_examples import trained_config
from windows import open_window, real_session

from quantgui.gui.models.layers import Column
from quantgui.gui.theme import apply_theme
from quantgui.network.network import Network
from quantgui.network.reader import read_network
from quantgui.paths import trained_folder
from quantgui.session.jobs import JobState
from quantgui.session.samples import read_samples
from quantgui.session.session import Session
from quantgui.spec.config import QuantConfig
from quantgui.spec.presets import activation_spec, weight_spec
from quantgui.spec.quantizer import LayerSpec
from quantgui.spec.serialization import save_config
from quantgui.spec.trained_files import trained_states

pytestmark = [pytest.mark.qt_log_ignore("This plugin does not support"), pytest.mark.timeout(240)]
PATIENCE = 120_000


@pytest.fixture
def window(qtbot, qapp, tmp_path):
    apply_theme(qapp, "dark")
    session = real_session(tmp_path)
    window = open_window(qtbot, session, tmp_path)
    with qtbot.waitSignal(session.network_opened, timeout=PATIENCE):
        window.welcome.sample_chosen.emit(read_samples()[0])
    qtbot.waitUntil(lambda: session.data is not None, timeout=PATIENCE)
    yield window
    window.close()


def settled(session: Session) -> bool:
    """Return whether the present configuration is evaluated on all samples."""
    return session.store.is_evaluated(session.config)


def network_of(path: str) -> Network:
    reading = read_network(Path(path))
    while True:
        try:
            next(reading)
        except StopIteration as end:
            network: Network = end.value
            return network


def test_that_a_network_is_trained_paused_resumed_kept_and_undone_in_the_window(window, qtbot) -> None:
    session, panel = window.session, window.panels.training
    action = window.actions_by_id["train"]
    window._update_actions()
    assert not action.isEnabled()
    assert "Every layer is float" in action.toolTip()
    session.set_config(QuantConfig(LayerSpec(weight_spec(2), activation_spec(8)), name="W2A8"), "W2A8")
    qtbot.waitUntil(lambda: settled(session) and action.isEnabled(), timeout=PATIENCE)
    before_config, before = session.config, session.evaluation
    window.tabs.setCurrentWidget(panel)
    panel.controls.steps.setValue(60)
    panel.controls.patience.setValue(0)
    qtbot.keyClick(window, Qt.Key.Key_F9)
    qtbot.waitUntil(lambda: panel.training() is not None and len(panel.training().losses) > 0, timeout=PATIENCE)
    assert panel.controls.button.text() == "Pause"
    # Paused on the way, and gone on with from there.
    qtbot.mouseClick(panel.controls.button, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: session.jobs.of_topic("training").state is JobState.CANCELLED, timeout=PATIENCE)
    paused = session.training.steps
    assert 0 < paused < 60
    assert panel.state_text().startswith("Paused at step")
    qtbot.mouseClick(panel.controls.button, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: session.training.complete, timeout=PATIENCE)
    training = session.training
    assert training.resumed >= paused
    assert training.steps == 60
    assert training.before.quantized_score.value == pytest.approx(before.quantized_score.value)
    assert training.after.quantized_score.value > before.quantized_score.value
    steps, losses = panel.loss.plot.losses()
    assert steps[0] == 1
    assert np.median(losses[-10:]) < np.median(losses[:10])
    # One click takes it over, one step of undo gives it back; it is evaluated like any other configuration.
    qtbot.mouseClick(panel.keep, Qt.MouseButton.LeftButton)
    assert trained_states(session.config)
    qtbot.waitUntil(lambda: settled(session), timeout=PATIENCE)
    assert session.evaluation.quantized_score.value == pytest.approx(training.after.quantized_score.value)
    assert "trained" in window.panels.model.index(0, Column.SCHEME).data()
    assert any(tried.config == session.config for tried in session.tried)
    window.commands.undo()
    assert session.config == before_config
    assert session.evaluation.quantized_score == before.quantized_score


def test_that_a_configuration_with_trained_weights_opens_again_in_the_window(window, qtbot, tmp_path) -> None:
    session = window.session
    config, state = trained_config(network_of(session.summary.path), LayerSpec(weight_spec(4)))
    save_config(config, tmp_path / "first.json")
    session.load_config(tmp_path / "first.json")
    qtbot.waitUntil(lambda: settled(session), timeout=PATIENCE)
    evaluation = session.evaluation
    name = next(iter(state.layers))
    session.select([name])
    window.tabs.setCurrentWidget(window.panels.weights)
    qtbot.waitUntil(lambda: session.current_view is not None, timeout=PATIENCE)
    QApplication.processEvents()
    assert session.current_view.scales == pytest.approx(state.layers[name].qparams.scale)
    assert "trained" in window.panels.model.index(0, Column.SCHEME).data()
    assert window.panels.inspector.weights.range.kind.currentText() == "Trained"
    # Saved, closed and opened again it is the same.
    session.save_config(tmp_path / "second.json")
    shutil.rmtree(trained_folder())
    with qtbot.waitSignal(session.network_opened, timeout=PATIENCE):
        window.welcome.sample_chosen.emit(read_samples()[0])
    qtbot.waitUntil(lambda: session.data is not None, timeout=PATIENCE)
    session.load_config(tmp_path / "second.json")
    assert session.config == config
    qtbot.waitUntil(lambda: settled(session), timeout=PATIENCE)
    assert session.evaluation.quantized_score == evaluation.quantized_score
    assert window.notice.sentence() == ""
