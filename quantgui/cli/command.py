"""What a command is: its arguments, and the function that answers it."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from quantgui.cli.work import Work


@dataclass(frozen=True)
class Answer:
    """What a command found: for programs and for people, and the exit code."""

    json: dict[str, Any]
    text: str
    code: int = 0


@dataclass(frozen=True)
class Command:
    """A command: what it does in a sentence, what it takes, and how it is answered."""

    help: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[Work], Answer]
