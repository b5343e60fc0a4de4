"""What the files of other tools are made of: every quantized tensor with its grid; and what is read back from them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from quantgui.analysis.simulation import Ranges, encode_layer, plan_biases, quantizers_for, weight_spec
from quantgui.network.graph import OWN_OUTPUT
from quantgui.network.network import Network
from quantgui.numerics.qparams import QParams
from quantgui.results import ActivationReady, Array, LayerInfo, NetworkSummary, Sensitivity
from quantgui.spec.config import QuantConfig, UnknownName
from quantgui.spec.dialects import DialectInfo
from quantgui.spec.formats import Format, IntFormat
from quantgui.spec.granularity import Granularity, PerGroup
from quantgui.spec.quantizer import BLOCK_FORMATS, LayerSpec, QuantizerSpec


@dataclass(frozen=True, eq=False)
class Parameter:
    """A quantized weight.

    Attributes:
        layer: whose weight it is.
        spec: how it is quantized.
        scale, zero_point: (C, groups per channel), (1, 1) per tensor; None for formats without scales.
    """

    layer: LayerInfo
    spec: QuantizerSpec
    scale: Array | None = None
    zero_point: Array | None = None

    @property
    def is_part(self) -> bool:
        """Whether it is only a gate of a recurrent weight, which other tools do not tell apart."""
        return self.layer.rows is not None

    @property
    def block_axis(self) -> int | None:
        """The axis of the weight along which ONNX's blocks lie; None where groups do not lie along one axis."""
        others = [axis for axis in range(len(self.layer.shape)) if axis != self.layer.channel_axis]
        inner = [axis for axis in others if self.layer.shape[axis] > 1]
        if len(inner) > 1:
            return None
        return inner[0] if inner else next(iter(others), None)


@dataclass(frozen=True, eq=False)
class Activation:
    """A quantized activation tensor; `consumers` are the layers that see it so, in the network's order."""

    tensor: str
    format: Format
    symmetric: bool
    scale: float
    zero_point: int
    consumers: tuple[str, ...]


class Folded(NamedTuple):
    """The output of a node that another one is folded into: its own name, and the other's, which it has now."""

    own: str
    now: str


@dataclass(frozen=True, eq=False)
class Material:
    """A network under a configuration, tensor by tensor.

    Attributes:
        summary, config: the network and what is wanted of it.
        parameters, activations: what is quantized.
        sensitivity: a table that was measured, if any.
        folded: nodes that another one is folded into, and how their output is called.
        probes: `PROBES` values of each float weight, evenly spread over it with its channels first, by layer: a tool
            that calls weights otherwise can find them by these.
    """

    summary: NetworkSummary
    config: QuantConfig
    parameters: tuple[Parameter, ...]
    activations: tuple[Activation, ...]
    sensitivity: Sensitivity | None = None
    folded: Mapping[str, Folded] = field(default_factory=dict)
    probes: Mapping[str, tuple[float, ...]] = field(default_factory=dict)

    @property
    def float_layers(self) -> tuple[LayerInfo, ...]:
        """Layers of which nothing is quantized."""
        quantized = {parameter.layer.name for parameter in self.parameters}
        return tuple(
            layer
            for layer in self.summary.layers
            if layer.name not in quantized and not self.spec_of(layer).activations and not layer.read_only
        )

    def spec_of(self, layer: LayerInfo) -> LayerSpec:
        """Return what happens to a layer."""
        return self.config.spec_for(layer.name)

    def parameter_of(self, layer: LayerInfo) -> Parameter | None:
        """Return the quantized weight of a layer, if it is quantized."""
        return next((each for each in self.parameters if each.layer.name == layer.name), None)


@dataclass(frozen=True)
class Written:
    """The text of a file, and what it could not say, in sentences."""

    text: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Imported:
    """A configuration read from another tool's file; `unknown` are names that match nothing in the network."""

    config: QuantConfig
    unknown: tuple[UnknownName, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Dialect:
    """The file of another tool.

    Attributes:
        info: what is to be known of it without writing any.
        write: makes the text; raises ExportError where the tool cannot say what is wanted at all.
        read: makes a configuration of a text; None where the file does not hold enough. Raises ExportError.
        recognises: whether a text looks like such a file.
    """

    info: DialectInfo
    write: Callable[[Material], Written]
    read: Callable[[str, NetworkSummary], Imported] | None = None
    recognises: Callable[[str], bool] = field(default=lambda _: False)


def gather(
    network: Network,
    config: QuantConfig,
    activations: Mapping[str, ActivationReady],
    sensitivity: Sensitivity | None = None,
    *,
    grids: bool = True,
) -> Material:
    """Return the quantized tensors of `network` under `config`; without scales unless `grids`.

    Raises:
        DataError: `grids`, and `config` needs statistics of an activation that `activations` does not hold.
    """
    ranges: Ranges = {}
    quantizers = quantizers_for(network, config, activations, ranges) if grids else {}
    plans = {plan.layer: plan for plan in plan_biases(network, config, quantizers).values()}
    parameters = []
    for layer in network.summary.layers:
        spec = weight_spec(layer, config)
        if spec is None:
            continue
        if not grids or not isinstance(spec.format, IntFormat):
            parameters.append(Parameter(layer, spec))
            continue
        encoded = encode_layer(network, layer, spec, plans.get(layer), activations)
        scale, zero_point = (x.reshape(encoded.scale_shape) for x in _both(encoded.qparams))
        parameters.append(Parameter(layer, spec, scale, zero_point))
    found = []
    for tensor, each in quantizers.items():
        for quantizer in each:
            spec = next((s for (t, s) in ranges if t == tensor and s.format == quantizer.format), None)
            users = quantizer.consumers
            consumers = tuple(
                layer.name
                for layer in network.summary.layers
                if (tensor == layer.input_tensor and (users is None or users & set(layer.users)))
            )
            symmetric = spec.symmetric if spec is not None else True
            found.append(
                Activation(tensor, quantizer.format, symmetric, quantizer.scale, quantizer.zero_point, consumers)
            )
    probes = {each.layer.name: _probes(network, each.layer) for each in parameters if not each.is_part}
    return Material(network.summary, config, tuple(parameters), tuple(found), sensitivity, _folded(network), probes)


PROBES = 8


def _probes(network: Network, layer: LayerInfo) -> tuple[float, ...]:
    turned = np.moveaxis(network.constants[layer.weight], layer.channel_axis, 0)
    places = np.linspace(0, turned.size - 1, PROBES).astype(int)
    return tuple(numbers(turned[np.unravel_index(places, turned.shape)]))


def _folded(network: Network) -> dict[str, Folded]:
    """Return the names around nodes that a BatchNormalization or the like was folded into, by node."""
    found = {}
    for node in network.skeleton.graph.node:
        own = next((entry.value for entry in node.metadata_props if entry.key == OWN_OUTPUT), "")
        if own:
            found[node.name] = Folded(own, node.output[0])
    return found


def _both(qparams: QParams) -> tuple[Array, Array]:
    return qparams.scale, qparams.zero_point


def numbers(values: Array | None) -> list[float]:
    """Return values as numbers that JSON writes as short as float32 allows."""
    return [] if values is None else [float(str(np.float32(each))) for each in np.asarray(values).reshape(-1)]


def is_simple(spec: QuantizerSpec) -> bool:
    """Return whether nothing about a quantizer is special: scales are float32, integers use all codes.

    What holds scales in other formats must say so itself; a tool that is not told would take float32.
    """
    narrow = isinstance(spec.format, IntFormat) and spec.format.narrow_range
    return spec.scale_format == "float32" and not spec.double_quantization and not narrow


def block_format(spec: QuantizerSpec) -> str:
    """Return the name of the block format that a quantizer is, such as ``mxfp4``; empty if it is none."""
    name = str(spec)
    return name if name in BLOCK_FORMATS else ""


def group_size(granularity: Granularity) -> int | None:
    """Return the number of values that share a scale within a channel; None for other granularities."""
    return granularity.group_size if isinstance(granularity, PerGroup) else None


def left_out(names: list[str], why: str) -> tuple[str, ...]:
    """Return a note on layers that a file cannot hold; none if there are none."""
    if not names:
        return ()
    shown = ", ".join(f"'{name}'" for name in names[:3])
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return (f"Not in the file, {why}: {shown}{more}.",)
