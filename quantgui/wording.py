"""Numbers as people read them, in the terminal and in reports; the window has its own, which are translated."""

from __future__ import annotations

import math

from quantgui.results import Score
from quantgui.spec.sweep import SHARES


def size(count: float) -> str:
    """Return bytes in B, KB, MB, GB of 1000.

    >>> size(288_000), size(17_300_000), size(12)
    ('288 KB', '17.3 MB', '12 B')
    """
    for limit, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "KB")):
        if count >= limit:
            value = count / limit
            return f"{value:.0f} {unit}" if value >= 99.95 else f"{value:.1f} {unit}"
    return f"{count:.0f} B"


def times_smaller(before: float, after: float) -> str:
    """Return how many times smaller something has become.

    >>> times_smaller(8000, 2000)
    '4.0x'
    """
    return f"{before / after:.1f}x" if after else ""


def duration(seconds: float) -> str:
    """Return a time as people say it.

    >>> duration(0.34), duration(12.6), duration(75), duration(3700)
    ('0.3 s', '13 s', '1:15 min', '1:01 h')
    """
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02d} min"
    return f"{whole // 3600}:{whole % 3600 // 60:02d} h"


def metric_name(metric: str) -> str:
    """Return the words for a metric.

    >>> metric_name("output_sqnr_db"), metric_name("accuracy"), metric_name("psnr")
    ('output SQNR', 'accuracy', 'psnr')
    """
    return {"output_sqnr_db": "output SQNR", "kl": "KL divergence"}.get(metric, metric)


def score_text(metric: str, score: Score) -> str:
    """Return a score with its standard error and unit.

    >>> score_text("accuracy", Score(0.9861, 0.0052, 500)), score_text("output_sqnr_db", Score(31.24, 0.2, 8))
    ('98.61 ± 0.52 %', '31.24 ± 0.20 dB')
    """
    factor, unit = (100.0, " %") if metric in SHARES else (1.0, " dB" if metric == "output_sqnr_db" else "")
    if score.value == math.inf:
        return "exact"
    if not math.isfinite(score.value):
        return "not a number" if math.isnan(score.value) else "-infinite"
    decimals = 2 if factor > 1 or unit or abs(score.value) >= 10 else 4
    text = f"{factor * score.value:.{decimals}f}"
    if math.isfinite(score.stderr):
        text += f" ± {factor * score.stderr:.{decimals}f}"
    return text + unit


def decibel(value: float) -> str:
    """Return a ratio in dB.

    >>> decibel(31.24), decibel(math.inf)
    ('31.2 dB', 'exact')
    """
    return "exact" if value == math.inf else f"{value:.1f} dB"
