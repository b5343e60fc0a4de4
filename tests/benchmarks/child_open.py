"""Opens a network, looks at one of its layers, and tells how much memory that took."""

from __future__ import annotations

import sys
import time

from quantgui.engine.bench import Bench
from quantgui.engine.requests import OpenNetwork, ViewWeight
from quantgui.spec.presets import weight_spec
from tests.benchmarks.measuring import peak_memory, tell


def main() -> None:
    """Open the network that the command line names."""
    bench = Bench()
    start = time.perf_counter()
    for _ in bench.handle(OpenNetwork(sys.argv[1])):
        pass
    opened = time.perf_counter() - start
    layers = bench.network.summary.layers
    for _ in bench.handle(ViewWeight(layers[len(layers) // 2].name, weight_spec(4))):
        pass
    tell({"peak": peak_memory(), "seconds": opened, "layers": len(layers)})


if __name__ == "__main__":
    main()
