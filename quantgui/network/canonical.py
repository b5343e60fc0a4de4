"""The canonical form: constants folded and kept beside the graph, BatchNorm in its convolution, Einsum as MatMul."""

from __future__ import annotations

import math

from quantgui.errors import NetworkError
from quantgui.network.batchnorm import fold_batchnorm
from quantgui.network.einsum import spell_out_einsum
from quantgui.network.folding import fold, remove_dead
from quantgui.network.graph import Program
from quantgui.network.shapes import Shapes, infer_shapes

MOST_ELEMENTS = 1 << 32
"""A network that asks for a larger tensor for one sample is refused."""


def canonicalize(program: Program) -> None:
    """Bring a program, as read from its file, into canonical form, in place.

    Raises:
        NetworkError: the network asks for tensors of a size no machine has.
    """
    remove_dead(program)
    shapes = infer_shapes(program)
    refuse_huge(shapes)
    fold(program, shapes)
    fold_batchnorm(program)
    spell_out_einsum(program)
    remove_dead(program)


def refuse_huge(shapes: Shapes) -> None:
    """Check that no value of a known shape is huge.

    Raises:
        NetworkError: one is.
    """
    for name, shape in shapes.items():
        elements = math.prod(size or 1 for size in shape)
        if elements > MOST_ELEMENTS:
            raise NetworkError(
                f"The network asks for {elements:.1e} elements for the value '{name}', more than fit into memory."
            )
