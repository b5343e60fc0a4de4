"""The optimizer of training: Adam, with a rate for each value in its own unit. It imports torch.

Adam's step is as large as the rate, whatever the size of the gradient, so the rate must be relative to what is
trained: to the size of each channel's weights (they differ by orders of magnitude where BatchNorm has been folded), to
each scale itself. Source: D. Kingma and J. Ba, "Adam: A method for stochastic optimization", 2015.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

import numpy as np
import torch
from torch import Tensor

from quantgui.analysis.qat.network import Parameter
from quantgui.results import Array

_MOMENTUM: Final = 0.9
_SQUARES: Final = 0.99
_TINY: Final = 1e-20
_WARM_UP_SHARE: Final = 0.05
_MOST_WARM_UP: Final = 50


def rate_at(step: int, steps: int, highest: float) -> float:
    """Return the learning rate of a step (from 0): a short rise, then half a cosine down to 0."""
    rising = min(_MOST_WARM_UP, max(1, round(_WARM_UP_SHARE * steps)))
    if step < rising:
        return highest * (step + 1) / (rising + 1)
    return highest * 0.5 * (1 + math.cos(math.pi * (step - rising) / max(steps - rising, 1)))


class Adam:
    """Adam over parameters by name."""

    def __init__(self, parameters: Mapping[str, Parameter]) -> None:
        self._parameters = dict(parameters)
        self._steps = 0
        self._means = {name: torch.zeros_like(each.value) for name, each in parameters.items()}
        self._squares = {name: torch.zeros_like(each.value) for name, each in parameters.items()}

    def step(self, rate: float) -> None:
        """Go one step down the gradients that the parameters hold, and clear these."""
        self._steps += 1
        unbiased = math.sqrt(1 - _SQUARES**self._steps) / (1 - _MOMENTUM**self._steps)
        with torch.no_grad():
            for name, each in self._parameters.items():
                gradient = each.value.grad
                if gradient is None:
                    continue  # nothing flows to it
                mean, square = self._means[name], self._squares[name]
                mean.lerp_(gradient, 1 - _MOMENTUM)
                square.mul_(_SQUARES).addcmul_(gradient, gradient, value=1 - _SQUARES)
                direction = mean / square.sqrt().add_(_TINY)
                direction.mul_(each.value if each.unit is None else each.unit)
                each.value.add_(direction, alpha=-rate * unbiased)
                if each.limits is not None:
                    each.value.clamp_(*each.limits)
                each.value.grad = None

    def arrays(self) -> dict[str, Array]:
        """Return a copy of its state."""
        found: dict[str, Array] = {"steps": np.array(self._steps)}
        for kind, tensors in (("mean", self._means), ("square", self._squares)):
            found |= {f"{kind}:{name}": tensor.numpy().copy() for name, tensor in tensors.items()}
        return found

    def set_arrays(self, arrays: Mapping[str, Array]) -> None:
        """Take the state that `arrays` returned."""
        self._steps = int(arrays["steps"])
        for kind, tensors in (("mean", self._means), ("square", self._squares)):
            for name, tensor in tensors.items():
                tensor.copy_(_tensor(arrays[f"{kind}:{name}"]))


def _tensor(values: Array) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values))
