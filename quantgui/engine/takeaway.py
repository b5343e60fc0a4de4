"""What is taken away from a bench: exported networks and their verification, files of other tools, the report."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from quantgui.analysis.evaluation import evaluate
from quantgui.analysis.importance import input_tensors
from quantgui.analysis.metric_function import Metric
from quantgui.analysis.simulation import activation_tensors, calibrated_tensors, wanted_ranges
from quantgui.engine.opened import OpenedData, OpenedNetwork, prepare, prepare_inputs, prepare_tensors
from quantgui.engine.requests import CompareNetwork, Export, ReadSettings, Verify, WriteReport, WriteSettings
from quantgui.errors import DataError
from quantgui.export.comparison import compare
from quantgui.export.dialects.material import gather
from quantgui.export.dialects.reading import read_text, unmatched, write_text
from quantgui.export.dialects.table import find_dialect, read_dialect
from quantgui.export.files import refuse_source
from quantgui.export.metadata import exported_ranges, exported_squares
from quantgui.export.qdq import export_qdq
from quantgui.export.quantized_file import is_network, read_quantized
from quantgui.export.report import gather_report, write_report
from quantgui.export.tensorrt import converted_for_tensorrt
from quantgui.export.verify import verify
from quantgui.network.network import Network
from quantgui.results import (
    Evaluation,
    EvaluationReady,
    Event,
    Exported,
    NetworkComparison,
    Progress,
    ReportWritten,
    SettingsRead,
    SettingsWritten,
)
from quantgui.spec.config import QuantConfig


def export(opened: OpenedNetwork, data: OpenedData | None, request: Export) -> Iterator[Event]:
    """Write the quantized network; yield Progress, then Exported.

    Raises:
        QuantGuiError: it cannot be written; without data because a range comes from data.
    """
    network, config, path, profile = opened.network, request.config, Path(request.path), request.profile
    notes: tuple[str, ...] = ()
    if request.convert and profile == "tensorrt":
        config, notes = converted_for_tensorrt(network, config)
    if data is None:
        _refuse_without_data(network, config)
        exporting = export_qdq(network, config, {}, path, profile=profile)
    else:
        yield from prepare(opened, data, config)
        sample = data.dataset.sample_input(0)
        exporting = export_qdq(network, config, data.activations, path, profile=profile, sample=sample)
    for event in exporting:
        yield replace(event, notes=(*notes, *event.notes)) if isinstance(event, Exported) else event


def _refuse_without_data(network: Network, config: QuantConfig) -> None:
    """Raise DataError if a range under `config` comes from data."""
    if tensors := activation_tensors(network, config):
        raise DataError(
            f"The configuration quantizes {len(tensors)} activation tensors, whose ranges come from data: open "
            "data (on the command line --data), or choose one that quantizes weights only."
        )
    if inputs := input_tensors(network, config):
        raise DataError(
            f"Ranges of weights in the configuration are input-weighted and need data ({len(inputs)} tensors): "
            "open data (on the command line --data), or choose another range estimator."
        )


def verify_export(opened: OpenedNetwork, data: OpenedData, metric: Metric | None, request: Verify) -> Iterator[Event]:
    """Run an exported file beside the simulation of its configuration; see `verify`."""
    config, path = request.config, Path(request.path)
    unknown = wanted_ranges(opened.network, config) - exported_ranges(path).keys()
    inputs = input_tensors(opened.network, config).keys() - exported_squares(path).keys()
    yield from prepare_tensors(opened, data, {tensor for tensor, _ in unknown} | inputs)
    yield from verify(
        opened.executor,
        data.dataset,
        config,
        data.activations,
        metric,
        path,
        samples=request.samples,
    )


def write_settings(opened: OpenedNetwork, data: OpenedData | None, request: WriteSettings) -> Iterator[Event]:
    """Write the file of another tool; yield Progress, then SettingsWritten.

    Raises:
        DataError: the file holds ranges that come from data, and none is open.
    """
    dialect = find_dialect(request.dialect)
    info = dialect.info
    if info.needs_ranges and data is None and calibrated_tensors(opened.network, request.config):
        raise DataError(f"A file for {info.title} holds ranges, some of which come from data: open some.")
    if info.needs_ranges and data is not None:
        yield from prepare(opened, data, request.config)
    yield Progress(0, 0, f"Writing {info.title}")
    activations = {} if data is None else data.activations
    material = gather(opened.network, request.config, activations, request.sensitivity, grids=info.needs_ranges)
    written = dialect.write(material)
    refuse_source(Path(request.path), Path(opened.network.summary.path))
    write_text(written.text, Path(request.path))
    yield SettingsWritten(request.path, info.name, request.config, written.notes)


def read_settings(network: Network, request: ReadSettings) -> Iterator[Event]:
    """Read the file of another tool, or a network it has quantized; yield Progress, then SettingsRead."""
    path = Path(request.path)
    yield Progress(0, 0, "Reading")
    if is_network(path):
        title, imported = "quantized ONNX file", read_quantized(path, network)
    else:
        found, imported = read_dialect(read_text(path), network.summary, request.dialect)
        title = found.info.title
    unknown = tuple(unmatched(each) for each in imported.unknown)
    yield SettingsRead(request.path, title, imported.config, unknown, imported.notes, imported.unknown)


def compare_network(
    opened: OpenedNetwork, data: OpenedData, metric: Metric | None, request: CompareNetwork
) -> Iterator[Event]:
    """Run a network that another tool has quantized beside the configuration; see `compare`."""
    yield Progress(0, 0, "Reading")
    read = read_quantized(Path(request.path), opened.network)
    yield from prepare(opened, data, request.config)
    unknown = tuple(unmatched(each) for each in read.unknown)
    for event in compare(
        opened.executor,
        data.dataset,
        request.config,
        read.config,
        data.activations,
        metric,
        Path(request.path),
        samples=request.samples,
    ):
        yield replace(event, unknown=unknown, notes=read.notes) if isinstance(event, NetworkComparison) else event


def write_report_file(
    opened: OpenedNetwork, data: OpenedData | None, metric: Metric | None, request: WriteReport
) -> Iterator[Event]:
    """Write all that is known of a configuration as one file; yield Progress, then ReportWritten."""
    summary, config = opened.network.summary, request.config
    refuse_source(Path(request.path), Path(summary.path))
    evaluation: Evaluation | None = None
    if data is not None:
        yield from prepare(opened, data, config)
        for event in evaluate(opened.executor, data.dataset, config, data.activations, metric, samples=request.samples):
            if isinstance(event, EvaluationReady):
                evaluation = event.evaluation
            elif isinstance(event, Progress):
                yield event
    yield from prepare_inputs(opened, data, {name: config.spec_for(name).weights for name in opened.network.layers})
    source, notes = ("", ()) if data is None else (data.dataset.summary.source, data.dataset.summary.notes)
    report = yield from gather_report(
        opened.network,
        config,
        data=source,
        evaluation=evaluation,
        sensitivity=request.sensitivity,
        mix=request.mix,
        notes=notes,
        activations={} if data is None else data.activations,
    )
    yield ReportWritten(request.path, write_report(report, Path(request.path)))
