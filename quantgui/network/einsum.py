"""Einsum with a weight, written as the MatMul it is: so its weight is a layer, and runs as one where it is deployed.

``btd,nde->bnte`` with a weight of axes ``nde`` is ``btd @ d(ne)``, taken apart into ``bt(n)(e)`` and transposed. Sizes
that may vary are never needed: those of the weight are known, and Reshape keeps the others by their place.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx

from quantgui.network.graph import Node, Origin, Program
from quantgui.results import Array


def spell_out_einsum(program: Program) -> None:
    """Replace each Einsum of one weight with something that is computed by Transpose, Reshape and MatMul, in place."""
    spelling = _Spelling(program)
    for graph in program.graphs():
        graph.nodes = [new for node in graph.nodes for new in spelling.nodes(node)]


@dataclass(frozen=True)
class _Product:
    """A product of data with a weight, by the letters of their axes.

    Attributes:
        data: axes of the data.
        weight: axes of the weight.
        output: axes of what comes out.
    """

    data: str
    weight: str
    output: str

    @property
    def batch(self) -> str:
        """Axes that all three have."""
        return "".join(axis for axis in self.data if axis in self.weight and axis in self.output)

    @property
    def summed(self) -> str:
        """Axes that are summed over."""
        return "".join(axis for axis in self.weight if axis in self.data and axis not in self.output)

    @property
    def rows(self) -> str:
        """Axes of the data alone."""
        return "".join(axis for axis in self.data if axis not in self.weight)

    @property
    def columns(self) -> str:
        """Axes of the weight alone."""
        return "".join(axis for axis in self.weight if axis not in self.data)

    @property
    def is_matmul(self) -> bool:
        """Return whether a MatMul computes it."""
        kept = set(self.output)
        return bool(self.summed) and {*self.rows, *self.columns} <= kept


@dataclass(eq=False)
class _Spelling:
    program: Program
    matrices: dict[tuple[str, tuple[int, ...], tuple[int, ...]], str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._names = {node.name for _, node in self.program.walk()}

    def nodes(self, node: Node) -> list[Node]:
        """Return what takes the place of `node`: itself, unless it is an Einsum with a weight."""
        terms = _terms(node)
        if terms is None:
            return [node]
        *inputs, output = terms
        weights = [place for place, name in enumerate(node.inputs) if _is_weight(self.program.constants.get(name))]
        others = [place for place in range(len(inputs)) if place not in weights]
        if len(weights) != 1 or not others or any(node.inputs[place] in self.program.constants for place in others):
            return [node]
        weight = inputs[weights[0]]
        values = self.program.constants[node.inputs[weights[0]]]
        data = inputs[others[0]]
        if len(others) > 1:
            data = "".join(dict.fromkeys(a for place in others for a in inputs[place] if a in output or a in weight))
        product = _Product(data, weight, output)
        shared = [size for axis, size in zip(weight, values.shape, strict=False) if axis in data]
        # A size of one may be stretched to the other's.
        if not product.is_matmul or values.ndim != len(weight) or 1 in shared:
            return [node]
        return self._spelled(node, product, node.inputs[weights[0]], others, inputs)

    def _spelled(
        self, node: Node, product: _Product, weight: str, others: Sequence[int], inputs: Sequence[str]
    ) -> list[Node]:
        made: list[Node] = []
        value = node.inputs[others[0]]
        if len(others) > 1:
            equation = f"{','.join(inputs[place] for place in others)}->{product.data}"
            value = self._add(made, node, "Einsum", [node.inputs[place] for place in others], equation=equation)
        sizes = dict(zip(product.weight, self.program.constants[weight].shape, strict=True))
        before = product.batch + product.rows
        value = self._transposed(made, node, value, product.data, before + product.summed)
        alone = "1" if product.batch and not product.rows else ""
        if alone or len(product.summed) > 1:
            inner = math.prod(sizes[axis] for axis in product.summed)
            value = self._reshaped(made, node, value, [0] * len(before) + [1] * len(alone) + [inner])
        matrix = self._matrix(weight, product, sizes)
        value = self._add(made, node, "MatMul", [value, matrix])
        if alone or len(product.columns) != 1:
            value = self._reshaped(made, node, value, [0] * len(before) + [sizes[axis] for axis in product.columns])
        self._transposed(made, node, value, before + product.columns, product.output)
        made[-1].outputs = node.outputs
        return made

    def _matrix(self, name: str, product: _Product, sizes: dict[str, int]) -> str:
        """Return the name of the weight as it is multiplied: (batch ..., 1 ..., summed, columns)."""
        order = tuple(product.weight.index(axis) for axis in product.batch + product.summed + product.columns)
        shape = (
            *(sizes[axis] for axis in product.batch),
            *(1 for _ in product.rows[1:] if product.batch),
            math.prod(sizes[axis] for axis in product.summed),
            math.prod(sizes[axis] for axis in product.columns),
        )
        key = (name, order, shape)
        if key not in self.matrices:
            values = self.program.constants[name]
            stored = self.program.origins[name]
            matrix = np.ascontiguousarray(values.transpose(order)).reshape(shape)
            if matrix.shape == values.shape and order == tuple(range(values.ndim)):
                self.matrices[key] = name
            else:
                origin = Origin(stored.dtype, stored.stored_bytes)
                self.matrices[key] = self.program.add_constant(f"{name}_matrix", matrix, origin)
        return self.matrices[key]

    def _transposed(self, made: list[Node], node: Node, value: str, axes: str, wanted: str) -> str:
        if axes == wanted:
            return value
        return self._add(made, node, "Transpose", [value], perm=[axes.index(axis) for axis in wanted])

    def _reshaped(self, made: list[Node], node: Node, value: str, shape: Sequence[int]) -> str:
        name = self.program.add_constant(f"{node.name}_shape", np.array(shape, np.int64))
        return self._add(made, node, "Reshape", [value, name])

    def _add(self, made: list[Node], node: Node, op: str, inputs: list[str], **attributes: object) -> str:
        """Add a node to `made` and return its output; the MatMul has the name of the Einsum."""
        wish = node.name if op == "MatMul" else f"{node.name}/{op}"
        name, number = wish, 2
        while op != "MatMul" and name in self._names:
            name, number = f"{wish}#{number}", number + 1
        self._names.add(name)
        output = self.program.unique(f"{node.outputs[0]}_{op}")
        made_of = {key: onnx.helper.make_attribute(key, value) for key, value in attributes.items()}
        made.append(Node(name, op, "", inputs, [output], made_of, scope=node.scope))
        return output


def _terms(node: Node) -> list[str] | None:
    """Return the letters of the axes of each input of an Einsum, then of its output; None for other nodes."""
    if node.op != "Einsum" or node.domain:
        return None
    left, arrow, output = str(node.attribute("equation", "")).replace(" ", "").partition("->")
    terms = left.split(",")
    if not arrow:
        output = "".join(sorted(axis for axis in set(left) - {","} if left.count(axis) == 1))
    letters = "".join(terms) + output
    repeats = any(len(set(term)) != len(term) for term in (*terms, output))
    if not letters.isalpha() or repeats or len(terms) != len(node.inputs) or not set(output) <= set("".join(terms)):
        return None
    return [*terms, output]


def _is_weight(values: Array | None) -> bool:
    if values is None:
        return False
    is_float = values.dtype.kind == "f" or values.dtype.name == "bfloat16"
    return is_float and values.ndim >= 2 and values.size > 0
