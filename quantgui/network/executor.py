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
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain, islice
from typing import TypeVar

import numpy as np
import onnxruntime

from quantgui.errors import DataError, NetworkError
from quantgui.network.batch import Batch, carry
from quantgui.network.cache import ByteCache
from quantgui.network.detours import Detour, Detours
from quantgui.network.lanes import Lanes
from quantgui.network.network import Network
from quantgui.network.outputs import as_array
from quantgui.network.segments import (
    Segment,
    TensorType,
    check_traced,
    choose_cuts,
    inner_of,
    part_of,
    split,
    tensor_types,
    traced_shapes,
    widest_cut,
)
from quantgui.network.session import release_memory, runtime_errors
from quantgui.network.session_costs import cheap_to_exchange
from quantgui.network.simulation import FLOAT_SIMULATION, Override, Simulation, TensorQuantizer
from quantgui.network.variant_sessions import VariantSessions
from quantgui.network.variants import Variant, Variants
from quantgui.results import Array

_KNOWN_SIMULATIONS = 8
_OUTPUT_SHARE = 4
_PATIENCE = 3
_WORTH_GIVING_BACK = 64 * 2**20
"""Bytes of sessions dropped, from which on the memory is given back to the system."""

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, eq=False)
class _Step:
    """A variant that has to run for a request.

    `digest` names what it makes; None where that must not be cached.
    """

    variant: Variant
    fetch: tuple[str, ...]
    digest: str | None


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
    """Runs one network; to be used by one thread, and by the work that it gives to `each`.

    That work goes on while whoever asked for it waits, and the thread may use the executor for others meanwhile.
    """

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
        self._sessions = VariantSessions(network, self._lanes, cache_bytes)
        self._variants = Variants(self._outputs)
        self._known: ByteCache[tuple[Simulation, Sequence[Segment], tuple[Variant, ...]]] = ByteCache(
            _KNOWN_SIMULATIONS
        )
        self._segments: tuple[Segment, ...] | None = None if segmented else split(network, ())
        self._borders: Mapping[str, TensorType] = {}
        self._detours = Detours(network, self._sessions, lambda key: self._cache(key[1]).drop(key))
        self._widest_cut = 0
        self._traced_rows = 1
        self.cache_bytes = cache_bytes
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
    def sessions_built(self) -> int:
        """Sessions built so far."""
        return self._sessions.built

    @property
    def segment_count(self) -> int:
        """Number of segments; 0 before the first run."""
        return len(self._segments or ())

    def front_bytes(self, batch: Batch) -> int:
        """Return about how many bytes of `batch` cross one cut at most: what must be kept to go from layer to layer."""
        with self._lock:
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
        """Yield the tensors `fetch` one by one, segment by segment; segments behind the last of them do not run.

        Tensors of bodies (`Network.inner`) are among them, empty where the body does not run. They are left out where
        they cannot be handed out, as the shape of some changes from round to round.
        """
        inner = self.network.inner
        yield from self._results(batch, simulation, tuple(fetch), (), inner=frozenset(inner.keys() & set(fetch)))

    def close_streams(self) -> None:
        """Drop the sessions that fetched tensors: as much memory as the weights, and of no use for other tensors."""
        with self._lock:
            dropped = self._sessions.drop_fetching()
        if dropped > _WORTH_GIVING_BACK:
            release_memory()

    def rounds(self, name: str) -> int:
        """Return how many axes in front of a tensor that `stream` yields count rounds of loops."""
        return self.network.inner[name].rounds if name in self.network.inner else 0

    def part(self, nodes: Collection[str], output: str, simulation: Simulation = FLOAT_SIMULATION) -> Part | None:
        """Return what runs a few nodes of the main graph alone; None where they read what cannot be fetched.

        Raises:
            NetworkError: ONNX Runtime cannot run them alone.
        """
        segment = part_of(self.network, nodes, output)
        if not all(name in self._types for name in (*segment.inputs, output)):
            return None
        with self._lock:
            ready = self._sessions.build(self._variants.of(segment, simulation), (), self._borders or self._types)
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
            detour = self._detours.known(cut)
            plan = (self._segments if detour is None else detour.plan) or ()
            others = self._chain(plan, but)
            used = {variant.form for variant in others}
            for variant, other in zip(self._chain(plan, simulation), others, strict=True):
                # Loaded weights of large layers, of several formats, would be more than all else that is kept.
                variant.fed.clear()
                stays = not exchanged and variant.is_exchanged and variant.built_in == other.built_in
                if variant.form not in used and not stays:
                    for names in ((), *((name,) for name in fetch if name in variant.segment.produced)):
                        self._sessions.drop(variant.form, names)

    def close_cut(self, cut: frozenset[str]) -> None:
        """Drop what is kept for runs with `cut`: the tensors there, and the sessions on both sides of it."""
        with self._lock:
            self._detours.close(cut)

    def close_cuts(self) -> None:
        """Drop what is kept for runs with any cut, also what such cuts share."""
        with self._lock:
            self._detours.close_all()

    @property
    def lanes(self) -> int:
        """How many batches may run at once."""
        return self._lanes.count

    def each(
        self, items: Iterable[T], work: Callable[[T], R], *, together: bool = True, shared: bool = False
    ) -> Generator[tuple[T, R] | None, None, None]:
        """Yield each item with what `work` makes of it by `run`, in order; several at once if `together`.

        A single one has all threads, unless they are `shared` as among several.

        Ten times a second it yields None while there is nothing else, so that the caller can tell that it goes on, and
        be stopped. `work` runs in other threads; it must not change what others read.

        Raises:
            Exception: what `work` raises.
        """
        yield from self._lanes.each(items, work, together=together, shared=shared)

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

        Recurrent state flows from batch to batch, one by one, and the batch comes with that of the first simulation;
        batches without run several at once.
        """
        source = iter(batches)
        first = list(islice(source, 1))
        recurrent = any(batch.carried for batch in first)
        states: list[dict[str, Array] | None] = [None] * len(simulations)

        def work(batch: Batch) -> tuple[Batch, tuple[dict[str, Array], ...]]:
            stated = [carry(batch, state) for state in states]
            found = tuple(
                self.run(each, simulation, fetch, keep=keep, cut=cut)
                for each, simulation in zip(stated, simulations, strict=True)
            )
            if recurrent:
                states[:] = found
            return stated[0], found

        with closing(self.each(chain(first, source), work, together=not recurrent)) as answers:
            for answer in answers:
                yield None if answer is None else answer[1]

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

    def _feeds(self, batch: Batch) -> dict[str, Array]:
        missing = [name for name in self._inputs if name not in batch.inputs]
        if missing:
            raise DataError(f"The data lacks the network's input '{missing[0]}'.")
        return {name: batch.inputs[name] for name in self._inputs}

    def _chain(self, segments: Sequence[Segment], simulation: Simulation) -> tuple[Variant, ...]:
        """Return each segment under `simulation`; remembered for the simulations used last."""
        known = self._known.get((id(simulation), id(segments)))
        if known is None:
            # Both are kept too, so that no others can get their ids.
            known = (simulation, segments, tuple(self._variants.of(segment, simulation) for segment in segments))
            self._known.put((id(simulation), id(segments)), known, 1)
            self._cut_cache.next_age()
            self._output_cache.next_age()
        return known[2]

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
        inner: frozenset[str] = frozenset(),
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
            detour = self._detours.open(self._plan(batch), cut, rows_behind, self._types)
            segments = self._plan(batch) if detour is None else detour.plan
            made = {name for segment in segments for name in segment.produced} | inner
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
            for slot, value in self._run_or_less(step, feeds, values, detour, keep=step.digest in kept).items():
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
            own = {slot for slot in needed if slot.name in segment.produced or slot.name in step.fetch}
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
        inside = not fetch.isdisjoint(self.network.inner)
        digests: dict[str, str | None] = {
            name: f"{batch.key}:{name}:{batch.state_keys.get(name, '')}" for name in batch.inputs
        }
        steps = []
        for variant in self._chain(segments, simulation):
            segment = variant.segment
            inner_here = inner_of(self.network, segment) if inside else frozenset()
            inner = tuple(sorted(fetch & (segment.produced | inner_here) - set(segment.outputs)))
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

    def _run_or_less(
        self,
        step: _Step,
        feeds: Mapping[str, Array],
        values: Mapping[_Slot, Array],
        detour: Detour | None,
        *,
        keep: bool,
    ) -> dict[_Slot, Array]:
        """Run a step; where tensors of bodies cannot be handed out, without them."""
        try:
            return self._run_step(step, feeds, values, detour, keep=keep)
        except NetworkError:
            outside = tuple(name for name in step.fetch if name not in self.network.inner)
            if outside == step.fetch:
                raise
        return self._run_step(replace(step, fetch=outside), feeds, values, detour, keep=keep)

    def _run_step(
        self,
        step: _Step,
        feeds: Mapping[str, Array],
        values: Mapping[_Slot, Array],
        detour: Detour | None,
        *,
        keep: bool,
    ) -> dict[_Slot, Array]:
        inputs = {
            name: feeds[name] if name in feeds else values[_Slot(name, quantized=False)]
            for name in step.variant.segment.inputs
        }
        segment = step.variant.segment
        with self._lock:
            ready = self._sessions.ready(step.variant, step.fetch, self._borders or self._types)
            if detour is not None:
                self._detours.note_session(detour, segment, step.variant.form)
            inputs |= self._sessions.fed(step.variant, ready)
            self.segments_run += 1
        values_made = self._lanes.run(ready.session, [*ready.names, *ready.quantized.values()], inputs)
        results = [as_array(value) for value in values_made]
        made: dict[_Slot, Array] = {}
        for (name, quantized), value in zip(
            [*((n, False) for n in ready.outputs), *((n, True) for n in ready.quantized)], results, strict=True
        ):
            made[_Slot(name, quantized=quantized)] = value
            if keep and step.digest is not None:
                value.flags.writeable = False
                key = (step.digest, name, quantized)
                with self._lock:
                    self._cache(name).put(key, value, value.nbytes)
                    if detour is not None:
                        self._detours.note_tensor(detour, segment, key)
        for name in self._outputs:
            # An output without a quantizer of its own is returned as it is.
            if _Slot(name, quantized=False) in made:
                made.setdefault(_Slot(name, quantized=True), made[_Slot(name, quantized=False)])
        return made


@dataclass(frozen=True, slots=True)
class _Slot:
    """A tensor, or its default quantized form as the network's output."""

    name: str
    quantized: bool


def _rows(batch: Batch) -> int:
    return max(1, (batch.rows or batch.samples) if batch.batched else 1)


def _default(quantizers: Sequence[TensorQuantizer]) -> bool:
    return any(quantizer.consumers is None for quantizer in quantizers)


__all__ = ["FLOAT_SIMULATION", "Executor", "Override", "Simulation", "TensorQuantizer"]
