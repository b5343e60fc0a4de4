"""Starts what the command line names: the window, or one of the commands in `commands`.

Exit codes: 0; 2 with one sentence on standard error; 130 after Ctrl+C. With ``--json`` standard output holds one JSON
object and nothing else.
"""

from __future__ import annotations

import argparse
import contextlib
import difflib
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NoReturn, TextIO

from quantgui import __version__
from quantgui.cli.arguments import (
    DATA_HELP,
    METRIC,
    METRIC_HELP,
    NETWORK_HELP,
    add_pytorch_arguments,
    pytorch_options,
)
from quantgui.cli.commands import COMMANDS
from quantgui.cli.work import Work
from quantgui.engine.scheduler import describe
from quantgui.errors import QuantGuiError
from quantgui.interrupts import EXIT_INTERRUPTED, leave_at_interrupt
from quantgui.paths import state_folder
from quantgui.spec.pytorch_source import is_factory
from quantgui.terminal import ProgressLine, has_display, json_text, reserved_stdout

EXIT_MISTAKE: Final = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    _open_missing_streams()
    try:
        if words and _is_command(words[0]):
            return _run_command(_command_parser().parse_args(words))
        return _open_window(_window_parser().parse_args(words))
    except SystemExit as stop:  # of --help and --version
        return stop.code if isinstance(stop.code, int) else 0
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # Whoever read standard output has gone; nothing may be written to it when Python ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return EXIT_MISTAKE
    except Exception as error:  # noqa: BLE001 -- a user must never see a traceback
        return _report(error)


def _open_missing_streams() -> None:
    """Give what is said somewhere to go where the process was started without standard output or standard error."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 -- as long as the process


def _report(error: Exception) -> int:
    """Write one sentence on standard error, and for bugs the traceback into a file."""
    sentence, details = describe(error)
    if isinstance(error, QuantGuiError) and error.option:
        sentence = f"{sentence.removesuffix('.')} ({error.option})."
    if details:
        path = state_folder() / "crash.log"
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(details, encoding="utf-8")
            sentence += f" (details in {path})"
    print(f"quantgui: {sentence}", file=sys.stderr)
    return EXIT_MISTAKE


# --- what is asked for --------------------------------------------------------------------------------------------


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise QuantGuiError(f"{message[0].upper()}{message[1:]}; see {self.prog} --help.")


def _is_command(word: str) -> bool:
    if word in COMMANDS:
        return True
    if word.startswith("-") or word.endswith((".onnx", ".pt2")) or is_factory(word) or Path(word).exists():
        return False
    near = difflib.get_close_matches(word, COMMANDS, n=1)
    hint = f"; did you mean '{near[0]}'?" if near else f"; commands are {', '.join(COMMANDS)}."
    raise QuantGuiError(f"'{word}' is neither a file nor a command{hint}")


def _window_parser() -> argparse.ArgumentParser:
    commands = "\n".join(f"  quantgui {name:<11} {command.help}" for name, command in COMMANDS.items())
    parser = _Parser(
        prog="quantgui",
        description="Decide how a neural network is quantized: look, change, measure, export, verify.",
        epilog=f"without a window:\n{commands}\n\nquantgui COMMAND --help tells more.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("network", metavar="NETWORK", nargs="?", help=NETWORK_HELP)
    add_pytorch_arguments(parser)
    parser.add_argument("--data", metavar="DATA", help=DATA_HELP)
    parser.add_argument("--metric", metavar=METRIC, help=METRIC_HELP)
    parser.add_argument("--config", metavar="C.json", help="the configuration to begin with")
    parser.add_argument("--answer", metavar="C.json", help="write the configuration here when the window is closed")
    parser.add_argument("--version", action="version", version=f"quantgui {__version__}")
    return parser


def _command_parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="quantgui")
    commands = parser.add_subparsers(dest="command", required=True, parser_class=_Parser)
    for name, command in COMMANDS.items():
        sub = commands.add_parser(name, help=command.help, description=command.help)
        command.add_arguments(sub)
        sub.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    return parser


# --- what is done -------------------------------------------------------------------------------------------------


def _open_window(arguments: argparse.Namespace) -> int:
    if not has_display():
        raise QuantGuiError(
            "There is no display to open a window on; work without one by 'quantgui inspect', 'evaluate', 'export' and "
            "'verify', or set DISPLAY."
        )
    with leave_at_interrupt():
        from quantgui.gui.app import Beginning, run_app

    answer = Path(arguments.answer) if arguments.answer else None
    beginning = Beginning(arguments.metric or "", arguments.config or "", answer)
    return run_app(arguments.network, arguments.data, pytorch=pytorch_options(arguments), beginning=beginning)


def _run_command(arguments: argparse.Namespace) -> int:
    with reserved_stdout() as out, warnings.catch_warnings():
        if not sys.warnoptions:
            warnings.simplefilter("ignore")
        progress = ProgressLine(sys.stderr)
        try:
            answer = COMMANDS[arguments.command].run(Work(arguments, progress))
        finally:
            progress.clear()
        _write(out, json_text(answer.json) if arguments.json else answer.text)
    return answer.code


def _write(out: TextIO, text: str) -> None:
    encoding = getattr(out, "encoding", None) or "utf-8"
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        text = text.replace("±", "+/-").encode(encoding, "replace").decode(encoding)
    try:
        out.write(f"{text}\n")
        out.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise QuantGuiError(f"Cannot write the answer to standard output: {error.strerror}.") from error
