"""Operators that slide windows over space: convolutions and pooling."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from quantgui.network.torch_operators.node import Operator, OperatorNode

_CONVOLUTIONS = (functional.conv1d, functional.conv2d, functional.conv3d)
_TRANSPOSED = (functional.conv_transpose1d, functional.conv_transpose2d, functional.conv_transpose3d)
_MAX_POOLS = (functional.max_pool1d, functional.max_pool2d, functional.max_pool3d)
_AVERAGE_POOLS = (functional.avg_pool1d, functional.avg_pool2d, functional.avg_pool3d)


def _rank(node: OperatorNode, x: Tensor) -> int:
    rank = x.dim() - 2
    if not 1 <= rank <= 3:
        raise node.uncovered(f"space of {rank} dimensions")
    return int(rank)


def _sides(before: Sequence[int], after: Sequence[int]) -> list[int]:
    """Return pads as torch wants them, the last axis first."""
    return [side for pair in zip(reversed(before), reversed(after), strict=True) for side in pair]


def _windows(
    node: OperatorNode, x: Tensor, kernel: Sequence[int]
) -> tuple[list[int], list[int], list[int], list[int], list[int]]:
    """Return strides, dilations, pads before and after, and the number of windows along each axis."""
    rank = len(kernel)
    strides, dilations = list(node.get("strides", [1] * rank)), list(node.get("dilations", [1] * rank))
    sizes = x.shape[2:]
    reach = [dilation * (size - 1) + 1 for dilation, size in zip(dilations, kernel, strict=True)]
    mode = node.get("auto_pad", "NOTSET")
    if mode in ("SAME_UPPER", "SAME_LOWER"):
        counts = [-(-size // stride) for size, stride in zip(sizes, strides, strict=True)]
        total = [
            max((n - 1) * stride + length - size, 0)
            for n, stride, length, size in zip(counts, strides, reach, sizes, strict=True)
        ]
        small, large = [each // 2 for each in total], [each - each // 2 for each in total]
        before, after = (small, large) if mode == "SAME_UPPER" else (large, small)
        return strides, dilations, before, after, counts
    pads = [0] * (2 * rank) if mode == "VALID" else list(node.get("pads", [0] * (2 * rank)))
    before, after = pads[:rank], pads[rank:]
    counts = []
    for size, stride, length, first, last in zip(sizes, strides, reach, before, after, strict=True):
        span = size + first + last - length
        count = (math.ceil(span / stride) if node.get("ceil_mode", 0) else span // stride) + 1
        # A window that would begin behind the last real element is none.
        if node.get("ceil_mode", 0) and (count - 1) * stride >= size + first:
            count -= 1
        counts.append(count)
    return strides, dilations, before, after, counts


def _to_full(x: Tensor, kernel: Sequence[int], windows: tuple[list[int], ...], fill: float) -> Tensor:
    """Return `x` padded so that exactly the windows fit."""
    strides, dilations, before, _, counts = windows
    after = [
        (n - 1) * stride + dilation * (size - 1) + 1 - length - first
        for n, stride, dilation, size, length, first in zip(
            counts, strides, dilations, kernel, x.shape[2:], before, strict=True
        )
    ]
    sides = _sides(before, after)
    return functional.pad(x, sides, value=fill) if any(sides) else x


# --- convolutions ------------------------------------------------------------------------------------------------


def _conv(node: OperatorNode, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    rank = _rank(node, x)
    strides, dilations, before, after, _ = _windows(node, x, weight.shape[2:])
    padding = before
    if before != after or min(before) < 0:
        x = functional.pad(x, _sides(before, after))
        padding = [0] * rank
    return _CONVOLUTIONS[rank - 1](x, weight, bias, strides, padding, dilations, node.get("group", 1))


def _conv_transpose(node: OperatorNode, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    rank = _rank(node, x)
    strides, dilations = list(node.get("strides", [1] * rank)), list(node.get("dilations", [1] * rank))
    extra = list(node.get("output_padding", [0] * rank))
    full = _TRANSPOSED[rank - 1](x, weight, None, strides, [0] * rank, [0] * rank, node.get("group", 1), dilations)
    before, after = _cropped(node, x, full, strides, extra)
    sides = _sides([-each for each in before], [more - each for more, each in zip(extra, after, strict=True)])
    result = functional.pad(full, sides) if any(sides) else full
    return result if bias is None else result + bias.reshape(-1, *[1] * rank)


def _cropped(
    node: OperatorNode, x: Tensor, full: Tensor, strides: Sequence[int], extra: Sequence[int]
) -> tuple[list[int], list[int]]:
    """Return what is cut off the full result of a transposed convolution, before and after."""
    rank = len(strides)
    mode = node.get("auto_pad", "NOTSET")
    wanted = list(node.get("output_shape", []))[-rank:]
    if not wanted and mode in ("SAME_UPPER", "SAME_LOWER"):
        wanted = [size * stride for size, stride in zip(x.shape[2:], strides, strict=True)]
    if not wanted:
        pads = [0] * (2 * rank) if mode == "VALID" else list(node.get("pads", [0] * (2 * rank)))
        return pads[:rank], pads[rank:]
    total = [max(size + more - want, 0) for size, more, want in zip(full.shape[2:], extra, wanted, strict=True)]
    small, large = [each // 2 for each in total], [each - each // 2 for each in total]
    return (small, large) if mode == "SAME_UPPER" else (large, small)


# --- pooling -----------------------------------------------------------------------------------------------------


def _max_pool(node: OperatorNode, x: Tensor) -> list[Tensor]:
    if node.wants(1):
        raise node.uncovered("the output Indices")
    rank, kernel = _rank(node, x), node.attributes["kernel_shape"]
    windows = _windows(node, x, kernel)
    lowest = -math.inf if x.is_floating_point() else torch.iinfo(x.dtype).min
    full = _to_full(x, kernel, windows, lowest)
    return [_MAX_POOLS[rank - 1](full, kernel, windows[0], 0, windows[1])]


def _sums(x: Tensor, kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int]) -> Tensor:
    """Return the sum over each window."""
    rank = len(kernel)
    if all(each == 1 for each in dilations):
        return _AVERAGE_POOLS[rank - 1](x, kernel, strides) * math.prod(kernel)
    channels = x.shape[1]
    ones = torch.ones(channels, 1, *kernel, dtype=x.dtype)
    return _CONVOLUTIONS[rank - 1](x, ones, None, strides, 0, dilations, channels)


def _average_pool(node: OperatorNode, x: Tensor) -> Tensor:
    _rank(node, x)
    kernel = node.attributes["kernel_shape"]
    windows = _windows(node, x, kernel)
    strides, dilations, before, after, _ = windows
    total = _sums(_to_full(x, kernel, windows, 0.0), kernel, strides, dilations)
    counted = torch.ones(1, 1, *x.shape[2:], dtype=x.dtype)
    if node.get("count_include_pad", 0) and any((*before, *after)):
        counted = functional.pad(counted, _sides(before, after), value=1.0)
        windows = (strides, dilations, [0] * len(before), [0] * len(after), windows[4])
    # What lies beyond the pads, where the last window sticks out, never counts.
    return total / _sums(_to_full(counted, kernel, windows, 0.0), kernel, strides, dilations)


def _lp_pool(node: OperatorNode, x: Tensor) -> Tensor:
    kernel, p = node.attributes["kernel_shape"], node.get("p", 2)
    windows = _windows(node, x, kernel)
    powers = x.abs() ** p
    return _sums(_to_full(powers, kernel, windows, 0.0), kernel, windows[0], windows[1]) ** (1 / p)


def _global_lp_pool(node: OperatorNode, x: Tensor) -> Tensor:
    p = node.get("p", 2)
    return (x.abs() ** p).sum(tuple(range(2, x.dim())), keepdim=True) ** (1 / p)


CONVOLUTION: dict[str, Operator] = {
    "AveragePool": _average_pool,
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "GlobalAveragePool": lambda _, x: x.mean(tuple(range(2, x.dim())), keepdim=True),
    "GlobalLpPool": _global_lp_pool,
    "GlobalMaxPool": lambda _, x: x.amax(tuple(range(2, x.dim())), keepdim=True),
    "LpPool": _lp_pool,
    "MaxPool": _max_pool,
}
