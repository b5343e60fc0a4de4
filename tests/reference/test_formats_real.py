"""Number formats on real trained networks: what is known of them must be seen there too."""

from __future__ import annotations

from pathlib import Path

import networks
import numpy as np
import pytest

from quantgui.analysis.evaluation import evaluate
from quantgui.analysis.sensitivity import measure_sensitivity
from quantgui.network.datasets import open_dataset
from quantgui.network.executor import Executor
from quantgui.network.reader import open_network
from quantgui.numerics.affine import fake_quantize
from quantgui.results import EvaluationReady, Sensitivity
from quantgui.spec.config import QuantConfig
from quantgui.spec.formats import CodebookFormat, IntFormat, MinifloatFormat, TableFormat
from quantgui.spec.granularity import PerBlock, PerGroup, PerTensor
from quantgui.spec.presets import find_preset, preset_config, weight_spec
from quantgui.spec.quantizer import BLOCK_FORMATS, LayerSpec, LeastSquaredError, QuantizerSpec
from quantgui.spec.size import network_bytes
from quantgui.spec.sweep import Sweep

pytestmark = pytest.mark.network


def mean_sqnr_db(network, spec: QuantizerSpec) -> float:
    """Return the mean SQNR of the weights that presets would quantize."""
    layers = [layer for layer in network.summary.layers if not layer.keeps_float]
    return float(np.mean([fake_quantize(network.weight(x), spec, x.channel_axis)[1].sqnr_db for x in layers]))


@pytest.mark.parametrize("name", ["ppocr-cls", "magika", "silero"])
def test_that_finer_blocks_more_levels_and_better_scales_lower_the_error_of_trained_weights(name: str) -> None:
    network = open_network(networks.network_path(name))

    def sqnr_db(fmt, granularity, **options) -> float:
        return mean_sqnr_db(network, QuantizerSpec(fmt, True, granularity, **options))

    four = MinifloatFormat(2, 1)
    nvfp4, mxfp4 = (mean_sqnr_db(network, BLOCK_FORMATS[block]) for block in ("nvfp4", "mxfp4"))
    assert nvfp4 > mxfp4
    assert sqnr_db(four, PerGroup(32)) > mxfp4
    assert sqnr_db(four, PerBlock(8, 32)) < sqnr_db(four, PerGroup(32))
    assert sqnr_db(MinifloatFormat(4, 3), PerGroup(32)) > sqnr_db(MinifloatFormat(5, 2, "ieee"), PerGroup(32)) + 3
    nf4 = sqnr_db(TableFormat("nf4"), PerGroup(64))
    assert nf4 > sqnr_db(IntFormat(4), PerGroup(64))
    assert sqnr_db(TableFormat("nf4"), PerGroup(64), double_quantization=True) > nf4 - 0.5
    fitted = [sqnr_db(CodebookFormat(bits), PerTensor()) for bits in (2, 3, 4, 8)]
    assert fitted == sorted(fitted)
    best_ints = sqnr_db(IntFormat(4), PerTensor(), range_estimator=LeastSquaredError())
    assert fitted[2] > best_ints


def test_that_formats_are_swept_and_evaluated_alike(tmp_path: Path) -> None:
    network = open_network(networks.network_path("demosaicnet"))
    np.save(tmp_path / "data.npy", networks.mosaics(4, 80)[0])
    data = open_dataset(str(tmp_path / "data.npy"), network.summary.inputs, network.summary, network=network)
    specs = (
        LayerSpec(BLOCK_FORMATS["mxfp4"]),
        LayerSpec(QuantizerSpec(TableFormat("nf4"), granularity=PerGroup(64))),
        LayerSpec(QuantizerSpec(CodebookFormat(3))),
        LayerSpec(weight_spec(4)),
    )
    *_, table = measure_sensitivity(Executor(network), data, Sweep(specs, exact=True), {})
    assert isinstance(table, Sensitivity)
    assert table.complete
    assert len({candidate.format for candidate in table.candidates}) == len(specs)
    for candidate in table.candidates[:: max(1, len(table.candidates) // 6)]:
        config = QuantConfig().with_overrides({candidate.layer: candidate.spec})
        *_, last = (e for e in evaluate(Executor(network), data, config, {}) if isinstance(e, EvaluationReady))
        assert candidate.value == pytest.approx(last.evaluation.scores["output_sqnr_db"].value, abs=0.1)


def test_that_blocks_of_four_bits_beat_channels_on_a_real_task(tmp_path: Path) -> None:
    network = open_network(networks.network_path("demosaicnet"))
    np.save(tmp_path / "data.npy", networks.mosaics(4, 80)[0])
    data = open_dataset(str(tmp_path / "data.npy"), network.summary.inputs, network.summary, network=network)
    found, sizes = {}, {}
    for name in ("W4", "MXFP4", "NVFP4", "NF4-g64", "MXFP8", "Binary"):
        config = preset_config(find_preset(name), network.summary.layers)
        *_, last = (e for e in evaluate(Executor(network), data, config, {}) if isinstance(e, EvaluationReady))
        found[name] = last.evaluation.scores["output_sqnr_db"].value
        sizes[name] = network_bytes(network.summary.float_bytes, network.summary.layers, config)
    assert found["NVFP4"] > found["MXFP4"]
    assert found["MXFP8"] > found["NVFP4"] + 5
    assert found["Binary"] < min(value for name, value in found.items() if name != "Binary")
    assert sizes["Binary"] < sizes["MXFP4"] < sizes["NVFP4"] < sizes["MXFP8"] < network.summary.float_bytes / 2
