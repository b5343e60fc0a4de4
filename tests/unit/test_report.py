"""The report: one file that a browser shows without anything else, whatever names a network has."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from quantgui.engine.bench import Bench
from quantgui.engine.requests import Evaluate, OpenData, OpenNetwork
from quantgui.errors import ExportError
from quantgui.export.report import WORST_LAYERS, Report, gather_report, report_html, write_report
from quantgui.export.svg import ticks
from quantgui.results import EvaluationReady, MixPoint, MixReady, Progress, Score
from quantgui.spec.mix import Mix
from quantgui.spec.presets import find_preset, preset_config
from quantgui.spec.sweep import Sweep
from quantgui.wording import score_text

DIGITS = Path(__file__).parents[2] / "sample_models/digits"
VOID = {"meta", "line", "rect", "circle", "polyline", "polygon", "br"}


class Page(HTMLParser):
    """Checks that tags are closed in their order, and collects the text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


@pytest.fixture(scope="module")
def report() -> Report:
    bench = Bench(cache_bytes=2**26)
    list(bench.handle(OpenNetwork(str(DIGITS / "digits.onnx"))))
    list(bench.handle(OpenData(str(DIGITS / "digits.evaluation.npz"))))
    summary = bench.network.summary
    config = preset_config(find_preset("W4A8"), summary.layers)
    *_, ready = bench.handle(Evaluate(config))
    assert isinstance(ready, EvaluationReady)
    float_score = Score(float("inf"), float("nan"), 10)
    points = tuple(
        MixPoint(config, size, size, size / 1e4, Score(size / 1.1e4, 0.2, 10) if size > 20_000 else None)
        for size in (10_000, 20_000, 30_000)
    )
    mix = MixReady(Mix(Sweep()), "output_sqnr_db", True, float_score, points, 1, 0.3, None, (), 0.0, 1.0, True)
    gathering = gather_report(
        bench.network, config, data="digits", evaluation=ready.evaluation, mix=mix, notes=("Mind the gap.",)
    )
    while True:
        try:
            assert isinstance(next(gathering), Progress)
        except StopIteration as stop:
            return stop.value


def page_of(text: str) -> Page:
    page = Page()
    page.feed(text)
    page.close()
    assert page.open == []
    return page


def test_that_the_report_is_whole_and_tells_the_figures(report: Report) -> None:
    page = page_of(report_html(report))
    text = "".join(page.text)
    evaluation = report.evaluation
    assert evaluation is not None
    assert score_text(evaluation.metric, evaluation.quantized_score) in text
    assert f"{evaluation.output_sqnr_db:.1f} dB" in text
    assert all(layer.name in text for layer in report.summary.layers)
    assert "Mind the gap." in text
    assert "TensorRT (explicit Q/DQ): cannot run" in text
    assert page.tags.count("svg") == 1 + len(report.views) == 1 + WORST_LAYERS


def test_that_the_report_needs_nothing_else(report: Report) -> None:
    text = report_html(report)
    assert not re.search(r"https?:|src=|@import|url\(|<script|<link", text)


def test_that_plots_are_well_formed(report: Report) -> None:
    for drawing in re.findall(r"<svg.*?</svg>", report_html(report), re.DOTALL):
        ET.fromstring(drawing)
        assert "nan" not in drawing


def test_that_names_cannot_bring_code_in(report: Report) -> None:
    nasty = "<script>alert('1')</script>\"&"
    layers = (replace(report.summary.layers[0], name=nasty), *report.summary.layers[1:])
    summary = replace(report.summary, name=nasty, producer=nasty, layers=layers)
    changed = replace(report, summary=summary, data=nasty, notes=(nasty,), config=replace(report.config, name=nasty))
    text = report_html(changed)
    assert "<script" not in text
    assert nasty in "".join(page_of(text).text)


def test_that_little_is_enough(report: Report) -> None:
    bare = Report(report.summary, report.config)
    assert "Worst weights" not in "".join(page_of(report_html(bare)).text)


def test_that_a_file_is_replaced_only_by_a_whole_one(report: Report, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    assert write_report(report, path) == path.stat().st_size
    with pytest.raises(ExportError, match="Cannot write"):
        write_report(report, tmp_path / "missing" / "report.html")
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (-3.2, 17.0), (1e-9, 2e-9), (5.0, 5.0), (-1e6, 1e6)])
def test_that_ticks_are_round_and_inside(low: float, high: float) -> None:
    found = ticks(low, high)
    assert 1 <= len(found) <= 12
    assert all(low - 1e-12 <= tick <= high + 1e-12 for tick in found)
