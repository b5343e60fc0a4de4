"""Two plots as SVG, for the report: sizes fixed, colours taken from the page's CSS variables."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from quantgui.results import Array, Histogram

_LEFT, _BOTTOM, _TOP, _RIGHT = 52.0, 34.0, 10.0, 12.0


@dataclass(frozen=True)
class Point:
    """A value y at x with its standard error."""

    x: float
    y: float
    stderr: float = 0.0


class _Frame:
    """Axes with round ticks, and the way from values to places."""

    def __init__(self, width: float, height: float, xs: tuple[float, float], ys: tuple[float, float]) -> None:
        self.width, self.height = width, height
        self.xs, self.ys = _widened(*xs), _widened(*ys)

    def x(self, value: float) -> float:
        low, high = self.xs
        return _LEFT + (value - low) / (high - low) * (self.width - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        low, high = self.ys
        return self.height - _BOTTOM - (value - low) / (high - low) * (self.height - _BOTTOM - _TOP)

    def axes(self, x_label: str, y_label: str, *, y_ticks: bool = True) -> str:
        base = self.height - _BOTTOM
        parts = [
            f'<line x1="{_LEFT}" x2="{self.width - _RIGHT}" y1="{base:.1f}" y2="{base:.1f}" stroke="var(--line)"/>'
        ]
        for tick in ticks(*self.xs):
            x = self.x(tick)
            parts.append(f'<text x="{x:.1f}" y="{base + 14:.1f}" text-anchor="middle">{tick:g}</text>')
        if y_ticks:
            for tick in ticks(*self.ys, count=4):
                y = self.y(tick)
                parts.append(
                    f'<line x1="{_LEFT}" x2="{self.width - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="var(--line)" '
                    f'stroke-dasharray="2 4"/><text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{tick:g}</text>'
                )
        middle = (_LEFT + self.width - _RIGHT) / 2
        parts.append(
            f'<text x="{middle:.0f}" y="{self.height - 4:.1f}" text-anchor="middle">{html.escape(x_label)}</text>'
        )
        if y_label:
            parts.append(
                f'<text transform="translate(12 {base / 2:.0f}) rotate(-90)" text-anchor="middle">'
                f"{html.escape(y_label)}</text>"
            )
        return "".join(parts)

    def drawing(self, content: str, label: str) -> str:
        return (
            f'<svg viewBox="0 0 {self.width:g} {self.height:g}" role="img" aria-label="{html.escape(label)}">'
            f"{content}</svg>"
        )


def frontier_plot(
    predicted: Sequence[Point], measured: Sequence[Point], here: Point | None, x_label: str, y_label: str
) -> str:
    """Return quality against size: a line, circles with error bars, and a square for the present configuration."""
    points = [*predicted, *measured, *([here] if here else [])]
    if not points:
        return ""
    xs, ys = [p.x for p in points], [p.y + sign * _bar(p) for p in points for sign in (-1, 1)]
    frame = _Frame(760, 300, (min(xs), max(xs)), (min(ys), max(ys)))
    parts = [frame.axes(x_label, y_label)]
    if predicted:
        path = " ".join(f"{frame.x(p.x):.1f},{frame.y(p.y):.1f}" for p in sorted(predicted, key=lambda p: p.x))
        parts.append(f'<polyline points="{path}" fill="none" stroke="var(--float)" stroke-width="1.5"/>')
    parts += [_marked(frame, p, "var(--quantized)", square=False) for p in measured]
    if here is not None:
        parts.append(_marked(frame, here, "var(--good)", square=True))
    return frame.drawing("".join(parts), f"{y_label} against {x_label}")


def histogram_plot(values: Histogram, quantized: Histogram, low: float, high: float) -> str:
    """Return the float histogram filled, the quantized levels as lines on a height of their own, and both limits."""
    edges = np.asarray(values.edges, np.float64)
    frame = _Frame(360, 170, (float(edges[0]), float(edges[-1])), (0.0, 1.0))
    heights = _shares(values.counts)
    base = frame.y(0.0)
    corners = [f"{frame.x(edges[0]):.1f},{base:.1f}"]
    for left, right, share in zip(edges[:-1], edges[1:], heights, strict=True):
        corners += [f"{frame.x(left):.1f},{frame.y(share):.1f}", f"{frame.x(right):.1f},{frame.y(share):.1f}"]
    corners.append(f"{frame.x(edges[-1]):.1f},{base:.1f}")
    parts = [frame.axes("weight", "", y_ticks=False)]
    parts.append(f'<polygon points="{" ".join(corners)}" fill="var(--float)" fill-opacity="0.45"/>')
    middles = (np.asarray(quantized.edges[:-1], np.float64) + np.asarray(quantized.edges[1:], np.float64)) / 2
    for middle, share in zip(middles, _shares(quantized.counts), strict=True):
        if share > 0 and frame.xs[0] <= middle <= frame.xs[1]:
            x = frame.x(float(middle))
            parts.append(
                f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{base:.1f}" y2="{frame.y(share):.1f}" '
                f'stroke="var(--quantized)" stroke-width="1.2"/>'
            )
    for limit in (low, high):
        if math.isfinite(limit) and frame.xs[0] <= limit <= frame.xs[1]:
            x = frame.x(limit)
            parts.append(
                f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{base:.1f}" y2="{_TOP}" stroke="var(--muted)" '
                f'stroke-dasharray="4 3"/>'
            )
    return frame.drawing("".join(parts), "histogram of the weights")


def ticks(low: float, high: float, count: int = 6) -> list[float]:
    """Return about `count` round numbers between two ends.

    >>> ticks(0.0, 1.0)
    [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    """
    if not high > low:
        return [low]
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(index * step, 12) + 0.0 for index in range(first, last + 1)]


def _bar(point: Point) -> float:
    return point.stderr if math.isfinite(point.stderr) else 0.0


def _marked(frame: _Frame, point: Point, colour: str, *, square: bool) -> str:
    x, y, bar = frame.x(point.x), frame.y(point.y), _bar(point)
    mark = (
        f'<rect x="{x - 5:.1f}" y="{y - 5:.1f}" width="10" height="10" fill="{colour}"/>'
        if square
        else f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="none" stroke="{colour}" stroke-width="1.8"/>'
    )
    if not bar:
        return mark
    top, bottom = frame.y(point.y + bar), frame.y(point.y - bar)
    return f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{top:.1f}" y2="{bottom:.1f}" stroke="{colour}"/>{mark}'


def _shares(counts: Array) -> Array:
    """Return heights 0 ... 1; square roots, so that rare values are seen beside frequent ones."""
    roots = np.sqrt(np.asarray(counts, np.float64))
    return np.asarray(roots / roots.max() if roots.size and roots.max() > 0 else roots)


def _widened(low: float, high: float) -> tuple[float, float]:
    if not (math.isfinite(low) and math.isfinite(high)):
        return 0.0, 1.0
    if low == high:
        return low - 0.5 * (abs(low) or 1.0), high + 0.5 * (abs(high) or 1.0)
    return low, high
