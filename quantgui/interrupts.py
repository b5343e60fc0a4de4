"""Ctrl+C while modules are imported; imports nothing but the standard library's lightest."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

EXIT_INTERRUPTED: Final = 130


@contextmanager
def leave_at_interrupt() -> Iterator[None]:
    """End the process at once at Ctrl+C: an import that is broken off raises anything, and nothing has begun yet."""
    handler = signal.getsignal(signal.SIGINT)
    if handler is not signal.default_int_handler or threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal(signal.SIGINT, lambda *_: os._exit(EXIT_INTERRUPTED))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
