from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PySide6.QtCore import Qt
from sessions import LAYERS

from quantgui.gui.format_menu import ACTIVATION_GROUPS, WEIGHT_GROUPS
from quantgui.gui.panels.inspector import InspectorPanel
from quantgui.gui.panels.weight_editor import TWICE
from quantgui.numerics.affine import fake_quantize
from quantgui.session.edits import adapted, with_activation_format, with_weight_format
from quantgui.spec.formats import CodebookFormat, IntFormat, MinifloatFormat, TableFormat
from quantgui.spec.granularity import PerBlock, PerChannel, PerGroup, PerTensor
from quantgui.spec.presets import activation_spec, weight_spec
from quantgui.spec.quantizer import (
    BLOCK_FORMATS,
    FLOAT,
    Entropy,
    FixedRange,
    HalfQuadratic,
    InputWeightedError,
    LayerSpec,
    LeastSquaredError,
    MinMax,
    MovingAverage,
    Percentile,
    SampleMean,
    TwoSidedPercentile,
)
from quantgui.spec.targets import find_target

CONV1, CONV2, FROZEN, TABLE, _, FC = LAYERS
W4 = LayerSpec(weight_spec(4))
WEIGHT_CHOICES = [entry.value for entries in WEIGHT_GROUPS.values() for entry in entries]
ESTIMATORS = (
    MinMax(), Percentile(99.0), TwoSidedPercentile(), LeastSquaredError(), Entropy(), FixedRange(-1.0, 1.0),
    HalfQuadratic(),
)  # fmt: skip
GRANULARITIES = (PerTensor(), PerChannel(), PerGroup(5), PerBlock(2, 7))
SCALES = (
    *({"scale_format": name, "double_quantization": False} for name in ("float32", "float16", "bfloat16")),
    *({"scale_format": name, "double_quantization": False} for name in ("e8m0", "e4m3")),
    {"double_quantization": True},
)


@pytest.fixture
def panel(qtbot):
    panel = InspectorPanel()
    qtbot.addWidget(panel)
    panel.resize(300, 800)
    with qtbot.waitExposed(panel):
        panel.show()
    panel.edits = []
    panel.specs_edited.connect(lambda specs, text, merge: panel.edits.append((specs, text, merge)))
    return panel


def choose(combo, text: str) -> None:
    combo.setCurrentText(text)
    combo.activated.emit(combo.currentIndex())


def greyed(choice) -> set[object]:
    return {choice.itemData(i) for i in range(choice.count()) if not choice.model().item(i).isEnabled()}


@pytest.mark.parametrize("choice", WEIGHT_CHOICES, ids=str)
def test_that_every_format_can_be_chosen_for_weights_and_is_shown_as_chosen(panel, choice) -> None:
    panel.show_layers([CONV1, FC], [W4, FLOAT])
    panel.weights.more.choices[choice].trigger()
    specs, text, _ = panel.edits[-1]
    assert set(specs) == {"conv1", "fc"}
    assert len({str(spec.weights) for spec in specs.values()}) == 1
    assert "2 layers" in text
    panel.show_layers([CONV1, FC], list(specs.values()))
    shown = panel.weights.more.choices[choice].isChecked()
    assert shown or panel.weights.bits.value() == choice


@pytest.mark.parametrize("choice", [e.value for entries in ACTIVATION_GROUPS.values() for e in entries], ids=str)
def test_that_every_format_can_be_chosen_for_activations(panel, choice) -> None:
    panel.show_layers([CONV1], [LayerSpec(weight_spec(8), activation_spec(8))])
    panel.activations.more.choices[choice].trigger()
    spec = panel.edits[-1][0]["conv1"]
    assert spec.activations.format == choice
    panel.show_layers([CONV1], [spec])
    assert panel.activations.more.choices[choice].isChecked() or panel.activations.bits.value() == choice.bits


@pytest.mark.parametrize("choice", WEIGHT_CHOICES, ids=str)
def test_that_no_order_of_choices_ends_in_a_contradiction(choice) -> None:
    values = np.random.default_rng(5).normal(size=(6, 20)).astype(np.float32)
    spec = with_weight_format(W4, choice).weights
    for granularity in GRANULARITIES:
        for scales in SCALES:
            for estimator in ESTIMATORS:
                for symmetric in (True, False):
                    steps = ({"range_estimator": estimator}, {"symmetric": symmetric}, scales)
                    tried = spec
                    for step in (*steps, {"granularity": granularity}, {"full_range": True}):
                        tried, _ = adapted(tried, **step)
            found, error = fake_quantize(values, tried, 0)
            assert np.isfinite(found).all()
            assert not np.isnan(error.sqnr_db)


def test_that_what_was_chosen_last_stands_and_the_undo_step_says_what_gave_way(panel) -> None:
    panel.show_layers([CONV1], [W4])
    choose(panel.weights.range.kind, "Half-quadratic")
    specs, text, _ = panel.edits[-1]
    assert specs["conv1"].weights.range_estimator == HalfQuadratic()
    assert not specs["conv1"].weights.symmetric
    assert "now asymmetric" in text
    panel.show_layers([CONV1], [specs["conv1"]])
    choose(panel.weights.symmetry, "Symmetric")
    specs, text, _ = panel.edits[-1]
    assert specs["conv1"].weights.range_estimator == MinMax()
    assert "now min–max" in text


def test_that_options_without_meaning_are_hidden(panel) -> None:
    panel.show_layers([CONV1], [LayerSpec(BLOCK_FORMATS["mxfp4"])])
    assert panel.weights.more.text() == "MXFP4"
    assert panel.weights.symmetry.isHidden()
    assert panel.weights.narrow_range.parentWidget().isHidden()
    assert panel.weights.range.isVisible()
    # Without data there are no inputs to weigh errors by.
    assert greyed(panel.weights.range.kind) == {HalfQuadratic, InputWeightedError}
    panel.show_layers([CONV1], [with_weight_format(W4, CodebookFormat(4))])
    assert panel.weights.range.isHidden()
    assert greyed(panel.weights.scales) == {"e8m0", "e4m3", TWICE}


def test_that_groups_may_have_any_size_and_blocks_two(panel) -> None:
    panel.show_layers([CONV1], [W4])
    choose(panel.weights.granularity, "Blocks of")
    assert panel.edits[-1][0]["conv1"].weights.granularity == PerBlock(128, 128)
    panel.show_layers([CONV1], [panel.edits[-1][0]["conv1"]])
    panel.weights.rows.setValue(1)
    assert panel.edits[-1][0]["conv1"].weights.granularity == PerBlock(1, 128)
    panel.weights.columns.setValue(33)
    assert panel.edits[-1][0]["conv1"].weights.granularity == PerBlock(1, 33)


@pytest.mark.parametrize("name", ["Power of two", "FP8 E4M3", "Quantized twice", "float16"])
def test_that_scales_can_be_stored_in_few_bits(panel, name) -> None:
    panel.show_layers([CONV1], [W4])
    choose(panel.weights.scales, name)
    spec = panel.edits[-1][0]["conv1"]
    assert spec.weights.double_quantization == (name == "Quantized twice")
    panel.show_layers([CONV1], [spec])
    assert panel.weights.scales.currentText() == name


@pytest.mark.parametrize(
    ("name", "stored"), [("Power of two", "e8m0"), ("float16", "float16"), ("bfloat16", "bfloat16")]
)
@pytest.mark.parametrize("fmt", [IntFormat(8, signed=False), MinifloatFormat(4, 3)], ids=["int8", "fp8"])
def test_that_the_scale_of_activations_can_be_stored_in_few_bits(panel, name, stored, fmt) -> None:
    spec = with_activation_format(LayerSpec(weight_spec(8)), fmt)
    panel.show_layers([CONV1], [spec])
    assert panel.activations.scales.currentText() == "float32"
    choose(panel.activations.scales, name)
    specs, text, _ = panel.edits[-1]
    assert specs["conv1"].activations == replace(spec.activations, scale_format=stored)
    assert specs["conv1"].weights == spec.weights
    assert name in text
    panel.show_layers([CONV1], [specs["conv1"]])
    assert panel.activations.scales.currentText() == name


def test_that_activations_have_estimators_of_samples_and_weights_have_not(panel) -> None:
    panel.show_layers([CONV1], [LayerSpec(weight_spec(8), activation_spec(8))])
    kinds = {panel.weights.range.kind.itemData(i) for i in range(panel.weights.range.kind.count())}
    assert not kinds & {MovingAverage, SampleMean}
    choose(panel.activations.range.kind, "Moving average")
    spec = panel.edits[-1][0]["conv1"]
    assert spec.activations.range_estimator == MovingAverage()
    panel.show_layers([CONV1], [spec])
    panel.activations.range.momentum.setValue(0.5)
    assert panel.edits[-1][0]["conv1"].activations.range_estimator == MovingAverage(0.5)
    choose(panel.activations.range.kind, "Two percentiles")
    panel.show_layers([CONV1], [panel.edits[-1][0]["conv1"]])
    panel.activations.range.lower_percentile.setValue(1.5)
    assert panel.edits[-1][0]["conv1"].activations.range_estimator == TwoSidedPercentile(1.5, 99.99)


def test_that_a_target_greys_what_it_never_runs_and_says_why(panel) -> None:
    panel.show_target(find_target("qnn"))
    panel.show_layers([CONV1], [LayerSpec(weight_spec(8), activation_spec(8))])
    assert not panel.weights.bits.button(IntFormat(3)).isEnabled()
    assert "QNN" in panel.weights.bits.button(IntFormat(3)).toolTip()
    assert panel.weights.bits.button(IntFormat(4)).isEnabled()
    panel.weights.more.menu().aboutToShow.emit()
    assert not panel.weights.more.choices["mxfp4"].isEnabled()
    assert "QNN" in panel.weights.more.choices[TableFormat("nf4")].toolTip()
    assert greyed(panel.weights.granularity) == {PerGroup, PerBlock}
    panel.show_target(find_target("simulation"))
    assert panel.weights.bits.button(IntFormat(3)).isEnabled()
    assert not greyed(panel.weights.granularity)


def test_that_layers_of_several_formats_are_shown_as_mixed(panel, qtbot) -> None:
    panel.show_layers([CONV1, FC], [LayerSpec(BLOCK_FORMATS["nvfp4"]), W4])
    assert "mixed" in panel.weights.title.text()
    assert panel.weights.more.text() == "More"
    assert panel.weights.scales.currentIndex() == -1
    qtbot.mouseClick(panel.weights.bits.button(IntFormat(2)), Qt.MouseButton.LeftButton)
    assert {spec.weights.format for spec in panel.edits[-1][0].values()} == {IntFormat(2)}


def test_that_bits_end_ternary_weights_and_floats_keep_their_ranges() -> None:
    ternary = with_weight_format(W4, IntFormat(2, narrow_range=True))
    assert ternary.weights.format.narrow_range
    assert not with_weight_format(ternary, IntFormat(2)).weights.format.narrow_range
    old = LayerSpec(None, activation_spec(8, Percentile(99.0)))
    assert with_activation_format(old, MinifloatFormat(4, 3)).activations.range_estimator == Percentile(99.0)
