"""The network and the data that several benchmarks share: efficientnet-lite0 and photographs."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.networks import network_path, photographs

NETWORK = "efficientnet-lite0"
SAMPLES = 32


def network_file() -> Path:
    """Return the network's file."""
    return network_path(NETWORK)


def data_file(folder: Path) -> Path:
    """Write photographs for the network into `folder` and return their file."""
    path = folder / "photographs.npy"
    if not path.exists():
        np.save(path, photographs(SAMPLES))
    return path
