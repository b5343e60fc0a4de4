"""Ways to make inputs of pictures, and the same samples prepared in each of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from quantgui.network.batch import Batch
from quantgui.results import Array, ImageOptions, TensorInfo

_COLOURS = (1, 3, 4)
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True, slots=True)
class Preparation:
    """One way to make inputs of pictures: ``(pixel 0 ... 1 * scale - mean) / std`` per channel, perhaps blue first."""

    title: str
    scale: float = 1.0
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    bgr: bool = False

    def words(self) -> str:
        """Return how it is written in the image options."""
        numbers = (",".join(f"{x:g}" for x in dict.fromkeys(values)) for values in (self.mean, self.std))
        return "scale {:g}, mean {}, std {}".format(self.scale, *numbers)


PREPARATIONS = (
    Preparation("0 … 1"),
    Preparation("0 … 255", 255.0),
    Preparation("−1 … 1", 1.0, (0.5,), (0.5,)),
    Preparation("ImageNet's mean and standard deviation", 1.0, IMAGENET_MEAN, IMAGENET_STD),
)


Trials = dict[str, tuple[Preparation | None, list[Array]]]
"""Values of the input in each batch, by the name of the preparation, with the preparation if it is known."""


def prepare_trials(
    batches: Sequence[Batch], info: TensorInfo, axis: int | None, options: ImageOptions | None
) -> Trials:
    """Return the present preparation of an input, first, and the others that are worth a try."""
    arrays = [batch.inputs[info.name] for batch in batches]
    if axis is None:
        return {
            "as it is": (None, arrays),
            "32768 times smaller": (None, [each / np.float32(32768) for each in arrays]),
            "32768 times larger": (None, [each * np.float32(32768) for each in arrays]),
        }
    present, pixels = undo_preparation(arrays, axis, options)
    channels = arrays[0].shape[axis]
    trials: Trials = {present: (None, arrays)}
    for each in PREPARATIONS:
        if each.title == present or (len(each.mean) > 1 and channels != len(each.mean)):
            continue
        prepared = replace(each, bgr=options.bgr) if options is not None else each
        trials[each.title] = (prepared, [_prepared(x, each, axis, info.dtype) for x in pixels])
    if channels != len(IMAGENET_MEAN):
        mean = float(np.mean([x.mean() for x in pixels]))
        std = float(np.sqrt(max(np.mean([np.square(x).mean() for x in pixels]) - mean**2, 1e-12)))
        own = Preparation("mean 0 and standard deviation 1", 1.0, (round(mean, 4),), (round(std, 4),))
        known = options is not None or present in {each.title for each in PREPARATIONS}
        trials[own.title] = (own if known else None, [_prepared(x, own, axis, info.dtype) for x in pixels])
    else:
        trials["swapped"] = (None, [np.flip(x, axis) for x in arrays])
    return trials


def undo_preparation(arrays: Sequence[Array], axis: int, options: ImageOptions | None) -> tuple[str, list[Array]]:
    """Return what the preparation of pictures looks like, and them as 0 ... 1."""
    if options is not None:
        mean, std = (_along(values, axis) for values in (options.mean, options.std))
        pixels = [(x * std + mean) / options.scale for x in arrays]
        title = Preparation("", options.scale, options.mean, options.std).words()
        known = next((p.title for p in PREPARATIONS if p.words() == title), title)
        return known, [np.asarray(x, np.float32) for x in pixels]
    low, high = min(float(x.min()) for x in arrays), max(float(x.max()) for x in arrays)
    if low >= 0 and high <= 1.001:
        return "0 … 1", list(arrays)
    if low >= 0 and 2 < high <= 255.5:
        return "0 … 255", [x / np.float32(255) for x in arrays]
    if low >= -1.01 and high <= 1.01:
        return "−1 … 1", [(x + 1) / 2 for x in arrays]
    if arrays[0].shape[axis] == len(IMAGENET_MEAN):
        mean, std = _along(IMAGENET_MEAN, axis), _along(IMAGENET_STD, axis)
        pixels = [x * std + mean for x in arrays]
        if all(float(x.min()) >= -0.02 and float(x.max()) <= 1.02 for x in pixels):
            return PREPARATIONS[3].title, pixels
    return f"{low:.3g} … {high:.3g}", [(x - low) / ((high - low) or 1.0) for x in arrays]


def _along(values: Sequence[float], axis: int) -> Array:
    array = np.asarray(values, np.float32)
    return array.reshape(-1, 1, 1) if axis == 1 else array


def _prepared(pixels: Array, how: Preparation, axis: int, dtype: str) -> Array:
    values = (pixels * np.float32(how.scale) - _along(how.mean, axis)) / _along(how.std, axis)
    return np.ascontiguousarray(values, np.dtype(dtype))


def channel_axis(info: TensorInfo, shape: Sequence[int], options: ImageOptions | None) -> int | None:
    """Return the axis of the colours of an array of pictures (S, ...), None where it holds no pictures."""
    if len(shape) != 4:
        return None
    if options is not None:
        return 1 if options.layout == "NCHW" else 3
    declared = info.shape or ()
    for axis in (1, 3):
        if len(declared) == 4 and declared[axis] in _COLOURS:
            return axis
    return next((axis for axis in (1, 3) if shape[axis] in _COLOURS), None)
