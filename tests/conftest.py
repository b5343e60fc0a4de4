"""Fixtures that keep tests independent of each other and of the user's machine."""

from __future__ import annotations

import gc
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

# How long an example takes says nothing on a machine that others use.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")
os.environ["QT_QPA_PLATFORM"] = "offscreen"
sys.path.insert(0, str(Path(__file__).parent))  # builders.py and networks.py
# A run in the background of a script has interrupts ignored, and so would have every program that the tests interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_configure(config: pytest.Config) -> None:
    """Start a display of its own for the tests that need a real one (``-m x11``)."""
    if config.getoption("markexpr", "") != "x11" or hasattr(config, "workerinput"):
        return
    if shutil.which("Xvfb") is None:
        raise pytest.UsageError("The tests in a real window need Xvfb; install it (Debian: xvfb).")
    read, write = os.pipe()
    display = subprocess.Popen(
        ["Xvfb", "-displayfd", str(write), "-screen", "0", "1600x1000x24", "-nolisten", "tcp"],
        pass_fds=(write,),
        stderr=subprocess.DEVNULL,
    )
    os.close(write)
    with os.fdopen(read) as numbers:
        os.environ["DISPLAY"] = f":{numbers.readline().strip()}"
    os.environ["QT_QPA_PLATFORM"] = "xcb"

    def stop() -> None:
        display.terminate()
        display.wait()

    config.add_cleanup(stop)


@pytest.fixture(autouse=True)
def _cycles_of_this_thread() -> Iterator[None]:
    """Collect cycles between tests, in this thread: windows of earlier tests must not be freed in any other."""
    from quantgui.gui.cycles import collect_due

    gc.disable()
    yield
    collect_due()


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put settings, state and caches of the program into the test's own folder."""
    for variable in ("XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(variable, str(tmp_path / variable.lower()))


@pytest.fixture(autouse=True)
def _nothing_left_behind(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test of the window that leaves a visible top-level widget or an engine thread behind."""
    if "qtbot" not in request.fixturenames:
        yield
        return
    from PySide6.QtCore import QEvent

    app = request.getfixturevalue("qapp")
    before = set(app.topLevelWidgets())
    yield
    app.sendPostedEvents(None, QEvent.Type.DeferredDelete.value)
    left = [widget for widget in app.topLevelWidgets() if widget not in before and widget.isVisible()]
    assert not left, f"widgets left behind: {left}"
    threads = [thread.name for thread in threading.enumerate() if thread.name.startswith("engine")]
    assert not threads, f"engine threads left behind: {threads}"
