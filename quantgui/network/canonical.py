"""The canonical form of a network: constants folded and beside the graph, BatchNorm in its convolution, unique names."""

from __future__ import annotations

from quantgui.network.batchnorm import fold_batchnorm
from quantgui.network.folding import fold, remove_dead
from quantgui.network.graph import Program
from quantgui.network.shapes import infer_shapes


def canonicalize(program: Program) -> None:
    """Bring a program, as read from its file, into canonical form, in place."""
    remove_dead(program)
    fold(program, infer_shapes(program))
    fold_batchnorm(program)
    remove_dead(program)
