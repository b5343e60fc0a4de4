from __future__ import annotations

import json
import os
import pickle
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantgui.errors import SpecError
from quantgui.spec.config import QuantConfig, changed_layers, unknown_names
from quantgui.spec.formats import FloatFormat, IntFormat, parse_format
from quantgui.spec.granularity import PerChannel, PerGroup, PerTensor, group_count
from quantgui.spec.presets import PRESETS, find_preset, preset_config
from quantgui.spec.quantizer import (
    FLOAT,
    Entropy,
    FixedRange,
    LayerSpec,
    LeastSquaredError,
    MinMax,
    Percentile,
    QuantizerSpec,
)
from quantgui.spec.serialization import config_from_json, config_to_json, load_config, save_config
from quantgui.spec.size import weight_bytes
from quantgui.spec.sweep import WHAT, Sweep, bits_specs

int_formats = st.builds(IntFormat, st.integers(2, 16), st.booleans(), st.booleans())
ranges = st.one_of(
    st.just(MinMax()),
    st.just(LeastSquaredError()),
    st.just(Entropy()),
    st.builds(Percentile, st.floats(50, 100)),
    st.builds(FixedRange, st.floats(-1e30, 0), st.floats(0, 1e30)),
)
granularities = st.one_of(st.just(PerTensor()), st.just(PerChannel()), st.builds(PerGroup, st.integers(2, 4096)))
integer_specs = st.builds(QuantizerSpec, int_formats, st.booleans(), granularities, ranges, st.booleans())
float_specs = st.sampled_from(["float16", "bfloat16"]).map(
    lambda name: QuantizerSpec(FloatFormat(name), granularity=PerTensor())
)
activation_specs = st.builds(QuantizerSpec, int_formats, st.booleans(), st.just(PerTensor()), ranges, st.booleans())
layer_specs = st.builds(
    LayerSpec, st.one_of(st.none(), integer_specs, float_specs), st.one_of(st.none(), activation_specs, float_specs)
)
configs = st.builds(QuantConfig, layer_specs, st.dictionaries(st.text(max_size=8), layer_specs, max_size=4))


@given(configs)
def test_that_a_configuration_survives_json(config: QuantConfig) -> None:
    assert config_from_json(json.loads(json.dumps(config_to_json(config)))) == config


@given(configs)
def test_that_a_configuration_survives_the_way_to_another_process(config: QuantConfig) -> None:
    copy = pickle.loads(pickle.dumps(config))
    assert copy == config
    assert hash(copy) == hash(config)


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ([], "configuration must be an object, got list"),
        ({"version": 2}, "has version 2; this program reads version 1"),
        ({"layers": {}}, "lacks the key 'version'"),
        ({"version": 1, "layer": {}}, "unknown key 'layer'"),
        ({"version": 1, "layers": []}, "'layers' of the configuration must be an object"),
        ({"version": 1, "default": {"weights": {"bits": 4}}}, r"default.weights has the unknown key 'bits'"),
        ({"version": 1, "default": {"weights": {"format": "int17"}}}, "Bit-width must be 2 to 16, got 17"),
        ({"version": 1, "default": {"weights": {"format": "fp8"}}}, "'fp8' is no number format"),
        ({"version": 1, "default": {"weights": {"format": "int4", "symmetric": 1}}}, "must be true or false, got 1"),
        ({"version": 1, "default": {"weights": {"format": "int4", "granularity": "row"}}}, "granularity must be"),
        ({"version": 1, "default": {"weights": {"format": "int4", "granularity": {"group_size": 1}}}}, "2 or more"),
        ({"version": 1, "default": {"weights": {"format": "int4", "range": {"percentile": 20}}}}, "50 to 100"),
        ({"version": 1, "default": {"weights": {"format": "int4", "range": {"low": 1, "high": 2}}}}, "contain 0"),
        ({"version": 1, "default": {"activations": {"format": "int8"}}}, "Activations are quantized per tensor"),
        ({"version": True}, "has version True"),
        ({"version": 1, "default": {"weights": {"format": "int٤"}}}, "no number format"),
        ({"version": 1, "default": {"weights": {"format": "int04"}}}, "no number format"),
        ({"version": 1, "default": {"weights": {"format": "int4", "range": {"low": -(10**400), "high": 1}}}}, "finite"),
        ({"version": 1, "default": {"weights": {"format": "int4", "range": {"low": False, "high": True}}}}, "finite"),
        (
            {"version": 1, "layers": {"a": {"weights": {"format": "int4", "range": {"low": 1, "high": 2}}}}},
            r"In layers\['a'\].weights: A fixed range",
        ),
    ],
)
def test_that_a_faulty_configuration_is_refused_with_its_place(value: object, sentence: str) -> None:
    with pytest.raises(SpecError, match=sentence):
        config_from_json(value)


def test_that_a_file_that_is_no_json_gives_a_sentence(tmp_path: Path) -> None:
    file = tmp_path / "c.json"
    file.write_text("{")
    with pytest.raises(SpecError, match=r"'c\.json' is no JSON file"):
        load_config(file)
    with pytest.raises(SpecError, match="No such file"):
        load_config(tmp_path / "absent.json")


@pytest.mark.parametrize(
    "text", ["", "[" * 100_000, '{"version": 1' + "0" * 5000 + "}", '{"version": 1, "version": 1}']
)
def test_that_text_that_is_no_configuration_gives_a_sentence(tmp_path: Path, text: str) -> None:
    (tmp_path / "c.json").write_text(text)
    with pytest.raises(SpecError):
        load_config(tmp_path / "c.json")


def test_that_a_byte_order_mark_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text('\ufeff{"version": 1}', encoding="utf-8")
    assert load_config(tmp_path / "c.json") == QuantConfig()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no device that is always full")
def test_that_a_failed_save_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "c.json"
    save_config(QuantConfig(name="first"), file)

    def full(_descriptor: int) -> None:
        with open("/dev/full", "wb", buffering=0) as device:
            device.write(b"x")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(SpecError, match="No space left"):
        save_config(QuantConfig(name="second"), file)
    assert load_config(file).name == "first"
    assert [path.name for path in tmp_path.glob("*c.json*")] == ["c.json"]


def test_that_unknown_layers_are_named_with_the_nearest() -> None:
    config = QuantConfig(overrides={"conv_1": FLOAT, "zzz": FLOAT})
    found = unknown_names(config, ["conv1", "fc"])
    assert next((u.name, u.nearest) for u in found) == ("conv_1", "conv1")
    assert "did you mean 'conv1'" in str(found[0])


def test_that_an_override_equal_to_the_default_is_dropped() -> None:
    four = LayerSpec(QuantizerSpec(IntFormat(4)))
    config = QuantConfig().with_overrides({"a": four, "b": FLOAT})
    assert dict(config.overrides) == {"a": four}
    assert config.with_overrides({"a": FLOAT}) == QuantConfig()
    assert changed_layers(QuantConfig(), config, ["a", "b"]) == {"a"}


@given(int_formats)
def test_that_a_grid_has_its_levels_and_fits_its_storage(fmt: IntFormat) -> None:
    assert fmt.quant_max - fmt.quant_min + 1 == 2**fmt.bits - fmt.narrow_range
    assert fmt.storage_bits >= fmt.bits
    assert parse_format(str(fmt)) == IntFormat(fmt.bits, fmt.signed)


@given(st.integers(1, 40), st.integers(1, 100), st.integers(2, 64))
def test_that_groups_are_counted_with_the_remainder(channels: int, elements: int, size: int) -> None:
    assert group_count(channels, elements, PerGroup(size)) == channels * len(range(0, elements, size))


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (None, 4 * 600),
        (QuantizerSpec(FloatFormat("float16")), 2 * 600),
        (QuantizerSpec(IntFormat(8), True, PerTensor()), 600 + 4),
        (QuantizerSpec(IntFormat(3), True, PerChannel()), 225 + 40),
        (QuantizerSpec(IntFormat(4), False, PerChannel()), 300 + 40 + 5),
        (QuantizerSpec(IntFormat(4, signed=False), True, PerGroup(32)), 300 + 80 + 10),
    ],
)
def test_that_bytes_count_values_scales_and_zero_points(spec: QuantizerSpec | None, expected: int) -> None:
    assert weight_bytes(10, 60, spec) == expected


def test_that_stored_bytes_count_the_next_onnx_type() -> None:
    assert weight_bytes(10, 60, QuantizerSpec(IntFormat(3), True, PerTensor()), stored=True) == 304


@pytest.mark.parametrize("preset", PRESETS, ids=lambda preset: preset.name)
def test_that_presets_are_found_in_any_case_and_leave_marked_layers_float(preset) -> None:
    class Layer:
        def __init__(self, name: str, keeps_float: bool) -> None:
            self.name, self.keeps_float = name, keeps_float

    assert find_preset(preset.name.lower()) is preset
    config = preset_config(preset, [Layer("stft", True), Layer("conv", False)])
    assert config.spec_for("stft") == FLOAT
    assert config.spec_for("conv") == preset.spec


def test_that_an_unknown_preset_names_the_known_ones() -> None:
    with pytest.raises(SpecError, match="no preset 'W9'; choose one of float32, W8A8"):
        find_preset("W9")


@pytest.mark.parametrize("what", WHAT)
def test_that_specs_of_a_sweep_which_differ_in_bits_or_groups_stand_in_columns_of_their_own(what) -> None:
    specs = (*bits_specs(range(2, 9)), *(find_preset(name).spec for name in ("W4A16-g32", "W4A16-g128", "bfloat16")))
    sweep = Sweep(specs, what)
    labels = [sweep.label(spec) for spec in specs if what != "activations" or spec.activations is not None]
    assert len(set(labels)) == len(labels)
    # Where the base quantizes the part that is not swept, the column is called the same.
    within = Sweep(specs, what, QuantConfig(find_preset("W8A8").spec))
    assert all(within.label(within.candidate("conv", spec)) == sweep.label(spec) for spec in specs)
