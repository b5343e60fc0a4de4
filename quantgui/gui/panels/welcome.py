"""The welcome page: what there is before a network is open."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PySide6.QtCore import Qt, Signal
from PySide6.QtWidgets import (
    QFrame,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QScrollArea,
    QSizePolicy,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from quantgui.gui.icons import pixmap, set_icon
from quantgui.gui.theme import current, theme_events
from quantgui.gui.widgets.card import Card
from quantgui.gui.widgets.labels import ElidedLabel
from quantgui.session.recent import RecentFile
from quantgui.session.samples import Sample

RECENT_SHOWN = 6


class SampleCard(Card):
    """One sample network; the button opens it with its data.

    Signals:
        opened: the sample.
    """

    opened = Signal(object)

    def __init__(self, sample: Sample, parent: QWidget | None = None) -> None:
        super().__init__(sample.title, parent)
        text = QLabel(sample.description)
        text.setWordWrap(True)
        text.setProperty("role", "note")
        text.setAlignment(Qt.AlignmentFlag.AlignTop)
        text.setMinimumHeight(52)
        text.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.MinimumExpanding)
        self.button = QPushButton(" " + self.tr("Open sample"))
        self.button.setAccessibleName(self.tr("Open the sample {title}").format(title=sample.title))
        self.button.setToolTip(self.tr("Open this network with its data: one click to a picture."))
        set_icon(self.button, "flask-conical", "accent")
        self.body.setContentsMargins(3, 0, 3, 3)
        self.body.addWidget(text, 1)
        self.body.addWidget(self.button)
        self.button.clicked.connect(lambda: self.opened.emit(sample))


class RecentRow(QToolButton):
    """A network opened lately."""

    def __init__(self, entry: RecentFile, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        path = Path(entry.network)
        data = f"  ·  {Path(entry.data).name}" if entry.data else ""
        self.setText(f" {path.name}{data}")
        self.setToolTip(f"{entry.network}\n{entry.data}".strip())
        self.setAccessibleName(self.tr("Open again {name}").format(name=path.name))
        self.setProperty("flat", "true")
        self.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        self.setSizePolicy(QSizePolicy.Policy.Maximum, QSizePolicy.Policy.Fixed)
        set_icon(self, "history", "muted")


class WelcomePage(QWidget):
    """Samples, recent files, and a place to drop files on.

    Signals:
        open_requested: the user wants to choose a file.
        sample_chosen: a `Sample`.
        recent_chosen: a `RecentFile`.
    """

    open_requested = Signal()
    sample_chosen = Signal(object)
    recent_chosen = Signal(object)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setAccessibleName(self.tr("Welcome"))
        title = QLabel(self.tr("How many bits does your network need?"))
        title.setStyleSheet("font-size: 24px; font-weight: 700;")
        sentence = QLabel(
            self.tr(
                "Open a network, look at its weights, choose bits for each layer, see size and quality change at once, "
                "and export a file that measures the same."
            )
        )
        sentence.setWordWrap(True)
        sentence.setProperty("tone", "muted")
        self._drop_icon = QLabel()
        drop_text = QLabel(self.tr("Drop a network here (.onnx, .pt2), alone or together with its data"))
        drop_text.setProperty("tone", "muted")
        self.open_button = QPushButton(self.tr("Open network…"))
        self.open_button.setProperty("primary", "true")
        self.open_button.setAccessibleName(self.tr("Open network"))
        self.open_button.setToolTip(self.tr("Choose an .onnx or .pt2 file (Ctrl+O)."))
        self.open_button.clicked.connect(self.open_requested)
        self.drop = QFrame()
        self.drop.setObjectName("drop")
        drop = QHBoxLayout(self.drop)
        drop.setContentsMargins(20, 20, 20, 20)
        drop.setSpacing(12)
        drop.addWidget(self._drop_icon)
        drop.addWidget(drop_text, 1)
        drop.addWidget(self.open_button)
        self._busy = ElidedLabel()
        self._busy.setProperty("tone", "accent")
        self._busy.hide()
        self._samples_title = self._heading(self.tr("Samples"))
        self._samples = QHBoxLayout()
        self._samples.setSpacing(8)
        self._recent_title = self._heading(self.tr("Recent"))
        self._recent = QVBoxLayout()
        self._recent.setSpacing(1)
        content = QWidget()
        content.setMaximumWidth(860)
        column = QVBoxLayout(content)
        column.setContentsMargins(24, 24, 24, 24)
        column.setSpacing(10)
        column.addStretch(2)
        column.addWidget(title)
        column.addWidget(sentence)
        column.addSpacing(8)
        column.addWidget(self.drop)
        column.addWidget(self._busy)
        column.addSpacing(6)
        column.addWidget(self._samples_title)
        column.addLayout(self._samples)
        column.addSpacing(6)
        column.addWidget(self._recent_title)
        column.addLayout(self._recent)
        column.addStretch(3)
        holder = QWidget()
        row = QHBoxLayout(holder)
        row.setContentsMargins(0, 0, 0, 0)
        row.addStretch(1)
        row.addWidget(content, 20)
        row.addStretch(1)
        area = QScrollArea()
        area.setWidgetResizable(True)
        area.setFrameShape(QFrame.Shape.NoFrame)
        area.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        area.setWidget(holder)
        outer = QVBoxLayout(self)
        outer.setContentsMargins(0, 0, 0, 0)
        outer.addWidget(area)
        theme_events().changed.connect(self._paint_anew)
        self._paint_anew(None)
        self.show_samples(())
        self.show_recent(())

    def show_samples(self, samples: Sequence[Sample]) -> None:
        """Show the sample networks."""
        _clear(self._samples)
        self._samples_title.setVisible(bool(samples))
        for sample in samples:
            card = SampleCard(sample)
            card.opened.connect(self.sample_chosen)
            self._samples.addWidget(card, 1)

    def show_recent(self, entries: Sequence[RecentFile]) -> None:
        """Show the networks opened lately."""
        _clear(self._recent)
        self._recent_title.setVisible(bool(entries))
        for entry in entries[:RECENT_SHOWN]:
            row = RecentRow(entry)
            row.clicked.connect(lambda _=False, chosen=entry: self.recent_chosen.emit(chosen))
            self._recent.addWidget(row)

    def show_busy(self, sentence: str) -> None:
        """Show that a network is being opened; empty when it is not."""
        self._busy.setText(sentence)
        self._busy.setVisible(bool(sentence))

    def show_drag(self, *, over: bool) -> None:
        """Show that files are held over the window."""
        self.drop.setProperty("over", over)
        self._paint_anew(None)

    def _heading(self, text: str) -> QLabel:
        label = QLabel(text)
        label.setProperty("role", "title")
        return label

    def _paint_anew(self, _: object) -> None:
        tokens = current()
        self._drop_icon.setPixmap(pixmap("download", 24, tokens.accent, self.devicePixelRatioF()))
        over = bool(self.drop.property("over"))
        edge, ground = (tokens.accent, tokens.mixed("accent", "window", 0.12)) if over else (tokens.border, tokens.base)
        self.drop.setStyleSheet(f"#drop {{ border: 1.5px dashed {edge}; border-radius: 9px; background: {ground}; }}")


def _clear(layout: QHBoxLayout | QVBoxLayout) -> None:
    while (item := layout.takeAt(0)) is not None:
        widget = item.widget()
        if widget is not None:
            widget.hide()
            widget.deleteLater()
