"""Tables of sensitivity for tests of the window, made up without the engine."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace

from gui_examples import layer
from sessions import summary

from quantgui.results import Candidate, NetworkSummary, RankedLayer, Score, Sensitivity
from quantgui.spec.sweep import SWEPT_BITS, Sweep, bits_specs


def names(count: int) -> list[str]:
    return [f"layer{place}.conv" for place in range(count)]


def summary_of(count: int) -> NetworkSummary:
    return summary(tuple(layer(name, 16, 16, macs=1000) for name in names(count)))


def made_value(place: int, bits: int) -> float:
    """Return the output SQNR of a layer in dB: 6 dB for each bit, and something of its own for each layer."""
    return 6.02 * bits + 25 * math.sin(2.4 * place) + 3 * math.sin(place * bits)


def candidates(layers: Iterable[str], sweep: Sweep, measured: int | None) -> list[Candidate]:
    found = []
    for place, name in enumerate(layers):
        for spec in sweep.specs:
            bits = (spec.weights or spec.activations).bits
            value = made_value(place, bits)
            known = measured is None or len(found) < measured
            found.append(
                Candidate(
                    name,
                    sweep.label(spec),
                    sweep.candidate(name, spec),
                    value if known else math.nan,
                    0.4 if known else math.nan,
                    32 if known else 0,
                    288 * bits,
                    6.02 * bits - 3 + place % 3 if sweep.what != "activations" else math.nan,
                )
            )
    return found


def table(count: int = 6, measured: int | None = None, sweep: Sweep | None = None, **changes) -> Sensitivity:
    """Return a table of `count` layers of which the first `measured` candidates are known; None for all."""
    changes.pop("within", None)
    sweep = sweep or Sweep(bits_specs(SWEPT_BITS))
    cells = candidates(names(count), sweep, measured)
    orders = {}
    for spec in sweep.specs:
        column = [each for each in cells if each.format == sweep.label(spec)]
        column.sort(key=lambda each: each.value if each.samples else 1000 + each.weight_sqnr_db)
        pairs = zip(column, [*column[1:], None], strict=True)
        orders[sweep.label(spec)] = tuple(
            RankedLayer(a.layer, b is None or bool(a.samples and b.samples and b.value - a.value > 1.1))
            for a, b in pairs
        )
    known = Sensitivity(
        sweep=sweep,
        metric=sweep.metric,
        higher_is_better=sweep.metric != "kl",
        reference=Score(math.inf, 0.0, 32),
        candidates=tuple(cells),
        orders=orders,
        weight_error_correlation=0.83,
        total_samples=64,
        float_forward_seconds=0.2,
        seconds=3.0,
        cut_segments=4,
        peak_cache_bytes=1_000_000,
        resumed=0,
        complete=measured is None,
    )
    return replace(known, **changes)
