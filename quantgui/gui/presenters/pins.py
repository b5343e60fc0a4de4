"""Carries the two pinned configurations, A and B, between session and the dialog that compares them."""

from __future__ import annotations

import math

from PySide6.QtCore import QObject, QTimer

from quantgui.gui.dialogs.comparison import ComparisonDialog
from quantgui.gui.layer_words import scheme_text
from quantgui.gui.mix_words import configuration_name
from quantgui.gui.panels.comparison import ComparedLayer, ComparedSide, Comparison
from quantgui.gui.panels.trade_off import TradeOffPanel
from quantgui.gui.widgets.front import bring_to_front
from quantgui.results import LayerInfo
from quantgui.session.document import Side
from quantgui.session.session import Session
from quantgui.session.sizes import layer_bytes
from quantgui.spec.config import QuantConfig
from quantgui.spec.quantizer import QuantizerSpec

_COMPARE_MS = 120
"""How long news are collected before the comparison is made anew."""


class PinsPresenter(QObject):
    """Connects `Session` with the trade-off panel's wishes about pins, and with the dialog that compares them.

    Attributes:
        dialog: the dialog; None before it was first needed.
    """

    def __init__(self, session: Session, panel: TradeOffPanel, parent: QObject) -> None:
        super().__init__(parent)
        self._session = session
        self._panel = panel
        self.dialog: ComparisonDialog | None = None
        self._timer = QTimer(self, singleShot=True, interval=_COMPARE_MS)
        self._timer.timeout.connect(self._show_comparison)
        session.network_opened.connect(self._close)
        session.network_closed.connect(self._close)
        session.config_changed.connect(self._compare_soon)
        session.evaluation_ready.connect(self._compare_soon)
        session.weight_error_ready.connect(self._compare_soon)
        session.pins_changed.connect(self._on_pins)
        panel.comparison_requested.connect(self.compare)
        panel.unpin_requested.connect(lambda side: session.pin(side, None))

    # --- what the user wants -------------------------------------------------------------------------------------

    def pin(self, side: Side) -> None:
        """Pin the present configuration as A or B."""
        self._session.pin(side, self._session.config)

    def compare(self) -> None:
        """Show A and B layer by layer."""
        if None in self._session.pins:
            return
        if self.dialog is None:
            self.dialog = ComparisonDialog(self._panel.window())
            self.dialog.panel.side_chosen.connect(self._on_side_chosen)
            self.dialog.panel.layer_picked.connect(lambda name: self._session.select((name,)))
            self.dialog.flip.clicked.connect(self.flip)
        self._show_comparison(hidden=True)
        bring_to_front(self.dialog)

    def flip(self) -> None:
        """Put A to use, or B if A is in use; any number of flips in a row are one undo step."""
        first, second = self._session.pins
        if first is None or second is None:
            return
        target = second if self._session.config == first else first
        self._session.set_config(target, self.tr("Flip A | B"), merge_key="flip")

    def _on_side_chosen(self, side: str) -> None:
        config = self._session.pins[0 if side == "A" else 1]
        if config is not None:
            self._session.set_config(config, self.tr("Use {side}").format(side=side))

    # --- what the session says -----------------------------------------------------------------------------------

    def _close(self, _: object = None) -> None:
        if self.dialog is not None:
            self.dialog.close()

    def _on_pins(self) -> None:
        if None in self._session.pins:
            self._close()
        self._compare_soon()

    def _compare_soon(self, _: object = None) -> None:
        if self.dialog is not None and self.dialog.isVisible():
            self._timer.start()

    def _show_comparison(self, *, hidden: bool = False) -> None:
        first, second = self._session.pins
        shown = self.dialog is not None and (hidden or self.dialog.isVisible())
        if first is not None and second is not None and shown and self.dialog is not None:
            self.dialog.panel.show_comparison(self._compared(first, second))

    def _compared(self, first: QuantConfig, second: QuantConfig) -> Comparison:
        session = self._session
        layers = () if session.summary is None else session.summary.layers
        known = [session.store.evaluation(config) for config in (first, second)]
        metric = next((each.metric for each in known if each is not None), "")
        a, b = (
            ComparedSide(
                configuration_name(config),
                session.size(config),
                None if evaluation is None else evaluation.quantized_score,
                session.config == config,
            )
            for config, evaluation in zip((first, second), known, strict=True)
        )
        guesses = self._guessed_errors()
        rows = [self._compared_layer(x, first, second, guesses) for x in layers if session.is_editable(x.name)]
        return Comparison((a, b), metric, tuple(rows))

    def _compared_layer(
        self,
        layer: LayerInfo,
        first: QuantConfig,
        second: QuantConfig,
        guesses: dict[tuple[str, QuantizerSpec], float],
    ) -> ComparedLayer:
        specs = first.spec_for(layer.name), second.spec_for(layer.name)
        words = (str(specs[0]), str(specs[1]))
        if specs[0] != specs[1] and words[0] == words[1]:
            words = (f"{words[0]} {scheme_text(specs[0].weights)}", f"{words[1]} {scheme_text(specs[1].weights)}")
        a, b = (self._weight_sqnr(layer, spec.weights, guesses) for spec in specs)
        sizes = (layer_bytes(layer, specs[0].weights), layer_bytes(layer, specs[1].weights))
        return ComparedLayer(layer.name, words, sizes, (a, b), specs[0] != specs[1])

    def _weight_sqnr(
        self, layer: LayerInfo, spec: QuantizerSpec | None, guesses: dict[tuple[str, QuantizerSpec], float]
    ) -> float:
        if spec is None:
            return math.inf
        error = self._session.store.error(layer.name, spec)
        return guesses.get((layer.name, spec), math.nan) if error is None else error.sqnr_db

    def _guessed_errors(self) -> dict[tuple[str, QuantizerSpec], float]:
        """Return the weight errors that a sweep has told of, for configurations that were never in use."""
        table = self._session.sensitivity
        if table is None:
            return {}
        return {
            (each.layer, each.spec.weights): each.weight_sqnr_db
            for each in table.candidates
            if each.spec.weights is not None
        }
