"""Run data through the float network once and keep the statistics of activations, whatever the number of samples.

While ONNX Runtime computes the next tensors, threads summarize those before; a few at a time, so that no more than
these are held.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from quantgui.analysis.samples import Samples
from quantgui.errors import DataError
from quantgui.network.batch import Batch, carry
from quantgui.network.simulation import FLOAT_SIMULATION, Simulation
from quantgui.numerics.statistics import collect, merge
from quantgui.results import ActivationReady, Array, Calibrated, Event, Progress, TensorStatistics

_REPORT_SECONDS = 0.1
_PARTIAL_SECONDS = 2.0
_THREADS = 2
_AHEAD = 4
"""Tensors that may wait for a thread."""
_SQUARED_AT_ONCE = 1 << 18
"""Values whose squares are added up in float32."""


class Streamer(Protocol):
    """What calibration needs of `network.executor.Executor`."""

    def stream(self, batch: Batch, simulation: Simulation, fetch: Sequence[str]) -> Iterator[tuple[str, Array]]: ...
    def rounds(self, name: str) -> int: ...
    def close_streams(self) -> None: ...


def calibrate(
    executor: Streamer,
    dataset: Samples,
    tensors: Collection[str],
    *,
    samples: int | None = None,
    batch_size: int | None = None,
    axes: Mapping[str, Collection[int]] | None = None,
) -> Iterator[Event]:
    """Yield Progress, now and then the ActivationReady so far of every tensor, and at the end Calibrated.

    A tensor that no sample reaches (in a branch that is never taken) ends with empty statistics.

    Args:
        executor: runs the network.
        dataset: the data.
        tensors: names of the tensors.
        samples: how many samples to use, None for all.
        batch_size: samples per batch, None for what suits the network.
        axes: for some of the tensors the axes along which mean squares are kept.

    Raises:
        DataError: the data holds no sample.
        NetworkError: the network cannot be run.
    """
    total = dataset.summary.samples if samples is None else min(samples, dataset.summary.samples)
    started = reported = told = time.perf_counter()
    partial_after = 0.0
    seen: dict[str, _Seen] = {name: _Seen() for name in tensors}
    kept = {} if axes is None else axes
    done = 0
    states: Mapping[str, Array] | None = None
    yield Progress(0, total, "Calibrating")
    with ThreadPoolExecutor(_THREADS) as threads:
        for batch in dataset.batches(batch_size, samples):
            carried = set(batch.carried.values())
            arrived: dict[str, Array] = {}
            waiting: deque[tuple[str, Future[_Summary]]] = deque()
            for name, values in executor.stream(carry(batch, states), FLOAT_SIMULATION, sorted({*seen, *carried})):
                if name in carried:
                    arrived[name] = values
                if name in seen and values.size:
                    waiting.append(
                        (name, threads.submit(_summarize, batch, values, kept.get(name, ()), executor.rounds(name)))
                    )
                _take(waiting, seen, _AHEAD)
                if time.perf_counter() - reported > _REPORT_SECONDS:
                    reported = time.perf_counter()
                    yield Progress(done, total, "Calibrating", _seconds_left(reported - started, done, total))
            _take(waiting, seen, 0)
            states = arrived
            done += batch.samples
            now = reported = time.perf_counter()
            yield Progress(done, total, "Calibrating", _seconds_left(now - started, done, total))
            if done < total and now - told >= partial_after:
                # The first batch at once, later ones seldom: each event carries a fine histogram.
                told, partial_after = now, max(_PARTIAL_SECONDS, 2 * partial_after)
                for name, state in seen.items():
                    yield state.ready(name, done)
    executor.close_streams()
    if done == 0:
        raise DataError(f"The data '{dataset.summary.source}' holds no sample to calibrate with.")
    ready = {name: state.ready(name, done) for name, state in seen.items()}
    yield Calibrated(ready, done, time.perf_counter() - started)


@dataclass(frozen=True, slots=True, eq=False)
class _Summary:
    """What is known of one tensor in one batch."""

    statistics: TensorStatistics
    minima: Array
    maxima: Array
    squares: Mapping[int, tuple[Array, int]]
    """By axis: sum of squares at each index, and how many values it is of."""


def _summarize(batch: Batch, values: Array, axes: Collection[int], rounds: int = 0) -> _Summary:
    """Return what is known of the values of one batch, whose first `rounds` axes count rounds of loops."""
    samples = batch.split(_rounds_behind(values, rounds))
    rows = samples.reshape(len(samples), -1)
    squares = {}
    for axis in axes:
        kept = values if axis == 0 else _unpadded(batch, values, rounds)
        squares[axis] = squares_along(kept, axis if axis < 0 else axis + rounds)
    return _Summary(collect(samples), rows.min(1).astype(np.float32), rows.max(1).astype(np.float32), squares)


def _rounds_behind(values: Array, rounds: int) -> Array:
    """Return the values with the axes that count rounds behind the one that may count samples."""
    return np.moveaxis(values, rounds, 0) if rounds and values.ndim > rounds else values


def _unpadded(batch: Batch, values: Array, rounds: int) -> Array:
    moved = _rounds_behind(values, rounds)
    samples = batch.split(moved)
    if samples.ndim != values.ndim:
        return values
    return np.moveaxis(samples, 0, rounds) if moved is not values else samples


def squares_along(values: Array, axis: int) -> tuple[Array, int]:
    """Return the sum of squares at each index of an axis, float64, and how many values each is of.

    >>> squares_along(np.array([[1.0, 2.0], [3.0, 0.0]]), -1)
    (array([10.,  4.]), 2)
    """
    values = np.asarray(values, np.float32)
    axis = max(axis, -values.ndim) % max(values.ndim, 1)
    before, length = values.shape[:axis], values.shape[axis]
    box = values.reshape(int(np.prod(before)), length, -1)
    total = np.zeros(length)
    step = max(1, _SQUARED_AT_ONCE // max(box[:1].size, 1))
    for start in range(0, len(box), step):
        part = box[start : start + step]
        letters = "ncp,ncp->nc" if part.shape[2] > 1 else "ncp,ncp->c"
        total += np.einsum(letters, part, part).reshape(-1, length).sum(0, dtype=np.float64)
    return total, box.size // max(length, 1)


def _take(waiting: deque[tuple[str, Future[_Summary]]], seen: Mapping[str, _Seen], most: int) -> None:
    """Add summaries, the oldest first, until at most `most` wait."""
    while len(waiting) > most:
        name, summary = waiting.popleft()
        seen[name].add(summary.result())


@dataclass(eq=False)
class _Seen:
    """What is known of one tensor so far."""

    statistics: TensorStatistics = field(default_factory=lambda: collect(np.empty(0, np.float32)))
    minima: list[Array] = field(default_factory=list)
    maxima: list[Array] = field(default_factory=list)
    squares: dict[int, tuple[Array, int]] = field(default_factory=dict)

    def add(self, summary: _Summary) -> None:
        """Add what is known of one more batch."""
        self.statistics = merge(self.statistics, summary.statistics)
        self.minima.append(summary.minima)
        self.maxima.append(summary.maxima)
        for axis, (total, count) in summary.squares.items():
            before, counted = self.squares.get(axis, (0.0, 0))
            self.squares[axis] = before + total, counted + count

    def ready(self, name: str, samples: int) -> ActivationReady:
        squares = {axis: (total / count).astype(np.float32) for axis, (total, count) in self.squares.items() if count}
        return ActivationReady(name, self.statistics, samples, _joined(self.minima), _joined(self.maxima), squares)


def _joined(parts: list[Array]) -> Array:
    return np.concatenate(parts) if parts else np.empty(0, np.float32)


def _seconds_left(elapsed: float, done: int, total: int) -> float | None:
    return elapsed / done * (total - done) if done else None
