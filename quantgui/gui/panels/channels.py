"""Channels of one layer's weight: how wide each is, which stand out, how well each is quantized."""

from __future__ import annotations

import numpy as np
from PySide6.QtCore import Qt, Signal
from PySide6.QtWidgets import QHBoxLayout, QSplitter, QVBoxLayout, QWidget

from quantgui.gui.numbers import count, decibel, short
from quantgui.gui.plots.channels import ChannelErrorPlot, ChannelPlot, ChannelRangePlot
from quantgui.gui.widgets.card import Card, Pages
from quantgui.gui.widgets.labels import ElidedLabel
from quantgui.gui.widgets.segmented import Segment, SegmentedButtons
from quantgui.gui.widgets.state_page import StatePage
from quantgui.gui.widgets.zoom_buttons import ZoomButtons
from quantgui.results import Array, LayerInfo, WeightView
from quantgui.spec.formats import IntFormat
from quantgui.spec.granularity import PerBlock

OUTLIER_DEVIATIONS = 3.5
"""Robust standard deviations of log2(max |w|) above the median from which a channel is an outlier.

3.5 is the usual cut for this score (B. Iglewicz, D. Hoaglin, "How to Detect and Handle Outliers", 1993).
"""
OUTLIER_FACTOR = 2.0
"""An outlier is at least this much wider than the median channel, however alike the others are."""

WEAK_DB = 6.0
"""A channel whose SQNR lies this far below the median of all is marked: twice the relative error."""

MAD_TO_STD = 1.4826
"""Median absolute deviation of a normal distribution times this is its standard deviation."""

MOST_NAMED = 8


class ChannelsPanel(QWidget):
    """The channels tab.

    Signals:
        channel_picked: number of the channel the user clicked.
    """

    channel_picked = Signal(int)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("channels")
        self.setAccessibleName(self.tr("Channels"))
        self._layer: LayerInfo | None = None
        self._view: WeightView | None = None
        self._order = np.zeros(0, np.intp)
        self._outliers = np.zeros(0, bool)
        self._picked: int | None = None
        channel = self.tr("channel")
        self.ranges = ChannelRangePlot(self.tr("Range of each channel"), channel, self.tr("weight"))
        self.ranges.setToolTip(
            self.tr(
                "Light: smallest to largest weight of a channel. Dark: mean ± standard deviation. Line: ends of its "
                "grid.\nYellow: outlier, its largest absolute weight lies more than 3.5 robust standard deviations "
                "above the median channel (on a logarithmic scale) and is at least twice as large.\n"
                "Click or press Enter to pick a channel; arrows move, wheel zooms."
            )
        )
        self.errors = ChannelErrorPlot(self.tr("SQNR of each channel"), channel, self.tr("SQNR (dB)"))
        self.errors.setToolTip(
            self.tr(
                "Signal to quantization noise ratio of each channel in dB, larger is better.\n"
                "Red: 6 dB or more below the median channel, twice its relative error. Dashed: all weights together."
            )
        )
        self.state = StatePage(framed=True)
        self._content = QWidget()
        self._pages = Pages(self._content, self.state)
        self._build()
        for plot in (self.ranges, self.errors):
            plot.channel_hovered.connect(self._on_channel_hovered)
            plot.channel_clicked.connect(self._on_channel_clicked)
            self.zoom_buttons.zoomed.connect(plot.zoom)
            self.zoom_buttons.reset.connect(plot.reset_view)
        self.errors.view.setXLink(self.ranges.view)
        self.order_buttons.chosen.connect(self._on_order_chosen)
        self.show_layer(None)

    def _build(self) -> None:
        self.ranges_card = Card(self.tr("Range per channel"))
        self.ranges_card.add_chip("float_", self.tr("min … max"))
        self.ranges_card.add_chip("warning", self.tr("outlier"))
        self._covered_chip = self.ranges_card.add_chip("muted", self.tr("grid"))
        self._summary = ElidedLabel()
        self._summary.setProperty("role", "note")
        self.order_buttons = SegmentedButtons(
            self.tr("Order by"),
            (
                Segment("index", self.tr("Number"), self.tr("Channels in the order of the weight")),
                Segment("width", self.tr("Width"), self.tr("Channels with the largest absolute weight first")),
                Segment("sqnr", self.tr("SQNR"), self.tr("Worst quantized channels first")),
            ),
        )
        self.order_buttons.set_value("index")
        self.zoom_buttons = ZoomButtons()
        tools = QHBoxLayout()
        tools.setContentsMargins(3, 0, 0, 0)
        tools.setSpacing(8)
        tools.addWidget(self._summary, 1)
        tools.addWidget(self.order_buttons)
        tools.addWidget(self.zoom_buttons)
        self.ranges_card.body.addLayout(tools)
        self.ranges_card.body.addWidget(self.ranges, 1)
        self._readout = ElidedLabel()
        self._readout.setProperty("role", "note")
        self._readout.setContentsMargins(3, 0, 0, 0)
        self.ranges_card.body.addWidget(self._readout)
        self.errors_card = Card(self.tr("SQNR per channel"))
        self.errors_card.add_chip("quantized", self.tr("channel"))
        self.errors_card.add_chip("error", self.tr("weak"))
        self.errors_card.body.addWidget(self.errors, 1)
        splitter = QSplitter(Qt.Orientation.Vertical)
        splitter.setChildrenCollapsible(False)
        splitter.addWidget(self.ranges_card)
        splitter.addWidget(self.errors_card)
        splitter.setStretchFactor(0, 3)
        splitter.setStretchFactor(1, 2)
        splitter.setSizes([340, 220])
        inner = QVBoxLayout(self._content)
        inner.setContentsMargins(0, 0, 0, 0)
        inner.addWidget(splitter)
        outer = QVBoxLayout(self)
        outer.setContentsMargins(0, 0, 0, 0)
        outer.addWidget(self._pages)

    # --- values in ---

    def show_layer(self, layer: LayerInfo | None) -> None:
        """Show which layer is looked at; None if there is none."""
        self._layer = layer
        if layer is None:
            self._view = None
            self.state.show_state(
                "chart-column",
                self.tr("No layer selected"),
                self.tr("Select a layer in the table to see its channels."),
            )
            self._pages.show_page(self.state)
            return
        self.ranges_card.set_title(layer.name)
        if self._view is None or self._view.layer != layer.name:
            self._view = None
            self._picked = None
            self.show_computing()

    def show_computing(self) -> None:
        """Show that the view of the current layer is being computed; what is drawn stays until it comes."""
        if self._view is None:
            self.state.show_busy("loader", self.tr("Computing"), self._layer.name if self._layer else "")
            self._pages.show_page(self.state)

    def show_failure(self, sentence: str) -> None:
        """Show why there is nothing to show."""
        self._view = None
        self.state.show_state("circle-alert", self.tr("The channels could not be computed"), sentence, token="bad")
        self._pages.show_page(self.state)

    def show_view(self, view: WeightView) -> None:
        """Show the channels of the current layer under its spec."""
        if self._layer is not None and view.layer != self._layer.name:
            return
        self._view = view
        self._outliers = outlier_channels(view.channels.minimum, view.channels.maximum)
        kept = self._layer is not None and (self._layer.read_only or not self._layer.finite)
        quantized = view.channels.sqnr_db is not None and view.spec is not None and not kept
        self.errors_card.setVisible(quantized)
        self.order_buttons.button("sqnr").setEnabled(quantized)
        if not quantized and self.order_buttons.value() == "sqnr":
            self.order_buttons.set_value("index")
        self._summary.setText(self._summarize())
        self.ranges_card.set_note(self.tr("{number} channels").format(number=count(len(view.channels.minimum))))
        self._draw()
        self._pages.show_page(self._content)

    # --- drawing ---

    def _draw(self) -> None:
        view = self._view
        if view is None:
            return
        channels = view.channels
        absmax = np.maximum(-channels.minimum, channels.maximum)
        match self.order_buttons.value():
            case "width":
                order = np.argsort(-absmax, kind="stable")
            case "sqnr" if channels.sqnr_db is not None:
                order = np.argsort(channels.sqnr_db, kind="stable")
            case _:
                order = np.arange(len(absmax))
        self._order = order
        covered = covered_by_grid(view)
        self._covered_chip.setVisible(covered is not None)
        self.ranges.show_channels(
            channels.minimum[order],
            channels.maximum[order],
            channels.mean[order],
            channels.std[order],
            self._outliers[order],
            None if covered is None else (covered[0][order], covered[1][order]),
        )
        if channels.sqnr_db is not None:
            weak = weak_channels(channels.sqnr_db)
            self.errors.show_sqnr(channels.sqnr_db[order], weak[order], view.error.sqnr_db)
            worst = int(np.argmin(channels.sqnr_db))
            self.errors_card.set_note(
                self.tr("worst {db}, channel {index}").format(db=decibel(float(channels.sqnr_db[worst])), index=worst)
            )
        by_number = self.order_buttons.value() == "index"
        label = self.tr("channel") if by_number else self.tr("rank of the channel")
        for plot in (self.ranges, self.errors):
            plot.set_label("bottom", label)
        self._mark(self._picked)

    def _summarize(self) -> str:
        found = np.flatnonzero(self._outliers)
        if not len(found):
            return self.tr("No outlier channels")
        named = ", ".join(str(channel) for channel in found[:MOST_NAMED])
        more = self.tr(" and {number} more").format(number=len(found) - MOST_NAMED) if len(found) > MOST_NAMED else ""
        if len(found) == 1:
            return self.tr("1 outlier channel: {names}").format(names=named)
        return self.tr("{number} outlier channels: {names}").format(number=count(len(found)), names=named + more)

    def _mark(self, channel: int | None) -> None:
        """Mark a channel in both plots and read its numbers out; the picked one where there is none."""
        channel = self._picked if channel is None else channel
        place = None
        if channel is not None and channel < len(self._order):
            place = int(np.flatnonzero(self._order == channel)[0])
        for plot in (self.ranges, self.errors):
            plot.mark(place)
        self._readout.setText(
            self._read_out(channel) if place is not None else self.tr("Point at a channel to read its numbers")
        )

    def _read_out(self, channel: int | None) -> str:
        assert self._view is not None
        assert channel is not None
        values = self._view.channels
        text = self.tr("Channel {index}: {low} … {high}, mean {mean}, standard deviation {std}").format(
            index=channel,
            low=short(float(values.minimum[channel])),
            high=short(float(values.maximum[channel])),
            mean=short(float(values.mean[channel]), 2),
            std=short(float(values.std[channel])),
        )
        if values.sqnr_db is None or self.errors_card.isHidden():
            return text
        return self.tr("{numbers}, SQNR {db}").format(numbers=text, db=decibel(float(values.sqnr_db[channel])))

    # --- what the user does ---

    def _on_order_chosen(self, _order: object) -> None:
        self._draw()

    def _on_channel_hovered(self, place: int | None) -> None:
        if self._view is not None:
            self._mark(None if place is None else int(self._order[place]))

    def _on_channel_clicked(self, place: int) -> None:
        self._picked = int(self._order[place])
        self._mark(self._picked)
        self.channel_picked.emit(self._picked)

    def plots(self) -> tuple[ChannelPlot, ChannelPlot]:
        """Return the plots, upper one first."""
        return self.ranges, self.errors


def _median(values: Array) -> float:
    """Return the median; numpy's own imports masked arrays first, which takes longer than a frame."""
    ordered = np.sort(values)
    return float(ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2


def outlier_channels(minimum: Array, maximum: Array) -> Array:
    """Return which channels are much wider than the others, bool (C,).

    The width of a channel is log2 of its largest absolute value; it is compared with the median of all channels in
    units of their median absolute deviation, so that the outliers do not hide themselves.
    """
    absmax = np.maximum(np.abs(minimum), np.abs(maximum)).astype(np.float64)
    positive = absmax > 0
    if not positive.any():
        return np.zeros(len(absmax), bool)
    width = np.log2(np.maximum(absmax, absmax[positive].min()))
    middle = _median(width)
    deviation = MAD_TO_STD * _median(np.abs(width - middle))
    outliers: Array = width - middle > max(OUTLIER_DEVIATIONS * deviation, np.log2(OUTLIER_FACTOR))
    return outliers


def weak_channels(sqnr_db: Array) -> Array:
    """Return which channels are quantized much worse than the median channel, bool (C,)."""
    finite = sqnr_db[np.isfinite(sqnr_db)]
    if not len(finite):
        return np.zeros(len(sqnr_db), bool)
    weak: Array = sqnr_db <= _median(finite) - WEAK_DB
    return weak


def covered_by_grid(view: WeightView) -> tuple[Array, Array] | None:
    """Return the ends of each channel's grid, both (C,); of its widest group if it has several; None if float."""
    channels = len(view.channels.minimum)
    if view.spec is None or not isinstance(view.spec.format, IntFormat) or not len(view.scales):
        return None
    scales = np.asarray(view.scales, np.float64)
    low = (view.spec.format.quant_min - view.zero_points) * scales
    high = (view.spec.format.quant_max - view.zero_points) * scales
    if len(scales) == 1:
        return np.repeat(low, channels), np.repeat(high, channels)
    if len(scales) % channels or isinstance(view.spec.granularity, PerBlock):
        return None
    return low.reshape(channels, -1).min(axis=1), high.reshape(channels, -1).max(axis=1)
