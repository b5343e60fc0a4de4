from __future__ import annotations

import math
from pathlib import Path

import builders
import export_examples as examples
import numpy as np
import onnx
import pytest
from onnx import helper

from quantgui.analysis.evaluation import evaluate
from quantgui.analysis.metric_function import Metric, load_metric
from quantgui.errors import ExportError
from quantgui.export.verify import verify
from quantgui.network.executor import Executor
from quantgui.network.network import Network
from quantgui.results import EvaluationReady, Progress, Verification
from quantgui.spec.config import QuantConfig
from quantgui.spec.formats import TableFormat
from quantgui.spec.presets import activation_spec, weight_spec
from quantgui.spec.quantizer import FLOAT, LayerSpec, QuantizerSpec

W8, W4 = LayerSpec(weight_spec(8)), LayerSpec(weight_spec(4))
W8A8 = LayerSpec(weight_spec(8), activation_spec(8))


def wide_model() -> onnx.ModelProto:
    """Return two MatMul large enough that rounding their inputs shows."""
    constants = {f"w{i}": builders.values(128, 128, seed=i, scale=0.1) for i in range(2)}
    nodes = [
        helper.make_node("MatMul", ["x", "w0"], ["h"], name="fc0"),
        helper.make_node("Relu", ["h"], ["a"], name="relu"),
        helper.make_node("MatMul", ["a", "w1"], ["y"], name="fc1"),
    ]
    x, y = builders.tensor_info("x", ["n", 128]), builders.tensor_info("y", ["n", 128])
    return builders.model_of(nodes, [x], [y], constants)


def verified(
    folder: Path,
    network: Network,
    config: QuantConfig,
    metric: Metric | None = None,
    *,
    against: QuantConfig | None = None,
) -> Verification:
    """Export `config` and verify the file against it, or against another configuration."""
    data = examples.data_for(network)
    shown = against or config
    activations = examples.calibrated(network, config, data) | examples.calibrated(network, shown, data)
    path = folder / "quantized.onnx"
    examples.exported(network, config, activations, path)
    *progress, last = verify(Executor(network), data, shown, activations, metric, path)
    assert all(isinstance(event, Progress) for event in progress)
    assert len(progress) >= 4
    assert isinstance(last, Verification)
    return last


@pytest.mark.parametrize("spec", [FLOAT, W8, W4, W8A8], ids=str)
@pytest.mark.parametrize("model", examples.MODELS)
def test_that_every_kind_of_network_verifies(tmp_path: Path, model: str, spec: LayerSpec) -> None:
    network = examples.opened(tmp_path, examples.MODELS[model]())
    result = verified(tmp_path, network, QuantConfig(spec))
    assert result.output_sqnr_db > 20
    assert result.simulated.complete
    assert result.deployed.complete
    assert result.file_bytes == (tmp_path / "quantized.onnx").stat().st_size
    assert result.float_file_bytes == (tmp_path / "network.onnx").stat().st_size
    assert result.deployed_latency_ms > 0
    assert result.float_latency_ms > 0
    assert result.latency_quartiles is not None
    lower, upper = result.latency_quartiles
    assert 0 < lower <= result.latency_ratio <= upper
    assert any("graph" in note or "fewer" in note for note in result.notes)


def test_that_the_simulated_side_is_what_evaluation_shows(tmp_path: Path) -> None:
    network = examples.opened(tmp_path, builders.residual_model())
    config = QuantConfig(W8A8)
    result = verified(tmp_path, network, config)
    data = examples.data_for(network)
    activations = examples.calibrated(network, config, data)
    *_, last = evaluate(Executor(network), data, config, activations)
    assert isinstance(last, EvaluationReady)
    assert result.simulated.scores == last.evaluation.scores
    assert result.deployed.quantized_score.value == pytest.approx(last.evaluation.quantized_score.value, rel=0.05)


def test_that_layers_are_compared_behind_their_quantizers(tmp_path: Path) -> None:
    network = examples.opened(tmp_path, builders.residual_model())
    result = verified(tmp_path, network, QuantConfig(W8A8))
    assert [layer.layer for layer in result.layers] == [layer.name for layer in network.summary.layers]
    assert all(layer.sqnr_db > 30 for layer in result.layers)


def test_that_matmul_in_8_bits_is_named_as_the_reason(tmp_path: Path) -> None:
    network = examples.opened(tmp_path, wide_model())
    result = verified(tmp_path, network, QuantConfig(W4))
    assert result.output_sqnr_db < 50
    assert any("MatMulNBits" in note for note in result.notes)
    assert any("differ by" in note and "by nothing" in note for note in result.notes)


def test_that_float_weights_rounded_by_onnx_runtime_are_named(tmp_path: Path) -> None:
    network = examples.opened(tmp_path, examples.convolutions())
    config = QuantConfig(W8A8).with_overrides({"stem": LayerSpec(None, activation_spec(8))})
    result = verified(tmp_path, network, config)
    assert any("'stem'" in note and "WeightBiasQuantization" in note for note in result.notes)


def test_that_another_configuration_is_noticed(tmp_path: Path) -> None:
    network = examples.opened(tmp_path, builders.mlp_model())
    result = verified(tmp_path, network, QuantConfig(W4), against=QuantConfig(W8))
    assert any("another configuration" in note for note in result.notes)
    same = QuantConfig(FLOAT).with_overrides(dict.fromkeys(network.layers, W4))
    result = verified(tmp_path, network, QuantConfig(W4), against=same)
    assert not any("another configuration" in note for note in result.notes)


def test_that_the_users_metric_judges_both(tmp_path: Path) -> None:
    file = tmp_path / "metric.py"
    file.write_text("def loudness(outputs, labels):\n    return abs(outputs).mean(axis=1)\n")
    network = examples.opened(tmp_path, builders.mlp_model())
    result = verified(tmp_path, network, QuantConfig(W8), load_metric(f"{file}:loudness"))
    assert result.simulated.metric == result.deployed.metric == "loudness"
    assert result.deployed.quantized_score.value == pytest.approx(result.simulated.quantized_score.value)


def test_that_recurrent_state_flows_through_both(tmp_path: Path) -> None:
    network = examples.opened(tmp_path, builders.lstm_model())
    result = verified(tmp_path, network, QuantConfig(W4))
    assert set(result.simulated.scores) == set(result.deployed.scores)
    assert result.output_sqnr_db > 40


def other_model() -> onnx.ModelProto:
    model = builders.mlp_model()
    model.graph.node[-1].output[0] = "z"
    model.graph.output[0].name = "z"
    return model


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "damaged, incomplete or no ONNX network"),
        (b"no network at all", "damaged, incomplete or no ONNX network"),
        (builders.mlp_model().SerializeToString()[:-400], "damaged, incomplete or no ONNX network|cannot be verified"),
        (other_model().SerializeToString(), "is not the quantized form of 'network': it lacks the output 'y'"),
    ],
    ids=["empty", "text", "truncated", "another network"],
)
def test_that_a_file_that_does_not_fit_is_one_sentence(tmp_path: Path, content: bytes, sentence: str) -> None:
    network = examples.opened(tmp_path, builders.mlp_model())
    (tmp_path / "other.onnx").write_bytes(content)
    data = examples.data_for(network)
    with pytest.raises(ExportError, match=sentence):
        list(verify(Executor(network), data, QuantConfig(W8), {}, None, tmp_path / "other.onnx"))


def test_that_a_missing_file_is_one_sentence(tmp_path: Path) -> None:
    network = examples.opened(tmp_path, builders.mlp_model())
    data = examples.data_for(network)
    with pytest.raises(ExportError, match=r"^Cannot read .*No such file"):
        list(verify(Executor(network), data, QuantConfig(W8), {}, None, tmp_path / "missing.onnx"))


def test_that_a_file_of_another_program_is_judged_too(tmp_path: Path) -> None:
    network = examples.opened(tmp_path, builders.mlp_model())
    data = examples.data_for(network)
    *_, result = verify(Executor(network), data, QuantConfig(W8), {}, None, tmp_path / "network.onnx")
    assert isinstance(result, Verification)
    assert "The file does not say which configuration it was made with." in result.notes
    assert result.deployed.output_sqnr_db == math.inf or result.deployed.output_sqnr_db > 100
    assert np.isfinite(result.simulated.output_sqnr_db)


def test_that_kernels_and_the_spread_of_the_time_are_told(tmp_path: Path) -> None:
    network = examples.opened(tmp_path, builders.residual_model())
    data = examples.data_for(network)
    for spec, kernel, is_float in (
        (LayerSpec(weight_spec(8), activation_spec(8)), "QLinearConv", False),
        (LayerSpec(QuantizerSpec(TableFormat("nf4"))), "Conv, float", True),
    ):
        config = QuantConfig(spec)
        activations = examples.calibrated(network, config, data)
        path = tmp_path / "quantized.onnx"
        examples.exported(network, config, activations, path)
        *_, result = verify(Executor(network), data, config, activations, None, path)
        convolutions = [each for each in result.layers if network.layers[each.layer].op == "Conv"]
        assert convolutions
        assert all(kernel in each.kernel and each.is_float == is_float for each in convolutions), convolutions
        assert all(each.stored_bytes > 0 for each in result.layers)
        assert result.latency_quartiles is not None
        assert 0 < result.latency_quartiles[0] <= result.latency_quartiles[1]
        assert any("float weights" in note for note in result.notes) == is_float
