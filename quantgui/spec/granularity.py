"""Which elements of a tensor share one scale and zero point.

A weight is seen as a matrix (C, K): its C output channels by the K values that are summed up for each of them.
Which axis of the tensor holds the channels follows from the operator (`results.LayerInfo.channel_axis`), so a
granularity needs no axis and fits every layer. Activations are always quantized per tensor.
"""

from __future__ import annotations

from dataclasses import dataclass

from quantgui.errors import SpecError


@dataclass(frozen=True, slots=True)
class PerTensor:
    """One group: the whole tensor. Scale shape (1,)."""


@dataclass(frozen=True, slots=True)
class PerChannel:
    """One group per output channel. Scale shape (C,)."""


@dataclass(frozen=True, slots=True)
class PerGroup:
    """One group per ``group_size`` neighbours within a channel; the last group of a channel may be shorter.

    Scale shape (C, ceil(K / group_size)).
    """

    group_size: int

    def __post_init__(self) -> None:
        if self.group_size < 2:
            raise SpecError(f"Group size must be 2 or more, got {self.group_size}.")


@dataclass(frozen=True, slots=True)
class PerBlock:
    """One group per block of ``rows`` channels by ``columns`` neighbours; blocks at the ends may be smaller.

    Scale shape (ceil(C / rows), ceil(K / columns)). Source of the usual 128 x 128: DeepSeek-V3 technical report, 2024.
    """

    rows: int
    columns: int

    def __post_init__(self) -> None:
        if self.rows < 1 or self.columns < 1 or self.rows * self.columns < 2:
            raise SpecError(f"A block must hold 2 values or more, got {self.rows} x {self.columns}.")


Granularity = PerTensor | PerChannel | PerGroup | PerBlock


def grid_shape(channels: int, elements_per_channel: int, granularity: Granularity) -> tuple[int, int]:
    """Return how many groups the matrix of C x K elements is divided into, downwards and along.

    >>> grid_shape(10, 70, PerGroup(32)), grid_shape(10, 70, PerBlock(4, 32))
    ((10, 3), (3, 3))
    """
    match granularity:
        case PerTensor():
            return 1, 1
        case PerChannel():
            return channels, 1
        case PerGroup(group_size):
            return channels, -(-elements_per_channel // group_size)
        case PerBlock(rows, columns):
            return -(-channels // rows), -(-elements_per_channel // columns)


def group_count(channels: int, elements_per_channel: int, granularity: Granularity) -> int:
    """Return how many scales a weight of C x K elements has.

    >>> group_count(10, 70, PerGroup(32))
    30
    """
    down, along = grid_shape(channels, elements_per_channel, granularity)
    return down * along
