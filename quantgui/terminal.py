"""What the command line shows: tables, numbers, one line of progress, JSON without surprises."""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, TextIO

from quantgui.results import Progress, Score
from quantgui.wording import duration

_REPORT_SECONDS: Final = 0.1


def has_display() -> bool:
    """Return whether a window can be shown: Qt aborts the process where it cannot."""
    if sys.platform != "linux":
        return True
    if os.environ.get("QT_QPA_PLATFORM", "").split(":")[0] not in ("", "xcb", "wayland"):
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


# --- streams ------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def reserved_stdout() -> Iterator[TextIO]:
    """Give standard output to the caller alone; prints of user code and of native libraries go to standard error."""
    out = sys.stdout
    try:
        is_real = out.fileno() == 1
    except (OSError, ValueError):
        is_real = False
    if not is_real:
        with contextlib.redirect_stdout(sys.stderr):
            yield out
        return
    out.flush()
    own = os.dup(1)
    os.dup2(2, 1)
    try:
        stream = os.fdopen(own, "w", encoding=out.encoding, errors="backslashreplace", closefd=False)
        try:
            with contextlib.redirect_stdout(sys.stderr):
                yield stream
        finally:
            # Whoever writes flushes too; what could not be written then is not written now.
            with contextlib.suppress(OSError):
                stream.close()
    finally:
        os.dup2(own, 1)
        os.close(own)


class ProgressLine:
    """One line on a terminal that is written over again and again; silent where `stream` is no terminal."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._is_live = stream.isatty()
        self._shown = 0.0
        self._width = 0
        self._started: dict[str, float] = {}

    def show(self, progress: Progress, detail: str = "") -> None:
        """Show how far a computation is, how long it will take, and what is known already."""
        now = time.monotonic()
        started = self._started.setdefault(progress.label, now)
        if not self._is_live or now - self._shown < _REPORT_SECONDS:
            return
        self._shown = now
        text = progress.label
        if progress.total:
            text += f" {100 * progress.done / progress.total:.0f} %"
        left = progress.seconds_left
        if left is None and 0 < progress.done < progress.total:
            left = (now - started) / progress.done * (progress.total - progress.done)
        if left is not None:
            text += f", {duration(left)} left"
        if detail:
            text += f": {detail}"
        self._write(text)

    def clear(self) -> None:
        """Take the line away, before something else is written."""
        if self._width:
            self._write("")
            self._stream.write("\r")
            self._stream.flush()
            self._width = 0

    def _write(self, text: str) -> None:
        text = text[: shutil.get_terminal_size().columns - 1]
        self._stream.write(f"\r{text:{self._width}}")
        self._stream.flush()
        self._width = len(text)


# --- JSON ---------------------------------------------------------------------------------------------------------


def json_text(value: Mapping[str, Any]) -> str:
    """Return `value` as JSON, which has no infinite numbers and no NaN.

    What is endless, such as the output SQNR of equal outputs, becomes the string ``"inf"`` or ``"-inf"``; what is not
    known (NaN) becomes null.
    """
    return json.dumps(_finite(value), indent=2, allow_nan=False)


def score_json(score: Score) -> dict[str, Any]:
    """Return a score as JSON values."""
    return {"value": score.value, "stderr": score.stderr, "samples": score.samples}


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    if isinstance(value, bool | int | str) or value is None:
        return value
    number = float(value)
    if math.isinf(number):
        return "inf" if number > 0 else "-inf"
    return None if math.isnan(number) else number


# --- text ---------------------------------------------------------------------------------------------------------


def table(rows: Sequence[Sequence[str]], *, left: int = 1) -> str:
    """Return aligned columns; the first `left` of them to the left, the others to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = (
        "  ".join(
            f"{cell:<{width}}" if column < left else f"{cell:>{width}}"
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )
    return "\n".join(f"  {line}".rstrip() for line in lines)
