"""The executor on real networks, against one ONNX Runtime session of the file as it was shipped."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import networks
import numpy as np
import onnxruntime
import pytest

from quantgui.network.batch import Batch
from quantgui.network.datasets import Dataset, open_dataset
from quantgui.network.executor import Executor
from quantgui.network.network import Network
from quantgui.network.reader import open_network
from quantgui.network.session import create_session
from quantgui.network.simulation import FLOAT_SIMULATION, Override, Simulation, TensorQuantizer
from quantgui.spec.formats import IntFormat

pytestmark = pytest.mark.network

LARGE = ["ppocr-cls", "minilm", "efficientnet-lite0"]


@cache
def network(name: str) -> Network:
    return open_network(networks.network_path(name))


def dataset(name: str, samples: int = 4) -> Dataset:
    summary = network(name).summary
    return open_dataset(f"random:{samples}", summary.inputs, summary, network=network(name))


def assert_close(results: dict[str, np.ndarray], expected: list[np.ndarray], tolerance: float) -> None:
    for value, wanted in zip(results.values(), expected, strict=True):
        assert value.shape == wanted.shape
        np.testing.assert_allclose(value, wanted, rtol=0, atol=tolerance * max(float(np.abs(wanted).max()), 1e-2))


@pytest.mark.parametrize("name", networks.network_names())
def test_that_segments_give_what_the_shipped_file_gives(name: str) -> None:
    shipped = onnxruntime.InferenceSession(str(networks.network_path(name)), providers=["CPUExecutionProvider"])
    executor = Executor(network(name))
    for batch, (outputs,) in filter(None, executor.run_sequence(dataset(name, 2).batches())):
        assert_close(outputs, shipped.run(None, dict(batch.inputs)), 1e-4)


@pytest.mark.parametrize("name", LARGE)
def test_that_a_changed_weight_in_the_middle_gives_what_the_whole_changed_network_gives(name: str) -> None:
    net = network(name)
    batch = next(dataset(name).batches())
    executor = Executor(net)
    executor.run(batch)
    float_runs = executor.segments_run
    middle = net.summary.layers[len(net.summary.layers) // 2].weight
    changed = {**net.constants, middle: net.constants[middle] * 0.5}
    outputs = executor.run(batch, Simulation({middle: Override("halved", lambda: changed[middle])}))
    assert_close(outputs, create_session(net.skeleton, changed).run(None, dict(batch.inputs)), 1e-5)
    assert executor.segments_run - float_runs < executor.segment_count


@pytest.mark.parametrize("name", [*LARGE, "silero", "silero-op15"])
def test_that_quantizers_give_the_same_in_segments_and_in_one_piece(name: str) -> None:
    net = network(name)
    batch = next(dataset(name).batches())
    executor, in_one = Executor(net), Executor(net, segmented=False)
    tensors = [layer.input_tensor for layer in net.summary.layers if executor.fetchable(layer.input_tensor)]
    quantizers, coarse = {}, {}
    for tensor, value in executor.stream(batch, FLOAT_SIMULATION, list(dict.fromkeys(tensors))):
        if value.dtype == np.float32:
            low, high = min(float(value.min()), 0.0), max(float(value.max()), 1e-3)
            scale = (high - low) / 65535
            quantizers[tensor] = (TensorQuantizer(IntFormat(16, signed=False), scale, round(-low / scale)),)
            coarse[tensor] = (
                TensorQuantizer(IntFormat(3, signed=False), scale * 65535 / 7, round(-low / scale * 7 / 65535)),
            )
    simulation = Simulation(quantizers=quantizers)
    # 16 bits: a last-bit difference of float arithmetic moves a code by one, which must not be visible.
    outputs = executor.run(batch, simulation)
    assert_close(outputs, list(in_one.run(batch, simulation).values()), 2e-3)
    rough = executor.run(batch, Simulation(quantizers=coarse))
    assert not coarse or any((rough[k] != v).any() for k, v in executor.run(batch).items())


def test_that_state_is_carried_through_the_shipped_network() -> None:
    shipped = onnxruntime.InferenceSession(str(networks.network_path("silero")), providers=["CPUExecutionProvider"])
    state = np.zeros((2, 1, 128), np.float32)
    executor = Executor(network("silero"))
    answers = filter(None, executor.run_sequence(dataset("silero", 6).batches()))
    steps = [(batch, outputs) for batch, (outputs,) in answers]
    assert len(steps) == 6
    for batch, outputs in steps:
        feed = {"input": batch.inputs["input"], "state": state, "sr": batch.inputs["sr"]}
        output, state = shipped.run(None, feed)
        np.testing.assert_allclose(outputs["output"], output, atol=1e-5)
    np.testing.assert_allclose(steps[-1][1]["stateN"], state, atol=1e-4)


def test_that_another_size_of_input_runs_on_the_same_cuts() -> None:
    executor = Executor(network("ppocr-rec"))
    first = next(dataset("ppocr-rec", 1).batches())
    executor.run(first)
    wide = replace(first, inputs={"x": np.random.default_rng(1).random((2, 3, 48, 200), np.float32)}, key="wide")
    expected = create_session(network("ppocr-rec").skeleton, network("ppocr-rec").constants).run(
        None, dict(wide.inputs)
    )
    assert_close(executor.run(Batch(wide.inputs, None, 0, 2, "wide")), expected, 1e-5)
