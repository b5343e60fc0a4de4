"""``quantgui evaluate``: the quality of a quantized network."""

from __future__ import annotations

import argparse

from quantgui.cli.answers import Json, sizes
from quantgui.cli.arguments import (
    add_config_arguments,
    add_data_arguments,
    add_network_argument,
    add_target_argument,
)
from quantgui.cli.command import Answer, Command
from quantgui.cli.work import Work, violations_json
from quantgui.engine.requests import Evaluate
from quantgui.results import Evaluation, EvaluationReady, NetworkSummary
from quantgui.spec.config import QuantConfig
from quantgui.terminal import score_json, table
from quantgui.wording import duration, metric_name, score_text, size, times_smaller


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add_network_argument(parser)
    add_target_argument(parser, "also say what this runtime cannot run")
    add_data_arguments(parser, required=True)
    add_config_arguments(parser, required=False)


def _run(work: Work) -> Answer:
    summary = work.open_network()
    data = work.open_data()
    choice = work.choose_config(summary, data)
    config, source = choice.config, work.arguments.data
    violations = work.violations(summary, config)
    evaluation = work.answer(Evaluate(config, work.arguments.samples), EvaluationReady).evaluation
    for note in evaluation.notes:
        work.note(note)
    json = _json(summary, config, source, evaluation) | choice.json(data)
    json |= {"violations": violations_json(violations), "seconds": work.seconds}
    return Answer(json, _text(summary, config, source, evaluation, work.seconds))


def _json(summary: NetworkSummary, config: QuantConfig, data: str, evaluation: Evaluation) -> Json:
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


def _text(summary: NetworkSummary, config: QuantConfig, data: str, evaluation: Evaluation, seconds: float) -> str:
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


COMMAND = Command("Measure the quality of a quantized network.", _add_arguments, _run)
