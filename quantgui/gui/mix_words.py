"""Costs of configurations in numbers and words, and what a search for a mix has found in a sentence."""

from __future__ import annotations

import math
from dataclasses import dataclass

from quantgui.gui.numbers import MINUS, amount, data_size
from quantgui.gui.quality import metric_name, score_text, value_text
from quantgui.gui.texts import translate
from quantgui.results import MixPoint, MixReady
from quantgui.spec.config import QuantConfig
from quantgui.spec.mix import CostKind
from quantgui.spec.sweep import SHARES

_MEGA, _KILO, _GIGA = 1e6, 1e3, 1e9
_MANY_KILOS = 2_000
"""Thousands from which the next larger unit is easier to read."""


def configuration_name(config: QuantConfig) -> str:
    """Return what a configuration is called: its own name, or one that says what it is."""
    if config.name:
        return config.name
    return translate("mix_words", "float32") if config == QuantConfig() else translate("mix_words", "mixed")


@dataclass(frozen=True, slots=True)
class CostScale:
    """How costs of one kind are written: `float_cost` is that of the float network, `largest` the largest in sight."""

    kind: CostKind
    float_cost: float
    largest: float

    @property
    def unit(self) -> float:
        """What a cost is divided by for the axis."""
        if self.kind == "latency":
            return 1.0
        if self.kind == "bops":
            return _GIGA if self.largest >= _MEGA * _MANY_KILOS else _MEGA
        return _MEGA if self.largest >= _KILO * _MANY_KILOS else _KILO

    def axis(self) -> str:
        """Return the label of the axis."""
        return {
            "latency": translate("mix_words", "time"),
            "bops": translate("mix_words", "bit operations"),
            "bytes": translate("mix_words", "size of the network"),
        }[self.kind]

    def axis_unit(self) -> str:
        """Return what stands behind the numbers of the axis."""
        match self.kind:
            case "latency":
                return "×"
            case "bops":
                return " G" if self.unit == _GIGA else " M"
            case "bytes":
                return " MB" if self.unit == _MEGA else " KB"

    def share(self, cost: float) -> float:
        """Return a cost as a part of the float network's."""
        return cost / self.float_cost if self.float_cost else math.nan

    def text(self, cost: float) -> str:
        """Return a cost with its unit.

        >>> CostScale("bytes", 8e6, 8e6).text(2e6), CostScale("latency", 1.0, 1.0).text(0.8)
        ('2.0 MB', '0.80×')
        """
        match self.kind:
            case "latency":
                return f"{cost:.2f}×"
            case "bops":
                return translate("mix_words", "{n} bit operations").format(n=amount(round(cost)))
            case "bytes":
                return data_size(cost)

    def text_with_share(self, cost: float) -> str:
        """Return a cost with its unit and as a part of the float network's.

        >>> CostScale("bytes", 8e6, 8e6).text_with_share(2e6)
        '2.0 MB (0.25×)'
        """
        share = self.share(cost)
        return self.text(cost) if self.kind == "latency" or math.isnan(share) else f"{self.text(cost)} ({share:.2f}×)"


def point_words(point: MixPoint, metric: str) -> str:
    """Return what is predicted and measured of a point of the frontier."""
    predicted = translate("mix_words", "predicted {value}").format(value=value_text(point.predicted, metric))
    if point.measured is None:
        return predicted
    return translate("mix_words", "{predicted}, measured {value}").format(
        predicted=predicted, value=score_text(point.measured, metric)
    )


def difference_text(value: float, metric: str) -> str:
    """Return a difference of two values of a metric with its unit.

    >>> difference_text(0.012, "accuracy"), difference_text(-0.5, "output_sqnr_db")
    ('1.2 points', '−0.5 dB')
    """
    if metric in SHARES:
        return translate("mix_words", "{n} points").format(n=f"{100 * value:.1f}".replace("-", MINUS))
    return value_text(value, metric)


def answer(ready: MixReady) -> MixPoint | None:
    """Return the configuration that answers the limit: the refined one where there is one."""
    if ready.refined is not None:
        return ready.refined
    return None if ready.chosen is None else ready.points[ready.chosen]


def mix_sentence(ready: MixReady, scale: CostScale) -> str:
    """Return what a search has found, or is about to, in a sentence."""
    metric = ready.metric
    point = answer(ready)
    if point is None:
        return _no_answer(ready, scale)
    share = scale.share(point.cost)
    place = scale.text(point.cost) if math.isnan(share) else f"{share:.2f}×"
    parts = [
        translate("mix_words", "{point} at {place}").format(point=_capital(point_words(point, metric)), place=place)
    ]
    if math.isfinite(ready.additivity_error):
        error = difference_text(ready.additivity_error, metric)
        parts.append(translate("mix_words", "additivity error {error}").format(error=error))
    if ready.refined is not None:
        parts.append(_refinement(ready))
    if ready.margin is not None and ready.limited_metric:
        margin = difference_text(ready.margin.value, ready.limited_metric)
        name = metric_name(ready.limited_metric)
        parts.append(
            translate("mix_words", "{metric} is {margin} better than the limit").format(metric=name, margin=margin)
        )
    return "; ".join(parts)


def _refinement(ready: MixReady) -> str:
    if not ready.changes:
        return translate("mix_words", "refinement found nothing better")
    number = len(ready.changes)
    layers = translate("mix_words", "1 layer") if number == 1 else translate("mix_words", "{n} layers").format(n=number)
    if ready.gained < 0:
        lost = difference_text(-ready.gained, ready.metric)
        return translate("mix_words", "refinement changed {layers}, smaller for {lost}").format(
            layers=layers, lost=lost
        )
    gained = difference_text(ready.gained, ready.metric)
    return translate("mix_words", "refinement changed {layers} and gained {gained}").format(
        layers=layers, gained=gained
    )


def _no_answer(ready: MixReady, scale: CostScale) -> str:
    if not ready.points:
        return translate("mix_words", "No layer can be changed under these settings.")
    first, last = ready.points[0], ready.points[-1]
    if ready.mix.limit is not None:
        return translate("mix_words", "No mix keeps the limit of {limit}: the cheapest takes {least}.").format(
            limit=scale.text_with_share(ready.mix.limit), least=scale.text_with_share(first.cost)
        )
    if ready.mix.drop is not None:
        return translate(
            "mix_words", "No mix of these formats keeps the quality asked for; allow more bits or a larger loss."
        )
    return translate("mix_words", "{n} mixes from {first} to {last}. Drag along the line to choose one.").format(
        n=len(ready.points), first=scale.text_with_share(first.cost), last=scale.text_with_share(last.cost)
    )


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
