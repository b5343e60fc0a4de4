"""Mixes of tiny networks, against all configurations tried one by one and against what they really give."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import builders
import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quantgui.analysis.calibration import calibrate
from quantgui.analysis.damage import DamageModel
from quantgui.analysis.evaluation import evaluate
from quantgui.analysis.metric_function import load_metric
from quantgui.analysis.mix_choices import find_choices, layer_cost, network_cost
from quantgui.analysis.mixed_precision import check_limit, find_mix, groups_of, sweep_for
from quantgui.analysis.sensitivity import measure_sensitivity
from quantgui.analysis.simulation import activation_tensors
from quantgui.errors import MetricError, SpecError
from quantgui.network.datasets import open_dataset
from quantgui.network.executor import Executor
from quantgui.network.reader import open_network
from quantgui.results import Calibrated, EvaluationReady, MixReady, Sensitivity
from quantgui.spec.config import QuantConfig
from quantgui.spec.mix import HEADLINE_METRIC, Mix
from quantgui.spec.presets import weight_spec
from quantgui.spec.quantizer import FLOAT, LayerSpec
from quantgui.spec.size import network_bytes
from quantgui.spec.sweep import Sweep, bits_specs

SPECS = bits_specs((2, 4, 8))
W2, W4, W8 = (LayerSpec(weight_spec(bits)) for bits in (2, 4, 8))
SWEEP = Sweep(SPECS, exact=True)


class Opened:
    """A network with data, and the table of a sweep."""

    def __init__(self, model: onnx.ModelProto, folder: Path, samples: int = 24) -> None:
        onnx.save(model, folder / "network.onnx")
        self.network = open_network(folder / "network.onnx")
        self.summary = self.network.summary
        self.data = open_dataset(f"random:{samples}", self.summary.inputs, self.summary, network=self.network)
        self.executor = Executor(self.network)
        *_, last = calibrate(self.executor, self.data, activation_tensors(self.network))
        assert isinstance(last, Calibrated)
        self.activations = last.activations

    def table(self, mix: Mix, metric=None) -> Sensitivity:
        sweep = sweep_for(self.network, mix)
        *_, last = measure_sensitivity(self.executor, self.data, sweep, self.activations, metric)
        assert isinstance(last, Sensitivity)
        return last

    def steps(self, mix: Mix, table: Sensitivity | None = None, metric=None) -> Iterator[MixReady]:
        known = table or self.table(mix, metric)
        for event in find_mix(self.executor, self.data, mix, known, self.activations, metric):
            if isinstance(event, MixReady):
                yield event

    def find(self, mix: Mix, table: Sensitivity | None = None, metric=None) -> MixReady:
        *_, last = self.steps(mix, table, metric)
        assert last.complete
        return last

    def quality(self, config: QuantConfig, metric: str = "output_sqnr_db") -> float:
        *_, last = evaluate(self.executor, self.data, config, self.activations)
        assert isinstance(last, EvaluationReady)
        return last.evaluation.scores[metric].value

    def bytes(self, config: QuantConfig) -> int:
        return network_bytes(self.summary.float_bytes, self.summary.layers, config)


@pytest.fixture
def mlp(tmp_path: Path) -> Opened:
    return Opened(builders.mlp_model((8, 32, 32, 5)), tmp_path)


@pytest.fixture
def residual(tmp_path: Path) -> Opened:
    return Opened(builders.residual_model(), tmp_path)


# --- the model of damage ------------------------------------------------------------------------------------------


@given(st.lists(st.floats(-20, 80), min_size=1, max_size=5))
def test_that_noise_of_layers_adds_up_as_power(values: list[float]) -> None:
    model = DamageModel("output_sqnr_db", higher_is_better=True, reference=math.inf)
    noise = sum(10 ** (-value / 10) for value in values)
    assert model.value(sum(model.damage(value) for value in values)) == pytest.approx(-10 * math.log10(noise))


@pytest.mark.parametrize(("metric", "up"), [("accuracy", True), ("kl", False), ("user", True), ("user", False)])
def test_that_losses_of_other_metrics_add_up_and_gains_count_as_nothing(metric: str, up: bool) -> None:
    model = DamageModel(metric, higher_is_better=up, reference=0.5)
    worse, better = (0.4, 0.6) if up else (0.6, 0.4)
    assert model.damage(worse) == pytest.approx(0.1)
    assert model.damage(better) == 0
    assert model.value(2 * model.damage(worse)) == pytest.approx(0.3 if up else 0.7)


def test_that_what_is_no_number_is_endless_damage() -> None:
    model = DamageModel("output_sqnr_db", higher_is_better=True, reference=math.inf)
    assert model.damage(math.nan) == model.damage(-math.inf) == math.inf
    assert model.damage(math.inf) == 0
    assert model.value(0) == math.inf


# --- costs --------------------------------------------------------------------------------------------------------


@given(data=st.data())
@settings(max_examples=40)
@pytest.mark.parametrize("cost", ["bytes", "bops"])
def test_that_costs_of_layers_sum_to_that_of_the_network(cost: str, data: st.DataObject, tmp_path_factory) -> None:
    network = _networks(tmp_path_factory)
    summary = network.summary
    mix = Mix(Sweep(SPECS, "both"), cost=cost)
    choices = find_choices(summary, mix, None, groups_of(network, mix), {})
    selection = tuple(data.draw(st.integers(0, len(specs) - 1)) for specs in choices.specs)
    config = choices.config(selection)
    assert choices.cost(selection) == network_cost(summary, config, mix.cost, {})
    if cost == "bytes":
        assert choices.cost(selection) == network_bytes(summary.float_bytes, summary.layers, config)


_KEPT = []


def _networks(folders: pytest.TempPathFactory):
    if not _KEPT:
        path = folders.mktemp("cost") / "network.onnx"
        onnx.save(builders.residual_model(), path)
        _KEPT.append(open_network(path))
    return _KEPT[0]


def test_that_bit_operations_are_macs_times_both_widths(residual: Opened) -> None:
    layer = next(layer for layer in residual.summary.layers if layer.op == "Conv")
    both = SPECS[1]
    assert layer.macs > 0
    assert layer_cost(layer, both, "bops", {}) == layer.macs * 4 * 4
    assert layer_cost(layer, W4, "bops", {}) == layer.macs * 4 * 32
    assert layer_cost(layer, FLOAT, "bops", {}) == layer.macs * 32 * 32


# --- the frontier -------------------------------------------------------------------------------------------------


def test_that_the_frontier_holds_what_no_configuration_beats(mlp: Opened) -> None:
    mix = Mix(SWEEP, evaluated=0, refined=False)
    table = mlp.table(mix)
    ready = mlp.find(mix, table)
    noise = {(c.layer, c.spec): 10 ** (-c.value / 10) for c in table.candidates}
    names = [layer.name for layer in mlp.summary.layers]
    tried = []
    for specs in itertools.product((W2, W4, W8, FLOAT), repeat=len(names)):
        config = QuantConfig().with_overrides(dict(zip(names, specs, strict=True)))
        total = sum(noise.get((name, spec), 0.0) for name, spec in zip(names, specs, strict=True))
        tried.append((mlp.bytes(config), -10 * math.log10(total) if total else math.inf))
    for point in ready.points:
        assert (point.bytes, point.predicted) in [(b, pytest.approx(p)) for b, p in tried]
        assert not any(b <= point.bytes and p > point.predicted + 1e-9 for b, p in tried)
    assert ready.chosen is None
    assert {ready.points[0].bytes, ready.points[-1].bytes} == {min(tried)[0], max(tried)[0]}


@pytest.mark.parametrize("share", [0.17, 0.25, 0.5])
def test_that_the_chosen_point_is_the_best_within_the_size(mlp: Opened, share: float) -> None:
    limit = share * mlp.summary.float_bytes
    mix = Mix(SWEEP, limit=limit, evaluated=0, refined=False)
    table = mlp.table(mix)
    ready = mlp.find(mix, table)
    chosen = ready.points[ready.chosen]
    noise = {(c.layer, c.spec): 10 ** (-c.value / 10) for c in table.candidates}
    names = [layer.name for layer in mlp.summary.layers]
    best = min(
        sum(noise.get((name, spec), 0.0) for name, spec in zip(names, specs, strict=True))
        for specs in itertools.product((W2, W4, W8, FLOAT), repeat=len(names))
        if mlp.bytes(QuantConfig().with_overrides(dict(zip(names, specs, strict=True)))) <= limit
    )
    assert chosen.bytes <= limit
    assert chosen.predicted == pytest.approx(-10 * math.log10(best))


def test_that_measured_points_tell_what_an_evaluation_tells(residual: Opened) -> None:
    ready = residual.find(Mix(SWEEP, limit=0.2 * residual.summary.float_bytes, refined=False))
    measured = [point for point in ready.points if point.measured is not None]
    assert len(measured) >= 6
    assert ready.points[ready.chosen] in measured
    errors = []
    for point in measured:
        assert point.measured.value == pytest.approx(residual.quality(point.config))
        assert point.measured.samples == 24
        if math.isfinite(point.predicted):
            errors.append(abs(point.measured.value - point.predicted))
    assert ready.additivity_error == pytest.approx(np.mean(errors))


def test_that_points_are_measured_best_first(residual: Opened) -> None:
    steps = list(residual.steps(Mix(SWEEP, limit=0.2 * residual.summary.float_bytes, refined=False)))
    known = [sum(point.measured is not None for point in step.points) for step in steps]
    assert known[0] == 0
    assert steps[1].points[steps[1].chosen].measured is not None
    assert known == sorted(known)
    assert [step.complete for step in steps] == [False] * (len(steps) - 1) + [True]


# --- what is held fast --------------------------------------------------------------------------------------------


def test_that_pinned_layers_stay_and_their_damage_counts(mlp: Opened) -> None:
    name = mlp.summary.layers[1].name
    mix = Mix(SWEEP, pinned={name: W2}, evaluated=0, refined=False)
    assert name not in sweep_for(mlp.network, mix).layers
    ready = mlp.find(mix)
    assert all(point.config.spec_for(name) == W2 for point in ready.points)
    assert ready.points[-1].predicted == pytest.approx(mlp.quality(QuantConfig().with_overrides({name: W2})))


def test_that_groups_get_one_format_and_pins_hold_for_all_of_them(residual: Opened) -> None:
    names = ("stem", "conv0", "conv1")
    tied = residual.find(Mix(SWEEP, groups=None, evaluated=0, refined=False))
    assert all(len({point.config.spec_for(name) for name in names}) == 1 for point in tied.points)
    assert len({point.config.spec_for("head") == point.config.spec_for("stem") for point in tied.points}) == 2
    free = residual.find(Mix(SWEEP, evaluated=0, refined=False))
    assert any(len({point.config.spec_for(name) for name in names}) > 1 for point in free.points)
    held = residual.find(Mix(SWEEP, groups=(names,), pinned={"conv0": W8}, evaluated=0, refined=False))
    assert all(point.config.spec_for(name) == W8 for point in held.points for name in names)


def test_that_excluded_formats_are_not_given(mlp: Opened) -> None:
    name = mlp.summary.layers[0].name
    mix = Mix(SWEEP, excluded={name: frozenset({W2, FLOAT})}, evaluated=0, refined=False)
    found = {point.config.spec_for(name) for point in mlp.find(mix).points}
    assert found == {W4, W8}


def test_that_candidates_without_a_number_are_not_given(mlp: Opened) -> None:
    mix = Mix(SWEEP, evaluated=0, refined=False)
    table = mlp.table(mix)
    first, second = (layer.name for layer in mlp.summary.layers[:2])
    kept = [each for each in table.candidates if (each.layer, each.spec) != (second, W8)]
    broken = [replace(c, value=math.nan) if (c.layer, c.spec) == (first, W4) else c for c in kept]
    points = mlp.find(mix, replace(table, candidates=tuple(broken))).points
    assert {point.config.spec_for(first) for point in points} == {W2, W8, FLOAT}
    assert {point.config.spec_for(second) for point in points} == {W2, W4, FLOAT}


def test_that_impossible_wishes_are_told_in_a_sentence(mlp: Opened) -> None:
    names = tuple(layer.name for layer in mlp.summary.layers)
    cases = [
        (Mix(SWEEP, pinned={"nowhere": W4}), "'nowhere'"),
        (Mix(SWEEP, groups=((names[0], "nowhere"),)), "'nowhere'"),
        (Mix(replace(SWEEP, base=QuantConfig(W8))), "from the float network"),
        (Mix(SWEEP, pinned=dict.fromkeys(names, W4)), "no layer left"),
    ]
    for mix, words in cases:
        with pytest.raises(SpecError, match=words):
            sweep_for(mlp.network, mix)
    with pytest.raises(SpecError, match="held at several"):
        check_limit(mlp.network, Mix(SWEEP, groups=(names[:2],), pinned={names[0]: W4, names[1]: W8}))
    with pytest.raises(SpecError, match="no format left"):
        check_limit(mlp.network, Mix(SWEEP, excluded={names[0]: frozenset({W2, W4, W8, FLOAT})}))
    smallest = mlp.bytes(QuantConfig().with_overrides(dict.fromkeys(names, W2)))
    check_limit(mlp.network, Mix(SWEEP, limit=smallest))
    with pytest.raises(SpecError, match=f"the smallest one takes {smallest:,} bytes"):
        check_limit(mlp.network, Mix(SWEEP, limit=smallest - 1))
    with pytest.raises(MetricError, match="none is loaded"):
        mlp.find(Mix(SWEEP, drop=1.0, drop_metric="user"), mlp.table(Mix(SWEEP)))


def test_that_a_limit_below_what_belongs_to_no_layer_is_told(tmp_path: Path) -> None:
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 17]>
        net (float[b, 8] x) => (float[b, 5] y, float[b, 30, 8, 30] z)
        {
            y = MatMul(x, w)
            z = Einsum <equation = "bd,he->bhde"> (x, table)
        }"""
    )
    for name, shape in (("w", (8, 5)), ("table", (30, 30))):
        model.graph.initializer.append(onnx.numpy_helper.from_array(builders.values(*shape), name))
    with pytest.raises(SpecError, match="; 3,600 bytes belong to no layer and stay"):
        check_limit(Opened(model, tmp_path).network, Mix(SWEEP, limit=1000))


def test_that_a_mix_survives_the_way_to_another_process() -> None:
    import pickle

    mix = Mix(SWEEP, pinned={"a": W4}, excluded={"b": frozenset({W2})}, groups=(("a", "b"),), drop=1.0)
    assert pickle.loads(pickle.dumps(mix)) == mix
    with pytest.raises(SpecError, match="no metric 'psnr'"):
        Mix(SWEEP, drop_metric="psnr")


# --- a limited loss -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("least", [15.0, 25.0, 38.0])
def test_that_the_cheapest_point_that_keeps_the_loss_is_chosen_by_measured_values(
    residual: Opened, least: float
) -> None:
    ready = residual.find(Mix(SWEEP, drop=least, refined=False))
    chosen = ready.points[ready.chosen]
    assert residual.quality(chosen.config) >= least
    assert chosen.limited == chosen.measured
    cheaper = ready.points[ready.chosen - 1]
    assert cheaper.measured is not None
    assert residual.quality(cheaper.config) < least
    assert ready.margin.value == pytest.approx(chosen.measured.value - least)
    assert ready.margin.stderr > 0


def test_that_the_loss_of_another_metric_can_be_limited(residual: Opened) -> None:
    metric = "cosine"
    ready = residual.find(Mix(SWEEP, drop=0.01, drop_metric=metric, refined=False))
    chosen = ready.points[ready.chosen]
    assert ready.limited_metric == metric
    assert ready.metric == "output_sqnr_db"
    assert chosen.limited.value == pytest.approx(residual.quality(chosen.config, metric))
    assert chosen.limited.value >= 0.99
    assert ready.margin.value == pytest.approx(chosen.limited.value - 0.99)
    assert residual.quality(ready.points[ready.chosen - 1].config, metric) < 0.99


def test_that_the_loss_of_the_users_metric_is_paired_by_sample(residual: Opened, tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("def size(outputs, labels):\n    return (outputs['logits'] ** 2).sum(1) ** 0.5\n")
    metric = load_metric(f"{file}:size")
    mix = Mix(SWEEP, drop=0.05, drop_metric=HEADLINE_METRIC, refined=False)
    ready = residual.find(mix, residual.table(mix), metric)
    chosen = ready.points[ready.chosen]
    assert ready.limited_metric == metric.name
    assert ready.limited_float.value - chosen.limited.value <= 0.05
    # The samples differ far more among each other than quantization changes any of them.
    assert ready.margin.stderr < 0.3 * chosen.limited.stderr


def test_that_no_point_is_chosen_where_none_keeps_the_loss(mlp: Opened) -> None:
    excluded = {layer.name: frozenset({FLOAT}) for layer in mlp.summary.layers}
    ready = mlp.find(Mix(SWEEP, drop=120.0, excluded=excluded))
    assert ready.chosen is None
    assert ready.refined is None
    assert ready.points[-1].measured.value < 120


# --- refinement ---------------------------------------------------------------------------------------------------


def misled(table: Sensitivity) -> Sensitivity:
    """Return the table in which 2 bits look best for convolutions, so that the frontier is a bad one."""
    best = max(each.value for each in table.candidates)
    return replace(
        table,
        candidates=tuple(
            replace(c, value=best + 20) if c.format == "int2" and c.layer.startswith("conv") else c
            for c in table.candidates
        ),
    )


@pytest.mark.parametrize("share", [0.19, 0.2])
def test_that_refinement_finds_back_from_a_wrong_table(residual: Opened, share: float) -> None:
    limit = share * residual.summary.float_bytes
    mix = Mix(SWEEP, limit=limit)
    table = residual.table(mix)
    right = residual.find(mix, table)
    wrong = residual.find(mix, misled(table))
    chosen, refined = wrong.points[wrong.chosen], wrong.refined
    assert wrong.gained == pytest.approx(refined.measured.value - chosen.measured.value)
    assert wrong.gained > 0
    assert refined.bytes <= limit
    assert refined.measured.value == pytest.approx(residual.quality(refined.config))
    assert refined.measured.value > right.points[right.chosen].measured.value - 1.0
    names = {name for name, _, _ in wrong.changes}
    assert names == {
        n.name for n in residual.summary.layers if chosen.config.spec_for(n.name) != refined.config.spec_for(n.name)
    }


def test_that_nothing_changes_where_no_change_is_better(mlp: Opened) -> None:
    """All pairs of changes are tried one by one."""
    limit = 0.2 * mlp.summary.float_bytes
    ready = mlp.find(Mix(SWEEP, limit=limit))
    best = ready.refined
    names = [layer.name for layer in mlp.summary.layers]
    steps = (W2, W4, W8, FLOAT)
    for changed in itertools.combinations(names, 2):
        for specs in itertools.product(steps, repeat=2):
            near = all(
                abs(steps.index(spec) - steps.index(best.config.spec_for(name))) <= 1
                for name, spec in zip(changed, specs, strict=True)
            )
            config = best.config.with_overrides(dict(zip(changed, specs, strict=True)))
            if near and mlp.bytes(config) <= limit:
                assert mlp.quality(config) <= best.measured.value + 0.5


def test_that_no_mix_is_worse_than_one_format_for_all_of_its_size(residual: Opened) -> None:
    """The table is wrong in the worst way: the more bits, the more damage."""
    table = residual.table(Mix(SWEEP))
    values = sorted({each.value for each in table.candidates})
    flipped = {value: values[-1 - place] for place, value in enumerate(values)}
    table = replace(table, candidates=tuple(replace(c, value=flipped[c.value]) for c in table.candidates))
    config = QuantConfig().with_overrides({layer.name: W8 for layer in residual.summary.layers})
    ready = residual.find(Mix(SWEEP, limit=residual.bytes(config)), table)
    assert ready.refined.measured.value >= residual.quality(config) - 1e-9


def test_that_the_chosen_point_is_measured_before_it_is_refined(mlp: Opened) -> None:
    ready = mlp.find(Mix(SWEEP, limit=0.25 * mlp.summary.float_bytes, evaluated=0))
    assert [place for place, point in enumerate(ready.points) if point.measured is not None] == [ready.chosen]
    assert ready.refined is not None


def test_that_a_limited_loss_is_refined_to_a_cheaper_mix(residual: Opened) -> None:
    mix = Mix(SWEEP, drop=20.0)
    ready = residual.find(mix, misled(residual.table(mix)))
    chosen, refined = ready.points[ready.chosen], ready.refined
    assert refined.bytes < chosen.bytes
    assert refined.measured.value >= 20.0
    assert refined.measured.value == pytest.approx(residual.quality(refined.config))
    assert ready.margin.value == pytest.approx(refined.measured.value - 20.0)


@pytest.mark.parametrize("build", [builders.lstm_model, builders.if_model])
def test_that_recurrent_networks_and_bodies_of_if_are_mixed_too(build, tmp_path: Path) -> None:
    opened = Opened(build(), tmp_path, samples=8)
    ready = opened.find(Mix(SWEEP, limit=0.3 * opened.summary.float_bytes))
    assert ready.refined.bytes <= 0.3 * opened.summary.float_bytes
    assert ready.refined.measured.value == pytest.approx(opened.quality(ready.refined.config), abs=1e-6)
