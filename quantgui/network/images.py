"""Folders of pictures as network input."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from quantgui.errors import DataError
from quantgui.network.arrays import Column
from quantgui.results import Array, ImageOptions, NetworkSummary, TensorInfo

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp"})
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}
_CACHE_BYTES = 256 * 2**20
_FREE_SIZE = 224

_ZERO_TO_ONE = (1.0, 0.0, 1.0)
_PLUS_MINUS_ONE = (1.0, 0.5, 0.5)
# Words in a network's name -> scale, mean, std as published with it.
_BY_NAME: tuple[tuple[tuple[str, ...], tuple[float, float, float]], ...] = (
    (("efficientnet-lite", "efficientnet_lite", "efficientnetlite"), (255.0, 127.0, 128.0)),
    (("mtcnn", "pnet", "rnet", "onet", "facenet", "arcface"), (255.0, 127.5, 128.0)),
    (("rec", "cls", "inception", "mobilenet_v1", "mobilenet_v2", "xception"), _PLUS_MINUS_ONE),
    (("yolo", "mnist", "digits", "demosaic", "denois", "sr", "superres", "unet"), _ZERO_TO_ONE),
)
_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def image_input(summary: NetworkSummary, carried: frozenset[str] = frozenset()) -> TensorInfo:
    """Return the input of a network that takes pictures.

    Raises:
        DataError: it takes something else, or something more.
    """
    needed = [info for info in summary.inputs if info.name not in carried]
    pictures = [info for info in needed if _layout(info) is not None]
    if len(pictures) != 1 or len(needed) != 1:
        listed = ", ".join(str(info) for info in needed)
        raise DataError(
            f"A folder of images fits only networks with one image input; '{summary.name}' takes {listed}: "
            "give a .npz file with one array per input."
        )
    return pictures[0]


def guess_image_options(info: TensorInfo, summary: NetworkSummary) -> ImageOptions:
    """Return how pictures probably become the input `info`: size and layout from its shape, the rest from names."""
    layout, channels, height, width = _layout(info) or ("NCHW", 3, _FREE_SIZE, _FREE_SIZE)
    scale, mean, std = _normalization(info, summary, layout, channels, max(height, width))
    return ImageOptions(height, width, layout, channels, scale=scale, mean=mean, std=std)


def _normalization(
    info: TensorInfo, summary: NetworkSummary, layout: str, channels: int, size: int
) -> tuple[float, tuple[float, ...], tuple[float, ...]]:
    def same(scale: float, mean: float, std: float) -> tuple[float, tuple[float, ...], tuple[float, ...]]:
        return scale, (mean,) * channels, (std,) * channels

    if np.dtype(info.dtype).kind in "iu":
        return same(255.0, 0.0, 1.0)
    name = f"{Path(summary.path).stem or summary.name}".lower()
    words = set(name.replace("-", " ").replace("_", " ").split())
    for keys, values in _BY_NAME:
        if any(key in words if len(key) <= 3 else key in name for key in keys):
            return same(*values)
    if channels != 3 or size < 64:
        return same(*_ZERO_TO_ONE)
    if layout == "NHWC":
        return same(*_PLUS_MINUS_ONE)
    return 1.0, _IMAGENET_MEAN, _IMAGENET_STD


def _layout(info: TensorInfo) -> tuple[str, int, int, int] | None:
    """Return layout, channels, height and width of an image input; None if it is none."""
    if info.shape is None or len(info.shape) != 4:
        return None
    _, first, second, last = info.shape
    if isinstance(first, int) and first in _MODES:
        layout, channels, rows, columns = "NCHW", first, second, last
    elif isinstance(last, int) and last in _MODES:
        layout, channels, rows, columns = "NHWC", last, first, second
    elif isinstance(last, str) and last.lower().startswith("c"):
        layout, channels, rows, columns = "NHWC", 3, first, second
    elif isinstance(first, str):
        layout, channels, rows, columns = "NCHW", 3, second, last
    else:
        return None
    height = rows if isinstance(rows, int) else _FREE_SIZE
    # Text lines are wide: a network of fixed small height and free width reads them.
    free_width = 320 if isinstance(rows, int) and rows <= 64 else _FREE_SIZE
    return layout, channels, height, columns if isinstance(columns, int) else free_width


@dataclass(frozen=True, eq=False)
class ImageFolder:
    """The pictures below a folder.

    Attributes:
        files: in the order of their samples.
        labels: class of each picture, or None where pictures lie outside of sub-folders.
        classes: the sub-folders' names in the order of their labels.
    """

    folder: Path
    files: tuple[Path, ...]
    labels: Array | None
    classes: tuple[str, ...]


def open_folder(folder: Path) -> ImageFolder:
    """List the pictures of `folder`, directly in it or in its sub-folders.

    Raises:
        DataError: there are none.
    """
    try:
        direct = sorted(_pictures(folder))
        classes = sorted((p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".")), key=_order)
        nested = {name: sorted(_pictures(folder / name)) for name in classes}
    except OSError as error:
        raise DataError(f"Cannot read the folder '{folder}': {error.strerror}.") from error
    nested = {name: files for name, files in nested.items() if files}
    files = (*direct, *(file for group in nested.values() for file in group))
    if not files:
        raise DataError(f"The folder '{folder}' holds no pictures (.jpg or .png).")
    if direct or len(nested) < 2:
        return ImageFolder(folder, files, None, ())
    labels = np.concatenate([np.full(len(group), i, np.int64) for i, group in enumerate(nested.values())])
    return ImageFolder(folder, files, labels, tuple(nested))


def _pictures(folder: Path) -> Iterator[Path]:
    return (p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and not p.name.startswith(".") and p.is_file())


def _order(name: str) -> tuple[int, str]:
    """Sort numbers by value (before names), names alphabetically."""
    return (int(name), "") if name.isdecimal() else (2**62, name)


def image_column(pictures: ImageFolder, info: TensorInfo, options: ImageOptions) -> Column:
    """Return the pictures as an array (N, C, H, W) or (N, H, W, C) of the dtype of `info`, read when needed."""
    check_options(options)
    dtype = np.dtype(info.dtype)
    sizes = (options.channels, options.height, options.width)
    shape = sizes if options.layout == "NCHW" else (*sizes[1:], sizes[0])
    cached: dict[int, Array] = {}
    limit = _CACHE_BYTES // (int(np.prod(shape)) * dtype.itemsize)

    def picture(index: int) -> Array:
        if index in cached:
            return cached[index]
        values = load_picture(pictures.files[index], options, dtype)
        if len(cached) < limit:
            cached[index] = values
        return values

    def read(start: int, stop: int) -> Array:
        indices = range(start, min(stop, len(pictures.files)))
        return np.stack([picture(i) for i in indices]) if indices else np.empty((0, *shape), dtype)

    count = len(pictures.files)
    return Column(info.name, (count, *shape), dtype, read, lambda: read(0, count))


def check_options(options: ImageOptions) -> None:
    """Raise a DataError unless `options` are possible."""
    if options.layout not in ("NCHW", "NHWC"):
        raise DataError(f"The image layout must be NCHW or NHWC, got '{options.layout}'.")
    if options.channels not in _MODES:
        raise DataError(f"Images have 1, 3 or 4 channels, got {options.channels}.")
    if not (0 < options.height <= 2**14 and 0 < options.width <= 2**14):
        raise DataError(f"An image size of {options.height} x {options.width} is impossible.")
    for name, values in (("mean", options.mean), ("std", options.std)):
        if len(values) != options.channels:
            raise DataError(f"The image options have {len(values)} values of '{name}' for {options.channels} channels.")
    if not all(map(math.isfinite, (options.scale, *options.mean, *options.std))):
        raise DataError("The scale, mean and standard deviation of the image options must be finite numbers.")
    if 0.0 in options.std or options.scale == 0.0:
        raise DataError("The scale and the standard deviation of the image options must not be 0.")


def load_picture(file: Path, options: ImageOptions, dtype: np.dtype[Any]) -> Array:
    """Read one picture, shape (C, H, W) or (H, W, C).

    For a square target it is scaled to cover the target and cropped around its centre; for another one (a text line)
    it is stretched to fit.

    Raises:
        DataError: the file is no picture, or a hostile one.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(file) as opened:
                image = _eight_bits(opened).convert(_MODES[options.channels])
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise DataError(f"'{file.name}' has too many pixels to be a sample.") from error
    except (OSError, ValueError, SyntaxError) as error:
        raise DataError(f"'{file.name}' is no readable picture: {error}.") from error
    pixels = np.asarray(_fit(image, options.height, options.width), np.float32)
    if pixels.ndim == 2:
        pixels = pixels[..., np.newaxis]
    if options.bgr and options.channels >= 3:
        pixels = pixels[..., [2, 1, 0, *range(3, options.channels)]]
    mean, std = (np.asarray(each, np.float32) for each in (options.mean, options.std))
    values = (pixels * np.float32(options.scale / 255.0) - mean) / std
    if options.layout == "NCHW":
        values = values.transpose(2, 0, 1)
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        values = np.clip(np.rint(values), limits.min, limits.max)
    return np.ascontiguousarray(values, dtype)


def _eight_bits(image: Image.Image) -> Image.Image:
    """Return a picture of 16-bit greys with 8 bits each; Pillow itself would make everything above 255 white."""
    if not image.mode.startswith("I"):
        return image
    return Image.fromarray((np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8))


def _fit(image: Image.Image, height: int, width: int) -> Image.Image:
    if height == width and image.width != image.height:
        side = min(image.width, image.height)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        image = image.crop((left, top, left + side, top + side))
    if image.size == (width, height):
        return image
    return image.resize((width, height), Image.Resampling.BILINEAR)
