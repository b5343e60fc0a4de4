"""How close two outputs of a network are: one number per sample, the first axis counts samples; reference first."""

from __future__ import annotations

from typing import Any

import numpy as np

from quantgui.numerics.statistics import decibels
from quantgui.results import Array

_BLOCK, _WIDTH = 2**17, 2**13
"""Values looked at together, so that they stay near the processor, and values summed in one go as float32."""
_SAFE = (1e-25, 1e30)
"""Energies that float32 sums cannot have lost anything of."""


def energies(reference: Array, output: Array) -> tuple[Array, Array]:
    """Return the energy of the reference and of the difference in each sample, both float64 (S,)."""
    return signal_energies(reference), noise_energies(reference, output)


def signal_energies(reference: Array) -> Array:
    """Return the sum of squares of each sample, float64 (S,); NaN or infinite where a value is."""
    return _squares(reference, None)


def noise_energies(reference: Array, output: Array) -> Array:
    """Return the sum of squared differences of each sample, float64 (S,); NaN or infinite where a value is."""
    return _squares(reference, output)


def _squares(x: Array, y: Array | None) -> Array:
    """Return the sum of squares of ``x - y`` for each row: in float32 blocks where they are exact enough, else float64.

    Large outputs, such as those of text recognisers, take longer to read than their layers to run.
    """
    rows = len(x)
    if x.size == 0:
        return np.zeros(rows)
    first = x.reshape(rows, -1)
    second = None if y is None else y.reshape(rows, -1)
    quick = x.dtype == np.float32 and (y is None or y.dtype == np.float32)
    found = _sums(first, second, np.float32) if quick else np.full(rows, np.nan)
    unsafe = np.flatnonzero(~((found > _SAFE[0]) & (found < _SAFE[1])))
    if unsafe.size:
        found[unsafe] = _sums(first[unsafe], None if second is None else second[unsafe], np.float64)
    return found


def _sums(x: Array, y: Array | None, dtype: type[np.floating[Any]]) -> Array:
    rows, columns = x.shape
    width = min(columns, _WIDTH)
    height = max(1, _BLOCK // width)
    found = np.zeros(rows)
    # What is not finite shows in the result.
    with np.errstate(all="ignore"):
        for top in range(0, rows, height):
            for left in range(0, columns, width):
                part = np.s_[top : top + height, left : left + width]
                block = x[part].astype(dtype, copy=False) if y is None else np.subtract(x[part], y[part], dtype=dtype)
                found[top : top + height] += np.vecdot(block, block)
    return found


def sqnr_db(reference: Array, output: Array) -> float:
    """Return 10 log10(sum x^2 / sum (x - x')^2) over all values, dB, larger is better; inf where equal."""
    signal, noise = energies(reference.reshape(1, -1), output.reshape(1, -1))
    return decibels(float(signal[0]), float(noise[0]))


def cosine(reference: Array, output: Array) -> Array:
    """Return the cosine of the angle between reference and output of each sample, (S,); 1 where both are 0."""
    a, b = _rows(reference), _rows(output)
    lengths = np.sqrt(np.einsum("sn,sn->s", a, a)) * np.sqrt(np.einsum("sn,sn->s", b, b))
    product = np.einsum("sn,sn->s", a, b)
    equal = (a == b).all(axis=1)
    ratio = np.divide(product, lengths, out=np.zeros_like(product), where=lengths > 0)
    return np.where(equal, 1.0, np.clip(ratio, -1.0, 1.0))


def looks_like_probabilities(output: Array) -> bool:
    """Return whether the last axis holds probabilities: none negative, with sum 1."""
    if output.ndim < 2 or output.shape[-1] < 2 or output.size == 0 or not np.issubdtype(output.dtype, np.floating):
        return False
    return bool(output.min() >= 0.0 and np.allclose(output.sum(axis=-1, dtype=np.float64), 1.0, atol=1e-3))


def kl(reference: Array, output: Array) -> Array:
    """Return the KL divergence of the class probabilities of each sample, nats, (S,); smaller is better.

    The last axis holds the classes, as probabilities if the reference looks like them, else as logits; positions of a
    sequence are averaged.
    """
    if looks_like_probabilities(reference):
        p, q = (np.log(np.maximum(x.astype(np.float64), 1e-12)) for x in (reference, output))
    else:
        p, q = _log_softmax(reference), _log_softmax(output)
    divergence = (np.exp(p) * (p - q)).sum(axis=-1)
    return np.asarray(np.maximum(divergence.reshape(len(reference), -1).mean(axis=1), 0.0))


def agreement(reference: Array, output: Array) -> Array:
    """Return for each sample the share of positions where both have the same top class (last axis), (S,)."""
    same = reference.argmax(axis=-1) == output.argmax(axis=-1)
    return np.asarray(same.reshape(len(reference), -1).mean(axis=1))


def accuracy(output: Array, labels: Array) -> Array:
    """Return for each sample the share of positions whose top class (last axis) is the label, (S,)."""
    top = output.argmax(axis=-1)
    return np.asarray((top == labels.reshape(top.shape)).reshape(len(output), -1).mean(axis=1))


def _rows(x: Array) -> Array:
    return x.reshape(len(x), -1).astype(np.float64) if x.size else np.zeros((len(x), 0))


def _log_softmax(x: Array) -> Array:
    shifted = x.astype(np.float64) - x.max(axis=-1, keepdims=True)
    result: Array = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return result
