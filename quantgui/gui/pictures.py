"""A sample as a picture again, and what its outputs say, as far as it can be told from the numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from quantgui.numerics.metrics import cosine, sqnr_db
from quantgui.results import Array, ImageOptions

_SMALLEST_SIDE = 6
_COLOURS = (1, 3, 4)


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """Pixels (H, W, 3) uint8, and how they came about: known options, or the range that was spread over black to white.

    `is_natural` is False for tables of values (time x features, say), whose proportions mean nothing.
    """

    pixels: Array
    source: Literal["options", "guess"]
    low: float = 0.0
    high: float = 1.0
    is_natural: bool = True


def picture_of(values: Array, options: ImageOptions | None) -> Picture | None:
    """Return one sample as a picture, with `options` undone; guessed from its shape without; None if it is none."""
    if options is not None and values.ndim == 3:
        pixels = values.astype(np.float64)
        pixels = pixels.transpose(1, 2, 0) if options.layout == "NCHW" else pixels
        if pixels.shape[-1] == options.channels == len(options.mean):
            restored = (pixels * np.asarray(options.std) + np.asarray(options.mean)) / options.scale
            if options.bgr and options.channels >= 3:
                restored = restored[..., [2, 1, 0, *range(3, options.channels)]]
            return Picture(_colours(np.clip(restored, 0, 1)), "options")
    if values.dtype.kind not in "fiu" or not values.size:
        return None
    found = _channels_last(values)
    if found is None:
        return None
    shown = found.astype(np.float64)
    finite = shown[np.isfinite(shown)]
    low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)
    spread = (np.where(np.isfinite(shown), shown, low) - low) / ((high - low) or 1.0)
    return Picture(_colours(spread), "guess", low, high, values.ndim == 3)


def _channels_last(values: Array) -> Array | None:
    """Return (H, W, 1 or 3 ...) where a shape looks like one."""
    while values.ndim > 3 and values.shape[0] == 1:
        values = values[0]
    if values.ndim == 2 and min(values.shape) > 1 and values.dtype.kind == "f":
        return values[..., np.newaxis]
    if values.ndim != 3:
        return None
    if values.shape[0] in _COLOURS and min(values.shape[1:]) >= _SMALLEST_SIDE:
        return values.transpose(1, 2, 0)
    if values.shape[-1] in _COLOURS and min(values.shape[:2]) >= _SMALLEST_SIDE:
        return values
    return None


def _colours(shares: Array) -> Array:
    """Return (H, W, 3) uint8 from shares of white (H, W, 1, 3 or 4)."""
    pixels = np.rint(255 * shares).astype(np.uint8)
    if pixels.shape[-1] == 1:
        pixels = np.repeat(pixels, 3, -1)
    return np.ascontiguousarray(pixels[..., :3])


@dataclass(frozen=True, slots=True)
class ClassScore:
    """One class with its scores in both networks."""

    number: int
    float_score: float
    quantized_score: float


@dataclass(frozen=True, slots=True, eq=False)
class OutputReading:
    """What one output of a sample says.

    Attributes:
        name: of the output.
        sqnr_db: of the quantized output against the float one.
        cosine: of the angle between both.
        float_top, quantized_top: top class; None where the output is not one score per class.
        scores: the classes that matter in either network, the float network's best first; empty likewise.
        are_probabilities: whether the scores are.
        positions, changed: for classes at several positions: how many there are, and how many changed.
    """

    name: str
    sqnr_db: float
    cosine: float
    float_top: int | None = None
    quantized_top: int | None = None
    scores: tuple[ClassScore, ...] = ()
    are_probabilities: bool = False
    positions: int = 0
    changed: int = 0


def read_output(name: str, reference: Array, answer: Array, axis: int | None, *, classes: int = 5) -> OutputReading:
    """Return what an output says in the float (`reference`) and in the quantized network.

    `axis` is that of the classes; None where there are none. At most `classes` of each network are told.
    """
    same = reference.shape == answer.shape and reference.size > 0
    x, y = reference.astype(np.float64).reshape(1, -1), answer.astype(np.float64).reshape(1, -1)
    usable = same and bool(np.isfinite(x).all() and np.isfinite(y).all())
    distance = (sqnr_db(x, y), float(cosine(x, y)[0])) if usable else (float("nan"), float("nan"))
    if axis is None or not same or reference.shape[axis] < 2:
        return OutputReading(name, *distance)
    tops = [each.argmax(axis) for each in (reference, answer)]
    if tops[0].size > 1:
        changed = int((tops[0] != tops[1]).sum())
        return OutputReading(name, *distance, positions=tops[0].size, changed=changed)
    before, after = reference.reshape(-1), answer.reshape(-1)
    best = [int(i) for each in (before, after) for i in np.argsort(-each, kind="stable")[:classes]]
    numbers = sorted(set(best), key=lambda i: (-before[i], i))
    scores = tuple(ClassScore(i, float(before[i]), float(after[i])) for i in numbers)
    sums = bool(before.min() >= 0 and abs(float(before.sum()) - 1) < 0.01)
    return OutputReading(name, *distance, int(tops[0].item()), int(tops[1].item()), scores, sums)
