from __future__ import annotations

from dataclasses import replace

import pytest
from gui_examples import A8, activation, hover, in_viewport, layer, shown
from PySide6.QtCore import Qt
from PySide6.QtWidgets import QApplication

from quantgui.gui.panels.activations import ActivationsPanel
from quantgui.spec.quantizer import Percentile

INPUT, OUTPUT = activation("in"), activation("out", relu=False, seed=2)


def panel(qtbot) -> ActivationsPanel:
    result = ActivationsPanel()
    shown(qtbot, result)
    result.show_layer(layer())
    return result


def test_that_without_data_the_panel_asks_for_it(qtbot) -> None:
    result = panel(qtbot)
    result.show_needs_data()
    assert result.state.heading() == "Activations need data"
    with qtbot.waitSignal(result.data_requested):
        qtbot.mouseClick(result.state._button, Qt.MouseButton.LeftButton)


def test_that_unmeasured_activations_can_be_measured(qtbot) -> None:
    result = panel(qtbot)
    assert result.state.heading() == "Not measured yet"
    with qtbot.waitSignal(result.calibration_requested):
        qtbot.mouseClick(result.state._button, Qt.MouseButton.LeftButton)


def test_that_progress_of_the_calibration_is_shown_until_there_is_a_result(qtbot) -> None:
    result = panel(qtbot)
    result.show_calibrating(16, 64)
    assert result.state.sentence() == "16 of 64 samples"
    result.show_statistics(INPUT, OUTPUT, A8)
    result.show_calibrating(32, 64)
    assert result.input.isVisible()


def test_that_layers_computed_in_float_say_so(qtbot) -> None:
    result = panel(qtbot)
    result.show_layer(layer(op="LSTM", quantizes_activations=False))
    assert result.state.sentence() == "LSTM layers are computed with float activations."
    result.show_needs_data()
    assert result.state.heading() == "No activations to quantize"


def test_that_input_and_output_are_shown_beside_each_other(qtbot) -> None:
    result = panel(qtbot)
    result.show_statistics(INPUT, OUTPUT, A8)
    assert result.input.isVisible()
    assert result.output.isVisible()
    assert result.input.histogram.limits() == (0.0, pytest.approx(INPUT.statistics.maximum))
    assert result.output.histogram.limits() == pytest.approx((OUTPUT.statistics.minimum, OUTPUT.statistics.maximum))


def test_that_a_layer_without_quantized_output_shows_its_input_alone(qtbot) -> None:
    result = panel(qtbot)
    result.show_statistics(INPUT, None, A8)
    assert result.input.isVisible()
    assert not result.output.isVisible()


def test_that_a_percentile_clips_what_a_few_samples_reach(qtbot) -> None:
    result = panel(qtbot)
    result.show_statistics(INPUT, OUTPUT, replace(A8, range_estimator=Percentile(99.0)))
    assert result.input.histogram.limits()[1] < INPUT.statistics.maximum / 2
    assert result.input.clipped.text() not in ("0 %", "–")


def test_that_float_activations_have_no_grid(qtbot) -> None:
    result = panel(qtbot)
    result.show_statistics(INPUT, OUTPUT, None)
    assert not result.input.histogram._low.isVisible()
    assert result.input.sqnr.text() == "–"
    assert result.input.card.note() == "stays float"


def test_that_the_sample_with_the_largest_value_is_named(qtbot) -> None:
    result = panel(qtbot)
    result.show_statistics(INPUT, OUTPUT, A8)
    assert result.input.samples_card.note() == f"largest: no. {INPUT.sample_maxima.argmax()}"


def test_that_pointing_at_a_sample_reads_its_range_out(qtbot) -> None:
    result = panel(qtbot)
    result.show_statistics(INPUT, OUTPUT, A8)
    QApplication.processEvents()
    hover(result.input.samples, in_viewport(result.input.samples, 9.0, 1.0))
    assert result.input.samples_card.note().startswith("sample 9: 0 … ")


def test_that_both_columns_count_alike(qtbot) -> None:
    result = panel(qtbot)
    result.show_statistics(INPUT, OUTPUT, A8)
    result.output.scale_buttons.button(False).click()
    assert result.input.scale_buttons.value() is False
    assert result.input.histogram._curve.getData()[1].sum() == pytest.approx(INPUT.statistics.count)


def test_that_a_failure_can_be_retried(qtbot) -> None:
    result = panel(qtbot)
    result.show_failure("The data do not fit the network.")
    with qtbot.waitSignal(result.calibration_requested):
        result.state._button.click()
