"""``quantgui mix``: the best format for each layer within a limit."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from quantgui.cli.command import Answer, Command
from quantgui.cli.mix_arguments import add_arguments, mix_from, only_float
from quantgui.cli.sensitivity_file import Told, candidate_from, read_told, require_place, table_of
from quantgui.cli.work import Work, violations_json
from quantgui.engine.requests import Evaluate, FindMix
from quantgui.errors import DataError, SpecError
from quantgui.results import EvaluationReady, MixPoint, MixReady, NetworkSummary, Score, Sensitivity
from quantgui.spec.config import QuantConfig
from quantgui.spec.mix import Mix
from quantgui.spec.quantizer import FLOAT, LayerSpec, bits_of
from quantgui.spec.serialization import config_to_json, save_config
from quantgui.spec.size import weight_bytes
from quantgui.spec.sweep import METRICS, SHARES, USER_METRIC
from quantgui.terminal import table
from quantgui.wording import duration, metric_name, score_text, size, times_smaller

_SHOWN_POINTS = 12


# --- a sensitivity that was measured before -----------------------------------------------------------------------


def _read_sensitivity(path: Path, summary: NetworkSummary) -> Told:
    """Return what ``quantgui sensitivity`` has written about this network, from the float one.

    Raises:
        DataError: the file cannot be read, or tells of something else.
    """
    told, base = read_told(path, summary)
    if any(base.spec_for(layer.name) != FLOAT for layer in summary.layers):
        raise DataError(f"'{path.name}' was measured within a configuration; a mix needs it from the float network.")
    return told


def _table_from(told: Told, path: Path, summary: NetworkSummary, mix: Mix) -> Sensitivity:
    """Return the table that a mix needs from what was written.

    Raises:
        DataError: it was measured in another metric, or of something else, or lacks a layer.
    """
    sweep = mix.sweep
    same_metric = told["metric"] == sweep.metric or (sweep.metric == USER_METRIC and told["metric"] not in METRICS)
    if not same_metric or told["what"] != sweep.what:
        raise DataError(
            f"'{path.name}' tells {metric_name(str(told['metric']))} with {told['what']} changed, not "
            f"{metric_name(sweep.metric)} with {sweep.what} changed."
        )
    written = {(layer["name"], each["format"]): each for layer in told["layers"] for each in layer["candidates"]}
    candidates = []
    infos = {layer.name: layer for layer in summary.layers}
    for name in sweep.swept(summary.layers):
        if name in mix.pinned:
            continue
        layer = infos[name]
        for spec in sweep.specs:
            each = written.get((name, sweep.label(spec)))
            if each is None:
                raise DataError(f"'{path.name}' does not tell what {sweep.label(spec)} does to the layer '{name}'.")
            wanted = sweep.candidate(name, spec)
            count = weight_bytes(
                layer.channels, layer.elements_per_channel, wanted.weights, float_bits=layer.float_bits
            )
            candidates.append(candidate_from(name, each, wanted, sweep, count))
    return table_of(told, sweep, candidates, {})


# --- the answer ---------------------------------------------------------------------------------------------------


def _answer_of(ready: MixReady) -> MixPoint | None:
    """Return the mix that was found: the refined one, else the chosen one."""
    return ready.refined or (None if ready.chosen is None else ready.points[ready.chosen])


def _json(summary: NetworkSummary, data: str, ready: MixReady) -> dict[str, Any]:
    """Return a search as JSON values."""
    best = _answer_of(ready)
    mix = ready.mix
    return {
        "network": summary.name,
        "data": data,
        "cost": mix.cost,
        "limit": mix.limit,
        "drop": mix.drop,
        "drop_metric": ready.limited_metric or None,
        "metric": ready.metric,
        "higher_is_better": ready.higher_is_better,
        "float": {"bytes": summary.float_bytes, "value": ready.float_score.value},
        "frontier": [_point_json(summary, point) for point in ready.points],
        "chosen": None
        if ready.chosen is None
        else {"index": ready.chosen, **_point_json(summary, ready.points[ready.chosen])},
        "refined": None if ready.refined is None else _point_json(summary, ready.refined),
        "gained": ready.gained,
        "changes": [{"layer": name, "from": str(old), "to": str(new)} for name, old, new in ready.changes],
        "margin": None if ready.margin is None else {"value": ready.margin.value, "stderr": ready.margin.stderr},
        "additivity_error": ready.additivity_error,
        "config": None if best is None else config_to_json(best.config),
        "complete": ready.complete,
        "seconds": ready.seconds,
    }


def _point_json(summary: NetworkSummary, point: MixPoint) -> dict[str, Any]:
    value: dict[str, Any] = {
        "bytes": point.bytes,
        "share": point.bytes / summary.float_bytes if summary.float_bytes else None,
        "cost": point.cost,
        "predicted": point.predicted,
        "measured": None if point.measured is None else point.measured.value,
        "stderr": None if point.measured is None else point.measured.stderr,
    }
    if point.limited is not None:
        value["limited"] = {"value": point.limited.value, "stderr": point.limited.stderr}
    return value


def _text(summary: NetworkSummary, data: str, ready: MixReady) -> str:
    """Return a search for people: the mix that was found, its layers by format, and the frontier."""
    best = _answer_of(ready)
    metric = metric_name(ready.metric)
    lines = []
    if best is not None:
        quality = f", {metric} {score_text(ready.metric, best.measured)}" if best.measured else ""
        lines.append(
            f"{summary.name}: {size(best.bytes)} of {size(summary.float_bytes)}, "
            f"{times_smaller(summary.float_bytes, best.bytes)} smaller{quality}; {duration(ready.seconds)}"
        )
        lines += [f"  {sentence}" for sentence in _sentences(ready, best)]
        lines += ["", table([["format", "layers", "parameters"], *_formats(summary, best.config)])]
    unit = {"bytes": "", "bops": "bit operations", "latency": "time"}[ready.mix.cost]
    rows = [["", *([unit] if unit else []), "size", "of float", f"{metric} predicted", "measured"]]
    for index, point in _shown(ready):
        measured = "" if point.measured is None else score_text(ready.metric, point.measured)
        share = f"{point.bytes / summary.float_bytes:.3f}"
        predicted = score_text(ready.metric, Score(point.predicted, math.nan, 0))
        cost = [f"{point.cost:.4g}"] if unit else []
        rows.append(["chosen" if index == ready.chosen else "", *cost, size(point.bytes), share, predicted, measured])
    lines += ["", f"  the frontier on {data}", table(rows)]
    if math.isfinite(ready.additivity_error):
        decibels = " dB" if ready.metric == METRICS[0] else ""
        lines.append(f"  predicted and measured differ by {ready.additivity_error:.3g}{decibels} on average")
    return "\n".join(lines)


def _sentences(ready: MixReady, best: MixPoint) -> Iterable[str]:
    """Yield what is to be said of the mix that was found."""
    if ready.margin is not None and best.limited is not None:
        factor, unit = (100, " points") if ready.limited_metric in SHARES else (1, "")
        name = metric_name(ready.limited_metric)
        margin = f"{factor * ready.margin.value:.2g} ± {factor * ready.margin.stderr:.2g}{unit}"
        sure = "surely " if ready.margin.value > 2 * ready.margin.stderr else ""
        yield f"{name} {score_text(ready.limited_metric, best.limited)}: {sure}within the limit by {margin}"
    if ready.changes:
        layers = f"{len(ready.changes)} layer{'s' if len(ready.changes) > 1 else ''} changed"
        gain = f"{ready.gained:+.3g}{' dB' if ready.metric == METRICS[0] else ''}"
        yield f"refined: {layers}, {metric_name(ready.metric)} {gain} against the best one predicted"
    elif ready.refined is not None:
        yield "refined: no change of one or two layers was better beyond its standard error"


def _formats(summary: NetworkSummary, config: QuantConfig) -> list[list[str]]:
    found: dict[LayerSpec, tuple[int, int]] = {}
    for layer in summary.layers:
        spec = config.spec_for(layer.name)
        count, parameters = found.get(spec, (0, 0))
        found[spec] = (count + 1, parameters + layer.parameters)
    order = sorted(found, key=lambda spec: (bits_of(spec.weights), bits_of(spec.activations)))
    return [[str(spec), str(found[spec][0]), f"{found[spec][1]:,}"] for spec in order]


def _shown(ready: MixReady) -> list[tuple[int, MixPoint]]:
    """Return the measured points, or some of all where none is."""
    measured = [(index, point) for index, point in enumerate(ready.points) if point.measured is not None]
    if measured:
        return measured
    step = max(1, len(ready.points) // _SHOWN_POINTS)
    return [(index, point) for index, point in enumerate(ready.points) if index % step == 0 or index == ready.chosen]


def _listed(names: list[str]) -> str:
    shown = ", ".join(f"'{name}'" for name in names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"


# --- the command --------------------------------------------------------------------------------------------------


def _run(work: Work) -> Answer:
    arguments, metric = work.arguments, work.arguments.metric
    require_place(arguments.output)
    summary = work.open_network()
    path = Path(arguments.sensitivity) if arguments.sensitivity else None
    told = None if path is None else _read_sensitivity(path, summary)
    if metric in METRICS:
        arguments.metric = None  # it needs no file
    data = work.open_data()
    arguments.metric = metric
    headline = METRICS[0]
    if arguments.drop is not None and metric is None:
        headline = work.answer(Evaluate(QuantConfig(), 1), EvaluationReady).evaluation.metric
    mix = mix_from(arguments, summary, told, headline)
    _, left = only_float(summary, mix.sweep, mix.pinned, mix.excluded)
    if left:
        work.note(f"Nothing but float is left for {_listed(left)}: --exclude or --target refuses all formats tried.")
    table = None if told is None or path is None else _table_from(told, path, summary, mix)
    answer: MixReady | None = None
    try:
        for event in work.bench.handle(FindMix(mix, table)):
            work.show(event)
            answer = event if isinstance(event, MixReady) else answer
    except KeyboardInterrupt:
        kept = "What was measured is kept: the same command goes on from there"
        best = None if answer is None else _answer_of(answer)
        if best is not None and best.measured is not None and arguments.output:
            save_config(best.config, Path(arguments.output))
            kept += f", and '{arguments.output}' holds the best mix so far"
        work.note(f"Stopped. {kept}.")
        raise
    best = None if answer is None else _answer_of(answer)
    if answer is None or best is None:
        raise SpecError("No mix of these formats loses as little as the limit asks for; allow more loss, or more bits.")
    if arguments.output:
        save_config(best.config, Path(arguments.output))
    violations = work.violations(summary, best.config)
    values = _json(summary, arguments.data, answer)
    values |= {"trustworthy": None if data is None else data.trustworthy}
    values |= {"violations": violations_json(violations), "seconds": work.seconds}
    return Answer(values, _text(summary, arguments.data, answer))


COMMAND = Command("Find the best format for each layer within a limit of size or loss.", add_arguments, _run)
