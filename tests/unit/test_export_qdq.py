from __future__ import annotations

import json
from pathlib import Path

import builders
import export_examples as examples
import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from quantgui.errors import DataError, ExportError
from quantgui.export.files import data_path, initializers
from quantgui.export.metadata import CONFIG_KEY, VERSION_KEY
from quantgui.export.qdq import export_qdq
from quantgui.network.surgery import subgraphs
from quantgui.numerics.metrics import sqnr_db
from quantgui.spec.config import QuantConfig
from quantgui.spec.formats import (
    FloatFormat,
    IntFormat,
)
from quantgui.spec.granularity import PerChannel, PerGroup, PerTensor
from quantgui.spec.presets import activation_spec, weight_spec
from quantgui.spec.quantizer import FLOAT, LayerSpec, QuantizerSpec
from quantgui.spec.serialization import config_from_json
from quantgui.spec.size import network_bytes

INT8 = activation_spec(8)
SPECS = {
    "w8": LayerSpec(weight_spec(8)),
    "w8 per tensor": LayerSpec(weight_spec(8, PerTensor())),
    "w5": LayerSpec(weight_spec(5)),
    "w4": LayerSpec(weight_spec(4)),
    "w4 g8": LayerSpec(weight_spec(4, PerGroup(8))),
    "w3 g5": LayerSpec(weight_spec(3, PerGroup(5))),
    "w2": LayerSpec(weight_spec(2)),
    "w2 g16": LayerSpec(weight_spec(2, PerGroup(16))),
    "uint2": LayerSpec(QuantizerSpec(IntFormat(2, signed=False), False)),
    "uint4 g16": LayerSpec(QuantizerSpec(IntFormat(4, signed=False), False, PerGroup(16))),
    "uint6 symmetric": LayerSpec(QuantizerSpec(IntFormat(6, signed=False), True, PerTensor())),
    "w8 narrow": LayerSpec(QuantizerSpec(IntFormat(8, narrow_range=True), True, PerChannel(), full_range=True)),
    "w12": LayerSpec(weight_spec(12, PerTensor())),
    "w16 g7": LayerSpec(weight_spec(16, PerGroup(7))),
    "float16": LayerSpec(QuantizerSpec(FloatFormat("float16"), granularity=PerTensor())),
    "bfloat16": LayerSpec(QuantizerSpec(FloatFormat("bfloat16"), granularity=PerTensor())),
    "w8a8": LayerSpec(weight_spec(8), INT8),
    "w8a8 per tensor": LayerSpec(weight_spec(8, PerTensor()), INT8),
    "w8a8 signed": LayerSpec(weight_spec(8), QuantizerSpec(IntFormat(8), True, PerTensor())),
    "w4a8": LayerSpec(weight_spec(4), INT8),
    "w4a8 g16": LayerSpec(weight_spec(4, PerGroup(16)), INT8),
    "w2a8": LayerSpec(weight_spec(2), INT8),
    "uint8 a8": LayerSpec(QuantizerSpec(IntFormat(8, signed=False), False), INT8),
    "w8a4": LayerSpec(weight_spec(8), activation_spec(4)),
    "w8a6": LayerSpec(weight_spec(8), activation_spec(6)),
    "w16a16": LayerSpec(weight_spec(16), activation_spec(16)),
    "w8a11": LayerSpec(weight_spec(8), activation_spec(11)),
    "w8 float16": LayerSpec(weight_spec(8), QuantizerSpec(FloatFormat("float16"), granularity=PerTensor())),
    "bfloat16 a8": LayerSpec(QuantizerSpec(FloatFormat("bfloat16"), granularity=PerTensor()), INT8),
    "a8": LayerSpec(None, INT8),
}


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS.keys())
@pytest.mark.parametrize("model", examples.MODELS)
def test_that_the_file_computes_what_the_simulation_shows(tmp_path: Path, model: str, spec: LayerSpec) -> None:
    network = examples.opened(tmp_path, examples.MODELS[model]())
    config = QuantConfig(spec)
    data = examples.data_for(network)
    activations = examples.calibrated(network, config, data)
    path = tmp_path / "quantized.onnx"
    examples.exported(network, config, activations, path)
    for batch in data.batches(3):
        shown = examples.simulated(network, config, activations, batch)
        answer = examples.run_file(path, batch)
        for name, values in shown.items():
            # A weight that is folded while loading may be packed otherwise than one that is given.
            assert sqnr_db(values, answer[name]) > 100, name


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS.keys())
@pytest.mark.parametrize("model", ["mlp", "residual", "convolutions"])
def test_that_plain_networks_agree_bit_for_bit(tmp_path: Path, model: str, spec: LayerSpec) -> None:
    network = examples.opened(tmp_path, examples.MODELS[model]())
    config = QuantConfig(spec)
    data = examples.data_for(network)
    activations = examples.calibrated(network, config, data)
    path = tmp_path / "quantized.onnx"
    examples.exported(network, config, activations, path)
    batch = next(data.batches())
    for name, values in examples.simulated(network, config, activations, batch).items():
        np.testing.assert_array_equal(examples.run_file(path, batch)[name], values)


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS.keys())
@pytest.mark.parametrize("model", examples.MODELS)
def test_that_the_file_is_close_to_the_simulation_with_all_fusions(tmp_path: Path, model: str, spec: LayerSpec) -> None:
    network = examples.opened(tmp_path, examples.MODELS[model]())
    config = QuantConfig(spec)
    data = examples.data_for(network)
    activations = examples.calibrated(network, config, data)
    path = tmp_path / "quantized.onnx"
    examples.exported(network, config, activations, path)
    batch = next(data.batches())
    shown = examples.simulated(network, config, activations, batch)
    answer = examples.run_file(path, batch, fused=True)
    for name, values in shown.items():
        # One step of a coarse grid, or int8 activations inside MatMulNBits; never garbage.
        assert sqnr_db(values, answer[name]) > 15, name


def stored_types(path: Path) -> dict[str, int]:
    return {tensor.name: tensor.data_type for tensor in initializers(onnx.load(path).graph)}


def stored_bytes(path: Path) -> int:
    """Return the bytes of all initializers but the shapes of Reshape."""
    tensors = initializers(onnx.load(path).graph)
    return sum(len(tensor.raw_data) for tensor in tensors if tensor.data_type != TensorProto.INT64)


@pytest.mark.parametrize("name", ["w8", "w5", "w4 g8", "w3 g5", "w2 g16", "uint4 g16", "w12", "float16"])
@pytest.mark.parametrize("model", ["mlp", "residual", "tokens", "if", "halves"])
def test_that_the_file_is_as_large_as_predicted(tmp_path: Path, model: str, name: str) -> None:
    network = examples.opened(tmp_path, examples.MODELS[model]())
    config = QuantConfig(SPECS[name])
    examples.exported(network, config, {}, tmp_path / "quantized.onnx")
    summary = network.summary
    integers = sum(values.nbytes for values in network.constants.values() if values.dtype == np.int64)
    predicted = network_bytes(summary.float_bytes, summary.layers, config, stored=True) - integers
    assert stored_bytes(tmp_path / "quantized.onnx") == predicted


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        ("w8 per tensor", 10, 10),
        ("w8 per tensor", 9, 10),
        ("w8", 11, 13),
        ("w8", 17, 17),
        ("w4", 17, 21),
        ("w4", 22, 22),
        ("w2", 17, 25),
        ("w8a8", 12, 13),
        ("w8a8 per tensor", 10, 10),
        ("w16a16", 13, 21),
        ("float16", 9, 9),
    ],
)
def test_that_the_opset_is_raised_only_as_far_as_needed(tmp_path: Path, name: str, before: int, after: int) -> None:
    network = examples.opened(tmp_path, builders.mlp_model(opset=before))
    config = QuantConfig(SPECS[name])
    activations = examples.calibrated(network, config, examples.data_for(network))
    event = examples.exported(network, config, activations, tmp_path / "quantized.onnx")
    assert event.opset == onnx.load(tmp_path / "quantized.onnx").opset_import[0].version == after
    assert any("opset was raised" in note for note in event.notes) == (before != after)


def test_that_nothing_is_quantized_where_nothing_is_asked(tmp_path: Path) -> None:
    network = examples.opened(tmp_path, builders.mlp_model(opset=9))
    event = examples.exported(network, QuantConfig(FLOAT), {}, tmp_path / "same.onnx")
    assert (event.opset, event.notes) == (9, ())
    batch = next(examples.data_for(network).batches())
    expected = examples.simulated(network, QuantConfig(FLOAT), {}, batch)
    np.testing.assert_array_equal(examples.run_file(tmp_path / "same.onnx", batch)["y"], expected["y"])


def test_that_a_shared_weight_is_stored_once_and_biases_are_int32(tmp_path: Path) -> None:
    network = examples.opened(tmp_path, builders.residual_model())
    config = QuantConfig(SPECS["w8a8"])
    activations = examples.calibrated(network, config, examples.data_for(network))
    path = tmp_path / "quantized.onnx"
    examples.exported(network, config, activations, path)
    types = stored_types(path)
    assert [name for name in types if name.startswith("block0.w")] == ["block0.w_quantized", "block0.w_scale"]
    assert types["block0.w_quantized"] == TensorProto.INT8
    assert {types[name] for name in types if name.endswith(".b_quantized")} == {TensorProto.INT32}
    makers = [node for node in onnx.load(path).graph.node if node.output[0] == "block0.w"]
    assert [node.op_type for node in makers] == ["DequantizeLinear"]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("w2", TensorProto.INT2),
        ("uint2", TensorProto.UINT2),
        ("w3 g5", TensorProto.INT4),
        ("uint4 g16", TensorProto.UINT4),
        ("w5", TensorProto.INT8),
        ("uint6 symmetric", TensorProto.UINT8),
        ("w12", TensorProto.INT16),
        ("float16", TensorProto.FLOAT16),
        ("bfloat16", TensorProto.BFLOAT16),
    ],
)
def test_that_weights_lie_in_the_smallest_type(tmp_path: Path, name: str, kind: int) -> None:
    network = examples.opened(tmp_path, builders.mlp_model())
    event = examples.exported(network, QuantConfig(SPECS[name]), {}, tmp_path / "quantized.onnx")
    types = stored_types(tmp_path / "quantized.onnx")
    assert [t for n, t in types.items() if n.endswith(("_quantized", "_stored"))] == [kind] * 3
    width = SPECS[name].weights.format.bits
    assert any(f"{width}-bit weights (3 layers)" in note for note in event.notes) == (width in (3, 5, 6, 12))


def test_that_weights_of_branches_lie_inside_them(tmp_path: Path) -> None:
    network = examples.opened(tmp_path, builders.if_model())
    examples.exported(network, QuantConfig(SPECS["w4"]), {}, tmp_path / "quantized.onnx")
    graph = onnx.load(tmp_path / "quantized.onnx").graph
    bodies = [body for node in graph.node for body in subgraphs(node)]
    codes = {t.name for body in bodies for t in body.initializer if t.name.endswith("quantized")}
    assert codes == {"w1_quantized", "w2_quantized"}
    assert not codes & {t.name for t in graph.initializer}


@pytest.mark.parametrize("model", examples.MODELS)
def test_that_a_second_file_holds_the_weights_of_large_networks(
    tmp_path: Path, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = examples.opened(tmp_path, examples.MODELS[model]())
    config = QuantConfig(SPECS["w4"])
    path = tmp_path / "quantized.onnx"
    # Small networks count as large.
    monkeypatch.setattr("quantgui.export.files._LARGE", 64)
    monkeypatch.setattr("quantgui.export.files.write_network.__kwdefaults__", {"probe": None, "inline_limit": 16})
    size = examples.exported(network, config, {}, path).file_bytes
    assert size == path.stat().st_size + data_path(path).stat().st_size
    batch = next(examples.data_for(network).batches())
    for name, values in examples.simulated(network, config, {}, batch).items():
        assert sqnr_db(values, examples.run_file(path, batch)[name]) > 100


def test_that_the_file_says_how_it_was_made(tmp_path: Path) -> None:
    network = examples.opened(tmp_path, builders.mlp_model())
    config = QuantConfig(SPECS["w8"], name="mine").with_overrides({"fc1": SPECS["w3 g5"]})
    examples.exported(network, config, {}, tmp_path / "quantized.onnx")
    model = onnx.load(tmp_path / "quantized.onnx")
    entries = {entry.key: entry.value for entry in model.metadata_props}
    assert config_from_json(json.loads(entries[CONFIG_KEY])) == config
    assert entries[VERSION_KEY] == model.producer_version
    assert model.producer_name == "quantgui"


def test_that_the_opened_network_is_not_overwritten(tmp_path: Path) -> None:
    network = examples.opened(tmp_path, builders.mlp_model())
    before = (tmp_path / "network.onnx").read_bytes()
    with pytest.raises(ExportError, match="is the opened network itself"):
        list(export_qdq(network, QuantConfig(SPECS["w8"]), {}, tmp_path / "network.onnx"))
    assert (tmp_path / "network.onnx").read_bytes() == before


def test_that_activations_without_statistics_are_refused(tmp_path: Path) -> None:
    network = examples.opened(tmp_path, builders.mlp_model())
    with pytest.raises(DataError):
        list(export_qdq(network, QuantConfig(SPECS["w8a8"]), {}, tmp_path / "quantized.onnx"))
    assert not (tmp_path / "quantized.onnx").exists()


def test_that_an_export_that_is_cancelled_leaves_nothing(tmp_path: Path) -> None:
    network = examples.opened(tmp_path, builders.mlp_model())
    before = sorted(file.name for file in tmp_path.iterdir())
    events = len(list(export_qdq(network, QuantConfig(SPECS["w4"]), {}, tmp_path / "whole.onnx")))
    (tmp_path / "whole.onnx").unlink()
    for steps in range(1, events):
        job = export_qdq(network, QuantConfig(SPECS["w4"]), {}, tmp_path / "quantized.onnx")
        for _ in range(steps):
            next(job)
        job.close()
        assert sorted(file.name for file in tmp_path.iterdir()) == before


@pytest.mark.parametrize("operator", ["MatMul", "Gemm"])
def test_that_a_matrix_multiplied_from_both_sides_deploys_as_simulated(tmp_path: Path, operator: str) -> None:
    # Rows of very different size show scales that are taken for those of the columns.
    weight = builders.values(8, 8, seed=1) * np.logspace(-3, 0, 8, dtype=np.float32)[:, np.newaxis]
    nodes = [
        onnx.helper.make_node(operator, ["w", "x"], ["left"], name="left"),
        onnx.helper.make_node("Relu", ["left"], ["positive"]),
        onnx.helper.make_node(operator, ["positive", "w"], ["y"], name="right"),
    ]
    x, y = builders.tensor_info("x", [8, 8]), builders.tensor_info("y", [8, 8])
    network = examples.opened(tmp_path, builders.model_of(nodes, [x], [y], {"w": weight}))
    config = examples.config_of(network, SPECS["w8a8"])
    data = examples.data_for(network)
    activations = examples.calibrated(network, config, data)
    examples.exported(network, config, activations, tmp_path / "quantized.onnx")
    batch = next(data.batches())
    outputs = [examples.run_file(tmp_path / "quantized.onnx", batch, fused=fused)["y"] for fused in (False, True)]
    np.testing.assert_allclose(outputs[1], outputs[0], rtol=1e-3, atol=1e-3 * np.abs(outputs[0]).max())


def test_that_the_file_is_tried_on_a_sample_where_there_is_one(tmp_path: Path) -> None:
    # Random numbers are no positions in a table, and so no inputs of this network.
    tables = {"table": builders.values(6, 4, seed=1)}
    nodes = [
        onnx.helper.make_node("Cast", ["words"], ["numbers"], to=TensorProto.INT64),
        onnx.helper.make_node("Gather", ["table", "numbers"], ["y"], name="lookup"),
    ]
    inputs = [builders.tensor_info("words", ["n", "length"])]
    model = builders.model_of(nodes, inputs, [builders.tensor_info("y", ["n", "length", 4])], tables)
    network = examples.opened(tmp_path, model)
    config = QuantConfig(SPECS["w8"])
    good, bad = (np.full((1, 3), value, np.float32) for value in (5, 99))
    list(export_qdq(network, config, {}, tmp_path / "good.onnx", sample={"words": good}))
    assert (tmp_path / "good.onnx").exists()
    with pytest.raises(ExportError, match="was not written"):
        list(export_qdq(network, config, {}, tmp_path / "bad.onnx", sample={"words": bad}))
    assert not (tmp_path / "bad.onnx").exists()


def test_that_a_weight_that_is_not_finite_stays_float_and_is_named(tmp_path: Path) -> None:
    model = builders.mlp_model()
    table = numpy_helper.to_array(model.graph.initializer[2]).copy()
    table[0, 0] = -np.inf
    model.graph.initializer[2].CopyFrom(numpy_helper.from_array(table, model.graph.initializer[2].name))
    network = examples.opened(tmp_path, model)
    event = examples.exported(network, QuantConfig(SPECS["w8"]), {}, tmp_path / "quantized.onnx")
    assert "These layers stay float, as they hold values that are not finite: 'fc1'." in event.notes
    assert stored_types(tmp_path / "quantized.onnx")[model.graph.initializer[2].name] == TensorProto.FLOAT


def test_that_an_operator_that_cannot_be_converted_is_named(tmp_path: Path) -> None:
    network = examples.opened(tmp_path, builders.mlp_model(opset=9))
    network.skeleton.graph.node.append(onnx.helper.make_node("ImageScaler", ["x"], ["unused"], name="old", scale=2.0))
    with pytest.raises(ExportError, match="the operator ImageScaler cannot be converted from opset 9"):
        list(export_qdq(network, QuantConfig(SPECS["w4"]), {}, tmp_path / "quantized.onnx"))
