"""Trained weights: their file, and that everything that quantizes uses them."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import replace
from pathlib import Path

import export_examples as examples
import numpy as np
import onnx
import pytest
import safetensors.numpy
import trained_examples
from onnx import numpy_helper

from quantgui.analysis.sensitivity import measure_sensitivity
from quantgui.analysis.tensor_error import view_weight, weight_errors
from quantgui.analysis.weight_grids import trained_layer
from quantgui.errors import NetworkError, SpecError
from quantgui.export.dialects.material import gather
from quantgui.network.executor import Executor
from quantgui.network.network import Network
from quantgui.network.trained import TrainedStates, load_state, save_state
from quantgui.numerics.error_curve import has_curve
from quantgui.numerics.metrics import sqnr_db
from quantgui.paths import trained_folder
from quantgui.results import Sensitivity, WeightErrorReady, WeightViewReady
from quantgui.session.edits import adapted, with_granularity, with_narrow_range, with_symmetry, with_weight_format
from quantgui.session.project import Project, project_from_json, project_to_json
from quantgui.spec.config import QuantConfig
from quantgui.spec.formats import CodebookFormat, FloatFormat, IntFormat, TableFormat
from quantgui.spec.granularity import PerGroup, PerTensor
from quantgui.spec.presets import activation_spec, usual_weight_spec, weight_spec, without_training
from quantgui.spec.quantizer import (
    BLOCK_FORMATS,
    FixedRange,
    LayerSpec,
    LeastSquaredError,
    MinMax,
    QuantizerSpec,
    Trained,
)
from quantgui.spec.serialization import load_config, save_config
from quantgui.spec.sweep import Sweep

INT8 = activation_spec(8)
SPECS = {
    "w4": LayerSpec(weight_spec(4)),
    "w2 per tensor": LayerSpec(weight_spec(2, PerTensor())),
    "uint4 g8": LayerSpec(QuantizerSpec(IntFormat(4, signed=False), False, PerGroup(8))),
    "w3 float16 scales": LayerSpec(QuantizerSpec(IntFormat(3), granularity=PerGroup(16), scale_format="float16")),
    "w4 e4m3 scales": LayerSpec(QuantizerSpec(IntFormat(4), granularity=PerGroup(16), scale_format="e4m3")),
    "binary a8": LayerSpec(usual_weight_spec(TableFormat("binary")), INT8),
    "nf4 g8": LayerSpec(QuantizerSpec(TableFormat("nf4"), granularity=PerGroup(8))),
    "mxfp4": LayerSpec(BLOCK_FORMATS["mxfp4"]),
    "w4 double": LayerSpec(QuantizerSpec(IntFormat(4), granularity=PerGroup(16), double_quantization=True)),
    "w8a8": LayerSpec(weight_spec(8), INT8),
    "w4a8 per tensor": LayerSpec(weight_spec(4, PerTensor()), INT8),
}


@pytest.fixture
def mlp(tmp_path: Path) -> Network:
    return examples.opened(tmp_path, examples.MODELS["mlp"]())


def state_file(config: QuantConfig) -> Path:
    return trained_folder() / f"{next(iter(names_of(config)))}.safetensors"


def names_of(config: QuantConfig) -> set[str]:
    specs = [spec.weights for spec in config.overrides.values() if spec.weights is not None]
    return {spec.range_estimator.state for spec in specs if isinstance(spec.range_estimator, Trained)}


# --- the file ----------------------------------------------------------------------------------------------------


def test_that_a_state_comes_back_as_it_was_saved(mlp: Network, tmp_path: Path) -> None:
    specs = {"fc0": weight_spec(4), "fc1": QuantizerSpec(IntFormat(2, signed=False), False, PerGroup(16))}
    state = trained_examples.moved_state(mlp, specs)
    read = load_state(save_state(state, tmp_path), [tmp_path / "nowhere", tmp_path])
    assert read.network == mlp.fingerprint
    assert set(read.layers) == {"fc0", "fc1"}
    for name, layer in state.layers.items():
        again = read.layers[name]
        assert replace(again.spec, range_estimator=MinMax()) == replace(layer.spec, range_estimator=MinMax())
        np.testing.assert_array_equal(again.weight, layer.weight)
        np.testing.assert_array_equal(again.qparams.scale, layer.qparams.scale)
        np.testing.assert_array_equal(again.qparams.zero_point, layer.qparams.zero_point)
        assert {bias: values.tolist() for bias, values in again.biases.items()} == {
            bias: values.tolist() for bias, values in layer.biases.items()
        }


def test_that_the_name_is_the_hash_of_a_file_that_the_safetensors_package_reads(mlp: Network, tmp_path: Path) -> None:
    state = trained_examples.moved_state(mlp, {"fc0": weight_spec(4)})
    name = save_state(state, tmp_path)
    path = tmp_path / f"{name}.safetensors"
    assert hashlib.sha256(path.read_bytes()).hexdigest() == name
    assert [each.name for each in tmp_path.iterdir() if "trained" in each.name] == []
    tensors = safetensors.numpy.load_file(path)
    assert set(tensors) == {"weight:fc0", "scale:fc0", "zero_point:fc0", "bias:fc0:b0"}
    np.testing.assert_array_equal(tensors["weight:fc0"], state.layers["fc0"].weight)
    np.testing.assert_array_equal(tensors["bias:fc0:b0"], state.layers["fc0"].biases["b0"])
    assert save_state(trained_examples.moved_state(mlp, {"fc0": weight_spec(4)}), tmp_path) == name


def test_that_missing_weights_are_asked_for_by_their_file(tmp_path: Path) -> None:
    with pytest.raises(NetworkError, match=r"abcdef01….* not on this machine; train again, or put 'abcdef0123\.safe"):
        load_state("abcdef0123", [tmp_path])


def test_that_a_damaged_file_is_refused(mlp: Network, tmp_path: Path) -> None:
    name = save_state(trained_examples.moved_state(mlp, {"fc0": weight_spec(4)}), tmp_path)
    path = tmp_path / f"{name}.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(NetworkError, match="damaged; delete this file"):
        load_state(name, [tmp_path])
    path.write_bytes(b"")
    with pytest.raises(NetworkError, match="cannot be read"):
        load_state(name, [tmp_path])


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0",
        b"\xff" * 64,
        (2).to_bytes(8, "little") + b"{}",
        (2).to_bytes(8, "little") + b"[]",
        (1 << 62).to_bytes(8, "little") + b"{}",
        (4).to_bytes(8, "little") + b"\xff\xfe{}",
    ],
)
def test_that_a_file_with_the_right_hash_and_no_sense_is_refused(tmp_path: Path, content: bytes) -> None:
    name = hashlib.sha256(content).hexdigest()
    (tmp_path / f"{name}.safetensors").write_bytes(content)
    with pytest.raises(NetworkError):
        load_state(name, [tmp_path])


@pytest.mark.parametrize(
    "change",
    [
        {"data_offsets": [0, 1 << 40]},
        {"data_offsets": [-4, 28]},
        {"shape": [1 << 60]},
        {"shape": [-64, -8]},
        {"dtype": "F64"},
        {"shape": None},
    ],
)
def test_that_a_tensor_that_lies_about_its_place_is_refused(
    mlp: Network, tmp_path: Path, change: dict[str, object]
) -> None:
    name = save_state(trained_examples.moved_state(mlp, {"fc0": weight_spec(4)}), tmp_path)
    content = (tmp_path / f"{name}.safetensors").read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    header["weight:fc0"].update(change)
    text = json.dumps(header).encode()
    content = len(text).to_bytes(8, "little") + text + content[8 + length :]
    name = hashlib.sha256(content).hexdigest()
    (tmp_path / f"{name}.safetensors").write_bytes(content)
    with pytest.raises(NetworkError, match="damaged"):
        load_state(name, [tmp_path])


def test_that_weights_of_another_network_are_refused(mlp: Network, tmp_path: Path) -> None:
    config, _ = trained_examples.trained_config(mlp, SPECS["w4"])
    model = examples.MODELS["mlp"]()
    first = next(tensor for tensor in model.graph.initializer if tensor.name == "w0")
    first.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(first) * 2, "w0"))
    (tmp_path / "other").mkdir()
    other = examples.opened(tmp_path / "other", model)
    with pytest.raises(NetworkError, match="of another network"):
        examples.simulated(other, config, {}, next(examples.data_for(other).batches()))


def test_that_a_state_is_read_once(mlp: Network, tmp_path: Path) -> None:
    name = save_state(trained_examples.moved_state(mlp, {"fc0": weight_spec(4)}), tmp_path)
    states = TrainedStates([tmp_path])
    first = states.get(name, mlp.fingerprint)
    (tmp_path / f"{name}.safetensors").unlink()
    assert states.get(name, mlp.fingerprint) is first


def test_that_states_used_longest_ago_make_room_but_never_in_a_folder_of_the_user(
    mlp: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    states = [trained_examples.moved_state(mlp, {"fc0": weight_spec(bits)}) for bits in (2, 3, 4)]
    names = [save_state(state, trained_folder()) for state in states[:2]]
    paths = [trained_folder() / f"{name}.safetensors" for name in names]
    os.utime(paths[0], (1, 1))
    os.utime(paths[1], (2, 2))
    # The older file, but what was used just now.
    load_state(names[0], [trained_folder()])
    monkeypatch.setattr("quantgui.network.trained.MOST_BYTES", 2 * paths[0].stat().st_size + 100)
    newest = save_state(states[2], trained_folder())
    assert {each.stem for each in trained_folder().iterdir()} == {names[0], newest}
    for state in states:
        save_state(state, tmp_path / "mine")
    assert len(list((tmp_path / "mine").iterdir())) == 3


# --- what is quantized -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS.keys())
@pytest.mark.parametrize("model", ["mlp", "residual", "convolutions", "signals", "tokens", "halves", "if"])
def test_that_the_file_computes_what_the_simulation_shows(tmp_path: Path, model: str, spec: LayerSpec) -> None:
    network = examples.opened(tmp_path, examples.MODELS[model]())
    config, _ = trained_examples.trained_config(network, spec)
    data = examples.data_for(network)
    activations = examples.calibrated(network, config, data)
    path = tmp_path / "quantized.onnx"
    examples.exported(network, config, activations, path)
    for batch in data.batches(3):
        shown = examples.simulated(network, config, activations, batch)
        answer = examples.run_file(path, batch)
        for name, values in shown.items():
            if model in ("mlp", "residual", "convolutions"):
                np.testing.assert_array_equal(answer[name], values)
            assert sqnr_db(values, answer[name]) > 100, name


@pytest.mark.parametrize("name", ["w4", "w2 per tensor", "uint4 g8"])
@pytest.mark.parametrize("model", ["mlp", "residual", "convolutions"])
def test_that_a_float_network_with_the_trained_values_in_it_computes_the_same(
    tmp_path: Path, model: str, name: str
) -> None:
    network = examples.opened(tmp_path, examples.MODELS[model]())
    config, state = trained_examples.trained_config(network, SPECS[name])
    changed = onnx.load(tmp_path / "network.onnx")
    values = {}
    for layer in network.summary.layers:
        values[layer.weight] = trained_examples.on_its_grid(layer, state.layers[layer.name])
        values |= state.layers[layer.name].biases
    assert any(bias in values for bias in ("b0", "stem.b"))
    for tensor in changed.graph.initializer:
        if tensor.name in values:
            tensor.CopyFrom(numpy_helper.from_array(values[tensor.name], tensor.name))
    onnx.save(changed, tmp_path / "changed.onnx")
    batch = next(examples.data_for(network).batches())
    expected = examples.run_file(tmp_path / "changed.onnx", batch)
    for output, shown in examples.simulated(network, config, {}, batch).items():
        assert sqnr_db(expected[output], shown) > 100
    floats = Executor(network).run(batch)
    original = examples.run_file(tmp_path / "network.onnx", batch)
    assert all(sqnr_db(original[output], shown) > 100 for output, shown in floats.items())


def test_that_integer_biases_are_the_trained_ones(tmp_path: Path) -> None:
    network = examples.opened(tmp_path, examples.MODELS["convolutions"]())
    config, state = trained_examples.trained_config(network, SPECS["w8a8"])
    activations = examples.calibrated(network, config, examples.data_for(network))
    path = tmp_path / "quantized.onnx"
    examples.exported(network, config, activations, path)
    model = onnx.load(path)
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    assert stored["stem.b_quantized"].dtype == np.int32
    values = stored["stem.b_quantized"] * stored["stem.b_scale"]
    np.testing.assert_allclose(values, state.layers["stem"].biases["stem.b"], atol=stored["stem.b_scale"].max())


def test_that_a_bias_too_large_for_int32_gets_larger_scales(tmp_path: Path) -> None:
    network = examples.opened(tmp_path, examples.MODELS["mlp"]())
    spec = SPECS["w8a8"]
    assert spec.weights is not None
    layer = trained_examples.moved_layer(network, network.layers["fc0"], spec.weights, 0)
    huge = replace(layer, biases={"b0": np.full_like(layer.biases["b0"], 3e6)})
    state = replace(trained_examples.moved_state(network, {"fc0": spec.weights}), layers={"fc0": huge})
    named = replace(spec.weights, range_estimator=Trained(save_state(state, trained_folder())))
    config = QuantConfig().with_overrides({"fc0": replace(spec, weights=named)})
    activations = examples.calibrated(network, config, examples.data_for(network))
    path = tmp_path / "quantized.onnx"
    examples.exported(network, config, activations, path)
    batch = next(examples.data_for(network).batches())
    shown = examples.simulated(network, config, activations, batch)
    np.testing.assert_array_equal(examples.run_file(path, batch)["y"], shown["y"])
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer}
    np.testing.assert_allclose(stored["b0_quantized"] * stored["b0_scale"], 3e6, rtol=1e-5)


@pytest.mark.parametrize("name", ["w4", "uint4 g8"])
def test_that_the_error_shown_is_that_against_the_float_weight(mlp: Network, name: str) -> None:
    config, state = trained_examples.trained_config(mlp, SPECS[name])
    layer = mlp.layers["fc0"]
    spec = config.spec_for("fc0").weights
    quantized = trained_examples.on_its_grid(layer, state.layers["fc0"])
    expected = sqnr_db(mlp.weight(layer), quantized)
    shown = view_weight(mlp, "fc0", spec, curve=True)
    (ready,) = [event for event in shown if isinstance(event, WeightViewReady)]
    view = ready.view
    assert view.error.sqnr_db == pytest.approx(expected)
    assert view.error.max_abs == pytest.approx(np.abs(mlp.weight(layer) - quantized).max())
    assert view.curve is None
    assert view.statistics.maximum == mlp.weight(layer).max()
    np.testing.assert_array_equal(view.scales, state.layers["fc0"].qparams.scale)
    edges = view.quantized.edges
    counts, _ = np.histogram(np.clip(quantized, edges[0], edges[-1]), edges)
    np.testing.assert_array_equal(view.quantized.counts, counts)
    assert view.error_histogram.counts.sum() == quantized.size
    (error,) = [event for event in weight_errors(mlp, {"fc0": spec}) if isinstance(event, WeightErrorReady)]
    assert error.error.sqnr_db == pytest.approx(expected)


def test_that_files_of_other_tools_get_the_trained_scales(mlp: Network) -> None:
    config, state = trained_examples.trained_config(mlp, SPECS["w4"])
    material = gather(mlp, config, {})
    parameter = material.parameter_of(mlp.layers["fc1"])
    assert parameter is not None
    assert parameter.scale is not None
    np.testing.assert_array_equal(parameter.scale.ravel(), state.layers["fc1"].qparams.scale)


def test_that_a_sweep_within_a_trained_configuration_starts_from_it(mlp: Network) -> None:
    config, _ = trained_examples.trained_config(mlp, SPECS["w4"])
    data = examples.data_for(mlp, 16)
    sweep = Sweep(specs=(LayerSpec(weight_spec(8)), LayerSpec()), base=config, exact=True)
    *_, table = (
        event for event in measure_sensitivity(Executor(mlp), data, sweep, {}) if isinstance(event, Sensitivity)
    )
    assert table.complete
    batch = next(data.batches(16))
    floats = Executor(mlp).run(batch)["y"]
    for candidate in table.candidates:
        changed = config.with_overrides({candidate.layer: candidate.spec})
        alone = examples.simulated(mlp, changed, {}, batch)["y"]
        assert candidate.value == pytest.approx(sqnr_db(floats, alone), abs=0.05)
    reference = examples.simulated(mlp, config, {}, batch)["y"]
    assert table.reference.value == pytest.approx(sqnr_db(floats, reference), abs=0.05)


# --- where it does not fit ---------------------------------------------------------------------------------------


def test_that_a_layer_that_was_not_trained_is_named(mlp: Network) -> None:
    state = save_state(trained_examples.moved_state(mlp, {"fc0": weight_spec(4)}), trained_folder())
    spec = replace(weight_spec(4), range_estimator=Trained(state))
    with pytest.raises(SpecError, match="'fc1' is not among the trained weights"):
        trained_layer(mlp, mlp.layers["fc1"], spec)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"format": IntFormat(3)}, "format"),
        ({"symmetric": False}, "symmetric"),
        ({"granularity": PerTensor()}, "granularity"),
        ({"full_range": True}, "full range"),
        ({"scale_format": "float16"}, "scale format"),
    ],
)
def test_that_another_specification_than_the_trained_one_is_refused(
    mlp: Network, change: dict[str, object], word: str
) -> None:
    config, _ = trained_examples.trained_config(mlp, SPECS["w4"])
    weights = config.spec_for("fc0").weights
    assert weights is not None
    with pytest.raises(SpecError, match=rf"'fc0' was trained as int4 with another {word} than"):
        trained_layer(mlp, mlp.layers["fc0"], replace(weights, **change))


# --- configurations ----------------------------------------------------------------------------------------------


def test_that_a_saved_configuration_brings_its_weights_and_an_opened_one_finds_them(
    mlp: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, state = trained_examples.trained_config(mlp, SPECS["w4"])
    (name,) = names_of(config)
    folder = tmp_path / "to take away"
    folder.mkdir()
    save_config(config, folder / "config.json")
    assert {each.name for each in folder.iterdir()} == {"config.json", f"{name}.safetensors"}
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "another machine"))
    assert not state_file(config).exists()
    assert load_config(folder / "config.json") == config
    read = load_state(name, [trained_folder()])
    np.testing.assert_array_equal(read.layers["fc0"].weight, state.layers["fc0"].weight)


def test_that_a_configuration_whose_weights_are_lost_can_still_be_opened_and_saved(
    mlp: Network, tmp_path: Path
) -> None:
    config, _ = trained_examples.trained_config(mlp, SPECS["w4"])
    state_file(config).unlink()
    save_config(config, tmp_path / "config.json")
    assert load_config(tmp_path / "config.json") == config


def test_that_a_half_written_file_is_healed_by_the_one_beside_the_configuration(mlp: Network, tmp_path: Path) -> None:
    config, _ = trained_examples.trained_config(mlp, SPECS["w4"])
    folder = tmp_path / "saved"
    folder.mkdir()
    save_config(config, folder / "config.json")
    path = state_file(config)
    whole = path.read_bytes()
    path.unlink()
    path.write_bytes(whole[:100])
    load_config(folder / "config.json")
    assert path.read_bytes() == whole


def test_that_a_project_names_trained_weights(mlp: Network) -> None:
    config, _ = trained_examples.trained_config(mlp, SPECS["w4"])
    assert project_from_json(project_to_json(Project("network.onnx", config))).config == config


# --- edits -------------------------------------------------------------------------------------------------------

TRAINED = QuantizerSpec(IntFormat(2), range_estimator=Trained("0123456789abcdef"))


def test_that_other_bits_leave_trained_weights_behind() -> None:
    spec = LayerSpec(TRAINED)
    assert with_weight_format(spec, IntFormat(2)) == spec
    assert with_weight_format(spec, IntFormat(4)).weights == weight_spec(4)
    assert with_weight_format(spec, IntFormat(8)).weights == weight_spec(8)
    assert with_weight_format(spec, FloatFormat("float16")).weights == QuantizerSpec(
        FloatFormat("float16"), granularity=PerTensor()
    )


def test_that_every_other_edit_leaves_them_behind_and_says_so() -> None:
    for changed in (
        with_symmetry(TRAINED, symmetric=False),
        with_granularity(TRAINED, PerGroup(32)),
        with_narrow_range(TRAINED, narrow=True),
        adapted(TRAINED, full_range=True)[0],
        adapted(TRAINED, scale_format="float16")[0],
    ):
        assert changed.range_estimator == LeastSquaredError()
    assert adapted(TRAINED, granularity=PerGroup(32))[1] == ("untrained",)
    assert adapted(TRAINED, symmetric=True) == (TRAINED, ())
    assert adapted(TRAINED, range_estimator=FixedRange(-1.0, 1.0))[0].range_estimator == FixedRange(-1.0, 1.0)


def test_that_trained_weights_have_no_curve() -> None:
    assert not has_curve(TRAINED)


@pytest.mark.parametrize("name", ["binary a8", "nf4 g8", "mxfp4"])
def test_that_another_format_leaves_what_was_trained_in_uneven_levels_behind(name: str) -> None:
    spec = replace(SPECS[name].weights, range_estimator=Trained("0123abcd"))
    assert without_training(spec).range_estimator == usual_weight_spec(spec.format).range_estimator
    for fmt in (TableFormat("binary"), TableFormat("nf4"), IntFormat(4), CodebookFormat(1)):
        found, _ = adapted(spec, format=fmt)
        assert isinstance(found.range_estimator, Trained) == (fmt == spec.format)


def test_that_what_has_no_scale_cannot_be_trained() -> None:
    with pytest.raises(SpecError, match="formats with a scale, not as float16"):
        QuantizerSpec(FloatFormat("float16"), granularity=PerTensor(), range_estimator=Trained("0123abcd"))
