"""The menu of all formats, grouped by kind, each with a line on what it is, when it helps and what it costs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from PySide6.QtCore import Signal
from PySide6.QtGui import QAction, QActionGroup
from PySide6.QtWidgets import QMenu, QPushButton, QSizePolicy, QWidget

from quantgui.gui.layer_words import format_text
from quantgui.gui.texts import QT_TRANSLATE_NOOP, translate
from quantgui.session.edits import FormatChoice
from quantgui.spec.formats import CodebookFormat, FloatFormat, IntFormat, MinifloatFormat, TableFormat

Refusals = Callable[[FormatChoice], str]


@dataclass(frozen=True, slots=True)
class Entry:
    """One format: its value, its name, and its help in the source language."""

    value: FormatChoice
    text: str
    help: str


_TERNARY = IntFormat(2, narrow_range=True)
_BITS = QT_TRANSLATE_NOOP(
    "formats", "Evenly spaced integers: one bit more halves the error and costs one bit per value."
)
_CODEBOOK = QT_TRANSLATE_NOOP(
    "formats", "Levels fitted to the weights (k-means): least error for its bits; runs as a table look-up."
)

INTEGERS = (
    Entry(
        TableFormat("binary"),
        "binary",
        QT_TRANSLATE_NOOP("formats", "-1 and 1 times a scale: 1 bit; needs retraining."),
    ),
    Entry(_TERNARY, "ternary", QT_TRANSLATE_NOOP("formats", "-1, 0 and 1 times a scale, stored in 2 bits.")),
    *(Entry(IntFormat(bits), f"int{bits}", _BITS) for bits in range(2, 17)),
)
SMALL_FLOATS = (
    Entry(
        MinifloatFormat(4, 3),
        "FP8 E4M3",
        QT_TRANSLATE_NOOP("formats", "8-bit float, up to 448: weights and activations with outliers, on new GPUs."),
    ),
    Entry(
        MinifloatFormat(5, 2, "ieee"),
        "FP8 E5M2",
        QT_TRANSLATE_NOOP("formats", "8-bit float, up to 57344: more range, fewer digits than E4M3."),
    ),
    Entry(
        MinifloatFormat(4, 3, "fnuz"),
        "FP8 E4M3 FNUZ",
        QT_TRANSLATE_NOOP("formats", "E4M3 as AMD and Graphcore have it: no negative zero, up to 240."),
    ),
    Entry(
        MinifloatFormat(5, 2, "fnuz"),
        "FP8 E5M2 FNUZ",
        QT_TRANSLATE_NOOP("formats", "E5M2 as AMD and Graphcore have it: no negative zero."),
    ),
    Entry(
        MinifloatFormat(2, 3),
        "FP6 E2M3",
        QT_TRANSLATE_NOOP("formats", "6-bit float, up to 7.5; ONNX stores it in 8 bits."),
    ),
    Entry(
        MinifloatFormat(3, 2),
        "FP6 E3M2",
        QT_TRANSLATE_NOOP("formats", "6-bit float, up to 28; ONNX stores it in 8 bits."),
    ),
    Entry(
        MinifloatFormat(2, 1),
        "FP4 E2M1",
        QT_TRANSLATE_NOOP("formats", "4-bit float with 15 levels up to 6: better than int4 where small values matter."),
    ),
)
BLOCKS = (
    Entry(
        "mxfp8_e4m3",
        "MXFP8 E4M3",
        QT_TRANSLATE_NOOP("formats", "FP8 in blocks of 32 with power-of-two scales: 8.25 bits."),
    ),
    Entry(
        "mxfp8_e5m2",
        "MXFP8 E5M2",
        QT_TRANSLATE_NOOP("formats", "FP8 in blocks of 32 with power-of-two scales: 8.25 bits."),
    ),
    Entry(
        "mxfp6_e2m3",
        "MXFP6 E2M3",
        QT_TRANSLATE_NOOP("formats", "FP6 in blocks of 32 with power-of-two scales: 6.25 bits."),
    ),
    Entry(
        "mxfp6_e3m2",
        "MXFP6 E3M2",
        QT_TRANSLATE_NOOP("formats", "FP6 in blocks of 32 with power-of-two scales: 6.25 bits."),
    ),
    Entry("mxfp4", "MXFP4", QT_TRANSLATE_NOOP("formats", "FP4 in blocks of 32 with power-of-two scales: 4.25 bits.")),
    Entry(
        "mxint8", "MXINT8", QT_TRANSLATE_NOOP("formats", "int8 in blocks of 32 with power-of-two scales: 8.25 bits.")
    ),
    Entry(
        "nvfp4",
        "NVFP4",
        QT_TRANSLATE_NOOP("formats", "FP4 in blocks of 16 with FP8 scales: 4.5 bits, better than MXFP4."),
    ),
)
CODEBOOKS = (
    Entry(
        TableFormat("nf4"),
        "NF4",
        QT_TRANSLATE_NOOP(
            "formats", "16 levels for bell-shaped weights, in groups of 64: better than int4, runs as a table."
        ),
    ),
    *(Entry(CodebookFormat(bits), f"codebook {bits}", _CODEBOOK) for bits in range(1, 9)),
)
HALVES = (
    Entry(FloatFormat("float16"), "float16", QT_TRANSLATE_NOOP("formats", "Half the bytes; overflows above 65504.")),
    Entry(FloatFormat("bfloat16"), "bfloat16", QT_TRANSLATE_NOOP("formats", "Half the bytes; the range of float32.")),
)
WEIGHT_GROUPS: Mapping[str, tuple[Entry, ...]] = {
    QT_TRANSLATE_NOOP("formats", "Integers"): INTEGERS,
    QT_TRANSLATE_NOOP("formats", "Small floats"): SMALL_FLOATS,
    QT_TRANSLATE_NOOP("formats", "Blocks"): BLOCKS,
    QT_TRANSLATE_NOOP("formats", "Codebooks and tables"): CODEBOOKS,
}
ACTIVATION_GROUPS: Mapping[str, tuple[Entry, ...]] = {
    QT_TRANSLATE_NOOP("formats", "Integers"): tuple(
        Entry(IntFormat(bits, signed=False), f"int{bits}", _BITS) for bits in range(2, 17)
    ),
    QT_TRANSLATE_NOOP("formats", "Small floats"): SMALL_FLOATS,
    QT_TRANSLATE_NOOP("formats", "Half floats"): HALVES,
}


_NONE = object()
"""No format: float32 is None."""
_FLOAT = QT_TRANSLATE_NOOP("formats", "The values stay as they are: 32 bits.")
USUAL_WEIGHTS = (
    *(Entry(IntFormat(bits), f"int{bits}", _BITS) for bits in (2, 3, 4, 5, 6, 7, 8, 16)),
    *HALVES,
    Entry(None, "float32", _FLOAT),
)
USUAL_ACTIVATIONS = (
    *(Entry(IntFormat(bits, signed=False), f"int{bits}", _BITS) for bits in (4, 5, 6, 7, 8, 16)),
    Entry(None, "float32", _FLOAT),
)


def choice_text(choice: FormatChoice) -> str:
    """Return how a format is called on a button."""
    for entry in (*INTEGERS, *SMALL_FLOATS, *BLOCKS, *CODEBOOKS, *HALVES):
        if entry.value == choice:
            return entry.text
    return choice.upper() if isinstance(choice, str) else format_text(choice)


class FormatList(QMenu):
    """All formats in submenus by their kind, after the usual ones, if any; what is refused is grey and says why.

    Attributes:
        choices: the action of each format.

    Signals:
        chosen: the format the user picked.
    """

    chosen = Signal(object)

    def __init__(
        self,
        name: str,
        groups: Mapping[str, tuple[Entry, ...]],
        parent: QWidget | None = None,
        *,
        usual: Sequence[Entry] = (),
    ) -> None:
        super().__init__(parent)
        self.setAccessibleName(name)
        self._usual = {entry.value: entry for entry in usual}
        self._entries = {entry.value: entry for entries in groups.values() for entry in entries} | self._usual
        self._refusals: Refusals = lambda _: ""
        self._group = QActionGroup(self)
        self._group.setExclusionPolicy(QActionGroup.ExclusionPolicy.ExclusiveOptional)
        self.choices: dict[FormatChoice, QAction] = {}
        self._others: dict[FormatChoice, QAction] = {}
        self.setToolTipsVisible(True)
        for entry in usual:
            self._add(self, entry, self.choices)
        if usual:
            self.addSeparator()
        for title, entries in groups.items():
            submenu = self.addMenu(translate("formats", title))
            submenu.setToolTipsVisible(True)
            for entry in entries:
                # One that is among the usual ones is found in its group as well.
                self._add(submenu, entry, self._others if entry.value in self._usual else self.choices)
        self.aboutToShow.connect(self._refresh)

    def entry(self, choice: FormatChoice) -> Entry | None:
        """Return what is said of a format; None of one that is not in the menu."""
        return self._entries.get(choice)

    def show_choice(self, choice: object) -> None:
        """Mark the format in use; none of them for a value that is no format."""
        for actions in (self.choices, self._others):
            for value, action in actions.items():
                action.setChecked(value == choice)

    def show_refusals(self, refusals: Refusals) -> None:
        """Grey the formats for which `refusals` gives a reason, when the menu is opened."""
        self._refusals = refusals

    def _add(self, menu: QMenu, entry: Entry, actions: dict[FormatChoice, QAction]) -> None:
        action = menu.addAction(entry.text)
        action.setCheckable(True)
        action.triggered.connect(lambda: self.chosen.emit(entry.value))
        self._group.addAction(action)
        actions[entry.value] = action

    def _refresh(self) -> None:
        for value, action in (*self.choices.items(), *self._others.items()):
            reason = self._refusals(value)
            action.setEnabled(not reason)
            text = translate("formats", self._entries[value].help)
            action.setToolTip(f"{text}\n{reason}".strip())
            action.setStatusTip(action.toolTip())


class FormatMenu(QPushButton):
    """A button with the menu of all formats; it shows the one in use if no other button does.

    Signals:
        chosen: the format the user picked.
    """

    chosen = Signal(object)

    def __init__(self, name: str, groups: Mapping[str, tuple[Entry, ...]], parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._name = name
        self._menu = FormatList(name, groups, self)
        self._menu.chosen.connect(self.chosen)
        self.choices = self._menu.choices
        self.setMenu(self._menu)
        self.setAutoDefault(False)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.setMinimumWidth(40)
        self.show_choice(None, own=False)

    def show_choice(self, choice: FormatChoice, *, own: bool) -> None:
        """Show the format in use; `own` says that no other button shows it."""
        text = choice_text(choice) if own else self.tr("More")
        self.setText(text)
        self.setAccessibleName(f"{self._name}: {text}")
        self.setProperty("chosen", "true" if own else "false")
        self.style().unpolish(self)
        self.style().polish(self)
        entry = self._menu.entry(choice) if own else None
        tip = self.tr("All formats: integers, small floats, blocks with their scales, codebooks.")
        self.setToolTip(f"{translate('formats', entry.help)}\n{tip}" if entry is not None else tip)
        self._menu.show_choice(choice if own else _NONE)

    def show_refusals(self, refusals: Refusals) -> None:
        """Grey the formats for which `refusals` gives a reason, when the menu is opened."""
        self._menu.show_refusals(refusals)
