"""What holds for every panel of the centre: names for screen readers, tooltips, both themes, nothing left behind."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest
from gui_examples import A8, W4_CHANNEL, activation, layer, network, shown, weight_view, weights
from mix_examples import frontier
from noise_examples import noise, sample
from PySide6.QtCore import QEvent, Qt
from PySide6.QtWidgets import QAbstractButton, QApplication, QComboBox, QLineEdit, QWidget
from sens_examples import summary_of, table
from sessions import data
from training_examples import training_ready

from quantgui.gui.panels.activations import ActivationsPanel
from quantgui.gui.panels.channels import ChannelsPanel
from quantgui.gui.panels.comparison import ComparedLayer, ComparedSide, Comparison, ComparisonPanel
from quantgui.gui.panels.data_check import DataCheckPanel
from quantgui.gui.panels.graph import GraphPanel
from quantgui.gui.panels.noise import NoisePanel
from quantgui.gui.panels.sensitivity import SensitivityPanel
from quantgui.gui.panels.trade_off import TradeOffPanel
from quantgui.gui.panels.training import TrainingPanel
from quantgui.gui.panels.weights import WeightsPanel
from quantgui.gui.theme import apply_theme
from quantgui.gui.trade_off_values import TradeOff
from quantgui.gui.training_words import Standing
from quantgui.results import DataReport, Finding, RangeGrowth


def data_report() -> DataReport:
    growth = RangeGrowth("in", ("conv1",), np.linspace(0.5, 1, 8), 8, 0.1, 7, 2, -1.5, 4.0)
    finding = Finding("dead", "warning", "It is 0.", "Look at it.", ("conv1",))
    previews = (np.zeros((3, 8, 8), np.float32),)
    return DataReport(None, 8, (finding,), ("dead",), (), {"in": growth}, previews, "x", None, 2)


def fill(panel: QWidget) -> None:
    match panel:
        case WeightsPanel() | ChannelsPanel():
            panel.show_layer(layer(channels=16))
            panel.show_view(weight_view(weights(16, 64), W4_CHANNEL))
        case ActivationsPanel():
            panel.show_layer(layer())
            panel.show_statistics(activation("in", 8), activation("out", 8), A8)
        case GraphPanel():
            panel.show_network(network(2))
        case NoisePanel():
            panel.show_noise(noise())
            panel.open_sample(5)
            panel.show_sample(sample())
        case DataCheckPanel():
            panel.show_report(data_report())
            panel.show_layer(layer("conv1", input_tensor="in"))
        case TrainingPanel():
            panel.show_data(samples=500, has_labels=False)
            panel.show_training(training_ready(400, notes=("The layer 'a' stays as it is.",)), Standing("running"))
        case TradeOffPanel():
            panel.show_trade_off(TradeOff(mix=frontier(network(2).layers, measured=(0, 5))))
        case ComparisonPanel():
            sides = (ComparedSide("W8", 100, None, in_use=True), ComparedSide("W4", 60, None, in_use=False))
            rows = (ComparedLayer("conv1", ("int8", "int4"), (100, 60), (40.0, 20.0), differs=True),)
            panel.show_comparison(Comparison(sides, "accuracy", rows))
        case SensitivityPanel():
            panel.show_network(summary_of(4))
            panel.show_data(data())
            panel.show_table(table(4, measured=9))


PANELS = [
    WeightsPanel,
    ChannelsPanel,
    ActivationsPanel,
    GraphPanel,
    NoisePanel,
    DataCheckPanel,
    TradeOffPanel,
    ComparisonPanel,
    SensitivityPanel,
    TrainingPanel,
]
each_panel = pytest.mark.parametrize("kind", PANELS, ids=lambda kind: kind.__name__)


@each_panel
def test_that_everything_that_takes_the_focus_has_a_name_and_a_tooltip(qtbot, kind) -> None:
    panel = kind()
    shown(qtbot, panel)
    fill(panel)
    for widget in panel.findChildren(QWidget):
        inner = isinstance(widget.parent(), QLineEdit | QComboBox) or widget.objectName().startswith("qt_")
        if widget.focusPolicy() == Qt.FocusPolicy.NoFocus or inner:
            continue
        if isinstance(widget, QAbstractButton) and not widget.isVisible():
            continue
        named = isinstance(widget, QAbstractButton | QLineEdit) or hasattr(widget, "restyle")
        assert not named or widget.accessibleName(), f"{widget} has no accessible name"
        if isinstance(widget, QAbstractButton | QLineEdit):
            assert widget.toolTip(), f"{widget.accessibleName()} has no tooltip"


@each_panel
def test_that_the_panel_changes_colours_while_it_is_shown(qtbot, qapp, kind) -> None:
    apply_theme(qapp, "dark")
    panel = kind()
    shown(qtbot, panel)
    fill(panel)
    dark = panel.grab().toImage()
    apply_theme(qapp, "light")
    QApplication.processEvents()
    light = panel.grab().toImage()
    assert light.pixelColor(20, 300).lightness() > 200 > 60 > dark.pixelColor(20, 300).lightness()


@each_panel
def test_that_the_panel_can_be_made_small(qtbot, kind) -> None:
    panel = kind()
    shown(qtbot, panel)
    fill(panel)
    assert panel.minimumSizeHint().width() <= 560
    assert panel.minimumSizeHint().height() <= 480


@each_panel
def test_that_a_closed_panel_leaves_nothing_behind(qapp, kind) -> None:
    def make() -> weakref.ref:
        panel = kind()
        fill(panel)
        panel.show()
        qapp.processEvents()
        panel.close()
        panel.deleteLater()
        return weakref.ref(panel)

    make()
    qapp.sendPostedEvents(None, QEvent.Type.DeferredDelete.value)
    gc.collect()
    before = len(qapp.allWidgets())
    for _ in range(3):
        reference = make()
        qapp.sendPostedEvents(None, QEvent.Type.DeferredDelete.value)
        gc.collect()
        assert reference() is None
    assert len(qapp.allWidgets()) <= before
