"""One's own configuration beside a network that another tool has quantized; it stays open beside the work."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from PySide6.QtCore import Qt, Signal
from PySide6.QtWidgets import (
    QAbstractItemView,
    QCheckBox,
    QDialog,
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QPlainTextEdit,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from quantgui.gui import numbers
from quantgui.gui.models.network_comparison import NetworkComparisonModel, differs
from quantgui.gui.quality import metric_name, score_text
from quantgui.gui.widgets.compared_layers import ComparedLayersTable
from quantgui.gui.widgets.labels import ElidedLabel, MetricLabel, set_style
from quantgui.gui.widgets.progress import ProgressRow
from quantgui.results import Evaluation, NetworkComparison, Progress

_NOTES_HEIGHT = 62


@dataclass(frozen=True, slots=True)
class Sizes:
    """Bytes under one's own configuration, and of the other one if it is counted in the same way; float for both."""

    own: int
    other: int
    float_: int


class _Side(QWidget):
    """The overall numbers of one of the two."""

    def __init__(self, title: str, size_help: str, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.title = ElidedLabel(title, middle=True, least=120)
        self.title.setProperty("role", "title")
        self.quality = MetricLabel(self.tr("quality"), self.tr("Measured on the open data, with its standard error."))
        self.sqnr = MetricLabel(
            self.tr("output SQNR"), self.tr("Outputs against those of the float network in dB; larger is better.")
        )
        self.bytes = MetricLabel(self.tr("size"), size_help)
        grid = QGridLayout(self)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setHorizontalSpacing(18)
        grid.addWidget(self.title, 0, 0, 1, 3)
        for column, metric in enumerate((self.quality, self.sqnr, self.bytes)):
            grid.addWidget(metric, 1, column)
        grid.setColumnStretch(2, 1)

    def show_evaluation(self, evaluation: Evaluation) -> None:
        metric = evaluation.metric
        self.quality.show_value(score_text(evaluation.quantized_score, metric))
        self.quality.show_caption(metric_name(metric))
        self.sqnr.show_value(numbers.decibel(evaluation.output_sqnr_db))
        self.sqnr.setVisible(metric != "output_sqnr_db")


class NetworkComparisonDialog(QDialog):
    """Theirs and yours: quality, bytes, each layer's formats and error, and a button that takes theirs over.

    Signals:
        layer_picked: name of the layer whose row was clicked.
        accepted_config: the other network's configuration is to be taken over.
        again_requested: the same file is to be compared with the present configuration.
        file_requested: another file is to be chosen.
        cancel_requested: the comparison under way is to be stopped.
    """

    layer_picked = Signal(str)
    accepted_config = Signal()
    again_requested = Signal()
    file_requested = Signal()
    cancel_requested = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setWindowTitle(self.tr("Compare with a quantized file"))
        self.resize(820, 560)
        self.heading = ElidedLabel(middle=True, least=200)
        self.heading.setProperty("role", "heading")
        self.note = QLabel()
        self.note.setProperty("role", "note")
        self.note.setWordWrap(True)
        self.own = _Side(
            self.tr("Yours"), self.tr("Bytes of all constants of the network under your configuration; less is better.")
        )
        self.other = _Side(self.tr("Theirs"), self.tr("Bytes of the file; less is better."))
        self.take = self._button(self.tr("Take over"), "")
        self.model = NetworkComparisonModel(self)
        self.table = ComparedLayersTable(
            self.model, [column.width for column in self.model.columns], self.tr("Layers, yours and theirs")
        )
        self.table.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.table.row_picked.connect(self._on_picked)
        self.only = QCheckBox(self.tr("Only layers whose formats differ"))
        self.only.setAccessibleName(self.only.text())
        self.only.setToolTip(self.tr("Leave out the layers that have the same formats in both."))
        self.only.toggled.connect(lambda on: self.model.show_only_different(only=on))
        self.summary = QLabel()
        self.summary.setProperty("role", "note")
        self.unknown = QPlainTextEdit()
        self.unknown.setReadOnly(True)
        self.unknown.setTabChangesFocus(True)
        self.unknown.setMaximumHeight(_NOTES_HEIGHT)
        self.unknown.setAccessibleName(self.tr("Names and notes"))
        self.unknown.setToolTip(self.tr("Names in the file that the network does not have, and what else it says."))
        self.progress = ProgressRow(self.tr("Comparing"))
        self.progress.cancelled.connect(self.cancel_requested)
        self.again = self._button(self.tr("Compare again"), "")
        self.file = self._button(self.tr("Other file…"), self.tr("Choose another quantized file."))
        close = self._button(self.tr("Close"), self.tr("Close this dialog; the configuration stays as it is."))
        self.take.clicked.connect(self.accepted_config)
        self.again.clicked.connect(self.again_requested)
        self.file.clicked.connect(self.file_requested)
        close.clicked.connect(self.close)
        self._lay_out(close)
        self.clear()

    # --- in ------------------------------------------------------------------------------------------------------

    def clear(self) -> None:
        """Show nothing."""
        self.model.show_layers(())
        self._compared = ""
        self._body.hide()
        self.progress.hide()
        self.note.setText("")
        self.again.hide()

    def show_progress(self, path: str, progress: Progress) -> None:
        """Show how far the comparison with the file at `path` is."""
        self.heading.setText(self.tr("Comparing with {file}").format(file=Path(path).name))
        self._say("", "muted")
        self.progress.show_progress(progress.done, progress.total, progress.label)
        self.progress.show()
        self._body.setEnabled(False)
        self.file.setEnabled(False)
        self.again.setEnabled(False)

    def show_failure(self, sentence: str) -> None:
        """Show why there is no comparison; one that was shown before stays."""
        self._end()
        self._say(sentence, "bad")

    def show_stopped(self) -> None:
        """Show that the user has stopped the comparison."""
        self._end()
        self._say(self.tr("Stopped; nothing has been compared."), "muted")

    def show_comparison(self, result: NetworkComparison, sizes: Sizes) -> None:
        """Show a comparison."""
        self._end()
        self._body.show()
        name, own, other = Path(result.path).name, result.own_evaluation, result.other_evaluation
        self._compared = self.tr("Yours and {file}").format(file=name)
        self.heading.setText(self._compared)
        metric = own.metric
        words = self.tr("{metric} of the float network {score}, {samples} samples; float size {size}")
        self._say(
            words.format(
                metric=metric_name(metric),
                score=score_text(own.float_score, metric),
                samples=numbers.count(own.quantized_score.samples),
                size=numbers.data_size(sizes.float_),
            ),
            "muted",
        )
        label = result.config.name or self.tr("the configuration")
        self.own.title.setText(self.tr("Yours: {label}").format(label=label))
        self.other.title.setText(self.tr("Theirs: {label}").format(label=name))
        self.own.show_evaluation(own)
        self.other.show_evaluation(other)
        self.own.bytes.show_value(numbers.data_size(sizes.own))
        self.other.bytes.show_value(numbers.data_size(result.file_bytes))
        self.other.bytes.setToolTip(
            self.tr("Bytes of the file; its formats would take {size} counted as yours are. Less is better.").format(
                size=numbers.data_size(sizes.other)
            )
        )
        different = sum(differs(layer) for layer in result.layers)
        self.summary.setText(
            self.tr("{n} of {all} layers differ in formats").format(n=different, all=len(result.layers))
            if different
            else self.tr("The formats are the same in all layers")
        )
        self.model.show_layers(result.layers)
        self.unknown.setPlainText("\n".join([*result.unknown, *result.notes]))
        self.unknown.setVisible(bool(result.unknown or result.notes))

    def show_present(self, *, changed: int, outdated: bool) -> None:
        """Show that taking theirs over would change `changed` layers, and whether yours is not the present one."""
        self.take.setEnabled(changed > 0)
        tip = self.tr("Make theirs the configuration, in one undo step; {n} layers change.").format(n=changed)
        self.take.setToolTip(tip if changed else self.tr("The configuration is theirs already."))
        self.again.setVisible(outdated)
        self.again.setEnabled(outdated)
        self.again.setToolTip(
            self.tr("The configuration has changed since; compare the present one with the same file.")
        )

    # --- parts ---------------------------------------------------------------------------------------------------

    def _end(self) -> None:
        self.progress.hide()
        self.heading.setText(self._compared or self.windowTitle())
        self._body.setEnabled(True)
        self.file.setEnabled(True)
        self.again.setEnabled(True)

    def _say(self, sentence: str, tone: str) -> None:
        self.note.setText(sentence)
        set_style(self.note, "tone", tone)
        self.note.setVisible(bool(sentence))

    def _lay_out(self, close: QPushButton) -> None:
        self._body = QWidget()
        heads = QHBoxLayout()
        heads.setSpacing(24)
        heads.addWidget(self.own, 1)
        heads.addWidget(self.other, 1)
        heads.addWidget(self.take, 0, Qt.AlignmentFlag.AlignVCenter)
        line = QHBoxLayout()
        line.addWidget(self.only)
        line.addStretch(1)
        line.addWidget(self.summary)
        body = QVBoxLayout(self._body)
        body.setContentsMargins(0, 0, 0, 0)
        body.setSpacing(10)
        body.addLayout(heads)
        body.addLayout(line)
        body.addWidget(self.table, 1)
        body.addWidget(self.unknown)
        row = QHBoxLayout()
        row.addWidget(close)
        row.addStretch(1)
        row.addWidget(self.file)
        row.addWidget(self.again)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(16, 14, 16, 14)
        layout.setSpacing(10)
        layout.addWidget(self.heading)
        layout.addWidget(self.note)
        layout.addWidget(self.progress)
        layout.addWidget(self._body, 1)
        layout.addStretch(0)
        layout.addLayout(row)

    def _button(self, text: str, tip: str) -> QPushButton:
        button = QPushButton(text)
        button.setAccessibleName(text.rstrip("…"))
        button.setToolTip(tip)
        button.setAutoDefault(False)
        return button

    def _on_picked(self, row: int) -> None:
        self.layer_picked.emit(self.model.layer(row).layer)
