"""Calibrates demosaicnet and tells how much memory that took beyond what the open network and data take."""

from __future__ import annotations

import sys

from quantgui.engine.bench import Bench
from quantgui.engine.requests import Calibrate, OpenData, OpenNetwork
from quantgui.results import Calibrated
from tests.benchmarks.measuring import peak_memory, tell


def main() -> None:
    """Calibrate with as many samples as the command line says."""
    network, data, samples = sys.argv[1], sys.argv[2], int(sys.argv[3])
    bench = Bench()
    for request in (OpenNetwork(network), OpenData(data)):
        for _ in bench.handle(request):
            pass
    before = peak_memory()
    values = 0
    for event in bench.handle(Calibrate(samples)):
        if isinstance(event, Calibrated):
            values = sum(ready.statistics.count for ready in event.activations.values())
    tell({"peak": peak_memory(), "more": peak_memory() - before, "bytes": 4 * values})


if __name__ == "__main__":
    main()
