from __future__ import annotations

import math

import builders
import numpy as np
import onnx
import pytest

from quantgui.analysis import tensor_error
from quantgui.analysis.tensor_error import view_weight, weight_errors
from quantgui.network.reader import open_network
from quantgui.numerics.affine import fake_quantize
from quantgui.results import WeightErrorReady, WeightViewReady
from quantgui.spec.formats import FloatFormat
from quantgui.spec.granularity import PerTensor
from quantgui.spec.presets import weight_spec
from quantgui.spec.quantizer import FixedRange, QuantizerSpec


def opened(folder, model=None):
    onnx.save(model or builders.mlp_model(), folder / "network.onnx")
    return open_network(folder / "network.onnx")


def view_of(network, layer, spec, statistics=None):
    *_, last = view_weight(network, layer, spec, statistics)
    assert isinstance(last, WeightViewReady)
    return last.view


def test_that_the_view_holds_the_error_of_the_simulation(tmp_path):
    network = opened(tmp_path)
    layer = network.layers["fc1"]
    view = view_of(network, "fc1", weight_spec(4))
    values, error = fake_quantize(network.weight(layer), weight_spec(4), layer.channel_axis)
    assert view.error.sqnr_db == pytest.approx(error.sqnr_db, abs=1e-5)
    assert view.error.max_abs == error.max_abs
    assert view.error.clipped == error.clipped
    assert view.spec == weight_spec(4)
    assert view.statistics.count == view.quantized.counts.sum() == view.error_histogram.counts.sum() == 64 * 64
    assert view.scales.shape == view.zero_points.shape == (64,)
    assert view.channels.sqnr_db.shape == (64,)
    assert view.low <= values.min() < values.max() <= view.high


def test_that_a_float_weight_is_shown_without_error(tmp_path):
    view = view_of(opened(tmp_path), "fc1", None)
    assert view.error.sqnr_db == math.inf
    assert view.scales.size == 0
    assert (view.low, view.high) == (view.statistics.minimum, view.statistics.maximum)


def test_that_a_float_format_has_no_scales(tmp_path):
    view = view_of(opened(tmp_path), "fc1", QuantizerSpec(FloatFormat("bfloat16"), granularity=PerTensor()))
    assert view.scales.size == 0
    assert 45 < view.error.sqnr_db < 65


def test_that_a_fixed_range_shows_its_limits(tmp_path):
    spec = QuantizerSpec(weight_spec(8).format, False, PerTensor(), FixedRange(-0.2, 0.1))
    view = view_of(opened(tmp_path), "fc1", spec)
    assert view.low == pytest.approx(-0.2, abs=0.002)
    assert view.high == pytest.approx(0.1, abs=0.002)
    assert view.error.clipped > 0.1


def test_that_statistics_of_a_weight_are_read_once(tmp_path, monkeypatch):
    network, known = opened(tmp_path), {}
    first = view_of(network, "fc1", weight_spec(4), known)
    monkeypatch.setattr(tensor_error, "weight_statistics", None)
    assert view_of(network, "fc1", weight_spec(8), known).statistics is first.statistics


def test_that_errors_come_one_per_layer_in_the_order_asked_for(tmp_path):
    network = opened(tmp_path)
    specs = {"fc2": weight_spec(8), "fc0": weight_spec(3), "fc1": None}
    events = list(weight_errors(network, specs))
    assert all(isinstance(event, WeightErrorReady) for event in events)
    assert [(event.layer, event.spec) for event in events] == list(specs.items())
    assert events[2].error.sqnr_db == math.inf
    assert events[0].error.sqnr_db > events[1].error.sqnr_db + 20


def test_that_a_weight_that_is_not_finite_is_shown_and_left_alone(tmp_path):
    model = builders.mlp_model()
    weight = next(t for t in model.graph.initializer if t.name == "w1")
    values = onnx.numpy_helper.to_array(weight).copy()
    values[3] = -np.inf
    weight.CopyFrom(onnx.numpy_helper.from_array(values, "w1"))
    network = opened(tmp_path, model)
    view = view_of(network, "fc1", weight_spec(4))
    assert view.error.sqnr_db == math.inf
    assert view.statistics.non_finite == 64
    (event,) = weight_errors(network, {"fc1": weight_spec(4)})
    assert event.error.sqnr_db == math.inf


def test_that_the_curve_of_the_error_comes_after_the_view_where_it_is_asked_for(tmp_path):
    network, name = opened(tmp_path), "fc1"
    for spec, views in ((weight_spec(4), 2), (None, 1), (QuantizerSpec(FloatFormat("float16")), 1)):
        found = [e.view for e in view_weight(network, name, spec, curve=True) if isinstance(e, WeightViewReady)]
        assert len(found) == views
        assert found[0].curve is None
        assert [e for e in view_weight(network, name, spec) if isinstance(e, WeightViewReady)][-1].view.curve is None
        if views == 2:
            curve = found[1].curve
            least = next(p for p in curve.picks if p.estimator == spec.range_estimator)
            assert least.sqnr_db == pytest.approx(found[1].error.sqnr_db, abs=1e-6)
            assert found[1].statistics is found[0].statistics
