"""Whether another session pays: what building it takes, against what it saves."""

from __future__ import annotations

from collections.abc import Sequence

from onnx import NodeProto

from quantgui.network.network import Network
from quantgui.network.segments import MACS_PER_SECOND, Segment

_BUILDING_SECONDS_PER_NODE, _BUILDING_BYTES_PER_SECOND = 2.5e-4, 1e9
_SLOWDOWN, _SLOWDOWN_CONVOLUTION, _SLOWDOWN_GROUPED = 0.1, 0.5, 100.0
"""Time that a weight as input adds to its operator, in parts of the time that its operations should take."""
_COST_OF_CUTS = 0.07
"""Part of the time of a chain that its cuts cost."""


def cheap_to_exchange(network: Network, segment: Segment, name: str, rows: int) -> bool:
    """Return whether feeding the initializer `name` to a session of `segment` costs less than building another one.

    ONNX Runtime runs a convolution whose weight it cannot arrange beforehand more slowly: one with groups many times,
    others by about a half; matrix products hardly. Building a session takes about as long as there are nodes and
    weights in it. Both were measured on convolutional networks; what follows does not depend on the machine.

    Args:
        network: it belongs to.
        segment: one that reads the initializer.
        name: of the initializer.
        rows: samples that are run with each of its values.
    """
    macs = sum(layer.macs for layer in network.summary.layers if layer.weight == name)
    slowdown = max((_slowdown(node, network) for node in segment.nodes if name in node.input), default=_SLOWDOWN)
    weights = sum(network.constants[each].nbytes for each in segment.initializers)
    building = len(segment.nodes) * _BUILDING_SECONDS_PER_NODE + weights / _BUILDING_BYTES_PER_SECOND
    return slowdown * rows * macs / MACS_PER_SECOND < building


def worth_joining(network: Network, segments: Sequence[Segment], rows: float) -> bool:
    """Return whether running `rows` samples through `segments` in one piece saves more than building it costs.

    Args:
        network: they belong to.
        segments: the last ones of a chain, whose own sessions are there already.
        rows: samples that are run, one count for each time they are.
    """
    initializers = frozenset().union(*(segment.initializers for segment in segments))
    macs = sum(layer.macs for layer in network.summary.layers if layer.weight in initializers)
    weights = sum(network.constants[each].nbytes for each in initializers)
    nodes = sum(len(segment.nodes) for segment in segments)
    building = nodes * _BUILDING_SECONDS_PER_NODE + weights / _BUILDING_BYTES_PER_SECOND
    return _COST_OF_CUTS * rows * macs / MACS_PER_SECOND > building


def _slowdown(node: NodeProto, network: Network) -> float:
    if node.op_type not in ("Conv", "ConvTranspose"):
        return _SLOWDOWN
    if any(attribute.name == "group" and attribute.i > 1 for attribute in node.attribute):
        return _SLOWDOWN_GROUPED
    weight = network.constants.get(node.input[1])
    pointwise = weight is not None and weight.size == weight.shape[0] * weight.shape[1]
    return _SLOWDOWN if pointwise else _SLOWDOWN_CONVOLUTION
