"""What a sweep has measured, on disk: a file per question, one line per finished candidate, each line written at once.

Lines of their own hold the cheap guesses (`analysis.proxies`), so that a finished sweep comes back without any run.

The file's name is a hash of everything the numbers depend on, so they can be missing but never stale. What a crash has
left of a last line is cut off when the file is opened again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import onnxruntime

from quantgui import __version__
from quantgui.analysis.metric_function import Metric
from quantgui.analysis.scores import SampleRows
from quantgui.errors import DataError
from quantgui.network.bounded_folder import drop_oldest
from quantgui.network.network import Network, as_contiguous
from quantgui.results import Array
from quantgui.spec.quantizer import LayerSpec
from quantgui.spec.serialization import config_to_json, layer_spec_to_json
from quantgui.spec.sweep import Sweep

_VERSION = 1
_SYNC_SECONDS = 1.0
MOST_BYTES = 128 * 2**20
"""Bytes of all sweeps that are kept."""

Place = tuple[int, int]
"""First sample of a batch, and number of samples."""


def question_key(network: Network, data: str, sweep: Sweep, metric: Metric | None, ranges: str = "") -> str:
    """Return a hash of everything that the numbers of a candidate depend on, but the candidate.

    Args:
        network: graph and weights.
        data: fingerprint of the data that quality is measured on.
        sweep: its base and metric count.
        metric: the user's function; the text of its file counts.
        ranges: names the data that ranges of activations come from; empty where none are needed.
    """
    digest = hashlib.blake2b(digest_size=16)

    def add(part: bytes) -> None:
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)

    base = {**config_to_json(sweep.base), "name": ""}
    values = [_VERSION, __version__, onnxruntime.__version__, data, ranges, sweep.metric, base]
    add(json.dumps(values, sort_keys=True).encode())
    if metric is not None and sweep.metric == "user":
        add(metric.name.encode())
        add(metric.file.read_bytes())
    add(network.skeleton.SerializeToString(deterministic=True))
    for name in sorted(network.constants):
        add(name.encode())
        values_of = as_contiguous(network.constants[name])
        add(f"{values_of.dtype.str}{values_of.shape}".encode())
        digest.update(values_of.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def open_sweep(folder: Path, key: str, most_bytes: int = MOST_BYTES) -> SweepStore:
    """Return the store of the question `key` in `folder`, which keeps what was used last within `most_bytes`.

    Raises:
        DataError: it cannot be written.
    """
    store = SweepStore(folder / f"{key}.jsonl")
    with contextlib.suppress(OSError):
        # What is read counts as used, even if nothing is written.
        os.utime(store.path)
        drop_oldest(folder, "*.jsonl", store.path, most_bytes)
    return store


class SweepStore:
    """The measured rows of candidates, batch by batch; a context manager."""

    def __init__(self, path: Path) -> None:
        """Open the file at `path`, or make one.

        Raises:
            DataError: it cannot be written.
        """
        self.path = path
        self._rows: dict[str, dict[Place, SampleRows]] = {}
        self._guesses: dict[str, dict[str, float]] = {}
        self._synced = 0.0
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
            whole = self._read()
            os.ftruncate(self._file, whole)
        except OSError as error:
            raise DataError(f"Cannot keep the sweep in '{path}': {error.strerror}.") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        if self._file >= 0:
            with contextlib.suppress(OSError):
                os.fsync(self._file)
            os.close(self._file)
            self._file = -1

    def rows(self, layer: str, spec: LayerSpec) -> Mapping[Place, SampleRows]:
        """Return what is known of a candidate, by batch."""
        return self._rows.get(_candidate(layer, spec), {})

    def put(self, layer: str, spec: LayerSpec, rows: Mapping[Place, SampleRows]) -> None:
        """Keep what was measured of a candidate.

        It outlives the process from now on; should the whole machine fail, at most the last second is lost.

        Raises:
            DataError: it cannot be written.
        """
        self._rows.setdefault(_candidate(layer, spec), {}).update(rows)
        record = {
            "layer": layer,
            "spec": layer_spec_to_json(spec),
            "batches": [{"first": place[0], **_to_json(part)} for place, part in rows.items()],
        }
        self._write([record])

    def guesses(self, layer: str, spec: LayerSpec) -> Mapping[str, float]:
        """Return what the proxies said of a candidate; empty where that is not known."""
        return self._guesses.get(_candidate(layer, spec), {})

    def put_guesses(self, guesses: Iterable[tuple[str, LayerSpec, Mapping[str, float]]]) -> None:
        """Keep what the proxies said of some candidates (layer, spec).

        Raises:
            DataError: it cannot be written.
        """
        records = []
        for layer, spec, values in guesses:
            self._guesses[_candidate(layer, spec)] = dict(values)
            records.append({"layer": layer, "spec": layer_spec_to_json(spec), "batches": [], "guesses": dict(values)})
        self._write(records)

    def _write(self, records: Iterable[Mapping[str, Any]]) -> None:
        line = b"".join(json.dumps(record).encode() + b"\n" for record in records)
        try:
            # One write, so that two programs that work on the same question do not mix their lines.
            written = os.write(self._file, line)
            if time.monotonic() - self._synced > _SYNC_SECONDS:
                os.fsync(self._file)
                self._synced = time.monotonic()
        except OSError as error:
            raise DataError(f"Cannot keep the sweep in '{self.path}': {error.strerror}.") from error
        if written != len(line):
            raise DataError(f"Cannot keep the sweep in '{self.path}': the disk is full.")

    def _read(self) -> int:
        """Read all records and return the bytes of the whole ones, which is where the file should end."""
        content = self.path.read_bytes()
        end = 0
        for line in content.splitlines(keepends=True):
            if not line.endswith(b"\n"):
                break
            end += len(line)
            try:
                record = json.loads(line)
                batches = {(b["first"], b["samples"]): _from_json(b) for b in record["batches"]}
                guesses = {name: float(value) for name, value in record.get("guesses", {}).items()}
                key = _key(record["layer"], record["spec"])
            except (ValueError, KeyError, TypeError, AttributeError):
                continue  # a damaged line is measured anew
            if guesses:
                self._guesses[key] = guesses
                continue
            self._rows.setdefault(key, {}).update(batches)
        return end


def _candidate(layer: str, spec: LayerSpec) -> str:
    return _key(layer, layer_spec_to_json(spec))


def _key(layer: str, spec: Mapping[str, Any]) -> str:
    return json.dumps([layer, spec], sort_keys=True)


def _to_json(rows: SampleRows) -> dict[str, Any]:
    if rows.energy:
        energy = {name: [signal.tolist(), noise.tolist()] for name, (signal, noise) in rows.energy.items()}
        return {"samples": rows.samples, "energy": energy}
    return {"samples": rows.samples, "values": rows.values.tolist(), "weights": rows.weights.tolist()}


def _from_json(value: Mapping[str, Any]) -> SampleRows:
    if "energy" in value:
        energy = {name: (_array(pair[0]), _array(pair[1])) for name, pair in value["energy"].items()}
        return SampleRows(int(value["samples"]), energy)
    return SampleRows(int(value["samples"]), values=_array(value["values"]), weights=_array(value["weights"]))


def _array(values: Iterable[float]) -> Array:
    return np.array(list(values), np.float64)
