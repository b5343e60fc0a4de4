"""What the outputs of a network mean, as far as metrics must know it: class scores, or plain values.

An argmax of an embedding says nothing, so an output counts as classes only on evidence, in this order:

1. its values are a distribution along the last axis (or along axis 1 of three and more): probabilities, or
   log-probabilities;
2. labels are given that index the last axis of the output (or axis 1 of three and more), one per sample or per
   position;
3. a Sigmoid computes it, or its name says score or probability, all values lie in 0 ... 1, and there is one value per
   sample or per position: a binary probability, which agrees where both lie on the same side of 0.5. So does each
   value of a rank-2 output that a Sigmoid computes: several labels at once;
4. its name says logits, class or score;
5. it is the network's only output, a Gemm or MatMul computes it, its name does not say embedding, box or the like, and
   its last axis is neither short (regressions: fewer than 10) nor a multiple of 64 (embeddings), or it is longer than
   any embedding (vocabularies: 4096 and more).

Integer outputs are decisions already (an ArgMax, token numbers): they agree where they are equal.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnx

from quantgui.results import Array

Kind = Literal["probabilities", "log_probabilities", "logits", "binary", "indices", "values"]

_SHAPE_ONLY = frozenset({"Identity", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Transpose", "Cast", "Slice"})
_PASSIVE = _SHAPE_ONLY | {"Clip", "Concat", "Gather", "ReduceMean", "Add"}
"""Operators behind which the computing operator of an output is looked for; Add is a bias."""
_CLASS_NAME = re.compile(r"logit|prob|score|class|softmax|(?:^|[^a-z])(?:cls|label)", re.IGNORECASE)
_VALUE_NAME = re.compile(
    r"embed|feat|hidden|vector|box|land|regr|coord|point|pose|offset|delta|mask|depth|state|mel", re.IGNORECASE
)
_SUM_TOLERANCE = 0.01
"""float16 probabilities of some thousand classes sum to 1 only this well."""
_SHORTEST_LOGITS = 10
_EMBEDDING_MULTIPLE = 64
_LONGEST_EMBEDDING = 4096


@dataclass(frozen=True, slots=True)
class OutputRole:
    """What an output is; `axis` counts from the front and is the axis of the classes."""

    kind: Kind
    axis: int = -1

    @property
    def is_class_like(self) -> bool:
        """Whether the top class of the output means something."""
        return self.kind != "values"


VALUES = OutputRole("values")


def recognise_outputs(
    skeleton: onnx.ModelProto, outputs: Mapping[str, Array], labels: Array | None
) -> dict[str, OutputRole]:
    """Return the role of each output, from the float network's `outputs` of one batch (samples first)."""
    roles = {}
    for name, values in outputs.items():
        if values.dtype.kind != "f" or values.ndim < 1 or values.size == 0:
            roles[name] = OutputRole("indices") if values.dtype.kind in "iub" and values.size else VALUES
            continue
        roles[name] = (
            _distribution(values)
            or _labelled(values, labels)
            or _binary(values, name, computed_by(skeleton, name))
            or _named_or_only(values, name, computed_by(skeleton, name), only=len(outputs) == 1)
            or VALUES
        )
    return roles


def computed_by(skeleton: onnx.ModelProto, output: str) -> frozenset[str]:
    """Return the operators that compute an output, looked for behind reshapes, biases, and into If and Loop bodies."""
    found: set[str] = set()
    seen: set[tuple[tuple[str, ...], str]] = set()
    todo = [(_Place((skeleton.graph,), ("",)), output)]
    while todo:
        place, tensor = todo.pop()
        producer = _producer(place, tensor)
        if producer is None or (producer[0].path, tensor) in seen:
            continue
        place, node = producer
        seen.add((place.path, tensor))
        bodies = [a for a in node.attribute if a.type == onnx.AttributeProto.GRAPH]
        if bodies:
            # A Loop's body returns its condition first.
            index = list(node.output).index(tensor) + (node.op_type == "Loop")
            todo += [(place.inside(node.name, a), a.g.output[index].name) for a in bodies if index < len(a.g.output)]
        elif node.op_type in _PASSIVE:
            # Both sides of an Add may compute; of the others only the first input is data.
            todo += [(place, name) for name in (node.input if node.op_type == "Add" else node.input[:1]) if name]
        else:
            found.add(node.op_type)
    return frozenset(found)


@dataclass(frozen=True)
class _Place:
    """Graphs from the main one inwards, and the names of the way there."""

    graphs: tuple[onnx.GraphProto, ...]
    path: tuple[str, ...]

    def inside(self, node: str, body: onnx.AttributeProto) -> _Place:
        return _Place((*self.graphs, body.g), (*self.path, f"{node}/{body.name}"))


def _producer(place: _Place, tensor: str) -> tuple[_Place, onnx.NodeProto] | None:
    for depth in range(len(place.graphs), 0, -1):
        for node in reversed(place.graphs[depth - 1].node):
            if tensor in node.output:
                return _Place(place.graphs[:depth], place.path[:depth]), node
    return None


def _distribution(values: Array) -> OutputRole | None:
    axes = [values.ndim - 1, 1] if values.ndim >= 3 else [values.ndim - 1]
    if values.ndim < 2 or not np.isfinite(values).all():
        return None
    for axis in axes:
        if values.shape[axis] < 2:
            continue
        if values.min() >= -1e-6:
            if np.abs(values.sum(axis, dtype=np.float64) - 1).max() <= _SUM_TOLERANCE:
                return OutputRole("probabilities", axis)
        elif values.max() <= 1e-6 and np.abs(np.exp(values.astype(np.float64)).sum(axis) - 1).max() <= _SUM_TOLERANCE:
            return OutputRole("log_probabilities", axis)
    return None


def _labelled(values: Array, labels: Array | None) -> OutputRole | None:
    roles = [OutputRole("logits", axis) for axis in (values.ndim - 1, *([1] if values.ndim >= 3 else []))]
    return next((role for role in roles if labels is not None and fits_labels(values, role, labels)), None)


def class_labels(labels: Array | None) -> Array | None:
    """Return `labels` as integers: floats that are whole numbers are classes too, and all others unknown (-1)."""
    if labels is None or labels.dtype.kind != "f":
        return labels
    whole = np.isfinite(labels) & (labels == np.rint(labels))
    return np.where(whole, labels, -1).astype(np.int64)


def fits_labels(values: Array, role: OutputRole, labels: Array) -> bool:
    """Return whether integer `labels` can be the classes of `values`, one per sample or per position."""
    if labels.dtype.kind not in "iub" or labels.size == 0 or not role.is_class_like or int(labels.max()) < 0:
        return False
    if role.kind == "binary":
        return labels.size == values.size and int(labels.max()) <= 1
    if role.kind == "indices":
        return position_shape(values.shape) == position_shape(labels.shape)
    if values.ndim < 2 or values.shape[role.axis] < 2 or int(labels.max()) >= values.shape[role.axis]:
        return False
    return position_shape(labels.shape) == position_shape(values.shape[: role.axis] + values.shape[role.axis + 1 :])


def position_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return `shape` without trailing axes of length 1: one label per sample may come as (S, 1)."""
    while len(shape) > 1 and shape[-1] == 1:
        shape = shape[:-1]
    return shape


def _binary(values: Array, name: str, operators: frozenset[str]) -> OutputRole | None:
    sigmoid = bool(operators) and operators <= {"Sigmoid", "HardSigmoid"}
    if not (sigmoid or _CLASS_NAME.search(name)) or values.min() < 0 or values.max() > 1:
        return None
    one_per_position = values.ndim == 1 or (values.ndim <= 3 and values.shape[-1] == 1)
    return OutputRole("binary") if one_per_position or (sigmoid and values.ndim == 2) else None


def _named_or_only(values: Array, name: str, operators: frozenset[str], *, only: bool) -> OutputRole | None:
    classes = values.shape[-1]
    if values.ndim < 2 or classes < 2 or _VALUE_NAME.search(name):
        return None
    if _CLASS_NAME.search(name):
        return OutputRole("logits", values.ndim - 1)
    if not only or not operators or not operators <= {"Gemm", "MatMul"}:
        return None
    in_between = classes >= _SHORTEST_LOGITS and classes % _EMBEDDING_MULTIPLE != 0
    return OutputRole("logits", values.ndim - 1) if in_between or classes >= _LONGEST_EMBEDDING else None
