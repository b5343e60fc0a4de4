"""The real window, as tests open it."""

from __future__ import annotations

from pathlib import Path

from pytestqt.qtbot import QtBot

from quantgui.engine.client import EngineClient
from quantgui.gui.app import make_settings
from quantgui.gui.dialogs.files import FileChooser
from quantgui.gui.main_window import MainWindow
from quantgui.gui.presenters.configuration_file import Answer
from quantgui.session.session import Session


class PathChooser(FileChooser):
    """Answers with the path that a user would have chosen."""

    def __init__(self) -> None:
        super().__init__()
        self.path = ""

    def open_file(self, *_: object) -> str:
        return self.path

    def open_folder(self, *_: object) -> str:
        return self.path

    def save_file(self, *_: object) -> str:
        return self.path


def real_session(folder: Path) -> Session:
    """Return a session with the real engine, which keeps its state in `folder`."""
    return Session(EngineClient, folder / "state")


def open_window(
    qtbot: QtBot,
    session: Session,
    folder: Path,
    *,
    chooser: FileChooser | None = None,
    size: tuple[int, int] | None = None,
) -> MainWindow:
    """Show a window whose settings lie in `folder`; work that is not saved is discarded without asking.

    The session is closed with the window.
    """
    window = MainWindow(session, make_settings(folder / "layout.ini"), chooser)
    window.commands.configuration_file.ask_to_save = lambda: Answer.DISCARD
    qtbot.addWidget(window, before_close_func=lambda closed: closed.session.close())
    if size is not None:
        window.resize(*size)
    with qtbot.waitExposed(window):
        window.show()
    return window
