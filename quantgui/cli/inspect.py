"""``quantgui inspect``: the layers of a network."""

from __future__ import annotations

from quantgui.cli.answers import Json
from quantgui.cli.arguments import add_network_argument
from quantgui.cli.command import Answer, Command
from quantgui.cli.work import Work
from quantgui.results import Conversion, LayerInfo, NetworkSummary
from quantgui.spec.size import weight_bytes
from quantgui.terminal import table
from quantgui.wording import size


def _run(work: Work) -> Answer:
    summary = work.open_network()
    return Answer(_json(summary), _text(summary))


def _json(summary: NetworkSummary) -> Json:
    """Return the network and its layers as JSON values."""
    return {
        "network": summary.name,
        "path": summary.path,
        "parameters": summary.parameters,
        "bytes": summary.float_bytes,
        "file_bytes": summary.file_bytes,
        "opset": summary.opset,
        "ir_version": summary.ir_version,
        "producer": summary.producer,
        "inputs": [{"name": x.name, "dtype": x.dtype, "shape": x.shape} for x in summary.inputs],
        "outputs": [{"name": x.name, "dtype": x.dtype, "shape": x.shape} for x in summary.outputs],
        "warnings": summary.warnings,
        "conversion": _conversion_json(summary.conversion),
        "layers": [_layer_json(layer) for layer in summary.layers],
    }


def _conversion_json(conversion: Conversion | None) -> Json | None:
    """Return how a PyTorch network became ONNX; None where the file is ONNX."""
    if conversion is None:
        return None
    return {
        "exporter": conversion.exporter,
        "difference": conversion.difference,
        "frozen_axes": conversion.frozen,
    }


def _text(summary: NetworkSummary) -> str:
    """Return the network and a table of its layers."""
    rows = [["layer", "operator", "shape", "parameters", "MACs", "bytes", "format"]]
    for layer in summary.layers:
        shape = " x ".join(str(dimension) for dimension in layer.shape)
        macs = f"{layer.macs:,}" if layer.macs else "-"
        rows.append(
            [layer.name, layer.op, shape, f"{layer.parameters:,}", macs, size(_layer_bytes(layer)), _format(layer)]
        )
    count = len(summary.layers)
    head = (
        f"{summary.name}: {summary.parameters:,} parameters, {count} layer{'s' if count != 1 else ''}, "
        f"{size(summary.float_bytes)} as float, {size(summary.file_bytes)} on disk"
    )
    lines = [
        head,
        f"  opset {summary.opset}, IR version {summary.ir_version}, made by {summary.producer or 'an unnamed tool'}",
        *(f"  input   {info}" for info in summary.inputs),
        *(f"  output  {info}" for info in summary.outputs),
    ]
    return "\n".join([*lines, "", table(rows, left=2)] if summary.layers else lines)


def _layer_json(layer: LayerInfo) -> Json:
    return {
        "name": layer.name,
        "op": layer.op,
        "weight": layer.weight,
        "shape": layer.shape,
        "parameters": layer.parameters,
        "macs": layer.macs,
        "bytes": _layer_bytes(layer),
        "format": layer.dtype,
        "users": layer.users,
        "read_only": layer.read_only,
        "finite": layer.finite,
        "signal_transform": layer.signal_transform,
    }


def _layer_bytes(layer: LayerInfo) -> int:
    if layer.read_only:
        return layer.stored_bytes
    return weight_bytes(layer.channels, layer.elements_per_channel, None, float_bits=layer.float_bits)


def _format(layer: LayerInfo) -> str:
    if layer.read_only:
        return f"{layer.dtype} (fixed)"
    if not layer.finite:
        return f"{layer.dtype} (not finite)"
    return f"{layer.dtype} (signal transform)" if layer.signal_transform else layer.dtype


COMMAND = Command("List the layers of a network.", add_network_argument, _run)
