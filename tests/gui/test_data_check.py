"""The data tab: its states, what a click does, the mark on the tab, and a journey with the real engine."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from gui_examples import layer, shown
from PySide6.QtCore import Qt
from PySide6.QtWidgets import QApplication, QPushButton
from sessions import make_session, open_data, open_network
from windows import open_window, real_session

from quantgui.engine.messages import JobEvent, JobFailed, JobStarted
from quantgui.engine.requests import ExamineData, ViewSample
from quantgui.gui.panels.data_check import DataCheckPanel, thumbnail
from quantgui.results import DataExamined, DataReport, Finding, Progress, RangeGrowth
from quantgui.session.samples import read_samples
from quantgui.spec.config import QuantConfig
from quantgui.spec.presets import activation_spec, weight_spec
from quantgui.spec.quantizer import LayerSpec

pytestmark = pytest.mark.qt_log_ignore("This plugin does not support")
PATIENCE = 120_000
WRONG = Finding(
    "range of inputs", "error", "The values are far too large.", "Prepare them as 0 … 1.", ("conv1",), "x", (), {"a": 2}
)
ODD = Finding("constant sample", "warning", "Sample 3 holds one value.", "Leave it out.", samples=(3,))


def growth(tensor: str = "conv1_in", samples: int = 16) -> RangeGrowth:
    shares = np.minimum(1, 0.5 + np.arange(samples) / samples).astype(np.float32)
    return RangeGrowth(tensor, ("conv1",), shares, 9, 0.0, 7, 2, -1.5, 4.0)


def report(*findings: Finding, full: bool = True) -> DataReport:
    random = np.random.default_rng(0)
    return DataReport(
        QuantConfig() if full else None,
        16,
        findings,
        ("range of inputs", "labels"),
        (),
        {"conv1_in": growth()} if full else {},
        tuple(random.random((3, 8, 8)).astype(np.float32) for _ in range(4)),
        "x",
        setters=2 if full else 0,
    )


def panel(qtbot, shows: DataReport | None = None) -> DataCheckPanel:
    result = DataCheckPanel()
    shown(qtbot, result, 640, 560)
    if shows is not None:
        result.show_report(shows)
        QApplication.processEvents()
    return result


def button(widget, text: str) -> QPushButton:
    return next(b for b in widget.findChildren(QPushButton) if b.text() == text and b.isVisible())


def test_that_each_state_says_what_to_do_and_its_button_asks_for_it(qtbot) -> None:
    tab = panel(qtbot)
    assert "No network" in tab.state.heading()
    tab.show_needs_data()
    with qtbot.waitSignal(tab.data_requested):
        button(tab, "Open data…").click()
    tab.show_not_checked()
    with qtbot.waitSignal(tab.check_requested):
        button(tab, "Check the data").click()
    tab.show_checking("Looking at the samples", 3, 16, None)
    with qtbot.waitSignal(tab.stop_requested):
        button(tab, "Stop").click()
    tab.show_failure("The data cannot be read.")
    assert tab.state.sentence() == "The data cannot be read."
    with qtbot.waitSignal(tab.check_requested):
        button(tab, "Try again").click()


def test_that_findings_have_words_an_icon_and_what_to_do(qtbot) -> None:
    tab = panel(qtbot, report(WRONG, ODD))
    texts = [tab.findings.item(row).text() for row in range(tab.findings.count())]
    assert texts[:2] == [
        "The values are far too large.\nPrepare them as 0 … 1.",
        "Sample 3 holds one value.\nLeave it out.",
    ]
    icons = [tab.findings.item(row).icon().pixmap(16, 16).toImage() for row in range(2)]
    assert icons[0] != icons[1]
    spoken = tab.findings.item(0).data(Qt.ItemDataRole.AccessibleTextRole)
    assert spoken == "Error: The values are far too large."
    tab.show_report(report())
    assert tab.findings.item(0).text().startswith("Nothing suspicious")
    tab.show_report(report(full=False))
    assert "after calibration" in tab.findings.item(1).text()


def test_that_a_click_on_a_finding_selects_its_layer_or_opens_its_sample(qtbot) -> None:
    tab = panel(qtbot, report(WRONG, ODD))
    place = tab.findings.visualItemRect(tab.findings.item(0)).center()
    with qtbot.waitSignal(tab.layers_picked) as picked:
        qtbot.mouseClick(tab.findings.viewport(), Qt.MouseButton.LeftButton, pos=place)
    assert picked.args == [("conv1",)]
    place = tab.findings.visualItemRect(tab.findings.item(1)).center()
    with qtbot.waitSignal(tab.sample_picked) as picked:
        qtbot.mouseClick(tab.findings.viewport(), Qt.MouseButton.LeftButton, pos=place)
    assert picked.args == [3]
    assert tab.sample.isVisible()
    qtbot.keyClick(tab, Qt.Key.Key_Escape)
    assert not tab.sample.isVisible()


def test_that_the_first_samples_are_shown_and_open_on_a_click(qtbot) -> None:
    tab = panel(qtbot, report())
    assert tab.thumbnails.count() == 4
    place = tab.thumbnails.visualItemRect(tab.thumbnails.item(2)).center()
    with qtbot.waitSignal(tab.sample_picked) as picked:
        qtbot.mouseClick(tab.thumbnails.viewport(), Qt.MouseButton.LeftButton, pos=place)
    assert picked.args == [2]


def test_that_samples_that_are_no_pictures_are_drawn_as_curves(qtbot) -> None:
    panel(qtbot)
    flat = thumbnail(np.zeros(100, np.float32), None).toImage()
    assert thumbnail(np.sin(np.arange(100)).astype(np.float32), None).toImage() != flat
    assert not thumbnail(np.arange(64), None).isNull()


def test_that_the_growth_of_the_current_layer_is_drawn_with_the_samples_that_set_it(qtbot) -> None:
    tab = panel(qtbot, report())
    tab.show_layer(layer("conv1", input_tensor="conv1_in", output_tensor=""))
    _, shares = tab.plot._curve.getData()
    np.testing.assert_allclose(shares, 100 * growth().shares)
    assert tab.highest.text() == "Maximum 4.00: sample 7"
    with qtbot.waitSignal(tab.sample_picked) as picked:
        tab.lowest.click()
    assert picked.args == [2]
    tab.show_layer(layer("other", input_tensor="none", output_tensor=""))
    assert not tab.plot.isVisible()


class Window:
    """The real window and session with an engine that is answered by the test."""

    def __init__(self, qtbot, folder) -> None:
        self.session, self.engine = make_session(folder)
        self.main = open_window(qtbot, self.session, folder, size=(1440, 900))
        open_network(self.session, self.engine)
        open_data(self.session, self.engine)
        QApplication.processEvents()
        self.panel = self.main.panels.data_check

    @property
    def place(self) -> int:
        return self.main.tabs.indexOf(self.panel)


def test_that_opened_data_is_checked_by_itself_and_what_is_wrong_is_marked_without_a_dialog(qtbot, tmp_path) -> None:
    window = Window(qtbot, tmp_path)
    asked = window.engine.newest(ExamineData)
    assert window.engine.requests[asked] == ExamineData()
    assert window.main.tabs.tabIcon(window.place).isNull()
    window.engine.answer(asked, DataExamined(report(WRONG, full=False)))
    QApplication.processEvents()
    assert not window.main.tabs.tabIcon(window.place).isNull()
    assert WRONG.sentence in window.main.tabs.tabToolTip(window.place)
    assert WRONG.advice in window.main.notice.sentence()
    assert QApplication.activeModalWidget() is None
    open_data(window.session, window.engine, "other.npz")
    QApplication.processEvents()
    assert window.main.tabs.tabIcon(window.place).isNull()
    window.main.close()


def test_that_the_action_checks_under_the_present_configuration_and_a_sample_is_of_the_calibration_data(
    qtbot, tmp_path
) -> None:
    window = Window(qtbot, tmp_path)
    window.main.actions_by_id["check_data"].trigger()
    number = window.engine.newest(ExamineData)
    assert window.engine.requests[number] == ExamineData(window.session.config)
    assert window.panel.isVisible()
    window.engine.hear(JobStarted(number, "data check"))
    window.engine.hear(JobEvent(number, "data check", Progress(1, 4, "Looking at the samples")))
    QApplication.processEvents()
    window.engine.answer(number, DataExamined(report(ODD)))
    QApplication.processEvents()
    assert window.panel.findings.item(0).text().startswith(ODD.sentence)
    window.panel.open_sample(3)
    assert window.engine.requests[window.engine.newest(ViewSample)] == ViewSample(window.session.config, 3, True)
    window.main.close()


def test_that_what_is_said_of_ranges_is_asked_anew_when_activations_change_and_only_then(qtbot, tmp_path) -> None:
    window = Window(qtbot, tmp_path)
    session, engine = window.session, window.engine
    window.main.actions_by_id["check_data"].trigger()
    session.store.calibrated = True
    clipped = replace(WRONG, kind="clipped")
    engine.answer(engine.newest(ExamineData), DataExamined(replace(report(clipped), config=session.config)))
    QApplication.processEvents()
    asked = engine.newest(ExamineData)
    session.set_specs({layer.name: LayerSpec(weight_spec(4)) for layer in session.summary.layers}, "W4")
    assert engine.newest(ExamineData) == asked
    session.set_specs({layer.name: LayerSpec(None, activation_spec(8)) for layer in session.summary.layers}, "A8")
    again = engine.newest(ExamineData)
    assert engine.requests[again] == ExamineData(session.config)
    engine.answer(again, DataExamined(replace(report(), config=session.config)))
    QApplication.processEvents()
    assert window.main.tabs.tabIcon(window.place).isNull()
    window.main.close()


def test_that_a_sample_that_fails_in_one_tab_is_told_in_that_tab(qtbot, tmp_path) -> None:
    window = Window(qtbot, tmp_path)
    told = []
    window.main.panels.noise.show_sample_failure = lambda sentence: told.append(("noise", sentence))
    window.panel.show_sample_failure = lambda sentence: told.append(("data", sentence))
    for calibration, tab in ((True, "data"), (False, "noise")):
        window.session.view_sample(0, calibration=calibration)
        number = window.engine.newest(ViewSample)
        topic = window.session.jobs.of_topic("calibration sample" if calibration else "sample").topic
        window.engine.hear(JobFailed(number, topic, "Sample 0 is gone.", ""))
        QApplication.processEvents()
        assert told.pop() == (tab, "Sample 0 is gone.")
        assert not told
    window.main.close()


def test_that_wrong_pictures_for_the_digits_are_told_and_right_ones_are_not(qtbot, tmp_path) -> None:
    digits = next(each for each in read_samples() if "digits" in each.network)
    right = dict(np.load(digits.evaluation))
    np.savez(tmp_path / "wrong.npz", **right | {"picture": right["picture"] * 255})
    session = real_session(tmp_path)
    main = open_window(qtbot, session, tmp_path)
    session.open_network(str(digits.network), str(tmp_path / "wrong.npz"))
    qtbot.waitUntil(lambda: session.data_report is not None, timeout=PATIENCE)
    assert "Prepare them as 0 … 1" in main.notice.sentence()
    session.open_data(str(digits.evaluation))
    qtbot.waitUntil(lambda: session.data_report is None, timeout=PATIENCE)
    qtbot.waitUntil(lambda: session.data_report is not None, timeout=PATIENCE)
    assert not any(finding.kind == "range of inputs" for finding in session.data_report.findings)
    main.actions_by_id["check_data"].trigger()
    qtbot.waitUntil(lambda: session.data_report.config is not None, timeout=PATIENCE)
    assert main.panels.data_check.plot.isVisible()
    main.panels.data_check.highest.click()
    sample = main.panels.data_check.sample
    qtbot.waitUntil(lambda: sample.outputs.rowCount() > 0, timeout=PATIENCE)
    main.close()
