"""Trained weights without any training: those of a network moved a little, with scales and biases of their own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from quantgui.network.network import Network
from quantgui.network.trained import TrainedLayer, TrainedState, save_state
from quantgui.numerics.affine import weight_qparams
from quantgui.numerics.qparams import QParams
from quantgui.paths import trained_folder
from quantgui.results import LayerInfo
from quantgui.spec.config import QuantConfig
from quantgui.spec.quantizer import LayerSpec, QuantizerSpec, Trained

Array = np.ndarray


def biases_of(network: Network, layer: LayerInfo) -> dict[str, Array]:
    """Return the biases of the nodes that use a layer's weight."""
    found = {}
    for node in network.skeleton.graph.node:
        if node.name in layer.users and node.op_type in ("Conv", "ConvTranspose", "Gemm") and len(node.input) > 2:
            found[node.input[2]] = network.constants[node.input[2]]
    return found


def moved_layer(network: Network, layer: LayerInfo, spec: QuantizerSpec, seed: int) -> TrainedLayer:
    """Return a layer whose weights, scales and biases are not those that were found in the network."""
    random = np.random.default_rng(seed)
    weight = network.weight(layer).astype(np.float32)
    spread = float(weight.std()) or 1.0
    weight = weight + (0.3 * spread * random.standard_normal(weight.shape)).astype(np.float32)
    found = weight_qparams(weight, spec, layer.channel_axis)
    scale = (found.scale * random.uniform(0.6, 1.2, found.scale.shape)).astype(np.float32)
    biases = {
        name: (values.astype(np.float32) + 0.2 * random.standard_normal(values.shape)).astype(np.float32)
        for name, values in biases_of(network, layer).items()
    }
    return TrainedLayer(spec, weight, QParams(scale, found.zero_point), biases)


def moved_state(network: Network, specs: Mapping[str, QuantizerSpec]) -> TrainedState:
    """Return trained weights of the layers named in `specs`."""
    layers = {
        name: moved_layer(network, network.layers[name], spec, seed)
        for seed, (name, spec) in enumerate(sorted(specs.items()))
    }
    return TrainedState(layers, network.fingerprint)


def trained_config(network: Network, spec: LayerSpec) -> tuple[QuantConfig, TrainedState]:
    """Return a configuration with trained weights in each layer that can be quantized, and these weights, kept."""
    assert spec.weights is not None
    names = [layer.name for layer in network.summary.layers if layer.finite and not layer.read_only]
    state = moved_state(network, dict.fromkeys(names, spec.weights))
    name = save_state(state, trained_folder())
    named = replace(spec, weights=replace(spec.weights, range_estimator=Trained(name)))
    return QuantConfig().with_overrides(dict.fromkeys(names, named)), state


def on_its_grid(layer: LayerInfo, trained: TrainedLayer) -> Array:
    """Return trained weights on their grid, by plain arithmetic on one group after the other."""
    spec, weight = trained.spec, np.moveaxis(trained.weight, layer.channel_axis, 0)
    matrix = weight.reshape(len(weight), -1)
    scales = trained.qparams.scale
    rows = np.ascontiguousarray(matrix)
    per_row = len(scales) // len(rows) if len(scales) >= len(rows) else 0
    size = getattr(spec.granularity, "group_size", rows.shape[1])
    out = np.empty_like(rows)
    for row in range(len(rows)):
        for start in range(0, rows.shape[1], size):
            group = row * per_row + start // size if per_row else 0
            scale, zero = np.float32(scales[group]), int(trained.qparams.zero_point[group])
            codes = np.rint(rows[row, start : start + size] / scale) + zero
            codes = np.clip(codes, spec.format.quant_min, spec.format.quant_max)
            out[row, start : start + size] = (codes - zero).astype(np.float32) * scale
    return np.moveaxis(out.reshape(weight.shape), 0, layer.channel_axis)
