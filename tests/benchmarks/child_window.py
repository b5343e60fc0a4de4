"""The real window with the real engine: how long its event loop is held up, what undo and dragging a limit take."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from PySide6.QtCore import QEvent, QEventLoop, QPoint, QPointF, Qt, QTimer
from PySide6.QtGui import QMouseEvent
from PySide6.QtWidgets import QApplication

from quantgui.engine.client import EngineClient
from quantgui.engine.requests import Priority, Request
from quantgui.gui.app import make_settings, start
from quantgui.gui.cycles import CycleCollector
from quantgui.gui.main_window import MainWindow
from quantgui.gui.theme import apply_theme
from quantgui.session.session import Session
from quantgui.spec.presets import find_preset, preset_config
from tests.benchmarks.measuring import tell, timed
from tests.benchmarks.ticks import Ticks, between
from tests.gui_examples import W4_TENSOR, in_viewport, layer, weight_view

IDLE_SECONDS = 3.0
MOST_SECONDS = 60.0
STEPS = 60
TABLES = 6
"""News of a sweep that are looked at: the first fills the tab, the others change it."""


class CountingEngine(EngineClient):
    """The engine, counting what is asked of it."""

    submitted = 0

    def submit(self, request: Request, *, topic: str, priority: Priority) -> int:
        """Send a request."""
        CountingEngine.submitted += 1
        return super().submit(request, topic=topic, priority=priority)


@dataclass
class Found:
    """What is told at the end; seconds, spans as `time.monotonic`."""

    spans: dict[str, tuple[float, float]] = field(default_factory=dict)
    gaps: list[tuple[float, float]] = field(default_factory=list)
    undo: list[float] = field(default_factory=list)
    undo_drawn: list[float] = field(default_factory=list)
    repaint: list[float] = field(default_factory=list)
    undo_requests: int = 0
    drag: list[float] = field(default_factory=list)


def main() -> None:
    """Open the window, work in it, tell."""
    network, data, folder = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    app = QApplication([])
    window = started(app, folder)
    session = window.session
    found = Found()
    ticks = Ticks()
    hold(1.0)
    found.spans["idle"] = spanned(lambda: hold(IDLE_SECONDS))
    found.spans["open"] = spanned(lambda: open_both(session, network, data))
    found.spans["click"] = spanned(lambda: click(session, ticks))
    found.spans["calibrate and evaluate"] = spanned(lambda: settle(session))
    found.spans["export"] = spanned(lambda: export(session, folder / "exported.onnx"))
    found.spans["sensitivity"] = spanned(lambda: measure_sensitivity(window))
    found.gaps = ticks.gaps
    apply(session, "W4A8")
    settle(session)
    undo(window, found)
    drag(window, found)
    session.close()
    window.hide()
    tell({**asdict(found), "gaps": {name: between(found.gaps, *span) for name, span in found.spans.items()}})


def started(app: QApplication, folder: Path) -> MainWindow:
    """Return the window as the program starts it, with all that it makes behind its first picture."""
    CycleCollector(app)
    apply_theme(app, "dark")
    session = Session(CountingEngine, folder)
    window = MainWindow(session, make_settings(folder / "settings.ini"))
    window.resize(1440, 900)
    window.show()
    start(window, None, None)
    wait(lambda: session.engine_state == "ready" and window.is_finished())
    return window


# --- waiting in the event loop ------------------------------------------------------------------------------------


def wait(reached: Callable[[], bool]) -> None:
    """Turn the event loop until something is reached."""
    loop = QEventLoop()
    end = time.monotonic() + MOST_SECONDS

    def look() -> None:
        if reached() or time.monotonic() > end:
            loop.quit()

    timer = QTimer(interval=20)
    timer.timeout.connect(look)
    timer.start()
    loop.exec()
    if not reached():
        raise TimeoutError("the window has not come to the end of its work")


def hold(seconds: float) -> None:
    """Turn the event loop for some time."""
    end = time.monotonic() + seconds
    wait(lambda: time.monotonic() >= end)


def spanned(work: Callable[[], None]) -> tuple[float, float]:
    """Return when `work` began and ended."""
    begin = time.monotonic()
    work()
    return begin, time.monotonic()


# --- work ---------------------------------------------------------------------------------------------------------


def idle(session: Session) -> bool:
    """Return whether the engine has nothing left to do."""
    return not any(job.is_active for job in session.jobs)


def open_both(session: Session, network: str, data: str) -> None:
    """Open network and data and look at the first layer."""
    session.open_network(network, data)
    wait(lambda: session.data is not None and idle(session))
    assert session.summary is not None
    session.select([session.summary.layers[0].name])
    wait(lambda: idle(session))


def apply(session: Session, preset: str) -> None:
    """Apply a preset to the whole network."""
    chosen = find_preset(preset)
    assert session.summary is not None
    session.set_config(preset_config(chosen, session.summary.layers), preset)


def click(session: Session, ticks: Ticks) -> None:
    """Apply a preset, and wait until the event loop has turned: what the user's own click takes."""
    before = len(ticks.gaps)
    apply(session, "W8A8")
    wait(lambda: len(ticks.gaps) > before)


def settle(session: Session) -> None:
    """Wait until everything about the configuration is known: weights, ranges, quality, advice."""
    wait(lambda: session.evaluation is not None and session.evaluation.complete and idle(session))


def export(session: Session, path: Path) -> None:
    """Export the current configuration."""
    session.export(str(path))
    wait(lambda: session.last_export is not None and idle(session))


def measure_sensitivity(window: MainWindow) -> None:
    """Begin a sweep as F6 does, and look at its first tables; the tab that was seen comes back afterwards."""
    session, before = window.session, window.tabs.currentWidget()
    news: list[float] = []
    session.sensitivity_ready.connect(lambda _: news.append(time.monotonic()))
    window.actions_by_id["sensitivity"].trigger()
    wait(lambda: len(news) >= TABLES or (bool(news) and not session.jobs.is_active("sensitivity")))
    session.cancel("sensitivity")
    wait(lambda: idle(session))
    window.tabs.setCurrentWidget(before)


def undo(window: MainWindow, found: Found) -> None:
    """Go back and forth between two known configurations; beside it, paint the whole window as it is."""
    stack = window.session.undo_stack
    before = CountingEngine.submitted

    def step() -> None:
        if stack.canRedo():
            stack.redo()
        else:
            stack.undo()

    for round_number in range(22):
        taken, drawn = timed(step), timed(QApplication.processEvents)
        window.update()
        painted = timed(QApplication.processEvents)
        if round_number > 1:
            found.undo.append(taken)
            found.undo_drawn.append(taken + drawn)
            found.repaint.append(painted)
    found.undo_requests = CountingEngine.submitted - before


def drag(window: MainWindow, found: Found) -> None:
    """Drag the upper limit of a layer of 10 M weights; each step ends when the window is drawn."""
    panel = window.panels.weights
    window.tabs.setCurrentWidget(panel)
    random = np.random.default_rng(0)
    matrix = random.standard_normal((2500, 4000), dtype=np.float32) * np.float32(0.05)
    shown = layer("ten million", 2500, 4000)
    panel.show_layer(shown)
    panel.show_view(weight_view(matrix, W4_TENSOR, shown.name))
    QApplication.processEvents()
    plot = panel.histogram
    _, high = plot.limits()
    begin, end = in_viewport(plot, high, 1.0), in_viewport(plot, high * 0.4, 1.0)
    text = panel.sqnr.text()

    def mouse(kind: QEvent.Type, point: QPoint, *, held: bool = True) -> None:
        viewport = plot.viewport()
        button = Qt.MouseButton.NoButton if kind == QEvent.Type.MouseMove else Qt.MouseButton.LeftButton
        buttons = Qt.MouseButton.LeftButton if held else Qt.MouseButton.NoButton
        place = QPointF(viewport.mapToGlobal(point))
        event = QMouseEvent(kind, QPointF(point), place, button, buttons, Qt.KeyboardModifier.NoModifier)
        QApplication.sendEvent(viewport, event)
        QApplication.processEvents()

    mouse(QEvent.Type.MouseMove, begin, held=False)
    mouse(QEvent.Type.MouseButtonPress, begin)
    for step in range(STEPS):
        share = (step + 1) / STEPS
        point = begin + (end - begin) * share
        found.drag.append(timed(lambda point=point: mouse(QEvent.Type.MouseMove, point)))
    assert panel.sqnr.text() != text, "the limit has not moved"


if __name__ == "__main__":
    main()
