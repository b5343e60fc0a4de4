"""Operators that arrange elements anew, and the arithmetic of shapes."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from quantgui.network.torch_operators.node import Operator, OperatorNode, as_tensor


def _reshape(node: OperatorNode, x: Tensor, *given: Tensor | None) -> Tensor:
    shape = node.integers("shape", (x, *given), 1) or []
    if not node.get("allowzero", 0):
        shape = [x.shape[i] if size == 0 else size for i, size in enumerate(shape)]
    return x.reshape(shape)


def _flatten(node: OperatorNode, x: Tensor) -> Tensor:
    axis = node.get("axis", 1)
    axis += x.dim() if axis < 0 else 0
    return x.reshape(math.prod(x.shape[:axis]), math.prod(x.shape[axis:]))


def _squeeze(node: OperatorNode, x: Tensor, *given: Tensor | None) -> Tensor:
    axes = node.integers("axes", (x, *given), 1)
    return x.squeeze() if axes is None else x.squeeze(tuple(axes)) if axes else x


def _unsqueeze(node: OperatorNode, x: Tensor, *given: Tensor | None) -> Tensor:
    axes = node.integers("axes", (x, *given), 1) or []
    rank = x.dim() + len(axes)
    for axis in sorted(axis + rank if axis < 0 else axis for axis in axes):
        x = x.unsqueeze(axis)
    return x


def _transpose(node: OperatorNode, x: Tensor) -> Tensor:
    return x.permute(node.get("perm", tuple(reversed(range(x.dim())))))


def _concat(node: OperatorNode, *tensors: Tensor) -> Tensor:
    return torch.cat(tensors, node.get("axis", 1))


def _split(node: OperatorNode, x: Tensor, *given: Tensor | None) -> list[Tensor]:
    axis = node.get("axis", 0)
    sizes = node.integers("split", (x, *given), 1)
    if sizes is None:
        parts = node.get("num_outputs", len(node.outputs))
        # All parts are alike but the last, which may be smaller.
        size = -(-x.shape[axis] // parts)
        sizes = [size] * (parts - 1) + [x.shape[axis] - size * (parts - 1)]
    return list(torch.split(x, sizes, axis))


def _slice(node: OperatorNode, x: Tensor, *given: Tensor | None) -> Tensor:
    tensors = (x, *given)
    starts, ends = node.integers("starts", tensors, 1) or [], node.integers("ends", tensors, 2) or []
    axes = node.integers("axes", tensors, 3)
    steps = node.integers("steps", tensors, 4)
    for i, start in enumerate(starts):
        axis = i if axes is None else axes[i]
        # Python's own rules for ends out of range and for steps backwards are those of ONNX.
        step = 1 if steps is None else steps[i]
        # ONNX can tell "before the first element" only by a very low number, which is none from the end here.
        end: int | None = ends[i]
        if step < 0 and ends[i] < -x.shape[axis]:
            end = None
        indices = range(*slice(start, end, step).indices(x.shape[axis]))
        if step == 1:
            x = x.narrow(axis, min(indices.start, x.shape[axis]), len(indices))
        else:
            x = x.index_select(axis, torch.tensor(indices, dtype=torch.int64))
    return x


def _gather(node: OperatorNode, x: Tensor, indices: Tensor) -> Tensor:
    axis = node.get("axis", 0)
    axis += x.dim() if axis < 0 else 0
    size = x.shape[axis]
    flat = indices.reshape(-1).long()
    if size:
        flat = torch.where(flat < 0, flat + size, flat)
    return x.index_select(axis, flat).reshape((*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]))


def _from_front(indices: Tensor, size: int) -> Tensor:
    indices = indices.long()
    return torch.where(indices < 0, indices + size, indices)


def _gather_elements(node: OperatorNode, x: Tensor, indices: Tensor) -> Tensor:
    axis = node.get("axis", 0)
    return torch.gather(x, axis, _from_front(indices, x.shape[axis]))


def _gather_nd(node: OperatorNode, x: Tensor, indices: Tensor) -> Tensor:
    batch = node.get("batch_dims", 0)
    indices = indices.long()
    depth = indices.shape[-1]
    if batch:
        grids = [
            torch.arange(size).reshape(-1, *[1] * (indices.dim() - 2 - i)) for i, size in enumerate(x.shape[:batch])
        ]
        index = (*grids, *indices.unbind(-1))
    else:
        index = indices.unbind(-1)
    return x[index].reshape((*indices.shape[:-1], *x.shape[batch + depth :]))


_REDUCTIONS = {"add": "sum", "mul": "prod", "max": "amax", "min": "amin"}


def _scatter_elements(node: OperatorNode, x: Tensor, indices: Tensor, updates: Tensor) -> Tensor:
    axis, reduction = node.get("axis", 0), node.get("reduction", "none")
    indices = _from_front(indices, x.shape[axis])
    if reduction == "none":
        return torch.scatter(x, axis, indices, updates)
    return torch.scatter_reduce(x, axis, indices, updates, _REDUCTIONS[reduction], include_self=True)


def _scatter_nd(node: OperatorNode, x: Tensor, indices: Tensor, updates: Tensor) -> Tensor:
    reduction = node.get("reduction", "none")
    if reduction not in ("none", "add"):
        raise node.uncovered(f"the reduction {reduction}")
    index = tuple(_from_front(each, x.shape[i]) for i, each in enumerate(indices.unbind(-1)))
    return torch.index_put(x, index, updates, accumulate=reduction == "add")


def _expand(_: OperatorNode, x: Tensor, shape: Tensor) -> Tensor:
    return x.expand(torch.broadcast_shapes(x.shape, tuple(shape.tolist())))


def _tile(_: OperatorNode, x: Tensor, repeats: Tensor) -> Tensor:
    return x.repeat(repeats.tolist())


def _pad(node: OperatorNode, x: Tensor, *given: Tensor | None) -> Tensor:
    tensors = (x, *given)
    pads = node.integers("pads", tensors, 1) or []
    axes = node.integers("axes", tensors, 3) if node.opset >= 18 else None
    axes = list(range(x.dim())) if axes is None else axes
    mode = node.get("mode", "constant")
    if mode == "constant":
        value = tensors[2] if len(tensors) > 2 else None
        fill = node.get("value", 0.0) if value is None else value.reshape(-1)[0].item()
        sides = [0] * (2 * x.dim())
        for i, axis in enumerate(axes):
            place = 2 * (x.dim() - 1 - axis % x.dim())
            sides[place], sides[place + 1] = pads[i], pads[i + len(axes)]
        return functional.pad(x, sides, value=fill)
    for i, axis in enumerate(axes):
        x = _pad_axis(node, x, axis, (pads[i], pads[i + len(axes)]), mode)
    return x


def _pad_axis(node: OperatorNode, x: Tensor, axis: int, pads: tuple[int, int], mode: str) -> Tensor:
    size = x.shape[axis]
    before, after = pads
    if not before and not after:
        return x
    places = torch.arange(-before, size + after)
    if mode == "edge":
        places = places.clamp(0, size - 1)
    elif mode == "reflect":
        period = max(2 * (size - 1), 1)
        places = places.remainder(period)
        places = torch.minimum(places, period - places) if size > 1 else torch.zeros_like(places)
    elif mode == "wrap":
        places = places.remainder(size)
    else:
        raise node.uncovered(f"the mode {mode}")
    return x.index_select(axis, places)


def _shape(node: OperatorNode, x: Tensor) -> Tensor:
    return torch.tensor(x.shape[slice(node.get("start", 0), node.get("end", None))], dtype=torch.int64)


def _constant_of_shape(node: OperatorNode, shape: Tensor) -> Tensor:
    value = as_tensor(node.attributes["value"]).reshape(()) if "value" in node.attributes else torch.tensor(0.0)
    return value.expand(shape.tolist())


def _range(_: OperatorNode, start: Tensor, limit: Tensor, delta: Tensor) -> Tensor:
    count = max(math.ceil((limit.item() - start.item()) / delta.item()), 0)
    return (start.reshape(()) + torch.arange(count, dtype=start.dtype) * delta.reshape(())).to(start.dtype)


def _one_hot(node: OperatorNode, indices: Tensor, depth: Tensor, values: Tensor) -> Tensor:
    size = int(depth.reshape(-1)[0])
    indices = _from_front(indices, size)
    axis = node.get("axis", -1)
    axis += indices.dim() + 1 if axis < 0 else 0
    places = torch.arange(size).reshape(-1, *[1] * (indices.dim() - axis))
    return torch.where(indices.unsqueeze(axis) == places, values[1], values[0])


def _triangle(node: OperatorNode, x: Tensor, diagonal: Tensor | None = None) -> Tensor:
    k = 0 if diagonal is None else int(diagonal)
    return torch.triu(x, k) if node.get("upper", 1) else torch.tril(x, k)


def _depth_to_space(node: OperatorNode, x: Tensor) -> Tensor:
    n, channels, height, width = x.shape
    size = node.attributes["blocksize"]
    inner = channels // size**2
    if node.get("mode", "DCR") == "DCR":
        blocks = x.reshape(n, size, size, inner, height, width).permute(0, 3, 4, 1, 5, 2)
    else:
        blocks = x.reshape(n, inner, size, size, height, width).permute(0, 1, 4, 2, 5, 3)
    return blocks.reshape(n, inner, height * size, width * size)


def _space_to_depth(node: OperatorNode, x: Tensor) -> Tensor:
    n, channels, height, width = x.shape
    size = node.attributes["blocksize"]
    blocks = x.reshape(n, channels, height // size, size, width // size, size).permute(0, 3, 5, 1, 2, 4)
    return blocks.reshape(n, channels * size**2, height // size, width // size)


def _eye_like(node: OperatorNode, x: Tensor) -> Tensor:
    if "dtype" in node.attributes:
        raise node.uncovered("another type than that of the input")
    rows = torch.arange(x.shape[0]).reshape(-1, 1)
    return (torch.arange(x.shape[1]) - rows == node.get("k", 0)).to(x.dtype)


def _compress(node: OperatorNode, x: Tensor, condition: Tensor) -> Tensor:
    places = condition.reshape(-1).nonzero().reshape(-1)
    if "axis" not in node.attributes:
        return x.reshape(-1).index_select(0, places)
    return x.index_select(node.attributes["axis"], places)


ARRANGEMENT: dict[str, Operator] = {
    "Compress": _compress,
    "Concat": _concat,
    "ConstantOfShape": _constant_of_shape,
    "DepthToSpace": _depth_to_space,
    "Expand": _expand,
    "EyeLike": _eye_like,
    "Flatten": _flatten,
    "Gather": _gather,
    "GatherElements": _gather_elements,
    "GatherND": _gather_nd,
    "NonZero": lambda _, x: x.nonzero().T,
    "OneHot": _one_hot,
    "Pad": _pad,
    "Range": _range,
    "Reshape": _reshape,
    "ScatterElements": _scatter_elements,
    "ScatterND": _scatter_nd,
    "Shape": _shape,
    "Size": lambda _, x: torch.tensor(x.numel(), dtype=torch.int64),
    "Slice": _slice,
    "SpaceToDepth": _space_to_depth,
    "Split": _split,
    "Squeeze": _squeeze,
    "Tile": _tile,
    "Transpose": _transpose,
    "Trilu": _triangle,
    "Unsqueeze": _unsqueeze,
}
