"""What verifying an exported file has shown: simulated against deployed, size, time, layer by layer."""

from __future__ import annotations

import math
from pathlib import Path

from PySide6.QtCore import Qt, Signal
from PySide6.QtWidgets import (
    QAbstractItemView,
    QDialog,
    QGridLayout,
    QHBoxLayout,
    QHeaderView,
    QLabel,
    QPushButton,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
    QWidget,
)

from quantgui.gui import numbers
from quantgui.gui.models.delegates import sqnr_token
from quantgui.gui.quality import metric_name, score_text
from quantgui.gui.theme import current, theme_events
from quantgui.gui.widgets.labels import MetricLabel
from quantgui.results import Verification

SAME_DB = 60.0
"""From here on simulated and deployed outputs agree to 0.1 %."""


class VerificationDialog(QDialog):
    """The result of "Verify".

    Signals:
        layer_activated: name of a layer whose row was double-clicked, or chosen with Return.
    """

    layer_activated = Signal(str)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setWindowTitle(self.tr("Verification"))
        self._result: Verification | None = None
        self.resize(740, 560)
        self.heading = QLabel()
        self.heading.setProperty("role", "heading")
        self.heading.setWordWrap(True)
        self.simulated = MetricLabel(self.tr("Simulated"), self.tr("Quality that the window shows."))
        self.deployed = MetricLabel(
            self.tr("Deployed"), self.tr("Quality of the file, run by ONNX Runtime as users do.")
        )
        self.sqnr = MetricLabel(
            self.tr("Deployed vs simulated"), self.tr("SQNR of the outputs in dB; larger is better, ∞ is equal.")
        )
        self.file_size = MetricLabel(self.tr("Size on disk"), self.tr("The exported file against the float file."))
        self.latency = MetricLabel(
            self.tr("Time per sample"), self.tr("Median time, deployed / float; below 1 is faster than float.")
        )
        self.notes = QLabel()
        self.notes.setWordWrap(True)
        self.notes.setProperty("role", "note")
        self.table = QTableWidget(0, 3)
        self.table.setHorizontalHeaderLabels([self.tr("Layer"), self.tr("Runs as"), self.tr("SQNR, dB")])
        self.table.setAccessibleName(self.tr("Deviation of each layer"))
        self.table.setToolTip(
            self.tr(
                "The operator that runs each layer in ONNX Runtime, and how close the layer's output in the file is to "
                "the simulated one, in dB; larger is better. The first layer that parts is in bold.\n"
                "Double-click a row, or press Return, to look at its layer in the window."
            )
        )
        self.table.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.table.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.table.activated.connect(lambda index: self._on_activated(index.row()))
        self.table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.table.setShowGrid(False)
        self.table.verticalHeader().hide()
        self.table.horizontalHeader().setDefaultAlignment(Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter)
        self.table.horizontalHeader().setHighlightSections(False)
        self.table.setTabKeyNavigation(False)
        of_numbers = self.table.horizontalHeaderItem(2)
        assert of_numbers is not None
        of_numbers.setTextAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
        theme_events().changed.connect(self._on_theme_changed)
        self.table.horizontalHeader().setSectionResizeMode(0, QHeaderView.ResizeMode.Stretch)
        self.table.horizontalHeader().setSectionResizeMode(1, QHeaderView.ResizeMode.Stretch)
        close = QPushButton(self.tr("Close"))
        close.setAccessibleName(self.tr("Close"))
        close.setToolTip(self.tr("Close this dialog."))
        close.clicked.connect(self.close)
        grid = QGridLayout()
        grid.setVerticalSpacing(10)
        for place, metric in enumerate((self.simulated, self.deployed, self.sqnr, self.file_size, self.latency)):
            grid.addWidget(metric, place // 3, place % 3)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(16, 14, 16, 14)
        layout.setSpacing(10)
        layout.addWidget(self.heading)
        layout.addLayout(grid)
        layout.addWidget(self.notes)
        layout.addWidget(self.table, 1)
        row = QHBoxLayout()
        row.addStretch(1)
        row.addWidget(close)
        layout.addLayout(row)

    def show_verification(self, result: Verification) -> None:
        """Show the comparison."""
        self._result = result
        name = Path(result.path).name
        same = result.output_sqnr_db >= SAME_DB
        self.heading.setText(
            self.tr("{file} does what the window shows").format(file=name)
            if same
            else self.tr("{file} differs a little from what the window shows").format(file=name)
        )
        metric = metric_name(result.simulated.metric)
        self.simulated.show_value(score_text(result.simulated.quantized_score, result.simulated.metric))
        self.simulated.show_caption(self.tr("Simulated {metric}").format(metric=metric))
        self.deployed.show_value(score_text(result.deployed.quantized_score, result.deployed.metric))
        self.deployed.show_caption(self.tr("Deployed {metric}").format(metric=metric))
        self.sqnr.show_value(numbers.decibel(result.output_sqnr_db), sqnr_token(result.output_sqnr_db))  # type: ignore[arg-type]
        ratio = result.float_file_bytes / result.file_bytes if result.file_bytes else math.nan
        self.file_size.show_value(f"{numbers.data_size(result.file_bytes)} ({ratio:.2f}×)")
        self.file_size.show_caption(
            self.tr("Size, float: {size}").format(size=numbers.data_size(result.float_file_bytes))
        )
        self.latency.show_value(f"{result.latency_ratio:.2f}×", "good" if result.latency_ratio <= 1 else "text")
        self.latency.show_caption(
            self.tr("Latency: {deployed} ms, float: {float} ms").format(
                deployed=f"{result.deployed_latency_ms:.3g}", float=f"{result.float_latency_ms:.3g}"
            )
        )
        if result.latency_quartiles is not None:
            lower, upper = result.latency_quartiles
            self.latency.setToolTip(
                self.tr("Median time, deployed / float; half of the rounds lie between {lower} and {upper}.").format(
                    lower=f"{lower:.2f}×", upper=f"{upper:.2f}×"
                )
            )
        self.notes.setText("\n".join(result.notes))
        self.notes.setVisible(bool(result.notes))
        self._show_layers(result)

    def _show_layers(self, result: Verification) -> None:
        worst = sorted(result.layers, key=lambda deviation: deviation.sqnr_db)
        self.table.setVisible(bool(worst))
        self.table.setRowCount(len(worst))
        for row, deviation in enumerate(worst):
            value = QTableWidgetItem(numbers.decibel(deviation.sqnr_db).removesuffix(" dB"))
            value.setForeground(current().color(sqnr_token(deviation.sqnr_db)))
            value.setTextAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
            name, kernel = QTableWidgetItem(deviation.layer), QTableWidgetItem(deviation.kernel)
            name.setToolTip(
                self.tr("Output: {tensor}; weight in the file: {size}").format(
                    tensor=deviation.tensor, size=numbers.data_size(deviation.stored_bytes)
                )
            )
            kernel.setToolTip(deviation.kernel)
            for column, item in enumerate((name, kernel, value)):
                if deviation.layer == result.first_parting:
                    font = item.font()
                    font.setBold(True)
                    item.setFont(font)
                self.table.setItem(row, column, item)

    def _on_theme_changed(self, _: object) -> None:
        if self._result is not None:
            self._show_layers(self._result)

    def _on_activated(self, row: int) -> None:
        item = self.table.item(row, 0)
        if item is not None:
            self.layer_activated.emit(item.text())
