"""The engine process: reads commands from its parent, answers with events, and ends when the parent does.

Commands come on standard input and events go to what was standard output, both moved to private descriptors first,
so that a user's metric function may print and native libraries may warn without disturbing the conversation. One
thread reads commands; the main thread computes, one step of one job at a time (`quantgui.engine.scheduler`).
"""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import logging
import logging.handlers
import os
import queue
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from quantgui.engine.messages import Command, EngineEvent, EngineReady, read_message, write_message
from quantgui.engine.requests import Request
from quantgui.engine.scheduler import Scheduler
from quantgui.results import Event

_GRACE_SECONDS = 1.0
"""How long a step may go on after the parent has gone, before the process ends all the same."""

_LOG = logging.getLogger(__name__)

Handle = Callable[[Request], Iterator[Event]]


def main(make_handle: Callable[[], Handle] | None = None) -> None:
    """Serve the parent process on standard input and output until it closes them; never return.

    Args:
        make_handle: makes what answers requests, in this process; by default a `quantgui.engine.bench.Bench`.
    """
    commands, events = _private_streams()
    _write_log()
    _be_considerate()
    inbox: queue.SimpleQueue[Command | None] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(commands, inbox), name="commands", daemon=True).start()
    status = 0
    try:
        _serve((make_handle or _bench)(), inbox, events)
    except BrokenPipeError:
        _LOG.info("The window's process has gone.")
    except Exception:  # noqa: BLE001 -- the parent sees the exit code and starts a new engine; the reason is logged
        _LOG.critical("The engine ends by an error", exc_info=True)
        status = 1
    logging.shutdown()
    # Not sys.exit: native libraries tear down threads for seconds, and all generators are closed by now.
    os._exit(status)


def _bench() -> Handle:
    from quantgui.engine.bench import Bench

    return Bench().handle


def _serve(handle: Handle, inbox: queue.SimpleQueue[Command | None], events: BinaryIO) -> None:
    def report(event: EngineEvent) -> None:
        write_message(events, event)

    # All modules loaded so far stay for good: the collector need not walk through them again and again.
    gc.collect()
    gc.freeze()
    scheduler = Scheduler(handle, report)
    report(EngineReady())
    try:
        while True:
            for command in _arrived(inbox, wait=scheduler.is_idle):
                if command is None:
                    return
                scheduler.obey(command)
            scheduler.step()
    finally:
        scheduler.close()


def _arrived(inbox: queue.SimpleQueue[Command | None], *, wait: bool) -> Iterator[Command | None]:
    if wait:
        yield inbox.get()
    with contextlib.suppress(queue.Empty):
        while True:
            yield inbox.get_nowait()


def _listen(commands: BinaryIO, inbox: queue.SimpleQueue[Command | None]) -> None:
    try:
        while True:
            inbox.put(read_message(commands))
    except EOFError:
        inbox.put(None)
    # The main thread may be deep in a native call that takes minutes.
    time.sleep(_GRACE_SECONDS)
    os._exit(0)


def _private_streams() -> tuple[BinaryIO, BinaryIO]:
    """Take standard input and output away from everyone else; prints go to standard error from now on."""
    commands, events = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return os.fdopen(commands, "rb"), os.fdopen(events, "wb")


def _write_log() -> None:
    """Write warnings, errors and the stack of a native crash into the file named by the parent, if any."""
    path = os.environ.get("QUANTGUI_ENGINE_LOG")
    logging.captureWarnings(capture=True)
    if not path:
        logging.basicConfig(level=logging.WARNING)
        faulthandler.enable()
        return
    with contextlib.suppress(OSError):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        handler = logging.handlers.RotatingFileHandler(path, maxBytes=1 << 20, backupCount=1, encoding="utf-8")
        logging.basicConfig(
            level=logging.INFO, handlers=[handler], format="%(asctime)s %(process)d %(levelname)s %(message)s"
        )
        # A descriptor of its own: that of the handler is closed when the file is rotated.
        faulthandler.enable(os.open(path, os.O_WRONLY | os.O_APPEND))
        return
    logging.basicConfig(level=logging.WARNING)


def _be_considerate() -> None:
    """Let the window go first: at the cores, and when the system runs out of memory."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    warnings.simplefilter("default")
    if sys.platform != "win32":
        os.nice(5)
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("500", encoding="ascii")


if __name__ == "__main__":
    main()
