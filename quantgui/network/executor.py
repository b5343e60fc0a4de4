"""Runs the network, float or simulated, as a chain of segments with a cache of what crosses the cuts.

A tensor at a cut is named by a hash of everything it depends on: the batch, and the overrides and quantizers of the
segments before it. So a change of one layer runs its own segment and those that depend on it; everything before it, and
every configuration seen before, comes from the cache as far as the byte budget allows. Float sessions are shared by all
simulations; a segment with changes gets its own session, built when it is needed, and overrides that are `exchanged`
share one session, which takes them as inputs.

A cut tensor is kept as float; each segment that reads it quantizes it for its own nodes. Fetched tensors are float, as
they are before quantization. A network output is returned quantized where a quantizer without named consumers stands at
it. Sessions that return internal tensors may fuse less, which can change the last bit: what they make is never cached,
so a result does not depend on what was looked at before.

`each` and `run_sequence` work on several batches at once (`network.lanes`); all that is kept between runs is behind one
lock, which is not held while ONNX Runtime runs.
"""

from __future__ import annotations

import hashlib
import threading
from collections import ChainMap
from collections.abc import Callable, Collection, Generator, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain, islice
from typing import TypeVar

import numpy as np
import onnxruntime

from quantgui.errors import DataError
from quantgui.network.batch import Batch, carry
from quantgui.network.cache import ByteCache
from quantgui.network.lanes import Lanes
from quantgui.network.network import Network, as_contiguous, injected_names
from quantgui.network.segments import (
    Segment,
    TensorType,
    build_segment,
    cheap_to_exchange,
    check_traced,
    choose_cuts,
    joined,
    part_of,
    split,
    split_before,
    tensor_types,
    traced_shapes,
    widest_cut,
    worth_joining,
)
from quantgui.network.session import create_session, runtime_errors
from quantgui.network.simulation import FLOAT_SIMULATION, Override, Simulation, TensorQuantizer
from quantgui.network.surgery import fed_values, stored_type
from quantgui.results import Array
from quantgui.spec.formats import IntFormat

_SESSION_BYTES = 2**20
_KNOWN_SIMULATIONS = 8
_OUTPUT_SHARE = 4
_PATIENCE = 3
_LEAST_SESSION_BUDGET, _MOST_SESSION_BUDGET = 256 * 2**20, 2**30
_CHAINS_KEPT = 3
"""Chains of sessions kept: float, simulated, and the one simulated before it."""

Quantizers = Mapping[str, tuple[TensorQuantizer, ...]]
T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, eq=False)
class _Variant:
    """One segment under one simulation: the part of the simulation that matters to it.

    `identity` names what it computes, `form` its session: variants that differ in what is exchanged share a form.
    `fed` holds the values of exchanged overrides once they are needed.
    """

    segment: Segment
    overrides: Mapping[str, Override]
    quantizers: Quantizers
    identity: int
    form: int
    fed: dict[str, Array] = field(default_factory=dict)

    @property
    def built_in(self) -> frozenset[tuple[str, Hashable]]:
        """Names and keys of the overrides that its session holds."""
        return frozenset((name, override.key) for name, override in self.overrides.items() if not override.exchanged)

    @property
    def is_exchanged(self) -> bool:
        """Whether its session serves others as well."""
        quantizers = (each for several in self.quantizers.values() for each in several)
        return any(override.exchanged for override in self.overrides.values()) or any(q.exchanged for q in quantizers)


@dataclass(frozen=True, eq=False)
class _Ready:
    """A session of a variant; `quantized` maps network outputs to their quantized form, `fed` is `BuiltSegment.fed`."""

    session: onnxruntime.InferenceSession
    outputs: tuple[str, ...]
    quantized: Mapping[str, str]
    fed: Mapping[tuple[str, int], tuple[str, ...]]


@dataclass(frozen=True, eq=False)
class _Step:
    """A variant that has to run for a request.

    `digest` names what it makes; None where that must not be cached.
    """

    variant: _Variant
    fetch: tuple[str, ...]
    digest: str | None


@dataclass(frozen=True, eq=False)
class _Detour:
    """A plan for many runs that differ in one layer: cut before it, and what lies behind its segment in one piece.

    Attributes:
        plan: the usual segments before the layer's, that one in two, and the rest.
        place: index of the layer's segment; detours of one segment share what lies behind it.
        front: tensors that cross the usual cut before the layer's segment and are still needed.
        halves: the two parts of the layer's segment; empty where the layer is its first one.
        tensors: keys of those kept at the cut, to be dropped after it.
        forms: sessions beside it, likewise.
    """

    plan: tuple[Segment, ...]
    place: int
    front: frozenset[str]
    halves: frozenset[Segment]
    tensors: list[tuple[str, str, bool]] = field(default_factory=list)
    forms: set[int] = field(default_factory=set)


@dataclass(frozen=True, eq=False)
class _Tail:
    """What lies behind a segment: as it is, or all of it `joined` (whose sessions it knows)."""

    place: int
    segments: tuple[Segment, ...]
    joined: Segment | None = None
    forms: set[int] = field(default_factory=set)


@dataclass(frozen=True, eq=False)
class Part:
    """A few nodes by themselves: they take the tensors `inputs`, float as they are fetched, and make `output`."""

    inputs: tuple[str, ...]
    output: str
    session: onnxruntime.InferenceSession

    def run(self, values: Mapping[str, Array]) -> Array:
        """Return `output`, float, from the values of at least `inputs`.

        Raises:
            NetworkError: ONNX Runtime cannot run the nodes on these values.
        """
        with runtime_errors("run"):
            results = self.session.run([self.output], {name: values[name] for name in self.inputs})
        return np.asarray(results[0])


class Executor:
    """Runs one network; to be used by one thread, and by the work that it gives to `each`."""

    def __init__(
        self, network: Network, *, cache_bytes: int = 512 * 2**20, threads: int = 2, segmented: bool = True
    ) -> None:
        self.network = network
        self.threads = threads
        self._lanes = Lanes(threads)
        self._lock = threading.RLock()
        # Outputs are kept apart: they are small, and with them a configuration seen before costs nothing.
        self._output_cache: ByteCache[Array] = ByteCache(cache_bytes // _OUTPUT_SHARE, patience=_PATIENCE)
        self._cut_cache: ByteCache[Array] = ByteCache(cache_bytes - self._output_cache.budget, patience=_PATIENCE)
        graph = network.skeleton.graph
        self._outputs = tuple(value.name for value in graph.output)
        self._initializers = {tensor.name for tensor in graph.initializer}
        # Old files list their constants among the inputs too.
        self._inputs = tuple(value.name for value in graph.input if value.name not in self._initializers)
        self._injected = frozenset(injected_names(network.skeleton))
        weights = sum(values.nbytes for values in network.constants.values())
        # A chain that does not fit is built anew for every batch, so large networks get as much as activations get.
        self._sessions: ByteCache[_Ready] = ByteCache(
            max(_LEAST_SESSION_BUDGET, min(2 * _CHAINS_KEPT * weights, max(_MOST_SESSION_BUDGET, cache_bytes)))
        )
        self._identities: dict[Hashable, int] = {}
        self._known: ByteCache[tuple[Simulation, Sequence[Segment], tuple[_Variant, ...]]] = ByteCache(
            _KNOWN_SIMULATIONS
        )
        self._segments: tuple[Segment, ...] | None = None if segmented else split(network, ())
        self._borders: Mapping[str, TensorType] = {}
        self._detours: dict[frozenset[str], _Detour] = {}
        self._tail: _Tail | None = None
        # What runs with cuts have put into the cache, by tensor, and the tensors that the next ones may need.
        self._passed: dict[str, list[tuple[str, str, bool]]] = {}
        self._front: frozenset[str] = frozenset()
        self._widest_cut = 0
        self._traced_rows = 1
        self.cache_bytes = cache_bytes
        self.sessions_built = 0
        self.segments_run = 0

    # --- what can be asked ---------------------------------------------------------------------------------------

    def fetchable(self, name: str) -> bool:
        """Return whether the tensor `name` can be fetched; those inside of If and Loop bodies cannot be."""
        return name in self._types or name in self._initializers

    @property
    def cached_bytes(self) -> int:
        """Bytes of all tensors kept."""
        return self._output_cache.used + self._cut_cache.used

    @property
    def session_budget(self) -> int:
        """Bytes that sessions may take."""
        return self._sessions.budget

    @property
    def segment_count(self) -> int:
        """Number of segments; 0 before the first run."""
        return len(self._segments or ())

    def front_bytes(self, batch: Batch) -> int:
        """Return about how many bytes of `batch` cross one cut at most: what must be kept to go from layer to layer."""
        self._plan(batch)
        return self._widest_cut * _rows(batch) // self._traced_rows

    def run(
        self,
        batch: Batch,
        simulation: Simulation = FLOAT_SIMULATION,
        fetch: Collection[str] = (),
        *,
        keep: bool | Simulation = True,
        cut: frozenset[str] = frozenset(),
        rows_behind: float | None = None,
    ) -> dict[str, Array]:
        """Return the network's outputs and those of `fetch` that are fetchable, by name; not to be written to.

        Unless `keep`, what is made is not cached; if that is a simulation, no more is cached than it makes as well.
        That is for simulations that are run once and must not drive out what many of them share.

        The network is also cut before the first node that is or reads one of `cut`, and what lies behind its segment
        runs in one piece, so that many formats of a layer can be tried for no more than what lies behind it, until
        `close_cut`. Go through the layers in their order, then little has to be kept. `rows_behind`, the samples that
        will run behind a segment in all, tells whether that piece is worth building; it is if that is not known.

        Raises:
            DataError: the batch lacks an input.
            NetworkError: ONNX Runtime cannot run the network on this batch.
        """
        results = dict(
            self._results(batch, simulation, tuple(fetch), self._outputs, keep=keep, cut=cut, rows_behind=rows_behind)
        )
        return {name: results[name] for name in dict.fromkeys((*self._outputs, *fetch)) if name in results}

    def stream(self, batch: Batch, simulation: Simulation, fetch: Collection[str]) -> Iterator[tuple[str, Array]]:
        """Yield the tensors `fetch` one by one, segment by segment; segments behind the last of them do not run."""
        yield from self._results(batch, simulation, tuple(fetch), ())

    def part(self, nodes: Collection[str], output: str, simulation: Simulation = FLOAT_SIMULATION) -> Part | None:
        """Return what runs a few nodes of the main graph alone; None where they read what cannot be fetched.

        Raises:
            NetworkError: ONNX Runtime cannot run them alone.
        """
        segment = part_of(self.network, nodes, output)
        if not all(name in self._types for name in (*segment.inputs, output)):
            return None
        ready = self._build(self._variant(segment, simulation), ())
        return Part(segment.inputs, output, ready.session)

    def exchangeable(self, name: str, rows: int) -> bool:
        """Return whether values of the initializer `name`, each run on `rows` samples, should be exchanged.

        False before the first run, and for float types that numpy does not know.
        """
        readers = [segment for segment in self._segments or () if name in segment.initializers]
        known = self.network.constants[name].dtype.isbuiltin == 1
        return known and bool(readers) and all(cheap_to_exchange(self.network, each, name, rows) for each in readers)

    def forget(
        self,
        simulation: Simulation,
        but: Simulation = FLOAT_SIMULATION,
        cut: frozenset[str] = frozenset(),
        fetch: Collection[str] = (),
        *,
        exchanged: bool = True,
    ) -> None:
        """Drop the sessions of `simulation` (run with `cut`) that `but` has no use for, and those for each `fetch`.

        Unless `exchanged`, those stay that differ from the ones of `but` in nothing but what is fed to them.
        """
        with self._lock:
            detour = self._detours.get(cut)
            plan = (self._segments if detour is None else detour.plan) or ()
            others = self._variants(plan, but)
            used = {variant.form for variant in others}
            for variant, other in zip(self._variants(plan, simulation), others, strict=True):
                # Loaded weights of large layers, of several formats, would be more than all else that is kept.
                variant.fed.clear()
                stays = not exchanged and variant.is_exchanged and variant.built_in == other.built_in
                if variant.form not in used and not stays:
                    for names in ((), *((name,) for name in fetch if name in variant.segment.produced)):
                        self._drop_sessions(variant.form, names)

    def close_cut(self, cut: frozenset[str]) -> None:
        """Drop what is kept for runs with `cut`: the tensors there, and the sessions on both sides of it."""
        with self._lock:
            detour = self._detours.pop(cut, None)
            if detour is not None:
                for key in detour.tensors:
                    self._cache(key[1]).drop(key)
                for form in detour.forms:
                    self._drop_sessions(form)

    def close_cuts(self) -> None:
        """Drop what is kept for runs with any cut, also what such cuts share."""
        with self._lock:
            for cut in tuple(self._detours):
                self.close_cut(cut)
            self._close_tail()
            self._front = frozenset()
            self._drop_passed(self._front)

    def _close_tail(self) -> None:
        for form in self._tail.forms if self._tail is not None else ():
            self._drop_sessions(form)
        self._tail = None

    def _drop_sessions(self, form: int, fetch: tuple[str, ...] = ()) -> None:
        for threads in self._lanes.thread_counts:
            self._sessions.drop((form, fetch, threads))

    def _drop_passed(self, needed: frozenset[str]) -> None:
        """Drop what runs with cuts have kept, but the tensors `needed`."""
        for name in self._passed.keys() - needed:
            for key in self._passed.pop(name):
                self._cache(name).drop(key)

    @property
    def lanes(self) -> int:
        """How many batches may run at once."""
        return self._lanes.count

    def each(
        self, items: Iterable[T], work: Callable[[T], R], *, together: bool = True
    ) -> Generator[tuple[T, R] | None, None, None]:
        """Yield each item with what `work` makes of it by `run`, in order; several at once if `together`.

        Ten times a second it yields None while there is nothing else, so that the caller can tell that it goes on, and
        be stopped. `work` runs in other threads; it must not change what others read.

        Raises:
            Exception: what `work` raises.
        """
        yield from self._lanes.each(items, work, together=together)

    def run_sequence(
        self,
        batches: Iterable[Batch],
        simulations: Sequence[Simulation] = (FLOAT_SIMULATION,),
        fetch: Collection[str] = (),
        *,
        keep: bool | Simulation = True,
        cut: frozenset[str] = frozenset(),
    ) -> Generator[tuple[Batch, tuple[dict[str, Array], ...]] | None, None, None]:
        """Yield each batch with what `run` returns for it under each simulation; None now and then (see `each`).

        Recurrent state flows from batch to batch, one by one; batches without run several at once.
        """
        source = iter(batches)
        first = list(islice(source, 1))
        recurrent = any(batch.carried for batch in first)
        states: list[dict[str, Array] | None] = [None] * len(simulations)

        def work(batch: Batch) -> tuple[dict[str, Array], ...]:
            found = tuple(
                self.run(carry(batch, state), simulation, fetch, keep=keep, cut=cut)
                for state, simulation in zip(states, simulations, strict=True)
            )
            if recurrent:
                states[:] = found
            return found

        yield from self.each(chain(first, source), work, together=not recurrent)

    # --- planning ------------------------------------------------------------------------------------------------

    @cached_property
    def _types(self) -> Mapping[str, TensorType]:
        return tensor_types(self.network)

    def _plan(self, batch: Batch) -> tuple[Segment, ...]:
        """Cut the network, on the first batch: its sizes decide where."""
        if self._segments is None:
            shapes = traced_shapes(self.network, self._types, self._feeds(batch), threads=self.threads)
            self._traced_rows = _rows(batch)
            self._segments = split(self.network, choose_cuts(self.network, self._types, shapes, self._traced_rows))
            self._borders = check_traced(self._types, shapes)
            self._widest_cut = widest_cut(self._segments, self._types, shapes)
        return self._segments

    def _detour(self, batch: Batch, cut: frozenset[str], rows_behind: float | None) -> _Detour | None:
        """Return the plan with a cut before `cut`; None where no node is or reads one of it."""
        if not cut or cut in self._detours:
            return self._detours.get(cut)
        usual = self._plan(batch)
        first = next((segment for segment in usual if cut & (segment.initializers | segment.node_names)), None)
        if first is None:
            return None
        halves = split_before(first, cut) or ()
        if halves and not all(name in self._types for name in halves[0].outputs):
            halves = ()
        before, behind = usual[: first.index], usual[first.index + 1 :]
        if self._tail is None or self._tail.place != first.index:
            self._close_tail()
            pays = rows_behind is None or worth_joining(self.network, behind, rows_behind)
            whole = joined(behind, self._outputs) if pays and len(behind) > 1 else None
            self._tail = _Tail(first.index, behind if whole is None else (whole,), whole)
        plan = (*before, *(halves or (first,)), *self._tail.segments)
        made = frozenset(name for segment in before for name in segment.outputs)
        front = made.intersection(name for segment in plan[first.index :] for name in segment.inputs)
        if front != self._front:
            # The new tensors are made of the ones there were; those before them are not needed any more.
            self._drop_passed(front | self._front)
            self._front = front
        self._detours[cut] = _Detour(plan, first.index, front, frozenset(halves))
        return self._detours[cut]

    def _feeds(self, batch: Batch) -> dict[str, Array]:
        missing = [name for name in self._inputs if name not in batch.inputs]
        if missing:
            raise DataError(f"The data lacks the network's input '{missing[0]}'.")
        return {name: batch.inputs[name] for name in self._inputs}

    def _variants(self, segments: Sequence[Segment], simulation: Simulation) -> tuple[_Variant, ...]:
        """Return each segment under `simulation`; remembered for the simulations used last."""
        known = self._known.get((id(simulation), id(segments)))
        if known is None:
            # Both are kept too, so that no others can get their ids.
            known = (simulation, segments, tuple(self._variant(segment, simulation) for segment in segments))
            self._known.put((id(simulation), id(segments)), known, 1)
            self._cut_cache.next_age()
            self._output_cache.next_age()
        return known[2]

    def _variant(self, segment: Segment, simulation: Simulation) -> _Variant:
        overrides = {n: o for n, o in simulation.weights.items() if n in segment.initializers}
        quantizers = _relevant(segment, simulation.quantizers, self._outputs)
        variant = _Variant(segment, overrides, quantizers, 0, 0)
        exchanged = frozenset((name, override.key) for name, override in overrides.items() if override.exchanged)
        names = frozenset(name for name, _ in exchanged)
        forms = frozenset((tensor, tuple(_form(each) for each in several)) for tensor, several in quantizers.items())
        identity, form = (
            self._identities.setdefault((segment.place, variant.built_in, *rest), len(self._identities))
            for rest in ((exchanged, frozenset(quantizers.items())), (names, forms))
        )
        return replace(variant, identity=identity, form=form)

    # --- running -------------------------------------------------------------------------------------------------

    def _results(
        self,
        batch: Batch,
        simulation: Simulation,
        fetch: tuple[str, ...],
        outputs: tuple[str, ...],
        *,
        keep: bool | Simulation = True,
        cut: frozenset[str] = frozenset(),
        rows_behind: float | None = None,
    ) -> Iterator[tuple[str, Array]]:
        """Yield `outputs` (quantized where the simulation says so) and `fetch`, as soon as they are known."""
        feeds = self._feeds(batch)
        wanted = dict.fromkeys((*outputs, *fetch))
        for name in wanted:
            if name in feeds:
                yield name, feeds[name]
            elif name in self._initializers:
                yield name, self._constant(name, simulation)
        with self._lock:
            detour = self._detour(batch, cut, rows_behind)
            segments = self._plan(batch) if detour is None else detour.plan
            made = {name for segment in segments for name in segment.produced}
            pending = {name for name in wanted if name in made}
            front = frozenset() if detour is None else detour.front
            steps, values = self._steps(batch, segments, simulation, pending, frozenset(outputs), front)
            if isinstance(keep, Simulation):
                kept = {step.digest for step in self._all_steps(batch, segments, keep, set())}
            else:
                kept = {step.digest for step in steps} if keep else set()
        for name in [name for name in pending if _Slot(name, quantized=name in outputs) in values]:
            yield name, values[_Slot(name, quantized=name in outputs)]
            pending.discard(name)
        for position, step in enumerate(steps):
            for slot, value in self._run_step(step, feeds, values, detour, keep=step.digest in kept).items():
                values[slot] = value
                if slot.name in pending and slot.quantized == (slot.name in outputs):
                    pending.discard(slot.name)
                    yield slot.name, value
            later = {name for rest in steps[position + 1 :] for name in rest.variant.segment.inputs}
            for slot in [slot for slot in values if slot.quantized or slot.name not in later]:
                del values[slot]

    def _constant(self, name: str, simulation: Simulation) -> Array:
        override = simulation.weights.get(name)
        return self.network.constants[name] if override is None else override.load()

    def _steps(
        self,
        batch: Batch,
        segments: Sequence[Segment],
        simulation: Simulation,
        wanted: set[str],
        outputs: frozenset[str],
        front: frozenset[str] = frozenset(),
    ) -> tuple[list[_Step], dict[_Slot, Array]]:
        """Return the variants that must run, in order, and the cached tensors they or the caller need.

        Those of `front` count as used if they are cached.
        """
        steps = self._all_steps(batch, segments, simulation, wanted - outputs)
        for step in steps:
            for name in front.intersection(step.variant.segment.outputs):
                self._cached(step, _Slot(name, quantized=False))
        needed = {_Slot(name, quantized=name in outputs) for name in wanted}
        values: dict[_Slot, Array] = {}
        chosen: list[_Step] = []
        for step in reversed(steps):
            segment = step.variant.segment
            own = {slot for slot in needed if slot.name in segment.produced}
            cached = {slot: self._cached(step, slot) for slot in own}
            if all(value is not None for value in cached.values()):
                values.update({slot: value for slot, value in cached.items() if value is not None})
                continue
            chosen.append(step)
            needed |= {_Slot(name, quantized=False) for name in segment.inputs if name not in batch.inputs}
        chosen.reverse()
        return chosen, values

    def _all_steps(
        self, batch: Batch, segments: Sequence[Segment], simulation: Simulation, fetch: set[str]
    ) -> list[_Step]:
        """Return one step per segment, with the hash of what it makes."""
        digests: dict[str, str | None] = {
            name: f"{batch.key}:{name}:{batch.state_keys.get(name, '')}" for name in batch.inputs
        }
        steps = []
        for variant in self._variants(segments, simulation):
            segment = variant.segment
            inner = tuple(sorted(fetch & segment.produced - set(segment.outputs)))
            parts = [digests[name] for name in segment.inputs]
            digest = None
            if not inner and None not in parts:
                text = f"{variant.identity}|" + "|".join(str(part) for part in parts)
                digest = hashlib.blake2b(text.encode(), digest_size=20).hexdigest()
            steps.append(_Step(variant, inner, digest))
            for name in segment.outputs:
                digests[name] = None if digest is None else f"{digest}:{name}"
        return steps

    def _cached(self, step: _Step, slot: _Slot) -> Array | None:
        if step.digest is None:
            return None
        quantized = slot.quantized and _default(step.variant.quantizers.get(slot.name, ()))
        return self._cache(slot.name).get((step.digest, slot.name, quantized))

    def _cache(self, name: str) -> ByteCache[Array]:
        return self._output_cache if name in self._outputs else self._cut_cache

    def _run_step(
        self,
        step: _Step,
        feeds: Mapping[str, Array],
        values: Mapping[_Slot, Array],
        detour: _Detour | None,
        *,
        keep: bool,
    ) -> dict[_Slot, Array]:
        inputs = {
            name: feeds[name] if name in feeds else values[_Slot(name, quantized=False)]
            for name in step.variant.segment.inputs
        }
        passing = detour if detour is not None and step.variant.segment in detour.halves else None
        with self._lock:
            ready = self._session(step.variant, step.fetch)
            if passing is not None:
                passing.forms.add(step.variant.form)
            elif self._tail is not None and step.variant.segment is self._tail.joined:
                self._tail.forms.add(step.variant.form)
            inputs |= self._fed(step.variant, ready)
            self.segments_run += 1
        results = self._lanes.run(ready.session, [*ready.outputs, *ready.quantized.values()], inputs)
        made: dict[_Slot, Array] = {}
        for (name, quantized), value in zip(
            [*((n, False) for n in ready.outputs), *((n, True) for n in ready.quantized)], results, strict=True
        ):
            made[_Slot(name, quantized=quantized)] = value
            if keep and step.digest is not None and isinstance(value, np.ndarray):
                value.flags.writeable = False
                with self._lock:
                    self._put((step.digest, name, quantized), value, detour, passing)
        for name in self._outputs:
            # An output without a quantizer of its own is returned as it is.
            if _Slot(name, quantized=False) in made:
                made.setdefault(_Slot(name, quantized=True), made[_Slot(name, quantized=False)])
        return made

    def _put(self, key: tuple[str, str, bool], value: Array, detour: _Detour | None, passing: _Detour | None) -> None:
        self._cache(key[1]).put(key, value, value.nbytes)
        if passing is not None:
            passing.tensors.append(key)
        elif detour is not None:
            self._passed.setdefault(key[1], []).append(key)

    def _session(self, variant: _Variant, fetch: tuple[str, ...]) -> _Ready:
        key = (variant.form, fetch, self._lanes.threads)
        ready = self._sessions.get(key)
        if ready is None:
            ready = self._build(variant, fetch)
            self._sessions.put(key, ready, self._session_bytes(variant))
        return ready

    def _session_bytes(self, variant: _Variant) -> int:
        """Return the memory of a session: weights packed for the processor, and values that replace the network's."""
        sizes = {name: self.network.constants[name].nbytes for name in variant.segment.initializers}
        return _SESSION_BYTES + sum(sizes.values()) + sum(sizes[name] for name in variant.overrides)

    def _build(self, variant: _Variant, fetch: tuple[str, ...]) -> _Ready:
        segment = variant.segment
        built_in = {name: override for name, override in variant.overrides.items() if not override.exchanged}
        values = {name: self._loaded(name, override) for name, override in built_in.items()}
        outputs = (*segment.outputs, *fetch)
        built = build_segment(
            self.network,
            segment,
            self._borders or self._types,
            outputs=outputs,
            quantized_outputs=[name for name in segment.outputs if name in self._outputs],
            quantizers=variant.quantizers,
            inline={name: value for name, value in values.items() if name not in self._injected},
            fed=variant.overrides.keys() - built_in.keys(),
        )
        constants = ChainMap(values, dict(self.network.constants))
        self.sessions_built += 1
        session = create_session(built.model, constants, threads=self._lanes.threads)
        return _Ready(session, outputs, built.quantized, built.fed)

    def _fed(self, variant: _Variant, ready: _Ready) -> dict[str, Array]:
        """Return the values of what is exchanged; weights are loaded once for a variant."""
        for name, override in variant.overrides.items():
            if override.exchanged and name not in variant.fed:
                variant.fed[name] = as_contiguous(self._loaded(name, override))
        quantizers = {
            name: value
            for (tensor, position), names in ready.fed.items()
            for name, value in zip(names, fed_values(variant.quantizers[tensor][position]), strict=True)
        }
        return variant.fed | quantizers

    def _loaded(self, name: str, override: Override) -> Array:
        """Return the override's values in the dtype of the initializer they replace."""
        original = self.network.constants[name]
        values = override.load()
        if values.shape != original.shape:
            raise ValueError(f"override of {name} has shape {values.shape}, not {original.shape}")
        return values.astype(original.dtype, copy=False)


@dataclass(frozen=True, slots=True)
class _Slot:
    """A tensor, or its default quantized form as the network's output."""

    name: str
    quantized: bool


def _rows(batch: Batch) -> int:
    return max(1, (batch.rows or batch.samples) if batch.batched else 1)


def _default(quantizers: Sequence[TensorQuantizer]) -> bool:
    return any(quantizer.consumers is None for quantizer in quantizers)


def _form(quantizer: TensorQuantizer) -> tuple[Hashable, ...]:
    """Return what a quantizer's nodes look like: all of it, unless its parameters are fed."""
    if quantizer.exchanged and isinstance(quantizer.format, IntFormat):
        return "fed", stored_type(quantizer.format), quantizer.consumers
    return (quantizer,)


def _relevant(segment: Segment, quantizers: Quantizers, outputs: Sequence[str]) -> Quantizers:
    """Return the quantizers that change what `segment` computes."""
    relevant: dict[str, tuple[TensorQuantizer, ...]] = {}
    for tensor in segment.tensors & quantizers.keys():
        returned = tensor in outputs and tensor in segment.produced
        kept = tuple(
            quantizer
            for quantizer in quantizers[tensor]
            if (quantizer.consumers is None and (returned or tensor in segment.read))
            or (quantizer.consumers is not None and quantizer.consumers & segment.node_names)
        )
        if kept:
            relevant[tensor] = kept
    return relevant


__all__ = ["FLOAT_SIMULATION", "Executor", "Override", "Simulation", "TensorQuantizer"]
