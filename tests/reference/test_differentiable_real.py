"""Real networks in torch, against the executor."""

from __future__ import annotations

import networks
import numpy as np
import pytest
import torch

from quantgui.network.datasets import open_dataset
from quantgui.network.differentiable import DifferentiableNetwork, uncovered_operators
from quantgui.network.executor import Executor
from quantgui.network.reader import open_network

pytestmark = pytest.mark.network


@pytest.mark.parametrize("name", networks.network_names())
def test_that_a_network_in_torch_gives_what_the_executor_gives_and_gradients(name: str) -> None:
    network = open_network(networks.network_path(name))
    assert uncovered_operators(network) == ()
    data = open_dataset("random:2", network.summary.inputs, network.summary, network=network)
    differentiable = DifferentiableNetwork(network)
    executor = Executor(network)
    for batch, (expected,) in filter(None, executor.run_sequence(data.batches())):
        with torch.no_grad():
            found = differentiable.run(batch.inputs)
        assert found.keys() == expected.keys()
        for output, truth in expected.items():
            value = found[output].numpy()
            assert (value.shape, value.dtype) == (truth.shape, truth.dtype)
            np.testing.assert_allclose(value, truth, rtol=0, atol=1e-4 * max(float(np.abs(truth).max()), 1e-2))
    weights = {
        layer.weight: differentiable.constant(layer.weight).clone().requires_grad_()
        for layer in network.summary.layers
        if not layer.read_only
    }
    outputs = differentiable.run(next(data.batches()).inputs, weights)
    sum(value.square().sum() for value in outputs.values() if value.requires_grad).backward()
    gradients = [weight.grad for weight in weights.values() if weight.grad is not None]
    assert all(bool(torch.isfinite(gradient).all()) for gradient in gradients)
    # The half of silero that is for the other sample rate does not run.
    halves = {"silero", "silero-ifless"}
    assert len(gradients) == (len(weights) // 2 if name in halves else len(weights))
