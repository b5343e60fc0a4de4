"""Frontiers of mixes for tests of the window, made by hand and not by the search."""

from __future__ import annotations

import math
from collections.abc import Sequence

from quantgui.results import LayerInfo, MixPoint, MixReady, Score
from quantgui.session.sizes import layer_bytes
from quantgui.spec.config import QuantConfig
from quantgui.spec.mix import Mix
from quantgui.spec.presets import weight_spec
from quantgui.spec.quantizer import LayerSpec
from quantgui.spec.sweep import Sweep

BITS = (2, 3, 4, 5, 6, 7, 8)
FLOAT_DB = 60.0


def steps(layers: Sequence[LayerInfo]) -> list[QuantConfig]:
    """Return configurations that rise in size: from 2 bits everywhere to 8, one layer after the other."""
    config = QuantConfig().with_overrides({layer.name: LayerSpec(weight_spec(BITS[0])) for layer in layers})
    found = [config]
    for bits in BITS[1:]:
        for layer in layers:
            config = config.with_overrides({layer.name: LayerSpec(weight_spec(bits))})
            found.append(config)
    return found


def size(layers: Sequence[LayerInfo], config: QuantConfig, rest: int = 1000) -> int:
    return rest + sum(layer_bytes(layer, config.spec_for(layer.name).weights) for layer in layers)


def frontier(
    layers: Sequence[LayerInfo],
    *,
    points: int = 12,
    measured: Sequence[int] = (),
    missed: float = 0.8,
    mix: Mix | None = None,
    complete: bool = True,
    rest: int = 1000,
    refined: MixPoint | None = None,
    changes: tuple[tuple[str, LayerSpec, LayerSpec], ...] = (),
    gained: float = 0.0,
) -> MixReady:
    """Return the answer to `mix` (0.25 of the float size) as a frontier over `layers` of about `points` points."""
    configs = steps(layers)
    every = max(len(configs) // points, 1)
    found = []
    for place, config in enumerate(configs[::every]):
        bits = sum(x.parameters * (config.spec_for(x.name).weights or weight_spec(8)).bits for x in layers)
        predicted = 6.02 * bits / sum(x.parameters for x in layers) - 4.0
        score = Score(predicted - missed * (1 + 0.2 * math.sin(place)), 0.6, 64) if place in measured else None
        cost = size(layers, config, rest)
        found.append(MixPoint(config, float(cost), cost, predicted, score))
    mix = mix or Mix(Sweep(), limit=0.25 * size(layers, QuantConfig(), rest))
    chosen = None
    if mix.limit is not None:
        chosen = max((i for i, point in enumerate(found) if point.cost <= mix.limit), default=None)
    errors = [abs(p.measured.value - p.predicted) for p in found if p.measured is not None]
    return MixReady(
        mix=mix,
        metric=mix.sweep.metric,
        higher_is_better=True,
        float_score=Score(math.inf, 0.0, 64),
        points=tuple(found),
        chosen=chosen,
        additivity_error=sum(errors) / len(errors) if errors else math.nan,
        refined=refined,
        changes=changes,
        gained=gained,
        seconds=1.0,
        complete=complete,
    )
