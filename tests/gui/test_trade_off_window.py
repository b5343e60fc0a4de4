"""The trade-off in the whole window: what the session does and what the other panels show."""

from __future__ import annotations

from dataclasses import replace

import pytest
from gui_examples import drag, in_viewport
from mix_examples import frontier
from PySide6.QtCore import QPoint, Qt
from PySide6.QtWidgets import QApplication
from sessions import LAYERS, evaluated, make_session, open_data, open_network
from windows import open_window, real_session

from quantgui.engine.messages import JobStarted
from quantgui.engine.requests import Evaluate, FindMix
from quantgui.gui.app import make_settings
from quantgui.gui.main_window import MainWindow
from quantgui.gui.models.layers import Column
from quantgui.results import Score
from quantgui.session.samples import read_samples
from quantgui.spec.config import QuantConfig
from quantgui.spec.presets import find_preset, preset_config, weight_spec
from quantgui.spec.quantizer import LayerSpec

pytestmark = pytest.mark.qt_log_ignore("This plugin does not support")
PATIENCE = 120_000
LIMIT = 0.61
"""Some layers of the network stay as they are, so that it cannot get much smaller."""
EDITABLE = tuple(layer for layer in LAYERS if layer.finite and not layer.read_only and not layer.signal_transform)


class Window:
    """The real window and session with an engine that is answered by the test."""

    def __init__(self, qtbot, folder) -> None:
        self.session, self.engine = make_session(folder)
        self.main = open_window(qtbot, self.session, folder, size=(1440, 900))
        open_network(self.session, self.engine)
        open_data(self.session, self.engine)
        QApplication.processEvents()
        self.panel = self.main.panels.trade_off
        self.presenter = self.main.presenter.trade_off

    def find_mix(self, change=lambda ready: ready):
        """Ask as a user does, and answer."""
        self.main.actions_by_id["find_mix"].trigger()
        dialog = self.presenter.dialog
        dialog.controls.value.setValue(LIMIT)
        dialog.start.click()
        number = self.engine.newest(FindMix)
        rest = self.session.size() - sum(4 * layer.parameters for layer in EDITABLE)
        mix = self.engine.requests[number].mix
        ready = frontier(EDITABLE, points=14, measured=(0, 6, 13), mix=mix, rest=rest)
        ready = change(ready)
        self.engine.answer(number, ready)
        dialog.close()
        QApplication.processEvents()
        return ready

    def bits(self, name: str) -> str:
        model = self.main.panels.model
        return model.index(model.row_of(name), Column.WEIGHT_BITS).data()

    def evaluate(self, config: QuantConfig, value: float) -> None:
        self.session.set_config(config, "evaluate")
        self.engine.answer(self.engine.newest(Evaluate), evaluated(config, value))


@pytest.fixture
def window(qtbot, tmp_path):
    result = Window(qtbot, tmp_path)
    yield result
    result.main.close()


def test_that_the_question_of_the_dialog_reaches_the_engine(window) -> None:
    ready = window.find_mix()
    assert ready.mix.cost == "bytes"
    assert ready.mix.limit == pytest.approx(LIMIT * window.session.size(QuantConfig()))
    assert window.panel.slider.maximum() == len(ready.points) - 1
    assert window.panel.plot._limits["cost"].isVisible()


def test_that_dragging_changes_the_layers_live_in_one_undo_step_and_evaluates_when_the_hand_rests(
    window, qtbot
) -> None:
    session, engine, panel = window.session, window.engine, window.panel
    ready = window.find_mix()
    session.set_config(ready.points[2].config, "begin")
    before, asked = session.config, engine.count(Evaluate)
    steps = session.undo_stack.count()
    seen: list[str] = []
    session.config_changed.connect(lambda _: seen.append(window.bits("conv1")))
    unit = panel._shown.scale.unit
    places = [in_viewport(panel.plot, ready.points[n].cost / unit, ready.points[n].predicted) for n in (2, 12)]
    drag(panel.plot, places[0], places[1], 20, release=False)
    assert len(set(seen)) >= 3  # the table has changed on the way
    assert session.undo_stack.count() == steps + 1
    assert engine.count(Evaluate) == asked
    assert session.config == ready.points[12].config
    qtbot.waitUntil(lambda: engine.count(Evaluate) == asked + 1, timeout=5000)
    drag(panel.plot, places[1], places[1], 0)
    assert engine.requests[engine.newest(Evaluate)].config == ready.points[12].config
    session.undo_stack.undo()
    assert session.config == before


def test_that_a_second_drag_is_a_second_step(window) -> None:
    window.find_mix()
    steps = window.session.undo_stack.count()
    for first, second in ((3, 4), (5, 6)):
        window.panel.frontier_dragged.emit(first)
        window.panel.frontier_dragged.emit(second)
        window.panel.frontier_released.emit()
    assert window.session.undo_stack.count() == steps + 2


def test_that_the_star_stands_on_the_frontier_and_moves_to_what_is_measured(window) -> None:
    ready = window.find_mix()
    window.panel.frontier_dragged.emit(4)
    x, y = window.panel.plot._star.getData()
    assert (x[0], y[0]) == (ready.points[4].cost / window.panel._shown.scale.unit, ready.points[4].predicted)
    assert window.panel.slider.value() == 4


def test_that_undo_brings_the_slider_back(window) -> None:
    window.find_mix()
    window.panel.frontier_dragged.emit(4)
    window.panel.frontier_released.emit()
    window.panel.frontier_dragged.emit(9)
    window.panel.frontier_released.emit()
    window.main.actions_by_id["undo"].trigger()
    assert window.panel.slider.value() == 4


def test_that_the_answer_is_used_in_one_step(window, qtbot) -> None:
    def refine(ready):
        point = ready.points[ready.chosen]
        config = point.config.with_overrides({"fc": LayerSpec(weight_spec(3))})
        return replace(ready, refined=replace(point, config=config, measured=Score(33.0, 0.2, 64)))

    refined = window.find_mix(refine).refined
    steps = window.session.undo_stack.count()
    qtbot.mouseClick(window.panel.use, Qt.MouseButton.LeftButton)
    assert window.session.config == refined.config
    assert window.session.config.name.startswith("mix at")
    assert window.session.undo_stack.count() == steps + 1
    assert window.panel.plot._star.getData()[1].tolist() == [33.0]


def test_that_a_search_under_way_can_be_stopped_from_the_dock(window, qtbot) -> None:
    window.presenter.find_mix()
    window.presenter.dialog.start.click()
    window.presenter.dialog.close()
    number = window.engine.newest(FindMix)
    window.engine.say(JobStarted(number, "mix"))
    assert window.panel.progress.isVisible()
    qtbot.mouseClick(window.panel.progress.stop, Qt.MouseButton.LeftButton)
    assert number in window.engine.cancelled


def test_that_a_failed_search_says_why(window) -> None:
    window.presenter.find_mix()
    window.presenter.dialog.start.click()
    window.engine.fail(window.engine.newest(FindMix), "No layer can be changed.")
    assert window.presenter.dialog.sentence.text() == "No layer can be changed."
    window.presenter.dialog.close()


def test_that_the_limit_dragged_in_the_plot_is_the_next_question(window) -> None:
    ready = window.find_mix()
    unit = window.panel._shown.scale.unit
    low = window.panel.plot.view.viewRange()[1][0]
    start = in_viewport(window.panel.plot, ready.mix.limit / unit, low) - QPoint(0, 8)
    drag(window.panel.plot, start, start - QPoint(60, 0), 10)
    value = window.presenter.dialog.controls.value.value()
    assert value < LIMIT
    limit, rounding = value * window.session.size(QuantConfig()), 0.0006 * window.session.size(QuantConfig())
    shown = window.panel.slider.value()
    assert ready.points[shown].cost <= limit + rounding
    assert ready.points[shown + 1].cost > limit - rounding


def test_that_without_data_the_dialog_says_so(qtbot, tmp_path) -> None:
    session, engine = make_session(tmp_path)
    main = MainWindow(session, make_settings(tmp_path / "layout.ini"))
    qtbot.addWidget(main)
    main.show()
    assert not main.actions_by_id["find_mix"].isEnabled()
    open_network(session, engine)
    QApplication.processEvents()
    main.actions_by_id["find_mix"].trigger()
    dialog = main.presenter.trade_off.dialog
    assert not dialog.start.isEnabled()
    assert dialog.data.isVisible()
    dialog.close()
    main.close()


# --- A and B -----------------------------------------------------------------------------------------------------

W8 = QuantConfig().with_overrides({"conv1": LayerSpec(weight_spec(8)), "fc": LayerSpec(weight_spec(4))})
W4 = QuantConfig().with_overrides({"conv1": LayerSpec(weight_spec(4)), "fc": LayerSpec(weight_spec(4))})


def pinned(window) -> None:
    for config, value, action in ((W8, 0.93, "pin_a"), (W4, 0.7, "pin_b")):
        window.evaluate(config, value)
        window.main.actions_by_id[action].trigger()
    for _ in range(3):
        QApplication.processEvents()


def test_that_a_and_b_must_be_pinned_before_they_are_compared(window) -> None:
    action = window.main.actions_by_id["flip"]
    assert not action.isEnabled()
    assert "Pin two configurations" in action.toolTip()
    pinned(window)
    assert action.isEnabled()
    assert window.main.actions_by_id["compare"].isEnabled()


def test_that_flipping_shows_what_is_known_in_the_same_frame_and_asks_the_engine_nothing(window) -> None:
    pinned(window)
    requests, session = len(window.engine.requests), window.session
    steps = session.undo_stack.count()
    window.main.actions_by_id["flip"].trigger()
    assert session.config == W8
    assert window.bits("conv1") == "8"
    assert "93.0 ± 1.0 %" in window.main.panels.status.quality_label.text()
    window.main.actions_by_id["flip"].trigger()
    assert session.config == W4
    assert "70.0 ± 1.0 %" in window.main.panels.status.quality_label.text()
    window.main.actions_by_id["flip"].trigger()
    QApplication.processEvents()
    assert not window.main.actions_by_id["flip"].isChecked()
    assert session.undo_stack.count() == steps + 1
    asked = [window.engine.requests[number] for number in window.engine.requests if number > requests]
    assert not [request for request in asked if isinstance(request, Evaluate)]
    session.undo_stack.undo()
    assert session.config == W4


def test_that_layers_that_differ_are_highlighted_and_found_by_the_filter(window) -> None:
    pinned(window)
    model, panel = window.main.panels.model, window.main.panels.layers
    tinted = [
        model.layer(row).name
        for row in range(model.rowCount())
        if model.index(row, 0).data(Qt.ItemDataRole.BackgroundRole) is not None
    ]
    assert tinted == ["conv1"]
    assert "Differs: A has int8, B has int4" in model.index(model.row_of("conv1"), 0).data(Qt.ItemDataRole.ToolTipRole)
    panel.filter.setText("differs")
    assert [model.layer(row).name for row in range(model.rowCount())] == ["conv1"]
    window.session.pin("B", None)
    assert model.rowCount() == 0
    panel.filter.clear()
    assert model.index(0, 0).data(Qt.ItemDataRole.BackgroundRole) is None


def test_that_the_comparison_shows_both_and_uses_either(window, qtbot) -> None:
    pinned(window)
    window.main.actions_by_id["compare"].trigger()
    dialog = window.main.presenter.pins.dialog
    assert dialog.panel.summary.text() == "1 of 4 layers differ"
    assert dialog.panel._scores["A"].text() == "93.0 ± 1.0 %"
    assert dialog.panel.model.layer(0).formats == ("int8", "int4")
    steps = window.session.undo_stack.count()
    qtbot.mouseClick(dialog.panel.buttons["A"], Qt.MouseButton.LeftButton)
    assert window.session.config == W8
    assert window.session.undo_stack.count() == steps + 1
    qtbot.waitUntil(lambda: not dialog.panel.buttons["A"].isEnabled(), timeout=5000)
    window.session.pin("A", None)
    assert not dialog.isVisible()


def test_that_a_point_of_the_plot_can_be_pinned(window) -> None:
    ready = window.find_mix()
    window.panel.plot.setFocus()
    for _ in range(3):
        QApplication.processEvents()
    window.panel.pin_requested.emit("A", window.panel.plot._spots()[-1])
    assert window.session.pins[0] == ready.points[-1].config
    assert window.panel.plot._pins["A"].isVisible()


def test_that_another_network_lets_go_of_everything(window) -> None:
    pinned(window)
    window.find_mix()
    window.main.actions_by_id["compare"].trigger()
    open_network(window.session, window.engine, "other.onnx")
    QApplication.processEvents()
    assert window.session.pins == (None, None)
    assert not window.main.presenter.pins.dialog.isVisible()
    assert not window.panel.slider.isVisible()
    assert not window.panel.plot._pins["A"].isVisible()


# --- with the real engine ----------------------------------------------------------------------------------------


@pytest.mark.timeout(300)
def test_that_a_mix_is_found_dragged_undone_and_compared_on_a_real_network(qtbot, tmp_path) -> None:
    session = real_session(tmp_path)
    main = open_window(qtbot, session, tmp_path)
    with qtbot.waitSignal(session.data_opened, timeout=PATIENCE):
        main.welcome.sample_chosen.emit(read_samples()[0])
    panel, presenter = main.panels.trade_off, main.presenter.trade_off

    def idle() -> bool:
        return not any(job.is_active for job in session.jobs)

    qtbot.waitUntil(idle, timeout=PATIENCE)
    main.actions_by_id["find_mix"].trigger()
    presenter.dialog.controls.value.setValue(0.2)
    qtbot.mouseClick(presenter.dialog.start, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: session.mix is not None and session.mix.complete and idle(), timeout=PATIENCE)
    mix = session.mix
    assert len(mix.points) > 5
    assert "at 0." in presenter.dialog.sentence.text(), presenter.dialog.sentence.text()
    qtbot.mouseClick(presenter.dialog.use, Qt.MouseButton.LeftButton)
    presenter.dialog.close()
    assert session.size() <= 0.2 * session.size(QuantConfig())
    used = session.config
    qtbot.waitUntil(lambda: session.evaluation is not None and session.evaluation.complete and idle(), timeout=PATIENCE)
    measured = (mix.refined or mix.points[mix.chosen]).measured
    again = session.evaluation.scores["output_sqnr_db"]
    assert again.value == pytest.approx(measured.value, abs=3 * measured.stderr + 3 * again.stderr + 0.2)

    qtbot.keyClick(panel.slider, Qt.Key.Key_End)
    qtbot.keyClick(panel.slider, Qt.Key.Key_Home)
    assert session.config == mix.points[0].config
    assert main.panels.model.index(0, Column.WEIGHT_BITS).data() == "2"
    main.actions_by_id["undo"].trigger()
    assert session.config == used

    main.actions_by_id["pin_a"].trigger()
    session.set_config(preset_config(find_preset("W8"), session.summary.layers), "W8")
    qtbot.waitUntil(lambda: session.evaluation is not None and session.evaluation.complete and idle(), timeout=PATIENCE)
    main.actions_by_id["pin_b"].trigger()
    qtbot.waitUntil(main.actions_by_id["flip"].isEnabled)
    main.actions_by_id["flip"].trigger()
    assert session.config == used
    assert session.evaluation is not None
    assert session.evaluation.complete
    main.close()
