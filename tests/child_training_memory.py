"""Train where memory is short, and print what is said: run in a process of its own by a test.

Arguments: a folder, bytes that are left, what is trained at once.
"""

from __future__ import annotations

import resource
import sys
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

from quantgui.engine.bench import Bench
from quantgui.engine.requests import OpenData, OpenNetwork, Train
from quantgui.engine.scheduler import describe
from quantgui.spec.config import QuantConfig
from quantgui.spec.presets import weight_spec
from quantgui.spec.quantizer import LayerSpec
from quantgui.spec.training import Training

_W4 = QuantConfig(LayerSpec(weight_spec(4)), name="W4")


def _write(folder: Path) -> tuple[str, str]:
    random = np.random.default_rng(0)
    nodes, weights, value = [], [], "x"
    for i in range(4):
        shape = (32, 3 if i == 0 else 32, 3, 3)
        weights.append(numpy_helper.from_array((0.1 * random.standard_normal(shape)).astype(np.float32), f"w{i}"))
        nodes.append(helper.make_node("Conv", [value, f"w{i}"], [f"c{i}"], pads=[1] * 4, name=f"conv{i}"))
        nodes.append(helper.make_node("Relu", [f"c{i}"], [f"r{i}"]))
        value = f"r{i}"
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 96, 96])]
    outputs = [helper.make_tensor_value_info(value, TensorProto.FLOAT, ["n", 32, 96, 96])]
    graph = helper.make_graph(nodes, "wide", inputs, outputs, weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), folder / "net.onnx")
    np.save(folder / "data.npy", random.standard_normal((24, 3, 96, 96)).astype(np.float32))
    return str(folder / "net.onnx"), str(folder / "data.npy")


def _trained(bench: Bench, training: Training) -> str:
    try:
        for _ in bench.handle(Train(_W4, training)):
            pass
    except Exception as error:  # noqa: BLE001 -- what is said of it is what is tested
        sentence, details = describe(error)
        return sentence + details
    return "trained"


def main() -> None:
    """Train once with memory, then without."""
    network, data = _write(Path(sys.argv[1]))
    torch.set_num_threads(1)
    bench = Bench(threads=1)
    for request in (OpenNetwork(network), OpenData(data)):
        for _ in bench.handle(request):
            pass
    scope = "blocks" if sys.argv[3] == "blocks" else "network"
    # Threads and buffers of the libraries are there before memory becomes short.
    print(_trained(bench, Training(steps=1, batch_size=1, scope=scope)))
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + int(sys.argv[2]),) * 2)
    print(_trained(bench, Training(steps=4, batch_size=24, scope=scope)))


if __name__ == "__main__":
    main()
