"""What ONNX Runtime's own quantizer takes for one candidate of a sweep, in a loop: ``child_peers NETWORK SAMPLES``.

What its users do: quantize one node statically, calibrated on the same samples, load the file, run the samples, compare
the outputs. F is one float forward of the samples, as in `child_sensitivity`; the sweep of `analysis.sensitivity` runs
in the same process in turns with it.
"""

from __future__ import annotations

import logging
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from quantgui.analysis.sensitivity import measure_sensitivity
from quantgui.engine.machine import usable_cores
from quantgui.network.datasets import open_dataset
from quantgui.network.executor import Executor
from quantgui.network.reader import open_network
from quantgui.results import Sensitivity
from quantgui.spec.sweep import Sweep, bits_specs
from tests.benchmarks.child_sensitivity import CACHE_BYTES, Forward
from tests.benchmarks.measuring import tell
from tests.networks import network_path, write_samples

TRIED = 4
"""Nodes of the loop: every one costs alike."""


class Samples(CalibrationDataReader):  # type: ignore[misc]
    """Feeds prepared batches."""

    def __init__(self, inputs: list[dict[str, np.ndarray]]) -> None:
        self._inputs: Iterator[dict[str, np.ndarray]] = iter(inputs)

    def get_next(self) -> dict[str, np.ndarray] | None:
        """Return the next batch, None after the last."""
        return next(self._inputs, None)


def loop(path: Path, inputs: list[dict[str, np.ndarray]], folder: Path) -> float:
    """Return the seconds for one candidate of the loop."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = usable_cores()
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    expected = [session.run(None, feeds)[0] for feeds in inputs]
    nodes = [node.name for node in onnx.load(path).graph.node if node.op_type in ("Conv", "MatMul", "Gemm")]
    chosen = [nodes[i] for i in np.linspace(0, len(nodes) - 1, TRIED).astype(int)]
    start = time.perf_counter()
    for name in chosen:
        quantized = folder / "quantized.onnx"
        quantize_static(
            str(path), str(quantized), Samples(inputs), quant_format=QuantFormat.QDQ, per_channel=True,
            weight_type=QuantType.QInt8, nodes_to_quantize=[name],
        )  # fmt: skip
        session = onnxruntime.InferenceSession(str(quantized), options, providers=["CPUExecutionProvider"])
        noise = sum(float(np.square(session.run(None, f)[0] - e).sum()) for f, e in zip(inputs, expected, strict=True))
        assert np.isfinite(noise)
    return (time.perf_counter() - start) / len(chosen)


def main() -> None:
    """Print what was measured."""
    logging.disable(logging.WARNING)
    name, samples = sys.argv[1], int(sys.argv[2])
    path = network_path(name)
    network = open_network(path)
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        data = open_dataset(
            str(write_samples(name, folder, samples)), network.summary.inputs, network.summary, network=network
        )
        forward = Forward(network, data)
        inputs = [dict(batch.inputs) for batch in data.batches()]
        forwards = [forward.run()[0] for _ in range(3)]
        theirs = loop(Path(path), inputs, folder)
        forwards += [forward.run()[0] for _ in range(3)]
        executor = Executor(network, cache_bytes=CACHE_BYTES, threads=usable_cores())
        start = time.perf_counter()
        *_, table = measure_sensitivity(executor, data, Sweep(bits_specs((4, 6, 8)), exact=True), {})
        ours = time.perf_counter() - start
        forwards += [forward.run()[0] for _ in range(3)]
    assert isinstance(table, Sensitivity)
    unit = float(np.median(forwards))
    tell({"ours": ours / len(table.candidates) / unit, "theirs": theirs / unit})


if __name__ == "__main__":
    main()
