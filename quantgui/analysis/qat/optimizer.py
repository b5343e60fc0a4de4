"""The optimizer of training: Adam, with a rate for each value in its own unit, and steps the loss allows.

Adam's step is as large as the rate, whatever the size of the gradient, so the rate must be relative to what is
trained: to the size of each channel's weights (they differ by orders of magnitude where BatchNorm has been folded), to
each scale itself. Source: D. Kingma and J. Ba, "Adam: A method for stochastic optimization", 2015.

All values moving along their gradients add up: the more layers and weights, the smaller the rate at which a step
overshoots (in a deep network of depthwise convolutions a step of one thousandth foretells ten times the loss there is
to lose). So no step goes farther than to where the loss would be 0 if it went on as the gradients say, and the rate is
only the most that may be. Source: F. Schaipp et al., "MoMo: Momentum models for adaptive learning rates", 2024
(MoMo-Adam; its <d, x> - gamma is kept as one number, `_gained`, so that nothing large is subtracted).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Final

import numpy as np
import torch
from torch import Tensor

from quantgui.analysis.qat.network import Parameter
from quantgui.results import Array

_MOMENTUM: Final = 0.9
_SQUARES: Final = 0.99
_TINY: Final = 1e-20
_FARTHEST: Final = 1.5
_WARM_UP_SHARE: Final = 0.05
_MOST_WARM_UP: Final = 50


def rate_at(step: int, steps: int, highest: float) -> float:
    """Return the highest learning rate of a step (from 0): a short rise, then half a cosine down to 0."""
    rising = min(_MOST_WARM_UP, max(1, round(_WARM_UP_SHARE * steps)))
    if step < rising:
        return highest * (step + 1) / (rising + 1)
    return highest * 0.5 * (1 + math.cos(math.pi * (step - rising) / max(steps - rising, 1)))


def reach_at(step: int, steps: int) -> float:
    """Return the share of the loss that a step (from 0) may foretell to take away: it falls to 1 with the rate.

    Gradients straight through rounding foretell more than comes, so a little more than all of it is learned faster at
    few bits; twice as much loses on the way what 8 bits have (figures: tests/benchmarks/RESULTS.md).
    """
    return rate_at(step, steps, _FARTHEST - 1.0) + 1.0


class Adam:
    """Adam over parameters by name."""

    def __init__(self, parameters: Mapping[str, Parameter]) -> None:
        self._parameters = dict(parameters)
        self._steps = 0
        self._loss = 0.0
        self._gained = 0.0
        self._means = {name: torch.zeros_like(each.value) for name, each in parameters.items()}
        self._squares = {name: torch.zeros_like(each.value) for name, each in parameters.items()}

    def step(self, rate: float, loss: float | None = None, reach: float = 1.0) -> float:
        """Go one step down the gradients that the parameters hold, clear these, and return the rate it took.

        Args:
            rate: the most it may be.
            loss: that the gradients belong to, of which steps take away no more than there is; it cannot be below 0.
                None for steps as long as `rate`.
            reach: share of the loss that a step may foretell to take away.
        """
        self._steps += 1
        if loss is not None:
            self._loss += (1 - _MOMENTUM) * (loss - self._loss)
        unbiased, unbiased_square = 1 - _MOMENTUM**self._steps, 1 - _SQUARES**self._steps
        with torch.no_grad():
            directions = dict(self._directions(math.sqrt(unbiased_square)))
            slope = sum(_dot(self._means[name], each) for name, each in directions.items())
            taken = rate / unbiased
            if loss is not None:
                # Straight lines through the losses so far, averaged like the gradients, seen from where it is now.
                left = max(reach * self._loss + self._gained, 0.0)
                taken = min(taken, left / slope) if slope > 0 else 0.0
            self._gained = _MOMENTUM * (self._gained - taken * slope)
            for name, direction in directions.items():
                each = self._parameters[name]
                each.value.add_(direction, alpha=-taken)
                if each.limits is not None:
                    each.value.clamp_(*each.limits)
        return taken * unbiased

    def _directions(self, unbiased: float) -> Iterator[tuple[str, Tensor]]:
        """Yield what a rate of 1 takes away from each parameter that a gradient has reached."""
        for name, each in self._parameters.items():
            gradient = each.value.grad
            if gradient is None:
                continue  # nothing flows to it
            mean, square = self._means[name], self._squares[name]
            mean.lerp_(gradient, 1 - _MOMENTUM)
            square.mul_(_SQUARES).addcmul_(gradient, gradient, value=1 - _SQUARES)
            each.value.grad = None
            direction = mean / square.sqrt().add_(_TINY)
            yield name, direction.mul_(each.value if each.unit is None else each.unit).mul_(unbiased)

    def arrays(self) -> dict[str, Array]:
        """Return a copy of its state."""
        found: dict[str, Array] = {
            "steps": np.array(self._steps),
            "loss": np.array(self._loss),
            "gained": np.array(self._gained),
        }
        for kind, tensors in (("mean", self._means), ("square", self._squares)):
            found |= {f"{kind}:{name}": tensor.numpy().copy() for name, tensor in tensors.items()}
        return found

    def set_arrays(self, arrays: Mapping[str, Array]) -> None:
        """Take the state that `arrays` returned."""
        self._steps = int(arrays["steps"])
        self._loss, self._gained = float(arrays["loss"]), float(arrays["gained"])
        for kind, tensors in (("mean", self._means), ("square", self._squares)):
            for name, tensor in tensors.items():
                tensor.copy_(_tensor(arrays[f"{kind}:{name}"]))


def _tensor(values: Array) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values))


def _dot(one: Tensor, other: Tensor) -> float:
    return float(one.flatten().dot(other.flatten()))
