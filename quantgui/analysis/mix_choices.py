"""What a mix can choose from: for each layer or group of layers the specs it may get, with their cost and damage."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from quantgui.analysis.knapsack import Item, Selection
from quantgui.errors import SpecError
from quantgui.results import LayerInfo, NetworkSummary
from quantgui.spec.config import QuantConfig
from quantgui.spec.mix import CostKind, Mix
from quantgui.spec.quantizer import FLOAT, LayerSpec, bits_of
from quantgui.spec.size import network_bytes, weight_bytes

Latencies = Mapping[tuple[str, LayerSpec], float]
"""Measured time of a layer's nodes with a spec, as a part of the float network's."""


@dataclass(frozen=True, eq=False)
class Choices:
    """The layers that are chosen for, in groups that get the same spec, and all that is held fast.

    Attributes:
        groups: names of the layers of each group.
        specs: what each group may get.
        items: their costs and damages, as `knapsack` wants them.
        fixed: the configuration of all other layers.
        fixed_cost: their cost, and that of everything that is no layer.
    """

    groups: tuple[tuple[str, ...], ...]
    specs: tuple[tuple[LayerSpec, ...], ...]
    items: tuple[Item, ...]
    fixed: QuantConfig
    fixed_cost: float

    def config(self, selection: Selection) -> QuantConfig:
        """Return the configuration that a selection stands for."""
        chosen = {
            layer: specs[choice]
            for layers, specs, choice in zip(self.groups, self.specs, selection, strict=True)
            for layer in layers
        }
        return replace(self.fixed.with_overrides(chosen), name="Mix")

    def cost(self, selection: Selection) -> float:
        """Return the cost of the whole network."""
        return self.fixed_cost + sum(
            float(item.costs[choice]) for item, choice in zip(self.items, selection, strict=True)
        )


def swept_layers(summary: NetworkSummary, mix: Mix) -> tuple[str, ...]:
    """Return the layers whose sensitivity the mix needs: all that are swept, but those that are held fast.

    Raises:
        SpecError: a name matches no layer, or the sweep does not start from the float network.
    """
    known = {layer.name for layer in summary.layers}
    groups = mix.groups or ()
    named = [*mix.pinned, *mix.excluded, *mix.sweep.layers, *(name for group in groups for name in group)]
    for name in named:
        if name not in known:
            raise SpecError(f"The mix names the layer '{name}', which the network does not have.")
    if any(mix.sweep.base.spec_for(name) != FLOAT for name in known):
        raise SpecError("A mix is looked for from the float network, as only then damages add up.")
    return tuple(name for name in mix.sweep.swept(summary.layers) if name not in mix.pinned)


def find_choices(
    summary: NetworkSummary,
    mix: Mix,
    damages: Mapping[tuple[str, LayerSpec], float] | None,
    groups: Iterable[Sequence[str]],
    latencies: Latencies,
) -> Choices:
    """Return what can be chosen, by the damage of each layer with each spec; None counts them all as 0.

    Layers of a group with a pinned one are pinned too. A spec whose damage is not known cannot be chosen; float, which
    every sweep starts from, does no damage.

    Raises:
        SpecError: pins contradict each other, or a layer is left without a choice.
    """
    layers = {layer.name: layer for layer in summary.layers}
    swept = swept_layers(summary, mix)
    pinned = dict(mix.pinned)
    merged = _merged(groups)
    for group in merged:
        held = {pinned[name] for name in group if name in pinned}
        if len(held) > 1:
            raise SpecError(f"The layers {_listed(group)} shall get the same format, but are held at several ones.")
        pinned |= {name: spec for spec in held for name in group}
    tied = {
        name: tuple(each for each in group if each in swept and each not in pinned)
        for group in merged
        for name in group
    }
    chosen = dict.fromkeys(tied.get(name, (name,)) for name in swept if name not in pinned)
    specs, items = [], []
    for group in chosen:
        allowed = [
            spec
            for spec in dict.fromkeys([*(mix.sweep.candidate(group[0], spec) for spec in mix.sweep.specs), FLOAT])
            if not any(spec in mix.excluded.get(name, frozenset()) for name in group)
        ]
        damage = np.array([sum(_damage(damages, name, spec) for name in group) for spec in allowed])
        possible = np.flatnonzero(np.isfinite(damage))
        if not possible.size:
            raise SpecError(f"There is no format left that {_listed(group)} may get and whose damage is known.")
        specs.append(tuple(allowed[i] for i in possible))
        costs = [sum(layer_cost(layers[name], spec, mix.cost, latencies) for name in group) for spec in specs[-1]]
        items.append(Item(np.array(costs, np.float64), damage[possible]))
    fixed = mix.sweep.base.with_overrides(pinned)
    free = {name for group in chosen for name in group}
    return Choices(tuple(chosen), tuple(specs), tuple(items), fixed, _fixed_cost(summary, mix, fixed, free, latencies))


def network_cost(summary: NetworkSummary, config: QuantConfig, cost: CostKind, latencies: Latencies) -> float:
    """Return the cost of the whole network under `config`."""
    match cost:
        case "bytes":
            return network_bytes(summary.float_bytes, summary.layers, config)
        case "bops":
            return sum(layer_cost(layer, config.spec_for(layer.name), cost, latencies) for layer in summary.layers)
        case "latency":
            changed = sum(
                layer_cost(layer, config.spec_for(layer.name), cost, latencies)
                - layer_cost(layer, FLOAT, cost, latencies)
                for layer in summary.layers
            )
            return 1.0 + changed


def layer_cost(layer: LayerInfo, spec: LayerSpec, cost: CostKind, latencies: Latencies) -> float:
    """Return what a layer costs with `spec`."""
    stays = layer.read_only or not layer.finite
    weights = None if stays else spec.weights
    match cost:
        case "bytes":
            if stays:
                return 0.0  # whatever the configuration says, so it belongs to what is fixed
            return weight_bytes(layer.channels, layer.elements_per_channel, weights, float_bits=layer.float_bits)
        case "bops":
            activations = spec.activations if layer.quantizes_activations else None
            return float(layer.macs * bits_of(weights) * bits_of(activations))
        case "latency":
            return latencies.get((layer.name, spec), latencies.get((layer.name, FLOAT), 0.0))


def _damage(damages: Mapping[tuple[str, LayerSpec], float] | None, layer: str, spec: LayerSpec) -> float:
    return 0.0 if damages is None or spec == FLOAT else damages.get((layer, spec), math.inf)


def _fixed_cost(summary: NetworkSummary, mix: Mix, fixed: QuantConfig, free: set[str], latencies: Latencies) -> float:
    """Return the cost of everything but the `free` layers."""
    whole = network_cost(summary, fixed, mix.cost, latencies)
    return whole - sum(
        layer_cost(layer, fixed.spec_for(layer.name), mix.cost, latencies)
        for layer in summary.layers
        if layer.name in free
    )


def _merged(groups: Iterable[Sequence[str]]) -> list[tuple[str, ...]]:
    """Return the groups, those that share a layer as one."""
    found: list[dict[str, None]] = []
    for group in groups:
        joined = dict.fromkeys(group)
        apart = []
        for other in found:
            if other.keys() & joined.keys():
                joined = other | joined
            else:
                apart.append(other)
        found = [*apart, joined]
    return [tuple(group) for group in found]


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(f"'{name}'" for name in names[:3])
    return f"{shown} and {len(names) - 3} more" if len(names) > 3 else shown
