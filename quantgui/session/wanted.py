"""Which results are missing for what the user sees: a pure function, so that it can be tested without an engine."""

from __future__ import annotations

from dataclasses import dataclass

from quantgui.engine.requests import (
    Advise,
    Calibrate,
    Evaluate,
    ExamineData,
    Priority,
    Request,
    ViewWeight,
    WeightErrors,
)
from quantgui.numerics.error_curve import has_curve
from quantgui.results import DataReport, LayerInfo, NetworkSummary
from quantgui.session.results_store import ResultStore
from quantgui.spec.config import QuantConfig
from quantgui.spec.quantizer import InputWeightedError, LayerSpec, QuantizerSpec


@dataclass(frozen=True, slots=True)
class Wanted:
    """A request to be sent, unless the job of its topic is busy with the same."""

    topic: str
    request: Request
    priority: Priority


@dataclass(frozen=True, slots=True)
class Situation:
    """What decides on which results are wanted."""

    summary: NetworkSummary
    config: QuantConfig
    current: LayerInfo | None
    has_data: bool
    shows_activations: bool
    evaluates: bool


def wanted_requests(situation: Situation, store: ResultStore) -> tuple[Wanted, ...]:
    """Return what is missing, at most one request per topic."""
    found = [
        _look(situation, store),
        _table(situation, store),
        _calibrate(situation, store),
        _evaluate(situation, store),
        _advise(situation, store),
        _examine(situation, store),
    ]
    return tuple(wanted for wanted in found if wanted is not None)


def _look(situation: Situation, store: ResultStore) -> Wanted | None:
    layer = situation.current
    if layer is None:
        return None
    editable = layer.finite and not layer.read_only
    spec = situation.config.spec_for(layer.name).weights if editable else None
    view = store.view(layer.name, spec)
    if view is not None and (view.curve is not None or not has_curve(spec)):
        return None
    return Wanted("look", ViewWeight(layer.name, spec), Priority.LOOK)


def _table(situation: Situation, store: ResultStore) -> Wanted | None:
    missing = {}
    for layer in situation.summary.layers:
        spec = situation.config.spec_for(layer.name).weights
        editable = layer.finite and not layer.read_only and not _waits_for_data(layer, spec, situation)
        if editable and spec is not None and store.error(layer.name, spec) is None:
            missing[layer.name] = spec
    return Wanted("table", WeightErrors(missing), Priority.TABLE) if missing else None


def _waits_for_data(layer: LayerInfo, spec: QuantizerSpec | None, situation: Situation) -> bool:
    """Return whether the range of a weight depends on data that is not there, or that no data tells."""
    by_input = spec is not None and isinstance(spec.range_estimator, InputWeightedError)
    return by_input and not (situation.has_data and layer.quantizes_activations)


def _quantizes_activations(spec: LayerSpec) -> bool:
    return spec.activations is not None


def _calibrate(situation: Situation, store: ResultStore) -> Wanted | None:
    if not situation.has_data or store.calibrated:
        return None
    used = any(
        layer.quantizes_activations and _quantizes_activations(situation.config.spec_for(layer.name))
        for layer in situation.summary.layers
    )
    return Wanted("calibrate", Calibrate(), Priority.CALIBRATE) if used or situation.shows_activations else None


def _evaluate(situation: Situation, store: ResultStore) -> Wanted | None:
    if not situation.has_data or not situation.evaluates:
        return None
    if store.is_evaluated(situation.config):
        return None
    return Wanted("evaluate", Evaluate(situation.config), Priority.EVALUATE)


def _examine(situation: Situation, store: ResultStore) -> Wanted | None:
    """Look at the inputs as soon as there are any, and at the activations once they are known anyway.

    What is said of activations holds for the quantizers they had; with others it is looked at anew.
    """
    report = store.report
    if not situation.has_data or not situation.evaluates:
        return None
    if store.calibrated and (report is None or not _judges(report, situation)):
        return Wanted("data check", ExamineData(situation.config), Priority.SWEEP)
    return Wanted("data check", ExamineData(), Priority.SWEEP) if report is None else None


def _judges(report: DataReport, situation: Situation) -> bool:
    """Return whether a report has looked at the activations as the present configuration quantizes them."""
    config = report.config
    return config is not None and all(
        config.spec_for(layer.name).activations == situation.config.spec_for(layer.name).activations
        for layer in situation.summary.layers
    )


def _advise(situation: Situation, store: ResultStore) -> Wanted | None:
    if not store.is_evaluated(situation.config) or store.has_advice(situation.config):
        return None
    specs = {situation.config.spec_for(layer.name) for layer in situation.summary.layers}
    if not situation.evaluates or all(spec.weights is None and spec.activations is None for spec in specs):
        return None
    # After the table: advice must not delay what is on the screen.
    return Wanted("advise", Advise(situation.config), Priority.CALIBRATE)
