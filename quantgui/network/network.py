"""The open network: a skeleton without weights, and the weights beside it.

The skeleton is the folded ONNX graph: Constant nodes are initializers, all initializers lie in the main graph
(nested bodies capture them by name), BatchNorm is folded into its convolution, names are unique. Every initializer
larger than `INLINE_BYTES` is declared *external* with the location `INJECTED`, and its values are handed to ONNX
Runtime with ``SessionOptions.add_external_initializers``. So cutting, changing and re-building a graph never copies a
weight, and weights of any size can stay memory-mapped.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import onnx

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
    """

    summary: NetworkSummary
    skeleton: onnx.ModelProto
    constants: Mapping[str, Array]

    @cached_property
    def layers(self) -> Mapping[str, LayerInfo]:
        """Layers by name, in the order of the table."""
        return {layer.name: layer for layer in self.summary.layers}

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
