"""Print the speed and memory of the quantization arithmetic, as ratios to a reference measured in the same run.

Run with ``python tests/benchmarks/bench_numerics.py [millions of elements]``.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np

from quantgui.numerics.affine import fake_quantize, fake_quantize_with, measure_weight, weight_qparams
from quantgui.numerics.qparams import choose_qparams
from quantgui.numerics.ranges import weight_ranges
from quantgui.numerics.statistics import collect, estimate_error, quantized_levels_histogram, rebin
from quantgui.spec.formats import IntFormat
from quantgui.spec.granularity import PerChannel, PerGroup
from quantgui.spec.quantizer import LeastSquaredError, QuantizerSpec

PEAK = """
import numpy as np
from quantgui.numerics.affine import fake_quantize
from quantgui.spec.quantizer import QuantizerSpec
x = np.empty(({rows}, 10_000), np.float32)
for row in x:
    row[:] = np.arange(10_000)
def peak():
    lines = open("/proc/self/status").read().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith("VmHWM")).split()[1])
fake_quantize(x[:8].copy(), QuantizerSpec(), 0)
before = peak()
fake_quantize(x, QuantizerSpec(), 0)
print((peak() - before) / x.nbytes)
"""


def seconds(*functions: Callable[[], object], rounds: int = 5) -> list[float]:
    """Return the least time of each function, measured in turns; other work on the machine only adds to it."""
    times: list[list[float]] = [[] for _ in functions]
    for _ in range(rounds + 1):
        for index, function in enumerate(functions):
            start = time.perf_counter()
            function()
            times[index].append(time.perf_counter() - start)
    return [min(measured[1:]) for measured in times]


def row(what: str, value: str, budget: str, *, kept: bool) -> None:
    print(f"| {what} | {value} | {budget} | {'yes' if kept else 'NO'} |")


def fake_quantization(rows: int) -> None:
    import torch

    x = np.random.default_rng(0).standard_normal((rows, 10_000), dtype=np.float32)
    tensor, spec = torch.from_numpy(x), QuantizerSpec()
    qparams = weight_qparams(x, spec, 0)
    scale, zero_point = torch.from_numpy(qparams.scale), torch.from_numpy(qparams.zero_point)

    def reference() -> object:
        return torch.fake_quantize_per_channel_affine(tensor, scale, zero_point, 0, -128, 127)

    given, whole, theirs = seconds(
        lambda: fake_quantize_with(x, spec, qparams), lambda: fake_quantize(x, spec, 0), reference, rounds=3
    )
    size = f"{rows / 100:g} M elements"
    row(
        f"fake quantization with error, {size}, against torch",
        f"{given / theirs:.2f}x",
        "0.50x",
        kept=given <= 0.5 * theirs,
    )
    row(f"the same with its range estimated, {size}", f"{whole / theirs:.2f}x", "0.50x", kept=whole <= 0.5 * theirs)
    peak = float(subprocess.run([sys.executable, "-c", PEAK.format(rows=rows)], capture_output=True, check=True).stdout)
    row("peak memory of it, against the tensor", f"{peak:.2f}x", "1.30x", kept=peak <= 1.3)


def layer() -> None:
    x = np.random.default_rng(0).standard_normal((2_500, 4_000), dtype=np.float32) * np.float32(0.05)
    spec = QuantizerSpec(IntFormat(4))
    histogram, measured, fine = seconds(
        lambda: np.histogram(x, 512), lambda: measure_weight(x, spec, 0), lambda: collect(x), rounds=5
    )
    row("error and both histograms of 10 M weights", f"{measured * 1e3:.0f} ms", "100 ms", kept=measured <= 0.1)
    row("the same against one np.histogram", f"{measured / histogram:.2f}x", "-", kept=True)
    row("fine histogram of 10 M weights against np.histogram", f"{fine / histogram:.2f}x", "-", kept=True)
    statistics = collect(x)

    def what_if() -> None:
        qparams = choose_qparams(-0.1, 0.1, IntFormat(4), symmetric=True)
        estimate_error(statistics, -0.1, 0.1, IntFormat(4), symmetric=True)
        quantized_levels_histogram(statistics, qparams, IntFormat(4))
        rebin(statistics, 512)

    (dragged,) = seconds(what_if, rounds=20)
    row("a dragged limit: error and histograms", f"{dragged * 1e3:.2f} ms", "16 ms", kept=dragged <= 0.016)
    for granularity in (PerChannel(), PerGroup(32)):
        for symmetric in (True, False):
            searched = QuantizerSpec(IntFormat(4), symmetric, granularity, LeastSquaredError())
            (search,) = seconds(lambda s=searched: weight_ranges(x, s, 0), rounds=1)
            name = f"{granularity}, {'symmetric' if symmetric else 'asymmetric'}"
            row(f"least squared error of 10 M weights, {name}", f"{search:.2f} s", "3 s", kept=search <= 3.0)


def main() -> None:
    """Print the table."""
    print("| what | measured | budget | kept |\n|---|---|---|---|")
    layer()
    fake_quantization(int(sys.argv[1]) * 100 if len(sys.argv) > 1 else 10_000)


if __name__ == "__main__":
    main()
