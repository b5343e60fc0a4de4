"""A row of buttons of which any number is switched on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from PySide6.QtWidgets import QWidget

from quantgui.gui.widgets.segmented import Segment, SegmentedButtons


class ToggleButtons(SegmentedButtons):
    """Some of a few choices, all in sight.

    Signals:
        chosen: the value of the button the user clicked, on or off; not sent by `set_values`.
    """

    def __init__(
        self, name: str, segments: Sequence[Segment], parent: QWidget | None = None, *, stretch: bool = False
    ) -> None:
        super().__init__(name, segments, parent, stretch=stretch)
        self._group.setExclusive(False)

    def values(self) -> tuple[object, ...]:
        """Return the values of the buttons that are on, in their order."""
        return tuple(value for value in self._values if self.button(value).isChecked())

    def set_values(self, values: Iterable[object]) -> None:
        """Switch on the buttons of `values` and no others."""
        wanted = set(values)
        for value in self._values:
            self.button(value).setChecked(value in wanted)
