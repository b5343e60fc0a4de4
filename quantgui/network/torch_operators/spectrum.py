"""Fourier transforms: DFT, and STFT of overlapping frames. Complex numbers are pairs in a last axis of 2."""

from __future__ import annotations

import torch
from torch import Tensor

from quantgui.network.torch_operators.node import Operator, OperatorNode


def _complex(values: Tensor) -> Tensor:
    """Return the numbers of a last axis of 1 (real ones, as they are) or of 2 (complex ones)."""
    return values[..., 0] if values.shape[-1] == 1 else torch.view_as_complex(values.contiguous())


def _dft(node: OperatorNode, x: Tensor, length: Tensor | None = None, axis: Tensor | None = None) -> Tensor:
    inverse, one_sided = bool(node.get("inverse", 0)), bool(node.get("onesided", 0))
    if inverse and one_sided:
        raise node.uncovered("the inverse of one side")
    given = node.get("axis", 1) if node.opset < 20 else -2 if axis is None else int(axis)
    place = given % x.dim()
    transform = torch.fft.ifft if inverse else torch.fft.fft
    found = transform(_complex(x), n=None if length is None else int(length), dim=place)
    if one_sided:
        found = found.narrow(place, 0, found.shape[place] // 2 + 1)
    return torch.view_as_real(found)


def _stft(
    node: OperatorNode, signal: Tensor, step: Tensor, window: Tensor | None = None, length: Tensor | None = None
) -> Tensor:
    samples = _complex(signal) if signal.dim() == 3 else signal
    size = int(length) if length is not None else 0 if window is None else len(window)
    if not size or (window is not None and len(window) != size):
        raise node.uncovered("a window of another length than a frame")
    frames = samples.unfold(1, size, int(step))
    frames = frames if window is None else frames * window
    one_sided = bool(node.get("onesided", 1)) and not frames.is_complex()
    return torch.view_as_real(torch.fft.rfft(frames) if one_sided else torch.fft.fft(frames))


SPECTRUM: dict[str, Operator] = {"DFT": _dft, "STFT": _stft}
