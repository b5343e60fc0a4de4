from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from gui_examples import click, hover, in_viewport, shown
from noise_examples import names, noise, sample
from PIL import Image
from PySide6.QtCore import Qt
from PySide6.QtWidgets import QApplication, QPushButton

from quantgui.gui.names import brief_names
from quantgui.gui.panels.noise import NoisePanel, damage_scale, gain_db, sample_order
from quantgui.gui.panels.noise_sample import culprits_of
from quantgui.gui.pictures import picture_of, read_output
from quantgui.gui.plots.noise import NameAxis
from quantgui.network.images import load_picture
from quantgui.results import ImageOptions, LayerNoise
from quantgui.spec.config import QuantConfig


def panel(qtbot, ready=None, width: int = 640, height: int = 560) -> NoisePanel:
    result = NoisePanel()
    shown(qtbot, result, width, height)
    if ready is not None:
        result.show_noise(ready)
        QApplication.processEvents()
    return result


def button(widget, text: str) -> QPushButton:
    return next(b for b in widget.findChildren(QPushButton) if b.text() == text and b.isVisible())


# --- states -------------------------------------------------------------------------------------------------------


def test_that_each_state_says_what_to_do_and_its_button_asks_for_it(qtbot) -> None:
    noise_panel = panel(qtbot)
    assert "No network" in noise_panel.state.heading()
    noise_panel.show_needs_data()
    with qtbot.waitSignal(noise_panel.data_requested):
        button(noise_panel, "Open data…").click()
    noise_panel.show_nothing_quantized()
    assert "Every layer is float" in noise_panel.state.sentence()
    noise_panel.show_not_traced()
    with qtbot.waitSignal(noise_panel.trace_requested):
        button(noise_panel, "Trace noise").click()
    noise_panel.show_tracing("Tracing noise on 64 samples", 3, 64, 2.0)
    with qtbot.waitSignal(noise_panel.stop_requested):
        button(noise_panel, "Stop").click()
    noise_panel.show_failure("The engine went down.")
    assert noise_panel.state.sentence() == "The engine went down."
    with qtbot.waitSignal(noise_panel.trace_requested):
        button(noise_panel, "Try again").click()


def test_that_partial_numbers_stay_in_sight_with_progress_and_a_way_to_stop(qtbot) -> None:
    noise_panel = panel(qtbot, noise(samples=8, complete=False))
    noise_panel.show_tracing("Tracing noise on 16 samples", 9, 16, 1.5)
    assert noise_panel.plot.isVisible()
    assert "9 / 16" in noise_panel.progress.text()
    with qtbot.waitSignal(noise_panel.stop_requested):
        noise_panel.progress.stop.click()
    noise_panel.show_stopped()
    assert not noise_panel.progress.isVisible()
    assert noise_panel._stale_text.text() == "Stopped after 8 samples."
    noise_panel.show_noise(noise())
    assert not noise_panel._stale_text.isVisible()


def test_that_an_old_trace_is_dimmed_until_it_is_traced_again(qtbot) -> None:
    noise_panel = panel(qtbot, noise())
    before = noise_panel.matrix.grab().toImage()
    noise_panel.show_not_traced()
    QApplication.processEvents()
    assert noise_panel.is_stale()
    assert noise_panel.grab().toImage() != before
    assert noise_panel._veil.isVisible()
    with qtbot.assertNotEmitted(noise_panel.sample_picked):
        noise_panel.matrix.cell_clicked.emit(1, 5)
    with qtbot.waitSignal(noise_panel.trace_requested):
        button(noise_panel, "Trace again").click()
    noise_panel.show_noise(noise())
    assert not noise_panel.is_stale()
    assert not noise_panel._veil.isVisible()


# --- layers -------------------------------------------------------------------------------------------------------


def test_that_a_layers_numbers_are_read_out_and_what_it_does_to_what_comes_in(qtbot) -> None:
    noise_panel = panel(qtbot, noise())
    hover(noise_panel.plot, in_viewport(noise_panel.plot, 3, 20))
    words = noise_panel._layer_words.text()
    assert words == "block3/conv: own 27.0, inherited 20.0 (amplified by 2.0), both 19.0 dB"
    hover(noise_panel.plot, in_viewport(noise_panel.plot, 5, 20))
    assert "own none (float)" in noise_panel._layer_words.text()


def test_that_amplifying_and_easing_layers_differ_in_shape_and_not_in_colour_alone(qtbot) -> None:
    ready = noise()
    layers = list(ready.layers)
    layers[2] = LayerNoise(layers[2].layer, "t", 20.0, 28.0, 18.0, 23.0)
    noise_panel = panel(qtbot, noise(layers=tuple(layers)))
    plot = noise_panel.plot
    assert plot._amplified.getData()[0].tolist() == pytest.approx([3.16])
    assert plot._eased.getData()[0].tolist() == pytest.approx([2.16])
    assert plot._amplified.opts["symbol"] != plot._eased.opts["symbol"] != plot._kept.opts["symbol"]
    # The float layer makes none, the first one inherits none.
    assert len(plot._own.getData()[0]) == 5
    assert 0.16 not in plot._kept.getData()[0]


def test_that_a_click_or_the_enter_key_selects_the_layer(qtbot) -> None:
    noise_panel = panel(qtbot, noise())
    with qtbot.waitSignal(noise_panel.layer_picked) as picked:
        click(noise_panel.plot, in_viewport(noise_panel.plot, 2, 20))
    assert picked.args == [names(6)[2]]
    noise_panel.select(names(6)[2])
    qtbot.keyClick(noise_panel.plot, Qt.Key.Key_Right)
    with qtbot.waitSignal(noise_panel.layer_picked) as picked:
        qtbot.keyClick(noise_panel.plot, Qt.Key.Key_Return)
    assert picked.args == [names(6)[3]]


def test_that_layers_are_sorted_by_own_noise_in_both_plots_and_the_selected_one_stays_marked(qtbot) -> None:
    noise_panel = panel(qtbot, noise())
    noise_panel.select(names(6)[1])
    assert noise_panel.plot.marked() == 1
    qtbot.mouseClick(noise_panel.order_buttons.button("own"), Qt.MouseButton.LeftButton)
    assert noise_panel.plot.marked() == 0
    assert noise_panel.matrix._cells.names[0] == "block1/conv"
    # The float one makes no noise, so it comes last, and has no row.
    assert noise_panel._order[-1] == 5
    assert len(noise_panel.matrix._cells.names) == 5


def test_that_a_network_without_noise_can_be_shown(qtbot) -> None:
    quiet = tuple(LayerNoise(name, "t", math.inf, math.inf, math.inf, math.inf) for name in names(3))
    none = np.zeros((3, 4), np.float32)
    ready = noise(3, 4, layers=quiet, damage=none, flips=none > 0, flipped=np.zeros(4, bool), has_classes=False)
    noise_panel = panel(qtbot, ready)
    assert noise_panel._cell_words.text() == "4 samples"
    noise_panel.grab()
    unseen = tuple(LayerNoise(name, "", math.nan, math.nan, math.nan) for name in names(3))
    noise_panel.show_noise(noise(3, 4, layers=unseen))
    noise_panel.select(names(3)[0])
    assert "cannot be seen" in noise_panel._layer_words.text()
    noise_panel.grab()


def test_that_gain_is_the_noise_gone_between_input_and_output() -> None:
    assert gain_db(LayerNoise("a", "t", 20.0, 28.0, 19.0, 25.0)) == 3.0
    assert math.isnan(gain_db(LayerNoise("a", "t", 20.0, math.inf, 19.0, math.inf)))


# --- samples ------------------------------------------------------------------------------------------------------


def test_that_the_matrix_reads_out_numbers_and_marks_flips_with_a_cross(qtbot) -> None:
    noise_panel = panel(qtbot, noise())
    assert noise_panel._cell_words.text() == "1 of 16 samples change their top class"
    hover(noise_panel.matrix, in_viewport(noise_panel.matrix, 5, 1))
    assert noise_panel._cell_words.text() == "Sample 5: block1/conv alone 3.0 dB, changes the top class"
    hover(noise_panel.matrix, in_viewport(noise_panel.matrix, 5, -1))
    assert noise_panel._cell_words.text() == "Sample 5: the whole configuration changes its top class"
    crosses = set(zip(*(axis.tolist() for axis in noise_panel.matrix._flips.getData()), strict=True))
    assert crosses == {(5.0, 1.0), (5.0, -1.0)}


def test_that_the_row_of_all_layers_together_stays_readable_above_many_layers(qtbot) -> None:
    noise_panel = panel(qtbot, noise(120, 16))
    plot = noise_panel.matrix
    pixels = plot._height / plot.view.viewPixelSize()[1]
    assert pixels > 8
    hover(plot, in_viewport(plot, 5, -0.5 - plot._height / 2))
    assert noise_panel._cell_words.text() == "Sample 5: the whole configuration changes its top class"
    plot.grab()


def test_that_worse_cells_stand_out_more_in_both_looks() -> None:
    scale = damage_scale(np.array([[1e-4, 1e-1], [0.0, np.inf]], np.float32))
    assert (scale.harmless, scale.worst) == (40.0, 10.0)
    shares = scale.shares(np.array([0.0, 1e-4, 1e-2, 1e-1, np.inf], np.float32))
    np.testing.assert_allclose(shares, [0, 0, 2 / 3, 1, 1], atol=1e-5)
    nothing = damage_scale(np.zeros((2, 3), np.float32))
    assert nothing.harmless > nothing.worst


def test_that_samples_are_sorted_by_damage_and_by_flips() -> None:
    ready = noise()
    assert sample_order(ready, "number").tolist() == list(range(16))
    by_damage = sample_order(ready, "damage")
    total = ready.damage.sum(0)[by_damage]
    assert by_damage[0] == 5
    assert (np.diff(total) <= 0).all()
    flips = ready.flips.copy()
    flips[:2, 9] = True
    assert sample_order(noise(flips=flips, flipped=flips.any(0)), "flips")[:2].tolist() == [9, 5]


def test_that_samples_without_classes_cannot_be_sorted_by_flips(qtbot) -> None:
    noise_panel = panel(qtbot, noise())
    noise_panel.sample_order.set_value("flips")
    noise_panel.show_noise(noise(has_classes=False, flips=np.zeros((6, 16), bool), flipped=np.zeros(16, bool)))
    assert noise_panel.sample_order.value() == "damage"
    assert not noise_panel.sample_order.button("flips").isEnabled()
    assert noise_panel.matrix._cells.flipped is None


def test_that_arrows_move_in_the_matrix_enter_opens_the_sample_and_escape_closes_it(qtbot) -> None:
    noise_panel = panel(qtbot, noise())
    noise_panel.matrix.setFocus()
    for key in (Qt.Key.Key_Right, Qt.Key.Key_Right, Qt.Key.Key_Right, Qt.Key.Key_Down):
        qtbot.keyClick(noise_panel.matrix, key)
    assert noise_panel.matrix.marked() == (1, 2)
    with qtbot.waitSignal(noise_panel.sample_picked) as picked:
        qtbot.keyClick(noise_panel.matrix, Qt.Key.Key_Return)
    assert picked.args == [2]
    assert noise_panel.sample.isVisible()
    assert not noise_panel.plot.isVisible()
    qtbot.keyClick(noise_panel.matrix, Qt.Key.Key_Escape)
    assert noise_panel.plot.isVisible()
    for _ in range(30):
        qtbot.keyClick(noise_panel.matrix, Qt.Key.Key_Up)
    assert noise_panel.matrix.marked() == (-1, 2)


def test_that_a_clicked_sample_is_shown_with_its_culprits_its_classes_and_its_label(qtbot) -> None:
    noise_panel = panel(qtbot, noise())
    with qtbot.waitSignal(noise_panel.sample_picked) as picked:
        click(noise_panel.matrix, in_viewport(noise_panel.matrix, 5, 3))
    assert picked.args == [5]
    view = noise_panel.sample
    assert view.card.title() == "Sample 5"
    worst = [view.culprits.item(0, column).text() for column in range(3)]
    assert worst == ["block1/conv", "3.01", "×"]
    assert view.culprits.rowCount() == 5
    noise_panel.show_sample(sample(6))
    assert view.outputs.rowCount() == 0
    noise_panel.show_sample(sample())
    assert view.verdict.text() == "class 2 becomes 0 · label 2"
    rows = [[view.outputs.item(row, column).text() for column in range(3)] for row in range(5)]
    assert rows[0] == ["✓ 2", "▸ 3.00", "2.00"]
    assert rows[1] == ["0", "1.00", "▸ 2.50"]
    assert rows[4][0] == "SQNR"
    with qtbot.waitSignal(noise_panel.layer_picked) as chosen:
        rectangle = view.culprits.visualItemRect(view.culprits.item(0, 0))
        qtbot.mouseClick(view.culprits.viewport(), Qt.MouseButton.LeftButton, pos=rectangle.center())
    assert chosen.args == [names(6)[1]]
    qtbot.mouseClick(view.close_button, Qt.MouseButton.LeftButton)
    assert noise_panel.plot.isVisible()


def test_that_a_sample_of_another_configuration_is_not_shown(qtbot) -> None:
    noise_panel = panel(qtbot, noise())
    noise_panel.open_sample(5)
    noise_panel.show_sample(sample(config=QuantConfig()))
    assert noise_panel.sample.outputs.rowCount() == 0
    noise_panel.show_sample_failure("The network cannot be run.")
    assert noise_panel.sample.verdict.text() == "The network cannot be run."


@pytest.mark.parametrize(
    ("values", "page"),
    [
        (np.zeros((1, 12, 8), np.float32), "picture"),
        (np.zeros((40, 60), np.float32), "picture"),
        (np.zeros(16000, np.float32), "signal"),
        (np.arange(40, dtype=np.int64), "words"),
        (np.array([1.5, 2.5], np.float32), "words"),
        (np.array(3, np.int32), "words"),
    ],
)
def test_that_a_sample_is_shown_by_its_kind(qtbot, values, page: str) -> None:
    noise_panel = panel(qtbot, noise())
    noise_panel.open_sample(5)
    noise_panel.show_sample(sample(inputs={"x": values}, float_outputs={}, quantized_outputs={}, label=None))
    assert noise_panel.sample._input_pages.page() is getattr(noise_panel.sample, page)
    noise_panel.grab()


def test_that_of_several_inputs_the_largest_comes_first_and_any_can_be_chosen(qtbot) -> None:
    noise_panel = panel(qtbot, noise())
    noise_panel.open_sample(5)
    inputs = {"mask": np.ones(4, np.int64), "ids": np.arange(64), "types": np.zeros(4, np.int64)}
    noise_panel.show_sample(sample(inputs=inputs))
    assert noise_panel.sample.inputs.isVisible()
    assert noise_panel.sample.inputs.currentText() == "ids"
    noise_panel.sample.inputs.setCurrentIndex(0)
    assert noise_panel.sample.words.text() == "1 1 1 1"


# --- pictures and outputs -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_that_a_picture_comes_back_as_it_was_in_its_file(layout: str, tmp_path: Path) -> None:
    pixels = np.random.default_rng(3).integers(0, 256, (10, 14, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    options = ImageOptions(10, 14, layout, 3, True, 255.0, (103.9, 116.8, 123.7), (57.4, 57.1, 58.4))
    values = load_picture(tmp_path / "a.png", options, np.dtype(np.float32))
    picture = picture_of(values, options)
    assert picture is not None
    assert picture.source == "options"
    np.testing.assert_array_equal(picture.pixels, pixels)


@pytest.mark.parametrize("shape", [(1, 28, 20), (3, 28, 20), (28, 20, 1), (28, 20, 3), (1, 3, 28, 20)])
def test_that_an_array_that_looks_like_a_picture_is_spread_from_black_to_white(shape) -> None:
    values = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    picture = picture_of(values, None)
    assert picture is not None
    assert picture.pixels.shape == (28, 20, 3)
    assert (picture.pixels.min(), picture.pixels.max()) == (0, 255)
    assert (picture.low, picture.high) == pytest.approx((values.min(), values.max()))
    first = values.reshape(-1)[0]
    spread = (first - values.min()) / (values.max() - values.min())
    assert picture.pixels[0, 0, 0] == pytest.approx(255 * spread, abs=0.6)


@pytest.mark.parametrize("shape", [(3, 4, 5), (16000,), (2, 2, 2, 2), (0, 9, 9)])
def test_that_other_arrays_are_no_pictures(shape) -> None:
    assert picture_of(np.zeros(shape, np.float32), None) is None


def test_that_outputs_without_classes_are_read_by_their_distance() -> None:
    x = np.array([3.0, 4.0], np.float32)
    reading = read_output("y", x, x * np.float32(1.1), None)
    assert reading.sqnr_db == pytest.approx(20, abs=1e-4)
    assert reading.cosine == pytest.approx(1)
    assert reading.float_top is None
    assert math.isnan(read_output("y", x, np.array([np.nan, 0], np.float32), None).sqnr_db)


def test_that_of_classes_at_several_positions_the_changed_ones_are_counted() -> None:
    x = np.eye(4, 6, dtype=np.float32)
    y = x.copy()
    y[1, 5] = 2
    reading = read_output("y", x, y, 1)
    assert (reading.positions, reading.changed, reading.scores) == (4, 1, ())


def test_that_layers_that_do_nothing_are_no_culprits() -> None:
    found = culprits_of(["/a/Conv", "/b/Conv", "/c/Gemm"], np.array([0.0, 0.1, 0.4]), np.zeros(3, bool))
    assert [(each.layer, each.shown) for each in found] == [("/c/Gemm", "c"), ("/b/Conv", "b")]


def test_that_brief_names_stay_different() -> None:
    assert brief_names(["/a/Conv", "/a/Gemm", "b"]) == ("a/Conv", "a/Gemm", "b")
    assert brief_names([]) == ()


def test_that_names_too_long_are_told_apart_by_their_ends() -> None:
    axis = NameAxis()
    axis.set_names([f"features.blocks.{place}/depthwise_conv" for place in range(20)])
    texts = axis.tickStrings([float(place) for place in range(20)], 1.0, 1.0)
    assert len(set(texts)) == 20
    assert all(text.endswith("/depthwise_conv") for text in texts)
