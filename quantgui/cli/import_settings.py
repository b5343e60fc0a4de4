"""``quantgui import``: the configuration that a file of another tool describes."""

from __future__ import annotations

import argparse
from pathlib import Path

from quantgui.cli.answers import Json, sizes
from quantgui.cli.arguments import NETWORK_HELP, add_pytorch_arguments, add_target_argument
from quantgui.cli.command import Answer, Command
from quantgui.cli.work import Work, violations_json
from quantgui.engine.requests import ReadSettings
from quantgui.errors import ExportError
from quantgui.results import NetworkSummary, SettingsRead
from quantgui.spec.dialects import DIALECTS
from quantgui.spec.quantizer import FLOAT
from quantgui.spec.serialization import config_to_json, save_config
from quantgui.wording import size


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", help="a file of another tool, or a quantized ONNX network")
    parser.add_argument("--network", metavar="NETWORK", required=True, help=f"the float network: {NETWORK_HELP}")
    add_pytorch_arguments(parser)
    parser.add_argument("-o", "--output", metavar="C.json", required=True, help="the configuration to write")
    names = [each.name for each in DIALECTS if each.readable]
    parser.add_argument(
        "--from", dest="dialect", metavar="DIALECT", choices=names, default="",
        help=f"whose file it is, if it is not recognised: {', '.join(names)}",
    )  # fmt: skip
    add_target_argument(parser, "also say what this runtime cannot run")


def _run(work: Work) -> Answer:
    arguments = work.arguments
    summary = work.open_network()
    read = work.answer(ReadSettings(arguments.file, arguments.dialect), SettingsRead)
    for sentence in read.unknown:
        work.note(sentence)
    quantized = _quantized(summary, read)
    if read.unknown_names and not quantized:
        nearest = read.unknown_names[0]
        hint = f"; the nearest to '{nearest.name}' is '{nearest.nearest}'" if nearest.nearest else ""
        raise ExportError(f"No name in '{Path(arguments.file).name}' matches a layer of '{summary.name}'{hint}.")
    save_config(read.config, Path(arguments.output))
    violations = work.violations(summary, read.config)
    json: Json = {
        "network": summary.name,
        "file": read.path,
        "from": read.dialect,
        "path": arguments.output,
        "layers": len(quantized),
        **sizes(summary, read.config),
        "config": config_to_json(read.config),
        "unknown_names": [{"name": each.name, "nearest": each.nearest} for each in read.unknown_names],
        "notes": read.notes,
        "violations": violations_json(violations),
        "seconds": work.seconds,
    }
    counted = sizes(summary, read.config)
    head = (
        f"{arguments.output}: {len(quantized)} of {len(summary.layers)} layers quantized, as {read.dialect} has them; "
        f"{size(counted['bytes'])} of {size(counted['float_bytes'])}"
    )
    return Answer(json, "\n".join([head, *(f"  {note}" for note in read.notes)]))


def _quantized(summary: NetworkSummary, read: SettingsRead) -> list[str]:
    return [layer.name for layer in summary.layers if read.config.spec_for(layer.name) != FLOAT]


COMMAND = Command("Make a configuration of the file of another tool.", _add_arguments, _run)
