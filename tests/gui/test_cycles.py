"""Cycles that hold Qt objects are freed in the window's thread, however much other threads allocate."""

from __future__ import annotations

import gc
import threading
import weakref

from PySide6.QtCore import QObject

from quantgui.gui.cycles import CycleCollector


class Held(QObject):
    """Refers to itself, as windows and their presenters do."""

    def __init__(self) -> None:
        super().__init__()
        self.itself = self


def test_that_other_threads_free_no_qt_objects_and_the_windows_thread_does(qtbot) -> None:
    freed_in: list[int] = []
    owner = QObject()
    collector = CycleCollector(owner)
    reference = weakref.ref(Held(), lambda _: freed_in.append(threading.get_ident()))

    def allocate() -> None:
        rubbish = [[] for _ in range(100_000)]
        rubbish.append(rubbish)

    for _ in range(5):
        thread = threading.Thread(target=allocate)
        thread.start()
        thread.join()
    assert reference() is not None
    assert not gc.isenabled()
    [[] for _ in range(10_000)]

    def is_freed() -> bool:
        kept = [[] for _ in range(2_000)]  # something allocates all the time in a window too
        return bool(kept) and bool(freed_in)

    qtbot.waitUntil(is_freed, timeout=20_000)
    assert freed_in == [threading.get_ident()]
    assert collector.parent() is owner
