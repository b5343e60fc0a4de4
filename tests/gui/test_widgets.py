from __future__ import annotations

import pytest
from gui_examples import shown
from PySide6.QtCore import Qt
from PySide6.QtGui import QFontInfo
from PySide6.QtWidgets import QApplication

from quantgui.gui.numbers import amount, count, data_size, decibel, percent, short
from quantgui.gui.widgets.card import Card
from quantgui.gui.widgets.labels import ElidedLabel, MetricLabel
from quantgui.gui.widgets.progress import ProgressRow
from quantgui.gui.widgets.segmented import Segment, SegmentedButtons
from quantgui.gui.widgets.state_page import StatePage

BITS = [Segment(bits, str(bits), f"{bits} bits") for bits in (2, 4, 8)]


def test_that_a_click_chooses_a_segment_and_tells_it(qtbot) -> None:
    buttons = SegmentedButtons("Bits", BITS)
    shown(qtbot, buttons, 200, 40)
    with qtbot.waitSignal(buttons.chosen) as told:
        qtbot.mouseClick(buttons.button(4), Qt.MouseButton.LeftButton)
    assert told.args == [4]
    assert buttons.value() == 4


def test_that_a_value_set_from_outside_is_not_told(qtbot) -> None:
    buttons = SegmentedButtons("Bits", BITS)
    qtbot.addWidget(buttons)
    with qtbot.assertNotEmitted(buttons.chosen):
        buttons.set_value(8)
    assert buttons.value() == 8


def test_that_a_value_no_segment_has_leaves_none_chosen(qtbot) -> None:
    buttons = SegmentedButtons("Bits", BITS)
    qtbot.addWidget(buttons)
    buttons.set_value(8)
    buttons.set_value(3)
    assert buttons.value() is None
    buttons.set_value(2)
    assert [button.isChecked() for button in map(buttons.button, (2, 4, 8))] == [True, False, False]


def test_that_arrow_keys_move_between_segments(qtbot) -> None:
    buttons = SegmentedButtons("Bits", BITS)
    shown(qtbot, buttons, 200, 40)
    buttons.set_value(2)
    buttons.button(2).setFocus()
    qtbot.keyClick(buttons.button(2), Qt.Key.Key_Right)
    assert buttons.value() == 4


def test_that_text_too_long_is_elided_and_told_by_the_tooltip(qtbot) -> None:
    label = ElidedLabel("a very long name of a layer in a network")
    shown(qtbot, label, 400, 20)
    assert label.toolTip() == ""
    label.resize(60, 20)
    assert label.toolTip() == label.text()
    assert label.minimumSizeHint().width() < 40


def test_that_a_label_measures_its_text_anew_in_another_font(qtbot) -> None:
    label = ElidedLabel("a very long name of a layer in a network")
    shown(qtbot, label, 400, 20)
    before = label.sizeHint().width()
    font = label.font()
    font.setPixelSize(3 * QFontInfo(font).pixelSize())
    label.setFont(font)
    assert label.sizeHint().width() > 2 * before
    label.resize(before, 20)
    assert label.toolTip() == label.text()


def test_that_a_metric_is_read_out_with_its_caption(qtbot) -> None:
    metric = MetricLabel("SQNR", "larger is better")
    qtbot.addWidget(metric)
    metric.show_value("24.3 dB", "good")
    assert metric.accessibleName() == "SQNR: 24.3 dB"
    assert metric.toolTip() == "larger is better"


def test_that_progress_shows_steps_and_time_left(qtbot) -> None:
    row = ProgressRow("Evaluate")
    qtbot.addWidget(row)
    row.show_progress(640, 1000, seconds_left=12.3)
    assert row.text() == "640 / 1,000 · 12 s left"
    assert row.bar.value() == 640
    row.show_progress(0, 0)
    assert (row.bar.minimum(), row.bar.maximum()) == (0, 0)
    with qtbot.waitSignal(row.cancelled):
        row.stop.click()


def test_that_a_long_time_left_is_told_in_hours(qtbot) -> None:
    row = ProgressRow("Train")
    qtbot.addWidget(row)
    row.show_progress(1, 1000, seconds_left=89 * 60)
    assert row.text().endswith("89 min left")
    row.show_progress(1, 1000, seconds_left=3 * 3600 + 6 * 60)
    assert row.text().endswith("3 h 6 min left")


def test_that_a_job_that_goes_on_after_a_failure_is_no_longer_red(qtbot) -> None:
    row = ProgressRow("Sweep")
    qtbot.addWidget(row)
    row.show_state("The engine was killed.", "bad")
    row.show_progress(3, 70, "Measuring")
    assert not row._state.property("tone")
    assert not row.bar.property("tone")


def test_that_the_name_of_a_job_stays_beside_a_long_state(qtbot) -> None:
    row = ProgressRow("Evaluate W4A8")
    shown(qtbot, row, 240, 40)
    row.show_progress(16, 32, "Looking for the layers whose weights cost most", 4.0)
    QApplication.processEvents()
    assert row.text().startswith("16 / 32 · 4 s left")
    assert row._label.width() >= row._label.fontMetrics().horizontalAdvance("Evaluate W4A8")


def test_that_a_long_sentence_of_a_state_is_not_cut_off(qtbot) -> None:
    page = StatePage()
    shown(qtbot, page, 260, 300)
    page.show_state("info", "Heading", "A sentence of many words that needs several lines in a page this narrow. " * 2)
    qtbot.waitUntil(lambda: page._sentence.height() >= page._sentence.heightForWidth(page._sentence.width()))


def test_that_a_chip_that_can_be_switched_is_reached_by_keyboard(qtbot) -> None:
    card = Card("Weights")
    chip = card.add_chip("float_", "float32", switchable=True)
    fixed = card.add_chip("quantized", "int4")
    shown(qtbot, card, 300, 100)
    chip.setFocus()
    qtbot.keyClick(chip, Qt.Key.Key_Space)
    assert not chip.isChecked()
    assert fixed.focusPolicy() == Qt.FocusPolicy.NoFocus


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (short(0.00461234), "0.00461"),
        (short(-12.5), "−12.5"),
        (short(1.2e-7), "1.20e−7"),
        (short(float("inf")), "∞"),
        (short(0.9996), "1.000"),
        (decibel(24.31), "24.3 dB"),
        (decibel(float("inf")), "∞ dB"),
        (percent(0.034), "3.4 %"),
        (percent(1e-9), "< 0.001 %"),
        (count(589824), "589\u202f824"),
        (amount(25_500_000), "25.5 M"),
        (data_size(17_300_000), "17.3 MB"),
    ],
)
def test_that_numbers_are_written_for_people(text: str, wanted: str) -> None:
    assert text == wanted


def test_that_a_legend_has_all_its_words_or_none(qtbot) -> None:
    card = Card("Trade-off")
    chips = [card.add_chip("muted", word) for word in ("predicted", "measured", "answer")]
    for chip in chips:
        chip.let_shrink()
    shown(qtbot, card, 600, 100)
    whole = [chip.sizeHint().width() for chip in chips]
    for width in range(600, 240, -12):
        card.resize(width, 100)
        card.fit_legend()
        QApplication.processEvents()
        hints = [chip.sizeHint().width() for chip in chips]
        assert hints in (whole, [chip.minimumSizeHint().width() for chip in chips])
        # What is asked for is had: no word is cut.
        assert all(chip.width() >= hint for chip, hint in zip(chips, hints, strict=True))
    assert hints != whole
    chips[0].hide()
    chips[1].hide()
    card.resize(300, 100)
    card.fit_legend()
    assert chips[2].sizeHint().width() == whole[2]
