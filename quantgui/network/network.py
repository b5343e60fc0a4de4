"""The open network: a skeleton without weights, and the weights beside it.

The skeleton is the folded ONNX graph: Constant nodes are initializers, all initializers lie in the main graph
(nested bodies capture them by name), BatchNorm is folded into its convolution, names are unique. Every initializer
larger than `INLINE_BYTES` is declared *external* with the location `INJECTED`, and its values are handed to ONNX
Runtime with ``SessionOptions.add_external_initializers``. So cutting, changing and re-building a graph never copies a
weight, and weights of any size can stay memory-mapped.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import onnx

from quantgui.network.bodies import InnerTensor, inner_tensors
from quantgui.network.files import let_go
from quantgui.network.trained import TrainedState, TrainedStates
from quantgui.network.wiring import Wiring
from quantgui.results import Array, LayerInfo, NetworkSummary

INLINE_BYTES = 1024
INJECTED = "injected"


@dataclass(frozen=True, eq=False)
class Network:
    """A network that has been read. Nothing changes it.

    Attributes:
        summary: what can be shown of it without onnx.
        skeleton: the folded graph with the original opset; large initializers declared external (see module).
        constants: values of *all* initializers of the skeleton by name, float32 where they are float (float16 and
            float64 weights keep their type).
        whole: the network that this one is a piece of, if it is.
        states: weights that training has left for it.
    """

    summary: NetworkSummary
    skeleton: onnx.ModelProto
    constants: Mapping[str, Array]
    whole: Network | None = None
    states: TrainedStates = field(default_factory=TrainedStates)

    @cached_property
    def layers(self) -> Mapping[str, LayerInfo]:
        """Layers by name, in the order of the table."""
        return {layer.name: layer for layer in self.summary.layers}

    @cached_property
    def fingerprint(self) -> str:
        """A hash of all layers, with the values of their weights; that of the whole network for a piece of one."""
        if self.whole is not None:
            return self.whole.fingerprint
        digest = hashlib.blake2b(digest_size=16)
        for layer in self.summary.layers:
            digest.update(repr((layer.name, layer.weight, layer.rows, layer.shape, layer.channel_axis)).encode())
        for name in sorted({layer.weight for layer in self.summary.layers}):
            values = as_contiguous(self.constants[name])
            digest.update(repr((name, values.dtype.str, values.shape)).encode())
            digest.update(values.reshape(-1).view(np.uint8).data)
            let_go(values)
        return digest.hexdigest()

    def trained(self, state: str) -> TrainedState:
        """Return the weights that training has left under the name `state`.

        Raises:
            NetworkError: they are not there, damaged, or of another network.
        """
        states = self.states if self.whole is None else self.whole.states
        return states.get(state, self.fingerprint)

    @cached_property
    def wiring(self) -> Wiring:
        """Which nodes make and read each tensor."""
        return Wiring.of(self.skeleton.graph)

    @cached_property
    def inner(self) -> Mapping[str, InnerTensor]:
        """The tensors in bodies of If, Loop and Scan that layers quantize and that can be looked at."""
        return inner_tensors(self.skeleton, self.wiring, self.summary.layers, self.constants)

    def weight(self, layer: LayerInfo) -> Array:
        """Return the layer's values in the shape `layer.shape`; a view, not to be written to."""
        values = self.constants[layer.weight]
        if layer.rows is None:
            return values
        start, stop = layer.rows
        return values.reshape(-1, values.shape[-1])[start:stop]


def external_tensor(name: str, values: Array) -> onnx.TensorProto:
    """Return the declaration of an initializer whose values are handed over when a session is created."""
    tensor = onnx.TensorProto(
        name=name, data_type=onnx.helper.np_dtype_to_tensor_dtype(values.dtype), dims=values.shape
    )
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", INJECTED), ("offset", "0"), ("length", str(values.nbytes))):
        tensor.external_data.add(key=key, value=value)
    return tensor


def injected_names(model: onnx.ModelProto) -> list[str]:
    """Return the names of the initializers of `model` whose values must be handed over."""
    return [t.name for t in model.graph.initializer if t.data_location == onnx.TensorProto.EXTERNAL]


def as_contiguous(values: Array) -> Array:
    """Return `values` as ONNX Runtime needs them."""
    return np.ascontiguousarray(values)
