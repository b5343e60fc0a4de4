"""The panels of an open network, with the model and the status line they share."""

from __future__ import annotations

from collections.abc import Iterator

from PySide6.QtCore import QObject

from quantgui.gui.models.layers import LayersModel
from quantgui.gui.panels.activations import ActivationsPanel
from quantgui.gui.panels.channels import ChannelsPanel
from quantgui.gui.panels.data_check import DataCheckPanel
from quantgui.gui.panels.graph import GraphPanel
from quantgui.gui.panels.inspector import InspectorPanel
from quantgui.gui.panels.jobs import JobsPanel
from quantgui.gui.panels.layers import LayersPanel
from quantgui.gui.panels.noise import NoisePanel
from quantgui.gui.panels.sensitivity import SensitivityPanel
from quantgui.gui.panels.trade_off import TradeOffPanel
from quantgui.gui.panels.training import TrainingPanel
from quantgui.gui.panels.weights import WeightsPanel
from quantgui.gui.status_line import StatusLine
from quantgui.session.session import Session


class Panels(QObject):
    """All panels, made once, one after the other by `make`."""

    def __init__(self, session: Session, status: StatusLine, parent: QObject) -> None:
        super().__init__(parent)
        self.status = status
        self.model = LayersModel(session, self)

    def make(self) -> Iterator[None]:
        """Make one panel in each step."""
        self.layers = LayersPanel(self.model)
        yield
        self.weights = WeightsPanel()
        yield
        self.channels = ChannelsPanel()
        yield
        self.activations = ActivationsPanel()
        yield
        self.graph = GraphPanel()
        yield
        self.trade_off = TradeOffPanel()
        yield
        self.sensitivity = SensitivityPanel()
        yield
        self.noise = NoisePanel()
        yield
        self.data_check = DataCheckPanel()
        yield
        self.training = TrainingPanel()
        yield
        self.inspector = InspectorPanel()
        self.jobs = JobsPanel()
        yield
