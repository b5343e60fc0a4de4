"""Weights and biases as the file holds them: integers, and the operators that make floats of them."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import onnx
from onnx import helper

from quantgui.analysis.importance import Activations
from quantgui.analysis.simulation import (
    BiasPlan,
    encode_bias,
    encode_layer,
    trained_biases,
    weight_spec,
)
from quantgui.analysis.weight_grids import bias_values, trained_layer, weight_grid, weight_values
from quantgui.export.fusions import Fusions
from quantgui.export.matmulnbits import BlockedWeight, store_blocks, takes
from quantgui.export.opset import PER_CHANNEL, QUANTIZE_LINEAR
from quantgui.export.stored import Part, StoredWeight, initializer
from quantgui.export.weights import store_weight
from quantgui.network.graph import reserve_name
from quantgui.network.network import Network
from quantgui.network.simulation import TensorQuantizer
from quantgui.network.surgery import all_names
from quantgui.numerics.minifloat import to_bfloat16, to_float16
from quantgui.numerics.qparams import QParams
from quantgui.numerics.scales import DoubleScales
from quantgui.results import Array, Event, LayerInfo, Progress
from quantgui.spec.config import QuantConfig
from quantgui.spec.formats import FloatFormat
from quantgui.spec.profiles import ExportProfile
from quantgui.spec.quantizer import QuantizerSpec

_STEPS_BEHIND = 2
"""Steps of an export behind the storing of constants."""
_BFLOAT16 = helper.tensor_dtype_to_np_dtype(onnx.TensorProto.BFLOAT16)


@dataclass(frozen=True, eq=False)
class StoredConstants:
    """What the file holds in place of weights and biases, by the names of these.

    Attributes:
        stored: nodes and initializers.
        blocked: weights that one operator multiplies as they are stored.
        total: steps of the whole export.
    """

    stored: Mapping[str, StoredWeight]
    blocked: Mapping[str, BlockedWeight]
    total: int


def store_constants(
    network: Network,
    config: QuantConfig,
    activations: Activations,
    quantizers: Mapping[str, tuple[TensorQuantizer, ...]],
    biases: Mapping[str, BiasPlan],
    profile: ExportProfile,
) -> Generator[Event, None, StoredConstants]:
    """Yield Progress; return how weights and biases are stored under `config`, trained biases included.

    Args:
        network: holds them.
        config: what is quantized, and how.
        activations: statistics of what multiplies the weights, where ranges depend on them.
        quantizers: of the activations.
        biases: those that become int32, by name.
        profile: what the file is for.
    """
    storing = _Storing(network, config, activations, Fusions(network, quantizers, biases), profile)
    weights = _by_weight(network)
    quantized = [name for name in weights if any(weight_spec(layer, config) for layer in weights[name])]
    total = len(quantized) + len(biases) + _STEPS_BEHIND
    stored: dict[str, StoredWeight] = {}
    blocked: dict[str, BlockedWeight] = {}
    for done, name in enumerate(quantized):
        yield Progress(done, total, "Quantizing weights")
        (first, *_), spec = weights[name], weight_spec(weights[name][0], config)
        if profile == "matmulnbits" and spec is not None and takes(network, first, config):
            stored[name], blocked[name] = store_blocks(name, storing.part(first, spec), spec, storing.names)
        else:
            stored[name] = storing.weight(name, weights[name])
    for name, plan in biases.items():
        yield Progress(len(stored), total, "Quantizing biases")
        stored[name] = storing.bias(plan)
    for name, (layer, own) in trained_biases(network, config).items():
        if name not in biases:
            stored[name] = StoredWeight((), (initializer(name, bias_values(network, name, layer, own)),), 1)
    return StoredConstants(stored, blocked, total)


def _by_weight(network: Network) -> dict[str, list[LayerInfo]]:
    weights: dict[str, list[LayerInfo]] = {}
    for layer in network.summary.layers:
        weights.setdefault(layer.weight, []).append(layer)
    return weights


@dataclass(frozen=True, eq=False)
class _Storing:
    """What every constant is stored by."""

    network: Network
    config: QuantConfig
    activations: Activations
    fusions: Fusions
    profile: ExportProfile

    @cached_property
    def names(self) -> Names:
        """Makes names that the network does not have yet."""
        return Names(self.network.skeleton)

    def weight(self, name: str, layers: Sequence[LayerInfo]) -> StoredWeight:
        """Return what stands for the weight `name`, of which `layers` are parts; rows of none stay float."""
        values, config = self.network.constants[name], self.config
        parts = []
        row = 0
        for layer in sorted(layers, key=lambda layer: layer.rows or (0, 0)):
            start, stop = layer.rows or (0, 0)
            if row < start:
                parts.append(Part(None, _rows(values, row, start), 0))
            parts.append(self.part(layer, weight_spec(layer, config)))
            row = stop
        if row and row < values.size // values.shape[-1]:
            parts.append(Part(None, _rows(values, row, None), 0))
        standard = self.profile == "tensorrt"
        apart = not standard and len(parts) == 1 and self.fusions.harm(layers[0], weight_spec(layers[0], config))
        return store_weight(name, parts, values.shape, values.dtype, self.names, apart=apart)

    def part(self, layer: LayerInfo, spec: QuantizerSpec | None) -> Part:
        """Return a layer's weight under `spec`."""
        if spec is None:
            return Part(None, self.network.weight(layer), layer.channel_axis)
        values = weight_values(self.network, layer, spec)
        if isinstance(spec.format, FloatFormat):
            if spec.format.name == "float16":
                return Part(spec, to_float16(values), layer.channel_axis)
            return Part(spec, to_bfloat16(values).view(_BFLOAT16), layer.channel_axis)
        plan = next((plan for plan in self.fusions.biases.values() if plan.layer == layer), None)
        encoded = encode_layer(self.network, layer, spec, plan, self.activations)
        grid, qparams = encoded.scale_shape, encoded.qparams
        if qparams.levels is not None:
            return Part(spec, encoded.codes, layer.channel_axis, levels=qparams.levels.reshape(*grid, -1))
        scale, zero_point = (x.reshape(grid) for x in (qparams.scale, qparams.zero_point))
        trained = trained_layer(self.network, layer, spec) is not None
        double = None
        if spec.double_quantization and not trained:
            exact = weight_grid(self.network, layer, replace(spec, double_quantization=False), self.activations)
            double = _double_scales(exact, qparams)
        return Part(spec, encoded.codes, layer.channel_axis, scale, zero_point, double_scales=double)

    def bias(self, plan: BiasPlan) -> StoredWeight:
        """Return what stands for an int32 bias."""
        encoding = encode_bias(self.network, plan, self.activations)
        single = encoding.scale.size == 1
        scale = encoding.scale.reshape(() if single else -1)
        codes = initializer(self.names(f"{plan.bias}_quantized"), encoding.codes)
        scales = initializer(self.names(f"{plan.bias}_scale"), scale.astype(np.float32))
        inputs = [codes.tensor.name, scales.tensor.name]
        attributes: dict[str, Any] = {} if single else {"axis": 0}
        dtype = self.network.constants[plan.bias].dtype
        name = self.names(f"{plan.bias}_DequantizeLinear")
        output = plan.bias if dtype == np.float32 else name
        nodes = [helper.make_node("DequantizeLinear", inputs, [output], name=name, **attributes)]
        if dtype != np.float32:
            cast = self.names(f"{plan.bias}_Cast")
            kind = helper.np_dtype_to_tensor_dtype(dtype)
            nodes.append(helper.make_node("Cast", [output], [plan.bias], name=cast, to=kind))
        return StoredWeight(tuple(nodes), (codes, scales), QUANTIZE_LINEAR if single else PER_CHANNEL)


class Names:
    """Makes names that the network does not have yet."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._taken = set(all_names(model.graph))

    def __call__(self, wish: str) -> str:
        return reserve_name(wish, self._taken)


def _rows(values: Array, start: int, stop: int | None) -> Array:
    return values.reshape(-1, values.shape[-1])[start:stop]


def _double_scales(exact: QParams, qparams: QParams) -> DoubleScales | None:
    """Return what scales that are quantized themselves are made of; None where that cannot be told any more."""
    scales = DoubleScales.of(exact.scale)
    return scales if np.array_equal(scales.values(), qparams.scale) else None
