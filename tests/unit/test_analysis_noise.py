"""Noise of tiny networks, against whole networks that are quantized by hand and run as they are."""

from __future__ import annotations

import math
from pathlib import Path

import builders
import export_examples
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

from quantgui.analysis.calibration import calibrate
from quantgui.analysis.noise import trace_noise
from quantgui.analysis.sample_view import view_sample
from quantgui.analysis.simulation import activation_tensors
from quantgui.errors import DataError
from quantgui.export.qdq import export_qdq
from quantgui.network import segments
from quantgui.network.datasets import open_dataset
from quantgui.network.executor import Executor
from quantgui.network.reader import open_network
from quantgui.results import Calibrated, NoiseReady, Progress, SampleReady
from quantgui.spec.config import QuantConfig
from quantgui.spec.formats import IntFormat
from quantgui.spec.granularity import PerTensor
from quantgui.spec.presets import activation_spec
from quantgui.spec.quantizer import LayerSpec, QuantizerSpec

W3 = QuantizerSpec(IntFormat(3), True, PerTensor())
WEIGHTS = QuantConfig(LayerSpec(W3))
BOTH = QuantConfig(LayerSpec(W3, activation_spec(8)))


@pytest.fixture(autouse=True)
def _cut_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments, "SECONDS_PER_SEGMENT", 1e-9)
    monkeypatch.setattr(segments, "WEIGHTED_NODES_PER_SEGMENT", 1)


class Opened:
    """A network with data."""

    def __init__(self, model: onnx.ModelProto, folder: Path, samples: int = 12, **arrays) -> None:
        self.model, self.folder = model, folder
        onnx.save(model, folder / "network.onnx")
        self.network = open_network(folder / "network.onnx")
        summary = self.network.summary
        source = f"random:{samples}"
        if arrays:
            source = str(folder / "data.npz")
            np.savez(source, **arrays)
        self.data = open_dataset(source, summary.inputs, summary, network=self.network)
        self.executor = Executor(self.network)
        *_, last = calibrate(self.executor, self.data, activation_tensors(self.network))
        assert isinstance(last, Calibrated)
        self.activations = last.activations

    def events(self, config, samples=None):
        return trace_noise(self.executor, self.data, config, self.activations, samples=samples)

    def trace(self, config, samples=None) -> NoiseReady:
        *_, last = self.events(config, samples)
        assert isinstance(last, NoiseReady)
        assert last.complete
        return last

    def inputs(self) -> dict[str, np.ndarray]:
        batches = [batch.inputs for batch in self.data.batches(1)]
        return {name: np.concatenate([b[name] for b in batches]) for name in batches[0]}

    def quantized_by_hand(self, layers) -> onnx.ModelProto:
        """Return the user's own file with the weights of `layers` rounded to 3 bits per tensor."""
        model = onnx.ModelProto()
        model.CopyFrom(self.model)
        names = {self.network.layers[name].weight for name in layers}
        for tensor in model.graph.initializer:
            if tensor.name in names:
                weight = numpy_helper.to_array(tensor)
                scale = np.float32(np.abs(weight).max() / 3)
                rounded = (np.clip(np.rint(weight / scale), -4, 3) * scale).astype(np.float32)
                tensor.CopyFrom(numpy_helper.from_array(rounded, tensor.name))
        return model

    def exported(self, config) -> onnx.ModelProto:
        path = self.folder / "exported.onnx"
        for _ in export_qdq(self.network, config, self.activations, path):
            pass
        return onnx.load(path)


def run(model: onnx.ModelProto, inputs, names) -> list[np.ndarray]:
    """Return tensors of a whole network, run without optimizations, all samples at once."""
    model = onnx.ModelProto.FromString(model.SerializeToString())
    known = {value.name for value in model.graph.output}
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in known)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(list(names), inputs)


def db(reference, other) -> float:
    noise = float(((reference.astype(np.float64) - other) ** 2).sum())
    return 10 * math.log10(float((reference.astype(np.float64) ** 2).sum()) / noise) if noise else math.inf


@pytest.mark.parametrize("make", [builders.mlp_model, builders.residual_model])
def test_that_own_inherited_and_total_noise_are_those_of_whole_networks_with_other_weights(make, tmp_path) -> None:
    opened = Opened(make(), tmp_path)
    everyone, inputs = list(opened.network.layers), opened.inputs()
    noise = opened.trace(WEIGHTS)
    assert [each.layer for each in noise.layers] == everyone
    for each in noise.layers:
        (reference,) = run(opened.model, inputs, [each.tensor])
        others = [name for name in everyone if name != each.layer]
        for found, layers in (
            (each.own_sqnr_db, [each.layer]),
            (each.inherited_sqnr_db, others),
            (each.total_sqnr_db, everyone),
        ):
            (values,) = run(opened.quantized_by_hand(layers), inputs, [each.tensor])
            assert min(found, 90) == pytest.approx(min(db(reference, values), 90), abs=0.01)
    assert noise.layers[0].inherited_sqnr_db == math.inf


def test_that_noise_of_activations_is_that_of_exported_files_with_one_layer_quantized(tmp_path: Path) -> None:
    opened = Opened(export_examples.convolutions(), tmp_path)
    everyone, inputs = list(opened.network.layers), opened.inputs()
    noise = opened.trace(BOTH)
    for each in noise.layers:
        (reference,) = run(opened.model, inputs, [each.tensor])
        spec = {each.layer: BOTH.spec_for(each.layer)}
        for found, config in (
            (each.own_sqnr_db, QuantConfig().with_overrides(spec)),
            (each.inherited_sqnr_db, BOTH.with_overrides({each.layer: LayerSpec()})),
            (each.total_sqnr_db, BOTH),
        ):
            model = opened.exported(config)
            # What readers round for themselves is no noise of this layer.
            quantizes = config.spec_for(each.layer).activations is not None
            (values,) = run(model, inputs, [_stored(model, each.tensor) if quantizes else each.tensor])
            assert min(found, 90) == pytest.approx(min(db(reference, values), 90), abs=0.1)
    assert len(everyone) == 3


def _stored(model: onnx.ModelProto, tensor: str) -> str:
    """Return the name of the dequantized form of a tensor that an exported file stores quantized."""
    if tensor in {value.name for value in model.graph.output}:
        return tensor
    readers = [node for node in model.graph.node if tensor in node.input]
    assert [reader.op_type for reader in readers] == ["QuantizeLinear"]
    (second,) = [node for node in model.graph.node if readers[0].output[0] in node.input]
    return str(second.output[0])


def test_that_damage_and_flips_are_what_one_layer_alone_does_to_each_sample(tmp_path: Path) -> None:
    opened = Opened(builders.mlp_model((8, 24, 24, 11)), tmp_path, samples=40)
    everyone, inputs = list(opened.network.layers), opened.inputs()
    noise = opened.trace(WEIGHTS)
    (reference,) = run(opened.model, inputs, ["y"])
    assert noise.has_classes
    assert noise.damage.shape == noise.flips.shape == (3, 40)
    for row, name in enumerate(everyone):
        (values,) = run(opened.quantized_by_hand([name]), inputs, ["y"])
        expected = ((values - reference) ** 2).sum(1) / (reference**2).sum(1)
        np.testing.assert_allclose(noise.damage[row], expected, rtol=1e-3)
        assert (noise.flips[row] == (values.argmax(1) != reference.argmax(1))).all()
    (values,) = run(opened.quantized_by_hand(everyone), inputs, ["y"])
    assert (noise.flipped == (values.argmax(1) != reference.argmax(1))).all()
    assert noise.flips.any()
    assert noise.flipped.any()


def test_that_the_noise_in_what_a_layer_reads_is_that_of_its_input_in_the_whole_network(tmp_path: Path) -> None:
    opened = Opened(builders.residual_model(), tmp_path)
    noise, inputs = opened.trace(WEIGHTS), opened.inputs()
    model = opened.quantized_by_hand(opened.network.layers)
    assert noise.layers[0].input_sqnr_db == math.inf
    for each in noise.layers[1:]:
        tensor = opened.network.layers[each.layer].input_tensor
        (reference,), (values,) = run(opened.model, inputs, [tensor]), run(model, inputs, [tensor])
        assert each.input_sqnr_db == pytest.approx(db(reference, values), abs=0.01)


def test_that_layers_left_float_make_no_noise_and_pass_on_what_they_inherit(tmp_path: Path) -> None:
    opened = Opened(builders.mlp_model(), tmp_path)
    noise = opened.trace(WEIGHTS.with_overrides({"fc1": LayerSpec()}))
    first, second, third = noise.layers
    assert second.own_sqnr_db == math.inf
    assert second.inherited_sqnr_db == second.total_sqnr_db < 40
    assert not noise.damage[1].any()
    assert first.own_sqnr_db < 40 > third.own_sqnr_db


def test_that_nothing_quantized_makes_no_noise_at_all(tmp_path: Path) -> None:
    noise = Opened(builders.mlp_model(), tmp_path).trace(QuantConfig())
    assert all(math.inf == each.own_sqnr_db == each.inherited_sqnr_db == each.total_sqnr_db for each in noise.layers)
    assert not noise.damage.any()
    assert not noise.flipped.any()


def test_that_noise_tightens_with_every_batch_and_says_how_many_samples_it_stands_on(tmp_path: Path) -> None:
    opened = Opened(builders.mlp_model(), tmp_path, samples=100)
    events = list(opened.events(WEIGHTS))
    ready = [event for event in events if isinstance(event, NoiseReady)]
    assert [each.samples for each in ready] == [8, 16, 24, 32, 40, 48, 56, 64]
    assert [each.complete for each in ready] == [False] * 7 + [True]
    np.testing.assert_array_equal(ready[0].damage, ready[-1].damage[:, :8])
    shares = [e.done / e.total for e in events if isinstance(e, Progress) and e.label.startswith("Tracing")]
    assert shares == sorted(shares)
    assert opened.trace(WEIGHTS, samples=5).samples == 5


def test_that_layers_inside_an_if_are_seen_at_its_output(tmp_path: Path) -> None:
    x = builders.values(16, 32, seed=9)
    opened = Opened(builders.if_model(), tmp_path, x=x, flag=np.array(True))
    noise = opened.trace(WEIGHTS)
    seen = {each.layer: each for each in noise.layers}
    assert {name: each.tensor for name, each in seen.items()} == {
        "fc0": "a",
        "then/fc": "branch",
        "else/fc": "branch",
        "fc3": "y",
    }
    inputs = {"x": x, "flag": np.array(True)}
    (reference,) = run(opened.model, inputs, ["branch"])
    for found, layers in (("own", ["then/fc"]), ("inherited", ["fc0", "else/fc", "fc3"]), ("total", list(seen))):
        (values,) = run(opened.quantized_by_hand(layers), inputs, ["branch"])
        assert getattr(seen["then/fc"], f"{found}_sqnr_db") == pytest.approx(db(reference, values), abs=0.01)
    # The branch that is never taken does nothing.
    assert seen["else/fc"].own_sqnr_db == math.inf


def test_that_recurrent_networks_are_traced_with_a_state_of_their_own_for_each_layer(tmp_path: Path) -> None:
    opened = Opened(builders.lstm_model(), tmp_path, samples=6)
    noise = opened.trace(WEIGHTS)
    (row,) = [i for i, each in enumerate(noise.layers) if each.layer == "out"]
    model = opened.quantized_by_hand(["out"])
    reference, values = (_rolled(each, opened) for each in (opened.model, model))
    np.testing.assert_allclose(noise.damage[row], (values - reference) ** 2 / reference**2, rtol=1e-3)
    assert noise.layers[row].own_sqnr_db == pytest.approx(db(reference, values), abs=0.01)
    assert all(each.own_sqnr_db < 60 for each in noise.layers)
    # A gate's noise stays in the state.
    alone = QuantConfig().with_overrides({noise.layers[0].layer: LayerSpec(W3)})
    once = opened.trace(alone, samples=1)
    assert once.damage[0, 0] == pytest.approx(noise.damage[0, 0], rel=1e-3)


def _rolled(model: onnx.ModelProto, opened: Opened) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    h = c = np.zeros((1, 1, 16), np.float32)
    found = []
    for batch in opened.data.batches(1):
        y, h, c = session.run(None, {"x": batch.inputs["x"], "h": h, "c": c})
        found.append(float(y[0, 0]))
    return np.array(found, np.float32)


def test_that_a_trace_can_be_stopped_at_every_event(tmp_path: Path) -> None:
    opened = Opened(builders.mlp_model(), tmp_path)
    count = sum(1 for _ in opened.events(WEIGHTS))
    for stop in range(count):
        events = opened.events(WEIGHTS)
        for _ in range(stop):
            next(events)
        events.close()
    assert opened.trace(WEIGHTS).samples == 12


def test_that_a_trace_without_samples_is_refused(tmp_path: Path) -> None:
    opened = Opened(builders.mlp_model(), tmp_path)
    empty = open_dataset("random:1", opened.network.summary.inputs, opened.network.summary)

    class Empty:
        summary = type(empty.summary)("none", 0, (), False, True, "none")

    with pytest.raises(DataError, match="no samples"):
        next(iter(trace_noise(opened.executor, Empty(), WEIGHTS, {})))


# --- one sample ---------------------------------------------------------------------------------------------------


def test_that_a_sample_comes_with_what_both_networks_make_of_it(tmp_path: Path) -> None:
    x = builders.values(10, 8, seed=5)
    opened = Opened(builders.mlp_model((8, 24, 24, 11)), tmp_path, x=x, labels=np.arange(10))
    *_, ready = view_sample(opened.executor, opened.data, WEIGHTS, {}, 7)
    assert isinstance(ready, SampleReady)
    np.testing.assert_array_equal(ready.inputs["x"], x[7])
    (reference,) = run(opened.model, {"x": x[7:8]}, ["y"])
    (values,) = run(opened.quantized_by_hand(opened.network.layers), {"x": x[7:8]}, ["y"])
    np.testing.assert_allclose(ready.float_outputs["y"], reference[0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(ready.quantized_outputs["y"], values[0], rtol=1e-5, atol=1e-6)
    assert (ready.label, ready.sample, dict(ready.class_axes)) == (7, 7, {"y": 0})


def test_that_a_sample_of_a_recurrent_network_carries_the_state_of_those_before_it(tmp_path: Path) -> None:
    opened = Opened(builders.lstm_model(), tmp_path, samples=6)
    *_, ready = view_sample(opened.executor, opened.data, WEIGHTS, {}, 4)
    assert isinstance(ready, SampleReady)
    assert set(ready.float_outputs) == {"y"}
    assert set(ready.inputs) == {"x"}
    assert ready.float_outputs["y"][0] == pytest.approx(_rolled(opened.model, opened)[4], rel=1e-4)


def test_that_a_sample_that_is_not_there_is_named(tmp_path: Path) -> None:
    opened = Opened(builders.mlp_model(), tmp_path)
    with pytest.raises(DataError, match="no sample 12"):
        list(view_sample(opened.executor, opened.data, WEIGHTS, {}, 12))


def test_that_a_trace_builds_what_single_layers_need_once_or_for_every_batch_where_there_is_no_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = Opened(builders.mlp_model((8, 24, 24, 24, 11)), tmp_path, samples=24)
    executor, layers = opened.executor, len(opened.network.layers)

    def built() -> int:
        before = executor.sessions_built
        opened.trace(WEIGHTS)
        return executor.sessions_built - before

    built()
    # The chains of the float network and of the configuration stay; a layer alone needs its segment and itself.
    kept = built()
    assert kept <= 2 * layers
    monkeypatch.setattr("quantgui.analysis.noise._CHAINS", 10_000)
    assert kept < built() <= (3 + 1) * layers
