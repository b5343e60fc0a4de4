"""What a specification quantizes of a layer, and on which grid: its weight as it is, or as training has left it.

Some ranges depend on data too (`importance`): they take the statistics of activations.

Nothing else asks for the ranges of weights, so that what is simulated, shown, measured and exported is the same.
"""

from __future__ import annotations

from dataclasses import fields
from types import MappingProxyType

from quantgui.analysis.importance import Activations, importance, needs_data
from quantgui.errors import NetworkError, SpecError
from quantgui.network.network import Network
from quantgui.network.trained import TrainedLayer, untrained
from quantgui.numerics.affine import weight_qparams
from quantgui.numerics.qparams import QParams
from quantgui.numerics.scales import rounded_scales
from quantgui.results import Array, LayerInfo
from quantgui.spec.granularity import group_count
from quantgui.spec.quantizer import QuantizerSpec, Trained

NO_ACTIVATIONS: Activations = MappingProxyType({})


def weight_values(network: Network, layer: LayerInfo, spec: QuantizerSpec) -> Array:
    """Return the values that `spec` quantizes, in the layer's shape; not to be written to.

    Raises:
        NetworkError: the trained weights that it names cannot be had.
        SpecError: they are not of this layer, or were trained under another specification.
    """
    trained = trained_layer(network, layer, spec)
    return network.weight(layer) if trained is None else trained.weight


def weight_grid(
    network: Network, layer: LayerInfo, spec: QuantizerSpec, activations: Activations = NO_ACTIVATIONS
) -> QParams:
    """Return the scales and zero points, or the codebooks, of a layer's weight, (G,), channel by channel.

    Raises:
        SpecError: the format has no grid, or what `weight_values` or `importance` raises.
        NetworkError: the trained weights that it names cannot be had.
        DataError: its range depends on data, which `activations` does not hold.
    """
    trained = trained_layer(network, layer, spec)
    if trained is not None:
        # Scales that training has left as they are stored do not change.
        scale = rounded_scales(trained.qparams.scale, spec.scale_format)
        return QParams(scale, trained.qparams.zero_point)
    counts = importance(network, layer, activations) if needs_data(spec) else None
    return weight_qparams(network.weight(layer), spec, layer.channel_axis, importance=counts)


# --- training ----------------------------------------------------------------------------------------------------


def trained_layer(network: Network, layer: LayerInfo, spec: QuantizerSpec) -> TrainedLayer | None:
    """Return what training has left of a layer for `spec`; None where `spec` names no training.

    Raises:
        NetworkError: it is not on this machine, damaged, or of another network.
        SpecError: the layer was not trained then, or under another specification.
    """
    if not isinstance(spec.range_estimator, Trained):
        return None
    state = spec.range_estimator.state
    found = network.trained(state).layers.get(layer.name)
    if found is None:
        raise SpecError(
            f"The layer '{layer.name}' is not among the trained weights {state[:8]}…; choose another range estimator "
            "for it."
        )
    if differs := _difference(untrained(found.spec), untrained(spec)):
        raise SpecError(
            f"The weight of '{layer.name}' was trained as {found.spec} with another {differs} than it is configured "
            "with now; choose another range estimator for it, or train it again."
        )
    groups = group_count(layer.channels, layer.elements_per_channel, spec.granularity)
    fits = found.weight.shape == layer.shape and found.qparams.scale.shape == (groups,)
    if not fits or found.qparams.zero_point.shape != found.qparams.scale.shape:
        raise NetworkError(f"The trained weights {state[:8]}… do not fit the layer '{layer.name}'; train again.")
    return found


def bias_values(network: Network, name: str, layer: LayerInfo, spec: QuantizerSpec) -> Array:
    """Return the values of the bias `name` of a layer whose weight is quantized by `spec`, in the bias's own type.

    Raises:
        NetworkError, SpecError: as `trained_layer`.
    """
    trained = trained_layer(network, layer, spec)
    if trained is None or name not in trained.biases:
        return network.constants[name]
    values = trained.biases[name]
    if name not in network.constants or network.constants[name].shape != values.shape:
        raise NetworkError(f"The trained weights of '{layer.name}' do not fit its bias '{name}'; train again.")
    return values.astype(network.constants[name].dtype, copy=False)


def _difference(one: QuantizerSpec, other: QuantizerSpec) -> str:
    """Return the name of the first field in which two specifications differ, in words."""
    names = (field.name for field in fields(one))
    return next((name for name in names if getattr(one, name) != getattr(other, name)), "").replace("_", " ")
