from __future__ import annotations

import math

import pytest
from gui_examples import shown
from PySide6.QtCore import Qt

from quantgui.gui.panels.comparison import (
    ComparedColumn,
    ComparedLayer,
    ComparedSide,
    Comparison,
    ComparisonModel,
    ComparisonPanel,
)
from quantgui.results import Score

ROWS = (
    ComparedLayer("conv1", ("int8", "int4"), (1000, 520), (44.0, 19.5), differs=True),
    ComparedLayer("conv2", ("int4", "int4"), (520, 520), (20.0, 20.0), differs=False),
    ComparedLayer("conv3", ("int4", "float32"), (520, 4000), (20.0, math.inf), differs=True),
    ComparedLayer("fc", ("int2", "int3"), (260, 390), (8.0, math.nan), differs=True),
)
SIDES = (
    ComparedSide("W4 edited", 2300, Score(0.941, 0.01, 100), in_use=True),
    ComparedSide("mix at 0.2×", 5430, None, in_use=False),
)


@pytest.fixture
def panel(qtbot) -> ComparisonPanel:
    result = ComparisonPanel()
    shown(qtbot, result, 760, 420)
    result.show_comparison(Comparison(SIDES, "accuracy", ROWS))
    return result


def texts(panel: ComparisonPanel, column: ComparedColumn) -> list[str]:
    return [panel.model.index(row, column).data() for row in range(panel.model.rowCount())]


def test_that_only_layers_that_differ_are_shown_unless_all_are_wanted(panel) -> None:
    assert texts(panel, ComparedColumn.NAME) == ["conv1", "conv3", "fc"]
    assert panel.summary.text() == "3 of 4 layers differ"
    panel.only.click()
    assert len(texts(panel, ComparedColumn.NAME)) == 4


def test_that_differences_have_a_sign_and_what_is_not_known_is_not_invented(panel) -> None:
    assert texts(panel, ComparedColumn.BYTES) == ["−480 B", "+3.5 KB", "+130 B"]
    assert texts(panel, ComparedColumn.SQNR) == ["−24.5 dB", "+∞ dB", "–"]
    assert "Not known yet" in panel.model.index(2, ComparedColumn.SQNR).data(Qt.ItemDataRole.ToolTipRole)


def test_that_layers_that_differ_are_highlighted(panel) -> None:
    panel.only.click()
    shown = [panel.model.index(row, 0).data(Qt.ItemDataRole.BackgroundRole) is not None for row in range(4)]
    assert shown == [True, False, True, True]


def test_that_rows_are_sorted_by_a_click_and_what_is_not_known_comes_last(panel) -> None:
    panel.table.sortByColumn(ComparedColumn.BYTES, Qt.SortOrder.DescendingOrder)
    assert texts(panel, ComparedColumn.NAME) == ["conv3", "fc", "conv1"]
    panel.table.sortByColumn(ComparedColumn.SQNR, Qt.SortOrder.AscendingOrder)
    assert texts(panel, ComparedColumn.NAME)[0] == "conv1"


def test_that_both_sides_are_named_with_size_and_quality(panel) -> None:
    assert panel._titles["A"].text() == "A: W4 edited, in use"
    assert panel._titles["B"].text() == "B: mix at 0.2×"
    assert panel._sizes["A"].text() == "2.3 KB"
    assert panel._scores["A"].text() == "94.1 ± 1.0 %"
    assert panel._scores["B"].text() == "–"


def test_that_the_side_not_in_use_can_be_used(panel, qtbot) -> None:
    assert not panel.buttons["A"].isEnabled()
    with qtbot.waitSignal(panel.side_chosen) as told:
        qtbot.mouseClick(panel.buttons["B"], Qt.MouseButton.LeftButton)
    assert told.args == ["B"]


def test_that_a_row_leads_to_its_layer(panel, qtbot) -> None:
    place = panel.table.visualRect(panel.model.index(1, 0)).center()
    with qtbot.waitSignal(panel.layer_picked) as told:
        qtbot.mouseClick(panel.table.viewport(), Qt.MouseButton.LeftButton, pos=place)
    assert told.args == ["conv3"]


def test_that_what_is_not_known_is_at_the_end_in_either_order(panel) -> None:
    for order, names in (
        (Qt.SortOrder.AscendingOrder, ["conv1", "conv3", "fc"]),
        (Qt.SortOrder.DescendingOrder, ["conv3", "conv1", "fc"]),
    ):
        panel.table.sortByColumn(ComparedColumn.SQNR, order)
        assert texts(panel, ComparedColumn.NAME) == names


def test_that_the_model_keeps_qts_rules(qtmodeltester) -> None:
    model = ComparisonModel()
    model.show_layers(ROWS)
    qtmodeltester.check(model)
