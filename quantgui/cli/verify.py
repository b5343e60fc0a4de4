"""``quantgui verify``: an exported file against its simulation."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Final

from quantgui.cli.answers import Json, sizes
from quantgui.cli.arguments import NETWORK_HELP, add_config_arguments, add_data_arguments, add_network_argument
from quantgui.cli.command import Answer, Command
from quantgui.cli.work import Choice, Work
from quantgui.engine.requests import Verify
from quantgui.results import DataSummary, NetworkSummary, Verification
from quantgui.spec.config import QuantConfig
from quantgui.terminal import score_json, table
from quantgui.wording import decibel, metric_name, score_text, size

_WORST_LAYERS: Final = 5


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add_network_argument(parser, f"the float network: {NETWORK_HELP}")
    parser.add_argument("exported", metavar="OUT.onnx", help="the file exported from it")
    add_data_arguments(parser, required=True)
    add_config_arguments(parser, required=False)


def _run(work: Work) -> Answer:
    summary = work.open_network()
    data = work.open_data()
    choice = _config(work, summary, data)
    verification = work.answer(Verify(choice.config, work.arguments.exported, work.arguments.samples), Verification)
    values = _json(summary, choice.config, work.arguments.data, verification)
    text = _text(summary, choice.config, verification)
    return Answer(values | choice.json(data) | {"seconds": work.seconds}, text)


def _config(work: Work, summary: NetworkSummary, data: DataSummary | None) -> Choice:
    """Return the configuration from the arguments, else the one that the exported file tells."""
    if work.arguments.config or work.arguments.preset:
        return work.choose_config(summary, data)
    from quantgui.export.metadata import exported_config

    return work.known(exported_config(Path(work.arguments.exported)), summary)


def _json(summary: NetworkSummary, config: QuantConfig, data: str, verification: Verification) -> Json:
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
        "latency_quartiles": verification.latency_quartiles,
        "first_parting": verification.first_parting,
        "layers": [
            {
                "name": x.layer,
                "tensor": x.tensor,
                "sqnr_db": x.sqnr_db,
                "kernel": x.kernel,
                "is_float": x.is_float,
                "stored_bytes": x.stored_bytes,
            }
            for x in verification.layers
        ],
        "notes": verification.notes,
    }


def _text(summary: NetworkSummary, config: QuantConfig, verification: Verification) -> str:
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
    if verification.latency_quartiles is not None:
        lower, upper = verification.latency_quartiles
        rows.append(["deployed / float", "", "", f"{verification.latency_ratio:.2f} ({lower:.2f} to {upper:.2f})"])
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
        shown = ([x.layer, x.kernel, size(x.stored_bytes), decibel(x.sqnr_db)] for x in worst)
        lines.append(table([["layer", "runs as", "weight", "SQNR"], *shown]))
    return "\n".join([*lines, *(f"  {note}" for note in verification.notes)])


COMMAND = Command("Compare an exported file with its simulation.", _add_arguments, _run)
