"""Means over samples and what they stand on: one row of numbers per sample, so that samples can be added later.

Output SQNR is no mean of samples (a mean of dB hides the bad ones), so its standard error follows from the influence
of each sample: n times the change of the value that the sample stands for. A mean has influences too, and two networks
that ran on the same samples are compared by the differences of theirs, which is far more certain than two standard
errors side by side.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from quantgui.results import Array, Score

EXACT_DB = 150.0
"""Where float32 itself ends (24 bits): more cannot be lost or kept."""


@dataclass(frozen=True, eq=False)
class Estimate:
    """A metric over some samples, with the influence of each row on it, shape (rows,)."""

    value: float
    influences: Array
    samples: int

    @property
    def score(self) -> Score:
        """The value with its standard error."""
        return Score(self.value, standard_error(self.influences), self.samples)


@dataclass(frozen=True, eq=False)
class SampleRows:
    """What one metric of a network was on some samples.

    Attributes:
        samples: number of samples.
        energy: for output SQNR: signal and noise energy of each row, by output.
        values, weights: for all other metrics: score of each row, and the number of samples it stands for.
    """

    samples: int
    energy: Mapping[str, tuple[Array, Array]] = field(default_factory=dict)
    values: Array = field(default_factory=lambda: np.empty(0))
    weights: Array = field(default_factory=lambda: np.empty(0))

    def estimate(self) -> Estimate:
        """Return the metric over these samples."""
        if self.energy:
            return sqnr(self.energy, self.samples)
        return weighted_mean(self.values, self.weights, self.samples)


def joined(parts: Sequence[SampleRows]) -> SampleRows:
    """Return the rows of several batches as one."""
    return SampleRows(
        sum(part.samples for part in parts),
        {
            name: (
                np.concatenate([part.energy[name][0] for part in parts]),
                np.concatenate([part.energy[name][1] for part in parts]),
            )
            for name in (parts[0].energy if parts else ())
        },
        np.concatenate([part.values for part in parts]) if parts else np.empty(0),
        np.concatenate([part.weights for part in parts]) if parts else np.empty(0),
    )


def difference_error(a: Estimate, b: Estimate) -> float:
    """Return the standard error of the difference of two values, from the first samples, which both ran on."""
    common = min(len(a.influences), len(b.influences))
    difference = a.influences[:common] - b.influences[:common]
    return standard_error(difference - difference.mean()) if common > 1 else math.nan


def weighted_mean(values: Array, weights: Array, samples: int) -> Estimate:
    """Return the mean of one value per row; NaN without rows."""
    total = weights.sum()
    if total == 0:
        return Estimate(math.nan, np.empty(0), samples)
    mean = float((values * weights).sum() / total)
    if not math.isfinite(mean):
        return Estimate(mean, np.full(len(values), math.nan), samples)
    return Estimate(mean, len(values) * weights * (values - mean) / total, samples)


def sqnr(energy: Mapping[str, tuple[Array, Array]], samples: int) -> Estimate:
    """Return 10 log10(signal / noise) of all samples, dB; of several outputs the mean of their noise / signal counts.

    So a bad output is seen beside exact ones, and a change that reaches one output only is as bad as it is there, to
    the number of outputs. Outputs that are always 0 are left out.

    Args:
        energy: signal and noise energy of each row, by output.
        samples: number of samples.
    """
    ratios, influences = [], []
    silent = True
    rows = 0
    for signal, noise in energy.values():
        rows = len(signal)
        total = float(signal.sum())
        if total == 0:
            silent = noise.sum() == 0 and silent
            continue
        ratio = float(noise.sum()) / total
        ratios.append(ratio)
        influences.append(rows * (noise - ratio * signal) / total)
    if not ratios:
        # The float network gives nothing but zeros: no noise is perfect, any is hopeless.
        return Estimate(math.inf if silent else -EXACT_DB, np.full(rows, 0.0 if silent else math.nan), samples)
    mean = float(np.mean(ratios))
    if mean == 0:
        return Estimate(math.inf, np.zeros(len(influences[0])), samples)
    if len({len(influence) for influence in influences}) > 1:
        # One output has a row per sample, another one per batch: their errors cannot be paired, so take the worst.
        together = max(influences, key=lambda influence: np.nan_to_num(standard_error(influence), nan=math.inf))
        together = together / len(influences)
    else:
        together = np.mean(influences, axis=0)
    return Estimate(-10 * math.log10(mean), -10 / math.log(10) * together / mean, samples)


def standard_error(influences: Array) -> float:
    """Return the standard error that influences mean; NaN for fewer than two rows."""
    rows = len(influences)
    if rows < 2:
        return math.nan
    return float(np.sqrt((influences**2).sum() / (rows * (rows - 1))))
