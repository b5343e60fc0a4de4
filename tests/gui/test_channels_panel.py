from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from gui_examples import W4_CHANNEL, W4_TENSOR, click, hover, in_viewport, layer, shown, weight_view, weights
from PySide6.QtWidgets import QApplication

from quantgui.gui.panels.channels import ChannelsPanel, covered_by_grid, outlier_channels, weak_channels

WEIGHTS = weights(32, 128, outliers=())
WEIGHTS[5] *= 30
WEIGHTS[20] *= 40


def panel(qtbot, spec=W4_CHANNEL) -> ChannelsPanel:
    result = ChannelsPanel()
    shown(qtbot, result)
    result.show_layer(layer(channels=32))
    result.show_view(weight_view(WEIGHTS, spec))
    QApplication.processEvents()
    return result


def test_that_outlier_channels_are_named(qtbot) -> None:
    assert panel(qtbot)._summary.text() == "2 outlier channels: 5, 20"


def test_that_alike_channels_have_no_outliers(qtbot) -> None:
    result = ChannelsPanel()
    shown(qtbot, result)
    result.show_layer(layer(channels=32))
    result.show_view(weight_view(weights(32, 128, outliers=()), W4_TENSOR))
    assert result._summary.text() == "No outlier channels"


def test_that_channels_hardly_wider_than_equal_ones_are_no_outliers() -> None:
    high = np.ones(50)
    high[3] = 1.5
    assert not outlier_channels(-high, high).any()
    high[3] = 2.5
    assert np.flatnonzero(outlier_channels(-high, high)).tolist() == [3]


def test_that_outliers_do_not_hide_each_other() -> None:
    high = np.exp(np.random.default_rng(0).normal(0, 0.2, 100))
    high[:20] *= 100
    assert np.flatnonzero(outlier_channels(-high, high)).tolist() == list(range(20))


def test_that_the_number_of_outliers_does_not_depend_on_the_unit() -> None:
    high = np.exp(np.random.default_rng(1).normal(0, 1.0, 200))
    assert (outlier_channels(-high, high) == outlier_channels(-1e-6 * high, 1e-6 * high)).all()


def test_that_channels_of_zeros_are_no_outliers() -> None:
    assert not outlier_channels(np.zeros(4), np.zeros(4)).any()
    high = np.array([0.0, 1.0, 1.0, 1.1])
    assert not outlier_channels(-high, high).any()


def test_that_weak_channels_lie_six_decibels_below_the_median() -> None:
    assert weak_channels(np.array([20.0, 20.0, 21.0, 14.0, 14.1, np.inf])).tolist() == [0, 0, 0, 1, 0, 0]
    assert not weak_channels(np.array([np.inf, np.inf])).any()


def test_that_pointing_at_a_channel_reads_its_numbers_out(qtbot) -> None:
    result = panel(qtbot)
    hover(result.ranges, in_viewport(result.ranges, 5.1, 0.0))
    assert result._readout.text().startswith("Channel 5:")
    assert "SQNR" in result._readout.text()
    assert result.errors.marked() == 5


def test_that_a_click_picks_a_channel(qtbot) -> None:
    result = panel(qtbot)
    with qtbot.waitSignal(result.channel_picked) as told:
        click(result.ranges, in_viewport(result.ranges, 12.0, 0.0))
    assert told.args == [12]


def test_that_a_click_in_sorted_order_picks_the_channel_at_that_rank(qtbot) -> None:
    result = panel(qtbot)
    result.order_buttons.button("width").click()
    QApplication.processEvents()
    with qtbot.waitSignal(result.channel_picked) as told:
        click(result.ranges, in_viewport(result.ranges, 0.0, 0.0))
    assert told.args == [20]


def test_that_the_order_by_sqnr_begins_with_the_worst(qtbot) -> None:
    result = panel(qtbot, W4_TENSOR)
    result.order_buttons.button("sqnr").click()
    sqnr = weight_view(WEIGHTS, W4_TENSOR).channels.sqnr_db
    assert result._order[0] == np.argmin(sqnr)
    assert (np.diff(sqnr[result._order]) >= 0).all()


def test_that_a_float_layer_has_ranges_only(qtbot) -> None:
    result = panel(qtbot)
    result.order_buttons.button("sqnr").click()
    result.show_view(weight_view(WEIGHTS, None))
    assert not result.errors_card.isVisible()
    assert not result.order_buttons.button("sqnr").isEnabled()
    assert result.order_buttons.value() == "index"
    assert result.ranges_card.isVisible()


@pytest.mark.parametrize(("spec", "groups"), [(W4_TENSOR, 1), (W4_CHANNEL, 32)])
def test_that_the_grid_covers_each_channel(spec, groups: int) -> None:
    view = weight_view(WEIGHTS, spec)
    low, high = covered_by_grid(view)
    assert len(view.scales) == groups
    assert len(low) == len(high) == 32
    assert (low <= view.channels.minimum).all()
    assert (high >= view.channels.maximum * (1 - 1e-6)).all()


def test_that_the_widest_group_of_a_channel_counts() -> None:
    view = weight_view(WEIGHTS, W4_CHANNEL)
    scales = np.stack([view.scales, view.scales / 2], axis=1).ravel()
    grouped = replace(view, scales=scales, zero_points=np.zeros(len(scales), np.int32))
    for whole, part in zip(covered_by_grid(view), covered_by_grid(grouped), strict=True):
        assert (whole == part).all()


def test_that_states_without_a_view_are_told(qtbot) -> None:
    result = ChannelsPanel()
    shown(qtbot, result)
    assert result.state.heading() == "No layer selected"
    result.show_layer(layer(channels=32))
    assert result.state.heading() == "Computing"
    result.show_failure("The file has been moved.")
    assert result.state.sentence() == "The file has been moved."
    assert result.state.isVisible()
