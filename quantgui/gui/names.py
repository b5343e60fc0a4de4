"""Names of layers where there is little room."""

from __future__ import annotations

from collections.abc import Sequence


def brief_names(names: Sequence[str]) -> tuple[str, ...]:
    """Return names without what exporters add to all of them: a first slash, and the operator as last part.

    They stay different from each other.

    >>> brief_names(["/stem/conv1/Conv", "/stem/conv2/Conv", "/head/Gemm"])
    ('stem/conv1', 'stem/conv2', 'head')
    >>> brief_names(["/stem/Conv", "/stem/Gemm"]), brief_names(["conv1", "/Conv"])
    (('stem/Conv', 'stem/Gemm'), ('conv1', 'Conv'))
    """
    plain = [name.removeprefix("/") or name for name in names]
    without = [_without_operator(name) for name in plain]
    for brief in (without, plain):
        if len(set(brief)) == len(set(names)):
            return tuple(brief)
    return tuple(names)


def _without_operator(name: str) -> str:
    front, _, last = name.rpartition("/")
    return front if front and last[:1].isupper() else name
