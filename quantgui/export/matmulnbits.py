"""Weights for ONNX Runtime's MatMulNBits, which multiplies by blocks of 2, 4 and 8 bits as they are.

Source: ONNX Runtime, ContribOperators.md, com.microsoft.MatMulNBits.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper

from quantgui.analysis.simulation import weight_spec
from quantgui.export.lookup import add_scales
from quantgui.export.stored import Part, Rename, StoredWeight, Writer, pack
from quantgui.network.network import Network
from quantgui.network.surgery import MICROSOFT, import_domain, subgraphs
from quantgui.results import Array, LayerInfo
from quantgui.spec.config import QuantConfig
from quantgui.spec.formats import IntFormat
from quantgui.spec.granularity import PerGroup
from quantgui.spec.quantizer import QuantizerSpec

BLOCK_SIZES = (16, 32, 64, 128, 256)
ACCURACY_LEVEL = 1
"""Activations stay float32. ONNX Runtime's own fusion takes level 4, which rounds them to 8 bits."""


@dataclass(frozen=True, slots=True)
class BlockedWeight:
    """The inputs and attributes of MatMulNBits that stand for a weight."""

    inputs: tuple[str, ...]
    elements: int
    channels: int
    bits: int
    block_size: int


def takes(network: Network, layer: LayerInfo, config: QuantConfig) -> bool:
    """Return whether MatMulNBits can hold the weight of `layer`, for all nodes that use it.

    Two bits need a number of columns that is a multiple of 4, as ONNX Runtime 1.31 computes nonsense otherwise.
    """
    spec = weight_spec(layer, config)
    if spec is None or not isinstance(spec.format, IntFormat) or not isinstance(spec.granularity, PerGroup):
        return False
    if spec.granularity.group_size not in BLOCK_SIZES or spec.format.storage_bits > 8:
        return False
    if layer.rows is not None or len(layer.shape) != 2 or network.constants[layer.weight].dtype != np.float32:
        return False
    if spec.format.storage_bits == 2 and layer.channels % 4:
        return False
    users = list(_users(network.skeleton.graph, layer.weight))
    return bool(users) and all(_is_product(node, layer.weight) for node in users)


def store_blocks(name: str, part: Part, spec: QuantizerSpec, rename: Rename) -> tuple[StoredWeight, BlockedWeight]:
    """Return how the weight called `name` lies in the file, and what a MatMulNBits of it needs."""
    assert part.scale is not None
    assert part.zero_point is not None
    assert isinstance(spec.format, IntFormat)
    assert isinstance(spec.granularity, PerGroup)
    writer = Writer(name, rename, np.dtype(np.float32), apart=False)
    bits, size = spec.format.storage_bits, spec.granularity.group_size
    lowest = -(1 << (bits - 1)) if spec.format.signed else 0
    codes = np.moveaxis(part.values, part.channel_axis, 0).astype(np.int16) - lowest
    channels, elements = codes.shape
    blocks = part.scale.shape[1]
    padded = np.zeros((channels, blocks * size), np.uint8)
    padded[:, :elements] = codes
    packed = pack(padded, bits) if bits < 8 else padded
    inputs = [
        writer.constant("quantized", packed.reshape(channels, blocks, size * bits // 8)),
        add_scales(writer, part, (channels * blocks,)),
    ]
    if not (spec.symmetric and spec.format.signed):
        inputs.append(writer.constant("zero_point", _packed_rows(part.zero_point - lowest, bits)))
    stored = StoredWeight(tuple(writer.nodes), tuple(writer.initializers), writer.opset)
    return stored, BlockedWeight(tuple(inputs), elements, channels, bits, size)


def _packed_rows(zero_points: Array, bits: int) -> Array:
    """Return zero points (C, blocks) packed into bytes, each row by itself."""
    per_byte = 8 // bits
    rows, columns = zero_points.shape
    padded = np.zeros((rows, -(-columns // per_byte) * per_byte), np.uint8)
    padded[:, :columns] = zero_points
    return (pack(padded, bits) if bits < 8 else padded).reshape(rows, -1)


def replace_products(model: onnx.ModelProto, weights: Mapping[str, BlockedWeight]) -> None:
    """Let each MatMul and Gemm of `weights` be a MatMulNBits, in place."""
    if weights:
        _replace(model.graph, weights)
        import_domain(model, MICROSOFT, 1)


def _replace(graph: onnx.GraphProto, weights: Mapping[str, BlockedWeight]) -> None:
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        for body in subgraphs(node):
            _replace(body, weights)
        weight = weights.get(node.input[1]) if len(node.input) > 1 else None
        nodes += [node] if weight is None else _products(node, weight)
    kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(kept)


def _products(node: onnx.NodeProto, weight: BlockedWeight) -> list[onnx.NodeProto]:
    has_bias = node.op_type == "Gemm" and len(node.input) > 2 and bool(node.input[2])
    output = f"{node.output[0]}_product" if has_bias else node.output[0]
    product = helper.make_node(
        "MatMulNBits",
        [node.input[0], *weight.inputs],
        [output],
        name=node.name,
        domain=MICROSOFT,
        K=weight.elements,
        N=weight.channels,
        bits=weight.bits,
        block_size=weight.block_size,
        accuracy_level=ACCURACY_LEVEL,
    )
    if not has_bias:
        return [product]
    return [product, helper.make_node("Add", [output, node.input[2]], [node.output[0]], name=f"{node.name}_bias")]


def _is_product(node: onnx.NodeProto, weight: str) -> bool:
    if list(node.input).count(weight) != 1 or len(node.input) < 2 or node.input[1] != weight:
        return False
    if node.op_type == "MatMul":
        return True
    attributes = {each.name: helper.get_attribute_value(each) for each in node.attribute}
    plain = not attributes.get("transA", 0) and attributes.get("alpha", 1.0) == attributes.get("beta", 1.0) == 1.0
    return node.op_type == "Gemm" and plain


def _users(graph: onnx.GraphProto, name: str) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        if name in node.input:
            yield node
        for body in subgraphs(node):
            yield from _users(body, name)
