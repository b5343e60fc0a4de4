from __future__ import annotations

from dataclasses import replace

import pytest
from PySide6.QtCore import QModelIndex, Qt
from PySide6.QtTest import QAbstractItemModelTester
from PySide6.QtWidgets import QApplication
from sessions import LAYERS, make_session, open_network

from quantgui.engine.requests import WeightErrors
from quantgui.gui.format_menu import ACTIVATION_GROUPS, WEIGHT_GROUPS, FormatList
from quantgui.gui.models.layers import ROLE_VALUE, Column, LayersModel
from quantgui.gui.panels.layers import LayersPanel
from quantgui.results import TensorError, WeightErrorReady
from quantgui.session.edits import activation_choice, weight_choice
from quantgui.spec.config import QuantConfig
from quantgui.spec.formats import FloatFormat, IntFormat, TableFormat
from quantgui.spec.presets import find_preset, weight_spec
from quantgui.spec.quantizer import LayerSpec, Trained
from quantgui.spec.targets import find_target

pytestmark = pytest.mark.qt_log_ignore("This plugin does not support")


@pytest.fixture
def opened(qtbot, tmp_path):
    session, engine = make_session(tmp_path)
    open_network(session, engine)
    yield session, engine
    session.close()


@pytest.fixture
def panel(qtbot, opened):
    session, _ = opened
    panel = LayersPanel(LayersModel(session))
    qtbot.addWidget(panel)
    panel.layers_selected.connect(session.select)
    session.selection_changed.connect(panel.show_selection)
    panel.show_network(session.summary)
    panel.resize(760, 400)
    with qtbot.waitExposed(panel):
        panel.show()
    return panel


def names(model) -> list[str]:
    return [model.index(row, Column.NAME).data() for row in range(model.rowCount())]


def test_that_the_item_model_keeps_the_rules_of_qt(qtbot, opened) -> None:
    session, engine = opened
    model = LayersModel(session)
    tester = QAbstractItemModelTester(model, QAbstractItemModelTester.FailureReportingMode.Fatal)
    session.set_config(QuantConfig(find_preset("W4A8").spec), "W4A8")
    model.set_filter("conv")
    model.sort(Column.PARAMETERS, Qt.SortOrder.DescendingOrder)
    model.set_filter("")
    open_network(session, engine, "other.onnx", LAYERS[:2])
    session.close_network()
    assert model.rowCount() == 0
    assert not model.index(0, 0, QModelIndex()).isValid()
    del tester


def test_that_layers_with_trained_weights_are_marked_until_their_format_changes(opened) -> None:
    session, _ = opened
    model = LayersModel(session)
    name, scheme = model.index(0, Column.NAME), model.index(0, Column.SCHEME)
    weights = replace(weight_spec(4), range_estimator=Trained("0123abcd"))
    session.set_specs({"conv1": LayerSpec(weights)}, "x")
    assert scheme.data() == "trained, channel, sym"
    assert not name.data(Qt.ItemDataRole.DecorationRole).isNull()
    assert "trained" in name.data(Qt.ItemDataRole.ToolTipRole)
    model.setData(model.index(0, Column.WEIGHT_BITS), IntFormat(8), Qt.ItemDataRole.EditRole)
    assert scheme.data() == "channel, sym"
    assert name.data(Qt.ItemDataRole.DecorationRole) is None


def test_that_rows_show_the_current_spec_and_its_error(opened) -> None:
    session, engine = opened
    model = LayersModel(session)
    spec = LayerSpec(weight_spec(4), find_preset("W8A8").spec.activations)
    session.set_specs({"conv1": spec}, "x")
    engine.say()
    cells = [model.index(0, column).data() for column in Column]
    assert cells == ["conv1", "Conv", "8 × 4 × 3 × 3", "288", "4", "8", "channel, sym", "", ""]
    engine.answer(
        engine.newest(WeightErrors), WeightErrorReady("conv1", spec.weights, TensorError(21.04, 0.1, 0.1, 0.0))
    )
    assert model.index(0, Column.SQNR).data() == "21.0"
    assert model.index(0, Column.SQNR).data(ROLE_VALUE) == 21.04


@pytest.mark.parametrize(
    ("name", "words"), [("frozen", "int8 in the file"), ("table", "infinite"), ("stft", "signal transform")]
)
def test_that_layers_left_alone_are_marked_with_the_reason(opened, name: str, words: str) -> None:
    session, _ = opened
    model = LayersModel(session)
    index = model.index(model.row_of(name), Column.NAME)
    assert words in index.data(Qt.ItemDataRole.ToolTipRole)
    assert index.data(Qt.ItemDataRole.DecorationRole) is not None


def test_that_frozen_layers_and_impossible_values_are_refused_without_an_exception(opened) -> None:
    session, _ = opened
    model = LayersModel(session)
    frozen = model.index(model.row_of("frozen"), Column.WEIGHT_BITS)
    assert not frozen.flags() & Qt.ItemFlag.ItemIsEditable
    assert not model.setData(frozen, IntFormat(4))
    assert not model.setData(model.index(0, Column.WEIGHT_BITS), "four")
    assert not model.setData(model.index(0, Column.NAME), IntFormat(4))
    assert session.undo_stack.count() == 0


def test_that_an_edit_of_a_selected_row_changes_all_selected_rows_in_one_step(opened) -> None:
    session, _ = opened
    model = LayersModel(session)
    session.select(["conv1", "fc", "frozen"])
    assert model.setData(model.index(0, Column.WEIGHT_BITS), FloatFormat("bfloat16"))
    assert str(session.spec_for("fc")) == "bfloat16"
    assert session.undo_stack.count() == 1
    assert model.setData(model.index(1, Column.WEIGHT_BITS), IntFormat(4))
    assert session.spec_for("conv2").weights.bits == 4
    assert str(session.spec_for("conv1")) == "bfloat16"


def test_that_sorting_keeps_the_selection_and_unknown_errors_last(panel, opened, qtbot) -> None:
    session, _ = opened
    session.set_config(QuantConfig(LayerSpec(weight_spec(4))), "W4")
    for name, db in (("conv1", 10.0), ("conv2", 30.0)):
        session.store.put_error(name, weight_spec(4), TensorError(db, 0, 0, 0))
    session.select(["conv2"])
    panel.table.sortByColumn(Column.SQNR, Qt.SortOrder.AscendingOrder)
    assert names(panel.table.model())[:2] == ["conv1", "conv2"]
    assert [i.data() for i in panel.table.selectionModel().selectedRows()] == ["conv2"]
    panel.table.sortByColumn(Column.NAME, Qt.SortOrder.DescendingOrder)
    assert names(panel.table.model())[0] == "table"
    assert session.selection == ("conv2",)


def test_that_the_filter_narrows_the_rows_and_says_what_it_does_not_understand(panel, qtbot) -> None:
    qtbot.keyClicks(panel.filter, "op=gemm")
    assert names(panel.table.model()) == ["fc"]
    assert panel.note().startswith("1 shown")
    panel.filter.setText("colour>3")
    assert panel._error.isVisible()
    assert "colour" in panel._error.text()
    assert names(panel.table.model()) == ["fc"]
    panel.filter.clear()
    assert not panel._error.isVisible()
    assert panel.table.model().rowCount() == len(LAYERS)


def test_that_a_filter_by_error_follows_the_errors(panel, opened, qtbot) -> None:
    session, engine = opened
    session.set_config(QuantConfig(LayerSpec(weight_spec(4))), "W4")
    panel.filter.setText("sqnr<20")
    assert names(panel.table.model()) == []
    ready = WeightErrorReady("conv2", weight_spec(4), TensorError(12.0, 0.1, 0.1, 0.0))
    engine.answer(engine.newest(WeightErrors), ready)
    qtbot.waitUntil(lambda: names(panel.table.model()) == ["conv2"], timeout=3000)


def test_that_a_filter_by_bits_follows_the_configuration_but_keeps_the_selected_rows(panel, opened, qtbot) -> None:
    session, _ = opened
    session.set_config(QuantConfig(LayerSpec(weight_spec(4))), "W4")
    panel.filter.setText("bits<8")
    assert names(panel.table.model()) == ["conv1", "conv2", "stft", "fc"]
    session.select(["conv1"])
    session.undo_stack.undo()
    qtbot.waitUntil(lambda: names(panel.table.model()) == ["conv1"], timeout=3000)


def test_that_keys_choose_the_format_of_the_selected_layers(panel, qtbot) -> None:
    chosen = []
    panel.format_chosen.connect(chosen.append)
    panel.table.setFocus()
    for key in (Qt.Key.Key_4, Qt.Key.Key_F, Qt.Key.Key_9, Qt.Key.Key_8):
        qtbot.keyClick(panel.table, key)
    assert chosen == [IntFormat(4), None, IntFormat(8)]


def opened_menu(panel, qtbot, row: int, column: Column) -> FormatList:
    table = panel.table
    index = table.model().index(row, column)
    qtbot.mouseClick(table.viewport(), Qt.MouseButton.LeftButton, pos=table.visualRect(index).center())
    menu = panel.formats[column]
    qtbot.waitUntil(menu.isVisible, timeout=3000)
    assert menu.accessibleName()
    return menu


def test_that_a_click_on_the_chip_opens_the_menu_and_return_takes_the_choice(panel, opened, qtbot) -> None:
    session, _ = opened
    menu = opened_menu(panel, qtbot, 1, Column.WEIGHT_BITS)
    assert menu.choices[None].isChecked()
    menu.setActiveAction(menu.choices[IntFormat(4)])
    qtbot.keyClick(menu, Qt.Key.Key_Return)
    qtbot.waitUntil(lambda: session.spec_for("conv2").weights is not None, timeout=3000)
    assert session.spec_for("conv2").weights.bits == 4
    assert session.undo_stack.undoText() == "Set conv2 to 4 bits"
    assert not menu.isVisible()


@pytest.mark.parametrize("column", [Column.WEIGHT_BITS, Column.ACTIVATION_BITS])
def test_that_every_format_can_be_chosen_in_the_table(panel, opened, qtbot, column) -> None:
    session, _ = opened
    groups = WEIGHT_GROUPS if column == Column.WEIGHT_BITS else ACTIVATION_GROUPS
    wanted = [entry.value for entries in groups.values() for entry in entries]
    menu = opened_menu(panel, qtbot, 1, column)
    menu.hide()
    assert set(wanted) <= set(menu.choices)
    for choice in wanted:
        menu.choices[choice].trigger()
        spec = session.spec_for("conv2")
        made = weight_choice(spec.weights) if column == Column.WEIGHT_BITS else activation_choice(spec.activations)
        assert made == choice


def test_that_return_opens_the_menu_of_weights_and_with_shift_that_of_activations(panel, qtbot) -> None:
    panel.table.setFocus()
    panel.table.setCurrentIndex(panel.table.model().index(0, Column.NAME))
    for key, column in (
        (Qt.KeyboardModifier.NoModifier, Column.WEIGHT_BITS),
        (Qt.KeyboardModifier.ShiftModifier, Column.ACTIVATION_BITS),
    ):
        qtbot.keyClick(panel.table, Qt.Key.Key_Return, key)
        menu = panel.formats[column]
        qtbot.waitUntil(menu.isVisible, timeout=3000)
        menu.hide()


def test_that_formats_the_target_refuses_are_greyed_in_the_menu_with_the_reason(panel, opened, qtbot) -> None:
    session, _ = opened
    session.set_target(find_target("qnn"))
    menu = opened_menu(panel, qtbot, 1, Column.WEIGHT_BITS)
    menu.hide()
    assert menu.choices[IntFormat(8)].isEnabled()
    assert menu.choices[None].isEnabled()
    for refused in (IntFormat(3), "mxfp4", TableFormat("nf4")):
        assert not menu.choices[refused].isEnabled()
        assert "QNN" in menu.choices[refused].toolTip()


def test_that_what_cannot_be_changed_opens_no_menu(panel, qtbot) -> None:
    model = panel.table.model()
    for row, column in ((2, Column.WEIGHT_BITS), (3, Column.ACTIVATION_BITS), (1, Column.OP)):
        panel.open_formats(model.index(row, column))
    assert not any(menu.isVisible() for menu in panel.formats.values())


def test_that_operators_and_counts_are_read_whole(panel, opened) -> None:
    session, engine = opened
    layer = replace(LAYERS[0], op="ConvTranspose", shape=(30522, 384), channels=30522, elements_per_channel=384)
    open_network(session, engine, "other.onnx", (layer, *LAYERS[1:]))
    panel.show_network(session.summary)
    for column in (Column.OP, Column.PARAMETERS):
        text = panel.table.model().index(0, column).data()
        assert panel.table.columnWidth(column) > panel.table.fontMetrics().horizontalAdvance(text)
    assert panel.table.model().index(0, Column.OP).data() == "ConvTranspose"


def test_that_names_can_be_read_in_the_narrowest_table(panel, qtbot) -> None:
    panel.resize(226, 400)
    qtbot.waitUntil(lambda: panel.table.isColumnHidden(Column.SQNR))
    assert panel.table.columnWidth(Column.NAME) >= 76
    assert not panel.table.isColumnHidden(Column.WEIGHT_BITS)
    panel.resize(380, 400)
    qtbot.waitUntil(lambda: not panel.table.isColumnHidden(Column.SQNR))


def test_that_columns_give_way_where_the_table_is_narrow(panel, qtbot) -> None:
    hidden = {width: sum(map(panel.table.isColumnHidden, Column)) for width in (760, 480, 380)}
    for width in hidden:
        panel.resize(width, 400)
        QApplication.processEvents()
        hidden[width] = sum(panel.table.isColumnHidden(column) for column in Column)
    # That of sensitivity is there only after a sweep.
    assert hidden[760] == 1
    assert 1 < hidden[480] < hidden[380]
    assert not panel.table.isColumnHidden(Column.WEIGHT_BITS)
    panel.set_column_visible(Column.SHAPE, visible=True)
    assert not panel.table.isColumnHidden(Column.SHAPE)
