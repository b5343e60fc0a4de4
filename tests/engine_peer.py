"""An engine process with a tiny bench that is told what to do by the name of a layer."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from quantgui.engine.requests import OpenData, OpenNetwork, Request, SetMetric, ViewWeight
from quantgui.errors import DataError, NetworkError
from quantgui.results import Event, Progress

_TESTS = Path(__file__).resolve().parent

COMMAND = (
    sys.executable,
    "-c",
    f"import sys; sys.path[:0] = [{str(_TESTS.parent)!r}, {str(_TESTS)!r}]; import engine_peer; engine_peer.serve()",
)
"""Starts a process with this bench."""


class TinyBench:
    """Remembers what was opened; everything else is a command in the name of a layer."""

    def __init__(self) -> None:
        self.opened: list[str] = []

    def handle(self, request: Request) -> Iterator[Event]:
        match request:
            case OpenNetwork("missing.onnx"):
                raise NetworkError("There is no such file.")
            case OpenNetwork(path):
                self.opened = [path]
                yield Progress(1, 1, path)
            case OpenData(source) | SetMetric(source):
                self.opened.append(source)
                yield Progress(1, 1, source)
            case ViewWeight(command):
                yield from self.obey(command)

    def obey(self, command: str) -> Iterator[Event]:  # noqa: C901 -- one case per command is easy to read
        match command.split():
            case ["count", number]:
                for done in range(int(number)):
                    yield Progress(done, int(number))
            case ["forever"]:
                done = 0
                while True:
                    yield Progress(done := done + 1, 0)
            case ["opened"]:
                yield Progress(0, 0, " ".join(self.opened))
            case ["native"]:
                yield Progress(0, 1)
                time.sleep(10_000)  # a native call that does not come back
            case ["kill"]:
                yield Progress(0, 1)
                os.kill(os.getpid(), signal.SIGKILL)
            case ["crash"]:
                os.kill(os.getpid(), signal.SIGSEGV)
            case ["print"]:
                print("a user's function prints")
                os.write(1, b"a native library prints\n")
                yield Progress(1, 1)
            case ["mistake"]:
                raise DataError("The data has no images.")
            case ["bug"]:
                yield Progress(1, 0, str(1 // 0))
            case ["memory"]:
                raise MemoryError
            case ["file", path]:
                Path(path).write_text("half")
                try:
                    while True:
                        yield Progress(0, 0)
                finally:
                    Path(path).unlink()


def serve() -> None:
    from quantgui.engine.server import main

    main(lambda: TinyBench().handle)
