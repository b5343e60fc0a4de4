"""Files of other tools: writing the configuration as one, and looking at one before it is taken over."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from PySide6.QtCore import Qt, Signal
from PySide6.QtGui import QStandardItemModel
from PySide6.QtWidgets import (
    QComboBox,
    QDialog,
    QFormLayout,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QPushButton,
    QScrollArea,
    QVBoxLayout,
    QWidget,
)

from quantgui.gui.dialogs.files import FileChooser, ask_to_replace
from quantgui.gui.widgets.labels import set_style
from quantgui.gui.widgets.progress import ProgressRow
from quantgui.results import Progress, SettingsRead, SettingsWritten
from quantgui.spec.dialects import DIALECTS, DialectInfo


def _button(text: str, help_text: str, slot: object, *, primary: bool = False) -> QPushButton:
    button = QPushButton(text)
    button.setAccessibleName(text.rstrip("…"))
    button.setToolTip(help_text)
    button.setAutoDefault(False)
    button.setProperty("primary", "true" if primary else "false")
    button.clicked.connect(slot)
    return button


class WriteSettingsDialog(QDialog):
    """Choose a tool and a file, watch it being written, and see what the file could not hold.

    Attributes:
        may_replace: asks whether an existing file may be replaced; a test puts its own answer here.

    Signals:
        write_requested: path, name of the dialect.
        cancel_requested: stop writing.
    """

    write_requested = Signal(str, str)
    cancel_requested = Signal()

    def __init__(self, chooser: FileChooser, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setWindowTitle(self.tr("Export for other tools"))
        self.setMinimumWidth(520)
        self._chooser = chooser
        self._stem = Path()
        self._agreed = ""
        self._is_running = False
        self.may_replace: Callable[[Path], bool] = partial(ask_to_replace, self)
        self.dialect = QComboBox()
        self.dialect.setAccessibleName(self.tr("Tool"))
        self.dialect.setToolTip(self.tr("Whose file is to be written."))
        for info in DIALECTS:
            self.dialect.addItem(info.title, info)
        self.dialect.currentIndexChanged.connect(self._on_dialect)
        self.path = QLineEdit()
        self.path.setAccessibleName(self.tr("File to write"))
        self.path.setToolTip(self.tr("The file is replaced only when the new one is complete."))
        self.path.textChanged.connect(self._on_path)
        self.browse = _button(self.tr("Browse…"), self.tr("Choose the file to write."), self._on_browse)
        self.progress = ProgressRow(self.tr("Export for other tools"))
        # It has a button with a word on it, as the other export has.
        self.progress.stop.hide()
        self.stop = _button(
            self.tr("Stop"), self.tr("Stop writing; an existing file stays as it is."), self.cancel_requested.emit
        )
        self.status = QLabel()
        self.status.setWordWrap(True)
        self.status.setProperty("role", "note")
        self.status.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.write = _button(
            self.tr("Write"), self.tr("Write the configuration for the tool."), self._on_write, primary=True
        )
        close = _button(self.tr("Close"), self.tr("Close this dialog."), self.close)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(16, 14, 16, 14)
        layout.setSpacing(9)
        row = QHBoxLayout()
        row.addWidget(self.path, 1)
        row.addWidget(self.browse)
        form = QFormLayout()
        form.setSpacing(9)
        form.addRow(self.tr("&Tool"), self.dialect)
        label = QLabel(self.tr("&File"))
        label.setBuddy(self.path)
        form.addRow(label, row)
        layout.addLayout(form)
        layout.addWidget(self.progress)
        layout.addWidget(self.status)
        layout.addStretch(1)
        row = QHBoxLayout()
        row.addWidget(close)
        row.addStretch(1)
        row.addWidget(self.stop)
        row.addWidget(self.write)
        layout.addLayout(row)
        self.path.returnPressed.connect(self.write.click)
        self._show_running(running=False)

    def show_plan(self, stem: Path, *, has_data: bool, has_sensitivity: bool) -> None:
        """Offer the tools whose file can be written now; the others say what they need."""
        if self._is_running:
            return
        self._stem = stem
        items = self.dialect.model()
        assert isinstance(items, QStandardItemModel)
        for place, info in enumerate(DIALECTS):
            reason = ""
            if info.needs_sensitivity and not has_sensitivity:
                reason = self.tr("Measure sensitivity first: this file holds its table.")
            elif info.needs_ranges and not has_data:
                reason = self.tr("Without data it will hold no ranges of activations.")
            items.item(place).setEnabled(not (info.needs_sensitivity and reason))
            self.dialect.setItemData(place, reason, Qt.ItemDataRole.ToolTipRole)
        self._on_dialect()

    def show_written(self, written: SettingsWritten) -> None:
        """Show what has been written, and what the file could not hold."""
        words = self.tr("Written: {name}.").format(name=Path(written.path).name)
        self._show_running(running=False)
        self._say("\n".join([words, *written.notes]), "good" if not written.notes else "warning")
        self.adjustSize()

    def show_failure(self, sentence: str) -> None:
        """Show why nothing was written."""
        if self._is_running:
            self._show_running(running=False)
            self._say(sentence, "bad")
            self.path.setFocus()

    def show_progress(self, progress: Progress) -> None:
        """Show how far the writing that was asked for here is."""
        if self._is_running:
            self.progress.show_progress(progress.done, progress.total, progress.label)

    def show_stopped(self) -> None:
        """Show that the user has stopped the writing."""
        if self._is_running:
            self._show_running(running=False)
            self._say(self.tr("Stopped; nothing was written."), "muted")

    def _show_running(self, *, running: bool) -> None:
        self._is_running = running
        self.progress.setVisible(running)
        self.stop.setVisible(running)
        for widget in (self.dialect, self.path, self.browse):
            widget.setEnabled(not running)
        self._on_path()

    def _info(self) -> DialectInfo:
        info: DialectInfo = self.dialect.currentData()
        return info

    def _on_dialect(self) -> None:
        self.path.setText(f"{self._stem}.{self._info().name}{self._info().suffix}")
        self._say(str(self.dialect.currentData(Qt.ItemDataRole.ToolTipRole) or ""), "muted")

    def _on_path(self) -> None:
        possible = bool(self.path.text().strip()) and not self._is_running
        self.write.setEnabled(possible)

    def _on_browse(self) -> None:
        pattern = f"{self._info().title} (*{self._info().suffix})"
        if path := self._chooser.save_file(self, self.windowTitle(), self.path.text(), pattern):
            # The file dialog has asked whether this very file may be replaced.
            self._agreed = path
            self.path.setText(path if Path(path).suffix else f"{path}{self._info().suffix}")

    def _on_write(self) -> None:
        path = self.path.text().strip()
        if path != self._agreed and Path(path).is_file() and not self.may_replace(Path(path)):
            self.path.setFocus()
            return
        self._agreed = ""
        self._say("", "muted")
        self._show_running(running=True)
        self.progress.show_progress(0, 0, self.tr("Waiting for the engine …"))
        self.write_requested.emit(path, self._info().name)

    def _say(self, text: str, tone: str) -> None:
        self.status.setText(text)
        set_style(self.status, "tone", tone)


class ImportDialog(QDialog):
    """What another tool's file would change, before it is taken over.

    Signals:
        accepted_settings: the `SettingsRead` to be taken over.
    """

    accepted_settings = Signal(object)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setWindowTitle(self.tr("Import settings"))
        self.setMinimumSize(520, 260)
        self._settings: SettingsRead | None = None
        self.summary = QLabel()
        self.summary.setWordWrap(True)
        self.details = QLabel()
        self.details.setWordWrap(True)
        self.details.setProperty("role", "note")
        self.details.setAlignment(Qt.AlignmentFlag.AlignTop)
        area = QScrollArea()
        area.setWidgetResizable(True)
        area.setWidget(self.details)
        area.setAccessibleName(self.tr("Names and notes"))
        area.setToolTip(self.tr("Names that the network does not have, and what else is to be said of the file."))
        self.take = _button(
            self.tr("Take over"), self.tr("Make it the configuration, in one undo step."), self._on_take, primary=True
        )
        close = _button(self.tr("Cancel"), self.tr("Leave the configuration as it is."), self.close)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(16, 14, 16, 14)
        layout.addWidget(self.summary)
        layout.addWidget(area, 1)
        row = QHBoxLayout()
        row.addWidget(close)
        row.addStretch(1)
        row.addWidget(self.take)
        layout.addLayout(row)

    def show_settings(self, settings: SettingsRead, changed: int, total: int) -> None:
        """Show a file that would change `changed` of `total` layers."""
        self._settings = settings
        words = self.tr("{name} ({tool}) changes {n} of {all} layers.")
        self.summary.setText(words.format(name=Path(settings.path).name, tool=settings.dialect, n=changed, all=total))
        self.details.setText("\n".join([*settings.unknown, *settings.notes]) or self.tr("Every name fits."))
        self.take.setEnabled(changed > 0)
        self.take.setToolTip(
            self.tr("Make it the configuration, in one undo step.")
            if changed
            else self.tr("The configuration is what the file says already.")
        )

    def _on_take(self) -> None:
        if self._settings is not None:
            self.accepted_settings.emit(self._settings)
        self.close()
