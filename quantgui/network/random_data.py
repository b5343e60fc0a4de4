"""Random numbers as network input: sizes guessed and tried in ONNX Runtime. What is measured on them means little."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnxruntime

from quantgui.errors import DataError, NetworkError
from quantgui.network.arrays import Column
from quantgui.network.network import Network
from quantgui.network.surgery import used_names
from quantgui.network.whole import whole_session
from quantgui.results import Array, NetworkSummary, TensorInfo

_PICTURE_SIZES = (224, 320, 256, 640, 64, 32, 128, 512, 96, 48)
_SEQUENCE_LENGTHS = (64, 128, 100, 32, 16, 256, 80, 1)
_SIGNAL_LENGTHS = (16000, 512, 576, 1024, 4096, 64, 48000, 32000)
_STEP_LENGTHS = (512, 576, 256, 160, 64, 1)
"""Values that a recurrent network takes at one step."""
_SAMPLE_RATES = (16000, 8000, 1, 0)
_IDS, _UNKNOWN_IDS, _FLAGS = 1000, 10, 2
_LISTED = 4
"""Inputs that a sentence names."""
_SHAPE_KEEPING = frozenset(
    {"Cast", "Identity", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Transpose", "Slice", "Clip", "Concat"}
)


@dataclass(frozen=True, slots=True)
class _Guess:
    """One way to fill the free dimensions: sizes by kind of axis."""

    picture: int
    sequence: int
    signal: int
    rate: int


def random_columns(
    count: int, summary: NetworkSummary, carried: Mapping[str, str], network: Network | None
) -> dict[str, Column]:
    """Return `count` random samples for every input but the carried states.

    With `network` each guess is tried on it until one runs; without it the first guess is returned untried.

    Raises:
        DataError: the network runs with none of the guesses.
    """
    inputs = [info for info in summary.inputs if info.name not in carried]
    limits = {info.name: _integer_limit(info, summary, network) for info in inputs}
    guesses = _guesses(_STEP_LENGTHS if carried else _SIGNAL_LENGTHS)
    if network is None:
        return _columns(count, inputs, next(guesses), limits)
    whole = whole_session(network.skeleton, network.constants)
    failure = ""
    tried: set[tuple[object, ...]] = set()
    quiet = onnxruntime.RunOptions()
    quiet.log_severity_level = 4  # failures are part of guessing
    for guess in guesses:
        columns = _columns(count, inputs, guess, limits)
        feed = {info.name: _first_row(columns[info.name], info) for info in inputs}
        signature = tuple((v.shape, v.item() if v.ndim == 0 else None) for v in feed.values())
        if signature in tried:
            continue
        tried.add(signature)
        states = {i.name: zero_state(i, 1) for i in summary.inputs if i.name in carried}
        try:
            whole.run(None, {**feed, **states}, quiet)
        except NetworkError as error:
            failure = failure or str(error)
            continue
        return columns
    more = f" and {len(inputs) - _LISTED} more" if len(inputs) > _LISTED else ""
    listed = ", ".join(str(info) for info in inputs[:_LISTED]) + more
    raise DataError(
        f"The sizes of the inputs of '{summary.name}' ({listed}) cannot be guessed; give a data file. "
        f"The first try said: {failure}"
    )


def zero_state(info: TensorInfo, rows: int) -> Array:
    """Return zeros for a recurrent state; its free dimensions are the batch."""
    shape = tuple(dim if isinstance(dim, int) else rows for dim in info.shape or ())
    return np.zeros(shape, np.dtype(info.dtype))


def _guesses(signal_lengths: Sequence[int]) -> Iterator[_Guess]:
    tables = (_PICTURE_SIZES, _SEQUENCE_LENGTHS, signal_lengths)
    for rate in _SAMPLE_RATES:
        for i in range(max(len(table) for table in tables)):
            picture, sequence, signal = (table[min(i, len(table) - 1)] for table in tables)
            yield _Guess(picture, sequence, signal, rate)


def _columns(count: int, inputs: Sequence[TensorInfo], guess: _Guess, limits: Mapping[str, int]) -> dict[str, Column]:
    return {info.name: _column(index, count, info, guess, limits[info.name]) for index, info in enumerate(inputs)}


def _column(index: int, count: int, info: TensorInfo, guess: _Guess, limit: int) -> Column:
    dtype = np.dtype(info.dtype)
    shape = _sample_shape(info, guess)
    if shape is None:
        scalar = np.array(_scalar(info, guess), dtype)
        return Column(info.name, (), dtype, lambda _start, _stop: scalar, lambda: scalar)
    picture = len(shape) == 3 and {shape[0], shape[-1]} & {1, 3, 4}

    def sample(number: int) -> Array:
        random = np.random.default_rng((index, number))
        if dtype.kind == "b":
            return random.random(shape) < 0.5
        if dtype.kind in "iu":
            return random.integers(0, limit, shape).astype(dtype)
        return (random.random(shape) if picture else random.standard_normal(shape)).astype(dtype)

    def read(start: int, stop: int) -> Array:
        return np.stack([sample(i) for i in range(start, min(stop, count))])

    return Column(info.name, (count, *shape), dtype, read, lambda: read(0, count))


def _sample_shape(info: TensorInfo, guess: _Guess) -> tuple[int, ...] | None:
    """Return the shape of one sample: without the first axis where it may count samples; None for scalars."""
    dims = info.shape
    if dims is None:
        return (guess.sequence,)
    if not dims:
        return None
    whole = tuple(dim if isinstance(dim, int) else _free(info, axis, guess) for axis, dim in enumerate(dims))
    return whole if isinstance(dims[0], int) and dims[0] != 1 else whole[1:]


def _free(info: TensorInfo, axis: int, guess: _Guess) -> int:
    dims = info.shape or ()
    if axis == 0:
        return 1
    if len(dims) == 4:
        static = [dim for dim in dims[1:] if isinstance(dim, int) and dim > 4]
        # A fixed small height is a text line, which is wide.
        return 320 if static and min(static) <= 64 and guess.picture == _PICTURE_SIZES[0] else guess.picture
    if len(dims) == 2 and np.dtype(info.dtype).kind == "f":
        return guess.signal
    return guess.sequence


def _scalar(info: TensorInfo, guess: _Guess) -> int:
    name = info.name.lower()
    if name in ("sr", "fs") or "rate" in name:
        return guess.rate
    return guess.sequence if "len" in name else 1


def _first_row(column: Column, info: TensorInfo) -> Array:
    if not column.shape:
        return column.whole()
    row = column.read(0, 1)
    return row[0] if info.shape is not None and row.ndim > len(info.shape) else row


def _integer_limit(info: TensorInfo, summary: NetworkSummary, network: Network | None) -> int:
    """Return a number below which every integer is a possible value of the input."""
    if np.dtype(info.dtype).kind not in "iu":
        return 0
    name = info.name.lower()
    if "mask" in name or "type" in name:
        return _FLAGS
    if network is not None:
        table = _smallest_table(info.name, network)
        if table is not None:
            return max(table, 1)
    embeddings = [layer.channels for layer in summary.layers if layer.op == "Gather"]
    if embeddings and network is None:
        return min(embeddings)
    return _IDS if "ids" in name and network is None else _UNKNOWN_IDS


def _smallest_table(name: str, network: Network) -> int | None:
    """Return the number of rows of the smallest table (Gather, OneHot) that the input `name` looks up."""
    reached, sizes = {name}, list[int]()
    for node in network.skeleton.graph.node:
        if not reached & used_names(node):
            continue
        if node.op_type == "Gather" and node.input[1] in reached:
            table = network.constants.get(node.input[0])
            if table is not None and table.ndim:
                axis = next((a.i for a in node.attribute if a.name == "axis"), 0)
                sizes.append(table.shape[axis])
        elif node.op_type == "OneHot" and node.input[0] in reached:
            depth: Array | None = network.constants.get(node.input[1])
            if depth is not None:
                sizes.append(int(np.reshape(depth, -1)[0]))
        elif node.op_type in _SHAPE_KEEPING and node.input[0] in reached:
            reached |= set(node.output)
    return min(sizes, default=None)
