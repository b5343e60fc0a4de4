"""The multiple-choice knapsack: one choice for each item, least damage in all, no more cost than allowed.

Exact, in float64, by dynamic programming over the items with bounds. A state is what the items so far have cost and
damaged. It is dropped where another one is better in both, and where not even the best fractional choice for the items
to come (the lower convex hull, a table for each position) brings it below the best selection found so far; and each
state is one, with the hull's corner below what is left to spend. Items of large cost come first, as small ones to come
leave little between bound and corner. For measured damages a few dozen states are alive at a time; where damages are
proportional to costs, as none are, they would be as many as there are sums.

scipy's HiGHS, the other way to solve this exactly, took 20 times as long on the part of the problem that a Lagrangian
bound left open (200 items, 8 choices), and writes to standard output as it likes; the tests hold this one to it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from quantgui.results import Array

Selection = tuple[int, ...]
"""The choice taken for each item."""
_ROUNDING = 1e-12
"""Part of the damage that float64 may lose on the way: what promises to gain less is not looked at."""


@dataclass(frozen=True, eq=False)
class Item:
    """What can be chosen for one item: cost and damage of each choice, (J,) float64 each.

    A choice of infinite damage is never taken; one of finite damage there must be.
    """

    costs: Array
    damages: Array


@dataclass(frozen=True, eq=False)
class _Stage:
    """What is chosen at one position.

    Attributes:
        item: index of the item.
        choices: those of its choices that no other one beats in both, rising in cost.
        costs, damages: of these; damages from the least one on.
    """

    item: int
    choices: Array
    costs: Array
    damages: Array


@dataclass(frozen=True, eq=False)
class _Path:
    """The best selection so far: a state at a position, and the corner of the hull that completes it."""

    position: int
    state: int
    corner: int


class Knapsack:
    """A problem that is solved for many limits."""

    def __init__(self, items: Sequence[Item]) -> None:
        self._items = items
        stages = [_stage(index, item) for index, item in enumerate(items)]
        self._stages = sorted(stages, key=lambda stage: stage.costs[0] - stage.costs[-1])
        self._hulls = [_hull(stage) for stage in self._stages]
        steps = [
            ((stage.damages[a] - stage.damages[b]) / (stage.costs[b] - stage.costs[a]), position, a, b)
            for position, (stage, hull) in enumerate(zip(self._stages, self._hulls, strict=True))
            for a, b in itertools.pairwise(hull)
        ]
        # Sorting is stable, and the steps of one hull get less and less steep.
        self._steps = sorted(steps, key=lambda step: -step[0])
        self._corners = self._find_corners()

    def _find_corners(self) -> list[tuple[Array, Array]]:
        """Return cost and damage of the hull's corners for the stages from each position on, rising in cost."""
        positions = np.array([position for _, position, _, _ in self._steps], np.int64)
        costs = np.array([self._stages[p].costs[b] - self._stages[p].costs[a] for _, p, a, b in self._steps])
        damages = np.array([self._stages[p].damages[b] - self._stages[p].damages[a] for _, p, a, b in self._steps])
        found = []
        for first in range(len(self._stages) + 1):
            later = positions >= first
            cost = sum(float(stage.costs[0]) for stage in self._stages[first:])
            damage = sum(float(stage.damages[0]) for stage in self._stages[first:])
            found.append(
                (
                    cost + np.concatenate([[0.0], np.cumsum(costs[later])]),
                    damage + np.concatenate([[0.0], np.cumsum(damages[later])]),
                )
            )
        return found

    @property
    def least_cost(self) -> float:
        """Cost of the cheapest selection."""
        return float(self._corners[0][0][0])

    def supported(self) -> list[Selection]:
        """Return the corners of the lower convex hull of all selections in (cost, damage), from the cheapest on.

        Each has the least ``damage + price * cost`` for some price, so no other selection beats it.
        """
        return [self._completed([], corner) for corner in range(len(self._steps) + 1)]

    def best(self, limit: float) -> Selection | None:
        """Return the selection of least damage whose cost is at most `limit`; None if all cost more."""
        costs, damages = np.zeros(1), np.zeros(1)
        parents: list[tuple[Array, Array]] = []
        least, path = np.inf, None
        for position in range(len(self._stages) + 1):
            # Each state with the corner that fits is a selection.
            corner_costs, corner_damages = self._corners[position]
            left = limit - costs
            corners = np.searchsorted(corner_costs, left, side="right") - 1
            fitting = np.flatnonzero(corners >= 0)
            if not fitting.size:
                break
            ends = damages[fitting] + corner_damages[corners[fitting]]
            nearest = int(np.argmin(ends))
            if ends[nearest] < least:
                state = int(fitting[nearest])
                least, path = float(ends[nearest]), _Path(position, state, int(corners[state]))
            bounds = damages[fitting] + np.interp(left[fitting], corner_costs, corner_damages)
            alive = fitting[bounds < least * (1 - _ROUNDING)]
            if position == len(self._stages) or not alive.size:
                break
            costs, damages, parent, choice = _expanded(costs, damages, alive, self._stages[position])
            parents.append((parent, choice))
        return None if path is None else self._selection(path, parents)

    def _selection(self, path: _Path, parents: Sequence[tuple[Array, Array]]) -> Selection:
        chosen = []
        state = path.state
        for parent, choice in reversed(parents[: path.position]):
            chosen.append(int(choice[state]))
            state = int(parent[state])
        return self._completed(chosen[::-1], path.corner)

    def _completed(self, chosen: Sequence[int], corner: int) -> Selection:
        """Return the choices at the first positions with those of the hull's corner behind them, by item."""
        first = len(chosen)
        at = [*chosen, *(0 for _ in self._stages[first:])]
        for _, position, _, choice in [step for step in self._steps if step[1] >= first][:corner]:
            at[position] = choice
        selection = [0] * len(self._items)
        for stage, choice in zip(self._stages, at, strict=True):
            selection[stage.item] = int(stage.choices[choice])
        return tuple(selection)


def frontier(items: Sequence[Item], limits: Iterable[float]) -> list[Selection]:
    """Return selections of which none beats another in both, rising in cost: all supported ones, the best at `limits`.

    Limits below the cheapest selection are left out.
    """
    problem = Knapsack(items)
    found = problem.supported()
    found += [selection for limit in limits if (selection := problem.best(limit)) is not None]
    ordered = sorted((*total(items, selection), selection) for selection in set(found))
    kept: list[Selection] = []
    least = np.inf
    for _, damage, selection in ordered:
        if damage < least:
            least = damage
            kept.append(selection)
    return kept


def total(items: Sequence[Item], selection: Selection) -> tuple[float, float]:
    """Return cost and damage of a selection."""
    chosen = list(zip(items, selection, strict=True))
    return sum(float(item.costs[j]) for item, j in chosen), sum(float(item.damages[j]) for item, j in chosen)


def undominated(item: Item) -> list[int]:
    """Return the choices that no other one beats in both, rising in cost; the first of equal ones."""
    kept: list[int] = []
    least = np.inf
    for choice in np.lexsort((item.damages, item.costs)):
        if item.damages[choice] < least:
            least = item.damages[choice]
            kept.append(int(choice))
    return kept


def _stage(index: int, item: Item) -> _Stage:
    choices = np.array(undominated(item))
    # From the least damage on, so that none is negative and rounding can be told as a part of it.
    return _Stage(index, choices, item.costs[choices], item.damages[choices] - item.damages[choices].min())


def _hull(stage: _Stage) -> list[int]:
    """Return the lower convex hull of a stage's choices, rising in cost."""
    cost, damage = stage.costs, stage.damages
    hull: list[int] = []
    for c in range(len(cost)):
        while len(hull) > 1:
            a, b = hull[-2:]
            # b lies on or above the line from a to c.
            if (damage[a] - damage[b]) * (cost[c] - cost[a]) > (damage[a] - damage[c]) * (cost[b] - cost[a]):
                break
            hull.pop()
        hull.append(c)
    return hull


def _expanded(costs: Array, damages: Array, alive: Array, stage: _Stage) -> tuple[Array, Array, Array, Array]:
    """Return the states behind a stage, those that others beat left out, with the state and choice each comes from."""
    many = len(stage.costs)
    new_costs = (costs[alive, np.newaxis] + stage.costs).ravel()
    new_damages = (damages[alive, np.newaxis] + stage.damages).ravel()
    order = np.lexsort((new_damages, new_costs))
    ordered = new_damages[order]
    better = np.ones(len(order), np.bool_)
    better[1:] = ordered[1:] < np.minimum.accumulate(ordered)[:-1]
    kept = order[better]
    return new_costs[kept], new_damages[kept], alive[kept // many], kept % many
