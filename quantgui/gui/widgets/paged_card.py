"""A card of several pages, one of which is seen; buttons in its header turn them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from PySide6.QtCore import Signal
from PySide6.QtWidgets import QWidget

from quantgui.gui.widgets.card import Card, Pages
from quantgui.gui.widgets.segmented import Segment, SegmentedButtons


@dataclass(frozen=True, eq=False, slots=True)
class CardPage:
    """One page: its key, the word on its button, what it shows in a sentence, and the widget."""

    key: str
    text: str
    help: str
    widget: QWidget


class PagedCard(Card):
    """A card whose title is followed by buttons for its pages.

    Signals:
        page_turned: the key of the page the user has turned to; not sent by `show_page`.
    """

    page_turned = Signal(str)

    def __init__(self, title: str, pages: Sequence[CardPage], parent: QWidget | None = None) -> None:
        super().__init__(title, parent)
        self._by_key = {page.key: page.widget for page in pages}
        self._notes = dict.fromkeys(self._by_key, "")
        self.buttons = SegmentedButtons(title, [Segment(page.key, page.text, page.help) for page in pages])
        self._pages = Pages(*(page.widget for page in pages))
        self.header.insertWidget(1, self.buttons)
        self._title.hide()
        self.body.addWidget(self._pages, 1)
        self.buttons.chosen.connect(self._on_chosen)
        self.show_page(pages[0].key)

    def page(self) -> str:
        """Return the key of the page that is seen."""
        return str(self.buttons.value())

    def show_page(self, key: str) -> None:
        """Turn to a page; keys that are no page's are ignored, as they come from settings of other versions."""
        if key in self._by_key:
            self.buttons.set_value(key)
            self._pages.show_page(self._by_key[key])
            self.set_note(self._notes[key])

    def set_page_note(self, key: str, text: str) -> None:
        """Show key numbers or a remark at the right end of the header while a page is seen."""
        self._notes[key] = text
        if self.page() == key:
            self.set_note(text)

    def _on_chosen(self, key: object) -> None:
        self.show_page(str(key))
        self.page_turned.emit(str(key))
