"""What ONNX Runtime returns for outputs that are no tensors, as arrays that can be compared."""

from __future__ import annotations

from typing import Any

import numpy as np

from quantgui.results import Array


def as_array(value: Any) -> Array:
    """Return an output of a session as one array.

    Maps, one per sample as ZipMap makes them, become a row each, in the order of their keys, 0 where one is missing;
    the tensors of a sequence lie side by side along the second axis where their first axes agree, else one behind the
    other in one axis. An absent optional value is empty.
    """
    if isinstance(value, np.ndarray):
        return value
    if value is None:
        return np.empty(0, np.float32)
    if isinstance(value, dict):
        value = [value]
    items = list(value)
    if items and all(isinstance(item, dict) for item in items):
        keys = sorted({key for item in items for key in item})
        return np.array([[item.get(key, 0) for key in keys] for item in items], np.float32)
    arrays = [as_array(item) for item in items]
    if not arrays:
        return np.empty(0, np.float32)
    if all(array.ndim and len(array) == len(arrays[0]) for array in arrays) and len(arrays[0]):
        return np.concatenate([array.reshape(len(array), -1) for array in arrays], axis=1)
    return np.concatenate([array.reshape(-1) for array in arrays])
