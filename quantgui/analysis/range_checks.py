"""What calibration says about the data: how ranges converge, which samples set them, what is clipped, dead or lopsided.

Everything comes from the statistics that calibration has kept; no network is run.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from quantgui.numerics.affine import activation_qparams
from quantgui.numerics.levels import covered_range
from quantgui.numerics.statistics import estimate_error_with, quantile
from quantgui.results import ActivationReady, Array, Finding, RangeGrowth
from quantgui.spec.quantizer import QuantizerSpec

ENOUGH = 0.99
"""Share of the final range that counts as all of it."""
_LATE = 0.05
"""A range that the last quarter of the samples has widened by more than this share still grows."""
_FEWEST = 8
"""Samples from which growth and outliers among them are judged."""
_CLIPPED = 0.001
_OUTLIER = 8.0
_TYPICAL = 0.9999
_MANY = 0.25
_TAIL = 0.15
_NAMED = 3
_UNREACHED = (
    "The data may not reach this part of the network: check the preparation of the inputs, or add other samples."
)
_FAULTS = {
    "not finite": (
        "error",
        "{n} holds values that are not finite (NaN or infinite)",
        "Look at the samples that cause it; quantized values have no room for them.",
    ),
    "dead": ("warning", "{n} is 0 for every sample", _UNREACHED),
    "constant": ("warning", "{n} has the same value everywhere in every sample", _UNREACHED),
    "clipped": (
        "warning",
        "{n} is clipped: {value:.1%} of the values lie outside its range under the present configuration",
        "Choose a wider range (min-max, or a higher percentile) for these activations.",
    ),
    "outliers": (
        "hint",
        "{n} reaches {value:.0f} times as far as 99.99 % of its values, so that most of the range stays empty",
        "Choose a percentile or the least squared error for the range, or more bits for these activations.",
    ),
    "lopsided": (
        "hint",
        "{n} is almost one-sided, but its range is symmetric: {value:.0%} of the negative or positive half stays empty",
        "Choose an asymmetric range for these activations: it gives nearly one bit more.",
    ),
}
"""What can be wrong with a single tensor, in the order in which it is told: severity, sentence, advice."""


def range_growths(
    activations: Mapping[str, ActivationReady], layers: Mapping[str, Sequence[str]]
) -> dict[str, RangeGrowth]:
    """Return how the range of each tensor grows; `layers` are those that read or make a tensor.

    Ranges always contain 0. Tensors without a sample are left out.
    """
    found = {}
    for name, ready in activations.items():
        low, high = (np.asarray(each, np.float64) for each in (ready.sample_minima, ready.sample_maxima))
        if not len(low) or len(low) != len(high) or not np.isfinite([low, high]).all():
            continue
        bottom, top = np.minimum.accumulate(np.minimum(low, 0)), np.maximum.accumulate(np.maximum(high, 0))
        widths = top - bottom
        shares = widths / widths[-1] if widths[-1] > 0 else np.ones(len(widths))
        found[name] = RangeGrowth(
            tensor=name,
            layers=tuple(layers.get(name, ())),
            shares=shares.astype(np.float32),
            enough=int(np.argmax(shares >= ENOUGH)) + 1,
            late=float(1 - shares[max(len(shares) * 3 // 4 - 1, 0)]),
            highest=int(high.argmax()),
            lowest=int(low.argmin()),
            minimum=float(low.min()),
            maximum=float(high.max()),
        )
    return found


def fewest_setters(growths: Mapping[str, RangeGrowth]) -> tuple[int, ...]:
    """Return the samples that together give the range of every tensor."""
    return tuple(sorted({s for each in growths.values() for s in _setters(each)}))


def _setters(growth: RangeGrowth) -> set[int]:
    """Return the samples that set the range of a tensor; an end at 0 is set by none."""
    found = {growth.highest} if growth.maximum > 0 else set()
    return found | ({growth.lowest} if growth.minimum < 0 else set())


def check_convergence(growths: Mapping[str, RangeGrowth]) -> Iterator[Finding]:
    """Yield a finding where ranges still grow with the number of samples."""
    samples = max((len(each.shares) for each in growths.values()), default=0)
    growing = sorted((g for g in growths.values() if g.late > _LATE), key=lambda g: -g.late)
    if not growing or samples < _FEWEST:
        if growths and samples < _FEWEST:
            yield Finding(
                "convergence",
                "warning",
                f"Ranges come from {samples} {'sample' if samples == 1 else 'samples'} only, too few to tell whether "
                "they are complete.",
                "Open more data for calibration: a few hundred samples are usual.",
            )
        return
    worst = growing[0]
    yield Finding(
        "convergence",
        "warning" if len(growing) > len(growths) * _MANY else "hint",
        f"The ranges of {len(growing)} of {len(growths)} activations still grow: the last quarter of {samples} samples "
        f"widens that of {_named(worst)} by {worst.late:.0%}.",
        "Open more data for calibration, or choose a percentile for the range, which depends less on single samples.",
        _layers(growing),
        worst.tensor,
        (worst.highest,),
        {"growing": len(growing), "tensors": len(growths), "late": worst.late},
    )


def check_setters(growths: Mapping[str, RangeGrowth], activations: Mapping[str, ActivationReady]) -> Iterator[Finding]:
    """Yield a finding for each sample that sets the range of many tensors, far beyond all others."""
    samples = max((len(each.shares) for each in growths.values()), default=0)
    if samples < _FEWEST:
        return
    for sample, count in Counter(s for each in growths.values() for s in _setters(each)).most_common(_NAMED):
        if count < max(3, _MANY * len(growths)):
            return
        own = {name: g for name, g in growths.items() if sample in _setters(g)}
        excess = {name: _excess(activations[name], sample) for name in own}
        median = float(np.median(list(excess.values())))
        if median < 1.25:
            continue
        order = sorted(own.values(), key=lambda g: -excess[g.tensor])
        yield Finding(
            "outlier sample",
            "warning",
            f"Sample {sample} alone sets the range of {count} of {len(growths)} activations, {median:.1f} times what "
            f"all others need; most at {_named(order[0])}.",
            "Look at the sample: leave it out if it does not belong to the data, or choose a percentile for the range.",
            _layers(order),
            order[0].tensor,
            (sample,),
            {"tensors": count, "excess": median},
        )


def _excess(ready: ActivationReady, sample: int) -> float:
    """Return the range of all samples over that of all but `sample`."""
    low, high = (np.asarray(each, np.float64) for each in (ready.sample_minima, ready.sample_maxima))
    others = np.arange(len(low)) != sample
    whole, rest = (
        max(float(h.max()), 0) - min(float(a.min()), 0) for a, h in ((low, high), (low[others], high[others]))
    )
    return whole / rest if rest > 0 else float("inf") if whole > 0 else 1.0


def check_values(
    activations: Mapping[str, ActivationReady],
    specs: Mapping[str, Sequence[QuantizerSpec]],
    layers: Mapping[str, Sequence[str]],
) -> Iterator[Finding]:
    """Yield findings on single tensors: not finite, dead, constant, clipped, outliers, a lopsided range.

    `specs` are the quantizers of each tensor under the present configuration.
    """
    found: dict[str, dict[str, float]] = {kind: {} for kind in _FAULTS}
    for name, ready in activations.items():
        for kind, value in _faults(ready, specs.get(name, ())):
            found[kind][name] = value
    for kind, values in found.items():
        yield from _group(kind, values, layers)


def _faults(ready: ActivationReady, specs: Sequence[QuantizerSpec]) -> Iterator[tuple[str, float]]:
    """Yield what is wrong with one tensor: the kind of fault, and how large it is."""
    statistics = ready.statistics
    if statistics.non_finite:
        yield "not finite", float(statistics.non_finite)
    if not statistics.count:
        return
    if statistics.minimum == 0 == statistics.maximum:
        yield "dead", 1.0
    elif statistics.minimum == statistics.maximum and statistics.count > 1:
        yield "constant", 1.0
    if (share := _clipped(ready, specs)) > _CLIPPED:
        yield "clipped", share
    if (ratio := outlier_ratio(ready)) > _OUTLIER:
        yield "outliers", ratio
    if any(spec.symmetric for spec in specs) and 0 <= (share := _tail(ready)) < _TAIL:
        yield "lopsided", 1 - share


def outlier_ratio(ready: ActivationReady) -> float:
    """Return how much farther the largest absolute value reaches than 99.99 % of all values do."""
    s = ready.statistics
    if s.count < 10 / (1 - _TYPICAL):
        return 1.0
    tail = (1 - _TYPICAL) / 2
    typical = max(abs(quantile(s, tail)), abs(quantile(s, 1 - tail)))
    largest = max(abs(s.minimum), abs(s.maximum))
    return largest / typical if typical > 0 else 1.0


def _clipped(ready: ActivationReady, specs: Sequence[QuantizerSpec]) -> float:
    """Return the share of the values outside the narrowest range.

    Where the range ends less than a step inside the values, only rounding of the zero point has moved it.
    """
    statistics, shares = ready.statistics, [0.0]
    for spec in specs:
        if not spec.has_scale:
            continue
        qparams = activation_qparams(statistics, spec, (ready.sample_minima, ready.sample_maxima))
        low, high = (float(end[0]) for end in covered_range(qparams, spec.format))
        step = float(qparams.scale[0])
        if statistics.minimum < low - step or statistics.maximum > high + step:
            shares.append(estimate_error_with(statistics, qparams, spec.format).clipped)
    return max(shares)


def _tail(ready: ActivationReady) -> float:
    """Return the shorter side of the range over the longer one."""
    low, high = abs(min(ready.statistics.minimum, 0.0)), max(ready.statistics.maximum, 0.0)
    return min(low, high) / max(low, high) if max(low, high) > 0 else 1.0


def _group(kind: str, values: Mapping[str, float], layers: Mapping[str, Sequence[str]]) -> Iterator[Finding]:
    """Yield one finding on all tensors in `values`, the worst first."""
    if not values:
        return
    severity, sentence, advice = _FAULTS[kind]
    order = sorted(values, key=lambda name: -values[name])
    worst = order[0]
    name = _place(worst, layers.get(worst, ()))
    words = sentence.format(n=name[0].upper() + name[1:], value=values[worst])
    others = len(order) - 1
    more = f"; so {'is' if others == 1 else 'are'} {others} other{'' if others == 1 else 's'}" if others else ""
    more = more if " is " in sentence else f"; {others} other{'' if others == 1 else 's'} likewise" if others else ""
    concerned = tuple(dict.fromkeys(layer for each in order for layer in layers.get(each, ())))
    yield Finding(kind, severity, f"{words}{more}.", advice, concerned, worst, numbers=dict(_largest(values)))


def _largest(values: Mapping[str, float], most: int = 20) -> list[tuple[str, float]]:
    return sorted(values.items(), key=lambda item: -item[1])[:most]


def _place(tensor: str, layers: Sequence[str]) -> str:
    return f"the activation at '{layers[0]}'" if layers else f"the activation '{tensor}'"


def _named(growth: RangeGrowth) -> str:
    return f"'{growth.layers[0]}'" if growth.layers else f"'{growth.tensor}'"


def _layers(growths: Sequence[RangeGrowth]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(layer for each in growths for layer in each.layers))


def dead_channels(values: Array, axis: int) -> int:
    """Return how many channels along `axis` have one and the same value everywhere."""
    rows = np.moveaxis(values, axis, 0).reshape(values.shape[axis], -1)
    return int((rows.max(1) == rows.min(1)).sum())
