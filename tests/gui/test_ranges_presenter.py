"""What is clicked and dragged on error curves, with a session."""

from __future__ import annotations

import pytest
from gui_examples import A8, W4_CHANNEL
from PySide6.QtWidgets import QWidget
from sessions import make_session, open_network

from quantgui.gui.panels.activations import ActivationsPanel
from quantgui.gui.panels.weights import WeightsPanel
from quantgui.gui.presenters.ranges import RangesPresenter
from quantgui.spec.quantizer import BLOCK_FORMATS, FixedRange, LayerSpec, Percentile, SampleMean


@pytest.fixture
def bound(qtbot, tmp_path):
    session, engine = make_session(tmp_path)
    open_network(session, engine)
    session.select((session.summary.layers[0].name,))
    owner = QWidget()
    qtbot.addWidget(owner)
    weights, activations = WeightsPanel(owner), ActivationsPanel(owner)
    RangesPresenter(session, weights, activations, owner)
    yield session, weights, activations
    session.close()


def set_spec(session, spec: LayerSpec) -> str:
    name = session.current.name
    session.set_specs({name: spec}, "Start")
    return name


def test_that_a_mark_of_the_weights_chooses_its_estimator_in_one_undo_step(bound) -> None:
    session, weights, _ = bound
    name = set_spec(session, LayerSpec(W4_CHANNEL, A8))
    steps = session.undo_stack.count()
    weights.estimator_chosen.emit(Percentile(99.9))
    assert session.spec_for(name).weights.range_estimator == Percentile(99.9)
    assert session.spec_for(name).activations == A8
    assert session.undo_stack.count() == steps + 1
    assert "Percentile 99.9 %" in session.undo_stack.undoText()
    session.undo_stack.undo()
    assert session.spec_for(name).weights == W4_CHANNEL


def test_that_uneven_formats_take_estimators_too(bound) -> None:
    session, weights, _ = bound
    name = set_spec(session, LayerSpec(BLOCK_FORMATS["nvfp4"]))
    weights.estimator_chosen.emit(Percentile())
    assert session.spec_for(name).weights.range_estimator == Percentile()


def test_that_marks_and_limits_of_activations_set_the_activations_alone(bound) -> None:
    session, _, activations = bound
    name = set_spec(session, LayerSpec(W4_CHANNEL, A8))
    activations.estimator_chosen.emit(SampleMean())
    assert session.spec_for(name).activations.range_estimator == SampleMean()
    activations.limits_chosen.emit(0.0, 3.5)
    assert session.spec_for(name).activations.range_estimator == FixedRange(0.0, 3.5)
    assert session.spec_for(name).weights == W4_CHANNEL
    session.undo_stack.undo()
    assert session.spec_for(name).activations.range_estimator == SampleMean()


def test_that_a_float_layer_stays_float(bound) -> None:
    session, weights, activations = bound
    name = set_spec(session, LayerSpec())
    weights.estimator_chosen.emit(Percentile())
    activations.limits_chosen.emit(0.0, 1.0)
    assert session.spec_for(name) == LayerSpec()
