from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from gui_examples import W4_CHANNEL, W4_TENSOR, W8_TENSOR, drag, in_viewport, layer, shown, weight_view, weights
from PySide6.QtCore import Qt
from PySide6.QtWidgets import QApplication

from quantgui.gui.panels.weights import WeightsPanel, grid_levels, range_of
from quantgui.spec.formats import FloatFormat, IntFormat
from quantgui.spec.granularity import PerTensor
from quantgui.spec.quantizer import FixedRange, QuantizerSpec

WEIGHTS = weights(16, 256)
LAYER = layer(channels=16)


def panel(qtbot, spec: QuantizerSpec | None = W4_TENSOR) -> WeightsPanel:
    result = WeightsPanel()
    shown(qtbot, result)
    result.show_layer(LAYER)
    result.show_view(weight_view(WEIGHTS, spec))
    QApplication.processEvents()
    return result


def drag_upper_limit(panel: WeightsPanel, value: float, *, release: bool = True) -> None:
    plot = panel.histogram
    _, high = plot.limits()
    drag(plot, in_viewport(plot, high, 1.0), in_viewport(plot, value, 1.0), release=release)


def exact(limit: float, spec: QuantizerSpec = W4_TENSOR) -> tuple[float, float, float]:
    """Return SQNR, MSE and clipped share of a symmetric range, from the weights themselves."""
    x = WEIGHTS.astype(np.float64)
    scale = np.float32(limit / spec.format.quant_max)
    codes = np.rint(x / scale)
    fake = np.clip(codes, spec.format.quant_min, spec.format.quant_max) * scale
    noise = ((x - fake) ** 2).sum()
    outside = (codes < spec.format.quant_min) | (codes > spec.format.quant_max)
    return 10 * np.log10((x**2).sum() / noise), noise / x.size, outside.mean()


def test_that_without_a_layer_the_panel_says_what_to_do(qtbot) -> None:
    result = WeightsPanel()
    shown(qtbot, result)
    assert result.state.isVisible()
    assert "Select a layer" in result.state.sentence()


def test_that_a_layer_whose_view_is_missing_is_shown_as_being_computed(qtbot) -> None:
    result = WeightsPanel()
    shown(qtbot, result)
    result.show_layer(LAYER)
    assert result.state.isVisible()
    assert result.state.heading() == "Computing"


def test_that_a_view_once_drawn_stays_while_the_next_is_computed(qtbot) -> None:
    result = panel(qtbot)
    result.show_computing()
    assert result.weights_card.isVisible()
    assert result.numbers_card.note() == "updating …"
    result.show_view(weight_view(WEIGHTS, W8_TENSOR))
    assert result.numbers_card.note() == ""


def test_that_a_failure_is_shown_with_its_sentence_and_can_be_retried(qtbot) -> None:
    result = panel(qtbot)
    result.show_failure("The engine ran out of memory.")
    assert result.state.isVisible()
    assert result.state.sentence() == "The engine ran out of memory."
    with qtbot.waitSignal(result.retry_requested):
        qtbot.mouseClick(result.state._button, Qt.MouseButton.LeftButton)


def test_that_the_key_numbers_are_those_of_the_view(qtbot) -> None:
    result = panel(qtbot)
    view = weight_view(WEIGHTS, W4_TENSOR)
    assert result.sqnr.text() == f"{view.error.sqnr_db:.1f} dB"
    assert float(result.scale.text()) == pytest.approx(float(view.scales[0]), rel=5e-3)
    assert result.clipped.text() == "0 %"


def test_that_a_view_of_another_layer_is_not_shown(qtbot) -> None:
    result = panel(qtbot)
    before = result.sqnr.text()
    result.show_view(weight_view(WEIGHTS * 3, W8_TENSOR, "another"))
    assert result.sqnr.text() == before


def test_that_dragging_a_limit_updates_everything_before_the_event_returns(qtbot) -> None:
    result = panel(qtbot)
    told = []
    result.limits_dragged.connect(lambda low, high: told.append((low, high, result.sqnr.text())))
    _, high = result.histogram.limits()
    drag_upper_limit(result, high / 2)
    low, high, text = told[-1]
    db, _, _ = exact(high)
    assert low == -high
    assert float(text.removeprefix("≈ ").removesuffix(" dB")) == pytest.approx(db, abs=0.06)
    assert result.numbers_card.note() == "estimate"


def test_that_the_estimate_agrees_with_the_weights_themselves(qtbot) -> None:
    result = panel(qtbot)
    _, high = result.histogram.limits()
    for share in (0.9, 0.5, 0.2):
        result.histogram._move(result.histogram._high, share * high)
        _, mse, clipped = exact(share * high)
        assert float(result.mse.text().removeprefix("≈ ").replace("−", "-")) == pytest.approx(mse, rel=0.01)
        shown_share = float(result.clipped.text().removeprefix("≈ ").split()[0]) / 100
        assert shown_share == pytest.approx(clipped, rel=0.06, abs=1e-3)


def test_that_grid_and_bars_follow_a_dragged_limit(qtbot) -> None:
    result = panel(qtbot)
    _, high = result.histogram.limits()
    drag_upper_limit(result, high / 2)
    _, high = result.histogram.limits()
    levels = result.histogram._levels
    assert levels[-1] == pytest.approx(high, rel=1e-6)
    assert len(levels) == 16
    bars = result.histogram._bars.opts["x"]
    assert np.abs(bars[:, None] - levels).min(axis=1).max() < 1e-6


def test_that_letting_go_tells_the_limits_once(qtbot) -> None:
    result = panel(qtbot)
    told = []
    result.limits_chosen.connect(lambda low, high: told.append((low, high)))
    _, high = result.histogram.limits()
    drag_upper_limit(result, high / 2)
    assert told == [result.histogram.limits()]


def test_that_a_view_that_comes_while_dragging_does_not_move_the_limit(qtbot) -> None:
    result = panel(qtbot)
    _, high = result.histogram.limits()
    drag_upper_limit(result, high / 2, release=False)
    held = result.histogram.limits()
    result.show_view(weight_view(WEIGHTS, W8_TENSOR))
    assert result.histogram.limits() == held


def test_that_a_view_that_came_while_dragging_is_shown_after_letting_go_if_it_fits(qtbot) -> None:
    result = panel(qtbot)
    _, high = result.histogram.limits()
    drag_upper_limit(result, high / 2, release=False)
    low, high = result.histogram.limits()
    spec = replace(W4_TENSOR, range_estimator=FixedRange(low, high))
    result.show_view(replace(weight_view(WEIGHTS, W4_TENSOR), spec=spec, low=low, high=high))
    assert result.numbers_card.note() == "estimate"
    plot = result.histogram
    drag(plot, in_viewport(plot, high, 1.0), in_viewport(plot, high, 1.0), 1)
    assert result.numbers_card.note() == ""


def test_that_the_grid_of_many_channels_is_explained(qtbot) -> None:
    result = panel(qtbot, W4_CHANNEL)
    view = weight_view(WEIGHTS, W4_CHANNEL)
    assert f"no. {int(np.argmax(view.scales))}" in result._explanation.text()
    assert "one range for all of them" in result._explanation.toolTip()


def test_that_the_limits_of_a_symmetric_range_are_symmetric(qtbot) -> None:
    absmax = float(np.abs(WEIGHTS).max())
    view = replace(weight_view(WEIGHTS, W4_TENSOR), low=-8 / 7 * absmax)  # as the grid reaches one step farther down
    assert range_of(view) == (pytest.approx(-absmax), pytest.approx(absmax))


def test_that_limits_set_by_hand_are_shown_as_they_were_set() -> None:
    spec = QuantizerSpec(IntFormat(4, signed=False), False, PerTensor(), FixedRange(-0.1, 0.25))
    view = replace(weight_view(WEIGHTS, W4_TENSOR), spec=spec)
    assert range_of(view) == (-0.1, 0.25)


@pytest.mark.parametrize("full_range", [False, True])
def test_that_the_range_follows_from_the_scale(full_range: bool) -> None:
    from quantgui.numerics.qparams import choose_qparams

    for fmt in (IntFormat(4), IntFormat(8), IntFormat(4, signed=False), IntFormat(3, narrow_range=True)):
        spec = QuantizerSpec(fmt, True, PerTensor(), full_range=full_range)
        qparams = choose_qparams(-0.5, 0.3, fmt, symmetric=True, full_range=full_range)
        view = replace(weight_view(WEIGHTS, W4_TENSOR), spec=spec, scales=qparams.scale, zero_points=qparams.zero_point)
        assert range_of(view) == (pytest.approx(-0.5), pytest.approx(0.5))


@pytest.mark.parametrize("spec", [None, QuantizerSpec(FloatFormat("float16"), granularity=PerTensor())])
def test_that_float_layers_have_neither_limits_nor_grid(qtbot, spec) -> None:
    result = WeightsPanel()
    shown(qtbot, result)
    result.show_layer(LAYER)
    result.show_view(replace(weight_view(WEIGHTS, None), spec=spec))
    assert not result.histogram._low.isVisible()
    assert not result._grid_chip.isVisible()
    assert result.scale.text() == "–"


def test_that_a_layer_quantized_in_the_file_is_shown_and_not_changed(qtbot) -> None:
    result = WeightsPanel()
    shown(qtbot, result)
    result.show_layer(replace(LAYER, read_only=True, dtype="uint4 in groups of 32"))
    result.show_view(replace(weight_view(WEIGHTS, None), spec=W4_TENSOR))
    assert "uint4 in groups of 32" in result._explanation.text()
    assert result._float_chip.text() == "uint4 in groups of 32"
    assert not result.histogram._low.isVisible()
    assert result.sqnr.text() == "–"
    assert "not quantized" not in result.numbers_card.note()


def test_that_zooming_shows_finer_bins(qtbot) -> None:
    result = panel(qtbot)
    wide = np.diff(result.histogram._curve.getData()[0])[0]
    result.zoom_buttons.closer.click()
    fine = np.diff(result.histogram._curve.getData()[0])[0]
    assert fine < wide
    result.zoom_buttons.all.click()
    assert np.diff(result.histogram._curve.getData()[0])[0] == pytest.approx(wide)


def test_that_the_zoom_stays_when_the_spec_changes(qtbot) -> None:
    result = panel(qtbot)
    result.zoom_buttons.closer.click()
    seen = result.histogram.view.viewRange()[0]
    result.show_view(weight_view(WEIGHTS, W8_TENSOR))
    assert result.histogram.view.viewRange()[0] == pytest.approx(seen)


def test_that_counts_are_linear_on_demand(qtbot) -> None:
    result = panel(qtbot)
    result.scale_buttons.button(False).click()
    _, heights = result.histogram._curve.getData()
    assert heights.sum() == pytest.approx(WEIGHTS.size)


def test_that_a_legend_chip_hides_its_series(qtbot) -> None:
    result = panel(qtbot)
    result._quantized_chip.click()
    assert not result.histogram._bars.isVisible()
    assert result.histogram._curve.isVisible()


def test_that_a_weight_of_zeros_is_shown(qtbot) -> None:
    result = WeightsPanel()
    shown(qtbot, result)
    result.show_layer(LAYER)
    zeros = weight_view(np.zeros((16, 256), np.float32) + np.float32(1e-30), W4_TENSOR)
    result.show_view(replace(zeros, scales=np.ones(1, np.float32), low=0.0, high=0.0))
    assert result.weights_card.isVisible()
    assert not result.grab().isNull()


@pytest.mark.parametrize(("bits", "levels"), [(2, 4), (4, 16), (8, 256), (12, 0)])
def test_that_grids_of_more_levels_than_can_be_seen_are_left_out(bits: int, levels: int) -> None:
    assert len(grid_levels(IntFormat(bits), 0.1, 0)) == levels
