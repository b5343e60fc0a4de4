"""The sensitivity tab and the bar in the layers table: made-up sweeps through the real widgets, and a real one."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from gui_examples import shown
from hypothesis import given
from hypothesis import strategies as st
from PySide6.QtCore import QPoint, Qt
from PySide6.QtTest import QAbstractItemModelTester
from PySide6.QtWidgets import QApplication, QPushButton, QWidget
from sens_examples import made_value, names, summary_of, table
from sessions import data, evaluated, make_session, open_data, open_network
from windows import open_window, real_session

from quantgui.analysis.proxies import GRADIENT_SQNR, INPUT_WEIGHTED_SQNR, OWN_OUTPUT_SQNR, WEIGHT_SQNR
from quantgui.engine.messages import JobCancelled, JobEvent, JobStarted
from quantgui.engine.requests import Evaluate, MeasureSensitivity
from quantgui.gui.actions import ACTIONS
from quantgui.gui.colormap import damage_color
from quantgui.gui.damage import DamageScale, damage_scale
from quantgui.gui.models.layers import ROLE_DAMAGE, Column, LayersModel
from quantgui.gui.models.sensitivity import Fixed, SensitivityModel
from quantgui.gui.needs import why_not
from quantgui.gui.panels.layers import LayersPanel
from quantgui.gui.panels.sensitivity import SensitivityPanel
from quantgui.gui.presenters.sensitivity import SensitivityPresenter
from quantgui.gui.theme import apply_theme
from quantgui.results import LayerInfo, Progress, SensitivityReady
from quantgui.session.jobs import Job, JobState
from quantgui.session.samples import read_samples
from quantgui.spec.config import QuantConfig
from quantgui.spec.presets import find_preset, preset_config, weight_spec
from quantgui.spec.quantizer import LayerSpec
from quantgui.spec.sweep import SWEPT_BITS, Sweep, bits_specs

pytestmark = pytest.mark.qt_log_ignore("This plugin does not support")
PATIENCE = 60_000
INT4 = len(Fixed) + SWEPT_BITS.index(4)


def panel(qtbot, count: int = 6, width: int = 600, height: int = 520) -> SensitivityPanel:
    result = SensitivityPanel()
    shown(qtbot, result, width, height)
    result.show_network(summary_of(count))
    result.show_data(data(samples=500))
    return result


def filled(qtbot, count: int = 6, **changes) -> SensitivityPanel:
    result = panel(qtbot, count)
    result.show_table(table(count, **changes))
    QApplication.processEvents()
    return result


def rows(model: SensitivityModel) -> list[str]:
    return [model.layer(row) for row in range(model.rowCount())]


def middle_of(view, row: int, column: int) -> QPoint:
    return view.visualRect(view.model().index(row, column)).center()


def job(state: JobState, **changes) -> Job:
    return Job(1, "sensitivity", "Sensitivity of weights", state, **changes)


def button_of(page: QWidget) -> QPushButton | None:
    return next((each for each in page.findChildren(QPushButton) if each.isVisible()), None)


# --- the scale ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("on_dark", [True, False])
def test_that_more_damage_is_always_farther_from_the_ground(on_dark) -> None:
    lightness = [damage_color(step / 50, on_dark=on_dark).lightnessF() for step in range(51)]
    # Brightness alone tells the order, so that every kind of colour vision sees it.
    ordered = sorted(lightness, reverse=not on_dark)
    assert all(abs(a - b) < 0.03 for a, b in zip(lightness, ordered, strict=True))
    assert abs(lightness[-1] - lightness[0]) > 0.4


@given(
    st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=30),
    st.sampled_from(["output_sqnr_db", "accuracy", "user"]),
    st.booleans(),
)
def test_that_the_scale_holds_all_values_in_their_order(values, metric, higher_is_better) -> None:
    scale = damage_scale(values, metric, higher_is_better=higher_is_better)
    assert scale is not None
    order = sorted(values, reverse=higher_is_better)
    shares = [scale.share(value) for value in order]
    assert shares == sorted(shares)
    assert all(0.0 <= share <= 1.0 for share in shares)
    assert scale.damage(order[-1]) <= scale.high + 1e-8 * (scale.high - scale.low)


def test_that_the_ends_of_the_scale_are_round_and_carry_the_unit() -> None:
    scale = damage_scale([12.3, 48.9, math.inf, math.nan], "output_sqnr_db", higher_is_better=True)
    assert scale == DamageScale("output_sqnr_db", True, -50.0, -10.0)
    assert scale.texts() == ("50.0 dB", "10.0 dB")
    kl = damage_scale([3e-5, 0.2, 0.0], "kl", higher_is_better=False)
    assert kl is not None
    assert kl.texts() == ("1e−05", "1")
    assert damage_scale([math.nan, math.inf], "kl", higher_is_better=False) is None


# --- the table ---------------------------------------------------------------------------------------------------


def test_that_the_item_model_keeps_the_rules_of_qt(qtbot) -> None:
    model = SensitivityModel()
    tester = QAbstractItemModelTester(model, QAbstractItemModelTester.FailureReportingMode.Fatal)
    model.show_layers(summary_of(8).layers)
    model.show_table(table(8, measured=10))
    model.sort(INT4)
    model.show_table(table(8, measured=20))
    model.show_only(frozenset(names(3)))
    model.resort()
    model.show_table(table(8, sweep=Sweep(bits_specs((2, 8)), "both")))
    model.show_only(None)
    model.show_table(None)
    assert model.rowCount() == 0
    assert tester.model() is model


def test_that_a_column_is_sorted_by_damage_up_down_and_not_at_all(qtbot) -> None:
    result = filled(qtbot, 9)
    by_hand = sorted(names(9), key=lambda name: made_value(names(9).index(name), 4))
    header = result.table.horizontalHeader()
    place = QPoint(header.sectionViewportPosition(INT4) + 10, header.height() // 2)
    for expected in (by_hand, by_hand[::-1], names(9)):
        qtbot.mouseClick(header.viewport(), Qt.MouseButton.LeftButton, pos=place)
        assert rows(result.model) == expected


def test_that_what_is_only_guessed_comes_after_what_was_measured(qtbot) -> None:
    result = filled(qtbot, 6, measured=3 * len(SWEPT_BITS))
    result.table.sort_next(INT4)
    assert set(rows(result.model)[:3]) == set(names(3))
    guesses = [result.model.candidate(row, INT4).weight_sqnr_db for row in range(3, 6)]
    assert guesses == sorted(guesses)


def test_that_cells_fill_while_one_looks_and_only_what_is_new_is_drawn(qtbot) -> None:
    # The first two layers span the scale, so that it stays as it is.
    result = filled(qtbot, 30, measured=20 * len(SWEPT_BITS))
    told: list[tuple[int, int]] = []
    result.model.dataChanged.connect(lambda first, last: told.append((first.row(), last.row())))
    cell = result.model.cells(20)[INT4 - len(Fixed)]
    assert cell is not None
    assert cell.guess
    orders = result.model.table.orders
    more = table(30, measured=21 * len(SWEPT_BITS), orders=orders)
    result.show_table(more)
    assert told == [(20, 20)]
    cell = result.model.cells(20)[INT4 - len(Fixed)]
    assert cell is not None
    assert not cell.guess
    assert cell.text == f"{made_value(20, 4):.1f}".replace("-", "−")
    assert result.model.measured() == (147, 210)


def test_that_rows_that_are_sorted_find_their_place_when_numbers_come_in(qtbot) -> None:
    result = filled(qtbot, 8, measured=2 * len(SWEPT_BITS))
    result.table.sort_next(INT4)
    result.show_selection(("layer6.conv",))
    told: list[object] = []
    result.layers_selected.connect(told.append)
    result.show_table(table(8))
    by_hand = sorted(names(8), key=lambda name: made_value(names(8).index(name), 4))
    qtbot.waitUntil(lambda: rows(result.model) == by_hand, timeout=3000)
    # The row has moved, and what is selected went with it.
    selected = [result.model.layer(index.row()) for index in result.table.selectionModel().selectedRows()]
    assert selected == ["layer6.conv"]
    assert told == []


def test_that_an_uncertain_order_is_marked_and_counted(qtbot) -> None:
    result = filled(qtbot, 9)
    known = table(9).orders["int4"]
    unsure = {
        each.layer for rank, each in enumerate(known) if not each.certain or (rank > 0 and not known[rank - 1].certain)
    }
    assert 0 < len(unsure) < 9
    for row, name in enumerate(rows(result.model)):
        cell = result.model.cells(row)[INT4 - len(Fixed)]
        assert cell is not None
        assert cell.uncertain == (name in unsure)
    header = Qt.Orientation.Horizontal
    assert result.model.headerData(INT4, header) == "~int4"
    tip = result.model.headerData(INT4, header, Qt.ItemDataRole.ToolTipRole)
    assert f"{9 - len(unsure)} of 9 layers is certain" in tip


def test_that_a_cell_tells_value_error_samples_bytes_and_weight_error(qtbot) -> None:
    result = filled(qtbot, 6)
    tip = result.model.index(2, INT4).data(Qt.ItemDataRole.ToolTipRole)
    for part in ("layer2.conv as int4", "± 0.4 dB on 32 samples", "1.2 KB of weights", "Weight SQNR 23.1 dB", "of 6"):
        assert part in tip
    spoken = result.model.index(2, INT4).data(Qt.ItemDataRole.AccessibleTextRole)
    assert "layer2.conv as int4" in spoken
    assert "output SQNR" in spoken


def test_that_the_present_format_is_framed(qtbot) -> None:
    result = filled(qtbot, 6)
    result.show_present({"layer1.conv": LayerSpec(weight_spec(6), find_preset("W8A8").spec.activations)})
    framed = {
        (row, place)
        for row in range(6)
        for place, cell in enumerate(result.model.cells(row))
        if cell is not None and cell.present
    }
    # A sweep of weights does not ask for the activations.
    assert framed == {(1, SWEPT_BITS.index(6))}
    assert result.model.index(1, Fixed.PRESENT).data() == "6"
    assert result.model.index(0, Fixed.PRESENT).data() == "FP32"


def test_that_guesses_measured_cells_and_frames_look_different(qtbot, qapp) -> None:
    for scheme in ("dark", "light"):
        apply_theme(qapp, scheme)
        result = filled(qtbot, 4, measured=2 * len(SWEPT_BITS))
        result.show_present({"layer1.conv": LayerSpec(weight_spec(4))})
        QApplication.processEvents()
        picture = result.table.viewport().grab().toImage()

        def colours(row: int, column: int, view=result.table, image=picture) -> set[int]:
            area = view.visualRect(view.model().index(row, column)).adjusted(3, 3, -3, -16)
            columns, lines = range(area.left(), area.right()), range(area.top(), area.bottom())
            return {image.pixel(x, y) for x in columns for y in lines}

        plain, hatched, framed = colours(0, INT4), colours(2, INT4), colours(1, INT4)
        assert len(plain) == 1
        assert len(hatched) > 1
        assert len(framed) > 1
        assert framed != hatched


def test_that_a_click_on_a_cell_chooses_it_and_on_a_name_only_selects(qtbot) -> None:
    result = filled(qtbot, 6)
    chosen: list = []
    selected: list = []
    result.candidates_chosen.connect(chosen.append)
    result.layers_selected.connect(selected.append)
    view = result.table
    qtbot.mouseClick(view.viewport(), Qt.MouseButton.LeftButton, pos=middle_of(view, 3, Fixed.NAME))
    assert selected == [("layer3.conv",)]
    assert chosen == []
    qtbot.mouseClick(view.viewport(), Qt.MouseButton.LeftButton, pos=middle_of(view, 2, INT4))
    assert [(each.layer, each.format) for each in chosen.pop()] == [("layer2.conv", "int4")]
    control = Qt.KeyboardModifier.ControlModifier
    qtbot.mouseClick(view.viewport(), Qt.MouseButton.LeftButton, control, pos=middle_of(view, 4, INT4))
    assert chosen == []
    assert set(selected[-1]) == {"layer2.conv", "layer4.conv"}


def test_that_keys_go_to_a_cell_choose_it_for_all_selected_layers_and_sort(qtbot) -> None:
    result = filled(qtbot, 6)
    chosen: list = []
    result.candidates_chosen.connect(chosen.append)
    view = result.table
    view.setFocus()
    view.setCurrentIndex(result.model.index(1, INT4))
    qtbot.keyClick(view, Qt.Key.Key_Right)
    qtbot.keyClick(view, Qt.Key.Key_Down, Qt.KeyboardModifier.ShiftModifier)
    qtbot.keyClick(view, Qt.Key.Key_Return)
    assert {(each.layer, each.format) for each in chosen.pop()} == {("layer1.conv", "int5"), ("layer2.conv", "int5")}
    qtbot.keyClick(view, Qt.Key.Key_S)
    assert rows(result.model) == sorted(names(6), key=lambda name: made_value(names(6).index(name), 5))
    assert "as int5" in result.detail.text()


def test_that_digits_go_on_to_the_window(qtbot) -> None:
    keys: list[str] = []

    class Window(QWidget):
        def keyPressEvent(self, event) -> None:  # noqa: N802 -- Qt's name
            keys.append(event.text())

    window = Window()
    result = SensitivityPanel(window)
    shown(qtbot, window, 600, 500)
    result.resize(600, 500)
    result.show_network(summary_of(3))
    result.show_data(data())
    result.show_table(table(3))
    result.table.setFocus()
    for key in (Qt.Key.Key_4, Qt.Key.Key_F):
        qtbot.keyClick(result.table, key)
    assert keys == ["4", "f"]


def test_that_headers_are_read_whole_and_the_map_is_scrolled_where_formats_need_more(qtbot) -> None:
    result = panel(qtbot, width=568)
    presets = tuple(find_preset(name).spec for name in ("W4A16-g32", "W4A16-g128", "W3-g32", "bfloat16"))
    for sweep, scrolled in (
        (Sweep(), False),
        (Sweep(what="both"), False),
        (Sweep((*bits_specs(SWEPT_BITS), *presets)), True),
    ):
        result.show_table(table(6, sweep=sweep))
        QApplication.processEvents()
        header = result.table.horizontalHeader()
        for column in range(len(Fixed), result.model.columnCount()):
            title = str(result.model.headerData(column, Qt.Orientation.Horizontal))
            assert header.sectionSize(column) >= header.fontMetrics().horizontalAdvance(title) + 5, title
        assert bool(result.table.horizontalScrollBar().maximum()) == scrolled
    assert result.model.column_text(len(Fixed) + 7) == "int4-g32"


# --- settings and states -----------------------------------------------------------------------------------------


def test_that_the_settings_become_a_question(qtbot) -> None:
    result = panel(qtbot)
    controls = result.controls
    asked = controls.asked()
    assert asked is not None
    assert (asked.what, asked.within, asked.metric, asked.samples, asked.exact) == (
        "weights",
        False,
        "output_sqnr_db",
        64,
        False,
    )
    assert asked.sweep(QuantConfig(find_preset("W8").spec)) == Sweep(bits_specs(SWEPT_BITS), samples=64)
    for bits in (2, 3, 5, 6, 7):
        qtbot.mouseClick(controls.bits.button(bits), Qt.MouseButton.LeftButton)
    controls._chosen_presets["W4A16-g32"].setChecked(True)
    controls._chosen_presets["W8A8"].setChecked(True)  # the same weights as 8 bits
    controls.question.setCurrentIndex(1)
    controls.samples.setValue(500)
    controls.exact.click()
    asked = controls.asked()
    assert asked is not None
    present = preset_config(find_preset("W8A8"), summary_of(6).layers)
    sweep = asked.sweep(present)
    assert [sweep.label(spec) for spec in sweep.specs] == ["int4", "int8", "int4-g32"]
    assert (sweep.base, sweep.samples, sweep.exact) == (present, None, True)
    controls.bits.set_values(())
    controls.what.set_value("activations")
    assert [str(spec.activations) for spec in controls.asked().specs] == ["uint8"]
    controls._chosen_presets["W8A8"].setChecked(False)
    assert controls.asked() is None
    assert not controls.button.isEnabled()
    assert "at least one format" in controls.button.toolTip()


def test_that_a_hard_metric_is_warned_of_and_one_without_meaning_cannot_be_chosen(qtbot) -> None:
    result = panel(qtbot)
    controls = result.controls
    assert not controls.hint.isVisible()
    controls.metrics.setCurrentIndex(controls.metrics.findData("accuracy"))
    assert controls.hint.isVisible()
    assert "Rank by output SQNR" in controls.hint.text()
    result.show_metrics({"output_sqnr_db", "cosine"}, "")
    assert controls.asked().metric == "output_sqnr_db"
    model = controls.metrics.model()
    possible = {
        controls.metrics.itemData(place)
        for place in range(controls.metrics.count())
        if controls.metrics.itemData(place) and model.item(place).isEnabled()
    }
    assert possible == {"output_sqnr_db", "cosine"}
    result.show_metrics(None, "word_errors")
    controls.metrics.setCurrentIndex(controls.metrics.findData("user"))
    assert controls.metrics.currentText() == "word_errors"


def test_that_every_state_says_what_to_do(qtbot) -> None:
    result = SensitivityPanel()
    shown(qtbot, result, 600, 500)
    assert result.state.heading() == "No network open"
    result.show_network(summary_of(6))
    assert result.state.heading() == "Sensitivity needs data"
    with qtbot.waitSignal(result.data_requested):
        qtbot.mouseClick(button_of(result.state), Qt.MouseButton.LeftButton)
    result.show_data(data(samples=500))
    assert result.state.heading() == "Not measured yet"
    assert "42 candidates on 8 samples each, more where the order is not certain" in result.state.sentence()
    result.show_cost(0.01)
    assert "about 3 s" in result.state.sentence()
    with qtbot.waitSignal(result.start_requested) as told:
        qtbot.mouseClick(button_of(result.state), Qt.MouseButton.LeftButton)
    assert told.args[0] == result.controls.asked()
    result.show_job(job(JobState.FAILED, sentence="The outputs hold no classes."))
    assert result.state.heading() == "Sensitivity could not be measured"
    assert result.state.sentence() == "The outputs hold no classes."
    result.show_job(job(JobState.RUNNING, progress=Progress(3, 42, "Weight errors")))
    assert result.state.heading() == "Measuring sensitivity"
    assert result.controls.button.text() == "Pause"


def test_that_a_running_sweep_tells_how_far_it_is_and_can_be_paused_and_resumed(qtbot) -> None:
    result = panel(qtbot)
    result.show_table(table(6, measured=20, resumed=7))
    result.show_answered(answered=True)
    result.show_job(job(JobState.RUNNING, progress=Progress(20, 42, "Measuring 42 candidates on 8 samples", 12.0)))
    assert result.progress.isVisible()
    assert "20 of 42 measured" in result.progress.accessibleName()
    for part in ("20 / 42", "12 s left", "7 resumed from earlier"):
        assert part in result.progress.text()
    assert not result.controls.bits.isEnabled()
    with qtbot.waitSignal(result.pause_requested):
        qtbot.mouseClick(result.controls.button, Qt.MouseButton.LeftButton)
    result.show_job(job(JobState.CANCELLED))
    assert result.controls.button.text() == "Resume"
    assert "goes on where it stopped" in result.progress.text()
    with qtbot.waitSignal(result.start_requested):
        qtbot.mouseClick(result.controls.button, Qt.MouseButton.LeftButton)
    result.show_table(table(6))
    result.show_job(job(JobState.DONE))
    assert not result.progress.isVisible()
    assert result.controls.button.text() == "Measure"
    assert "has been measured" in result.controls.button.toolTip()


def test_that_a_failure_half_way_keeps_the_table(qtbot) -> None:
    result = panel(qtbot)
    result.show_table(table(6, measured=20))
    result.show_job(job(JobState.FAILED, sentence="The disk is full."))
    assert result.table.isVisible()
    assert "The disk is full." in result.progress.text()
    assert result.controls.button.isEnabled()


def test_that_it_is_said_which_guess_orders_the_layers_best(qtbot) -> None:
    result = filled(qtbot, 6, weight_error_correlation=0.831)
    assert "weight SQNR 0.83" in result.proxies.text()
    by_layer = {WEIGHT_SQNR: 0.5, INPUT_WEIGHTED_SQNR: -0.1, OWN_OUTPUT_SQNR: 0.9, GRADIENT_SQNR: math.nan}
    whole = dict.fromkeys(by_layer, 0.95)
    result.show_table(table(6, layer_correlations=by_layer, correlations=whole))
    assert result.proxies.text().endswith("own output 0.90 · weight SQNR 0.50 · input-weighted −0.10")
    result.show_table(table(6, weight_error_correlation=math.nan))
    assert not result.proxies.isVisible()


def test_that_a_cell_tells_all_guesses_by_name(qtbot) -> None:
    known = table(6)
    guesses = {WEIGHT_SQNR: 23.1, OWN_OUTPUT_SQNR: 19.25, INPUT_WEIGHTED_SQNR: 21.0, GRADIENT_SQNR: 17.0}
    cells = tuple(replace(each, proxies=guesses) for each in known.candidates)
    result = panel(qtbot)
    result.show_table(replace(known, candidates=cells))
    tip = result.model.index(0, INT4).data(Qt.ItemDataRole.ToolTipRole)
    for part in ("own output: 19.2 dB", "input-weighted: 21.0 dB", "gradient: 17.0 dB"):
        assert part in tip
    assert tip.count("eight SQNR") == 1


# --- with a session ----------------------------------------------------------------------------------------------


@pytest.fixture
def swept(qtbot, tmp_path):
    """Give a session with a sweep of 6 layers, its panel and its layers table."""
    session, engine = make_session(tmp_path)
    model = LayersModel(session)
    layers = LayersPanel(model)
    result = SensitivityPanel()
    shown(qtbot, layers, 620, 400)
    shown(qtbot, result, 600, 520)
    layers.layers_selected.connect(session.select)
    session.selection_changed.connect(layers.show_selection)
    presenter = SensitivityPresenter(session, result, model, result)
    open_network(session, engine, layers=summary_of(6).layers)
    open_data(session, engine)
    yield session, engine, result, layers, presenter
    session.close()


def sweep_of(session, engine, result, **changes) -> Sweep:
    result.start()
    sweep = engine.requests[engine.newest(MeasureSensitivity)].sweep
    engine.answer(engine.newest(MeasureSensitivity), table(6, sweep=sweep, **changes))
    return sweep


def test_that_a_chosen_cell_is_one_undo_step_and_changes_what_was_swept(swept) -> None:
    session, engine, result, _, _ = swept
    both = find_preset("W8A8").spec
    session.set_config(QuantConfig(both), "W8A8")
    sweep_of(session, engine, result)
    steps = session.undo_stack.count()
    result.table.cell_chosen.emit(2, INT4)
    assert session.spec_for("layer2.conv") == LayerSpec(weight_spec(4), both.activations)
    assert session.undo_stack.count() == steps + 1
    assert session.undo_stack.undoText() == "Set layer2.conv to int4"
    cell = result.model.cells(2)[INT4 - len(Fixed)]
    assert cell is not None
    assert cell.present
    session.undo_stack.undo()
    assert session.spec_for("layer2.conv") == both
    assert not result.model.cells(2)[INT4 - len(Fixed)].present


def test_that_selection_and_filter_are_those_of_the_layers_table(swept, qtbot) -> None:
    session, engine, result, layers, _ = swept
    sweep_of(session, engine, result)
    qtbot.mouseClick(result.table.viewport(), Qt.MouseButton.LeftButton, pos=middle_of(result.table, 3, Fixed.NAME))
    assert session.selection == ("layer3.conv",)
    assert [index.data() for index in layers.table.selectionModel().selectedRows()] == ["layer3.conv"]
    session.select(["layer5.conv"])
    assert [result.model.layer(i.row()) for i in result.table.selectionModel().selectedRows()] == ["layer5.conv"]
    layers.filter.setText("layer5")
    assert rows(result.model) == ["layer5.conv"]
    assert "1 of 6 layers shown" in result.card.note()
    layers.filter.clear()
    assert rows(result.model) == names(6)


def test_that_the_question_within_the_configuration_is_asked_anew_when_that_changes(swept) -> None:
    session, engine, result, _, _ = swept
    session.set_config(QuantConfig(find_preset("W8").spec, name="W8"), "W8")
    result.controls.question.setCurrentIndex(1)
    sweep = sweep_of(session, engine, result)
    assert sweep.base == session.config
    assert not result.controls.button.isEnabled()
    result.table.cell_chosen.emit(0, INT4)
    assert result.controls.button.isEnabled()
    assert result.controls.button.text() == "Measure"


def test_that_a_sweep_that_waits_says_for_what(swept) -> None:
    session, engine, result, _, presenter = swept
    session.set_config(QuantConfig(find_preset("W4").spec, name="W4"), "W4")
    evaluation = engine.newest(Evaluate)
    engine.say(JobStarted(evaluation, "evaluate"))
    presenter.measure()
    assert result.state.sentence() == "Waiting for: Evaluate W4."
    engine.say(JobCancelled(evaluation, "evaluate"))
    assert result.state.sentence() == "Waiting for other work of the engine."
    number = engine.newest(MeasureSensitivity)
    engine.say(JobStarted(number, "sensitivity"))
    engine.say(JobEvent(number, "sensitivity", Progress(3, 42, "Weight errors", 12.0)))
    assert result.state.sentence() == "Weight errors · 12 s left"


def test_that_pausing_cancels_the_job_and_resuming_asks_the_same(swept) -> None:
    _, engine, result, _, presenter = swept
    presenter.measure()
    number = engine.newest(MeasureSensitivity)
    presenter.measure()
    assert engine.newest(MeasureSensitivity) == number
    before = list(engine.cancelled)
    result.pause_requested.emit()
    assert engine.cancelled == [*before, number]
    engine.say(JobCancelled(number, "sensitivity"))
    result.start()
    again = engine.newest(MeasureSensitivity)
    assert again != number
    assert engine.requests[again] == engine.requests[number]


def test_that_news_of_a_sweep_reach_the_map_and_the_layers_table(swept) -> None:
    _, engine, result, layers, _ = swept
    result.start()
    number = engine.newest(MeasureSensitivity)
    sweep = engine.requests[number].sweep
    engine.say(JobStarted(number, "sensitivity"), JobEvent(number, "sensitivity", table(6, measured=0, sweep=sweep)))
    assert result.model.measured() == (0, 42)
    assert layers.table.isColumnHidden(Column.SENSITIVITY)
    news = tuple(each for each in table(6, sweep=sweep).candidates if each.layer == "layer1.conv")
    engine.say(JobEvent(number, "sensitivity", SensitivityReady(sweep, news)))
    assert result.model.measured() == (7, 42)
    assert not layers.table.isColumnHidden(Column.SENSITIVITY)
    shares = [layers.table.model().index(row, Column.SENSITIVITY).data() for row in range(6)]
    assert [bool(text) for text in shares] == [False, True, False, False, False, False]


def test_that_the_bar_is_longest_for_the_layer_that_hurts_most_as_it_is(swept) -> None:
    session, engine, result, layers, _ = swept
    session.set_specs({"layer0.conv": LayerSpec(weight_spec(2)), "layer3.conv": LayerSpec(weight_spec(8))}, "x")
    assert layers.table.isColumnHidden(Column.SENSITIVITY)
    sweep_of(session, engine, result)
    bits = {0: 2, 3: 8}  # the others are float: the middle of the bits tried stands for them
    values = [made_value(place, bits.get(place, 5)) for place in range(6)]
    model = layers.table.model()
    shares = [model.index(row, Column.SENSITIVITY).data(ROLE_DAMAGE) for row in range(6)]
    worst = min(range(6), key=values.__getitem__)
    assert max(range(6), key=shares.__getitem__) == worst
    assert [shares.index(share) for share in sorted(shares)] == [values.index(v) for v in sorted(values, reverse=True)]
    tip = model.index(0, Column.SENSITIVITY).data(Qt.ItemDataRole.ToolTipRole)
    assert "int2" in tip
    assert "± 0.4 dB" in tip
    assert "middle one" in model.index(1, Column.SENSITIVITY).data(Qt.ItemDataRole.ToolTipRole)
    layers.table.sortByColumn(Column.SENSITIVITY, Qt.SortOrder.AscendingOrder)
    assert model.index(0, Column.NAME).data().startswith(f"layer{worst}")


def test_that_other_data_take_the_table_away(swept) -> None:
    session, engine, result, layers, _ = swept
    sweep_of(session, engine, result)
    open_data(session, engine, "others.npz")
    assert result.model.table is None
    assert result.state.heading() == "Not measured yet"
    assert layers.table.isColumnHidden(Column.SENSITIVITY)


def test_that_metrics_follow_what_an_evaluation_found_to_mean_something(swept) -> None:
    session, engine, result, _, _ = swept
    engine.answer(engine.newest(Evaluate), evaluated(session.config))
    item = result.controls.metrics.model().item(result.controls.metrics.findData("agreement"))
    assert not item.isEnabled()
    assert "about" in result.state.sentence()


def test_that_a_hidden_tab_is_told_when_it_comes_into_sight(swept) -> None:
    session, engine, result, _, _ = swept
    result.hide()
    sweep_of(session, engine, result)
    assert result.model.table is None
    result.show()
    assert result.model.table is session.sensitivity


def test_that_the_action_says_why_it_is_not_possible(qtbot, tmp_path) -> None:
    session, engine = make_session(tmp_path)
    spec = next(each for each in ACTIONS if each.id == "sensitivity")
    assert why_not(spec.needs, session) == "Open a network first."
    open_network(session, engine)
    assert "Open data first" in why_not(spec.needs, session)
    open_data(session, engine)
    assert why_not(spec.needs, session) == ""
    session.measure_sensitivity(Sweep())
    assert "being measured" in why_not(spec.needs, session)
    session.close()


def test_that_a_layer_that_cannot_be_changed_keeps_its_format(qtbot, tmp_path) -> None:
    session, engine = make_session(tmp_path)
    layers: tuple[LayerInfo, ...] = (replace(summary_of(1).layers[0], read_only=True), *summary_of(3).layers[1:])
    result = SensitivityPanel()
    shown(qtbot, result)
    presenter = SensitivityPresenter(session, result, LayersModel(session), result)
    open_network(session, engine, layers=layers)
    open_data(session, engine)
    sweep = Sweep(layers=tuple(names(3)))
    session.measure_sensitivity(sweep)
    engine.answer(engine.newest(MeasureSensitivity), table(3, sweep=sweep))
    presenter.choose([result.model.candidate(0, INT4)])
    assert session.undo_stack.count() == 0
    session.close()


# --- with the real engine ----------------------------------------------------------------------------------------


def test_that_a_real_sweep_fills_the_map_and_a_cell_chosen_in_it_is_evaluated(qtbot, qapp, tmp_path) -> None:
    apply_theme(qapp, "dark")
    session = real_session(tmp_path)
    window = open_window(qtbot, session, tmp_path)
    with qtbot.waitSignal(session.data_opened, timeout=PATIENCE):
        window.welcome.sample_chosen.emit(next(each for each in read_samples() if each.name == "digits"))

    def settled() -> bool:
        return session.engine_state == "ready" and not any(each.is_active for each in session.jobs)

    qtbot.waitUntil(settled, timeout=PATIENCE)
    result = window.panels.sensitivity
    result.controls.bits.set_values((2, 4, 8))
    window.actions_by_id["sensitivity"].trigger()
    assert window.tabs.currentWidget() is result
    qtbot.waitUntil(lambda: session.sensitivity is not None and session.sensitivity.complete, timeout=PATIENCE)
    qtbot.waitUntil(settled, timeout=PATIENCE)
    known = session.sensitivity
    assert result.model.measured() == (30, 30)
    assert result.model.columnCount() == len(Fixed) + 3
    result.table.sort_next(len(Fixed))
    by_hand = sorted((each.value, each.layer) for each in known.candidates if each.format == "int2")
    assert rows(result.model) == [layer for _, layer in by_hand]
    worst = by_hand[0][1]
    view = result.table
    qtbot.mouseClick(view.viewport(), Qt.MouseButton.LeftButton, pos=middle_of(view, 0, len(Fixed)))
    assert session.spec_for(worst).weights == weight_spec(2)
    assert session.selection == (worst,)
    qtbot.waitUntil(lambda: session.evaluation is not None and session.evaluation.complete, timeout=PATIENCE)
    alone = next(each for each in known.candidates if (each.layer, each.format) == (worst, "int2"))
    # Few samples against all of them: the same quality within a few standard errors.
    assert abs(session.evaluation.output_sqnr_db - alone.value) < max(5 * alone.stderr, 1.0)
    assert not window.panels.layers.table.isColumnHidden(Column.SENSITIVITY)
    session.undo_stack.undo()
    assert session.config == QuantConfig()
    window.close()


def test_that_how_far_the_sweep_is_is_not_cut_off(qtbot) -> None:
    result = filled(qtbot)
    result.resize(500, 520)
    result.show_job(job(JobState.RUNNING, progress=Progress(90, 350, "Measuring 350 candidates on 16 samples", 11.0)))
    QApplication.processEvents()
    label = result.progress._label
    assert label.text().endswith("measured")
    assert label.width() >= label.fontMetrics().horizontalAdvance(label.text())


def test_that_a_network_without_layers_has_nothing_to_measure(qtbot) -> None:
    result = SensitivityPanel()
    shown(qtbot, result, 640, 420)
    result.show_network(replace(summary_of(1), layers=()))
    result.show_data(data(samples=1))
    assert "no layer with weights" in result.state.sentence()
    assert not result.controls.button.isEnabled()
