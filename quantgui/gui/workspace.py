"""Tabs and docks around an open network, made step by step.

They take longer to make than all the rest of the window, and a library has to be imported for them: nothing here that
needs it is imported before the first step.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

from PySide6.QtCore import QByteArray, QSettings, QSize, Qt, Signal
from PySide6.QtGui import QIcon
from PySide6.QtWidgets import QDockWidget, QMainWindow, QMenu, QVBoxLayout, QWidget

from quantgui.gui.dock import SideWidths, make_dock
from quantgui.gui.icons import icon
from quantgui.gui.status_line import StatusLine
from quantgui.gui.theme import GAP, current
from quantgui.gui.widgets.tabs import Tabs
from quantgui.results import Finding
from quantgui.session.session import Session

if TYPE_CHECKING:
    from quantgui.gui.panels.activations import ActivationsPanel
    from quantgui.gui.panels.all_panels import Panels
    from quantgui.gui.panels.weights import WeightsPanel
    from quantgui.gui.presenter import Presenter

LAYOUT_VERSION = 2
WIDE = 1400
"""Pixels of the window's width from which nothing has to be narrow."""
_LEFT, _RIGHT, _BOTTOM, _JOBS = 496, 316, 272, 300
_NARROW_LEFT, _NARROW_RIGHT = 400, 300
_HIGH = 850
_LOW_BOTTOM = 228
"""Height of the lower docks where the window is not high."""
_ACTIVATIONS_TAB, _GRAPH_TAB = 2, 3
_STYLED_AT_A_TIME = 50


class Workspace(QMainWindow):
    """The panels of an open network.

    Args:
        session: the open document.
        status: the window's status line, which the panels' presenter writes.
        settings: where the layout, and the pages the user has turned to, are kept.
        view: the menu that shows and hides docks.

    Attributes:
        tabs: views of the current layer.
        docks: the docks by name.
        panels: all panels; None until everything is made.
        presenter: what connects the panels with the session; None as long.

    Signals:
        data_requested: a panel needs data to be opened.
        alarmed: a `Finding` on the data that the user must see at once.
    """

    data_requested = Signal()
    alarmed = Signal(object)

    def __init__(self, session: Session, status: StatusLine, settings: QSettings, view: QMenu) -> None:
        super().__init__()
        self.setWindowFlags(Qt.WindowType.Widget)
        self.setObjectName("workspace")
        self.tabs = Tabs()
        self.docks: dict[str, QDockWidget] = {}
        self.panels: Panels | None = None
        self.presenter: Presenter | None = None
        self._session = session
        self._status = status
        self._settings = settings
        self._view = view
        self._is_new_layout = not settings.contains("layout")
        self._steps = self._make()

    # --- making --------------------------------------------------------------------------------------------------

    def make_next(self) -> bool:
        """Make the next piece; return whether there was one."""
        return next(self._steps, False)

    def finish(self) -> None:
        """Make all that is missing."""
        while self.make_next():
            pass

    def _make(self) -> Iterator[bool]:
        """Yield after each step, none of which takes long but for the first."""
        import quantgui.gui.plots.base  # noqa: F401 -- brings the plots' library

        yield True
        from quantgui.gui.panels.all_panels import Panels
        from quantgui.gui.presenter import Presenter

        yield True
        panels = Panels(self._session, self._status, self)
        for _ in panels.make():
            yield True
        presenter = Presenter(self._session, panels)
        presenter.trade_off.data_requested.connect(self.data_requested)
        presenter.data_check.found.connect(self._on_data_findings)
        presenter.data_check.alarmed.connect(self.alarmed)
        self._lay_out_tabs(panels)
        yield True
        self._lay_out_docks(panels)
        yield True
        self._connect(panels)
        layout = self._settings.value("layout")
        if isinstance(layout, QByteArray):
            self.restoreState(layout, LAYOUT_VERSION)
        self.panels, self.presenter = panels, presenter
        yield True
        yield from self._style()

    def _style(self) -> Iterator[bool]:
        """Apply the style sheet to what has been made, some of it at a time, or its first picture would wait for it."""
        for place, widget in enumerate(self.findChildren(QWidget)):
            widget.ensurePolished()
            if place % _STYLED_AT_A_TIME == _STYLED_AT_A_TIME - 1:
                yield True
        yield True

    def _lay_out_tabs(self, panels: Panels) -> None:
        for panel, name, tip in (
            (panels.weights, self.tr("Weights"), self.tr("Histogram of the current layer, before and after (Alt+1).")),
            (panels.channels, self.tr("Channels"), self.tr("Range of every output channel (Alt+2).")),
            (panels.activations, self.tr("Activations"), self.tr("What flows through the layer (Alt+3).")),
            (panels.graph, self.tr("Graph"), self.tr("The network drawn (Alt+4).")),
            (
                panels.sensitivity,
                self.tr("Sensitivity"),
                self.tr("How much the network suffers from each layer in each format (Alt+5)."),
            ),
            (panels.noise, self.tr("Noise"), self.tr("Where noise is made, and which samples pay for it (Alt+6).")),
            (panels.data_check, self.tr("Data"), self._data_tip()),
            (
                panels.training,
                self.tr("Training"),
                self.tr("Let weights and scales adapt to their formats, and see loss and quality on the way (Alt+8)."),
            ),
        ):
            self.tabs.setTabToolTip(self.tabs.addTab(panel, name), tip)
        self.tabs.setDocumentMode(True)
        self.tabs.setAccessibleName(self.tr("Views of the current layer"))
        self.tabs.tabBar().setAccessibleName(self.tr("Views of the current layer"))
        self.tabs.tabBar().setToolTip(self.tr("Views of the current layer"))
        centre = QWidget()
        column = QVBoxLayout(centre)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(6)
        column.addWidget(self.tabs, 1)
        self.setCentralWidget(centre)

    def _lay_out_docks(self, panels: Panels) -> None:
        self.setDockNestingEnabled(True)
        side = Qt.DockWidgetArea
        widgets: tuple[tuple[str, str, QWidget, Qt.DockWidgetArea], ...] = (
            ("layers", self.tr("Layers"), panels.layers, side.LeftDockWidgetArea),
            ("inspector", self.tr("Inspector"), panels.inspector, side.RightDockWidgetArea),
            ("trade_off", self.tr("Trade-off"), panels.trade_off, side.BottomDockWidgetArea),
            ("jobs", self.tr("Jobs"), panels.jobs, side.BottomDockWidgetArea),
        )
        self._view.addSeparator()
        for name, title, widget, area in widgets:
            self.docks[name] = dock = make_dock(name, title, widget)
            self.addDockWidget(area, dock)
            action = dock.toggleViewAction()
            action.setToolTip(self.tr("Show or hide the panel {name}.").format(name=title))
            self._view.addAction(action)
        self.setCorner(Qt.Corner.BottomRightCorner, side.RightDockWidgetArea)
        self.setCorner(Qt.Corner.BottomLeftCorner, side.BottomDockWidgetArea)
        self.splitDockWidget(self.docks["trade_off"], self.docks["jobs"], Qt.Orientation.Horizontal)
        self._sides = SideWidths(self, (self.docks["layers"], self.docks["inspector"]))
        self._first_layout = self.saveState(LAYOUT_VERSION)

    def _connect(self, panels: Panels) -> None:
        panels.activations.data_requested.connect(self.data_requested)
        panels.sensitivity.data_requested.connect(self.data_requested)
        panels.noise.data_requested.connect(self.data_requested)
        panels.data_check.data_requested.connect(self.data_requested)
        panels.training.data_requested.connect(self.data_requested)
        self.tabs.currentChanged.connect(self._on_tab_changed)
        self._remember_page("weights", panels.weights)
        self._remember_page("activations", panels.activations)

    def _remember_page(self, name: str, panel: WeightsPanel | ActivationsPanel) -> None:
        """Turn a panel to the page the user last looked at."""
        key = f"pages/{name}"
        panel.show_error_page(str(self._settings.value(key, "")))
        panel.error_page_turned.connect(partial(self._settings.setValue, key))

    # --- sizes ---------------------------------------------------------------------------------------------------

    def fit_first(self, window: QSize) -> None:
        """Give the docks their sizes in a window of size `window`, unless the user has chosen some before."""
        if self._is_new_layout:
            self.fit(window)
            self._is_new_layout = False

    def reset(self, window: QSize) -> None:
        """Put all docks back to where they were at first."""
        for dock in self.docks.values():
            dock.setFloating(False)
        self.restoreState(self._first_layout, LAYOUT_VERSION)
        for dock in self.docks.values():
            dock.show()
        self.fit(window)

    def fit(self, window: QSize) -> None:
        """Give the docks the sizes that suit a window of size `window`."""
        wide = window.width() >= WIDE
        horizontal, vertical = Qt.Orientation.Horizontal, Qt.Orientation.Vertical
        self._sides.want(
            {
                self.docks["layers"]: _LEFT if wide else _NARROW_LEFT,
                self.docks["inspector"]: _RIGHT if wide else _NARROW_RIGHT,
            }
        )
        height = _BOTTOM if window.height() >= _HIGH else _LOW_BOTTOM
        self.resizeDocks([self.docks["trade_off"], self.docks["jobs"]], [height, height], vertical)
        room = window.width() - _RIGHT - 3 * GAP
        self.resizeDocks([self.docks["trade_off"], self.docks["jobs"]], [room - _JOBS, _JOBS], horizontal)

    # --- what happens --------------------------------------------------------------------------------------------

    def _data_tip(self) -> str:
        return self.tr("The samples as the network gets them, and whether they fit it (Alt+7).")

    def _on_data_findings(self, findings: tuple[Finding, ...]) -> None:
        """Mark the data tab where something is wrong with the data."""
        if self.panels is None or (place := self.tabs.indexOf(self.panels.data_check)) < 0:
            return
        mark = icon("triangle-alert", current().warning) if findings else QIcon()
        self.tabs.setTabIcon(place, mark)
        self.tabs.setTabToolTip(place, "\n".join([self._data_tip(), *(each.sentence for each in findings)]))

    def _on_tab_changed(self, place: int) -> None:
        if self.tabs.isAncestorOf(self.window().focusWidget()):
            # What is hidden while a page computes would pass the focus on, at last to a line that takes digits.
            self.tabs.tabBar().setFocus()
        self._session.show_activations(place == _ACTIVATIONS_TAB)
        if place == _GRAPH_TAB and self.presenter is not None:
            self.presenter.colour_graph_soon()
