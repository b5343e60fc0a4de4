"""Quality of the quantized network against the float one, from the first mini-batch on, as mean and standard error.

Each metric is a mean over samples. Output SQNR is the exception, because a mean of dB hides the bad samples: it is
10 log10(sum of squares of the float output / sum of squares of the difference) over all samples, the mean of it over
the float outputs; its standard error follows from each sample's influence. Recurrent states are no outputs here.

What counts as lost: a sample whose quantized output is not finite where the float one is, or has another shape. Its
noise is as large as its signal, its cosine and its agreement are 0. Places where the float output itself is not finite
are left out. Both are told in `Evaluation.notes`.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Collection, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Protocol

import numpy as np

from quantgui.analysis.metric_function import Metric, batch_scores
from quantgui.analysis.output_roles import OutputRole, class_labels, fits_labels, position_shape, recognise_outputs
from quantgui.analysis.samples import Samples
from quantgui.analysis.scores import SampleRows, sqnr, weighted_mean
from quantgui.analysis.simulation import Ranges, build_simulation, unreached_tensors
from quantgui.errors import MetricError
from quantgui.network.batch import Batch
from quantgui.network.network import Network
from quantgui.network.simulation import FLOAT_SIMULATION, Simulation
from quantgui.numerics.metrics import cosine, noise_energies, signal_energies
from quantgui.results import (
    ActivationReady,
    Array,
    Evaluation,
    EvaluationReady,
    Event,
    Progress,
    Score,
)
from quantgui.spec.config import QuantConfig

_TINY = 1e-12
_IDLE_LABELS = (
    "The labels are not used: accuracy needs one class number per sample (or position) of an output; a metric of your "
    "own can use any labels."
)


class Runner(Protocol):
    """What evaluation needs of `network.executor.Executor`."""

    @property
    def network(self) -> Network: ...
    def run_sequence(
        self, batches: Iterable[Batch], simulations: Sequence[Simulation]
    ) -> Generator[tuple[Batch, Sequence[Mapping[str, Array]]] | None, None, None]: ...


def evaluate(
    executor: Runner,
    dataset: Samples,
    config: QuantConfig,
    activations: Mapping[str, ActivationReady],
    metric: Metric | None = None,
    *,
    samples: int | None = None,
    batch_size: int | None = None,
    ranges: Ranges | None = None,
) -> Iterator[Event]:
    """Yield an EvaluationReady after each mini-batch; the last one is complete.

    `ranges` keeps the grids of activations between calls (see `build_simulation`).

    Raises:
        DataError: `config` quantizes an activation that `activations` does not know.
        MetricError: the user's metric fails.
        NetworkError: the network cannot be run.
    """
    simulation = build_simulation(executor.network, config, activations, ranges=ranges)
    unreached = unreached_tensors(executor.network, config, activations)
    many = f"{len(unreached)} activation tensors stay" if len(unreached) > 1 else "1 activation tensor stays"
    notes = [f"{many} float: no sample reached them, or a loop changes their shape from round to round."]
    for event in evaluate_simulation(executor, dataset, simulation, metric, samples=samples, batch_size=batch_size):
        if isinstance(event, Evaluation):
            yield EvaluationReady(config, replace(event, notes=(*notes[: len(unreached)], *event.notes)))
        else:
            yield event


def evaluate_simulation(
    executor: Runner,
    dataset: Samples,
    simulation: Simulation,
    metric: Metric | None = None,
    *,
    samples: int | None = None,
    batch_size: int | None = None,
    thorough: bool = True,
) -> Iterator[Progress | Evaluation]:
    """Yield the Evaluation of a simulation after each mini-batch, and Progress in between.

    Unless `thorough`, only output SQNR and headline metric are computed.

    Raises:
        MetricError: the user's metric fails.
        NetworkError: the network cannot be run.
    """
    total = dataset.summary.samples if samples is None else min(samples, dataset.summary.samples)
    tally = Tally(executor.network, total, metric, thorough=thorough)
    started = time.perf_counter()
    seen = 0
    yield Progress(seen, total, "Evaluating")
    batches = dataset.batches(batch_size, samples)
    with closing(executor.run_sequence(batches, (FLOAT_SIMULATION, simulation))) as answers:
        for answer in answers:
            if answer is None:
                left = (time.perf_counter() - started) / seen * (total - seen) if seen else None
                yield Progress(seen, total, "Evaluating", left)
                continue
            batch, (float_outputs, outputs) = answer
            tally.add(batch, float_outputs, outputs)
            seen += batch.samples
            yield tally.evaluation(time.perf_counter() - started)


class Tally:
    """Scores of the samples seen so far; `add` takes the next batch, `evaluation` tells the state.

    Whoever runs two networks over the same batches can use it: the simulated network here, an exported file when it is
    verified.
    """

    def __init__(
        self,
        network: Network,
        total_samples: int,
        metric: Metric | None = None,
        *,
        thorough: bool = True,
        only: Collection[str] = (),
    ) -> None:
        """Start with no samples. With `only`, no other metrics are computed than those, which saves reading outputs."""
        self._network = network
        self._total = total_samples
        self._metric = metric
        self._thorough = thorough
        self._only = frozenset(only)
        self._signals: dict[tuple[str, str], Array] = {}
        self._roles: dict[str, OutputRole] | None = None
        self._labelled: tuple[str, OutputRole] | None = None
        self._idle_labels = False
        self._samples = 0
        self._energy: dict[str, list[tuple[Array, Array]]] = {}
        self._scores: dict[str, list[tuple[Array, Array]]] = {}
        self._notes: Counter[str] = Counter()

    def add(self, batch: Batch, float_outputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> None:
        """Compare the `outputs` of one batch with the outputs of the float network.

        Raises:
            MetricError: the user's metric fails.
        """
        states = set(batch.carried.values())
        references = {name: batch.split(x) for name, x in float_outputs.items() if name not in states}
        answers = {name: batch.split(outputs[name]) for name in references}
        labels = class_labels(batch.labels)
        if self._roles is None:
            self._roles = recognise_outputs(self._network.skeleton, references, labels)
            self._labelled = _labelled_output(self._roles, references, labels)
            self._idle_labels = labels is not None and self._labelled is None and self._metric is None
        self._samples += batch.samples
        if self._wants("output_sqnr_db", "cosine"):
            self._add_distances(batch, references, answers)
        if self._wants("agreement", "kl"):
            self._add_classes(references, answers, batch.samples)
        if self._wants("accuracy"):
            self._add_accuracy(references, answers, labels)
        if self._metric is not None:
            for key, values in (("float user", references), ("user", answers)):
                scores = batch_scores(self._metric, values, batch.labels, batch.samples)
                if lost := int((~np.isfinite(scores)).sum()) * (batch.samples // len(scores)):
                    whose = "quantized" if key == "user" else "float"
                    self._notes[f"The metric '{self._metric.name}' of the {whose} network is not finite"] += lost
                self._add_scores(key, scores, batch.samples)

    def evaluation(self, seconds: float) -> Evaluation:
        """Return the scores of all samples seen, after `seconds` of work."""
        scores = {key: self._score(key) for key in self._scores}
        scores["output_sqnr_db"] = sqnr = self._sqnr()
        if self._metric is not None:
            name, float_score, score = self._metric.name, scores["float user"], scores["user"]
        elif "accuracy" in scores:
            name, float_score, score = "accuracy", scores["float accuracy"], scores["accuracy"]
        elif "agreement" in scores:
            name, float_score, score = "agreement", Score(1.0, 0.0, self._samples), scores["agreement"]
        else:
            name, float_score, score = "output_sqnr_db", Score(math.inf, 0.0, self._samples), sqnr
        return Evaluation(
            metric=name,
            higher_is_better=self._metric is None or self._metric.higher_is_better,
            float_score=float_score,
            quantized_score=score,
            output_sqnr_db=sqnr.value,
            scores={key: value for key, value in scores.items() if not key.startswith("float ")},
            seconds=seconds,
            total_samples=self._total,
            notes=(
                *(f"{text} in {count} of {self._samples} samples." for text, count in self._notes.items()),
                *((_IDLE_LABELS,) if self._idle_labels else ()),
            ),
        )

    def take(self, metric: str) -> SampleRows:
        """Return what `metric` was on the samples added since the last call, and forget all metrics of them.

        ``user`` names the user's own; the others are those of `Evaluation.scores`.

        Raises:
            MetricError: the network or the data has no such metric.
        """
        found = self.rows(metric)
        self._samples, self._energy, self._scores = 0, {}, {}
        return found

    @property
    def samples(self) -> int:
        """Samples added so far."""
        return self._samples

    @property
    def metrics(self) -> frozenset[str]:
        """The metrics that the samples added so far have."""
        return frozenset({"output_sqnr_db", *self._scores})

    def rows(self, metric: str) -> SampleRows:
        """Return what `metric` was on the samples added since the last `take`; see there."""
        if metric == "output_sqnr_db":
            return SampleRows(self._samples, {name: _joined(parts) for name, parts in self._energy.items()})
        if metric not in self._scores:
            raise MetricError(
                f"The metric '{metric}' cannot be computed here: accuracy needs labels that are class numbers, "
                "agreement and KL divergence an output that is classes."
            )
        values, weights = _joined(self._scores[metric])
        return SampleRows(self._samples, values=values, weights=weights)

    def _wants(self, *metrics: str) -> bool:
        return not self._only or not self._only.isdisjoint(metrics)

    def _add_distances(self, batch: Batch, references: Mapping[str, Array], answers: Mapping[str, Array]) -> None:
        cosines = []
        for name in _compared(references):
            distance = None if self._thorough else self._quick_distance(batch, name, references[name], answers[name])
            signal, noise, closeness = distance or self._distance(name, references[name], answers[name])
            self._energy.setdefault(name, []).append((signal, noise))
            cosines.append(closeness)
        if cosines and self._thorough:
            self._add_scores("cosine", _mean_over_outputs(cosines), batch.samples)

    def _quick_distance(
        self, batch: Batch, name: str, reference: Array, answer: Array
    ) -> tuple[Array, Array, Array] | None:
        """Return what `_distance` does, if all values are finite, and read no more than the answer for it."""
        # Every network that runs on a batch is held against the same outputs.
        if (batch.key, name) not in self._signals:
            self._signals[batch.key, name] = signal_energies(reference)
        signal = self._signals[batch.key, name]
        if answer.shape != reference.shape or not np.isfinite(signal).all():
            return None
        noise = noise_energies(reference, answer)
        return (signal, noise, np.zeros(len(signal))) if np.isfinite(noise).all() else None

    def _distance(self, name: str, reference: Array, answer: Array) -> tuple[Array, Array, Array]:
        """Return signal and noise energy and cosine of each sample, (S,) each; lost samples as the module says."""
        rows = len(reference)
        x = reference.reshape(rows, -1)
        finite = np.isfinite(x)
        clean = bool(finite.all())
        if not clean:
            x = np.where(finite, x, np.zeros((), x.dtype))
            note = f"The float network gives values that are not finite in '{name}'"
            self._notes[note] += int((~finite).any(1).sum())
        signal = signal_energies(x)
        if answer.shape != reference.shape:
            self._notes[f"The quantized network gives '{name}' another shape"] += rows
            return signal, signal, np.zeros(rows)
        y = answer.reshape(rows, -1)
        y = y if clean else np.where(finite, y, np.zeros((), y.dtype))
        lost = ~_finite_samples(y)
        if lost.any():
            self._notes[f"The quantized network gives values that are not finite in '{name}'"] += int(lost.sum())
            y = np.where(lost[:, None], np.zeros((), y.dtype), y)
        return signal, noise_energies(x, y), np.where(lost, 0.0, cosine(x, y)) if self._thorough else np.zeros(rows)

    def _add_classes(self, references: Mapping[str, Array], answers: Mapping[str, Array], samples: int) -> None:
        agreements, divergences = [], []
        for name, role in (self._roles or {}).items():
            if not role.is_class_like:
                continue
            reference, answer = references[name], answers[name]
            if answer.shape != reference.shape:
                agreements.append(np.zeros(len(reference)))
                continue
            lost = ~_finite_samples(answer) & _finite_samples(reference)
            agreement = _per_sample(decisions(reference, role) == decisions(answer, role))
            agreements.append(np.where(lost, 0.0, agreement))
            comparable = role.kind != "indices" and np.isfinite(answer).all() and np.isfinite(reference).all()
            if comparable and self._thorough:
                divergences.append(_per_sample(divergence(reference, answer, role)))
        if agreements:
            self._add_scores("agreement", _mean_over_outputs(agreements), samples)
        if divergences:
            self._add_scores("kl", _mean_over_outputs(divergences), samples)

    def _add_accuracy(
        self, references: Mapping[str, Array], answers: Mapping[str, Array], labels: Array | None
    ) -> None:
        if self._labelled is None or labels is None:
            return
        name, role = self._labelled
        shape = position_shape(labels.shape)
        labels = labels.reshape(shape)
        known = labels >= 0
        counts = _per_sample(known)
        for key, values in (("float accuracy", references[name]), ("accuracy", answers[name])):
            hits = np.zeros(shape, bool)
            if values.shape == references[name].shape:
                hits = (decisions(values, role).reshape(shape) == labels) & known
            shares = np.divide(_per_sample(hits), counts, out=np.zeros(len(counts)), where=counts > 0)
            scores = np.where(_finite_samples(values), shares, 0.0)[counts > 0]
            self._add_scores(key, scores, len(scores))

    def _add_scores(self, key: str, values: Array, samples: int) -> None:
        weight = samples / len(values) if len(values) else 0.0
        self._scores.setdefault(key, []).append((values, np.full(len(values), weight)))

    def _score(self, key: str) -> Score:
        return weighted_mean(*_joined(self._scores[key]), self._samples).score

    def _sqnr(self) -> Score:
        return sqnr({name: _joined(parts) for name, parts in self._energy.items()}, self._samples).score


def _joined(parts: list[tuple[Array, Array]]) -> tuple[Array, Array]:
    return np.concatenate([first for first, _ in parts]), np.concatenate([second for _, second in parts])


def _labelled_output(
    roles: Mapping[str, OutputRole], outputs: Mapping[str, Array], labels: Array | None
) -> tuple[str, OutputRole] | None:
    """Return the output that the labels belong to, from the first batch."""
    if labels is None:
        return None
    return next(((name, role) for name, role in roles.items() if fits_labels(outputs[name], role, labels)), None)


def decisions(values: Array, role: OutputRole) -> Array:
    """Return the class at each position: argmax along the class axis, or the side of 0.5."""
    if role.kind == "indices":
        return values
    if role.kind == "binary":
        return values > 0.5
    return np.asarray(values.argmax(role.axis))


def divergence(reference: Array, answer: Array, role: OutputRole) -> Array:
    """Return the KL divergence of `answer` from `reference` at each position, in nats."""
    if role.kind == "binary":
        p, q = (np.clip(x.astype(np.float64), _TINY, 1 - _TINY) for x in (reference, answer))
        return np.asarray(p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q)))
    if role.kind == "probabilities":
        # float32 is enough, and outputs of text recognisers are large. The quantized output's sum need not be 1.
        p, q = (np.maximum(x.astype(np.float32, copy=False), np.float32(_TINY)) for x in (reference, answer))
        excess = np.log(q.sum(role.axis)) - np.log(p.sum(role.axis))
        return np.asarray(np.maximum((p * (np.log(p) - np.log(q))).sum(role.axis) + excess, 0))
    log_p, log_q = _log_softmax(reference, role.axis), _log_softmax(answer, role.axis)
    divergences: Array = (np.exp(log_p) * (log_p - log_q)).sum(role.axis)
    return divergences


def _log_softmax(values: Array, axis: int) -> Array:
    x = values.astype(np.float64)
    x = x - x.max(axis, keepdims=True)
    return np.asarray(x - np.log(np.exp(x).sum(axis, keepdims=True)))


def _compared(outputs: Mapping[str, Array]) -> list[str]:
    """Return the outputs that distances are measured on: the float ones, or all where there is none."""
    names = [name for name, values in outputs.items() if values.size]
    return [name for name in names if outputs[name].dtype.kind == "f"] or names


def _per_sample(values: Array) -> Array:
    return np.asarray(values.reshape(len(values), -1).mean(1, dtype=np.float64))


def _finite_samples(values: Array) -> Array:
    return np.asarray(np.isfinite(values.reshape(len(values), -1)).all(1))


def _mean_over_outputs(scores: list[Array]) -> Array:
    """Return the mean of several outputs' scores; of the batch where one of them has no row per sample."""
    if len({len(score) for score in scores}) > 1:
        scores = [np.atleast_1d(score.mean()) for score in scores]
    return np.asarray(np.mean(scores, axis=0))
