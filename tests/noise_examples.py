"""Traces of noise for tests of the window, made up without the engine."""

from __future__ import annotations

import math

import numpy as np

from quantgui.results import LayerNoise, NoiseReady, SampleReady
from quantgui.spec.config import QuantConfig
from quantgui.spec.presets import weight_spec
from quantgui.spec.quantizer import LayerSpec

W4 = QuantConfig(LayerSpec(weight_spec(4)), name="W4")


def names(count: int) -> list[str]:
    return [f"/block{place}/conv/Conv" for place in range(count)]


def noise(count: int = 6, samples: int = 16, config: QuantConfig = W4, **changes) -> NoiseReady:
    """Return a trace of `count` layers, of which the last one is float; noise adds up on the way.

    Layer 1 makes most noise, layer 3 amplifies what comes in by 2 dB; sample 5 suffers most and layer 1 alone flips it.
    """
    layers = []
    for place, name in enumerate(names(count)):
        is_float = place == count - 1
        own = math.inf if is_float else 12.0 if place == 1 else 30.0 - place
        before = math.inf if place == 0 else 25.0 - place
        inherited = before - 2.0 if place == 3 else before
        layers.append(LayerNoise(name, f"{name}_out", own, inherited, min(own, inherited) - 1, before))
    random = np.random.default_rng(0)
    damage = (10 ** random.uniform(-4, -2, (count, samples))).astype(np.float32)
    flips = np.zeros((count, samples), bool)
    if samples > 5:
        damage[:, 5] *= 8
        damage[1, 5], flips[1, 5] = 0.5, True
    damage[-1] = 0
    values = {
        "config": config,
        "layers": tuple(layers),
        "samples": samples,
        "damage": damage,
        "flips": flips,
        "flipped": flips.any(0),
        "has_classes": True,
        "complete": True,
    }
    return NoiseReady(**(values | changes))


def sample(index: int = 5, config: QuantConfig = W4, **changes) -> SampleReady:
    """Return a picture of 1 x 12 x 8 that is class 2 and becomes class 0."""
    picture = np.linspace(-1, 3, 96, dtype=np.float32).reshape(1, 12, 8)
    values = {
        "config": config,
        "sample": index,
        "inputs": {"x": picture},
        "float_outputs": {"y": np.array([1.0, -2.0, 3.0, 0.5], np.float32)},
        "quantized_outputs": {"y": np.array([2.5, -1.0, 2.0, 0.5], np.float32)},
        "label": np.array(2),
        "image_options": None,
        "class_axes": {"y": 0},
    }
    return SampleReady(**(values | changes))
