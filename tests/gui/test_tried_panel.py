from __future__ import annotations

import math

import numpy as np
import pytest
from gui_examples import click, hover, in_viewport, shown
from hypothesis import given
from hypothesis import strategies as st
from PySide6.QtCore import Qt
from PySide6.QtWidgets import QApplication, QPushButton

from quantgui.gui.panels.tried import TriedPanel, TriedPoint, best_for_size

POINTS = (
    TriedPoint("float32", 40_000_000, 76.1, 0.2),
    TriedPoint("W8A8", 10_000_000, 75.8, 0.2),
    TriedPoint("W4", 5_000_000, 70.2, 0.4),
    TriedPoint("W4 bad", 6_000_000, 61.0, 0.4),
)


def panel(qtbot, points=POINTS, current=1) -> TriedPanel:
    result = TriedPanel()
    shown(qtbot, result, 800, 240)
    result.show_points(points, current, "top-1 (%)")
    QApplication.processEvents()
    return result


def test_that_nothing_tried_is_said(qtbot) -> None:
    result = panel(qtbot, (), None)
    assert result.state.isVisible()
    assert result.state.heading() == "Nothing tried yet"


def test_that_without_data_it_offers_to_open_some(qtbot) -> None:
    result = TriedPanel()
    shown(qtbot, result)
    result.show_needs_data()
    button = next(b for b in result.state.findChildren(QPushButton) if b.isVisible())
    with qtbot.waitSignal(result.data_requested):
        qtbot.mouseClick(button, Qt.MouseButton.LeftButton)


def test_that_equal_outputs_are_not_called_nothing_tried(qtbot) -> None:
    result = TriedPanel()
    shown(qtbot, result)
    result.show_points((TriedPoint("float32", 100, math.inf, 0.0),), 0, "output SQNR")
    assert result.state.heading() == "Nothing to compare yet"


def test_that_the_current_configuration_is_named_with_its_uncertainty(qtbot) -> None:
    assert panel(qtbot).card.note() == "W8A8: 10.0 MB, top-1 (%) 75.8 ± 0.20"


def test_that_a_click_picks_a_point(qtbot) -> None:
    result = panel(qtbot)
    with qtbot.waitSignal(result.point_picked) as told:
        click(result.plot, in_viewport(result.plot, 6.0, 61.0))
    assert told.args == [3]


def test_that_a_click_beside_all_points_picks_none(qtbot) -> None:
    result = panel(qtbot)
    with qtbot.assertNotEmitted(result.point_picked):
        click(result.plot, in_viewport(result.plot, 25.0, 65.0))


def test_that_pointing_at_a_point_names_it(qtbot) -> None:
    result = panel(qtbot)
    hover(result.plot, in_viewport(result.plot, 5.0, 70.2))
    assert result.card.note().startswith("W4: 5.0 MB")
    hover(result.plot, in_viewport(result.plot, 25.0, 65.0))
    assert result.card.note().startswith("W8A8")


def test_that_points_are_picked_by_keys_from_small_to_large(qtbot) -> None:
    result = panel(qtbot)
    for _ in range(2):
        qtbot.keyClick(result.plot, Qt.Key.Key_Right)
    with qtbot.waitSignal(result.point_picked) as told:
        qtbot.keyClick(result.plot, Qt.Key.Key_Return)
    assert told.args == [3]


def test_that_values_that_are_not_finite_are_counted_and_not_placed(qtbot) -> None:
    result = panel(qtbot, (*POINTS, TriedPoint("same", 30_000_000, math.inf, 0.0)), None)
    assert result.card.note() == "5 tried"
    assert len(result.plot._sizes) == 4


def test_that_one_point_alone_is_shown(qtbot) -> None:
    result = panel(qtbot, (TriedPoint("W8", 10_000_000, 30.0, 0.0),), 0)
    assert result.plot.isVisible()
    assert not result.grab().isNull()


def test_that_smaller_may_be_better(qtbot) -> None:
    result = TriedPanel()
    qtbot.addWidget(result)
    result.show_points(POINTS, 1, "error", higher_is_better=False)
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


@pytest.mark.parametrize("current", [None, 9])
def test_that_a_current_configuration_not_evaluated_is_not_marked(qtbot, current) -> None:
    result = panel(qtbot, POINTS, current)
    assert result.card.note() == "4 tried"
