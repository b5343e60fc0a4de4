"""A bar above the tabs for a sentence the user should see: what failed and what to do, or what was recovered."""

from __future__ import annotations

from typing import Literal

from PySide6.QtCore import Qt, Signal
from PySide6.QtWidgets import QFrame, QHBoxLayout, QLabel, QPushButton, QToolButton, QWidget

from quantgui.gui.icons import pixmap, set_icon
from quantgui.gui.theme import current, theme_events


class NoticeBar(QFrame):
    """One sentence with a button to put it away, and at most one button to do something about it.

    Signals:
        action_triggered: the button was pressed.
    """

    action_triggered = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("notice")
        self._token = "bad"
        self._icon = QLabel()
        self._text = QLabel()
        self._text.setWordWrap(True)
        self._text.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.action = QPushButton()
        self.dismiss = QToolButton()
        self.dismiss.setProperty("flat", "true")
        self.dismiss.setAccessibleName(self.tr("Put the message away"))
        self.dismiss.setToolTip(self.tr("Put the message away"))
        set_icon(self.dismiss, "x", "muted")
        layout = QHBoxLayout(self)
        layout.setContentsMargins(10, 6, 6, 6)
        layout.setSpacing(9)
        layout.addWidget(self._icon)
        layout.addWidget(self._text, 1)
        layout.addWidget(self.action)
        layout.addWidget(self.dismiss)
        self.dismiss.clicked.connect(self.hide)
        self.action.clicked.connect(self.action_triggered)
        theme_events().changed.connect(self._paint_anew)
        self.hide()

    def show_sentence(self, sentence: str, kind: Literal["failure", "info"] = "failure", action: str = "") -> None:
        """Show `sentence`; `action` is the text of the button, without it there is none."""
        self._token = "bad" if kind == "failure" else "accent"
        self._text.setText(sentence)
        self.setAccessibleName(sentence)
        self.action.setText(action)
        self.action.setAccessibleName(action)
        self.action.setToolTip(action)
        self.action.setVisible(bool(action))
        self._paint_anew(None)
        self.show()

    def sentence(self) -> str:
        """Return the sentence, empty where none is shown."""
        return "" if self.isHidden() else self._text.text()

    def _paint_anew(self, _: object) -> None:
        tokens = current()
        name = "circle-alert" if self._token == "bad" else "info"
        self._icon.setPixmap(pixmap(name, 16, getattr(tokens, self._token), self.devicePixelRatioF()))
        ground, edge = tokens.mixed(self._token, "panel", 0.12), tokens.mixed(self._token, "panel", 0.5)
        self.setStyleSheet(f"#notice {{ background: {ground}; border: 1px solid {edge}; border-radius: 7px; }}")
