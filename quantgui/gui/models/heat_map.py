"""How damage is drawn: as the colour of a cell in the heat map, as a bar in the layers table."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cache, lru_cache

from PySide6.QtCore import QModelIndex, QPersistentModelIndex, QPointF, QRect, QRectF, QSize, Qt
from PySide6.QtGui import QBrush, QColor, QFont, QFontMetrics, QPainter, QPen, QStaticText
from PySide6.QtWidgets import QStyle, QStyledItemDelegate, QStyleOptionViewItem

from quantgui.gui.colormap import damage_color, text_on
from quantgui.gui.models.layers import ROLE_DAMAGE
from quantgui.gui.models.sensitivity import UNCERTAIN, Cell, Fixed
from quantgui.gui.theme import AXIS_PIXELS, FONT_PIXELS, Tokens, current, ui_font

Index = QModelIndex | QPersistentModelIndex
ROW_HEIGHT = 24
_STEPS = 100
_RADIUS = 3.0
_TEXT_MARGIN = 3
_GUESS_SHARE = 0.45
_MARK_ROOM = 8
_FRAME = 5
_NAME_MARGIN = 7
_WITH_NUMBER = 64


@cache
def _fills(*, on_dark: bool) -> tuple[tuple[QColor, QColor], ...]:
    """Return the colours of a cell and of its text at each step of the scale; made once."""
    colors = [damage_color(step / _STEPS, on_dark=on_dark) for step in range(_STEPS + 1)]
    return tuple((color, text_on(color)) for color in colors)


@cache
def _faded(tokens: Tokens) -> tuple[QColor, ...]:
    """Return the colours of guesses: those of measured cells laid thinly over the ground."""
    ground = QColor(tokens.panel)
    found = []
    for color, _ in _fills(on_dark=tokens.is_dark):
        front, back = color.getRgb()[:3], ground.getRgb()[:3]  # type: ignore[index]
        mixed = (round(_GUESS_SHARE * a + (1 - _GUESS_SHARE) * b) for a, b in zip(front, back, strict=True))
        found.append(QColor(*mixed))
    return tuple(found)


def draw_cell(painter: QPainter, rect: QRectF, cell: Cell, tokens: Tokens) -> QColor:
    """Draw the ground of a cell and return the colour in which text is read on it."""
    if math.isnan(cell.share):
        painter.setPen(QPen(tokens.color("border"), 1, Qt.PenStyle.DotLine))
        painter.setBrush(Qt.BrushStyle.NoBrush)
        painter.drawRoundedRect(rect.adjusted(0.5, 0.5, -0.5, -0.5), _RADIUS, _RADIUS)
        return tokens.color("muted")
    step = round(cell.share * _STEPS)
    painter.setPen(Qt.PenStyle.NoPen)
    if cell.guess:
        ground = _faded(tokens)[step]
        painter.setBrush(ground)
        painter.drawRoundedRect(rect, _RADIUS, _RADIUS)
        painter.setBrush(QBrush(tokens.color("panel", 0.75), Qt.BrushStyle.BDiagPattern))
        painter.drawRoundedRect(rect, _RADIUS, _RADIUS)
        ink = text_on(ground)
        ink.setAlphaF(0.8)
        return ink
    fill, ink = _fills(on_dark=tokens.is_dark)[step]
    painter.setBrush(fill)
    painter.drawRoundedRect(rect, _RADIUS, _RADIUS)
    return ink


def draw_frame(painter: QPainter, rect: QRectF, tokens: Tokens) -> None:
    """Draw the frame of a layer's present format: two lines, of which one is seen on every colour."""
    painter.setBrush(Qt.BrushStyle.NoBrush)
    painter.setPen(QPen(tokens.color("base"), 4))
    painter.drawRoundedRect(rect.adjusted(2, 2, -2, -2), _RADIUS, _RADIUS)
    painter.setPen(QPen(tokens.color("text"), 2))
    painter.drawRoundedRect(rect.adjusted(1, 1, -1, -1), _RADIUS, _RADIUS)


@dataclass(frozen=True, slots=True)
class RowLook:
    """What a row of the map looks like besides its cells: its two texts, whether it is selected, where the cursor is.

    `focused` is the column of the cursor, -1 where it is elsewhere.
    """

    name: str
    present: str
    selected: bool
    focused: int


def draw_row(
    painter: QPainter, look: RowLook, cells: Sequence[Cell | None], columns: Sequence[tuple[int, int, int]], top: int
) -> None:
    """Draw a row of the map at height `top`; `columns` holds number, left edge and width of those to be drawn.

    Row by row and not by a delegate's call for each cell: that took five times as long. Texts are laid out once and
    kept, as of all that is drawn letters take longest.
    """
    tokens = current()
    if look.selected:
        left, right = columns[0][1], columns[-1][1] + columns[-1][2]
        painter.fillRect(QRect(left, top, right - left, ROW_HEIGHT), QColor(tokens.mixed("accent", "panel", 0.22)))
    for column, left, width in columns:
        rect = QRectF(left + 1, top + 1, width - 2, ROW_HEIGHT - 2)
        if column < len(Fixed):
            _draw_fixed(painter, look, column, QRect(left, top, width, ROW_HEIGHT), tokens)
        else:
            cell = cells[column - len(Fixed)]
            if cell is None:
                continue
            ink = draw_cell(painter, rect, cell, tokens)
            if cell.present:
                draw_frame(painter, rect, tokens)
            _draw_value(painter, cell, left, top, width, ink)
        if column == look.focused:
            painter.setBrush(Qt.BrushStyle.NoBrush)
            painter.setPen(QPen(tokens.color("accent"), 2))
            painter.drawRoundedRect(rect, _RADIUS, _RADIUS)


def _draw_fixed(painter: QPainter, look: RowLook, column: int, rect: QRect, tokens: Tokens) -> None:
    painter.setFont(_font(_Letters.PLAIN))
    if column == Fixed.NAME:
        text = _laid_out(_elided(look.name, rect.width() - 2 * _NAME_MARGIN), _Letters.PLAIN)
        painter.setPen(tokens.color("text"))
        _draw_text(painter, text, rect.left() + _NAME_MARGIN, rect.top())
    else:
        text = _laid_out(look.present, _Letters.PLAIN)
        painter.setPen(tokens.color("muted"))
        _draw_text(painter, text, rect.left() + (rect.width() - text.size().width()) / 2, rect.top())


def _draw_value(painter: QPainter, cell: Cell, left: int, top: int, width: int, ink: QColor) -> None:
    letters = _Letters.SLANTED if cell.guess else _Letters.PLAIN
    text = _laid_out(cell.text, letters)
    room, needed = width - 2 * _TEXT_MARGIN, text.size().width()
    if not cell.text or needed > room:
        return
    painter.setFont(_font(letters))
    painter.setPen(ink)
    mark = _MARK_ROOM if cell.uncertain and needed + _MARK_ROOM <= room else 0
    _draw_text(painter, text, left + _TEXT_MARGIN + (room - mark - needed) / 2, top)
    if mark:
        painter.setFont(_font(_Letters.SMALL))
        frame = _FRAME - _TEXT_MARGIN if cell.present else 0
        _draw_text(painter, _laid_out(UNCERTAIN, _Letters.SMALL), left + width - _TEXT_MARGIN - _MARK_ROOM - frame, top)


def _draw_text(painter: QPainter, text: QStaticText, left: float, top: int) -> None:
    # Whole pixels, or letters would be blurred.
    painter.drawStaticText(QPointF(round(left), round(top + (ROW_HEIGHT - text.size().height()) / 2)), text)


class _Letters(StrEnum):
    """Kinds of text in the map."""

    PLAIN = "plain"
    SLANTED = "slanted"
    """A guess."""
    SMALL = "small"


@cache
def _font(letters: _Letters) -> QFont:
    # Fonts of our own: those of the view's options end with the call, and cannot be kept.
    result = ui_font(AXIS_PIXELS if letters is _Letters.SMALL else FONT_PIXELS)
    result.setItalic(letters is _Letters.SLANTED)
    return result


@lru_cache(maxsize=8192)
def _laid_out(text: str, letters: _Letters) -> QStaticText:
    """Return `text` ready to be drawn."""
    result = QStaticText(text)
    result.setTextFormat(Qt.TextFormat.PlainText)
    result.setPerformanceHint(QStaticText.PerformanceHint.AggressiveCaching)
    result.prepare(font=_font(letters))
    return result


@lru_cache(maxsize=4096)
def _elided(text: str, width: int) -> str:
    return QFontMetrics(_font(_Letters.PLAIN)).elidedText(text, Qt.TextElideMode.ElideLeft, width)


class DamageBarDelegate(QStyledItemDelegate):
    """A number, and a bar as long and as bright as the damage."""

    def paint(self, painter: QPainter, option: QStyleOptionViewItem, index: Index) -> None:
        style = option.widget.style()
        if (brush := index.data(Qt.ItemDataRole.BackgroundRole)) is not None:
            option.backgroundBrush = brush
        style.drawPrimitive(QStyle.PrimitiveElement.PE_PanelItemViewItem, option, painter, option.widget)
        share = index.data(ROLE_DAMAGE)
        text = str(index.data(Qt.ItemDataRole.DisplayRole) or "")
        if not text or not isinstance(share, float):
            return
        tokens = current()
        rect: QRect = option.rect.adjusted(5, 0, -6, 0)
        painter.save()
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setFont(option.font)
        painter.setPen(tokens.color("text"))
        # Where there is no room for both, the bar says enough: the number is in the tooltip.
        number = QRect(rect.left(), rect.top(), 36 if rect.width() >= _WITH_NUMBER else -8, rect.height())
        if number.width() > 0:
            painter.drawText(number, int(Qt.AlignmentFlag.AlignVCenter | Qt.AlignmentFlag.AlignRight), text)
        bar = QRectF(number.right() + 8, rect.center().y() - 3, rect.right() - number.right() - 8, 7)
        if bar.width() > 8:
            painter.setPen(Qt.PenStyle.NoPen)
            painter.setBrush(tokens.color("border"))
            painter.drawRoundedRect(bar, 2.5, 2.5)
            if not math.isnan(share):
                bar.setWidth(max(bar.width() * share, 4.0))
                painter.setBrush(tokens.color("quantized"))
                painter.drawRoundedRect(bar, 2.5, 2.5)
        painter.restore()

    def sizeHint(self, option: QStyleOptionViewItem, index: Index) -> QSize:
        return QSize(96, 26)
