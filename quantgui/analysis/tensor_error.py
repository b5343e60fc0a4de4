"""What quantization does to a weight by itself: the weights tab, and the error column of the layers table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping
from dataclasses import replace

import numpy as np

from quantgui.analysis.importance import Activations, importance, input_reads, needs_data
from quantgui.analysis.weight_grids import NO_ACTIVATIONS, trained_layer, weight_grid
from quantgui.network.network import Network
from quantgui.numerics.affine import WeightMeasurement, fake_quantize, measure_weight
from quantgui.numerics.error_curve import has_curve, weight_curve
from quantgui.numerics.groups import as_matrix
from quantgui.numerics.levels import covered_range, quantized_levels
from quantgui.numerics.statistics import channel_statistics, collect
from quantgui.results import (
    Array,
    ChannelStatistics,
    Event,
    LayerInfo,
    Progress,
    TensorStatistics,
    WeightErrorReady,
    WeightView,
    WeightViewReady,
)
from quantgui.spec.quantizer import QuantizerSpec

_DRAWN_BITS = 8
"""Grids of more bits have too many levels to be drawn."""

StatisticsCache = MutableMapping[str, tuple[TensorStatistics, ChannelStatistics]]
"""Statistics of whole weights and of their channels by layer name; they do not depend on any spec."""


def view_weight(
    network: Network,
    layer: str,
    spec: QuantizerSpec | None,
    statistics: StatisticsCache | None = None,
    *,
    curve: bool = False,
    activations: Activations = NO_ACTIVATIONS,
) -> Iterator[Event]:
    """Yield the WeightViewReady of one layer under `spec`, and with `curve` another with the curve of its error.

    A layer that stays as it is (quantized in the file already, or with values that are not finite) is shown without
    quantization, whatever `spec` says.

    Args:
        network: holds the layer.
        layer: its name.
        spec: the weight's spec, None for float.
        statistics: where statistics are looked up and kept.
        curve: whether to compute the curve of the error too, which takes longer than all else.
        activations: statistics of what multiplies the weight, where its range depends on them.

    Raises:
        DataError: the range depends on data that `activations` does not hold.
        NetworkError, SpecError: as `weight_grids.weight_grid`.
    """
    info = network.layers[layer]
    if statistics is None:
        statistics = {}
    if layer not in statistics:
        yield Progress(0, 2, f"Reading {layer}")
        statistics[layer] = weight_statistics(network, info)
    yield Progress(1, 2, f"Quantizing {layer}")
    whole, channels = statistics[layer]
    applied = spec if _is_editable(info) else None
    weight = _finite_weight(network, info)
    measured = _measured(network, info, applied, activations)
    low, high = whole.minimum, whole.maximum
    qparams, levels = measured.qparams, np.zeros(0)
    if applied is not None and qparams.scale.size:
        lows, highs = covered_range(qparams, applied.format)
        low, high = float(lows.min()), float(highs.max())
        if applied.bits <= _DRAWN_BITS:
            levels = quantized_levels(qparams, applied.format, int(np.argmax(highs - lows)))
    view = WeightView(
        layer=layer,
        spec=spec,
        statistics=whole,
        channels=replace(channels, sqnr_db=measured.channel_sqnr_db),
        error=measured.error,
        quantized=measured.quantized,
        error_histogram=measured.error_histogram,
        # Levels that are the values themselves have no scale.
        scales=qparams.scale if qparams.levels is None else qparams.scale[:0],
        zero_points=qparams.zero_point if qparams.levels is None else qparams.zero_point[:0],
        low=low,
        high=high,
        levels=levels,
    )
    yield WeightViewReady(view)
    if not curve or applied is None or not has_curve(applied):
        return
    counts = _known_importance(network, info, applied, activations)
    for found in weight_curve(weight, applied, info.channel_axis, importance=counts):
        if found is None:
            yield Progress(1, 2, f"Error of {layer} by clipping limit")
        else:
            yield WeightViewReady(replace(view, curve=found))


def weight_errors(
    network: Network, specs: Mapping[str, QuantizerSpec | None], activations: Activations = NO_ACTIVATIONS
) -> Iterator[Event]:
    """Yield one WeightErrorReady per layer of `specs`, in their order; `activations` as in `view_weight`.

    Raises:
        DataError, NetworkError, SpecError: as `view_weight`.
    """
    for layer, spec in specs.items():
        info = network.layers[layer]
        applied = spec if _is_editable(info) else None
        if applied is not None and (needs_data(applied) or trained_layer(network, info, applied) is not None):
            error = _measured(network, info, applied, activations).error
        else:
            _, error = fake_quantize(_finite_weight(network, info), applied, info.channel_axis)
        yield WeightErrorReady(layer, spec, error)


def _measured(
    network: Network, layer: LayerInfo, spec: QuantizerSpec | None, activations: Activations
) -> WeightMeasurement:
    """Return error and histograms of a weight under `spec`; the error of trained weights is that against float ones."""
    weight = _finite_weight(network, layer)
    trained = None if spec is None else trained_layer(network, layer, spec)
    if spec is None or (trained is None and not needs_data(spec)):
        return measure_weight(weight, spec, layer.channel_axis)
    values, given = None if trained is None else trained.weight, weight_grid(network, layer, spec, activations)
    return measure_weight(weight, spec, layer.channel_axis, values=values, given=given)


def _known_importance(
    network: Network, layer: LayerInfo, spec: QuantizerSpec, activations: Activations
) -> Array | None:
    """Return how much errors of a weight's elements count, where that is known without asking for data."""
    reads = list(input_reads(network, layer))
    known = bool(reads) and all(activations[r.tensor].squares if r.tensor in activations else {} for r in reads)
    return importance(network, layer, activations) if known or needs_data(spec) else None


def weight_statistics(network: Network, layer: LayerInfo) -> tuple[TensorStatistics, ChannelStatistics]:
    """Return the statistics of a layer's weight, and of each of its channels (values that are not finite left out)."""
    matrix = as_matrix(_finite_weight(network, layer), layer.channel_axis)
    return collect(network.weight(layer)), channel_statistics(matrix)


def _is_editable(layer: LayerInfo) -> bool:
    return layer.finite and not layer.read_only


def _finite_weight(network: Network, layer: LayerInfo) -> Array:
    values = network.weight(layer)
    return values if layer.finite else np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)
