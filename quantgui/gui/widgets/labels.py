"""Labels: text that gives way when space is short, and key numbers with a caption."""

from __future__ import annotations

from typing import Literal

from PySide6.QtCore import QEvent, QSize, Qt
from PySide6.QtGui import QPainter, QPaintEvent
from PySide6.QtWidgets import QLabel, QSizePolicy, QVBoxLayout, QWidget

Tone = Literal["text", "muted", "good", "warning", "bad", "accent", "quantized"]

_STEP = 16
"""Pixels to whose multiples widths are rounded up."""


def set_style(widget: QWidget, name: str, value: str) -> None:
    """Set a property that the style sheet selects by, and style the widget anew if it differs."""
    if widget.property(name) != value:
        widget.setProperty(name, value)
        widget.style().unpolish(widget)
        widget.style().polish(widget)


class ElidedLabel(QLabel):
    """One line of text that ends in "…" where it does not fit, with the whole text as tooltip.

    It asks for as much width as its text needs, and can do with `least` pixels. The width is rounded up, so that a
    number that changes seldom moves what stands beside it: that would have everything around painted anew.
    """

    def __init__(self, text: str = "", parent: QWidget | None = None, *, middle: bool = False, least: int = 28) -> None:
        super().__init__(parent)
        self._least = least
        self._text = ""
        self._advances: dict[str, int] = {}
        self._shortened = ("", -1, "")
        self._help = ""
        self._mode = Qt.TextElideMode.ElideMiddle if middle else Qt.TextElideMode.ElideRight
        self.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Fixed)
        self.setText(text)

    def setText(self, text: str) -> None:
        if text == self._text:
            return
        fits = self._room(text) == self._room(self._text)
        self._text = text
        self._advances = {known: self._advance(known) for known in (text, super().text())}
        self.setAccessibleName(text)
        if fits:
            self.update()
        else:
            super().setText(text)
        self._explain()

    def text(self) -> str:
        return self._text

    def sizeHint(self) -> QSize:
        hint = super().sizeHint()
        margins = hint.width() - self._advance(super().text())
        return QSize(margins + self._room(self._text), hint.height())

    def _room(self, text: str) -> int:
        """Return the width that is asked for to show `text`, without margins."""
        return -(-self._advance(text) // _STEP) * _STEP

    def _advance(self, text: str) -> int:
        """Return the width of `text`; it is measured once, as layouts ask for it again and again."""
        known = self._advances.get(text)
        if known is None:
            known = self._advances[text] = self.fontMetrics().horizontalAdvance(text)
        return known

    def changeEvent(self, event: QEvent) -> None:
        if event.type() in (QEvent.Type.FontChange, QEvent.Type.StyleChange):
            self._advances, self._shortened = {}, ("", -1, "")
        super().changeEvent(event)

    def set_help(self, text: str) -> None:
        """Set a tooltip that says more than the text."""
        self._help = text
        self._explain()

    def minimumSizeHint(self) -> QSize:
        return QSize(min(self._least, self.sizeHint().width()), super().minimumSizeHint().height())

    def resizeEvent(self, event: object) -> None:
        self._explain()

    def _explain(self) -> None:
        parts = [] if self._elided() == self.text() else [self.text()]
        self.setToolTip("\n".join([*parts, self._help] if self._help else parts))

    def _elided(self) -> str:
        width = self.contentsRect().width()
        if self._advance(self._text) <= width:
            return self._text
        if self._shortened[:2] != (self._text, width):
            self._shortened = (self._text, width, self.fontMetrics().elidedText(self._text, self._mode, width))
        return self._shortened[2]

    def paintEvent(self, event: QPaintEvent) -> None:
        painter = QPainter(self)
        flags = int((self.alignment() & Qt.AlignmentFlag.AlignHorizontal_Mask) | Qt.AlignmentFlag.AlignVCenter)
        self.style().drawItemText(
            painter, self.contentsRect(), flags, self.palette(), self.isEnabled(), self._elided(), self.foregroundRole()
        )
        painter.end()


class MetricLabel(QWidget):
    """A key number in large figures over its caption.

    `help_text` gives meaning, unit and direction ("dB, larger is better") as tooltip.
    """

    def __init__(self, caption: str, help_text: str, parent: QWidget | None = None, *, small: bool = False) -> None:
        super().__init__(parent)
        self._caption = ElidedLabel(caption)
        self._caption.setProperty("role", "note")
        self._value = ElidedLabel()
        self._value.setProperty("role", "small-metric" if small else "metric")
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(1)
        layout.addWidget(self._value)
        layout.addWidget(self._caption)
        self.setToolTip(help_text)
        self.show_value("–")

    def show_value(self, text: str, tone: Tone = "text") -> None:
        """Show the number `text` in the colour of `tone`."""
        self._value.setText(text)
        set_style(self._value, "tone", tone)
        self.setAccessibleName(f"{self._caption.text()}: {text}")

    def show_caption(self, text: str) -> None:
        """Change the caption below the number."""
        self._caption.setText(text)
        self.setAccessibleName(f"{text}: {self._value.text()}")

    def text(self) -> str:
        """Return the number as shown."""
        return self._value.text()
