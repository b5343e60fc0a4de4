"""What all benchmarks share: rows of the table, times taken in turns, and work in processes of its own."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_HEAD = ("what", "measured", "reference in the same run", "ratio", "budget", "held?")
_MEMORY = "/proc/self/status"


@dataclass(frozen=True)
class Row:
    """One line of the table; `held` is None where there is no budget."""

    what: str
    measured: str
    reference: str = ""
    ratio: float | None = None
    budget: str = ""
    held: bool | None = None

    @property
    def cells(self) -> tuple[str, ...]:
        """What stands in the columns."""
        ratio = "" if self.ratio is None else f"{self.ratio:.2f}"
        return (
            self.what,
            self.measured,
            self.reference,
            ratio,
            self.budget,
            {True: "yes", False: "NO"}.get(self.held, ""),
        )


def ratio_row(what: str, measured: str, reference: str, ratio: float, most: float) -> Row:
    """Return a row whose budget is a ratio."""
    return Row(what, measured, reference, ratio, f"<= {most:g}x", ratio <= most)


def markdown(rows: Iterable[Row]) -> str:
    """Return the rows as a Markdown table with aligned columns."""
    cells = [_HEAD, *(row.cells for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(_HEAD))]
    lines = [" | ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)) for line in cells]
    lines = [f"| {line} |" for line in lines]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def seconds(*functions: Callable[[], object], rounds: int = 5, warm_up: bool = True) -> list[float]:
    """Return the least time of each function, measured in turns: other work on the machine only adds to it."""
    times: list[list[float]] = [[] for _ in functions]
    for _ in range(rounds + warm_up):
        for measured, function in zip(times, functions, strict=True):
            measured.append(timed(function))
    return [min(measured[warm_up:]) for measured in times]


def timed(function: Callable[[], object]) -> float:
    """Return the seconds that one call takes."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def medians(*functions: Callable[[], float], rounds: int) -> list[float]:
    """Return the median of what each function returns, called in turns."""
    values: list[list[float]] = [[] for _ in functions]
    for _ in range(rounds):
        for found, function in zip(values, functions, strict=True):
            found.append(function())
    return [statistics.median(found) for found in values]


def start_child(module: str, *arguments: object, environment: dict[str, str] | None = None) -> subprocess.Popen[str]:
    """Start ``tests.benchmarks.<module>`` in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", f"tests.benchmarks.{module}", *(str(argument) for argument in arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
        env={**os.environ, **(environment or {})},
    )


def answer(child: subprocess.Popen[str], most_seconds: float = 120.0) -> Any:
    """Return what the child has printed last, as JSON.

    Raises:
        RuntimeError: it has failed.
    """
    try:
        out, err = child.communicate(timeout=most_seconds)
    except subprocess.TimeoutExpired as error:
        child.kill()
        child.communicate()
        raise RuntimeError(f"{child.args!r} has not ended after {most_seconds:g} s") from error
    if child.returncode or not out.strip():
        raise RuntimeError(f"{child.args!r} has failed with {child.returncode}:\n{err}")
    return json.loads(out.strip().splitlines()[-1])


def run_child(module: str, *arguments: object, environment: dict[str, str] | None = None) -> Any:
    """Run ``tests.benchmarks.<module>`` in a process of its own and return what it prints last, as JSON."""
    return answer(start_child(module, *arguments, environment=environment))


def tell(value: object) -> None:
    """Print the answer of a child."""
    print(json.dumps(value), flush=True)


def own_home(folder: Path) -> dict[str, str]:
    """Return an environment without a display in which the program keeps its files in `folder`."""
    names = ("XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME")
    return {"QT_QPA_PLATFORM": "offscreen", **{name: str(folder / name.lower()) for name in names}}


def peak_memory() -> int:
    """Return the most bytes that this process has held in memory at once, files it has mapped included."""
    return _memory("VmHWM")


def _memory(field: str) -> int:
    lines = Path(_MEMORY).read_text(encoding="ascii").splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(field + ":")).split()[1])


def milliseconds(value: float) -> str:
    """Return a duration in words."""
    return f"{value * 1e3:.1f} ms" if value < 0.01 else f"{value * 1e3:.0f} ms" if value < 1 else f"{value:.2f} s"


def megabytes(value: float) -> str:
    """Return a size in words."""
    return f"{value / 2**20:.0f} MiB"
