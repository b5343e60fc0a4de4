"""The pictures of the README, taken from the real window with a real network; `make screenshots` writes them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import networks
import numpy as np
import pytest
from PySide6.QtGui import QCursor, QImage
from PySide6.QtWidgets import QApplication
from pytestqt.qtbot import QtBot
from windows import open_window, real_session

from quantgui.gui.main_window import MainWindow
from quantgui.gui.theme import apply_theme
from quantgui.paths import resources
from quantgui.session.jobs import JobState
from quantgui.session.samples import read_samples
from quantgui.spec.config import QuantConfig
from quantgui.spec.presets import activation_spec, find_preset, preset_config, weight_spec
from quantgui.spec.quantizer import LayerSpec

pytestmark = [pytest.mark.screenshots, pytest.mark.network, pytest.mark.timeout(600)]
PATIENCE_MS = 240_000
LAYER = "/_blocks.3/_depthwise_conv/Conv"


@pytest.fixture(params=["dark", "light"])
def window(request: pytest.FixtureRequest, qtbot: QtBot, qapp: QApplication, tmp_path: Path) -> Iterator[MainWindow]:
    QCursor.setPos(5000, 5000)  # hovers nothing
    qapp.setCursorFlashTime(0)
    apply_theme(qapp, request.param)
    session = real_session(tmp_path)
    window = open_window(qtbot, session, tmp_path, size=(1440, 900))
    window.setProperty("scheme", request.param)
    yield window
    window.close()
    session.close()


def take(window: MainWindow, name: str) -> QImage:
    """Return a picture of the window, and write it where the README looks for it if asked to."""
    QApplication.processEvents()
    picture = window.grab().toImage()
    if os.environ.get("QUANTGUI_WRITE_SCREENSHOTS"):
        folder = resources() / "screenshots"
        folder.mkdir(exist_ok=True)
        picture.save(str(folder / f"{name}.png"))
    return picture


def test_that_the_window_shows_a_real_network_at_work(window: MainWindow, qtbot: QtBot, tmp_path: Path) -> None:
    session = window.session
    data = tmp_path / "photographs.npz"
    np.savez(data, input=networks.photographs(24))

    def settled() -> bool:
        evaluation = session.evaluation
        view = session.current_view
        working = any(job.state in (JobState.WAITING, JobState.RUNNING) for job in session.jobs)
        return evaluation is not None and evaluation.complete and view is not None and not working

    with qtbot.waitSignal(session.data_opened, timeout=PATIENCE_MS):
        session.open_network(str(networks.network_path("efficientnet-lite0")), str(data))
    assert session.summary is not None
    layers = session.summary.layers
    assert LAYER in {layer.name for layer in layers}
    session.select([LAYER])
    mixed = preset_config(find_preset("W8"), layers).with_overrides(
        {layer.name: LayerSpec(weight_spec(6)) for layer in layers if layer.parameters > 100_000}
    )
    depthwise = session.spec_for(LAYER)
    for name, config in (
        ("W6", preset_config(find_preset("W6"), layers)),
        ("W8", preset_config(find_preset("W8"), layers)),
        ("W16A16", preset_config(find_preset("W16A16"), layers)),
        ("large layers at 6 bits", mixed),
        ("one layer at 4 bits", mixed.with_overrides({LAYER: LayerSpec(weight_spec(4))})),
    ):
        session.set_config(replace(config, name=name), name)
        qtbot.waitUntil(settled, timeout=PATIENCE_MS)
    assert depthwise.weights is None
    assert session.current_view is not None
    assert len(session.tried) >= 5
    picture = take(window, str(window.property("scheme")))
    assert (picture.width(), picture.height()) == (1440, 900)
    colours = {picture.pixel(x, y) for x in range(0, 1440, 8) for y in range(0, 900, 8)}
    assert len(colours) > 50


def test_that_the_window_shows_a_training(window: MainWindow, qtbot: QtBot) -> None:
    session, panel = window.session, window.panels.training
    with qtbot.waitSignal(session.data_opened, timeout=PATIENCE_MS):
        window.welcome.sample_chosen.emit(read_samples()[0])
    name = "W2A8"
    session.set_config(QuantConfig(LayerSpec(weight_spec(2), activation_spec(8)), name=name), name)
    qtbot.waitUntil(lambda: session.store.is_evaluated(session.config), timeout=PATIENCE_MS)
    panel.controls.steps.setValue(300)
    window.commands.train()
    qtbot.waitUntil(lambda: session.training is not None and session.training.complete, timeout=PATIENCE_MS)
    window.commands.keep_training()
    working = (JobState.WAITING, JobState.RUNNING)
    qtbot.waitUntil(lambda: not any(job.state in working for job in session.jobs), timeout=PATIENCE_MS)
    window.status.clearMessage()
    picture = take(window, f"training-{window.property('scheme')}")
    assert (picture.width(), picture.height()) == (1440, 900)
    assert panel.quality.headline.text().endswith(" %")
