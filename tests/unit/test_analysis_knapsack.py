"""The knapsack against all selections of small problems, and against scipy's HiGHS on large ones."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_array

from quantgui.analysis.knapsack import Item, Knapsack, frontier, total

# Few values, so that costs and damages are often equal, also 0 (layers without parameters) and infinite (not measured).
COSTS = st.sampled_from([0.0, 0.0, 1.0, 2.0, 2.0, 3.0, 7.0, 40.0])
DAMAGES = st.sampled_from([0.0, 0.0, 1.0, 1.0, 2.5, 3.0, 100.0, math.inf]) | st.floats(0, 10)


@st.composite
def items(draw: st.DrawFn) -> Item:
    choices = draw(st.lists(st.tuples(COSTS, DAMAGES), min_size=1, max_size=4))
    choices.append((draw(COSTS), draw(st.floats(0, 5))))
    return Item(np.array([cost for cost, _ in choices]), np.array([damage for _, damage in choices]))


def selections(problem: list[Item]) -> list[tuple[float, float]]:
    return [total(problem, each) for each in itertools.product(*(range(len(item.costs)) for item in problem))]


def damaged_layers(seed: int, count: int = 200) -> list[Item]:
    """Return layers as networks have them: sizes over some powers of 2, noise that falls by about 6 dB per bit."""
    rng = np.random.default_rng(seed)
    bits = np.array([2, 3, 4, 5, 6, 7, 8, 32])
    found = []
    for _ in range(count):
        parameters, channels = int(2 ** rng.uniform(8, 20)), int(2 ** rng.integers(4, 9))
        damages = rng.lognormal(0, 1.5) * parameters**0.3 * 4.0**-bits * rng.lognormal(0, 0.3, len(bits))
        found.append(Item(np.ceil(parameters * bits / 8) + 4.0 * channels * (bits < 32), damages * (bits < 32)))
    return found


@given(st.lists(items(), min_size=1, max_size=5), st.sampled_from([0.0, 1.0, 3.0, 5.0, 9.0, 41.0, 200.0]))
@settings(max_examples=400)
def test_that_the_best_selection_is_the_best_of_all(problem: list[Item], limit: float) -> None:
    allowed = [damage for cost, damage in selections(problem) if cost <= limit and math.isfinite(damage)]
    found = Knapsack(problem).best(limit)
    if found is None:
        assert not allowed
    else:
        cost, damage = total(problem, found)
        assert cost <= limit
        assert damage == pytest.approx(min(allowed), rel=1e-12, abs=1e-12)


@given(st.lists(items(), min_size=1, max_size=4))
@settings(max_examples=200)
def test_that_the_frontier_at_all_limits_is_all_that_is_not_beaten(problem: list[Item]) -> None:
    finite = {pair for pair in selections(problem) if math.isfinite(pair[1])}
    found = [total(problem, each) for each in frontier(problem, sorted({cost for cost, _ in finite}))]
    unbeaten = [
        (cost, damage)
        for cost, damage in sorted(finite)
        if not any(c <= cost and d <= damage and (c, d) != (cost, damage) for c, d in finite)
    ]
    # Sums in another order may differ in the last bit, so points are held to each other one by one.
    assert all(any(c <= cost and d <= damage + 1e-9 for c, d in found) for cost, damage in unbeaten)
    assert [cost for cost, _ in found] == sorted({cost for cost, _ in found})
    assert all(a > b for (_, a), (_, b) in itertools.pairwise(found))


@given(st.lists(items(), min_size=1, max_size=4), st.floats(0, 5))
@settings(max_examples=200)
def test_that_supported_selections_are_the_best_at_their_price(problem: list[Item], price: float) -> None:
    best = min(damage + price * cost for cost, damage in selections(problem))
    found = [total(problem, each) for each in Knapsack(problem).supported()]
    assert min(damage + price * cost for cost, damage in found) == pytest.approx(best, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_that_highs_finds_nothing_better_for_two_hundred_layers(seed: int, capfd: pytest.CaptureFixture[str]) -> None:
    problem = damaged_layers(seed)
    solver = Knapsack(problem)
    dearest = sum(item.costs.max() for item in problem)
    for share in (0.1, 0.17, 0.23):
        limit = math.floor(share * dearest)
        cost, damage = total(problem, solver.best(limit))
        assert cost <= limit
        assert damage <= highs(problem, limit) * (1 + 1e-9)
    capfd.readouterr()  # HiGHS writes what it likes


def highs(problem: list[Item], limit: float) -> float:
    costs, damages = (np.concatenate([getattr(item, of) for item in problem]) for of in ("costs", "damages"))
    owners = np.repeat(np.arange(len(problem)), [len(item.costs) for item in problem])
    one_each = csr_array((np.ones(len(costs)), (owners, np.arange(len(costs)))))
    scale = damages.max()
    answer = milp(
        damages / scale,
        constraints=[LinearConstraint(one_each, 1, 1), LinearConstraint(costs[np.newaxis] / limit, -np.inf, 1)],
        integrality=1,
        bounds=Bounds(0, 1),
        options={"mip_rel_gap": 1e-7, "time_limit": 20},
    )
    return math.inf if answer.x is None else float(answer.fun * scale)
