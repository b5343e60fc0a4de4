"""Where noise is made, what a layer inherits, and which samples pay for it.

Three questions about each layer, all asked at its own output as it is stored (behind the quantizer that stands there):
what this layer alone adds (the rest is float), what comes in with its inputs (all but this layer quantized), and what
both make together (the configuration itself). A layer inside the body of an If or Loop is seen at the output of the
node that holds the body, as what is inside cannot be fetched.

In a batch the float and the quantized network stream their layers' outputs side by side, so both are held for no longer
than a segment takes. What a layer inherits takes nothing but the layer itself, run float on what the quantized network
feeds it. What a layer alone does takes its segment and what lies behind it, and the same run tells what it does to the
network's outputs.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from quantgui.analysis.evaluation import Tally
from quantgui.analysis.samples import CarriedSamples
from quantgui.analysis.simulation import Grids, Ranges, as_stored, build_simulation, seen_quantizer, through
from quantgui.errors import DataError
from quantgui.network.batch import Batch, carry
from quantgui.network.cache import ByteCache
from quantgui.network.executor import Executor, Part
from quantgui.network.segments import part_of
from quantgui.network.simulation import FLOAT_SIMULATION, Simulation
from quantgui.numerics.metrics import energies
from quantgui.numerics.statistics import decibels
from quantgui.results import (
    ActivationReady,
    Array,
    Event,
    LayerInfo,
    LayerNoise,
    NoiseReady,
    Progress,
)
from quantgui.spec.config import QuantConfig
from quantgui.spec.quantizer import FLOAT

TRACED_SAMPLES = 64
"""Samples traced unless asked otherwise: enough to see which samples suffer, at about half a forward per layer."""
BATCH_SAMPLES = 8
"""Small batches: the first numbers come early, and few samples' activations are held at a time."""
_PARTS_BYTES, _SESSION_BYTES = 128 * 2**20, 2**20
"""Memory for the sessions of single layers, and about what one takes beside its weights."""
_CHAINS = 4
"""Chains of sessions that are used in every batch: float and quantized, each with layers' outputs and without."""


def trace_noise(
    executor: Executor,
    dataset: CarriedSamples,
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


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a layer is seen: the tensor, the nodes of the main graph that make it, and what they read.

    `data` is the one input among those that holds the data, `reader` the node that reads it; empty where it is not
    clear which.
    """

    tensor: str
    nodes: frozenset[str] = frozenset()
    inputs: frozenset[str] = frozenset()
    data: str = ""
    reader: str = ""


@dataclass(eq=False)
class _Seen:
    """Energies at a layer's output, summed over samples: of the float values, and of each kind of noise."""

    signal: float = 0.0
    own: float = 0.0
    inherited: float = 0.0
    total: float = 0.0
    input_signal: float = 0.0
    input_noise: float = 0.0
    damage: list[Array] = field(default_factory=list)
    flips: list[Array] = field(default_factory=list)


@dataclass(eq=False)
class _Trace:
    """A trace under way."""

    executor: Executor
    dataset: CarriedSamples
    config: QuantConfig
    activations: Mapping[str, ActivationReady]
    wanted: int | None
    ranges: Ranges

    def __post_init__(self) -> None:
        network = self.executor.network
        available = self.dataset.summary.samples
        self.total = min(TRACED_SAMPLES if self.wanted is None else self.wanted, available)
        self.layers = network.summary.layers
        self.places = {layer.name: self._place(layer) for layer in self.layers}
        self.seen = {layer.name: _Seen() for layer in self.layers}
        self.alone: dict[str, Simulation] = {}
        self.without: dict[str, Simulation] = {}
        self.parts: ByteCache[Part] = ByteCache(_PARTS_BYTES)
        self.states: dict[str, Mapping[str, Array]] = {}
        self.flipped: list[Array] = []
        self.samples = 0
        self.has_classes = False
        self.tally = Tally(network, self.total, thorough=False)
        self.grids: Grids = {}
        self.whole = self._simulation(self.config)

    def events(self) -> Iterator[Event]:
        yield from self._prepare()
        started = time.perf_counter()
        label = f"Tracing noise on {self.total} samples"
        try:
            for batch in self.dataset.batches(BATCH_SAMPLES, self.total):
                for share in self._trace(batch):
                    done = (batch.first + share * batch.samples) / self.total
                    left = (time.perf_counter() - started) * (1 / done - 1) if done > 0 else None
                    yield Progress(math.floor(self.total * done), self.total, label, left)
                yield self._ready()
        finally:
            tensors = {place.tensor for place in self.places.values()}
            for simulation in self.alone.values():
                self.executor.forget(simulation, fetch=tensors)

    def _prepare(self) -> Iterator[Event]:
        """Say what each layer alone is, and everything without it."""
        for place, layer in enumerate(self.layers):
            yield Progress(place, len(self.layers), "Preparing to trace noise")
            alone = self._simulation(QuantConfig().with_overrides({layer.name: self.config.spec_for(layer.name)}))
            if alone.weights or alone.quantizers:
                self.alone[layer.name] = alone
                self.without[layer.name] = self._simulation(self.config.with_overrides({layer.name: FLOAT}))

    def _simulation(self, config: QuantConfig) -> Simulation:
        network = self.executor.network
        return build_simulation(network, config, self.activations, ranges=self.ranges, grids=self.grids)

    def _place(self, layer: LayerInfo) -> _Place:
        """Return where a layer is seen: at its output, or that of the main graph's node whose body it is in."""
        graph, name = self.executor.network.skeleton.graph, layer.scope[0] if layer.scope else layer.node
        node = next((node for node in graph.node if node.name == name), None)
        if node is None:
            return _Place("")
        made = [tensor for tensor in node.output if tensor]
        tensor = layer.output_tensor if layer.output_tensor and not layer.scope else next(iter(made), "")
        if not tensor or not self.executor.fetchable(tensor):
            return _Place("")
        nodes = {name, *(each.name for each in graph.node if tensor in each.output)}
        part = part_of(self.executor.network, nodes, tensor)
        readable = len(part.nodes) == len(nodes) and all(self.executor.fetchable(each) for each in part.inputs)
        if not readable:
            return _Place(tensor)
        data = layer.input_tensor or next((each for each in node.input if each in part.inputs), "")
        clear = data in part.inputs and not layer.scope
        return _Place(tensor, frozenset(nodes), frozenset(part.inputs), *((data, name) if clear else ("", "")))

    # --- one batch -----------------------------------------------------------------------------------------------

    def _trace(self, batch: Batch) -> Iterator[float]:
        """Add what one batch tells; yield the share that is done."""
        float_batch, whole_batch = carry(batch, self.states.get("float")), carry(batch, self.states.get("whole"))
        yield 0.0
        outputs = self.executor.run(float_batch)
        yield 0.0
        answers = self.executor.run(whole_batch, self.whole)
        self._keep_state("float", outputs)
        self._keep_state("whole", answers)
        self.flipped.append(self._output_damage(batch, outputs, answers)[1])
        steps = len(self.layers) + 2
        done = 2
        yield done / steps
        for tensor, references, values in self._side_by_side(float_batch, whole_batch):
            for layer in self.layers:
                if self.places[layer.name].tensor == tensor:
                    self._trace_layer(batch, layer, outputs, references, values)
                    done += 1
                    yield done / steps
        for layer in self.layers:
            if not self.places[layer.name].tensor:
                self._damage_of(batch, layer, outputs)
        self.samples += batch.samples

    def _side_by_side(
        self, float_batch: Batch, whole_batch: Batch
    ) -> Iterator[tuple[str, Mapping[str, Array], Mapping[str, Array]]]:
        """Yield each tensor at which layers are seen, once it and what its layers read are there.

        With it come the tensors of the float and of the quantized network; they are dropped as soon as no layer needs
        them any more.
        """
        needs: dict[str, tuple[set[str], set[str]]] = {}
        for place in self.places.values():
            if place.tensor:
                in_float, in_whole = needs.setdefault(place.tensor, ({place.tensor}, {place.tensor}))
                in_float |= {place.data} - {""}
                in_whole |= place.inputs
        wanted = [sorted(set().union(*(each[side] for each in needs.values()))) for side in (0, 1)]
        floats = self.executor.stream(float_batch, FLOAT_SIMULATION, wanted[0])
        references: dict[str, Array] = {}
        values: dict[str, Array] = {}
        for name, value in self.executor.stream(whole_batch, self.whole, wanted[1]):
            values[name] = value
            # The float network keeps pace: both hold about the same at any time.
            while name in wanted[0] and name not in references and (item := next(floats, None)) is not None:
                references[item[0]] = item[1]
            for each in [t for t, (a, b) in needs.items() if a <= references.keys() and b <= values.keys()]:
                yield each, references, values
                del needs[each]
            for side, held in enumerate((references, values)):
                for unneeded in held.keys() - set().union(*(each[side] for each in needs.values())):
                    del held[unneeded]

    def _trace_layer(
        self,
        batch: Batch,
        layer: LayerInfo,
        outputs: Mapping[str, Array],
        references: Mapping[str, Array],
        values: Mapping[str, Array],
    ) -> None:
        """Add what a batch tells of one layer, from tensors of the float and of the quantized network."""
        seen, place = self.seen[layer.name], self.places[layer.name]
        reference = batch.split(references[place.tensor])
        stored = as_stored(values[place.tensor], self.whole.quantizers.get(place.tensor, ()))
        signal, total = _energies(reference, batch.split(stored))
        seen.signal += signal
        seen.total += total
        self._trace_input(batch, layer, references, values)
        alone = self._damage_of(batch, layer, outputs)
        if alone is None:
            # A float layer adds nothing to what it inherits.
            seen.inherited += total
            return
        seen.own += _energies(reference, batch.split(alone))[1]
        inherited = self._inherited(layer, values)
        seen.inherited += math.nan if inherited is None else _energies(reference, batch.split(inherited))[1]

    def _trace_input(
        self, batch: Batch, layer: LayerInfo, references: Mapping[str, Array], values: Mapping[str, Array]
    ) -> None:
        """Add the noise in what a layer reads, as it comes: what the layer itself does to it is its own."""
        seen, place = self.seen[layer.name], self.places[layer.name]
        if not place.data:
            return
        quantizers = self.without.get(layer.name, self.whole).quantizers.get(place.data, ())
        quantizer = seen_quantizer(quantizers, place.reader)
        value = values[place.data] if quantizer is None else through(quantizer, values[place.data])
        signal, noise = _energies(batch.split(references[place.data]), batch.split(value))
        seen.input_signal += signal
        seen.input_noise += noise

    def _damage_of(self, batch: Batch, layer: LayerInfo, outputs: Mapping[str, Array]) -> Array | None:
        """Run the network with this layer alone quantized; return what it is seen at, None where it is float."""
        seen, tensor = self.seen[layer.name], self.places[layer.name].tensor
        simulation = self.alone.get(layer.name)
        if simulation is None:
            seen.damage.append(np.zeros(batch.samples, np.float32))
            seen.flips.append(np.zeros(batch.samples, bool))
            return None
        own_batch = carry(batch, self.states.get(layer.name))
        results = self.executor.run(own_batch, simulation, (tensor,) if tensor else (), keep=False)
        self._keep_state(layer.name, results)
        if not self._keeps_sessions():
            self.executor.forget(simulation, fetch=(tensor,))
        damage, flips = self._output_damage(batch, outputs, results)
        seen.damage.append(damage)
        seen.flips.append(flips)
        # The network's outputs come as they are stored already.
        quantizers = () if tensor in outputs else simulation.quantizers.get(tensor, ())
        return as_stored(results[tensor], quantizers) if tensor else None

    def _inherited(self, layer: LayerInfo, values: Mapping[str, Array]) -> Array | None:
        """Run this layer float on what the quantized network feeds it; None where it cannot be run alone."""
        place, simulation = self.places[layer.name], self.without[layer.name]
        if not place.nodes:
            return None
        part = self.parts.get(layer.name)
        if part is None:
            part = self.executor.part(place.nodes, place.tensor, simulation)
            if part is None:
                return None
            self.parts.put(layer.name, part, _SESSION_BYTES + self.executor.network.weight(layer).nbytes)
        return as_stored(part.run(values), simulation.quantizers.get(place.tensor, ()))

    def _keeps_sessions(self) -> bool:
        """Return whether there is room for a session of each layer alone; used in turn, a part of them is no use."""
        weights = sum(values.nbytes for values in self.executor.network.constants.values())
        segments = max(self.executor.segment_count, 1)
        # A session holds the weights as they are, and as they have been changed.
        chain = segments * _SESSION_BYTES + 2 * weights
        return len(self.alone) * chain // segments + _CHAINS * chain <= self.executor.session_budget

    def _keep_state(self, whose: str, results: Mapping[str, Array]) -> None:
        states = set(self.dataset.carried.values())
        if states:
            self.states[whose] = {name: results[name] for name in states}

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
        return NoiseReady(
            config=self.config,
            layers=tuple(self._noise(layer) for layer in self.layers),
            samples=self.samples,
            damage=damage.astype(np.float32),
            flips=flips.astype(bool),
            flipped=np.concatenate(self.flipped),
            has_classes=self.has_classes,
            complete=self.samples >= self.total,
        )

    def _noise(self, layer: LayerInfo) -> LayerNoise:
        seen, tensor = self.seen[layer.name], self.places[layer.name].tensor
        if not tensor:
            own = math.nan if layer.name in self.alone else math.inf
            return LayerNoise(layer.name, "", own, math.nan, math.nan)
        own, total = decibels(seen.signal, seen.own), decibels(seen.signal, seen.total)
        inherited = math.nan if math.isnan(seen.inherited) else decibels(seen.signal, seen.inherited)
        before = decibels(seen.input_signal, seen.input_noise) if self.places[layer.name].data else math.nan
        return LayerNoise(layer.name, tensor, own, inherited, total, before)


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
