"""The training tab: settings, loss and quality as they come, what has been reached, and whether it is kept."""

from __future__ import annotations

from enum import Enum, auto

from PySide6.QtCore import Qt, Signal
from PySide6.QtGui import QResizeEvent
from PySide6.QtWidgets import (
    QHBoxLayout,
    QLabel,
    QProgressBar,
    QPushButton,
    QSplitter,
    QVBoxLayout,
    QWidget,
)

from quantgui.gui.numbers import count
from quantgui.gui.panels.training_cards import LossCard, QualityCard
from quantgui.gui.panels.training_controls import TrainingControls
from quantgui.gui.training_words import Standing, standing_words
from quantgui.gui.widgets.card import Pages
from quantgui.gui.widgets.labels import set_style
from quantgui.gui.widgets.state_page import StatePage
from quantgui.results import TrainingReady
from quantgui.spec.training import Training

_NOTES_SHOWN = 3
_SHARES = (10, 13)
"""Of the width, for loss and quality: the latter has a legend."""
_LEAST_WORDS = 120
_LOW = 330
"""Below this height notes are left out: the plots need the room, and the state in words has them as tooltip."""
_BAR_STEPS = 1000


class _Action(Enum):
    """What the button of the state page, or that beside the state, does."""

    NOTHING = auto()
    DATA = auto()
    STOP = auto()
    START = auto()
    RESUME = auto()
    BLOCKS = auto()


class TrainingPanel(QWidget):
    """The training tab.

    Signals:
        start_requested: the user wants the present configuration to be trained; a `Training`.
        pause_requested: the user wants the engine to stop.
        resume_requested: the user wants the training that has stopped to go on.
        discard_requested: the user gives up the training that has stopped.
        keep_requested: the user wants what is best so far to be the configuration, and training to stop.
        data_requested: the user wants to open data.
        settings_changed: the settings ask something else.
    """

    start_requested = Signal(object)
    pause_requested = Signal()
    resume_requested = Signal()
    keep_requested = Signal()
    discard_requested = Signal()
    data_requested = Signal()
    settings_changed = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("training")
        self.setAccessibleName(self.tr("Training"))
        self._training: TrainingReady | None = None
        self._standing = Standing("ended")
        self._side = self._main = _Action.NOTHING
        self._reason = ""
        self.controls = TrainingControls()
        self.state = StatePage(framed=True)
        self.loss, self.quality = LossCard(), QualityCard()
        self._build()
        self.controls.changed.connect(self._on_settings_changed)
        self.controls.start_requested.connect(self.start)
        self.controls.pause_requested.connect(self.pause_requested)
        self.controls.resume_requested.connect(self.resume_requested)
        self.side.clicked.connect(self._on_side)
        self.keep.clicked.connect(self.keep_requested)
        self.discard.clicked.connect(self.discard_requested)
        self.state.action_triggered.connect(self._on_main)
        self.show_no_network()

    # --- states --------------------------------------------------------------------------------------------------

    def show_no_network(self) -> None:
        """Show that there is nothing to train without a network."""
        self._show_state(
            "graduation-cap",
            self.tr("No network open"),
            self.tr("Open a network, then data, and quantize it; training then mends what quantization has broken."),
            reason=self.tr("Open a network first."),
        )

    def show_needs_data(self) -> None:
        """Show that training needs samples."""
        self._show_state(
            "database",
            self.tr("Training needs data"),
            self.tr("It learns from samples of the network's inputs; labels are not needed."),
            reason=self.tr("Open data first: training learns from it."),
            action=self.tr("Open data…"),
            does=_Action.DATA,
        )

    def show_nothing_quantized(self) -> None:
        """Show that a float network has nothing to be trained for."""
        sentence = self.tr(
            "Every layer is float. Choose a preset in the toolbar, or give some layers fewer bits first."
        )
        self._show_state("graduation-cap", self.tr("Nothing is quantized"), sentence, reason=sentence)

    def show_not_trained(self) -> None:
        """Offer to train."""
        self._show_state(
            "graduation-cap",
            self.tr("Let the network adapt to its formats"),
            self.tr(
                "Weights and scales are trained in small steps until the quantized network does again what the float "
                "one did. That takes minutes; the configuration changes only when you keep what was found, and Undo "
                "brings the float weights back."
            ),
        )

    def show_preparing(self, label: str, done: int, total: int) -> None:
        """Show that training has been asked for and nothing is known of it yet."""
        self._show_state(
            "graduation-cap",
            self.tr("Preparing to train"),
            label or self.tr("Waiting for other work."),
            action=self.tr("Stop"),
            does=_Action.STOP,
            running=True,
        )
        self.state.show_busy(
            "graduation-cap", self.state.heading(), self.state.sentence(), done, total, action=self.tr("Stop")
        )

    def show_stopped(self, *, changed: bool) -> None:
        """Show that training was stopped before anything was known of it."""
        self._show_state(
            "graduation-cap",
            self.tr("Training has been stopped"),
            self.tr("Nothing of it is known yet; it goes on where it has stopped."),
            resumes=not changed,
            action=self.tr("Resume"),
            does=_Action.RESUME,
        )

    def show_interrupted(self) -> None:
        """Show that the engine has ended under a training of which nothing was known yet."""
        self._show_state(
            "triangle-alert",
            self.tr("The engine ended while training"),
            self.tr("It can go on from its last checkpoint, or begin anew where there is none yet."),
            action=self.tr("Resume"),
            does=_Action.RESUME,
            token="warning",
        )

    def show_failure(self, sentence: str, training: Training | None) -> None:
        """Show why `training` was not possible; training block by block is offered where that may be."""
        blocks = training is not None and training.scope == "network"
        self._show_state(
            "circle-alert",
            self.tr("The network could not be trained"),
            sentence,
            action=self.tr("Train block by block instead") if blocks else self.tr("Try again"),
            does=_Action.BLOCKS if blocks else _Action.START,
            token="bad",
        )

    def show_data(self, *, samples: int, has_labels: bool) -> None:
        """Show how many samples there are to train on, 0 without data, and whether they have labels."""
        self.controls.show_data(samples=samples, has_labels=has_labels)

    def show_training(self, training: TrainingReady, standing: Standing) -> None:
        """Show a training as far as it has come, and how it stands to the present configuration."""
        new = training is not self._training
        self._training, self._standing = training, standing
        if new:
            last = float(max(training.steps, *(step for step, _ in training.evaluations), 0))
            self.loss.show_training(training, last)
            self.quality.show_training(training, last)
            self._show_notes(training.notes)
        self._show_standing()
        self._pages.show_page(self._content)

    def training(self) -> TrainingReady | None:
        """Return what is shown."""
        return self._training

    # --- what is asked -------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Ask for a training as the settings say, if one is possible."""
        if not self._reason:
            self.start_requested.emit(self.controls.asked())

    def state_text(self) -> str:
        """Return the words for how training stands."""
        return self._words.text()

    # --- parts ---------------------------------------------------------------------------------------------------

    def _build(self) -> None:
        self._words = QLabel()
        self._words.setProperty("role", "note")
        self._words.setWordWrap(True)
        self._words.setMinimumWidth(_LEAST_WORDS)
        self.side, self.keep = QPushButton(self.tr("Resume")), QPushButton(self.tr("Keep trained weights"))
        self.discard = QPushButton(self.tr("Discard"))
        for button in (self.side, self.keep, self.discard):
            button.setAccessibleName(button.text())
            button.setToolTip(button.text())
            button.hide()
        self.discard.setAccessibleName(self.tr("Discard the training"))
        self.discard.setToolTip(self.tr("Delete the checkpoint of this training, so that it cannot go on any more."))
        self.bar = QProgressBar()
        self.bar.setTextVisible(False)
        self.bar.setRange(0, _BAR_STEPS)
        self.bar.setAccessibleName(self.tr("Steps done"))
        self.notes = QLabel()
        self.notes.setProperty("role", "note")
        self.notes.setWordWrap(True)
        self.notes.setContentsMargins(3, 0, 3, 0)
        self.notes.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.notes.hide()
        line = QHBoxLayout()
        line.setContentsMargins(3, 0, 0, 0)
        line.setSpacing(8)
        line.addWidget(self._words, 1)
        line.addWidget(self.side)
        line.addWidget(self.discard)
        line.addWidget(self.keep)
        self._splitter = QSplitter(Qt.Orientation.Horizontal)
        self._splitter.setChildrenCollapsible(False)
        self._splitter.addWidget(self.loss)
        self._splitter.addWidget(self.quality)
        for place, share in enumerate(_SHARES):
            self._splitter.setStretchFactor(place, share)
        self._splitter.setSizes([100 * share for share in _SHARES])
        self._content = QWidget()
        inner = QVBoxLayout(self._content)
        inner.setContentsMargins(0, 0, 0, 0)
        inner.setSpacing(6)
        inner.addLayout(line)
        inner.addWidget(self.bar)
        inner.addWidget(self._splitter, 1)
        inner.addWidget(self.notes)
        self._pages = Pages(self._content, self.state)
        outer = QVBoxLayout(self)
        outer.setContentsMargins(0, 4, 0, 0)
        outer.setSpacing(6)
        outer.addWidget(self.controls)
        outer.addWidget(self._pages, 1)

    # --- inner workings ------------------------------------------------------------------------------------------

    def _show_state(
        self,
        icon: str,
        heading: str,
        sentence: str,
        *,
        reason: str = "",
        action: str = "",
        does: _Action = _Action.NOTHING,
        token: str = "muted",
        running: bool = False,
        resumes: bool = False,
    ) -> None:
        self._training, self._reason = None, reason
        self.state.show_state(icon, heading, sentence, action=action, token=token)
        self._main = does
        self.controls.show_state(running=running, resumes=resumes, reason=reason, primary=not running)
        self._pages.show_page(self.state)

    def _on_main(self) -> None:
        self._do(self._main)

    def _on_side(self) -> None:
        self._do(self._side)

    def _do(self, action: _Action) -> None:
        match action:
            case _Action.DATA:
                self.data_requested.emit()
            case _Action.STOP:
                self.pause_requested.emit()
            case _Action.START:
                self.start()
            case _Action.RESUME:
                self.resume_requested.emit()
            case _Action.BLOCKS:
                self.controls.choose_scope("blocks")
                self.start()
            case _Action.NOTHING:
                pass

    def _on_settings_changed(self) -> None:
        if self._training is not None:
            self._show_standing()
        self.settings_changed.emit()

    # --- how it stands -------------------------------------------------------------------------------------------

    def _show_standing(self) -> None:
        training, standing = self._training, self._standing
        if training is None:
            return
        resumable = standing.phase in ("paused", "interrupted", "failed") and not training.complete
        same = not standing.changed and not standing.in_use and self.controls.asked() == training.training
        keeps = training.trained is not None and not standing.in_use
        self._reason = standing.reason
        if standing.phase == "ended" and same and not self._reason:
            self._reason = self.tr("This training has ended. Change a setting to train otherwise.")
        self.controls.show_state(
            running=standing.is_active,
            resumes=resumable and same and not standing.left,
            reason=self._reason,
            primary=not standing.is_active and not (keeps and training.complete),
        )
        words, tone = standing_words(training, standing)
        self._words.setText(words)
        set_style(self._words, "tone", tone)
        self._show_side(training, standing, resumes=resumable and (standing.left or not same))
        self.discard.setVisible(standing.left)
        self.keep.setVisible(keeps)
        text = self.tr("Stop and keep best") if standing.is_active else self.tr("Keep trained weights")
        self.keep.setText(text)
        self.keep.setAccessibleName(text)
        self.keep.setToolTip(
            self.tr(
                "Make the weights of the best evaluation, after step {n}, the configuration; one step of Undo."
            ).format(n=count(training.best or 0))
        )
        set_style(self.keep, "primary", "true" if keeps and (training.complete or standing.is_active) else "false")
        self._show_progress(training, standing)

    def _show_side(self, training: TrainingReady, standing: Standing, *, resumes: bool) -> None:
        """Offer what the settings' button does not."""
        self._side, text, tip = _Action.NOTHING, "", ""
        if standing.phase == "failed" and training.training.scope == "network":
            self._side, text = _Action.BLOCKS, self.tr("Train block by block instead")
            tip = self.tr("One piece of the network after the other, from the present configuration.")
        elif resumes:
            text = self.tr("Continue") if standing.left else self.tr("Resume at step {n}")
            self._side, text = _Action.RESUME, text.format(n=count(training.steps))
            tip = self.tr("Go on with this training, from the configuration and with the settings that it began with.")
        elif standing.is_active and standing.changed:
            self._side, text = _Action.START, self.tr("Train the present one")
            tip = self.tr("Stop this training and train again, from the present configuration.")
        self.side.setVisible(bool(text))
        self.side.setText(text)
        self.side.setAccessibleName(text)
        self.side.setToolTip(tip)
        self.side.setEnabled(not standing.reason or self._side is _Action.RESUME)

    def _show_progress(self, training: TrainingReady, standing: Standing) -> None:
        share = min(training.steps / max(training.training.steps, 1), 1.0)
        # A bar paints itself, and what waits to be painted with it, at once.
        self.bar.setUpdatesEnabled(False)
        self.bar.setValue(round(_BAR_STEPS * share))
        self.bar.setVisible(standing.is_active or not training.complete)
        self.bar.setUpdatesEnabled(True)
        self.loss.show_left(shown=standing.is_active)

    def _show_notes(self, notes: tuple[str, ...]) -> None:
        """Show the first notes; the tooltip has all, for the plots need the room more."""
        shown = list(notes[:_NOTES_SHOWN])
        if len(notes) > _NOTES_SHOWN:
            shown.append(self.tr("… and {n} more").format(n=len(notes) - _NOTES_SHOWN))
        self.notes.setText("\n".join(shown))
        self.notes.setAccessibleName(self.tr("Notes on the training"))
        self.notes.setToolTip("\n".join(notes))
        self._words.setToolTip("\n".join(notes))
        self._fit_notes()

    def _fit_notes(self) -> None:
        self.notes.setVisible(bool(self.notes.text()) and self.height() >= _LOW)

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        self._fit_notes()
