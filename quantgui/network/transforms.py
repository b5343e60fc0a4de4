"""Recognising weights that are fixed signal transforms (Fourier, cosine, constant Q, mel).

Quantizing them blindly ruins a network, so presets leave them float. A row of a Fourier-like basis is a windowed
sinusoid: nearly all of its energy lies in one narrow band, and the rows differ in where it lies (learned rows of real
networks hold less than half of their energy there). A row of a filter bank is not negative and rises, then falls,
over a narrow range that moves from row to row.
"""

from __future__ import annotations

import numpy as np

from quantgui.results import Array

_MIN_ROWS = 8
_MIN_LENGTH = 32
_MAX_LENGTH = 1 << 16
_MOST_ROWS = 64
"""Rows looked at, evenly spread."""
_BAND = 5
"""Bins to each side of a peak in a spectrum of twice the row's length: the main lobe of the usual windows."""
_CONCENTRATED = 0.9
_SHORTEST = 8
_PURE = 0.999
"""Share of the energy of a row of a discrete Fourier transform, which no window smears, at one frequency."""
_SHARE_OF_ROWS = 0.9


def is_signal_transform(values: Array, channel_axis: int) -> bool:
    """Return whether the rows or columns of a weight are windowed sinusoids, or overlapping filters.

    Args:
        values: a finite weight.
        channel_axis: axis of the output channels.
    """
    # Kernels with more than one long axis (pictures, many inputs) are no rows of a signal.
    if sum(size > 1 for size in values.shape) != 2:
        return False
    rows = np.moveaxis(values, channel_axis, 0).reshape(values.shape[channel_axis], -1)
    if rows.shape[0] == 1:
        rows = values.reshape(max(values.shape[0], 1), -1)
    if max(rows.shape) > _MAX_LENGTH:
        return False
    return any(_are_sinusoids(matrix) or _are_pure(matrix) or _are_filters(matrix) for matrix in (rows, rows.T))


def _sample(matrix: Array) -> Array:
    step = -(-matrix.shape[0] // _MOST_ROWS)
    return matrix[::step].astype(np.float64)


def _are_pure(matrix: Array) -> bool:
    """Return whether rows are those of a discrete Fourier transform, which is recognised however short it is."""
    count, length = matrix.shape
    if count < _MIN_ROWS or length < _SHORTEST:
        return False
    rows = _not_empty(_sample(matrix))
    energy = np.abs(np.fft.rfft(rows, axis=1)) ** 2
    pure = energy.max(axis=1) >= _PURE * energy.sum(axis=1)
    spread = len(np.unique(energy[pure].argmax(axis=1)))
    return bool(pure.sum() >= _SHARE_OF_ROWS * len(rows) and spread >= min(_MIN_ROWS, length) // 2 - 1)


def _not_empty(rows: Array) -> Array:
    """Return the rows that hold more than what rounding leaves of rows that would be sin(0)."""
    largest = np.abs(rows).max()
    kept: Array = rows[np.abs(rows).max(axis=1) > 1e-6 * largest]
    return kept


def _are_sinusoids(matrix: Array) -> bool:
    count, length = matrix.shape
    if count < _MIN_ROWS or length < _MIN_LENGTH:
        return False
    rows = _not_empty(_sample(matrix))
    if len(rows) < _MIN_ROWS:
        return False
    peaks: list[float] = []
    for looked_at, row in enumerate(rows):
        if looked_at - len(peaks) > (1 - _SHARE_OF_ROWS) * len(rows):
            return False
        # Bases of constant Q are short at high frequencies.
        support = np.flatnonzero(np.abs(row) > 1e-6 * np.abs(row).max())
        part = row[support[0] : support[-1] + 1]
        if len(part) < _MIN_LENGTH:
            continue
        energy = np.abs(np.fft.rfft(part, 2 * len(part))) ** 2
        peak = int(energy.argmax())
        band = energy[max(peak - _BAND, 0) : peak + _BAND + 1].sum()
        if band >= _CONCENTRATED * energy.sum():
            peaks.append(peak / len(energy))
    # Smooth rows have all their energy at frequency zero; a transform's are spread.
    spread = len({round(peak * length) for peak in peaks})
    return len(peaks) >= _SHARE_OF_ROWS * len(rows) and spread >= min(_MIN_ROWS, len(rows) // 2)


def _are_filters(matrix: Array) -> bool:
    count, length = matrix.shape
    if count < _MIN_ROWS or length < _MIN_LENGTH or count >= length or matrix.min() < 0:
        return False
    rows = _sample(matrix)
    rows = rows[rows.max(axis=1) > 0]
    if len(rows) < _MIN_ROWS or np.mean(rows > 0) > 0.5 or np.median((rows > 0).sum(axis=1)) < 2:
        return False
    peaks = rows.argmax(axis=1)
    slopes = np.diff(rows, axis=1)
    places = np.arange(slopes.shape[1])
    rising = np.all((slopes >= -1e-7) | (places >= peaks[:, None]), axis=1)
    falling = np.all((slopes <= 1e-7) | (places < peaks[:, None]), axis=1)
    in_order = np.mean(np.diff(peaks) >= 0)
    return bool(np.mean(rising & falling) >= _SHARE_OF_ROWS and in_order >= _SHARE_OF_ROWS)
