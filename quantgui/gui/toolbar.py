"""The window's toolbar: its buttons, the menu of presets, and what it leaves out where the window is narrow."""

from __future__ import annotations

from collections.abc import Mapping

from PySide6.QtCore import Qt, Signal
from PySide6.QtGui import QAction
from PySide6.QtWidgets import QMenu, QSizePolicy, QToolBar, QToolButton, QWidget

from quantgui.gui.actions import ACTIONS
from quantgui.gui.icons import set_icon
from quantgui.gui.menus import plain_text
from quantgui.gui.preset_groups import preset_groups, preset_refusal
from quantgui.gui.widgets.labels import ElidedLabel
from quantgui.session.session import Session

ROOMY, _WIDE, _NARROW = 1580, 1400, 1200
"""Pixels of width from which the toolbar has all its texts, most, some; below the last it has none."""
_TEXT_FROM = {"undo": ROOMY, "redo": ROOMY, "search": ROOMY, "open": _WIDE, "data": _WIDE, "flip": _WIDE}
"""Whose icons say enough where space is short, and from which width their texts are there all the same."""
_LEFT = (
    ("open", "data"),
    ("presets", "evaluate", "sensitivity", "find_mix", "train", "flip"),
    ("export", "verify"),
    ("undo", "redo"),
)
_GIVE_WAY = ("open", "data", "flip", "evaluate", "train", "verify", "sensitivity", "find_mix", "export")
"""Whose text is left out first where not all have room."""
_LEAST_TITLE = 80


class Toolbar(QToolBar):
    """The most used actions, presets, and the title of what is open.

    Attributes:
        presets: the button that opens the menu of presets.
    """

    def __init__(self, session: Session, actions: Mapping[str, QAction], title: ElidedLabel) -> None:
        super().__init__()
        self.setWindowTitle(self.tr("Toolbar"))
        self.setObjectName("toolbar")
        self.setMovable(False)
        self.setFloatable(False)
        self.setContextMenuPolicy(Qt.ContextMenuPolicy.PreventContextMenu)
        self.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        self.presets = PresetButton(session)
        self._buttons: dict[str, QToolButton] = {}
        for place, group in enumerate(_LEFT):
            if place:
                self.addSeparator()
            for name in group:
                if name == "presets":
                    self.addWidget(self.presets)
                else:
                    self.addAction(actions[name])
        title.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Preferred)
        title.setAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
        title.setProperty("role", "note")
        title.setContentsMargins(8, 0, 8, 0)
        self._title = title
        self.addWidget(title)
        self.addAction(actions["search"])
        self.addAction(actions["theme"])
        for spec in ACTIONS:
            button = self.widgetForAction(actions[spec.id])
            if isinstance(button, QToolButton):
                button.setAccessibleName(plain_text(spec))
                button.setFocusPolicy(Qt.FocusPolicy.TabFocus)
                self._buttons[spec.id] = button
        self._buttons["theme"].setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonIconOnly)

    def fit(self, width: int) -> None:
        """Leave out the texts for which there is no room in a window of `width` pixels."""
        icon, both = Qt.ToolButtonStyle.ToolButtonIconOnly, Qt.ToolButtonStyle.ToolButtonTextBesideIcon
        for name, button in self._buttons.items():
            if name != "theme":
                button.setToolButtonStyle(both if width >= _TEXT_FROM.get(name, _NARROW) else icon)
        self.presets.setToolButtonStyle(both if width >= _NARROW else icon)
        # Words of another language may be longer.
        for name in _GIVE_WAY:
            if self._needed() <= width:
                return
            self._buttons[name].setToolButtonStyle(icon)

    def _needed(self) -> int:
        """Return the width that all buttons take, with a little of the title."""
        layout = self.layout()
        margins = self.contentsMargins()
        widgets = [self.widgetForAction(action) for action in self.actions()]
        spacing = 0 if layout is None else max(layout.spacing(), 0)
        hints = [_LEAST_TITLE if widget is self._title else widget.sizeHint().width() for widget in widgets]
        return sum(hints) + spacing * len(hints) + margins.left() + margins.right()


class PresetButton(QToolButton):
    """Opens a menu of usual recipes for the whole network.

    Attributes:
        presets_menu: the menu.
        actions_by_name: its entries by the names of presets.

    Signals:
        preset_chosen: the `Preset` to be applied.
    """

    preset_chosen = Signal(object)

    def __init__(self, session: Session, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._session = session
        self.presets_menu = QMenu(self)
        self.presets_menu.setToolTipsVisible(True)
        self.actions_by_name: dict[str, QAction] = {}
        for title, presets in preset_groups():
            self.presets_menu.addSection(title)
            for preset in presets:
                action = self.presets_menu.addAction(preset.name)
                action.setToolTip(preset.help)
                action.triggered.connect(lambda _=False, chosen=preset: self.preset_chosen.emit(chosen))
                self.actions_by_name[preset.name] = action
        self.presets_menu.aboutToShow.connect(self.refuse)
        self.setText(" " + self.tr("Preset"))
        self.setAccessibleName(self.tr("Preset"))
        self.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)
        self.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        self.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        self.setMenu(self.presets_menu)
        set_icon(self, "wand-sparkles")

    def show_possible(self) -> None:
        """Let it be pressed where a network is open, and say why it cannot where none is."""
        is_open = self._session.summary is not None
        self.setEnabled(is_open)
        tip = self.tr("Quantize the whole network by a usual recipe, in one undo step.")
        reason = "" if is_open else self.tr("Open a network first.")
        self.setToolTip(f"{tip}\n{reason}".rstrip())

    def refuse(self) -> None:
        """Grey the presets that the target runs in no layer."""
        summary, target = self._session.summary, self._session.target
        layers = () if summary is None else [x for x in summary.layers if self._session.is_editable(x.name)]
        for _, presets in preset_groups():
            for preset in presets:
                reason = preset_refusal(target, layers, preset)
                action = self.actions_by_name[preset.name]
                action.setEnabled(not reason)
                action.setToolTip(f"{preset.help}\n{reason}".strip())
