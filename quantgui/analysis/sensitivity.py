"""How sensitive the network is to each layer: one layer changed at a time, the whole network measured.

Numbers come in steps, each better than the one before: the error of the weights alone, and other cheap guesses
(`analysis.proxies`); the metric on few samples
for all candidates; the metric on more samples for those whose order is not certain yet (or for all, if asked).

A candidate costs about the part of the network behind its layer. The samples are taken in portions whose activations
at one place of the network fit into the executor's cache. In a portion the layers come in the order of the network:
the base runs up to the layer and is kept there, and each candidate runs on from there, in two pieces: the segment that
holds the layer, and the rest. What candidates make is not cached. The weight is fed to its segment as an input where
that is cheaper than a session for each candidate. Batches are small, so that a few of them can run at once.
"""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from typing import Protocol

from quantgui.analysis.evaluation import Tally
from quantgui.analysis.metric_function import Metric
from quantgui.analysis.proxies import Change, Proxies, guess
from quantgui.analysis.sampling import BUDGET, shares_behind, worth_more
from quantgui.analysis.scores import SampleRows
from quantgui.analysis.simulation import Grids, Ranges, build_simulation, quantizers_for, weight_sqnr_db
from quantgui.analysis.sweep_known import Key, Known
from quantgui.analysis.sweep_store import Place, SweepStore
from quantgui.errors import DataError, MetricError, NetworkError
from quantgui.network.batch import Batch, carry
from quantgui.network.executor import Executor
from quantgui.network.session import release_memory
from quantgui.network.simulation import FLOAT_SIMULATION, Simulation, TensorQuantizer
from quantgui.results import (
    ActivationReady,
    Array,
    DataSummary,
    Event,
    LayerInfo,
    Progress,
    Sensitivity,
    SensitivityReady,
)
from quantgui.spec.config import QuantConfig
from quantgui.spec.formats import IntFormat
from quantgui.spec.quantizer import LayerSpec
from quantgui.spec.sweep import USER_METRIC, Sweep

FIRST_SAMPLES = 4
"""Samples of the first measurement, of one candidate of each layer."""
_SCREENED_SAMPLES = 12
"""Samples on which every candidate is measured."""
_GROWTH = 2.0
"""Samples of the next step for each of those before, where the order is not clear yet."""
_FEW_AT_ONCE = 4
"""Samples per batch, where few samples may do: the first numbers come from two batches, which run at once."""
_USUAL_SAMPLES = 64
"""Samples whose share is spent even if there are fewer: an order from very few is worth little."""
_ROWS_WORTH_A_CUT = 16
"""Samples run through a layer, by all of its candidates, from which on the network is cut before it."""
_MANY_SAMPLES = 256
"""Samples from which on batches are about as large as suits the network."""
_SECONDS_BETWEEN_NEWS = 0.1
"""Small networks have many layers in that time, and nobody sees them come one by one."""
_CACHE_USED = 0.7
"""Part of the cache that a portion of samples may fill: what crosses two cuts, and the outputs of the float network."""

_REFERENCE = ("", LayerSpec())
"""Stands for the base itself, where layers and their specs are kept."""


class SweptData(Protocol):
    """What a sweep needs of `network.datasets.Dataset`."""

    @property
    def summary(self) -> DataSummary: ...
    @property
    def carried(self) -> Mapping[str, str]: ...
    def batches(self, batch_size: int | None = None, samples: int | None = None) -> Iterator[Batch]: ...


def measure_sensitivity(
    executor: Executor,
    dataset: SweptData,
    sweep: Sweep,
    activations: Mapping[str, ActivationReady],
    metric: Metric | None = None,
    store: SweepStore | None = None,
) -> Iterator[Event]:
    """Yield SensitivityReady whenever candidates have better numbers, and the whole table after each step.

    The last Sensitivity is complete. Stopping is possible at every event; with a `store` (opened for this question,
    see `sweep_store.question_key`) a later sweep goes on where this one stopped and ends with the same table.

    Raises:
        DataError: there are no samples, or `activations` lacks a tensor that is quantized.
        MetricError: the metric means nothing here, or the user's fails.
        NetworkError: no layer can be tried, or the network cannot be run.
    """
    swept = frozenset(sweep.swept(executor.network.summary.layers))
    layers = [layer for layer in executor.network.summary.layers if layer.name in swept]
    if missing := set(sweep.layers) - swept:
        raise NetworkError(f"The network has no layer '{min(missing)}'.")
    if not layers:
        raise NetworkError("The network has no layer whose bits could be changed.")
    if sweep.metric == USER_METRIC and metric is None:
        raise MetricError("The sweep measures your metric, but none is loaded.")
    if dataset.summary.samples == 0:
        raise DataError("There is nothing to compute: the data holds no samples.")
    work = _Work(executor, dataset, sweep, activations, metric, store, layers)
    try:
        yield from work.first_ranking()
        yield from work.weight_errors(work.known.columns)
        yield work.table(complete=False)
        yield from work.measure()
    finally:
        executor.close_cuts()


@dataclass(frozen=True, eq=False)
class _Prepared:
    """A batch with the outputs of the float network."""

    batch: Batch
    float_outputs: Mapping[str, Array]

    @property
    def bytes(self) -> int:
        """Memory that the outputs take."""
        return sum(values.nbytes for values in self.float_outputs.values())

    @property
    def place(self) -> Place:
        return self.batch.first, self.batch.samples


@dataclass(frozen=True, eq=False)
class _Trial:
    """A candidate that is to be run on one batch."""

    key: Key
    simulation: Simulation
    prepared: _Prepared
    is_last: bool


@dataclass(eq=False)
class _Work:
    """A sweep under way."""

    executor: Executor
    dataset: SweptData
    sweep: Sweep
    activations: Mapping[str, ActivationReady]
    metric: Metric | None
    store: SweepStore | None
    layers: Sequence[LayerInfo]

    def __post_init__(self) -> None:
        network, sweep = self.executor.network, self.sweep
        samples = self.dataset.summary.samples
        self.total = samples if sweep.samples is None else min(sweep.samples, samples)
        self.started = time.perf_counter()
        self.known = Known(sweep, self.layers, self.metric, self.total)
        self.grids: Grids = {}
        self.ranges: Ranges = {}
        self._recall_guesses()
        self.guessing = False
        self.states: dict[Key | None, Mapping[str, Array]] = {}
        self.base_state: Mapping[str, Array] | None = None
        self.shares = shares_behind(network.summary.layers)
        self.forward_seconds = math.nan
        self.peak_cache = 0
        self.base = build_simulation(network, sweep.base, self.activations, ranges=self.ranges, grids=self.grids)
        # Only the float network itself is so empty; then its outputs are the base's.
        self.base_is_float = not self.base.weights and not self.base.quantizers
        self.base = FLOAT_SIMULATION if self.base_is_float else self.base
        thorough = sweep.metric in ("kl", "cosine")
        user = self.metric if sweep.metric == USER_METRIC else None
        self.tally = Tally(network, self.total, user, thorough=thorough, only=(sweep.metric,))

    # --- first: the weights alone --------------------------------------------------------------------------------

    def first_ranking(self) -> Iterator[Event]:
        """Yield a ranking by the weights alone, then one that is measured: one candidate of each layer, few samples.

        The finest format comes first, as its ranges need no search, and the middle one is measured, as it tells most.
        Ranges of all other formats wait: on some networks they take longer to find than all this.
        """
        yield from self.weight_errors(self.known.columns[:1])
        yield self.table(complete=False)
        # A recurrent network goes through its samples in order, with a state of its own for each candidate.
        if not self.dataset.carried and len(self.known.columns) > 1 and self.total > FIRST_SAMPLES:
            middle = self.known.columns[len(self.known.columns) // 2]
            yield from self.weight_errors([middle])
            yield from self._measure_up_to(FIRST_SAMPLES, middle)
            yield self.table(complete=False)

    def weight_errors(self, columns: Sequence[Sequence[Key]]) -> Iterator[Event]:
        """Yield the error of each weight, as far as it is not known, one column after the other."""
        if self.sweep.what == "activations":
            return
        for column in columns:
            missing = [key for key in column if key not in self.known.errors]
            with closing(self.executor.each(missing, self._weight_error)) as answers:
                for answer in answers:
                    if answer is not None:
                        self.known.errors[answer[0]] = answer[1]
                    yield Progress(len(self.known.errors), len(self.known.keys), "Weight errors")
            if missing:
                yield SensitivityReady(self.sweep, self.known.candidates(missing))

    def _weight_error(self, key: Key) -> float:
        layer, spec = self.executor.network.layers[key[0]], self.known.specs[key]
        if spec.weights is None or layer.read_only or not layer.finite:
            return math.inf
        return weight_sqnr_db(self.executor.network, layer, spec.weights, self.grids, self.activations)

    def guesses(self) -> Iterator[Event]:
        """Find all other cheap guesses, once it is clear that there is something to measure; yield the table again."""
        network = self.executor.network
        changes = []
        for key, candidate in self.known.specs.items():
            seen = {}
            if candidate.activations is not None:
                seen = quantizers_for(network, self._config(key), self.activations, self.ranges)
            changes.append(Change(key, network.layers[key[0]], candidate, seen))
        self.known.guessed = yield from guess(
            network,
            self.dataset,
            changes,
            self.grids,
            self.activations,
            threads=self.executor.threads,
            measured=self.total,
            seconds=self._seconds_to_measure(),
        )
        if self.store is not None:
            values = self.known.guessed.values
            self.store.put_guesses((key[0], spec, values[key]) for key, spec in self.known.specs.items())
        yield self.table(complete=False)

    def _recall_guesses(self) -> None:
        """Take the guesses of an earlier run; none unless they are known for every candidate."""
        if self.store is not None:
            found: dict[Hashable, Mapping[str, float]] = {
                key: self.store.guesses(key[0], candidate) for key, candidate in self.known.specs.items()
            }
            if all(found.values()):
                self.known.guessed = Proxies(found)

    # --- second and third: the network ---------------------------------------------------------------------------

    def measure(self) -> Iterator[Event]:
        """Yield numbers on few samples for all candidates, then on more where they are needed."""
        self.guessing = True
        in_one = bool(self.dataset.carried)
        target = self.total if in_one or self.sweep.exact else min(_SCREENED_SAMPLES, self.total)
        active: Sequence[Key] = self.known.keys
        while active:
            yield from self._measure_up_to(target, active)
            if target >= self.total:
                break
            active = ()
            while not active and target < self.total:
                target = min(self.total, math.ceil(_GROWTH * target))
                active = self._worth_more(target)
            if active:
                yield self.table(complete=False)
        yield self.table(complete=True)

    @cached_property
    def _batch_size(self) -> int | None:
        """Samples per batch: few, where only few samples are needed in all, and else what suits the network."""
        usual = next(self.dataset.batches(samples=self.total), None)
        if usual is None or usual.samples <= _FEW_AT_ONCE:
            return None
        return _FEW_AT_ONCE if self.total <= _MANY_SAMPLES else max(_FEW_AT_ONCE, usual.samples // 2)

    def _measure_up_to(self, target: int, active: Sequence[Key]) -> Iterator[Event]:
        """Yield the numbers of `active` on the first `target` samples."""
        batches = self._unknown_batches(target, active)
        ended = False
        while not ended:
            portion: list[_Prepared] = []
            size, ended = 0, True
            while some := list(islice(batches, self.executor.lanes)):
                progress = Progress(some[0].first, target, f"Preparing {target} samples")
                prepared = yield from self._prepare(some, progress)
                if self.guessing and not self.known.guessed.values:
                    yield from self.guesses()
                portion += prepared
                size += sum(each.bytes + 2 * self.executor.front_bytes(each.batch) for each in prepared)
                most = _CACHE_USED * self.executor.cache_bytes
                if not self.dataset.carried and size * (1 + len(some) / len(portion)) > most:
                    ended = False
                    break
            yield from self._measure_portion(portion, active)
            self.executor.close_cuts()
            release_memory()

    def _unknown_batches(self, target: int, active: Sequence[Key]) -> Iterator[Batch]:
        """Yield those of the batches with the first `target` samples on which not all of `active` is known."""
        for batch in self._first_batches(target):
            place = (batch.first, batch.samples)
            if place not in self.known.places:
                self.known.places.append(place)
            self._recall(active, place)
            if place not in self.known.reference or not all(place in self.known.rows[key] for key in active):
                yield batch

    def _first_batches(self, target: int) -> Iterator[Batch]:
        """Yield the batches that hold the first `target` samples."""
        seen = 0
        for batch in self.dataset.batches(self._batch_size, samples=self.total):
            yield batch
            seen += batch.samples
            if seen >= target:
                return
        raise DataError(f"The data ended after {seen} of {target} samples.")

    def _recall(self, active: Sequence[Key], place: Place) -> None:
        """Take what an earlier sweep has found on a batch."""
        # The state that a recurrent network had after its batches is not kept, so there it is all or nothing.
        if self.store is None:
            return
        for key in active:
            known = self.store.rows(key[0], self.known.specs[key])
            if place not in known or place in self.known.rows[key]:
                continue
            if not self.dataset.carried or sum(samples for _, samples in known) >= self.total:
                self.known.rows[key][place] = known[place]
                self.known.resumed.add(key)
        known = self.store.rows(*_REFERENCE)
        if place in known:
            self.known.reference[place] = known[place]

    def _prepare(self, batches: Sequence[Batch], progress: Progress) -> Generator[Event, None, list[_Prepared]]:
        """Run the float network and the base on some batches."""

        def outputs_of(batch: Batch) -> tuple[dict[str, Array], dict[str, Array]]:
            float_outputs = self.executor.run(carry(batch, self.states.get(None)), FLOAT_SIMULATION, keep=False)
            self.states[None] = self._carried(float_outputs)
            if self.base_is_float:
                return float_outputs, float_outputs
            outputs = self.executor.run(carry(batch, self.base_state), self.base, keep=False)
            self.base_state = self._carried(outputs)
            return float_outputs, outputs

        found: list[_Prepared] = []
        together = not self.dataset.carried
        with closing(self.executor.each(batches, outputs_of, together=together, shared=True)) as answers:
            for answer in answers:
                yield progress
                if answer is None:
                    continue
                batch, (float_outputs, outputs) = answer
                found.append(_Prepared(batch, float_outputs))
                if found[-1].place not in self.known.reference:
                    self.tally.add(batch, float_outputs, outputs)
                    self._keep(*_REFERENCE, self.known.reference, {found[-1].place: self.tally.take(self.sweep.metric)})
        if math.isnan(self.forward_seconds):
            # As many as run at once, so that the time is that of all threads.
            timed = (list(batches) * self.executor.lanes)[: self.executor.lanes]
            again = [replace(batch, key=f"{batch.key} again {n}") for n, batch in enumerate(timed)]
            started = time.perf_counter()
            for _ in self.executor.each(again, lambda batch: self.executor.run(batch, keep=False), together=together):
                yield progress
            samples = sum(batch.samples for batch in again)
            self.forward_seconds = (time.perf_counter() - started) * self.total / samples
        return found

    def _measure_portion(self, portion: Sequence[_Prepared], active: Sequence[Key]) -> Iterator[Event]:
        """Yield the numbers of one layer after the other."""
        if not portion:
            return
        missing: dict[Key, list[_Prepared]] = {}
        for key in active:
            if unknown := [each for each in portion if each.place not in self.known.rows[key]]:
                missing[key] = unknown
        samples = sum(each.batch.samples for each in portion)
        label = f"Measuring {len(active)} candidates on {samples} samples"
        rows = samples * len(active) / max(1, self.executor.segment_count)
        costs = {
            key: self.shares[key[0]] * sum(each.batch.samples for each in unknown) for key, unknown in missing.items()
        }
        all_costs = sum(costs.values()) + self._later_costs(sum(costs.values()))
        started, paid = time.perf_counter(), 0.0
        # What an earlier sweep has found takes no time.
        waiting = [key for key in active if key not in missing]
        done, told = len(waiting), started
        yield Progress(done, len(active), label)
        for cut, keys in self._groups(missing, samples):
            try:
                for finished in self._measure_together({key: missing[key] for key in keys}, cut, rows):
                    if finished is not None:
                        done += 1
                        paid += costs[finished]
                        waiting.append(finished)
                    left = (time.perf_counter() - started) / paid * (all_costs - paid) if paid else None
                    yield Progress(done, len(active), label, left)
                    if waiting and time.perf_counter() - told > _SECONDS_BETWEEN_NEWS:
                        yield SensitivityReady(self.sweep, self.known.candidates(waiting))
                        waiting, told = [], time.perf_counter()
                self.peak_cache = max(self.peak_cache, self.executor.cached_bytes)
            finally:
                self.executor.close_cut(cut)
        if waiting:
            yield SensitivityReady(self.sweep, self.known.candidates(waiting))

    def _groups(self, keys: Iterable[Key], samples: int) -> list[tuple[frozenset[str], list[Key]]]:
        """Return where the network is cut for which candidates: before each layer, unless so few runs do not pay it."""
        by_layer: dict[str, list[Key]] = {}
        for key in keys:
            by_layer.setdefault(key[0], []).append(key)
        if samples * max(map(len, by_layer.values()), default=0) < _ROWS_WORTH_A_CUT:
            return [(frozenset(), [key for several in by_layer.values() for key in several])]
        layers = self.executor.network.layers
        return [(frozenset({layers[name].weight, *layers[name].users}), several) for name, several in by_layer.items()]

    def _measure_together(
        self, missing: Mapping[Key, Sequence[_Prepared]], cut: frozenset[str], rows: float
    ) -> Iterator[Key | None]:
        """Run candidates on the batches that they are not known on; yield each once it is known, None in between."""

        def outputs_of(trial: _Trial) -> tuple[Batch, dict[str, Array]]:
            batch = carry(trial.prepared.batch, self.states.get(trial.key))
            outputs = self.executor.run(batch, trial.simulation, keep=self.base, cut=cut, rows_behind=rows)
            self.states[trial.key] = self._carried(outputs)
            return batch, outputs

        ends = {key[0]: key for key in missing}
        found: dict[Place, SampleRows] = {}
        with closing(
            self.executor.each(self._trials(missing), outputs_of, together=not self.dataset.carried)
        ) as answers:
            for answer in answers:
                if answer is None:
                    yield None
                    continue
                trial, (batch, outputs) = answer
                key = trial.key
                self.tally.add(batch, trial.prepared.float_outputs, outputs)
                found[trial.prepared.place] = self.tally.take(self.sweep.metric)
                if trial.is_last:
                    self._keep(key[0], self.known.specs[key], self.known.rows[key], found)
                    self.executor.forget(trial.simulation, self.base, cut, exchanged=key == ends[key[0]])
                    found = {}
                yield key if trial.is_last else None

    def _trials(self, missing: Mapping[Key, Sequence[_Prepared]]) -> Iterator[_Trial]:
        for key, portion in missing.items():
            simulation = self._simulation(key, sum(each.batch.samples for each in portion))
            for prepared in portion:
                yield _Trial(key, simulation, prepared, is_last=prepared is portion[-1])

    def _simulation(self, key: Key, samples: int) -> Simulation:
        """Return the network with one layer changed; what changes is exchanged where that is cheaper."""
        network = self.executor.network
        simulation = build_simulation(
            network, self._config(key), self.activations, ranges=self.ranges, grids=self.grids
        )
        weights = simulation.weights
        if self.executor.exchangeable(network.layers[key[0]].weight, samples):
            weights = {
                name: override if self._is_in_base(name, override.key) else replace(override, exchanged=True)
                for name, override in weights.items()
            }
        quantizers = {
            tensor: tuple(_exchanged(each, self.base.quantizers.get(tensor, ())) for each in several)
            for tensor, several in simulation.quantizers.items()
        }
        return Simulation(weights, quantizers)

    def _is_in_base(self, name: str, key: Hashable) -> bool:
        return name in self.base.weights and self.base.weights[name].key == key

    def _carried(self, outputs: Mapping[str, Array]) -> Mapping[str, Array]:
        return {name: outputs[name] for name in set(self.dataset.carried.values())}

    def _config(self, key: Key) -> QuantConfig:
        return self.sweep.config(key[0], self.sweep.specs[key[1]])

    def _keep(
        self, layer: str, spec: LayerSpec, rows: dict[Place, SampleRows], found: Mapping[Place, SampleRows]
    ) -> None:
        rows.update(found)
        if self.store is not None:
            self.store.put(layer, spec, found)

    # --- what it costs, and what is told ----------------------------------------------------------------------------

    def _worth_more(self, target: int) -> list[Key]:
        """Return those candidates that should be measured on `target` samples: where ranks gain most for the cost.

        Half of what is left of the budget is spent, all of it at the end.
        """
        samples = self._samples()
        left = self._budget_left(samples)
        costs = {key: self.shares[key[0]] * (target - count) for key, count in samples.items() if count < target}
        columns = [(keys, self.known.rank_errors(keys)) for keys in self.known.formats.values()]
        names = {key: key[0] for key in self.known.keys}
        chosen = worth_more(columns, names, costs, left if target >= self.total else left / 2)
        return [key for key in self.known.keys if key in chosen]

    def _later_costs(self, costs: float) -> float:
        """Return what may be spent after a pass that costs `costs`; less, if the order is clear before."""
        if self.sweep.exact or self.dataset.carried:
            return 0.0
        samples = self._samples()
        unknown = sum(self.shares[key[0]] * (self.total - count) for key, count in samples.items())
        return max(0.0, min(unknown, self._budget_left(samples)) - costs)

    def _budget_left(self, samples: Mapping[Key, int]) -> float:
        spent = sum(self.shares[key[0]] * count for key, count in samples.items())
        return BUDGET * max(self.total, _USUAL_SAMPLES) * len(samples) - spent

    def _seconds_to_measure(self) -> float:
        """Return about how long it takes to measure all candidates, by the time of the float network."""
        forwards = sum(self.shares[key[0]] for key in self.known.keys)
        if not (self.sweep.exact or self.dataset.carried):
            forwards = min(forwards, BUDGET * max(1.0, _USUAL_SAMPLES / self.total) * len(self.known.keys))
        return self.forward_seconds * forwards

    def _samples(self) -> dict[Key, int]:
        """Return on how many samples each candidate is known."""
        known = self.known
        return {key: sum(count for _, count in known.places[: known.batches(key)]) for key in known.keys}

    def table(self, *, complete: bool) -> Sensitivity:
        """Return all that is known."""
        return self.known.table(
            float_forward_seconds=self.forward_seconds,
            seconds=time.perf_counter() - self.started,
            cut_segments=self.executor.segment_count,
            peak_cache_bytes=self.peak_cache,
            complete=complete,
        )


def _exchanged(quantizer: TensorQuantizer, base: Sequence[TensorQuantizer]) -> TensorQuantizer:
    """Return a quantizer whose parameters are fed, unless the base has it too or it has none."""
    if quantizer in base or not isinstance(quantizer.format, IntFormat):
        return quantizer
    return replace(quantizer, exchanged=True)
