"""``quantgui sensitivity``: how sensitive the network is to each layer."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from typing import Any

from quantgui.cli.arguments import add_config_arguments, add_data_arguments, add_network_argument
from quantgui.cli.command import Answer, Command
from quantgui.cli.sensitivity_file import require_place, save_json
from quantgui.cli.work import Work
from quantgui.engine.requests import MeasureSensitivity
from quantgui.errors import DataError
from quantgui.results import Candidate, NetworkSummary, Sensitivity, SensitivityReady, updated_sensitivity
from quantgui.spec.config import QuantConfig
from quantgui.spec.sweep import METRICS, SWEPT_BITS, USER_METRIC, WHAT, Sweep, bits_specs
from quantgui.terminal import score_json, table
from quantgui.wording import duration, metric_name

METRIC_HELP = f"{', '.join(METRICS)}, or FILE.py:FUNCTION, your metric(outputs, labels) -> score per sample"
MAX_BITS = 16


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add_network_argument(parser)
    _add_sweep_arguments(parser)
    add_data_arguments(parser, required=True, metric="METRIC", metric_help=METRIC_HELP)
    add_config_arguments(parser, required=False)


def _run(work: Work) -> Answer:
    arguments, metric = work.arguments, work.arguments.metric
    require_place(arguments.output)
    summary = work.open_network()
    if metric in METRICS:
        arguments.metric = None  # it needs no file
    data = work.open_data()
    choice = work.choose_config(summary, data)
    sweep = _sweep_from(arguments, choice.config, metric)
    answer: Sensitivity | None = None
    news: list[SensitivityReady] = []
    try:
        for event in work.bench.handle(MeasureSensitivity(sweep)):
            work.show(event)
            if isinstance(event, Sensitivity):
                answer, news = event, []
            elif isinstance(event, SensitivityReady):
                news.append(event)
    except KeyboardInterrupt:
        if answer is not None:
            save_json(arguments.output, _json(summary, arguments.data, updated_sensitivity(answer, news)))
        work.note("Stopped. What was measured is kept: the same command goes on from there.")
        raise
    if answer is None:
        raise DataError("There is nothing to compute: the data holds no samples.")
    json = _json(summary, arguments.data, answer) | choice.json(data)
    save_json(arguments.output, json)
    return Answer(json, _text(summary, arguments.data, answer))


def _add_sweep_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what only this command takes."""
    group = parser.add_argument_group("sweep")
    group.add_argument(
        "--bits", metavar="N,N", type=bit_widths, default=SWEPT_BITS, help="bit-widths to try, such as 2,4,8 or 2-8"
    )
    group.add_argument("--what", choices=WHAT, default="weights", help="what of a layer is changed")
    group.add_argument("--exact", action="store_true", help="measure every candidate on all samples")
    group.add_argument("-o", "--output", metavar="FILE", help="write the answer as JSON, also when interrupted")


def _sweep_from(arguments: argparse.Namespace, base: QuantConfig, metric: str | None) -> Sweep:
    """Return what the arguments ask for; `metric` is one of `METRICS`, a user's function, or None."""
    name = METRICS[0] if metric is None else metric if metric in METRICS else USER_METRIC
    specs = bits_specs(arguments.bits)
    return Sweep(specs, arguments.what, base, name, arguments.samples, arguments.exact)


def bit_widths(text: str) -> tuple[int, ...]:
    """Return the bit-widths that an argument such as 2,4,8 or 2-8 names."""
    found: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise argparse.ArgumentTypeError(f"must be bit-widths such as 2,4,8 or 2-8, got '{text}'")
        # A range ends where no bit-width is any more: who writes 2-99999999999 shall not wait for that list.
        found += range(int(first), min(int(last or first), MAX_BITS + 1) + 1) or [0]
    if not all(2 <= bits <= MAX_BITS for bits in found):
        raise argparse.ArgumentTypeError(f"must be bit-widths from 2 to {MAX_BITS}, got '{text}'")
    return tuple(dict.fromkeys(found))


def _json(summary: NetworkSummary, data: str, answer: Sensitivity) -> dict[str, Any]:
    """Return a sweep as JSON values."""
    return {
        "network": summary.name,
        "fingerprint": summary.fingerprint,
        "data": data,
        "what": answer.sweep.what,
        "metric": answer.metric,
        "higher_is_better": answer.higher_is_better,
        "float_forward_seconds": answer.float_forward_seconds,
        "seconds": answer.seconds,
        "samples": answer.total_samples,
        "complete": answer.complete,
        "resumed": answer.resumed,
        "reference": score_json(answer.reference),
        "layers": [
            {
                "name": layer.name,
                "parameters": layer.parameters,
                "candidates": [_candidate_json(each) for each in answer.candidates if each.layer == layer.name],
            }
            for layer in summary.layers
            if any(each.layer == layer.name for each in answer.candidates)
        ],
        "orders": {
            label: [{"layer": place.layer, "certain": place.certain} for place in order]
            for label, order in answer.orders.items()
        },
        "weight_error_correlation": answer.weight_error_correlation,
        "correlations": dict(answer.correlations),
        "layer_correlations": dict(answer.layer_correlations),
        "proxy_seconds": answer.proxy_seconds,
        "notes": list(answer.notes),
        "cut_segments": answer.cut_segments,
        "peak_cache_bytes": answer.peak_cache_bytes,
    }


def _candidate_json(candidate: Candidate) -> dict[str, Any]:
    return {
        "format": candidate.format,
        "value": candidate.value,
        "stderr": candidate.stderr,
        "samples": candidate.samples,
        "bytes": candidate.bytes,
        "weight_sqnr_db": candidate.weight_sqnr_db,
        "proxies": dict(candidate.proxies),
    }


def _text(summary: NetworkSummary, data: str, answer: Sensitivity) -> str:
    """Return a sweep as a table, layers by the order of the middle format; ~ marks a place that is not certain."""
    labels = list(answer.orders)
    middle = labels[len(labels) // 2]
    cells = {(each.layer, each.format): _cell(each, answer) for each in answer.candidates}
    rows = [["layer", *labels]]
    for place in answer.orders[middle]:
        name = place.layer if place.certain else f"{place.layer} ~"
        rows.append([name, *(cells.get((place.layer, label), "") for label in labels)])
    samples = [each.samples for each in answer.candidates]
    what = "weights and activations" if answer.sweep.what == "both" else answer.sweep.what
    head = (
        f"{summary.name}: {metric_name(answer.metric)} with the {what} "
        f"of one layer changed, on {_span(samples)} samples of {data}, in {duration(answer.seconds)}"
    )
    notes = [f"most sensitive first in {middle}; ~ the next layer may be as sensitive"]
    notes += [*answer.notes, *_proxy_notes(answer)]
    return "\n".join([head, table(rows), *(f"  {note}" for note in notes)])


def _span(numbers: Sequence[int]) -> str:
    """Return ``4 to 64``, or ``8`` where all are the same."""
    least, most = min(numbers), max(numbers)
    return f"{least}" if least == most else f"{least} to {most}"


_PROXY_NAMES = {
    "weight_sqnr_db": "weight error",
    "input_weighted_sqnr_db": "input-weighted error",
    "own_output_sqnr_db": "own output error",
    "gradient_sqnr_db": "gradient",
}


def _proxy_notes(answer: Sensitivity) -> list[str]:
    """Return how far each cheap guess ranks as the measurement does, the best one first."""
    if not answer.correlations:
        return []
    order = sorted(answer.correlations, key=lambda proxy: -answer.layer_correlations.get(proxy, -1.0))
    said = [
        f"{_PROXY_NAMES.get(proxy, proxy)} {answer.correlations[proxy]:.2f}"
        + (f" ({answer.layer_correlations[proxy]:.2f})" if proxy in answer.layer_correlations else "")
        for proxy in order
    ]
    return [f"rank correlation of cheap guesses with the measured values (among layers): {', '.join(said)}"]


def _cell(candidate: Candidate, answer: Sensitivity) -> str:
    if not candidate.samples:
        return "-"
    value, error = candidate.value, candidate.stderr
    if not math.isfinite(value):
        return "exact" if value == math.inf and answer.metric == METRICS[0] else "not a number"
    decimals = 1 if answer.metric == METRICS[0] else 4
    return f"{value:.{decimals}f}" + (f" ± {error:.{decimals}f}" if math.isfinite(error) else "")


COMMAND = Command("Measure how sensitive the network is to each layer.", _add_arguments, _run)
