"""``quantgui targets``: the runtimes that configurations can be checked against."""

from __future__ import annotations

import argparse
import textwrap

from quantgui.cli.command import Answer, Command
from quantgui.cli.work import Work
from quantgui.spec.targets import TARGETS


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    del parser  # this command takes nothing


def _run(work: Work) -> Answer:
    del work
    targets = [
        {"name": each.name, "title": each.title, "source": each.source, "unknown": list(each.unknown)}
        for each in TARGETS
    ]
    width = max(len(each.name) for each in TARGETS)
    lines = []
    for each in TARGETS:
        lines.append(f"{each.name:{width}}  {each.title}")
        for sentence in (each.source, *each.unknown):
            lines += textwrap.wrap(sentence, 100, initial_indent=" " * (width + 2), subsequent_indent=" " * (width + 2))
    return Answer({"targets": targets}, "\n".join(lines))


COMMAND = Command("List the runtimes that a configuration can be checked against.", _add_arguments, _run)
