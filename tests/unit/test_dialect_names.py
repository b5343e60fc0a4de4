"""By which names and keys other tools find what our files say, as their own converters and readers have them."""

from __future__ import annotations

import ast
import json
import re
import sys
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import builders
import numpy as np
import onnx
import pytest
from networks import network_path
from onnx import helper

from quantgui.analysis.calibration import calibrate
from quantgui.analysis.simulation import activation_tensors
from quantgui.export.dialects.material import Material, gather
from quantgui.export.dialects.table import find_dialect, read_dialect
from quantgui.network.datasets import open_dataset
from quantgui.network.executor import Executor
from quantgui.network.network import Network
from quantgui.network.reader import open_network
from quantgui.results import ActivationReady, Calibrated
from quantgui.spec.config import QuantConfig
from quantgui.spec.presets import find_preset, preset_config
from quantgui.spec.quantizer import FLOAT, LayerSpec


def material_of(network: Network, config: QuantConfig, *, grids: bool = False) -> Material:
    return gather(network, config, {}, grids=grids)


def calibrated(network: Network) -> Mapping[str, ActivationReady]:
    data = open_dataset("random:4", network.summary.inputs, network.summary, network=network)
    *_, last = calibrate(Executor(network), data, activation_tensors(network))
    assert isinstance(last, Calibrated)
    return last.activations


@pytest.fixture(scope="module")
def mnist() -> Network:
    return open_network(network_path("ccexam-mnist"))


def with_preset(network: Network, preset: str, **overrides: LayerSpec) -> Material:
    config = preset_config(find_preset(preset), network.summary.layers)
    return material_of(network, config.with_overrides(overrides))


# --- LiteRT ---------------------------------------------------------------------------------------------------------

ROOT, PREFIX = "networks.Digits", "networks.Digits/torch.nn.modules.container."
CONVERTED = {
    "/features/features.0/Conv": f"{PREFIX}Sequential_features/torch.nn.modules.activation.ReLU_1;;"
    f"{PREFIX}Sequential_features/torch.nn.modules.conv.Conv2d_0;1;",
    # Sequential may be a list, which is not called and so leaves no name.
    "/features/features.3/Conv": f"{ROOT};;{ROOT}/torch.nn.modules.conv.Conv2d_3;1;",
    "/classifier/classifier.0/Gemm": f"{PREFIX}Sequential_classifier/torch.nn.modules.linear.Linear_0;1;",
    "/classifier/classifier.2/Gemm": "serving_default_output_0_output;",
}
"""Layer -> scope of the operator that litert-torch 0.10 makes of it, as ai-edge-quantizer sees it."""


def test_that_a_recipe_finds_layers_as_a_converter_from_pytorch_calls_them(mnist: Network) -> None:
    rules = json.loads(find_dialect("litert").write(with_preset(mnist, "W8")).text)[1:]
    layers = [layer.name for layer in mnist.summary.layers]
    for layer, scope in CONVERTED.items():
        found = [name for name, rule in zip(layers, rules, strict=True) if re.search(rule["regex"], scope)]
        assert found == [layer]
    assert not any(re.search(rule["regex"], f"{ROOT}/torch.nn.modules.linear.Other_x/Linear_2;") for rule in rules)


def test_that_a_rule_finds_no_layer_whose_name_only_begins_alike(tmp_path: Path) -> None:
    names = ["fc", "fc1", "fc10"]
    constants = {f"{name}.weight": builders.values(8, 8, seed=i) for i, name in enumerate(names)}
    nodes = []
    for i, name in enumerate(names):
        source, target = ("x" if i == 0 else names[i - 1], "y" if i == 2 else name)
        nodes.append(helper.make_node("MatMul", [source, f"{name}.weight"], [target], name=f"{name}/MatMul"))
    x, y = builders.tensor_info("x", ["n", 8]), builders.tensor_info("y", ["n", 8])
    onnx.save(builders.model_of(nodes, [x], [y], constants), tmp_path / "prefixes.onnx")
    network = open_network(tmp_path / "prefixes.onnx")
    text = find_dialect("litert").write(with_preset(network, "W8")).text
    rules = {rule["regex"] for rule in json.loads(text)[1:]}
    for scope, wanted in (("model/fc/MatMul;", 1), ("fc1;", 1), ("fc100;", 0)):
        assert sum(re.search(rule, scope) is not None for rule in rules) == wanted
    _, read = read_dialect(text.replace("fc1", "gone"), network.summary, "litert")
    assert [unknown.name for unknown in read.unknown] == ["gone"]


# --- Core ML --------------------------------------------------------------------------------------------------------


class Tool:
    """Stands in coremltools' place: it says which constants a network holds, and notes what it is asked for."""

    def __init__(self, constants: Mapping[str, np.ndarray]) -> None:
        self.constants = constants
        self.asked: dict[str, Any] = {}

    def module(self) -> types.ModuleType:
        module = types.ModuleType("coremltools.optimize.coreml")
        settings = {"OpLinearQuantizerConfig": dict, "OpPalettizerConfig": dict}
        values: dict[str, Any] = {
            "get_weights_metadata": lambda _, weight_threshold: {
                name: types.SimpleNamespace(val=array) for name, array in self.constants.items()
            },
            "OptimizationConfig": lambda op_name_configs: op_name_configs,
            "linear_quantize_weights": self.compress,
            "palettize_weights": self.compress,
        }
        for name, value in (settings | values).items():
            setattr(module, name, value)
        return module

    def compress(self, network: object, config: dict[str, Any]) -> object:
        self.asked |= config
        return network


def run_program(text: str, tool: Tool, monkeypatch: pytest.MonkeyPatch) -> None:
    optimize = types.ModuleType("coremltools.optimize")
    optimize.coreml = tool.module()  # type: ignore[attr-defined]
    for name, module in (
        ("coremltools", types.ModuleType("coremltools")),
        ("coremltools.optimize", optimize),
        ("coremltools.optimize.coreml", tool.module()),
    ):
        monkeypatch.setitem(sys.modules, name, module)
    program: dict[str, Any] = {}
    exec(compile(ast.parse(text), "program", "exec"), program)
    program["apply"](object())


@pytest.mark.parametrize("ending", ["", "_to_fp16"])
def test_that_core_ml_finds_weights_as_its_converter_calls_them(
    mnist: Network, ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = find_dialect("coreml").write(with_preset(mnist, "W8", **{"/features/features.3/Conv": FLOAT})).text
    names = ("features_0", "features_3", "classifier_0", "classifier_2")
    tool = Tool({f"{name}_{kind}{ending}": np.zeros(3) for name in names for kind in ("weight", "bias")})
    run_program(text, tool, monkeypatch)
    assert list(tool.asked) == [f"{name}_weight{ending}" for name in names if name != "features_3"]
    assert all(settings["weight_threshold"] == 0 for settings in tool.asked.values())


def test_that_core_ml_finds_weights_by_their_values_where_folding_took_their_names(
    normalized: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = [normalized.constants[layer.weight] for layer in normalized.summary.layers]
    tool = Tool({f"const_{i}_to_fp16": weight.astype(np.float16) for i, weight in enumerate(weights)})
    run_program(find_dialect("coreml").write(with_preset(normalized, "W8")).text, tool, monkeypatch)
    assert sorted(tool.asked) == ["const_0_to_fp16", "const_1_to_fp16"]
    # Two weights that are alike cannot be told apart.
    tool = Tool(dict.fromkeys(("const_0", "const_1"), weights[0]))
    with pytest.raises(ValueError, match="are not in the Core ML network"):
        run_program(find_dialect("coreml").write(with_preset(normalized, "W8")).text, tool, monkeypatch)


def test_that_core_ml_is_told_which_weight_is_not_there(mnist: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    text = find_dialect("coreml").write(with_preset(mnist, "W8")).text
    names = ("features_0_weight", "features_3_weight", "classifier_0_weight", "classifier_2_kernel")
    tool = Tool(dict.fromkeys(names, np.zeros(3)))
    with pytest.raises(ValueError, match=r"Gemm as classifier_2_weight .*nearest is"):
        run_program(text, tool, monkeypatch)
    assert tool.asked == {}


def test_that_core_mls_blocks_that_are_not_ours_are_told(mnist: Network) -> None:
    written = find_dialect("coreml").write(with_preset(mnist, "W4A16-g32"))
    assert "'/features/features.0/Conv', '/features/features.3/Conv'" in " ".join(written.notes)
    assert "features.3/Conv'" not in written.text


# --- Quark ----------------------------------------------------------------------------------------------------------


def test_that_quark_is_told_of_activations_by_the_key_it_reads(mnist: Network) -> None:
    first, *_ = mnist.summary.layers
    value = json.loads(find_dialect("quark").write(with_preset(mnist, "W8A8", **{first.name: FLOAT})).text)
    assert set(value["global_config"]) == {"input_tensors", "weight"}
    # What Quark takes from its global settings alone.
    assert value["global_config"]["weight"]["quant_granularity"] == "QuantGranularity.Channel"
    assert value["specific_layer_config"] == []
    assert value["exclude"] == list(first.users)


def test_that_quark_quantizes_weights_alone_where_no_activation_is_quantized(mnist: Network) -> None:
    material = with_preset(mnist, "W8")
    text = find_dialect("quark").write(material).text
    assert json.loads(text)["extra_options"] == {"WeightsOnly": True}
    _, read = read_dialect(text, mnist.summary, "quark")
    assert all(read.config.spec_for(layer.name).activations is None for layer in mnist.summary.layers)


def test_that_what_quark_cannot_tell_apart_is_told(mnist: Network) -> None:
    first, second, *_ = mnist.summary.layers
    eight, sixteen = find_preset("W8A8").spec, find_preset("W16A16").spec
    material = with_preset(mnist, "W8A8", **{first.name: LayerSpec(eight.weights), second.name: sixteen})
    written = find_dialect("quark").write(material)
    value = json.loads(written.text)
    assert value["exclude"] == list(first.users)
    ((told, names),) = value["specific_layer_config"]
    assert (told["weight"]["data_type"], names) == ("Int16", list(second.users))
    assert any(first.name in note and "weights of all" in note for note in written.notes)


@pytest.fixture(scope="module")
def normalized(tmp_path_factory: pytest.TempPathFactory) -> Network:
    """Return a convolution with a BatchNormalization behind it, and one without."""
    path = tmp_path_factory.mktemp("normalized") / "normalized.onnx"
    constants = {"w1": builders.values(4, 3, 3, 3, seed=1), "w2": builders.values(2, 4, 1, 1, seed=2)}
    constants |= {name: abs(builders.values(4, seed=i)) + 0.5 for i, name in enumerate(("s", "b", "m", "v"))}
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["first/Conv_out"], name="first/Conv"),
        helper.make_node("BatchNormalization", ["first/Conv_out", "s", "b", "m", "v"], ["bn_out"], name="bn"),
        helper.make_node("Conv", ["bn_out", "w2"], ["y"], name="y"),
    ]
    x, y = builders.tensor_info("x", ["n", 3, 8, 8]), builders.tensor_info("y", ["n", 2, 6, 6])
    onnx.save(builders.model_of(nodes, [x], [y], constants), path)
    return open_network(path)


def test_that_quark_finds_a_convolution_after_it_has_folded_batch_normalization(normalized: Network) -> None:
    written = find_dialect("quark").write(with_preset(normalized, "W8A8", **{"first/Conv": FLOAT}))
    assert json.loads(written.text)["exclude"] == ["first/Conv", "bn_out"]
    _, read = read_dialect(written.text, normalized.summary, "quark")
    assert read.unknown == ()
    assert read.config.spec_for("first/Conv") == FLOAT
    assert read.config.spec_for("y") != FLOAT


@pytest.mark.parametrize("dialect", ["aimet-0.6.1", "aimet-1.0", "aimet-2.0"])
def test_that_aimet_needs_batch_normalization_folded_is_told_where_there_is_any(
    normalized: Network, mnist: Network, dialect: str
) -> None:
    for network, folds in ((normalized, True), (mnist, False)):
        config = preset_config(find_preset("W8"), network.summary.layers)
        notes = find_dialect(dialect).write(material_of(network, config, grids=True)).notes
        assert any("fold_all_batch_norms_to_weight" in note for note in notes) == folds


def test_that_tensors_are_called_as_aimet_calls_them_once_it_has_folded(normalized: Network) -> None:
    config = preset_config(find_preset("W8A8"), normalized.summary.layers)
    activations = calibrated(normalized)
    for dialect, name in (("aimet-0.6.1", "first/Conv_out"), ("aimet-1.0", "first/Conv_out"), ("qnn", "bn_out")):
        text = find_dialect(dialect).write(gather(normalized, config, activations)).text
        told = json.loads(text)["activation_encodings"]
        assert name in (told if isinstance(told, dict) else [each["name"] for each in told])
        _, read = read_dialect(text, normalized.summary, dialect)
        assert read.unknown == ()
        assert read.config.spec_for("y").activations is not None
