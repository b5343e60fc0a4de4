"""Cheap guesses of how sensitive the network is to each layer, all of them for the price of a few forwards.

A proxy is a number in dB for every candidate of a sweep, larger is less harmful. What each of them looks at:

- `WEIGHT_SQNR`: the weight alone (`sensitivity` computes it).
- `INPUT_WEIGHTED_SQNR`: the same, each element weighted by the mean square of the input that multiplies it.
- `OWN_OUTPUT_SQNR`: the layer's own output, run alone on the float network's activations. The only one that sees
  quantized activations.
- `GRADIENT_SQNR`: the outputs of the network, to first order (see `gradient_proxy`). It needs PyTorch.

They are computed on few samples, of the float network, whatever the present configuration is. What a proxy cannot say
is NaN; `Proxies.notes` says why.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import numpy as np

from quantgui.analysis.importance import Activations
from quantgui.analysis.layer_alone import LayerAlone, LayerNode, input_moments, layer_nodes, with_part
from quantgui.analysis.simulation import Grids, fake_quantized, seen_quantizer, through
from quantgui.analysis.weight_grids import NO_ACTIVATIONS
from quantgui.errors import NetworkError
from quantgui.network.batch import Batch, carry
from quantgui.network.differentiation import differentiable, torch_is_loaded
from quantgui.network.executor import Executor
from quantgui.network.network import Network
from quantgui.network.session import release_memory
from quantgui.network.simulation import FLOAT_SIMULATION, TensorQuantizer
from quantgui.numerics.statistics import decibels
from quantgui.results import Array, LayerInfo, Progress
from quantgui.spec.quantizer import LayerSpec

if TYPE_CHECKING:
    from quantgui.network.differentiable import DifferentiableNetwork

WEIGHT_SQNR = "weight_sqnr_db"
INPUT_WEIGHTED_SQNR = "input_weighted_sqnr_db"
OWN_OUTPUT_SQNR = "own_output_sqnr_db"
GRADIENT_SQNR = "gradient_sqnr_db"
PROXIES = (WEIGHT_SQNR, INPUT_WEIGHTED_SQNR, OWN_OUTPUT_SQNR, GRADIENT_SQNR)

ALONE_SAMPLES = 2
"""Samples on which layers run alone: errors of layers differ by much more than those of samples."""
GRADIENT_SAMPLES = 8
"""Samples whose outputs are differentiated, one at a time: each tells of one random direction of the outputs."""
_LEAST_DIFFERENTIATED = 3
_MEASURED_PER_GUESSED = 6
"""Samples that must be measured for each one that is differentiated: a guess as dear as the number is none."""
_WORTH_LOADING = 3.0
"""Seconds of measuring from which on PyTorch, which takes one or two to load, is loaded for a guess."""
_MEASURED_SOONER = (
    "There is no gradient proxy: to measure everything takes hardly longer than to load PyTorch, which it needs."
)

Key = Hashable
"""What the candidates are called by whoever asks."""


class ProxyData(Protocol):
    """What proxies need of `network.datasets.Dataset`."""

    def batches(self, batch_size: int | None = None, samples: int | None = None) -> Iterator[Batch]: ...


@dataclass(frozen=True, eq=False)
class Change:
    """What is to be guessed: a layer, what becomes of its weight, and how its node sees its input."""

    key: Key
    layer: LayerInfo
    spec: LayerSpec
    quantizers: Mapping[str, tuple[TensorQuantizer, ...]]


@dataclass(frozen=True, eq=False)
class Proxies:
    """The guesses for each candidate by proxy, why some are missing, and what they took."""

    values: Mapping[Key, Mapping[str, float]]
    notes: tuple[str, ...] = ()
    seconds: float = 0.0


def guess(
    network: Network,
    dataset: ProxyData,
    candidates: Sequence[Change],
    grids: Grids,
    activations: Activations = NO_ACTIVATIONS,
    *,
    threads: int = 2,
    measured: int | None = None,
    seconds: float = math.inf,
) -> Generator[Progress, None, Proxies]:
    """Yield Progress and return what the proxies say; all but `WEIGHT_SQNR`.

    Args:
        network: the float network.
        dataset: the first samples of it are used.
        candidates: what to guess, those of a layer one after the other.
        grids: scales and zero points of weights, looked up and kept.
        activations: statistics that ranges of weights may depend on.
        threads: threads within an operator.
        measured: samples on which the candidates will be measured, where they are few; less is differentiated then.
        seconds: what measuring them will take; torch is not loaded for a guess that takes as long.

    Raises:
        NetworkError: the network cannot be run.
    """
    differentiated = GRADIENT_SAMPLES
    if measured is not None:
        differentiated = max(_LEAST_DIFFERENTIATED, measured // _MEASURED_PER_GUESSED)
    started = time.perf_counter()
    work = _Guess(network, dataset, candidates, grids, activations, threads, min(GRADIENT_SAMPLES, differentiated))
    try:
        yield from work.layers_alone()
        if seconds < _WORTH_LOADING and not torch_is_loaded():
            work.notes.append(_MEASURED_SOONER)
        else:
            yield from work.gradients()
        values, notes = work.values, tuple(dict.fromkeys(work.notes))
    finally:
        del work
        release_memory()
    return Proxies(values, notes, time.perf_counter() - started)


@dataclass(eq=False)
class _Sums:
    """Energies of a layer's output in the float network, and of each candidate's noise there.

    The weighted ones are sums over the elements of the weight, of their squares times those of their inputs.
    """

    signal: float = 0.0
    weighted_signal: float = math.nan
    noise: dict[Key, float] = field(default_factory=dict)
    weighted_noise: dict[Key, float] = field(default_factory=dict)


@dataclass(eq=False)
class _Guess:
    """Proxies under way."""

    network: Network
    dataset: ProxyData
    candidates: Sequence[Change]
    grids: Grids
    activations: Activations
    threads: int
    differentiated: int

    def __post_init__(self) -> None:
        # One of its own: sessions that return what is inside are of no use to anyone else, and go with it.
        self.executor = Executor(self.network, cache_bytes=0, threads=self.threads)
        self.by_layer: dict[str, list[Change]] = {}
        for each in self.candidates:
            if not each.layer.read_only and each.layer.finite:
                self.by_layer.setdefault(each.layer.name, []).append(each)
        self.layers = {name: found[0].layer for name, found in self.by_layer.items()}
        self.values: dict[Key, dict[str, float]] = {each.key: {} for each in self.candidates}
        self.notes: list[str] = []

    def quantized(self, candidate: Change) -> Array:
        """Return the values of a candidate's weight, in the layer's shape."""
        weight = self.network.weight(candidate.layer)
        if candidate.spec.weights is None:
            return weight
        return fake_quantized(self.network, candidate.layer, candidate.spec.weights, self.grids, self.activations)

    # --- each layer alone ----------------------------------------------------------------------------------------

    def layers_alone(self) -> Iterator[Progress]:
        """Find the errors at each layer's own output, and those weighted by the inputs."""
        nodes = layer_nodes(self.network, self.layers)
        alone = [LayerAlone(self.network, node, self.threads) for users in nodes.values() for node in users]
        sums = {name: _Sums() for name in self.layers}
        done, samples = 0, 0
        for batch, name_values in self._captured({name for each in alone for name in each.node.inputs}):
            values: dict[str, Array] = {}
            waiting = list(alone)
            done = 0
            for name, value in name_values:
                values[name] = value
                ready = [each for each in waiting if all(needed in values for needed in each.node.inputs)]
                for each in ready:
                    yield Progress(done, len(alone), f"Running layers alone on {samples + batch.samples} samples")
                    done += 1
                    yield from self._run_alone(each, values, sums[each.node.layer.name])
                waiting = [each for each in waiting if each not in ready]
                needed = {name for each in waiting for name in each.node.inputs}
                for old in [old for old in values if old not in needed]:
                    del values[old]
            samples += batch.samples
        for layer, found in self.by_layer.items():
            self._conclude(found, sums[layer])
        if any(not each.noise for each in sums.values()):
            self.notes.append("Layers inside of If or Loop that no sample reached have no errors of their own output.")

    def _captured(self, names: set[str]) -> Iterator[tuple[Batch, Iterator[tuple[str, Array]]]]:
        """Yield each batch with the tensors `names` in the float network."""
        outer = sorted(name for name in names if self.executor.fetchable(name))
        inner = sorted(names - set(outer))
        torch_network = self._differentiable() if inner else None
        states: Mapping[str, Array] | None = None
        for batch in self.dataset.batches(ALONE_SAMPLES, ALONE_SAMPLES):
            stated = carry(batch, states)

            def fetched(stated: Batch = stated) -> Iterator[tuple[str, Array]]:
                yield from self.executor.stream(stated, FLOAT_SIMULATION, outer)
                if torch_network is not None:
                    yield from _fetched_inside(torch_network, stated, inner)

            yield batch, fetched()
            if batch.carried:
                states = self.executor.run(stated)

    def _run_alone(self, alone: LayerAlone, values: Mapping[str, Array], sums: _Sums) -> Iterator[Progress]:
        """Add what one operator makes of its inputs with each candidate's weight; yield in between."""
        layer = alone.node.layer
        weight = self.network.weight(layer)
        reference = alone.run(values, self.network.constants[layer.weight])
        moments = input_moments(alone.node, values, reference)
        sums.signal += _energy(reference)
        if moments is not None:
            before = 0.0 if math.isnan(sums.weighted_signal) else sums.weighted_signal
            sums.weighted_signal = before + _weighted(weight, moments)
        for candidate in self.by_layer[layer.name]:
            yield Progress(0, 0, f"Running {layer.name} alone")
            key, changed = candidate.key, self.quantized(candidate)
            output = alone.run(self._seen(candidate, alone.node, values), with_part(self.network, layer, changed))
            sums.noise[key] = sums.noise.get(key, 0.0) + _energy(output - reference)
            if moments is not None and candidate.spec.weights is not None:
                sums.weighted_noise[key] = sums.weighted_noise.get(key, 0.0) + _weighted(changed - weight, moments)

    @staticmethod
    def _seen(candidate: Change, node: LayerNode, values: Mapping[str, Array]) -> Mapping[str, Array]:
        """Return what the node reads, its data quantized as the candidate says."""
        if candidate.spec.activations is None:
            return values
        seen = {name: seen_quantizer(candidate.quantizers.get(name, ()), node.node.name) for name in node.inputs}
        return {name: values[name] if q is None else through(q, values[name]) for name, q in seen.items()}

    def _conclude(self, found: Sequence[Change], sums: _Sums) -> None:
        for candidate in found:
            said, key = self.values[candidate.key], candidate.key
            said[OWN_OUTPUT_SQNR] = _decibels(sums.signal, sums.noise.get(key, math.nan))
            if key in sums.weighted_noise:
                said[INPUT_WEIGHTED_SQNR] = _decibels(sums.weighted_signal, sums.weighted_noise[key])

    # --- the network to first order ------------------------------------------------------------------------------

    def _differentiable(self) -> DifferentiableNetwork | None:
        """Return the network in torch; None, with a note, where there is none."""
        try:
            return differentiable(self.network)
        except NetworkError as error:
            self.notes.append(f"There is no gradient proxy. {error}")
            return None

    def gradients(self) -> Iterator[Progress]:
        """Find the noise at the network's outputs to first order."""
        candidates = [each for found in self.by_layer.values() for each in found if each.spec.weights is not None]
        if not candidates or (network := self._differentiable()) is None:
            return
        yield Progress(0, 0, "Differentiating the network")
        from quantgui.analysis.gradient_proxy import first_order_sqnr

        changes: dict[str, list[tuple[Key, Callable[[], Array]]]] = {}
        for each in candidates:
            changes.setdefault(each.layer.name, []).append((each.key, _change(self, each)))
        try:
            found = yield from first_order_sqnr(network, self._single_samples(), self.layers, changes)
        except NetworkError as error:
            self.notes.append(f"There is no gradient proxy. {error}")
            return
        for key, value in found.items():
            self.values[key][GRADIENT_SQNR] = value

    def _single_samples(self) -> Iterator[Batch]:
        states: Mapping[str, Array] | None = None
        for batch in self.dataset.batches(1, self.differentiated):
            stated = carry(batch, states)
            yield stated
            if batch.carried:
                states = self.executor.run(stated)


def _change(work: _Guess, candidate: Change) -> Callable[[], Array]:
    def change() -> Array:
        values = work.quantized(candidate)
        return np.asarray(np.subtract(values, work.network.weight(candidate.layer), out=values))

    return change


def _fetched_inside(network: DifferentiableNetwork, batch: Batch, names: Sequence[str]) -> Iterator[tuple[str, Array]]:
    import torch

    with torch.no_grad():
        found = network.run(batch.inputs, fetch=names)
    for name in names:
        if name in found:
            yield name, found[name].numpy()


def _energy(values: Array) -> float:
    # BLAS adds in blocks, so float32 is exact enough here, and takes a third of the time.
    flat = values.reshape(-1).astype(np.float32, copy=False)
    return float(flat @ flat)


def _weighted(values: Array, moments: Array) -> float:
    """Return the sum of the squares of a weight, or of its change, each times the mean square of its input."""
    return float((np.square(values, dtype=np.float32) * moments.astype(np.float32)).sum(dtype=np.float64))


def _decibels(signal: float, noise: float) -> float:
    return decibels(signal, noise) if math.isfinite(signal) and math.isfinite(noise) else math.nan
