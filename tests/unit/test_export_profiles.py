"""Profiles of exported files: MatMulNBits, and what TensorRT takes."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import builders
import export_examples as examples
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from quantgui.analysis.simulation import build_simulation
from quantgui.errors import ExportError
from quantgui.export.deployed import open_deployed
from quantgui.export.qdq import export_qdq
from quantgui.network.executor import Executor
from quantgui.numerics.metrics import sqnr_db
from quantgui.results import Exported
from quantgui.spec.config import QuantConfig
from quantgui.spec.formats import IntFormat, MinifloatFormat, TableFormat
from quantgui.spec.granularity import PerGroup, PerTensor
from quantgui.spec.presets import activation_spec
from quantgui.spec.quantizer import LayerSpec, QuantizerSpec

SYMMETRIC = QuantizerSpec(IntFormat(8), True, PerTensor())


def linear(columns: int = 24) -> onnx.ModelProto:
    """Return MatMul and Gemm, both ways round, with dimensions that are no multiple of a block."""
    constants = {
        "a": builders.values(40, 72, seed=1, scale=0.2),
        "b": builders.values(columns, 72, seed=2, scale=0.2),
        "b.bias": builders.values(columns, seed=3),
        "c": builders.values(columns, 16, seed=4, scale=0.3),
    }
    nodes = [
        helper.make_node("MatMul", ["x", "a"], ["h"], name="a"),
        helper.make_node("Relu", ["h"], ["r"], name="relu"),
        helper.make_node("Gemm", ["r", "b", "b.bias"], ["g"], name="b", transB=1),
        helper.make_node("Gemm", ["g", "c"], ["y"], name="c"),
    ]
    x, y = builders.tensor_info("x", ["n", 40]), builders.tensor_info("y", ["n", 16])
    return builders.model_of(nodes, [x], [y], constants)


def written(tmp_path: Path, model: onnx.ModelProto, spec: LayerSpec, profile: str):
    network = examples.opened(tmp_path, model)
    config, data = QuantConfig(spec), examples.data_for(network, 4)
    activations = examples.calibrated(network, config, data)
    path = tmp_path / "quantized.onnx"
    *_, exported = export_qdq(network, config, activations, path, profile=profile)
    assert isinstance(exported, Exported)
    simulation = build_simulation(network, config, activations, profile=profile)
    batch = next(data.batches())
    shown = Executor(network, segmented=False).run(batch, simulation)
    return exported, path, batch, shown


@pytest.mark.parametrize("bits", [2, 3, 4, 7, 8])
@pytest.mark.parametrize("size", [16, 32, 64, 128, 256])
@pytest.mark.parametrize("kind", ["symmetric", "asymmetric", "unsigned", "unsigned symmetric", "float16", "e8m0"])
def test_that_matmulnbits_computes_what_the_simulation_shows(tmp_path: Path, bits: int, size: int, kind: str) -> None:
    spec = QuantizerSpec(
        IntFormat(bits, signed="unsigned" not in kind),
        "symmetric" in kind.split() or kind in ("float16", "e8m0"),
        PerGroup(size),
        scale_format=kind if kind in ("float16", "e8m0") else "float32",
    )
    exported, path, batch, shown = written(tmp_path, linear(), LayerSpec(spec), "matmulnbits")
    model = onnx.load(path)
    assert Counter(node.op_type for node in model.graph.node)["MatMulNBits"] == 3
    assert "3 layers" in exported.notes[-1]
    for fused in (False, True):
        answer = examples.run_file(path, batch, fused=fused)
        for name, values in shown.items():
            assert sqnr_db(values, answer[name]) > 100


def test_that_what_matmulnbits_does_not_take_is_written_as_ever(tmp_path: Path) -> None:
    spec = QuantizerSpec(IntFormat(2), True, PerGroup(16))
    exported, path, batch, shown = written(tmp_path, linear(22), LayerSpec(spec), "matmulnbits")
    assert Counter(node.op_type for node in onnx.load(path).graph.node)["MatMulNBits"] == 2, "22 columns are too few"
    assert "2 layers, 'a', 'c', with accuracy level 1" in exported.notes[-1]
    answer = examples.run_file(path, batch)
    assert all(sqnr_db(values, answer[name]) > 100 for name, values in shown.items())
    spec = QuantizerSpec(IntFormat(4), True, PerGroup(24))
    exported, path, *_ = written(tmp_path, linear(), LayerSpec(spec), "matmulnbits")
    assert "MatMulNBits" not in {node.op_type for node in onnx.load(path).graph.node}
    assert exported.notes[-1].startswith("No layer fits MatMulNBits")


# --- TensorRT ----------------------------------------------------------------------------------------------------


def residual() -> onnx.ModelProto:
    """Return two residual blocks, one with a convolution in its shortcut, and a Gemm behind a pool."""
    constants = {f"{name}.w": builders.values(8, 8, 3, 3, seed=k, scale=0.15) for k, name in enumerate("abcd")}
    constants |= {f"{name}.b": builders.values(8, seed=9, scale=0.1) for name in "abcd"}
    constants |= {"short.w": builders.values(8, 8, 1, 1, seed=5, scale=0.3), "fc.w": builders.values(8, 5, seed=6)}
    pads = {"pads": [1, 1, 1, 1]}
    nodes = [
        helper.make_node("Conv", ["x", "a.w", "a.b"], ["a1"], name="a", **pads),
        helper.make_node("Relu", ["a1"], ["a2"], name="ra"),
        helper.make_node("Conv", ["a2", "b.w", "b.b"], ["b1"], name="b", **pads),
        helper.make_node("Add", ["b1", "x"], ["s1"], name="add1"),
        helper.make_node("Relu", ["s1"], ["s2"], name="rs"),
        helper.make_node("Conv", ["s2", "c.w", "c.b"], ["c1"], name="c", **pads),
        helper.make_node("Relu", ["c1"], ["c2"], name="rc"),
        helper.make_node("Conv", ["c2", "d.w", "d.b"], ["d1"], name="d", **pads),
        helper.make_node("Conv", ["s2", "short.w"], ["e1"], name="short"),
        helper.make_node("Add", ["d1", "e1"], ["s3"], name="add2"),
        helper.make_node("ReduceMean", ["s3"], ["p"], name="pool", axes=[2, 3], keepdims=0),
        helper.make_node("Gemm", ["p", "fc.w"], ["y"], name="fc"),
    ]
    x, y = builders.tensor_info("x", ["n", 8, 6, 6]), builders.tensor_info("y", ["n", 5])
    return builders.model_of(nodes, [x], [y], constants)


def rules_broken(model: onnx.ModelProto) -> list[str]:  # noqa: C901
    """Return what in a file goes against NVIDIA's rules for explicit quantization."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    makers = {output: node for node in model.graph.node for output in node.output}
    weighted = ("Conv", "ConvTranspose", "Gemm", "MatMul")
    broken = []
    for node in model.graph.node:
        if node.domain not in ("", "ai.onnx"):
            broken.append(f"{node.name} is no operator of ONNX")
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            scale = constants.get(node.input[1])
            if scale is None or not (numpy_helper.to_array(scale) > 0).all():
                broken.append(f"{node.name} has no constant positive scale")
            if len(node.input) > 2:
                zero = constants[node.input[2]]
                if any(zero.raw_data):
                    broken.append(f"{node.name} has a zero point")
                if zero.data_type not in (TensorProto.INT8, TensorProto.FLOAT8E4M3FN, TensorProto.INT4):
                    broken.append(f"{node.name} is of a type that is not taken")
        if node.op_type == "QuantizeLinear":
            if list(constants[node.input[1]].dims):
                broken.append(f"{node.name} quantizes activations per channel")
            maker = makers.get(node.input[0])
            readers = [each for each in model.graph.node if node.output[0] in each.input]
            if any(each.op_type != "DequantizeLinear" for each in readers):
                broken.append(f"{node.name} is not followed by DequantizeLinear")
            behind = [each for reader in readers for each in model.graph.node if reader.output[0] in each.input]
            if any(each.op_type not in (*weighted, "Add") for each in behind) or not behind:
                broken.append(f"{node.name} stands behind {maker and maker.name}, not in front of an operator")
        if node.op_type == "DequantizeLinear" and node.input[0] in constants:
            kind = constants[node.input[0]].data_type
            if kind not in (TensorProto.INT8, TensorProto.INT4, TensorProto.FLOAT8E4M3FN):
                broken.append(f"{node.name} dequantizes a constant of another type")
        if node.op_type == "Add":
            sources = [makers.get(name) for name in node.input]
            fusible = [source is not None and source.op_type in weighted for source in sources]
            quantized = [source is not None and source.op_type == "DequantizeLinear" for source in sources]
            if sum(fusible) != 1 or sum(quantized) != 1:
                broken.append(f"{node.name} does not have one quantized branch and one that can be fused")
        if node.op_type in weighted:
            both = [makers.get(name) for name in node.input[:2]]
            if any(each is None or each.op_type != "DequantizeLinear" for each in both):
                broken.append(f"{node.name} does not read its data and weight through DequantizeLinear")
    return broken


@pytest.mark.parametrize("fmt", [IntFormat(8), MinifloatFormat(4, 3)], ids=str)
@pytest.mark.parametrize("granularity", [None, PerTensor()], ids=["channel", "tensor"])
def test_that_the_tensorrt_profile_follows_its_rules_and_runs(tmp_path: Path, fmt, granularity) -> None:
    weights = QuantizerSpec(fmt) if granularity is None else QuantizerSpec(fmt, granularity=granularity)
    spec = LayerSpec(weights, QuantizerSpec(fmt, True, PerTensor()))
    exported, path, batch, shown = written(tmp_path, residual(), spec, "tensorrt")
    assert rules_broken(onnx.load(path)) == []
    assert any("TensorRT" in note for note in exported.notes)
    file = open_deployed(path, examples.opened(tmp_path, residual()))
    answer = file.run(file.session(), batch)
    for name, values in shown.items():
        np.testing.assert_array_equal(answer[name], values)


def test_that_other_profiles_break_these_rules(tmp_path: Path) -> None:
    spec = LayerSpec(QuantizerSpec(IntFormat(8)), activation_spec(8))
    _, path, *_ = written(tmp_path, residual(), spec, "qdq")
    assert len(rules_broken(onnx.load(path))) > 5


def test_that_int4_blocks_stay_weight_only_for_tensorrt(tmp_path: Path) -> None:
    spec = LayerSpec(QuantizerSpec(IntFormat(4), True, PerGroup(64)))
    _, path, batch, shown = written(tmp_path, linear(), spec, "tensorrt")
    model = onnx.load(path)
    kinds = {tensor.data_type for tensor in model.graph.initializer if tensor.name.endswith("_quantized")}
    assert kinds == {TensorProto.INT4}
    assert {node.op_type for node in model.graph.node} == {"DequantizeLinear", "MatMul", "Gemm", "Relu"}
    answer = examples.run_file(path, batch)
    assert all(sqnr_db(values, answer[name]) > 100 for name, values in shown.items())


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (
            LayerSpec(QuantizerSpec(IntFormat(8)), activation_spec(8)),
            "zero points of 0 alone.*'a'.*symmetric int8",
        ),
        (LayerSpec(QuantizerSpec(IntFormat(8), False), SYMMETRIC), "'a'.*asymmetric weights.*choose symmetric"),
        (LayerSpec(QuantizerSpec(IntFormat(4)), SYMMETRIC), "'a'.*int4"),
        (LayerSpec(QuantizerSpec(TableFormat("nf4"))), "'a'.*nf4"),
    ],
)
def test_that_what_tensorrt_does_not_take_is_refused_with_the_layers_and_what_to_do(tmp_path, spec, words) -> None:
    with pytest.raises(ExportError, match=words):
        written(tmp_path, residual(), spec, "tensorrt")
    assert not (tmp_path / "quantized.onnx").exists()
