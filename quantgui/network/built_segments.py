"""Segments as models of their own, which sessions can run."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import onnx
from onnx import helper, numpy_helper

from quantgui.network.bodies import hand_out
from quantgui.network.network import Network
from quantgui.network.segments import Segment, TensorType
from quantgui.network.simulation import TensorQuantizer
from quantgui.network.surgery import insert_quantizers
from quantgui.results import Array


@dataclass(frozen=True, eq=False)
class BuiltSegment:
    """A segment as a model of its own.

    Attributes:
        model: with the segment's inputs first.
        quantized: names of default quantized tensors by the name of the float tensor.
        fed: names of the inputs of exchanged quantizers, by tensor and position among its quantizers.
        handed_out: names of the outputs that return tensors of bodies, by the names of these.
    """

    model: onnx.ModelProto
    quantized: Mapping[str, str]
    fed: Mapping[tuple[str, int], tuple[str, ...]]
    handed_out: Mapping[str, str]


def build_segment(
    network: Network,
    segment: Segment,
    types: Mapping[str, TensorType],
    *,
    outputs: Sequence[str],
    quantized_outputs: Sequence[str] = (),
    quantizers: Mapping[str, Sequence[TensorQuantizer]] | None = None,
    inline: Mapping[str, Array] | None = None,
    fed: Collection[str] = (),
) -> BuiltSegment:
    """Return `segment` as a model.

    Args:
        network: it belongs to.
        segment: what to build.
        types: of the tensors at its borders.
        outputs: float tensors to return, also of bodies (`Network.inner`).
        quantized_outputs: tensors whose default quantized form is returned too, if it differs.
        quantizers: to insert.
        inline: other values of small initializers.
        fed: initializers that become inputs, behind those of the segment.
    """
    skeleton = network.skeleton
    model = onnx.ModelProto(
        ir_version=skeleton.ir_version, opset_import=skeleton.opset_import, functions=skeleton.functions
    )
    graph = model.graph
    graph.name = f"segment_{segment.index}"
    graph.node.extend(segment.nodes)
    network_inputs = {value.name: value for value in skeleton.graph.input}
    for name in segment.inputs:
        graph.input.append(network_inputs[name] if name in network_inputs else _value_info(name, types[name]))
    replaced = inline or {}
    for tensor in skeleton.graph.initializer:
        if tensor.name in fed:
            graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
        elif tensor.name in replaced:
            graph.initializer.append(numpy_helper.from_array(replaced[tensor.name], tensor.name))
        elif tensor.name in segment.initializers:
            graph.initializer.append(tensor)
    kinds = {name: inner.kind for name, inner in network.inner.items()}
    kinds |= {name: each.kind for name, each in types.items()}
    inserted = insert_quantizers(model, quantizers or {}, types=kinds, quantize_outputs=False)
    quantized = {name: inserted.defaults[name] for name in quantized_outputs if name in inserted.defaults}
    inside = [name for name in outputs if name in network.inner and name not in segment.produced]
    handed_out = hand_out(graph, {name: network.inner[name] for name in inside})
    returned = (*(handed_out.get(name, name) for name in outputs), *quantized.values())
    graph.output.extend(onnx.ValueInfoProto(name=name) for name in returned)
    return BuiltSegment(model, quantized, inserted.fed, handed_out)


def _value_info(name: str, kind: TensorType) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind.kind, kind.shape)
