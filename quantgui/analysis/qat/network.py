"""A quantized network whose weights, biases and scales are trained: the parameters, and the forward pass through them.

It computes what the simulation of the same configuration does (`analysis.simulation`): weights on the grids that the
configuration's range estimators chose, biases of int32 on the product of the scales of input and weight, activations
through the same quantizers in front of the same nodes. BatchNorm needs no care, because the reader has folded it into
the convolutions. It imports torch.

A trained range of activations is named by the layers around it: as the fixed range of what a layer reads, and of what
it stores. Where that cannot be said (a weight shared by nodes that read different tensors), ranges stay as they are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Final

import numpy as np
import torch
from torch import Tensor

from quantgui.analysis.layer_biases import constant_biases
from quantgui.analysis.simulation import (
    ActivationPlace,
    BiasPlan,
    activation_places,
    build_simulation,
    layer_qparams,
    plan_biases,
    quantizer_specs,
    quantizers_for,
    through,
    trained_biases,
    weight_spec,
)
from quantgui.analysis.weight_grids import bias_values, weight_values
from quantgui.network.differentiable import DifferentiableNetwork, TensorHook
from quantgui.network.network import Network
from quantgui.network.simulation import TensorQuantizer
from quantgui.network.torch_operators.node import as_tensor
from quantgui.network.trained import TrainedLayer, TrainedState, untrained
from quantgui.numerics.qparams import QParams
from quantgui.numerics.ste import (
    fake_quantize,
    fake_quantize_weight,
    gradient_factor,
    round_straight_through,
    straight_through,
)
from quantgui.results import ActivationReady, Array, LayerInfo
from quantgui.spec.config import QuantConfig
from quantgui.spec.formats import IntFormat
from quantgui.spec.quantizer import FixedRange, LayerSpec, QuantizerSpec, Trained, at_input, at_output

_SMALLEST: Final = float(np.finfo(np.float32).tiny)

_DTYPES: Final = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float64": torch.float64}

Key = tuple[str, QuantizerSpec]
"""An activation tensor, and the spec of a quantizer of it."""


@dataclass(frozen=True, eq=False)
class Parameter:
    """A tensor that is trained.

    Attributes:
        value: what it is now; float32.
        unit: what counts as 1 for a learning rate, in a shape that broadcasts to `value`; None for its own size.
        limits: smallest and largest value it may have.
    """

    value: Tensor
    unit: Tensor | None
    limits: tuple[float, float] | None = None


@dataclass(frozen=True, eq=False)
class _Layer:
    """A layer whose weight is trained, from the grid `qparams`."""

    info: LayerInfo
    spec: QuantizerSpec
    qparams: QParams
    biases: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class _IntegerBias:
    """A bias that becomes int32: its plan, and the name of the learned grid of the input that goes into its scale."""

    plan: BiasPlan
    input_grid: str | None


class TrainableNetwork:
    """The network under `config`, ready to be trained.

    Raises:
        DataError: `activations` lacks a tensor that `config` quantizes.
        NetworkError, SpecError: `config` names trained weights that cannot be had, or do not fit.
    """

    def __init__(
        self,
        network: Network,
        config: QuantConfig,
        activations: Mapping[str, ActivationReady],
        *,
        learn_scales: bool = True,
    ) -> None:
        self.config = config
        self.network = network
        self.parameters: dict[str, Parameter] = {}
        self._activations = activations
        self._layers: dict[str, _Layer] = {}
        self._grids: dict[Key, str] = {}
        self._readers: dict[str, list[tuple[frozenset[str] | None, str | None]]] = {}
        self._hooks: dict[str, tuple[TensorHook, ...]] = {}
        self._places = tuple(activation_places(self.network))
        self._ranges: dict[Key, QParams] = {}
        quantizers = quantizers_for(self.network, config, activations, self._ranges)
        self._integer_biases: dict[str, _IntegerBias] = {}
        self._add_activations(quantizers, learn_scales=learn_scales)
        self._add_layers(quantizers, learn_scales=learn_scales)
        simulation = build_simulation(self.network, config, activations, ranges=self._ranges)
        trained = {name for layer in self._layers.values() for name in layer.biases}
        trained |= {layer.info.weight for layer in self._layers.values() if layer.info.rows is None}
        self._fixed = {
            name: as_tensor(np.ascontiguousarray(override.load()))
            for name, override in simulation.weights.items()
            if name not in trained
        }

    # --- what is trained -----------------------------------------------------------------------------------------

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the layers that are trained."""
        return tuple(self._layers)

    def notes(self) -> tuple[str, ...]:
        """Return sentences on what of the configuration cannot be trained."""
        specs = [weight_spec(info, self.config) for info in self.network.summary.layers]
        others = Counter(str(spec) for spec in specs if spec is not None and not spec.has_scale)
        stored = Counter(s.scale_format for s in specs if s is not None and s.has_scale and not _is_free(s))
        notes = [
            f"{_many(n, 'layer')} in {name} stay as they are: formats with a scale are trained."
            for name, n in others.items()
        ]
        notes += [f"Scales stored as {name} ({_many(n, 'layer')}) are not trained." for name, n in stored.items()]
        if self._grids:
            integers = [key for key in self._ranges if key[1].is_integer]
            if fixed := len(integers) - len(self._grids):
                notes.append(f"The ranges of {_many(fixed, 'activation')} are not trained: no layer can name them.")
        return tuple(notes)

    def values(self) -> dict[str, Array]:
        """Return a copy of all parameters by name."""
        return {name: each.value.detach().numpy().copy() for name, each in self.parameters.items()}

    def set_values(self, values: Mapping[str, Array]) -> None:
        """Give all parameters the values that `values` returned."""
        with torch.no_grad():
            for name, each in self.parameters.items():
                each.value.copy_(torch.from_numpy(np.ascontiguousarray(values[name])))

    def state(self) -> TrainedState:
        """Return what is to be kept of all layers."""
        layers = {}
        for name, layer in self._layers.items():
            biases = {bias: self._array(f"bias:{bias}") for bias in layer.biases}
            grid = self._qparams(name, layer.qparams)
            layers[name] = TrainedLayer(untrained(layer.spec), self._array(f"weight:{name}"), grid, biases)
        return TrainedState(layers, self.network.fingerprint)

    def configured(self, state: str) -> QuantConfig:
        """Return the configuration with the trained ranges of activations and the weights that are kept as `state`."""
        ranged = self.ranged()
        changed = {}
        for name, layer in self._layers.items():
            weights = replace(layer.spec, range_estimator=Trained(state))
            changed[name] = replace(ranged.spec_for(name), weights=weights)
        return ranged.with_overrides(changed)

    def ranged(self) -> QuantConfig:
        """Return the configuration with the trained ranges of activations; its weights are those it had."""
        changed: dict[str, LayerSpec] = {}
        for name, read, stored in _own_keys(self._places, self.config):
            known = all(key in self._ranges for key in (*read, *stored)) and len(read) == 1 and len(stored) <= 1
            if not known or not any(key in self._grids for key in (*read, *stored)):
                continue
            spec = self.config.spec_for(name)
            ends, *others = (self._ends(key) for key in (*read, *stored))
            estimator = FixedRange(*ends, others[0] if others and others[0] != ends else None)
            assert spec.activations is not None
            changed[name] = replace(spec, activations=replace(spec.activations, range_estimator=estimator))
        return self.config.with_overrides(changed)

    # --- the forward pass ----------------------------------------------------------------------------------------

    def weights_of(self, piece: DifferentiableNetwork) -> dict[str, Tensor]:
        """Return the quantized weights and biases of a piece of the network, by the name of their initializer."""
        return self._weights(piece.initializers)

    def run(
        self,
        piece: DifferentiableNetwork,
        inputs: Mapping[str, Array | Tensor],
        weights: Mapping[str, Tensor] | None = None,
        fetch: Sequence[str] = (),
    ) -> dict[str, Tensor]:
        """Return the outputs of the quantized network, or of a piece of it, and the tensors `fetch`, by name.

        `weights` are those of `weights_of`, if they are at hand.

        Raises:
            NetworkError: torch cannot run an operator on these tensors.
        """
        return piece.run(inputs, self.weights_of(piece) if weights is None else weights, fetch, self._hooks)

    def trained_in(self, piece: DifferentiableNetwork) -> dict[str, Parameter]:
        """Return the parameters that a piece of the network depends on, by name."""
        names: set[str] = set()
        for name, layer in self._layers.items():
            if layer.info.weight in piece.initializers:
                names |= {f"weight:{name}", f"scale:{name}", f"zero_point:{name}"}
            # The cut may lie between a product and what is added to it.
            names |= {f"bias:{bias}" for bias in layer.biases if bias in piece.initializers}
        tensors = {name for node in piece.network.skeleton.graph.node for name in (*node.input, *node.output)}
        for (tensor, _), grid in self._grids.items():
            if tensor in tensors:
                names |= {f"scale:{grid}", f"zero_point:{grid}"}
        return {name: each for name, each in self.parameters.items() if name in names}

    def _weights(self, wanted: frozenset[str]) -> dict[str, Tensor]:
        weights = {name: values for name, values in self._fixed.items() if name in wanted}
        parts: dict[str, list[tuple[int, int, Tensor]]] = {}
        for name, layer in self._layers.items():
            scale, zero_point = self._grid_tensors(name, layer.qparams)
            for bias in (each for each in layer.biases if each in wanted):
                weights[bias] = self._typed(bias, self._bias(bias, scale.detach()))
            if layer.info.weight not in wanted:
                continue
            weight = self.parameters[f"weight:{name}"].value
            values = fake_quantize_weight(weight, scale, zero_point, layer.spec, layer.info.channel_axis)
            if layer.info.rows is None:
                weights[layer.info.weight] = self._typed(layer.info.weight, values)
            else:
                start, stop = layer.info.rows
                parts.setdefault(layer.info.weight, []).append((start, stop, values.reshape(stop - start, -1)))
        for name, rows in parts.items():
            weights[name] = self._typed(name, _with_rows(weights[name], rows))
        return weights

    def _bias(self, name: str, weight_scale: Tensor) -> Tensor:
        values = self.parameters[f"bias:{name}"].value
        integer = self._integer_biases.get(name)
        if integer is None:
            return values
        plan, grid = integer.plan, integer.input_grid
        input_scale = torch.tensor(plan.input_scale) if grid is None else self.parameters[f"scale:{grid}"].value
        scale = weight_scale.repeat(plan.groups) if weight_scale.numel() > 1 else weight_scale
        scale = (scale * input_scale.detach()).clamp_min(_SMALLEST)
        return round_straight_through(values / scale) * scale

    def _typed(self, name: str, values: Tensor) -> Tensor:
        return values.to(_DTYPES.get(self.network.constants[name].dtype.name, torch.float32))

    def _grid_tensors(self, name: str, qparams: QParams) -> tuple[Tensor, Tensor]:
        scale, zero_point = self.parameters.get(f"scale:{name}"), self.parameters.get(f"zero_point:{name}")
        return (
            torch.from_numpy(qparams.scale) if scale is None else scale.value,
            torch.from_numpy(qparams.zero_point.astype(np.float32)) if zero_point is None else zero_point.value,
        )

    # --- what it is made of --------------------------------------------------------------------------------------

    def _add_layers(self, quantizers: Mapping[str, tuple[TensorQuantizer, ...]], *, learn_scales: bool) -> None:
        plans = plan_biases(self.network, self.config, quantizers)
        by_layer = {plan.layer.name: plan for plan in plans.values()}
        biases = constant_biases(self.network)
        trained = trained_biases(self.network, self.config)
        read = {place.node: place.read for place in self._places}
        for info in self.network.summary.layers:
            spec = weight_spec(info, self.config)
            if spec is None or not spec.has_scale:
                continue
            qparams = layer_qparams(self.network, info, spec, by_layer.get(info.name), self._activations)
            own = {bias: node for bias, node in biases[info.name].items() if f"bias:{bias}" not in self.parameters}
            layer = _Layer(info, spec, qparams, tuple(own))
            self._layers[info.name] = layer
            weight = _tensor(weight_values(self.network, info, spec))
            axes = [axis for axis in range(weight.dim()) if axis != info.channel_axis % weight.dim()]
            # The channels of a network whose BatchNorm has been folded differ by orders of magnitude.
            unit = weight.detach().square().mean(axes, keepdim=True).sqrt() if axes else weight.detach().abs()
            self.parameters[f"weight:{info.name}"] = Parameter(weight, unit)
            for bias, node in own.items():
                if bias in plans:
                    self._integer_biases[bias] = _IntegerBias(plans[bias], self._grid_seen(read.get(node, ""), node))
                values = _tensor(bias_values(self.network, bias, *trained.get(bias, (info, spec))))
                size = torch.maximum(values.detach().square().mean(), unit.square().mean()).sqrt()
                self.parameters[f"bias:{bias}"] = Parameter(values, size)
            if learn_scales and _is_free(spec):
                self._add_grid(info.name, qparams, spec)
            if isinstance(spec.range_estimator, Trained):
                self._centre(weight, layer)

    def _centre(self, weight: Tensor, layer: _Layer) -> None:
        """Let trained weights begin at the levels they are rounded to.

        Training leaves many where the smallest step rounds them otherwise, most of all those of depthwise channels: M.
        Nagel et al., "Overcoming oscillations in quantization-aware training", 2022.
        """
        scale, zero_point = self._grid_tensors(layer.info.name, layer.qparams)
        with torch.no_grad():
            weight.copy_(fake_quantize_weight(weight, scale, zero_point, layer.spec, layer.info.channel_axis))

    def _add_activations(self, quantizers: Mapping[str, tuple[TensorQuantizer, ...]], *, learn_scales: bool) -> None:
        learned = _learnable(self._places, self.config, self._ranges) if learn_scales else frozenset()
        wanted = quantizer_specs(self.network, self.config)
        for tensor, each in quantizers.items():
            specs = [spec for spec, _ in wanted[tensor] if not spec.has_scale or (tensor, spec) in self._ranges]
            hooks = []
            for spec, quantizer in zip(specs, each, strict=True):
                key, fmt = (tensor, spec), quantizer.format
                function = _fixed(quantizer)
                if key in learned and isinstance(fmt, IntFormat):
                    self._grids[key] = f"activation {len(self._grids)}"
                    self._add_grid(self._grids[key], self._ranges[key], spec)
                    function = self._learned(self._grids[key], fmt, self._ranges[key])
                hooks.append(TensorHook(function, quantizer.consumers))
                self._readers.setdefault(tensor, []).append((quantizer.consumers, self._grids.get(key)))
            self._hooks[tensor] = tuple(hooks)

    def _grid_seen(self, tensor: str, node: str) -> str | None:
        """Return the learned grid through which `node` sees a tensor."""
        readers = self._readers.get(tensor, [])
        named = [grid for consumers, grid in readers if consumers is not None and node in consumers]
        return next(iter([*named, *(grid for consumers, grid in readers if consumers is None)]), None)

    def _add_grid(self, name: str, qparams: QParams, spec: QuantizerSpec) -> None:
        largest = float(np.finfo(np.float32).max)
        self.parameters[f"scale:{name}"] = Parameter(_tensor(qparams.scale), None, (_SMALLEST, largest))
        if not spec.symmetric:
            fmt = spec.format
            assert isinstance(fmt, IntFormat)
            levels = torch.tensor(float(fmt.quant_max - fmt.quant_min))
            ends = float(fmt.quant_min), float(fmt.quant_max)
            self.parameters[f"zero_point:{name}"] = Parameter(_tensor(qparams.zero_point), levels, ends)

    def _learned(self, name: str, fmt: IntFormat, qparams: QParams) -> Callable[[Tensor], Tensor]:
        def quantize(x: Tensor) -> Tensor:
            scale, zero_point = self._grid_tensors(name, qparams)
            factor = gradient_factor(x.numel() // max(len(x), 1) if x.dim() else 1, fmt)
            return fake_quantize(x.float(), scale, zero_point, fmt, factor=factor).to(x.dtype)

        return quantize

    def _array(self, name: str) -> Array:
        return np.asarray(self.parameters[name].value.detach().numpy().copy())

    def _qparams(self, name: str, qparams: QParams) -> QParams:
        scale, zero_point = (each.detach().numpy() for each in self._grid_tensors(name, qparams))
        return QParams(scale.copy(), np.rint(zero_point).astype(np.int32))

    def _ends(self, key: Key) -> tuple[float, float]:
        fmt, spec = key[1].format, key[1]
        name = self._grids.get(key)
        qparams = self._ranges[key] if name is None else self._qparams(name, self._ranges[key])
        assert isinstance(fmt, IntFormat)
        return range_of(float(qparams.scale[0]), int(qparams.zero_point[0]), spec, fmt)


def range_of(scale: float, zero_point: int, spec: QuantizerSpec, fmt: IntFormat) -> tuple[float, float]:
    """Return the range from which `numerics.scales.choose_grid` makes just this scale (float32) and zero point."""
    # Products of a float32 and an integer of 16 bits are exact in float64, and so is the way back.
    if not spec.symmetric:
        return min((fmt.quant_min - zero_point) * scale, 0.0), max((fmt.quant_max - zero_point) * scale, 0.0)
    levels = (fmt.quant_max - fmt.quant_min) / 2 if spec.full_range else fmt.quant_max - zero_point
    return -levels * scale, levels * scale


# --- pieces ------------------------------------------------------------------------------------------------------


def _tensor(values: Array) -> Tensor:
    return torch.from_numpy(np.array(values, np.float32)).requires_grad_()


def _many(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def _is_free(spec: QuantizerSpec) -> bool:
    """Return whether scales may have any value."""
    return spec.scale_format == "float32" and not spec.double_quantization


def _fixed(quantizer: TensorQuantizer) -> Callable[[Tensor], Tensor]:
    fmt = quantizer.format
    if isinstance(fmt, IntFormat):
        scale, zero_point = torch.tensor(np.float32(quantizer.scale)), torch.tensor(float(quantizer.zero_point))
        return lambda x: fake_quantize(x.float(), scale, zero_point, fmt).to(x.dtype)
    return lambda x: straight_through(lambda values: through(quantizer, values), x)


def _own_keys(
    places: Iterable[ActivationPlace], config: QuantConfig
) -> Iterator[tuple[str, tuple[Key, ...], tuple[Key, ...]]]:
    """Yield each layer with activations to quantize, the keys of what it reads, and of what it stores."""
    for name, group in groupby(places, key=lambda place: place.layer.name):
        spec = config.spec_for(name).activations
        if spec is not None:
            own = list(group)
            read = dict.fromkeys((place.read, at_input(spec)) for place in own)
            stored = dict.fromkeys((place.stored, at_output(spec)) for place in own if place.stored)
            yield name, tuple(read), tuple(stored)


def _learnable(places: Iterable[ActivationPlace], config: QuantConfig, ranges: Mapping[Key, QParams]) -> frozenset[Key]:
    """Return the quantizers whose ranges all layers around them can name."""
    found: set[Key] = set()
    refused: set[Key] = set()
    for _, read, stored in _own_keys(places, config):
        keys = {*read, *stored}
        nameable = len(read) == 1 and len(stored) <= 1 and keys <= ranges.keys()
        integers = all(isinstance(spec.format, IntFormat) and _is_free(spec) for _, spec in keys)
        (found if nameable and integers else refused).update(keys)
    return frozenset(found - refused)


def _with_rows(whole: Tensor, parts: Sequence[tuple[int, int, Tensor]]) -> Tensor:
    """Return the initializer `whole` with other values in some of the rows of its matrix."""
    matrix = whole.reshape(-1, whole.shape[-1]).float()
    pieces, end = [], 0
    for start, stop, values in sorted(parts, key=lambda part: part[0]):
        pieces += [matrix[end:start], values]
        end = stop
    return torch.cat([*pieces, matrix[end:]]).reshape(whole.shape)
