"""Mixes as the engine answers them: the table first, the limit before everything."""

from __future__ import annotations

import itertools

import pytest

from quantgui.engine.bench import Bench
from quantgui.engine.requests import FindMix, OpenData, OpenNetwork
from quantgui.errors import SpecError
from quantgui.paths import sample_models
from quantgui.results import Event, MixReady, Progress, Sensitivity, SensitivityReady
from quantgui.spec.mix import Mix
from quantgui.spec.quantizer import FLOAT
from quantgui.spec.sweep import Sweep, bits_specs

DIGITS = sample_models() / "digits"
SWEEP = Sweep(bits_specs((3, 4, 8)), samples=16)


@pytest.fixture(scope="module")
def bench() -> Bench:
    opened = Bench(calibration_samples=16)
    list(opened.handle(OpenNetwork(str(DIGITS / "digits.onnx"))))
    list(opened.handle(OpenData(str(DIGITS / "digits.calibration.npz"))))
    return opened


def answers(bench: Bench, request: FindMix) -> list[Event]:
    return [event for event in bench.handle(request) if not isinstance(event, Progress)]


def test_that_the_table_fills_before_the_frontier_comes_and_is_known_the_next_time(bench: Bench) -> None:
    mix = Mix(SWEEP, limit=0.2 * bench.network.summary.float_bytes, evaluated=4)
    events = answers(bench, FindMix(mix))
    kinds = [kind for kind, _ in itertools.groupby(type(event) for event in events)]
    assert kinds[-1] is MixReady
    assert {SensitivityReady, Sensitivity} == set(kinds[:-1])
    again = answers(bench, FindMix(mix))
    table = next(event for event in again if isinstance(event, Sensitivity) and event.complete)
    assert table.resumed == len(table.candidates)
    given = answers(bench, FindMix(mix, table))
    assert {type(event) for event in given} == {MixReady}
    assert given[-1].points == again[-1].points == events[-1].points
    assert given[-1].refined == again[-1].refined == events[-1].refined


def test_that_a_limit_that_no_mix_keeps_is_told_before_anything_is_measured(bench: Bench) -> None:
    found = []
    with pytest.raises(SpecError, match="the smallest one takes"):
        found.extend(bench.handle(FindMix(Mix(SWEEP, limit=1000))))
    assert found == []


def test_that_activations_of_pinned_and_swept_layers_are_calibrated(bench: Bench) -> None:
    name = bench.network.summary.layers[0].name
    sweep = Sweep(bits_specs((4, 8)), "both", samples=16)
    pinned = {name: bits_specs((8,))[0]}
    (*_, last) = answers(bench, FindMix(Mix(sweep, cost="bops", pinned=pinned, evaluated=2)))
    assert last.complete
    assert all(point.config.spec_for(name) == pinned[name] for point in last.points)


def test_that_time_is_a_cost_too(bench: Bench) -> None:
    sweep = Sweep(bits_specs((8,)), "both", samples=16)
    (*_, last) = answers(bench, FindMix(Mix(sweep, cost="latency", evaluated=2)))
    costs = [point.cost for point in last.points]
    assert costs == sorted(costs)
    best = last.points[-1]
    assert all(best.config.spec_for(layer) == FLOAT or best.cost <= 1 for layer in bench.network.layers)
