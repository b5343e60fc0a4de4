from __future__ import annotations

import json
import os
import pickle
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantgui.errors import SpecError
from quantgui.spec.config import QuantConfig, changed_layers, unknown_names
from quantgui.spec.formats import (
    MINIFLOAT_NAMES,
    CodebookFormat,
    FloatFormat,
    IntFormat,
    MinifloatFormat,
    TableFormat,
    parse_format,
)
from quantgui.spec.granularity import PerBlock, PerChannel, PerGroup, PerTensor, group_count
from quantgui.spec.presets import PRESETS, find_preset, preset_config, usual_weight_spec
from quantgui.spec.quantizer import (
    BLOCK_FORMATS,
    FLOAT,
    SCALE_FORMATS,
    Entropy,
    FixedRange,
    HalfQuadratic,
    LayerSpec,
    LeastSquaredError,
    MinMax,
    MovingAverage,
    Percentile,
    QuantizerSpec,
    SampleMean,
    TwoSidedPercentile,
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
    st.builds(TwoSidedPercentile, st.floats(0, 50), st.floats(50, 100)),
    st.builds(FixedRange, st.floats(-1e30, 0), st.floats(0, 1e30)),
    st.builds(FixedRange, st.floats(-1e30, 0), st.floats(0, 1e30), st.just((-0.5, 2.25))),
)
finer = st.one_of(
    st.just(PerChannel()),
    st.builds(PerGroup, st.integers(2, 4096)),
    st.builds(PerBlock, st.integers(1, 4096), st.integers(2, 4096)),
)
granularities = st.one_of(st.just(PerTensor()), finer)
plain_specs = st.builds(QuantizerSpec, int_formats, st.booleans(), granularities, ranges, st.booleans())
minifloats = st.sampled_from([MinifloatFormat(*each) for each in MINIFLOAT_NAMES])
uneven_formats = st.one_of(minifloats, st.sampled_from([TableFormat("nf4"), TableFormat("binary")]))
uneven_specs = st.builds(
    QuantizerSpec,
    uneven_formats,
    granularity=finer,
    range_estimator=ranges,
    scale_format=st.sampled_from(SCALE_FORMATS),
)
codebook_specs = st.builds(
    QuantizerSpec,
    st.builds(CodebookFormat, st.integers(1, 8)),
    granularity=granularities,
    scale_format=st.sampled_from(["float32", "float16", "bfloat16"]),
)
double_specs = st.builds(
    QuantizerSpec,
    st.one_of(int_formats, uneven_formats),
    granularity=finer,
    range_estimator=ranges,
    double_quantization=st.booleans(),
)
half_quadratic_specs = st.builds(
    QuantizerSpec, int_formats, st.just(False), granularities, st.just(HalfQuadratic()), scale_format=st.just("float16")
)
integer_specs = st.one_of(plain_specs, uneven_specs, codebook_specs, double_specs, half_quadratic_specs)
float_specs = st.sampled_from(["float16", "bfloat16"]).map(
    lambda name: QuantizerSpec(FloatFormat(name), granularity=PerTensor())
)
activation_ranges = st.one_of(
    ranges, st.just(SampleMean()), st.builds(MovingAverage, st.floats(0, 1, exclude_max=True))
)
activation_specs = st.one_of(
    st.builds(QuantizerSpec, int_formats, st.booleans(), st.just(PerTensor()), activation_ranges, st.booleans()),
    st.builds(QuantizerSpec, minifloats, granularity=st.just(PerTensor()), range_estimator=activation_ranges),
)
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
        ({"version": 1, "default": {"weights": {"format": "codebook9"}}}, "A codebook has 1 to 8 bits, got 9"),
        ({"version": 1, "default": {"weights": {"format": "nf4", "symmetric": False}}}, "nf4 has no zero point"),
        ({"version": 1, "default": {"weights": {"format": "nf4", "narrow_range": True}}}, "no meaning for nf4"),
        (
            {"version": 1, "default": {"weights": {"format": "codebook4", "range": "entropy"}}},
            "no meaning for codebook4",
        ),
        ({"version": 1, "default": {"weights": {"format": "mxfp4", "scale_format": "e8m0"}}}, "no meaning for mxfp4"),
        (
            {"version": 1, "default": {"weights": {"format": "int4", "scale_format": "int8"}}},
            "scale_format must be one of",
        ),
        (
            {"version": 1, "default": {"weights": {"format": "codebook4", "scale_format": "e8m0"}}},
            "levels of a codebook",
        ),
        (
            {
                "version": 1,
                "default": {"weights": {"format": "nf4", "scale_format": "e8m0", "double_quantization": True}},
            },
            "either quantized twice or e8m0",
        ),
        (
            {"version": 1, "default": {"weights": {"format": "int4", "granularity": "tensor", "scale_format": "e4m3"}}},
            "One scale for the whole tensor",
        ),
        ({"version": 1, "default": {"weights": {"format": "ternary", "narrow_range": False}}}, "no lowest level"),
        (
            {"version": 1, "default": {"weights": {"format": "int4", "granularity": {"rows": 1, "columns": 1}}}},
            "2 values",
        ),
        (
            {"version": 1, "default": {"weights": {"format": "int4", "granularity": {"rows": True, "columns": 4}}}},
            "must be",
        ),
        ({"version": 1, "default": {"weights": {"format": "int4", "range": "half-quadratic"}}}, "choose asymmetric"),
        ({"version": 1, "default": {"weights": {"format": "int4", "range": "sample-mean"}}}, "Weights have no samples"),
        ({"version": 1, "default": {"weights": {"format": "int4", "range": {"moving_average": 1}}}}, "0 to below 1"),
        (
            {
                "version": 1,
                "default": {"weights": {"format": "int4", "range": {"lower_percentile": 60, "upper_percentile": 99}}},
            },
            "0 to 50",
        ),
        (
            {"version": 1, "default": {"activations": {"format": "nf4", "granularity": "tensor"}}},
            "a format for weights",
        ),
        (
            {"version": 1, "default": {"activations": {"format": "mxfp8_e4m3"}}},
            "Activations are quantized per tensor",
        ),
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


@pytest.mark.parametrize(
    "name",
    ["int2", "uint16", "float16", "bfloat16", *MINIFLOAT_NAMES.values(), "nf4", "binary", "codebook1", "codebook8"],
)
def test_that_every_format_has_a_name_that_is_read_again(name: str) -> None:
    assert str(parse_format(name)) == name


def test_that_other_usual_names_are_understood() -> None:
    assert parse_format("int1") == TableFormat("binary")
    assert parse_format("ternary") == IntFormat(2, narrow_range=True)
    assert parse_format("float4_e2m1fn") == MinifloatFormat(2, 1)
    with pytest.raises(SpecError, match="There is no fn format with 3 bits of exponent and 4 of mantissa"):
        MinifloatFormat(3, 4)


@pytest.mark.parametrize("name", BLOCK_FORMATS)
def test_that_block_formats_are_read_by_name_and_written_as_what_they_are(name: str) -> None:
    spec = BLOCK_FORMATS[name]
    assert str(spec) == name
    read = config_from_json({"version": 1, "default": {"weights": {"format": name, "range": "least-squared-error"}}})
    assert read.default.weights is not None
    assert str(read.default.weights) == name
    assert read.default.weights.range_estimator == LeastSquaredError()
    written = config_to_json(read)["default"]["weights"]
    assert written["format"] == str(spec.format)
    assert config_from_json({"version": 1, "default": {"weights": written}}) == read


def test_that_a_file_written_before_there_were_other_formats_is_read_as_it_was() -> None:
    old = {
        "format": "int4", "symmetric": False, "granularity": {"group_size": 32}, "range": {"percentile": 99.9},
        "narrow_range": True, "full_range": True,
    }  # fmt: skip
    config = config_from_json({"version": 1, "default": {"weights": old, "activations": {"format": "bfloat16"}}})
    assert config.default.weights == QuantizerSpec(
        IntFormat(4, narrow_range=True), False, PerGroup(32), Percentile(99.9), full_range=True
    )
    assert config_to_json(config)["default"] == {"weights": old, "activations": {"format": "bfloat16"}}


@given(st.integers(1, 40), st.integers(1, 100), st.integers(1, 64), st.integers(2, 64))
def test_that_blocks_are_counted_with_the_remainders(channels: int, elements: int, rows: int, columns: int) -> None:
    expected = len(range(0, channels, rows)) * len(range(0, elements, columns))
    assert group_count(channels, elements, PerBlock(rows, columns)) == expected


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
        (QuantizerSpec(TableFormat("binary")), 75 + 40),
        (QuantizerSpec(MinifloatFormat(4, 3), granularity=PerTensor()), 600 + 4),
        (QuantizerSpec(MinifloatFormat(2, 3)), 450 + 40),
        (QuantizerSpec(IntFormat(4), granularity=PerBlock(4, 32)), 300 + 4 * 3 * 2),
        (BLOCK_FORMATS["mxfp4"], 300 + 20),
        (BLOCK_FORMATS["nvfp4"], 300 + 40 + 4),
        (QuantizerSpec(TableFormat("nf4"), granularity=PerGroup(2), double_quantization=True), 300 + 300 + 2 * 4 + 4),
        (QuantizerSpec(IntFormat(4), scale_format="float16"), 300 + 20),
        (QuantizerSpec(CodebookFormat(3), granularity=PerTensor()), 225 + 8 * 4),
        (QuantizerSpec(CodebookFormat(4), scale_format="bfloat16"), 300 + 10 * 16 * 2),
    ],
)
def test_that_bytes_count_values_scales_and_zero_points(spec: QuantizerSpec | None, expected: int) -> None:
    assert weight_bytes(10, 60, spec) == expected


def test_that_stored_bytes_count_the_next_onnx_type() -> None:
    assert weight_bytes(10, 60, QuantizerSpec(IntFormat(3), True, PerTensor()), stored=True) == 304
    assert weight_bytes(10, 60, QuantizerSpec(MinifloatFormat(3, 2)), stored=True) == 640
    assert weight_bytes(10, 60, QuantizerSpec(CodebookFormat(3), granularity=PerTensor()), stored=True) == 300 + 32


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


@pytest.mark.parametrize(
    "name", ["int5", "uint4", "float8_e5m2", "float4_e2m1", "nf4", "binary", "codebook3", "float16"]
)
def test_that_every_format_has_a_usual_spec_for_weights(name: str) -> None:
    spec = usual_weight_spec(parse_format(name))
    assert str(spec.format) == name
    assert LayerSpec(spec).weights == spec


@pytest.mark.parametrize("what", WHAT)
def test_that_specs_of_a_sweep_which_differ_in_bits_or_groups_stand_in_columns_of_their_own(what) -> None:
    specs = (*bits_specs(range(2, 9)), *(find_preset(name).spec for name in ("W4A16-g32", "W4A16-g128", "bfloat16")))
    sweep = Sweep(specs, what)
    labels = [sweep.label(spec) for spec in specs if what != "activations" or spec.activations is not None]
    assert len(set(labels)) == len(labels)
    # Where the base quantizes the part that is not swept, the column is called the same.
    within = Sweep(specs, what, QuantConfig(find_preset("W8A8").spec))
    assert all(within.label(within.candidate("conv", spec)) == sweep.label(spec) for spec in specs)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such permissions")
def test_that_a_configuration_may_be_read_by_whom_the_folder_lets_read(tmp_path):
    plain, written = tmp_path / "plain", tmp_path / "C.json"
    plain.write_text("")
    save_config(QuantConfig(), written)
    assert written.stat().st_mode == plain.stat().st_mode
    written.chmod(0o640)
    save_config(QuantConfig(), written)
    assert written.stat().st_mode & 0o777 == 0o640
    assert sorted(tmp_path.iterdir()) == [written, plain]
