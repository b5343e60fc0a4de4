"""Range estimators in words."""

from __future__ import annotations

from typing import assert_never

from quantgui.gui.texts import translate
from quantgui.spec.quantizer import (
    Entropy,
    FixedRange,
    HalfQuadratic,
    InputWeightedError,
    LeastSquaredError,
    MinMax,
    MovingAverage,
    Percentile,
    RangeEstimator,
    SampleMean,
    Trained,
    TwoSidedPercentile,
)


def estimator_name(estimator: RangeEstimator) -> str:
    """Return the name of a range estimator, with its parameters."""
    match estimator:
        case MinMax():
            return translate("estimators", "Min–max")
        case Percentile(percentile):
            return translate("estimators", "Percentile {share} %").format(share=f"{percentile:g}")
        case TwoSidedPercentile(lower, upper):
            words = translate("estimators", "Percentiles {lower} and {upper} %")
            return words.format(lower=f"{lower:g}", upper=f"{upper:g}")
        case LeastSquaredError():
            return translate("estimators", "Least squared error")
        case InputWeightedError():
            return translate("estimators", "Input-weighted error")
        case Entropy():
            return translate("estimators", "Entropy")
        case MovingAverage(momentum):
            return translate("estimators", "Moving average {momentum}").format(momentum=f"{momentum:g}")
        case SampleMean():
            return translate("estimators", "Mean of samples")
        case HalfQuadratic():
            return translate("estimators", "Half-quadratic")
        case FixedRange():
            return translate("estimators", "Fixed")
        case Trained():
            return translate("estimators", "Trained")
    assert_never(estimator)


def estimator_label(estimator: RangeEstimator) -> str:
    """Return a word of a few letters, for a mark in a plot."""
    match estimator:
        case MinMax():
            return translate("estimators", "max")
        case Percentile(percentile):
            return f"{percentile:g} %"
        case TwoSidedPercentile():
            return translate("estimators", "2-sided")
        case LeastSquaredError():
            return translate("estimators", "MSE")
        case InputWeightedError():
            return translate("estimators", "input")
        case Entropy():
            return translate("estimators", "KL")
        case MovingAverage():
            return translate("estimators", "moving")
        case SampleMean():
            return translate("estimators", "mean")
        case HalfQuadratic():
            return translate("estimators", "HQQ")
        case _:
            return estimator_name(estimator)
