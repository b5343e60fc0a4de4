"""Runs every benchmark once and prints one table: ``python -m tests.benchmarks``, or ``make bench``.

Names of benchmarks (``start window``) run these alone.

Each number stands beside a reference measured in the same run, because machines differ and are busy. The exit code is
1 if a benchmark fails to run, and 0 else: whether a budget is held is read in the table.
"""

from __future__ import annotations

import os
import platform
import sys
import time
import traceback
from importlib import metadata

from quantgui.engine.machine import usable_cores, usable_memory
from tests.benchmarks import (
    bench_memory,
    bench_mix,
    bench_network,
    bench_numerics,
    bench_peers,
    bench_qat,
    bench_sensitivity,
    bench_start,
    bench_window,
)
from tests.benchmarks.measuring import Row, markdown

BENCHMARKS = (
    bench_start,
    bench_window,
    bench_network,
    bench_memory,
    bench_numerics,
    bench_sensitivity,
    bench_peers,
    bench_mix,
    bench_qat,
)
_LIBRARIES = ("numpy", "onnxruntime", "torch", "PySide6-Essentials", "pyqtgraph")


def main() -> int:
    """Print the table and return the exit code."""
    start, load = time.monotonic(), os.getloadavg()[0]
    rows: list[Row] = []
    failed = 0
    for benchmark in BENCHMARKS:
        name = benchmark.__name__.rpartition(".")[2].removeprefix("bench_")
        if sys.argv[1:] and name not in sys.argv[1:]:
            continue
        print(f"{name} ...", file=sys.stderr, flush=True)
        try:
            rows.extend(benchmark.rows())
        except Exception:  # noqa: BLE001 -- the other benchmarks still have something to say
            traceback.print_exc()
            rows.append(Row(name, "failed to run", held=False))
            failed = 1
    print(markdown(rows))
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in _LIBRARIES)
    print(
        f"\n{usable_cores()} cores, {usable_memory() / 2**30:.0f} GiB, Python {platform.python_version()}, {versions}."
        f"\nLoad of the machine before and after {load:.1f}, {os.getloadavg()[0]:.1f} (one for each busy core, this "
        f"run's own work included after it); {time.monotonic() - start:.0f} s in all."
    )
    return failed


if __name__ == "__main__":
    sys.exit(main())
