"""What a panel shows when it has nothing to show: empty, computing, failed, needs something."""

from __future__ import annotations

from collections.abc import Callable

from PySide6.QtCore import Qt, Signal
from PySide6.QtWidgets import QHBoxLayout, QLabel, QProgressBar, QPushButton, QVBoxLayout, QWidget

from quantgui.gui.icons import pixmap
from quantgui.gui.theme import current, theme_events
from quantgui.gui.widgets.card import Pages
from quantgui.gui.widgets.progress import time_left

_ICON = 32


class StatePage(QWidget):
    """An icon, a heading, a sentence, and at most one button, in the middle.

    Signals:
        action_triggered: the button was pressed.
    """

    action_triggered = Signal()

    def __init__(self, parent: QWidget | None = None, *, framed: bool = False) -> None:
        super().__init__(parent)
        self.setAttribute(Qt.WidgetAttribute.WA_StyledBackground)
        self.setProperty("framed", "true" if framed else "false")
        self._does: Callable[[], object] | None = None
        self._icon_name = "info"
        self._token = "muted"
        self._icon = QLabel()
        self._heading = QLabel()
        self._heading.setProperty("role", "title")
        self._heading.setWordWrap(True)
        self._sentence = QLabel()
        self._sentence.setProperty("role", "note")
        self._sentence.setWordWrap(True)
        self._bar = QProgressBar()
        self._bar.setTextVisible(False)
        self._bar.setFixedWidth(180)
        self._button = QPushButton()
        column = QVBoxLayout()
        column.setSpacing(6)
        column.addStretch(3)
        for label in (self._icon, self._heading, self._sentence):
            label.setAlignment(Qt.AlignmentFlag.AlignCenter)
            column.addWidget(label)  # no alignment here: a wrapped label then gets the height it needs
        column.addSpacing(2)
        column.addWidget(self._bar, 0, Qt.AlignmentFlag.AlignHCenter)
        column.addWidget(self._button, 0, Qt.AlignmentFlag.AlignHCenter)
        column.addStretch(4)
        layout = QHBoxLayout(self)
        layout.setContentsMargins(16, 8, 16, 8)
        layout.addStretch(1)
        layout.addLayout(column, 6)
        layout.addStretch(1)
        self._button.clicked.connect(self.action_triggered)
        self.action_triggered.connect(self._on_action)
        theme_events().changed.connect(self._on_theme_changed)

    def show_state(
        self,
        icon_name: str,
        heading: str,
        sentence: str = "",
        *,
        action: str = "",
        does: Callable[[], object] | None = None,
        token: str = "muted",
    ) -> None:
        """Show a state at rest; `action` is the text of the button, without it there is none, and `does` what it does.

        Where the button does the same in every state, `action_triggered` says enough.
        """
        self._icon_name, self._token, self._does = icon_name, token, does
        self._heading.setText(heading)
        self._sentence.setText(sentence)
        self._sentence.setVisible(bool(sentence))
        self._bar.hide()
        self._button.setText(action)
        self._button.setAccessibleName(action)
        self._button.setToolTip(sentence)
        self._button.setVisible(bool(action))
        self.setAccessibleName(f"{heading}. {sentence}".strip())
        self._on_theme_changed(None)

    def show_busy(
        self,
        icon_name: str,
        heading: str,
        sentence: str = "",
        done: int = 0,
        total: int = 0,
        *,
        action: str = "",
        does: Callable[[], object] | None = None,
        seconds_left: float | None = None,
    ) -> None:
        """Show that something is under way: `done` of `total`, or a moving bar where that is not known."""
        sentence = " · ".join(filter(None, (sentence, time_left(seconds_left))))
        self.show_state(icon_name, heading, sentence, action=action, does=does)
        self._bar.setRange(0, total)
        self._bar.setValue(done)
        self._bar.setAccessibleName(heading)
        self._bar.show()

    def heading(self) -> str:
        """Return the heading."""
        return self._heading.text()

    def sentence(self) -> str:
        """Return the sentence below the heading."""
        return self._sentence.text()

    def _on_action(self) -> None:
        if self._does is not None:
            self._does()

    def _on_theme_changed(self, _tokens: object) -> None:
        color = getattr(current(), self._token)
        self._icon.setPixmap(pixmap(self._icon_name, _ICON, color, self.devicePixelRatioF()))


class ContentOrState(Pages):
    """What a panel shows, or the state that says why there is nothing."""

    def __init__(self, content: QWidget, state: StatePage, parent: QWidget | None = None) -> None:
        super().__init__(content, state, parent=parent)
        self._state = state

    def show_state(
        self,
        icon_name: str,
        heading: str,
        sentence: str = "",
        *,
        action: str = "",
        does: Callable[[], object] | None = None,
        token: str = "muted",
    ) -> None:
        """Show a state at rest (see `StatePage.show_state`) in place of the content."""
        self._state.show_state(icon_name, heading, sentence, action=action, does=does, token=token)
        self.show_page(self._state)
