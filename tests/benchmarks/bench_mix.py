"""How good the best mix is against simpler ways to choose formats (`child_mix`), and how fast the frontier is found."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from quantgui.analysis.knapsack import Item, Knapsack, frontier
from tests.benchmarks.measuring import Row, answer, megabytes, milliseconds, seconds, start_child, timed

NETWORKS = ("efficientnet-lite0", "demosaicnet")
SAMPLES = 64
SHARE = 0.2
MOST_FORWARDS = 100
"""Of the float network on the same samples, sweep included; other tools take 355 and more."""
MOST_SECONDS = 1800.0
LAYERS, BUDGETS = 200, 50
BITS = np.array([2, 3, 4, 5, 6, 7, 8, 32])


def rows() -> Iterator[Row]:
    """Yield the rows of the frontier, and of both networks."""
    yield frontier_row()
    for name in NETWORKS:
        yield from network_rows(name, SAMPLES)


def network_rows(name: str, samples: int) -> Iterator[Row]:
    """Yield the rows of one network."""
    told = answer(start_child("child_mix", name, samples, SHARE), MOST_SECONDS)
    best = told["best"]
    yield Row(
        f"{name}, best mix at {SHARE:g}x size, {samples} samples and as many others to judge",
        f"{_quality(best)} at {best['bytes']:,} bytes",
        f"before refinement {best['unrefined']['sqnr_db']:.2f} dB, predicted {best['predicted']:.2f} dB; "
        f"sweep {told['swept']:.0f} F and {megabytes(told['sweep_memory'])}, "
        f"search {told['searched']:.0f} F and {megabytes(told['search_memory'])}",
        told["swept"] + told["searched"],
        "<= 100 F",
        told["swept"] + told["searched"] <= MOST_FORWARDS,
    )
    for words, pair in told["rivals"].items():
        rival, ours = pair["rival"], pair["ours"]
        yield Row(
            f"{name}: best mix against {words}, at equal bytes",
            f"{_quality(ours)} at {ours['bytes']:,} bytes",
            f"{_quality(rival)} at {rival['bytes']:,} bytes",
            budget="better",
            held=ours["sqnr_db"] > rival["sqnr_db"] and ours["bytes"] <= rival["bytes"],
        )


def _quality(told: dict[str, Any]) -> str:
    text = f"{told['sqnr_db']:.2f} ± {told['stderr']:.2f} dB"
    if told["metric"] in ("agreement", "accuracy"):
        return f"{text}, {told['metric']} {100 * told['value']:.1f} %"
    return text if told["metric"] == "output_sqnr_db" else f"{text}, {told['metric']} {told['value']:.2f}"


def frontier_row() -> Row:
    """Return the row of the exact frontier."""
    items = damaged_layers(LAYERS)
    dearest = sum(float(item.costs.max()) for item in items)
    limits = [math.floor(limit) for limit in np.geomspace(0.08 * dearest, 0.9 * dearest, BUDGETS)]
    problem = Knapsack(items)
    whole, one = seconds(lambda: frontier(items, limits), lambda: problem.best(limits[BUDGETS // 2]), rounds=3)
    points = len(frontier(items, limits))
    return Row(
        f"exact frontier, {LAYERS} layers x {len(BITS)} choices, {BUDGETS} budgets",
        f"{milliseconds(whole)}, {points} points",
        f"one budget alone {milliseconds(one)}, setting up {milliseconds(timed(lambda: Knapsack(items)))}",
        whole,
        "<= 1 s",
        whole <= 1.0,
    )


def damaged_layers(count: int) -> list[Item]:
    """Return layers as networks have them: sizes over some powers of 2, noise that falls by about 6 dB per bit."""
    rng = np.random.default_rng(0)
    found = []
    for _ in range(count):
        parameters, channels = int(2 ** rng.uniform(8, 20)), int(2 ** rng.integers(4, 9))
        damages = rng.lognormal(0, 1.5) * parameters**0.3 * 4.0**-BITS * rng.lognormal(0, 0.3, len(BITS))
        found.append(Item(np.ceil(parameters * BITS / 8) + 4.0 * channels * (BITS < 32), damages * (BITS < 32)))
    return found
