"""Networks that have a batch of one built in are fed so, and others are not."""

from __future__ import annotations

import builders
import numpy as np
import pytest
from onnx import helper

from quantgui.engine.bench import Bench
from quantgui.engine.requests import Evaluate, OpenData, OpenNetwork
from quantgui.network.datasets import open_dataset
from quantgui.network.rows import fed_as_it_runs
from quantgui.results import DataOpened, EvaluationReady
from quantgui.spec.presets import find_preset, preset_config

RNG = np.random.default_rng(0)


def network_of_one():
    """Return a GRU whose first state has a fixed size, beside an input whose batch axis is free."""
    constants = {"w": builders.values(1, 12, 6, seed=1), "r": builders.values(1, 12, 4, seed=2)}
    nodes = [
        helper.make_node("Transpose", ["x"], ["steps"], perm=[1, 0, 2]),
        helper.make_node("GRU", ["steps", "w", "r", "", "", "h0"], ["", "last"], name="gru", hidden_size=4),
        helper.make_node("Transpose", ["last"], ["y"], perm=[1, 0, 2]),
    ]
    inputs = [builders.tensor_info("x", ["n", "t", 6]), builders.tensor_info("h0", [1, 1, 4])]
    return builders.model_of(nodes, inputs, [builders.tensor_info("y", ["n", 1, 4])], constants)


def test_that_a_network_with_a_state_of_one_sample_is_measured_one_by_one(tmp_path) -> None:
    (tmp_path / "net.onnx").write_bytes(network_of_one().SerializeToString())
    x, h0 = RNG.standard_normal((7, 5, 6)), RNG.standard_normal((1, 1, 4))
    np.savez(tmp_path / "data.npz", x=x.astype(np.float32), h0=h0.astype(np.float32))
    bench = Bench(cache_bytes=2**26)
    list(bench.handle(OpenNetwork(str(tmp_path / "net.onnx"))))
    *_, opened = bench.handle(OpenData(str(tmp_path / "data.npz")))
    assert isinstance(opened, DataOpened)
    assert any("one sample at a time" in note for note in opened.summary.notes)
    config = preset_config(find_preset("W8"), bench.network.summary.layers)
    *_, ready = bench.handle(Evaluate(config))
    assert isinstance(ready, EvaluationReady)


@pytest.mark.parametrize("name", ["batch", "numbers out of range"])
def test_that_other_networks_are_fed_as_they_say(tmp_path, name) -> None:
    if name == "batch":
        network = builders.network_of(builders.mlp_model())
        arrays = {"x": RNG.standard_normal((5, 8)).astype(np.float32)}
    else:
        nodes = [helper.make_node("Gather", ["table", "ids"], ["y"], name="lookup")]
        inputs = [builders.tensor_info("ids", ["n", "t"], 7)]
        outputs = [builders.tensor_info("y", ["n", "t", 4])]
        network = builders.network_of(builders.model_of(nodes, inputs, outputs, {"table": builders.values(9, 4)}))
        arrays = {"ids": np.array([[1, 2], [3, 99], [4, 5]])}
    np.savez(tmp_path / "data.npz", **arrays)
    dataset = open_dataset(str(tmp_path / "data.npz"), network.summary.inputs, network.summary)
    assert fed_as_it_runs(network, dataset) is dataset
