"""Exporting: where to, what will be written, how far it is, what came out."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from PySide6.QtCore import Qt, Signal
from PySide6.QtGui import QShowEvent
from PySide6.QtWidgets import (
    QCheckBox,
    QComboBox,
    QDialog,
    QFormLayout,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QProgressBar,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from quantgui.gui import numbers
from quantgui.gui.dialogs.files import FileChooser, ask_to_replace
from quantgui.gui.widgets.labels import set_style
from quantgui.results import Exported, Progress
from quantgui.spec.profiles import EXPORT_PROFILES, ExportProfile

PATTERN = "ONNX (*.onnx)"


class ExportDialog(QDialog):
    """Choose a file and watch it being written.

    Attributes:
        may_replace: asks whether an existing file may be replaced; a test puts its own answer here.

    Signals:
        export_requested: path, for whom the file is written (`spec.profiles`), and whether what that runtime refuses
            is to be converted.
        cancel_requested: stop writing.
        verify_requested: path of the file that has been written.
    """

    export_requested = Signal(str, str, bool)
    cancel_requested = Signal()
    verify_requested = Signal(str)

    def __init__(self, chooser: FileChooser, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setWindowTitle(self.tr("Export"))
        self.setMinimumWidth(520)
        self._chooser = chooser
        self._written = ""
        self._agreed = ""
        self._state = ""
        self.may_replace: Callable[[Path], bool] = partial(ask_to_replace, self)
        self.summary = QLabel()
        self.summary.setWordWrap(True)
        self.path = QLineEdit()
        self.path.setAccessibleName(self.tr("File to write"))
        self.path.setToolTip(self.tr("The file is replaced only when the new one is complete."))
        self.path.textChanged.connect(self._on_path)
        self.profile = QComboBox()
        self.profile.setAccessibleName(self.tr("For whom"))
        for profile in EXPORT_PROFILES:
            name, tip = self._about(profile)
            self.profile.addItem(name, profile)
            self.profile.setItemData(self.profile.count() - 1, tip, Qt.ItemDataRole.ToolTipRole)
        self.profile.currentIndexChanged.connect(self._on_profile)
        self.convert = QCheckBox(self.tr("Convert what the runtime refuses"))
        self.convert.setAccessibleName(self.convert.text())
        self.convert.setToolTip(
            self.tr(
                "Asymmetric and unsigned quantizers become symmetric int8, groups become channels or groups that the "
                "runtime knows, and what has no neighbour stays float. What was changed is listed; the configuration "
                "in the window stays as it is."
            )
        )
        self._on_profile()
        self.browse = self._button(self.tr("Browse…"), self.tr("Choose the file to write."), self._on_browse)
        self.bar = QProgressBar()
        self.bar.setTextVisible(False)
        self.bar.setAccessibleName(self.tr("Export"))
        self.status = QLabel()
        self.status.setWordWrap(True)
        self.status.setProperty("role", "note")
        self.close_button = self._button(self.tr("Close"), self.tr("Close this dialog."), self.close)
        self.stop = self._button(
            self.tr("Stop"), self.tr("Stop writing; an existing file stays as it is."), self.cancel_requested.emit
        )
        self.export_button = self._button(self.tr("Export"), self.tr("Write the quantized network."), self._on_export)
        self.path.returnPressed.connect(self.export_button.click)
        self.verify_button = self._button(
            self.tr("Verify the file"),
            self.tr("Run the file as a user's runtime would, and compare."),
            lambda: self.verify_requested.emit(self._written),
        )
        layout = QVBoxLayout(self)
        layout.setContentsMargins(16, 14, 16, 14)
        layout.setSpacing(9)
        layout.addWidget(self.summary)
        row = QHBoxLayout()
        row.addWidget(self.path, 1)
        row.addWidget(self.browse)
        form = QFormLayout()
        form.setSpacing(9)
        label = QLabel(self.tr("&File"))
        label.setBuddy(self.path)
        form.addRow(label, row)
        form.addRow(self.tr("F&or"), self.profile)
        layout.addLayout(form)
        layout.addWidget(self.convert)
        layout.addWidget(self.bar)
        layout.addWidget(self.status)
        layout.addStretch(1)
        row = QHBoxLayout()
        row.addWidget(self.close_button)
        row.addStretch(1)
        row.addWidget(self.stop)
        row.addWidget(self.verify_button)
        row.addWidget(self.export_button)
        layout.addLayout(row)
        self._show_state("ready")

    def showEvent(self, event: QShowEvent) -> None:
        super().showEvent(event)
        # Qt gives wrapped text the height of one line where a dialog is shown for the first time.
        layout = self.layout()
        needed = 0 if layout is None else layout.totalHeightForWidth(self.width())
        if needed > self.height():
            self.resize(self.width(), needed)

    def show_plan(self, path: str, sentence: str) -> None:
        """Show what will be written, and where."""
        self.summary.setText(sentence)
        self.path.setText(path)
        self._written = ""
        self._say("", "muted")
        self._show_state("ready")

    def show_progress(self, progress: Progress) -> None:
        """Show how far the export is."""
        self._show_state("running")
        self.bar.setRange(0, progress.total)
        self.bar.setValue(progress.done)
        self._say(progress.label, "muted")

    def show_exported(self, exported: Exported, *, can_verify: bool) -> None:
        """Show what has been written."""
        self._written = exported.path
        size = numbers.data_size(exported.file_bytes)
        lines = [self.tr("Written: {size}, opset {opset}.").format(size=size, opset=exported.opset), *exported.notes]
        self._say("\n".join(lines), "good")
        self._show_state("done")
        self.verify_button.setEnabled(can_verify)
        self.verify_button.setToolTip(
            self.tr("Run the file as a user's runtime would, and compare.")
            if can_verify
            else self.tr("Open data first: the file is verified on it.")
        )
        (self.verify_button if can_verify else self.close_button).setFocus()
        self.adjustSize()

    def show_failure(self, sentence: str) -> None:
        """Show why nothing was written."""
        self._say(sentence, "bad")
        self._show_state("ready")
        self.path.setFocus()
        self.adjustSize()

    def _button(self, text: str, help_text: str, slot: object) -> QPushButton:
        button = QPushButton(text)
        button.setAccessibleName(text.rstrip("…"))
        button.setToolTip(help_text)
        button.setAutoDefault(False)
        button.clicked.connect(slot)
        return button

    def _show_state(self, state: str) -> None:
        running, done = state == "running", state == "done"
        self.bar.setVisible(running)
        self.stop.setVisible(running)
        self.verify_button.setVisible(done)
        set_style(self.verify_button, "primary", "true" if done else "false")
        set_style(self.export_button, "primary", "false" if done else "true")
        for widget in (self.path, self.browse, self.profile, self.convert):
            widget.setEnabled(not running)
        self.export_button.setEnabled(not running and bool(self.path.text().strip()))
        if self._state != state:
            # What comes and goes must not squeeze what stays.
            self._state = state
            self.adjustSize()

    def _say(self, text: str, tone: str) -> None:
        self.status.setText(text)
        set_style(self.status, "tone", tone)

    def _on_path(self) -> None:
        possible = bool(self.path.text().strip()) and self.bar.isHidden()
        self.export_button.setEnabled(possible)
        self.export_button.setToolTip(
            self.tr("Write the quantized network.") if possible else self.tr("Choose a file to write first.")
        )

    def _on_browse(self) -> None:
        if path := self._chooser.save_file(self, self.tr("Export"), self.path.text(), PATTERN):
            # The file dialog has asked whether this very file may be replaced.
            self._agreed = path
            self.path.setText(path if Path(path).suffix else f"{path}.onnx")

    def _on_export(self) -> None:
        path = self.path.text().strip()
        if path != self._agreed and Path(path).is_file() and not self.may_replace(Path(path)):
            self.path.setFocus()
            return
        self._agreed = ""
        self.show_progress(Progress(0, 0, self.tr("Waiting for the engine …")))
        converts = self.convert.isVisibleTo(self) and self.convert.isChecked()
        self.export_requested.emit(path, self.profile.currentData(), converts)

    def _on_profile(self) -> None:
        self.profile.setToolTip(self._about(self.profile.currentData())[1])
        self.convert.setVisible(self.profile.currentData() == "tensorrt")

    def _about(self, profile: ExportProfile) -> tuple[str, str]:
        match profile:
            case "qdq":
                return self.tr("ONNX for every runtime"), self.tr(
                    "QuantizeLinear and DequantizeLinear around every operator; what no operator knows is looked up in "
                    "a table."
                )
            case "matmulnbits":
                return self.tr("ONNX Runtime with MatMulNBits"), self.tr(
                    "Weights of 2, 4 and 8 bits in groups become MatMulNBits, which reads them packed; all else as for "
                    "every runtime."
                )
            case "tensorrt":
                return self.tr("TensorRT"), self.tr(
                    "Zero points 0 and quantizers in front of operators only, as NVIDIA TensorRT wants them."
                )
