"""The main window: makes the parts and connects them; decides nothing itself.

The workspace of an open network, its panels and plots, takes longer to make than all the rest, and a library has to be
imported for it. So it is made step by step behind the first picture of the window (`MainWindow.make_next`), or at once
when it is needed.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

from PySide6.QtCore import QByteArray, QSettings, QSize, QTimer
from PySide6.QtGui import (
    QCloseEvent,
    QDragEnterEvent,
    QDragLeaveEvent,
    QDropEvent,
    QKeyEvent,
    QResizeEvent,
)
from PySide6.QtWidgets import (
    QApplication,
    QDockWidget,
    QMainWindow,
    QMenu,
    QStackedWidget,
    QTabWidget,
    QVBoxLayout,
    QWidget,
)

from quantgui.errors import QuantGuiError
from quantgui.gui import numbers
from quantgui.gui.actions import FILE, VIEW
from quantgui.gui.commands import Commands
from quantgui.gui.dialogs.files import FileChooser
from quantgui.gui.menus import build_actions, update_actions
from quantgui.gui.panels.notice import NoticeBar
from quantgui.gui.panels.welcome import WelcomePage
from quantgui.gui.status_line import StatusLine
from quantgui.gui.theme import GAP
from quantgui.gui.toolbar import ROOMY, Toolbar
from quantgui.gui.undo_keys import UndoKeys
from quantgui.gui.widgets.labels import ElidedLabel
from quantgui.gui.workspace import LAYOUT_VERSION, Workspace
from quantgui.results import Finding, NetworkSummary
from quantgui.session.jobs import Job, JobState
from quantgui.session.samples import read_samples
from quantgui.session.session import Session
from quantgui.spec.presets import Preset
from quantgui.spec.targets import find_target

if TYPE_CHECKING:
    from quantgui.gui.panels.all_panels import Panels
    from quantgui.gui.presenter import Presenter

FIRST_SIZE = QSize(1440, 900)
SMALLEST = QSize(1024, 640)
_FRAME = QSize(8, 40)
"""About what a window manager draws around a window."""
_A_TURN_MS = 1
"""The shortest time of a real timer: what comes after it is done in a later turn of the event loop."""


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
        self.welcome = WelcomePage()
        self.notice = NoticeBar()
        self.status = StatusLine()
        self.workspace = Workspace(session, self.status, settings)
        self.commands = Commands(session, self.workspace, chooser or FileChooser(settings), settings, self)
        self.actions_by_id, self._menus = build_actions(self, self.commands.handlers())
        self._pages = QStackedWidget()
        self._title = ElidedLabel(middle=True)
        self._undo_keys = UndoKeys(self)
        self._failures: dict[str, str] = {}
        self._stalled = ""
        # Many things happen at once; the actions are looked at once, before the next event of the user.
        self._actions_timer = QTimer(self, singleShot=True, interval=0)
        self._actions_timer.timeout.connect(self._update_actions)
        self._lay_out()
        self.toolbar = Toolbar(session, self.actions_by_id, self._title)
        self.addToolBar(self.toolbar)
        self._make_menus()
        self._connect()
        self._restore()
        self._update_actions()
        self._show_title()

    # --- the workspace -------------------------------------------------------------------------------------------

    @property
    def panels(self) -> Panels:
        """All panels."""
        return self.workspace.panels

    @property
    def presenter(self) -> Presenter:
        """What connects the panels with the session."""
        return self.workspace.presenter

    @property
    def tabs(self) -> QTabWidget:
        """Views of the current layer."""
        return self.workspace.tabs

    @property
    def docks(self) -> dict[str, QDockWidget]:
        """The docks by name."""
        return self.workspace.docks

    def is_finished(self) -> bool:
        """Return whether the workspace has been made."""
        return self.workspace.is_finished()

    def make_next(self) -> bool:
        """Make the next piece of the workspace; return whether there was one."""
        return self.workspace.make_next()

    # --- making --------------------------------------------------------------------------------------------------

    def _lay_out(self) -> None:
        self._holder = QWidget()
        outer = QVBoxLayout(self._holder)
        outer.setContentsMargins(GAP, 0, GAP, GAP - 2)
        outer.setSpacing(0)
        outer.addWidget(self.workspace)
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

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        self.toolbar.fit(self.width())
        self._show_title()

    def _make_menus(self) -> None:
        self._recent_menu = QMenu(self.tr("Open &recent"), self)
        self._menus[FILE].insertMenu(self.actions_by_id["data"], self._recent_menu)
        self._recent_menu.aboutToShow.connect(self._fill_recent)

    def _on_docks_made(self, docks: tuple[QDockWidget, ...]) -> None:
        self._menus[VIEW].addSeparator()
        self._menus[VIEW].addActions([dock.toggleViewAction() for dock in docks])

    # --- connecting ----------------------------------------------------------------------------------------------

    def _connect(self) -> None:
        session, commands = self.session, self.commands
        self.welcome.open_requested.connect(commands.open_network)
        self.welcome.sample_chosen.connect(commands.open_sample)
        self.welcome.recent_chosen.connect(commands.open_recent)
        self.workspace.data_requested.connect(commands.data.show)
        self.workspace.docks_made.connect(self._on_docks_made)
        self.workspace.alarmed.connect(self._on_data_alarm)
        self.toolbar.presets.preset_chosen.connect(self._apply_preset)
        commands.noticed.connect(self._on_failed)
        commands.configuration_file.noticed.connect(self._on_failed)
        commands.configuration_file.withdrawn.connect(self._withdraw_notice)
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

    def _apply_preset(self, preset: Preset) -> None:
        self.presenter.apply_preset(preset)

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
        self.workspace.fit_first(self.size())
        self.panels.layers.table.setFocus()

    def _on_network_closed(self) -> None:
        self.show_welcome()
        self._hide_notice()
        self._show_title()

    def _on_job_changed(self, job: Job) -> None:
        if job.topic == "network":
            # Before the network comes: the panels listen to that.
            self.workspace.finish()
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

    def _on_data_alarm(self, finding: Finding) -> None:
        words = self.tr("{sentence} {advice} The Data tab tells more.")
        self._show_notice(words.format(sentence=finding.sentence, advice=finding.advice), failure=False)

    def _on_stalled(self, sentence: str) -> None:
        self._stalled = sentence
        self._show_notice(sentence, failure=True)

    def _on_resumed(self) -> None:
        self._withdraw_notice(self._stalled)
        self._stalled = ""

    def _show_notice(self, sentence: str, *, failure: bool) -> None:
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

    def _update_actions(self) -> None:
        update_actions(self.actions_by_id, self.session)
        self.toolbar.presets.show_possible()
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
        self._title.setText(whole if self.width() >= ROOMY else name)
        self._title.set_help("" if self.width() >= ROOMY else whole)

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
        if not self.is_finished() or not self.panels.layers.table.take_format_key(event):
            super().keyPressEvent(event)

    def closeEvent(self, event: QCloseEvent) -> None:
        if not self.answers and not self.commands.configuration_file.may_leave():
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
