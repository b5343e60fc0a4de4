"""Weights, scales and biases as training left them: a file named by the hash of its content, in safetensors format.

The file holds for each trained layer its float weight (`weight:LAYER`), the scales and zero points of its groups
(`scale:LAYER`, `zero_point:LAYER`) and the biases that were trained with it (`bias:LAYER:INITIALIZER`). What is no
tensor lies in the header: the network it belongs to, and the specification each layer was trained under.
Source of the format: github.com/huggingface/safetensors, README, "Format".
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import mmap
import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import numpy as np

from quantgui.errors import NetworkError
from quantgui.network.bounded_folder import drop_oldest
from quantgui.numerics.qparams import QParams
from quantgui.paths import trained_folder
from quantgui.results import Array
from quantgui.spec.quantizer import MinMax, QuantizerSpec
from quantgui.spec.serialization import quantizer_from_json, quantizer_to_json
from quantgui.spec.trained_files import ENDING

MOST_BYTES: Final = 8 * 2**30
"""Of all states that are kept for the user; those of saved configurations lie beside these too."""
_KIND: Final = "quantgui.trained"
_VERSION: Final = 1
_LENGTH_BYTES: Final = 8
_MOST_HEADER_BYTES: Final = 100_000_000
"""As the format's own reader has it."""
_HASHED_AT_ONCE: Final = 1 << 24
_TYPES: Final[Mapping[str, str]] = MappingProxyType({"F32": "<f4", "I32": "<i4"})


@dataclass(frozen=True, eq=False)
class TrainedLayer:
    """What training has made of one layer.

    Attributes:
        spec: how it was quantized while it was trained; the estimator of its range does not count (`untrained`).
        weight: float32, in the shape of the layer.
        qparams: scales and zero points, (G,).
        biases: float32 values of the biases trained with it, by the name of their initializer.
    """

    spec: QuantizerSpec
    weight: Array
    qparams: QParams
    biases: Mapping[str, Array] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, eq=False)
class TrainedState:
    """What one training has left.

    Attributes:
        layers: by name.
        network: `Network.fingerprint` of the network that was trained.
    """

    layers: Mapping[str, TrainedLayer]
    network: str


def untrained(spec: QuantizerSpec) -> QuantizerSpec:
    """Return `spec` without its estimator, as `TrainedLayer.spec` has it."""
    return replace(spec, range_estimator=MinMax())


# --- writing -----------------------------------------------------------------------------------------------------


def save_state(state: TrainedState, folder: Path) -> str:
    """Write `state` to `folder`, which is made if need be; return its name, the SHA-256 of the file's content.

    Of what is kept in `paths.trained_folder` that which was used longest ago makes room beyond `MOST_BYTES`.

    Raises:
        NetworkError: the file cannot be written.
    """
    tensors = dict(_tensors(state))
    header = _header(state, tensors)
    digest = hashlib.sha256()
    temporary = folder / f".trained.{secrets.token_hex(8)}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with temporary.open("xb") as file:
            values = (each.reshape(-1).view(np.uint8).data for each in tensors.values())
            parts: tuple[bytes | memoryview, ...] = (len(header).to_bytes(_LENGTH_BYTES, "little"), header, *values)
            for part in parts:
                digest.update(part)
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
        path = folder / f"{digest.hexdigest()}{ENDING}"
        temporary.replace(path)
        if folder == trained_folder():
            drop_oldest(folder, f"*{ENDING}", path, MOST_BYTES)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise NetworkError(f"Cannot keep the trained weights in '{folder}': {error.strerror}.") from error
    return digest.hexdigest()


def _tensors(state: TrainedState) -> Iterator[tuple[str, Array]]:
    for name, layer in sorted(state.layers.items()):
        yield f"weight:{name}", _stored(layer.weight, "F32")
        yield f"scale:{name}", _stored(layer.qparams.scale, "F32")
        yield f"zero_point:{name}", _stored(layer.qparams.zero_point, "I32")
        for bias, values in sorted(layer.biases.items()):
            yield f"bias:{name}:{bias}", _stored(values, "F32")


def _stored(values: Array, kind: str) -> Array:
    return np.ascontiguousarray(values, np.dtype(_TYPES[kind])).reshape(values.shape)


def _header(state: TrainedState, tensors: Mapping[str, Array]) -> bytes:
    told = {
        "version": _VERSION,
        "network": state.network,
        "layers": {
            name: {"spec": quantizer_to_json(untrained(layer.spec)), "biases": sorted(layer.biases)}
            for name, layer in sorted(state.layers.items())
        },
    }
    header: dict[str, Any] = {"__metadata__": {_KIND: json.dumps(told, separators=(",", ":"))}}
    start = 0
    kinds = {np.dtype(stored): kind for kind, stored in _TYPES.items()}
    for name, values in tensors.items():
        offsets = [start, start + values.nbytes]
        header[name] = {"dtype": kinds[values.dtype], "shape": list(values.shape), "data_offsets": offsets}
        start += values.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    # The values begin at a multiple of 8 bytes.
    return text + b" " * (-len(text) % _LENGTH_BYTES)


# --- reading -----------------------------------------------------------------------------------------------------


def load_state(name: str, folders: Sequence[Path]) -> TrainedState:
    """Return the trained state called `name` from the first of `folders` that holds it; values are mapped, not read.

    Raises:
        NetworkError: it is in none of them, or its file is damaged.
    """
    path = next((path for folder in folders if (path := folder / f"{name}{ENDING}").is_file()), None)
    if path is None:
        raise NetworkError(
            f"The configuration uses trained weights ({name[:8]}…) which are not on this machine; train again, or put "
            f"'{name}{ENDING}' beside the configuration and open it again."
        )
    try:
        with contextlib.suppress(OSError):
            # What is read counts as used.
            os.utime(path)
        with path.open("rb") as file:
            content = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except (OSError, ValueError) as error:
        raise NetworkError(f"The trained weights '{path}' cannot be read: {error}.") from error
    if _hash(content) != name:
        raise _damaged(path)
    try:
        return _read(content)
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise _damaged(path) from error


def _damaged(path: Path) -> NetworkError:
    return NetworkError(
        f"The trained weights '{path}' are damaged; delete this file, and open the configuration again that it was "
        "saved with, or train again."
    )


def _hash(content: memoryview) -> str:
    digest = hashlib.sha256()
    for start in range(0, len(content), _HASHED_AT_ONCE):
        digest.update(content[start : start + _HASHED_AT_ONCE])
    return digest.hexdigest()


def _read(content: memoryview) -> TrainedState:
    length = int.from_bytes(content[:_LENGTH_BYTES], "little")
    if not 2 <= length <= min(_MOST_HEADER_BYTES, len(content) - _LENGTH_BYTES):
        raise ValueError("The header is longer than the file.")
    header = json.loads(bytes(content[_LENGTH_BYTES : _LENGTH_BYTES + length]))
    data = content[_LENGTH_BYTES + length :]
    told = json.loads(header["__metadata__"][_KIND])
    if told["version"] != _VERSION:
        raise ValueError("The file is of another version.")
    layers = {}
    for name, about in told["layers"].items():
        spec = quantizer_from_json(about["spec"], name)
        scale, zero_point = (_tensor(data, header[f"{part}:{name}"]) for part in ("scale", "zero_point"))
        biases = {bias: _tensor(data, header[f"bias:{name}:{bias}"]) for bias in about["biases"]}
        weight = _tensor(data, header[f"weight:{name}"])
        layers[name] = TrainedLayer(spec, weight, QParams(scale, zero_point), MappingProxyType(biases))
    return TrainedState(MappingProxyType(layers), str(told["network"]))


def _tensor(data: memoryview, about: Mapping[str, Any]) -> Array:
    dtype = np.dtype(_TYPES[about["dtype"]])
    start, end = (int(each) for each in about["data_offsets"])
    shape = tuple(int(each) for each in about["shape"])
    fits = min(shape, default=0) >= 0 and math.prod(shape) * dtype.itemsize == end - start
    if not fits or not 0 <= start <= end <= len(data):
        raise ValueError("A tensor lies beyond the end of the file.")
    return np.frombuffer(data[start:end], dtype).reshape(shape)


class TrainedStates:
    """The trained states of one network, each read when it is used first; a name always means the same values.

    Args:
        folders: where they lie, `paths.trained_folder` if None.
    """

    def __init__(self, folders: Sequence[Path] | None = None) -> None:
        self._folders = (trained_folder(),) if folders is None else tuple(folders)
        self._known: dict[str, TrainedState] = {}

    def get(self, name: str, network: str) -> TrainedState:
        """Return the state called `name`, which must be of the network with the fingerprint `network`.

        Raises:
            NetworkError: it is not there, damaged, or of another network.
        """
        if name not in self._known:
            self._known[name] = load_state(name, self._folders)
        if self._known[name].network != network:
            raise NetworkError(
                f"The trained weights {name[:8]}… are of another network; choose another range estimator for the "
                "layers that use them, or train this network."
            )
        return self._known[name]

    def drop(self, name: str) -> None:
        """Delete the state called `name`, which nobody has been told of."""
        self._known.pop(name, None)
        for folder in self._folders:
            (folder / f"{name}{ENDING}").unlink(missing_ok=True)

    def keep(self, state: TrainedState) -> tuple[str, bool]:
        """Write a state where `get` looks first; return its name, and whether it was not there before.

        Raises:
            NetworkError: it cannot be written.
        """
        before = {path.name for path in self._folders[0].glob(f"*{ENDING}")}
        name = save_state(state, self._folders[0])
        return name, f"{name}{ENDING}" not in before

    def holds(self, name: str) -> bool:
        """Return whether there is a file of the state called `name`."""
        return any((folder / f"{name}{ENDING}").is_file() for folder in self._folders)


__all__ = ["TrainedLayer", "TrainedState", "TrainedStates", "load_state", "save_state", "untrained"]
