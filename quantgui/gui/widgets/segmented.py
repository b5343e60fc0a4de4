"""A row of buttons of which one is chosen: bits, views, scales."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from PySide6.QtCore import Qt, Signal
from PySide6.QtWidgets import QButtonGroup, QHBoxLayout, QSizePolicy, QToolButton, QWidget


@dataclass(frozen=True, slots=True)
class Segment:
    """One choice: what it means, what stands on it, and what it does in a sentence."""

    value: object
    text: str
    help: str = ""


class SegmentedButtons(QWidget):
    """One of a few choices, all in sight; left and right arrow keys move.

    Signals:
        chosen: the value of the segment the user clicked; not sent by `set_value`.
    """

    chosen = Signal(object)

    def __init__(
        self, name: str, segments: Sequence[Segment], parent: QWidget | None = None, *, stretch: bool = False
    ) -> None:
        super().__init__(parent)
        self.setAccessibleName(name)
        self._values = [segment.value for segment in segments]
        self._group = QButtonGroup(self)
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(0)
        for index, segment in enumerate(segments):
            button = QToolButton(self)
            button.setText(segment.text)
            button.setCheckable(True)
            button.setToolTip(segment.help)
            button.setAccessibleName(f"{name}: {segment.text}")
            button.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
            button.setProperty("place", _place(index, len(segments)))
            policy = QSizePolicy.Policy.Expanding if stretch else QSizePolicy.Policy.Preferred
            button.setSizePolicy(policy, QSizePolicy.Policy.Fixed)
            words = button.fontMetrics().horizontalAdvance(segment.text)
            button.setMinimumWidth(max(26, words + 10) if stretch else words + 18)
            self._group.addButton(button, index)
            layout.addWidget(button)
        self.setSizePolicy(
            QSizePolicy.Policy.Expanding if stretch else QSizePolicy.Policy.Fixed, QSizePolicy.Policy.Fixed
        )
        self._group.idClicked.connect(self._on_clicked)

    def value(self) -> object:
        """Return the chosen value, or None where nothing is chosen."""
        index = self._group.checkedId()
        return None if index < 0 else self._values[index]

    def set_value(self, value: object) -> None:
        """Choose the segment of `value`; none if no segment has it (layers of different specs, say)."""
        if value in self._values:
            self._group.button(self._values.index(value)).setChecked(True)
            return
        self._group.setExclusive(False)
        for button in self._group.buttons():
            button.setChecked(False)
        self._group.setExclusive(True)

    def button(self, value: object) -> QToolButton:
        """Return the button of `value`."""
        button = self._group.button(self._values.index(value))
        assert isinstance(button, QToolButton)
        return button

    def _on_clicked(self, index: int) -> None:
        self.chosen.emit(self._values[index])


def _place(index: int, count: int) -> str:
    if count == 1:
        return "only"
    return "first" if index == 0 else "last" if index == count - 1 else "middle"
