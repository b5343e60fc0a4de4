"""Resize and Upsample: one axis after the other, each output element a weighted sum of a few input elements.

GridSample takes them from places that are computed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from quantgui.network.torch_operators.node import Operator, OperatorNode


@dataclass(frozen=True, slots=True)
class _Axis:
    """How one axis is resized: its number, sizes before and after, and the factor between them."""

    axis: int
    before: int
    after: int
    scale: float


def _resize(node: OperatorNode, x: Tensor, *given: Tensor | None) -> Tensor:
    older = node.op == "Upsample" or node.opset < 11
    scales_at, sizes_at = (1, 2) if older else (2, 3)
    if node.get("antialias", 0):
        raise node.uncovered("antialiasing")
    axes = [axis % x.dim() for axis in node.get("axes", range(x.dim()))]
    transformation = "asymmetric" if older else node.get("coordinate_transformation_mode", "half_pixel")
    plans = _plans(node, x, axes, _numbers(given, scales_at), _numbers(given, sizes_at))
    mode = node.get("mode", "nearest")
    for plan in plans:
        if plan.before == plan.after and plan.scale == 1.0:
            continue
        places = _coordinates(node, transformation, plan)
        if mode == "nearest":
            nearest = "floor" if older else node.get("nearest_mode", "round_prefer_floor")
            x = x.index_select(plan.axis, _rounded(node, nearest, places).clamp(0, plan.before - 1))
        elif mode in ("linear", "cubic"):
            x = _interpolated(node, x, plan, places, mode)
        else:
            raise node.uncovered(f"the mode {mode}")
    return x


def _numbers(given: tuple[Tensor | None, ...], index: int) -> list[float] | None:
    tensor = given[index - 1] if index <= len(given) else None
    return None if tensor is None or tensor.numel() == 0 else [float(value) for value in tensor.tolist()]


def _plans(
    node: OperatorNode, x: Tensor, axes: list[int], scales: list[float] | None, sizes: list[float] | None
) -> list[_Axis]:
    scales = list(node.attributes["scales"]) if scales is None and "scales" in node.attributes else scales
    if sizes is not None:
        if node.get("keep_aspect_ratio_policy", "stretch") != "stretch":
            raise node.uncovered("keeping the aspect ratio")
        return [
            _Axis(axis, x.shape[axis], int(size), int(size) / x.shape[axis])
            for axis, size in zip(axes, sizes, strict=True)
        ]
    if scales is None:
        raise node.uncovered("a size that is not given")
    return [
        _Axis(axis, x.shape[axis], math.floor(x.shape[axis] * scale), scale)
        for axis, scale in zip(axes, scales, strict=True)
    ]


def _coordinates(node: OperatorNode, transformation: str, plan: _Axis) -> Tensor:
    """Return the place in the input of each output element; float32, as runtimes compute it."""
    index = torch.arange(plan.after, dtype=torch.float32)
    match transformation:
        case "half_pixel":
            return (index + 0.5) / plan.scale - 0.5
        case "half_pixel_symmetric":
            adjustment = plan.after / (plan.scale * plan.before)
            centre = plan.before / 2
            return centre * (1 - adjustment) + (index + 0.5) / plan.scale - 0.5
        case "pytorch_half_pixel":
            return (index + 0.5) / plan.scale - 0.5 if plan.after > 1 else torch.zeros_like(index)
        case "align_corners":
            return index * ((plan.before - 1) / (plan.after - 1)) if plan.after > 1 else torch.zeros_like(index)
        case "asymmetric":
            return index / plan.scale
        case _:
            raise node.uncovered(f"the coordinates {transformation}")


def _rounded(node: OperatorNode, mode: str, places: Tensor) -> Tensor:
    match mode:
        case "round_prefer_floor":
            return torch.ceil(places - 0.5).long()
        case "round_prefer_ceil":
            return torch.floor(places + 0.5).long()
        case "floor":
            return torch.floor(places).long()
        case "ceil":
            return torch.ceil(places).long()
        case _:
            raise node.uncovered(f"rounding by {mode}")


def _interpolated(node: OperatorNode, x: Tensor, plan: _Axis, places: Tensor, mode: str) -> Tensor:
    if mode == "linear":
        places = places.clamp(0, plan.before - 1)
    first = torch.floor(places)
    offset = places - first
    if mode == "linear":
        taps = {0: 1 - offset, 1: offset}
    else:
        taps = _cubic(offset, node.get("cubic_coeff_a", -0.75))
        if node.get("exclude_outside", 0):
            inside = {k: (first + k >= 0) & (first + k < plan.before) for k in taps}
            taps = {k: torch.where(inside[k], weight, torch.zeros_like(weight)) for k, weight in taps.items()}
            total = torch.stack(list(taps.values())).sum(0)
            taps = {k: weight / total for k, weight in taps.items()}
    shape = [1] * x.dim()
    shape[plan.axis] = -1
    parts = [
        x.index_select(plan.axis, (first + k).long().clamp(0, plan.before - 1)) * weight.to(x.dtype).reshape(shape)
        for k, weight in taps.items()
    ]
    return torch.stack(parts).sum(0) if len(parts) > 2 else parts[0] + parts[1]


def _cubic(t: Tensor, a: float) -> dict[int, Tensor]:
    """Return the four weights of cubic convolution (Keys, 1981)."""

    def near(d: Tensor) -> Tensor:
        return ((a + 2) * d - (a + 3)) * d * d + 1

    def far(d: Tensor) -> Tensor:
        return ((a * d - 5 * a) * d + 8 * a) * d - 4 * a

    return {-1: far(t + 1), 0: near(t), 1: near(1 - t), 2: far(2 - t)}


_GRID_MODES = {
    "linear": "bilinear", "bilinear": "bilinear", "nearest": "nearest", "cubic": "bicubic", "bicubic": "bicubic",
}  # fmt: skip


def _grid_sample(node: OperatorNode, x: Tensor, grid: Tensor) -> Tensor:
    mode, padding = node.get("mode", "linear"), node.get("padding_mode", "zeros")
    if mode not in _GRID_MODES or (_GRID_MODES[mode] == "bicubic" and x.dim() != 4):
        raise node.uncovered(f"the mode {mode} of {x.dim()} axes")
    return functional.grid_sample(
        x, grid, mode=_GRID_MODES[mode], padding_mode=padding, align_corners=bool(node.get("align_corners", 0))
    )


RESIZING: dict[str, Operator] = {"GridSample": _grid_sample, "Resize": _resize, "Upsample": _resize}
