"""The biases in a file of quantized operators: which lie there as floats or integers, and other ones in their place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import numpy_helper

from quantgui.results import Array

_OPERATORS = ("Conv", "ConvTranspose", "Gemm")
_LARGEST = (1 << 31) - 1


@dataclass(frozen=True)
class StoredBiases:
    """Names of the operators that see quantized inputs and weights, by what their bias is in the file."""

    floats: tuple[str, ...]
    integers: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class _Biased:
    """An operator between integers with a constant bias; `dequantize` makes the bias, None where it is a float."""

    node: onnx.NodeProto
    scale: Array
    dequantize: onnx.NodeProto | None


def stored_biases(model: onnx.ModelProto) -> StoredBiases:
    """Return which operators of the main graph have float biases, and which integer ones."""
    found = list(_biased(model))
    return StoredBiases(
        tuple(each.node.name for each in found if each.dequantize is None),
        tuple(each.node.name for each in found if each.dequantize is not None),
    )


def with_biases(model: onnx.ModelProto, values: Mapping[str, Array]) -> onnx.ModelProto:
    """Return `model` with other integer biases, by the name of their operator.

    They are rounded in the scale of input times weight, the only one that integer kernels take.
    """
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    for each in _biased(changed):
        if each.dequantize is None or each.node.name not in values:
            continue
        bias = np.asarray(values[each.node.name], np.float64).reshape(-1)
        scale = np.asarray(each.scale, np.float64).reshape(-1)
        repeated = np.tile(scale, bias.size // scale.size) if bias.size % scale.size == 0 else scale[:1]
        codes = np.clip(np.rint(bias / repeated), -_LARGEST, _LARGEST).astype(np.int32)
        told = {"codes": codes, "scale": (scale if scale.size == 1 else repeated).astype(np.float32).squeeze()}
        for place, (kind, array) in enumerate(told.items()):
            name = f"{each.dequantize.output[0]}/simulated/{kind}"
            changed.graph.initializer.append(numpy_helper.from_array(array, name))
            each.dequantize.input[place] = name
        del each.dequantize.input[2:], each.dequantize.attribute[:]
        each.dequantize.attribute.append(onnx.helper.make_attribute("axis", 0))
    return changed


def _biased(model: onnx.ModelProto) -> Iterator[_Biased]:
    makers = {output: node for node in model.graph.node for output in node.output}
    held = {tensor.name: tensor for tensor in model.graph.initializer}

    def scale_of(name: str) -> Array | None:
        maker = makers.get(name)
        if maker is None or maker.op_type != "DequantizeLinear" or maker.input[1] not in held:
            return None
        tensor = held[maker.input[1]]
        # What lies beside the file is a large weight, and no scale.
        return None if tensor.external_data else numpy_helper.to_array(tensor)

    for node in model.graph.node:
        if node.op_type not in _OPERATORS or len(node.input) < 3 or not node.input[2]:
            continue
        read, weight = (scale_of(name) for name in node.input[:2])
        if read is None or weight is None or read.size != 1 or weight.ndim > 1:
            continue
        bias = node.input[2]
        maker = makers.get(bias)
        if bias in held:
            yield _Biased(node, read * weight, None)
        elif maker is not None and maker.op_type == "DequantizeLinear" and maker.input[0] in held:
            yield _Biased(node, read * weight, maker)
