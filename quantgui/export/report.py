"""A report on a configuration as one HTML file that needs nothing else: no script, no font, no network.

Plots are drawn as SVG by the few functions of `svg.py`. Whatever a network or a file says is escaped.
"""

from __future__ import annotations

import html
import json
import math
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from quantgui import __version__
from quantgui.analysis.importance import Activations
from quantgui.analysis.simulation import weight_spec
from quantgui.analysis.tensor_error import view_weight, weight_errors
from quantgui.analysis.weight_grids import NO_ACTIVATIONS
from quantgui.errors import ExportError, SpecError
from quantgui.export.svg import Point, frontier_plot, histogram_plot
from quantgui.network.network import Network
from quantgui.numerics.statistics import rebin
from quantgui.results import (
    Evaluation,
    LayerInfo,
    MixReady,
    NetworkSummary,
    Progress,
    Score,
    Sensitivity,
    TensorError,
    WeightErrorReady,
    WeightView,
    WeightViewReady,
)
from quantgui.spec.config import QuantConfig
from quantgui.spec.quantizer import LayerSpec
from quantgui.spec.serialization import config_to_json, write_text_atomically
from quantgui.spec.size import network_bytes, weight_bytes
from quantgui.spec.sweep import SHARES
from quantgui.spec.targets import TARGETS, Violation
from quantgui.wording import decibel, metric_name, score_text, size, times_smaller

WORST_LAYERS = 6
"""Layers whose histograms are drawn."""
_BINS = 160
_MEGABYTES_FROM = 2_000_000

_STYLE = """
:root { color-scheme: light dark; --ground: #ffffff; --panel: #f6f7f9; --text: #1d2127; --muted: #5d6675;
  --line: #d5d9e0; --float: #2f6fde; --quantized: #c2620a; --good: #1a8754; --bad: #c9362e; }
@media (prefers-color-scheme: dark) { :root { --ground: #14161b; --panel: #1f2229; --text: #dfe2e8; --muted: #99a1b0;
  --line: #3a3f4a; --float: #6ea8fe; --quantized: #ffb454; --good: #56c596; --bad: #f2777a; } }
body { background: var(--ground); color: var(--text); font: 15px/1.5 system-ui, sans-serif; margin: 0 auto;
  max-width: 1080px; padding: 24px; }
h1 { font-size: 26px; margin: 0 0 4px; } h2 { font-size: 19px; margin: 36px 0 10px; }
p { margin: 6px 0; } .muted { color: var(--muted); } .bad { color: var(--bad); }
.cards { display: flex; flex-wrap: wrap; gap: 12px; margin: 18px 0; }
.card { background: var(--panel); border: 1px solid var(--line); border-radius: 10px; padding: 12px 16px; }
.card b { display: block; font-size: 22px; font-variant-numeric: tabular-nums; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
.scroll { overflow-x: auto; }
th, td { border-bottom: 1px solid var(--line); padding: 5px 10px; text-align: right; white-space: nowrap; }
th { background: var(--panel); } th:first-child, td:first-child { text-align: left; }
td:first-child { max-width: 340px; overflow: hidden; text-overflow: ellipsis; }
figure { margin: 12px 0; } figcaption { color: var(--muted); font-size: 13px; }
.plots { display: grid; grid-template-columns: repeat(auto-fill, minmax(330px, 1fr)); gap: 16px; }
svg { width: 100%; height: auto; } svg text { fill: var(--muted); font: 11px system-ui, sans-serif; }
pre { background: var(--panel); border: 1px solid var(--line); border-radius: 10px; overflow: auto; padding: 12px;
  max-height: 480px; font-size: 12px; }
summary { cursor: pointer; }
"""


@dataclass(frozen=True)
class Report:
    """What a report tells; what is not known is left out of it.

    Attributes:
        summary: the network.
        config: the configuration.
        data: what quality was measured on.
        evaluation: quality of both networks.
        errors: error of each quantized weight, by layer.
        views: weights whose histograms are drawn, the worst first.
        sensitivity: how sensitive the network is to each layer.
        mix: the frontier of size and quality.
        violations: what each target cannot run, by the target's title.
        notes: findings, in sentences.
    """

    summary: NetworkSummary
    config: QuantConfig
    data: str = ""
    evaluation: Evaluation | None = None
    errors: Mapping[str, TensorError] = field(default_factory=dict)
    views: tuple[WeightView, ...] = ()
    sensitivity: Sensitivity | None = None
    mix: MixReady | None = None
    violations: Mapping[str, tuple[Violation, ...]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def gather_report(
    network: Network,
    config: QuantConfig,
    *,
    data: str = "",
    evaluation: Evaluation | None = None,
    sensitivity: Sensitivity | None = None,
    mix: MixReady | None = None,
    notes: tuple[str, ...] = (),
    activations: Activations = NO_ACTIVATIONS,
) -> Generator[Progress, None, Report]:
    """Return what is known already with the errors of all weights, the worst of them in full, and every target."""
    layers = network.summary.layers
    specs = {layer.name: spec for layer in layers if (spec := weight_spec(layer, config)) is not None}
    errors: dict[str, TensorError] = {}
    for event in weight_errors(network, specs, activations):
        if isinstance(event, WeightErrorReady):
            errors[event.layer] = event.error
        yield Progress(len(errors), len(specs), "Weight errors")
    views: list[WeightView] = []
    for name in worst_layers(errors):
        seen = view_weight(network, name, specs[name], activations=activations)
        views += [event.view for event in seen if isinstance(event, WeightViewReady)]
        yield Progress(len(views), WORST_LAYERS, "Histograms")
    violations = {target.title: target.violations(layers, config) for target in TARGETS if target.runs}
    return Report(network.summary, config, data, evaluation, errors, tuple(views), sensitivity, mix, violations, notes)


def worst_layers(errors: Mapping[str, TensorError], count: int = WORST_LAYERS) -> tuple[str, ...]:
    """Return the layers with the largest relative error of their weights, the worst first."""
    ranked = sorted((error.sqnr_db, name) for name, error in errors.items() if math.isfinite(error.sqnr_db))
    return tuple(name for _, name in ranked[:count])


def write_report(report: Report, path: Path) -> int:
    """Write `report` to `path`, replacing a file only by a whole one; return its size in bytes.

    Raises:
        ExportError: the file cannot be written.
    """
    text = report_html(report)
    try:
        write_text_atomically(path, text)
    except SpecError as error:
        raise ExportError(str(error)) from error
    return len(text.encode())


def report_html(report: Report) -> str:
    """Return the report as HTML."""
    name = html.escape(report.summary.name)
    sections = [
        _summary(report),
        _frontier(report),
        _layers(report),
        _histograms(report),
        _targets(report),
        _configuration(report.config),
    ]
    body = "\n".join(section for section in sections if section)
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{name}: quantization report</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n{body}\n"
        f'<p class="muted">Made by quantgui {html.escape(__version__)}.</p>\n</body>\n</html>\n'
    )


# --- sections ----------------------------------------------------------------------------------------------------


def _summary(report: Report) -> str:
    summary, evaluation = report.summary, report.evaluation
    total = network_bytes(summary.float_bytes, summary.layers, report.config)
    quantized = sum(1 for layer in summary.layers if report.config.spec_for(layer.name) != LayerSpec())
    cards = [
        (
            "size",
            f"{size(summary.float_bytes)} → {size(total)}",
            f"{times_smaller(summary.float_bytes, total)} smaller",
        ),
        ("layers quantized", f"{quantized} of {len(summary.layers)}", f"{summary.parameters:,} parameters"),
    ]
    if evaluation is not None:
        direction = "larger is better" if evaluation.higher_is_better else "smaller is better"
        before, after = (
            score_text(evaluation.metric, each) for each in (evaluation.float_score, evaluation.quantized_score)
        )
        samples = f"{evaluation.quantized_score.samples} samples, {direction}"
        cards.append((metric_name(evaluation.metric), f"{before} → {after}", samples))
        if evaluation.metric != "output_sqnr_db":
            cards.append(
                ("output SQNR", decibel(evaluation.output_sqnr_db), "against the float network, larger is better")
            )
    tiles = "".join(
        f'<div class="card"><span class="muted">{html.escape(label)}</span><b>{html.escape(value)}</b>'
        f'<span class="muted">{html.escape(note)}</span></div>'
        for label, value, note in cards
    )
    notes = (*report.notes, *(evaluation.notes if evaluation else ()))
    told = "".join(f"<p>{html.escape(note)}</p>" for note in notes)
    data = f" on {report.data}" if report.data else ""
    config = report.config.name or "an unnamed configuration"
    return (
        f"<h1>{html.escape(summary.name)}</h1>\n"
        f'<p class="muted">{html.escape(config + data)}; opset {summary.opset}, '
        f"made by {html.escape(summary.producer or 'an unnamed tool')}</p>\n"
        f'<div class="cards">{tiles}</div>\n{told}'
    )


def _frontier(report: Report) -> str:
    mix = report.mix
    if mix is None or not mix.points:
        return ""
    unit, factor = ("MB", 1e6) if mix.points[-1].bytes >= _MEGABYTES_FROM else ("KB", 1e3)
    percent, ending = (
        (100.0, ", %") if mix.metric in SHARES else (1.0, ", dB" if mix.metric == "output_sqnr_db" else "")
    )

    def point(count: int, score: Score) -> Point:
        return Point(count / factor, percent * score.value, percent * score.stderr)

    predicted = [point(p.bytes, _certain(p.predicted)) for p in mix.points if math.isfinite(p.predicted)]
    known = [(p, p.measured) for p in (*mix.points, *([mix.refined] if mix.refined else [])) if p.measured is not None]
    measured = [point(p.bytes, score) for p, score in known if math.isfinite(score.value)]
    here = None
    if (score := _score_in(report.evaluation, mix.metric)) is not None and math.isfinite(score.value):
        here = point(network_bytes(report.summary.float_bytes, report.summary.layers, report.config), score)
    name = metric_name(mix.metric)
    plot = frontier_plot(predicted, measured, here, f"size, {unit}", f"{name}{ending}")
    rows = [
        [size(p.bytes), score_text(mix.metric, _certain(p.predicted)), score_text(mix.metric, score)]
        for p, score in known
    ]
    error = ""
    if math.isfinite(mix.additivity_error):
        amount = score_text(mix.metric, _certain(mix.additivity_error))
        error = f"<p>Measured values are {html.escape(amount)} from the predicted ones on average.</p>"
    return (
        f"<h2>Size and quality</h2>\n<figure>{plot}<figcaption>Line: predicted from single layers. Circles with bars: "
        f"measured, with standard error. Square: this configuration.</figcaption></figure>{error}\n"
        + _table(["size", "predicted", "measured"], rows)
    )


def _certain(value: float) -> Score:
    """Return a value without a standard error."""
    return Score(value, math.nan, 0)


def _score_in(evaluation: Evaluation | None, metric: str) -> Score | None:
    """Return a metric of an evaluation, be it the headline or one beside it."""
    if evaluation is None:
        return None
    return evaluation.quantized_score if evaluation.metric == metric else evaluation.scores.get(metric)


def _layers(report: Report) -> str:
    sensitive = _sensitivities(report.sensitivity)
    header = ["layer", "operator", "parameters", "weights", "activations", "bytes", "weight SQNR"]
    if report.sensitivity is not None:
        header.append(f"{metric_name(report.sensitivity.metric)} alone")
    rows = []
    for layer in report.summary.layers:
        spec = report.config.spec_for(layer.name)
        error = report.errors.get(layer.name)
        row = [
            layer.name,
            layer.op,
            f"{layer.parameters:,}",
            layer.dtype if layer.read_only else _weights(spec),
            "" if not layer.quantizes_activations else _activations(spec),
            size(_bytes(layer, spec)),
            "" if error is None or spec.weights is None else decibel(error.sqnr_db),
        ]
        rows.append(row if report.sensitivity is None else [*row, sensitive.get((layer.name, spec.weights), "")])
    return f"<h2>Layers</h2>\n{_table(header, rows)}"


def _sensitivities(table: Sensitivity | None) -> dict[tuple[str, object], str]:
    if table is None or table.sweep.what == "activations":
        return {}
    return {
        (each.layer, each.spec.weights): score_text(table.metric, Score(each.value, each.stderr, each.samples))
        for each in table.candidates
        if each.samples
    }


def _histograms(report: Report) -> str:
    if not report.views:
        return ""
    figures = []
    for view in report.views:
        low, high = view.statistics.minimum, view.statistics.maximum
        plot = histogram_plot(rebin(view.statistics, _BINS, low, high), view.quantized, view.low, view.high)
        caption = f"{view.layer}: {_weights(LayerSpec(view.spec))}, SQNR {decibel(view.error.sqnr_db)}"
        figures.append(f"<figure>{plot}<figcaption>{html.escape(caption)}</figcaption></figure>")
    return (
        '<h2>Worst weights</h2>\n<p class="muted">Filled: float values. Lines: levels after quantization. Dashed: '
        f'limits of the widest range.</p>\n<div class="plots">{"".join(figures)}</div>'
    )


def _targets(report: Report) -> str:
    if not report.violations:
        return ""
    parts = ["<h2>Targets</h2>"]
    for title, violations in report.violations.items():
        if not violations:
            parts.append(f"<p>{html.escape(title)}: runs all of it.</p>")
            continue
        items = "".join(f"<li>{html.escape(each.layer)}: {html.escape(each.sentence)}</li>" for each in violations)
        count = f"{len(violations)} layer{'s' if len(violations) != 1 else ''}"
        parts.append(
            f'<details><summary><span class="bad">{html.escape(title)}: cannot run {count}</span></summary>'
            f"<ul>{items}</ul></details>"
        )
    return "\n".join(parts)


def _configuration(config: QuantConfig) -> str:
    text = json.dumps(config_to_json(config), indent=1)
    return f"<h2>Configuration</h2>\n<details><summary>as JSON</summary><pre>{html.escape(text)}</pre></details>"


# --- words -------------------------------------------------------------------------------------------------------


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    head = "".join(f'<th scope="col">{html.escape(cell)}</th>' for cell in header)
    lines = [
        "<tr>" + "".join(f'<td title="{html.escape(cell)}">{html.escape(cell)}</td>' for cell in row) + "</tr>"
        for row in rows
    ]
    if not lines:
        return ""
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{"".join(lines)}</tbody></table></div>'


def _weights(spec: LayerSpec) -> str:
    return "float" if spec.weights is None else str(spec.weights)


def _activations(spec: LayerSpec) -> str:
    return "float" if spec.activations is None else str(spec.activations)


def _bytes(layer: LayerInfo, spec: LayerSpec) -> int:
    if layer.read_only:
        return layer.stored_bytes
    weights = spec.weights if layer.finite else None
    return weight_bytes(layer.channels, layer.elements_per_channel, weights, float_bits=layer.float_bits)
