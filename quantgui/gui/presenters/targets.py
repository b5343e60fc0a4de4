"""Carries the target between session and panels: what it refuses is greyed, marked and counted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from PySide6.QtCore import QObject

from quantgui.gui.models.filter import VIOLATES
from quantgui.session.session import Session

if TYPE_CHECKING:
    from quantgui.gui.presenter import Panels


class TargetPresenter(QObject):
    """Connects the session's target with inspector, status line and the settings of sweeps."""

    def __init__(self, session: Session, panels: Panels, parent: QObject) -> None:
        super().__init__(parent)
        self._session = session
        self._panels = panels
        panels.inspector.target_chosen.connect(session.set_target)
        panels.status.violations_requested.connect(self.show_violations)
        session.target_changed.connect(self._on_target_changed)
        session.network_opened.connect(self._on_target_changed)
        session.network_closed.connect(self._show_count)
        session.config_changed.connect(self._show_count)
        self._on_target_changed()

    def show_violations(self) -> None:
        """Let the table show only the layers that the target refuses."""
        self._panels.layers.set_filter(VIOLATES)

    def _on_target_changed(self, _: object = None) -> None:
        target = self._session.target
        self._panels.inspector.show_target(target)
        summary = self._session.summary
        self._panels.sensitivity.controls.show_target(target, () if summary is None else summary.layers)
        self._show_count()

    def _show_count(self, _: object = None) -> None:
        self._panels.status.show_violations(len(self._session.violations()), self._session.target.title)
