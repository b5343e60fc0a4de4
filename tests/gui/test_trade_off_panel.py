from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from gui_examples import click, drag, hover, in_viewport, layer, shown
from hypothesis import given
from hypothesis import strategies as st
from mix_examples import frontier
from PySide6.QtCore import QPoint, QPointF, Qt
from PySide6.QtGui import QContextMenuEvent
from PySide6.QtWidgets import QApplication, QPushButton

from quantgui.gui.mix_words import CostScale
from quantgui.gui.panels.trade_off import TradeOffPanel
from quantgui.gui.plots.trade_off import Spot
from quantgui.gui.trade_off_values import Limit, Present, TradeOff, TriedPoint, best_for_size, place_for
from quantgui.results import MixReady, Progress, Score
from quantgui.session.jobs import Job, JobState
from quantgui.spec.mix import Mix
from quantgui.spec.sweep import Sweep

POINTS = (
    TriedPoint("float32", 40_000_000, Score(0.761, 0.002, 100)),
    TriedPoint("W8A8", 10_000_000, Score(0.758, 0.002, 100)),
    TriedPoint("W4", 5_000_000, Score(0.702, 0.004, 100)),
    TriedPoint("W4 bad", 6_000_000, Score(0.610, 0.004, 100)),
)
MEGABYTES = CostScale("bytes", 40e6, 40e6)
LAYERS = tuple(layer(f"conv{n}", 64, 64) for n in range(12))


def tried(points=POINTS, metric: str = "accuracy", **changes) -> TradeOff:
    return TradeOff(points, metric, scale=MEGABYTES, **changes)


def panel(qtbot, what: TradeOff | None = None, present: Present | None = None) -> TradeOffPanel:
    result = TradeOffPanel()
    shown(qtbot, result, 800, 300)
    result.show_trade_off(what or tried())
    result.show_present(present or Present(tried=1, cost=10e6))
    QApplication.processEvents()
    return result


def with_frontier(qtbot, ready: MixReady | None = None, place: int = 3) -> TradeOffPanel:
    ready = ready or frontier(LAYERS, measured=(0, 6, 12))
    scale = CostScale("bytes", 4.0 * ready.points[0].cost, ready.points[-1].cost)
    what = TradeOff((), "output_sqnr_db", scale=scale, mix=ready)
    result = panel(qtbot, what, Present(frontier=place, cost=ready.points[place].cost))
    result.show_limit(Limit("cost", ready.mix.limit) if ready.mix.limit is not None else None)
    QApplication.processEvents()
    return result


def on_line(result: TradeOffPanel, place: int) -> QPoint:
    ready = result._shown.mix
    point = ready.points[place]
    return in_viewport(result.plot, point.cost / result._shown.scale.unit, point.predicted)


# --- configurations tried ----------------------------------------------------------------------------------------


def test_that_nothing_tried_is_said(qtbot) -> None:
    result = panel(qtbot, TradeOff(), Present())
    assert result.state.isVisible()
    assert result.state.heading() == "Nothing tried yet"


def test_that_without_data_it_offers_to_open_some(qtbot) -> None:
    result = TradeOffPanel()
    shown(qtbot, result)
    result.show_needs_data()
    button = next(b for b in result.state.findChildren(QPushButton) if b.isVisible())
    with qtbot.waitSignal(result.data_requested):
        qtbot.mouseClick(button, Qt.MouseButton.LeftButton)


def test_that_equal_outputs_are_not_called_nothing_tried(qtbot) -> None:
    result = panel(qtbot, tried((TriedPoint("float32", 100, Score(math.inf, 0.0, 10)),), "output_sqnr_db"))
    assert result.state.heading() == "Nothing to compare yet"


def test_that_the_present_configuration_is_named_with_its_uncertainty(qtbot) -> None:
    assert panel(qtbot).info.text() == "W8A8: 10.0 MB (0.25×), accuracy 75.8 ± 0.2 %"


def test_that_a_click_picks_a_point(qtbot) -> None:
    result = panel(qtbot)
    with qtbot.waitSignal(result.point_picked) as told:
        click(result.plot, in_viewport(result.plot, 6.0, 0.61))
    assert told.args == [3]


def test_that_a_click_beside_all_points_picks_none(qtbot) -> None:
    result = panel(qtbot)
    with qtbot.assertNotEmitted(result.point_picked):
        click(result.plot, in_viewport(result.plot, 25.0, 0.65))


def test_that_pointing_at_a_point_names_it(qtbot) -> None:
    result = panel(qtbot)
    hover(result.plot, in_viewport(result.plot, 5.0, 0.702))
    assert result.info.text().startswith("W4: 5.0 MB")
    hover(result.plot, in_viewport(result.plot, 25.0, 0.65))
    assert result.info.text().startswith("W8A8")


def test_that_points_are_picked_by_keys_from_small_to_large(qtbot) -> None:
    result = panel(qtbot)
    for _ in range(2):
        qtbot.keyClick(result.plot, Qt.Key.Key_Right)
    with qtbot.waitSignal(result.point_picked) as told:
        qtbot.keyClick(result.plot, Qt.Key.Key_Return)
    assert told.args == [3]


def test_that_values_that_are_not_finite_are_not_placed_and_do_not_shift_the_others(qtbot) -> None:
    same = TriedPoint("same", 30_000_000, Score(math.inf, 0.0, 10))
    result = panel(qtbot, tried((same, *POINTS)), Present(cost=3e7))
    assert result.info.text() == "5 tried"
    with qtbot.waitSignal(result.point_picked) as told:
        click(result.plot, in_viewport(result.plot, 6.0, 0.61))
    assert told.args == [4]


def test_that_one_point_alone_is_shown(qtbot) -> None:
    result = panel(qtbot, tried((TriedPoint("W8", 10_000_000, Score(0.3, 0.0, 1)),)), Present(tried=0))
    assert result.plot.isVisible()
    assert not result.grab().isNull()


def test_that_smaller_may_be_better(qtbot) -> None:
    result = panel(qtbot, tried(metric="kl", higher_is_better=False))
    x, _ = result.plot._front.getData()
    assert x.tolist() == [5.0, 6.0]


@given(st.lists(st.tuples(st.integers(1, 20), st.integers(0, 20)), min_size=1, max_size=30))
def test_that_the_best_for_their_size_are_those_no_other_point_beats(points) -> None:
    sizes, values = (np.array(column, float) for column in zip(*points, strict=True))
    front = best_for_size(sizes, values)
    for index in range(len(sizes)):
        beaten = ((sizes <= sizes[index]) & (values > values[index])).any()
        beaten |= ((sizes < sizes[index]) & (values >= values[index])).any()
        same = (sizes[front] == sizes[index]) & (values[front] == values[index])
        assert same.any() == (not beaten)


@pytest.mark.parametrize("place", [None, 9])
def test_that_a_present_configuration_not_evaluated_is_a_line_at_its_size(qtbot, place) -> None:
    result = panel(qtbot, present=Present(tried=place, cost=20e6))
    assert result.info.text() == "4 tried"
    assert result.plot._present_line.isVisible()
    assert result.plot._present_line.value() == 20.0
    assert len(result.plot._star.getData()[0]) == 0


# --- the frontier ------------------------------------------------------------------------------------------------


def test_that_predicted_and_measured_can_be_told_apart(qtbot) -> None:
    ready = frontier(LAYERS, measured=(0, 6, 12))
    result = with_frontier(qtbot, ready)
    x, y = result.plot._line.getData()
    assert len(x) == len(ready.points)
    assert y.tolist() == [point.predicted for point in ready.points]
    squares = result.plot._measured.getData()[1]
    assert squares.tolist() == [ready.points[place].measured.value for place in (0, 6, 12)]
    assert [result._chips[name].isVisible() for name in ("predicted", "measured", "best")] == [True, True, False]


def test_that_the_words_name_what_is_predicted_and_what_is_measured(qtbot) -> None:
    ready = frontier(LAYERS, measured=(6,))
    result = with_frontier(qtbot, ready, place=6)
    point = ready.points[6]
    assert f"predicted {point.predicted:.1f} dB, measured {point.measured.value:.1f} ± 0.6 dB" in result.info.text()


def test_that_dragging_along_the_line_goes_from_point_to_point_and_picks_none(qtbot) -> None:
    result = with_frontier(qtbot)
    places: list[int] = []
    picked: list[int] = []
    released: list[bool] = []
    result.frontier_dragged.connect(places.append)
    result.point_picked.connect(picked.append)
    result.frontier_released.connect(lambda: released.append(True))
    before = result.plot.view.viewRange()
    drag(result.plot, on_line(result, 4), on_line(result, 9), 12)
    assert places[-1] == 9
    assert places == sorted(places)
    assert {5, 6, 7, 8} <= set(places)
    assert released == [True]
    assert not picked
    assert result.plot.view.viewRange() == before  # not panned at the same time


def test_that_dragging_beside_the_line_drags_nothing(qtbot) -> None:
    result = with_frontier(qtbot)
    start = on_line(result, 4) + QPoint(0, 40)
    with qtbot.assertNotEmitted(result.frontier_dragged):
        drag(result.plot, start, start + QPoint(60, 0))


def test_that_a_click_on_a_point_of_the_frontier_goes_there_in_one_step(qtbot) -> None:
    result = with_frontier(qtbot)
    with qtbot.waitSignals([result.frontier_dragged, result.frontier_released], order="strict"):
        click(result.plot, on_line(result, 8))


def test_that_the_slider_moves_along_the_frontier_by_keys(qtbot) -> None:
    result = with_frontier(qtbot)
    places: list[int] = []
    result.frontier_dragged.connect(places.append)
    with qtbot.waitSignal(result.frontier_released, timeout=3000):
        for key in (Qt.Key.Key_Right, Qt.Key.Key_End, Qt.Key.Key_Home, Qt.Key.Key_Left):
            qtbot.keyClick(result.slider, key)
    assert places == [4, result.slider.maximum(), 0]
    assert result.slider.accessibleName() == "Along the frontier"


def test_that_the_slider_follows_the_present_configuration_without_a_word(qtbot) -> None:
    result = with_frontier(qtbot)
    with qtbot.assertNotEmitted(result.frontier_dragged):
        result.show_present(Present(frontier=7, cost=1.0))
    assert result.slider.value() == 7
    assert result.slider.accessibleDescription() == result.info.text()


def test_that_a_present_configuration_only_predicted_is_hollow(qtbot) -> None:
    result = with_frontier(qtbot, frontier(LAYERS, measured=(6,)), place=3)
    assert result.plot._hollow
    result.show_present(Present(frontier=6))
    assert not result.plot._hollow


# --- the limit ---------------------------------------------------------------------------------------------------


def test_that_dragging_the_limit_goes_to_the_best_mix_that_keeps_it(qtbot) -> None:
    result = with_frontier(qtbot)
    ready, unit = result._shown.mix, result._shown.scale.unit
    places: list[int] = []
    result.frontier_dragged.connect(places.append)
    low = result.plot.view.viewRange()[1][0]
    # A little right of the fifth point, so that it is the dearest that is allowed.
    target = (ready.points[5].cost * 0.9 + ready.points[6].cost * 0.1) / unit
    start = in_viewport(result.plot, ready.mix.limit / unit, low) - QPoint(0, 30)
    end = QPoint(in_viewport(result.plot, target, low).x(), start.y())
    with qtbot.waitSignal(result.limit_chosen) as told:
        drag(result.plot, start, end, 12)
    assert places[-1] == 5
    limit = told.args[0]
    assert limit.side == "cost"
    assert ready.points[5].cost <= limit.value < ready.points[6].cost


def test_that_a_limit_of_quality_is_a_line_across(qtbot) -> None:
    ready = frontier(LAYERS, mix=Mix(Sweep(), drop=20.0))
    result = with_frontier(qtbot, ready)
    result.show_limit(Limit("quality", 20.0))
    assert result.plot._limits["quality"].isVisible()
    assert not result.plot._limits["cost"].isVisible()
    assert result.plot._limits["quality"].value() == 20.0


def test_that_no_mix_is_found_for_a_limit_below_all(qtbot) -> None:
    ready = frontier(LAYERS)
    assert place_for(ready, Limit("cost", 1.0)) is None
    assert place_for(ready, Limit("quality", 1e3)) is None
    assert place_for(ready, Limit("cost", 1e12)) == len(ready.points) - 1
    assert place_for(ready, Limit("quality", -1e3)) == 0


def test_that_without_a_mix_there_is_no_limit_to_drag(qtbot) -> None:
    result = panel(qtbot)
    result.show_limit(Limit("cost", 1e7))
    assert not result.plot._limits["cost"].isVisible()
    assert not result.slider.isVisible()


# --- the search --------------------------------------------------------------------------------------------------


def test_that_the_answer_is_said_in_a_sentence_with_a_button(qtbot) -> None:
    ready = frontier(LAYERS, measured=(2, 3, 4))
    point = replace(ready.points[4], predicted=31.2, measured=Score(30.9, 0.3, 64), cost=ready.mix.limit)
    spec = point.config.spec_for("conv0")
    changes = tuple((f"conv{n}", spec, spec) for n in range(3))
    ready = replace(ready, refined=point, changes=changes, gained=0.5, additivity_error=0.4)
    result = with_frontier(qtbot, ready)
    scale = CostScale("bytes", 4 * ready.mix.limit, ready.mix.limit)
    result.show_trade_off(replace(result._shown, scale=scale))
    assert result.sentence() == (
        "Predicted 31.2 dB, measured 30.9 ± 0.3 dB at 0.25×; additivity error 0.4 dB; "
        "refinement changed 3 layers and gained 0.5 dB"
    )
    with qtbot.waitSignal(result.mix_accepted):
        qtbot.mouseClick(result.use, Qt.MouseButton.LeftButton)


def test_that_a_limit_that_no_mix_keeps_is_said(qtbot) -> None:
    ready = frontier(LAYERS, mix=Mix(Sweep(), limit=10.0))
    result = with_frontier(qtbot, ready)
    assert "No mix keeps the limit" in result.sentence()
    assert not result.use.isVisible()


def test_that_a_search_shows_its_progress_and_can_be_stopped(qtbot) -> None:
    result = panel(qtbot)
    result.show_job(Job(1, "mix", "Find a mix", JobState.RUNNING, Progress(3, 10, "Measuring layers", 12.0)))
    assert result.progress.isVisible()
    assert "12 s left" in result.progress.text()
    with qtbot.waitSignal(result.cancel_requested):
        qtbot.mouseClick(result.progress.stop, Qt.MouseButton.LeftButton)
    result.show_job(Job(1, "mix", "Find a mix", JobState.CANCELLED))
    assert not result.progress.isVisible()
    assert result.sentence() == "Stopped; what has been measured is kept."


def test_that_a_failure_is_said(qtbot) -> None:
    result = panel(qtbot)
    result.show_job(Job(1, "mix", "Find a mix", JobState.FAILED, sentence="Pins contradict each other."))
    assert result.sentence() == "Pins contradict each other."


def test_that_the_button_asks_for_a_search(qtbot) -> None:
    result = panel(qtbot)
    with qtbot.waitSignal(result.mix_requested):
        qtbot.mouseClick(result.mix, Qt.MouseButton.LeftButton)


# --- A and B -----------------------------------------------------------------------------------------------------


def test_that_keys_pin_the_marked_point_or_the_present_configuration(qtbot) -> None:
    result = panel(qtbot)
    with qtbot.waitSignal(result.pin_requested) as told:
        qtbot.keyClick(result.plot, Qt.Key.Key_B)
    assert told.args == ["B", None]
    qtbot.keyClick(result.plot, Qt.Key.Key_Right)
    with qtbot.waitSignal(result.pin_requested) as told:
        qtbot.keyClick(result.plot, Qt.Key.Key_A)
    assert told.args == ["A", Spot("tried", 2)]


def test_that_a_menu_at_a_point_returns_to_it_and_pins_it(qtbot) -> None:
    result = panel(qtbot)
    spots: list[object] = []
    result.plot.menu_requested.disconnect()
    result.plot.menu_requested.connect(lambda spot, _: spots.append(spot))
    place = in_viewport(result.plot, 6.0, 0.61)
    event = QContextMenuEvent(QContextMenuEvent.Reason.Mouse, place, result.plot.mapToGlobal(place))
    QApplication.sendEvent(result.plot.viewport(), event)
    assert spots == [Spot("tried", 3)]
    menu = result.context_menu(spots[0])
    texts = [action.text() for action in menu.actions()]
    assert texts[0].startswith("Return to W4 bad")
    with qtbot.waitSignal(result.pin_requested) as told:
        menu.actions()[texts.index("Pin this as A")].trigger()
    assert told.args == ["A", Spot("tried", 3)]


def test_that_pinned_configurations_are_marked_by_their_letters(qtbot) -> None:
    result = panel(qtbot)
    result.show_pins(Present(tried=2), None)
    assert result.plot._pins["A"].isVisible()
    assert not result.plot._pins["B"].isVisible()
    assert result.plot._pins["A"].pos() == QPointF(5.0, 0.702)
    assert not result._actions["compare"].isEnabled()
    result.show_pins(Present(tried=2), Present(tried=1))
    assert result._actions["compare"].isEnabled()


def test_that_shares_are_written_in_percent_and_nothing_beyond_100(qtbot) -> None:
    result = panel(qtbot, tried((TriedPoint("float32", 40_000_000, Score(1.0, 0.0, 100)),), metric="agreement"))
    axis, (low, high) = result.plot.getAxis("left"), result.plot.view.viewRange()[1]
    assert low < 0.98
    assert 1.0 < high < 1.02
    ((spacing, values),) = axis.tickValues(low, high, 200.0)
    assert axis.tickStrings(values, axis.scale, spacing)[-1] == "100 %"
    result.show_trade_off(tried((TriedPoint("W4", 5_000_000, Score(24.0, 0.1, 100)),), metric="output_sqnr_db"))
    ((spacing, values),) = axis.tickValues(*result.plot.view.viewRange()[1], 200.0)
    assert axis.tickStrings(values, axis.scale, spacing)[-1].endswith(" dB")


def test_that_words_of_the_legend_are_worth_more_than_those_of_the_buttons(qtbot) -> None:
    result = with_frontier(qtbot)
    texts = result.mix.toolButtonStyle()
    legend = result._chips["predicted"]
    wide = legend.width()
    result.resize(600, 300)
    QApplication.processEvents()
    assert result.mix.toolButtonStyle() is not texts
    assert legend.width() >= wide - 2
    result.resize(800, 300)
    QApplication.processEvents()
    assert result.mix.toolButtonStyle() is texts
