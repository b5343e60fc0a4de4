"""What ``quantgui mix`` asks for: its arguments, and the `Mix` that they stand for."""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from quantgui.cli.arguments import add_data_arguments, add_network_argument, add_target_argument
from quantgui.cli.sensitivity import METRIC_HELP, bit_widths
from quantgui.errors import NetworkError, SpecError
from quantgui.results import NetworkSummary
from quantgui.spec.config import QuantConfig
from quantgui.spec.mix import CostKind, Mix
from quantgui.spec.presets import PRESETS, find_preset
from quantgui.spec.quantizer import FLOAT, LayerSpec
from quantgui.spec.sweep import METRICS, SHARES, SWEPT_BITS, USER_METRIC, WHAT, Sweep, bits_specs
from quantgui.spec.targets import Target, find_target

_FLOAT_BIT_PAIRS = 32 * 32


def add_arguments(parser: argparse.ArgumentParser) -> None:
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


def mix_from(
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
    pinned = _pinned(arguments.pin, sweep)
    _require_choice(summary, sweep, pinned, excluded, "--exclude leaves no layer a format but float.")
    if arguments.target:
        target = find_target(arguments.target)
        offered = {sweep.candidate(name, spec) for name in sweep.swept(summary.layers) for spec in sweep.specs}
        for name, refused in target.excluded(summary.layers, offered).items():
            excluded[name] = excluded.get(name, frozenset()) | refused
        _require_choice(summary, sweep, pinned, excluded, _refused_all(target, summary, sweep))
    return Mix(
        sweep,
        cost=cost,
        limit=limit,
        drop=drop,
        pinned=MappingProxyType(pinned),
        groups=None if arguments.tie else tuple(_group(group) for group in arguments.group),
        excluded=MappingProxyType(excluded),
        refined=not arguments.no_refine,
        drop_metric=drop_metric,
    )


def _group(names: list[str]) -> tuple[str, ...]:
    """Return the layers of a group; SpecError if they are not two or more."""
    group = tuple(dict.fromkeys(names))
    if len(group) < 2:
        raise SpecError(f"--group ties two or more layers together, but names only '{group[0]}'.")
    return group


def only_float(
    summary: NetworkSummary,
    sweep: Sweep,
    pinned: Mapping[str, LayerSpec],
    excluded: Mapping[str, frozenset[LayerSpec]],
) -> tuple[list[str], list[str]]:
    """Return the layers that are chosen for, and those of them that may get nothing but float."""
    free = [name for name in sweep.swept(summary.layers) if name not in pinned]
    left = [
        name
        for name in free
        if all(sweep.candidate(name, spec) in excluded.get(name, frozenset()) | {FLOAT} for spec in sweep.specs)
    ]
    return free, left


def _require_choice(
    summary: NetworkSummary,
    sweep: Sweep,
    pinned: Mapping[str, LayerSpec],
    excluded: Mapping[str, frozenset[LayerSpec]],
    sentence: str,
) -> None:
    """Raise SpecError with `sentence` where every layer that is chosen for would stay float."""
    free, left = only_float(summary, sweep, pinned, excluded)
    if free and len(left) == len(free):
        raise SpecError(sentence)


def _refused_all(target: Target, summary: NetworkSummary, sweep: Sweep) -> str:
    """Return a sentence on a runtime that refuses all formats that are tried: why it refuses the last of them."""
    layers = {layer.name: layer for layer in summary.layers}
    name = next(iter(sweep.swept(summary.layers)))
    layer, spec = layers[name], sweep.candidate(name, sweep.specs[-1])
    why = target.refusal(layer.op, spec, quantizes_activations=layer.quantizes_activations) or ""
    both = " --what both quantizes activations too." if sweep.what == "weights" else ""
    return f"None of the formats that are tried is left for '{target.name}' but float: {why}{both}"


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
