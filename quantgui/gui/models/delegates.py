"""How cells are drawn: formats as chips that open a list when clicked, dB as a bar."""

from __future__ import annotations

import math
from typing import Any

from PySide6.QtCore import (
    QModelIndex,
    QPersistentModelIndex,
    QRect,
    QRectF,
    QSize,
    Qt,
)
from PySide6.QtGui import QColor, QPainter
from PySide6.QtWidgets import QStyle, QStyledItemDelegate, QStyleOptionViewItem, QWidget

from quantgui.gui.icons import pixmap
from quantgui.gui.models.layers import ROLE_VALUE
from quantgui.gui.theme import current, mono_font
from quantgui.spec.formats import Format, IntFormat

Index = QModelIndex | QPersistentModelIndex
SQNR_FULL_BAR_DB = 60.0
SQNR_GOOD_DB, SQNR_POOR_DB = 30.0, 15.0
"""Where the bar changes its colour: about 5 and 2.5 effective bits."""


def bits_token(chosen: Format | None) -> str:
    """Return the colour token of a format: the fewer bits, the warmer."""
    if not isinstance(chosen, IntFormat):
        return "muted"
    return "bad" if chosen.bits <= 3 else "quantized" if chosen.bits <= 7 else "float_"


def sqnr_token(sqnr_db: float) -> str:
    """Return the colour token of an SQNR in dB."""
    return "good" if sqnr_db >= SQNR_GOOD_DB else "warning" if sqnr_db >= SQNR_POOR_DB else "bad"


def draw_background(option: QStyleOptionViewItem, painter: QPainter, index: Index) -> None:
    """Draw what lies behind a cell: the selection, or the colour that the model gives it."""
    brush = index.data(Qt.ItemDataRole.BackgroundRole)
    if brush is not None:
        option.backgroundBrush = brush
    option.widget.style().drawPrimitive(QStyle.PrimitiveElement.PE_PanelItemViewItem, option, painter, option.widget)


class BitsDelegate(QStyledItemDelegate):
    """A chip with the format, and an arrow: the panel opens the menu of formats where it is clicked."""

    def paint(self, painter: QPainter, option: QStyleOptionViewItem, index: Index) -> None:
        draw_background(option, painter, index)
        text = str(index.data(Qt.ItemDataRole.DisplayRole) or "")
        editable = bool(index.flags() & Qt.ItemFlag.ItemIsEditable)
        chosen = index.data(ROLE_VALUE) if editable else None
        tokens, token = current(), bits_token(chosen)
        rect = self._chip(option.rect)
        painter.save()
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setFont(mono_font())
        if editable:
            painter.setPen(tokens.color(token, 0.55) if chosen is not None else tokens.color("border"))
            painter.setBrush(tokens.color(token, 0.16) if chosen is not None else QColor(Qt.GlobalColor.transparent))
            painter.drawRoundedRect(QRectF(rect).adjusted(0.5, 0.5, -0.5, -0.5), 4.5, 4.5)
            ratio = painter.device().devicePixelRatio()
            arrow = pixmap("chevron-down", 11, getattr(tokens, token), ratio)
            painter.drawPixmap(rect.right() - 14, rect.center().y() - 5, arrow)
            room = rect.adjusted(7, 0, -14, 0)
        else:
            room = rect.adjusted(2, 0, 0, 0)
        painter.setPen(tokens.color(token if editable else "muted"))
        elided = painter.fontMetrics().elidedText(text, Qt.TextElideMode.ElideRight, room.width())
        painter.drawText(room, int(Qt.AlignmentFlag.AlignVCenter | Qt.AlignmentFlag.AlignLeft), elided)
        painter.restore()

    def sizeHint(self, option: QStyleOptionViewItem, index: Index) -> QSize:
        return QSize(62, 26)

    def createEditor(self, parent: QWidget, option: QStyleOptionViewItem, index: Index) -> QWidget:
        # The panel opens its menu instead.
        return None  # type: ignore[return-value]

    def _chip(self, cell: QRect) -> QRect:
        return cell.adjusted(3, 3, -3, -3)


class BarDelegate(QStyledItemDelegate):
    """A number, and a bar whose length and colour say how good it is."""

    def paint(self, painter: QPainter, option: QStyleOptionViewItem, index: Index) -> None:
        draw_background(option, painter, index)
        value: Any = index.data(ROLE_VALUE)
        text = str(index.data(Qt.ItemDataRole.DisplayRole) or "")
        if not text or not isinstance(value, float):
            return
        tokens = current()
        rect: QRect = option.rect.adjusted(5, 0, -6, 0)
        painter.save()
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setFont(option.font)
        painter.setPen(tokens.color("text"))
        number = QRect(rect.left(), rect.top(), 34, rect.height())
        painter.drawText(number, int(Qt.AlignmentFlag.AlignVCenter | Qt.AlignmentFlag.AlignRight), text)
        bar = QRectF(number.right() + 8, rect.center().y() - 2, rect.right() - number.right() - 8, 5)
        if bar.width() > 8:
            painter.setPen(Qt.PenStyle.NoPen)
            painter.setBrush(tokens.color("border"))
            painter.drawRoundedRect(bar, 2.5, 2.5)
            share = 1.0 if math.isinf(value) else min(max(value / SQNR_FULL_BAR_DB, 0.03), 1.0)
            bar.setWidth(max(bar.width() * share, 5.0))
            painter.setBrush(tokens.color(sqnr_token(value)))
            painter.drawRoundedRect(bar, 2.5, 2.5)
        painter.restore()

    def sizeHint(self, option: QStyleOptionViewItem, index: Index) -> QSize:
        return QSize(104, 26)
