"""Every configuration that has been evaluated: quality against size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PySide6.QtCore import Signal
from PySide6.QtWidgets import QVBoxLayout, QWidget

from quantgui.gui.numbers import count, data_size, short
from quantgui.gui.plots.tried import TriedPlot
from quantgui.gui.widgets.card import Card, Pages
from quantgui.gui.widgets.state_page import StatePage
from quantgui.results import Array

SMALLEST_MEGABYTES = 2_000_000
"""Bytes of the largest configuration from which the axis is in megabytes."""


@dataclass(frozen=True, slots=True)
class TriedPoint:
    """A configuration that has been evaluated: its size in bytes, its metric, and the metric's standard error."""

    label: str
    bytes: int
    value: float
    stderr: float


class TriedPanel(QWidget):
    """The trade-off between size and quality.

    Signals:
        point_picked: index of the point the user clicked, to return to that configuration.
        data_requested: the user wants to open data.
    """

    point_picked = Signal(int)
    data_requested = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("tried")
        self.setAccessibleName(self.tr("Tried"))
        self._points: tuple[TriedPoint, ...] = ()
        self._shown = np.zeros(0, np.intp)
        self._current: int | None = None
        self._metric = ""
        self.plot = TriedPlot(self.tr("Quality against size"), self.tr("size (MB)"), "")
        self.plot.setToolTip(
            self.tr(
                "Every configuration evaluated so far, with standard error. The line joins those that no smaller one "
                "beats.\nClick a point, or choose with the arrow keys and Enter, to return to it."
            )
        )
        self.card = Card(self.tr("Tried"))
        self.card.add_chip("muted", self.tr("tried"))
        self.card.add_chip("float_", self.tr("best for its size"))
        self.card.add_chip("quantized", self.tr("current"))
        self.state = StatePage()
        self._pages = Pages(self.plot, self.state)
        self.card.body.addWidget(self._pages, 1)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.card)
        self.plot.point_hovered.connect(self._on_hovered)
        self.plot.point_clicked.connect(self._on_clicked)
        self.state.action_triggered.connect(self.data_requested)
        self.show_points((), None, "")

    def show_points(
        self, points: Sequence[TriedPoint], current: int | None, metric: str, *, higher_is_better: bool = True
    ) -> None:
        """Show the configurations; `current` is the index of the one in use, `metric` what the values mean.

        Points whose value is not finite (equal outputs, say) cannot be placed and are counted in the note only.
        """
        self._points, self._metric = tuple(points), metric
        finite = [index for index, point in enumerate(points) if math.isfinite(point.value)]
        self._shown = np.array(finite, np.intp)
        self._current = current
        if not finite:
            self._show_nothing()
            return
        largest = max(points[index].bytes for index in finite)
        unit = 1e6 if largest >= SMALLEST_MEGABYTES else 1e3
        sizes = np.array([points[index].bytes / unit for index in finite])
        values = np.array([points[index].value for index in finite])
        stderrs = np.nan_to_num(np.array([points[index].stderr for index in finite]), posinf=0.0)
        front = best_for_size(sizes, values if higher_is_better else -values)
        place = finite.index(current) if current in finite else None
        self.plot.set_label("bottom", self.tr("size (MB)") if unit == 1e6 else self.tr("size (KB)"))
        self.plot.set_label("left", metric)
        self.plot.show_points(sizes, values, stderrs, front, place, None)
        self._pages.show_page(self.plot)
        self._show_note(None)

    def show_needs_data(self) -> None:
        """Say that quality is measured on data, and offer to open some."""
        self._points, self._shown = (), np.zeros(0, np.intp)
        self.state.show_state(
            "database",
            self.tr("No data open"),
            self.tr("Open data to measure the quality of every configuration you try."),
            action=self.tr("Open data…"),
        )
        self._pages.show_page(self.state)
        self.card.set_note("")

    def _show_nothing(self) -> None:
        if self._points:
            heading = self.tr("Nothing to compare yet")
            sentence = self.tr("The outputs equal those of the float network; give some layers fewer bits.")
        else:
            heading = self.tr("Nothing tried yet")
            sentence = self.tr("Every configuration you evaluate appears here, quality against size.")
        self.state.show_state("chart-scatter", heading, sentence)
        self._pages.show_page(self.state)
        self.card.set_note("")

    def _show_note(self, place: int | None) -> None:
        index = int(self._shown[place]) if place is not None else self._current
        if index is None or index >= len(self._points):
            self.card.set_note(self.tr("{number} tried").format(number=count(len(self._points))))
            return
        point = self._points[index]
        value = short(point.value)
        if point.stderr > 0:
            value = self.tr("{value} ± {error}").format(value=value, error=short(point.stderr, 2))
        self.card.set_note(
            self.tr("{label}: {size}, {metric} {value}").format(
                label=point.label, size=data_size(point.bytes), metric=self._metric, value=value
            )
        )

    def _on_hovered(self, place: int | None) -> None:
        self.plot.mark(place)
        if len(self._shown):
            self._show_note(place)

    def _on_clicked(self, place: int) -> None:
        self.point_picked.emit(int(self._shown[place]))


def best_for_size(sizes: Array, values: Array) -> Array:
    """Return the indices of the points that no smaller or equally small one beats, smallest first."""
    order = np.lexsort((-values, sizes))
    best, front = -math.inf, []
    for index in order:
        if values[index] > best:
            best = float(values[index])
            front.append(int(index))
    return np.array(front, np.intp)
