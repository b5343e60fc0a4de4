"""Why a file differs from the simulation: each reason on a network built to show it, and on none of the others."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import builders
import export_examples as examples
import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from quantgui.analysis.simulation import build_simulation
from quantgui.export.biases import stored_biases
from quantgui.export.deployed import open_deployed
from quantgui.export.reasons import Comparison, reasons
from quantgui.export.verify import verify
from quantgui.network.executor import Executor
from quantgui.network.network import Network
from quantgui.results import Verification
from quantgui.spec.config import QuantConfig
from quantgui.spec.presets import activation_spec, weight_spec
from quantgui.spec.quantizer import LayerSpec

BIAS, SATURATION, MATMUL = "Bias rounding", "Saturation", "MatMulNBits"
W8A8 = LayerSpec(weight_spec(8), activation_spec(8))
W16A16 = LayerSpec(weight_spec(16), activation_spec(16))


def biased_model() -> onnx.ModelProto:
    """Return two convolutions, the first with biases far larger than its products."""
    constants = {
        "w": builders.values(8, 3, 3, 3, seed=1, scale=0.1),
        "b": builders.values(8, seed=2, scale=3.0),
        "w2": builders.values(4, 8, 1, 1, seed=3),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["h"], name="first"),
        helper.make_node("Relu", ["h"], ["r"], name="relu"),
        helper.make_node("Conv", ["r", "w2"], ["y"], name="second"),
    ]
    x, y = builders.tensor_info("x", ["n", 3, 8, 8]), builders.tensor_info("y", ["n", 4, 6, 6])
    return builders.model_of(nodes, [x], [y], constants)


def array(model: onnx.ModelProto, name: str) -> np.ndarray:
    return numpy_helper.to_array(next(tensor for tensor in model.graph.initializer if tensor.name == name))


def replace(model: onnx.ModelProto, name: str, values: np.ndarray) -> None:
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name == name)
    tensor.CopyFrom(numpy_helper.from_array(values, name))


def coarse(model: onnx.ModelProto) -> None:
    """Round the stored biases to large steps, as another tool's too coarse a grid does."""
    codes = array(model, "b_quantized")
    replace(model, "b_quantized", (codes // 4096 * 4096).astype(np.int32))


def other_scale(model: onnx.ModelProto) -> None:
    """Store the biases in a scale that is not input times weight, which integer kernels do not look at."""
    replace(model, "b_quantized", (array(model, "b_quantized") // 4).astype(np.int32))
    replace(model, "b_scale", array(model, "b_scale") * np.float32(4))


def unguarded(model: onnx.ModelProto) -> None:
    """Let ONNX Runtime see 16-bit weights, input and float bias side by side, whose bias it then makes int32."""
    replace(model, "w_quantized", array(model, "w_quantized").reshape(8, 3, 3, 3))
    nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in model.graph.node]
    weight = next(node for node in nodes if node.output[0] == "w_DequantizeLinear")
    weight.output[0] = "w"
    del weight.attribute[:]
    weight.attribute.append(helper.make_attribute("axis", 0))
    del model.graph.node[:]
    model.graph.node.extend(node for node in nodes if node.op_type != "Reshape")


def as_written(model: onnx.ModelProto) -> None:
    """Change nothing."""
    del model


def verified(
    folder: Path, network: Network, config: QuantConfig, change: Callable[[onnx.ModelProto], None]
) -> Verification:
    data = examples.data_for(network)
    activations = examples.calibrated(network, config, data)
    path = folder / "quantized.onnx"
    examples.exported(network, config, activations, path)
    model = onnx.load(path)
    change(model)
    onnx.save(model, path)
    *_, last = verify(Executor(network), data, config, activations, None, path)
    assert isinstance(last, Verification)
    return last


def named(notes: Sequence[str]) -> set[str]:
    return {word for word in (BIAS, SATURATION, MATMUL) if any(word in note for note in notes)}


def test_that_integer_biases_that_are_not_the_simulated_ones_are_the_reason(tmp_path: Path) -> None:
    network = examples.opened(tmp_path, biased_model())
    result = verified(tmp_path, network, QuantConfig(W8A8), coarse)
    assert result.output_sqnr_db < 60
    assert named(result.notes) == {BIAS}
    (note,) = (note for note in result.notes if BIAS in note)
    assert "'first'" in note
    assert not any("round at other places" in each for each in result.notes)


def test_that_float_biases_that_onnx_runtime_rounds_are_the_reason(tmp_path: Path) -> None:
    network = examples.opened(tmp_path, biased_model())
    result = verified(tmp_path, network, QuantConfig(W16A16), unguarded)
    assert result.output_sqnr_db < 20
    assert named(result.notes) == {BIAS}
    assert any("'first'" in note and "WeightBiasQuantization" in note for note in result.notes)
    assert not any("round at other places" in each for each in result.notes)


@pytest.mark.parametrize(("spec", "change"), [(W8A8, as_written), (W8A8, other_scale), (W16A16, as_written)])
def test_that_biases_that_change_nothing_are_no_reason(
    tmp_path: Path, spec: LayerSpec, change: Callable[[onnx.ModelProto], None]
) -> None:
    network = examples.opened(tmp_path, biased_model())
    result = verified(tmp_path, network, QuantConfig(spec), change)
    assert stored_biases(onnx.load(tmp_path / "quantized.onnx")).integers == (("first",) if spec == W8A8 else ())
    assert named(result.notes) == set()


def test_that_matmul_in_8_bits_is_told_from_the_others(tmp_path: Path) -> None:
    constants = {f"w{i}": builders.values(128, 128, seed=i, scale=0.1) for i in range(2)}
    nodes = [
        helper.make_node("MatMul", ["x", "w0"], ["h"], name="fc0"),
        helper.make_node("Relu", ["h"], ["a"], name="relu"),
        helper.make_node("MatMul", ["a", "w1"], ["y"], name="fc1"),
    ]
    x, y = builders.tensor_info("x", ["n", 128]), builders.tensor_info("y", ["n", 128])
    network = examples.opened(tmp_path, builders.model_of(nodes, [x], [y], constants))
    assert named(verified(tmp_path, network, QuantConfig(LayerSpec(weight_spec(4))), as_written).notes) == {MATMUL}


@dataclass(frozen=True, eq=False)
class Saturating(Comparison):
    """A processor without VNNI: sums of pairs of 8-bit products saturate unless exact ones are asked for.

    No such processor need be at hand: the product is computed as its instruction (VPMADDUBSW) does.
    """

    def outputs(
        self,
        config: Mapping[str, str] | None = None,
        disabled: Sequence[str] = (),
        *,
        optimize: bool = True,
        model: onnx.ModelProto | None = None,
    ) -> dict[str, np.ndarray]:
        exact = {"session.x64quantprecision", "session.disable_quant_qdq"} & set(config or {})
        if exact or not optimize:
            return super().outputs(config, disabled, optimize=optimize, model=model)
        held = {name: array(self.file.model, name) for name in ("w_quantized", "w_scale", "x_scale", "x_zero_point")}
        rows = np.rint(self.batch.inputs["x"] / held["x_scale"]) + int(held["x_zero_point"])
        codes, weights = np.clip(rows, 0, 255).astype(np.int64), held["w_quantized"].astype(np.int64)
        pairs = codes[:, ::2, None] * weights[None, ::2] + codes[:, 1::2, None] * weights[None, 1::2]
        products = np.clip(pairs, -(1 << 15), (1 << 15) - 1).sum(1) - int(held["x_zero_point"]) * weights.sum(0)
        return {"y": (products * held["x_scale"] * held["w_scale"]).astype(np.float32)}


@pytest.mark.parametrize(("loud", "found"), [(1.0, {SATURATION}), (0.4, set())])
def test_that_saturation_is_named_where_exact_products_close_the_gap(
    tmp_path: Path, loud: float, found: set[str]
) -> None:
    weights = loud * (0.8 + 0.2 * np.abs(builders.values(64, 16, seed=1)).clip(0, 1))
    weights[0] = 1.0  # the largest code: those of the others are `loud` of it
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"], name="fc")]
    x, y = builders.tensor_info("x", ["n", 64]), builders.tensor_info("y", ["n", 16])
    model = builders.model_of(nodes, [x], [y], {"w": weights.astype(np.float32)})
    network = examples.opened(tmp_path, model)
    config = QuantConfig(W8A8)
    data = examples.data_for(network)
    activations = examples.calibrated(network, config, data)
    examples.exported(network, config, activations, tmp_path / "quantized.onnx")
    comparison = Saturating(
        Executor(network),
        build_simulation(network, config, activations),
        open_deployed(tmp_path / "quantized.onnx", network),
        next(data.batches(4, 4)),
    )
    gap = comparison.gap()
    assert (gap < 40) == bool(found)
    assert named(tuple(reasons(network, config, comparison, gap, None))) == found
