"""A mini-batch: what the executor is fed, and which rows of the answer count."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

import numpy as np

from quantgui.results import Array


def _nothing() -> Mapping[str, str]:
    return MappingProxyType({})


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Some neighbouring samples, ready for the network.

    Attributes:
        inputs: one array per network input, of the network's dtype.
        labels: labels of the real samples, shape (samples, ...), or None.
        first: index of the first sample in the dataset.
        samples: number of real samples.
        rows: number of samples fed; more than `samples` where a network of fixed batch size got its last batch padded
            with repetitions of the last sample.
        key: names the content: batches with equal keys hold equal inputs.
        batched: whether the first axis of the inputs counts samples. If not, this is one sample and its outputs
            belong to it as a whole.
        carried: recurrent state, network input -> network output, that flows from one batch to the next (`carry`).
        state_keys: content hash of each input that `carry` has replaced.
    """

    inputs: Mapping[str, Array]
    labels: Array | None
    first: int
    samples: int
    key: str
    rows: int = 0
    batched: bool = True
    carried: Mapping[str, str] = field(default_factory=_nothing)
    state_keys: Mapping[str, str] = field(default_factory=_nothing)

    def split(self, output: Array) -> Array:
        """Return `output` with one entry per real sample, shape (samples, ...); padding is dropped.

        An output whose first axis does not count samples belongs to the batch as a whole: shape (1, *output.shape).
        """
        rows = self.rows or self.samples
        if self.batched and output.ndim > 0 and output.shape[0] == rows:
            return output[: self.samples]
        return output[np.newaxis]


def carry(batch: Batch, outputs: Mapping[str, Array] | None) -> Batch:
    """Return `batch` with its recurrent state taken from the `outputs` of the batch before it (None: the first)."""
    if not batch.carried or outputs is None:
        return batch
    states = {
        name: np.ascontiguousarray(outputs[output]).astype(batch.inputs[name].dtype, copy=False)
        for name, output in batch.carried.items()
    }
    keys = {name: content_key(state) for name, state in states.items()}
    return replace(batch, inputs={**batch.inputs, **states}, state_keys=keys)


def content_key(array: Array) -> str:
    """Return a hash of dtype, shape and values of `array`."""
    values = np.ascontiguousarray(array)
    digest = hashlib.blake2b(f"{values.dtype.str}{values.shape}".encode(), digest_size=16)
    digest.update(values.tobytes())
    return digest.hexdigest()
