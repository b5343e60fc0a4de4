"""The best mix of formats: the frontier of cost and quality as single layers promise it, then as it really is."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from quantgui.analysis.damage import DamageModel
from quantgui.analysis.evaluation import Tally
from quantgui.analysis.knapsack import Selection, frontier, total
from quantgui.analysis.metric_function import Metric
from quantgui.analysis.mix_choices import Choices, Latencies, find_choices, network_cost
from quantgui.analysis.scores import SampleRows, joined
from quantgui.analysis.sensitivity import SweptData
from quantgui.analysis.simulation import Grids, Ranges, build_simulation
from quantgui.network.batch import carry
from quantgui.network.executor import Executor
from quantgui.network.simulation import FLOAT_SIMULATION
from quantgui.results import ActivationReady, Array, Event, MixPoint, MixReady, Progress, Score, Sensitivity
from quantgui.spec.config import QuantConfig
from quantgui.spec.mix import Mix
from quantgui.spec.size import network_bytes
from quantgui.spec.sweep import USER_METRIC


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
    """Yield MixReady: the predicted frontier, then with more and more of its points measured, best first.

    `table` has been measured with `mix.sweep`, without the pinned layers. `latencies`, the time of each layer with each
    spec, are needed where `mix.cost` is latency.

    Raises:
        DataError: `activations` lacks a tensor that is quantized.
        MetricError: the metric means nothing here, or the user's fails.
        SpecError: pins contradict each other, or a layer is left without a choice.
    """
    work = _Work(executor, dataset, mix, table, activations, metric, latencies or {})
    yield from work.measure()


@dataclass(eq=False)
class _Work:
    """A search under way."""

    executor: Executor
    dataset: SweptData
    mix: Mix
    table: Sensitivity
    activations: Mapping[str, ActivationReady]
    metric: Metric | None
    latencies: Latencies

    def __post_init__(self) -> None:
        self.started = time.perf_counter()
        samples, wanted = self.dataset.summary.samples, self.mix.sweep.samples
        self.total = samples if wanted is None else min(wanted, samples)
        self.model = DamageModel(self.mix.sweep.metric, self.table.higher_is_better, self.table.reference.value)
        self.grids: Grids = {}
        self.ranges: Ranges = {}
        summary = self.executor.network.summary
        self.choices = find_choices(summary, self.mix, self.table, self.model, self.mix.groups or (), self.latencies)
        self.points = [self._point(selection) for selection in frontier(self.choices.items, ())]

    def _point(self, selection: Selection) -> MixPoint:
        config = self.choices.config(selection)
        summary = self.executor.network.summary
        damage = total(self.choices.items, selection)[1]
        size = network_bytes(summary.float_bytes, summary.layers, config)
        cost = network_cost(summary, config, self.mix.cost, self.latencies)
        return MixPoint(config, cost, size, self.model.value(damage))

    def measure(self) -> Iterator[Event]:
        """Yield the frontier, then after each measured point."""
        yield self._ready(complete=False)
        order = _order(self.points, self._chosen(), self.mix.evaluated)
        for place in order:
            for progress in self._measured(self.points[place].config):
                if isinstance(progress, Progress):
                    yield progress
                else:
                    self.points[place] = replace(self.points[place], measured=progress)
            yield self._ready(complete=place == order[-1])
        if not order:
            yield self._ready(complete=True)

    def _measured(self, config: QuantConfig) -> Iterator[Progress | Score]:
        network = self.executor.network
        simulation = build_simulation(network, config, self.activations, ranges=self.ranges, grids=self.grids)
        thorough = self.mix.sweep.metric in ("kl", "cosine")
        user = self.metric if self.mix.sweep.metric == USER_METRIC else None
        tally = Tally(network, self.total, user, thorough=thorough)
        float_outputs: Mapping[str, Array] | None = None
        outputs: Mapping[str, Array] | None = None
        rows: list[SampleRows] = []
        for batch in self.dataset.batches(samples=self.total):
            yield Progress(batch.first, self.total, "Measuring a mix")
            float_outputs = self.executor.run(carry(batch, float_outputs), FLOAT_SIMULATION)
            outputs = self.executor.run(carry(batch, outputs), simulation)
            tally.add(batch, float_outputs, outputs)
            rows.append(tally.take(self.mix.sweep.metric))
        yield joined(rows).estimate().score

    def _chosen(self) -> int | None:
        limit, drop = self.mix.limit, self.mix.drop
        if limit is not None:
            return max((i for i, point in enumerate(self.points) if point.cost <= limit), default=None)
        if drop is not None:
            return next((i for i, point in enumerate(self.points) if self._keeps(point, drop)), None)
        return None

    def _keeps(self, point: MixPoint, drop: float) -> bool:
        value = point.predicted if point.measured is None else point.measured.value
        if self.mix.sweep.metric == "output_sqnr_db":
            return value >= drop
        reference = self.table.reference.value
        return (reference - value if self.table.higher_is_better else value - reference) <= drop

    def _ready(self, *, complete: bool) -> MixReady:
        errors = [
            abs(point.measured.value - point.predicted)
            for point in self.points
            if point.measured is not None and math.isfinite(point.measured.value) and math.isfinite(point.predicted)
        ]
        return MixReady(
            mix=self.mix,
            metric=self.table.metric,
            higher_is_better=self.table.higher_is_better,
            float_score=self.table.reference,
            points=tuple(self.points),
            chosen=self._chosen(),
            additivity_error=float(np.mean(errors)) if errors else math.nan,
            refined=None,
            changes=(),
            gained=0.0,
            seconds=time.perf_counter() - self.started,
            complete=complete,
        )


def _order(points: Sequence[MixPoint], chosen: int | None, most: int) -> list[int]:
    """Return which points to measure, best first: the chosen one, its neighbours, then spread over all."""
    last = len(points) - 1
    near: Iterable[int] = () if chosen is None else (chosen, chosen + 1, chosen - 1)
    spread = np.linspace(0, last, num=max(most, 2)).round().astype(int)
    found = dict.fromkeys([*(i for i in near if 0 <= i <= last), *(int(i) for i in spread)])
    return list(found)[:most]


__all__ = ["Choices", "find_mix"]
