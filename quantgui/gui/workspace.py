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
from PySide6.QtWidgets import QDockWidget, QMainWindow, QTabWidget, QVBoxLayout, QWidget

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
_LEAST_LEFT = 220
"""Pixels of width without which names of layers could not be told from each other."""
_HIGH = 850
_LOW_BOTTOM = 228
"""Height of the lower docks where the window is not high."""
_ACTIVATIONS_TAB, _GRAPH_TAB = 2, 3
_MARK = 13
"""Pixels of the mark on a tab: all tabs are in sight at a width of 1280, with it as well."""
_STYLED_AT_A_TIME = 50


class Workspace(QMainWindow):
    """The panels of an open network.

    Args:
        session: the open document.
        status: the window's status line, which the panels' presenter writes.
        settings: where the layout, and the pages the user has turned to, are kept.

    Attributes:
        status: the window's status line.

    Signals:
        docks_made: a tuple of the docks, which the user may show and hide.
        data_requested: a panel needs data to be opened.
        alarmed: a `Finding` on the data that the user must see at once.
    """

    docks_made = Signal(object)
    data_requested = Signal()
    alarmed = Signal(object)

    def __init__(self, session: Session, status: StatusLine, settings: QSettings) -> None:
        super().__init__()
        self.setWindowFlags(Qt.WindowType.Widget)
        self.setObjectName("workspace")
        self._tabs = Tabs()
        self._docks: dict[str, QDockWidget] = {}
        self._panels: Panels | None = None
        self._presenter: Presenter | None = None
        self._session = session
        self.status = status
        self._settings = settings
        self._is_new_layout = not settings.contains("layout")
        self._steps = self._make()

    # --- what has been made, or is made now because someone asks ---------------------------------------------------

    @property
    def panels(self) -> Panels:
        """All panels."""
        self.finish()
        assert self._panels is not None
        return self._panels

    @property
    def presenter(self) -> Presenter:
        """What connects the panels with the session."""
        self.finish()
        assert self._presenter is not None
        return self._presenter

    @property
    def tabs(self) -> QTabWidget:
        """Views of the current layer."""
        self.finish()
        return self._tabs

    @property
    def docks(self) -> dict[str, QDockWidget]:
        """The docks by name."""
        self.finish()
        return self._docks

    # --- making --------------------------------------------------------------------------------------------------

    def is_finished(self) -> bool:
        """Return whether everything has been made."""
        return self._presenter is not None

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
        panels = Panels(self._session, self.status, self)
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
        self._panels, self._presenter = panels, presenter
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
            self._tabs.setTabToolTip(self._tabs.addTab(panel, name), tip)
        self._tabs.setDocumentMode(True)
        self._tabs.setIconSize(QSize(_MARK, _MARK))
        self._tabs.setAccessibleName(self.tr("Views of the current layer"))
        self._tabs.tabBar().setAccessibleName(self.tr("Views of the current layer"))
        self._tabs.tabBar().setToolTip(self.tr("Views of the current layer"))
        centre = QWidget()
        column = QVBoxLayout(centre)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(6)
        column.addWidget(self._tabs, 1)
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
        for name, title, widget, area in widgets:
            self._docks[name] = dock = make_dock(name, title, widget)
            self.addDockWidget(area, dock)
            dock.toggleViewAction().setToolTip(self.tr("Show or hide the panel {name}.").format(name=title))
        self.setCorner(Qt.Corner.BottomRightCorner, side.RightDockWidgetArea)
        self.setCorner(Qt.Corner.BottomLeftCorner, side.BottomDockWidgetArea)
        self.splitDockWidget(self._docks["trade_off"], self._docks["jobs"], Qt.Orientation.Horizontal)
        panels.layers.setMinimumWidth(_LEAST_LEFT)
        self._sides = SideWidths(self, (self._docks["layers"], self._docks["inspector"]))
        self._first_layout = self.saveState(LAYOUT_VERSION)
        self.docks_made.emit(tuple(self._docks.values()))

    def _connect(self, panels: Panels) -> None:
        panels.activations.data_requested.connect(self.data_requested)
        panels.sensitivity.data_requested.connect(self.data_requested)
        panels.noise.data_requested.connect(self.data_requested)
        panels.data_check.data_requested.connect(self.data_requested)
        panels.training.data_requested.connect(self.data_requested)
        self._tabs.currentChanged.connect(self._on_tab_changed)
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
                self._docks["layers"]: _LEFT if wide else _NARROW_LEFT,
                self._docks["inspector"]: _RIGHT if wide else _NARROW_RIGHT,
            }
        )
        height = _BOTTOM if window.height() >= _HIGH else _LOW_BOTTOM
        self.resizeDocks([self._docks["trade_off"], self._docks["jobs"]], [height, height], vertical)
        room = window.width() - _RIGHT - 3 * GAP
        self.resizeDocks([self._docks["trade_off"], self._docks["jobs"]], [room - _JOBS, _JOBS], horizontal)

    # --- what happens --------------------------------------------------------------------------------------------

    def _data_tip(self) -> str:
        return self.tr("The samples as the network gets them, and whether they fit it (Alt+7).")

    def _on_data_findings(self, findings: tuple[Finding, ...]) -> None:
        """Mark the data tab where something is wrong with the data."""
        if self._panels is None or (place := self._tabs.indexOf(self._panels.data_check)) < 0:
            return
        mark = icon("triangle-alert", current().warning) if findings else QIcon()
        self._tabs.setTabIcon(place, mark)
        self._tabs.setTabToolTip(place, "\n".join([self._data_tip(), *(each.sentence for each in findings)]))

    def _on_tab_changed(self, place: int) -> None:
        if self._tabs.isAncestorOf(self.window().focusWidget()):
            # What is hidden while a page computes would pass the focus on, at last to a line that takes digits.
            self._tabs.tabBar().setFocus()
        self._session.show_activations(place == _ACTIVATIONS_TAB)
        if place == _GRAPH_TAB and self._presenter is not None:
            self._presenter.colour_graph_soon()
