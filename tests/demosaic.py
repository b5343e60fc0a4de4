"""The material of the demosaicking journey: network, pictures of scikit-image, and PSNR as the user's own metric."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import NamedTuple

import networks
import numpy as np

METRIC = '''
import numpy as np


def psnr(outputs, labels):
    """Peak signal-to-noise ratio of each picture in dB, larger is better."""
    error = np.square(outputs.astype(np.float64) - labels).mean(axis=(1, 2, 3))
    return 10 * np.log10(1 / error)
'''


class Material(NamedTuple):
    """Where everything lies."""

    network: Path
    data: Path
    metric: str


def write_material(folder: Path, pictures: int = 8) -> Material:
    """Write the network, the data and the metric function into `folder`."""
    network, data, metric = folder / "demosaicnet.onnx", folder / "mosaics.npz", folder / "psnr.py"
    shutil.copyfile(networks.network_path("demosaicnet"), network)
    mosaics, truth = networks.mosaics(pictures)
    np.savez(data, input=mosaics, labels=truth)
    metric.write_text(METRIC)
    return Material(network, data, f"{metric}:psnr")
