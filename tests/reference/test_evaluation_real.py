"""Evaluation and advice on real trained networks: what the metrics take outputs for, and what int8 costs."""

from __future__ import annotations

import networks
import numpy as np
import pytest

from quantgui.analysis.advice import advise
from quantgui.analysis.calibration import calibrate
from quantgui.analysis.evaluation import evaluate
from quantgui.analysis.simulation import activation_tensors, encode_bias, plan_biases, quantizers_for
from quantgui.network.datasets import open_dataset
from quantgui.network.executor import Executor
from quantgui.network.reader import open_network
from quantgui.results import AdviceReady, Calibrated, EvaluationReady
from quantgui.spec.presets import find_preset, preset_config

pytestmark = pytest.mark.network


def prepared(name, source):
    network = open_network(networks.network_path(name))
    dataset = open_dataset(str(source), network.summary.inputs, network.summary, network=network)
    executor = Executor(network)
    *_, last = calibrate(executor, dataset, activation_tensors(network))
    assert isinstance(last, Calibrated)
    return executor, dataset, last.activations


def evaluation(executor, dataset, activations, preset):
    config = preset_config(find_preset(preset), executor.network.summary.layers)
    *_, last = [e for e in evaluate(executor, dataset, config, activations) if isinstance(e, EvaluationReady)]
    return last.evaluation


@pytest.mark.parametrize(
    ("name", "metric"),
    [
        ("ppocr-cls", "agreement"),
        ("ppocr-rec", "agreement"),
        ("ppocr-det", "output_sqnr_db"),
        ("silero", "agreement"),
        ("silero-sequence", "agreement"),
        ("magika", "agreement"),
        ("minilm", "output_sqnr_db"),
        ("wakeword-embedding", "output_sqnr_db"),
        ("mtcnn-onet", "agreement"),
        ("efficientnet-lite0", "agreement"),
        ("demosaicnet", "output_sqnr_db"),
        ("facenet-rnet", "agreement"),
        ("ccexam-mnist", "agreement"),
    ],
)
def test_that_outputs_are_taken_for_what_they_are(name, metric):
    executor, dataset, activations = prepared(name, "random:2")
    result = evaluation(executor, dataset, activations, "W16A16")
    assert result.metric == metric
    assert result.complete
    assert result.output_sqnr_db > 20
    assert result.scores["cosine"].value > 0.99


def test_that_no_bias_of_a_network_with_dead_channels_leaves_int32():
    executor, _, activations = prepared("efficientnet-lite0", "random:2")
    config = preset_config(find_preset("W8A8"), executor.network.summary.layers)
    plans = plan_biases(executor.network, config, quantizers_for(executor.network, config, activations))
    assert len(plans) == 50
    assert sum(encode_bias(executor.network, plan).clipped for plan in plans.values()) == 0


def test_that_a_sentence_encoder_harmed_by_int8_activations_is_mended(tmp_path):
    np.savez(tmp_path / "tokens.npz", **networks.token_rows(24))
    executor, dataset, activations = prepared("minilm", tmp_path / "tokens.npz")
    weights = evaluation(executor, dataset, activations, "W8")
    both = evaluation(executor, dataset, activations, "W8A8")
    assert weights.output_sqnr_db > 28
    assert both.output_sqnr_db < 18
    config = preset_config(find_preset("W8A8"), executor.network.summary.layers)
    *_, last = [e for e in advise(executor, dataset, config, activations) if isinstance(e, AdviceReady)]
    advice = last.advice
    assert advice.proposal is not None
    assert 0 < len(advice.layers) < 20, "of 36"
    assert advice.sentence.startswith("Quantized activations harm this network")
    assert advice.layers[0] in advice.sentence
    *_, after = [e for e in evaluate(executor, dataset, advice.proposal, activations) if isinstance(e, EvaluationReady)]
    assert after.evaluation.output_sqnr_db > 22


def test_that_a_text_recogniser_ruined_by_int8_activations_is_said_so(tmp_path):
    np.save(tmp_path / "lines.npy", networks.text_lines(16))
    executor, dataset, activations = prepared("ppocr-rec", tmp_path / "lines.npy")
    config = preset_config(find_preset("W8A8"), executor.network.summary.layers)
    events = advise(executor, dataset, config, activations)
    finding = next(event for event in events if isinstance(event, AdviceReady)).advice
    events.close()
    assert finding is not None
    assert "Quantized activations" in finding.sentence
    assert finding.before.metric == "agreement"
    assert evaluation(executor, dataset, activations, "W8").output_sqnr_db > finding.before.output_sqnr_db + 3
