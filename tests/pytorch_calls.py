"""Modules that are called in other ways than with tensors one after another, or whose code decides as it runs."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Answers(nn.Module):
    """Takes inputs by keyword, answers a dict with numbers and None in it."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.gate, self.head = nn.Linear(8, 6), nn.Linear(8, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor, mask: Tensor | None = None, *, shift: Tensor | None = None) -> dict[str, object]:
        hidden = torch.relu(self.inner(x))
        if mask is not None:
            hidden = hidden * torch.sigmoid(self.gate(mask))
        if shift is not None:
            hidden = hidden + shift
        return {"scores": self.head(hidden), "hidden": (hidden, None), "classes": 3}


class Scaled(nn.Module):
    """Takes a tensor it can do without, and a number; answers by the name of its input."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 4)

    def forward(self, x: Tensor, mask: Tensor | None = None, scale: float = 1.0) -> dict[str, Tensor]:
        found = self.inner(x) * scale
        return {"x": found if mask is None else found * mask}


class Remembers(nn.Module):
    """Takes its state as a pair, and gives it back."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.LSTM(4, 5, batch_first=True)

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        return self.cell(x, state)


class Streams(nn.Module):
    """Keeps the end of what it got in a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.filter = nn.Conv1d(2, 3, 3)
        self.register_buffer("past", torch.zeros(2, 2, 2))

    def forward(self, x: Tensor) -> Tensor:
        whole = torch.cat([self.past, x], -1)
        self.past.copy_(whole[..., -2:])
        return self.filter(whole)


class Decides(nn.Module):
    """Takes one of two ways by the numbers of its input."""

    def __init__(self) -> None:
        super().__init__()
        self.bright, self.dark = nn.Linear(4, 3), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 0:
            return self.bright(x)
        return self.dark(x)


class DecidesInPython(Decides):
    """The same in words that cannot be compiled."""

    def forward(self, x: Tensor) -> Tensor:
        return (self.bright if x.sum().item() > 0 else self.dark)(x)


class Steps(nn.Module):
    """A loop over time, compiled: recording a run, or reading it as a whole, would fix the number of steps."""

    def __init__(self) -> None:
        super().__init__()
        self.into, self.state, self.out = nn.Linear(3, 4), nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        state = torch.zeros(x.shape[0], 4)
        every = torch.zeros(x.shape[0], 0, 4)
        for step in range(x.shape[1]):
            state = torch.tanh(self.into(x[:, step]) + self.state(state))
            every = torch.cat([every, state.unsqueeze(1)], 1)
        return self.out(every)


class Cells(nn.Module):
    """A loop over time in plain Python, with a cell that cannot be compiled to ONNX."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRUCell(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        state = x.new_zeros(x.shape[0], 4)
        for step in range(x.shape[1]):
            state = self.cell(x[:, step], state)
        return state


class Draws(nn.Module):
    """Answers differently each time."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x + torch.rand_like(x))


class Standardized(nn.Conv1d):
    """A convolution whose weight is standardized each time."""

    def forward(self, x: Tensor) -> Tensor:
        weight = (self.weight - self.weight.mean((1, 2), keepdim=True)) / self.weight.std((1, 2), keepdim=True)
        return nn.functional.conv1d(x, weight, self.bias)


def normalized() -> nn.Module:
    """Return a network whose weights are computed of others."""
    norms = nn.utils.parametrizations
    first = norms.weight_norm(nn.Conv1d(2, 4, 3))
    inner = nn.Sequential(norms.spectral_norm(nn.Conv1d(4, 4, 3)), nn.ELU())
    return nn.Sequential(first, inner, Standardized(4, 3, 3))


class Tied(nn.Module):
    """The words go in and come out by the same table."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.body, self.head = nn.Embedding(9, 4), nn.Linear(4, 4), nn.Linear(4, 9, bias=False)
        self.head.weight = self.words.weight

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(torch.tanh(self.body(self.words(ids))))


def packed() -> nn.Module:
    """Return a network whose sequences have lengths."""

    class Packed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell = nn.GRU(3, 4, batch_first=True)

        def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
            packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
            return nn.utils.rnn.pad_packed_sequence(self.cell(packed)[0], batch_first=True)[0]

    return Packed()


def steps() -> tuple[nn.Module, tuple[Tensor, ...]]:
    """Return the network with the loop over time, and an example of its input."""
    torch.manual_seed(0)
    return Steps(), (torch.zeros(2, 4, 3),)
