"""How pictures become the network's input: guessed by the engine, corrected by the user."""

from __future__ import annotations

from PySide6.QtWidgets import (
    QCheckBox,
    QComboBox,
    QDoubleSpinBox,
    QFormLayout,
    QHBoxLayout,
    QLineEdit,
    QSpinBox,
    QWidget,
)

from quantgui.gui.widgets.spin import indented
from quantgui.results import ImageOptions

LAYOUTS = ("NCHW", "NHWC")


class ImageOptionsForm(QWidget):
    """Fields for `ImageOptions`."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.height_box = self._count(self.tr("Height"), self.tr("Rows of pixels the pictures are resized to."))
        self.width_box = self._count(self.tr("Width"), self.tr("Columns of pixels the pictures are resized to."))
        self.layout_box = QComboBox()
        self.layout_box.addItems(LAYOUTS)
        self.layout_box.setAccessibleName(self.tr("Layout"))
        self.layout_box.setToolTip(self.tr("Order of the axes: N samples, C channels, H rows, W columns."))
        self.channels_box = QComboBox()
        self.channels_box.addItem(self.tr("1 (grey)"), 1)
        self.channels_box.addItem(self.tr("3 (colour)"), 3)
        self.channels_box.setAccessibleName(self.tr("Channels"))
        self.channels_box.setToolTip(self.tr("Colour planes of a picture."))
        self.bgr = QCheckBox(self.tr("BGR order"))
        self.bgr.setAccessibleName(self.tr("Blue, green, red order"))
        self.bgr.setToolTip(self.tr("Blue first, as OpenCV reads pictures."))
        self.scale = indented(QDoubleSpinBox())
        self.scale.setRange(0.0001, 65535.0)
        self.scale.setDecimals(4)
        self.scale.setAccessibleName(self.tr("Scale"))
        self.scale.setToolTip(self.tr("1 for networks that take 0 … 1, 255 for those that take 0 … 255."))
        self.mean = self._numbers(self.tr("Mean"), self.tr("Subtracted from each channel, after the scale."))
        self.std = self._numbers(self.tr("Standard deviation"), self.tr("Each channel is divided by it."))
        form = QFormLayout(self)
        form.setContentsMargins(0, 0, 0, 0)
        size = QWidget()
        row = QHBoxLayout(size)
        row.setContentsMargins(0, 0, 0, 0)
        for box in (self.height_box, self.width_box, self.layout_box):
            row.addWidget(box)
        colours = QWidget()
        row = QHBoxLayout(colours)
        row.setContentsMargins(0, 0, 0, 0)
        for widget in (self.channels_box, self.bgr):
            row.addWidget(widget)
        row.addStretch(1)
        form.addRow(self.tr("Height, width, layout"), size)
        form.addRow(self.tr("Channels"), colours)
        form.addRow(self.tr("Scale"), self.scale)
        form.addRow(self.tr("Mean"), self.mean)
        form.addRow(self.tr("Deviation"), self.std)

    def show_options(self, options: ImageOptions) -> None:
        """Fill the fields."""
        self.height_box.setValue(options.height)
        self.width_box.setValue(options.width)
        self.layout_box.setCurrentText(options.layout)
        self.channels_box.setCurrentIndex(max(self.channels_box.findData(options.channels), 0))
        self.bgr.setChecked(options.bgr)
        self.scale.setValue(options.scale)
        self.mean.setText(", ".join(f"{value:g}" for value in options.mean))
        self.std.setText(", ".join(f"{value:g}" for value in options.std))

    def options(self) -> ImageOptions | None:
        """Return what the fields say, None where mean or deviation are no numbers."""
        channels = int(self.channels_box.currentData())
        mean, std = _parse(self.mean.text(), channels), _parse(self.std.text(), channels)
        if mean is None or std is None or 0.0 in std:
            return None
        return ImageOptions(
            self.height_box.value(),
            self.width_box.value(),
            self.layout_box.currentText(),
            channels,
            self.bgr.isChecked(),
            self.scale.value(),
            mean,
            std,
        )

    def _count(self, name: str, help_text: str) -> QSpinBox:
        box = indented(QSpinBox())
        box.setRange(1, 16384)
        box.setAccessibleName(name)
        box.setToolTip(help_text)
        return box

    def _numbers(self, name: str, help_text: str) -> QLineEdit:
        line = QLineEdit()
        line.setAccessibleName(name)
        line.setToolTip(help_text + " " + self.tr("One number, or one for each channel."))
        return line


def _parse(text: str, channels: int) -> tuple[float, ...] | None:
    try:
        values = tuple(float(part) for part in text.replace(";", ",").split(",") if part.strip())
    except ValueError:
        return None
    if len(values) == 1:
        return values * channels
    return values if len(values) == channels else None
