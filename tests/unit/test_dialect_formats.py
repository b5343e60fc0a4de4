"""Every format in every tool's file: it comes back as it was, or a note says that it is not there."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from quantgui.engine.bench import Bench
from quantgui.engine.requests import Calibrate, OpenData, OpenNetwork
from quantgui.errors import ExportError
from quantgui.export.dialects.material import Material, gather
from quantgui.export.dialects.table import DIALECTS, find_dialect, read_dialect
from quantgui.results import Calibrated
from quantgui.spec.config import QuantConfig
from quantgui.spec.formats import IntFormat, MinifloatFormat
from quantgui.spec.granularity import PerBlock
from quantgui.spec.presets import PRESETS, preset_config
from quantgui.spec.quantizer import BLOCK_FORMATS, LayerSpec, MinMax, QuantizerSpec

ROOT = Path(__file__).parents[2]
READ = [dialect.info.name for dialect in DIALECTS if dialect.read is not None and dialect.info.name != "nncf"]
BLOCKS = {
    "int8 in blocks": LayerSpec(QuantizerSpec(IntFormat(8), granularity=PerBlock(8, 16))),
    "float8 in blocks": LayerSpec(QuantizerSpec(MinifloatFormat(4, 3), granularity=PerBlock(16, 16))),
}
CONFIGS = [preset.name for preset in PRESETS if preset.name != "float32"] + list(BLOCKS)


@pytest.fixture(scope="module")
def bench() -> Bench:
    bench = Bench(cache_bytes=2**26)
    list(bench.handle(OpenNetwork(str(ROOT / "sample_models/digits/digits.onnx"))))
    list(bench.handle(OpenData("random:4")))
    return bench


@pytest.fixture(scope="module")
def materials(bench: Bench) -> dict[str, Material]:
    layers = bench.network.summary.layers
    configs = {preset.name: preset_config(preset, layers) for preset in PRESETS}
    configs |= {name: QuantConfig(spec) for name, spec in BLOCKS.items()}
    *_, calibrated = bench.handle(Calibrate())
    assert isinstance(calibrated, Calibrated)
    return {name: gather(bench.network, config, calibrated.activations) for name, config in configs.items()}


def bare(spec: QuantizerSpec | None) -> QuantizerSpec | None:
    """Return what every tool must agree on: all but how the range is found, which is the tool's own affair."""
    return None if spec is None else replace(spec, range_estimator=MinMax(), full_range=False)


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("name", READ)
def test_that_a_format_comes_back_or_is_told(materials: dict[str, Material], name: str, config: str) -> None:
    material = materials[config]
    try:
        written = find_dialect(name).write(material)
    except ExportError:
        assert name == "llama.cpp"  # which says that it has no type for any of these layers
        return
    _, read = read_dialect(written.text, material.summary, name)
    told = 0
    for note in written.notes:
        more = re.search(r"and (\d+) more\.$", note)
        told += note.count("'") // 2 + (int(more[1]) if more else 0)
        told += int(found[1]) if (found := re.match(r"(\d+) layers?: ", note)) else 0
    differing = [
        layer.name
        for layer in material.summary.layers
        if bare(read.config.spec_for(layer.name).weights) != bare(material.spec_of(layer).weights)
    ]
    # Scales that were rounded are written as the numbers they are, so nothing is lost but how they were found.
    if name in ("aimet-0.6.1", "aimet-1.0", "aimet-2.0", "qnn", "ort"):
        kept = [layer for layer in differing if find(material, read.config, layer)]
        differing = [layer for layer in differing if layer not in kept]
    assert len(differing) <= told, (differing, written.notes)


def find(material: Material, config: QuantConfig, layer: str) -> bool:
    """Return whether a layer has the same integers, whose scales lie in the file."""
    wanted, read = material.config.spec_for(layer).weights, config.spec_for(layer).weights
    if wanted is None or read is None or not isinstance(wanted.format, IntFormat):
        return False
    return (wanted.bits, wanted.symmetric, wanted.granularity) == (read.bits, read.symmetric, read.granularity)


@pytest.mark.parametrize(
    ("name", "formats"),
    [
        ("modelopt", ["mxfp8_e4m3", "mxfp6_e2m3", "mxfp6_e3m2", "mxfp4", "mxint8", "nvfp4"]),
        ("quark", ["mxfp8_e4m3", "mxfp8_e5m2", "mxfp6_e2m3", "mxfp6_e3m2", "mxfp4", "mxint8"]),
        ("compressed-tensors", ["mxfp8_e4m3", "mxfp6_e2m3", "mxfp4", "nvfp4"]),
        ("torchao", ["nvfp4"]),
        ("llama.cpp", ["mxfp4", "nvfp4"]),
    ],
)
def test_that_block_formats_are_written_where_the_tool_has_them(bench: Bench, name: str, formats: list[str]) -> None:
    for block in BLOCK_FORMATS:
        # The one layer of the sample whose rows are whole blocks is enough for all tools.
        config = QuantConfig().with_overrides({"/down2/pointwise/Conv": LayerSpec(BLOCK_FORMATS[block])})
        if name in ("torchao", "compressed-tensors"):
            config = QuantConfig().with_overrides({"/head/Gemm": LayerSpec(BLOCK_FORMATS[block])})
        material = gather(bench.network, config, {}, grids=False)
        try:
            _, read = read_dialect(find_dialect(name).write(material).text, material.summary, name)
        except ExportError:
            assert block not in formats
            continue
        found = {spec.weights for spec in read.config.overrides.values() if spec.weights is not None}
        assert (BLOCK_FORMATS[block] in found) == (block in formats), block


def test_that_axes_of_blocks_are_numbers_in_a_recipe_and_the_rest_is_json(materials: dict[str, Material]) -> None:
    text = find_dialect("modelopt").write(materials["W4A16-g32"]).text
    assert re.search(r"^\s+-1: 32,$", text, re.MULTILINE)
    assert '"-1"' not in text
    value = json.loads(re.sub(r"(-1):", r'"\1":', text))
    assert set(value) == {"metadata", "quantize"}


def test_that_half_a_blocks_remainder_is_told_where_the_tool_refuses_it(materials: dict[str, Material]) -> None:
    written = find_dialect("aimet-1.0").write(materials["W4A16-g32"])
    entries = json.loads(written.text)["param_encodings"]
    shapes = {layer.weight: layer.elements_per_channel for layer in materials["W4A16-g32"].summary.layers}
    assert all(shapes[each["name"]] % 32 == 0 for each in entries)
    assert any("leave a remainder" in note for note in written.notes)
