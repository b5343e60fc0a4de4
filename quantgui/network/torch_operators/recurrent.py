"""LSTM, GRU and RNN, step by step; all gates of a step are one product of matrices."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from quantgui.network.torch_operators.node import Operator, OperatorNode

Activation = Callable[[Tensor], Tensor]
Step = Callable[[Tensor, tuple[Tensor, ...]], tuple[Tensor, ...]]
"""Takes the input's part of all gates and the states; returns the new states, the hidden one first."""

_PLAIN: dict[str, Activation] = {
    "relu": torch.relu,
    "sigmoid": torch.sigmoid,
    "softplus": functional.softplus,
    "softsign": functional.softsign,
    "tanh": torch.tanh,
}
_DEFAULTS = {"LSTM": ("Sigmoid", "Tanh", "Tanh"), "GRU": ("Sigmoid", "Tanh"), "RNN": ("Tanh",)}


@dataclass(frozen=True, eq=False)
class _Direction:
    """The weights of one direction; `r` is (gates * hidden, hidden)."""

    index: int
    w: Tensor
    r: Tensor
    bias_w: Tensor
    bias_r: Tensor
    activations: tuple[Activation, ...]


def _activations(node: OperatorNode, directions: int) -> list[tuple[Activation, ...]]:
    per_direction = len(_DEFAULTS[node.op])
    names = list(node.get("activations", _DEFAULTS[node.op] * directions))
    if node.get("activation_alpha", ()) or node.get("activation_beta", ()):
        raise node.uncovered("activation_alpha or activation_beta")
    found = []
    for name in names:
        if name.lower() not in _PLAIN:
            raise node.uncovered(f"the activation {name}")
        found.append(_PLAIN[name.lower()])
    return [tuple(found[i * per_direction : (i + 1) * per_direction]) for i in range(directions)]


def _directions(node: OperatorNode, w: Tensor, r: Tensor, b: Tensor | None) -> list[_Direction]:
    rows = w.shape[1]
    biases = torch.zeros(w.shape[0], 2 * rows, dtype=w.dtype) if b is None else b
    activations = _activations(node, w.shape[0])
    return [_Direction(i, w[i], r[i], biases[i, :rows], biases[i, rows:], activations[i]) for i in range(w.shape[0])]


def _unrolled(
    node: OperatorNode,
    x: Tensor,
    direction: _Direction,
    step: Step,
    states: tuple[Tensor, ...],
    lengths: Tensor | None,
    bias: Tensor,
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Run one direction over (time, batch, features); return the hidden state of each time and the last states."""
    gates = functional.linear(x, direction.w, bias)
    backwards = node.get("direction", "forward") == "reverse" or direction.index == 1
    hidden: list[Tensor] = []
    for t in range(x.shape[0] - 1, -1, -1) if backwards else range(x.shape[0]):
        new = step(gates[t], states)
        if lengths is not None:
            alive = (t < lengths).reshape(-1, 1)
            states = tuple(torch.where(alive, a, b) for a, b in zip(new, states, strict=True))
            hidden.append(torch.where(alive, new[0], torch.zeros_like(new[0])))
        else:
            states = new
            hidden.append(new[0])
    stacked = torch.stack(hidden[::-1] if backwards else hidden) if hidden else x.new_zeros(0, *states[0].shape)
    return stacked, states


def _run(
    node: OperatorNode,
    x: Tensor,
    directions: list[_Direction],
    make_step: Callable[[_Direction], tuple[Step, Tensor]],
    initial: tuple[Tensor | None, ...],
    lengths: Tensor | None,
) -> list[Tensor]:
    """Run all directions; return Y and the last states in the layout of the node."""
    batch_first = bool(node.get("layout", 0))
    x = x.transpose(0, 1) if batch_first else x
    size = directions[0].r.shape[1]
    zeros = x.new_zeros(x.shape[1], size)
    outputs, last = [], []
    for direction in directions:
        states = tuple(
            zeros if s is None else (s[:, direction.index] if batch_first else s[direction.index]) for s in initial
        )
        step, bias = make_step(direction)
        hidden, states = _unrolled(node, x, direction, step, states, lengths, bias)
        outputs.append(hidden)
        last.append(states)
    y = torch.stack(outputs, 1)
    ends = [torch.stack([states[i] for states in last]) for i in range(len(initial))]
    if batch_first:
        return [y.permute(2, 0, 1, 3), *(end.transpose(0, 1) for end in ends)]
    return [y, *ends]


def _check(node: OperatorNode) -> None:
    if node.get("clip", 0.0):
        raise node.uncovered("clip")


def _lstm(
    node: OperatorNode,
    x: Tensor,
    w: Tensor,
    r: Tensor,
    b: Tensor | None = None,
    lengths: Tensor | None = None,
    h0: Tensor | None = None,
    c0: Tensor | None = None,
    peepholes: Tensor | None = None,
) -> list[Tensor]:
    _check(node)
    if node.get("input_forget", 0):
        raise node.uncovered("input_forget")

    def make_step(direction: _Direction) -> tuple[Step, Tensor]:
        f, g, h = direction.activations
        p = None if peepholes is None else peepholes[direction.index].chunk(3)

        def step(gates: Tensor, states: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            hidden, cell = states
            i, o, forget, c = (gates + hidden @ direction.r.T).chunk(4, -1)
            if p is not None:
                i, forget = i + p[0] * cell, forget + p[2] * cell
            cell = f(forget) * cell + f(i) * g(c)
            o = o if p is None else o + p[1] * cell
            return f(o) * h(cell), cell

        return step, direction.bias_w + direction.bias_r

    return _run(node, x, _directions(node, w, r, b), make_step, (h0, c0), lengths)


def _gru(
    node: OperatorNode,
    x: Tensor,
    w: Tensor,
    r: Tensor,
    b: Tensor | None = None,
    lengths: Tensor | None = None,
    h0: Tensor | None = None,
) -> list[Tensor]:
    _check(node)
    after = bool(node.get("linear_before_reset", 0))

    def make_step(direction: _Direction) -> tuple[Step, Tensor]:
        f, g = direction.activations
        size = direction.r.shape[1]
        r_zr, r_h = direction.r[: 2 * size], direction.r[2 * size :]
        b_zr, b_h = direction.bias_r[: 2 * size], direction.bias_r[2 * size :]

        def step(gates: Tensor, states: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            (hidden,) = states
            z, reset = f(gates[:, : 2 * size] + hidden @ r_zr.T + b_zr).chunk(2, -1)
            recurrent = reset * (hidden @ r_h.T + b_h) if after else (reset * hidden) @ r_h.T + b_h
            new = g(gates[:, 2 * size :] + recurrent)
            return ((1 - z) * new + z * hidden,)

        return step, direction.bias_w

    return _run(node, x, _directions(node, w, r, b), make_step, (h0,), lengths)


def _rnn(
    node: OperatorNode,
    x: Tensor,
    w: Tensor,
    r: Tensor,
    b: Tensor | None = None,
    lengths: Tensor | None = None,
    h0: Tensor | None = None,
) -> list[Tensor]:
    _check(node)

    def make_step(direction: _Direction) -> tuple[Step, Tensor]:
        (f,) = direction.activations

        def step(gates: Tensor, states: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            return (f(gates + states[0] @ direction.r.T),)

        return step, direction.bias_w + direction.bias_r

    return _run(node, x, _directions(node, w, r, b), make_step, (h0,), lengths)


RECURRENT: dict[str, Operator] = {"GRU": _gru, "LSTM": _lstm, "RNN": _rnn}
