"""The window's end of the engine: starts the process, sends requests, hears events, survives its death.

Needs neither Qt nor onnx nor onnxruntime. No method waits for the engine; events arrive in a background thread.

Life of the process: start -> `EngineReady` -> jobs -> it dies (crash, kill, out of memory) -> `EngineDied`, the jobs
it had begun fail, a new process is started, what was open is opened again, jobs that still waited are sent again ->
`EngineReady`. After three deaths within a minute without one finished job in between it is left alone until
`restart`.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import IO, Final, assert_never

from quantgui.engine.messages import (
    Cancel,
    Command,
    EngineDied,
    EngineEvent,
    EngineReady,
    JobCancelled,
    JobDone,
    JobEvent,
    JobFailed,
    JobStarted,
    Submit,
    read_message,
    write_message,
)
from quantgui.engine.requests import OpenData, OpenNetwork, Priority, Request, SetMetric
from quantgui.paths import engine_log

MAX_DEATHS: Final = 3
DEATH_WINDOW_SECONDS: Final = 60.0
_CLOSE_SECONDS: Final = 0.5
_TERMINATE_SECONDS: Final = 2.0

REOPEN_TOPIC: Final = "reopen"
"""Topic of the failures of what was open before the engine died and cannot be opened again."""

_LOG = logging.getLogger(__name__)

# The child gets the parent's search path, as it would from multiprocessing, whatever folder it is started in.
_BOOTSTRAP = (
    "import json, signal, sys; signal.signal(signal.SIGINT, signal.SIG_IGN); sys.path[:] = json.loads(sys.argv[1]); "
    "from quantgui.engine.server import main; main()"
)


@dataclass(eq=False)
class _Job:
    command: Submit
    started: bool = False
    cancelled: bool = False


@dataclass(eq=False)
class _Generation:
    """One life of the engine process."""

    outbox: queue.SimpleQueue[Command | None] = field(default_factory=queue.SimpleQueue)
    process: subprocess.Popen[bytes] | None = None
    reopening: set[int] = field(default_factory=set)
    killed_on_purpose: bool = False


class EngineClient:
    """The engine process, seen from the window's process.

    Args:
        on_event: called in a background thread with everything that happens, in order.
        command: how the process is started; by default this Python with `quantgui.engine.server`.
    """

    def __init__(self, on_event: Callable[[EngineEvent], None], command: Sequence[str] | None = None) -> None:
        self._on_event = on_event
        self._command = command
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._generation = _Generation()
        self._jobs: dict[int, _Job] = {}
        self._next_job = 1
        self._opened: dict[str, Request] = {}
        self._deaths: deque[float] = deque(maxlen=MAX_DEATHS)
        self._stopped = False
        self._closed = False
        self._thread = threading.Thread(target=self._live, name="engine client", daemon=True)
        self._thread.start()

    # --- what the window calls ------------------------------------------------------------------------------------

    def submit(self, request: Request, *, topic: str, priority: Priority) -> int:
        """Send a request and return its job number; a job of the same topic is dropped for it."""
        with self._lock:
            number = self._next_job
            self._next_job += 1
            command = Submit(number, topic, priority, request)
            self._jobs[number] = _Job(command)
            self._generation.outbox.put(command)
            self._changed.notify_all()
        return number

    def cancel(self, job: int) -> None:
        """Stop a job at its next step; nothing happens where it has ended already."""
        with self._lock:
            if job in self._jobs:
                self._jobs[job].cancelled = True
                self._generation.outbox.put(Cancel(job))
                self._changed.notify_all()

    def restart(self) -> None:
        """End the process, whatever it does, and start a new one; all jobs are cancelled, what is open stays open."""
        with self._lock:
            for job in self._jobs.values():
                job.cancelled = True
            self._deaths.clear()
            self._stopped = False
            self._generation.killed_on_purpose = True
            process = self._generation.process
            self._changed.notify_all()
        if process is not None:
            process.kill()

    def close(self) -> None:
        """End the process, at once even where it is busy, and hear nothing of it any more."""
        with self._lock:
            self._closed = True
            generation = self._generation
            generation.outbox.put(None)
            self._changed.notify_all()
        if generation.process is not None:
            _end(generation.process)
        if threading.current_thread() is not self._thread:
            self._thread.join(_TERMINATE_SECONDS)

    @property
    def process_id(self) -> int | None:
        """Number of the engine process, None while there is none."""
        process = self._generation.process
        return None if process is None or process.poll() is not None else process.pid

    # --- the background thread ------------------------------------------------------------------------------------

    def _live(self) -> None:
        while True:
            generation = self._begin()
            if generation is None:
                return
            failure = self._run(generation)
            if self._closed:
                return
            self._bury(generation, failure)
            if not self._await_leave_to_start():
                return

    def _begin(self) -> _Generation | None:
        """Make ready for a new process: first what was open is opened again, then what has not been begun is sent."""
        with self._lock:
            if self._closed:
                return None
            generation = self._generation = _Generation()
            for number, request in enumerate(self._opened.values(), start=1):
                # Numbers below 0 are never those of a job of the window.
                generation.reopening.add(-number)
                generation.outbox.put(Submit(-number, f"{REOPEN_TOPIC} {number}", Priority.OPEN, request))
            for job in self._jobs.values():
                generation.outbox.put(job.command)
                if job.cancelled:
                    generation.outbox.put(Cancel(job.command.job))
            return generation

    def _run(self, generation: _Generation) -> str:
        """Live through one process and return why it ended."""
        try:
            process = self._start()
        except OSError as error:
            return f"The engine process cannot be started: {error.strerror}"
        with self._lock:
            generation.process = process
            unwanted = self._closed or generation.killed_on_purpose
        if unwanted:
            process.kill()
        writer = threading.Thread(target=_write, args=(process.stdin, generation.outbox), daemon=True)
        writer.start()
        assert process.stdout is not None
        with contextlib.suppress(EOFError), process.stdout as stdout:
            while True:
                self._hear(generation, read_message(stdout))
        if not self._closed:
            # A process that has closed its end is of no use, even where it still runs.
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_TERMINATE_SECONDS)
        process.kill()
        code = process.wait()
        generation.outbox.put(None)
        writer.join()
        return _reason(code)

    def _start(self) -> subprocess.Popen[bytes]:
        command = self._command or [sys.executable, "-P", "-c", _BOOTSTRAP, json.dumps(sys.path)]
        environment = {**os.environ, "QUANTGUI_ENGINE_LOG": str(engine_log())}
        flags = 0
        if sys.platform == "win32":
            flags = subprocess.BELOW_NORMAL_PRIORITY_CLASS | subprocess.CREATE_NO_WINDOW
        return subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, creationflags=flags
        )

    def _hear(self, generation: _Generation, event: EngineEvent) -> None:
        match event:
            case EngineReady():
                if not generation.reopening:
                    self._tell(event)
            case EngineDied():
                raise EOFError
            case JobStarted() | JobEvent() | JobDone() | JobFailed() | JobCancelled():
                if event.job in generation.reopening:
                    self._hear_of_reopening(generation, event)
                else:
                    self._hear_of_job(event)
            case _:
                assert_never(event)

    def _hear_of_reopening(
        self, generation: _Generation, event: JobStarted | JobEvent | JobDone | JobFailed | JobCancelled
    ) -> None:
        if isinstance(event, JobStarted | JobEvent):
            return
        generation.reopening.discard(event.job)
        if isinstance(event, JobFailed):
            self._tell(JobFailed(event.job, REOPEN_TOPIC, event.sentence, event.details))
        if not generation.reopening:
            self._tell(EngineReady())

    def _hear_of_job(self, event: JobStarted | JobEvent | JobDone | JobFailed | JobCancelled) -> None:
        with self._lock:
            job = self._jobs.get(event.job)
            if job is None:
                return
            if isinstance(event, JobStarted):
                job.started = True
            elif not isinstance(event, JobEvent):
                del self._jobs[event.job]
            if isinstance(event, JobDone):
                self._deaths.clear()
                self._remember(job.command.request)
        self._tell(event)

    def _remember(self, request: Request) -> None:
        match request:
            case OpenNetwork():
                # What was opened for the network before is forgotten; the metric is the user's and stays.
                self._opened = {"network": request, **{k: v for k, v in self._opened.items() if k == "metric"}}
            case OpenData():
                self._opened["data"] = request
            case SetMetric():
                self._opened["metric"] = request
            case _:
                pass

    def _bury(self, generation: _Generation, reason: str) -> None:
        """Report a death: what had been begun has failed, what is unwanted is cancelled, the rest is sent again."""
        with self._lock:
            on_purpose = generation.killed_on_purpose
            if not on_purpose:
                now = time.monotonic()
                self._deaths.append(now)
                often = len(self._deaths) == MAX_DEATHS and now - self._deaths[0] < DEATH_WINDOW_SECONDS
                self._stopped = often
            ended = [j for j in self._jobs.values() if j.started or j.cancelled or self._stopped]
            for job in ended:
                del self._jobs[job.command.job]
            stopped = self._stopped
        if stopped:
            sentence = (
                f"{reason}, {MAX_DEATHS} times in a minute; it is not started again by itself. Your work is kept."
            )
        else:
            sentence = f"{reason}; it is started again and your work is kept."
        if not on_purpose:
            _LOG.warning(sentence)
            self._tell(EngineDied(sentence, restarting=not stopped))
        for job in ended:
            number, topic = job.command.job, job.command.topic
            self._tell(JobCancelled(number, topic) if job.cancelled else JobFailed(number, topic, sentence))

    def _await_leave_to_start(self) -> bool:
        """Wait while the engine is stopped, failing what is asked of it; return False when the client is closed."""
        while True:
            with self._lock:
                while self._stopped and not self._closed and not self._jobs:
                    self._changed.wait()
                if self._closed:
                    return False
                if not self._stopped:
                    return True
                refused = list(self._jobs.values())
                self._jobs.clear()
            for job in refused:
                number, topic = job.command.job, job.command.topic
                self._tell(JobFailed(number, topic, "The engine is stopped; restart it first."))

    def _tell(self, event: EngineEvent) -> None:
        if not self._closed:
            self._on_event(event)


def _write(stdin: IO[bytes], outbox: queue.SimpleQueue[Command | None]) -> None:
    """Send commands until there is None; a thread of its own, so that no caller ever waits for a full pipe."""
    with contextlib.suppress(BrokenPipeError, OSError), stdin:
        while (command := outbox.get()) is not None:
            write_message(stdin, command)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Wait until the process ends by its closed input, then be less polite."""
    for seconds, insist in ((_CLOSE_SECONDS, process.terminate), (_TERMINATE_SECONDS, process.kill)):
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            insist()
        else:
            return
    process.wait()


def _reason(code: int) -> str:
    match -code:
        case signal.SIGTERM:
            return "The engine process was ended from outside"
        case 9:  # SIGKILL, which Windows does not name
            return "The engine process was killed, most likely because the memory ran out"
        case number if number > 0:
            name = signal.Signals(number).name if number in {s.value for s in signal.Signals} else f"signal {number}"
            return f"The engine process crashed in native code ({name})"
        case _:
            return f"The engine process ended unexpectedly (exit code {code}, see {engine_log()})"
