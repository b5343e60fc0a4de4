"""Advice on networks made to be ruined by one layer."""

from __future__ import annotations

from dataclasses import replace

import builders
import numpy as np
import onnx

from quantgui.analysis.advice import POOR_WEIGHTS_DB, advise, described, guarded_config
from quantgui.analysis.calibration import calibrate
from quantgui.analysis.evaluation import evaluate
from quantgui.analysis.metric_function import load_metric
from quantgui.analysis.simulation import activation_tensors
from quantgui.network.datasets import open_dataset
from quantgui.network.executor import Executor
from quantgui.network.reader import open_network
from quantgui.network.trained import TrainedLayer, TrainedState, save_state
from quantgui.numerics.affine import weight_qparams
from quantgui.paths import trained_folder
from quantgui.results import AdviceReady, Calibrated, Evaluation, EvaluationReady, Progress, Score
from quantgui.spec.config import QuantConfig
from quantgui.spec.presets import find_preset, preset_config, weight_spec
from quantgui.spec.quantizer import LayerSpec, Trained


def prepared(folder, model, x):
    onnx.save(model, folder / "network.onnx")
    network = open_network(folder / "network.onnx")
    np.savez(folder / "data.npz", x=x)
    dataset = open_dataset(str(folder / "data.npz"), network.summary.inputs, network.summary)
    executor = Executor(network)
    *_, last = calibrate(executor, dataset, activation_tensors(network))
    assert isinstance(last, Calibrated)
    return executor, dataset, last.activations


def with_outliers(layer=1, huge=3000.0):
    """Return a chain of Gemm in which one layer's input holds a channel that is huge and not used."""
    model = builders.mlp_model((8, 32, 32, 32, 32, 5))
    changed = {f"w{layer - 1}": (0, huge), f"b{layer - 1}": (0, huge)}
    for tensor in model.graph.initializer:
        values = onnx.numpy_helper.to_array(tensor).copy()
        if tensor.name in changed:
            row, factor = changed[tensor.name]
            values[row] *= factor
        if tensor.name == f"w{layer}":
            values[:, 0] = 0
        tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    return model


def last_advice(events):
    events = list(events)
    assert any(isinstance(event, Progress) for event in events)
    *_, last = [event for event in events if isinstance(event, AdviceReady)]
    return last.advice


def quality(prepared_network, config):
    executor, dataset, activations = prepared_network
    *_, last = [e for e in evaluate(executor, dataset, config, activations) if isinstance(e, EvaluationReady)]
    return last.evaluation.output_sqnr_db


def preset(network, name):
    return preset_config(find_preset(name), network.summary.layers)


def test_that_the_layer_whose_activations_ruin_the_network_is_named_and_stays_float(tmp_path):
    network = prepared(tmp_path, with_outliers(), builders.values(24, 8))
    config = preset(network[0].network, "W8A8")
    advice = last_advice(advise(*network[:2], config, network[2]))
    assert advice is not None
    assert advice.layers == ("fc1",)
    assert advice.proposal.spec_for("fc1").activations is None
    assert advice.proposal.spec_for("fc2").activations is not None
    assert advice.proposal.spec_for("fc1").weights == config.spec_for("fc1").weights
    assert "Quantized activations ruin this network" in advice.sentence
    assert "1 of 5 layers (fc1)" in advice.sentence
    assert quality(network, config) < 10
    assert quality(network, advice.proposal) > 25
    assert advice.after.output_sqnr_db > advice.before.output_sqnr_db + 15


def test_that_the_finding_comes_before_the_search(tmp_path):
    network = prepared(tmp_path, with_outliers(), builders.values(24, 8))
    events = list(advise(*network[:2], preset(network[0].network, "W8A8"), network[2]))
    first = next(event for event in events if isinstance(event, AdviceReady))
    assert first.advice.proposal is None
    assert "Quantized activations" in first.advice.sentence
    assert events.index(first) < len(events) // 2


def test_that_a_better_range_is_tried_before_any_layer_goes_float(tmp_path):
    x = builders.values(64, 1024)
    x[3, 5] = 2000.0
    model = builders.mlp_model((1024, 64, 5))
    unused = next(t for t in model.graph.initializer if t.name == "w0")
    values = onnx.numpy_helper.to_array(unused).copy()
    values[:, 5] = 0
    unused.CopyFrom(onnx.numpy_helper.from_array(values, "w0"))
    network = prepared(tmp_path, model, x)
    config = preset(network[0].network, "W8A8")
    advice = last_advice(advise(*network[:2], config, network[2]))
    assert advice is not None
    assert all(advice.proposal.spec_for(name).activations is not None for name in ("fc0", "fc1"))
    assert "Ranges by" in advice.sentence
    assert advice.after.output_sqnr_db > 20 > advice.before.output_sqnr_db


def test_that_a_healthy_network_gets_no_advice(tmp_path):
    network = prepared(tmp_path, builders.mlp_model(), builders.values(24, 8))
    assert last_advice(advise(*network[:2], preset(network[0].network, "W8A8"), network[2])) is None
    assert last_advice([Progress(0, 0), *advise(*network[:2], QuantConfig(), network[2])]) is None


def test_that_nothing_is_called_ruined_while_what_counts_is_as_good(tmp_path):
    network = prepared(tmp_path, builders.mlp_model((8, 32, 32, 32, 32, 5)), builders.values(24, 8))
    (tmp_path / "mine.py").write_text("def kept(outputs, labels):\n    return [1.0] * len(outputs)\n")
    config = QuantConfig(LayerSpec(weight_spec(2)), name="W2")
    metric = load_metric(f"{tmp_path / 'mine.py'}:kept")
    advice = last_advice(advise(*network[:2], config, network[2], metric))
    assert advice.before.output_sqnr_db < POOR_WEIGHTS_DB
    assert "Quantized weights harm this network" in advice.sentence
    assert "kept 1 and " in advice.sentence


def scaled_by_training(network, factor):
    """Return a configuration with all layers in 8 bits, the last one trained to outputs `factor` times as large."""
    spec, name = weight_spec(8), network.summary.layers[-1].name
    layer = network.layers[name]
    weight = factor * network.weight(layer)
    trained = TrainedLayer(spec, weight, weight_qparams(weight, spec, layer.channel_axis), {})
    state = save_state(TrainedState({name: trained}, network.fingerprint), trained_folder())
    last = LayerSpec(replace(spec, range_estimator=Trained(state)))
    return QuantConfig(LayerSpec(spec)).with_overrides({name: last})


def test_that_trained_weights_are_not_to_be_mended_while_what_counts_is_as_good(tmp_path):
    network = prepared(tmp_path, builders.mlp_model((8, 32, 5)), builders.values(24, 8))
    (tmp_path / "mine.py").write_text("def kept(outputs, labels):\n    return [1.0] * len(outputs)\n")
    metric = load_metric(f"{tmp_path / 'mine.py'}:kept")
    config = scaled_by_training(network[0].network, 3.0)
    assert quality(network, config) < 0
    assert last_advice(advise(*network[:2], config, network[2], metric)) is None
    assert last_advice(advise(*network[:2], config, network[2])) is not None


def test_that_shares_are_told_in_percent():
    score = Score(0.966, 0.006, 500)
    evaluation = Evaluation("accuracy", True, score, score, 1.04, {}, 0.1, 500)
    assert described(evaluation) == "accuracy 96.6 % and 1.0 dB output SQNR"


def test_that_weights_that_ruin_the_network_get_8_bits_where_it_matters(tmp_path):
    network = prepared(tmp_path, builders.mlp_model((8, 32, 32, 32, 32, 5)), builders.values(24, 8))
    config = QuantConfig(LayerSpec(weight_spec(2)), name="W2")
    advice = last_advice(advise(*network[:2], config, network[2]))
    assert advice is not None
    assert "Quantized weights ruin this network" in advice.sentence
    assert advice.layers
    assert all(advice.proposal.spec_for(name).weights == weight_spec(8) for name in advice.layers)
    assert quality(network, advice.proposal) > 12 > quality(network, config)


def test_that_a_guarded_preset_changes_activations_only(tmp_path):
    network = prepared(tmp_path, with_outliers(), builders.values(24, 8))

    def drained(config):
        generator = guarded_config(*network[:2], config, network[2])
        while True:
            try:
                next(generator)
            except StopIteration as stop:
                return stop.value

    config = preset(network[0].network, "W8A8")
    guarded, advice = drained(config)
    assert guarded == advice.proposal
    assert all(guarded.spec_for(n).weights == config.spec_for(n).weights for n in network[0].network.layers)
    two_bits = QuantConfig(LayerSpec(weight_spec(2)))
    assert drained(two_bits) == (two_bits, None)


def test_that_random_data_is_said_to_be_hardly_trusted(tmp_path):
    executor, dataset, activations = prepared(tmp_path, with_outliers(), builders.values(24, 8))
    dataset = replace(dataset, summary=replace(dataset.summary, trustworthy=False))
    advice = last_advice(advise(executor, dataset, preset(executor.network, "W8A8"), activations))
    assert "random numbers" in advice.sentence


def test_that_advice_stops_where_it_is_cancelled(tmp_path):
    network = prepared(tmp_path, with_outliers(), builders.values(24, 8))
    events = advise(*network[:2], preset(network[0].network, "W8A8"), network[2])
    next(events)
    events.close()
    assert list(events) == []
