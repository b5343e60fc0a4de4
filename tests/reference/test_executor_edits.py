"""Random edits of real networks: the executor gives what one session of the whole changed network gives.

The network is changed by hand here: other initializers, and quantizers inserted into the whole graph.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import replace

import networks
import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from quantgui.analysis.calibration import calibrate
from quantgui.analysis.simulation import activation_tensors, build_simulation
from quantgui.network.batch import Batch
from quantgui.network.datasets import open_dataset
from quantgui.network.executor import Executor
from quantgui.network.network import Network, injected_names
from quantgui.network.reader import open_network
from quantgui.network.segments import tensor_types
from quantgui.network.session import create_session
from quantgui.network.simulation import FLOAT_SIMULATION, Simulation
from quantgui.network.surgery import insert_quantizers
from quantgui.results import Calibrated
from quantgui.spec.config import QuantConfig
from quantgui.spec.formats import IntFormat
from quantgui.spec.granularity import PerChannel, PerGroup, PerTensor
from quantgui.spec.presets import activation_spec
from quantgui.spec.quantizer import LayerSpec, QuantizerSpec

pytestmark = pytest.mark.network

EDITS = 8
WEIGHTS_ONLY, WITH_ACTIVATIONS = 1e-4, 2e-3
"""Largest differences, of the largest output. With 16 bits, a difference in the last bit may move a code by one."""


def whole(network: Network, kinds: Mapping[str, int], simulation: Simulation, batch: Batch) -> dict[str, np.ndarray]:
    """Return the outputs of one session of the changed network."""
    model = onnx.ModelProto()
    model.CopyFrom(network.skeleton)
    changed = {name: override.load() for name, override in simulation.weights.items()}
    injected = injected_names(network.skeleton)
    for tensor in model.graph.initializer:
        if tensor.name in changed and tensor.name not in injected:
            tensor.CopyFrom(numpy_helper.from_array(changed[tensor.name], tensor.name))
    insert_quantizers(model, simulation.quantizers, types=kinds)
    session = create_session(model, {**network.constants, **changed})
    names = [value.name for value in network.skeleton.graph.output]
    inputs = {value.name for value in session.get_inputs()}
    return dict(zip(names, session.run(names, {n: x for n, x in batch.inputs.items() if n in inputs}), strict=True))


def random_spec(choice: random.Random) -> LayerSpec:
    granularity = choice.choice([PerTensor(), PerChannel(), PerGroup(32)])
    weights = QuantizerSpec(IntFormat(choice.randint(2, 8)), granularity)
    return LayerSpec(choice.choice([weights, weights, None]), choice.choice([activation_spec(16), None, None]))


def edited(config: QuantConfig, layers: list[str], choice: random.Random) -> QuantConfig:
    """Return `config` with some layers changed, or float again."""
    changed = choice.sample(layers, min(len(layers), choice.randint(1, 3)))
    return config.with_overrides({name: choice.choice([random_spec(choice)] * 4 + [LayerSpec()]) for name in changed})


def exchanged(simulation: Simulation, choice: random.Random) -> Simulation:
    """Return the same simulation, with some of it fed to the sessions instead of built into them."""
    weights = {n: replace(o, exchanged=choice.random() < 0.5) for n, o in simulation.weights.items()}
    quantizers = {
        tensor: tuple(replace(each, exchanged=choice.random() < 0.5) for each in several)
        for tensor, several in simulation.quantizers.items()
    }
    return Simulation(weights, quantizers)


@pytest.mark.parametrize("name", networks.network_names())
def test_that_any_edits_in_any_order_give_what_the_whole_network_gives(name: str) -> None:
    choice = random.Random(name)
    network = open_network(networks.network_path(name))
    summary = network.summary
    data = open_dataset("random:2", summary.inputs, summary, network=network)
    batch = next(data.batches())
    executors = [Executor(network), Executor(network, cache_bytes=0), Executor(network, cache_bytes=2**20)]
    *_, ready = calibrate(executors[0], data, activation_tensors(network))
    assert isinstance(ready, Calibrated)
    kinds = {tensor: kind.kind for tensor, kind in tensor_types(network).items()}
    layers = [layer.name for layer in summary.layers]
    known = [QuantConfig()]
    for _ in range(EDITS if layers else 0):
        # Something new most of the time, else a return to what was there.
        config = edited(known[-1], layers, choice) if choice.random() < 0.8 else choice.choice(known)
        known.append(config)
        simulation = build_simulation(network, config, ready.activations)
        expected = whole(network, kinds, simulation, batch)
        tolerance = WITH_ACTIVATIONS if simulation.quantizers else WEIGHTS_ONLY
        layer = summary.layers[choice.randrange(len(layers))]
        cut = frozenset({layer.weight, *layer.users})
        for executor in executors:
            found = executor.run(
                batch,
                exchanged(simulation, choice),
                keep=choice.choice([True, False, FLOAT_SIMULATION]),
                cut=cut if choice.random() < 0.5 else frozenset(),
            )
            for output, wanted in expected.items():
                largest = max(float(np.abs(wanted.astype(np.float64)).max(initial=0)), 1e-2)
                np.testing.assert_allclose(found[output], wanted, rtol=0, atol=tolerance * largest)
            if choice.random() < 0.5:
                executor.close_cuts()
