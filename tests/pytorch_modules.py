"""Modules the tests of PyTorch networks open, as a user's file has them; also imported as it is by the tests."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn


class Block(nn.Module):
    """Convolution, BatchNorm, Relu."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.bn = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.bn(self.conv1(x)))


class Picture(nn.Module):
    """A small classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 1)
        self.blocks = nn.Sequential(Block(4, 8), nn.Conv2d(8, 4, 1), Block(4, 8))
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(self.stem(x)).mean((2, 3)))


class Frames(nn.Module):
    """A recurrent network whose code reads the number of frames as a number, which only compiled code keeps free."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.LSTM(6, 5, batch_first=True)
        self.out = nn.Linear(5, 3)

    def forward(self, frames: Tensor) -> Tensor:
        steps = int(frames.shape[1])
        return self.out(self.cell(frames)[0].sum(1) / float(steps))


class Counted(Frames):
    """The same, with a number that no exporter can follow."""

    def forward(self, frames: Tensor) -> Tensor:
        steps = np.array(frames.shape[1]).astype(np.float32).item()
        return self.out(self.cell(frames)[0].sum(1) / steps)


def picture() -> nn.Module:
    """Return the classifier with the same numbers every time."""
    torch.manual_seed(0)
    return Picture()


def with_inputs() -> tuple[nn.Module, tuple[Tensor, ...]]:
    """Return the classifier and an example of its input."""
    return picture(), (torch.zeros(1, 3, 16, 16),)


def counted() -> nn.Module:
    """Return the recurrent network that no exporter can follow."""
    torch.manual_seed(0)
    return Counted()


def frames() -> nn.Module:
    """Return the recurrent network."""
    torch.manual_seed(0)
    return Frames()


class Checked(Picture):
    """Looks at the numbers of its input first, which the new exporter cannot follow."""

    def forward(self, x: Tensor) -> Tensor:
        if float(x.abs().max()) > 1e6:
            raise ValueError("too bright")
        return super().forward(x)


def checked() -> nn.Module:
    """Return the classifier that looks at its input first."""
    torch.manual_seed(0)
    return Checked()


def broken() -> nn.Module:
    """Fail as code may."""
    raise ZeroDivisionError("no luck")


def number() -> int:
    """Return what is no module."""
    return 3
