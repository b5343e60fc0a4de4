"""How damage is drawn: as the colour of a cell in the heat map, as a bar in the layers table."""

from __future__ import annotations

import math
from functools import cache

from PySide6.QtCore import QModelIndex, QPersistentModelIndex, QRect, QRectF, QSize, Qt
from PySide6.QtGui import QBrush, QColor, QFont, QPainter, QPen
from PySide6.QtWidgets import QStyle, QStyledItemDelegate, QStyleOptionViewItem

from quantgui.gui.colormap import damage_color, text_on
from quantgui.gui.models.layers import ROLE_DAMAGE
from quantgui.gui.models.sensitivity import ROLE_CELL, UNCERTAIN, Cell, Fixed
from quantgui.gui.theme import AXIS_PIXELS, Tokens, current, ui_font

Index = QModelIndex | QPersistentModelIndex
ROW_HEIGHT = 24
_STEPS = 100
_RADIUS = 3.0
_TEXT_MARGIN = 3
_GUESS_SHARE = 0.45
_MARK_ROOM = 8


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
        return text_on(ground)
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


class HeatDelegate(QStyledItemDelegate):
    """One cell of the heat map."""

    def paint(self, painter: QPainter, option: QStyleOptionViewItem, index: Index) -> None:
        if index.column() < len(Fixed):
            super().paint(painter, option, index)
            return
        cell = index.data(ROLE_CELL)
        tokens = current()
        if option.state & QStyle.StateFlag.State_Selected:
            painter.fillRect(option.rect, option.palette.highlight())
        if not isinstance(cell, Cell):
            return
        rect = QRectF(option.rect).adjusted(1, 1, -1, -1)
        painter.save()
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        ink = draw_cell(painter, rect, cell, tokens)
        if cell.present:
            draw_frame(painter, rect, tokens)
        if option.state & QStyle.StateFlag.State_HasFocus:
            painter.setBrush(Qt.BrushStyle.NoBrush)
            painter.setPen(QPen(tokens.color("accent"), 2))
            painter.drawRoundedRect(QRectF(option.rect).adjusted(1, 1, -1, -1), _RADIUS, _RADIUS)
        self._draw_text(painter, option, cell, ink)
        painter.restore()

    def _draw_text(self, painter: QPainter, option: QStyleOptionViewItem, cell: Cell, ink: QColor) -> None:
        metrics = option.fontMetrics
        room = option.rect.width() - 2 * _TEXT_MARGIN
        width = metrics.horizontalAdvance(cell.text)
        if width > room:
            return
        if cell.guess:
            ink.setAlphaF(0.75)
        painter.setPen(ink)
        painter.setFont(_italic(option.font) if cell.guess else option.font)
        marked = cell.uncertain and width + _MARK_ROOM <= room
        place: QRect = option.rect.adjusted(0, 0, -_MARK_ROOM, 0) if marked else option.rect
        painter.drawText(place, int(Qt.AlignmentFlag.AlignCenter), cell.text)
        if marked:
            corner: QRect = option.rect.adjusted(0, 0, -_TEXT_MARGIN, 0)
            painter.setFont(_mark_font())
            painter.drawText(corner, int(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter), UNCERTAIN)

    def sizeHint(self, option: QStyleOptionViewItem, index: Index) -> QSize:
        return QSize(46, ROW_HEIGHT)


def _italic(font: QFont) -> QFont:
    slanted = QFont(font)
    slanted.setItalic(True)
    return slanted


@cache
def _mark_font() -> QFont:
    return ui_font(AXIS_PIXELS)


class DamageBarDelegate(QStyledItemDelegate):
    """A number, and a bar as long and as bright as the damage."""

    def paint(self, painter: QPainter, option: QStyleOptionViewItem, index: Index) -> None:
        style = option.widget.style()
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
        number = QRect(rect.left(), rect.top(), 36, rect.height())
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
