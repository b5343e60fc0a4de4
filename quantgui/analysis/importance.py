"""How much the error of each element of a weight counts: the mean square of the input that multiplies it.

With inputs x and an error dw, the mean squared error of an output is ``dw H dw`` with the second moments H of x. Its
diagonal is all that is used here: exact where inputs are not correlated. For convolutions the mean is over all places
of an input channel, the positions of the kernel not told apart.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import onnx

from quantgui.errors import DataError, SpecError
from quantgui.network.network import Network
from quantgui.numerics.groups import as_matrix
from quantgui.numerics.statistics import collect
from quantgui.results import ActivationReady, Array, LayerInfo
from quantgui.spec.config import QuantConfig
from quantgui.spec.quantizer import InputWeightedError, QuantizerSpec

Activations = Mapping[str, ActivationReady]

LEAST_SHARE = 1e-3
"""Of the mean importance; an input that calibration has never seen at work may still come."""


@dataclass(frozen=True, slots=True)
class InputRead:
    """What a node multiplies a layer's weight by.

    Attributes:
        tensor: the data.
        axis: its axis that the product sums over; -1 and -2 count from the end.
        weight_axis: the axis of the weight that it meets.
        groups: of a convolution, else 1.
    """

    tensor: str
    axis: int
    weight_axis: int
    groups: int = 1

    def importance(self, squares: Array, shape: tuple[int, ...]) -> Array:
        """Return mean squares along `axis` in a shape that broadcasts to that of the weight."""
        ones = [1] * len(shape)
        if self.groups == 1 or self.weight_axis == 0:
            ones[self.weight_axis] = shape[self.weight_axis]
            return squares.reshape(ones)
        # Each group of output channels reads its own part of the input channels.
        by_output = np.repeat(squares.reshape(self.groups, -1), shape[0] // self.groups, axis=0)
        return by_output.reshape(*by_output.shape, *ones[2:])


def input_reads(network: Network, layer: LayerInfo) -> Iterator[InputRead]:
    """Yield what each node that multiplies by the layer's weight reads; a node that looks rows up reads nothing."""
    for user in layer.users:
        node = network.wiring.nodes[user]
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        position, between = _position(network, node, layer.weight)
        match node.op_type:
            case "Conv":
                yield InputRead(node.input[0], 1, 1, int(attributes.get("group", 1)))
            case "ConvTranspose":
                yield InputRead(node.input[0], 1, 0)
            case "Gemm":
                # Rows of the first factor meet columns of the second, unless they are transposed.
                first, second = (bool(attributes.get(name, 0)) for name in ("transA", "transB"))
                axes = (0 if first else 1, 1 if second else 0)
                yield InputRead(node.input[1 - position], axes[1 - position], axes[position])
            case "MatMul":
                rank = len(layer.shape)
                axis = rank - 2 if position == 1 else rank - 1
                yield InputRead(node.input[1 - position], -1 if position == 1 else -2, _before(between, axis, rank))
            case _:
                pass


def _position(network: Network, node: onnx.NodeProto, weight: str) -> tuple[int, onnx.NodeProto | None]:
    """Return at which input of a node a weight arrives, and the Transpose in between if there is one."""
    for position, name in enumerate(node.input[:2]):
        if name == weight:
            return position, None
        maker = network.wiring.producers.get(name)
        if maker is not None and maker.op_type == "Transpose" and maker.input[0] == weight:
            return position, maker
    return 1, None


def _before(transpose: onnx.NodeProto | None, axis: int, rank: int) -> int:
    """Return which axis of a weight is `axis` behind a Transpose."""
    if transpose is None:
        return axis
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in transpose.attribute}
    order = attributes.get("perm", list(reversed(range(rank))))
    return int(order[axis])


# --- what is needed ----------------------------------------------------------------------------------------------


def summed_axes(network: Network) -> dict[str, frozenset[int]]:
    """Return along which axes of which tensors calibration has to keep mean squares, for all layers."""
    axes: dict[str, frozenset[int]] = {}
    for layer in network.summary.layers:
        for read in () if layer.read_only else input_reads(network, layer):
            axes[read.tensor] = axes.get(read.tensor, frozenset()) | {read.axis}
    return axes


def input_tensors(network: Network, config: QuantConfig) -> dict[str, tuple[QuantizerSpec, ...]]:
    """Return the tensors whose mean squares `config` needs for ranges of weights; no spec quantizes them for that."""
    found: dict[str, tuple[QuantizerSpec, ...]] = {}
    for layer in network.summary.layers:
        spec = config.spec_for(layer.name).weights
        if needs_data(spec) and layer.finite and not layer.read_only:
            found |= dict.fromkeys((read.tensor for read in input_reads(network, layer)), ())
    return found


def needs_data(spec: QuantizerSpec | None) -> bool:
    """Return whether the range of a weight depends on data."""
    return spec is not None and isinstance(spec.range_estimator, InputWeightedError)


def importance(network: Network, layer: LayerInfo, activations: Activations) -> Array:
    """Return how much the squared error of each element of a layer's weight counts, float32.

    Returns:
        (K,), or (C, K) where the channels differ in it; relative to the largest.

    Raises:
        SpecError: nothing multiplies the weight that could be seen.
        DataError: `activations` does not hold what does, or no sample has reached it.
    """
    found = [
        read.importance(squares.astype(np.float64), layer.shape)
        for read, squares in _squares(network, layer, activations)
    ]
    total = sum(found[1:], found[0])
    largest = float(total.max(initial=0.0))
    # Where all inputs are 0 nothing counts, and everything alike.
    total = total / largest if largest > 0 else np.ones_like(total)
    total = np.maximum(total, LEAST_SHARE * total.mean())
    axis, shape = layer.channel_axis, list(layer.shape)
    if total.shape[axis] == 1:
        shape[axis] = 1
    matrix = as_matrix(np.broadcast_to(total.astype(np.float32), shape), axis)
    return matrix[0] if len(matrix) == 1 else matrix


def importance_key(network: Network, layer: LayerInfo, spec: QuantizerSpec, activations: Activations) -> str:
    """Return a hash of what `importance` depends on; empty where `spec` needs none of it."""
    if not needs_data(spec):
        return ""
    digest = hashlib.blake2b(digest_size=16)
    for _, squares in _squares(network, layer, activations):
        digest.update(np.ascontiguousarray(squares).tobytes())
    return digest.hexdigest()


def _squares(network: Network, layer: LayerInfo, activations: Activations) -> list[tuple[InputRead, Array]]:
    """Return what multiplies a layer's weight, with its mean squares."""
    reads = list(input_reads(network, layer))
    if not reads:
        raise SpecError(
            f"What multiplies the weight of '{layer.name}' ({layer.op}) is not seen from outside, so its error cannot "
            "be input-weighted; choose another range estimator for it."
        )
    missing = next((read.tensor for read in reads if read.tensor not in activations), None)
    if missing is not None:
        raise DataError(
            f"The range of the weight of '{layer.name}' is input-weighted, which needs data: open some, or choose "
            "another range estimator."
        )
    found = [(read, activations[read.tensor].squares.get(read.axis)) for read in reads]
    known = [(read, squares) for read, squares in found if squares is not None]
    if not known:
        raise DataError(
            f"No sample of the data reaches '{layer.name}', so its error cannot be input-weighted; choose another "
            "range estimator for it."
        )
    if not all(np.isfinite(squares).all() for _, squares in known):
        raise DataError(
            f"Inputs of '{layer.name}' are not finite, so its error cannot be input-weighted; choose another range "
            "estimator for it."
        )
    return known


# --- what an exported file records -------------------------------------------------------------------------------

RecordedSquares = Mapping[str, Mapping[int, Array]]
"""Mean squares by tensor and axis."""


def used_squares(network: Network, config: QuantConfig, activations: Activations) -> dict[str, dict[int, Array]]:
    """Return the mean squares that the ranges of weights under `config` depend on."""
    return {
        tensor: dict(activations[tensor].squares)
        for tensor in input_tensors(network, config)
        if tensor in activations and activations[tensor].squares
    }


def with_squares(activations: Activations, recorded: RecordedSquares) -> dict[str, ActivationReady]:
    """Return `activations` with other mean squares for some tensors."""
    nothing = np.empty(0, np.float32)
    found = dict(activations)
    for tensor, squares in recorded.items():
        known = found.get(tensor) or ActivationReady(tensor, collect(nothing), 0, nothing, nothing)
        found[tensor] = replace(known, squares=squares)
    return found
