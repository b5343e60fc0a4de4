"""The best mix of formats: the frontier of cost and quality as single layers promise it, then as it really is.

Each layer's damage is measured alone, and damages are taken to add up (`damage`). The selections that no other one
beats under this model are found exactly (`knapsack`). Then they are really measured, best first: the one that answers
the limit, its neighbours, and others spread over the frontier. With a limited loss measured values decide: the frontier
is searched for the cheapest point that keeps the limit, by steps that double and then by halves. The best of what was
measured within the limit, one format for all included, is refined (`mix_refining`).
"""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from quantgui.analysis.damage import DamageModel
from quantgui.analysis.knapsack import Knapsack, Selection, frontier, total
from quantgui.analysis.metric_function import Metric
from quantgui.analysis.mix_choices import Latencies, find_choices, swept_layers
from quantgui.analysis.mix_measuring import SQNR_METRIC, Gauge, Measured
from quantgui.analysis.mix_refining import Refinement, Trial
from quantgui.analysis.pace import paced
from quantgui.analysis.sensitivity import SweptData
from quantgui.errors import DataError, MetricError, SpecError
from quantgui.network.executor import Executor
from quantgui.network.network import Network
from quantgui.network.ties import tied_layers
from quantgui.results import ActivationReady, Array, Event, MixPoint, MixReady, Progress, Sensitivity
from quantgui.spec.mix import HEADLINE_METRIC, Mix
from quantgui.spec.quantizer import LayerSpec
from quantgui.spec.size import network_bytes
from quantgui.spec.sweep import USER_METRIC, Sweep

BUDGETS = 50
"""Limits spread over all costs at which the best mix is looked for, beside the supported ones."""
MOST_POINTS = 160
"""Points of the frontier that are told, besides the chosen one: more could not be told apart in a plot."""
_GOOD_DB = 20.0
"""Where the search for a limited loss of another metric begins."""
_TINY = 1e-300


def sweep_for(network: Network, mix: Mix) -> Sweep:
    """Return the sweep that a mix needs: pinned layers are left out.

    Raises:
        SpecError: a name matches no layer, the sweep does not start from the float network, or nothing is left.
    """
    layers = swept_layers(network.summary, mix)
    if not layers:
        raise SpecError("There is no layer left to choose a format for.")
    return replace(mix.sweep, layers=layers) if mix.pinned else mix.sweep


def check_limit(network: Network, mix: Mix, latencies: Latencies | None = None) -> None:
    """Check what can be known before anything is measured.

    Raises:
        SpecError: no mix can be as cheap as the limit, or pins and groups contradict each other.
    """
    choices = find_choices(network.summary, mix, None, groups_of(network, mix), latencies or {})
    least = choices.fixed_cost + Knapsack(choices.items).least_cost
    if mix.limit is None or least <= mix.limit:
        return
    share = least / network.summary.float_bytes
    told = {
        "bytes": f"{least:,.0f} bytes, {share:.3f} of the float network's {network.summary.float_bytes:,}",
        "bops": f"{least:,.0f} bit operations",
        "latency": f"{least:.3f} of the float network's time",
    }
    in_layers = sum(each.parameters * each.float_bits // 8 for each in network.summary.layers)
    outside = network.summary.float_bytes - in_layers
    rest = f"; {outside:,} bytes belong to no layer and stay" if mix.cost == "bytes" and 2 * outside > least else ""
    raise SpecError(f"No mix of these formats keeps the limit: the smallest one takes {told[mix.cost]}{rest}.")


def groups_of(network: Network, mix: Mix) -> tuple[tuple[str, ...], ...]:
    """Return the groups of layers that get one spec."""
    return tied_layers(network) if mix.groups is None else mix.groups


def find_mix(
    executor: Executor,
    dataset: SweptData,
    mix: Mix,
    table: Sensitivity,
    activations: Mapping[str, ActivationReady],
    metric: Metric | None = None,
    *,
    latencies: Latencies | None = None,
) -> Iterator[Event]:
    """Yield MixReady: the predicted frontier, then with more and more of its points measured, then refined.

    `table` has been measured with `sweep_for` this mix. `latencies`, the time of each layer with each spec, are needed
    where `mix.cost` is latency. Stopping is possible at every event.

    Raises:
        DataError: `activations` lacks a tensor that is quantized, or there are no samples.
        MetricError: the metric means nothing here, or the user's fails.
        SpecError: pins contradict each other, or a layer is left without a choice.
    """
    if dataset.summary.samples == 0:
        raise DataError("There is nothing to compute: the data holds no samples.")
    if USER_METRIC in (mix.sweep.metric, mix.drop_metric) and metric is None:
        raise MetricError("The mix is measured by your metric, but none is loaded.")
    work = _Work(executor, mix, table, Gauge(executor, dataset, mix, activations, metric), latencies or {})
    yield from paced(work.events())


@dataclass(frozen=True, eq=False)
class _Point:
    """A point of the frontier, and what it really gives; None before it is measured."""

    selection: Selection
    point: MixPoint
    measured: Measured | None = None


@dataclass(eq=False)
class _Work:
    """A search under way."""

    executor: Executor
    mix: Mix
    table: Sensitivity
    gauge: Gauge
    latencies: Latencies
    points: list[_Point] = field(default_factory=list)
    chosen: int | None = None
    refined: Trial | None = None

    def __post_init__(self) -> None:
        self.started = time.perf_counter()
        self.network = self.executor.network
        self.model = DamageModel(self.mix.sweep.metric, self.table.higher_is_better, self.table.reference.value)
        damages = {(each.layer, each.spec): self.model.damage(each.value) for each in self.table.candidates}
        groups = groups_of(self.network, self.mix)
        self.choices = find_choices(self.network.summary, self.mix, damages, groups, self.latencies)
        self.fixed_damage = 0.0

    def events(self) -> Generator[Event, None, None]:
        """Find the frontier, measure its points, refine the chosen one."""
        yield Progress(0, 0, "Finding the frontier")
        yield from self._measure_pinned()
        self.points = [_Point(selection, self._point(selection)) for selection in self._frontier()]
        self.chosen = self._guess()
        yield self._ready()
        if self.mix.drop is None:
            yield from self._measure_in_order(_near(self.chosen, len(self.points), self.mix.evaluated))
        else:
            yield from self._search()
        yield from self._measure_in_order(_spread(len(self.points), self.mix.evaluated))
        yield from self._refine()
        yield self._ready(complete=True)

    # --- the frontier --------------------------------------------------------------------------------------------

    def _measure_pinned(self) -> Iterator[Event]:
        """Find the damage of what is held fast, all of it together; each layer alone was not measured."""
        if any(spec != LayerSpec() for spec in self.choices.fixed.overrides.values()):
            measured = yield from self.gauge.measure(self.choices.fixed, "Measuring what is held fast")
            damage = self.model.damage(measured.quality.value)
            self.fixed_damage = damage if math.isfinite(damage) else 0.0

    def _frontier(self) -> list[Selection]:
        items = self.choices.items
        least, most = (sum(float(f(item.costs)) for item in items) for f in (np.min, np.max))
        limits = list(np.linspace(least, most, BUDGETS))
        answer: Selection | None = None
        if self.mix.limit is not None:
            limits.append(self.mix.limit - self.choices.fixed_cost)
            answer = Knapsack(items).best(limits[-1])
        selections = frontier(items, limits)
        values = np.array([[*total(items, each)] for each in selections])
        damages = values[:, 1] + self.fixed_damage
        if self.mix.sweep.metric == SQNR_METRIC:
            damages = np.log(np.maximum(damages, damages[damages > 0].min(initial=1.0)))
        kept = _told_apart(values[:, 0], damages, MOST_POINTS)
        if answer is not None:
            # The dearest point within the limit is the answer, whether or not it can be told from others.
            kept.add(max(i for i, (cost, _) in enumerate(values) if cost <= limits[-1]))
        return [selections[place] for place in sorted(kept)]

    def _point(self, selection: Selection) -> MixPoint:
        config, summary = self.choices.config(selection), self.network.summary
        damage = total(self.choices.items, selection)[1] + self.fixed_damage
        size = network_bytes(summary.float_bytes, summary.layers, config)
        return MixPoint(config, self.choices.cost(selection), size, self.model.value(damage))

    def _guess(self) -> int | None:
        """Return the point that answers the limit as far as predicted."""
        limit, drop = self.mix.limit, self.mix.drop
        points = [each.point for each in self.points]
        if limit is not None:
            return max((place for place, point in enumerate(points) if point.cost <= limit), default=None)
        if drop is None:
            return None
        metric = self.mix.sweep.metric
        if self.mix.drop_metric not in ("", metric):
            drop = _GOOD_DB if metric == SQNR_METRIC else 0.0
        reference = self.table.reference.value
        for place, point in enumerate(points):
            loss = abs(reference - point.predicted)
            if (point.predicted >= drop) if metric == SQNR_METRIC else (loss <= drop):
                return place
        return len(points) - 1

    # --- measuring -----------------------------------------------------------------------------------------------

    def _measure_in_order(self, order: Sequence[int]) -> Iterator[Event]:
        unknown = [place for place in order if self.points[place].measured is None]
        for number, place in enumerate(unknown):
            for event in self._measure(place, f"Measuring {len(unknown)} mixes"):
                if isinstance(event, Progress):
                    # One stage for all of them, so that it can be said how long it takes.
                    done, total_steps = number * event.total + event.done, len(unknown) * event.total
                    yield replace(event, done=done, total=total_steps)
                else:
                    yield event
            yield self._ready()

    def _measure(self, place: int, label: str) -> Generator[Event, None, Measured]:
        each = self.points[place]
        measured = yield from self.gauge.measure(each.point.config, label)
        limited = None if self.mix.drop is None else measured.limited.score
        point = replace(each.point, measured=measured.quality.score, limited=limited)
        self.points[place] = _Point(each.selection, point, measured)
        return measured

    def _search(self) -> Iterator[Event]:
        """Find the cheapest point that keeps the limit of the loss, as measured."""
        place, last = self.chosen or 0, len(self.points) - 1
        step = max(1, len(self.points) // 16)
        kept: int | None = None
        lost = -1
        while True:
            measured = yield from self._measure(place, "Looking for the cheapest mix that keeps the limit")
            if self.gauge.keeps_limit(measured):
                kept = self.chosen = place
            else:
                lost = place
                self.chosen = kept
            yield self._ready()
            if (kept is not None and kept - lost <= 1) or lost == last:
                return
            if kept is None:
                place, step = min(lost + step, last), 2 * step
            elif lost < 0:
                place, step = max(kept - step, 0), 2 * step
            else:
                place = (kept + lost) // 2

    # --- refinement ----------------------------------------------------------------------------------------------

    def _refine(self) -> Iterator[Event]:
        if self.chosen is None or not self.mix.refined:
            return
        start = yield from self._start(self.points[self.chosen])
        if start is None:
            return
        if start[0] != self.points[self.chosen].selection:
            self.refined = start
            yield self._ready()
        for event in Refinement(self.gauge, self.model, self.choices, self.mix.limit).improved(start):
            if isinstance(event, Progress):
                yield event
            else:
                self.refined = event
                yield self._ready()
        self.refined = self.refined or start

    def _start(self, chosen: _Point) -> Generator[Event, None, Trial | None]:
        """Return what to refine: the chosen point, or what is better within the limit of cost, as measured.

        One format for all is among it, so that no mix is worse than that.
        """
        tried = [chosen]
        if self.mix.drop is None and self.chosen is not None:
            yield from self._measure_in_order([self.chosen])
            tried = self.points[: self.chosen + 1]
        trials = [(each.selection, each.measured) for each in tried if each.measured is not None]
        for uniform in self._uniform() if self.mix.drop is None else ():
            measured = yield from self.gauge.measure(self.choices.config(uniform), "Measuring one format for all")
            trials.append((uniform, measured))
        return min(trials, key=lambda trial: self.model.damage(trial[1].quality.value), default=None)

    def _uniform(self) -> tuple[Selection, ...]:
        """Return selections of one spec for all within the limit of cost: the best as predicted, and the dearest."""
        limit = math.inf if self.mix.limit is None else self.mix.limit
        found = []
        for spec in self.mix.sweep.specs:
            wanted = [self.mix.sweep.candidate(layers[0], spec) for layers in self.choices.groups]
            if all(each in specs for each, specs in zip(wanted, self.choices.specs, strict=True)):
                selection = tuple(specs.index(each) for each, specs in zip(wanted, self.choices.specs, strict=True))
                if self.choices.cost(selection) <= limit:
                    found.append((total(self.choices.items, selection)[1], selection))
        if not found:
            return ()
        best, dearest = min(found)[1], max(found, key=lambda each: self.choices.cost(each[1]))[1]
        return tuple(dict.fromkeys((best, dearest)))

    # --- what is known -------------------------------------------------------------------------------------------

    def _ready(self, *, complete: bool = False) -> MixReady:
        chosen = None if self.chosen is None else self.points[self.chosen]
        errors = [
            abs(each.point.measured.value - each.point.predicted)
            for each in self.points
            if each.point.measured is not None
        ]
        finite = [error for error in errors if math.isfinite(error)]
        refined, changes, gained = self._refined_point()
        newest = self.refined[1] if self.refined else chosen.measured if chosen else None
        known = newest or next((each.measured for each in self.points if each.measured is not None), None)
        limited = self.mix.drop is not None and known is not None
        return MixReady(
            mix=self.mix,
            metric=self.table.metric,
            higher_is_better=self.table.higher_is_better,
            float_score=self.table.reference,
            points=tuple(each.point for each in self.points),
            chosen=self.chosen,
            additivity_error=float(np.mean(finite)) if finite else math.nan,
            refined=refined,
            changes=changes,
            gained=gained,
            seconds=time.perf_counter() - self.started,
            complete=complete,
            limited_metric=self._limited_name(),
            limited_float=self.gauge.limited_float(known) if limited and known else None,
            margin=self.gauge.margin(newest) if limited and newest else None,
        )

    def _limited_name(self) -> str:
        name = self.gauge.limited_metric
        if not name and self.mix.drop_metric == HEADLINE_METRIC:
            return ""
        return self.gauge.metric.name if name == USER_METRIC and self.gauge.metric else name

    def _refined_point(self) -> tuple[MixPoint | None, tuple[tuple[str, LayerSpec, LayerSpec], ...], float]:
        """Return the refined point, what it changes in the chosen one, and what that gained."""
        if self.refined is None or self.chosen is None:
            return None, (), 0.0
        chosen = self.points[self.chosen]
        selection, measured = self.refined
        limited = None if self.mix.drop is None else measured.limited.score
        point = replace(self._point(selection), measured=measured.quality.score, limited=limited)
        names = [layer.name for layer in self.network.summary.layers]
        pairs = [(name, chosen.point.config.spec_for(name), point.config.spec_for(name)) for name in names]
        changes = tuple(pair for pair in pairs if pair[1] != pair[2])
        if not changes or chosen.measured is None:
            return point, changes, 0.0
        gain = measured.quality.value - chosen.measured.quality.value
        return point, changes, gain if self.table.higher_is_better else -gain


def _near(chosen: int | None, count: int, most: int) -> list[int]:
    """Return the chosen point and its neighbours, far enough from it to tell something."""
    if chosen is None or most < 1:
        return []
    step = max(1, count // (4 * most))
    return [place for place in (chosen, chosen + step, chosen - step)[:most] if 0 <= place < count]


def _spread(count: int, most: int) -> list[int]:
    """Return points spread over all, from the middle outwards."""
    places = {int(place) for place in np.linspace(0, count - 1, num=max(most - 3, 0)).round()} if count else set()
    return sorted(places, key=lambda place: abs(place - count / 2))


def _told_apart(costs: Array, quality: Array, most: int) -> set[int]:
    """Return the first and last point and others in between, no two of them close to each other in both values."""
    last = len(costs) - 1
    if last < most:
        return set(range(last + 1))
    steps = [np.diff(values) / max(abs(values[-1] - values[0]), _TINY) for values in (costs, quality)]
    length = np.concatenate([[0.0], np.cumsum(np.hypot(*steps))])
    wanted = np.linspace(0, length[-1], most)
    return {int(place) for place in np.searchsorted(length, wanted - 1e-12).clip(0, last)} | {0, last}
