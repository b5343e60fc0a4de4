"""The noise tab and the colours of the graph with a session, answered by hand and by the real engine."""

from __future__ import annotations

import numpy as np
import pytest
from gui_examples import click, in_viewport
from noise_examples import noise, sample
from PySide6.QtCore import Qt
from PySide6.QtWidgets import QApplication
from sessions import LAYERS, make_session, open_data, open_network
from windows import open_window, real_session

from quantgui.engine.messages import JobCancelled, JobEvent, JobStarted
from quantgui.engine.requests import Evaluate, TraceNoise, ViewSample
from quantgui.gui.panels.graph import GraphPanel
from quantgui.gui.panels.noise import NoisePanel
from quantgui.gui.presenters.graph_colours import GraphColours
from quantgui.gui.presenters.noise import NoisePresenter
from quantgui.gui.theme import apply_theme
from quantgui.results import LayerNoise, NoiseReady, Progress
from quantgui.session.samples import read_samples
from quantgui.spec.presets import find_preset, preset_config

pytestmark = pytest.mark.qt_log_ignore("This plugin does not support")
PATIENCE = 60_000


class Bound:
    """A noise tab on a session whose engine is answered by the test."""

    def __init__(self, qtbot, folder) -> None:
        self.session, self.engine = make_session(folder)
        self.panel = NoisePanel()
        qtbot.addWidget(self.panel)
        self.panel.resize(640, 560)
        self.panel.show()
        self.presenter = NoisePresenter(self.session, self.panel, self.panel)

    def open(self, *, data: bool = True) -> None:
        open_network(self.session, self.engine)
        if data:
            open_data(self.session, self.engine)

    def quantize(self, preset: str = "W4") -> None:
        self.session.set_config(preset_config(find_preset(preset), self.session.summary.layers), preset)

    def trace(self, **changes) -> None:
        self.panel.trace_requested.emit()
        self.engine.answer(self.engine.newest(TraceNoise), ready(self.session.config, **changes))


def ready(config, **changes) -> NoiseReady:
    layers = tuple(LayerNoise(x.name, f"{x.name}_out", 20.0, 15.0, 14.0, 16.0) for x in LAYERS)
    return noise(len(LAYERS), layers=layers, config=config, **changes)


@pytest.fixture
def bound(qtbot, tmp_path):
    made = Bound(qtbot, tmp_path)
    yield made
    made.session.close()


def test_that_a_trace_says_for_what_it_waits_and_how_long_it_takes(bound) -> None:
    bound.open()
    bound.quantize()
    evaluation = bound.engine.newest(Evaluate)
    bound.engine.say(JobStarted(evaluation, "evaluate"))
    bound.panel.trace_requested.emit()
    assert bound.panel.state.sentence() == "Waiting for: Evaluate W4."
    number = bound.engine.newest(TraceNoise)
    bound.engine.say(JobCancelled(evaluation, "evaluate"), JobStarted(number, "noise"))
    bound.engine.say(JobEvent(number, "noise", Progress(2, 64, "Tracing noise on 64 samples", 170.0)))
    assert bound.panel.state.sentence() == "Tracing noise on 64 samples · 3 min left"


def test_that_the_tab_leads_from_nothing_to_a_trace(bound) -> None:
    assert "No network" in bound.panel.state.heading()
    bound.open(data=False)
    assert "needs data" in bound.panel.state.heading()
    open_data(bound.session, bound.engine)
    assert "Nothing is quantized" in bound.panel.state.heading()
    bound.quantize()
    assert "Where is noise made?" in bound.panel.state.heading()
    bound.trace()
    assert bound.panel.noise().config == bound.session.config
    assert bound.panel.plot.isVisible()
    assert not bound.panel.progress.isVisible()


def test_that_progress_is_shown_and_a_stopped_trace_leaves_what_is_known(bound) -> None:
    bound.open()
    bound.quantize()
    bound.panel.trace_requested.emit()
    job, engine = bound.engine.newest(TraceNoise), bound.engine
    engine.say(JobStarted(job, "noise"), JobEvent(job, "noise", Progress(3, 64, "Tracing noise on 64 samples", 2.0)))
    assert bound.panel.state.heading() == "Tracing noise"
    engine.say(JobEvent(job, "noise", ready(bound.session.config, samples=8, complete=False)))
    assert bound.panel.plot.isVisible()
    assert bound.panel.progress.isVisible()
    bound.panel.progress.stop.click()
    assert engine.cancelled[-1] == job
    engine.say(JobCancelled(job, "noise"))
    assert bound.panel._stale_text.text() == "Stopped after 8 samples."
    count = engine.count(TraceNoise)
    bound.panel.again.click()
    assert engine.count(TraceNoise) == count + 1


def test_that_a_trace_is_dimmed_by_a_change_and_comes_back_with_undo(bound) -> None:
    bound.open()
    bound.quantize("W4")
    bound.trace()
    bound.quantize("W8")
    assert bound.panel.is_stale()
    assert bound.engine.count(TraceNoise) == 1
    bound.session.undo_stack.undo()
    assert not bound.panel.is_stale()
    bound.session.undo_stack.undo()
    assert "Nothing is quantized" in bound.panel.state.heading()


def test_that_a_failure_is_told_and_forgotten_with_the_next_change(bound) -> None:
    bound.open()
    bound.quantize()
    bound.panel.trace_requested.emit()
    bound.engine.fail(bound.engine.newest(TraceNoise), "The network cannot be run.")
    assert bound.panel.state.sentence() == "The network cannot be run."
    bound.quantize("W8")
    assert "Where is noise made?" in bound.panel.state.heading()


def test_that_another_network_or_other_data_leave_nothing_of_the_old_trace(bound) -> None:
    bound.open()
    bound.quantize()
    bound.trace()
    open_data(bound.session, bound.engine, "other.npz")
    assert bound.panel.noise() is None
    assert "Where is noise made?" in bound.panel.state.heading()


def test_that_a_hidden_tab_is_drawn_when_it_comes_into_sight(bound) -> None:
    bound.open()
    bound.quantize()
    bound.panel.hide()
    bound.trace()
    assert bound.panel.noise() is None
    bound.panel.show()
    assert bound.panel.noise() is not None


def test_that_a_click_on_a_layer_selects_it_and_one_on_a_sample_asks_for_it(bound) -> None:
    bound.open()
    bound.quantize()
    bound.trace()
    bound.panel.layer_picked.emit("conv2")
    assert bound.session.selection == ("conv2",)
    assert bound.panel.plot.marked() == 1
    bound.panel.matrix.cell_clicked.emit(1, 5)
    request = bound.engine.newest(ViewSample)
    assert bound.engine.requests[request] == ViewSample(bound.session.config, 5)
    bound.engine.answer(request, sample(config=bound.session.config))
    assert bound.panel.sample.verdict.text() == "class 2 becomes 0 · label 2"


# --- the graph ----------------------------------------------------------------------------------------------------


def test_that_the_graph_can_be_coloured_by_noise_and_bits(qtbot, tmp_path) -> None:
    session, engine = make_session(tmp_path)
    panel = GraphPanel()
    qtbot.addWidget(panel)
    panel.show()
    colours = GraphColours(session, panel, panel)
    open_network(session, engine)
    open_data(session, engine)
    session.set_config(preset_config(find_preset("W4"), session.summary.layers), "W4")

    def choose(key: str) -> dict[str, float]:
        place = panel.colouring.findData(key)
        panel.colouring.setCurrentIndex(place)
        panel.colouring.activated.emit(place)
        return panel._values

    assert choose("own") == {}
    assert panel.card.note() == "Trace noise first (F8)."
    session.trace_noise()
    engine.answer(engine.newest(TraceNoise), ready(session.config))
    assert set(choose("own").values()) == {20.0}
    assert set(choose("inherited").values()) == {15.0}
    assert "layers" in panel.card.note()
    assert choose("bits")["conv1"] == 4.0
    assert choose("sensitivity") == {}
    assert panel.card.note() == "Measure sensitivity first (F6)."
    assert colours.parent() is panel
    session.close()


# --- the real engine ----------------------------------------------------------------------------------------------


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


def test_that_noise_is_traced_in_the_window_and_a_sample_shown(window, qtbot) -> None:
    session, panel = window.session, window.panels.noise
    action = window.actions_by_id["noise"]
    window._update_actions()
    assert not action.isEnabled()
    assert "Every layer is float" in action.toolTip()
    window.presenter.apply_preset(find_preset("W2-g32"))
    qtbot.waitUntil(action.isEnabled, timeout=PATIENCE)
    qtbot.keyClick(window, Qt.Key.Key_F8)
    assert window.tabs.currentWidget() is panel
    qtbot.waitUntil(lambda: panel.noise() is not None and panel.noise().complete, timeout=PATIENCE)
    QApplication.processEvents()
    noise_found = panel.noise()
    assert noise_found.samples == 64
    assert [each.layer for each in noise_found.layers] == [x.name for x in session.summary.layers]
    assert noise_found.flipped.any()
    click(panel.plot, in_viewport(panel.plot, 3, panel.plot.view.viewRange()[1][0] + 0.5))
    assert session.selection == (noise_found.layers[3].layer,)
    column = int(np.argmax(noise_found.flipped))
    click(panel.matrix, in_viewport(panel.matrix, column, 2))
    qtbot.waitUntil(lambda: panel.sample.outputs.rowCount() > 0, timeout=PATIENCE)
    assert "becomes" in panel.sample.verdict.text()
    assert "label" in panel.sample.verdict.text()
    # The digit itself: bright strokes on black.
    image = panel.sample.picture.image()
    assert (image.width(), image.height()) == (28, 28)
    assert image.pixelColor(0, 0).lightness() < 20
