"""Large networks are looked at with their weights fed, which changes nothing but the memory it takes."""

from __future__ import annotations

import builders
import numpy as np
import pytest

from quantgui.network import whole
from quantgui.network.segments import tensor_types, traced_shapes
from quantgui.network.whole import whole_session


@pytest.mark.parametrize("model", [builders.residual_model(), builders.lstm_model()])
def test_that_fed_weights_give_the_same_types_shapes_and_outputs(model, monkeypatch):
    network = builders.network_of(model)
    handed = whole_session(network.skeleton, network.constants)
    shapes = {
        info.name: [size if isinstance(size, int) else 2 for size in info.shape] for info in handed.session.get_inputs()
    }
    feeds = {name: builders.values(*shape, seed=1) for name, shape in shapes.items()}
    types = tensor_types(network)
    expected = types, traced_shapes(network, types, feeds, threads=1), handed.run(None, feeds)
    monkeypatch.setattr(whole, "_COPIED_BYTES", 0)
    fed = whole_session(network.skeleton, network.constants)
    assert fed.weights
    assert not handed.weights
    assert (tensor_types(network), traced_shapes(network, types, feeds, threads=1)) == expected[:2]
    for found, wanted in zip(fed.run(None, feeds), expected[2], strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)
