"""``quantgui report``: all that is known of a configuration as one HTML file."""

from __future__ import annotations

import argparse
from pathlib import Path

from quantgui.cli.answers import Json, sizes
from quantgui.cli.arguments import add_config_arguments, add_data_arguments, add_network_argument
from quantgui.cli.command import Answer, Command
from quantgui.cli.mix_file import read_mix
from quantgui.cli.sensitivity_file import read_table
from quantgui.cli.work import Work
from quantgui.engine.requests import WriteReport
from quantgui.results import ReportWritten
from quantgui.wording import size


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add_network_argument(parser)
    parser.add_argument("-o", "--output", metavar="OUT.html", required=True, help="the file to write")
    parser.add_argument("--sensitivity", metavar="FILE", help="what 'quantgui sensitivity -o FILE' has measured")
    parser.add_argument("--mix", metavar="FILE", help="what 'quantgui mix --json' has printed, for the frontier")
    add_data_arguments(parser, required=False)
    add_config_arguments(parser, required=True)


def _run(work: Work) -> Answer:
    arguments = work.arguments
    summary = work.open_network()
    table = None if arguments.sensitivity is None else read_table(Path(arguments.sensitivity), summary)
    mix = None if arguments.mix is None else read_mix(Path(arguments.mix), summary)
    data = work.open_data()
    choice = work.choose_config(summary, data)
    written = work.answer(WriteReport(choice.config, arguments.output, table, mix, arguments.samples), ReportWritten)
    json: Json = {"network": summary.name, "path": written.path, "file_bytes": written.file_bytes}
    json |= sizes(summary, choice.config) | choice.json(data) | {"seconds": work.seconds}
    name = choice.config.name or "the configuration"
    return Answer(json, f"{written.path}: report on {summary.name} with {name}, {size(written.file_bytes)}")


COMMAND = Command("Write all that is known of a configuration as one HTML file.", _add_arguments, _run)
