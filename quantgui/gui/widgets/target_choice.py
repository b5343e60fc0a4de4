"""The list of targets: what the network is meant to run on, each with where its rules come from."""

from __future__ import annotations

from PySide6.QtCore import QSize, Qt, Signal
from PySide6.QtWidgets import QComboBox, QWidget

from quantgui.spec.targets import TARGETS, Target

_LETTERS = 8
"""Width of the shortest list, in letters; it grows where there is room."""
_FRAME = 38
"""Pixels beside the text: margins and the arrow."""


_WIDEST = 230
"""Pixels that every name has room in."""


class TargetChoice(QComboBox):
    """Wherever a target can be chosen; it shows what it is told and chooses nothing itself.

    Args:
        fits_text: be as wide as the name of the target in use, where room is dear.

    Signals:
        target_chosen: the `Target` that the user picked.
    """

    target_chosen = Signal(object)

    def __init__(self, parent: QWidget | None = None, *, fits_text: bool = False) -> None:
        super().__init__(parent)
        self._fits_text = fits_text
        self.setAccessibleName(self.tr("Target"))
        self.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self.setMinimumContentsLength(_LETTERS)
        for target in TARGETS:
            self.addItem(target.title, target)
            self.setItemData(self.count() - 1, "\n".join(target_help(target)), Qt.ItemDataRole.ToolTipRole)
        self.activated.connect(lambda: self.target_chosen.emit(self.currentData()))
        if fits_text:
            self.view().setMinimumWidth(_WIDEST)
        self.show_target(TARGETS[0])

    def sizeHint(self) -> QSize:
        hint = super().sizeHint()
        if not self._fits_text:
            return hint
        return QSize(self.fontMetrics().horizontalAdvance(self.currentText()) + _FRAME, hint.height())

    def show_target(self, target: Target) -> None:
        """Show the target in use."""
        self.setCurrentIndex(next(i for i, each in enumerate(TARGETS) if each.name == target.name))
        self.updateGeometry()
        self.setToolTip("\n".join([self.tr("What the network is meant to run on."), *target_help(target)]))


def target_help(target: Target) -> tuple[str, ...]:
    """Return where the rules of a target come from, and what they leave open."""
    return (target.source, *target.unknown)
