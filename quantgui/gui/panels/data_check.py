"""The data as the network sees it, what is odd about it, and what the ranges of activations rest on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PySide6.QtCore import QPointF, QSize, Qt, Signal
from PySide6.QtGui import QColor, QIcon, QImage, QKeyEvent, QPainter, QPixmap, QPolygonF, QResizeEvent
from PySide6.QtWidgets import (
    QAbstractItemView,
    QHBoxLayout,
    QListView,
    QListWidget,
    QListWidgetItem,
    QPushButton,
    QSplitter,
    QVBoxLayout,
    QWidget,
)

from quantgui.gui.icons import icon
from quantgui.gui.numbers import count, percent, short
from quantgui.gui.panels.noise_sample import SampleView
from quantgui.gui.pictures import picture_of
from quantgui.gui.plots.growth import GrowthPlot
from quantgui.gui.quality import samples_text
from quantgui.gui.theme import current, theme_events
from quantgui.gui.widgets.card import Card, Pages
from quantgui.gui.widgets.labels import ElidedLabel
from quantgui.gui.widgets.progress import ProgressRow
from quantgui.gui.widgets.state_page import ContentOrState, StatePage
from quantgui.results import Array, DataReport, Finding, ImageOptions, LayerInfo, RangeGrowth, SampleReady

THUMBNAIL = 72
_LOOKS = {"error": ("circle-alert", "bad"), "warning": ("triangle-alert", "warning"), "hint": ("lightbulb", "accent")}
_FINDING = Qt.ItemDataRole.UserRole


class DataCheckPanel(QWidget):
    """The data tab.

    Signals:
        check_requested: the user wants the data to be checked again, with what is known of activations.
        stop_requested: the user wants that to stop.
        data_requested: the user wants to open data.
        layers_picked: names of the layers that a finding concerns.
        sample_picked: index of the sample that the user wants to see.
    """

    check_requested = Signal()
    stop_requested = Signal()
    data_requested = Signal()
    layers_picked = Signal(tuple)
    sample_picked = Signal(int)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("data_check")
        self.setAccessibleName(self.tr("Data"))
        self._report: DataReport | None = None
        self._layer: LayerInfo | None = None
        self._opened: int | None = None
        self.findings = QListWidget()
        self.thumbnails = QListWidget()
        self.plot = GrowthPlot(
            self.tr("Range against the number of samples"), self.tr("samples"), self.tr("share of the final range")
        )
        self.sample = SampleView()
        self.sample.culprits.hide()
        self.state = StatePage(framed=True)
        self._content = QWidget()
        self._pages = ContentOrState(self._content, self.state)
        self._make_findings()
        self._make_samples()
        self._make_growth()
        self._lay_out()
        self.findings.itemClicked.connect(self._on_finding)
        self.findings.itemActivated.connect(self._on_finding)
        self.thumbnails.itemClicked.connect(self._on_thumbnail)
        self.thumbnails.itemActivated.connect(self._on_thumbnail)
        self.highest.clicked.connect(self._on_highest)
        self.lowest.clicked.connect(self._on_lowest)
        self.again.clicked.connect(self.check_requested)
        self.progress.cancelled.connect(self.stop_requested)
        self.sample.closed.connect(self._on_sample_closed)
        self.sample.layer_picked.connect(lambda name: self.layers_picked.emit((name,)))
        theme_events().changed.connect(self._on_theme_changed)
        self.show_no_network()

    def _make_findings(self) -> None:
        self.progress = ProgressRow(self.tr("Checking the data"))
        self.progress.hide()
        self.again = QPushButton(self.tr("Check all"))
        self.again.setAccessibleName(self.again.text())
        self.again.setToolTip(
            self.tr("Check the data again, and the ranges of all activations under the present configuration")
        )
        self.findings_card = Card(self.tr("What the check found"))
        self.findings_card.header.addWidget(self.again)
        self.findings.setAccessibleName(self.tr("Findings"))
        self.findings.setToolTip(self.tr("Click or press Enter: selects the layer, or opens the sample."))
        self.findings.setWordWrap(True)
        self.findings.setTextElideMode(Qt.TextElideMode.ElideNone)
        self.findings.setResizeMode(QListView.ResizeMode.Adjust)
        self.findings.setVerticalScrollMode(QAbstractItemView.ScrollMode.ScrollPerPixel)
        self.findings.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.findings.setIconSize(QSize(16, 16))
        self.findings.setSpacing(2)
        self.findings.setMinimumHeight(64)
        self.findings_card.body.addWidget(self.findings, 1)

    def _make_samples(self) -> None:
        self.samples_card = Card(self.tr("First samples"))
        self._samples_words = ElidedLabel()
        self._samples_words.setProperty("role", "note")
        self._samples_words.setContentsMargins(3, 0, 0, 0)
        self.samples_card.body.addWidget(self._samples_words)
        self.thumbnails.setAccessibleName(self.tr("First samples as the network gets them"))
        self.thumbnails.setToolTip(self.tr("The first samples as the network gets them. Click one to see it in full."))
        self.thumbnails.setViewMode(QListView.ViewMode.IconMode)
        self.thumbnails.setMovement(QListView.Movement.Static)
        self.thumbnails.setResizeMode(QListView.ResizeMode.Adjust)
        self.thumbnails.setIconSize(QSize(THUMBNAIL, THUMBNAIL))
        self.thumbnails.setSpacing(3)
        self.thumbnails.setMinimumHeight(THUMBNAIL + 28)
        self.samples_card.body.addWidget(self.thumbnails, 1)

    def _make_growth(self) -> None:
        self.growth_card = Card(self.tr("Convergence of ranges"))
        self._growth_words = ElidedLabel()
        self._growth_words.setProperty("role", "note")
        self._growth_words.setContentsMargins(3, 0, 0, 0)
        self.growth_card.body.addWidget(self._growth_words)
        self.plot.setToolTip(
            self.tr(
                "Range of the activation after so many samples, as share of the range of all.\nDashed: the layer's "
                "other activation. Dotted: 99 % is reached."
            )
        )
        self.growth_card.body.addWidget(self.plot, 1)
        self.highest, self.lowest = QPushButton(), QPushButton()
        row = QHBoxLayout()
        row.setSpacing(6)
        for button in (self.highest, self.lowest):
            button.setToolTip(self.tr("See the sample that sets this end of the range"))
            row.addWidget(button)
        row.addStretch(1)
        self.growth_card.body.addLayout(row)

    def _lay_out(self) -> None:
        lower = QWidget()
        beside = QHBoxLayout(lower)
        beside.setContentsMargins(0, 0, 0, 0)
        beside.setSpacing(8)
        beside.addWidget(self.samples_card, 1)
        beside.addWidget(self.growth_card, 1)
        self._lower = Pages(lower, self.sample)
        self._cards = lower
        self._splitter = QSplitter(Qt.Orientation.Vertical)
        self._splitter.setChildrenCollapsible(False)
        self._splitter.addWidget(self.findings_card)
        self._splitter.addWidget(self._lower)
        for place in range(2):
            self._splitter.setStretchFactor(place, 1)
        self._splitter.setSizes([1000, 1050])
        inner = QVBoxLayout(self._content)
        inner.setContentsMargins(0, 0, 0, 0)
        inner.addWidget(self._splitter)
        outer = QVBoxLayout(self)
        outer.setContentsMargins(0, 0, 0, 0)
        outer.setSpacing(6)
        outer.addWidget(self.progress)
        outer.addWidget(self._pages, 1)

    # --- states ---

    def show_no_network(self) -> None:
        """Show that there is nothing to check without a network."""
        self._forget()
        self._pages.show_state(
            "database", self.tr("No network open"), self.tr("Open a network, then data, to see whether both fit.")
        )

    def show_needs_data(self) -> None:
        """Show that there is nothing to check without data."""
        self._forget()
        self._pages.show_state(
            "database",
            self.tr("No data open"),
            self.tr("Open samples to see them as the network does, and whether they are prepared as it needs them."),
            action=self.tr("Open data…"),
            does=self.data_requested.emit,
        )

    def show_not_checked(self) -> None:
        """Offer to check the data."""
        self.progress.hide()
        if self._report is None:
            self._pages.show_state(
                "database",
                self.tr("Does the data fit?"),
                self.tr("The check tries other preparations on a few samples and looks at what ranges rest on."),
                action=self.tr("Check the data"),
                does=self.check_requested.emit,
            )

    def show_checking(self, label: str, done: int, total: int, seconds_left: float | None) -> None:
        """Show how far the check is; an older report stays in sight."""
        if self._report is None:
            heading = self.tr("Checking the data")
            self.state.show_busy(
                "database", heading, label, done, total, action=self.tr("Stop"), does=self.stop_requested.emit
            )
            self._pages.show_page(self.state)
            return
        self.progress.start_anew(self.tr("Checking the data"))
        self.progress.show_progress(done, total, "", seconds_left)
        self.progress.show()

    def show_failure(self, sentence: str) -> None:
        """Show why the data could not be checked."""
        self._forget()
        self._pages.show_state(
            "circle-alert",
            self.tr("The data could not be checked"),
            sentence,
            action=self.tr("Try again"),
            does=self.check_requested.emit,
            token="bad",
        )

    def show_report(self, report: DataReport) -> None:
        """Show what the check found."""
        known = self._report
        self._report = report
        self.progress.hide()
        self._pages.show_page(self._content)
        self._fill_findings()
        if known is None or known.previews is not report.previews:
            self._fill_thumbnails(report.previews, report.image_options)
        self._show_growth()

    def show_layer(self, layer: LayerInfo | None) -> None:
        """Show how the ranges of a layer's activations converge."""
        self._layer = layer
        self._show_growth()

    def show_sample(self, sample: SampleReady) -> None:
        """Show the sample that was asked for."""
        self.sample.show_sample(sample)

    def show_sample_failure(self, sentence: str) -> None:
        """Show why a sample could not be run."""
        self.sample.show_failure(sentence)

    def report(self) -> DataReport | None:
        """Return what is shown."""
        return self._report

    # --- inner workings ---

    def _forget(self) -> None:
        self._report = None
        self.progress.hide()
        self._on_sample_closed()

    def _fill_findings(self) -> None:
        report = self._report
        if report is None:
            return
        place = self.findings.currentRow()
        self.findings.clear()
        words = {"error": self.tr("Error"), "warning": self.tr("Warning"), "hint": self.tr("Hint")}
        for finding in report.findings:
            name, token = _LOOKS[finding.severity]
            item = self._add_item(name, token, f"{finding.sentence}\n{finding.advice}".rstrip())
            item.setData(_FINDING, finding)
            item.setToolTip(_evidence(words[finding.severity], finding))
            item.setData(Qt.ItemDataRole.AccessibleTextRole, f"{words[finding.severity]}: {finding.sentence}")
        if not report.findings:
            kinds = len(report.checked)
            text = self.tr("Nothing suspicious: {n} kinds of mistake were looked for in {samples} samples.")
            self._add_item("circle-check", "good", text.format(n=kinds, samples=count(report.samples)))
        for sentence in report.unknown:
            self._add_item("circle-help", "muted", sentence)
        if report.setters:
            text = self.tr("{n} of {samples} samples set the ranges of all {tensors} activations.")
            self._add_item(
                "info",
                "muted",
                text.format(n=count(report.setters), samples=count(report.samples), tensors=count(len(report.growths))),
            )
        if not report.growths:
            self._add_item(
                "info", "muted", self.tr("Ranges of activations are checked after calibration, or by “Check all”.")
            )
        self.findings.setCurrentRow(min(place, self.findings.count() - 1))
        problems = sum(finding.severity != "hint" for finding in report.findings)
        samples = samples_text(report.samples)
        note = self.tr("{n} to look at · {samples}").format(n=problems, samples=samples) if problems else samples
        self.findings_card.set_note(note)

    def _add_item(self, name: str, token: str, text: str) -> QListWidgetItem:
        item = QListWidgetItem(icon(name, getattr(current(), token)), text)
        self.findings.addItem(item)
        return item

    def _fill_thumbnails(self, previews: Sequence[Array], options: ImageOptions | None) -> None:
        self.thumbnails.clear()
        for index, values in enumerate(previews):
            pixmap = thumbnail(values, options)
            item = QListWidgetItem(QIcon(pixmap), str(index))
            item.setData(Qt.ItemDataRole.AccessibleTextRole, self.tr("Sample {n}").format(n=index))
            self.thumbnails.addItem(item)
        assert self._report is not None
        if not previews:
            self._samples_words.setText(self.tr("The samples are too large to be shown here."))
            return
        shape = " × ".join(str(size) for size in previews[0].shape) or self.tr("one number")
        low, high = min(float(v.min()) for v in previews), max(float(v.max()) for v in previews)
        self._samples_words.setText(
            self.tr("{name}: {shape}, {low} … {high}").format(
                name=self._report.preview_input, shape=shape, low=short(low), high=short(high)
            )
        )

    def _show_growth(self) -> None:
        mine = self._growths()
        self.highest.setVisible(bool(mine))
        self.lowest.setVisible(bool(mine) and mine[0].minimum < 0)
        self.plot.setVisible(bool(mine))
        if not mine:
            known = self._report is not None and self._report.growths
            self._growth_words.setText(
                self.tr("Select a layer with activations.") if known else self.tr("Known after calibration.")
            )
            return
        assert self._report is not None
        growth = mine[0]
        self.plot.show_growths(growth, mine[1] if len(mine) > 1 else None)
        self._growth_words.setText(
            self.tr("99 % after {n} of {all}; last quarter +{late}").format(
                n=count(growth.enough),
                all=count(len(growth.shares)),
                late=percent(growth.late),
            )
        )
        self._growth_words.set_help(", ".join(growth.layers) or growth.tensor)
        for button, value, sample, words in (
            (self.highest, growth.maximum, growth.highest, self.tr("Maximum {value}: sample {n}")),
            (self.lowest, growth.minimum, growth.lowest, self.tr("Minimum {value}: sample {n}")),
        ):
            button.setText(words.format(value=short(value), n=sample))
            button.setAccessibleName(button.text())

    def _growths(self) -> list[RangeGrowth]:
        """Return those of the layer's output and input, or of the slowest activation where no layer is selected."""
        if self._report is None or not self._report.growths:
            return []
        growths = self._report.growths
        if self._layer is None:
            return [max(growths.values(), key=lambda growth: growth.enough)]
        names = (self._layer.output_tensor, self._layer.input_tensor)
        return [growths[name] for name in dict.fromkeys(names) if name in growths]

    # --- what the user does ---

    def _on_finding(self, item: QListWidgetItem) -> None:
        finding = item.data(_FINDING)
        if not isinstance(finding, Finding):
            return
        if finding.layers:
            self.layers_picked.emit(finding.layers[:1])
        if finding.samples and (not finding.layers or finding.kind == "outlier sample"):
            self.open_sample(finding.samples[0])

    def _on_thumbnail(self, item: QListWidgetItem) -> None:
        self.open_sample(self.thumbnails.row(item))

    def _on_highest(self) -> None:
        if mine := self._growths():
            self.open_sample(mine[0].highest)

    def _on_lowest(self) -> None:
        if mine := self._growths():
            self.open_sample(mine[0].lowest)

    def open_sample(self, index: int) -> None:
        """Show sample `index` as far as it is known: the rest comes with `show_sample`."""
        self.sample.show_culprits(index, ())
        self._lower.show_page(self.sample)
        self.sample_picked.emit(index)

    def _on_sample_closed(self) -> None:
        self.sample.index = None
        self._lower.show_page(self._cards)

    def keyPressEvent(self, event: QKeyEvent) -> None:
        if event.key() == Qt.Key.Key_Escape and self._lower.page() is self.sample:
            self._on_sample_closed()
            self.findings.setFocus()
        else:
            super().keyPressEvent(event)

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        # Where the items wrap depends on the width.
        self.findings.doItemsLayout()

    def _on_theme_changed(self, _tokens: object) -> None:
        self._fill_findings()
        if self._report is not None:
            self._fill_thumbnails(self._report.previews, self._report.image_options)


def alarming(report: DataReport) -> tuple[Finding, ...]:
    """Return the findings that a user should look at before going on."""
    return tuple(finding for finding in report.findings if finding.severity != "hint")


def _evidence(severity: str, finding: Finding) -> str:
    """Return the numbers behind a finding, one a line."""
    numbers = [f"{name}: {short(value)}" for name, value in list(finding.numbers.items())[:12]]
    return "\n".join([f"{severity} · {finding.kind}", *numbers])


def thumbnail(values: Array, options: ImageOptions | None) -> QPixmap:
    """Return a small picture of one sample: as a picture where it is one, else as a curve."""
    picture = picture_of(values, options)
    if picture is not None:
        height, width, _ = picture.pixels.shape
        image = QImage(picture.pixels.tobytes(), width, height, 3 * width, QImage.Format.Format_RGB888).copy()
        fast = max(width, height) * 2 <= THUMBNAIL
        keep = Qt.AspectRatioMode.KeepAspectRatio if picture.is_natural else Qt.AspectRatioMode.IgnoreAspectRatio
        how = Qt.TransformationMode.FastTransformation if fast else Qt.TransformationMode.SmoothTransformation
        return QPixmap.fromImage(image.scaled(2 * THUMBNAIL, 2 * THUMBNAIL, keep, how))
    return _curve(values)


def _curve(values: Array) -> QPixmap:
    side = 2 * THUMBNAIL
    pixmap = QPixmap(side, side)
    pixmap.fill(QColor(current().base))
    flat = np.nan_to_num(values.reshape(-1).astype(np.float64))
    flat = flat[:: max(len(flat) // 512, 1)]
    if len(flat) < 2:
        return pixmap
    low, high = float(flat.min()), float(flat.max())
    xs = np.linspace(4, side - 4, len(flat))
    ys = side - 6 - (flat - low) / ((high - low) or 1.0) * (side - 12)
    painter = QPainter(pixmap)
    painter.setRenderHint(QPainter.RenderHint.Antialiasing)
    painter.setPen(current().color("float_"))
    painter.drawPolyline(QPolygonF([QPointF(x, y) for x, y in zip(xs.tolist(), ys.tolist(), strict=True)]))
    painter.end()
    return pixmap
