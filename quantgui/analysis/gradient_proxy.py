"""Noise at the network's outputs to first order, for all candidates at once. It imports torch.

A small change dw of a weight changes the outputs y of a sample by J dw, J being their derivative. For a random
direction v with independent elements of mean 0 and variance 1, the mean of (v . J dw)^2 is |J dw|^2, the noise energy.
v . J is the gradient g of v . y, so one backward pass serves all layers and all their candidates. It is done for each
sample alone: a gradient of several samples would mix their noise.

With few directions, g . dw is known badly: it is one sum of many terms of either sign. So the noise of different
channels of a layer is taken as independent, as rounding makes it: the sum of (g_c . dw_c)^2 over the channels c. That
ranks layers better from one direction than (g . dw)^2 does from two.

So the value is output SQNR, as long as the change is small; not what saturates, nor what other metrics make of it.
Outputs count as they do in output SQNR, each relative to its own energy.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import numpy as np
import torch
from torch import Tensor

from quantgui.errors import NetworkError
from quantgui.network.batch import Batch
from quantgui.network.differentiable import DifferentiableNetwork
from quantgui.numerics.groups import as_matrix
from quantgui.numerics.statistics import decibels
from quantgui.results import Array, LayerInfo, Progress

_HELD_BYTES = 96 * 2**20
"""Gradients that are held, as bfloat16, before the changes of all candidates are looked at."""

K = TypeVar("K", bound=Hashable)


def first_order_sqnr(
    network: DifferentiableNetwork,
    batches: Iterable[Batch],
    layers: Mapping[str, LayerInfo],
    changes: Mapping[str, Sequence[tuple[K, Callable[[], Array]]]],
    *,
    directions: int = 1,
    seed: int = 0,
) -> Generator[Progress, None, dict[K, float]]:
    """Yield Progress and return the first order output SQNR in dB by candidate; NaN where a gradient is not finite.

    Args:
        network: the float network.
        batches: of one sample each where the network allows that.
        layers: by name.
        changes: for each layer its candidates: a key, and a function that returns the change of its weight.
        directions: random directions for each batch.
        seed: of the directions.

    Raises:
        NetworkError: torch cannot run the network, or nothing flows from its weights to its outputs.
    """
    names = {layers[name].weight for name in changes}
    weights = {name: network.constant(name).detach().requires_grad_() for name in sorted(names)}
    sums = _Sums[K](layers, changes)
    generator = torch.Generator().manual_seed(seed)
    scales: dict[str, float] = {}
    label = "Differentiating the network"
    for number, batch in enumerate(batches):
        yield Progress(number, 0, label)
        outputs = _compared(network.run(batch.inputs, weights), batch)
        if not outputs:
            raise NetworkError("Nothing flows from the weights to the outputs of the network.")
        energies = {name: float(rows.detach().double().square().sum()) for name, rows in outputs.items()}
        for name, energy in energies.items():
            # Every output counts alike, by its energy in the first sample where it has any.
            scales[name] = scales.get(name) or (1 / energy if energy > 0 else 0.0)
        sums.signal += sum(scales[name] * energy for name, energy in energies.items())
        for direction in range(directions):
            yield Progress(number, 0, label)
            total = torch.stack([_along(rows, scales[name], generator) for name, rows in outputs.items()]).sum()
            sums.hold(_gradients(total, weights, keep=direction + 1 < directions))
            if sums.full:
                yield from sums.add_held(label)
        del outputs
    yield from sums.add_held(label)
    return {key: _decibels(sums.signal, noise / directions) for key, noise in sums.noise.items()}


@dataclass(frozen=True, eq=False)
class _Gradient:
    """The gradient of an initializer, bfloat16: those of its rows (along the first axis) that are not all 0.

    Of a table of embeddings a sample looks up few rows.
    """

    values: Tensor
    rows: Tensor | None
    shape: tuple[int, ...]

    @staticmethod
    def of(gradient: Tensor) -> _Gradient:
        shape = tuple(gradient.shape)
        if gradient.dim() > 1:
            held = gradient.reshape(shape[0], -1).any(1).nonzero()[:, 0]
            if 2 * len(held) < shape[0]:
                return _Gradient(gradient[held].bfloat16(), held, shape)
        return _Gradient(gradient.bfloat16(), None, shape)

    @property
    def bytes(self) -> int:
        return 2 * int(self.values.numel())

    def along(self, change: Array, layer: LayerInfo) -> Array:
        """Return the sum of gradient times `change`, of the layer's shape, for each channel that has any, (C,)."""
        values, rows = self.values.float().numpy(), None if self.rows is None else self.rows.numpy()
        if layer.rows is None and layer.channel_axis == 0 and rows is not None:
            columns = math.prod(self.shape[1:])
            found = (x.reshape(len(rows), columns) for x in (values, change[rows]))
            return np.asarray(np.einsum("ck,ck->c", *found))
        if rows is not None:
            whole = np.zeros(self.shape, np.float32)
            whole[rows] = values
            values = whole
        if layer.rows is not None:
            start, stop = layer.rows
            values = values.reshape(-1, values.shape[-1])[start:stop]
        of_layer = (as_matrix(x.reshape(layer.shape), layer.channel_axis) for x in (values, change))
        return np.asarray(np.einsum("ck,ck->c", *of_layer))


def _gradients(total: Tensor, weights: Mapping[str, Tensor], *, keep: bool) -> dict[str, _Gradient]:
    """Return the gradient of `total` for each weight that it depends on; each is made small at once."""
    found: dict[str, _Gradient] = {}

    def take(name: str) -> Callable[[Tensor], None]:
        def hook(weight: Tensor) -> None:
            found[name] = _Gradient.of(weight.grad)
            weight.grad = None

        return hook

    hooks = [weight.register_post_accumulate_grad_hook(take(name)) for name, weight in weights.items()]
    try:
        total.backward(retain_graph=keep)
    finally:
        for hook in hooks:
            hook.remove()
    return found


@dataclass(eq=False)
class _Sums(Generic[K]):
    """Signal energy, noise energy of each candidate, and the gradients that have not been looked at yet."""

    layers: Mapping[str, LayerInfo]
    changes: Mapping[str, Sequence[tuple[K, Callable[[], Array]]]]
    signal: float = 0.0
    noise: dict[K, float] = field(default_factory=dict)
    held: list[dict[str, _Gradient]] = field(default_factory=list)
    held_bytes: int = 0

    def hold(self, gradients: dict[str, _Gradient]) -> None:
        self.held.append(gradients)
        self.held_bytes += sum(gradient.bytes for gradient in gradients.values())

    @property
    def full(self) -> bool:
        """Whether one more set of gradients would be too much."""
        return self.held_bytes * (1 + 1 / len(self.held)) > _HELD_BYTES

    def add_held(self, label: str) -> Generator[Progress, None, None]:
        """Add the noise along the gradients held, and let go of them."""
        for name, candidates in self.changes.items():
            layer = self.layers[name]
            gradients = [each[layer.weight] for each in self.held if layer.weight in each]
            for key, change in candidates:
                yield Progress(0, 0, label)
                # Where no sample reaches the layer, its noise is nowhere to be seen.
                self.noise.setdefault(key, 0.0)
                if gradients:
                    changed = np.asarray(change(), np.float32)
                    along = [gradient.along(changed, layer) for gradient in gradients]
                    self.noise[key] += sum(float(np.square(each, dtype=np.float64).sum()) for each in along)
        self.held.clear()
        self.held_bytes = 0


def _compared(outputs: Mapping[str, Tensor], batch: Batch) -> dict[str, Tensor]:
    """Return the outputs that output SQNR looks at, flat, without rows that repeat the last sample."""
    states = set(batch.carried.values())
    rows = batch.rows or batch.samples
    found = {}
    for name, values in outputs.items():
        if name in states or not values.requires_grad or not values.numel():
            continue
        real = values[: batch.samples] if batch.batched and values.dim() and values.shape[0] == rows else values
        flat = real.reshape(-1)
        # Where the float network itself is not finite, nothing is compared.
        finite = torch.isfinite(flat.detach())
        found[name] = flat if bool(finite.all()) else flat[finite]
    return found


def _along(rows: Tensor, scale: float, generator: torch.Generator) -> Tensor:
    """Return the product of an output with a random direction."""
    direction = torch.randn(rows.shape, generator=generator, dtype=torch.float32) * math.sqrt(scale)
    return (rows.float() * direction).sum()


def _decibels(signal: float, noise: float) -> float:
    return decibels(signal, noise) if math.isfinite(signal) and math.isfinite(noise) else math.nan
