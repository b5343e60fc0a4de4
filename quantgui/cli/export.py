"""``quantgui export``: a quantized ONNX file, or the configuration as the file of another tool."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from quantgui.cli.answers import Json, sizes
from quantgui.cli.arguments import (
    add_config_arguments,
    add_data_arguments,
    add_network_argument,
    add_target_argument,
)
from quantgui.cli.command import Answer, Command
from quantgui.cli.sensitivity_file import read_table
from quantgui.cli.work import Work, violations_json
from quantgui.engine.requests import Export, WriteSettings
from quantgui.errors import SpecError
from quantgui.results import Exported, NetworkSummary, SettingsWritten
from quantgui.spec.dialects import DIALECTS, find_dialect_info
from quantgui.spec.profiles import EXPORT_PROFILES
from quantgui.wording import size, times_smaller


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add_network_argument(parser)
    parser.add_argument("-o", "--output", metavar="OUT", required=True, help="the file to write")
    parser.add_argument(
        "--as",
        dest="form",
        metavar="FORM",
        choices=(*EXPORT_PROFILES, *(each.name for each in DIALECTS)),
        default=EXPORT_PROFILES[0],
        help="qdq: the quantized network with QuantizeLinear and DequantizeLinear (the default); matmulnbits: with "
        "MatMulNBits for 2, 4 and 8 bits in groups, for ONNX Runtime; tensorrt: with zero points 0 and Q/DQ in front "
        f"of operators, for NVIDIA TensorRT; or the file of another tool: {', '.join(each.name for each in DIALECTS)}",
    )
    parser.add_argument(
        "--convert",
        action="store_true",
        help="with --as tensorrt: change what TensorRT refuses to the nearest it runs (asymmetric to symmetric int8, "
        "groups to channels ...), and say what was changed",
    )
    parser.add_argument(
        "--sensitivity", metavar="FILE", help="what 'quantgui sensitivity -o FILE' has measured, for files that show it"
    )
    add_target_argument(parser, "also say what this runtime cannot run")
    add_data_arguments(parser, required=False)
    add_config_arguments(parser, required=False)


def _run(work: Work) -> Answer:
    arguments = work.arguments
    info = None if arguments.form in EXPORT_PROFILES else find_dialect_info(arguments.form)
    if not (arguments.config or arguments.preset or (info is not None and info.needs_sensitivity)):
        raise SpecError("One of the arguments --config --preset is required; see quantgui export --help.")
    if info is not None and info.needs_sensitivity and not arguments.sensitivity:
        raise SpecError(
            f"'{info.name}' is made of what 'quantgui sensitivity -o FILE' measures; add --sensitivity FILE."
        )
    if arguments.convert and arguments.form != "tensorrt":
        raise SpecError("--convert goes with --as tensorrt; other files hold the configuration as it is.")
    return _export(work) if info is None else _write_settings(work)


# --- the network --------------------------------------------------------------------------------------------------


def _export(work: Work) -> Answer:
    summary = work.open_network()
    data = work.open_data()
    choice = work.choose_config(summary, data)
    violations = work.violations(summary, choice.config)
    arguments = work.arguments
    request = Export(choice.config, arguments.output, arguments.form, arguments.convert)
    exported = work.answer(request, Exported)
    choice = replace(choice, config=exported.config)
    json = _network_json(summary, exported, work.arguments.form) | choice.json(data)
    json |= {"violations": violations_json(violations), "seconds": work.seconds}
    return Answer(json, _network_text(summary, exported))


def _network_json(summary: NetworkSummary, exported: Exported, form: str) -> Json:
    """Return the file that was written as JSON values."""
    return {
        "network": summary.name,
        "path": exported.path,
        "as": form,
        "file_bytes": exported.file_bytes,
        "float_file_bytes": summary.file_bytes,
        **sizes(summary, exported.config),
        "opset": exported.opset,
        "notes": exported.notes,
    }


def _network_text(summary: NetworkSummary, exported: Exported) -> str:
    """Return the file that was written, and what differs from the wish."""
    head = (
        f"{exported.path}: {size(exported.file_bytes)} with {exported.config.name or 'the configuration'}, "
        f"{times_smaller(summary.file_bytes, exported.file_bytes)} smaller than {summary.name} "
        f"({size(summary.file_bytes)}), opset {exported.opset}"
    )
    return "\n".join([head, *(f"  {note}" for note in exported.notes)])


# --- settings -----------------------------------------------------------------------------------------------------


def _write_settings(work: Work) -> Answer:
    arguments = work.arguments
    summary = work.open_network()
    table = None if arguments.sensitivity is None else read_table(Path(arguments.sensitivity), summary)
    data = work.open_data()
    choice = work.choose_config(summary, data)
    violations = work.violations(summary, choice.config)
    request = WriteSettings(choice.config, arguments.output, arguments.form, table)
    written = work.answer(request, SettingsWritten)
    json = _settings_json(summary, written) | choice.json(data)
    json |= {"violations": violations_json(violations), "seconds": work.seconds}
    return Answer(json, _settings_text(written))


def _settings_json(summary: NetworkSummary, written: SettingsWritten) -> Json:
    return {
        "network": summary.name,
        "path": written.path,
        "as": written.dialect,
        "file_bytes": Path(written.path).stat().st_size,
        "notes": written.notes,
    }


def _settings_text(written: SettingsWritten) -> str:
    title = find_dialect_info(written.dialect).title
    head = f"{written.path}: {title} with {written.config.name or 'the configuration'}"
    return "\n".join([head, *(f"  {note}" for note in written.notes)])


COMMAND = Command("Write a quantized ONNX file, or the file of another tool.", _add_arguments, _run)
