"""The settings of a search for a mix, and its dialog."""

from __future__ import annotations

import pytest
from gui_examples import layer, shown
from hypothesis import given
from hypothesis import strategies as st
from PySide6.QtCore import Qt

from quantgui.analysis.mix_choices import network_cost
from quantgui.gui.dialogs.find_mix import FindMixDialog
from quantgui.gui.mix_words import CostScale
from quantgui.gui.panels.mix_controls import MixControls, MixQuestion
from quantgui.results import Progress
from quantgui.session.jobs import Job, JobState
from quantgui.session.sizes import bit_operations
from quantgui.spec.config import QuantConfig
from quantgui.spec.mix import HEADLINE_METRIC
from quantgui.spec.presets import activation_spec, weight_spec
from quantgui.spec.quantizer import LayerSpec
from quantgui.spec.sweep import bits_specs
from quantgui.spec.targets import find_target

SCALES = {kind: CostScale(kind, 8e6, 8e6) for kind in ("bytes", "bops")} | {"latency": CostScale("latency", 1.0, 1.0)}


@pytest.fixture
def controls(qtbot) -> MixControls:
    result = MixControls()
    shown(qtbot, result, 470, 420)
    result.show_costs(SCALES)
    result.show_data(200)
    result.show_metrics(["output_sqnr_db", "cosine", "kl", "accuracy"], "accuracy")
    return result


def choose(controls: MixControls, kind: str) -> None:
    controls.kind.setCurrentIndex(controls.kind.findData(kind))


def asked(controls: MixControls, float_cost: float = 8e6, selected=None):
    question = controls.asked()
    assert question is not None
    return question.mix(float_cost, selected or {})


def test_that_at_first_the_best_mix_of_a_quarter_of_the_size_is_sought(controls) -> None:
    mix = asked(controls)
    assert (mix.cost, mix.limit, mix.drop) == ("bytes", 2e6, None)
    assert mix.sweep.what == "weights"
    assert mix.sweep.specs == bits_specs(range(2, 9))
    assert mix.sweep.samples == 64
    assert mix.refined
    assert mix.groups == ()
    assert controls.hint.text() == "2.0 MB of 8.0 MB"


def test_that_every_kind_of_limit_can_be_asked_for(controls) -> None:
    choose(controls, "bytes")
    controls.value.setValue(1.5)
    assert asked(controls).limit == 1.5e6
    choose(controls, "sqnr")
    controls.value.setValue(35.0)
    mix = asked(controls)
    assert (mix.limit, mix.drop, mix.drop_metric) == (None, 35.0, "output_sqnr_db")
    choose(controls, "loss")
    controls.value.setValue(0.5)
    mix = asked(controls)
    assert (mix.limit, mix.drop_metric) == (None, HEADLINE_METRIC)
    assert mix.drop == pytest.approx(0.005)
    choose(controls, "bops")
    controls.value.setValue(0.125)
    mix = asked(controls, 4e9)
    assert (mix.cost, mix.limit) == ("bops", 5e8)
    choose(controls, "latency")
    controls.value.setValue(0.7)
    mix = asked(controls, 1.0)
    assert (mix.cost, mix.limit) == ("latency", 0.7)
    choose(controls, "none")
    mix = asked(controls)
    assert mix.limit is mix.drop is None
    assert not controls.value.isEnabled()


def test_that_each_kind_of_limit_keeps_its_value(controls) -> None:
    controls.value.setValue(0.1)
    choose(controls, "sqnr")
    assert controls.value.value() == 30.0
    choose(controls, "share")
    assert controls.value.value() == 0.1


def test_that_a_loss_can_be_limited_only_where_a_metric_counts_it(controls) -> None:
    choose(controls, "loss")
    controls.show_metrics(["output_sqnr_db", "cosine"], "output_sqnr_db")
    assert controls.kind.currentData() == "share"
    assert not controls.kind.model().item(controls.kind.findData("loss")).isEnabled()


def test_that_a_metric_that_means_nothing_here_cannot_be_chosen(controls) -> None:
    controls.metrics.setCurrentIndex(controls.metrics.findData("kl"))
    controls.show_metrics(["output_sqnr_db", "cosine"], "output_sqnr_db")
    assert controls.metrics.currentData() == "output_sqnr_db"


def test_that_selected_layers_are_held_only_if_asked(controls) -> None:
    selected = {"conv1": LayerSpec(weight_spec(8))}
    controls.show_selection(1)
    assert controls.hold.text() == "Hold the selected layer as it is"
    assert not asked(controls, selected=selected).pinned
    controls.hold.click()
    assert asked(controls, selected=selected).pinned == selected
    controls.show_selection(0)
    assert not asked(controls, selected=selected).pinned


def test_that_groups_refinement_bits_and_parts_are_as_chosen(controls, qtbot) -> None:
    controls.group.click()
    controls.refine.click()
    qtbot.mouseClick(controls.bits.button(2), Qt.MouseButton.LeftButton)
    qtbot.mouseClick(controls.what.button("both"), Qt.MouseButton.LeftButton)
    controls.samples.setValue(200)
    mix = asked(controls)
    assert mix.groups is None
    assert not mix.refined
    assert mix.sweep.specs == bits_specs(range(3, 9))
    assert mix.sweep.what == "both"
    assert mix.sweep.samples is None


def test_that_without_bits_nothing_is_asked(controls) -> None:
    controls.bits.set_values(())
    assert controls.asked() is None


@given(
    st.lists(st.tuples(st.sampled_from([None, 2, 4, 8]), st.sampled_from([None, 4, 8]), st.booleans()), min_size=1),
)
def test_that_bit_operations_are_counted_as_the_search_counts_them(kinds) -> None:
    layers = tuple(
        layer(f"l{n}", 4, 4, macs=1000 + n, quantizes_activations=has, finite=n % 5 != 4)
        for n, (_, _, has) in enumerate(kinds)
    )
    specs = {
        f"l{n}": LayerSpec(None if w is None else weight_spec(w), None if a is None else activation_spec(a))
        for n, (w, a, _) in enumerate(kinds)
    }
    config = QuantConfig().with_overrides(specs)

    class Summary:
        def __init__(self) -> None:
            self.layers = layers

    assert bit_operations(layers, config) == network_cost(Summary(), config, "bops", {})  # type: ignore[arg-type]


# --- the dialog --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "what"),
    [("simulation", "weights"), ("qnn", "weights"), ("qnn", "both"), ("litert", "both"), ("mcu-int8", "weights")],
)
def test_that_bits_the_target_refuses_are_greyed_with_the_reason_and_not_asked_for(
    controls, qtbot, target, what
) -> None:
    layers = (layer("conv1"), layer("conv2"))
    controls.show_target(find_target(target), layers)
    qtbot.mouseClick(controls.what.button(what), Qt.MouseButton.LeftButton)
    # Found anew, layer by layer, by the rules themselves.
    able = {
        each
        for each in range(2, 9)
        for spec in [LayerSpec(weight_spec(each), activation_spec(each) if what == "both" else None)]
        if any(find_target(target).refusal(x.op, spec, quantizes_activations=True) is None for x in layers)
    }
    for each in range(2, 9):
        button = controls.bits.button(each)
        assert button.isEnabled() == (each in able)
        assert ("does not run" in button.toolTip()) == (each not in able)
    question = controls.asked()
    assert (set() if question is None else {spec.weights.bits for spec in question.specs}) == able
    assert controls.refusal.isHidden() == bool(able)
    # What was switched on comes back with a target that runs it.
    controls.show_target(find_target("simulation"), layers)
    assert {spec.weights.bits for spec in controls.asked().specs} == set(range(2, 9))


def test_that_the_dialog_says_what_is_missing_and_offers_it(qtbot) -> None:
    dialog = FindMixDialog()
    shown(qtbot, dialog, 470, 470)
    dialog.show_state(reason="Open data first.", needs_data=True)
    assert not dialog.start.isEnabled()
    assert "Open data first." in dialog.start.toolTip()
    with qtbot.waitSignal(dialog.data_requested):
        qtbot.mouseClick(dialog.data, Qt.MouseButton.LeftButton)
    dialog.close()


def test_that_the_dialog_starts_and_stops_a_search(qtbot) -> None:
    dialog = FindMixDialog()
    shown(qtbot, dialog, 470, 470)
    with qtbot.waitSignal(dialog.start_requested):
        qtbot.mouseClick(dialog.start, Qt.MouseButton.LeftButton)
    dialog.show_job(Job(1, "mix", "Find a mix", JobState.RUNNING, Progress(3, 10, "Measuring layers", 12.0)))
    assert dialog.start.text() == "Stop"
    assert not dialog.controls.isEnabled()
    assert "12 s left" in dialog.progress.text()
    with qtbot.waitSignal(dialog.cancel_requested):
        qtbot.mouseClick(dialog.start, Qt.MouseButton.LeftButton)
    dialog.show_job(Job(1, "mix", "Find a mix", JobState.DONE))
    dialog.show_outcome("Predicted 31.2 dB", "text", usable=True)
    with qtbot.waitSignal(dialog.accepted_mix):
        qtbot.mouseClick(dialog.use, Qt.MouseButton.LeftButton)
    dialog.close()


def test_that_a_question_can_be_compared() -> None:
    assert MixQuestion() == MixQuestion()
