"""How good a network is while it is trained: measured as everywhere, and judged on samples that training never sees.

Where other data is open to train on, quality decides on all samples. Where one data set serves for both, every fifth
batch of it is held out (the last fifth, where recurrent state goes from sample to sample): training does not see it,
and it alone decides which step was the best.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Final

import numpy as np

from quantgui.analysis.evaluation import Tally
from quantgui.analysis.metric_function import Metric
from quantgui.analysis.simulation import build_simulation
from quantgui.network.datasets import Dataset
from quantgui.network.executor import Executor
from quantgui.network.simulation import FLOAT_SIMULATION
from quantgui.results import ActivationReady, Array, Evaluation, Progress
from quantgui.spec.config import QuantConfig

HELD_OUT_EVERY: Final = 5


@dataclass(frozen=True, eq=False)
class Split:
    """Which samples are trained on, and which judge.

    Attributes:
        trained: indices of the samples that training sees, of the data it trains on.
        judging: first samples of the batches that judge; None for all.
        notes: what is to be said of it, in sentences.
    """

    trained: Array
    judging: frozenset[int] | None
    notes: tuple[str, ...] = ()


def split_samples(dataset: Dataset, training_data: Dataset) -> Split:
    """Return which samples are trained on and which judge: `dataset` measures quality, `training_data` trains."""
    everything = np.arange(training_data.samples)
    if training_data.summary.fingerprint != dataset.summary.fingerprint:
        return Split(everything, None)
    size = dataset.batch_size
    firsts = range(0, dataset.samples, size)
    if len(firsts) < HELD_OUT_EVERY:
        note = (
            f"Quality is measured on the {dataset.samples} samples that are trained on, too few to hold some out: open "
            "other data to take ranges from, and that is trained on."
        )
        return Split(everything, None, (note,))
    # State that goes from sample to sample would carry what is held out into what is trained on.
    few = firsts[len(firsts) - len(firsts) // HELD_OUT_EVERY :]
    judging = frozenset(few if dataset.carried else firsts[HELD_OUT_EVERY - 1 :: HELD_OUT_EVERY])
    held_out = np.isin(everything // size * size, sorted(judging))
    note = (
        f"Quality is measured on all {dataset.samples} samples, of which training sees {int((~held_out).sum())}; the "
        f"other {int(held_out.sum())} decide what is best."
    )
    return Split(everything[~held_out], judging, (note,))


@dataclass(frozen=True, eq=False)
class Quality:
    """Quality on all samples, and on those that judge."""

    whole: Evaluation
    judged: Evaluation


def measure(
    executor: Executor,
    dataset: Dataset,
    config: QuantConfig,
    activations: Mapping[str, ActivationReady],
    metric: Metric | None,
    judging: frozenset[int] | None,
) -> Iterator[Progress | Quality]:
    """Yield Progress, and at the end the Quality of `config`, as `analysis.evaluation.evaluate` finds it.

    Raises:
        MetricError: the user's metric fails.
        NetworkError: the network cannot be run.
    """
    total = dataset.summary.samples
    simulation = build_simulation(executor.network, config, activations)
    whole, some = Tally(executor.network, total, metric), Tally(executor.network, total, metric)
    started = time.perf_counter()
    with closing(executor.run_sequence(dataset.batches(), (FLOAT_SIMULATION, simulation))) as answers:
        for answer in answers:
            yield Progress(whole.samples, total, "Evaluating")
            if answer is None:
                continue
            batch, (expected, found) = answer
            whole.add(batch, expected, found)
            if judging is not None and batch.first in judging:
                some.add(batch, expected, found)
    executor.forget(simulation)
    seconds = time.perf_counter() - started
    evaluation = whole.evaluation(seconds)
    yield Quality(evaluation, evaluation if judging is None else some.evaluation(seconds))


def is_better(one: Evaluation, other: Evaluation) -> bool:
    """Return whether `one` is better: by the headline metric, and by a soft one where that is the same."""
    return _rank(one) > _rank(other)


def _rank(evaluation: Evaluation) -> tuple[float, float, float]:
    sign = 1.0 if evaluation.higher_is_better else -1.0
    divergence = evaluation.scores["kl"].value if "kl" in evaluation.scores else 0.0
    ranks = (sign * evaluation.quantized_score.value, -divergence, evaluation.output_sqnr_db)
    first, second, third = (-math.inf if math.isnan(each) else each for each in ranks)
    return first, second, third
