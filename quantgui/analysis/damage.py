"""The additive model: what single layers cost in quality, so that it can be summed over a whole configuration.

Damages of single layers, each measured alone with the rest float, are taken to add up. For output SQNR what adds up is
the noise, in parts of the signal (10 ** (-dB / 10)): errors of different layers hardly correlate. For all other metrics
it is how much worse they are than the float network's. A layer that seems to make the metric better (noise of the
measurement) has damage 0. What a sum promises is only as good as this model; the mix says how far it was off.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

SQNR_METRIC = "output_sqnr_db"


@dataclass(frozen=True, slots=True)
class DamageModel:
    """How values of a metric become damages, and back.

    Attributes:
        metric: one of `spec.sweep.METRICS`, or ``user``.
        higher_is_better: its direction.
        reference: its value for the float network; not used for output SQNR.
    """

    metric: str
    higher_is_better: bool
    reference: float

    def damage(self, value: float) -> float:
        """Return what `value` adds, at least 0; infinite where it is no number, or endless in the bad direction."""
        if math.isnan(value):
            return math.inf
        if self.metric == SQNR_METRIC:
            return math.inf if value == -math.inf else 10.0 ** (-value / 10)
        return max(0.0, self._sign * (self.reference - value))

    def value(self, damage: float) -> float:
        """Return the metric of a network with this damage in all."""
        if self.metric == SQNR_METRIC:
            return -10 * math.log10(damage) if damage > 0 else math.inf
        return self.reference - self._sign * damage

    @property
    def _sign(self) -> int:
        return 1 if self.higher_is_better else -1
