"""Quality against size: every configuration tried, and the frontier of a mix to be dragged along."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import numpy as np
from PySide6.QtCore import QPoint, Qt, QTimer, Signal
from PySide6.QtGui import QAction, QResizeEvent
from PySide6.QtWidgets import (
    QHBoxLayout,
    QLabel,
    QMenu,
    QPushButton,
    QSizePolicy,
    QSlider,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from quantgui.gui.icons import set_icon
from quantgui.gui.mix_words import answer, point_words
from quantgui.gui.numbers import count
from quantgui.gui.plots.trade_off import Frontier, Points, Spot, TradeOffPlot
from quantgui.gui.quality import metric_ends, metric_name, metric_unit, score_text, value_text
from quantgui.gui.trade_off_values import (
    Limit,
    Present,
    TradeOff,
    best_for_size,
    outcome,
    place_for,
    point_value,
)
from quantgui.gui.widgets.card import Card, LegendChip, Pages, Symbol
from quantgui.gui.widgets.labels import ElidedLabel, set_style
from quantgui.gui.widgets.progress import ProgressRow
from quantgui.gui.widgets.state_page import StatePage
from quantgui.results import Array, Score
from quantgui.session.jobs import Job
from quantgui.spec.sweep import SHARES

REST_MS = 700
"""How long the keys must rest before the next one begins a new undo step."""
_UNKNOWN = Score(math.nan, 0.0, 0)


class TradeOffPanel(QWidget):
    """The trade-off between cost and quality.

    Signals:
        point_picked: index of the configuration tried to which the user wants to return.
        frontier_dragged: index of the frontier's point to which the user has dragged; many in a row.
        frontier_released: the hand rests.
        limit_chosen: the `Limit` the user has dragged to, after the hand has let go.
        data_requested: the user wants to open data.
        mix_requested: the user wants to look for a mix.
        cancel_requested: the search is to be stopped.
        mix_accepted: the answer is to become the configuration.
        pin_requested: ``A`` or ``B``, and the `Spot` to be pinned; None for the present configuration.
        unpin_requested: ``A`` or ``B``.
        comparison_requested: the two pinned configurations are to be compared.
    """

    point_picked = Signal(int)
    frontier_dragged = Signal(int)
    frontier_released = Signal()
    limit_chosen = Signal(object)
    data_requested = Signal()
    mix_requested = Signal()
    cancel_requested = Signal()
    mix_accepted = Signal()
    pin_requested = Signal(str, object)
    unpin_requested = Signal(str)
    comparison_requested = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("trade_off")
        self.setAccessibleName(self.tr("Trade-off"))
        self._shown = TradeOff()
        self._present = Present()
        self._finite = np.zeros(0, np.intp)
        self._limit: Limit | None = None
        self._pinned = (False, False)
        self._job: Job | None = None
        self._rest = QTimer(self, singleShot=True, interval=REST_MS)
        self._rest.timeout.connect(self.frontier_released)
        self._make_plot()
        self._make_header()
        self._make_rows()
        self.state = StatePage()
        self._pages = Pages(self.plot, self.state)
        self._lay_out()
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.card)
        self._connect()
        self.show_trade_off(TradeOff())

    # --- in ------------------------------------------------------------------------------------------------------

    def show_trade_off(self, shown: TradeOff) -> None:
        """Show what has been tried and found. Values that are not finite cannot be placed and are counted only."""
        self._shown = shown
        costs = np.array([point.cost for point in shown.points])
        values = np.array([point.score.value for point in shown.points])
        self._finite = np.flatnonzero(np.isfinite(values) & np.isfinite(costs))
        frontier = self._frontier()
        known = bool(len(self._finite)) or bool(np.isfinite(frontier.values).any())
        self._show_chips(mix=bool(len(frontier)))
        self._show_slider(len(frontier))
        self._show_outcome()
        if not known:
            self._show_nothing()
            return
        self._show_page(self.plot)
        unit = shown.scale.unit
        stderrs = np.array([point.score.stderr for point in shown.points])
        tried = Points(
            costs[self._finite] / unit,
            values[self._finite],
            np.nan_to_num(stderrs[self._finite], posinf=0.0) if len(self._finite) else np.zeros(0),
        )
        front = best_for_size(tried.costs, tried.values if shown.higher_is_better else -tried.values)
        self.plot.set_unit("bottom", shown.scale.axis_unit())
        self.plot.set_label("bottom", shown.scale.axis())
        self.plot.set_label("left", metric_name(shown.metric))
        self.plot.set_unit("left", metric_unit(shown.metric))
        shares = shown.metric in SHARES
        self.plot.set_meaning("left", factor=100.0 if shares else 1.0, ends=metric_ends(shown.metric))
        self.plot.show_points(tried, front, frontier)
        self._show_chosen()
        self._show_limit()
        self._show_present()

    def show_present(self, present: Present) -> None:
        """Show where the present configuration is; costs little, so it may come with every move of the mouse."""
        self._present = present
        self._show_present()

    def show_limit(self, limit: Limit | None) -> None:
        """Show what the mix must keep."""
        self._limit = limit
        self._show_limit()

    def show_pins(self, first: Present | None, second: Present | None) -> None:
        """Show where the pinned configurations A and B are; None for one that is not set."""
        self._pinned = (first is not None, second is not None)
        for side, place in (("A", first), ("B", second)):
            cost, value, _ = (None, None, False) if place is None else self._place(place)
            self.plot.show_pin(side, cost, value)
        both = all(self._pinned)
        self.compare.setToolTip(self._compare_help())
        self._actions["compare"].setEnabled(both)
        self._actions["unpin_A"].setEnabled(self._pinned[0])
        self._actions["unpin_B"].setEnabled(self._pinned[1])

    def show_needs_data(self) -> None:
        """Say that quality is measured on data, and offer to open some."""
        self._shown, self._finite = TradeOff(), np.zeros(0, np.intp)
        self.state.show_state(
            "database",
            self.tr("The trade-off needs data"),
            self.tr("The quality of every configuration you try is measured on samples."),
            action=self.tr("Open data…"),
        )
        self._show_page(self.state)

    def show_job(self, job: Job | None) -> None:
        """Show how far the search for a mix is, or how it has ended."""
        running = job is not None and job.is_active
        self.progress.setVisible(running)
        self._job = job
        if job is not None and running:
            self.progress.set_label(self.tr("Finding a mix"))
            progress = job.progress
            self.progress.show_progress(progress.done, progress.total, progress.label, progress.seconds_left)
        self._show_outcome()

    # --- out: what a test or the presenter may ask ---------------------------------------------------------------

    def sentence(self) -> str:
        """Return what is said of the search."""
        return "" if self._sentence.isHidden() else self._sentence.text()

    def place_for(self, limit: Limit) -> int | None:
        """Return the best point of the frontier that keeps `limit`, None if none does."""
        return place_for(self._shown.mix, limit)

    # --- parts ---------------------------------------------------------------------------------------------------

    def _make_plot(self) -> None:
        self.plot = TradeOffPlot(self.tr("Quality against size"), "", "")
        self.plot.setToolTip(
            self.tr(
                "Every configuration evaluated so far, with standard error, and the frontier of the mix.\n"
                "Click a point to return to it; drag along the line to move the whole network along the frontier.\n"
                "Keys: arrows choose a point, Enter returns to it, A and B pin it for comparison."
            )
        )

    def _make_header(self) -> None:
        self.card = Card(self.tr("Trade-off"))
        self._chips: dict[str, LegendChip] = {}
        chips: tuple[tuple[str, str, Symbol, str, str], ...] = (
            ("tried", "muted", "dot", self.tr("tried"), self.tr("Evaluated on the data; bars are standard errors.")),
            (
                "best",
                "float_",
                "dot",
                self.tr("best for its size"),
                self.tr("Of those tried, no smaller or equally small one is better."),
            ),
            (
                "predicted",
                "float_",
                "line",
                self.tr("predicted"),
                self.tr("The frontier if the damages of single layers add up. Drag along it."),
            ),
            (
                "measured",
                "text",
                "square",
                self.tr("measured"),
                self.tr("Points of the frontier really evaluated; a dotted line leads to what was predicted."),
            ),
            (
                "chosen",
                "good",
                "diamond",
                self.tr("answer"),
                self.tr("The best mix that keeps the limit, after refinement if there was any."),
            ),
            (
                "present",
                "quantized",
                "star",
                self.tr("present"),
                self.tr("The configuration in use; hollow where its quality is only predicted."),
            ),
        )
        for name, token, symbol, text, help_text in chips:
            chip = self.card.add_chip(token, text, symbol=symbol)
            chip.setToolTip(f"{text}: {help_text}")
            chip.let_shrink()
            self._chips[name] = chip
        self._make_menu()
        self.mix = QToolButton()
        self.mix.setText(" " + self.tr("Find mix"))
        self.mix.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        self.mix.setAccessibleName(self.tr("Find mix"))
        self.mix.setToolTip(self.tr("Find the best format for each layer within a limit of size, quality or time."))
        self.mix.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        set_icon(self.mix, "chart-scatter")
        self.card.header.addWidget(self.compare)
        self.card.header.addWidget(self.mix)

    def _make_menu(self) -> None:
        self.compare = QToolButton()
        self.compare.setAccessibleName(self.tr("Compare two configurations"))
        self.compare.setText(" " + self.tr("A | B"))
        self.compare.setToolTip(self._compare_help())
        self.compare.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)
        self.compare.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        self.compare.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        set_icon(self.compare, "git-compare-arrows")
        menu = QMenu(self.compare)
        menu.setToolTipsVisible(True)
        self._actions: dict[str, QAction] = {}
        for name, text in (
            ("pin_A", self.tr("Pin the present configuration as A")),
            ("pin_B", self.tr("Pin the present configuration as B")),
            ("compare", self.tr("Compare A and B…")),
            ("unpin_A", self.tr("Unpin A")),
            ("unpin_B", self.tr("Unpin B")),
        ):
            self._actions[name] = menu.addAction(text)
        self.compare.setMenu(menu)
        self._actions["pin_A"].triggered.connect(lambda: self.pin_requested.emit("A", None))
        self._actions["pin_B"].triggered.connect(lambda: self.pin_requested.emit("B", None))
        self._actions["compare"].triggered.connect(self.comparison_requested)
        self._actions["unpin_A"].triggered.connect(lambda: self.unpin_requested.emit("A"))
        self._actions["unpin_B"].triggered.connect(lambda: self.unpin_requested.emit("B"))

    def _compare_help(self) -> str:
        text = self.tr("Pin two configurations as A and B, compare them layer by layer, and flip between them.")
        match self._pinned:
            case True, True:
                return text + "\n" + self.tr("Both are pinned.")
            case True, False:
                return text + "\n" + self.tr("A is pinned.")
            case False, True:
                return text + "\n" + self.tr("B is pinned.")
            case _:
                return text

    def _make_rows(self) -> None:
        self.slider = QSlider(Qt.Orientation.Horizontal)
        self.slider.setAccessibleName(self.tr("Along the frontier"))
        self.slider.setToolTip(
            self.tr(
                "Move the whole network along the frontier, from cheap to good: arrow keys, Page up and down, Home."
            )
        )
        self.slider.setMinimumWidth(140)
        self.slider.setMaximumWidth(420)
        self.slider.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.info = ElidedLabel()
        self.info.setProperty("role", "note")
        self.progress = ProgressRow("")
        self.progress.hide()
        self._sentence = QLabel()
        self._sentence.setProperty("role", "note")
        self._sentence.setWordWrap(True)
        self._sentence.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self._sentence.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Preferred)
        self.use = QPushButton(self.tr("Use it"))
        self.use.setAccessibleName(self.tr("Use the mix"))
        self.use.setToolTip(self.tr("Make the answer the configuration, in one undo step."))

    def _lay_out(self) -> None:
        column = self.card.body
        column.setSpacing(3)
        column.addWidget(self._pages, 1)
        row = QHBoxLayout()
        row.setContentsMargins(4, 0, 2, 0)
        row.setSpacing(10)
        row.addWidget(self.slider, 1)
        row.addWidget(self.info, 2)
        column.addLayout(row)
        self.progress.setContentsMargins(4, 0, 2, 0)
        column.addWidget(self.progress)
        last = QHBoxLayout()
        last.setContentsMargins(4, 0, 2, 0)
        last.setSpacing(8)
        last.addWidget(self._sentence, 1)
        last.addWidget(self.use, 0, Qt.AlignmentFlag.AlignVCenter)
        column.addLayout(last)

    def _connect(self) -> None:
        self.plot.spot_hovered.connect(self._on_hovered)
        self.plot.spot_clicked.connect(self._on_clicked)
        self.plot.menu_requested.connect(self._on_menu)
        self.plot.pin_keyed.connect(self._on_pin_keyed)
        self.plot.frontier_dragged.connect(self._on_dragged)
        self.plot.frontier_released.connect(self.frontier_released)
        self.plot.limit_dragged.connect(self._on_limit_dragged)
        self.plot.limit_released.connect(self._on_limit_released)
        self.slider.valueChanged.connect(self._on_slider)
        self.slider.sliderReleased.connect(self._on_slider_released)
        self.state.action_triggered.connect(self.data_requested)
        self.mix.clicked.connect(self.mix_requested)
        self.progress.cancelled.connect(self.cancel_requested)
        self.use.clicked.connect(self.mix_accepted)

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        self._fit_header()

    # --- showing -------------------------------------------------------------------------------------------------

    def _frontier(self) -> Frontier:
        points = () if self._shown.mix is None else self._shown.mix.points
        unit = self._shown.scale.unit
        measured = [_UNKNOWN if point.measured is None else point.measured for point in points]
        return Frontier(
            np.array([point.cost / unit for point in points]),
            _only_finite([point.predicted for point in points]),
            _only_finite([score.value for score in measured]),
            _only_finite([score.stderr for score in measured]),
        )

    def _show_chips(self, *, mix: bool) -> None:
        for name in ("predicted", "measured"):
            self._chips[name].setVisible(mix)
        self._chips["best"].setVisible(not mix)
        ready = self._shown.mix
        self._chips["chosen"].setVisible(ready is not None and answer(ready) is not None)
        self._fit_header()

    def _fit_header(self) -> None:
        """Keep the words of the legend; those of the buttons, which the toolbar has too, give way first."""
        for style in (Qt.ToolButtonStyle.ToolButtonTextBesideIcon, Qt.ToolButtonStyle.ToolButtonIconOnly):
            for button in (self.compare, self.mix):
                button.setToolButtonStyle(style)
            if self.card.fit_legend():
                return

    def _show_slider(self, points: int) -> None:
        self.slider.blockSignals(True)
        self.slider.setRange(0, max(points - 1, 0))
        self.slider.setPageStep(max(points // 10, 1))
        self.slider.blockSignals(False)

    def _show_outcome(self) -> None:
        said = outcome(self._shown.mix, self._job, self._shown.scale)
        self._sentence.setText(said.sentence)
        set_style(self._sentence, "tone", said.tone)
        self._sentence.setVisible(bool(said.sentence))
        self.use.setVisible(said.is_usable)

    def _show_nothing(self) -> None:
        if self._shown.points:
            heading = self.tr("Nothing to compare yet")
            sentence = self.tr("The outputs equal those of the float network; give some layers fewer bits.")
        else:
            heading = self.tr("Nothing tried yet")
            sentence = self.tr("Every configuration you evaluate appears here, quality against size.")
        self.state.show_state("chart-scatter", heading, sentence)
        self._show_page(self.state)

    def _show_page(self, page: QWidget) -> None:
        self._pages.show_page(page)
        self.info.setVisible(page is self.plot)
        self.slider.setVisible(page is self.plot and self.slider.maximum() > 0)

    def _show_chosen(self) -> None:
        ready = self._shown.mix
        point = None if ready is None else answer(ready)
        if point is None:
            self.plot.show_chosen(None, None)
        else:
            value = point_value(point)
            self.plot.show_chosen(point.cost / self._shown.scale.unit, value if math.isfinite(value) else None)

    def _show_limit(self) -> None:
        limit, scale = self._limit, self._shown.scale
        if limit is None or self._shown.mix is None:
            self.plot.show_limit(None)
        elif limit.side == "cost":
            text = self.tr("limit {cost}").format(cost=scale.text(limit.value))
            self.plot.show_limit("cost", limit.value / scale.unit, text)
        else:
            text = self.tr("limit {value}").format(value=value_text(limit.value, self._shown.metric))
            self.plot.show_limit("quality", limit.value, text)

    def _place(self, present: Present) -> tuple[float | None, float | None, bool]:
        """Return cost and value in the units of the axes, and whether the value is measured."""
        shown, unit = self._shown, self._shown.scale.unit
        if present.tried is not None and present.tried < len(shown.points):
            point = shown.points[present.tried]
            if math.isfinite(point.cost) and math.isfinite(point.score.value):
                return point.cost / unit, point.score.value, True
        if shown.mix is not None and present.frontier is not None and present.frontier < len(shown.mix.points):
            mixed = shown.mix.points[present.frontier]
            value = point_value(mixed)
            return mixed.cost / unit, value if math.isfinite(value) else None, mixed.measured is not None
        cost = present.cost / unit if math.isfinite(present.cost) else None
        return cost, present.value if math.isfinite(present.value) else None, present.is_measured

    def _show_present(self) -> None:
        cost, value, measured = self._place(self._present)
        self.plot.show_present(cost, value, measured=measured)
        if self._present.frontier is not None and not self.slider.isSliderDown():
            self.slider.blockSignals(True)
            self.slider.setValue(self._present.frontier)
            self.slider.blockSignals(False)
        self._show_info(None)

    def _show_info(self, spot: Spot | None) -> None:
        text = self._words(spot) if spot is not None else self._present_words()
        self.info.setText(text)
        self.slider.setAccessibleDescription(text)

    def _words(self, spot: Spot) -> str:
        if spot.kind == "tried":
            return self._tried_words(int(self._finite[spot.index]))
        return self._frontier_words(spot.index)

    def _present_words(self) -> str:
        present, shown = self._present, self._shown
        tried = present.tried is not None and present.tried < len(shown.points)
        on_frontier = shown.mix is not None and present.frontier is not None
        if on_frontier and present.frontier is not None:
            return self._frontier_words(present.frontier)
        if tried and present.tried is not None:
            return self._tried_words(present.tried)
        return self.tr("{number} tried").format(number=count(len(shown.points)))

    def _tried_words(self, index: int) -> str:
        point, shown = self._shown.points[index], self._shown
        return self.tr("{label}: {cost}, {metric} {value}").format(
            label=point.label,
            cost=shown.scale.text_with_share(point.cost),
            metric=metric_name(shown.metric),
            value=score_text(point.score, shown.metric),
        )

    def _frontier_words(self, place: int) -> str:
        shown = self._shown
        if shown.mix is None or place >= len(shown.mix.points):
            return ""
        point = shown.mix.points[place]
        return self.tr("{cost}, {words}").format(
            cost=shown.scale.text_with_share(point.cost), words=point_words(point, shown.mix.mix.sweep.metric)
        )

    # --- out -----------------------------------------------------------------------------------------------------

    def _on_hovered(self, spot: Spot | None) -> None:
        self.plot.mark(spot)
        if self._pages.page() is self.plot:
            self._show_info(spot)

    def _on_clicked(self, spot: Spot) -> None:
        if spot.kind == "tried":
            self.point_picked.emit(int(self._finite[spot.index]))
        else:
            self.frontier_dragged.emit(spot.index)
            self.frontier_released.emit()

    def _on_dragged(self, place: int) -> None:
        if place != self._present.frontier:
            self.frontier_dragged.emit(place)

    def _on_slider(self, place: int) -> None:
        self.frontier_dragged.emit(place)
        if not self.slider.isSliderDown():
            self._rest.start()

    def _on_slider_released(self) -> None:
        self._rest.stop()
        self.frontier_released.emit()

    def _on_limit_dragged(self, value: float) -> None:
        if self._limit is None:
            return
        unit = self._shown.scale.unit if self._limit.side == "cost" else 1.0
        self._limit = Limit(self._limit.side, value * unit)
        self._show_limit()
        place = self.place_for(self._limit)
        if place is None:
            self.info.setText(self.tr("No mix keeps this limit."))
        elif place != self._present.frontier:
            self.frontier_dragged.emit(place)

    def _on_limit_released(self) -> None:
        if self._limit is not None:
            self.frontier_released.emit()
            self.limit_chosen.emit(self._limit)

    def _on_pin_keyed(self, side: str) -> None:
        self.pin_requested.emit(side, self._told(self.plot.marked))

    def _on_pin_chosen(self, side: str, spot: Spot | None) -> None:
        self.pin_requested.emit(side, spot)

    def _told(self, spot: Spot | None) -> Spot | None:
        """Return a spot with the index among all points, those that are not finite included."""
        return Spot("tried", int(self._finite[spot.index])) if spot is not None and spot.kind == "tried" else spot

    def _on_menu(self, spot: Spot | None, where: QPoint) -> None:
        menu = self.context_menu(spot)
        menu.aboutToHide.connect(menu.deleteLater)
        menu.popup(where)

    def context_menu(self, spot: Spot | None) -> QMenu:
        """Return the menu of a spot, or of the present configuration."""
        menu = QMenu(self)
        if spot is not None:
            menu.addAction(self.tr("Return to {words}").format(words=self._words(spot)), lambda: self._on_clicked(spot))
            menu.addSeparator()
        what = self.tr("this") if spot is not None else self.tr("the present configuration")
        told = self._told(spot)
        for side in ("A", "B"):
            action = menu.addAction(self.tr("Pin {what} as {side}").format(what=what, side=side))
            action.triggered.connect(partial(self._on_pin_chosen, side, told))
        menu.addSeparator()
        menu.addActions([self._actions[name] for name in ("compare", "unpin_A", "unpin_B")])
        return menu


def _only_finite(values: Sequence[float]) -> Array:
    array = np.array(values, np.float64)
    array[~np.isfinite(array)] = np.nan
    return array
