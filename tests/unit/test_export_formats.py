"""Every format, in every kind of layer that can have it: the file against the simulation, and against its size."""

from __future__ import annotations

from pathlib import Path

import export_examples as examples
import numpy as np
import onnx
import pytest

from quantgui.analysis.simulation import quantized_weight
from quantgui.export.files import initializers
from quantgui.numerics.metrics import sqnr_db
from quantgui.spec.config import QuantConfig
from quantgui.spec.formats import MINIFLOAT_NAMES, CodebookFormat, IntFormat, MinifloatFormat, TableFormat
from quantgui.spec.granularity import PerBlock, PerGroup, PerTensor
from quantgui.spec.presets import activation_spec
from quantgui.spec.quantizer import BLOCK_FORMATS, LayerSpec, QuantizerSpec
from quantgui.spec.size import network_bytes

INT8 = activation_spec(8)
NF4 = TableFormat("nf4")
UNEVEN = (
    *(MinifloatFormat(*each) for each in MINIFLOAT_NAMES),
    *(TableFormat("binary"), NF4, CodebookFormat(1), CodebookFormat(3), CodebookFormat(8)),
)
SPECS = {
    **{str(fmt): LayerSpec(QuantizerSpec(fmt)) for fmt in UNEVEN},
    **{f"{fmt} tensor": LayerSpec(QuantizerSpec(fmt, granularity=PerTensor())) for fmt in UNEVEN},
    **{f"{fmt} g5": LayerSpec(QuantizerSpec(fmt, granularity=PerGroup(5))) for fmt in UNEVEN},
    **{f"{fmt} block": LayerSpec(QuantizerSpec(fmt, granularity=PerBlock(3, 5))) for fmt in UNEVEN},
    **{name: LayerSpec(spec) for name, spec in BLOCK_FORMATS.items()},
    **{
        f"int{bits} block": LayerSpec(QuantizerSpec(IntFormat(bits), symmetric, PerBlock(4, 6)))
        for bits, symmetric in ((2, True), (3, False), (4, True), (8, False), (16, False))
    },
    **{
        f"int4 g5 {scales}": LayerSpec(QuantizerSpec(IntFormat(4), False, PerGroup(5), scale_format=scales))
        for scales in ("float16", "bfloat16", "e8m0", "e4m3")
    },
    **{
        f"nf4 g7 {scales}": LayerSpec(QuantizerSpec(NF4, True, PerGroup(7), scale_format=scales))
        for scales in ("float16", "bfloat16", "e8m0", "e4m3")
    },
    "int8 e8m0": LayerSpec(QuantizerSpec(IntFormat(8), scale_format="e8m0")),
    "int8 e8m0 a8": LayerSpec(QuantizerSpec(IntFormat(8), scale_format="e8m0"), INT8),
    "int4 double": LayerSpec(QuantizerSpec(IntFormat(4), False, PerGroup(4), double_quantization=True)),
    "nf4 double": LayerSpec(QuantizerSpec(NF4, True, PerGroup(4), double_quantization=True)),
    "nf4 block double": LayerSpec(QuantizerSpec(NF4, True, PerBlock(2, 4), double_quantization=True)),
    "codebook4 float16": LayerSpec(QuantizerSpec(CodebookFormat(4), scale_format="float16")),
    "ternary": LayerSpec(QuantizerSpec(IntFormat(2, narrow_range=True))),
    "nf4 a8": LayerSpec(QuantizerSpec(NF4), INT8),
    "codebook3 a8": LayerSpec(QuantizerSpec(CodebookFormat(3)), INT8),
    "e4m3 a8": LayerSpec(QuantizerSpec(MinifloatFormat(4, 3)), INT8),
    "int4 block a8": LayerSpec(QuantizerSpec(IntFormat(4), True, PerBlock(4, 6)), INT8),
    **{
        f"{weights or 'float'} a {fmt}": LayerSpec(
            None if weights is None else QuantizerSpec(weights), QuantizerSpec(fmt, granularity=PerTensor())
        )
        for fmt in (MinifloatFormat(4, 3), MinifloatFormat(5, 2, "ieee"), MinifloatFormat(2, 1))
        for weights in (None, MinifloatFormat(4, 3), IntFormat(8), IntFormat(4))
    },
}
HELPERS = ("number", "shape", "moved", "flat", "start", "end", "shifts", "modulus", "table", "middle", "one", "column")
"""What belongs to the graph and not to the weight, by the last part of its name."""


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS.keys())
@pytest.mark.parametrize("model", ["convolutions", "signals", "tokens", "lstm", "halves"])
def test_that_the_file_computes_what_the_simulation_shows_by_default_and_unfused(
    tmp_path: Path, model: str, spec: LayerSpec
) -> None:
    network = examples.opened(tmp_path, examples.MODELS[model]())
    config = QuantConfig(spec)
    data = examples.data_for(network, 3)
    activations = examples.calibrated(network, config, data)
    path = tmp_path / "quantized.onnx"
    examples.exported(network, config, activations, path)
    batch = next(data.batches())
    integers = spec.activations is not None and spec.activations.is_integer
    fusible = spec.weights is not None and spec.weights.is_integer
    shown = examples.simulated(network, config, activations, batch)
    plain, default = (examples.run_file(path, batch, fused=fused) for fused in (False, True))
    for name, values in shown.items():
        assert sqnr_db(values, plain[name]) > 100, name
        # Fusions of integer kernels cost accuracy; other formats have none.
        assert sqnr_db(values, default[name]) > (25 if integers or fusible or model == "halves" else 100), name


@pytest.mark.parametrize("spec", [spec for spec in SPECS.values() if spec.activations is None])
@pytest.mark.parametrize("model", ["convolutions", "signals", "tokens"])
def test_that_the_weight_is_the_same_to_the_bit_and_takes_the_bytes_that_are_told(
    tmp_path: Path, model: str, spec: LayerSpec
) -> None:
    network = examples.opened(tmp_path, examples.MODELS[model]())
    config = QuantConfig(spec)
    path = tmp_path / "quantized.onnx"
    examples.exported(network, config, {}, path)
    model_file = onnx.load(path)
    assert spec.weights is not None
    for name in {layer.weight for layer in network.summary.layers}:
        parts = {layer: spec.weights for layer in network.summary.layers if layer.weight == name}
        np.testing.assert_array_equal(examples.constant_of(model_file, name), quantized_weight(network, name, parts))
    stored = {tensor.name: len(tensor.raw_data) for tensor in initializers(model_file.graph) if tensor.raw_data}
    weights = {layer.weight for layer in network.summary.layers}
    held = sum(
        size
        for name, size in stored.items()
        for weight in weights
        if name.startswith(f"{weight}_") and name.removeprefix(f"{weight}_").split("_")[0] not in HELPERS
        if not name.removeprefix(f"{weight}_").startswith(("scale_table", "scale_shape", "smallest", "grid"))
    )
    if isinstance(spec.weights.format, CodebookFormat):
        held += sum(size for name, size in stored.items() if "_table" in name)
    layers = network.summary.layers
    kept = network.summary.float_bytes - sum(4 * layer.channels * layer.elements_per_channel for layer in layers)
    told = network_bytes(network.summary.float_bytes, layers, config, stored=True) - kept
    if spec.weights.scale_format == "e4m3":
        told -= 4 * len(layers)  # the float32 of the tensor is in the table of its scales
    single = sum(4 for layer in layers if isinstance(spec.weights.granularity, PerTensor))
    # A recurrent weight has a scale for each row where its parts have one each; bytes end where initializers do.
    assert told - 2 * len(layers) <= held <= told + (8 * 24 * 4 if single and model == "signals" else 2 * len(layers))
