"""The help viewer: pages of ``resources/help`` and the page of keys."""

from __future__ import annotations

from pathlib import Path

from PySide6.QtCore import Qt
from PySide6.QtGui import QTextBlockFormat, QTextCursor
from PySide6.QtWidgets import QDialog, QHBoxLayout, QListWidget, QListWidgetItem, QTextBrowser, QWidget

from quantgui.gui.menus import shortcuts_page
from quantgui.gui.theme import current, theme_events
from quantgui.paths import resources

SHORTCUTS = "shortcuts"
_LINE_PERCENT = 128
_FIRST = (
    "getting-started",
    "pytorch",
    "data",
    "layers",
    "inspector",
    "weights",
    "ranges",
    "channels",
    "activations",
    "quality",
    "sensitivity",
    "mix",
    "training",
    "targets",
    "trade-off",
    "export",
    "exchange",
)


class HelpDialog(QDialog):
    """List of pages on the left, the page on the right."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setWindowTitle(self.tr("Help"))
        self.resize(860, 620)
        self.pages = QListWidget()
        self.pages.setAccessibleName(self.tr("Help pages"))
        self.pages.setToolTip(self.tr("Choose a page."))
        self.pages.setFixedWidth(190)
        self.text = QTextBrowser()
        self.text.setAccessibleName(self.tr("Help text"))
        self.text.setToolTip("")
        self.text.setOpenLinks(False)
        layout = QHBoxLayout(self)
        layout.setContentsMargins(10, 10, 10, 10)
        layout.setSpacing(8)
        layout.addWidget(self.pages)
        layout.addWidget(self.text, 1)
        for path in _ordered((resources() / "help").glob("*.md")):
            self._add(path.stem, _title(path.read_text(encoding="utf-8"), path.stem))
        self._add(SHORTCUTS, self.tr("Keyboard shortcuts"))
        self.pages.currentItemChanged.connect(self._show_current)
        theme_events().changed.connect(self._show_current)
        self.pages.setCurrentRow(0)

    def show_page(self, name: str) -> None:
        """Show the page called `name` (a file's stem, or `SHORTCUTS`)."""
        for row in range(self.pages.count()):
            if self.pages.item(row).data(Qt.ItemDataRole.UserRole) == name:
                self.pages.setCurrentRow(row)

    def _add(self, name: str, title: str) -> None:
        item = QListWidgetItem(title)
        item.setData(Qt.ItemDataRole.UserRole, name)
        self.pages.addItem(item)

    def _show_current(self, _: object = None) -> None:
        if self.pages.currentRow() < 0:
            return
        name = self.pages.currentItem().data(Qt.ItemDataRole.UserRole)
        markdown = shortcuts_page() if name == SHORTCUTS else _read(name)
        self.text.setMarkdown(markdown)
        self._polish()

    def _polish(self) -> None:
        document = self.text.document()
        document.setDocumentMargin(16)
        cursor = QTextCursor(document)
        block = document.begin()
        while block.isValid():
            # Qt lays Markdown out without any space between paragraphs.
            cursor.setPosition(block.position())
            shape = block.blockFormat()
            shape.setLineHeight(_LINE_PERCENT, QTextBlockFormat.LineHeightTypes.ProportionalHeight.value)
            in_table = cursor.currentTable() is not None
            shape.setBottomMargin(1 if in_table else 4 if block.textList() is not None else 9)
            shape.setTopMargin(10 if shape.headingLevel() > 1 else 0)
            cursor.setBlockFormat(shape)
            table = cursor.currentTable()
            if table is not None:
                look = table.format()
                look.setCellPadding(5)
                look.setBorderBrush(current().color("border"))
                table.setFormat(look)
            block = block.next()
        self.text.moveCursor(QTextCursor.MoveOperation.Start)


def _read(name: str) -> str:
    return (resources() / "help" / f"{name}.md").read_text(encoding="utf-8")


def _ordered(paths: object) -> list[Path]:
    known = {name: place for place, name in enumerate(_FIRST)}
    return sorted(paths, key=lambda path: (known.get(path.stem, len(known)), path.stem))  # type: ignore[call-overload,no-any-return]


def _title(markdown: str, default: str) -> str:
    first = markdown.lstrip().splitlines()[0] if markdown.strip() else ""
    title = first.removeprefix("#").strip() if first.startswith("#") else default
    title = title.removeprefix("The ")
    return title[:1].upper() + title[1:]
