"""The multiple-choice knapsack: one choice for each item, least damage in all, no more cost than allowed."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from quantgui.results import Array

Selection = tuple[int, ...]
"""The choice taken for each item."""


@dataclass(frozen=True, eq=False)
class Item:
    """What can be chosen for one item: cost and damage of each choice, (J,) float64 each.

    A choice of infinite damage is never taken.
    """

    costs: Array
    damages: Array


def total(items: Sequence[Item], selection: Selection) -> tuple[float, float]:
    """Return cost and damage of a selection."""
    chosen = list(zip(items, selection, strict=True))
    return sum(float(item.costs[j]) for item, j in chosen), sum(float(item.damages[j]) for item, j in chosen)


def supported(items: Sequence[Item]) -> list[Selection]:
    """Return the lower convex hull of all selections in (cost, damage), from the cheapest to the best.

    Each of them has the least ``damage + price * cost`` for some price, so no other selection beats it.
    """
    hulls = [_hull(item) for item in items]
    steps = [
        ((item.damages[a] - item.damages[b]) / (item.costs[b] - item.costs[a]), -position, index, b)
        for index, (item, hull) in enumerate(zip(items, hulls, strict=True))
        for position, (a, b) in enumerate(itertools.pairwise(hull))
    ]
    selection = [hull[0] for hull in hulls]
    found = [tuple(selection)]
    for _, _, index, choice in sorted(steps, reverse=True):
        selection[index] = choice
        found.append(tuple(selection))
    return found


def undominated(item: Item) -> list[int]:
    """Return the choices that no other one beats in both, rising in cost; the first of equal ones."""
    order = np.lexsort((item.damages, item.costs))
    kept: list[int] = []
    least = np.inf
    for choice in order:
        if item.damages[choice] < least:
            least = item.damages[choice]
            kept.append(int(choice))
    return kept


def _hull(item: Item) -> list[int]:
    """Return the lower convex hull of the choices, rising in cost."""
    hull: list[int] = []
    for choice in undominated(item):
        while len(hull) > 1 and _is_above(item, hull[-2], hull[-1], choice):
            hull.pop()
        hull.append(choice)
    return hull


def _is_above(item: Item, a: int, b: int, c: int) -> bool:
    """Return whether choice b lies on or above the line from a to c."""
    cost, damage = item.costs, item.damages
    return bool((damage[a] - damage[b]) * (cost[c] - cost[a]) <= (damage[a] - damage[c]) * (cost[b] - cost[a]))
