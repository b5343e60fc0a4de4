"""The real window with a network of many layers: how long its event loop is held up while it is looked through."""

from __future__ import annotations

import sys
from pathlib import Path

from PySide6.QtWidgets import QApplication

from quantgui.gui.main_window import MainWindow
from quantgui.session.session import Session
from tests.benchmarks.child_window import apply, hold, spanned, started, wait
from tests.benchmarks.measuring import tell
from tests.benchmarks.ticks import Ticks, between

CHOICES = 6
SECONDS = 1.0
"""Time for what follows: with many layers the engine has not done everything then, nor does a user wait for it."""


def main() -> None:
    """Open the network, apply presets, choose layers, look at the graph, tell."""
    network, data, folder = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    app = QApplication([])
    window = started(app, folder)
    session, ticks = window.session, Ticks()
    hold(SECONDS)
    spans = {
        "open": spanned(lambda: open_both(session, network, data)),
        "preset": spanned(lambda: apply_presets(session)),
        "layer": spanned(lambda: choose_layers(session)),
        "graph": spanned(lambda: show_graph(window)),
    }
    session.close()
    window.hide()
    tell({"gaps": {name: between(ticks.gaps, *span) for name, span in spans.items()}, "spans": spans})


def open_both(session: Session, network: str, data: str) -> None:
    """Open network and data."""
    session.open_network(network, data)
    wait(lambda: session.data is not None)
    hold(2 * SECONDS)


def apply_presets(session: Session) -> None:
    """Give all layers other formats, twice."""
    for preset in ("W8A8", "W4A8"):
        apply(session, preset)
        hold(SECONDS)


def choose_layers(session: Session) -> None:
    """Look at layers here and there."""
    assert session.summary is not None
    layers = session.summary.layers
    for place in range(CHOICES):
        session.select([layers[place * len(layers) // CHOICES].name])
        hold(SECONDS)


def show_graph(window: MainWindow) -> None:
    """Turn to the graph, until it is drawn."""
    window.tabs.setCurrentWidget(window.panels.graph)
    wait(window.panels.graph.is_ready)
    hold(SECONDS)


if __name__ == "__main__":
    main()
