"""Training of networks whose recurrent state goes from sample to sample: in order, back through a window of samples.

The samples are dealt out to several streams, stretches of equal length that follow one another. A step takes the next
window of each: state goes through the samples of a window with its gradient, and into the next window without
(truncated back-propagation through time: R. Williams and J. Peng, "An efficient gradient-based algorithm for on-line
training of recurrent network trajectories", 1990). When all streams have come to their end, each hands its state to the
one that begins there, and the first begins anew. The float network, which teaches, carries a state of its own in each
stream, as it does where quality is measured. It imports torch.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Final

import numpy as np
import torch
from torch import Tensor

from quantgui.analysis.qat.course import OnceQuantized, backward, kept_arrays, require_finite, set_kept
from quantgui.analysis.qat.loss import Objective, objective_of
from quantgui.analysis.qat.network import TrainableNetwork
from quantgui.analysis.qat.optimizer import Adam, rate_at
from quantgui.analysis.qat.samples import Samples
from quantgui.network.batch import Batch, carry
from quantgui.network.differentiable import DifferentiableNetwork
from quantgui.network.executor import Executor
from quantgui.network.trained import TrainedState
from quantgui.results import Array, Progress
from quantgui.spec.config import QuantConfig
from quantgui.spec.training import Training

_STATE: Final = "state"
_LOOKED_AT: Final = 32
"""Samples that tell what the outputs mean."""


@dataclass(frozen=True, eq=False)
class Stream:
    """Where a stream has come to: the state of the network that is trained by input, and that of the teacher by output.

    Both are empty where it begins with what the data says.
    """

    own: Mapping[str, Tensor] = field(default_factory=lambda: MappingProxyType({}))
    teacher: Mapping[str, Array] = field(default_factory=lambda: MappingProxyType({}))


def open_sequences(
    executor: Executor, samples: Samples, trainable: TrainableNetwork, training: Training
) -> Generator[Progress, None, Sequences]:
    """Yield Progress and return the course of a training in order.

    Raises:
        DataError: the data has no labels that can teach.
        NetworkError: there is no output to learn from.
    """
    state: Mapping[str, Array] | None = None
    batches: list[Batch] = []
    answers: list[Mapping[str, Array]] = []
    for index in samples.indices[:_LOOKED_AT]:
        batch = carry(samples.batch(np.array([index])), state)
        state = executor.run(batch, keep=False)
        batches.append(batch)
        answers.append({name: batch.split(values) for name, values in state.items()})
        yield Progress(0, training.steps, "Preparing the training")
    together = {name: np.concatenate([each[name] for each in answers]) for name in answers[0]}
    objective = objective_of(executor.network, _joined(batches), together, training.teacher)
    return Sequences(executor, samples, trainable, objective, training)


def _joined(batches: Sequence[Batch]) -> Batch:
    """Return neighbouring samples as one batch, as far as what outputs mean depends on it."""
    count = len(batches)
    labels = [each.labels for each in batches if each.labels is not None]
    return replace(
        batches[0], labels=np.concatenate(labels) if labels else None, samples=count, rows=count, batched=True
    )


class Sequences:
    """The course of a training in order; see the module."""

    def __init__(
        self,
        executor: Executor,
        samples: Samples,
        trainable: TrainableNetwork,
        objective: Objective,
        training: Training,
    ) -> None:
        self._executor = executor
        self._samples = samples
        self._trainable = trainable
        self._objective = objective
        self._training = training
        self._piece = DifferentiableNetwork(trainable.network)
        self._adam = Adam(trainable.parameters)
        total = len(samples.indices)
        self._window = min(training.window, training.batch_size, total)
        count = max(1, min(training.batch_size, total) // self._window)
        self._length = total // count
        self._streams: tuple[Stream, ...] = (Stream(),) * count

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the layers that are trained."""
        return self._trainable.layers

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences on how it is trained, and on what cannot be."""
        streams = "one sequence" if len(self._streams) == 1 else f"{len(self._streams)} sequences side by side"
        note = (
            f"Samples are trained on in their order, {streams}: recurrent state goes on from sample to sample, and "
            f"gradients flow back through at most {self._window} of them."
        )
        return (note, *self._trainable.notes())

    def step(self, number: int) -> Iterator[float | None]:
        """Do the step `number` (from 0); yield None now and then, and its loss at the end."""
        window = number % -(-self._length // self._window)
        start = window * self._window
        stop = min(start + self._window, self._length)
        streams = self._streams if window else (Stream(), *self._streams[:-1])
        weights = OnceQuantized(self._trainable.weights_of(self._piece))
        total, after = 0.0, []
        for place, stream in enumerate(streams):
            losses: list[Tensor] = []
            behind = stream
            for index in range(place * self._length + start, place * self._length + stop):
                loss, behind = self._went_on(int(self._samples.indices[index]), behind, weights.leaves)
                losses.append(loss)
                yield None
            loss = torch.stack(losses).sum() / (len(losses) * len(streams))
            backward(loss)
            total += float(loss.detach())
            after.append(Stream({name: state.detach() for name, state in behind.own.items()}, behind.teacher))
            yield None
        weights.backward()
        require_finite(total, number)
        self._adam.step(rate_at(number, self._training.steps, self._training.learning_rate))
        self._streams = tuple(after)
        yield total

    def state(self) -> TrainedState:
        """Return what is to be kept of all layers."""
        return self._trainable.state()

    def configured(self, state: str) -> QuantConfig:
        """Return the configuration whose weights are kept under the name `state`."""
        return self._trainable.configured(state)

    def arrays(self) -> dict[str, Array]:
        """Return all that is needed to go on from here."""
        states: dict[str, Array] = {}
        for place, stream in enumerate(self._streams):
            states |= {f"{_STATE}:{place}:own:{name}": state.numpy().copy() for name, state in stream.own.items()}
            states |= {f"{_STATE}:{place}:teacher:{name}": values for name, values in stream.teacher.items()}
        return {**kept_arrays(self._trainable, self._adam.arrays()), **states}

    def set_arrays(self, arrays: Mapping[str, Array]) -> None:
        """Go on from where `arrays` were taken."""
        self._adam.set_arrays(set_kept(self._trainable, arrays))
        held: list[tuple[dict[str, Tensor], dict[str, Array]]] = [({}, {}) for _ in self._streams]
        for key, values in arrays.items():
            if key.startswith(f"{_STATE}:"):
                _, place, who, name = key.split(":", 3)
                own, teacher = held[int(place)]
                if who == "own":
                    own[name] = torch.from_numpy(np.ascontiguousarray(values))
                else:
                    teacher[name] = values
        self._streams = tuple(Stream(own, teacher) for own, teacher in held)

    def _went_on(self, index: int, stream: Stream, weights: Mapping[str, Tensor]) -> tuple[Tensor, Stream]:
        """Return the loss of a sample, and the stream behind it."""
        drawn = np.array([index])
        batch = self._samples.batch(drawn)
        targets: dict[str, Array] = {}
        teacher: Mapping[str, Array] = stream.teacher
        if self._training.teacher == "float":
            answers = self._executor.run(carry(batch, stream.teacher or None), keep=False)
            targets = {name: np.array(batch.split(answers[name])) for name in self._objective.outputs}
            teacher = {name: answers[name] for name in dict.fromkeys(batch.carried.values())}
        outputs = self._trainable.run(self._piece, {**batch.inputs, **stream.own}, weights)
        own = {name: outputs[output] for name, output in batch.carried.items()}
        return self._objective.loss(batch, outputs, targets), Stream(own, teacher)
