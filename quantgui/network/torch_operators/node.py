"""What an operator is given beside its tensors, and how it says that it does not cover them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor

from quantgui.errors import NetworkError
from quantgui.results import Array


@dataclass(frozen=True, eq=False)
class OperatorNode:
    """A node as its operator sees it.

    Attributes:
        name, op: of the node, for error messages.
        opset: version of the standard operators.
        attributes: by name; strings as text, tensors as numpy arrays, no graphs.
        outputs: names of the outputs, empty where one is left out.
    """

    name: str
    op: str
    opset: int
    attributes: Mapping[str, Any]
    outputs: tuple[str, ...]

    def get(self, name: str, default: Any) -> Any:
        """Return an attribute, or `default` where it is absent."""
        return self.attributes.get(name, default)

    def wants(self, output: int) -> bool:
        """Return whether the output of that index is used."""
        return output < len(self.outputs) and bool(self.outputs[output])

    def integers(self, name: str, given: Sequence[Tensor | None], index: int) -> list[int] | None:
        """Return integers that older operators have as an attribute and newer ones as an input; None if absent."""
        if index < len(given) and (tensor := given[index]) is not None:
            return [int(value) for value in tensor.reshape(-1).tolist()]
        return list(self.attributes[name]) if name in self.attributes else None

    def uncovered(self, what: str) -> NetworkError:
        """Return the error of an operator that is covered, but not in this form."""
        return NetworkError(
            f"The operator {self.op} (node '{self.name}') cannot be differentiated: {what} is not covered."
        )


Operator = Callable[..., Tensor | Sequence[Tensor]]
"""Takes an OperatorNode and the input tensors, None for those left out; returns the output or all outputs."""

_DTYPES: dict[int, torch.dtype] = {
    onnx.TensorProto.FLOAT: torch.float32,
    onnx.TensorProto.DOUBLE: torch.float64,
    onnx.TensorProto.FLOAT16: torch.float16,
    onnx.TensorProto.BFLOAT16: torch.bfloat16,
    onnx.TensorProto.INT8: torch.int8,
    onnx.TensorProto.INT16: torch.int16,
    onnx.TensorProto.INT32: torch.int32,
    onnx.TensorProto.INT64: torch.int64,
    onnx.TensorProto.UINT8: torch.uint8,
    onnx.TensorProto.BOOL: torch.bool,
}


def torch_dtype(node: OperatorNode, kind: int) -> torch.dtype:
    """Return torch's type for a data type of ONNX."""
    if kind not in _DTYPES:
        name = onnx.TensorProto.DataType.Name(kind).lower() if kind in onnx.TensorProto.DataType.values() else kind
        raise node.uncovered(f"the type {name}")
    return _DTYPES[kind]


def as_tensor(values: Array | Tensor) -> Tensor:
    """Return an array as a tensor, without a copy where torch knows its type; it is not to be written to.

    Types of less than 8 bits become int8 or uint8, small float types float32.

    Raises:
        NetworkError: the array holds text.
    """
    if isinstance(values, Tensor):
        return values
    if values.dtype.kind in "OSUM":
        raise NetworkError("The network cannot be differentiated: it computes with text.")
    name = values.dtype.name
    if name == "bfloat16":
        return _of_numpy(values.view(np.int16)).view(torch.bfloat16)
    if values.dtype.isbuiltin != 1:  # types that others have registered count as 2
        values = values.astype(np.uint8 if name.startswith("uint") else np.int8 if "int" in name else np.float32)
    return _of_numpy(values)


def _of_numpy(values: Array) -> Tensor:
    # torch warns of memory that is not writable, as that of files and of ONNX Runtime is; nothing here writes to it.
    if values.flags.writeable:
        return torch.from_numpy(values)
    pointer, _ = values.__array_interface__["data"]
    if values.size == 0 or not pointer:
        return torch.from_numpy(values.copy())
    view = np.array(_Writable(values), copy=False)
    return torch.from_numpy(view)


class _Writable:
    """An array that says of itself that it can be written to; keeps the memory alive."""

    def __init__(self, values: Array) -> None:
        interface = dict(values.__array_interface__)
        self.__array_interface__ = {**interface, "data": (interface["data"][0], False)}
        self.values = values
