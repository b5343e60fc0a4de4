"""What travels between the window's process and the engine process, and how it is framed.

Commands go down, events come up; both are pickled values with their lengths in front. The peer is always the
program itself (a child process on private pipes), so pickle is safe here.
"""

from __future__ import annotations

import pickle
import struct
from dataclasses import dataclass
from typing import IO, Any

from quantgui.engine.requests import Priority, Request
from quantgui.results import Event

_NUMBER = struct.Struct("<Q")


# --- events: what the caller of the engine hears ------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class JobStarted:
    """The engine has begun to work on a job."""

    job: int
    topic: str


@dataclass(frozen=True, slots=True, eq=False)
class JobEvent:
    """A job reports progress or a result."""

    job: int
    topic: str
    event: Event


@dataclass(frozen=True, slots=True)
class JobDone:
    """A job has ended well; all its results have been reported."""

    job: int
    topic: str


@dataclass(frozen=True, slots=True)
class JobFailed:
    """A job has ended with an error: a sentence for the user, and for bugs the traceback in `details`."""

    job: int
    topic: str
    sentence: str
    details: str = ""


@dataclass(frozen=True, slots=True)
class JobCancelled:
    """A job was cancelled, or replaced by a newer one of its topic; results reported before stay valid."""

    job: int
    topic: str


@dataclass(frozen=True, slots=True)
class EngineDied:
    """The engine process has ended by itself.

    `restarting` is False where it died so often that it is not started again before `EngineClient.restart`.
    """

    sentence: str
    restarting: bool = True


@dataclass(frozen=True, slots=True)
class EngineReady:
    """The engine process runs, and has opened again what was open before it died."""


JobOutcome = JobDone | JobFailed | JobCancelled
EngineEvent = JobStarted | JobEvent | JobOutcome | EngineDied | EngineReady


# --- commands: what the engine process hears ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Submit:
    """Do `request`; a job of the same topic that waits or runs is dropped for it."""

    job: int
    topic: str
    priority: Priority
    request: Request


@dataclass(frozen=True, slots=True)
class Cancel:
    """Stop a job at its next step."""

    job: int


Command = Submit | Cancel


# --- framing ------------------------------------------------------------------------------------------------------


def write_message(stream: IO[bytes], message: object) -> None:
    """Write `message` to `stream` and flush it.

    Arrays are sent beside the pickle: neither side copies them, and reading a large one does not hold the interpreter
    (and with it the window) for longer than a small one.
    """
    buffers: list[pickle.PickleBuffer] = []
    body = pickle.dumps(message, protocol=5, buffer_callback=buffers.append)
    parts = [memoryview(body), *(buffer.raw() for buffer in buffers)]
    stream.write(b"".join(_NUMBER.pack(number) for number in (len(parts), *(part.nbytes for part in parts))))
    for part in parts:
        stream.write(part)
    stream.flush()


def read_message(stream: IO[bytes]) -> Any:
    """Return the next message of `stream`, waiting for it.

    Raises:
        EOFError: the other side has closed the stream, or died in the middle of a message.
    """
    (count,) = _NUMBER.unpack(_read(stream, _NUMBER.size))
    sizes = [_NUMBER.unpack(_read(stream, _NUMBER.size))[0] for _ in range(count)]
    body, *buffers = [_read(stream, size) for size in sizes]
    return pickle.loads(body, buffers=buffers)


def _read(stream: IO[bytes], size: int) -> bytearray:
    content = bytearray(size)
    unread = memoryview(content)
    while unread:
        count = stream.readinto(unread)  # type: ignore[attr-defined]  # streams of pipes have it
        if not count:
            raise EOFError
        unread = unread[count:]
    return content
