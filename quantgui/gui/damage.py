"""How much a value of a metric hurts, on one scale for a whole sweep: what colours and bars are drawn by."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from quantgui.gui import numbers
from quantgui.gui.quality import value_text
from quantgui.spec.sweep import SHARES

DECIBELS = ("output_sqnr_db", "weight_sqnr_db")
LOGARITHMIC = ("kl", "cosine")
SOFT = ("output_sqnr_db", "kl", "cosine")
"""Metrics in which every small error shows, so that what adds up can be seen."""
_MOST_DECIBELS = 70.0
_MOST_DECADES = 6.0
"""A layer that hurts less than the worst one by so much does not hurt."""
_STEPS = (1.0, 2.0, 5.0, 10.0)


def damage(value: float, metric: str, *, higher_is_better: bool) -> float:
    """Return a number that grows with the damage, evenly to the eye: decibels, decades, or the metric's own unit.

    NaN where nothing is known, -inf where nothing is lost.

    >>> damage(20.0, "output_sqnr_db", higher_is_better=True), damage(0.01, "kl", higher_is_better=False)
    (-20.0, -2.0)
    """
    match metric:
        case "kl":
            return _decades(value)
        case "cosine":
            return _decades(1.0 - value)
        case _:
            return -value if higher_is_better else value


def _decades(value: float) -> float:
    return math.nan if math.isnan(value) else math.log10(value) if value > 0 else -math.inf


@dataclass(frozen=True, slots=True)
class DamageScale:
    """The scale from the least to the most damage.

    Attributes:
        metric, higher_is_better: what is measured, and its direction.
        low, high: damage at the ends, round numbers.
    """

    metric: str
    higher_is_better: bool
    low: float
    high: float

    def damage(self, value: float) -> float:
        """Return the damage of a value."""
        return damage(value, self.metric, higher_is_better=self.higher_is_better)

    def share(self, value: float) -> float:
        """Return where a value lies: 0 hurts least, 1 hurts most; NaN where it is not known."""
        hurt = self.damage(value)
        if math.isnan(hurt):
            return math.nan
        return min(max((hurt - self.low) / (self.high - self.low), 0.0), 1.0)

    def texts(self) -> tuple[str, str]:
        """Return the values at both ends, the harmless one first."""
        return value_text(self._value(self.low), self.metric), value_text(self._value(self.high), self.metric)

    def _value(self, hurt: float) -> float:
        match self.metric:
            case "kl":
                return float(10**hurt)
            case "cosine":
                return 1.0 - float(10**hurt)
            case _:
                # Not -0.
                return (-hurt if self.higher_is_better else hurt) + 0.0


def damage_scale(values: Iterable[float], metric: str, *, higher_is_better: bool) -> DamageScale | None:
    """Return the scale that `values` need, with round ends, so that it seldom changes while values come in."""
    all_hurts = [damage(value, metric, higher_is_better=higher_is_better) for value in values]
    hurts = [each for each in all_hurts if math.isfinite(each)]
    if not hurts:
        return None
    high, low = max(hurts), min(hurts)
    if metric in DECIBELS:
        low, step = max(low, high - _MOST_DECIBELS), 5.0
    elif metric in LOGARITHMIC:
        low, step = max(low, high - _MOST_DECADES), 1.0
    else:
        step = _step((high - low) / 4 or abs(high) / 4 or 1.0)
    low, high = math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step
    return DamageScale(metric, higher_is_better, low, high if high > low else low + step)


def _step(rough: float) -> float:
    """Return 1, 2 or 5 times a power of ten, not less than `rough`."""
    power = 10.0 ** math.floor(math.log10(rough))
    return next((each * power for each in _STEPS if each * power >= rough * (1 - 1e-9)), 10 * power)


def cell_text(value: float, metric: str) -> str:
    """Return a value in few letters; the unit stands beside the scale.

    >>> cell_text(23.44, "output_sqnr_db"), cell_text(0.9712, "accuracy"), cell_text(0.00123, "kl")
    ('23.4', '97.1', '0.0012')
    """
    if not math.isfinite(value):
        return numbers.short(value)
    if metric in DECIBELS:
        return f"{value:.1f}".replace("-", numbers.MINUS)
    if metric in SHARES:
        return f"{100 * value:.1f}"
    if metric == "cosine":
        return f"{value:.4f}".replace("-", numbers.MINUS)
    return numbers.short(value, 2 if metric == "kl" else 3)
