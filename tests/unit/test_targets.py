"""What targets accept and refuse, by examples from the vendors' documentation."""

from __future__ import annotations

import pytest

from quantgui.errors import SpecError
from quantgui.results import LayerInfo
from quantgui.spec.config import QuantConfig
from quantgui.spec.formats import FloatFormat, IntFormat, MinifloatFormat, TableFormat
from quantgui.spec.granularity import PerChannel, PerGroup, PerTensor
from quantgui.spec.presets import activation_spec, find_preset, preset_config, weight_spec
from quantgui.spec.quantizer import BLOCK_FORMATS, FLOAT, LayerSpec, QuantizerSpec
from quantgui.spec.targets import TARGETS, find_target

SYMMETRIC_A8 = QuantizerSpec(IntFormat(8), True, PerTensor())
W8A8 = LayerSpec(weight_spec(8), activation_spec(8))
W8A8_SYMMETRIC = LayerSpec(weight_spec(8), SYMMETRIC_A8)
W4_GROUPS = LayerSpec(weight_spec(4, PerGroup(128)))
W3 = LayerSpec(weight_spec(3))
HALF = LayerSpec(QuantizerSpec(FloatFormat("float16"), granularity=PerTensor()))
NF4 = LayerSpec(QuantizerSpec(TableFormat("nf4"), granularity=PerGroup(64)))
FP8 = QuantizerSpec(MinifloatFormat(4, 3))
FP8_BOTH = LayerSpec(FP8, QuantizerSpec(MinifloatFormat(4, 3), granularity=PerTensor()))
HALF_BY_8 = LayerSpec(QuantizerSpec(FloatFormat("float16"), granularity=PerTensor()), activation_spec(8))

# target, operator, spec, words of the reason (None: accepted)
EXAMPLES = [
    ("simulation", "Conv", W3, None),
    ("ort-cpu", "Conv", W3, None),
    ("ort-cpu", "MatMul", NF4, None),
    ("ort-cpu", "MatMul", LayerSpec(BLOCK_FORMATS["mxfp4"]), None),
    ("tensorrt", "Conv", W8A8_SYMMETRIC, None),
    ("tensorrt", "Conv", W8A8, "uint8 activations"),
    ("tensorrt", "Conv", LayerSpec(weight_spec(8)), "float32 activations beside int8 weights"),
    ("tensorrt", "MatMul", W4_GROUPS, None),
    ("tensorrt", "Conv", W4_GROUPS, "Conv with int4 weights"),
    ("tensorrt", "MatMul", LayerSpec(weight_spec(4, PerGroup(20))), "groups of 20"),
    ("tensorrt", "MatMul", FP8_BOTH, None),
    ("tensorrt", "MatMul", LayerSpec(BLOCK_FORMATS["nvfp4"]), None),
    ("tensorrt", "MatMul", NF4, "nf4 weights"),
    ("ort-cuda", "MatMul", W4_GROUPS, None),
    ("openvino", "Conv", W8A8, None),
    ("openvino", "MatMul", NF4, None),
    ("openvino", "Conv", W3, "int3 weights"),
    ("qnn", "Conv", W8A8, None),
    ("qnn", "Conv", LayerSpec(weight_spec(4), activation_spec(16)), None),
    ("qnn", "Conv", LayerSpec(weight_spec(8)), "float32 activations"),
    ("qnn", "Conv", HALF_BY_8, "float16 weights beside uint8 activations"),
    ("litert", "Conv", W8A8, None),
    ("litert", "Conv", LayerSpec(QuantizerSpec(IntFormat(8, signed=False), False)), "uint8 weights"),
    ("litert", "Conv", LayerSpec(QuantizerSpec(IntFormat(8), False)), "asymmetric weights"),
    ("litert", "Conv", HALF, None),
    ("coreml", "Conv", LayerSpec(QuantizerSpec(IntFormat(4), False, PerGroup(32))), None),
    ("coreml", "Conv", W3, "int3 weights"),
    ("mcu-int8", "Conv", W8A8, None),
    ("mcu-int8", "Conv", HALF, "float16 weights"),
    ("mcu-int8", "LSTM", LayerSpec(weight_spec(8)), "LSTM"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "op", "spec", "words"), EXAMPLES)
def test_that_a_target_accepts_and_refuses_as_documented(
    name: str, op: str, spec: LayerSpec, words: str | None
) -> None:
    refusal = find_target(name).refusal(op, spec)
    if words is None:
        assert refusal is None
    else:
        assert refusal is not None
        assert words in refusal
        assert refusal.startswith(find_target(name).title)
        assert refusal.endswith(".")


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_that_every_target_runs_the_float_network_and_names_its_source(target) -> None:
    assert target.refusal("Conv", FLOAT) is None
    assert target.source
    assert all(sentence.endswith(".") for sentence in target.unknown)


def _layer(name: str, op: str = "Conv", **changes: object) -> LayerInfo:
    fields = {"channels": 4, "elements_per_channel": 9, "users": (name,), "quantizes_activations": True, **changes}
    return LayerInfo(name, op, f"{name}.weight", (4, 9), 0, **fields)  # type: ignore[arg-type]


LAYERS = (
    _layer("a"),
    _layer("b", "MatMul"),
    _layer("c", "Gather", quantizes_activations=False),
    _layer("d", read_only=True),
)


def test_that_a_configuration_for_one_target_shows_its_violations_under_another() -> None:
    config = preset_config(find_preset("W8A8"), LAYERS)
    assert find_target("openvino").violations(LAYERS, config) == ()
    assert [violation.layer for violation in find_target("tensorrt").violations(LAYERS, config)] == ["a", "b"]


def test_that_a_layer_without_activations_is_judged_by_its_weights() -> None:
    config = QuantConfig(LayerSpec(weight_spec(8), activation_spec(8)))
    assert "c" not in [violation.layer for violation in find_target("qnn").violations(LAYERS, config)]


def test_that_what_a_target_refuses_is_excluded_from_a_mix() -> None:
    four, eight = LayerSpec(weight_spec(4, PerGroup(128))), W8A8_SYMMETRIC
    excluded = find_target("tensorrt").excluded(LAYERS, (four, eight, FLOAT))
    assert excluded["a"] == {four}
    assert "b" not in excluded


def test_that_an_unknown_target_is_a_sentence() -> None:
    with pytest.raises(SpecError, match=r"no target 'abacus'; choose one of simulation, ort-cpu"):
        find_target("abacus")


def test_that_the_reason_is_that_of_the_nearest_combination() -> None:
    refusal = find_target("qnn").refusal(
        "Conv", LayerSpec(QuantizerSpec(IntFormat(8), False, PerChannel()), activation_spec(8))
    )
    assert refusal == "QNN (Hexagon HTP) does not run asymmetric weights."


WEIGHTS = (
    None,
    *(weight_spec(bits, each) for bits in (2, 3, 4, 8, 16) for each in (PerTensor(), PerChannel(), PerGroup(20))),
    QuantizerSpec(IntFormat(8), False, PerChannel()),
    QuantizerSpec(FloatFormat("float16"), granularity=PerTensor()),
    FP8,
    *BLOCK_FORMATS.values(),
)
ACTIVATIONS = (None, activation_spec(8), activation_spec(16), SYMMETRIC_A8, FP8_BOTH.activations, HALF.weights)


@pytest.mark.parametrize("target", TARGETS, ids=lambda each: each.name)
def test_that_a_layer_is_covered_where_some_combination_has_nothing_against_it(target) -> None:
    for op in ("Conv", "MatMul", "LSTM", "Gather"):
        for able in (True, False):
            for weights in WEIGHTS:
                for activations in ACTIVATIONS:
                    spec = LayerSpec(weights, activations)
                    judged = spec if able else LayerSpec(weights)
                    parts = [each.refusals(op, judged, no_activations=not able) for each in target.runs]
                    free = not target.runs or spec == LayerSpec() or () in parts
                    assert target.covers(op, spec, quantizes_activations=able) == free
                    assert (target.refusal(op, spec, quantizes_activations=able) is None) == free
