from __future__ import annotations

from dataclasses import replace

import pytest
from gui_examples import W4_CHANNEL, weight_view, weights
from PySide6.QtCore import Qt
from PySide6.QtWidgets import QApplication, QToolButton
from sessions import LAYERS

from quantgui.gui.panels.advice import proposal_words
from quantgui.gui.panels.inspector import InspectorPanel
from quantgui.results import Advice
from quantgui.spec.config import QuantConfig
from quantgui.spec.formats import FloatFormat, IntFormat
from quantgui.spec.granularity import PerChannel, PerGroup, PerTensor
from quantgui.spec.presets import PRESETS, activation_spec, weight_spec
from quantgui.spec.quantizer import (
    FLOAT,
    Entropy,
    FixedRange,
    InputWeightedError,
    LayerSpec,
    LeastSquaredError,
    MinMax,
    Percentile,
    Trained,
)

CONV1, CONV2, FROZEN, TABLE, _, FC = LAYERS
W4 = LayerSpec(weight_spec(4))
W4A8 = LayerSpec(weight_spec(4), activation_spec(8))
OTHER_RANGE = replace(activation_spec(8), range_estimator=Entropy())


@pytest.fixture
def panel(qtbot):
    panel = InspectorPanel()
    qtbot.addWidget(panel)
    panel.resize(320, 800)
    with qtbot.waitExposed(panel):
        panel.show()
    panel.edits = []
    panel.specs_edited.connect(lambda specs, text, merge: panel.edits.append((specs, text, merge)))
    return panel


def last(panel) -> dict[str, LayerSpec]:
    return panel.edits[-1][0]


def choose(qtbot, combo, text: str) -> None:
    combo.setCurrentText(text)
    combo.activated.emit(combo.currentIndex())


def test_that_it_shows_the_spec_and_the_facts_of_a_layer(panel) -> None:
    view = weight_view(weights(8, 36, ()), W4_CHANNEL, "conv1")
    panel.show_layers([CONV1], [W4A8], similar=3, view=view)
    assert panel.weights.bits.value() == IntFormat(4)
    assert panel.weights.floats.value() is None
    assert panel.weights.granularity.currentText() == "Per channel"
    assert panel.activations.bits.value() == 8
    assert panel.sqnr.text().endswith("dB")
    assert panel.similar.isEnabled()
    assert panel.note() == "conv1"


def test_that_a_click_gives_all_selected_layers_a_format(panel, qtbot) -> None:
    panel.show_layers([CONV1, FC], [W4A8, FLOAT])
    qtbot.mouseClick(panel.weights.bits.button(IntFormat(6)), Qt.MouseButton.LeftButton)
    specs, text, _ = panel.edits[-1]
    assert specs["conv1"].weights == replace(weight_spec(4), format=IntFormat(6))
    assert specs["fc"].weights == weight_spec(6)
    assert specs["conv1"].activations == activation_spec(8)
    assert text == "Set 2 layers to 6 bits"
    qtbot.mouseClick(panel.weights.floats.button(FloatFormat("bfloat16")), Qt.MouseButton.LeftButton)
    assert str(last(panel)["fc"].weights) == "bfloat16"
    qtbot.mouseClick(panel.weights.floats.button(None), Qt.MouseButton.LeftButton)
    assert last(panel)["conv1"].weights is None


def test_that_layers_that_differ_are_shown_as_mixed(panel) -> None:
    other = LayerSpec(replace(weight_spec(8), symmetric=False, granularity=PerTensor(), full_range=True))
    panel.show_layers([CONV1, CONV2], [W4A8, other])
    assert panel.weights.bits.value() is None
    assert panel.weights.title.text() == "Weights · mixed"
    assert panel.weights.symmetry.currentIndex() == panel.weights.granularity.currentIndex() == -1
    assert panel.weights.symmetry.placeholderText() == "mixed"
    assert panel.weights.full_range.checkState() == Qt.CheckState.PartiallyChecked
    assert panel.activations.bits.value() is None


def test_that_settings_change_integer_weights_and_leave_float_ones(panel, qtbot) -> None:
    panel.show_layers([CONV1, FC], [W4A8, FLOAT])
    choose(qtbot, panel.weights.symmetry, "Asymmetric")
    assert last(panel) == {"conv1": replace(W4A8, weights=replace(weight_spec(4), symmetric=False)), "fc": FLOAT}
    panel.weights.full_range.click()
    assert last(panel)["conv1"].weights.full_range
    panel.weights.narrow_range.click()
    assert last(panel)["conv1"].weights.format.narrow_range


def test_that_groups_have_a_size(panel, qtbot) -> None:
    panel.show_layers([CONV1], [W4A8])
    assert panel.weights.group_size.isHidden()
    choose(qtbot, panel.weights.granularity, "Groups of")
    spec = last(panel)["conv1"]
    assert spec.weights.granularity == PerGroup(32)
    panel.show_layers([CONV1], [spec])
    assert not panel.weights.group_size.isHidden()
    panel.weights.group_size.setValue(128)
    assert last(panel)["conv1"].weights.granularity == PerGroup(128)
    assert panel.edits[-1][2], "turning the wheel is one step of undo"
    choose(qtbot, panel.weights.granularity, "Per channel")
    assert last(panel)["conv1"].weights.granularity == PerChannel()


def test_that_range_estimators_bring_their_parameters(panel, qtbot) -> None:
    view = weight_view(weights(8, 36, ()), W4_CHANNEL, "conv1")
    panel.show_layers([CONV1], [W4A8], view=view)
    choose(qtbot, panel.weights.range.kind, "Entropy")
    assert last(panel)["conv1"].weights.range_estimator == Entropy()
    choose(qtbot, panel.weights.range.kind, "Percentile")
    spec = last(panel)["conv1"]
    assert spec.weights.range_estimator == Percentile()
    panel.show_layers([CONV1], [spec], view=view)
    assert panel.weights.range.percentile.isVisible()
    panel.weights.range.percentile.setValue(99.5)
    assert last(panel)["conv1"].weights.range_estimator == Percentile(99.5)
    choose(qtbot, panel.weights.range.kind, "Fixed")
    fixed = last(panel)["conv1"].weights.range_estimator
    assert fixed == FixedRange(view.low, view.high)


def test_that_trained_ranges_are_shown_and_left_but_never_chosen(panel, qtbot) -> None:
    def offered() -> list[str]:
        return [panel.weights.range.kind.itemText(i) for i in range(panel.weights.range.kind.count())]

    trained = LayerSpec(replace(weight_spec(4), range_estimator=Trained("0123456789abcdef")))
    panel.show_layers([CONV1], [W4A8])
    assert "Trained" not in offered()
    for layers, specs in (([CONV1], [trained]), ([CONV1, FC], [trained, replace(trained, activations=None)])):
        panel.show_layers(layers, specs)
        assert panel.weights.range.kind.currentText() == "Trained"
        choose(qtbot, panel.weights.range.kind, "Trained")
        assert panel.edits == []
    panel.show_layers([CONV1, FC], [trained, W4A8])
    assert "Trained" not in offered()
    assert panel.weights.range.kind.currentIndex() == -1
    panel.show_layers([CONV1], [trained])
    choose(qtbot, panel.weights.range.kind, "Min–max")
    assert last(panel)["conv1"].weights.range_estimator == MinMax()


def test_that_another_width_of_trained_weights_says_what_becomes_of_their_range(panel, qtbot) -> None:
    trained = LayerSpec(replace(weight_spec(4), range_estimator=Trained("0123456789abcdef")))
    panel.show_layers([CONV1], [trained])
    qtbot.mouseClick(panel.weights.bits.button(IntFormat(8)), Qt.MouseButton.LeftButton)
    assert last(panel)["conv1"].weights == weight_spec(8)
    panel.show_layers([CONV1], [trained])
    choose(qtbot, panel.weights.granularity, "Per tensor")
    assert last(panel)["conv1"].weights.range_estimator == LeastSquaredError()
    assert panel.edits[-1][1] == "Set granularity in conv1; now least squared error"


def test_that_the_input_weighted_range_is_greyed_with_the_reason_until_it_can_be_had(panel, qtbot) -> None:
    kind = panel.weights.range.kind

    def state() -> tuple[bool, str]:
        place = kind.findText("Input-weighted error")
        return kind.model().item(place).isEnabled(), kind.itemData(place, Qt.ItemDataRole.ToolTipRole)

    panel.show_layers([CONV1], [W4A8])
    assert not state()[0]
    assert state()[1].endswith("Open data first.")
    panel.show_layers([CONV1, replace(FC, op="LSTM", quantizes_activations=False)], [W4A8, W4A8], has_data=True)
    assert not state()[0]
    assert "(LSTM) is not seen from outside" in state()[1]
    panel.show_layers([CONV1], [W4A8], has_data=True)
    assert state()[0]
    choose(qtbot, kind, "Input-weighted error")
    assert last(panel)["conv1"].weights.range_estimator == InputWeightedError()
    assert "Input-weighted error" not in [
        panel.activations.range.kind.itemText(i) for i in range(panel.activations.range.kind.count())
    ]


def test_that_looking_at_a_fixed_range_does_not_round_it(panel, qtbot) -> None:
    spec = LayerSpec(replace(weight_spec(8), range_estimator=FixedRange(-0.123456789, 0.987654321)))
    panel.show_layers([CONV1], [spec])
    panel.weights.range.low.setFocus()
    panel.weights.range.high.setFocus()
    panel.weights.range.low.editingFinished.emit()
    assert panel.edits == []
    panel.weights.range.high.setValue(0.5)
    panel.weights.range.high.editingFinished.emit()
    assert last(panel)["conv1"].weights.range_estimator == FixedRange(-0.123456789, 0.5)


def test_that_activations_are_edited_where_the_operator_has_them(panel, qtbot) -> None:
    panel.show_layers([CONV1], [FLOAT])
    qtbot.mouseClick(panel.activations.bits.button(8), Qt.MouseButton.LeftButton)
    assert last(panel)["conv1"].activations == activation_spec(8)
    panel.show_layers([CONV1], [last(panel)["conv1"]])
    choose(qtbot, panel.activations.range.kind, "Least squared error")
    assert "activations" in panel.edits[-1][1]
    panel.show_layers([TABLE], [FLOAT])
    assert not panel.activations.bits.isEnabled()
    assert "Gather" in panel.activations.bits.toolTip()


@pytest.mark.parametrize(("layer", "words"), [(FROZEN, "int8 in the file"), (TABLE, "infinite")])
def test_that_what_cannot_be_changed_is_disabled_and_says_why(panel, layer, words: str) -> None:
    panel.show_layers([layer], [FLOAT])
    assert not panel.weights.bits.isEnabled()
    assert not panel.preset.isEnabled()
    assert words in panel.preset.toolTip()
    assert panel.reason.isVisible()
    assert words in panel.reason.text()
    assert (panel.weights.floats.button(None).isChecked()) == (layer is TABLE)


@pytest.mark.parametrize("preset", PRESETS, ids=lambda preset: preset.name)
def test_that_every_preset_can_be_given_to_selected_layers(panel, qtbot, preset) -> None:
    panel.show_layers([CONV1], [FLOAT])
    choose(qtbot, panel.preset, preset.name)
    assert last(panel) == {"conv1": preset.spec}
    assert panel.preset.currentIndex() == -1


def test_that_advice_offers_what_mends_it_and_is_silent_otherwise(panel, qtbot) -> None:
    panel.show_layers([CONV1], [FLOAT])
    assert panel.advice.sentence() == ""
    accepted = []
    panel.proposal_accepted.connect(lambda: accepted.append(1))
    panel.advice.show_advice(Advice(QuantConfig(W4A8), "Activations ruin it.", ("conv1", "fc"), QuantConfig(W4)))
    assert panel.advice.sentence() == "Activations ruin it."
    assert panel.advice.button.text() == "Keep float activations in 2 layers"
    qtbot.mouseClick(panel.advice.button, Qt.MouseButton.LeftButton)
    assert accepted == [1]
    panel.advice.show_advice(Advice(QuantConfig(), "Nothing helps.", (), None))
    assert panel.advice.button.isHidden()
    panel.advice.show_advice(None)
    assert panel.advice.sentence() == ""


def test_that_the_button_of_advice_is_in_sight_however_small_the_panel(panel) -> None:
    panel.resize(300, 480)
    panel.show_layers([CONV1], [W4A8])
    panel.advice.show_advice(Advice(QuantConfig(W4A8), "It is ruined. " * 20, ("conv1",), QuantConfig(W4)))
    QApplication.processEvents()
    button = panel.advice.button
    assert not button.visibleRegion().isEmpty()
    assert button.visibleRegion().boundingRect() == button.rect()


@pytest.mark.parametrize(
    ("asked", "proposed", "words"),
    [
        (W4A8, W4, "Keep float activations in 1 layer"),
        (W4, LayerSpec(weight_spec(8)), "Use finer weights in 1 layer"),
        (W4A8, replace(W4A8, activations=OTHER_RANGE), "Use other ranges in 1 layer"),
        (W4A8, LayerSpec(weight_spec(8)), "Use the proposal for 1 layer"),
    ],
)
def test_that_the_button_of_advice_says_what_the_proposal_does(asked, proposed, words) -> None:
    advice = Advice(QuantConfig(asked), "It is ruined.", ("conv1",), QuantConfig(asked, {"conv1": proposed}))
    assert proposal_words(advice) == words


def test_that_without_a_layer_it_says_what_to_do(panel) -> None:
    panel.show_layers([], [])
    assert "Select layers" in panel._empty.sentence()
    assert panel._empty.isVisible()


def test_that_advice_can_be_hidden_and_comes_back_with_its_configuration(panel, qtbot) -> None:
    panel.show_layers([CONV1], [W4A8])
    advice = Advice(QuantConfig(W4A8), "Weights ruin it.\nActivations ruin it.", ("conv1",), QuantConfig(W4))
    panel.advice.show_advice(advice)
    assert panel.advice.sentence() == "Weights ruin it.\n\nActivations ruin it."
    qtbot.mouseClick(panel.advice.close_button, Qt.MouseButton.LeftButton)
    assert panel.advice.isHidden()
    panel.advice.show_advice(None)
    panel.advice.show_advice(advice)
    assert not panel.advice.isHidden()


def test_that_no_choice_is_cut_however_narrow_the_panel(panel) -> None:
    panel.show_layers([CONV1], [W4A8])
    panel.resize(panel.minimumSizeHint().width(), 600)
    QApplication.processEvents()
    for button in panel.findChildren(QToolButton):
        if button.isVisible() and button.text():
            assert button.width() >= button.fontMetrics().horizontalAdvance(button.text()) + 8
            assert panel.rect().contains(button.mapTo(panel, button.rect().bottomRight()).x(), 10)
