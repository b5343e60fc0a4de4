"""The quantized network as an ONNX file: what `analysis.simulation` computes, written with Q/DQ operators.

Weights lie in the file as integers; DequantizeLinear makes floats of them under the weight's own name. Activations go
through the same nodes as in the simulation. So the file, run without fusing anything, gives the simulated values.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper

from quantgui.analysis.importance import Activations, used_squares
from quantgui.analysis.simulation import (
    BiasPlan,
    Ranges,
    encode_bias,
    encode_layer,
    plan_biases,
    quantizers_for,
    seen_quantizer,
    trained_biases,
    weight_spec,
)
from quantgui.analysis.tensorrt import in_front_of_operators
from quantgui.analysis.weight_grids import bias_values, trained_layer, weight_grid, weight_values
from quantgui.errors import DataError, ExportError, NetworkError
from quantgui.export.files import refuse_source, write_network
from quantgui.export.lookup import needs_lookup
from quantgui.export.matmulnbits import BlockedWeight, replace_products, store_blocks, takes
from quantgui.export.metadata import sign
from quantgui.export.notes import export_notes, profile_notes
from quantgui.export.opset import PER_CHANNEL, QUANTIZE_LINEAR, opset_for_activations, raise_opset
from quantgui.export.placement import insert_stored
from quantgui.export.stored import Part, StoredWeight, initializer
from quantgui.export.tensorrt import refuse_for_tensorrt
from quantgui.export.weights import store_weight
from quantgui.network.datasets import open_dataset
from quantgui.network.network import Network
from quantgui.network.segments import tensor_types
from quantgui.network.session import create_session, runtime_errors
from quantgui.network.simulation import TensorQuantizer
from quantgui.network.surgery import Float8Operators, all_names, insert_quantizers, opset_of, subgraphs
from quantgui.numerics.minifloat import to_bfloat16, to_float16
from quantgui.numerics.qparams import QParams
from quantgui.numerics.scales import DoubleScales
from quantgui.results import ActivationReady, Array, Event, Exported, LayerInfo, Progress
from quantgui.spec.config import QuantConfig
from quantgui.spec.formats import FloatFormat, IntFormat
from quantgui.spec.granularity import PerTensor
from quantgui.spec.profiles import ExportProfile
from quantgui.spec.quantizer import QuantizerSpec

_BFLOAT16 = helper.tensor_dtype_to_np_dtype(onnx.TensorProto.BFLOAT16)
_CHECKED_BYTES = 1 << 29
"""Networks up to this size are run once before the file is put in place, and when their opset is raised."""
_RAISED_TOLERANCE = 1e-4


def export_qdq(
    network: Network,
    config: QuantConfig,
    activations: Mapping[str, ActivationReady],
    path: Path | str,
    *,
    profile: ExportProfile = "qdq",
    sample: Mapping[str, Array] | None = None,
) -> Iterator[Event]:
    """Write the network quantized by `config` to `path`: yields Progress ... and Exported.

    The file is run once on the inputs `sample` before it is put in place, on random numbers if there are none.

    Raises:
        ExportError: the formats need operators that this network cannot have, or the file cannot be written.
        DataError: `config` needs statistics of an activation that `activations` does not hold.
        NetworkError, SpecError: `config` names trained weights that cannot be had, or do not fit.
    """
    path = Path(path)
    refuse_source(path, Path(network.summary.path))
    ranges: Ranges = {}
    quantizers = quantizers_for(network, config, activations, ranges)
    biases = plan_biases(network, config, quantizers)
    if profile == "tensorrt":
        refuse_for_tensorrt(network, config)
        # TensorRT dequantizes no int32: it rounds biases by itself.
        quantizers, biases = in_front_of_operators(network, config, quantizers), {}
    names = _Names(network.skeleton)
    fused = _Fusions(network, quantizers, biases)
    weights = _by_weight(network)
    quantized = [name for name in weights if any(weight_spec(layer, config) for layer in weights[name])]
    total = len(quantized) + len(biases) + 2
    stored: dict[str, StoredWeight] = {}
    blocked: dict[str, BlockedWeight] = {}
    for done, name in enumerate(quantized):
        yield Progress(done, total, "Quantizing weights")
        (first, *_), spec = weights[name], weight_spec(weights[name][0], config)
        if profile == "matmulnbits" and spec is not None and takes(network, first, config):
            part = _part(network, first, spec, fused.biases, activations)
            stored[name], blocked[name] = store_blocks(name, part, spec, names)
        else:
            standard = profile == "tensorrt"
            stored[name] = _store(network, name, weights[name], config, names, fused, activations, standard=standard)
    for name, plan in biases.items():
        yield Progress(len(stored), total, "Quantizing biases")
        stored[name] = _store_bias(network, plan, names, activations)
    for name, (layer, own) in trained_biases(network, config).items():
        if name not in biases:
            stored[name] = StoredWeight((), (initializer(name, bias_values(network, name, layer, own)),), 1)
    opset = max([each.opset for each in stored.values()] + [_opset_of_quantizers(quantizers)], default=1)
    yield Progress(total - 2, total, "Building the network")
    model = raise_opset(network.skeleton, opset)
    probe = _inputs_to_try(network, sample)
    if probe is not None and opset_of(model) > network.summary.opset:
        _check_raised(network, model, probe)
    if quantizers:
        types = {name: each.kind for name, each in tensor_types(network).items()}
        float8: Float8Operators = "QuantizeLinear" if profile == "tensorrt" else "Cast"
        insert_quantizers(model, quantizers, types=types, float8_operators=float8)
    data = _take_initializers(model, network.constants, stored)
    insert_stored(model, stored)
    replace_products(model, blocked)
    _declare_outputs(model, network)
    sign(model, config, ranges, profile, used_squares(network, config, activations))
    yield Progress(total - 1, total, "Writing the file")
    size = write_network(path, model, data, probe=probe, fused=profile != "tensorrt")
    notes = export_notes(network, config, activations, opset_of(model))
    notes += profile_notes(network, config, profile, frozenset(blocked))
    yield Exported(str(path), config, size, opset_of(model), notes)


class _Names:
    """Makes names that the network does not have yet."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._taken = set(all_names(model.graph))

    def __call__(self, wish: str) -> str:
        name, number = wish, 1
        while name in self._taken:
            name, number = f"{wish}_{number}", number + 1
        self._taken.add(name)
        return name


# --- weights and biases ------------------------------------------------------------------------------------------


def _by_weight(network: Network) -> dict[str, list[LayerInfo]]:
    weights: dict[str, list[LayerInfo]] = {}
    for layer in network.summary.layers:
        weights.setdefault(layer.weight, []).append(layer)
    return weights


def _store(
    network: Network,
    name: str,
    layers: Sequence[LayerInfo],
    config: QuantConfig,
    names: _Names,
    fused: _Fusions,
    activations: Activations,
    *,
    standard: bool,
) -> StoredWeight:
    values = network.constants[name]
    parts = []
    row = 0
    for layer in sorted(layers, key=lambda layer: layer.rows or (0, 0)):
        start, stop = layer.rows or (0, 0)
        if row < start:
            parts.append(Part(None, _rows(values, row, start), 0))
        parts.append(_part(network, layer, weight_spec(layer, config), fused.biases, activations))
        row = stop
    if row and row < values.size // values.shape[-1]:
        parts.append(Part(None, _rows(values, row, None), 0))
    apart = not standard and len(parts) == 1 and fused.harm(layers[0], weight_spec(layers[0], config))
    return store_weight(name, parts, values.shape, values.dtype, names, apart=apart)


def _rows(values: Array, start: int, stop: int | None) -> Array:
    return values.reshape(-1, values.shape[-1])[start:stop]


def _part(
    network: Network,
    layer: LayerInfo,
    spec: QuantizerSpec | None,
    biases: Mapping[str, BiasPlan],
    activations: Activations,
) -> Part:
    if spec is None:
        return Part(None, network.weight(layer), layer.channel_axis)
    values = weight_values(network, layer, spec)
    if isinstance(spec.format, FloatFormat):
        if spec.format.name == "float16":
            return Part(spec, to_float16(values), layer.channel_axis)
        return Part(spec, to_bfloat16(values).view(_BFLOAT16), layer.channel_axis)
    plan = next((plan for plan in biases.values() if plan.layer == layer), None)
    encoded = encode_layer(network, layer, spec, plan, activations)
    grid, qparams = encoded.scale_shape, encoded.qparams
    if qparams.levels is not None:
        return Part(spec, encoded.codes, layer.channel_axis, levels=qparams.levels.reshape(*grid, -1))
    scale, zero_point = (x.reshape(grid) for x in (qparams.scale, qparams.zero_point))
    trained = trained_layer(network, layer, spec) is not None
    double = None
    if spec.double_quantization and not trained:
        exact = weight_grid(network, layer, replace(spec, double_quantization=False), activations)
        double = _double_scales(exact, qparams)
    return Part(spec, encoded.codes, layer.channel_axis, scale, zero_point, double_scales=double)


def _double_scales(exact: QParams, qparams: QParams) -> DoubleScales | None:
    """Return what scales that are quantized themselves are made of; None where that cannot be told any more."""
    scales = DoubleScales.of(exact.scale)
    return scales if np.array_equal(scales.values(), qparams.scale) else None


def _store_bias(network: Network, plan: BiasPlan, names: _Names, activations: Activations) -> StoredWeight:
    encoding = encode_bias(network, plan, activations)
    single = encoding.scale.size == 1
    scale = encoding.scale.reshape(() if single else -1)
    codes = initializer(names(f"{plan.bias}_quantized"), encoding.codes)
    scales = initializer(names(f"{plan.bias}_scale"), scale.astype(np.float32))
    inputs = [codes.tensor.name, scales.tensor.name]
    attributes: dict[str, Any] = {} if single else {"axis": 0}
    dtype = network.constants[plan.bias].dtype
    name = names(f"{plan.bias}_DequantizeLinear")
    output = plan.bias if dtype == np.float32 else name
    nodes = [helper.make_node("DequantizeLinear", inputs, [output], name=name, **attributes)]
    if dtype != np.float32:
        cast = names(f"{plan.bias}_Cast")
        kind = helper.np_dtype_to_tensor_dtype(dtype)
        nodes.append(helper.make_node("Cast", [output], [plan.bias], name=cast, to=kind))
    return StoredWeight(tuple(nodes), (codes, scales), QUANTIZE_LINEAR if single else PER_CHANNEL)


def _opset_of_quantizers(quantizers: Mapping[str, Sequence[TensorQuantizer]]) -> int:
    formats = {quantizer.format for each in quantizers.values() for quantizer in each}
    return max((opset_for_activations(fmt) for fmt in formats), default=1)


def _take_initializers(
    model: onnx.ModelProto, constants: Mapping[str, Array], stored: Mapping[str, StoredWeight]
) -> dict[str, Array]:
    """Remove the initializers of `model` that are replaced; return the data of all that the file is to hold."""
    kept = [tensor for tensor in model.graph.initializer if tensor.name not in stored]
    data = {each.tensor.name: each.data for weight in stored.values() for each in weight.initializers}
    for tensor in kept:
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            each = initializer(tensor.name, constants[tensor.name])
            tensor.CopyFrom(each.tensor)
            data[tensor.name] = each.data
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    return data


class _Fusions:
    """What ONNX Runtime 1.31 would do to a quantized weight and the operator that uses it.

    Attributes:
        biases: biases that become int32, by name.
    """

    def __init__(
        self, network: Network, quantizers: Mapping[str, tuple[TensorQuantizer, ...]], biases: Mapping[str, BiasPlan]
    ) -> None:
        self.biases = biases
        self._quantizers = quantizers
        self._constants = network.constants
        self._nodes = dict(_nodes_by_name(network.skeleton.graph))

    def harm(self, layer: LayerInfo, spec: QuantizerSpec | None) -> bool:
        """Return whether fusing the weight of `layer` with its users gives wrong results, or none.

        - With quantized inputs, convolutions and MatMul of 2-bit weights become QLinearConv and QLinearMatMul, which
          do not take them. MatMul of weights of rank 3 and more with a scale per channel fails when it runs.
        - MatMul and Gemm take scales per channel for those of the columns of their product, whatever axis they are of:
          a matrix that one node multiplies from the left and another from the right has them along the inputs of one.
        - MatMul and Gemm with 2-bit weights become MatMulNBits, which computes nonsense unless the number of columns
          is a multiple of 4.
        - Between quantized inputs, ONNX Runtime rounds weights of other formats to 8 bits per tensor.
        - A float bias between quantized inputs becomes int32 with the scale of the products, whether or not that can
          hold it (16-bit weights or activations), and in whatever shape the scales have (groups).
        """
        if spec is None or isinstance(spec.format, FloatFormat):
            return False
        users = [self._nodes[user] for user in layer.users]
        integers = any(self._sees_integers(node) for node in users)
        if needs_lookup(spec) or not isinstance(spec.format, IntFormat):
            return integers
        if spec.format.storage_bits == 2:
            return integers or layer.channels % 4 != 0 or any(node.op_type != "MatMul" for node in users)
        if integers and not isinstance(spec.granularity, PerTensor):
            if len(layer.shape) > 2 and any(node.op_type == "MatMul" for node in users):
                return True
            if any(_output_axis(node, layer.weight) not in (None, layer.channel_axis) for node in users):
                return True
        return any(self._sees_integers(node) and self._has_float_bias(node) for node in users)

    def _sees_integers(self, node: onnx.NodeProto) -> bool:
        seen = (seen_quantizer(self._quantizers.get(name, ()), node.name) for name in node.input[:2])
        return any(quantizer is not None and isinstance(quantizer.format, IntFormat) for quantizer in seen)

    def _has_float_bias(self, node: onnx.NodeProto) -> bool:
        if len(node.input) < 3 or node.op_type not in ("Conv", "ConvTranspose", "Gemm"):
            return False
        return node.input[2] in self._constants and node.input[2] not in self.biases


def _output_axis(node: onnx.NodeProto, matrix: str) -> int | None:
    """Return the axis of `matrix` along which `node` makes its outputs; None where that is not told by its place."""
    if node.op_type not in ("MatMul", "Gemm") or matrix not in node.input[:2]:
        return None
    place = list(node.input).index(matrix)
    transposed = any(a.i for a in node.attribute if a.name == ("transA", "transB")[place])
    return 1 - place if transposed else place


def _nodes_by_name(graph: onnx.GraphProto) -> Iterator[tuple[str, onnx.NodeProto]]:
    for node in graph.node:
        yield node.name, node
        for body in subgraphs(node):
            yield from _nodes_by_name(body)


# --- the graph ---------------------------------------------------------------------------------------------------


def _inputs_to_try(network: Network, sample: Mapping[str, Array] | None) -> Mapping[str, Array] | None:
    """Return inputs on which the network runs; None if it is too large to be tried, or they could not be guessed."""
    if network.summary.float_bytes > _CHECKED_BYTES:
        return None
    if sample is not None:
        return sample
    try:
        data = open_dataset("random:1", network.summary.inputs, network.summary, network=network)
    except DataError:
        return None
    return dict(next(data.batches()).inputs)


def _check_raised(network: Network, raised: onnx.ModelProto, inputs: Mapping[str, Array]) -> None:
    """Run the float network in both opsets.

    Raises:
        ExportError: the answers differ.
    """
    outputs = []
    for model in (network.skeleton, raised):
        try:
            session = create_session(model, network.constants)
            with runtime_errors("run"):
                outputs.append(session.run(None, dict(inputs)))
        except NetworkError as error:
            raise ExportError(
                f"The chosen formats need opset {opset_of(raised)}, and the network does not run in it: {error}"
            ) from error
    names = [output.name for output in network.skeleton.graph.output]
    for name, before, after in zip(names, *outputs, strict=True):
        if isinstance(before, np.ndarray) and before.dtype.kind == "f" and not _equal(before, after):
            raise ExportError(
                f"The chosen formats need opset {opset_of(raised)}, but conversion to it changes the output '{name}'; "
                "choose 8-bit formats, or export the network again with a newer opset."
            )


def _equal(before: Array, after: Array) -> bool:
    if before.shape != after.shape:
        return False
    size = float(np.abs(before[np.isfinite(before)], dtype=np.float64).max(initial=0.0))
    return np.allclose(before, after, rtol=_RAISED_TOLERANCE, atol=_RAISED_TOLERANCE * size, equal_nan=True)


def _declare_outputs(model: onnx.ModelProto, network: Network) -> None:
    """Give outputs without a shape the one that ONNX Runtime infers, as a valid network needs one."""
    bare = [output for output in model.graph.output if not output.type.tensor_type.HasField("shape")]
    if not bare:
        return
    session = create_session(
        network.skeleton, network.constants, optimize=False, config={"session.disable_prepacking": "1"}
    )
    shapes = {info.name: info.shape for info in session.get_outputs()}
    for output in bare:
        shape = shapes[output.name]
        if shape:  # ONNX Runtime tells a scalar and an unknown rank apart by nothing
            kind = output.type.tensor_type.elem_type
            output.CopyFrom(helper.make_tensor_value_info(output.name, kind, shape))
