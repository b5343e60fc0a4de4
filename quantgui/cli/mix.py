"""``quantgui mix``: the best format for each layer within a limit."""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from quantgui.cli.arguments import add_data_arguments, add_network_argument, add_target_argument
from quantgui.cli.command import Answer, Command
from quantgui.cli.sensitivity import METRIC_HELP, bit_widths
from quantgui.cli.sensitivity_file import Told, candidate_from, read_told, require_place, table_of
from quantgui.cli.work import Work, violations_json
from quantgui.engine.requests import Evaluate, FindMix
from quantgui.errors import DataError, NetworkError, SpecError
from quantgui.results import EvaluationReady, MixPoint, MixReady, NetworkSummary, Score, Sensitivity
from quantgui.spec.config import QuantConfig
from quantgui.spec.mix import CostKind, Mix
from quantgui.spec.presets import PRESETS, find_preset
from quantgui.spec.quantizer import FLOAT, LayerSpec, bits_of
from quantgui.spec.serialization import config_to_json, save_config
from quantgui.spec.size import weight_bytes
from quantgui.spec.sweep import METRICS, SHARES, SWEPT_BITS, USER_METRIC, WHAT, Sweep, bits_specs
from quantgui.spec.targets import find_target
from quantgui.terminal import table
from quantgui.wording import duration, metric_name, score_text, size, times_smaller

_FLOAT_BIT_PAIRS = 32 * 32
_SHOWN_POINTS = 12


# --- arguments ----------------------------------------------------------------------------------------------------


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add_network_argument(parser)
    limits = parser.add_argument_group("limit", "what the mix must keep; the other one is made as good as can be")
    limit = limits.add_mutually_exclusive_group(required=True)
    limit.add_argument("--size", dest="share", metavar="S", type=_share, help="size as a part of the float network's")
    limit.add_argument("--bytes", metavar="N", type=_amount, help="size in bytes, scales and zero points included")
    limit.add_argument(
        "--bops", metavar="N", type=_amount, help="bit operations (MACs x bits x bits); up to 1 a part of the float's"
    )
    limit.add_argument("--latency", metavar="S", type=_share, help="time in ONNX Runtime as a part of the float's")
    limit.add_argument(
        "--drop",
        metavar="X",
        type=_number,
        help="most that the quality may drop: points of 100 for accuracy and agreement, else in the metric's unit; for "
        "output SQNR, the least dB. The metric is --metric, or else accuracy with labels, or agreement of classes",
    )
    group = parser.add_argument_group("formats")
    group.add_argument(
        "--bits", metavar="N,N", type=bit_widths, default=None, help="bit-widths to choose from, such as 2,4,8 or 2-8"
    )
    group.add_argument("--what", choices=WHAT, default=None, help="what of a layer is quantized")
    group.add_argument("--pin", metavar="NAME=FORMAT", type=_pair, action="append", default=[], help=_PIN_HELP)
    group.add_argument(
        "--exclude", metavar="NAME=FORMAT", type=_pair, action="append", default=[], help="a format a layer may not get"
    )
    ties = group.add_mutually_exclusive_group()
    ties.add_argument("--tie", action="store_true", help="same format for the layers that feed one Add or Concat")
    ties.add_argument(
        "--group", metavar="NAME", nargs="+", action="append", default=[], help="same format for these layers"
    )
    search = parser.add_argument_group("search")
    search.add_argument("--sensitivity", metavar="FILE", help="what 'quantgui sensitivity -o FILE' has measured")
    search.add_argument("--exact", action="store_true", help="measure the sensitivity of all layers on all samples")
    search.add_argument("--no-refine", action="store_true", help="do not measure around the chosen mix")
    search.add_argument("-o", "--output", metavar="C.json", help="write the configuration, also when interrupted")
    add_target_argument(parser, "choose only what this runtime can run")
    add_data_arguments(parser, required=True, metric="METRIC", metric_help=METRIC_HELP, size="--image-size")


_PIN_HELP = "hold a layer at a format: float32, bits such as 4 or int4, or a preset such as W4A8"


def _mix_from(
    arguments: argparse.Namespace, summary: NetworkSummary, known: Mapping[str, Any] | None, headline: str
) -> Mix:
    """Return what the arguments ask for.

    Args:
        arguments: of the command; `metric` as the user wrote it.
        summary: the network.
        known: the sensitivity that was measured before, as it was written; None if it has to be measured.
        headline: the metric that an evaluation of this network and data shows first.

    Raises:
        NetworkError: nothing can be quantized.
        SpecError: a format, a layer or a limit is impossible.
    """
    told = known or {}
    what = arguments.what or told.get("what", "weights")
    written = arguments.metric
    metric = METRICS[0] if written is None else written if written in METRICS else USER_METRIC
    if written is None and known is not None and told.get("metric") in METRICS:
        metric = str(told["metric"])
    sweep = Sweep(bits_specs(arguments.bits or SWEPT_BITS), what, QuantConfig(), metric)
    specs = sweep.specs
    if known is not None and arguments.bits is None:
        formats = {each["format"] for layer in known["layers"] for each in layer["candidates"]}
        specs = tuple(spec for spec in specs if sweep.label(spec) in formats) or specs
    sweep = replace(sweep, specs=specs, samples=arguments.samples, exact=arguments.exact)
    if not any(sweep.swept(summary.layers)):
        raise NetworkError("The network has no layer whose bits could be changed.")
    cost, limit = _limit(arguments, summary)
    drop_metric = metric if written is not None else headline
    drop = arguments.drop
    if drop is not None and drop_metric in SHARES:
        drop /= 100
    excluded: dict[str, frozenset[LayerSpec]] = {}
    for name, text in arguments.exclude:
        excluded[name] = excluded.get(name, frozenset()) | {_spec(text, sweep)}
    if arguments.target:
        target = find_target(arguments.target)
        offered = {sweep.candidate(name, spec) for name in sweep.swept(summary.layers) for spec in sweep.specs}
        for name, refused in target.excluded(summary.layers, offered).items():
            excluded[name] = excluded.get(name, frozenset()) | refused
    return Mix(
        sweep,
        cost=cost,
        limit=limit,
        drop=drop,
        pinned=MappingProxyType(_pinned(arguments.pin, sweep)),
        groups=None if arguments.tie else tuple(tuple(group) for group in arguments.group),
        excluded=MappingProxyType(excluded),
        refined=not arguments.no_refine,
        drop_metric=drop_metric,
    )


def _pinned(pairs: Iterable[tuple[str, str]], sweep: Sweep) -> dict[str, LayerSpec]:
    """Return the format of each layer that is held; SpecError if one is to be held at two."""
    pinned: dict[str, LayerSpec] = {}
    for name, text in pairs:
        spec = _spec(text, sweep)
        if pinned.setdefault(name, spec) != spec:
            raise SpecError(f"--pin holds the layer '{name}' at two formats; write one of them.")
    return pinned


def _limit(arguments: argparse.Namespace, summary: NetworkSummary) -> tuple[CostKind, float | None]:
    if arguments.share is not None:
        return "bytes", arguments.share * summary.float_bytes
    if arguments.bops is not None:
        whole = _FLOAT_BIT_PAIRS * sum(layer.macs for layer in summary.layers)
        return "bops", arguments.bops * whole if arguments.bops <= 1 else arguments.bops
    if arguments.latency is not None:
        return "latency", arguments.latency
    return "bytes", arguments.bytes


def _spec(text: str, sweep: Sweep) -> LayerSpec:
    """Return what a layer gets by a word such as ``float32``, ``int4``, ``4`` or the name of a preset."""
    digits = text.lower().removeprefix("int")
    if digits.isdecimal():
        (spec,) = bits_specs([int(digits)])
        return LayerSpec(
            None if sweep.what == "activations" else spec.weights, None if sweep.what == "weights" else spec.activations
        )
    if any(preset.name.lower() == text.lower() for preset in PRESETS):
        return find_preset(text).spec
    raise SpecError(f"'{text}' is no format; write float32, bits such as 4 or int4, or the name of a preset.")


def _share(text: str) -> float:
    if "x" in text.lower():
        raise argparse.ArgumentTypeError(f"must be a part such as 0.25, got '{text}'; for pictures write --image-size")
    value = _number(text)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(
            f"must be a part of the float network, more than 0 and at most 1, got '{text}'"
        )
    return value


def _amount(text: str) -> float:
    value = _number(text)
    if value <= 0:
        raise argparse.ArgumentTypeError(f"must be more than 0, got '{text}'")
    return value


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"must be a number, got '{text}'")
    return value


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.rpartition("=")
    if not equals or not name or not value:
        raise argparse.ArgumentTypeError(f"must be a layer's name and a format such as conv1=int8, got '{text}'")
    return name, value


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
    mix = _mix_from(arguments, summary, told, headline)
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


COMMAND = Command("Find the best format for each layer within a limit of size or loss.", _add_arguments, _run)
