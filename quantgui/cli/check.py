"""``quantgui check``: whether data fits the network, and what ranges of activations rest on."""

from __future__ import annotations

import argparse
from typing import Any

from quantgui.cli.arguments import add_config_arguments, add_data_arguments, add_network_argument
from quantgui.cli.command import Answer, Command
from quantgui.cli.work import Work
from quantgui.engine.requests import ExamineData
from quantgui.results import DataExamined, DataReport, NetworkSummary

_SLOWEST = 5


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add_network_argument(parser)
    add_data_arguments(parser, required=True)
    add_config_arguments(parser, required=False)


def _run(work: Work) -> Answer:
    summary = work.open_network()
    data = work.open_data()
    choice = work.choose_config(summary, data)
    report = work.answer(ExamineData(choice.config), DataExamined).report
    json = _json(summary, work.arguments.data, report) | choice.json(data) | {"seconds": work.seconds}
    return Answer(json, _text(summary, work.arguments.data, report))


def _json(summary: NetworkSummary, data: str, report: DataReport) -> dict[str, Any]:
    """Return a report as JSON values."""
    return {
        "network": summary.name,
        "data": data,
        "samples": report.samples,
        "findings": [
            {
                "kind": each.kind,
                "severity": each.severity,
                "sentence": each.sentence,
                "advice": each.advice,
                "layers": list(each.layers),
                "tensor": each.tensor,
                "samples": list(each.samples),
                "numbers": dict(each.numbers),
            }
            for each in report.findings
        ],
        "checked": list(report.checked),
        "unknown": list(report.unknown),
        "samples_that_set_ranges": report.setters,
        "activations": [
            {
                "tensor": each.tensor,
                "layers": list(each.layers),
                "minimum": each.minimum,
                "maximum": each.maximum,
                "samples_for_99_percent": each.enough,
                "grown_by_last_quarter": each.late,
                "sample_of_maximum": each.highest,
                "sample_of_minimum": each.lowest,
            }
            for each in report.growths.values()
        ],
    }


def _text(summary: NetworkSummary, data: str, report: DataReport) -> str:
    """Return a report as sentences, and the activations whose ranges need most samples."""
    lines = [f"{summary.name} with {report.samples} samples of {data}"]
    for each in report.findings:
        lines += [f"  {each.severity:<8} {each.sentence}", *([f"           {each.advice}"] if each.advice else [])]
    if not report.findings:
        lines.append(f"  nothing found: {', '.join(report.checked)}")
    lines += [f"  unknown  {sentence}" for sentence in report.unknown]
    growths = sorted(report.growths.values(), key=lambda each: -each.enough)
    if growths:
        lines.append(
            f"  {report.setters} of {report.samples} samples set the ranges of all activations ({len(growths)}); 99 % "
            f"of each range is reached after {growths[0].enough}"
        )
        slow = [f"{(each.layers or (each.tensor,))[0]} ({each.enough})" for each in growths[:_SLOWEST]]
        lines.append(f"  ranges that need most samples: {', '.join(slow)}")
    return "\n".join(lines)


COMMAND = Command("Check whether data fits the network, and what ranges rest on.", _add_arguments, _run)
