"""What the trade-off shows: configurations tried, the frontier, limits, and what has come of a search."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from quantgui.gui.mix_words import CostScale, answer, mix_sentence
from quantgui.gui.texts import translate
from quantgui.gui.widgets.labels import Tone
from quantgui.results import Array, MixPoint, MixReady, Score
from quantgui.session.jobs import Job, JobState


@dataclass(frozen=True, slots=True)
class TriedPoint:
    """A configuration that has been evaluated: what it costs in the unit of the axis' kind, and its metric."""

    label: str
    cost: float
    score: Score


@dataclass(frozen=True, slots=True)
class Limit:
    """What a mix must keep: at most `value` of its cost, or a metric of at least (else at most) `value`."""

    side: Literal["cost", "quality"]
    value: float


@dataclass(frozen=True, slots=True, eq=False)
class TradeOff:
    """What the plot shows.

    Attributes:
        points: the configurations tried.
        metric: id or name of what the values are.
        higher_is_better: its direction.
        scale: how costs are written.
        mix: the newest search for a mix.
    """

    points: tuple[TriedPoint, ...] = ()
    metric: str = ""
    higher_is_better: bool = True
    scale: CostScale = field(default_factory=lambda: CostScale("bytes", 0.0, 0.0))
    mix: MixReady | None = None


@dataclass(frozen=True, slots=True)
class Present:
    """Where a configuration is: its place among the tried ones, on the frontier, and its cost.

    `value` is what a search has found out of it, where it is at neither place.
    """

    tried: int | None = None
    frontier: int | None = None
    cost: float = math.nan
    value: float = math.nan
    is_measured: bool = False


def best_for_size(sizes: Array, values: Array) -> Array:
    """Return the indices of the points that no smaller or equally small one beats, smallest first."""
    order = np.lexsort((-values, sizes))
    best, front = -math.inf, []
    for index in order:
        if values[index] > best:
            best = float(values[index])
            front.append(int(index))
    return np.array(front, np.intp)


def place_for(ready: MixReady | None, limit: Limit) -> int | None:
    """Return the place of the best point that keeps `limit`, None if none does; points rise in cost and quality."""
    points = () if ready is None else ready.points
    if limit.side == "cost":
        return max((place for place, point in enumerate(points) if point.cost <= limit.value), default=None)
    better = ready is None or ready.higher_is_better
    keeps = (
        place
        for place, point in enumerate(points)
        if (point_value(point) >= limit.value if better else point_value(point) <= limit.value)
    )
    return next(keeps, None)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What is said of a search, and whether there is an answer to be taken over."""

    sentence: str
    tone: Tone
    is_usable: bool = False


def outcome(ready: MixReady | None, job: Job | None, scale: CostScale) -> Outcome:
    """Return what is to be said of a search; nothing while it runs, as its progress is seen then."""
    if job is not None and job.is_active:
        return Outcome("", "muted")
    if job is not None and job.state is JobState.FAILED:
        return Outcome(job.sentence, "bad")
    if job is not None and job.state is JobState.CANCELLED and (ready is None or not ready.complete):
        return Outcome(translate("TradeOffPanel", "Stopped; what has been measured is kept."), "muted")
    if ready is None:
        return Outcome("", "muted")
    usable = answer(ready) is not None
    limited = ready.mix.limit is not None or ready.mix.drop is not None
    return Outcome(mix_sentence(ready, scale), "text" if usable else "warning" if limited else "muted", usable)


def point_value(point: MixPoint) -> float:
    """Return what is known best of a point."""
    return point.predicted if point.measured is None else point.measured.value
