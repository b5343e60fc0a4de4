"""Half-quadratic quantization: the zero point that leaves few large errors, found from the weights alone.

Source: H. Badri and A. Shaji, "Half-quadratic quantization of large machine learning models", 2023. It minimizes
``sum |x - x'|^p`` with p < 1, which forgives the few large errors of outliers, by turns over the errors (a
shrinkage in closed form) and the zero point (a mean). Two things differ from the source: errors are measured in steps
of the group's own grid, so that the result does not depend on the size of the weights, and zero points are integers,
as ONNX has them; of all that were passed on the way the best is taken.
"""

from __future__ import annotations

import numpy as np

from quantgui.numerics.qparams import SMALLEST_SCALE
from quantgui.results import Array
from quantgui.spec.formats import IntFormat

POWER = 0.7
_PENALTY = 10.0
_GROWTH = 1.01
_ROUNDS = 20


def half_quadratic_ranges(rows: Array, fmt: IntFormat) -> tuple[Array, Array]:
    """Return (low, high), each float64 (G,), of groups of values (G, N): as wide as min-max, moved by whole steps."""
    levels = fmt.quant_max - fmt.quant_min
    low = np.minimum(rows.min(axis=1), 0.0).astype(np.float64)
    high = np.maximum(rows.max(axis=1), 0.0).astype(np.float64)
    scale = np.maximum((high - low) / levels, SMALLEST_SCALE)
    units = rows * (1.0 / scale).astype(np.float32)[:, None]
    zero = -low / scale
    best, least = np.rint(zero), np.full(len(rows), np.inf)
    penalty = _PENALTY
    for _ in range(_ROUNDS):
        whole = np.clip(np.rint(zero), 0, levels)
        loss = np.sum(np.abs(_errors(units, whole, levels)) ** POWER, axis=1)
        better = loss < least
        best, least = np.where(better, whole, best), np.where(better, loss, least)
        error = _errors(units, zero, levels)
        magnitude = np.abs(error)
        with np.errstate(divide="ignore"):
            kept = np.maximum(magnitude - magnitude ** (POWER - 1.0) / penalty, 0.0) * np.sign(error)
        # The zero point that brings the codes nearest to the values without their large errors.
        zero = np.clip(zero - np.mean(error - kept, axis=1, dtype=np.float64), 0, levels)
        penalty *= _GROWTH
    held = high > low
    return np.where(held, -best * scale, 0.0), np.where(held, (levels - best) * scale, 0.0)


def _errors(units: Array, zero: Array, levels: int) -> Array:
    """Return ``x - x'`` in steps."""
    shift = zero.astype(np.float32)[:, None]
    codes = np.clip(np.rint(units + shift), 0, levels)
    error: Array = units - (codes - shift)
    return error
