"""``quantgui compare``: another tool's quantized network beside one's own configuration."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from quantgui.cli.answers import Json, sizes
from quantgui.cli.arguments import NETWORK_HELP, add_config_arguments, add_data_arguments, add_network_argument
from quantgui.cli.command import Answer, Command
from quantgui.cli.work import Choice, Work
from quantgui.engine.requests import CompareNetwork, ReadSettings
from quantgui.results import DataSummary, NetworkComparison, NetworkSummary, SettingsRead
from quantgui.terminal import score_json, table
from quantgui.wording import decibel, duration, metric_name, score_text, size


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add_network_argument(parser, f"the float network: {NETWORK_HELP}")
    parser.add_argument("other", metavar="OTHER.onnx", help="the same network, quantized by another tool")
    add_data_arguments(parser, required=True)
    add_config_arguments(parser, required=False)


def _run(work: Work) -> Answer:
    summary = work.open_network()
    data = work.open_data()
    choice = _own(work, summary, data)
    request = CompareNetwork(choice.config, work.arguments.other, work.arguments.samples)
    answer = work.answer(request, NetworkComparison)
    for sentence in (*answer.unknown, *answer.notes):
        work.note(sentence)
    json = _json(summary, work.arguments.data, answer) | choice.json(data) | {"seconds": work.seconds}
    return Answer(json, _text(summary, answer, work.seconds))


def _own(work: Work, summary: NetworkSummary, data: DataSummary | None) -> Choice:
    """Return the configuration of the arguments, else what the other file stands for, as it is simulated here."""
    if work.arguments.config or work.arguments.preset:
        return work.choose_config(summary, data)
    read = work.answer(ReadSettings(work.arguments.other), SettingsRead)
    return Choice(replace(read.config, name="The same formats simulated here"))


def _json(summary: NetworkSummary, data: str, answer: NetworkComparison) -> Json:
    return {
        "network": summary.name,
        "other": answer.path,
        "data": data,
        "samples": answer.own_evaluation.total_samples,
        "metric": answer.own_evaluation.metric,
        "higher_is_better": answer.own_evaluation.higher_is_better,
        "float": score_json(answer.own_evaluation.float_score),
        "own": {
            **score_json(answer.own_evaluation.quantized_score),
            "output_sqnr_db": answer.own_evaluation.output_sqnr_db,
            "bytes": sizes(summary, answer.config)["bytes"],
        },
        "others": {
            **score_json(answer.other_evaluation.quantized_score),
            "output_sqnr_db": answer.other_evaluation.output_sqnr_db,
            "file_bytes": answer.file_bytes,
        },
        "layers": [
            {
                "name": each.layer,
                "own": each.own,
                "others": each.other,
                "own_sqnr_db": each.own_sqnr_db,
                "others_sqnr_db": each.other_sqnr_db,
            }
            for each in answer.layers
        ],
    }


def _text(summary: NetworkSummary, answer: NetworkComparison, seconds: float) -> str:
    own, other = answer.own_evaluation, answer.other_evaluation
    metric = own.metric
    name = Path(answer.path).name
    scores = [score_text(metric, each) for each in (own.float_score, own.quantized_score, other.quantized_score)]
    rows = [
        ["", "float", "own", name],
        [metric_name(metric), *scores],
        ["output SQNR", "", decibel(own.output_sqnr_db), decibel(other.output_sqnr_db)],
        ["size", size(summary.float_bytes), size(sizes(summary, answer.config)["bytes"]), size(answer.file_bytes)],
    ]
    layers = [["layer", "own", name, "SQNR own", f"SQNR {name}"]]
    layers += [[x.layer, x.own, x.other, _db(x.own_sqnr_db), _db(x.other_sqnr_db)] for x in answer.layers]
    head = f"{answer.config.name or 'the configuration'} and {name}, both against {summary.name}; {duration(seconds)}"
    return "\n".join([head, table(rows), "", "  output of each layer against the float one:", table(layers)])


def _db(value: float) -> str:
    return decibel(value) if value == value else "-"


COMMAND = Command("Compare a network that another tool has quantized with one's own.", _add_arguments, _run)
