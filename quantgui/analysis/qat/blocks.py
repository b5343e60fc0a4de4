"""Training piece by piece: each learns to give what the float network gives there, from what it really gets.

The network is cut where few bytes cross (`network.segments`), and around operators that cannot be differentiated;
pieces that hold one of those, or nothing to train, are left as they are. Pieces are trained in their order, so each
makes up for the errors of those before it. What goes into a piece is computed once, by ONNX Runtime. Gradients flow
through one piece only, which takes little memory. Where recurrent state goes from sample to sample, it is that of the
float network that goes into a piece: a piece learns to give the next state back too, so that in the end they agree. It
imports torch.

Source of the idea: Y. Li et al., "BRECQ: Pushing the limit of post-training quantization by block reconstruction",
2021.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import onnx
import torch

from quantgui.analysis.qat.course import OnceQuantized, backward, kept_arrays, require_finite, set_kept
from quantgui.analysis.qat.network import Parameter, TrainableNetwork
from quantgui.analysis.qat.optimizer import Adam, rate_at
from quantgui.analysis.qat.samples import Samples
from quantgui.analysis.simulation import build_simulation
from quantgui.errors import DataError, NetworkError
from quantgui.network.batch import Batch, carry
from quantgui.network.differentiable import DifferentiableNetwork, is_covered, uncovered_operators
from quantgui.network.executor import Executor
from quantgui.network.network import Network
from quantgui.network.segments import Segment, choose_cuts, split, tensor_types, traced_shapes
from quantgui.network.simulation import FLOAT_SIMULATION, Simulation
from quantgui.network.trained import TrainedState
from quantgui.results import ActivationReady, Array, Progress
from quantgui.spec.config import QuantConfig
from quantgui.spec.training import Training

_STORED_SHARE: Final = 2
"""Part of the executor's memory for what goes into a piece and should come out."""
_TINY: Final = 1e-12


@dataclass(frozen=True, eq=False)
class _Piece:
    """A piece that is trained, and what is trained in it: nothing that a piece before it uses."""

    network: DifferentiableNetwork
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    layers: tuple[str, ...]
    parameters: Mapping[str, Parameter]


@dataclass(frozen=True, eq=False)
class _Lesson:
    """One batch of a piece: what goes in, what should come out, and how many samples it has."""

    inputs: Mapping[str, Array]
    targets: Mapping[str, Array]
    samples: int

    @property
    def nbytes(self) -> int:
        return sum(values.nbytes for values in (*self.inputs.values(), *self.targets.values()))


def open_blocks(
    executor: Executor,
    samples: Samples,
    trainable: TrainableNetwork,
    activations: Mapping[str, ActivationReady],
    training: Training,
) -> Generator[Progress, None, Blocks]:
    """Yield Progress and return the course of a training piece by piece.

    Raises:
        DataError: labels are to teach.
        NetworkError: no piece can be trained.
    """
    if training.teacher == "labels":
        raise DataError("Pieces of a network learn from the float network; labels teach the whole network only.")
    batch = samples.batch(samples.first(training.batch_size))
    segments = _segments(executor.network, batch, executor.threads)
    yield Progress(0, training.steps, "Cutting the network")
    pieces, notes = _pieces(executor.network, trainable, segments)
    if not pieces:
        raise NetworkError("No piece of the network can be trained: all hold operators that cannot be differentiated.")
    return Blocks(executor, samples, trainable, activations, training, pieces, (*notes, *trainable.notes()))


def _segments(network: Network, batch: Batch, threads: int) -> Sequence[Segment]:
    types = tensor_types(network)
    shapes = traced_shapes(network, types, batch.inputs, threads=threads)
    cuts = set(choose_cuts(network, types, shapes, batch.rows or batch.samples))
    nodes = network.skeleton.graph.node
    for place, node in enumerate(nodes):
        if not is_covered(node):
            cuts |= {place, place + 1}
    return split(network, sorted(cuts - {0, len(nodes)}))


def _pieces(
    network: Network, trainable: TrainableNetwork, segments: Sequence[Segment]
) -> tuple[list[_Piece], tuple[str, ...]]:
    by_weight: dict[str, list[str]] = {}
    for name in trainable.layers:
        by_weight.setdefault(network.layers[name].weight, []).append(name)
    pieces: list[_Piece] = []
    claimed: set[str] = set()
    left: list[str] = []
    operators: set[str] = set()
    for segment in segments:
        layers = [name for weight in sorted(segment.initializers) for name in by_weight.get(weight, ())]
        own = _cut_out(network, segment)
        if uncovered := uncovered_operators(own):
            operators |= set(uncovered)
            left += layers
            continue
        piece = DifferentiableNetwork(own)
        parameters = {n: each for n, each in trainable.trained_in(piece).items() if n not in claimed}
        claimed |= parameters.keys()
        if layers and segment.outputs and any(name.startswith("weight:") for name in parameters):
            pieces.append(_Piece(piece, segment.inputs, segment.outputs, tuple(layers), parameters))
    notes = []
    if operators:
        kept = f"; {len(left)} layers stay as they are" if left else ""
        notes.append(f"Pieces with {', '.join(sorted(operators))} cannot be differentiated{kept}.")
    return pieces, tuple(notes)


def _cut_out(network: Network, segment: Segment) -> Network:
    """Return a segment as a network of its own; its tensors keep their names."""
    graph = onnx.GraphProto(name="piece", node=segment.nodes)
    graph.input.extend(onnx.ValueInfoProto(name=name) for name in segment.inputs)
    graph.output.extend(onnx.ValueInfoProto(name=name) for name in segment.outputs)
    graph.initializer.extend(onnx.TensorProto(name=name) for name in sorted(segment.initializers))
    skeleton = onnx.ModelProto(graph=graph, opset_import=network.skeleton.opset_import)
    return Network(network.summary, skeleton, network.constants, whole=network)


@dataclass(eq=False)
class Blocks:
    """The course of a training piece by piece; every piece gets the same number of steps."""

    executor: Executor
    samples: Samples
    trainable: TrainableNetwork
    activations: Mapping[str, ActivationReady]
    training: Training
    pieces: Sequence[_Piece]
    notes: tuple[str, ...]
    _place: int = -1
    _lessons: list[_Lesson] = field(default_factory=list)
    _energies: dict[str, float] = field(default_factory=dict)
    _adam: Adam | None = None
    _kept_optimizer: tuple[int, Mapping[str, Array]] | None = None

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the layers that are trained."""
        found = {name for piece in self.pieces for name in piece.layers}
        return tuple(name for name in self.trainable.layers if name in found)

    def step(self, number: int) -> Iterator[float | None]:
        """Do the step `number` (from 0); yield None now and then, and its loss at the end."""
        each = max(1, self.training.steps // len(self.pieces))
        place = min(number // each, len(self.pieces) - 1)
        steps = each if place < len(self.pieces) - 1 else max(self.training.steps - place * each, 1)
        if place != self._place:
            yield from self._enter(place)
        assert self._adam is not None
        piece, own = self.pieces[place], number - place * each
        weights = OnceQuantized(self.trainable.weights_of(piece.network))
        chosen = self._chosen(own)
        total = 0.0
        for lesson in chosen:
            outputs = self.trainable.run(piece.network, lesson.inputs, weights.leaves)
            errors = [
                (outputs[name] - torch.from_numpy(np.array(target))).float().square().mean() / self._energies[name]
                for name, target in lesson.targets.items()
            ]
            loss = torch.stack(errors).mean() / len(chosen)
            yield None
            backward(loss)
            total += float(loss.detach())
            yield None
        weights.backward()
        require_finite(total, number)
        for name, parameter in self.trainable.parameters.items():
            if name not in piece.parameters:
                parameter.value.grad = None
        self._adam.step(rate_at(own, steps, self.training.learning_rate))
        yield total

    def state(self) -> TrainedState:
        """Return what is to be kept of all layers."""
        return self.trainable.state()

    def configured(self, state: str) -> QuantConfig:
        """Return the configuration whose weights are kept under the name `state`."""
        return self.trainable.configured(state)

    def arrays(self) -> dict[str, Array]:
        """Return all that is needed to go on from here."""
        place, optimizer = self._kept_optimizer or (self._place, {} if self._adam is None else self._adam.arrays())
        return {**kept_arrays(self.trainable, optimizer), "place": np.array(place)}

    def set_arrays(self, arrays: Mapping[str, Array]) -> None:
        """Go on from where `arrays` were taken."""
        self._place, self._adam = -1, None
        self._kept_optimizer = int(arrays["place"]), set_kept(self.trainable, arrays)

    # --- one piece -----------------------------------------------------------------------------------------------

    def _enter(self, place: int) -> Iterator[None]:
        """Compute what goes into a piece and what should come out."""
        piece, states = self.pieces[place], self.executor.network.states
        name, is_new = states.keep(self.trainable.state())
        simulation = build_simulation(self.executor.network, self.trainable.configured(name), self.activations)
        self._lessons = []
        size = self.executor.cache_bytes // _STORED_SHARE
        most = self.samples.most or min(self.training.batch_size, 8)
        order = self.samples.drawn(0, len(self.samples.indices), self.training.seed)
        if self.samples.is_carried:
            order = self.samples.indices
        state: Mapping[str, Array] | None = None
        for part in self.samples.pieces(order, most):
            lesson, state = self._lesson(piece, carry(self.samples.batch(part), state), simulation)
            if self._lessons and lesson.nbytes * (len(self._lessons) + 1) > size:
                break
            self._lessons.append(lesson)
            yield None
        self.executor.forget(simulation)
        if is_new:
            states.drop(name)
        self._energies = {
            output: max(float(np.square(values, dtype=np.float64).mean()), _TINY)
            for output, values in self._lessons[0].targets.items()
        }
        self._adam = Adam(piece.parameters)
        if self._kept_optimizer is not None and self._kept_optimizer[0] == place and self._kept_optimizer[1]:
            self._adam.set_arrays(self._kept_optimizer[1])
        self._place, self._kept_optimizer = place, None

    def _lesson(self, piece: _Piece, batch: Batch, simulation: Simulation) -> tuple[_Lesson, Mapping[str, Array]]:
        """Return a lesson, and the recurrent state behind it, by output."""
        given = {name: batch.inputs[name] for name in piece.inputs if name in batch.inputs}
        wanted = [name for name in piece.inputs if name not in given]
        if wanted:
            given |= dict(self.executor.stream(batch, simulation, wanted))
        states = dict.fromkeys(batch.carried.values())
        made = dict(self.executor.stream(batch, FLOAT_SIMULATION, dict.fromkeys((*piece.outputs, *states))))
        targets = {
            name: np.array(made[name]) for name in piece.outputs if made[name].dtype.kind == "f" and made[name].size
        }
        lesson = _Lesson({name: np.array(values) for name, values in given.items()}, targets, batch.samples)
        return lesson, {name: made[name] for name in states}

    def _chosen(self, step: int) -> list[_Lesson]:
        """Return the batches of a step: each once before any comes again."""
        count = max(1, -(-self.training.batch_size // max(lesson.samples for lesson in self._lessons)))
        total = len(self._lessons)
        places = np.arange(step * count, (step + 1) * count)
        seeds = [self.training.seed, self._place]
        return [
            self._lessons[np.random.default_rng([*seeds, at // total]).permutation(total)[at % total]]
            for at in map(int, places)
        ]
