from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from gui_examples import (
    A8,
    W4_CHANNEL,
    W4_TENSOR,
    activation,
    click,
    drag,
    hover,
    in_viewport,
    layer,
    shown,
    weight_view,
    weights,
)
from PySide6.QtCore import Qt
from PySide6.QtWidgets import QApplication

from quantgui.gui.panels.activations import ActivationsPanel
from quantgui.gui.panels.weights import WeightsPanel
from quantgui.numerics.affine import fake_quantize
from quantgui.numerics.error_curve import weight_curve
from quantgui.spec.quantizer import FixedRange, LeastSquaredError, MinMax, Percentile, QuantizerSpec, SampleMean

WEIGHTS = weights(16, 256)
LAYER = layer(channels=16)
ACTIVATION = activation("in")


def weights_panel(qtbot, spec: QuantizerSpec | None = W4_TENSOR) -> WeightsPanel:
    result = WeightsPanel()
    shown(qtbot, result)
    result.show_layer(LAYER)
    result.show_view(weight_view(WEIGHTS, spec))
    result.error_card.buttons.button("curve").click()
    QApplication.processEvents()
    return result


def activations_panel(qtbot, spec: QuantizerSpec = A8) -> ActivationsPanel:
    result = ActivationsPanel()
    shown(qtbot, result)
    result.show_layer(layer())
    result.show_statistics(ACTIVATION, activation("out", relu=False, seed=2), spec)
    result.input.samples_card.buttons.button("curve").click()
    QApplication.processEvents()
    return result


def brute_force(limit: float) -> float:
    """Return the sqnr in dB of the weights themselves, clipped at a limit."""
    fake, _ = fake_quantize(WEIGHTS, replace(W4_TENSOR, range_estimator=FixedRange(-limit, limit)), 0)
    noise = ((WEIGHTS.astype(np.float64) - fake) ** 2).sum()
    return float(10 * np.log10((WEIGHTS.astype(np.float64) ** 2).sum() / noise))


def mark(plot, kind: type):
    return next(each for each in plot.marks() if isinstance(each.value, kind))


def place(plot, each):
    return in_viewport(plot, each.threshold, each.sqnr_db)


def point(plot) -> tuple[float, float]:
    x, y = plot._point.getData()
    return float(x[0]), float(y[0])


def test_that_the_curve_and_the_limit_on_it_are_those_of_the_weights(qtbot) -> None:
    panel = weights_panel(qtbot)
    plot = panel.curve
    thresholds, sqnr_db = plot._curve.getData()
    for index in (5, 40, 80):
        assert sqnr_db[index] == pytest.approx(brute_force(float(thresholds[index])), abs=0.1)
    largest = float(np.abs(WEIGHTS).max())
    assert point(plot) == (pytest.approx(largest), pytest.approx(brute_force(largest), abs=0.01))


def test_that_dragging_the_limit_on_the_histogram_moves_the_point_along_the_curve_at_once(qtbot) -> None:
    panel = weights_panel(qtbot)
    _, high = panel.histogram.limits()
    seen = []
    panel.limits_dragged.connect(lambda _low, limit: seen.append((limit, *point(panel.curve))))
    drag(panel.histogram, in_viewport(panel.histogram, high, 1.0), in_viewport(panel.histogram, high / 3, 1.0))
    assert len(seen) >= 3
    thresholds, sqnr_db = panel.curve._curve.getData()
    for limit, x, y in seen:
        assert x == limit
        assert y == pytest.approx(brute_force(limit), abs=0.1)
        assert y == pytest.approx(float(np.interp(limit, thresholds, sqnr_db)), abs=0.3)


def test_that_dragging_the_point_on_the_curve_moves_the_limits_and_chooses_them_once(qtbot) -> None:
    panel = weights_panel(qtbot)
    chosen = []
    panel.limits_chosen.connect(lambda low, high: chosen.append((low, high)))
    start = in_viewport(panel.curve, *point(panel.curve))
    target = point(panel.curve)[0] / 2
    drag(panel.curve, start, in_viewport(panel.curve, target, point(panel.curve)[1]))
    low, high = panel.histogram.limits()
    assert high == pytest.approx(target, rel=0.05)
    assert low == -high
    assert chosen == [(low, high)]
    assert panel.numbers_card.note() == "estimate"


def test_that_a_click_on_a_mark_chooses_its_estimator(qtbot) -> None:
    panel = weights_panel(qtbot)
    chosen = []
    panel.estimator_chosen.connect(chosen.append)
    click(panel.curve, place(panel.curve, mark(panel.curve, LeastSquaredError)))
    assert chosen == [LeastSquaredError()]


def test_that_pointing_at_a_mark_tells_name_threshold_and_error(qtbot) -> None:
    panel = weights_panel(qtbot)
    least = mark(panel.curve, LeastSquaredError)
    hover(panel.curve, place(panel.curve, least))
    note = panel.error_card.note()
    assert note.startswith("Least squared error: ±")
    assert note.endswith(f"{least.sqnr_db:.1f} dB")
    hover(panel.curve, in_viewport(panel.curve, 0.0, least.sqnr_db))
    assert panel.error_card.note() == ""


def test_that_keys_go_from_mark_to_mark_choose_one_and_move_the_limit(qtbot) -> None:
    panel = weights_panel(qtbot)
    chosen, limits = [], []
    panel.estimator_chosen.connect(chosen.append)
    panel.limits_chosen.connect(lambda low, high: limits.append(high))
    before = panel.curve.threshold()
    qtbot.keyClick(panel.curve, Qt.Key.Key_Left, Qt.KeyboardModifier.ControlModifier)
    assert limits == [pytest.approx(0.99 * before)]
    for _ in panel.curve.marks():
        qtbot.keyClick(panel.curve, Qt.Key.Key_Up)
        qtbot.keyClick(panel.curve, Qt.Key.Key_Return)
    assert len(set(chosen)) == len(chosen) == len(panel.curve.marks())


def test_that_groups_show_their_own_curve_when_it_comes_and_that_of_one_range_dotted(qtbot) -> None:
    panel = weights_panel(qtbot, W4_CHANNEL)
    assert panel.error_card.note() == "measuring groups …"
    assert panel.curve.marks() == ()
    *_, curve = weight_curve(WEIGHTS, W4_CHANNEL, 0)
    panel.show_view(replace(weight_view(WEIGHTS, W4_CHANNEL), curve=curve))
    assert panel.error_card.note() == "dotted: one range for all"
    assert {type(each.value) for each in panel.curve.marks()} >= {MinMax, Percentile, LeastSquaredError}
    thresholds, one_range = panel.curve._common.getData()
    assert one_range[50] == pytest.approx(brute_force(float(thresholds[50])), abs=0.1)
    _, own_ranges = panel.curve._curve.getData()
    assert own_ranges.max() > one_range.max()


def test_that_float_weights_have_no_limit_to_choose(qtbot) -> None:
    panel = weights_panel(qtbot, None)
    assert panel.error_card.note() == "no limit to choose"
    assert panel.curve.marks() == ()
    assert panel.curve_pages.page() is not panel.curve
    panel.show_error_page("histogram")
    assert panel.error_pages.page() is not panel.error
    panel.show_view(weight_view(WEIGHTS, W4_TENSOR))
    assert panel.error_pages.page() is panel.error
    assert not panel.curve._limit.isVisible()


def test_that_words_of_marks_do_not_cover_each_other(qtbot) -> None:
    panel = weights_panel(qtbot)
    boxes = [text.mapRectToScene(text.boundingRect()) for text in panel.curve._texts if text.isVisible()]
    assert len(boxes) == len(panel.curve.marks()) >= 5
    for i, box in enumerate(boxes):
        for other in boxes[:i]:
            shared = box.intersected(other)
            assert shared.width() * shared.height() < 0.35 * box.width() * box.height()


def test_that_limits_of_activations_can_be_dragged_and_are_told_once(qtbot) -> None:
    panel = activations_panel(qtbot)
    chosen = []
    panel.limits_chosen.connect(lambda low, high: chosen.append((low, high)))
    plot = panel.input.histogram
    before = panel.input.sqnr.text()
    _, high = plot.limits()
    drag(plot, in_viewport(plot, high, 1.0), in_viewport(plot, high / 2, 1.0))
    assert chosen == [plot.limits()]
    assert plot.limits()[1] == pytest.approx(high / 2, rel=0.05)
    assert panel.input.sqnr.text() != before
    assert point(panel.input.curve)[0] == plot.limits()[1]


def test_that_averages_over_samples_have_marks_at_activations(qtbot) -> None:
    panel = activations_panel(qtbot)
    chosen = []
    panel.estimator_chosen.connect(chosen.append)
    mean = mark(panel.input.curve, SampleMean)
    assert mean.threshold == pytest.approx(float(ACTIVATION.sample_maxima.mean()), rel=1e-3)
    click(panel.input.curve, place(panel.input.curve, mean))
    assert chosen == [SampleMean()]


def test_that_both_columns_turn_to_the_same_page_and_say_so(qtbot) -> None:
    panel = activations_panel(qtbot)
    assert panel.output.samples_card.page() == "curve"
    with qtbot.waitSignal(panel.error_page_turned) as told:
        panel.output.samples_card.buttons.button("samples").click()
    assert told.args == ["samples"]
    assert panel.input.samples_card.page() == "samples"
    panel.show_error_page("a page of another version")
    assert panel.input.samples_card.page() == "samples"
