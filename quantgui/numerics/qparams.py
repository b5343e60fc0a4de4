"""Scales and zero points: from a range to the grid that covers it.

``x' = (q - zero_point) * scale`` with ``q = clamp(round_half_even(x / scale) + zero_point, quant_min, quant_max)``,
as ONNX's QuantizeLinear and DequantizeLinear define it; scales are float32.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from quantgui.results import Array
from quantgui.spec.formats import IntFormat

SMALLEST_SCALE = float(np.finfo(np.float32).tiny)
"""Below this, float32 loses digits (denormal numbers), and some processors take it for 0."""


@dataclass(frozen=True, slots=True, eq=False)
class QParams:
    """Scale (float32) and zero point (int32) of each group, both of shape (G,).

    `levels`, float32 (G, L), are those of codebooks, in ascending order; their scales are 1.
    """

    scale: Array
    zero_point: Array
    levels: Array | None = None


def choose_qparams(
    low: Array | float, high: Array | float, fmt: IntFormat, *, symmetric: bool, full_range: bool = False
) -> QParams:
    """Return the grid that covers ``low`` ... ``high`` (each (G,) or a number) and 0.

    Symmetric: ``scale = absmax / quant_max``, with `full_range` ``absmax / ((quant_max - quant_min) / 2)``; the zero
    point is 0, for unsigned formats ``2**(bits - 1)``. Asymmetric: ``scale = (high - low) / (quant_max - quant_min)``.
    A group whose range is 0 ... 0 has scale 1; no scale is smaller than the smallest normal float32.
    """
    low64 = np.minimum(np.atleast_1d(np.asarray(low, np.float64)), 0.0)
    high64 = np.maximum(np.atleast_1d(np.asarray(high, np.float64)), 0.0)
    low64, high64 = np.broadcast_arrays(low64, high64)
    levels = fmt.quant_max - fmt.quant_min
    if symmetric:
        middle = 0 if fmt.signed else 1 << (fmt.bits - 1)
        scale = normal_scale(np.maximum(-low64, high64) / (levels / 2 if full_range else fmt.quant_max - middle))
        return QParams(scale, np.full(scale.shape, middle, np.int32))
    scale = normal_scale((high64 - low64) / levels)
    return QParams(scale, zero_points(low64, scale, fmt))


def zero_points(low: Array, scale: Array, fmt: IntFormat) -> Array:
    """Return the zero points, int32, of asymmetric grids that begin at `low`."""
    return np.clip(np.rint(fmt.quant_min - low / scale), fmt.quant_min, fmt.quant_max).astype(np.int32)


def grid_ends(qparams: QParams, fmt: IntFormat) -> tuple[Array, Array]:
    """Return the smallest and largest ``q - zero_point`` of each group, both float32 (G,)."""
    low = (fmt.quant_min - qparams.zero_point).astype(np.float32)
    high = (fmt.quant_max - qparams.zero_point).astype(np.float32)
    return low, high


def normal_scale(scale: Array) -> Array:
    """Return `scale` (float64) as a positive, normal float32; 1 where it is 0."""
    scale = np.minimum(scale, float(np.finfo(np.float32).max)).astype(np.float32)
    return np.where(scale > 0, np.maximum(scale, np.float32(SMALLEST_SCALE)), np.float32(1.0))
