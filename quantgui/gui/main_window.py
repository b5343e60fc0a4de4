"""The main window: makes the parts and connects them; decides nothing itself.

The workspace of an open network, its panels and plots, takes longer to make than all the rest, and a library has to be
imported for it. So it is made step by step behind the first picture of the window (`MainWindow.make_next`), or at once
when it is needed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from PySide6.QtCore import QByteArray, QEvent, QObject, QSettings, QSize, Qt, QTimer
from PySide6.QtGui import (
    QCloseEvent,
    QDragEnterEvent,
    QDragLeaveEvent,
    QDropEvent,
    QIcon,
    QKeyEvent,
    QKeySequence,
    QResizeEvent,
)
from PySide6.QtWidgets import (
    QAbstractSpinBox,
    QApplication,
    QDockWidget,
    QLineEdit,
    QMainWindow,
    QMenu,
    QSizePolicy,
    QStackedWidget,
    QTabWidget,
    QToolBar,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from quantgui.errors import QuantGuiError
from quantgui.gui import numbers
from quantgui.gui.actions import ACTIONS, FILE, VIEW
from quantgui.gui.commands import Answer, Commands
from quantgui.gui.dialogs.files import FileChooser
from quantgui.gui.dock import SideWidths, make_dock
from quantgui.gui.icons import icon, set_icon
from quantgui.gui.languages import SYSTEM
from quantgui.gui.menus import build_actions, plain_text, update_actions
from quantgui.gui.panels.notice import NoticeBar
from quantgui.gui.panels.welcome import WelcomePage
from quantgui.gui.preset_groups import preset_groups, preset_refusal
from quantgui.gui.status_line import StatusLine
from quantgui.gui.theme import GAP, apply_theme, current
from quantgui.gui.widgets.labels import ElidedLabel
from quantgui.gui.widgets.tabs import Tabs
from quantgui.results import Finding, NetworkSummary
from quantgui.session.jobs import Job, JobState
from quantgui.session.samples import read_samples
from quantgui.session.session import Session
from quantgui.spec.targets import find_target

if TYPE_CHECKING:
    from quantgui.gui.panels.activations import ActivationsPanel
    from quantgui.gui.panels.weights import WeightsPanel
    from quantgui.gui.presenter import Panels, Presenter

LAYOUT_VERSION = 2
FIRST_SIZE = QSize(1440, 900)
SMALLEST = QSize(1024, 640)
_FRAME = QSize(8, 40)
"""About what a window manager draws around a window."""
_LEFT, _RIGHT, _BOTTOM, _JOBS = 496, 316, 272, 300
_LOW_BOTTOM = 228
"""Height of the lower docks where the window is not high."""
_ROOMY, _WIDE, _NARROW = 1580, 1400, 1200
"""Pixels of width from which the toolbar has all its texts, most, some; below the last it has none."""
_TEXT_FROM = {"undo": _ROOMY, "redo": _ROOMY, "search": _ROOMY, "open": _WIDE, "data": _WIDE, "flip": _WIDE}
"""Whose icons say enough where space is short, and from which width their texts are there all the same."""
_ACTIVATIONS_TAB, _GRAPH_TAB = 2, 3
_STYLED_AT_A_TIME = 50
_A_TURN_MS = 1
"""The shortest time of a real timer: what comes after it is done in a later turn of the event loop."""
_TOOLBAR_LEFT = (
    ("open", "data"),
    ("presets", "evaluate", "sensitivity", "find_mix", "train", "flip"),
    ("export", "verify"),
    ("undo", "redo"),
)


class UndoKeys(QObject):
    """Lets Ctrl+Z reach the window while a line has the focus: there is one history, that of the configuration."""

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        if event.type() == QEvent.Type.ShortcutOverride and isinstance(event, QKeyEvent):
            standard = QKeySequence.StandardKey
            if event.matches(standard.Undo) or event.matches(standard.Redo):
                # Not accepted by the line, so the key goes on to the window's shortcut.
                event.ignore()
                return True
        return False

    def follow_focus(self, old: QWidget | None, new: QWidget | None) -> None:
        """Watch the line that has the focus, and it alone: a filter on everything would cost at every event."""
        if isinstance(old, QLineEdit | QAbstractSpinBox):
            old.removeEventFilter(self)
        if isinstance(new, QLineEdit | QAbstractSpinBox):
            new.installEventFilter(self)


class MainWindow(QMainWindow):
    """Toolbar, panels, status line.

    Args:
        session: the open document; it is closed with the window.
        settings: where layout and look are kept.
        chooser: asks for files.

    Attributes:
        answers: whether someone waits for the configuration that is left behind, so that it need not be saved.
    """

    def __init__(self, session: Session, settings: QSettings, chooser: FileChooser | None = None) -> None:
        super().__init__()
        self.setObjectName("main")
        self.session = session
        self.answers = False
        self._settings = settings
        self.commands = Commands(session, chooser or FileChooser(settings), self)
        self.actions_by_id, self._menus = build_actions(self, self.commands.handlers())
        self.welcome = WelcomePage()
        self.notice = NoticeBar()
        self.status = StatusLine()
        self._tabs = Tabs()
        self._workspace = QMainWindow()
        self._docks: dict[str, QDockWidget] = {}
        self._panels: Panels | None = None
        self._presenter: Presenter | None = None
        self._steps = self._make_workspace()
        self._pages = QStackedWidget()
        self._title = ElidedLabel(middle=True)
        self._undo_keys = UndoKeys(self)
        self._failures: dict[str, str] = {}
        self._stalled = ""
        self._is_new_layout = not settings.contains("layout")
        # Many things happen at once; the actions are looked at once, before the next event of the user.
        self._actions_timer = QTimer(self, singleShot=True, interval=0)
        self._actions_timer.timeout.connect(self._update_actions)
        self._lay_out()
        self._make_toolbar()
        self._make_menus()
        self._connect()
        self._restore()
        self._update_actions()
        self._show_title()

    # --- the workspace -------------------------------------------------------------------------------------------

    @property
    def panels(self) -> Panels:
        """All panels."""
        self._finish_workspace()
        assert self._panels is not None
        return self._panels

    @property
    def presenter(self) -> Presenter:
        """What connects the panels with the session."""
        self._finish_workspace()
        assert self._presenter is not None
        return self._presenter

    @property
    def tabs(self) -> QTabWidget:
        """Views of the current layer."""
        self._finish_workspace()
        return self._tabs

    @property
    def docks(self) -> dict[str, QDockWidget]:
        """The docks by name."""
        self._finish_workspace()
        return self._docks

    @property
    def workspace(self) -> QMainWindow:
        """What holds tabs and docks."""
        self._finish_workspace()
        return self._workspace

    def is_finished(self) -> bool:
        """Return whether the workspace has been made."""
        return self._presenter is not None

    def make_next(self) -> bool:
        """Make the next piece of the workspace; return whether there was one."""
        return next(self._steps, False)

    def _finish_workspace(self) -> None:
        while self.make_next():
            pass

    def _make_workspace(self) -> Iterator[bool]:
        """Yield after each step, none of which takes long but for the first."""
        import quantgui.gui.plots.base  # noqa: F401 -- brings the plots' library

        yield True
        from quantgui.gui.presenter import Panels, Presenter

        yield True
        panels = Panels(self.session, self.status, self)
        for _ in panels.make():
            yield True
        presenter = Presenter(self.session, panels)
        presenter.trade_off.data_requested.connect(self.commands.open_data)
        presenter.data_check.found.connect(self._on_data_findings)
        presenter.data_check.alarmed.connect(self._on_data_alarm)
        self._lay_out_tabs(panels)
        yield True
        self._lay_out_docks(panels)
        yield True
        self._connect_workspace(panels)
        layout = self._settings.value("layout")
        if isinstance(layout, QByteArray):
            self._workspace.restoreState(layout, LAYOUT_VERSION)
        self._panels, self._presenter = panels, presenter
        yield True
        yield from self._style_workspace()

    def _style_workspace(self) -> Iterator[bool]:
        """Apply the style sheet to what has been made, some of it at a time, or its first picture would wait for it."""
        for place, widget in enumerate(self._workspace.findChildren(QWidget)):
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
        self._tabs.setAccessibleName(self.tr("Views of the current layer"))
        self._tabs.tabBar().setAccessibleName(self.tr("Views of the current layer"))
        self._tabs.tabBar().setToolTip(self.tr("Views of the current layer"))
        centre = QWidget()
        column = QVBoxLayout(centre)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(6)
        column.addWidget(self._tabs, 1)
        self._workspace.setCentralWidget(centre)

    def _lay_out_docks(self, panels: Panels) -> None:
        self._workspace.setDockNestingEnabled(True)
        side = Qt.DockWidgetArea
        widgets: tuple[tuple[str, str, QWidget, Qt.DockWidgetArea], ...] = (
            ("layers", self.tr("Layers"), panels.layers, side.LeftDockWidgetArea),
            ("inspector", self.tr("Inspector"), panels.inspector, side.RightDockWidgetArea),
            ("trade_off", self.tr("Trade-off"), panels.trade_off, side.BottomDockWidgetArea),
            ("jobs", self.tr("Jobs"), panels.jobs, side.BottomDockWidgetArea),
        )
        view = self._menus[VIEW]
        view.addSeparator()
        for name, title, widget, area in widgets:
            self._docks[name] = dock = make_dock(name, title, widget)
            self._workspace.addDockWidget(area, dock)
            action = dock.toggleViewAction()
            action.setToolTip(self.tr("Show or hide the panel {name}.").format(name=title))
            view.addAction(action)
        self._workspace.setCorner(Qt.Corner.BottomRightCorner, side.RightDockWidgetArea)
        self._workspace.setCorner(Qt.Corner.BottomLeftCorner, side.BottomDockWidgetArea)
        self._workspace.splitDockWidget(self._docks["trade_off"], self._docks["jobs"], Qt.Orientation.Horizontal)
        self._sides = SideWidths(self._workspace, (self._docks["layers"], self._docks["inspector"]))
        self._first_layout = self._workspace.saveState(LAYOUT_VERSION)

    def _connect_workspace(self, panels: Panels) -> None:
        panels.activations.data_requested.connect(self.commands.open_data)
        panels.sensitivity.data_requested.connect(self.commands.open_data)
        panels.noise.data_requested.connect(self.commands.open_data)
        panels.data_check.data_requested.connect(self.commands.open_data)
        panels.training.data_requested.connect(self.commands.open_data)
        self._tabs.currentChanged.connect(self._on_tab_changed)
        self._remember_page("weights", panels.weights)
        self._remember_page("activations", panels.activations)

    def _remember_page(self, name: str, panel: WeightsPanel | ActivationsPanel) -> None:
        """Turn a panel to the page the user last looked at."""
        key = f"pages/{name}"
        panel.show_error_page(str(self._settings.value(key, "")))
        panel.error_page_turned.connect(partial(self._settings.setValue, key))

    # --- making --------------------------------------------------------------------------------------------------

    def _lay_out(self) -> None:
        self._workspace.setWindowFlags(Qt.WindowType.Widget)
        self._workspace.setObjectName("workspace")
        self._holder = QWidget()
        outer = QVBoxLayout(self._holder)
        outer.setContentsMargins(GAP, 0, GAP, GAP - 2)
        outer.setSpacing(0)
        outer.addWidget(self._workspace)
        self._pages.addWidget(self.welcome)
        self._pages.addWidget(self._holder)
        whole = QWidget()
        column = QVBoxLayout(whole)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(0)
        bar = QWidget()
        row = QVBoxLayout(bar)
        row.setContentsMargins(GAP, GAP, GAP, 0)
        row.addWidget(self.notice)
        column.addWidget(bar)
        column.addWidget(self._pages, 1)
        self._notice_holder = bar
        bar.hide()
        self.setCentralWidget(whole)
        self.setStatusBar(self.status)
        self.setAcceptDrops(True)
        self.setMinimumSize(SMALLEST)

    def _make_toolbar(self) -> None:
        bar = QToolBar(self.tr("Toolbar"))
        bar.setObjectName("toolbar")
        bar.setMovable(False)
        bar.setFloatable(False)
        bar.setContextMenuPolicy(Qt.ContextMenuPolicy.PreventContextMenu)
        bar.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        for place, group in enumerate(_TOOLBAR_LEFT):
            if place:
                bar.addSeparator()
            for name in group:
                if name == "presets":
                    bar.addWidget(self._make_preset_button())
                else:
                    bar.addAction(self.actions_by_id[name])
        self._title.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Preferred)
        self._title.setAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
        self._title.setProperty("role", "note")
        self._title.setContentsMargins(8, 0, 8, 0)
        bar.addWidget(self._title)
        bar.addAction(self.actions_by_id["search"])
        bar.addAction(self.actions_by_id["theme"])
        theme = bar.widgetForAction(self.actions_by_id["theme"])
        if isinstance(theme, QToolButton):
            theme.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonIconOnly)
        for spec in ACTIONS:
            button = bar.widgetForAction(self.actions_by_id[spec.id])
            if isinstance(button, QToolButton):
                button.setAccessibleName(plain_text(spec))
                button.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        self.addToolBar(bar)
        self.toolbar = bar

    def _fit_toolbar(self) -> None:
        """Leave out the texts for which there is no room."""
        icon, both = Qt.ToolButtonStyle.ToolButtonIconOnly, Qt.ToolButtonStyle.ToolButtonTextBesideIcon
        for name, action in self.actions_by_id.items():
            button = self.toolbar.widgetForAction(action)
            if isinstance(button, QToolButton) and name != "theme":
                room = _TEXT_FROM.get(name, _NARROW)
                button.setToolButtonStyle(both if self.width() >= room else icon)
        self.preset_button.setToolButtonStyle(both if self.width() >= _NARROW else icon)

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        self._fit_toolbar()
        self._show_title()

    def _make_preset_button(self) -> QToolButton:
        self.presets_menu = QMenu(self)
        self.presets_menu.setToolTipsVisible(True)
        self.preset_actions = {}
        for title, presets in preset_groups():
            self.presets_menu.addSection(title)
            for preset in presets:
                action = self.presets_menu.addAction(preset.name)
                action.setToolTip(preset.help)
                action.triggered.connect(lambda _=False, chosen=preset: self.presenter.apply_preset(chosen))
                self.preset_actions[preset.name] = action
        self.presets_menu.aboutToShow.connect(self._refuse_presets)
        button = QToolButton()
        button.setText(" " + self.tr("Preset"))
        button.setAccessibleName(self.tr("Preset"))
        button.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)
        button.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        button.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        button.setMenu(self.presets_menu)
        set_icon(button, "wand-sparkles")
        self.preset_button = button
        return button

    def _refuse_presets(self) -> None:
        """Grey the presets that the target runs in no layer."""
        summary, target = self.session.summary, self.session.target
        layers = () if summary is None else [x for x in summary.layers if self.session.is_editable(x.name)]
        for _, presets in preset_groups():
            for preset in presets:
                reason = preset_refusal(target, layers, preset)
                action = self.preset_actions[preset.name]
                action.setEnabled(not reason)
                action.setToolTip(f"{preset.help}\n{reason}".strip())

    def _make_menus(self) -> None:
        self._recent_menu = QMenu(self.tr("Open &recent"), self)
        self._menus[FILE].insertMenu(self.actions_by_id["data"], self._recent_menu)
        self._recent_menu.aboutToShow.connect(self._fill_recent)

    # --- connecting ----------------------------------------------------------------------------------------------

    def _connect(self) -> None:
        session, commands = self.session, self.commands
        self.welcome.open_requested.connect(commands.open_network)
        self.welcome.sample_chosen.connect(commands.open_sample)
        self.welcome.recent_chosen.connect(commands.open_recent)
        commands.scheme_chosen.connect(self.set_scheme)
        commands.language_chosen.connect(self.set_language)
        commands.tab_chosen.connect(self._show_tab)
        commands.layout_reset.connect(self.reset_layout)
        commands.quit_requested.connect(self.close)
        commands.noticed.connect(self._show_notice)
        commands.withdrawn.connect(self._withdraw_notice)
        session.network_opened.connect(self._on_network_opened)
        session.network_closed.connect(self._on_network_closed)
        session.failed.connect(self._on_failed)
        session.noticed.connect(self._on_noticed)
        session.stalled.connect(self._on_stalled)
        session.resumed.connect(self._on_resumed)
        session.saved_changed.connect(self._show_title)
        session.job_changed.connect(self._on_job_changed)
        for signal in (
            session.network_opened,
            session.network_closed,
            session.data_opened,
            session.config_changed,
            session.selection_changed,
            session.evaluation_ready,
            session.training_ready,
            session.engine_state_changed,
            session.undo_stack.indexChanged,
            session.pins_changed,
        ):
            signal.connect(self._actions_timer.start)
        # At once: who undoes twice in one turn of the event loop must find the action as it is.
        session.undo_stack.canUndoChanged.connect(self.actions_by_id["undo"].setEnabled)
        session.undo_stack.canRedoChanged.connect(self.actions_by_id["redo"].setEnabled)
        self.notice.action_triggered.connect(self._restart_engine)
        self.notice.dismiss.clicked.connect(self._notice_holder.hide)
        app = QApplication.instance()
        if isinstance(app, QApplication):
            app.focusChanged.connect(self._undo_keys.follow_focus)
        self.actions_by_id["automatic"].setChecked(session.evaluates_automatically)
        session.target_changed.connect(lambda target: self._settings.setValue("target", target.name))
        with contextlib.suppress(QuantGuiError):
            # A target that another version of the program knew is none to start with.
            session.set_target(find_target(str(self._settings.value("target", "simulation"))))
        self.show_welcome()

    def show_welcome(self) -> None:
        """Show the welcome page with what is there to be opened."""
        self.welcome.show_samples(read_samples())
        self.welcome.show_recent(self.session.recent.entries())
        self._pages.setCurrentWidget(self.welcome)
        self.welcome.open_button.setFocus()

    def set_scheme(self, scheme: str) -> None:
        """Use a look, and remember it."""
        app = QApplication.instance()
        if isinstance(app, QApplication) and scheme in ("system", "light", "dark"):
            self._settings.setValue("scheme", scheme)
            apply_theme(app, scheme)  # type: ignore[arg-type]

    @property
    def language(self) -> str:
        """The language that the user has chosen for the next start: its code, or ``system``."""
        return str(self._settings.value("language", SYSTEM))

    def set_language(self, code: str) -> None:
        """Remember a language for the next start."""
        self._settings.setValue("language", code)

    def reset_layout(self) -> None:
        """Put all panels back to where they were at first."""
        for dock in self.docks.values():
            dock.setFloating(False)
        self.workspace.restoreState(self._first_layout, LAYOUT_VERSION)
        for dock in self.docks.values():
            dock.show()
        self._size_docks()

    # --- what happens --------------------------------------------------------------------------------------------

    def _on_network_opened(self, summary: NetworkSummary) -> None:
        # What the panels take over now and their first picture take a frame each; between them the user is heard.
        QTimer.singleShot(_A_TURN_MS, self, self._show_workspace)
        self._hide_notice()
        if summary.warnings:
            self._show_notice("\n".join(summary.warnings[:3]), failure=False)
        self._show_title()

    def _show_workspace(self) -> None:
        if self.session.summary is None:
            return
        self.welcome.show_busy("")
        self._pages.setCurrentWidget(self._holder)
        if self._is_new_layout:
            self._size_docks()
            self._is_new_layout = False
        self.panels.layers.table.setFocus()

    def _on_network_closed(self) -> None:
        self.show_welcome()
        self._hide_notice()
        self._show_title()

    def _on_job_changed(self, job: Job) -> None:
        if job.topic == "network":
            # Before the network comes: the panels listen to that.
            self._finish_workspace()
            self.welcome.show_busy(self.tr("{job} …").format(job=job.title) if job.is_active else "")
        if job.state is not JobState.RUNNING:
            self._actions_timer.start()
        if job.state is JobState.FAILED:
            self._failures[job.topic] = job.sentence
        elif job.state is JobState.DONE and (sentence := self._failures.pop(job.topic, "")):
            # It has been done after all.
            self._withdraw_notice(sentence)

    def _on_failed(self, sentence: str) -> None:
        self._show_notice(sentence, failure=True)

    def _on_noticed(self, sentence: str) -> None:
        self._show_notice(sentence, failure=False)

    def _data_tip(self) -> str:
        return self.tr("The samples as the network gets them, and whether they fit it (Alt+7).")

    def _on_data_findings(self, findings: tuple[Finding, ...]) -> None:
        """Mark the data tab where something is wrong with the data."""
        place = self._tabs.indexOf(self.panels.data_check) if self._panels is not None else -1
        if place < 0:
            return
        mark = icon("triangle-alert", current().warning) if findings else QIcon()
        self._tabs.setTabIcon(place, mark)
        self._tabs.setTabToolTip(place, "\n".join([self._data_tip(), *(each.sentence for each in findings)]))

    def _on_data_alarm(self, finding: Finding) -> None:
        words = self.tr("{sentence} {advice} The Data tab tells more.")
        self._show_notice(words.format(sentence=finding.sentence, advice=finding.advice), failure=False)

    def _on_stalled(self, sentence: str) -> None:
        self._stalled = sentence
        self._show_notice(sentence, failure=True)

    def _on_resumed(self) -> None:
        self._withdraw_notice(self._stalled)
        self._stalled = ""

    def _show_notice(self, sentence: str, failure: bool) -> None:  # noqa: FBT001 -- comes from a signal
        helps = failure and (self.session.engine_state == "stopped" or bool(self._stalled))
        action = self.tr("Restart the engine") if helps else ""
        self.notice.show_sentence(sentence, "failure" if failure else "info", action)
        self._notice_holder.show()

    def _withdraw_notice(self, sentence: str) -> None:
        if self.notice.sentence() == sentence:
            self._hide_notice()

    def _hide_notice(self) -> None:
        self.notice.hide()
        self._notice_holder.hide()

    def _restart_engine(self) -> None:
        self._hide_notice()
        self.session.restart_engine()

    def _show_tab(self, place: int) -> None:
        self.tabs.setCurrentIndex(place)

    def _on_tab_changed(self, place: int) -> None:
        if self._tabs.isAncestorOf(self.focusWidget()):
            # What is hidden while a page computes would pass the focus on, at last to a line that takes digits.
            self._tabs.tabBar().setFocus()
        self.session.show_activations(place == _ACTIVATIONS_TAB)
        if place == _GRAPH_TAB:
            self.presenter.colour_graph_soon()

    def _update_actions(self) -> None:
        update_actions(self.actions_by_id, self.session)
        is_open = self.session.summary is not None
        self.preset_button.setEnabled(is_open)
        tip = self.tr("Quantize the whole network by a usual recipe, in one undo step.")
        reason = "" if is_open else self.tr("Open a network first.")
        self.preset_button.setToolTip(f"{tip}\n{reason}".rstrip())
        stack = self.session.undo_stack
        first, second = self.session.pins
        self.actions_by_id["flip"].setChecked(second is not None and first != second == self.session.config)
        for name, text in (("undo", stack.undoText()), ("redo", stack.redoText())):
            action = self.actions_by_id[name]
            if text and action.isEnabled():
                action.setToolTip(f"{action.toolTip()}\n{text}")

    def _show_title(self) -> None:
        summary = self.session.summary
        if summary is None:
            self.setWindowTitle("quantgui[*]")
            self.setWindowModified(False)
            self._title.setText("")
            return
        name = Path(summary.path).name
        config = Path(self.session.config_path).name
        self.setWindowTitle(f"{name}{f' · {config}' if config else ''}[*] – quantgui")
        self.setWindowModified(not self.session.is_saved)
        whole = f"{name}  ·  opset {summary.opset}  ·  {numbers.data_size(summary.file_bytes)}"
        self._title.setText(whole if self.width() >= _ROOMY else name)
        self._title.set_help("" if self.width() >= _ROOMY else whole)

    def _fill_recent(self) -> None:
        self._recent_menu.clear()
        entries = self.session.recent.entries()
        for entry in entries:
            action = self._recent_menu.addAction(Path(entry.network).name)
            action.setToolTip(entry.network)
            action.triggered.connect(lambda _=False, chosen=entry: self.commands.open_recent(chosen))
        if not entries:
            self._recent_menu.addAction(self.tr("Nothing opened yet")).setEnabled(False)

    # --- files dropped on the window -----------------------------------------------------------------------------

    def dragEnterEvent(self, event: QDragEnterEvent) -> None:
        if any(url.isLocalFile() for url in event.mimeData().urls()):
            event.acceptProposedAction()
            self.welcome.show_drag(over=True)

    def dragLeaveEvent(self, event: QDragLeaveEvent) -> None:
        self.welcome.show_drag(over=False)

    def dropEvent(self, event: QDropEvent) -> None:
        self.welcome.show_drag(over=False)
        paths = [url.toLocalFile() for url in event.mimeData().urls() if url.isLocalFile()]
        if paths:
            event.acceptProposedAction()
            self.commands.open_files(paths)

    # --- opening and closing -------------------------------------------------------------------------------------

    def _size_docks(self) -> None:
        wide = self.width() >= _WIDE
        horizontal, vertical = Qt.Orientation.Horizontal, Qt.Orientation.Vertical
        self._sides.want(
            {self.docks["layers"]: _LEFT if wide else 400, self.docks["inspector"]: _RIGHT if wide else 300}
        )
        height = _BOTTOM if self.height() >= 850 else _LOW_BOTTOM
        self.workspace.resizeDocks([self.docks["trade_off"], self.docks["jobs"]], [height, height], vertical)
        room = self.width() - _RIGHT - 3 * GAP
        self.workspace.resizeDocks([self.docks["trade_off"], self.docks["jobs"]], [room - _JOBS, _JOBS], horizontal)

    def _restore(self) -> None:
        geometry = self._settings.value("geometry")
        if not (isinstance(geometry, QByteArray) and self.restoreGeometry(geometry)):
            self.resize(self._first_size())

    def _first_size(self) -> QSize:
        """Return the size that shows everything, or what the screen has beside the window's frame."""
        room = self.screen().availableSize() - _FRAME
        # A screen smaller than the window can ever be has nothing to say.
        return FIRST_SIZE.boundedTo(room) if room.width() >= SMALLEST.width() else FIRST_SIZE

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Take the keys that set bits wherever no other widget wants them."""
        if self._panels is None or not self._panels.layers.table.take_format_key(event):
            super().keyPressEvent(event)

    def closeEvent(self, event: QCloseEvent) -> None:
        if not self.answers and not self.commands.may_leave():
            event.ignore()
            return
        self._settings.setValue("geometry", self.saveGeometry())
        if self.session.summary is not None:
            self._settings.setValue("layout", self.workspace.saveState(LAYOUT_VERSION))
        # A busy engine takes a moment to end; nobody needs to see a dead window meanwhile.
        self.hide()
        self.session.forget_autosave()
        self.session.close()
        event.accept()


__all__ = ["Answer", "MainWindow"]
