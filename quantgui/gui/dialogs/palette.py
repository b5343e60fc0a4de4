"""Search: type a part of a layer's, an action's or a preset's name and press Return."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from PySide6.QtCore import QEvent, QModelIndex, QObject, QPersistentModelIndex, Qt
from PySide6.QtGui import QKeyEvent, QPainter
from PySide6.QtWidgets import (
    QDialog,
    QLineEdit,
    QListWidget,
    QListWidgetItem,
    QStyledItemDelegate,
    QStyleOptionViewItem,
    QVBoxLayout,
    QWidget,
)

from quantgui.gui.theme import current

SHOWN = 60


class KindDelegate(QStyledItemDelegate):
    """Draws what kind of thing was found at the right end of its row."""

    def paint(
        self, painter: QPainter, option: QStyleOptionViewItem, index: QModelIndex | QPersistentModelIndex
    ) -> None:
        super().paint(painter, option, index)
        entry = index.data(Qt.ItemDataRole.UserRole)
        painter.save()
        painter.setPen(current().color("muted"))
        right = int(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
        painter.drawText(option.rect.adjusted(0, 0, -10, 0), right, entry.kind)
        painter.restore()


@dataclass(frozen=True, slots=True)
class Entry:
    """Something that can be found. `kind` is shown behind the text; `reason` says why it cannot be run now."""

    text: str
    kind: str
    run: Callable[[], object]
    reason: str = ""


class SearchDialog(QDialog):
    """A line to type into, and what fits."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent, Qt.WindowType.Popup)
        self.setAccessibleName(self.tr("Search"))
        self.resize(520, 380)
        self._entries: Sequence[Entry] = ()
        self.line = QLineEdit()
        self.line.setPlaceholderText(self.tr("Layer, action or preset"))
        self.line.setAccessibleName(self.tr("Search"))
        self.line.setToolTip(self.tr("Type a part of a name, choose with the arrow keys, press Return."))
        self.found = QListWidget()
        self.found.setAccessibleName(self.tr("Found"))
        self.found.setToolTip("")
        self.found.setItemDelegate(KindDelegate(self.found))
        self.found.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(8, 8, 8, 8)
        layout.addWidget(self.line)
        layout.addWidget(self.found)
        self.line.textChanged.connect(self._on_text)
        self.line.returnPressed.connect(self._on_return)
        self.found.itemClicked.connect(self._run)
        self.line.installEventFilter(self)

    def show_entries(self, entries: Sequence[Entry]) -> None:
        """Offer `entries`."""
        self._entries = entries
        tokens = current()
        self.setStyleSheet(
            f"SearchDialog {{ background: {tokens.raised}; border: 1px solid {tokens.muted}; }}"
            f"QListWidget {{ background: {tokens.raised}; }}"
        )
        self.line.clear()
        self._on_text("")
        self.show()
        self.line.setFocus(Qt.FocusReason.PopupFocusReason)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        if isinstance(event, QKeyEvent) and event.type() == QEvent.Type.KeyPress:
            step = {Qt.Key.Key_Down: 1, Qt.Key.Key_Up: -1, Qt.Key.Key_PageDown: 10, Qt.Key.Key_PageUp: -10}.get(
                Qt.Key(event.key())
            )
            if step is not None and self.found.count():
                row = min(max(self.found.currentRow() + step, 0), self.found.count() - 1)
                self.found.setCurrentRow(row)
                return True
        return super().eventFilter(watched, event)

    def _on_text(self, text: str) -> None:
        words = text.lower().split()
        fitting = [e for e in self._entries if all(word in f"{e.text} {e.kind}".lower() for word in words)]
        fitting.sort(key=lambda entry: (bool(entry.reason), not entry.text.lower().startswith(text.lower())))
        self.found.clear()
        for entry in fitting[:SHOWN]:
            item = QListWidgetItem(entry.text)
            item.setData(Qt.ItemDataRole.AccessibleTextRole, f"{entry.text}, {entry.kind}")
            item.setData(Qt.ItemDataRole.UserRole, entry)
            item.setToolTip(entry.reason)
            if entry.reason:
                item.setFlags(item.flags() & ~Qt.ItemFlag.ItemIsEnabled)
            self.found.addItem(item)
        self.found.setCurrentRow(0)

    def _on_return(self) -> None:
        self._run(self.found.currentItem())

    def _run(self, item: QListWidgetItem | None) -> None:
        entry = None if item is None else item.data(Qt.ItemDataRole.UserRole)
        if isinstance(entry, Entry) and not entry.reason:
            self.close()
            entry.run()
