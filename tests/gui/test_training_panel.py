"""The training tab on values made up by the test."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from gui_examples import shown
from PySide6.QtCore import Qt
from PySide6.QtWidgets import QApplication
from training_examples import quality, training_ready

from quantgui.gui.panels.training import TrainingPanel
from quantgui.gui.plots.training import PowerAxis, smoothed
from quantgui.gui.training_words import Standing
from quantgui.gui.widgets.card import LegendChip
from quantgui.spec.training import Training

pytestmark = pytest.mark.qt_log_ignore("This plugin does not support")


@pytest.fixture
def panel(qtbot):
    made = TrainingPanel()
    shown(qtbot, made)
    made.show_data(samples=500, has_labels=True)
    return made


def test_that_what_was_reached_stands_in_large_figures(panel) -> None:
    panel.show_training(training_ready(400), Standing("running"))
    assert panel.loss.steps.accessibleName() == "of 1\u202f000: 400"
    assert panel.loss.time.text() == "40 s"
    assert panel.loss.left.text() == "1:00 min"
    assert panel.quality.headline.text() == "40.0 → 90.2 %"
    assert panel.quality.sqnr.text() == "8.0 → 18.0 dB"
    assert panel.quality.title() == "Accuracy"
    assert panel.quality.words.text() == "best, step 400: 90.2 ± 1.0 %, 18.0 dB"


def test_that_the_curves_hold_what_was_told(panel) -> None:
    training = training_ready(400)
    panel.show_training(training, Standing("running"))
    steps, losses = panel.loss.plot.losses()
    assert np.array_equal(steps, training.loss_steps)
    assert np.array_equal(losses, training.losses)
    line = panel.quality.plot._line.getData()
    assert line[0].tolist() == [0, 100, 200, 300, 400]
    assert line[1] == pytest.approx([40.0, *(100 * found.quantized_score.value for _, found in training.evaluations)])
    assert panel.quality.plot._float.value() == pytest.approx(98.0)
    assert panel.quality.plot._star.getData()[0].tolist() == [400]
    assert panel.loss.plot._best.value() == 400


def test_that_what_became_worse_is_not_shown_in_green(panel) -> None:
    worse = replace(quality(0.9), output_sqnr_db=3.0)
    panel.show_training(training_ready(400, evaluations=((400, worse),)), Standing("running"))
    assert panel.quality.sqnr.text() == "8.0 → 3.0 dB"
    assert panel.quality.sqnr._value.property("tone") == "text"
    assert panel.quality.headline._value.property("tone") == "good"


def test_that_lines_are_named_where_they_are_and_the_legend_has_its_words(panel) -> None:
    panel.show_training(training_ready(400), Standing("running"))
    plot = panel.quality.plot
    assert [line.label.format for line in (plot._float, plot._before)] == ["float", "before"]
    assert plot._float.label.isVisible()
    panel.resize(548, 400)
    QApplication.processEvents()
    chips = panel.quality.findChildren(LegendChip)
    assert [chip.text() for chip in chips] == ["trained", "best"]
    assert all(chip.width() >= chip.sizeHint().width() > chip.minimumSizeHint().width() for chip in chips)


def test_that_plots_keep_their_room_where_the_tab_is_low(panel) -> None:
    panel.show_training(training_ready(400, notes=("Quality is measured on all samples.",)), Standing("running"))
    for height, shown_words in ((420, True), (270, False), (420, True)):
        # What is left out on the way lets the tab become lower still.
        for _ in range(4):
            panel.resize(500, height)
            QApplication.processEvents()
        assert panel.notes.isVisible() == shown_words
        assert panel.quality.words.isVisible() == shown_words
        for card in (panel.loss, panel.quality):
            assert card.plot.geometry().bottom() <= card.height()
            assert not shown_words or card.plot.geometry().bottom() < card.words.geometry().top()


def test_that_losses_without_a_logarithm_are_left_out(panel) -> None:
    losses = np.array([1.0, 0.0, np.nan, np.inf, 0.5])
    panel.show_training(
        training_ready(5, loss_steps=np.arange(1, 6), losses=losses, evaluations=()), Standing("running")
    )
    assert panel.loss.plot.losses()[0].tolist() == [1, 5]


def test_that_a_training_of_which_only_the_start_is_known_can_be_shown(panel) -> None:
    nothing = np.zeros(0)
    start = training_ready(0, loss_steps=nothing, losses=nothing, before=None, seconds_left=np.nan)
    panel.show_training(start, Standing("running", label="Calibrating on 64 samples"))
    assert panel.state_text() == "Calibrating on 64 samples"
    assert panel.quality.headline.text() == "–"
    assert panel.loss.left.text() == "–"
    assert panel.quality.words.text() == "no evaluation yet"
    assert not panel.keep.isVisible()


def test_that_a_metric_in_decibel_is_drawn_in_decibel_and_said_once(panel) -> None:
    evaluations = ((100, quality(20.0, "output_sqnr_db", np.inf)),)
    training = training_ready(100, before=quality(8.0, "output_sqnr_db", np.inf), evaluations=evaluations, best=100)
    panel.show_training(training, Standing("running"))
    assert panel.quality.headline.text() == "8.0 → 20.0 dB"
    assert not panel.quality.sqnr.isVisible()
    assert not panel.quality.plot._float.isVisible()
    assert panel.quality.plot.getAxis("left").unit == " dB"


def test_that_the_keys_and_the_pointer_read_an_evaluation(panel, qtbot) -> None:
    panel.show_training(training_ready(400), Standing("running"))
    plot = panel.quality.plot
    qtbot.keyClick(plot, Qt.Key.Key_Up)
    assert plot.pointed() == 3
    qtbot.keyClick(plot, Qt.Key.Key_Down)
    assert panel.quality.words.text().startswith("step 300: ")
    point = panel.quality.plot._line.getData()
    plot.hovered.emit((point[0][1], point[1][1]))
    assert panel.quality.words.text().startswith("step 100: ")
    plot.hovered.emit(None)
    assert panel.quality.words.text().startswith("best, step 400: ")
    panel.loss.plot.hovered.emit((17.2, 0.0))
    assert panel.loss.words.text().startswith("step 17: loss ")


def test_that_notes_are_read_in_full(panel) -> None:
    panel.show_training(training_ready(100, notes=("The layer 'a' cannot be trained.",)), Standing("running"))
    assert panel.notes.isVisible()
    assert panel.notes.text() == "The layer 'a' cannot be trained."
    many = tuple(f"Note {n}." for n in range(5))
    panel.show_training(training_ready(150, notes=many), Standing("running"))
    assert panel.notes.text().endswith("Note 2.\n… and 2 more")
    assert panel.notes.toolTip().endswith("Note 4.")
    panel.show_training(training_ready(200), Standing("running"))
    assert not panel.notes.isVisible()


def test_that_the_settings_ask_what_they_show(panel, qtbot) -> None:
    controls = panel.controls
    assert controls.asked() == Training()
    controls.steps.setValue(300)
    controls.rate.setValue(0.0003)
    controls.teacher.button("labels").click()
    controls.scope.button("blocks").click()
    assert not controls.patience.isVisible()
    qtbot.mouseClick(controls.more, Qt.MouseButton.LeftButton)
    assert controls.patience.isVisible()
    controls.patience.setValue(0)
    controls.scales.click()
    controls.seed.setValue(3)
    controls.reach.setValue(5)
    assert controls.asked() == Training(300, 32, 3e-4, False, "labels", "blocks", 0, 3, 5)
    assert controls.rate.text() == "rate 0.0003"
    assert controls.patience.text() == "no early end"


def test_that_labels_teach_only_where_there_are_any_and_a_batch_is_no_larger_than_the_data(panel) -> None:
    panel.controls.teacher.button("labels").click()
    panel.show_data(samples=20, has_labels=False)
    assert not panel.controls.teacher.button("labels").isEnabled()
    assert "no labels" in panel.controls.teacher.button("labels").toolTip()
    assert panel.controls.asked().teacher == "float"
    assert panel.controls.asked().batch_size == 20


@pytest.mark.parametrize(("low", "high", "size"), [(-4.2, 0.3, 200), (-1.1, 0.2, 200), (-0.05, 0.05, 150), (-9, 3, 60)])
def test_that_an_axis_of_powers_names_a_few_numbers_within_reach(qtbot, low, high, size) -> None:
    axis = PowerAxis("left")
    ((spacing, values),) = axis.tickValues(low, high, size)
    assert 1 <= len(values) <= size // 20
    assert all(low - 1e-9 <= value <= high + 1e-9 for value in values)
    texts = axis.tickStrings(values, 1.0, spacing)
    assert len(set(texts)) == len(texts)
    for value, text in zip(values, texts, strict=True):
        assert float(text.replace("\u2212", "-")) == pytest.approx(10**value, rel=0.01)


def test_that_the_line_of_the_loss_lies_amid_its_points_without_lagging_behind() -> None:
    slope = np.linspace(3.0, -2.0, 500)
    noise = np.random.default_rng(0).standard_normal(500)
    line = smoothed(slope + noise)
    assert np.abs(line - slope).mean() < 0.25
    assert abs((line - slope).mean()) < 0.1
    assert np.allclose(smoothed(slope)[50:-50], slope[50:-50])
