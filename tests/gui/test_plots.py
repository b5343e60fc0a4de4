from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest
from gui_examples import click, drag, hover, in_viewport, shown
from PySide6.QtCore import QEvent, Qt
from PySide6.QtWidgets import QApplication

from quantgui.gui.plots.base import CountAxis, NumberAxis, tick_text
from quantgui.gui.plots.channels import ChannelErrorPlot, ChannelRangePlot
from quantgui.gui.plots.error import ErrorPlot
from quantgui.gui.plots.histogram import HistogramPlot
from quantgui.gui.plots.samples import SamplesPlot
from quantgui.gui.plots.trade_off import TradeOffPlot
from quantgui.results import Histogram

PLOTS = [HistogramPlot, ErrorPlot, ChannelRangePlot, ChannelErrorPlot, SamplesPlot, TradeOffPlot]
BELL = Histogram(np.linspace(-1.0, 1.0, 257), np.exp(-(np.linspace(-3, 3, 256) ** 2)) * 1e4)


def histogram_plot(qtbot, *, symmetric: bool = True) -> HistogramPlot:
    plot = HistogramPlot("Histogram", "weight", "count")
    shown(qtbot, plot, 600, 300)
    plot.show_float(BELL)
    plot.show_limits(-0.8, 0.8, symmetric=symmetric)
    plot.fit()
    QApplication.processEvents()
    return plot


@pytest.mark.parametrize("kind", PLOTS, ids=lambda kind: kind.__name__)
def test_that_a_closed_plot_leaves_nothing_behind(qapp, kind) -> None:
    def make() -> weakref.ref:
        plot = kind("name", "x", "y")
        plot.show()
        qapp.processEvents()
        plot.close()
        plot.deleteLater()
        return weakref.ref(plot)

    make()
    qapp.sendPostedEvents(None, QEvent.Type.DeferredDelete.value)
    before = len(qapp.allWidgets())
    for _ in range(5):
        reference = make()
        qapp.sendPostedEvents(None, QEvent.Type.DeferredDelete.value)
        qapp.processEvents()
        gc.collect()
        assert reference() is None
    assert len(qapp.allWidgets()) == before


def test_that_a_label_stands_in_the_middle_of_its_axis_or_not_at_all(qtbot) -> None:
    plot = TradeOffPlot("Quality against size", "size", "")
    shown(qtbot, plot, 400, 240)
    axis = plot.getAxis("left")
    for text in ("SQNR (dB)", "agreement of the first class", "a"):
        plot.set_label("left", text)
        QApplication.processEvents()
        length, middle = axis.label.boundingRect().width(), axis.size().height() / 2
        assert axis.label.opacity() == 1
        assert abs(axis.label.pos().y() - length / 2 - middle) <= 1
    plot.set_label("left", "a label that is much longer than the axis of a plot as low as this")
    plot.resize(400, 100)
    QApplication.processEvents()
    assert axis.label.opacity() == 0
    plot.resize(400, 900)
    QApplication.processEvents()
    assert axis.label.opacity() == 1


@pytest.mark.parametrize("kind", PLOTS, ids=lambda kind: kind.__name__)
def test_that_a_plot_without_data_can_be_drawn_and_used(qtbot, kind) -> None:
    plot = kind("name", "x", "y")
    shown(qtbot, plot, 300, 200)
    for key in (Qt.Key.Key_Plus, Qt.Key.Key_Left, Qt.Key.Key_Return, Qt.Key.Key_0):
        qtbot.keyClick(plot, key)
    hover(plot, plot.viewport().rect().center())
    click(plot, plot.viewport().rect().center())
    assert not plot.grab().isNull()


def test_that_a_limit_is_dragged_by_the_mouse_and_its_twin_follows(qtbot) -> None:
    plot = histogram_plot(qtbot)
    dragged, chosen = [], []
    plot.limits_dragged.connect(lambda low, high: dragged.append((low, high)))
    plot.limits_chosen.connect(lambda low, high: chosen.append((low, high)))
    drag(plot, in_viewport(plot, 0.8, 2.0), in_viewport(plot, 0.4, 2.0))
    assert len(dragged) >= 5
    low, high = chosen[-1]
    assert high == pytest.approx(0.4, abs=0.01)
    assert low == -high
    assert len(chosen) == 1


def test_that_limits_of_an_asymmetric_range_move_alone_and_keep_zero_inside(qtbot) -> None:
    plot = histogram_plot(qtbot, symmetric=False)
    drag(plot, in_viewport(plot, -0.8, 2.0), in_viewport(plot, 0.5, 2.0))
    assert plot.limits() == (0.0, 0.8)
    drag(plot, in_viewport(plot, 0.8, 2.0), in_viewport(plot, -0.5, 2.0))
    low, high = plot.limits()
    assert low == 0.0
    assert high > 0.0


def test_that_a_limit_is_taken_hold_of_a_few_pixels_beside_the_line(qtbot) -> None:
    plot = histogram_plot(qtbot)
    start = in_viewport(plot, 0.8, 2.0)
    start.setX(start.x() - 4)
    drag(plot, start, in_viewport(plot, 0.4, 2.0))
    assert plot.limits()[1] == pytest.approx(0.4, abs=0.02)


def test_that_limits_are_moved_by_keys(qtbot) -> None:
    plot = histogram_plot(qtbot, symmetric=False)
    with qtbot.waitSignals([plot.limits_dragged, plot.limits_chosen]):
        qtbot.keyClick(plot, Qt.Key.Key_Left, Qt.KeyboardModifier.ControlModifier)
    assert plot.limits() == (-0.8, pytest.approx(0.79))
    qtbot.keyClick(plot, Qt.Key.Key_Right, Qt.KeyboardModifier.ShiftModifier)
    assert plot.limits() == (pytest.approx(-0.79), pytest.approx(0.79))


def test_that_dragging_beside_the_limits_moves_the_view_and_no_limit(qtbot) -> None:
    plot = histogram_plot(qtbot)
    plot.zoom(2.0)
    before = plot.view.viewRange()[0]
    drag(plot, in_viewport(plot, 0.1, 2.0), in_viewport(plot, 0.3, 2.0))
    assert plot.limits() == (-0.8, 0.8)
    assert plot.view.viewRange()[0][0] == pytest.approx(before[0] - 0.2, abs=0.02)


def test_that_zoom_and_reset_come_back_to_the_whole_plot(qtbot) -> None:
    plot = histogram_plot(qtbot)
    whole = plot.view.viewRange()
    qtbot.keyClick(plot, Qt.Key.Key_Plus)
    assert plot.is_zoomed()
    qtbot.keyClick(plot, Qt.Key.Key_0)
    assert not plot.is_zoomed()
    assert plot.view.viewRange() == whole


def test_that_new_data_is_set_on_the_same_items(qtbot) -> None:
    plot = histogram_plot(qtbot)
    before = [id(item) for item in plot.plotItem.items]
    plot.show_float(BELL)
    plot.show_quantized(Histogram(np.linspace(-1, 1, 16), np.arange(15)))
    plot.show_levels(np.linspace(-1, 1, 16))
    plot.set_log(False)
    assert [id(item) for item in plot.plotItem.items] == before


def test_that_bins_with_one_value_are_seen_on_the_logarithmic_axis_and_empty_ones_are_not(qtbot) -> None:
    plot = HistogramPlot("Histogram", "weight", "count")
    shown(qtbot, plot, 600, 300)
    plot.show_float(Histogram(np.arange(4.0), np.array([0, 1, 1000])))
    plot.fit()
    floor = plot.view.viewRange()[1][0]
    _, heights = plot._curve.getData()
    assert heights[0] == pytest.approx(floor)
    assert heights[1] == 0.0 > floor
    assert heights[2] == 3.0


def test_that_levels_too_close_for_the_eye_are_left_out_until_zoomed(qtbot) -> None:
    plot = histogram_plot(qtbot)
    plot.show_levels(np.linspace(-1, 1, 256))
    assert plot._grid.getData()[0] is None
    plot.zoom(8.0)
    QApplication.processEvents()
    assert len(plot._grid.getData()[0]) == 512


def test_that_count_ticks_are_powers_of_ten() -> None:
    axis = CountAxis("left")
    [(spacing, values)] = axis.tickValues(-0.3, 4.2, 200)
    assert axis.tickStrings(values, 1.0, spacing) == ["1", "10", "10²", "10³", "10⁴"]


def test_that_ticks_are_thinned_where_space_is_short() -> None:
    axis = CountAxis("left")
    [(_, values)] = axis.tickValues(-0.3, 8.0, 60)
    assert len(values) <= 4


def test_that_axes_write_numbers_out_without_a_factor() -> None:
    axis = NumberAxis("bottom")
    assert axis.tickStrings([-0.002, 0.0, 0.001], 1.0, 0.001) == ["−0.002", "0", "0.001"]
    assert not axis.autoSIPrefix


@pytest.mark.parametrize(
    ("value", "spacing", "text"),
    [(0.15, 0.05, "0.15"), (-2.0, 1.0, "−2"), (3e-6, 1e-6, "3e−6"), (250000.0, 50000.0, "2.5e5"), (1e-19, 0.1, "0")],
)
def test_that_tick_texts_have_the_digits_they_need(value: float, spacing: float, text: str) -> None:
    assert tick_text(value, spacing) == text


def test_that_a_click_picks_the_channel_below_the_pointer(qtbot) -> None:
    plot = ChannelRangePlot("Channels", "channel", "weight")
    shown(qtbot, plot, 600, 300)
    ones = np.ones(10)
    plot.show_channels(-ones, ones, 0 * ones, 0.5 * ones, np.zeros(10, bool), (-ones, ones))
    QApplication.processEvents()
    with qtbot.waitSignal(plot.channel_clicked) as told:
        click(plot, in_viewport(plot, 7.2, 0.0))
    assert told.args == [7]


def test_that_channels_are_reached_by_keys(qtbot) -> None:
    plot = ChannelRangePlot("Channels", "channel", "weight")
    shown(qtbot, plot, 600, 300)
    ones = np.ones(3)
    plot.show_channels(-ones, ones, 0 * ones, 0.5 * ones, np.zeros(3, bool), None)
    plot.channel_hovered.connect(plot.mark)
    for _ in range(2):
        qtbot.keyClick(plot, Qt.Key.Key_Right)
    with qtbot.waitSignal(plot.channel_clicked) as told:
        qtbot.keyClick(plot, Qt.Key.Key_Return)
    assert told.args == [1]


def test_that_channels_without_error_reach_the_top(qtbot) -> None:
    plot = ChannelErrorPlot("Channels", "channel", "dB")
    shown(qtbot, plot, 600, 300)
    plot.show_sqnr(np.array([10.0, np.inf, 20.0]), np.array([True, False, False]), 15.0)
    top = plot.view.viewRange()[1][1]
    assert plot._bars.opts["height"].max() == pytest.approx(top)


def test_that_samples_with_equal_ends_do_not_stand_out(qtbot) -> None:
    plot = SamplesPlot("Samples", "sample", "activation")
    qtbot.addWidget(plot)
    plot.show_samples(np.zeros(4), np.array([1.0, 5.0, 2.0, 2.0]), (0.0, 5.0))
    assert list(plot._extreme.opts["x"]) == [1.0]


def test_that_the_error_plot_shades_half_a_step_where_there_is_one_scale(qtbot) -> None:
    plot = ErrorPlot("Error", "error", "count")
    qtbot.addWidget(plot)
    plot.show_error(BELL, 0.5)
    assert plot._region.getRegion() == (-0.25, 0.25)
    plot.show_error(BELL, None)
    assert not plot._region.isVisible()


def test_that_bars_narrower_than_pixels_keep_their_peaks(qtbot) -> None:
    plot = histogram_plot(qtbot)
    counts = np.ones(5000)
    counts[1234] = 9e5
    plot.show_quantized(Histogram(np.linspace(-1, 1, 5001), counts))
    plot.fit()
    heights = plot._bars.opts["height"]
    assert len(heights) < 600
    assert heights.max() == pytest.approx(np.log10(9e5) + 0.3)


def test_that_a_histogram_without_values_is_drawn(qtbot) -> None:
    plot = histogram_plot(qtbot)
    plot.show_float(Histogram(np.linspace(-1, 1, 11), np.zeros(10)))
    plot.show_quantized(Histogram(np.linspace(-1, 1, 5001), np.zeros(5000)))
    plot.fit()
    assert not plot.grab().isNull()


def test_that_counts_of_less_than_a_decade_have_more_than_one_number() -> None:
    axis = CountAxis("left")
    ((spacing, ticks),) = axis.tickValues(-0.2, 1.0, 90.0)
    assert axis.tickStrings(ticks, 1.0, spacing) == ["1", "2", "5", "10"]
    ((spacing, ticks),) = axis.tickValues(-0.2, 1.4, 90.0)
    assert axis.tickStrings(ticks, 1.0, spacing) == ["1", "10"]
