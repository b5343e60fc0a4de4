"""What the commands answer: JSON for programs (`..._json`) and text for people (`..._text`)."""

from __future__ import annotations

import math
from typing import Any

from quantgui.results import Advice, Evaluation, Exported, LayerInfo, NetworkSummary, Verification
from quantgui.spec.config import QuantConfig
from quantgui.spec.size import network_bytes, weight_bytes
from quantgui.terminal import decibel, duration, metric_name, score_json, score_text, size, table, times_smaller

_WORST_LAYERS = 5

Json = dict[str, Any]


# --- inspect ------------------------------------------------------------------------------------------------------


def inspect_json(summary: NetworkSummary) -> Json:
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
        "layers": [_layer_json(layer) for layer in summary.layers],
    }


def inspect_text(summary: NetworkSummary) -> str:
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


# --- evaluate -----------------------------------------------------------------------------------------------------


def evaluation_json(summary: NetworkSummary, config: QuantConfig, data: str, evaluation: Evaluation) -> Json:
    """Return the quality of both networks as JSON values."""
    return {
        "network": summary.name,
        "data": data,
        "samples": evaluation.total_samples,
        "metric": evaluation.metric,
        "higher_is_better": evaluation.higher_is_better,
        "float": score_json(evaluation.float_score),
        "quantized": score_json(evaluation.quantized_score),
        "output_sqnr_db": evaluation.output_sqnr_db,
        "scores": {name: score_json(score) for name, score in evaluation.scores.items()},
        "notes": evaluation.notes,
        **sizes(summary, config),
    }


def evaluation_text(
    summary: NetworkSummary, config: QuantConfig, data: str, evaluation: Evaluation, seconds: float
) -> str:
    """Return the quality of both networks as a table."""
    before, after = summary.float_bytes, sizes(summary, config)["bytes"]
    metric = evaluation.metric
    headline = [score_text(metric, each) for each in (evaluation.float_score, evaluation.quantized_score)]
    others = [
        [metric_name(name), "", score_text(name, score)]
        for name, score in evaluation.scores.items()
        if name not in (metric, "user")
    ]
    rows = [
        ["", "float", "quantized"],
        [metric_name(metric), *headline],
        *others,
        ["size", size(before), size(after)],
    ]
    head = f"{summary.name} with {config.name or 'the configuration'} on {evaluation.total_samples} samples of {data}"
    return "\n".join([head, table(rows), f"  {times_smaller(before, after)} smaller; {duration(seconds)}"])


def sizes(summary: NetworkSummary, config: QuantConfig) -> dict[str, int]:
    """Return the bytes of the network as counted, as stored in ONNX, and without quantization."""
    return {
        "bytes": network_bytes(summary.float_bytes, summary.layers, config),
        "stored_bytes": network_bytes(summary.float_bytes, summary.layers, config, stored=True),
        "float_bytes": summary.float_bytes,
    }


def advice_json(advice: Advice) -> Json:
    """Return what was found out about the wish, and what was done instead."""

    def quality(evaluation: Evaluation | None) -> Json | None:
        return None if evaluation is None else score_json(evaluation.quantized_score)

    return {
        "sentence": advice.sentence,
        "layers": advice.layers,
        "metric": advice.after.metric if advice.after else None,
        "before": quality(advice.before),
        "after": quality(advice.after),
        "asked": advice.config.name,
    }


# --- export and verify --------------------------------------------------------------------------------------------


def export_json(summary: NetworkSummary, exported: Exported) -> Json:
    """Return the file that was written as JSON values."""
    return {
        "network": summary.name,
        "path": exported.path,
        "file_bytes": exported.file_bytes,
        "float_file_bytes": summary.file_bytes,
        **sizes(summary, exported.config),
        "opset": exported.opset,
        "notes": exported.notes,
    }


def export_text(summary: NetworkSummary, exported: Exported) -> str:
    """Return the file that was written, and what differs from the wish."""
    head = (
        f"{exported.path}: {size(exported.file_bytes)} with {exported.config.name or 'the configuration'}, "
        f"{times_smaller(summary.file_bytes, exported.file_bytes)} smaller than {summary.name} "
        f"({size(summary.file_bytes)}), opset {exported.opset}"
    )
    return "\n".join([head, *(f"  {note}" for note in exported.notes)])


def verification_json(summary: NetworkSummary, config: QuantConfig, data: str, verification: Verification) -> Json:
    """Return the exported file against its simulation as JSON values."""
    simulated, deployed = verification.simulated, verification.deployed
    return {
        "network": summary.name,
        "path": verification.path,
        "data": data,
        "samples": simulated.total_samples,
        "metric": simulated.metric,
        "higher_is_better": simulated.higher_is_better,
        "float": score_json(simulated.float_score),
        "simulated": score_json(simulated.quantized_score),
        "deployed": score_json(deployed.quantized_score),
        "output_sqnr_db": verification.output_sqnr_db,
        "file_bytes": verification.file_bytes,
        "float_file_bytes": verification.float_file_bytes,
        **sizes(summary, config),
        "latency_ratio": verification.latency_ratio,
        "float_latency_ms": verification.float_latency_ms,
        "deployed_latency_ms": verification.deployed_latency_ms,
        "layers": [{"name": x.layer, "tensor": x.tensor, "sqnr_db": x.sqnr_db} for x in verification.layers],
        "notes": verification.notes,
    }


def verification_text(summary: NetworkSummary, config: QuantConfig, verification: Verification) -> str:
    """Return the exported file against its simulation as a table, with the layers that differ most."""
    simulated, deployed = verification.simulated, verification.deployed
    metric = simulated.metric
    scores = (simulated.float_score, simulated.quantized_score, deployed.quantized_score)
    rows = [
        ["", "float", "simulated", "deployed"],
        [metric_name(metric), *(score_text(metric, score) for score in scores)],
        ["file", size(verification.float_file_bytes), "", size(verification.file_bytes)],
        [
            "time of a sample",
            f"{verification.float_latency_ms:.2f} ms",
            "",
            f"{verification.deployed_latency_ms:.2f} ms",
        ],
    ]
    head = (
        f"{verification.path} against {summary.name} with {config.name or 'its configuration'} on "
        f"{simulated.total_samples} samples"
    )
    lines = [
        head,
        table(rows),
        f"  output of the file against the simulation: {decibel(verification.output_sqnr_db)}",
    ]
    different = sorted((x for x in verification.layers if math.isfinite(x.sqnr_db)), key=lambda x: x.sqnr_db)
    if different:
        worst = different[:_WORST_LAYERS]
        lines += ["", "  layers that differ most from the simulation:"]
        lines.append(table([["layer", "SQNR"], *([x.layer, decibel(x.sqnr_db)] for x in worst)]))
    return "\n".join([*lines, *(f"  {note}" for note in verification.notes)])
