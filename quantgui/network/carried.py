"""Recurrent state: inputs of a network that take the value one of its outputs had a step before."""

from __future__ import annotations

import re

from quantgui.results import NetworkSummary, TensorInfo

_ROLES = {
    "in", "input", "inputs", "out", "output", "outputs", "new", "next", "n", "prev", "previous", "init", "initial",
    "last", "final", "cur", "current", "old", "updated",
}  # fmt: skip
_STATES = {
    "state", "states", "h", "c", "hidden", "cell", "cache", "caches", "memory", "mem", "rnn", "gru", "lstm", "buffer",
    "context", "ctx", "hx", "cx",
}  # fmt: skip


def carried_states(summary: NetworkSummary) -> dict[str, str]:
    """Return the recurrent state of a network: input name -> name of the output it is fed from.

    A pair is a float input and a float output whose shapes do not contradict each other and whose names are the same
    state (``state``/``stateN``, ``h``/``hn``, ``h0``/``hn``, ``in_cache``/``out_cache``). The only input of a
    network is never a state.
    """
    floats = [info for info in summary.inputs if info.dtype.startswith("float")]
    pairs: dict[str, str] = {}
    for info in floats:
        stem = _state_stem(info.name)
        if stem is None or len(summary.inputs) - len(pairs) < 2:
            continue
        for output in summary.outputs:
            if output.name in pairs.values() or output.dtype != info.dtype or not _may_agree(info, output):
                continue
            if output.name != info.name and _state_stem(output.name) == stem:
                pairs[info.name] = output.name
                break
    return pairs


def _state_stem(name: str) -> tuple[str, ...] | None:
    """Return the words that name the state, without those that name its role; None if it is no state's name."""
    spaced = re.sub(r"([a-z])([A-Z])", r"\1 \2", name)
    words = [word.lower() for word in re.split(r"[^A-Za-z0-9]+", spaced) if word]
    plain: list[str] = []
    for word in words:
        # h0, hn, c1 ... : a state's letter and its step
        match = re.fullmatch(r"(h|c|hx|cx|state|hidden|cell|cache)_?(0|t|n|o|in|out|new|next)", word)
        plain.append(match.group(1) if match else word)
    stem = tuple(word for word in plain if word not in _ROLES)
    return stem if any(re.sub(r"\d+$", "", word) in _STATES for word in stem) else None


def _may_agree(first: TensorInfo, second: TensorInfo) -> bool:
    if first.shape is None or second.shape is None:
        return True
    return len(first.shape) == len(second.shape) and all(
        a == b or not (isinstance(a, int) and isinstance(b, int))
        for a, b in zip(first.shape, second.shape, strict=True)
    )
