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

_REPORT_SECONDS: Final = 0.1
_PERCENT: Final = ("accuracy", "agreement")


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
    """Return `value` as JSON; infinite numbers and NaN, which JSON does not have, become null."""
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
    return number if math.isfinite(number) else None


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


def size(count: float) -> str:
    """Return bytes in B, KB, MB, GB of 1000.

    >>> size(288_000), size(17_300_000), size(12)
    ('288 KB', '17.3 MB', '12 B')
    """
    for limit, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "KB")):
        if count >= limit:
            value = count / limit
            return f"{value:.0f} {unit}" if value >= 99.95 else f"{value:.1f} {unit}"
    return f"{count:.0f} B"


def times_smaller(before: float, after: float) -> str:
    """Return how many times smaller something has become.

    >>> times_smaller(8000, 2000)
    '4.0x'
    """
    return f"{before / after:.1f}x" if after else ""


def duration(seconds: float) -> str:
    """Return a time as people say it.

    >>> duration(0.34), duration(12.6), duration(75), duration(3700)
    ('0.3 s', '13 s', '1:15 min', '1:01 h')
    """
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02d} min"
    return f"{whole // 3600}:{whole % 3600 // 60:02d} h"


def metric_name(metric: str) -> str:
    """Return the words for a metric.

    >>> metric_name("output_sqnr_db"), metric_name("accuracy"), metric_name("psnr")
    ('output SQNR', 'accuracy', 'psnr')
    """
    return {"output_sqnr_db": "output SQNR", "kl": "KL divergence"}.get(metric, metric)


def score_text(metric: str, score: Score) -> str:
    """Return a score with its standard error and unit.

    >>> score_text("accuracy", Score(0.9861, 0.0052, 500)), score_text("output_sqnr_db", Score(31.24, 0.2, 8))
    ('98.61 ± 0.52 %', '31.24 ± 0.20 dB')
    """
    factor, unit = (100.0, " %") if metric in _PERCENT else (1.0, " dB" if metric == "output_sqnr_db" else "")
    if score.value == math.inf:
        return "exact"
    if not math.isfinite(score.value):
        return "not a number" if math.isnan(score.value) else "-infinite"
    decimals = 2 if factor > 1 or unit or abs(score.value) >= 10 else 4
    text = f"{factor * score.value:.{decimals}f}"
    if math.isfinite(score.stderr):
        text += f" ± {factor * score.stderr:.{decimals}f}"
    return text + unit


def decibel(value: float) -> str:
    """Return a ratio in dB.

    >>> decibel(31.24), decibel(math.inf)
    ('31.2 dB', 'exact')
    """
    return "exact" if value == math.inf else f"{value:.1f} dB"
