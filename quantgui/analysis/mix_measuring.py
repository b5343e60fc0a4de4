"""Whole configurations really measured, so that they can be compared: on the same samples, in the same metrics."""

from __future__ import annotations

import math
from collections.abc import Generator, Mapping
from contextlib import closing
from dataclasses import dataclass, field

from quantgui.analysis.evaluation import Tally
from quantgui.analysis.metric_function import Metric
from quantgui.analysis.scores import Estimate, SampleRows, difference_error
from quantgui.analysis.sensitivity import SweptData
from quantgui.analysis.simulation import Grids, Ranges, build_simulation
from quantgui.network.executor import Executor
from quantgui.network.simulation import FLOAT_SIMULATION, Simulation
from quantgui.results import ActivationReady, Progress, Score
from quantgui.spec.config import QuantConfig
from quantgui.spec.mix import HEADLINE_METRIC, Mix
from quantgui.spec.sweep import SHARES, SMALLER_IS_BETTER, USER_METRIC

SQNR_METRIC = "output_sqnr_db"
_PERFECT = {"agreement": 1.0, "cosine": 1.0, "kl": 0.0, SQNR_METRIC: math.inf}
"""What the float network has against itself."""
_THOROUGH = frozenset({"cosine", "kl"})


@dataclass(frozen=True, eq=False)
class Measured:
    """One configuration's metrics.

    Attributes:
        quality: the metric that is sought.
        limited: the metric whose loss is limited.
        limited_float: the same of the float network; None where that is perfect by definition.
    """

    quality: Estimate
    limited: Estimate
    limited_float: Estimate | None


@dataclass(eq=False)
class Gauge:
    """Measures configurations and remembers them; grids of weights and activations are found once for all."""

    executor: Executor
    dataset: SweptData
    mix: Mix
    activations: Mapping[str, ActivationReady]
    metric: Metric | None
    grids: Grids = field(default_factory=dict)
    ranges: Ranges = field(default_factory=dict)
    known: dict[QuantConfig, Measured] = field(default_factory=dict)
    limited_metric: str = ""

    def __post_init__(self) -> None:
        samples, wanted = self.dataset.summary.samples, self.mix.sweep.samples
        self.total = samples if wanted is None else min(wanted, samples)
        if self.mix.drop is not None and self.mix.drop_metric != HEADLINE_METRIC:
            self.limited_metric = self.mix.drop_metric or self.mix.sweep.metric

    @property
    def higher_is_better(self) -> bool:
        """Direction of the limited metric."""
        if self.limited_metric == USER_METRIC and self.metric is not None:
            return self.metric.higher_is_better
        return self.limited_metric not in SMALLER_IS_BETTER

    def simulation(self, config: QuantConfig) -> Simulation:
        """Return the simulation of `config`."""
        network = self.executor.network
        return build_simulation(network, config, self.activations, ranges=self.ranges, grids=self.grids)

    def measure(self, config: QuantConfig, label: str) -> Generator[Progress, None, Measured]:
        """Return what `config` gives on all samples.

        Raises:
            MetricError: the metric means nothing here, or the user's fails.
        """
        if config not in self.known:
            self.known[config] = yield from self._measure(config, label)
        return self.known[config]

    def _measure(self, config: QuantConfig, label: str) -> Generator[Progress, None, Measured]:
        simulation = self.simulation(config)
        tally = self.tally()
        seen = 0
        yield Progress(seen, self.total, label)
        batches = self.dataset.batches(samples=self.total)
        with closing(self.executor.run_sequence(batches, (FLOAT_SIMULATION, simulation))) as answers:
            for answer in answers:
                if answer is not None:
                    batch, (float_outputs, outputs) = answer
                    tally.add(batch, float_outputs, outputs)
                    seen += batch.samples
                yield Progress(seen, self.total, label)
        if self.mix.drop is not None and not self.limited_metric:
            self.limited_metric = USER_METRIC if self.metric else tally.evaluation(0.0).metric
        quality = tally.rows(self.mix.sweep.metric)
        limited = self.limited_metric or self.mix.sweep.metric
        reference: SampleRows | None = None
        if limited not in _PERFECT:
            reference = tally.rows(f"float {limited}")
        return Measured(
            quality.estimate(), tally.rows(limited).estimate(), None if reference is None else reference.estimate()
        )

    def tally(self) -> Tally:
        """Return a tally of what has to be known."""
        wanted = {self.mix.sweep.metric, self.limited_metric}
        needs_user = USER_METRIC in wanted or self.mix.drop_metric == HEADLINE_METRIC
        metric = self.metric if needs_user else None
        return Tally(self.executor.network, self.total, metric, thorough=bool(wanted & _THOROUGH))

    def limited_float(self, measured: Measured) -> Score:
        """Return the limited metric of the float network."""
        if measured.limited_float is None:
            return Score(_PERFECT[self.limited_metric], 0.0, measured.limited.samples)
        return measured.limited_float.score

    def margin(self, measured: Measured) -> Score:
        """Return how much better than the limit of the loss a configuration is; both networks saw the same samples.

        The standard error of a metric that counts samples is at least what one of them makes: none that has changed its
        answer does not mean that none ever will.
        """
        limit, value = self.mix.drop or 0.0, measured.limited.value
        if self.limited_metric == SQNR_METRIC:
            return Score(value - limit, measured.limited.score.stderr, measured.limited.samples)
        reference = self.limited_float(measured).value
        loss = reference - value if self.higher_is_better else value - reference
        error = measured.limited.score.stderr
        if measured.limited_float is not None:
            error = difference_error(measured.limited_float, measured.limited)
        if self.limited_metric in SHARES:
            error = max(error, 1 / measured.limited.samples)
        return Score(limit - loss, error, measured.limited.samples)

    def keeps_limit(self, measured: Measured) -> bool:
        """Return whether the measured loss is within the limit; `margin` says how sure that is."""
        return self.margin(measured).value >= 0
