"""Carries what has been tried, and the frontier of a mix, between session and window."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import replace

from PySide6.QtCore import QObject, Signal

from quantgui.errors import SpecError
from quantgui.gui.dialogs.find_mix import FindMixDialog
from quantgui.gui.mix_words import CostScale, answer, configuration_name
from quantgui.gui.panels.trade_off import TradeOffPanel
from quantgui.gui.plots.trade_off import Spot
from quantgui.gui.trade_off_values import Limit, Present, TradeOff, TriedPoint, outcome
from quantgui.gui.widgets.front import bring_to_front
from quantgui.results import Evaluation, MixPoint, MixReady, Score
from quantgui.session.document import Side
from quantgui.session.jobs import Job
from quantgui.session.session import Session
from quantgui.session.sizes import bit_operations
from quantgui.spec.config import QuantConfig
from quantgui.spec.mix import COST_KINDS, CostKind

TOPIC = "mix"
_NOT_PLACED = Score(math.nan, 0.0, 0)


class TradeOffPresenter(QObject):
    """Connects `Session` with the trade-off panel and the search for a mix.

    Signals:
        data_requested: the user wants to open data.
    """

    data_requested = Signal()

    def __init__(self, session: Session, panel: TradeOffPanel, parent: QObject) -> None:
        super().__init__(parent)
        self._session = session
        self._panel = panel
        self._drags = 0
        self._limit: Limit | None = None
        self._mix: MixReady | None = None
        self._by_bytes: dict[int, list[int]] = {}
        self._dragged: tuple[QuantConfig, int] | None = None
        self._shown = TradeOff()
        self.dialog: FindMixDialog | None = None
        self._listen_to_session()
        self._listen_to_panel()
        self._show_all()

    def _listen_to_session(self) -> None:
        session = self._session
        session.network_opened.connect(self._on_network)
        session.network_closed.connect(self._on_network)
        session.data_opened.connect(self._show_all)
        session.config_changed.connect(self._on_config_changed)
        session.selection_changed.connect(self._show_selection)
        session.evaluation_ready.connect(self._show_points)
        session.mix_ready.connect(self._on_mix)
        session.pins_changed.connect(self._show_pins)
        session.target_changed.connect(lambda _: self._show_dialog())
        session.job_changed.connect(self._on_job)

    def _listen_to_panel(self) -> None:
        panel, session = self._panel, self._session
        panel.point_picked.connect(self._on_point_picked)
        panel.frontier_dragged.connect(self._on_dragged)
        panel.frontier_released.connect(self._on_released)
        panel.limit_chosen.connect(self._on_limit_chosen)
        panel.data_requested.connect(self.data_requested)
        panel.mix_requested.connect(self.find_mix)
        panel.cancel_requested.connect(lambda: session.cancel(TOPIC))
        panel.mix_accepted.connect(self.use_mix)
        panel.pin_requested.connect(self._on_pin_requested)

    # --- what the user wants -------------------------------------------------------------------------------------

    def find_mix(self) -> None:
        """Show the dialog that looks for a mix."""
        if self._session.summary is None:
            return
        if self.dialog is None:
            self.dialog = FindMixDialog(self._panel.window())
            self.dialog.start_requested.connect(self._on_start)
            self.dialog.cancel_requested.connect(lambda: self._session.cancel(TOPIC))
            self.dialog.accepted_mix.connect(self.use_mix)
            self.dialog.data_requested.connect(self.data_requested)
            self.dialog.controls.changed.connect(self._show_reason)
        self._show_dialog()
        bring_to_front(self.dialog)

    def use_mix(self) -> None:
        """Make the answer of the search the configuration, in one undo step."""
        point = None if self._mix is None else answer(self._mix)
        if point is not None:
            config = self._named(point)
            self._session.set_config(config, self.tr("Use the {name}").format(name=config.name))

    def _on_start(self) -> None:
        question = None if self.dialog is None else self.dialog.controls.asked()
        if question is None or self._session.summary is None:
            return
        selected = {
            layer.name: self._session.spec_for(layer.name)
            for layer in self._session.selected_layers
            if self._session.is_editable(layer.name)
        }
        try:
            mix = question.mix(self._float_cost(question.cost), selected)
        except SpecError as error:
            assert self.dialog is not None
            self.dialog.show_outcome(str(error), "bad", usable=False)
            return
        target = self._session.target
        if target.runs:
            offered = {mix.sweep.candidate("", spec) for spec in mix.sweep.specs}
            mix = replace(mix, excluded=target.excluded(self._session.summary.layers, offered))
        self._session.find_mix(mix)

    def _on_point_picked(self, index: int) -> None:
        tried = self._session.tried
        if 0 <= index < len(tried):
            text = self.tr("Return to {label}").format(label=configuration_name(tried[index].config))
            self._session.set_config(tried[index].config, text)

    def _on_dragged(self, place: int) -> None:
        if self._mix is None or not 0 <= place < len(self._mix.points):
            return
        config = self._named(self._mix.points[place])
        self._dragged = config, place
        text = self.tr("Drag to the {name}").format(name=config.name)
        self._session.drag_config(config, text, merge_key=f"frontier {self._drags}")

    def _on_released(self) -> None:
        self._drags += 1

    def _on_limit_chosen(self, limit: Limit) -> None:
        self._limit = limit
        if self.dialog is None or self._mix is None:
            return
        question = self.dialog.controls.asked()
        if question is None or question.cost != self._mix.mix.cost:
            return
        if limit.side == "quality" and question.kind == "sqnr":
            self.dialog.controls.show_limit(limit.value)
        elif limit.side == "cost" and question.kind in ("share", "bytes", "bops", "latency"):
            whole = 1.0 if question.kind == "bytes" else self._float_cost(question.cost)
            self.dialog.controls.show_limit(limit.value / whole)

    def _on_pin_requested(self, side: Side, spot: Spot | None) -> None:
        config = self._session.config
        if spot is not None and spot.kind == "tried" and spot.index < len(self._session.tried):
            config = self._session.tried[spot.index].config
        elif spot is not None and spot.kind == "frontier" and self._mix is not None:
            config = self._named(self._mix.points[spot.index])
        self._session.pin(side, config)

    # --- what the session says -----------------------------------------------------------------------------------

    def _on_network(self, _: object = None) -> None:
        self._panel.show_job(None)
        if self.dialog is not None:
            self.dialog.close()
        self._show_all()

    def _on_config_changed(self, changed: frozenset[str]) -> None:
        if changed:
            self._show_present()
        else:
            # The metric is another one.
            self._show_all()

    def _on_mix(self, _: object) -> None:
        self._show_points()
        self._show_outcome()

    def _on_job(self, job: Job) -> None:
        if job.topic == TOPIC:
            self._panel.show_job(job)
            if self.dialog is not None:
                self.dialog.show_job(job)
                self._show_outcome()

    # --- showing the plot ----------------------------------------------------------------------------------------

    def _show_all(self, _: object = None) -> None:
        session = self._session
        self._shown = TradeOff()
        if not session.tried and session.mix is None and session.summary is not None and session.data is None:
            self._take_mix(None)
            self._panel.show_needs_data()
        else:
            self._show_points()
        self._show_pins()
        self._show_dialog()

    def _show_points(self, _: object = None) -> None:
        session, shown = self._session, self._shown
        if session.data is None and session.summary is not None:
            return
        self._take_mix(session.mix)
        points, metric, better = self._tried_points()
        kind = "bytes" if self._mix is None else self._mix.mix.cost
        costs = [point.cost for point in points if math.isfinite(point.cost)]
        if self._mix is not None:
            costs += [point.cost for point in self._mix.points]
        scale = CostScale(kind, self._float_cost(kind), max(costs, default=0.0))
        fresh = TradeOff(points, metric, better, scale, self._mix)
        same = (shown.points, shown.metric, shown.scale) == (fresh.points, fresh.metric, fresh.scale)
        self._panel.show_limit(self._limit)
        if not same or shown.mix is not fresh.mix or not points:
            self._shown = fresh
            self._panel.show_trade_off(fresh)
            self._show_pins()
        self._show_present()

    def _take_mix(self, ready: MixReady | None) -> None:
        if ready is self._mix:
            return
        if ready is None or self._mix is None or ready.mix != self._mix.mix:
            self._limit = None if ready is None else _limit_of(ready)
        self._mix = ready
        self._dragged = None
        self._by_bytes = {}
        for place, point in enumerate(() if ready is None else ready.points):
            self._by_bytes.setdefault(point.bytes, []).append(place)

    def _tried_points(self) -> tuple[tuple[TriedPoint, ...], str, bool]:
        """Return the configurations tried, what their values are, and whether more is better."""
        tried = self._session.tried
        if self._mix is not None:
            kind, wanted = self._mix.mix.cost, self._mix.mix.sweep.metric
            points = tuple(
                TriedPoint(
                    configuration_name(t.config), self._cost(t.config, kind, t.bytes), _score(t.evaluation, wanted)
                )
                for t in tried
            )
            return points, wanted, self._mix.higher_is_better
        points = tuple(TriedPoint(configuration_name(t.config), t.bytes, t.evaluation.quantized_score) for t in tried)
        newest = tried[-1].evaluation if tried else None
        return points, "" if newest is None else newest.metric, newest is None or newest.higher_is_better

    def _show_present(self) -> None:
        self._panel.show_present(self._place(self._session.config))

    def _show_pins(self) -> None:
        first, second = (None if config is None else self._place(config) for config in self._session.pins)
        self._panel.show_pins(first, second)

    def _place(self, config: QuantConfig) -> Present:
        """Return where a configuration is in the plot."""
        session = self._session
        if session.summary is None:
            return Present()
        if self._mix is not None and self._dragged is not None and config is self._dragged[0]:
            # While dragging this is asked for in every frame, and known.
            dragged = self._dragged[1]
            return Present(session.store.place_in_tried(config), dragged, self._mix.points[dragged].cost)
        size = session.size(config)
        kind: CostKind = "bytes" if self._mix is None else self._mix.mix.cost
        present = Present(session.store.place_in_tried(config), None, self._cost(config, kind, size))
        if self._mix is None:
            return present
        key = session.store.key(config)
        on_frontier = self._by_bytes.get(size, ())
        place = next((i for i in on_frontier if session.store.key(self._mix.points[i].config) == key), None)
        refined = self._mix.refined
        if place is None and refined is not None and session.store.key(refined.config) == key:
            value = refined.predicted if refined.measured is None else refined.measured.value
            return replace(present, cost=refined.cost, value=value, is_measured=refined.measured is not None)
        return replace(present, frontier=place)

    def _cost(self, config: QuantConfig, kind: CostKind, size: int) -> float:
        summary = self._session.summary
        if summary is None or kind == "bytes":
            return float(size)
        return bit_operations(summary.layers, config) if kind == "bops" else math.nan

    def _float_cost(self, kind: CostKind) -> float:
        return 1.0 if kind == "latency" else self._cost(QuantConfig(), kind, self._session.size(QuantConfig()))

    def _named(self, point: MixPoint) -> QuantConfig:
        """Return the configuration of a point under a name that says where it came from."""
        share = f"{self._shown.scale.share(point.cost):.3g}"
        return replace(point.config, name=self.tr("mix at {share}×").format(share=share))

    # --- showing the dialogs -------------------------------------------------------------------------------------

    def _show_dialog(self) -> None:
        if self.dialog is None:
            return
        session, controls = self._session, self.dialog.controls
        controls.show_costs(
            {kind: CostScale(kind, cost, cost) for kind in COST_KINDS if (cost := self._float_cost(kind))}
        )
        controls.show_data(0 if session.data is None else session.data.samples)
        possible, headline = _metrics(session.newest_evaluation)
        controls.show_metrics(possible, headline)
        controls.show_target(session.target, () if session.summary is None else session.summary.layers)
        self._show_selection()
        self._show_reason()
        self.dialog.show_job(session.jobs.of_topic(TOPIC))
        self._show_outcome()

    def _show_reason(self) -> None:
        """Say why a search cannot begin."""
        if self.dialog is None:
            return
        needs_data = self._session.data is None
        reason = "" if self.dialog.controls.asked() else self.tr("Choose bits that the target runs.")
        reason = self.tr("Open data first: quality is measured on it.") if needs_data else reason
        self.dialog.show_state(reason=reason, needs_data=needs_data)

    def _show_selection(self, _: object = None) -> None:
        if self.dialog is not None:
            names = self._session.selection
            self.dialog.controls.show_selection(sum(self._session.is_editable(name) for name in names))

    def _show_outcome(self) -> None:
        if self.dialog is not None:
            kind = "bytes" if self._mix is None else self._mix.mix.cost
            scale = CostScale(kind, self._float_cost(kind), self._shown.scale.largest)
            said = outcome(self._mix, self._session.jobs.of_topic(TOPIC), scale)
            self.dialog.show_outcome(said.sentence, said.tone, usable=said.is_usable)


def _limit_of(ready: MixReady) -> Limit | None:
    """Return the limit of a mix as far as it can be drawn: that of its own metric."""
    mix = ready.mix
    if mix.limit is not None:
        return Limit("cost", mix.limit)
    if mix.drop is None or mix.drop_metric not in ("", mix.sweep.metric):
        return None
    if mix.sweep.metric == "output_sqnr_db":
        return Limit("quality", mix.drop)
    sign = -1.0 if ready.higher_is_better else 1.0
    return Limit("quality", ready.float_score.value + sign * mix.drop)


def _score(evaluation: Evaluation, metric: str) -> Score:
    return evaluation.scores.get(metric, _NOT_PLACED)


def _metrics(evaluation: Evaluation | None) -> tuple[Collection[str] | None, str]:
    """Return the metrics that mean something here (None: not known yet), and the one an evaluation shows first."""
    if evaluation is None:
        return None, ""
    possible = {"output_sqnr_db", "cosine", *evaluation.scores}
    return (possible | {"kl"} if "agreement" in possible else possible), evaluation.metric
