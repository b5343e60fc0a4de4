"""Marks for texts outside of classes, by names that ``lupdate`` looks for: there is no `self.tr` for them.

A text in a table is marked here and looked up where it is shown. Qt's own marks do nothing else, but have no types.
"""

from __future__ import annotations

from PySide6.QtCore import QCoreApplication

translate = QCoreApplication.translate
"""``translate("context", "Text")``: look up a text at once."""


def QT_TR_NOOP(text: str) -> str:
    """Mark a text; outside of classes its context is the empty one."""
    return text


def QT_TRANSLATE_NOOP(context: str, text: str) -> str:
    """Mark a text of `context`."""
    return text
