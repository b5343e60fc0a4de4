"""Times of single layers: which are measured; how long they are depends on the machine."""

from __future__ import annotations

import math
from pathlib import Path

import builders
import onnx
import pytest

from quantgui.analysis.calibration import calibrate
from quantgui.analysis.mix_choices import network_cost
from quantgui.analysis.simulation import activation_tensors
from quantgui.export.latency import Seconds, measure_latencies
from quantgui.network.datasets import open_dataset
from quantgui.network.executor import Executor
from quantgui.network.reader import open_network
from quantgui.results import Calibrated
from quantgui.spec.config import QuantConfig
from quantgui.spec.quantizer import FLOAT
from quantgui.spec.sweep import bits_specs

SPECS = bits_specs((4, 8))


def measured(model: onnx.ModelProto, folder: Path) -> tuple[Executor, Seconds, int]:
    """Return the executor, the times of all layers, and how many were timed when they were asked for again."""
    onnx.save(model, folder / "network.onnx")
    network = open_network(folder / "network.onnx")
    data = open_dataset("random:4", network.summary.inputs, network.summary, network=network)
    executor = Executor(network)
    *_, calibrated = calibrate(executor, data, activation_tensors(network))
    assert isinstance(calibrated, Calibrated)
    batch = next(data.batches(1, 1))
    wanted = dict.fromkeys(network.layers, SPECS)
    known: Seconds = {}
    list(measure_latencies(executor, batch, wanted, calibrated.activations, known))
    reachable = {name: specs for name, specs in wanted.items() if (name, FLOAT) in known}
    again = list(measure_latencies(executor, batch, reachable, calibrated.activations, known))
    return executor, known, len(again)


@pytest.mark.parametrize("build", [builders.mlp_model, builders.residual_model])
def test_that_every_layer_has_a_time_in_every_form(build, tmp_path: Path) -> None:
    executor, known, again = measured(build(), tmp_path)
    assert known.keys() == {(name, spec) for name in executor.network.layers for spec in (FLOAT, *SPECS)}
    assert all(0 < seconds < math.inf for seconds in known.values())
    assert again == 0


def test_that_the_float_network_takes_its_own_time_and_others_what_their_layers_take(tmp_path: Path) -> None:
    executor, known, _ = measured(builders.mlp_model(), tmp_path)
    summary = executor.network.summary
    assert network_cost(summary, QuantConfig(), "latency", known) == 1
    name = summary.layers[1].name
    config = QuantConfig().with_overrides({name: SPECS[1]})
    changed = known[name, SPECS[1]] - known[name, FLOAT]
    assert network_cost(summary, config, "latency", known) == pytest.approx(1 + changed)


def test_that_layers_inside_of_bodies_are_left_out_and_cost_nothing_to_change(tmp_path: Path) -> None:
    executor, known, _ = measured(builders.if_model(), tmp_path)
    inside = {layer.name for layer in executor.network.summary.layers if layer.scope}
    assert inside
    assert not inside & {name for name, _ in known}
    config = QuantConfig().with_overrides(dict.fromkeys(inside, SPECS[1]))
    assert network_cost(executor.network.summary, config, "latency", known) == 1


def test_that_gates_of_a_recurrent_layer_are_timed_with_their_node(tmp_path: Path) -> None:
    executor, known, _ = measured(builders.lstm_model(), tmp_path)
    gates = [layer.name for layer in executor.network.summary.layers if layer.rows]
    assert len(gates) == 8
    assert all((name, FLOAT) in known for name in gates)
