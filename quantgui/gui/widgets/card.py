"""Card: a framed area with a title, legend chips, key numbers and a body."""

from __future__ import annotations

import math
from typing import Literal

from PySide6.QtCore import QPointF, QRectF, QSize, Qt
from PySide6.QtGui import QPainter, QPaintEvent
from PySide6.QtWidgets import QAbstractButton, QFrame, QHBoxLayout, QSizePolicy, QStackedLayout, QVBoxLayout, QWidget

from quantgui.gui.theme import SMALL_PIXELS, current, theme_events, ui_font
from quantgui.gui.widgets.labels import ElidedLabel

_SWATCH = QSize(10, 8)

Symbol = Literal["bar", "line", "dot", "square", "diamond", "star"]
"""What a legend chip shows: an area, or how something is drawn in a plot."""


class LegendChip(QAbstractButton):
    """A coloured swatch with a word; if it can be switched, a click hides and shows what it stands for.

    The swatch takes the colour of a token, so it follows the theme.
    """

    def __init__(
        self,
        token: str,
        text: str,
        parent: QWidget | None = None,
        *,
        switchable: bool = False,
        symbol: Symbol = "bar",
    ) -> None:
        super().__init__(parent)
        self._token = token
        self._symbol = symbol
        self._has_word = True
        self.setFont(ui_font(SMALL_PIXELS))
        self.setText(text)
        self.setAccessibleName(text)
        self.setCheckable(switchable)
        self.setChecked(switchable)
        self.setFocusPolicy(Qt.FocusPolicy.TabFocus if switchable else Qt.FocusPolicy.NoFocus)
        if switchable:
            self.setCursor(Qt.CursorShape.PointingHandCursor)
            self.setToolTip(self.tr("Show or hide: {name}").format(name=text))
        self.setSizePolicy(QSizePolicy.Policy.Fixed, QSizePolicy.Policy.Fixed)
        theme_events().changed.connect(self._on_theme_changed)

    def set_text(self, text: str) -> None:
        """Change the word."""
        self.setText(text)
        self.setAccessibleName(text)
        if self.isCheckable():
            self.setToolTip(self.tr("Show or hide: {name}").format(name=text))
        self.updateGeometry()

    def sizeHint(self) -> QSize:
        metrics = self.fontMetrics()
        if not self._has_word:
            return self.minimumSizeHint()
        return QSize(_SWATCH.width() + 8 + metrics.horizontalAdvance(self.text()), max(18, metrics.height() + 2))

    def minimumSizeHint(self) -> QSize:
        return QSize(_SWATCH.width() + 2, max(18, self.fontMetrics().height() + 2))

    def let_shrink(self) -> None:
        """Let the word give way where the card is narrow, down to the swatch alone."""
        self.setSizePolicy(QSizePolicy.Policy.Maximum, QSizePolicy.Policy.Fixed)

    def show_word(self, *, shown: bool) -> None:
        """Show the word, or the swatch alone; the tooltip says what it is."""
        if shown != self._has_word:
            self._has_word = shown
            self.updateGeometry()
            self.update()

    def paintEvent(self, event: QPaintEvent) -> None:
        tokens = current()
        shown = self.isChecked() or not self.isCheckable()
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        swatch = QRectF(1, (self.height() - _SWATCH.height()) / 2, _SWATCH.width(), _SWATCH.height())
        if shown:
            painter.setPen(Qt.PenStyle.NoPen)
            painter.setBrush(tokens.color(self._token))
        else:
            painter.setPen(tokens.color("muted"))
            swatch.adjust(0.5, 0.5, -0.5, -0.5)
        self._draw_swatch(painter, swatch)
        active = self.hasFocus() or (self.underMouse() and self.isCheckable())
        painter.setPen(tokens.color("accent" if self.hasFocus() else "text" if active else "muted"))
        text = self.rect().adjusted(_SWATCH.width() + 6, 0, 0, 0)
        if not self._has_word:
            painter.end()
            return
        words = self.fontMetrics().elidedText(self.text(), Qt.TextElideMode.ElideRight, text.width())
        painter.drawText(text, int(Qt.AlignmentFlag.AlignVCenter | Qt.AlignmentFlag.AlignLeft), words)
        painter.end()

    def _draw_swatch(self, painter: QPainter, swatch: QRectF) -> None:
        middle = swatch.center()
        match self._symbol:
            case "bar":
                painter.drawRoundedRect(swatch, 2.5, 2.5)
            case "line":
                painter.drawRect(QRectF(swatch.left(), middle.y() - 1, swatch.width(), 2))
            case "dot":
                painter.drawEllipse(middle, 3.5, 3.5)
            case "square":
                painter.drawRect(QRectF(middle.x() - 3.5, middle.y() - 3.5, 7, 7))
            case "diamond":
                painter.drawPolygon([middle + QPointF(x, y) for x, y in ((0, -5), (4.5, 0), (0, 5), (-4.5, 0))])
            case "star":
                turns = [(-math.pi / 2 + math.pi * corner / 5, 5.5 if corner % 2 == 0 else 2.2) for corner in range(10)]
                painter.drawPolygon([middle + QPointF(r * math.cos(a), r * math.sin(a)) for a, r in turns])

    def _on_theme_changed(self, _tokens: object) -> None:
        self.update()


class Card(QFrame):
    """A framed area: title on the left, legend and notes on the right, `body` below.

    Attributes:
        header: layout of the header; widgets added to it stand at the right end.
        body: layout below the header.
    """

    def __init__(self, title: str = "", parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setAccessibleName(title)
        self._title = ElidedLabel(title, middle=True, least=150)
        self._title.setProperty("role", "title")
        self._chips: list[LegendChip] = []
        self._legend = QHBoxLayout()
        self._legend.setSpacing(10)
        self._note = ElidedLabel()
        self._note.setProperty("role", "note")
        self._note.setAlignment(Qt.AlignmentFlag.AlignRight)
        self._note.hide()
        self.header = QHBoxLayout()
        self.header.setContentsMargins(3, 0, 0, 0)
        self.header.setSpacing(10)
        self.header.addWidget(self._title)
        self.header.addStretch(1)
        self.header.addLayout(self._legend)
        self.header.addWidget(self._note)
        self.body = QVBoxLayout()
        self.body.setSpacing(6)
        self._outer = outer = QVBoxLayout(self)
        outer.setContentsMargins(8, 7, 8, 8)
        outer.setSpacing(6)
        outer.addLayout(self.header)
        outer.addLayout(self.body, 1)

    def set_title(self, title: str) -> None:
        """Change the title; it is elided in the middle where space is short."""
        self._title.setText(title)
        self.setAccessibleName(title)

    def title(self) -> str:
        """Return the title."""
        return self._title.text()

    def set_note(self, text: str) -> None:
        """Show key numbers or a remark at the right end of the header; nothing if empty."""
        self._note.setText(text)
        self._note.setVisible(bool(text))

    def note(self) -> str:
        """Return what stands at the right end of the header."""
        return self._note.text()

    def add_chip(self, token: str, text: str, *, switchable: bool = False, symbol: Symbol = "bar") -> LegendChip:
        """Add a legend chip in the colour of `token` and return it."""
        chip = LegendChip(token, text, self, switchable=switchable, symbol=symbol)
        self._legend.addWidget(chip)
        self._chips.append(chip)
        return chip

    def fit_legend(self) -> bool:
        """Show the words of the chips if there is room for all of them, else the swatches alone; return which."""
        chips = [chip for chip in self._chips if not chip.isHidden()]
        for chip in chips:
            chip.show_word(shown=True)
        words = sum(chip.sizeHint().width() - chip.minimumSizeHint().width() for chip in chips)
        margins = self._outer.contentsMargins()
        room = self.width() - margins.left() - margins.right()
        self.header.invalidate()  # what stands in it may just have become another size
        fits = self.header.minimumSize().width() + words <= room
        for chip in chips:
            chip.show_word(shown=fits)
        return fits


class Pages(QWidget):
    """Widgets in one place, of which one is seen."""

    def __init__(self, *pages: QWidget, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._layout = QStackedLayout(self)
        self._layout.setContentsMargins(0, 0, 0, 0)
        for page in pages:
            self._layout.addWidget(page)

    def show_page(self, page: QWidget) -> None:
        """Make `page` the one that is seen."""
        self._layout.setCurrentWidget(page)

    def page(self) -> QWidget | None:
        """Return the one that is seen."""
        return self._layout.currentWidget()
