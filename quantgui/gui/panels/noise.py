"""Where noise is made and what it does: own against inherited noise of each layer, and which samples pay for it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from PySide6.QtCore import Qt, Signal
from PySide6.QtGui import QColor, QKeyEvent, QResizeEvent
from PySide6.QtWidgets import QHBoxLayout, QPushButton, QSplitter, QVBoxLayout, QWidget

from quantgui.gui.colormap import damage_color
from quantgui.gui.names import brief_names
from quantgui.gui.numbers import count, decibel, short
from quantgui.gui.panels.noise_sample import Culprit, SampleView, culprits_of
from quantgui.gui.plots.noise import CHANGED_DB, DamageCells, DamagePlot, LayerNoisePlot, NoiseColumns
from quantgui.gui.quality import samples_text
from quantgui.gui.theme import current
from quantgui.gui.widgets.card import Card, Pages
from quantgui.gui.widgets.color_legend import ColorLegend
from quantgui.gui.widgets.labels import ElidedLabel
from quantgui.gui.widgets.progress import ProgressRow
from quantgui.gui.widgets.segmented import Segment, SegmentedButtons
from quantgui.gui.widgets.state_page import ContentOrState, StatePage
from quantgui.gui.widgets.veil import Veil
from quantgui.results import Array, LayerNoise, NoiseReady, SampleReady

SIDE_BY_SIDE = 960
"""Pixels of width from which both cards stand beside each other."""
_SPAN_DB, _STEP_DB = 60.0, 5.0
"""Noise that lies this far below the worst is drawn as none; ends of the scale are multiples of the step."""


class NoisePanel(QWidget):
    """The noise tab.

    Signals:
        trace_requested: the user wants to know where noise is made.
        stop_requested: the user wants that to stop.
        data_requested: the user wants to open data.
        layer_picked: name of the layer that was clicked.
        sample_picked: index of the sample that the user wants to see.
    """

    trace_requested = Signal()
    stop_requested = Signal()
    data_requested = Signal()
    layer_picked = Signal(str)
    sample_picked = Signal(int)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("noise")
        self.setAccessibleName(self.tr("Noise"))
        self._noise: NoiseReady | None = None
        self._names: tuple[str, ...] = ()
        self._order = np.zeros(0, np.intp)
        self._rows = np.zeros(0, np.intp)
        self._columns = np.zeros(0, np.intp)
        self._selected = ""
        self._stale = False
        self.plot = LayerNoisePlot(self.tr("Noise of each layer"), self.tr("layer"), self.tr("SQNR (dB)"))
        self.plot.setToolTip(
            self.tr(
                "Noise at the output of each layer against the float network: SQNR in dB, low is noisy.\n"
                "Disc: made by the layer itself, the rest float. Square or arrow: comes in with its inputs; the arrow "
                "points down where the layer amplifies what comes in, up where it eases it, and the line begins at "
                "the noise in what it reads.\nDash: both together. Click or press Enter to select a layer; arrows move."
            )
        )
        self.matrix = DamagePlot(self.tr("What each layer alone does to each sample"), self.tr("sample"))
        self.matrix.setToolTip(
            self.tr(
                "How much each layer, alone quantized, changes the network's outputs for each sample.\n"
                "× the top class changes. Click a sample to see it, or move with the arrows and press Enter; "
                "wheel zooms."
            )
        )
        self.sample = SampleView()
        self.state = StatePage(framed=True)
        self._content = QWidget()
        self._pages = ContentOrState(self._content, self.state)
        self._make_bars()
        self._make_layers_card()
        self._make_matrix_card()
        self._lay_out()
        self._veil = Veil(self._content)
        self.plot.channel_hovered.connect(self._on_layer_hovered)
        self.plot.channel_clicked.connect(self._on_layer_clicked)
        self.matrix.cell_hovered.connect(self._on_cell_hovered)
        self.matrix.cell_clicked.connect(self._on_cell_clicked)
        self.order_buttons.chosen.connect(self._on_order_chosen)
        self.sample_order.chosen.connect(self._on_order_chosen)
        self.sample.closed.connect(self._on_sample_closed)
        self.sample.layer_picked.connect(self.layer_picked)
        self.progress.cancelled.connect(self.stop_requested)
        self.again.clicked.connect(self.trace_requested)
        self.show_no_network()

    def _make_bars(self) -> None:
        self._stale_text = ElidedLabel()
        self.again = QPushButton(self.tr("Trace again"))
        self.again.setAccessibleName(self.again.text())
        self.again.setToolTip(self.tr("Find out where noise is made under the present configuration"))
        self.progress = ProgressRow(self.tr("Tracing noise"))
        self._stale_bar, self._progress_bar = QWidget(), QWidget()
        for bar, widgets in ((self._stale_bar, (self._stale_text, self.again)), (self._progress_bar, (self.progress,))):
            row = QHBoxLayout(bar)
            row.setContentsMargins(4, 0, 0, 0)
            row.setSpacing(8)
            for widget in widgets:
                row.addWidget(widget, 0 if isinstance(widget, QPushButton) else 1)
            bar.hide()

    def _make_layers_card(self) -> None:
        self.layers_card = Card(self.tr("Noise of the layers"))
        self.layers_card.add_chip("quantized", self.tr("own"), symbol="dot")
        self.layers_card.add_chip("float_", self.tr("inherited"), symbol="square")
        self.layers_card.add_chip("text", self.tr("both"), symbol="line")
        self.order_buttons = SegmentedButtons(
            self.tr("Order of the layers"),
            (
                Segment("network", self.tr("Network"), self.tr("Layers in the order of the network")),
                Segment("own", self.tr("Own noise"), self.tr("Layers that make most noise themselves first")),
            ),
        )
        self.order_buttons.set_value("network")
        self._layer_words = ElidedLabel()
        self._layer_words.setProperty("role", "note")
        self.layers_card.body.addLayout(_row(self._layer_words, self.order_buttons))
        self.layers_card.body.addWidget(self.plot, 1)

    def _make_matrix_card(self) -> None:
        self.matrix_card = Card(self.tr("Samples"))
        self.legend = ColorLegend(colors=_color)
        self.matrix_card.header.insertWidget(2, self.legend)
        self.sample_order = SegmentedButtons(
            self.tr("Order of the samples"),
            (
                Segment("number", self.tr("Number"), self.tr("Samples in the order of the data")),
                Segment("damage", self.tr("Damage"), self.tr("Samples that suffer most first")),
                Segment("flips", self.tr("Flips"), self.tr("Samples whose top class most layers change first")),
            ),
        )
        self.sample_order.set_value("number")
        self._cell_words = ElidedLabel()
        self._cell_words.setProperty("role", "note")
        self.matrix_card.body.addLayout(_row(self._cell_words, self.sample_order))
        self.matrix_card.body.addWidget(self.matrix, 1)

    def _lay_out(self) -> None:
        self._upper = Pages(self.layers_card, self.sample)
        self._splitter = QSplitter(Qt.Orientation.Vertical)
        self._splitter.setChildrenCollapsible(False)
        self._splitter.addWidget(self._upper)
        self._splitter.addWidget(self.matrix_card)
        for place in range(2):
            self._splitter.setStretchFactor(place, 1)
        inner = QVBoxLayout(self._content)
        inner.setContentsMargins(0, 0, 0, 0)
        inner.addWidget(self._splitter)
        outer = QVBoxLayout(self)
        outer.setContentsMargins(0, 0, 0, 0)
        outer.setSpacing(8)
        outer.addWidget(self._stale_bar)
        outer.addWidget(self._progress_bar)
        outer.addWidget(self._pages, 1)

    # --- states ---

    def show_no_network(self) -> None:
        """Show that there is nothing to trace without a network."""
        self._forget()
        self._pages.show_state(
            "activity", self.tr("No network open"), self.tr("Open a network to see where quantization makes noise.")
        )

    def show_needs_data(self) -> None:
        """Show that noise is measured on data."""
        self._forget()
        self._pages.show_state(
            "database",
            self.tr("Noise needs data"),
            self.tr("It is measured by running samples through the float and the quantized network."),
            action=self.tr("Open data…"),
            does=self.data_requested.emit,
        )

    def show_nothing_quantized(self) -> None:
        """Show that a float network makes no noise."""
        self._forget()
        self._pages.show_state(
            "activity",
            self.tr("Nothing is quantized"),
            self.tr("Every layer is float, so there is no noise. Give some layers fewer bits, or choose a preset."),
        )

    def show_not_traced(self) -> None:
        """Offer to trace; an older result stays in sight, dimmed."""
        self._progress_bar.hide()
        if self._noise is not None:
            self._set_stale(stale=True)
            return
        self._pages.show_state(
            "activity",
            self.tr("Where is noise made?"),
            self.tr(
                "Tracing runs each layer alone on a few dozen samples: what it adds, what it inherits, and which "
                "samples it hurts."
            ),
            action=self.tr("Trace noise"),
            does=self.trace_requested.emit,
        )

    def show_tracing(self, label: str, done: int, total: int, seconds_left: float | None) -> None:
        """Show how far the trace is."""
        self._stale_bar.hide()
        if self._noise is None:
            self.state.show_busy(
                "activity",
                self.tr("Tracing noise"),
                label,
                done,
                total,
                action=self.tr("Stop"),
                does=self.stop_requested.emit,
                seconds_left=seconds_left,
            )
            self._pages.show_page(self.state)
            return
        self.progress.start_anew(self.tr("Tracing noise"))
        self.progress.show_progress(done, total, "" if total else label, seconds_left)
        self._progress_bar.show()

    def show_failure(self, sentence: str) -> None:
        """Show why noise could not be traced."""
        self._forget()
        self._pages.show_state(
            "circle-alert",
            self.tr("The noise could not be traced"),
            sentence,
            action=self.tr("Try again"),
            does=self.trace_requested.emit,
            token="bad",
        )

    def show_stopped(self) -> None:
        """Show that nothing is being traced: what is known stays, and it is said if that is not all."""
        self._progress_bar.hide()
        if self._noise is None:
            self.show_not_traced()
        elif not self._noise.complete and not self._stale:
            self._say(self.tr("Stopped after {samples}.").format(samples=samples_text(self._noise.samples)))

    def show_noise(self, noise: NoiseReady) -> None:
        """Show where noise is made under the present configuration, as far as it is known."""
        same = self._noise is not None and self._noise.config == noise.config
        if not same:
            self._on_sample_closed()
            self.sample.index = None
        self._noise = noise
        self._set_stale(stale=False)
        if noise.complete:
            self._progress_bar.hide()
        self.sample_order.button("flips").setEnabled(noise.has_classes)
        if not noise.has_classes and self.sample_order.value() == "flips":
            self.sample_order.set_value("damage")
        self.layers_card.set_note(samples_text(noise.samples))
        self._draw(keep_zoom=same)
        self._pages.show_page(self._content)

    def select(self, layer: str) -> None:
        """Mark the layer that is looked at; an empty name marks none."""
        self._selected = layer
        self._mark_layer(None)

    def show_sample(self, sample: SampleReady) -> None:
        """Show the sample that was asked for."""
        if self._noise is not None and sample.config == self._noise.config:
            self.sample.show_sample(sample)

    def show_sample_failure(self, sentence: str) -> None:
        """Show why a sample could not be run."""
        self.sample.show_failure(sentence)

    def is_stale(self) -> bool:
        """Return whether what is shown belongs to another configuration."""
        return self._stale

    def noise(self) -> NoiseReady | None:
        """Return what is shown."""
        return self._noise

    # --- inner workings ---

    def _forget(self) -> None:
        self._noise = None
        self._progress_bar.hide()
        self._set_stale(stale=False)
        self._on_sample_closed()

    def _set_stale(self, *, stale: bool) -> None:
        self._stale = stale
        self._say(self.tr("The configuration has changed since this was traced.") if stale else "")
        self._veil.set_drawn(drawn=stale)

    def _say(self, words: str) -> None:
        self._stale_text.setText(words)
        self._stale_bar.setVisible(bool(words))

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        wide = Qt.Orientation.Horizontal if self.width() >= SIDE_BY_SIDE else Qt.Orientation.Vertical
        if self._splitter.orientation() is not wide or not event.oldSize().isValid():
            self._splitter.setOrientation(wide)
            self._splitter.setSizes([1000, 1100])

    def keyPressEvent(self, event: QKeyEvent) -> None:
        if event.key() == Qt.Key.Key_Escape and self._upper.page() is self.sample:
            self._on_sample_closed()
            self.matrix.setFocus()
        else:
            super().keyPressEvent(event)

    # --- drawing ---

    def _draw(self, *, keep_zoom: bool = False) -> None:
        noise = self._noise
        if noise is None:
            return
        self._names = brief_names([each.layer for each in noise.layers])
        own = np.array([each.own_sqnr_db for each in noise.layers])
        by_noise = self.order_buttons.value() == "own"
        self._order = np.argsort(np.nan_to_num(own, nan=math.inf), kind="stable") if by_noise else np.arange(len(own))
        layers = [noise.layers[i] for i in self._order]
        self.plot.show_noise(
            NoiseColumns(
                np.array([each.own_sqnr_db for each in layers]),
                np.array([each.inherited_sqnr_db for each in layers]),
                np.array([each.total_sqnr_db for each in layers]),
                np.array([each.input_sqnr_db for each in layers]),
            )
        )
        self.plot.set_label("bottom", self.tr("layer, noisiest first") if by_noise else self.tr("layer"))
        # Layers that do nothing alone, most of them float, would only take room.
        self._rows = self._order[(noise.damage[self._order] > 0).any(axis=1)]
        self._columns = sample_order(noise, str(self.sample_order.value()))
        scale = damage_scale(noise.damage)
        self.matrix.show_cells(
            DamageCells(
                tuple(self._names[i] for i in self._rows),
                scale.shares(noise.damage[np.ix_(self._rows, self._columns)]),
                noise.flips[np.ix_(self._rows, self._columns)],
                noise.flipped[self._columns] if noise.has_classes else None,
                self.tr("all layers together"),
            ),
            keep_zoom=keep_zoom,
        )
        labels = {
            "number": self.tr("sample"),
            "damage": self.tr("sample, the one hurt most first"),
            "flips": self.tr("sample, most flips first"),
        }
        self.matrix.set_label("bottom", labels[str(self.sample_order.value())])
        low, high = scale.texts()
        self.legend.show_scale(self.tr("SQNR"), low, high)
        self.legend.setVisible(bool(len(self._rows)))
        self._mark_layer(None)
        self._mark_cell(None)
        self._show_culprits()

    def _place_of(self, layer: str) -> int | None:
        """Return the column of a layer in the upper plot."""
        if self._noise is None:
            return None
        names = [self._noise.layers[i].layer for i in self._order]
        return names.index(layer) if layer in names else None

    def _mark_layer(self, place: int | None) -> None:
        """Mark a layer and read its numbers out; the selected one, or the whole, where there is none."""
        shown = self._place_of(self._selected) if place is None else place
        self.plot.mark(shown)
        row = None
        if shown is not None and self._noise is not None:
            index = int(self._order[shown])
            found = np.flatnonzero(self._rows == index)
            row = int(found[0]) if len(found) else None
            self._layer_words.setText(self._read_layer(index))
        else:
            self._layer_words.setText(self._summary())
        self.matrix.mark_row(row)

    def _read_layer(self, index: int) -> str:
        assert self._noise is not None
        layer, name = self._noise.layers[index], self._names[index]
        if not layer.tensor:
            return self.tr("{layer}: its output cannot be seen").format(layer=name)
        own = self.tr("none (float)") if layer.own_sqnr_db == math.inf else short(layer.own_sqnr_db)
        words = self.tr("{layer}: own {own}, inherited {inherited}, both {total} dB")
        gain = gain_db(layer)
        if math.isfinite(gain) and gain >= CHANGED_DB:
            words = self.tr("{layer}: own {own}, inherited {inherited} (eased by {gain}), both {total} dB")
        elif math.isfinite(gain) and gain <= -CHANGED_DB:
            words = self.tr("{layer}: own {own}, inherited {inherited} (amplified by {gain}), both {total} dB")
        return words.format(
            layer=name,
            own=own,
            inherited=short(layer.inherited_sqnr_db),
            gain=short(abs(gain), 2),
            total=short(layer.total_sqnr_db),
        )

    def _summary(self) -> str:
        noise = self._noise
        made = [(x.own_sqnr_db, i) for i, x in enumerate(noise.layers if noise else ()) if math.isfinite(x.own_sqnr_db)]
        if not made:
            return ""
        worst, index = min(made)
        return self.tr("Most noise of its own: {layer}, {db}").format(layer=self._names[index], db=decibel(worst))

    def _mark_cell(self, cell: tuple[int, int] | None) -> None:
        self.matrix.mark_cell(cell)
        self._cell_words.setText(self._read_cell(cell) if cell is not None else self._read_samples())

    def _read_cell(self, cell: tuple[int, int]) -> str:
        assert self._noise is not None
        row, column = cell
        index = int(self._columns[column])
        if row < 0:
            flips = bool(self._noise.flipped[index])
            words = self.tr("changes its top class") if flips else self.tr("keeps its top class")
            return self.tr("Sample {n}: the whole configuration {words}").format(n=index, words=words)
        layer = int(self._rows[row])
        damage = float(self._noise.damage[layer, index])
        text = self.tr("Sample {n}: {layer} alone {db}").format(
            n=index, layer=self._names[layer], db=decibel(damage_db(damage))
        )
        return self.tr("{words}, changes the top class").format(words=text) if self._noise.flips[layer, index] else text

    def _read_samples(self) -> str:
        noise = self._noise
        if noise is None:
            return ""
        if not noise.has_classes:
            return samples_text(noise.samples)
        return self.tr("{flipped} of {n} samples change their top class").format(
            flipped=count(int(noise.flipped.sum())), n=count(noise.samples)
        )

    # --- what the user does ---

    def _on_order_chosen(self, _order: object) -> None:
        self._draw()

    def _on_layer_hovered(self, place: int | None) -> None:
        if self._noise is not None:
            self._mark_layer(place)

    def _on_layer_clicked(self, place: int) -> None:
        if self._noise is not None:
            self.layer_picked.emit(self._noise.layers[int(self._order[place])].layer)

    def _on_cell_hovered(self, cell: tuple[int, int] | None) -> None:
        if self._noise is not None:
            self._mark_cell(cell)

    def _on_cell_clicked(self, _row: int, column: int) -> None:
        if self._noise is None or self._stale:
            return
        index = int(self._columns[column])
        self.open_sample(index)
        self.sample_picked.emit(index)

    def open_sample(self, index: int) -> None:
        """Show sample `index` as far as it is known: the rest comes with `show_sample`."""
        self.sample.show_culprits(index, self._culprits(index))
        self._upper.show_page(self.sample)

    def _culprits(self, index: int) -> tuple[Culprit, ...]:
        assert self._noise is not None
        names = [each.layer for each in self._noise.layers]
        return culprits_of(names, self._noise.damage[:, index], self._noise.flips[:, index])

    def _show_culprits(self) -> None:
        if self._noise is not None and self.sample.index is not None and self.sample.index < self._noise.samples:
            self.sample.show_culprits(self.sample.index, self._culprits(self.sample.index))

    def _on_sample_closed(self) -> None:
        self._upper.show_page(self.layers_card)


def _row(label: ElidedLabel, buttons: SegmentedButtons) -> QHBoxLayout:
    row = QHBoxLayout()
    row.setContentsMargins(3, 0, 0, 0)
    row.setSpacing(8)
    row.addWidget(label, 1)
    row.addWidget(buttons)
    return row


def _color(share: float) -> QColor:
    return damage_color(share, on_dark=current().is_dark)


# --- numbers ----------------------------------------------------------------------------------------------------------


def gain_db(layer: LayerNoise) -> float:
    """Return by how much the noise in what a layer reads has become less at its output; negative where it grew.

    NaN where nothing comes in.
    """
    both = math.isfinite(layer.inherited_sqnr_db) and math.isfinite(layer.input_sqnr_db)
    return layer.inherited_sqnr_db - layer.input_sqnr_db if both else math.nan


def damage_db(damage: float) -> float:
    """Return noise over signal as SQNR in dB."""
    if damage <= 0:
        return math.inf
    return -10 * math.log10(damage) if math.isfinite(damage) else -math.inf


@dataclass(frozen=True, slots=True)
class DamageRange:
    """SQNR in dB at the ends of the colours: harmless and worst."""

    harmless: float
    worst: float

    def shares(self, damage: Array) -> Array:
        """Return where noise over signal lies between the ends: 0 harmless ... 1 worst."""
        with np.errstate(divide="ignore"):
            db = -10 * np.log10(damage.astype(np.float64))
        return np.clip((self.harmless - db) / (self.harmless - self.worst), 0.0, 1.0)

    def texts(self) -> tuple[str, str]:
        """Return both ends as text, the harmless one first."""
        return decibel(self.harmless), decibel(self.worst)


def damage_scale(damage: Array) -> DamageRange:
    """Return the scale for noise over signal, with round ends, so that it seldom changes while samples come in."""
    usable = damage[np.isfinite(damage) & (damage > 0)].astype(np.float64)
    if not len(usable):
        return DamageRange(_SPAN_DB, 0.0)
    db = -10 * np.log10(usable)
    # Single precision must not push round numbers to the next step.
    worst = math.floor(float(db.min()) / _STEP_DB + 1e-5) * _STEP_DB
    harmless = math.ceil(min(float(db.max()), worst + _SPAN_DB) / _STEP_DB - 1e-5) * _STEP_DB
    return DamageRange(max(harmless, worst + _STEP_DB), worst)


def sample_order(noise: NoiseReady, order: str) -> Array:
    """Return the samples in the order wanted: ``number``, ``damage`` (worst first) or ``flips`` (most first)."""
    everyone = np.arange(noise.samples)
    damage = noise.damage.sum(0, dtype=np.float64)
    match order:
        case "damage":
            return np.argsort(-damage, kind="stable")
        case "flips":
            return np.lexsort((-damage, -noise.flips.sum(0), ~noise.flipped))
        case _:
            return everyone
