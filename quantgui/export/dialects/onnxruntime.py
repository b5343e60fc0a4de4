"""ONNX Runtime's own quantizer, as a Python program that runs: `quantize_static` with overrides for each tensor.

Its command line cannot take bit-widths (1.31: `static_quantize_runner.py` demands scale and zero point in each entry
and converts no types), so a program is what its users need. The grids are those of this configuration; it is read
back without running it.
"""

from __future__ import annotations

from pprint import pformat
from typing import Any

import numpy as np

from quantgui.errors import ExportError
from quantgui.export.dialects.material import Imported, Material, Parameter, Written, left_out, numbers
from quantgui.export.dialects.reading import ReadLayer, imported, literal
from quantgui.results import LayerInfo, NetworkSummary
from quantgui.spec.formats import FloatFormat, IntFormat, parse_format
from quantgui.spec.granularity import Granularity, PerChannel, PerTensor
from quantgui.spec.quantizer import MinMax, QuantizerSpec

_TEXT = '''"""Static quantization by ONNX Runtime, tensor by tensor: python {file} MODEL.onnx OUT.onnx --data DATA.npz

DATA.npz holds one array for each input, samples along the first axis. Ranges come from the table; the data only serves
those of tensors that are not in it, which stay float. What scales and shifts channels after a convolution, such as
BatchNormalization, is folded into it first, as the table is of weights without.
"""

import argparse

import numpy as np
import onnx
from onnx import numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

TYPES = {{
    "int4": (QuantType.QInt4, np.int8), "uint4": (QuantType.QUInt4, np.uint8),
    "int8": (QuantType.QInt8, np.int8), "uint8": (QuantType.QUInt8, np.uint8),
    "int16": (QuantType.QInt16, np.int16), "uint16": (QuantType.QUInt16, np.uint16),
}}

# Tensor -> type, scales, zero points, and the axis of the channels where there is one scale for each.
TENSORS = {tensors}

# Nodes to quantize; all others stay float.
NODES = {nodes}

# Node -> its output once all is folded into it that is to be, and the name of its weight.
FOLDED = {folded}


def overrides():
    """Return the table as ONNX Runtime wants it: a list for each tensor, with one entry for each scale."""
    found = {{}}
    for name, each in TENSORS.items():
        kind, dtype = TYPES[each["type"]]
        entries = [
            {{"quant_type": kind, "scale": np.array(s, np.float32), "zero_point": np.array(z, dtype)}}
            for s, z in zip(each["scale"], each["zero_point"])
        ]
        if each["axis"] is not None:
            entries[0]["axis"] = each["axis"]
        found[name] = entries
    return found


def fold(model):
    """Fold what follows the nodes in FOLDED into their weight and bias."""
    graph = model.graph
    values = {{each.name: numpy_helper.to_array(each) for each in graph.initializer}}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute and node.attribute[0].name == "value":
            values[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
        if node.op_type == "Identity" and node.input[0] in values:
            values[node.output[0]] = values[node.input[0]]
    for node in [each for each in graph.node if each.name in FOLDED]:
        final, name = FOLDED[node.name]
        kind, weight = values[node.input[1]].dtype, values[node.input[1]].astype(np.float64)
        options = {{each.name: onnx.helper.get_attribute_value(each) for each in node.attribute}}
        beta = options.get("beta", 1.0)
        bias = beta * values[node.input[2]].astype(np.float64).reshape(-1) if len(node.input) > 2 else 0.0
        while node.output[0] != final:
            (after,) = [each for each in graph.node if node.output[0] in each.input]
            if after.op_type == "BatchNormalization":
                scale, shift, mean, variance = (values[each].astype(np.float64) for each in after.input[1:5])
                epsilon = next((each.f for each in after.attribute if each.name == "epsilon"), 1e-5)
                factor = scale / np.sqrt(variance + epsilon)
                offset = shift - mean * factor
            elif after.op_type == "Add":
                (other,) = [each for each in after.input if each != node.output[0]]
                factor, offset = np.ones(1), values[other].astype(np.float64).reshape(-1)
            else:
                raise SystemExit(f"{{after.op_type}} cannot be folded into {{node.name}}: this is another network.")
            bias = bias * factor + offset
            if node.op_type == "Conv":
                weight = weight * factor.reshape(-1, *[1] * (weight.ndim - 1))
            elif node.op_type == "ConvTranspose":
                groups = options.get("group", 1) if factor.size > 1 else 1
                parts = weight.reshape(groups, -1, *weight.shape[1:])
                weight = (parts * factor.reshape(groups, 1, -1, *[1] * (weight.ndim - 2))).reshape(weight.shape)
            else:
                weight = weight * (factor.reshape(-1, 1) if options.get("transB", 0) else factor)
            node.output[0] = after.output[0]
            graph.node.remove(after)
        for each in [each for each in node.attribute if each.name == "beta"]:
            node.attribute.remove(each)
        told = {{name: weight, f"{{name}}_folded_bias": bias * np.ones(np.size(bias))}}
        for each in [each for each in graph.initializer if each.name in told]:
            graph.initializer.remove(each)
        for place, (name, array) in enumerate(told.items(), 1):
            graph.initializer.append(numpy_helper.from_array(array.astype(kind), name))
            node.input[place:] = [name]
    read = {{name for node in graph.node for name in node.input}}
    for each in [each for each in graph.initializer if each.name not in read]:
        graph.initializer.remove(each)


class Samples(CalibrationDataReader):
    """Feeds one sample after the other."""

    def __init__(self, path):
        arrays = dict(np.load(path))
        count = len(next(iter(arrays.values())))
        self.samples = iter([{{name: values[i : i + 1] for name, values in arrays.items()}} for i in range(count)])

    def get_next(self):
        return next(self.samples, None)


def keep_only_table(path):
    """Take out the quantizers of activations that are not in the table: ONNX Runtime adds 8-bit ones of its own."""
    model = onnx.load(path)
    nodes, final = model.graph.node, {{output.name for output in model.graph.output}}
    makers = {{node.output[0]: node for node in nodes if node.op_type == "QuantizeLinear"}}
    plain = {{}}
    for node in list(nodes):
        maker = makers.get(node.input[0]) if node.op_type == "DequantizeLinear" else None
        if maker is None or maker.input[0].removesuffix("_QuantizeLinear_Input") in TENSORS:
            continue
        if node.output[0] in final:
            plain[maker.input[0]] = node.output[0]
        else:
            plain[node.output[0]] = maker.input[0]
        nodes.remove(node)
    for node in nodes:
        node.input[:] = [plain.get(name, name) for name in node.input]
        node.output[:] = [plain.get(name, name) for name in node.output]
    read = {{name for node in nodes for name in node.input}}
    for node in list(nodes):
        if node.op_type == "QuantizeLinear" and node.output[0] not in read:
            nodes.remove(node)
    onnx.save(model, path)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("output")
    parser.add_argument("--data", required=True)
    arguments = parser.parse_args()
    model = onnx.load(arguments.model)
    present = {{node.name for node in model.graph.node}}
    if missing := [name for name in [*NODES, *FOLDED] if name not in present]:
        raise SystemExit(f"The model has no node called {{missing[0]}}.")
    fold(model)
    quantize_static(
        model if FOLDED else arguments.model,
        arguments.output,
        Samples(arguments.data),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        nodes_to_quantize=NODES,
        extra_options={{"TensorQuantOverrides": overrides()}},
    )
    keep_only_table(arguments.output)


if __name__ == "__main__":
    main()
'''
_WIDTHS = (4, 8, 16)


def write(material: Material) -> Written:
    """Return the program; layers with float activations are left out, as ONNX Runtime quantizes both or nothing."""
    tensors: dict[str, dict[str, Any]] = {}
    nodes: list[str] = []
    unknown, weights_only = [], []
    for layer in material.summary.layers:
        spec, parameter = material.spec_of(layer), material.parameter_of(layer)
        if parameter is None:
            continue
        if spec.activations is None or not layer.quantizes_activations:
            weights_only.append(layer.name)
        elif not _fits(layer, parameter):
            unknown.append(layer.name)
        else:
            tensors[layer.weight] = _entry(parameter)
            nodes += layer.users
    read = {x.input_tensor for x in material.summary.layers} | {x.output_tensor for x in material.summary.layers}
    others = [each.tensor for each in material.activations if not _storable(each.format)]
    for activation in material.activations:
        if activation.tensor in read and activation.tensor not in tensors and _storable(activation.format):
            tensors[activation.tensor] = {
                "type": str(activation.format),
                "scale": numbers(np.array([activation.scale])),
                "zero_point": [activation.zero_point],
                "axis": None,
            }
    table = pformat(tensors, width=110, sort_dicts=False, compact=True)
    weights = {layer.node: layer.weight for layer in material.summary.layers}
    folded = {node: (names.now, weights[node]) for node, names in material.folded.items() if node in weights}
    text = _TEXT.format(
        file="quantize.py", tensors=table, nodes=pformat(nodes, width=110), folded=pformat(folded, width=110)
    )
    notes = (
        *left_out(weights_only, "as ONNX Runtime's static quantizer has no layers with float activations"),
        *left_out(unknown, "as ONNX Runtime's static quantizer has no such weights"),
        *left_out(others, "as ONNX Runtime's static quantizer has no such activations, so it takes 8 bits"),
    )
    return Written(text, notes)


def _storable(fmt: object) -> bool:
    return isinstance(fmt, IntFormat) and fmt.bits in _WIDTHS


def _fits(layer: LayerInfo, parameter: Parameter) -> bool:
    plain = isinstance(parameter.spec.granularity, PerTensor | PerChannel) and layer.rows is None
    return plain and _storable(parameter.spec.format)


def _entry(parameter: Parameter) -> dict[str, Any]:
    per_channel = isinstance(parameter.spec.granularity, PerChannel)
    zero_points = np.asarray(parameter.zero_point).reshape(-1)
    return {
        "type": str(parameter.spec.format),
        "scale": numbers(parameter.scale),
        "zero_point": [int(each) for each in zero_points],
        "axis": parameter.layer.channel_axis if per_channel else None,
    }


def recognises(text: str) -> bool:
    """Return whether `text` looks like such a program."""
    return "TensorQuantOverrides" in text and "TENSORS = " in text


def read(text: str, summary: NetworkSummary) -> Imported:
    """Return the configuration in the table of such a program, which is not run.

    Raises:
        ExportError: there is no such table.
    """
    weights = {layer.weight: layer.name for layer in summary.layers if layer.rows is None}
    activations: dict[str, list[str]] = {}
    for layer in summary.layers:
        for tensor in (layer.input_tensor, layer.output_tensor):
            activations.setdefault(tensor, [])
        activations[layer.input_tensor].append(layer.name)
    found: dict[str, ReadLayer] = {}
    seen: dict[str, QuantizerSpec] = {}
    unmatched = []
    for name, entry in literal(text, "TENSORS").items():
        if name in weights:
            found.setdefault(weights[name], ReadLayer()).weights = _spec(entry)
        elif name in activations:
            seen[name] = _spec(entry)
        else:
            unmatched.append(name)
    for name, spec in seen.items():
        for layer_name in activations[name]:
            if layer_name in found:
                found[layer_name].activations = spec
    return imported(found, unmatched, summary, known=[*weights, *activations], name="ONNX Runtime")


def _spec(entry: dict[str, Any]) -> QuantizerSpec:
    fmt = parse_format(str(entry["type"]))
    if isinstance(fmt, FloatFormat):
        raise ExportError(f"ONNX Runtime's quantizer has no type '{fmt}'.")
    granularity: Granularity = PerTensor() if entry["axis"] is None else PerChannel()
    symmetric = isinstance(fmt, IntFormat) and fmt.signed and not any(entry["zero_point"])
    return QuantizerSpec(fmt, symmetric, granularity, MinMax())
