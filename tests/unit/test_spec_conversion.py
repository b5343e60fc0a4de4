"""What a runtime refuses becomes the nearest that it takes, and every change is told."""

from __future__ import annotations

import pytest

from quantgui.results import LayerInfo
from quantgui.spec.config import QuantConfig
from quantgui.spec.conversion import convert, sentences
from quantgui.spec.formats import IntFormat
from quantgui.spec.granularity import PerChannel, PerGroup, PerTensor
from quantgui.spec.presets import PRESETS, activation_spec, find_preset, weight_spec
from quantgui.spec.quantizer import FLOAT, LayerSpec, QuantizerSpec, Trained
from quantgui.spec.targets import TARGETS, find_target

CONV = LayerInfo("conv", "Conv", "conv.w", (8, 4, 3, 3), 0, 8, 36, ("conv",), quantizes_activations=True)
FC = LayerInfo("fc", "MatMul", "fc.w", (256, 8), 1, 8, 256, ("fc",), quantizes_activations=True)
EIGHT = QuantizerSpec(IntFormat(8), True, PerTensor(), activation_spec(8).range_estimator)


def shape(spec: QuantizerSpec | None) -> tuple[object, ...] | None:
    return None if spec is None else (spec.format, spec.symmetric, spec.granularity)


def converted(target: str, layer: LayerInfo, spec: LayerSpec) -> tuple[LayerSpec, tuple[str, ...]]:
    config, changes = convert(find_target(target), [layer], QuantConfig(spec))
    return config.spec_for(layer.name), sentences(changes)


def test_that_trained_weights_are_left_where_a_layer_is_converted_and_said_to_be() -> None:
    trained = QuantizerSpec(IntFormat(8), False, PerChannel(), Trained("0123456789abcdef"))
    found, said = converted("tensorrt", CONV, LayerSpec(trained, EIGHT))
    assert found.weights is not None
    assert not isinstance(found.weights.range_estimator, Trained)
    assert "weights trained asymmetric int8 per channel with" in said[0]
    kept = LayerSpec(QuantizerSpec(IntFormat(8), range_estimator=Trained("0123456789abcdef")), EIGHT)
    assert converted("tensorrt", CONV, kept)[0] == kept


@pytest.mark.parametrize("layer", [CONV, FC], ids=lambda layer: layer.op)
@pytest.mark.parametrize("preset", PRESETS, ids=lambda preset: preset.name)
@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_that_nothing_is_refused_after_a_conversion(target, preset, layer: LayerInfo) -> None:
    config, changes = convert(target, [layer], QuantConfig(preset.spec))
    assert target.violations([layer], config) == () or config.spec_for(layer.name) == FLOAT
    assert bool(changes) == bool(target.violations([layer], QuantConfig(preset.spec)))
    again, none = convert(target, [layer], config)
    assert (again, none) == (config, ())


@pytest.mark.parametrize(
    ("layer", "spec", "found"),
    [
        (CONV, LayerSpec(weight_spec(8), activation_spec(8)), LayerSpec(weight_spec(8), EIGHT)),
        (CONV, LayerSpec(weight_spec(4), activation_spec(8)), LayerSpec(weight_spec(8), EIGHT)),
        (FC, LayerSpec(weight_spec(4, PerGroup(32))), LayerSpec(weight_spec(4, PerGroup(64)))),
        (CONV, LayerSpec(weight_spec(4, PerGroup(32))), FLOAT),
        (CONV, find_preset("W16A16").spec, FLOAT),
        (CONV, FLOAT, FLOAT),
    ],
)
def test_that_tensorrt_gets_the_nearest_it_runs(layer: LayerInfo, spec: LayerSpec, found: LayerSpec) -> None:
    answer, told = converted("tensorrt", layer, spec)
    shape = [
        (None if x is None else (x.format, x.symmetric, x.granularity)) for x in (answer.weights, answer.activations)
    ]
    wanted = [
        (None if x is None else (x.format, x.symmetric, x.granularity)) for x in (found.weights, found.activations)
    ]
    assert shape == wanted
    assert bool(told) == (spec != found)


def test_that_weights_that_are_unsigned_become_signed() -> None:
    unsigned = QuantizerSpec(IntFormat(8, signed=False), False, PerChannel())
    answer, told = converted("qnn", CONV, LayerSpec(unsigned, activation_spec(8)))
    assert answer == LayerSpec(QuantizerSpec(IntFormat(8), True, PerChannel()), activation_spec(8))
    (sentence,) = told
    assert sentence.startswith("Converted: weights asymmetric uint8 per channel with activations")
    assert "became weights int8 per channel" in sentence
    assert "'conv'" in sentence


def test_that_layers_changed_alike_share_a_sentence() -> None:
    layers = [
        LayerInfo(f"c{i}", "Conv", f"w{i}", (8, 4, 3, 3), 0, 8, 36, ("c",), quantizes_activations=True)
        for i in range(5)
    ]
    _, changes = convert(find_target("tensorrt"), layers, QuantConfig(LayerSpec(weight_spec(8))))
    assert len(changes) == 5
    (sentence,) = sentences(changes)
    assert sentence.endswith("became float in 'c0', 'c1', 'c2' and 2 more.")
