"""What ``quantgui sensitivity -o FILE`` has written, read again by the commands that build on it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from quantgui.errors import DataError, SpecError
from quantgui.results import Candidate, NetworkSummary, RankedLayer, Score, Sensitivity
from quantgui.spec.config import QuantConfig
from quantgui.spec.quantizer import BLOCK_FORMATS, FLOAT, LayerSpec
from quantgui.spec.serialization import config_from_json, require_writable, write_text_atomically
from quantgui.spec.sweep import METRICS, USER_METRIC, Sweep, bits_specs
from quantgui.terminal import json_text

Told = Mapping[str, Any]
"""The file's JSON object."""


def require_place(path: str | None) -> None:
    """Raise SpecError if the answer could not be written to `path`: better now than after an hour of measuring."""
    if path:
        require_writable(Path(path))


def save_json(path: str | None, values: Mapping[str, Any]) -> None:
    """Write `values` to `path`, if there is one."""
    if path:
        write_text_atomically(Path(path), json_text(values) + "\n")


def read_told(path: Path, summary: NetworkSummary) -> tuple[Told, QuantConfig]:
    """Return what ``quantgui sensitivity`` has written about this network, and within which configuration.

    Raises:
        DataError: the file cannot be read, or tells of something else.
    """
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"Cannot read the sensitivity '{path}': {error.strerror}.") from error
    except ValueError as error:
        raise DataError(f"'{path.name}' is no JSON file: {error}.") from error
    try:
        layers = {layer["name"]: int(layer["parameters"]) for layer in told["layers"]}
        base = config_from_json(told["config"])
        formats = [each["format"] for layer in told["layers"] for each in layer["candidates"]]
    except (TypeError, KeyError, ValueError) as error:
        raise DataError(f"'{path.name}' is no answer of 'quantgui sensitivity'.") from error
    known = {layer.name: layer.parameters for layer in summary.layers}
    for name, parameters in layers.items():
        if known.get(name) != parameters:
            raise DataError(f"'{path.name}' is of another network: this one has no such layer '{name}'.")
    if told.get("fingerprint", summary.fingerprint) != summary.fingerprint:
        raise DataError(f"'{path.name}' is of another network with the same layers: its weights or graph differ.")
    if not formats:
        raise DataError(f"'{path.name}' holds no measured layer.")
    result: Told = told
    return result, base


def read_table(path: Path, summary: NetworkSummary) -> Sensitivity:
    """Return the table in the file at `path`, as it was measured.

    Raises:
        DataError: the file cannot be read, or tells of something else.
    """
    told, base = read_told(path, summary)
    try:
        columns = list(dict.fromkeys(each["format"] for layer in told["layers"] for each in layer["candidates"]))
        specs = {column: _column_spec(column) for column in columns}
        metric = str(told["metric"])
        sweep = Sweep(tuple(specs.values()), told["what"], base, metric if metric in METRICS else USER_METRIC)
        candidates = [
            candidate_from(layer["name"], each, specs[each["format"]], sweep, int(each["bytes"]))
            for layer in told["layers"]
            for each in layer["candidates"]
        ]
        orders = {
            str(column): tuple(RankedLayer(str(place["layer"]), bool(place["certain"])) for place in order)
            for column, order in told["orders"].items()
        }
        return table_of(told, sweep, candidates, orders)
    except (AttributeError, TypeError, KeyError, ValueError, SpecError) as error:
        raise DataError(f"'{path.name}' is no answer of 'quantgui sensitivity'.") from error


def candidate_from(name: str, told: Told, spec: LayerSpec, sweep: Sweep, count: int) -> Candidate:
    """Return a layer with one format as the file tells it; `count` are the bytes of its weight."""
    value, error = finite(told["value"], sweep, told["samples"]), finite(told["stderr"], sweep, 0)
    return Candidate(name, str(told["format"]), spec, value, error, int(told["samples"]), count)


def table_of(
    told: Told, sweep: Sweep, candidates: Iterable[Candidate], orders: Mapping[str, tuple[RankedLayer, ...]]
) -> Sensitivity:
    """Return the table of `candidates`; what the file does not tell of the sweep itself is not a number."""
    reference = told["reference"]
    known = tuple(candidates)
    return Sensitivity(
        sweep=sweep,
        metric=str(told["metric"]),
        higher_is_better=bool(told["higher_is_better"]),
        reference=Score(finite(reference["value"], sweep, 1), math.nan, int(reference["samples"])),
        candidates=known,
        orders=orders,
        weight_error_correlation=math.nan,
        total_samples=int(told["samples"]),
        float_forward_seconds=math.nan,
        seconds=0.0,
        cut_segments=0,
        peak_cache_bytes=0,
        resumed=len(known),
        complete=True,
    )


def finite(value: float | str | None, sweep: Sweep, samples: int) -> float:
    """Return a number of a JSON file, ``"inf"`` and ``"-inf"`` among them; null is one that is not known.

    Older files have null for what is endless too: the output SQNR of equal outputs.
    """
    if value is not None:
        return float(value)
    return math.inf if samples and sweep.metric == METRICS[0] else math.nan


def _column_spec(column: str) -> LayerSpec:
    """Return what a column stands for, where its name tells; float where it does not."""
    weights = column.split(" / ", maxsplit=1)[0]
    if weights in BLOCK_FORMATS:
        return LayerSpec(BLOCK_FORMATS[weights])
    digits = weights.removeprefix("int")
    return bits_specs([int(digits)])[0] if digits.isdecimal() and 2 <= int(digits) <= 16 else FLOAT
