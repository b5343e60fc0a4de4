"""All commands, in the order of the help. To add one: write a module that ends in its `COMMAND`, and list it here."""

from __future__ import annotations

from typing import Final

from quantgui.cli import (
    check,
    compare,
    evaluate,
    export,
    import_settings,
    inspect,
    mix,
    noise,
    qat,
    report,
    sensitivity,
    targets,
    verify,
)
from quantgui.cli.command import Command

COMMANDS: Final[dict[str, Command]] = {
    "inspect": inspect.COMMAND,
    "check": check.COMMAND,
    "evaluate": evaluate.COMMAND,
    "sensitivity": sensitivity.COMMAND,
    "mix": mix.COMMAND,
    "noise": noise.COMMAND,
    "qat": qat.COMMAND,
    "export": export.COMMAND,
    "verify": verify.COMMAND,
    "import": import_settings.COMMAND,
    "compare": compare.COMMAND,
    "report": report.COMMAND,
    "targets": targets.COMMAND,
}
