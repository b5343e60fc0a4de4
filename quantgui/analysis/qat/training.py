"""Quantization-aware training: weights, biases and scales of a configuration, improved by gradients.

It begins with exactly what the configuration makes of the float network, and ends with a configuration of the same
formats whose weights and ranges are trained. Gradients pass the rounding (`numerics.ste`); the teacher is the float
network, or labels. Nothing of the float network changes: the trained weights lie in a file that the configuration
names (`network.trained`), so undoing is taking the old configuration.

Quality is measured by the simulation that everything else uses, so its numbers are those of the window and of the
exported file. A checkpoint on disk lets the same request go on where it was, after a stop or a crash.
"""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from quantgui.analysis.metric_function import Metric
from quantgui.analysis.qat.checkpoint import Checkpoint, History, training_key
from quantgui.analysis.qat.quality import Quality, Split, is_better, measure, split_samples
from quantgui.analysis.simulation import weight_spec
from quantgui.errors import NetworkError, OutOfMemoryError, SpecError, is_out_of_memory
from quantgui.network.datasets import Dataset
from quantgui.network.differentiation import require_torch
from quantgui.network.executor import Executor
from quantgui.results import ActivationReady, Event, Progress, TrainingReady
from quantgui.spec.config import QuantConfig
from quantgui.spec.trained_files import trained_states
from quantgui.spec.training import Training

if TYPE_CHECKING:
    from quantgui.analysis.qat.course import Course

_EVALUATIONS: Final = 20
_EVALUATED_SHARE: Final = 0.5
"""Evaluations take at most about this share of the time that the steps take."""
_BACKWARD: Final = 3
"""Time of a step of training, forward and backward, in forwards of as many samples."""
_LEAST_EVALUATIONS: Final = 4
_TOLD_SECONDS: Final = 0.5
_KEPT_SECONDS: Final = 20.0
_KEEPING_SHARE: Final = 0.05
_SUPERSEDED_BYTES: Final = 2**30


def train(
    executor: Executor,
    dataset: Dataset,
    training_data: Dataset,
    config: QuantConfig,
    activations: Mapping[str, ActivationReady],
    training: Training,
    metric: Metric | None = None,
    *,
    folder: Path,
    ranges: str = "",
) -> Iterator[Event]:
    """Yield Progress and TrainingReady; the last one is complete.

    Args:
        executor: runs the network.
        dataset: measures quality.
        training_data: is trained on; `dataset` itself where nothing else is open.
        config: where it begins.
        activations: statistics of the activations that `config` quantizes.
        training: how it is trained.
        metric: the user's metric.
        folder: for checkpoints.
        ranges: names the data that `activations` come from.

    Raises:
        SpecError: `config` has no weights that can be trained.
        DataError: the data holds no sample, or no labels that can teach.
        NetworkError: PyTorch is not installed, or the network cannot be trained; the sentence says what to do.
        MetricError: the user's metric fails.
    """
    _require_trainable(executor, config)
    require_torch()
    yield Progress(0, training.steps, "Preparing the training")
    key = training_key(executor.network, config, training, data_names(dataset, training_data, ranges), metric)
    run = _Run(executor, dataset, config, activations, training, metric, Checkpoint(folder, key))
    try:
        run.split = split_samples(dataset, training_data)
        yield from run.events(training_data)
    except (MemoryError, OutOfMemoryError, RuntimeError) as error:
        if not isinstance(error, OutOfMemoryError) and not is_out_of_memory(error):
            raise
        option = "--scope blocks" if training.scope == "network" else ""
        raise NetworkError(_memory_sentence(training), option=option) from error


def _memory_sentence(training: Training) -> str:
    what = f"There is not enough memory to train with {training.batch_size} samples per step"
    if training.scope == "network":
        return f"{what}: take fewer, or train the network piece by piece."
    return f"{what}: take fewer, or smaller samples."


def data_names(dataset: Dataset, training_data: Dataset, ranges: str) -> list[str]:
    """Return the names of the data that a training depends on, see `train`."""
    return [training_data.summary.fingerprint, dataset.summary.fingerprint, ranges]


def _require_trainable(executor: Executor, config: QuantConfig) -> None:
    specs = [weight_spec(layer, config) for layer in executor.network.summary.layers]
    if not any(spec is not None and spec.has_scale for spec in specs):
        raise SpecError(
            "The configuration quantizes no weights to a format with a scale, so there is nothing to train."
        )


@dataclass(eq=False)
class _Run:
    """One training under way."""

    executor: Executor
    dataset: Dataset
    config: QuantConfig
    activations: Mapping[str, ActivationReady]
    training: Training
    metric: Metric | None
    checkpoint: Checkpoint
    split: Split = field(init=False)
    history: History = field(default_factory=History)
    resumed: int = 0
    layers: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    _mark: float = field(default_factory=time.perf_counter)
    _seconds_before: float = 0.0
    _steps_before: int = 0
    _kept_at: float = 0.0
    _keeping_takes: float = 0.0
    _superseded: list[str] = field(default_factory=list)

    def events(self, training_data: Dataset) -> Iterator[Event]:
        kept = self.checkpoint.load()
        if kept is not None and self._still_there(kept[0]):
            self.history, self.resumed = kept[0], kept[0].step
        else:
            kept = None
        self._mark, self._seconds_before = time.perf_counter(), self.history.seconds
        self._steps_before = self.history.step
        self.history.config, self.history.training = self.config, self.training
        course = yield from self._open(training_data)
        if self.history.complete:
            yield self._ready()
            return
        if kept is not None:
            course.set_arrays(kept[1])
        try:
            yield from self._train(course)
        except GeneratorExit:
            self._keep(course)
            raise

    def _still_there(self, history: History) -> bool:
        """Return whether the weights of the best step so far are on disk."""
        if history.trained is None:
            return True
        states = self.executor.network.states
        return all(states.holds(name) for name in trained_states(history.trained))

    def _open(self, training_data: Dataset) -> Generator[Event, None, Course]:
        """Return the course of the training: what is trained, in which order, on what."""
        from quantgui.analysis.qat.course import open_course

        course = yield from open_course(
            self.executor, training_data, self.split.trained, self.config, self.activations, self.training
        )
        self.layers = course.layers
        self.notes = (*self.split.notes, *course.notes)
        return course

    def _train(self, course: Course) -> Iterator[Event]:
        history, steps = self.history, self.training.steps
        if history.before is None:
            quality = yield from self._measured(self.config)
            history.before, history.judged = quality.whole, quality.judged
            yield self._ready()
        every = self._interval(steps)
        self._kept_at = told = time.perf_counter()
        while True:
            # It may have been stopped between a step and its evaluation.
            if self._is_evaluated_after(history.step, every) and history.step not in dict(history.evaluations):
                yield from self._evaluate(course)
                self._keep(course)
                told = time.perf_counter()
            if history.step >= steps or self._is_stuck():
                break
            loss = yield from self._step(course)
            history.step += 1
            history.curve.add(history.step, loss)
            if self._is_due():
                self._keep(course)
            if time.perf_counter() - told > _TOLD_SECONDS:
                told = time.perf_counter()
                yield self._ready()
        history.complete = True
        history.seconds = self._seconds()
        self.checkpoint.save(history, {})
        yield self._ready()

    def _step(self, course: Course) -> Generator[Event, None, float]:
        """Do one step and return its loss."""
        for found in course.step(self.history.step):
            if found is not None:
                return found
            left = self._seconds_left()
            yield Progress(self.history.step, self.training.steps, "Training", None if math.isnan(left) else left)
        raise ValueError("a step without loss")

    def _evaluate(self, course: Course) -> Iterator[Event]:
        history, states = self.history, self.executor.network.states
        name, is_new = states.keep(course.state())
        config = course.configured(name)
        quality = yield from self._measured(config)
        history.evaluations.append((history.step, quality.whole))
        best = history.best_judged or history.judged
        if best is None or is_better(quality.judged, best):
            self._supersede(history.trained, name)
            history.best, history.best_judged, history.trained = history.step, quality.judged, config
            history.waited = 0
        else:
            # While the rate is high there may be nothing better: most comes when it falls.
            history.waited += 2 * history.step > self.training.steps
            if is_new:
                states.drop(name)
        yield self._ready()

    def _supersede(self, old: QuantConfig | None, new: str) -> None:
        """Let the best so far go, sooner or later: it has been told of, so somebody may be using it."""
        if old is None:
            return
        self._superseded += sorted(trained_states(old) - {new, *trained_states(self.config)})
        layers = self.executor.network.layers
        size = sum(4 * layers[name].parameters for name in self.layers)
        while self._superseded and len(self._superseded) * size > _SUPERSEDED_BYTES:
            self.executor.network.states.drop(self._superseded.pop(0))

    def _measured(self, config: QuantConfig) -> Generator[Event, None, Quality]:
        found = None
        for event in measure(self.executor, self.dataset, config, self.activations, self.metric, self.split.judging):
            if isinstance(event, Quality):
                found = event
            else:
                yield event
        assert found is not None
        return found

    def _interval(self, steps: int) -> int:
        """Return the number of steps from one evaluation to the next; it must not depend on the time they take."""
        sampled = _BACKWARD * steps * self.training.batch_size
        affordable = int(_EVALUATED_SHARE * sampled / max(self.dataset.samples, 1))
        return max(1, -(-steps // max(_LEAST_EVALUATIONS, min(_EVALUATIONS, affordable))))

    def _is_evaluated_after(self, step: int, every: int) -> bool:
        return step > 0 and (step % every == 0 or step == self.training.steps)

    def _is_stuck(self) -> bool:
        # Piece by piece, nothing needs to get better before the last one.
        return self.training.scope == "network" and 0 < self.training.patience <= self.history.waited

    # --- checkpoints ---------------------------------------------------------------------------------------------

    def _is_due(self) -> bool:
        since = time.perf_counter() - self._kept_at
        return since > max(_KEPT_SECONDS, self._keeping_takes / _KEEPING_SHARE)

    def _keep(self, course: Course) -> None:
        started = time.perf_counter()
        self.history.seconds = self._seconds()
        self.checkpoint.save(self.history, course.arrays())
        self._kept_at = time.perf_counter()
        self._keeping_takes = self._kept_at - started

    # --- what is told --------------------------------------------------------------------------------------------

    def _seconds(self) -> float:
        return self._seconds_before + time.perf_counter() - self._mark

    def _seconds_left(self) -> float:
        done = self.history.step - self._steps_before
        if not done:
            return float("nan")
        return (self._seconds() - self._seconds_before) / done * (self.training.steps - self.history.step)

    def _ready(self) -> TrainingReady:
        complete = self.history.complete
        return replace(
            self.history.ready(self.config, self.training),
            layers=self.layers,
            seconds=self.history.seconds if complete else self._seconds(),
            seconds_left=0.0 if complete else self._seconds_left(),
            resumed=self.resumed,
            notes=self.notes,
        )
