"""Folding of BatchNormalization, and of an added bias, into the convolution or Gemm before it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from quantgui.network.graph import Node, Origin, Program
from quantgui.results import Array


@dataclass(frozen=True, eq=False)
class _Affine:
    """What a BatchNormalization does to channel c: ``x * factor[c] + offset[c]``, both float64 of shape (C,)."""

    factor: Array
    offset: Array


def fold_batchnorm(program: Program) -> None:
    """Fold what scales and shifts the channels of a Conv, ConvTranspose or Gemm and is its only user, in place.

    That is a BatchNormalization in inference mode, or an Add of one constant per channel after a convolution.
    """
    consumers = program.consumers()
    producers = program.producers()
    outputs = program.output_names()
    for graph in program.graphs():
        own = {id(node) for node in graph.nodes}
        gone: set[int] = set()
        for node in graph.nodes:
            source, affine = _added_bias(node, program, producers) or (node.inputs[:1], _affine(node, program))
            before = producers.get(source[0]) if source else None
            if affine is None or before is None or id(before) not in own:
                continue
            if len(consumers[source[0]]) != 1 or source[0] in outputs:
                continue
            if _absorb(before, affine, program, consumers):
                before.own_output = before.own_output or before.outputs[0]
                before.outputs[0] = node.outputs[0]
                producers[node.outputs[0]] = before
                gone.add(id(node))
        graph.nodes = [node for node in graph.nodes if id(node) not in gone]


def _affine(node: Node, program: Program) -> _Affine | None:
    is_inference = not node.integer("training_mode", 0) and not any(node.outputs[1:])
    if node.op != "BatchNormalization" or node.domain or not is_inference or program.opset < 7:
        return None
    parts = [program.constants.get(name) for name in node.inputs[1:5]]
    if len(parts) != 4 or any(part is None or part.ndim != 1 or part.dtype.kind != "f" for part in parts):
        return None
    scale, bias, mean, variance = (np.asarray(part, np.float64) for part in parts)
    if not scale.shape == bias.shape == mean.shape == variance.shape:
        return None
    epsilon = node.number("epsilon", 1e-5)
    factor = scale / np.sqrt(variance + epsilon)
    offset = bias - mean * factor
    return _Affine(factor, offset) if np.isfinite(factor).all() and np.isfinite(offset).all() else None


def _added_bias(node: Node, program: Program, producers: dict[str, Node]) -> tuple[list[str], _Affine] | None:
    """Return the data input of an Add of one constant per channel after a convolution, and what it does."""
    if node.op != "Add" or node.domain:
        return None
    for data, constant in (node.inputs, reversed(node.inputs)):
        values = program.constants.get(constant)
        before = producers.get(data)
        if values is None or before is None or before.op not in ("Conv", "ConvTranspose"):
            continue
        weight = program.constants.get(before.inputs[1])
        if weight is None or values.dtype != weight.dtype or not np.isfinite(values).all():
            return None
        channels = weight.shape[0] if before.op == "Conv" else weight.shape[1] * before.integer("group", 1)
        padded = (1,) * (weight.ndim - values.ndim) + values.shape
        if padded == (1, channels) + (1,) * (weight.ndim - 2):
            return [data], _Affine(np.ones(channels), values.reshape(-1).astype(np.float64))
    return None


def _absorb(node: Node, affine: _Affine, program: Program, consumers: dict[str, list[Node]]) -> bool:
    """Change the weight and bias of `node` so that it does what `affine` did after it; False where it cannot."""
    weight = program.constants.get(node.inputs[1]) if len(node.inputs) > 1 else None
    if node.domain or weight is None or weight.dtype.kind != "f" or not np.isfinite(weight).all():
        return False
    channels = affine.factor.size
    match node.op:
        case "Conv":
            if weight.shape[0] != channels:
                return False
            scaled = weight * affine.factor.reshape(-1, *[1] * (weight.ndim - 1))
        case "ConvTranspose":
            groups = node.integer("group", 1)
            if weight.shape[1] * groups != channels or weight.shape[0] % groups:
                return False
            by_group = weight.reshape(groups, weight.shape[0] // groups, weight.shape[1], -1)
            scaled = (by_group * affine.factor.reshape(groups, 1, -1, 1)).reshape(weight.shape)
        case "Gemm":
            is_row = node.integer("transB", 0) == 1
            if weight.ndim != 2 or weight.shape[0 if is_row else 1] != channels:
                return False
            scaled = weight * (affine.factor.reshape(-1, 1) if is_row else affine.factor)
        case _:
            return False
    bias = _old_bias(node, program, channels)
    if bias is None:
        return False
    factor = 1.0
    if node.op == "Gemm":
        factor = node.number("beta", 1.0)
        if factor == 0.0:
            node.attributes.pop("beta")
            factor, bias = 1.0, np.zeros(channels)
    new_bias = bias * affine.factor + affine.offset / factor
    _set_constant(node, 1, scaled.astype(weight.dtype), program, consumers)
    if len(node.inputs) < 3 or not node.inputs[2]:
        node.inputs = [*node.inputs[:2], program.add_constant(f"{node.inputs[1]}_bias", new_bias.astype(weight.dtype))]
        consumers[node.inputs[2]] = [node]
    else:
        _set_constant(node, 2, new_bias.astype(weight.dtype), program, consumers)
    return True


def _old_bias(node: Node, program: Program, channels: int) -> Array | None:
    if len(node.inputs) < 3 or not node.inputs[2]:
        return np.zeros(channels)
    bias = program.constants.get(node.inputs[2])
    if bias is None or bias.dtype.kind != "f" or bias.size not in (1, channels):
        return None
    if bias.size == channels and (bias.shape[-1:] != (channels,) and channels != 1):
        return None
    return np.broadcast_to(bias.reshape(-1).astype(np.float64), (channels,))


def _set_constant(node: Node, position: int, values: Array, program: Program, consumers: dict[str, list[Node]]) -> None:
    """Replace a constant of `node`, under its own name unless others use it too."""
    name = node.inputs[position]
    old = program.origins[name]
    if len(consumers.get(name, [])) == 1 and node.inputs.count(name) == 1:
        program.constants[name] = values
        program.origins[name] = Origin(old.dtype, old.stored_bytes)
        return
    consumers[name] = [user for user in consumers.get(name, []) if user is not node]
    node.inputs[position] = program.add_constant(f"{name}_folded", values, old)
    consumers[node.inputs[position]] = [node]
