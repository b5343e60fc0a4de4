"""Activations around one layer: what flows in and out, the range and grid chosen for it, which sample sets it."""

from __future__ import annotations

import numpy as np
from PySide6.QtCore import Qt, Signal
from PySide6.QtGui import QResizeEvent
from PySide6.QtWidgets import QHBoxLayout, QSplitter, QVBoxLayout, QWidget

from quantgui.gui.numbers import count, decibel, percent, short
from quantgui.gui.panels.limit_curve import LimitCurve, mark_words
from quantgui.gui.panels.weights import BAD_DB, BINS, GOOD_DB, grid_levels
from quantgui.gui.plots.error_curve import CurveMark
from quantgui.gui.plots.histogram import HistogramPlot
from quantgui.gui.plots.samples import SamplesPlot
from quantgui.gui.widgets.card import Card
from quantgui.gui.widgets.labels import ElidedLabel, MetricLabel, Tone
from quantgui.gui.widgets.paged_card import CardPage, PagedCard
from quantgui.gui.widgets.segmented import Segment, SegmentedButtons
from quantgui.gui.widgets.state_page import ContentOrState, StatePage
from quantgui.numerics.coarsening import coarsened
from quantgui.numerics.error_curve import has_curve, largest_value, range_at, statistics_curve
from quantgui.numerics.levels import quantized_levels
from quantgui.numerics.ranges import estimate_range_from_statistics
from quantgui.numerics.scales import choose_grid
from quantgui.numerics.statistics import estimate_error_with, quantized_levels_histogram, rebin
from quantgui.results import ActivationReady, ErrorCurve, LayerInfo, TensorStatistics
from quantgui.spec.formats import IntFormat, MinifloatFormat
from quantgui.spec.quantizer import LeastSquaredError, QuantizerSpec, at_input, at_output

_SAMPLES, _CURVE = "samples", "curve"
ROOMY = 270
"""Pixels of width from which a column has room for scale and zero point."""


class ActivationsPanel(QWidget):
    """The activations tab.

    Signals:
        data_requested: the user wants to open data.
        calibration_requested: the user wants the ranges measured.
        limits_chosen: low and high, when the user has let go of a limit; input and output share them.
        estimator_chosen: a `RangeEstimator` whose mark the user has clicked.
        error_page_turned: the key of the page below the histograms that the user has turned to.
    """

    data_requested = Signal()
    calibration_requested = Signal()
    limits_chosen = Signal(float, float)
    estimator_chosen = Signal(object)
    error_page_turned = Signal(str)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("activations")
        self.setAccessibleName(self.tr("Activations"))
        self._layer: LayerInfo | None = None
        self.input = TensorColumn(self.tr("Input"))
        self.output = TensorColumn(self.tr("Output"))
        self.state = StatePage(framed=True)
        self._content = QWidget()
        self._pages = ContentOrState(self._content, self.state)
        inner = QHBoxLayout(self._content)
        inner.setContentsMargins(0, 0, 0, 0)
        inner.setSpacing(8)
        inner.addWidget(self.input, 1)
        inner.addWidget(self.output, 1)
        outer = QVBoxLayout(self)
        outer.setContentsMargins(0, 0, 0, 0)
        outer.addWidget(self._pages)
        for column in (self.input, self.output):
            column.scale_chosen.connect(self._on_scale_chosen)
            column.limits_chosen.connect(self.limits_chosen)
            column.estimator_chosen.connect(self.estimator_chosen)
            column.samples_card.page_turned.connect(self._on_page_turned)
        self.show_layer(None)

    # --- values in ---

    def show_layer(self, layer: LayerInfo | None) -> None:
        """Show which layer is looked at; its statistics come with `show_statistics`."""
        self._layer = layer
        if layer is None:
            self._pages.show_state(
                "activity", self.tr("No layer selected"), self.tr("Select a layer in the table to see its activations.")
            )
        elif not layer.quantizes_activations:
            self._pages.show_state(
                "activity",
                self.tr("No activations to quantize"),
                self.tr("{op} layers are computed with float activations.").format(op=layer.op),
            )
        else:
            self.show_statistics(None, None, None)

    def show_needs_data(self) -> None:
        """Show that ranges of activations can only be measured with data."""
        if self._has_activations():
            self._pages.show_state(
                "database",
                self.tr("Activations need data"),
                self.tr("Their ranges are measured on samples of what the network will see. A few dozen are enough."),
                action=self.tr("Open data…"),
                does=self.data_requested.emit,
            )

    def show_calibrating(self, done: int, total: int) -> None:
        """Show how far the measurement is, where nothing has been measured yet for this layer."""
        if self._has_activations() and self._pages.page() is self.state:
            self.state.show_busy(
                "activity",
                self.tr("Measuring activations"),
                self.tr("{done} of {total} samples").format(done=count(done), total=count(total)),
                done,
                total,
            )

    def show_failure(self, sentence: str) -> None:
        """Show why there is nothing to show."""
        self._pages.show_state(
            "circle-alert",
            self.tr("The activations could not be measured"),
            sentence,
            action=self.tr("Try again"),
            does=self.calibration_requested.emit,
            token="bad",
        )

    def show_statistics(
        self,
        input: ActivationReady | None,  # noqa: A002 - the opposite of output
        output: ActivationReady | None,
        spec: QuantizerSpec | None,
    ) -> None:
        """Show what has been measured at the layer's input and output, and what `spec` makes of it."""
        if not self._has_activations():
            return
        if input is None and output is None:
            self._pages.show_state(
                "activity",
                self.tr("Not measured yet"),
                self.tr("The ranges of this layer's activations have not been measured."),
                action=self.tr("Measure"),
                does=self.calibration_requested.emit,
            )
            return
        for column, ready, of in ((self.input, input, at_input), (self.output, output, at_output)):
            column.setVisible(ready is not None)
            if ready is not None:
                column.show_statistics(ready, None if spec is None else of(spec))
        self._pages.show_page(self._content)

    # --- inner workings ---

    def _has_activations(self) -> bool:
        return self._layer is not None and self._layer.quantizes_activations

    def show_error_page(self, key: str) -> None:
        """Turn the cards below the histograms to a page: ``samples`` or ``curve``."""
        for column in (self.input, self.output):
            column.show_page(key)

    def _on_page_turned(self, key: str) -> None:
        self.show_error_page(key)
        self.error_page_turned.emit(key)

    def _on_scale_chosen(self, log: bool) -> None:  # noqa: FBT001 - a switch
        for column in (self.input, self.output):
            column.set_log(log=log)


class TensorColumn(QWidget):
    """Histogram and per-sample ranges of one activation tensor.

    Signals:
        scale_chosen: true for logarithmic counts.
        limits_chosen: low and high, when the user has let go of a limit.
        estimator_chosen: a `RangeEstimator` whose mark the user has clicked.
    """

    scale_chosen = Signal(bool)
    limits_chosen = Signal(float, float)
    estimator_chosen = Signal(object)

    def __init__(self, title: str, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._title = title
        self._ready: ActivationReady | None = None
        self._spec: QuantizerSpec | None = None
        self._coarse: TensorStatistics | None = None
        self._limits: tuple[float, float, float] | None = None
        self._pending: tuple[ActivationReady, QuantizerSpec | None] | None = None
        self._curve_of: tuple[ActivationReady, QuantizerSpec, ErrorCurve] | None = None
        self.histogram = HistogramPlot(
            self.tr("Histogram of the activations: {title}").format(title=title),
            self.tr("activation"),
            self.tr("count"),
        )
        self.histogram.setToolTip(
            self.tr(
                "Curve: float values of all samples. Bars: quantized values. Dotted: grid. Dashed: limits of the range."
                "\nDrag a dashed limit to set the range by hand, for input and output of this layer, or press Shift + "
                "arrows for the lower and Ctrl + arrows for the upper one."
                "\nWheel: zoom. Drag: pan. Double click: show everything."
            )
        )
        self.samples = SamplesPlot(
            self.tr("Range in each sample: {title}").format(title=title), self.tr("sample"), self.tr("activation")
        )
        self.samples.setToolTip(
            self.tr(
                "Smallest to largest activation in each sample. Yellow: the samples with the smallest and the largest "
                "of all.\nDashed: limits of the range. One sample far above all others is a reason to clip."
            )
        )
        self.curve = LimitCurve(self.tr("Error by clipping limit: {title}").format(title=title))
        self.card = Card(title)
        self.card.add_chip("float_", self.tr("float32"))
        self._quantized_chip = self.card.add_chip("quantized", self.tr("quantized"))
        self._tensor = ElidedLabel(middle=True)
        self._tensor.setProperty("role", "note")
        self.scale_buttons = SegmentedButtons(
            self.tr("Count scale of {title}").format(title=title),
            (
                Segment(True, self.tr("Log"), self.tr("Count logarithmically: rare values stay visible")),
                Segment(False, self.tr("Linear"), self.tr("Count linearly: heights are in proportion")),
            ),
        )
        self.scale_buttons.set_value(True)
        self.scale_buttons.chosen.connect(self._on_scale_chosen)
        self._build()
        self.samples.channel_hovered.connect(self._on_sample_hovered)
        self.histogram.zoomed.connect(self._on_zoomed)
        self.histogram.limits_dragged.connect(self._on_limits_dragged)
        self.histogram.limits_chosen.connect(self._on_limits_chosen)
        self.curve.threshold_dragged.connect(self._on_threshold_dragged)
        self.curve.threshold_chosen.connect(self._on_threshold_chosen)
        self.curve.mark_chosen.connect(self.estimator_chosen)
        self.curve.mark_pointed.connect(self._on_mark_pointed)

    def _build(self) -> None:
        tools = QHBoxLayout()
        tools.setContentsMargins(3, 0, 0, 0)
        tools.setSpacing(8)
        tools.addWidget(self._tensor, 1)
        tools.addWidget(self.scale_buttons)
        self.card.body.addLayout(tools)
        self.card.body.addWidget(self.histogram, 1)
        self.sqnr = MetricLabel(
            self.tr("SQNR (dB)"),
            self.tr(
                "Signal to quantization noise ratio of this tensor in dB, larger is better; estimated from its "
                "histogram.\nGreen from 30 dB, red below 15 dB."
            ),
            small=True,
        )
        self.clipped = MetricLabel(
            self.tr("Clipped"), self.tr("Share of the activations outside the grid, moved to its end."), small=True
        )
        self.scale = MetricLabel(self.tr("Scale"), self.tr("Distance of two neighbouring levels."), small=True)
        self.zero_point = MetricLabel(self.tr("Zero point"), self.tr("The integer that stands for 0."), small=True)
        metrics = QHBoxLayout()
        metrics.setContentsMargins(3, 2, 0, 0)
        metrics.setSpacing(5)
        for metric in (self.sqnr, self.clipped, self.scale, self.zero_point):
            # Each as wide as its words: equal shares would cut the longest number first.
            metrics.addWidget(metric)
        self.card.body.addLayout(metrics)
        self.samples_card = PagedCard(
            self.tr("{title} by sample and by limit").format(title=self._title),
            (
                CardPage(
                    _SAMPLES, self.tr("Samples"), self.tr("Smallest to largest value in each sample"), self.samples
                ),
                CardPage(
                    _CURVE,
                    self.tr("By limit"),
                    self.tr("SQNR in dB by clipping limit, and what each range estimator chooses"),
                    self.curve,
                ),
            ),
        )
        splitter = QSplitter(Qt.Orientation.Vertical)
        splitter.setChildrenCollapsible(False)
        splitter.addWidget(self.card)
        splitter.addWidget(self.samples_card)
        splitter.setStretchFactor(0, 3)
        splitter.setStretchFactor(1, 2)
        splitter.setSizes([360, 200])
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(splitter)

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        roomy = self.width() >= ROOMY
        self.scale.setVisible(roomy)
        self.zero_point.setVisible(roomy)

    def show_statistics(self, ready: ActivationReady, spec: QuantizerSpec | None) -> None:
        """Show a tensor and what `spec` makes of it; nothing is quantized where it is None."""
        if self.histogram.is_dragging() or self.curve.is_dragging():
            self._pending = (ready, spec)
            return
        same = self._ready is not None and self._ready.tensor == ready.tensor
        if self._ready is not ready:
            self._coarse = None
        self._ready, self._spec, self._limits = ready, spec, None
        statistics = ready.statistics
        self._tensor.setText(ready.tensor)
        self.card.set_note("" if spec is not None else self.tr("stays float"))
        self._quantized_chip.setVisible(spec is not None)
        self._quantized_chip.set_text(str(spec) if spec is not None else "")
        self.histogram.show_float(rebin(statistics, BINS))
        limits = None
        if spec is not None and isinstance(spec.format, IntFormat | MinifloatFormat):
            limits = self._show_estimated(ready, spec, spec.format)
        else:
            self.histogram.hide_limits()
            for metric in (self.sqnr, self.clipped, self.scale, self.zero_point):
                metric.show_value("–")
        self.histogram.fit(keep_zoom=same)
        self.samples.show_samples(ready.sample_minima, ready.sample_maxima, limits)
        self._show_extreme()
        self._show_curve()

    def show_page(self, key: str) -> None:
        """Turn the card below the histogram to a page."""
        self.samples_card.show_page(key)
        self._show_curve()

    def set_log(self, *, log: bool) -> None:
        """Count logarithmically or linearly."""
        self.scale_buttons.set_value(log)
        self.histogram.set_log(log)

    def _statistics(self, ready: ActivationReady) -> TensorStatistics:
        if self._coarse is None:
            self._coarse = coarsened(ready.statistics)
        return self._coarse

    def _show_estimated(
        self, ready: ActivationReady, spec: QuantizerSpec, fmt: IntFormat | MinifloatFormat
    ) -> tuple[float, float]:
        # The search for the least error takes too long for one frame on all bins; on fewer it is near, and says so.
        searched = isinstance(spec.range_estimator, LeastSquaredError)
        statistics = self._statistics(ready) if searched else ready.statistics
        low, high = estimate_range_from_statistics(statistics, spec, (ready.sample_minima, ready.sample_maxima))
        if spec.symmetric:
            low, high = -max(-low, high), max(-low, high)
        self.histogram.show_limits(low, high, symmetric=spec.symmetric)
        self._show_quantized(low, high, about="≈ " if searched else "")
        return low, high

    def _show_quantized(self, low: float, high: float, *, about: str) -> None:
        """Show what a range gives, within one frame."""
        ready, spec = self._ready, self._spec
        if ready is None or spec is None or not isinstance(spec.format, IntFormat | MinifloatFormat):
            return
        fmt, statistics = spec.format, self._statistics(ready)
        qparams = choose_grid(np.array([low]), np.array([high]), spec, fmt)
        scale, zero_point = float(qparams.scale[0]), int(qparams.zero_point[0])
        error = estimate_error_with(statistics, qparams, fmt)
        self.histogram.show_quantized(quantized_levels_histogram(statistics, qparams, fmt))
        levels = grid_levels(fmt, scale, zero_point) if isinstance(fmt, IntFormat) else quantized_levels(qparams, fmt)
        self.histogram.show_levels(levels)
        tone: Tone = "good" if error.sqnr_db >= GOOD_DB else "bad" if error.sqnr_db < BAD_DB else "warning"
        self.sqnr.show_value(about + decibel(error.sqnr_db).removesuffix(" dB"), tone)
        self.clipped.show_value(percent(error.clipped))
        self.scale.show_value(about + short(scale))
        self.zero_point.show_value(count(zero_point))
        self._limits = (low, high, error.sqnr_db)
        self._show_limit()

    def _show_limit(self) -> None:
        if self.samples_card.page() != _CURVE:
            return
        if self._limits is None or self._spec is None:
            self.curve.hide_limit()
            return
        low, high, sqnr_db = self._limits
        self.curve.show_limit(max(-low, high), sqnr_db)

    def _show_curve(self) -> None:
        """Draw the curve; nothing is computed while its page is not seen."""
        ready, spec = self._ready, self._spec
        if self.samples_card.page() != _CURVE or ready is None:
            return
        if spec is None or not has_curve(spec):
            self._curve_of = None
            self.curve.show_error_curve(None, None, largest_value(ready.statistics))
        else:
            known = self._curve_of
            if known is None or known[0] is not ready or known[1] != spec:
                extrema = ready.sample_minima, ready.sample_maxima
                known = self._curve_of = (ready, spec, statistics_curve(ready.statistics, spec, extrema))
            self.curve.show_error_curve(known[2], None, largest_value(ready.statistics))
        self._show_limit()
        self._on_mark_pointed(None)

    def _show_extreme(self) -> None:
        ready = self._ready
        if ready is None or not len(ready.sample_maxima):
            self.samples_card.set_page_note(_SAMPLES, "")
            return
        self.samples_card.set_page_note(
            _SAMPLES,
            self.tr("largest: no. {index}").format(index=int(np.argmax(ready.sample_maxima))),
        )

    def _on_sample_hovered(self, place: int | None) -> None:
        self.samples.mark(place)
        if place is None or self._ready is None:
            self._show_extreme()
            return
        self.samples_card.set_page_note(
            _SAMPLES,
            self.tr("sample {index}: {low} … {high}").format(
                index=place,
                low=short(float(self._ready.sample_minima[place])),
                high=short(float(self._ready.sample_maxima[place])),
            ),
        )

    # --- what the user does ---

    def _on_limits_dragged(self, low: float, high: float) -> None:
        self._show_quantized(low, high, about="≈ ")
        self.samples.move_limits(low, high)

    def _on_limits_chosen(self, low: float, high: float) -> None:
        pending, self._pending = self._pending, None
        self.limits_chosen.emit(low, high)
        if pending is not None and self._ready is not None and pending[0].tensor == self._ready.tensor:
            self.show_statistics(pending[0], self._spec)

    def _on_threshold_dragged(self, threshold: float) -> None:
        if self._ready is None or self._spec is None:
            return
        low, high = range_at(self._ready.statistics, self._spec, threshold)
        self.histogram.show_limits(low, high, symmetric=self._spec.symmetric)
        self._on_limits_dragged(low, high)

    def _on_threshold_chosen(self, _threshold: float) -> None:
        self._on_limits_chosen(*self.histogram.limits())

    def _on_mark_pointed(self, mark: CurveMark | None) -> None:
        known = self._curve_of
        text = "" if known is not None else self.tr("no limit to choose")
        self.samples_card.set_page_note(_CURVE, text if mark is None or known is None else mark_words(mark, known[2]))

    def _on_scale_chosen(self, log: object) -> None:
        self.scale_chosen.emit(bool(log))

    def _on_zoomed(self, low: float, high: float) -> None:
        if self._ready is None:
            return
        statistics = self._ready.statistics
        if self.histogram.is_zoomed():
            low, high = max(low, statistics.minimum), min(high, statistics.maximum)
        else:
            low, high = statistics.minimum, statistics.maximum
        if low < high:
            self.histogram.show_detail(rebin(statistics, BINS, low, high))
