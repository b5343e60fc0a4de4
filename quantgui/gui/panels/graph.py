"""The network drawn: layers and the operators between them, coloured by any number known of the layers."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping

from PySide6.QtCore import QTimer, Signal
from PySide6.QtGui import QAction, QColor, QShowEvent
from PySide6.QtWidgets import QComboBox, QHBoxLayout, QLineEdit, QVBoxLayout, QWidget

from quantgui.gui.colormap import color_of
from quantgui.gui.graph_layout import layout_steps
from quantgui.gui.icons import set_icon
from quantgui.gui.numbers import count, short
from quantgui.gui.widgets.card import Card, Pages
from quantgui.gui.widgets.color_legend import ColorLegend
from quantgui.gui.widgets.labels import ElidedLabel
from quantgui.gui.widgets.network_view import NetworkView, node_size
from quantgui.gui.widgets.state_page import StatePage
from quantgui.gui.widgets.zoom_buttons import ZoomButtons
from quantgui.results import NetworkSummary

COLOURINGS = ("weight", "own", "inherited", "sensitivity", "bits")
"""What layers can be coloured by."""


class GraphPanel(QWidget):
    """The graph tab. The layout is computed when the tab is first seen, a little at a time.

    Signals:
        layer_picked: name of the layer the user clicked, found or went to.
        colouring_chosen: one of `COLOURINGS`: what the user wants the layers coloured by.
    """

    layer_picked = Signal(str)
    colouring_chosen = Signal(str)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("graph")
        self.setAccessibleName(self.tr("Graph"))
        self._summary: NetworkSummary | None = None
        self._steps: Iterator[None] | None = None
        self._values: dict[str, float] = {}
        self._label = ""
        self._selected = ""
        self._matches: list[int] = []
        self._match = -1
        self.view = NetworkView(self.tr("Drawing of the network"))
        self.card = Card(self.tr("Graph"))
        self.legend = ColorLegend()
        self.legend.hide()
        self.card.header.addWidget(self.legend)
        self.search = QLineEdit()
        self.search.setPlaceholderText(self.tr("Find a node"))
        self.search.setAccessibleName(self.tr("Find a node"))
        self.search.setToolTip(self.tr("Find nodes by a part of their name or operator; Enter goes to the next one"))
        self.search.setClearButtonEnabled(True)
        self._search_icon = QAction(self.search)
        set_icon(self._search_icon, "search", "muted")
        self.search.addAction(self._search_icon, QLineEdit.ActionPosition.LeadingPosition)
        self.search.setMaximumWidth(320)
        self._found = ElidedLabel()
        self._found.setProperty("role", "note")
        self.colouring = QComboBox()
        self.colouring.setAccessibleName(self.tr("Colour by"))
        self.colouring.setToolTip(self.tr("Colour the layers by weight error, noise, sensitivity or bits"))
        names = {
            "weight": self.tr("Weight SQNR"),
            "own": self.tr("Own noise"),
            "inherited": self.tr("Inherited noise"),
            "sensitivity": self.tr("Sensitivity"),
            "bits": self.tr("Bits"),
        }
        for key in COLOURINGS:
            self.colouring.addItem(names[key], key)
        self._hint = ""
        self.zoom_buttons = ZoomButtons()
        tools = QHBoxLayout()
        tools.setSpacing(8)
        tools.addWidget(self.search, 3)
        tools.addWidget(self._found, 1)
        tools.addStretch(1)
        tools.addWidget(self.colouring)
        tools.addWidget(self.zoom_buttons)
        self.card.body.addLayout(tools)
        self.card.body.addWidget(self.view, 1)
        self.state = StatePage(framed=True)
        self._pages = Pages(self.card, self.state)
        outer = QVBoxLayout(self)
        outer.setContentsMargins(0, 0, 0, 0)
        outer.addWidget(self._pages)
        self._timer = QTimer(self)
        self._timer.setInterval(0)
        self._timer.timeout.connect(self._on_step)
        self.view.node_picked.connect(self._on_node_picked)
        self.zoom_buttons.zoomed.connect(self.view.zoom)
        self.zoom_buttons.reset.connect(self.view.fit)
        self.search.textChanged.connect(self._on_search_changed)
        self.search.returnPressed.connect(self._on_search_entered)
        self.colouring.activated.connect(self._on_colouring_chosen)
        self.show_network(None)

    # --- values in ---

    def show_network(self, summary: NetworkSummary | None) -> None:
        """Draw a network; None where none is open."""
        self._summary = summary
        self._steps = None
        self._values = {}
        self._selected = ""
        self.legend.hide()
        self._timer.stop()
        self.search.clear()
        if summary is None:
            self.state.show_state(
                "workflow", self.tr("No network open"), self.tr("Open a network to see how its layers are connected.")
            )
            self._pages.show_page(self.state)
            return
        if not summary.nodes:
            self.state.show_state("workflow", self.tr("Nothing to draw"), self.tr("The network has no nodes."))
            self._pages.show_page(self.state)
            return
        self._hint = ""
        self._show_note()
        self._steps = self._drawing_steps(summary)
        self.state.show_busy("workflow", self.tr("Arranging the graph"), summary.name)
        self._pages.show_page(self.state)
        if self.isVisible():
            self._timer.start()

    def color_by(self, values: Mapping[str, float], label: str, hint: str = "") -> None:
        """Colour the layers by `values`, by layer name; `label` says what they are, with the unit.

        `hint` says how to get values where there are none.
        """
        self._values = {name: value for name, value in values.items() if math.isfinite(value)}
        self._label = label
        self._hint = "" if self._values else hint
        self._show_note()
        self._paint_values()

    def select(self, layer_name: str) -> None:
        """Frame a layer and bring it into sight; an empty name selects none."""
        self._selected = layer_name
        if self.is_ready():
            self.view.mark(self._indices_of(layer_name))

    def is_ready(self) -> bool:
        """Return whether the network is drawn."""
        return bool(self._summary) and self._steps is None and bool(self.view.items_by_index)

    # --- inner workings ---

    def showEvent(self, event: QShowEvent) -> None:
        super().showEvent(event)
        if self._steps is not None:
            self._timer.start()

    def _on_step(self) -> None:
        if self._steps is not None:
            with contextlib.suppress(StopIteration):
                next(self._steps)
                return
            self._steps = None
            self._pages.show_page(self.card)
            self.view.show_start()
            self._paint_values()
            self.select(self._selected)
        self._timer.stop()

    def _drawing_steps(self, summary: NetworkSummary) -> Iterator[None]:
        """Arrange the network and draw it, a part of it in each step."""
        nodes = summary.nodes
        arranging = layout_steps([node.inputs for node in nodes], [node_size(node).width() for node in nodes])
        while (arranged := next(arranging)) is None:
            yield
        yield from self.view.graph_steps(nodes, arranged)

    def _show_note(self) -> None:
        nodes = () if self._summary is None else self._summary.nodes
        layers = sum(1 for node in nodes if node.layer)
        counts = self.tr("{nodes} nodes · {layers} layers").format(nodes=count(len(nodes)), layers=count(layers))
        self.card.set_note(self._hint or counts)

    def _indices_of(self, layer_name: str) -> set[int]:
        if self._summary is None or not layer_name:
            return set()
        return {index for index, node in enumerate(self._summary.nodes) if node.layer == layer_name}

    def _paint_values(self) -> None:
        self.legend.setVisible(bool(self._values))
        if not self.is_ready() or self._summary is None:
            return
        low, high = min(self._values.values(), default=0.0), max(self._values.values(), default=0.0)
        fills: dict[int, QColor] = {}
        texts: dict[int, str] = {}
        for index, node in enumerate(self._summary.nodes):
            value = self._values.get(node.layer)
            texts[index] = f"{node.op}\n{node.name}"
            if value is not None:
                fills[index] = color_of((value - low) / (high - low) if high > low else 1.0)
                texts[index] += f"\n{self._label}: {short(value)}"
        self.legend.show_scale(self._label, short(low), short(high))
        self.view.set_fills(fills)
        self.view.set_tooltips(texts)

    # --- what the user does ---

    def _on_node_picked(self, index: int) -> None:
        if self._summary is None:
            return
        layer = self._summary.nodes[index].layer
        if layer:
            self.select(layer)
            self.layer_picked.emit(layer)

    def _on_colouring_chosen(self, place: int) -> None:
        self.colouring_chosen.emit(self.colouring.itemData(place))

    def _on_search_changed(self, text: str) -> None:
        wanted = text.strip().lower()
        nodes = self._summary.nodes if self._summary is not None else ()
        self._matches = [
            index
            for index, node in enumerate(nodes)
            if wanted and (wanted in node.name.lower() or wanted in node.op.lower())
        ]
        self._match = -1
        if self.is_ready():
            self.view.set_matches(set(self._matches))
        self._found.setText(
            self.tr("{number} found").format(number=count(len(self._matches))) if wanted else self._hint
        )

    def _on_search_entered(self) -> None:
        if not self._matches or not self.is_ready():
            return
        self._match = (self._match + 1) % len(self._matches)
        index = self._matches[self._match]
        self._found.setText(
            self.tr("{place} of {number}").format(place=count(self._match + 1), number=count(len(self._matches)))
        )
        self._on_node_picked(index)
        self.view.reveal(index, readable=True)
