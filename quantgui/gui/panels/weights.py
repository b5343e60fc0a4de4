"""Weights of one layer: float and quantized values on one axis, the grid, limits that can be dragged, the error."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from PySide6.QtCore import Qt, Signal
from PySide6.QtWidgets import QGridLayout, QHBoxLayout, QLabel, QSplitter, QVBoxLayout, QWidget

from quantgui.gui.numbers import count, decibel, percent, short
from quantgui.gui.panels.limit_curve import LimitCurve, mark_words
from quantgui.gui.plots.error import ErrorPlot
from quantgui.gui.plots.error_curve import CurveMark
from quantgui.gui.plots.histogram import HistogramPlot
from quantgui.gui.widgets.card import Card, Pages
from quantgui.gui.widgets.labels import ElidedLabel, MetricLabel, Tone
from quantgui.gui.widgets.paged_card import CardPage, PagedCard
from quantgui.gui.widgets.segmented import Segment, SegmentedButtons
from quantgui.gui.widgets.state_page import StatePage
from quantgui.gui.widgets.zoom_buttons import ZoomButtons
from quantgui.numerics.coarsening import coarsened
from quantgui.numerics.error_curve import error_curve, has_curve, largest_value, range_at, statistics_curve
from quantgui.numerics.levels import quantized_levels
from quantgui.numerics.scales import choose_grid
from quantgui.numerics.statistics import (
    estimate_error_histogram,
    estimate_error_with,
    quantized_levels_histogram,
    rebin,
)
from quantgui.results import Array, ErrorCurve, Histogram, LayerInfo, TensorError, TensorStatistics, WeightView
from quantgui.spec.formats import CodebookFormat, IntFormat, MinifloatFormat, TableFormat
from quantgui.spec.granularity import PerBlock, PerChannel, PerGroup, PerTensor
from quantgui.spec.quantizer import FixedRange, QuantizerSpec

BINS = 256
MOST_LEVELS = 1024
"""Grids of more levels are not drawn: they would be a grey area."""

GOOD_DB, BAD_DB = 30.0, 15.0
_HISTOGRAM, _CURVE = "histogram", "curve"


@dataclass(frozen=True, slots=True, eq=False)
class _Quantized:
    """What the panel draws of a quantized weight, exact or estimated."""

    histogram: Histogram | None
    error_histogram: Histogram | None
    error: TensorError
    low: float
    high: float
    scales: Array
    levels: Array
    step: float | None
    """The scale, where there is one for all values."""
    exact: bool


class WeightsPanel(QWidget):
    """The weights tab.

    Signals:
        limits_dragged: low and high of the range, while the user moves a limit.
        limits_chosen: low and high, when the user has let it go.
        estimator_chosen: a `RangeEstimator` whose mark the user has clicked.
        error_page_turned: the key of the page of the error card that the user has turned to.
        retry_requested: the user wants a failed computation repeated.
    """

    limits_dragged = Signal(float, float)
    limits_chosen = Signal(float, float)
    estimator_chosen = Signal(object)
    error_page_turned = Signal(str)
    retry_requested = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("weights")
        self.setAccessibleName(self.tr("Weights"))
        self._layer: LayerInfo | None = None
        self._view: WeightView | None = None
        self._pending: WeightView | None = None
        self._coarse: TensorStatistics | None = None
        self._drawn: _Quantized | None = None
        self._curves: tuple[WeightView, ErrorCurve | None, ErrorCurve | None] | None = None
        self.histogram = HistogramPlot(self.tr("Histogram of the weights"), self.tr("weight"), self.tr("count"))
        self.histogram.setToolTip(
            self.tr(
                "Float weights (curve, per bin) and quantized weights (bars, per level).\n"
                "Drag a dashed limit to set the range by hand, or press Shift + arrows for the lower and Ctrl + arrows "
                "for the upper one.\nWheel: zoom. Drag: pan. Double click: show everything."
            )
        )
        self.error = ErrorPlot(self.tr("Histogram of the quantization error"), self.tr("error"), self.tr("count"))
        self.error.setToolTip(
            self.tr(
                "Float weight minus quantized weight. Shaded: half a step to either side, what rounding alone can do; "
                "beyond it lies what clipping does."
            )
        )
        self._no_error = _remark(self.tr("No error: the weights stay as they are."))
        self.error_pages = Pages(self.error, self._no_error)
        self.curve = LimitCurve(self.tr("Error of the weights by clipping limit"))
        self._no_curve = _remark(self.tr("No limit to choose: the format has none, or the weights stay as they are."))
        self.curve_pages = Pages(self.curve, self._no_curve)
        self.state = StatePage(framed=True)
        self._content = QWidget()
        self._pages = Pages(self._content, self.state)
        self._build()
        self.histogram.limits_dragged.connect(self._on_limits_dragged)
        self.histogram.limits_chosen.connect(self._on_limits_chosen)
        self.curve.threshold_dragged.connect(self._on_threshold_dragged)
        self.curve.threshold_chosen.connect(self._on_threshold_chosen)
        self.curve.mark_chosen.connect(self.estimator_chosen)
        self.curve.mark_pointed.connect(self._on_mark_pointed)
        self.error_card.page_turned.connect(self._on_page_turned)
        self.histogram.zoomed.connect(self._on_zoomed)
        self.scale_buttons.chosen.connect(self._on_scale_chosen)
        self.zoom_buttons.zoomed.connect(self.histogram.zoom)
        self.zoom_buttons.reset.connect(self.histogram.reset_view)
        self.state.action_triggered.connect(self.retry_requested)
        for chip in (self._float_chip, self._quantized_chip, self._grid_chip):
            chip.toggled.connect(self._on_series_toggled)
        self.show_layer(None)

    def _build(self) -> None:
        self.weights_card = Card(self.tr("Weights"))
        self._float_chip = self.weights_card.add_chip("float_", self.tr("float32"), switchable=True)
        self._quantized_chip = self.weights_card.add_chip("quantized", self.tr("quantized"), switchable=True)
        self._grid_chip = self.weights_card.add_chip("muted", self.tr("grid"), switchable=True)
        self._explanation = ElidedLabel()
        self._explanation.setProperty("role", "note")
        self.scale_buttons = SegmentedButtons(
            self.tr("Count scale"),
            (
                Segment(True, self.tr("Log"), self.tr("Count logarithmically: rare values stay visible")),
                Segment(False, self.tr("Linear"), self.tr("Count linearly: heights are in proportion")),
            ),
        )
        self.scale_buttons.set_value(True)
        self.zoom_buttons = ZoomButtons()
        tools = QHBoxLayout()
        tools.setContentsMargins(3, 0, 0, 0)
        tools.setSpacing(8)
        tools.addWidget(self._explanation, 1)
        tools.addWidget(self.scale_buttons)
        tools.addWidget(self.zoom_buttons)
        self.weights_card.body.addLayout(tools)
        self.weights_card.body.addWidget(self.histogram, 1)

        self.error_card = PagedCard(
            self.tr("Quantization error"),
            (
                CardPage(
                    _HISTOGRAM,
                    self.tr("Error"),
                    self.tr("Histogram of float weight minus quantized weight"),
                    self.error_pages,
                ),
                CardPage(
                    _CURVE,
                    self.tr("By limit"),
                    self.tr("SQNR in dB by clipping limit, and what each range estimator chooses"),
                    self.curve_pages,
                ),
            ),
        )
        self.numbers_card = Card(self.tr("Key numbers"))
        self._add_metrics()
        below = QWidget()
        row = QHBoxLayout(below)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(8)
        row.addWidget(self.error_card, 3)
        row.addWidget(self.numbers_card, 2)
        splitter = QSplitter(Qt.Orientation.Vertical)
        splitter.setChildrenCollapsible(False)
        splitter.addWidget(self.weights_card)
        splitter.addWidget(below)
        splitter.setStretchFactor(0, 3)
        splitter.setStretchFactor(1, 2)
        splitter.setSizes([340, 220])
        inner = QVBoxLayout(self._content)
        inner.setContentsMargins(0, 0, 0, 0)
        inner.addWidget(splitter)
        outer = QVBoxLayout(self)
        outer.setContentsMargins(0, 0, 0, 0)
        outer.addWidget(self._pages)

    def _add_metrics(self) -> None:
        self.sqnr = MetricLabel(
            self.tr("SQNR"),
            self.tr(
                "Signal to quantization noise ratio in dB, larger is better; 6 dB more halve the error.\n"
                "Green from 30 dB, red below 15 dB."
            ),
        )
        self.mse = MetricLabel(self.tr("MSE"), self.tr("Mean of the squared error, smaller is better."))
        self.largest = MetricLabel(
            self.tr("Max error"), self.tr("Largest absolute error of a single weight, smaller is better.")
        )
        self.clipped = MetricLabel(
            self.tr("Clipped"), self.tr("Share of the weights outside the grid, moved to its end.")
        )
        self.scale = MetricLabel(
            self.tr("Scale"), self.tr("Distance of two neighbouring levels; of the widest grid if there are several.")
        )
        self.range = MetricLabel(self.tr("Range"), self.tr("Lower and upper limit; of the widest grid if several."))
        grid = QGridLayout()
        grid.setContentsMargins(3, 0, 0, 0)
        grid.setHorizontalSpacing(10)
        grid.setVerticalSpacing(5)
        metrics = (self.sqnr, self.mse, self.largest, self.clipped, self.scale, self.range)
        for index, metric in enumerate(metrics):
            grid.addWidget(metric, index // 2, index % 2)
        grid.setColumnStretch(0, 1)
        grid.setColumnStretch(1, 1)
        self.numbers_card.body.addLayout(grid)
        self.numbers_card.body.addStretch(1)

    # --- values in ---

    def show_layer(self, layer: LayerInfo | None) -> None:
        """Show which layer is looked at; None if there is none."""
        self._layer = layer
        self._pending = None
        if layer is None:
            self._view = None
            self.state.show_state(
                "layers", self.tr("No layer selected"), self.tr("Select a layer in the table to see its weights.")
            )
            self._pages.show_page(self.state)
            return
        self.weights_card.set_title(layer.name)
        shape = " × ".join(str(size) for size in layer.shape)
        self.weights_card.set_note(
            self.tr("{shape} · {number} weights").format(shape=shape, number=count(layer.parameters))
        )
        if self._view is None or self._view.layer != layer.name:
            self._view = None
            self.show_computing()

    def show_computing(self) -> None:
        """Show that the view of the current layer is being computed; what is drawn stays until it comes."""
        if self._view is not None:
            self.numbers_card.set_note(self.tr("updating …"))
            return
        name = self._layer.name if self._layer else ""
        self.state.show_busy("loader", self.tr("Computing"), name)
        self._pages.show_page(self.state)

    def show_failure(self, sentence: str) -> None:
        """Show why there is nothing to show."""
        self._view = None
        self.state.show_state(
            "circle-alert",
            self.tr("The weights could not be computed"),
            sentence,
            action=self.tr("Try again"),
            token="bad",
        )
        self._pages.show_page(self.state)

    def show_view(self, view: WeightView) -> None:
        """Show the weight of the current layer under its spec."""
        if self._layer is not None and view.layer != self._layer.name:
            return
        if self.histogram.is_dragging() or self.curve.is_dragging():
            self._pending = view
            return
        same = self._view is not None and self._view.layer == view.layer
        if not same or self._view is None or self._view.statistics is not view.statistics:
            self._coarse = None
        self._view = view
        self._pending = None
        self.histogram.show_float(rebin(view.statistics, BINS))
        self._draw(_exact(view), fit=True, keep_zoom=same)
        self._show_curve()
        self._explanation.setText(self._explain(view))
        self._explanation.set_help(self._explain_dragging(view))
        given = self._layer.dtype if self._layer is not None and self._layer.read_only else self.tr("float32")
        self._float_chip.set_text(given)
        self._quantized_chip.set_text(str(view.spec) if view.spec else self.tr("quantized"))
        self._quantized_chip.setVisible(self._is_quantized(view))
        self._grid_chip.setVisible(len(view.scales) > 0 or len(view.levels) > 0)
        self._pages.show_page(self._content)

    # --- drawing ---

    def _draw(self, quantized: _Quantized, *, fit: bool, keep_zoom: bool) -> None:
        view = self._view
        assert view is not None
        is_quantized = self._is_quantized(view)
        self.histogram.show_quantized(quantized.histogram if is_quantized else None)
        self.histogram.show_levels(quantized.levels)
        self.error_pages.show_page(self.error if is_quantized else self._no_error)
        self.error.show_error(quantized.error_histogram if is_quantized else None, quantized.step)
        if fit:
            if len(quantized.scales) and view.spec is not None:
                self.histogram.show_limits(quantized.low, quantized.high, symmetric=view.spec.symmetric)
            else:
                self.histogram.hide_limits()
            self.histogram.fit(keep_zoom=keep_zoom)
        else:
            self.histogram.fit_height()
        self._show_numbers(quantized)
        self._drawn = quantized
        self._show_limit()

    def show_error_page(self, key: str) -> None:
        """Turn the error card to a page: ``histogram`` or ``curve``."""
        self.error_card.show_page(key)
        self._show_curve()

    def _show_limit(self) -> None:
        view, drawn = self._view, self._drawn
        if self.error_card.page() != _CURVE or view is None or drawn is None:
            return
        if has_curve(view.spec) and len(drawn.scales) and self._is_quantized(view):
            self.curve.show_limit(max(-drawn.low, drawn.high), drawn.error.sqnr_db)
        else:
            self.curve.hide_limit()

    def _show_curve(self) -> None:
        """Draw the curve of the view; nothing is computed while its page is not seen."""
        view = self._view
        if self.error_card.page() != _CURVE or view is None:
            return
        if self._curves is None or self._curves[0] is not view:
            self._curves = (view, *self._curves_of(view))
        _, curve, common = self._curves
        possible = has_curve(view.spec) and self._is_quantized(view)
        self.curve_pages.show_page(self.curve if possible else self._no_curve)
        self.curve.show_error_curve(curve, common, largest_value(view.statistics))
        self._show_limit()
        self._on_mark_pointed(None)

    def _curves_of(self, view: WeightView) -> tuple[ErrorCurve | None, ErrorCurve | None]:
        """Return the curve with the marks, and that of one range for all groups where there are several."""
        spec = view.spec
        if spec is None or not has_curve(spec) or not self._is_quantized(view):
            return None, None
        if isinstance(spec.granularity, PerTensor):
            return view.curve or statistics_curve(view.statistics, spec), None
        whole = replace(
            spec,
            granularity=PerTensor(),
            double_quantization=False,
            scale_format="float32" if spec.scale_format == "e4m3" else spec.scale_format,
        )
        return view.curve, ErrorCurve(*error_curve(view.statistics, whole), ())

    def _show_numbers(self, quantized: _Quantized) -> None:
        view, error = self._view, quantized.error
        about = "" if quantized.exact else "≈ "
        if view is None or not self._is_quantized(view):
            for metric in (self.sqnr, self.mse, self.largest, self.clipped, self.scale, self.range):
                metric.show_value("–")
            given = self._layer is not None and self._layer.read_only
            self.numbers_card.set_note(self.tr("no float to compare with") if given else self.tr("not quantized"))
            self.error_card.set_page_note(_HISTOGRAM, "")
            return
        tone: Tone = "good" if error.sqnr_db >= GOOD_DB else "bad" if error.sqnr_db < BAD_DB else "warning"
        self.sqnr.show_value(about + decibel(error.sqnr_db), tone)
        self.mse.show_value(about + short(error.mse))
        self.largest.show_value(about + short(error.max_abs))
        self.clipped.show_value(about + percent(error.clipped))
        has_scale = len(quantized.scales) > 0
        self.scale.show_value(short(float(quantized.scales.max())) if has_scale else "–")
        low, high = quantized.low, quantized.high
        ends = f"± {short(high)}" if low == -high else f"{short(low, 2)} … {short(high, 2)}"
        self.range.show_value(ends if has_scale else "–")
        self.numbers_card.set_note("" if quantized.exact else self.tr("estimate"))
        self.error_card.set_page_note(
            _HISTOGRAM,
            self.tr("RMSE {rmse}").format(rmse=short(float(np.sqrt(error.mse)))) if error.mse else self.tr("no error"),
        )

    def _is_quantized(self, view: WeightView) -> bool:
        """Whether the weight is changed at all; layers of integer files and non-finite ones stay as they are."""
        kept = self._layer is not None and (self._layer.read_only or not self._layer.finite)
        return view.spec is not None and not kept

    def _explain(self, view: WeightView) -> str:
        spec = view.spec
        if self._layer is not None and self._layer.read_only:
            return self.tr("Quantized in the file already: {format}").format(format=self._layer.dtype)
        if self._layer is not None and not self._layer.finite:
            return self.tr("Some weights are not finite; the layer stays float32")
        if spec is None:
            return self.tr("The layer stays float32")
        if isinstance(spec.format, CodebookFormat):
            return self.tr("{number} levels fitted to the weights").format(number=spec.format.size)
        if not len(view.scales):
            return self.tr("{format} needs no scale; its steps are finer near 0").format(format=spec)
        widest = int(np.argmax(view.scales))
        ratio = float(view.scales.max() / view.scales.min())
        match spec.granularity:
            case PerChannel():
                text = self.tr("Grid of the widest of {number} channels, no. {index}; the finest is {ratio}× finer")
            case PerGroup() | PerBlock():
                text = self.tr("Grid of the widest of {number} groups; the finest is {ratio}× finer")
            case _ if not spec.is_integer:
                text = self.tr("One grid for all weights")
            case _:
                text = self.tr("One grid for all weights, zero point {zero_point}")
        return text.format(
            index=widest,
            number=count(len(view.scales)),
            ratio=short(ratio, 2),
            zero_point=int(view.zero_points[0]) if len(view.zero_points) else 0,
        )

    def _explain_dragging(self, view: WeightView) -> str:
        if not len(view.scales):
            return ""
        if len(view.scales) == 1:
            return self.tr("Drag a dashed limit to set the range by hand.")
        return self.tr(
            "Every channel or group has its own grid; the dotted lines and the dashed limits are those of the widest.\n"
            "Dragging a limit sets one range for all of them."
        )

    # --- what the user does ---

    def _on_limits_dragged(self, low: float, high: float) -> None:
        view = self._view
        if view is not None and view.spec is not None:
            if self._coarse is None:
                self._coarse = coarsened(view.statistics)
            self._draw(_estimate(self._coarse, view.spec, low, high), fit=False, keep_zoom=True)
        self.limits_dragged.emit(low, high)

    def _on_threshold_dragged(self, threshold: float) -> None:
        view = self._view
        if view is None or view.spec is None:
            return
        low, high = range_at(view.statistics, view.spec, threshold)
        self.histogram.show_limits(low, high, symmetric=view.spec.symmetric)
        self._on_limits_dragged(low, high)

    def _on_threshold_chosen(self, _threshold: float) -> None:
        self._on_limits_chosen(*self.histogram.limits())

    def _on_mark_pointed(self, mark: CurveMark | None) -> None:
        _, curve, common = self._curves or (None, None, None)
        if mark is not None and curve is not None:
            text = mark_words(mark, curve)
        elif curve is None and common is None:
            text = self.tr("no limit to choose")
        elif curve is None:
            text = self.tr("measuring groups …")
        elif common is not None:
            text = self.tr("dotted: one range for all")
        else:
            text = ""
        self.error_card.set_page_note(_CURVE, text)

    def _on_page_turned(self, key: str) -> None:
        self._show_curve()
        self.error_page_turned.emit(key)

    def _on_limits_chosen(self, low: float, high: float) -> None:
        self.limits_chosen.emit(low, high)
        pending, self._pending = self._pending, None
        if pending is not None and np.allclose((pending.low, pending.high), (low, high), rtol=1e-6, atol=0):
            self.show_view(pending)

    def _on_zoomed(self, low: float, high: float) -> None:
        if self._view is None:
            return
        statistics = self._view.statistics
        if self.histogram.is_zoomed():
            low, high = max(low, statistics.minimum), min(high, statistics.maximum)
            if low < high:
                self.histogram.show_detail(rebin(statistics, BINS, low, high))
        else:
            self.histogram.show_detail(rebin(statistics, BINS))

    def _on_scale_chosen(self, log: object) -> None:
        self.histogram.set_log(bool(log))
        self.error.set_log(bool(log))

    def _on_series_toggled(self, _shown: object) -> None:
        self.histogram.set_series_visible(
            float_=self._float_chip.isChecked(),
            quantized=self._quantized_chip.isChecked(),
            grid=self._grid_chip.isChecked(),
        )


def grid_levels(fmt: IntFormat, scale: float, zero_point: int) -> Array:
    """Return the values of one group's grid, shape (levels,); empty where they are too many to draw."""
    if fmt.quant_max - fmt.quant_min >= MOST_LEVELS:
        return np.zeros(0)
    return (np.arange(fmt.quant_min, fmt.quant_max + 1) - zero_point) * scale


def range_of(view: WeightView) -> tuple[float, float]:
    """Return the limits of the widest range: the ones set by hand, or those that the widest scale follows from."""
    spec = view.spec
    assert spec is not None
    fmt = spec.format
    if isinstance(spec.range_estimator, FixedRange):
        low, high = spec.range_estimator.low, spec.range_estimator.high
        return (-max(-low, high), max(-low, high)) if spec.symmetric else (low, high)
    if not spec.symmetric or not isinstance(fmt, IntFormat):
        # Of levels that are not even, the limits are the outermost ones.
        return view.low, view.high
    middle = 0 if fmt.signed else 1 << (fmt.bits - 1)
    steps = (fmt.quant_max - fmt.quant_min) / 2 if spec.full_range else fmt.quant_max - middle
    absmax = float(view.scales.max()) * steps
    return -absmax, absmax


def _on_levels(histogram: Histogram, fmt: IntFormat, scale: float, zero_point: int) -> Histogram:
    """Return the counts by level, where the bins of `histogram` are finer than the levels."""
    widths = np.diff(histogram.edges)
    if fmt.quant_max - fmt.quant_min >= MOST_LEVELS or float(widths.max()) > scale:
        return histogram
    centers = (histogram.edges[:-1] + histogram.edges[1:]) / 2
    low, high = fmt.quant_min - zero_point, fmt.quant_max - zero_point
    index = np.clip(np.rint(centers / scale), low, high).astype(np.intp) - low
    counts = np.bincount(index, histogram.counts, minlength=high - low + 1)
    return Histogram((np.arange(low, high + 2) - 0.5) * scale, counts)


def _exact(view: WeightView) -> _Quantized:
    spec = view.spec
    low, high, levels, step, histogram = view.low, view.high, view.levels, None, view.quantized
    if spec is not None and len(view.scales):
        low, high = range_of(view)
    if spec is not None and isinstance(spec.format, IntFormat) and len(view.scales):
        widest = int(np.argmax(view.scales))
        grid = float(view.scales[widest]), int(view.zero_points[widest])
        levels = grid_levels(spec.format, *grid)
        if len(view.scales) == 1:
            step = grid[0]
            histogram = _on_levels(histogram, spec.format, *grid)
    return _Quantized(histogram, view.error_histogram, view.error, low, high, view.scales, levels, step, exact=True)


def _estimate(statistics: TensorStatistics, spec: QuantizerSpec, low: float, high: float) -> _Quantized:
    """Return what a range set by hand would give, from the statistics alone; the same range for every group."""
    fmt = spec.format
    assert isinstance(fmt, IntFormat | MinifloatFormat | TableFormat)
    qparams = choose_grid(np.array([low]), np.array([high]), spec, fmt)
    scale = float(qparams.scale[0])
    if isinstance(fmt, IntFormat):
        levels, step = grid_levels(fmt, scale, int(qparams.zero_point[0])), scale
    else:
        levels, step = quantized_levels(qparams, fmt), None
    return _Quantized(
        quantized_levels_histogram(statistics, qparams, fmt),
        estimate_error_histogram(statistics, qparams, fmt),
        estimate_error_with(statistics, qparams, fmt),
        low,
        high,
        qparams.scale,
        levels,
        step,
        exact=False,
    )


def _remark(text: str) -> QLabel:
    """Return what stands in the place of a plot that has nothing to show."""
    label = QLabel(text)
    label.setProperty("role", "note")
    label.setAlignment(Qt.AlignmentFlag.AlignCenter)
    label.setWordWrap(True)
    return label
