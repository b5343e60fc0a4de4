"""Configurations read from quantized ONNX files: what was exported, or ONNX Runtime has quantized, is found again."""

from __future__ import annotations

from pathlib import Path

import builders
import export_examples as examples
import pytest
from onnxruntime.quantization import quantize_dynamic

from quantgui.export.quantized_file import read_quantized
from quantgui.network.network import Network
from quantgui.spec.config import QuantConfig
from quantgui.spec.granularity import PerChannel, PerTensor
from quantgui.spec.presets import weight_spec
from quantgui.spec.quantizer import LayerSpec, QuantizerSpec


def formats(network: Network, config: QuantConfig) -> dict[str, str]:
    """Return the format of each layer, and whether it has one scale or one for each channel."""
    told = {}
    for layer in network.summary.layers:
        spec = config.spec_for(layer.name).weights
        told[layer.name] = "float32" if spec is None else f"{spec.format} {type(spec.granularity).__name__}"
    return told


@pytest.mark.parametrize("model", [builders.lstm_model(), examples.signals()], ids=["lstm", "gru"])
def test_that_gates_come_back_from_an_exported_file_each_with_its_format(tmp_path: Path, model) -> None:
    network = examples.opened(tmp_path, model)
    layers = [layer.name for layer in network.summary.layers]
    gates = [layer.name for layer in network.summary.layers if layer.rows is not None]
    every = {name: LayerSpec(weight_spec(8)) for name in layers}
    # The first gate float, the second with one scale, the third of 4 bits.
    every[gates[0]] = LayerSpec()
    every[gates[1]] = LayerSpec(weight_spec(8, granularity=PerTensor()))
    every[gates[2]] = LayerSpec(weight_spec(4))
    config = QuantConfig().with_overrides(every)
    examples.exported(network, config, {}, tmp_path / "quantized.onnx")
    read = read_quantized(tmp_path / "quantized.onnx", network)
    assert read.unknown == ()
    found, wanted = formats(network, read.config), formats(network, config)
    assert {name: found[name] for name in gates} == {name: wanted[name] for name in gates}


@pytest.mark.parametrize("per_channel", [False, True])
def test_that_the_lstm_that_onnx_runtime_has_quantized_is_read(tmp_path: Path, per_channel: bool) -> None:
    network = examples.opened(tmp_path, builders.lstm_model())
    quantize_dynamic(tmp_path / "network.onnx", tmp_path / "quantized.onnx", per_channel=per_channel)
    read = read_quantized(tmp_path / "quantized.onnx", network)
    assert read.unknown == ()
    kind = PerChannel if per_channel else PerTensor
    for layer in network.summary.layers:
        spec = read.config.spec_for(layer.name).weights
        assert isinstance(spec, QuantizerSpec)
        assert spec.format.bits == 8
        if layer.rows is not None:
            assert isinstance(spec.granularity, kind)
