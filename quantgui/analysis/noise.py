"""Where noise is made, what a layer inherits, and which samples pay for it.

Three questions about each layer, all asked at its own output as it is stored (behind the quantizer that stands there):
what this layer alone adds (the rest is float), what comes in with its inputs (all but this layer quantized), and what
both make together (the configuration itself). A layer inside the body of an If or Loop is seen at the output of the
node that holds the body, as what is inside cannot be fetched.

In a batch the float and the quantized network stream their layers' outputs side by side, so both are held for no longer
than a segment takes. What a layer alone does needs only its segment and what lies behind it, and the same run tells
what it does to the network's outputs; what a layer inherits needs no more than its segment, as everything before it is
what the whole configuration has computed.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from quantgui.analysis.evaluation import Tally
from quantgui.analysis.output_roles import recognise_outputs
from quantgui.analysis.simulation import Grids, Ranges, as_stored, build_simulation
from quantgui.errors import DataError
from quantgui.network.batch import Batch, carry
from quantgui.network.executor import Executor
from quantgui.network.network import Network
from quantgui.network.simulation import FLOAT_SIMULATION, Simulation
from quantgui.numerics.metrics import energies
from quantgui.numerics.statistics import decibels
from quantgui.results import (
    ActivationReady,
    Array,
    DataSummary,
    Event,
    LayerInfo,
    LayerNoise,
    NoiseReady,
    Progress,
    SampleReady,
)
from quantgui.spec.config import QuantConfig
from quantgui.spec.quantizer import FLOAT

TRACED_SAMPLES = 64
"""Samples traced unless asked otherwise: enough to see which samples suffer, at about half a forward per layer."""
BATCH_SAMPLES = 8
"""Small batches: the first numbers come early, and few samples' activations are held at a time."""


class TracedData(Protocol):
    """What tracing needs of `network.datasets.Dataset`."""

    @property
    def summary(self) -> DataSummary: ...
    @property
    def carried(self) -> Mapping[str, str]: ...
    def batches(self, batch_size: int | None = None, samples: int | None = None) -> Iterator[Batch]: ...
    def sample(self, index: int) -> Batch: ...


def trace_noise(
    executor: Executor,
    dataset: TracedData,
    config: QuantConfig,
    activations: Mapping[str, ActivationReady],
    *,
    samples: int | None = None,
    ranges: Ranges | None = None,
) -> Iterator[Event]:
    """Yield a NoiseReady after each mini-batch, Progress in between; the last NoiseReady is complete.

    `samples` is how many to trace, `TRACED_SAMPLES` if None. `ranges` keeps the grids of activations between calls
    (see `build_simulation`). Layers that the configuration leaves float make no noise, so their own is infinite dB.

    Raises:
        DataError: there are no samples, or `activations` lacks a tensor that is quantized.
        NetworkError: the network cannot be run.
    """
    if dataset.summary.samples == 0:
        raise DataError("There is nothing to trace: the data holds no samples.")
    yield from _Trace(executor, dataset, config, activations, samples, {} if ranges is None else ranges).events()


def view_sample(
    executor: Executor,
    dataset: TracedData,
    config: QuantConfig,
    activations: Mapping[str, ActivationReady],
    index: int,
    *,
    ranges: Ranges | None = None,
) -> Iterator[Event]:
    """Yield one SampleReady: sample `index` and what the float and the quantized network make of it.

    A recurrent network goes through all samples before it.

    Raises:
        DataError: there is no such sample, or `activations` lacks a tensor that is quantized.
        NetworkError: the network cannot be run.
    """
    network = executor.network
    simulation = build_simulation(network, config, activations, ranges=ranges)
    first = 0 if dataset.carried else index
    batch = dataset.sample(index)
    before: list[Mapping[str, Array] | None] = [None, None]
    for place in range(first, index + 1):
        yield Progress(place - first, index + 1 - first, f"Running sample {index}")
        batch = dataset.sample(place)
        before = [
            executor.run(carry(batch, outputs), each)
            for outputs, each in zip(before, (FLOAT_SIMULATION, simulation), strict=True)
        ]
    outputs, quantized = ({} if each is None else _of_sample(batch, each) for each in before)
    labels = batch.labels
    answers = {name: values[np.newaxis] for name, values in outputs.items()}
    roles = recognise_outputs(network.skeleton, answers, labels)
    yield SampleReady(
        config=config,
        sample=index,
        inputs=_of_sample(batch, batch.inputs),
        float_outputs=outputs,
        quantized_outputs=quantized,
        label=None if labels is None else np.asarray(labels[0]),
        image_options=dataset.summary.image_options,
        class_axes={name: role.axis - 1 for name, role in roles.items() if role.axis > 0},
    )


def _of_sample(batch: Batch, values: Mapping[str, Array]) -> dict[str, Array]:
    """Return each array of a batch of one sample without the axis of samples; recurrent states are left out."""
    states = {*batch.carried, *batch.carried.values()}
    return {name: np.asarray(batch.split(array)[0]) for name, array in values.items() if name not in states}


def seen_at(network: Network, layer: LayerInfo) -> str:
    """Return the tensor at which the noise of a layer is seen; empty where there is none."""
    if layer.output_tensor and not layer.scope:
        return layer.output_tensor
    name = layer.scope[0] if layer.scope else layer.node
    return next((o for node in network.skeleton.graph.node if node.name == name for o in node.output if o), "")


@dataclass(eq=False)
class _Seen:
    """Energies at a layer's output, summed over samples: of the float values, and of each kind of noise."""

    signal: float = 0.0
    own: float = 0.0
    inherited: float = 0.0
    total: float = 0.0
    damage: list[Array] = field(default_factory=list)
    flips: list[Array] = field(default_factory=list)


@dataclass(eq=False)
class _Trace:
    """A trace under way."""

    executor: Executor
    dataset: TracedData
    config: QuantConfig
    activations: Mapping[str, ActivationReady]
    wanted: int | None
    ranges: Ranges

    def __post_init__(self) -> None:
        network = self.executor.network
        available = self.dataset.summary.samples
        self.total = min(TRACED_SAMPLES if self.wanted is None else self.wanted, available)
        self.layers = network.summary.layers
        self.tensors: dict[str, list[LayerInfo]] = {}
        self.seen = {layer.name: _Seen() for layer in self.layers}
        self.alone: dict[str, Simulation] = {}
        self.without: dict[str, Simulation] = {}
        self.states: dict[object, Mapping[str, Array] | None] = {}
        self.flipped: list[Array] = []
        self.samples = 0
        self.has_classes = False
        self.tally = Tally(network, self.total, thorough=False)
        self.grids: Grids = {}
        self.whole = self._simulation(self.config)

    def events(self) -> Iterator[Event]:
        yield from self._prepare()
        started = time.perf_counter()
        try:
            for batch in self.dataset.batches(BATCH_SAMPLES, self.total):
                for step in self._trace(batch):
                    done = (batch.first + step * batch.samples) / self.total
                    left = (time.perf_counter() - started) * (1 / done - 1) if done > 0 else None
                    yield Progress(round(100 * done), 100, f"Tracing noise on {self.total} samples", left)
                yield self._ready()
        finally:
            for simulation in (*self.alone.values(), *self.without.values()):
                self.executor.forget(simulation, self.whole, fetch=tuple(self.tensors))

    def _prepare(self) -> Iterator[Event]:
        """Say what each layer alone is, and everything without it."""
        network = self.executor.network
        for place, layer in enumerate(self.layers):
            yield Progress(place, len(self.layers), "Preparing to trace noise")
            alone = self._simulation(QuantConfig().with_overrides({layer.name: self.config.spec_for(layer.name)}))
            if alone.weights or alone.quantizers:
                self.alone[layer.name] = alone
                self.without[layer.name] = self._simulation(self.config.with_overrides({layer.name: FLOAT}))
            tensor = seen_at(network, layer)
            self.tensors.setdefault(tensor if self.executor.fetchable(tensor) else "", []).append(layer)

    def _simulation(self, config: QuantConfig) -> Simulation:
        network = self.executor.network
        return build_simulation(network, config, self.activations, ranges=self.ranges, grids=self.grids)

    # --- one batch -----------------------------------------------------------------------------------------------

    def _trace(self, batch: Batch) -> Iterator[float]:
        """Add what one batch tells; yield the share that is done."""
        float_batch, whole_batch = carry(batch, self.states.get("float")), carry(batch, self.states.get("whole"))
        yield 0.0
        outputs = self.states["float"] = self.executor.run(float_batch)
        yield 0.0
        answers = self.states["whole"] = self.executor.run(whole_batch, self.whole)
        _, flips = self._output_damage(batch, outputs, answers)
        self.flipped.append(flips)
        done = 0
        for tensor, reference, answer in self._side_by_side(float_batch, whole_batch):
            pair = batch.split(reference), batch.split(answer)
            for layer in self.tensors[tensor]:
                yield done / len(self.layers)
                self._trace_layer(batch, layer, outputs, tensor, *pair)
                done += 1
        for layer in self.tensors.get("", ()):
            yield done / len(self.layers)
            self._damage_of(batch, layer, outputs, "")
            done += 1
        self.samples += batch.samples

    def _side_by_side(self, float_batch: Batch, whole_batch: Batch) -> Iterator[tuple[str, Array, Array]]:
        """Yield the tensors of the float and of the quantized network, as soon as both are there."""
        names = [name for name in self.tensors if name]
        waiting: dict[str, Array] = {}
        floats = self.executor.stream(float_batch, FLOAT_SIMULATION, names)
        answers = self.executor.stream(whole_batch, self.whole, names)
        for name, answer in answers:
            while name not in waiting and (item := next(floats, None)) is not None:
                waiting[item[0]] = item[1]
            if name in waiting:
                yield name, waiting.pop(name), as_stored(answer, self.whole.quantizers.get(name, ()))

    def _trace_layer(
        self, batch: Batch, layer: LayerInfo, outputs: Mapping[str, Array], tensor: str, reference: Array, answer: Array
    ) -> None:
        seen = self.seen[layer.name]
        signal, total = _energies(reference, answer)
        seen.signal += signal
        seen.total += total
        alone = self._damage_of(batch, layer, outputs, tensor)
        if alone is None:
            # A float layer adds nothing to what it inherits.
            seen.inherited += total
            return
        seen.own += _energies(reference, batch.split(alone))[1]
        seen.inherited += _energies(reference, batch.split(self._without(batch, layer, tensor)))[1]

    def _damage_of(self, batch: Batch, layer: LayerInfo, outputs: Mapping[str, Array], tensor: str) -> Array | None:
        """Run the network with this layer alone quantized; return `tensor`, None where the layer is float."""
        seen = self.seen[layer.name]
        simulation = self.alone.get(layer.name)
        if simulation is None:
            seen.damage.append(np.zeros(batch.samples, np.float32))
            seen.flips.append(np.zeros(batch.samples, bool))
            return None
        fetch = (tensor,) if tensor else ()
        key = ("alone", layer.name)
        results = self.executor.run(carry(batch, self.states.get(key)), simulation, fetch, keep=False)
        self._keep_state(key, results)
        damage, flips = self._output_damage(batch, outputs, results)
        seen.damage.append(damage)
        seen.flips.append(flips)
        if not tensor:
            return None
        # The network's outputs come as they are stored already.
        is_output = tensor in outputs
        return results[tensor] if is_output else as_stored(results[tensor], simulation.quantizers.get(tensor, ()))

    def _without(self, batch: Batch, layer: LayerInfo, tensor: str) -> Array:
        """Return `tensor` with everything but this layer quantized."""
        simulation, key = self.without[layer.name], ("without", layer.name)
        quantizers = simulation.quantizers.get(tensor, ())
        batch = carry(batch, self.states.get(key))
        if not self.dataset.carried:
            ((_, values),) = self.executor.stream(batch, simulation, (tensor,))
            return as_stored(values, quantizers)
        # The next batch needs the state that this one leaves behind.
        results = self.executor.run(batch, simulation, (tensor,), keep=False)
        self._keep_state(key, results)
        outputs = {info.name for info in self.executor.network.summary.outputs}
        return results[tensor] if tensor in outputs else as_stored(results[tensor], quantizers)

    def _keep_state(self, key: object, results: Mapping[str, Array]) -> None:
        states = set(self.dataset.carried.values())
        if states:
            self.states[key] = {name: results[name] for name in states}

    def _output_damage(
        self, batch: Batch, outputs: Mapping[str, Array], answers: Mapping[str, Array]
    ) -> tuple[Array, Array]:
        """Return noise over signal at the network's outputs and whether the top class changes, (samples,) each."""
        self.tally.add(batch, outputs, answers)
        agreement = np.ones(1)
        if "agreement" in self.tally.metrics:
            self.has_classes = True
            agreement = self.tally.rows("agreement").values
        energy = self.tally.take("output_sqnr_db").energy
        ratios = [_each_sample(_ratio(signal, noise), batch.samples) for signal, noise in energy.values()]
        damage = np.mean(ratios, axis=0) if ratios else np.zeros(batch.samples)
        return damage.astype(np.float32), _each_sample(agreement < 1.0, batch.samples)

    # --- what is known -------------------------------------------------------------------------------------------

    def _ready(self) -> NoiseReady:
        empty = np.zeros((0, self.samples))
        damage = (
            np.stack([np.concatenate(self.seen[each.name].damage) for each in self.layers]) if self.layers else empty
        )
        flips = np.stack([np.concatenate(self.seen[each.name].flips) for each in self.layers]) if self.layers else empty
        places = {layer.name: tensor for tensor, layers in self.tensors.items() for layer in layers}
        return NoiseReady(
            config=self.config,
            layers=tuple(self._noise(layer, places[layer.name]) for layer in self.layers),
            samples=self.samples,
            damage=damage.astype(np.float32),
            flips=flips.astype(bool),
            flipped=np.concatenate(self.flipped),
            has_classes=self.has_classes,
            complete=self.samples >= self.total,
        )

    def _noise(self, layer: LayerInfo, tensor: str) -> LayerNoise:
        seen = self.seen[layer.name]
        if not tensor:
            own = math.nan if layer.name in self.alone else math.inf
            return LayerNoise(layer.name, "", own, math.nan, math.nan)
        own, inherited, total = (decibels(seen.signal, noise) for noise in (seen.own, seen.inherited, seen.total))
        return LayerNoise(layer.name, tensor, own, inherited, total)


def _energies(reference: Array, answer: Array) -> tuple[float, float]:
    """Return the energy of float values and of the difference; what is lost counts as noise as large as the signal."""
    signal = noise = 0.0
    for place in range(len(reference)):
        x = reference[place : place + 1]
        y = answer[place : place + 1] if answer.shape == reference.shape else np.full_like(x, np.nan, np.float64)
        finite = np.isfinite(x)
        if not finite.all():
            x, y = np.where(finite, x, 0), np.where(finite, y, 0)
        lost = not np.isfinite(y).all()
        own, difference = energies(x, x if lost else y)
        signal += float(own[0])
        noise += float(own[0] if lost else difference[0])
    return signal, noise


def _ratio(signal: Array, noise: Array) -> Array:
    """Return noise over signal; infinite where there is noise and no signal."""
    return np.divide(noise, signal, out=np.where(noise > 0, np.inf, 0.0), where=signal > 0)


def _each_sample(values: Array, samples: int) -> Array:
    """Return one value per sample; a value of the batch as a whole counts for each."""
    return values if len(values) == samples else np.repeat(values[:1], samples)
