"""The network and the data that several benchmarks share: efficientnet-lite0 and photographs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.networks import network_path, photographs

NETWORK = "efficientnet-lite0"
SAMPLES = 32
_WIDTH = 16


def network_file() -> Path:
    """Return the network's file."""
    return network_path(NETWORK)


def long_network(folder: Path, layers: int) -> tuple[Path, Path]:
    """Write a network of so many convolutions into `folder`, and samples for it; return both files."""
    random = np.random.default_rng(0)
    nodes, weights, last = [], [], "input"
    for place in range(layers):
        name = f"/blocks.{place // 4}/conv{place % 4}"
        weight = random.standard_normal((_WIDTH, _WIDTH, 3, 3), dtype=np.float32) * np.float32(0.08)
        weights.append(numpy_helper.from_array(weight, f"{name}.weight"))
        nodes.append(helper.make_node("Conv", [last, f"{name}.weight"], [f"c{place}"], f"{name}/Conv", pads=[1] * 4))
        nodes.append(helper.make_node("Relu", [f"c{place}"], [f"r{place}"], f"{name}/Relu"))
        last = f"r{place}"
        if place % 4 == 3:
            nodes.append(helper.make_node("Add", [last, f"r{place - 3}"], [f"a{place}"], f"{name}/Add"))
            last = f"a{place}"
    shape = ["n", _WIDTH, 16, 16]
    ends = (helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("input", last))
    graph = helper.make_graph(nodes, "long", [next(ends)], [next(ends)], weights)
    path, data = folder / f"layers{layers}.onnx", folder / "maps.npy"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    np.save(data, random.standard_normal((8, _WIDTH, 16, 16), dtype=np.float32))
    return path, data


def data_file(folder: Path) -> Path:
    """Write photographs for the network into `folder` and return their file."""
    path = folder / "photographs.npy"
    if not path.exists():
        np.save(path, photographs(SAMPLES))
    return path
