"""The actions as Qt shows them: menus, tooltips, and the help page of keys."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from PySide6.QtGui import QAction, QKeySequence
from PySide6.QtWidgets import QMainWindow, QMenu

from quantgui.gui.actions import ACTIONS, MENUS, ActionSpec, tr
from quantgui.gui.icons import set_icon
from quantgui.gui.needs import why_not
from quantgui.gui.texts import translate
from quantgui.session.session import Session


def build_actions(
    window: QMainWindow, handlers: Mapping[str, Callable[[], object]]
) -> tuple[dict[str, QAction], dict[str, QMenu]]:
    """Create a QAction for each `ActionSpec` in its menu; return actions by id and menus by title."""
    menus = {title: window.menuBar().addMenu(tr(title)) for title in MENUS}
    actions: dict[str, QAction] = {}
    for spec in ACTIONS:
        menu = menus[spec.menu]
        menu.setToolTipsVisible(True)
        if spec.separator:
            menu.addSeparator()
        text = spec.words(spec.text) + (f"\t{spec.keys}" if spec.keys else "")
        action = QAction(text, window)
        action.setObjectName(spec.id)
        # The blank keeps the text away from the icon.
        action.setIconText(" " + plain_text(spec, short=True))
        action.setShortcut(QKeySequence(spec.shortcut))
        action.setCheckable(spec.checkable)
        if spec.icon:
            set_icon(action, spec.icon)
        action.triggered.connect(_plain(handlers[spec.id]))
        menu.addAction(action)
        actions[spec.id] = action
        explain(action, spec, "")
    return actions, menus


def plain_text(spec: ActionSpec, *, short: bool = False) -> str:
    """Return the text of an action without marks; the one on its button if `short`."""
    return spec.words(spec.toolbar if short and spec.toolbar else spec.text).replace("&", "").rstrip("…")


def _plain(handler: Callable[[], object]) -> Callable[[], None]:
    # `triggered` passes whether the action is checked, which handlers do not take.
    def call() -> None:
        handler()

    return call


def update_actions(actions: Mapping[str, QAction], session: Session) -> None:
    """Enable what is possible now, and let the others say why they are not."""
    for spec in ACTIONS:
        reason = why_not(spec.needs, session)
        actions[spec.id].setEnabled(not reason)
        explain(actions[spec.id], spec, reason)


def explain(action: QAction, spec: ActionSpec, reason: str) -> None:
    """Set the tooltip: what the action does, its key, and why it is not possible if it is not."""
    key = shortcut_text(spec)
    text = spec.words(spec.help) + (f" ({key})" if key else "")
    action.setToolTip(f"{text}\n{reason}" if reason else text)


def shortcut_text(spec: ActionSpec) -> str:
    """Return the key of an action as it is printed on keyboards."""
    sequence = QKeySequence(spec.shortcut)
    return spec.keys or sequence.toString(QKeySequence.SequenceFormat.NativeText)


def shortcuts_page() -> str:
    """Return the help page of keys as Markdown."""
    heading, key, meaning = (
        translate("actions", "Keyboard shortcuts"),
        translate("actions", "Key"),
        translate("actions", "What it does"),
    )
    lines = [f"# {heading}", ""]
    for title in MENUS:
        rows = [spec for spec in ACTIONS if spec.menu == title and shortcut_text(spec)]
        if rows:
            lines += [f"## {tr(title).replace('&', '')}", "", f"| {key} | {meaning} |", "|---|---|"]
            lines += [f"| `{shortcut_text(spec)}` | {spec.words(spec.help)} |" for spec in rows]
            lines.append("")
    lines.append(
        translate(
            "actions",
            "The keys 2 … 8 and F work wherever no text is typed; Return in the layers table opens the menu of all "
            "formats of the weights, Shift+Return that of the activations.",
        )
    )
    return "\n".join(lines)
