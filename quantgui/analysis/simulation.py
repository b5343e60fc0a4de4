"""From a configuration to what the executor changes in the float network. Export writes the same numbers.

Weights are replaced by their fake-quantized values. An activation is quantized where it is stored: at the data input
of each layer that asks for it, for that layer only, and at the output of a convolution (behind the Relu or Clip that
follows it), for everything that reads it. A layer reads its input with its own spec, if it has one; else, as all other
nodes do, as the producer stored it. Biases of Conv, ConvTranspose and Gemm become int32 with the scale
``input scale * weight scale`` where both are integers, as integer kernels have them.
"""

from __future__ import annotations

import functools
from collections.abc import Hashable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx

from quantgui.analysis.importance import Activations, importance_key, input_tensors
from quantgui.analysis.tensorrt import in_front_of_operators
from quantgui.analysis.weight_grids import NO_ACTIVATIONS, bias_values, trained_layer, weight_grid, weight_values
from quantgui.errors import DataError
from quantgui.network.network import Network
from quantgui.network.simulation import Override, Simulation, TensorQuantizer
from quantgui.numerics.affine import (
    Encoded,
    activation_qparams,
    dequantize_groups,
    encode,
    fake_quantization_error,
    fake_quantize,
    fake_quantize_with,
    quantize_groups,
)
from quantgui.numerics.levels import nearest_levels
from quantgui.numerics.metrics import sqnr_db
from quantgui.numerics.minifloat import round_to_format
from quantgui.numerics.qparams import SMALLEST_SCALE, QParams
from quantgui.numerics.scales import rounded_scales
from quantgui.results import ActivationReady, Array, LayerInfo
from quantgui.spec.config import QuantConfig
from quantgui.spec.formats import FloatFormat, Format, IntFormat, MinifloatFormat
from quantgui.spec.granularity import PerChannel, PerTensor
from quantgui.spec.profiles import ExportProfile
from quantgui.spec.quantizer import QuantizerSpec, Trained, at_input, at_output

_CONVOLUTIONS = ("Conv", "ConvTranspose")
_WITH_BIAS = ("Conv", "ConvTranspose", "Gemm")
_WITH_ACTIVATIONS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_INT32 = np.iinfo(np.int32)
_LARGEST_CODE = 0.999 * _INT32.max
"""Leaves room for the rounding of float32 scales."""


Ranges = MutableMapping[tuple[str, QuantizerSpec], QParams]
"""Scale and zero point by tensor and spec."""

Grids = MutableMapping[tuple[str, QuantizerSpec], QParams]
"""Scales and zero points of weights, by layer and spec."""


def build_simulation(
    network: Network,
    config: QuantConfig,
    activations: Mapping[str, ActivationReady],
    *,
    ranges: Ranges | None = None,
    loaded: MutableMapping[Hashable, Array] | None = None,
    grids: Grids | None = None,
    profile: ExportProfile = "qdq",
) -> Simulation:
    """Return the simulation of `config`; no weight is read before the executor asks for it.

    For whoever tries many configurations that differ in few layers, `ranges` keeps the grids of activations (of these
    `activations`, so it must be forgotten with them), `loaded` the quantized weights, and `grids` no more of them than
    their scales and zero points (of these `activations` too). With `profile` it is that of a file exported so.

    Raises:
        DataError: `config` needs statistics of an activation that `activations` does not hold.
        NetworkError, SpecError: `config` names trained weights that cannot be had, or do not fit.
    """
    quantizers = quantizers_for(network, config, activations, ranges)
    biases = plan_biases(network, config, quantizers)
    if profile == "tensorrt":
        quantizers, biases = in_front_of_operators(network, config, quantizers), {}
    by_layer = {plan.layer: plan for plan in biases.values()}
    overrides = {
        name: _weight_override(network, name, parts, by_layer, grids, activations)
        for name, parts in _quantized_weights(network, config).items()
    }
    for name, plan in biases.items():
        key = (plan, importance_key(network, plan.layer, plan.spec, activations))
        overrides[name] = Override(key, functools.partial(_bias_values, network, plan, activations))
    for name, (layer, spec) in trained_biases(network, config).items():
        if name not in biases:
            trained = ("trained", name, layer.name, spec.range_estimator)
            overrides[name] = Override(trained, functools.partial(bias_values, network, name, layer, spec))
    if loaded is not None:
        overrides = {name: _remembered(override, loaded) for name, override in overrides.items()}
    return Simulation(overrides, quantizers)


def _remembered(override: Override, loaded: MutableMapping[Hashable, Array]) -> Override:
    def load() -> Array:
        if override.key not in loaded:
            loaded[override.key] = override.load()
        return loaded[override.key]

    return Override(override.key, load)


# --- weights -----------------------------------------------------------------------------------------------------


def weight_spec(layer: LayerInfo, config: QuantConfig) -> QuantizerSpec | None:
    """Return the spec of the layer's weight; None where it stays as it is, whatever `config` says."""
    return None if layer.read_only or not layer.finite else config.spec_for(layer.name).weights


def encode_layer(
    network: Network,
    layer: LayerInfo,
    spec: QuantizerSpec,
    bias: BiasPlan | None = None,
    activations: Activations = NO_ACTIVATIONS,
) -> Encoded:
    """Return the integer codes, scales and zero points of a layer's weight under an integer `spec`.

    `bias` is the plan of the layer's bias if it has one (`plan_biases`): see `layer_qparams`.
    """
    qparams = layer_qparams(network, layer, spec, bias, activations)
    return encode(weight_values(network, layer, spec), spec, layer.channel_axis, qparams)


def layer_qparams(
    network: Network,
    layer: LayerInfo,
    spec: QuantizerSpec,
    bias: BiasPlan | None = None,
    activations: Activations = NO_ACTIVATIONS,
) -> QParams:
    """Return scales and zero points of a layer's weight, with scales large enough for int32 to hold its bias.

    Channels that training has left with hardly any weight have scales so small that ``bias / (input scale * scale)``
    leaves int32. A larger scale costs them nothing: their weights add less than a step of the output.
    """
    qparams = weight_grid(network, layer, spec, activations)
    if bias is None:
        return qparams
    least = np.zeros(1)
    for name, input_scale in bias.of_layer:
        values = bias_values(network, name, layer, spec)
        magnitude = np.abs(values.astype(np.float64)).reshape(bias.groups, -1).max(0)
        least = np.maximum(least, magnitude / (float(np.float32(input_scale)) * _LARGEST_CODE))
    scale = np.maximum(qparams.scale, least.max() if qparams.scale.size == 1 else least).astype(np.float32)
    # Scales as they are do not change; a power of two becomes the next larger one.
    return QParams(rounded_scales(scale, spec.scale_format), qparams.zero_point)


def quantized_weight(
    network: Network,
    name: str,
    parts: Mapping[LayerInfo, QuantizerSpec],
    biases: Mapping[LayerInfo, BiasPlan] | None = None,
    grids: Grids | None = None,
    activations: Activations = NO_ACTIVATIONS,
) -> Array:
    """Return the fake-quantized values of the initializer `name`, in its own shape and type.

    Several layers may hold rows of it (gates and directions of recurrent weights); rows of none stay float. Scales and
    zero points are looked up and kept in `grids` if it is given.
    """
    values = network.constants[name]
    (first, first_spec), *_ = parts.items()
    if first.rows is None:
        plan = (biases or {}).get(first)
        if plan is None:
            out = fake_quantized(network, first, first_spec, {} if grids is None else grids, activations)
        else:
            qparams = layer_qparams(network, first, first_spec, plan, activations)
            weight = weight_values(network, first, first_spec)
            out, _ = fake_quantize_with(weight, first_spec, qparams, first.channel_axis)
        return out.astype(values.dtype, copy=False)
    out = np.array(values, np.float32)
    matrix = out.reshape(-1, out.shape[-1])
    for layer, spec in parts.items():
        start, stop = layer.rows or (0, len(matrix))
        part = matrix[start:stop].reshape(layer.shape)
        fake_quantized(network, layer, spec, {} if grids is None else grids, activations, out=part)
    return out.astype(values.dtype, copy=False)


def fake_quantized(
    network: Network,
    layer: LayerInfo,
    spec: QuantizerSpec,
    grids: Grids,
    activations: Activations = NO_ACTIVATIONS,
    *,
    out: Array | None = None,
) -> Array:
    """Return a layer's weight under `spec`, float32, on the grid that `grids` holds, or that it holds from then on.

    `grids` are of these `activations`, as far as ranges depend on data. `out` is filled and returned if given.
    """
    weight = weight_values(network, layer, spec)
    if isinstance(spec.format, FloatFormat):
        return fake_quantize(weight, spec, layer.channel_axis, out=out)[0]
    grid = _grid(network, layer, spec, grids, activations)
    return fake_quantize_with(weight, spec, grid, layer.channel_axis, out=out)[0]


def weight_sqnr_db(
    network: Network,
    layer: LayerInfo,
    spec: QuantizerSpec,
    grids: Grids,
    activations: Activations = NO_ACTIVATIONS,
) -> float:
    """Return the SQNR in dB of what `fake_quantized` returns, against the network's own weight."""
    if isinstance(spec.format, FloatFormat) or isinstance(spec.range_estimator, Trained):
        # Trained weights are rounded from other values.
        return sqnr_db(network.weight(layer), fake_quantized(network, layer, spec, grids, activations))
    grid = _grid(network, layer, spec, grids, activations)
    return fake_quantization_error(network.weight(layer), spec, grid, layer.channel_axis).sqnr_db


def _grid(network: Network, layer: LayerInfo, spec: QuantizerSpec, grids: Grids, activations: Activations) -> QParams:
    if (layer.name, spec) not in grids:
        grids[layer.name, spec] = weight_grid(network, layer, spec, activations)
    return grids[layer.name, spec]


def _quantized_weights(network: Network, config: QuantConfig) -> dict[str, dict[LayerInfo, QuantizerSpec]]:
    weights: dict[str, dict[LayerInfo, QuantizerSpec]] = {}
    for layer in network.summary.layers:
        spec = weight_spec(layer, config)
        if spec is not None:
            weights.setdefault(layer.weight, {})[layer] = spec
    return weights


def _weight_override(
    network: Network,
    name: str,
    parts: dict[LayerInfo, QuantizerSpec],
    biases: Mapping[LayerInfo, BiasPlan],
    grids: Grids | None,
    activations: Activations,
) -> Override:
    plans = {layer: biases[layer] for layer in parts if layer in biases}
    limits = tuple(plan.of_layer for plan in plans.values())
    of_data = tuple(importance_key(network, layer, spec, activations) for layer, spec in parts.items())
    key = (name, tuple((layer.rows, spec) for layer, spec in parts.items()), limits, of_data)
    return Override(key, functools.partial(quantized_weight, network, name, parts, plans, grids, activations))


# --- activations -------------------------------------------------------------------------------------------------


def activation_tensors(network: Network, config: QuantConfig | None = None) -> dict[str, tuple[QuantizerSpec, ...]]:
    """Return the tensors whose statistics `config` needs, with the specs that need them.

    Without a configuration: every tensor that can be quantized, with no specs.
    """
    tensors: dict[str, tuple[QuantizerSpec, ...]] = {}
    for tensor, wish in _wishes(network, config).items():
        specs = dict.fromkeys([*wish.inputs, *([wish.output] if wish.output else [])])
        if config is None or any(spec.has_scale for spec in specs):
            tensors[tensor] = tuple(specs) if config else ()
    return tensors


def calibrated_tensors(network: Network, config: QuantConfig) -> dict[str, tuple[QuantizerSpec, ...]]:
    """Return the tensors whose statistics `config` needs, be it for ranges of activations or of weights."""
    return input_tensors(network, config) | activation_tensors(network, config)


def quantizers_for(
    network: Network,
    config: QuantConfig,
    activations: Mapping[str, ActivationReady],
    ranges: Ranges | None = None,
) -> dict[str, tuple[TensorQuantizer, ...]]:
    """Return the quantizers of each activation tensor that `config` quantizes.

    A tensor that no calibration sample reached stays float (see `unreached_tensors`). Grids are looked up and kept in
    `ranges` if it is given.

    Raises:
        DataError: `activations` does not hold a tensor.
    """
    quantizers = {}
    for tensor, wanted in quantizer_specs(network, config).items():
        kept = {} if ranges is None else ranges
        found = [_quantizer(tensor, spec, consumers, activations, kept) for spec, consumers in wanted]
        if reached := tuple(quantizer for quantizer in found if quantizer is not None):
            quantizers[tensor] = reached
    return quantizers


def quantizer_specs(
    network: Network, config: QuantConfig
) -> dict[str, tuple[tuple[QuantizerSpec, frozenset[str] | None], ...]]:
    """Return the specs of the quantizers of each activation tensor, with the names of their consumers.

    Names are those of `TensorQuantizer.consumers`.
    """
    specs = {}
    for tensor, wish in _wishes(network, config).items():
        wanted = dict.fromkeys([*([wish.output] if wish.output else []), *wish.inputs])
        # The producer's quantizer serves all that ask for nothing else, so it needs no names.
        specs[tensor] = tuple((s, None if s == wish.output else frozenset(wish.inputs[s])) for s in wanted)
    return specs


def wanted_ranges(network: Network, config: QuantConfig) -> frozenset[tuple[str, QuantizerSpec]]:
    """Return the keys of the grids that `config` needs, by tensor and spec."""
    return frozenset(
        (tensor, spec)
        for tensor, wish in _wishes(network, config).items()
        for spec in [*([wish.output] if wish.output else []), *wish.inputs]
        if not isinstance(spec.format, FloatFormat)
    )


def unreached_tensors(
    network: Network, config: QuantConfig, activations: Mapping[str, ActivationReady]
) -> tuple[str, ...]:
    """Return the tensors that `config` quantizes and no calibration sample reached; they stay float."""
    wanted = activation_tensors(network, config)
    return tuple(t for t in wanted if t in activations and activations[t].statistics.count == 0)


def _quantizer(
    tensor: str,
    spec: QuantizerSpec,
    consumers: frozenset[str] | None,
    activations: Mapping[str, ActivationReady],
    ranges: Ranges,
) -> TensorQuantizer | None:
    if isinstance(spec.format, FloatFormat):
        return TensorQuantizer(spec.format, consumers=consumers)
    if (tensor, spec) not in ranges:
        if tensor not in activations:
            raise DataError(
                f"The configuration quantizes the activation '{tensor}', whose range is not known; open data for it."
            )
        ready = activations[tensor]
        if ready.statistics.count == 0:
            return None
        ranges[tensor, spec] = activation_qparams(ready.statistics, spec, (ready.sample_minima, ready.sample_maxima))
    qparams = ranges[tensor, spec]
    return TensorQuantizer(spec.format, float(qparams.scale[0]), int(qparams.zero_point[0]), consumers)


@dataclass(frozen=True, eq=False)
class _Wish:
    """Who wants a tensor quantized, and how: names of the consumers by spec, and the spec of its producer."""

    inputs: dict[QuantizerSpec, set[str]]
    output: QuantizerSpec | None = None


_ANY = QuantizerSpec()
"""Stands for all specs where only the tensors are asked for."""


def _wishes(network: Network, config: QuantConfig | None) -> dict[str, _Wish]:
    wishes: dict[str, _Wish] = {}
    for place in activation_places(network):
        spec = _ANY if config is None else config.spec_for(place.layer.name).activations
        if spec is None:
            continue
        wishes.setdefault(place.read, _Wish({})).inputs.setdefault(at_input(spec), set()).add(place.node)
        if place.stored:
            wishes[place.stored] = _Wish(wishes.get(place.stored, _Wish({})).inputs, at_output(spec))
    return wishes


@dataclass(frozen=True, eq=False)
class ActivationPlace:
    """A node that uses a layer's weight, the tensor it reads, and the one it stores; "" where that stays float."""

    layer: LayerInfo
    node: str
    read: str
    stored: str


def activation_places(network: Network) -> Iterator[ActivationPlace]:
    """Yield where `LayerSpec.activations` of each layer quantizes."""
    graph = network.wiring
    for layer in network.summary.layers:
        for user in layer.users if layer.quantizes_activations else ():
            node = graph.nodes[user]
            if node.op_type not in _WITH_ACTIVATIONS:
                continue  # a table that is multiplied and looked up
            first = user == layer.node
            read = layer.input_tensor if first else graph.data_input(node, layer.weight)
            stored = ""
            if node.op_type in _CONVOLUTIONS:
                stored = layer.output_tensor if first else graph.fused_output(node)
            yield ActivationPlace(layer, user, read, stored)


# --- biases ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class BiasPlan:
    """How a constant bias is rounded: to int32 with the scale ``input_scale * scale of the weight``.

    Attributes:
        bias: name of the initializer.
        layer: the layer it belongs to, with the spec of its weight.
        groups: how often the scales of the weight repeat along the bias (grouped ConvTranspose), else 1.
        input_scale: scale of the input's quantizer.
        of_layer: name and input scale of every bias of the layer: a shared weight has one per node.
    """

    bias: str
    layer: LayerInfo
    spec: QuantizerSpec
    groups: int
    input_scale: float
    of_layer: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class BiasEncoding:
    """A bias as integer kernels have it: codes int32 of the bias's shape, scale float32 (1,) or (channels,).

    `clipped` counts the values that int32 cannot hold; `layer_qparams` sees to it that there are none.
    """

    codes: Array
    scale: Array
    clipped: int


def plan_biases(
    network: Network, config: QuantConfig, quantizers: Mapping[str, tuple[TensorQuantizer, ...]]
) -> dict[str, BiasPlan]:
    """Return the biases that become int32, by name.

    A bias stays float where its layer's input or weight is no integer of at most 8 bits (int32 does not hold a bias on
    the scale of 16-bit products, and no integer kernel takes them), where weights have groups or scales of few bits
    (likewise), where Gemm multiplies it (alpha, beta), and where nodes that need different scales share it.
    """
    if not quantizers:
        return {}
    graph = network.wiring
    plans: dict[str, list[BiasPlan]] = {}
    for layer in network.summary.layers:
        spec = weight_spec(layer, config)
        if spec is None or not _has_kernel_weights(spec):
            continue
        for user in layer.users:
            plan = _bias_plan(network, layer, spec, graph.nodes[user], quantizers)
            if plan is not None:
                plans.setdefault(plan.bias, []).append(plan)
    # A bias used by nodes that need other scales, or by any other node, has to stay float for all of them.
    agreed = [
        users[0]
        for name, users in plans.items()
        if len(set(users)) == 1 and len(users) == len(graph.consumers[name]) and name not in graph.outputs
    ]
    of_layer: dict[str, list[tuple[str, float]]] = {}
    for plan in agreed:
        of_layer.setdefault(plan.layer.name, []).append((plan.bias, plan.input_scale))
    return {plan.bias: replace(plan, of_layer=tuple(of_layer[plan.layer.name])) for plan in agreed}


def encode_bias(network: Network, plan: BiasPlan, activations: Activations = NO_ACTIVATIONS) -> BiasEncoding:
    """Return the int32 codes of a bias, clipped to the ends of int32."""
    weight = layer_qparams(network, plan.layer, plan.spec, plan, activations)
    scale = np.float32(plan.input_scale) * weight.scale
    scale = np.maximum(np.tile(scale, plan.groups) if scale.size > 1 else scale, np.float32(SMALLEST_SCALE))
    values = bias_values(network, plan.bias, plan.layer, plan.spec)
    codes = np.rint(values.astype(np.float64) / scale)
    clipped = int(np.count_nonzero((codes < _INT32.min) | (codes > _INT32.max)))
    return BiasEncoding(np.clip(codes, _INT32.min, _INT32.max).astype(np.int32), scale, clipped)


def decode_bias(encoding: BiasEncoding) -> Array:
    """Return the values of an int32 bias, float32, as DequantizeLinear computes them."""
    return np.asarray(encoding.codes.astype(np.float32) * encoding.scale, np.float32)


def trained_biases(network: Network, config: QuantConfig) -> dict[str, tuple[LayerInfo, QuantizerSpec]]:
    """Return the biases that training has changed, by the name of their initializer: whose they are, under which spec.

    Raises:
        NetworkError, SpecError: `config` names trained weights that cannot be had, or do not fit.
    """
    found: dict[str, tuple[LayerInfo, QuantizerSpec]] = {}
    for layer in network.summary.layers:
        spec = weight_spec(layer, config)
        trained = None if spec is None else trained_layer(network, layer, spec)
        if spec is None or trained is None:
            continue
        for name in trained.biases:
            # A piece of a network holds the biases of its own nodes only.
            if name in network.constants or network.whole is None:
                found.setdefault(name, (layer, spec))
    return found


def _has_kernel_weights(spec: QuantizerSpec) -> bool:
    """Return whether integer kernels take weights like these; their scales can be raised to what a bias needs."""
    raisable = spec.scale_format in ("float32", "e8m0") and not spec.double_quantization
    return _fits_integer_kernel(spec.format) and isinstance(spec.granularity, PerTensor | PerChannel) and raisable


def _fits_integer_kernel(fmt: Format) -> bool:
    return isinstance(fmt, IntFormat) and fmt.storage_bits <= 8


def _bias_values(network: Network, plan: BiasPlan, activations: Activations) -> Array:
    return decode_bias(encode_bias(network, plan, activations)).astype(network.constants[plan.bias].dtype, copy=False)


def _bias_plan(
    network: Network,
    layer: LayerInfo,
    spec: QuantizerSpec,
    node: onnx.NodeProto,
    quantizers: Mapping[str, tuple[TensorQuantizer, ...]],
) -> BiasPlan | None:
    if node.op_type not in _WITH_BIAS or len(node.input) < 3 or node.input[2] not in network.constants:
        return None
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    if attributes.get("alpha", 1.0) != 1.0 or attributes.get("beta", 1.0) != 1.0 or node.input[1] != layer.weight:
        return None
    seen = seen_quantizer(quantizers.get(node.input[0], ()), node.name)
    groups = int(attributes.get("group", 1)) if node.op_type == "ConvTranspose" else 1
    bias = network.constants[node.input[2]]
    # A Gemm adds anything that broadcasts; integer kernels take one value per channel.
    if seen is None or not _fits_integer_kernel(seen.format) or bias.size != layer.channels * groups or bias.ndim != 1:
        return None
    return BiasPlan(node.input[2], layer, spec, groups, seen.scale)


def as_stored(values: Array, quantizers: Sequence[TensorQuantizer]) -> Array:
    """Return an activation behind the quantizer that stands at it for all readers; as it is where there is none."""
    for quantizer in quantizers:
        if quantizer.consumers is None:
            return through(quantizer, values)
    return values


def through(quantizer: TensorQuantizer, values: Array) -> Array:
    """Return an activation as `quantizer` represents it, in its own type."""
    if isinstance(quantizer.format, FloatFormat):
        return round_to_format(values, quantizer.format.name).astype(values.dtype, copy=False)
    if isinstance(quantizer.format, MinifloatFormat):
        scale = np.float32(quantizer.scale)
        levels = nearest_levels(np.asarray(values, np.float32) / scale, quantizer.format)
        return np.asarray(levels * scale, values.dtype)
    if not isinstance(quantizer.format, IntFormat):
        raise ValueError(f"Activations cannot be {quantizer.format}.")
    qparams = QParams(np.array([quantizer.scale], np.float32), np.array([quantizer.zero_point], np.int32))
    rows = np.ascontiguousarray(values).reshape(1, -1)
    codes = quantize_groups(rows, qparams, quantizer.format)
    return dequantize_groups(codes, qparams).reshape(values.shape).astype(values.dtype, copy=False)


def seen_quantizer(quantizers: tuple[TensorQuantizer, ...], node: str) -> TensorQuantizer | None:
    """Return the quantizer through which `node` sees a tensor with these quantizers."""
    named = [q for q in quantizers if q.consumers is not None and node in q.consumers]
    return next(iter(named), next((q for q in quantizers if q.consumers is None), None))
