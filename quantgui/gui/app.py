"""The application around the window: start, look, unexpected errors."""

from __future__ import annotations

import gc
import logging
import logging.handlers
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final

from PySide6.QtCore import QSettings, QTimer
from PySide6.QtGui import QGuiApplication
from PySide6.QtWidgets import QApplication

from quantgui.engine.client import EngineClient
from quantgui.gui.cycles import CycleCollector
from quantgui.gui.dialogs.error import ErrorDialog
from quantgui.gui.icons import icon
from quantgui.gui.languages import SYSTEM, install_language
from quantgui.gui.main_window import MainWindow
from quantgui.gui.theme import apply_theme, current
from quantgui.paths import state_folder
from quantgui.session.project import absolute_network
from quantgui.session.session import Session
from quantgui.spec.pytorch_source import DEFAULT_OPTIONS, PytorchOptions
from quantgui.spec.serialization import save_config

_LOG = logging.getLogger("quantgui")
ERROR_INTERVAL_SECONDS = 5.0
LOG_BYTES = 1_000_000
FIRST_PICTURE_MS = 50
"""Time in which the first picture of the window comes to the screen; then its workspace is made."""


class ExceptionHook:
    """Tells the user about an unexpected error, writes it to the log, and lets the window live.

    A painting that fails would fail sixty times a second: one dialog is shown at a time, and a new one only after
    some seconds.
    """

    def __init__(self, window: MainWindow | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._window = window
        self._clock = clock
        self._last = -ERROR_INTERVAL_SECONDS
        self.dialog: ErrorDialog | None = None
        self.count = 0

    def __call__(self, kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if issubclass(kind, KeyboardInterrupt):
            QApplication.exit(0)
            return
        details = "".join(traceback.format_exception(kind, error, trace))
        self.count += 1
        _LOG.error("Unexpected error\n%s", details)
        now = self._clock()
        if now - self._last < ERROR_INTERVAL_SECONDS or (self.dialog is not None and self.dialog.isVisible()):
            return
        self._last = now
        if self.dialog is None:
            self.dialog = ErrorDialog(self._window)
        self.dialog.show_error(f"{kind.__name__}: {error}", details)


@dataclass(frozen=True, slots=True)
class Beginning:
    """What else the window begins with, and what it leaves behind.

    Attributes:
        metric: the user's ``FILE.py:function``; empty for the automatic one.
        config: file of the configuration; empty for everything float.
        answer: file into which the configuration is written when the window is closed; None for nowhere. Who waits for
            it has it, so nothing is asked then about saving.
    """

    metric: str = ""
    config: str = ""
    answer: Path | None = None


_PLAIN: Final = Beginning()


def run_app(
    network: str | None,
    data: str | None,
    *,
    pytorch: PytorchOptions = DEFAULT_OPTIONS,
    beginning: Beginning = _PLAIN,
    argv: list[str] | None = None,
    settings_path: Path | None = None,
    folder: Path | None = None,
) -> int:
    """Open the window, with `network` and `data` if given, and return the exit code when it is closed.

    Args:
        network: path of a network, or None for the welcome page.
        data: data source, see `quantgui.engine.requests.OpenData`.
        pytorch: how a PyTorch network is opened.
        beginning: what else there is at first, and what is written at the end.
        argv: arguments for Qt.
        settings_path: ini file of layout and look, instead of the user's.
        folder: where autosave, recent files and logs lie, instead of the user's state folder.
    """
    folder = folder or state_folder()
    start_log(folder)
    QGuiApplication.setDesktopFileName("quantgui")
    QApplication.setApplicationName("quantgui")
    QApplication.setOrganizationName("quantgui")
    app = QApplication(argv if argv is not None else sys.argv[:1])
    CycleCollector(app)
    settings = make_settings(settings_path)
    install_language(app, str(settings.value("language", SYSTEM)))
    scheme = settings.value("scheme", "system", type=str)
    apply_theme(app, scheme if scheme in ("light", "dark") else "system")
    app.setWindowIcon(icon("layers", current().accent))
    session = Session(EngineClient, folder)
    window = MainWindow(session, settings)
    hook = ExceptionHook(window)
    sys.excepthook = hook
    _let_interrupts_through(app)
    window.show()
    QTimer.singleShot(0, lambda: start(window, network, data, pytorch, beginning))
    window.answers = beginning.answer is not None
    code = app.exec()
    sys.excepthook = sys.__excepthook__
    session.close()
    if beginning.answer is not None and _is_of(session, network):
        save_config(session.config, beginning.answer)
    return code


def _is_of(session: Session, network: str | None) -> bool:
    """Return whether the network that the window began with is still the open one."""
    return session.summary is not None and session.summary.path == absolute_network(network or "")


def start(
    window: MainWindow,
    network: str | None,
    data: str | None,
    pytorch: PytorchOptions = DEFAULT_OPTIONS,
    beginning: Beginning = _PLAIN,
) -> None:
    """Do what follows the first picture of the window."""
    if beginning.metric:
        window.session.set_metric(beginning.metric)
    if network:
        window.commands.open_path(network, data or "", pytorch=pytorch, config=beginning.config)
    else:
        window.session.recover()
    QTimer.singleShot(FIRST_PICTURE_MS, window, lambda: _finish(window))


def _finish(window: MainWindow) -> None:
    """Make the rest of the window in steps, between which it can be used."""
    if window.make_next():
        QTimer.singleShot(0, window, lambda: _finish(window))
        return
    # What has been made until now lives as long as the window; a full collection of it costs several frames.
    gc.collect()
    gc.freeze()


def make_settings(path: Path | None) -> QSettings:
    """Return the settings in the ini file at `path`, or the user's."""
    if path is not None:
        return QSettings(str(path), QSettings.Format.IniFormat)
    return QSettings(QSettings.Format.IniFormat, QSettings.Scope.UserScope, "quantgui", "quantgui")


def start_log(folder: Path) -> None:
    """Write warnings and errors to ``quantgui.log``; without a writable folder they go to standard error alone."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handler = logging.handlers.RotatingFileHandler(folder / "quantgui.log", maxBytes=LOG_BYTES, backupCount=1)
    except OSError:
        return
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    handler.setLevel(logging.WARNING)
    logging.getLogger().addHandler(handler)


def _let_interrupts_through(app: QApplication) -> None:
    """Let Ctrl+C in a terminal close the program: Python sees signals only while it runs."""
    if os.name == "posix":
        # Without asking anything: what is not saved stays in the recovery file.
        signal.signal(signal.SIGINT, lambda *_: app.exit(0))
        timer = QTimer(app)
        timer.timeout.connect(lambda: None)
        timer.start(500)
