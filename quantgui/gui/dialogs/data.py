"""Opening data: what the network takes, where the samples come from, how pictures are read, what quality means."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PySide6.QtCore import Signal
from PySide6.QtWidgets import (
    QButtonGroup,
    QDialog,
    QGroupBox,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QPushButton,
    QRadioButton,
    QSpinBox,
    QVBoxLayout,
    QWidget,
)

from quantgui.gui.dialogs.files import FileChooser
from quantgui.gui.dialogs.image_options import ImageOptionsForm
from quantgui.gui.widgets.spin import indented
from quantgui.results import DataSummary, TensorInfo

RANDOM_SAMPLES = 32
PATTERN = "Data (*.npz *.npy);;All files (*)"


class DataDialog(QDialog):
    """Choose data and metric; stays open to show what was found.

    Signals:
        data_chosen: source, `ImageOptions` or None to have them guessed, and the source of the data for ranges,
            empty where it is the same.
        metric_chosen: ``FILE.py:function``, or empty for the automatic metric.
    """

    data_chosen = Signal(str, object, str)
    metric_chosen = Signal(str)

    def __init__(self, chooser: FileChooser, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setWindowTitle(self.tr("Data and metric"))
        self.setMinimumWidth(560)
        self._chooser = chooser
        self._inputs = self._note("")
        self._make_source()
        self._make_calibration()
        self.open_button = self._button(
            self.tr("Open data"), self.tr("Read the data and measure quality with it."), self._on_open
        )
        self.open_button.setProperty("primary", "true")
        self.status = self._note("")
        self.images = ImageOptionsForm()
        self.apply_images = self._button(
            self.tr("Read the pictures this way"),
            self.tr("Open the folder again with these settings."),
            self._on_images,
        )
        self._image_box = QGroupBox(self.tr("Pictures (guessed from the network's input: please check)"))
        self._make_metric()
        # Two questions: left to themselves, all four buttons of the dialog would exclude each other.
        for pair in ((self.from_file, self.from_random), (self._metric_automatic, self._metric_own)):
            group = QButtonGroup(self)
            for radio in pair:
                group.addButton(radio)
        self.close_button = self._button(self.tr("Close"), self.tr("Close this dialog."), self.close)
        self._lay_out()
        self._on_kind()

    def _make_source(self) -> None:
        self.from_file = QRadioButton(self.tr("File or folder of images"))
        self.from_random = QRadioButton(self.tr("Random numbers"))
        self.from_file.setChecked(True)
        for radio in (self.from_file, self.from_random):
            radio.setAccessibleName(radio.text())
            radio.toggled.connect(self._on_kind)
        self.from_file.setToolTip(self.tr(".npz, .npy, or a folder of pictures the network really meets."))
        self.from_random.setToolTip(self.tr("For a first look only: ranges and quality on noise mislead."))
        self.path = QLineEdit()
        self.path.setPlaceholderText(self.tr(".npz, .npy, or a folder of images"))
        self.path.setAccessibleName(self.tr("Data file or folder"))
        self.path.setToolTip(self.tr("Path of the data; labels in an .npz make accuracy measurable."))
        self.path.textChanged.connect(self._on_kind)
        # What is said of the open data is not true of what is being typed.
        self.path.textEdited.connect(lambda: self._say("", "muted"))
        self.path.returnPressed.connect(self._on_open)
        self.file_button = self._button(self.tr("File…"), self.tr("Choose an .npz or .npy file."), self._on_file)
        self.folder_button = self._button(self.tr("Folder…"), self.tr("Choose a folder of images."), self._on_folder)
        self.samples = indented(QSpinBox())
        self.samples.setRange(1, 100_000)
        self.samples.setValue(RANDOM_SAMPLES)
        self.samples.setSuffix(self.tr(" samples"))
        self.samples.setAccessibleName(self.tr("Number of random samples"))
        self.samples.setToolTip(self.tr("How many samples of random numbers are made."))

    def _make_metric(self) -> None:
        self._metric_automatic = QRadioButton(
            self.tr("Automatic: accuracy with labels, else closeness to the float network")
        )
        self._metric_own = QRadioButton(self.tr("My own Python function"))
        self._metric_automatic.setChecked(True)
        for radio in (self._metric_automatic, self._metric_own):
            radio.setAccessibleName(radio.text())
            radio.toggled.connect(self._on_kind)
        self._metric_automatic.setToolTip(self.tr("What can be measured best is shown."))
        self._metric_own.setToolTip(
            self.tr("metric(outputs, labels) -> one score per sample. The file is run: use your own only.")
        )
        self.metric_line = QLineEdit()
        self.metric_line.setPlaceholderText(self.tr("FILE.py:function"))
        self.metric_line.setAccessibleName(self.tr("Metric function"))
        self.metric_line.setToolTip(self.tr("Path of a Python file, a colon, and the name of a function in it."))
        self.metric_line.returnPressed.connect(self._on_metric)
        self.metric_button = self._button(self.tr("File…"), self.tr("Choose a Python file."), self._on_metric_file)
        self.metric_apply = self._button(
            self.tr("Use this metric"), self.tr("Measure quality with it from now on."), self._on_metric
        )

    def _make_calibration(self) -> None:
        self.calibration = QLineEdit()
        self.calibration.setPlaceholderText(self.tr("the same data"))
        self.calibration.setAccessibleName(self.tr("Data for calibration"))
        self.calibration.setToolTip(
            self.tr(
                "The ranges of activations are taken from this data, and quality is measured on the other: so no "
                "sample is judged by ranges it has set itself. A file or folder like the one above; empty takes the "
                "same data for both."
            )
        )
        self.calibration.textEdited.connect(lambda: self._say("", "muted"))
        self.calibration.returnPressed.connect(self._on_open)
        self._calibration_label = QLabel(self.tr("&Ranges from"))
        self._calibration_label.setToolTip(self.calibration.toolTip())
        self._calibration_label.setBuddy(self.calibration)
        self.calibration_file = self._button(
            self.tr("File…"), self.tr("Choose an .npz or .npy file to take ranges from."), self._on_calibration_file
        )
        self.calibration_folder = self._button(
            self.tr("Folder…"), self.tr("Choose a folder of images to take ranges from."), self._on_calibration_folder
        )
        self.calibration_file.setAccessibleName(self.tr("File for calibration"))
        self.calibration_folder.setAccessibleName(self.tr("Folder for calibration"))

    # --- in ------------------------------------------------------------------------------------------------------

    def show_network(self, inputs: Sequence[TensorInfo]) -> None:
        """Show what the network takes."""
        self._inputs.setText("\n".join(str(tensor) for tensor in inputs))

    def show_data(self, summary: DataSummary | None) -> None:
        """Show what has been opened."""
        self._image_box.setVisible(summary is not None and summary.image_options is not None)
        if summary is None:
            self._say("", "muted")
            self.calibration.clear()
            self.path.setFocus()
        else:
            labels = self.tr("with labels") if summary.has_labels else self.tr("without labels")
            lines = [self.tr("{n} samples, {labels}.").format(n=summary.samples, labels=labels), *summary.notes]
            if not summary.trustworthy:
                lines.append(self.tr("Random numbers: neither ranges nor quality can be trusted."))
            self._say("\n".join(lines), "good" if summary.trustworthy else "warning")
            if summary.source.startswith("random:"):
                self.from_random.setChecked(True)
            else:
                self.path.setText(summary.source)
            self.calibration.setText(summary.calibration)
            if summary.image_options is not None:
                self.images.show_options(summary.image_options)
        self.adjustSize()

    def show_metric(self, function: str) -> None:
        """Show the metric in use."""
        (self._metric_own if function else self._metric_automatic).setChecked(True)
        self.metric_line.setText(function)

    def show_busy(self) -> None:
        """Show that the data is being read."""
        self._say(self.tr("Reading …"), "muted")

    def show_failure(self, sentence: str) -> None:
        """Show why the data could not be opened."""
        self._say(sentence, "bad")
        self.adjustSize()

    # --- parts ---------------------------------------------------------------------------------------------------

    def _note(self, text: str) -> QLabel:
        label = QLabel(text)
        label.setWordWrap(True)
        label.setProperty("role", "note")
        return label

    def _button(self, text: str, help_text: str, slot: object) -> QPushButton:
        button = QPushButton(text)
        button.setAccessibleName(text.rstrip("…"))
        button.setToolTip(help_text)
        button.setAutoDefault(False)
        button.clicked.connect(slot)
        return button

    def _lay_out(self) -> None:
        layout = QVBoxLayout(self)
        layout.setContentsMargins(16, 14, 16, 14)
        layout.setSpacing(8)
        takes = QLabel(self.tr("The network takes"))
        takes.setProperty("role", "title")
        layout.addWidget(takes)
        layout.addWidget(self._inputs)
        layout.addSpacing(4)
        layout.addWidget(self.from_file)
        layout.addLayout(_indented(self.path, self.file_button, self.folder_button))
        layout.addWidget(self.from_random)
        row = _indented(self.samples)
        row.addStretch(1)
        layout.addLayout(row)
        row = QHBoxLayout()
        row.setSpacing(6)
        row.addWidget(self._calibration_label)
        row.addWidget(self.calibration, 1)
        row.addWidget(self.calibration_file)
        row.addWidget(self.calibration_folder)
        layout.addLayout(row)
        row = QHBoxLayout()
        row.addStretch(1)
        row.addWidget(self.open_button)
        layout.addLayout(row)
        layout.addWidget(self.status)
        inner = QVBoxLayout(self._image_box)
        inner.addWidget(self.images)
        row = QHBoxLayout()
        row.addStretch(1)
        row.addWidget(self.apply_images)
        inner.addLayout(row)
        layout.addWidget(self._image_box)
        self._image_box.hide()
        layout.addSpacing(6)
        quality = QLabel(self.tr("Quality is"))
        quality.setProperty("role", "title")
        layout.addWidget(quality)
        layout.addWidget(self._metric_automatic)
        layout.addWidget(self._metric_own)
        layout.addLayout(_indented(self.metric_line, self.metric_button))
        row = QHBoxLayout()
        row.addWidget(self.close_button)
        row.addStretch(1)
        row.addWidget(self.metric_apply)
        layout.addLayout(row)

    def _say(self, text: str, tone: str) -> None:
        self.status.setText(text)
        self.status.setProperty("tone", tone)
        self.status.style().unpolish(self.status)
        self.status.style().polish(self.status)

    # --- slots ---------------------------------------------------------------------------------------------------

    def _on_kind(self) -> None:
        files = self.from_file.isChecked()
        for widget in (self.path, self.file_button, self.folder_button):
            widget.setEnabled(files)
        self.samples.setEnabled(not files)
        possible = not files or bool(self.path.text().strip())
        self.open_button.setEnabled(possible)
        self.open_button.setToolTip(
            self.tr("Read the data and measure quality with it.")
            if possible
            else self.tr("Choose a file or folder first.")
        )
        own = self._metric_own.isChecked()
        self.metric_line.setEnabled(own)
        self.metric_button.setEnabled(own)

    def _on_file(self) -> None:
        if path := self._chooser.open_file(self, self.tr("Open data"), PATTERN):
            self.path.setText(path)
            self._on_open()

    def _on_folder(self) -> None:
        if path := self._chooser.open_folder(self, self.tr("Open a folder of images")):
            self.path.setText(path)
            self._on_open()

    def _on_calibration_file(self) -> None:
        if path := self._chooser.open_file(self, self.tr("Open data for calibration"), PATTERN):
            self.calibration.setText(path)
            self.open_button.setFocus()

    def _on_calibration_folder(self) -> None:
        if path := self._chooser.open_folder(self, self.tr("Open a folder of images for calibration")):
            self.calibration.setText(path)
            self.open_button.setFocus()

    def _on_open(self) -> None:
        source = self.path.text().strip() if self.from_file.isChecked() else f"random:{self.samples.value()}"
        if source:
            self.show_busy()
            self.data_chosen.emit(source, None, self.calibration.text().strip())

    def _on_images(self) -> None:
        options = self.images.options()
        if options is None:
            self._say(
                self.tr("Mean and deviation must be one number, or one for each channel; no deviation may be 0."), "bad"
            )
            return
        self.show_busy()
        self.data_chosen.emit(self.path.text().strip(), options, self.calibration.text().strip())

    def _on_metric_file(self) -> None:
        if path := self._chooser.open_file(self, self.tr("Open a metric"), "Python (*.py)"):
            self.metric_line.setText(f"{path}:metric" if Path(path).suffix == ".py" else path)

    def _on_metric(self) -> None:
        if self.status.property("tone") == "bad":
            self._say("", "muted")
        self.metric_chosen.emit(self.metric_line.text().strip() if self._metric_own.isChecked() else "")


def _indented(*widgets: QWidget) -> QHBoxLayout:
    row = QHBoxLayout()
    row.setContentsMargins(22, 0, 0, 0)
    row.setSpacing(6)
    for widget in widgets:
        row.addWidget(widget)
    return row
