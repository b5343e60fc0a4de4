"""Files of other tools: what is written is read back, and names that match nothing are told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from networks import network_path

from quantgui.engine.bench import Bench
from quantgui.engine.requests import Calibrate, OpenData, OpenNetwork
from quantgui.errors import ExportError
from quantgui.export.dialects.material import Material, gather
from quantgui.export.dialects.table import DIALECTS, find_dialect, read_dialect
from quantgui.results import Calibrated
from quantgui.spec.presets import find_preset, preset_config

WRITTEN = [dialect.info.name for dialect in DIALECTS if not dialect.info.needs_sensitivity]
READ = [dialect.info.name for dialect in DIALECTS if dialect.read is not None]
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def materials() -> dict[str, Material]:
    """Return the digits network as W8A8, and a network of linear layers in groups of 32."""
    found = {}
    for name, path, preset in (
        ("W8A8", ROOT / "sample_models/digits/digits.onnx", "W8A8"),
        ("groups", network_path("magika"), "W4A16-g32"),
    ):
        bench = Bench(cache_bytes=2**26)
        list(bench.handle(OpenNetwork(str(path))))
        list(bench.handle(OpenData("random:4")))
        config = preset_config(find_preset(preset), bench.network.summary.layers)
        *_, calibrated = bench.handle(Calibrate())
        assert isinstance(calibrated, Calibrated)
        found[name] = gather(bench.network, config, calibrated.activations)
    return found


@pytest.mark.parametrize("name", READ)
@pytest.mark.parametrize("which", ["W8A8", "groups"])
def test_that_what_is_written_is_read_back(materials: dict[str, Material], name: str, which: str) -> None:
    material = materials[which]
    written = find_dialect(name).write(material)
    dialect, read = read_dialect(written.text, material.summary, name)
    assert dialect.info.name == name
    assert read.unknown == ()
    differing = [
        layer.name
        for layer in material.summary.layers
        if str(read.config.spec_for(layer.name).weights) != str(material.spec_of(layer).weights)
    ]
    # A difference is told.
    assert all(any(x in note for note in written.notes) for x in differing[:3])


@pytest.mark.parametrize("name", ["aimet-1.0", "torchao", "modelopt", "compressed-tensors", "llama.cpp", "litert"])
def test_that_groups_come_back(materials: dict[str, Material], name: str) -> None:
    material = materials["groups"]
    _, read = read_dialect(find_dialect(name).write(material).text, material.summary)
    linear = [layer for layer in material.summary.layers if layer.op in ("MatMul", "Gemm") and not layer.keeps_float]
    assert linear
    for layer in linear:
        weights = read.config.spec_for(layer.name).weights
        if layer.elements_per_channel % 32 and name not in ("modelopt", "llama.cpp", "litert"):
            assert weights is None, "the tool refuses a remainder"
            continue
        assert weights is not None
        assert (weights.bits, weights.granularity) == (4, material.spec_of(layer).weights.granularity)


def test_that_a_name_that_matches_nothing_is_told_with_the_nearest(materials: dict[str, Material]) -> None:
    material = materials["groups"]
    text = find_dialect("torchao").write(material).text
    entry = next(iter(json.loads(text)["_data"]["fqn_to_config"]))
    _, read = read_dialect(text.replace(json.dumps(entry), json.dumps(f"{entry}x")), material.summary)
    assert [unknown.name for unknown in read.unknown] == [f"{entry}x"]
    assert read.unknown[0].nearest == entry


@pytest.mark.parametrize("name", READ)
@pytest.mark.parametrize("text", ["", "{", "[]", '{"version": 3}', "\x00", "x = (", "a=b=c"])
def test_that_nonsense_is_a_sentence(materials: dict[str, Material], name: str, text: str) -> None:
    with pytest.raises(ExportError, match=r"\.$"):
        read_dialect(text, materials["W8A8"].summary, name)
