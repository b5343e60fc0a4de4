"""Networks that ONNX Runtime's own quantizer has made: read as configurations, and compared with one's own."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
from networks import network_path
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)
from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

from quantgui.cli.main import main
from quantgui.engine.bench import Bench
from quantgui.engine.requests import OpenNetwork, ReadSettings
from quantgui.errors import ExportError
from quantgui.results import SettingsRead
from quantgui.spec.granularity import PerChannel, PerGroup, PerTensor

DIGITS = Path(__file__).parents[2] / "sample_models/digits"


class Pictures(CalibrationDataReader):
    def __init__(self) -> None:
        pictures = np.load(DIGITS / "digits.calibration.npz")["picture"].astype(np.float32)
        self._batches = iter([{"picture": pictures[i : i + 8]} for i in range(0, 32, 8)])

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._batches, None)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("quantized")
    paths = {name: folder / f"{name}.onnx" for name in ("qdq", "integer", "dynamic", "blocks")}
    network = DIGITS / "digits.onnx"
    unsigned = {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QUInt8}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quantize_static(network, paths["qdq"], Pictures(), quant_format=QuantFormat.QDQ, per_channel=True)
        quantize_static(network, paths["integer"], Pictures(), quant_format=QuantFormat.QOperator, **unsigned)
        quantize_dynamic(network, paths["dynamic"])
        blocks = MatMulNBitsQuantizer(str(network_path("magika")), block_size=32, is_symmetric=True)
        blocks.process()
        blocks.model.save_model_to_file(str(paths["blocks"]))
    return paths


def read(network: Path, path: Path) -> tuple[Bench, SettingsRead]:
    bench = Bench(cache_bytes=2**26)
    list(bench.handle(OpenNetwork(str(network))))
    *_, answer = bench.handle(ReadSettings(str(path)))
    assert isinstance(answer, SettingsRead)
    return bench, answer


@pytest.mark.parametrize(
    ("name", "bits", "granularity"),
    [("qdq", 8, PerChannel()), ("integer", 8, PerTensor()), ("dynamic", 8, PerTensor())],
)
def test_that_every_layer_is_found_with_its_format(files, name: str, bits: int, granularity: object) -> None:
    bench, answer = read(DIGITS / "digits.onnx", files[name])
    assert answer.unknown == ()
    for layer in bench.network.summary.layers:
        spec = answer.config.spec_for(layer.name)
        assert spec.weights is not None
        assert (spec.weights.bits, spec.weights.granularity) == (bits, granularity)
        assert spec.activations is not None
        assert spec.activations.bits == 8


def test_that_blocks_of_a_real_network_are_found(files) -> None:
    bench, answer = read(network_path("magika"), files["blocks"])
    assert answer.unknown == ()
    found = {name: spec.weights for name, spec in answer.config.overrides.items()}
    assert found
    for name, weights in found.items():
        assert bench.network.layers[name].op in ("MatMul", "Gemm")
        assert weights is not None
        assert (weights.bits, weights.symmetric, weights.granularity) == (4, True, PerGroup(32))


def test_that_blocks_of_a_real_network_are_as_good_as_the_same_formats_here(files, capsys) -> None:
    words = ["compare", str(network_path("magika")), str(files["blocks"]), "--data", "random:4", "--json"]
    assert main(words) == 0
    answer = json.loads(capsys.readouterr().out)
    # Its kernels round activations, so it may be a little worse.
    assert answer["others"]["output_sqnr_db"] == pytest.approx(answer["own"]["output_sqnr_db"], abs=3)


def test_that_a_float_network_is_no_quantized_one() -> None:
    with pytest.raises(ExportError, match="is quantized in a way that is known"):
        read(DIGITS / "digits.onnx", DIGITS / "digits.onnx")


@pytest.mark.parametrize("name", ["qdq", "integer", "dynamic"])
def test_that_the_other_network_is_compared_with_ones_own(files, name: str, capsys) -> None:
    words = ["compare", str(DIGITS / "digits.onnx"), str(files[name])]
    words += ["--data", str(DIGITS / "digits.evaluation.npz"), "--samples", "64", "--json"]
    assert main(words) == 0
    same = json.loads(capsys.readouterr().out)
    # The same formats: ONNX Runtime's ranges are those of fewer samples, and it quantizes more tensors.
    assert same["others"]["output_sqnr_db"] == pytest.approx(same["own"]["output_sqnr_db"], abs=4)
    assert len(same["layers"]) == 10
    assert all(each["own"] == each["others"] for each in same["layers"])
    assert main([*words, "--preset", "W4"]) == 0
    coarser = json.loads(capsys.readouterr().out)
    assert coarser["others"]["output_sqnr_db"] == pytest.approx(same["others"]["output_sqnr_db"])
    assert coarser["own"]["output_sqnr_db"] < coarser["others"]["output_sqnr_db"]
    if name != "integer":  # whose tensors in between are integers under other names
        assert all(each["others_sqnr_db"] > 10 for each in coarser["layers"])
