"""Trainings for tests of the window, made up without the engine."""

from __future__ import annotations

import numpy as np

from quantgui.results import Evaluation, Score, TrainingReady
from quantgui.spec.config import QuantConfig
from quantgui.spec.presets import weight_spec
from quantgui.spec.quantizer import LayerSpec, Trained
from quantgui.spec.training import Training

W4 = QuantConfig(LayerSpec(weight_spec(4)), name="W4")
BEFORE, FLOAT = 0.4, 0.98


def quality(value: float, metric: str = "accuracy", float_value: float = FLOAT) -> Evaluation:
    """Return an evaluation of 500 samples; its SQNR follows the value."""
    score = Score(value, 0.01, 500)
    return Evaluation(metric, True, Score(float_value, 0.006, 500), score, 20 * value, {metric: score}, 0.2, 500)


def trained(config: QuantConfig = W4, state: str = "0123456789abcdef") -> QuantConfig:
    """Return `config` with trained weights."""
    weights = config.default.weights
    assert weights is not None
    fields = {name: getattr(weights, name) for name in weights.__slots__} | {"range_estimator": Trained(state)}
    return QuantConfig(LayerSpec(type(weights)(**fields), config.default.activations), name=config.name)


def training_ready(
    steps: int = 400, config: QuantConfig = W4, training: Training | None = None, **changes: object
) -> TrainingReady:
    """Return a training after `steps` steps: an evaluation every hundred, each better than the one before."""
    random = np.random.default_rng(0)
    loss_steps = np.arange(1, steps + 1, max(1, steps // 500))
    losses = 2.0 * np.exp(-loss_steps / 150) * np.exp(0.3 * random.standard_normal(len(loss_steps))) + 0.01
    evaluations = tuple(
        (step, quality(FLOAT - (FLOAT - BEFORE) * np.exp(-step / 200))) for step in range(100, steps + 1, 100)
    )
    best = evaluations[-1][0] if evaluations else None
    values = {
        "config": config,
        "training": training or Training(),
        "steps": steps,
        "loss_steps": loss_steps,
        "losses": losses,
        "before": quality(BEFORE),
        "evaluations": evaluations,
        "best": best,
        "trained": None if best is None else trained(config, f"{steps:08x}"),
        "layers": ("conv1", "conv2", "fc"),
        "seconds": 0.1 * steps,
        "seconds_left": 0.1 * (1000 - steps),
    }
    return TrainingReady(**(values | changes))
