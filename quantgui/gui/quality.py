"""Words and numbers for quality."""

from __future__ import annotations

import math

from quantgui.gui.numbers import MINUS, count
from quantgui.gui.texts import QT_TRANSLATE_NOOP, translate
from quantgui.results import Score
from quantgui.spec.sweep import SHARES

_NAMES = {
    "output_sqnr_db": QT_TRANSLATE_NOOP("quality", "output SQNR"),
    "cosine": QT_TRANSLATE_NOOP("quality", "cosine"),
    "kl": QT_TRANSLATE_NOOP("quality", "KL divergence"),
    "agreement": QT_TRANSLATE_NOOP("quality", "agreement"),
    "accuracy": QT_TRANSLATE_NOOP("quality", "accuracy"),
    "user": QT_TRANSLATE_NOOP("quality", "your metric"),
}


def metric_name(metric: str) -> str:
    """Return how a metric is called on the screen."""
    return translate("quality", _NAMES.get(metric, metric))


def samples_text(number: int) -> str:
    """Return how many samples there are in words.

    >>> samples_text(1), samples_text(48)
    ('1 sample', '48 samples')
    """
    if number == 1:
        return translate("quality", "1 sample")
    return translate("quality", "{n} samples").format(n=count(number))


def metric_unit(metric: str) -> str:
    """Return what stands behind a number of `metric`, with a blank before it; shares are written in percent.

    >>> metric_unit("accuracy"), metric_unit("output_sqnr_db"), metric_unit("kl")
    (' %', ' dB', '')
    """
    return " %" if metric in SHARES else " dB" if metric == "output_sqnr_db" else ""


def metric_ends(metric: str) -> tuple[float, float]:
    """Return the least and the most that `metric` can be.

    >>> metric_ends("agreement"), metric_ends("cosine"), metric_ends("output_sqnr_db")
    ((0.0, 1.0), (-1.0, 1.0), (-inf, inf))
    """
    if metric in SHARES:
        return 0.0, 1.0
    known = {"cosine": (-1.0, 1.0), "kl": (0.0, math.inf)}
    return known.get(metric, (-math.inf, math.inf))


def value_text(value: float, metric: str) -> str:
    """Return a value of `metric` with its unit.

    >>> value_text(0.9712, "accuracy"), value_text(24.31, "output_sqnr_db")
    ('97.1 %', '24.3 dB')
    """
    if metric in SHARES:
        text = f"{100 * value:.1f} %"
    elif metric == "output_sqnr_db":
        text = "∞ dB" if value == float("inf") else f"{value:.1f} dB"
    else:
        text = f"{value:.4g}"
    return text.replace("-", MINUS)


def score_text(score: Score, metric: str) -> str:
    """Return mean and standard error of `metric`.

    >>> score_text(Score(0.969, 0.002, 500), "accuracy")
    '96.9 ± 0.2 %'
    """
    if not score.samples:
        return "–"
    if not 0 < score.stderr < float("inf"):
        return value_text(score.value, metric)
    if metric in SHARES:
        return f"{100 * score.value:.1f} ± {100 * score.stderr:.1f} %".replace("-", MINUS)
    if metric == "output_sqnr_db":
        return f"{score.value:.1f} ± {score.stderr:.1f} dB".replace("-", MINUS)
    return f"{score.value:.4g} ± {score.stderr:.2g}".replace("-", MINUS)
