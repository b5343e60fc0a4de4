"""Numbers as people read them. SI prefixes only with real units."""

from __future__ import annotations

import math

MINUS = "\u2212"


def short(value: float, digits: int = 3) -> str:
    """Return `value` with `digits` significant digits, in powers of ten where it is very small or large.

    >>> short(0.00461234), short(-12.5), short(1.2e-7), short(0.0)
    ('0.00461', '−12.5', '1.20e−7', '0')
    """
    if value == 0:
        return "0"
    if not math.isfinite(value):
        return "–" if math.isnan(value) else "∞" if value > 0 else f"{MINUS}∞"
    exponent = math.floor(math.log10(abs(value)))
    if -3 <= exponent < 6:
        text = f"{value:.{max(digits - 1 - exponent, 0)}f}"
    else:
        mantissa, power = f"{value:.{digits - 1}e}".split("e")
        text = f"{mantissa}e{int(power)}"
    return text.replace("-", MINUS)


def decibel(value: float) -> str:
    """Return a ratio in dB with one decimal; "exact" is said by infinity.

    >>> decibel(24.31), decibel(math.inf)
    ('24.3 dB', '∞ dB')
    """
    return f"{short(value)} dB" if not math.isfinite(value) else f"{value:.1f} dB".replace("-", MINUS)


def percent(share: float) -> str:
    """Return a share of 0 ... 1 in percent, with more digits where it is small.

    >>> percent(0.0), percent(0.00012), percent(0.034), percent(0.5)
    ('0 %', '0.012 %', '3.4 %', '50 %')
    """
    if share == 0:
        return "0 %"
    value = 100 * share
    decimals = 0 if abs(value) >= 10 else 1 if abs(value) >= 1 else 2 if abs(value) >= 0.1 else 3
    if abs(value) < 0.001:
        return "< 0.001 %"
    return f"{value:.{decimals}f} %".replace("-", MINUS)


def count(value: int) -> str:
    """Return a whole number with thin spaces between thousands.

    >>> count(589824)
    '589\u202f824'
    """
    return f"{value:,}".replace(",", "\u202f").replace("-", MINUS)


def amount(value: int) -> str:
    """Return a large number in short: 589 824 -> 590 k.

    >>> amount(4600), amount(589824), amount(25500000), amount(12)
    ('4.6 k', '590 k', '25.5 M', '12')
    """
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= limit:
            return f"{_three(value / limit)} {unit}"
    return str(value)


def data_size(value: float) -> str:
    """Return bytes in B, KB, MB, GB of 1000.

    >>> data_size(288_000), data_size(17_300_000), data_size(12)
    ('288 KB', '17.3 MB', '12 B')
    """
    for limit, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "KB")):
        if abs(value) >= limit:
            return f"{_three(value / limit)} {unit}".replace("-", MINUS)
    return f"{value:.0f} B"


def duration(seconds: float) -> str:
    """Return a time as people read it off a clock; nothing is known of NaN.

    >>> duration(0.4), duration(41.3), duration(200.0), duration(4000.0), duration(math.nan)
    ('< 1 s', '41 s', '3:20 min', '1:06 h', '–')
    """
    if not math.isfinite(seconds):
        return "–"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s" if whole else "< 1 s"
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02} min"
    return f"{whole // 3600}:{whole % 3600 // 60:02} h"


def _three(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 99.95 else f"{value:.1f}"
