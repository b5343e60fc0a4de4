"""Carries the target between session and panels: what it refuses is greyed, marked, counted and listed."""

from __future__ import annotations

from PySide6.QtCore import QObject

from quantgui.gui.models.filter import VIOLATES
from quantgui.gui.panels.all_panels import Panels
from quantgui.session.session import Session

_EXAMPLES = 5
"""Layers whose reasons the tooltip tells; the others have theirs in the table."""


class TargetPresenter(QObject):
    """Connects the session's target with status line, inspector, layers and the settings of sweeps."""

    def __init__(self, session: Session, panels: Panels, parent: QObject) -> None:
        super().__init__(parent)
        self._session = session
        self._panels = panels
        for place in (panels.status, panels.inspector):
            place.target_chosen.connect(session.set_target)
        panels.status.violations_requested.connect(self.show_violations)
        panels.layers.filter.textChanged.connect(self._show_count)
        session.target_changed.connect(self._on_target_changed)
        session.network_opened.connect(self._on_target_changed)
        session.network_closed.connect(self._on_target_changed)
        session.config_changed.connect(self._show_count)
        self._on_target_changed()

    def show_violations(self) -> None:
        """Let the table show only the layers that the target refuses, or all where it does so already."""
        self._panels.layers.set_filter("" if self._lists_them() else VIOLATES)

    def _lists_them(self) -> bool:
        return self._panels.layers.filter.text().strip() == VIOLATES

    def _on_target_changed(self, _: object = None) -> None:
        target = self._session.target
        self._panels.inspector.show_target(target)
        summary = self._session.summary
        self._panels.status.show_target(None if summary is None else target)
        self._panels.sensitivity.controls.show_target(target, () if summary is None else summary.layers)
        self._show_count()

    def _show_count(self, _: object = None) -> None:
        session = self._session
        found = session.violations()
        examples = [f"{name}: {session.violation(name)}" for name in found[:_EXAMPLES]]
        self._panels.status.show_violations(len(found), session.target.title, examples, listed=self._lists_them())
        if not found and self._lists_them():
            # The last one is mended: an empty table would be no help.
            self._panels.layers.set_filter("")
