"""The course of a training: what is trained in which step, on what. It imports torch.

Either the whole network at once, gradients through all of it; or one piece after the other (`analysis.qat.blocks`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterator, Mapping
from typing import Final, Protocol

import torch
from torch import Tensor

from quantgui.analysis.qat.loss import Objective, objective_of
from quantgui.analysis.qat.network import TrainableNetwork
from quantgui.analysis.qat.optimizer import Adam, rate_at, reach_at
from quantgui.analysis.qat.samples import Samples
from quantgui.errors import NetworkError, is_out_of_memory
from quantgui.network.batch import Batch
from quantgui.network.datasets import Dataset
from quantgui.network.differentiable import DifferentiableNetwork, uncovered_operators
from quantgui.network.executor import Executor
from quantgui.network.trained import TrainedState
from quantgui.results import ActivationReady, Array, Progress
from quantgui.spec.config import QuantConfig
from quantgui.spec.training import Training

_MACS_AT_ONCE: Final = 7e9
"""Multiply-accumulates of the samples that go through the network at once: about half a second, so that whoever waits
for something else does not wait long."""
_OPTIMIZER: Final = "optimizer:"
_PARAMETER: Final = "parameter:"


class Course(Protocol):
    """What a training does step by step."""

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the layers that are trained."""

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences on what cannot be trained."""

    def step(self, number: int) -> Iterator[float | None]:
        """Do the step `number` (from 0); yield None now and then, and its loss at the end."""

    def state(self) -> TrainedState:
        """Return what is to be kept of all layers."""

    def configured(self, state: str) -> QuantConfig:
        """Return the configuration whose weights are kept under the name `state`."""

    def arrays(self) -> dict[str, Array]:
        """Return all that is needed to go on from here."""

    def set_arrays(self, arrays: Mapping[str, Array]) -> None:
        """Go on from where `arrays` were taken."""


def open_course(
    executor: Executor,
    dataset: Dataset,
    trained_on: Array,
    config: QuantConfig,
    activations: Mapping[str, ActivationReady],
    training: Training,
) -> Generator[Progress, None, Course]:
    """Yield Progress and return the course of a training on the samples `trained_on` of `dataset`.

    Raises:
        NetworkError: the network has an operator that is not covered, or no output to learn from.
        DataError: the data has no sample, or no labels that can teach.
    """
    samples = Samples(dataset, executor, trained_on)
    trainable = TrainableNetwork(executor.network, config, activations, learn_scales=training.learn_scales)
    yield Progress(0, training.steps, "Preparing the training")
    if training.scope == "blocks":
        from quantgui.analysis.qat.blocks import open_blocks

        return (yield from open_blocks(executor, samples, trainable, activations, training))
    if uncovered := uncovered_operators(executor.network):
        names = ", ".join(uncovered[:3]) + (" ..." if len(uncovered) > 3 else "")
        raise NetworkError(
            f"Gradients cannot flow through the whole network: {names} cannot be differentiated. Train it piece by "
            "piece, which needs gradients through the other operators only.",
            option="--scope blocks",
        )
    if samples.is_carried:
        from quantgui.analysis.qat.sequences import open_sequences

        return (yield from open_sequences(executor, samples, trainable, training))
    batch = samples.batch(samples.first(training.batch_size))
    objective = objective_of(executor.network, batch, executor.run(batch, keep=False), training.teacher)
    yield Progress(0, training.steps, "Preparing the training")
    return _WholeNetwork(samples, trainable, objective, training, executor.cache_bytes)


class _WholeNetwork:
    """All layers at once."""

    def __init__(
        self,
        samples: Samples,
        trainable: TrainableNetwork,
        objective: Objective,
        training: Training,
        memory: int,
    ) -> None:
        self._samples = samples
        self._trainable = trainable
        self._objective = objective
        self._training = training
        self._piece = DifferentiableNetwork(trainable.network)
        self._adam = Adam(trainable.parameters)
        self._most = self._samples_at_once(memory)

    @property
    def layers(self) -> tuple[str, ...]:
        return self._trainable.layers

    @property
    def notes(self) -> tuple[str, ...]:
        return self._trainable.notes()

    def step(self, number: int) -> Iterator[float | None]:
        training = self._training
        drawn = self._samples.drawn(number, training.batch_size, training.seed)
        total = 0.0
        weights = OnceQuantized(self._trainable.weights_of(self._piece))
        for part in self._samples.pieces(drawn, self._most):
            batch = self._samples.batch(part)
            targets = self._targets(part, batch)
            yield None
            outputs = self._trainable.run(self._piece, batch.inputs, weights.leaves)
            loss = self._objective.loss(batch, outputs, targets) * (len(part) / len(drawn))
            yield None
            backward(loss)
            total += float(loss.detach())
            yield None
        weights.backward()
        require_finite(total, number)
        rate = rate_at(number, training.steps, training.learning_rate)
        self._adam.step(rate, total, reach_at(number, training.steps))
        yield total

    def state(self) -> TrainedState:
        return self._trainable.state()

    def configured(self, state: str) -> QuantConfig:
        return self._trainable.configured(state)

    def arrays(self) -> dict[str, Array]:
        return kept_arrays(self._trainable, self._adam.arrays())

    def set_arrays(self, arrays: Mapping[str, Array]) -> None:
        self._adam.set_arrays(set_kept(self._trainable, arrays))

    def _targets(self, part: Array, batch: Batch) -> dict[str, Array]:
        if self._training.teacher == "labels":
            return {}
        return self._samples.targets(part, batch, self._objective.outputs)

    def _samples_at_once(self, memory: int) -> int:
        """Return how many samples go through the network at once: as many as time and `memory` (bytes) allow."""
        macs = sum(layer.macs for layer in self._trainable.network.summary.layers)
        in_time = int(_MACS_AT_ONCE / macs) if macs else self._training.batch_size
        batch = self._samples.batch(self._samples.first(1))
        size = saved_bytes(lambda: self._trainable.run(self._piece, batch.inputs)) // max(batch.rows, 1)
        return max(1, min(self._training.batch_size, in_time, memory // max(size, 1)))


class OnceQuantized:
    """Weights that are quantized once for all parts of a step: `leaves` gather the gradients of the parts."""

    def __init__(self, quantized: Mapping[str, Tensor]) -> None:
        self._quantized = {name: values for name, values in quantized.items() if values.requires_grad}
        self.leaves = {
            name: values.detach().requires_grad_() if values.requires_grad else values
            for name, values in quantized.items()
        }

    def backward(self) -> None:
        """Pass the gradients gathered on to what the weights were quantized from."""
        pairs = [(values, self.leaves[name].grad) for name, values in self._quantized.items()]
        reached = [(values, gradient) for values, gradient in pairs if gradient is not None]
        if reached:
            torch.autograd.backward([values for values, _ in reached], [gradient for _, gradient in reached])


def kept_arrays(trainable: TrainableNetwork, optimizer: Mapping[str, Array]) -> dict[str, Array]:
    """Return the parameters and the state of their optimizer as a checkpoint keeps them."""
    return {
        **{f"{_PARAMETER}{name}": values for name, values in trainable.values().items()},
        **{f"{_OPTIMIZER}{name}": values for name, values in optimizer.items()},
    }


def set_kept(trainable: TrainableNetwork, arrays: Mapping[str, Array]) -> dict[str, Array]:
    """Give `trainable` the parameters that `kept_arrays` returned, and return the state of the optimizer."""
    trainable.set_values(_part_of(arrays, _PARAMETER))
    return _part_of(arrays, _OPTIMIZER)


def _part_of(arrays: Mapping[str, Array], prefix: str) -> dict[str, Array]:
    """Return the arrays whose names begin with `prefix`, without it."""
    return {name.removeprefix(prefix): values for name, values in arrays.items() if name.startswith(prefix)}


def backward(loss: Tensor) -> None:
    """Compute the gradients of `loss`.

    Raises:
        NetworkError: an operator has no gradient.
        MemoryError: there is not enough memory.
    """
    if not loss.requires_grad:
        raise NetworkError("Nothing flows from the weights that are trained to the outputs of the network.")
    try:
        loss.backward()
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise MemoryError("for gradients") from error
        detail = " ".join(str(error).split())[:200].rstrip(". ")
        raise NetworkError(f"torch cannot differentiate the network: {detail}.") from error


def require_finite(loss: float, number: int) -> None:
    """Refuse a loss that is not finite.

    Raises:
        NetworkError: it is not.
    """
    if not math.isfinite(loss):
        raise NetworkError(f"The loss is not a number in step {number + 1}; choose a smaller learning rate.")


def saved_bytes(run: Callable[[], object]) -> int:
    """Return the bytes of all tensors that one forward pass keeps for the backward pass."""
    seen: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        seen[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        kept = run()
    del kept
    return sum(seen.values())
