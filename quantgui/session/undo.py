"""The one undo command: replace one immutable configuration by another."""

from __future__ import annotations

from typing import Protocol

from PySide6.QtGui import QUndoCommand

from quantgui.spec.config import QuantConfig


class ApplyConfig(Protocol):
    """What the command does with a configuration; `reveal` asks to select what changed."""

    def __call__(self, config: QuantConfig, *, reveal: bool) -> None: ...


class SetConfig(QUndoCommand):
    """Replace the configuration `old` by `new`; commands with the same non-empty `merge_key` become one step."""

    def __init__(self, apply: ApplyConfig, old: QuantConfig, new: QuantConfig, text: str, merge_key: str = "") -> None:
        super().__init__(text)
        self._apply = apply
        self._old = old
        self._done_before = False
        self.new = new
        self.merge_key = merge_key

    def redo(self) -> None:
        # The first time is the user's own change: what he changed is already in front of him.
        self._apply(self.new, reveal=self._done_before)
        self._done_before = True

    def undo(self) -> None:
        self._apply(self._old, reveal=True)

    def id(self) -> int:
        return 1

    def mergeWith(self, other: QUndoCommand) -> bool:
        if not isinstance(other, SetConfig) or not self.merge_key or other.merge_key != self.merge_key:
            return False
        self.new = other.new
        self.setText(other.text())
        self.setObsolete(self.new == self._old)
        return True
