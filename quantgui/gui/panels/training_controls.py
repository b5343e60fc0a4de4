"""How a network is to be trained: how long, how fast, by which teacher, all of it or piece by piece."""

from __future__ import annotations

from PySide6.QtCore import Signal
from PySide6.QtWidgets import (
    QCheckBox,
    QDoubleSpinBox,
    QHBoxLayout,
    QPushButton,
    QSpinBox,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from quantgui.gui.icons import set_icon
from quantgui.gui.widgets.labels import set_style
from quantgui.gui.widgets.segmented import Segment, SegmentedButtons
from quantgui.gui.widgets.spin import indented
from quantgui.spec.training import Teacher, Training, TrainingScope

DEFAULTS = Training()
_MOST_STEPS, _MOST_SAMPLES, _MOST_PATIENCE, _MOST_SEED = 1_000_000, 4096, 1000, 2**31 - 1
_DECIMALS = 6


class RateBox(QDoubleSpinBox):
    """A learning rate, without zeros at its end; a step is a tenth of its power of ten."""

    def __init__(self) -> None:
        super().__init__()
        self.setDecimals(_DECIMALS)
        self.setRange(10.0**-_DECIMALS, 1.0)
        self.setStepType(QDoubleSpinBox.StepType.AdaptiveDecimalStepType)

    def textFromValue(self, value: float) -> str:
        return self.locale().toString(value, "f", _DECIMALS).rstrip("0").rstrip(self.locale().decimalPoint())


class TrainingControls(QWidget):
    """Two rows of settings with the button that starts and pauses, and a fold for what is rarely changed.

    Signals:
        changed: the settings ask something else.
        start_requested: the user wants to begin.
        pause_requested: the user wants the engine to stop; it can go on from there.
        resume_requested: the user wants to go on.
    """

    changed = Signal()
    start_requested = Signal()
    pause_requested = Signal()
    resume_requested = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._act = self.start_requested
        self.button = QPushButton()
        self._make_numbers()
        self._make_choices()
        self._make_fold()
        self._lay_out()
        self._connect()
        self.show_data(samples=0, has_labels=False)
        self.show_state(running=False, resumes=False, reason="", primary=True)

    # --- in ------------------------------------------------------------------------------------------------------

    def show_data(self, *, samples: int, has_labels: bool) -> None:
        """Show how many samples there are to train on, 0 without data, and whether they have labels."""
        self.batch.setMaximum(min(samples, _MOST_SAMPLES) if samples else _MOST_SAMPLES)
        button = self.teacher.button("labels")
        button.setEnabled(has_labels)
        reason = "" if has_labels or not samples else self.tr("The open data has no labels.")
        button.setToolTip(f"{self._labels_help}\n{reason}".strip())
        if not has_labels:
            self.teacher.set_value("float")

    def show_state(self, *, running: bool, resumes: bool, reason: str, primary: bool) -> None:
        """Show what the button would do.

        Args:
            running: whether a training waits or runs.
            resumes: whether it would go on with one.
            reason: why none can be started; empty where it can.
            primary: whether it is the first thing to do here.
        """
        if running:
            self._act = self.pause_requested
            text, tip = self.tr("Pause"), self.tr("Stop training; it can go on from there, also after a restart.")
        elif resumes:
            self._act = self.resume_requested
            text, tip = self.tr("Resume"), self.tr("Go on where training has stopped.")
        else:
            self._act = self.start_requested
            text = self.tr("Start")
            tip = self.tr("Train weights and scales under the present configuration; nothing is changed until you say.")
        self.button.setText(text)
        self.button.setAccessibleName(self.tr("{action} training").format(action=text))
        self.button.setEnabled(running or not reason)
        self.button.setToolTip(tip if running or not reason else f"{tip}\n{reason}")
        set_style(self.button, "primary", "true" if primary else "false")
        for widget in (
            self.steps,
            self.batch,
            self.rate,
            self.scope,
            self.scales,
            self.patience,
            self.reach,
            self.seed,
        ):
            widget.setEnabled(not running)
        self.teacher.setEnabled(not running)

    def choose_scope(self, scope: TrainingScope) -> None:
        """Choose what is trained at once."""
        self.scope.set_value(scope)
        self.changed.emit()

    # --- what is asked -------------------------------------------------------------------------------------------

    def asked(self) -> Training:
        """Return what the settings ask."""
        teacher: Teacher = "labels" if self.teacher.value() == "labels" else "float"
        scope: TrainingScope = "blocks" if self.scope.value() == "blocks" else "network"
        return Training(
            steps=self.steps.value(),
            batch_size=self.batch.value(),
            learning_rate=round(self.rate.value(), _DECIMALS),
            learn_scales=self.scales.isChecked(),
            teacher=teacher,
            scope=scope,
            patience=self.patience.value(),
            seed=self.seed.value(),
            window=self.reach.value(),
        )

    # --- parts ---------------------------------------------------------------------------------------------------

    def _make_numbers(self) -> None:
        self.steps = _spin(1, _MOST_STEPS, DEFAULTS.steps, 100, self.tr(" steps"))
        self.steps.setAccessibleName(self.tr("Steps"))
        self.steps.setToolTip(self.tr("Steps of the optimizer; the best evaluation on the way counts, not the last."))
        self.batch = _spin(1, _MOST_SAMPLES, DEFAULTS.batch_size, 8, self.tr(" samples"))
        self.batch.setAccessibleName(self.tr("Samples per step"))
        self.batch.setToolTip(self.tr("Samples that one step sees; more are steadier and take longer."))
        self.rate = indented(RateBox())
        self.rate.setPrefix(self.tr("rate "))
        self.rate.setValue(DEFAULTS.learning_rate)
        self.rate.setKeyboardTracking(False)
        self.rate.setAccessibleName(self.tr("Learning rate"))
        self.rate.setToolTip(
            self.tr(
                "How far a step moves the weights, as part of the size of each layer's weights; it rises and falls on "
                "the way. A tenth of it where the loss jumps, several times it where nothing moves."
            )
        )

    def _make_choices(self) -> None:
        self._labels_help = self.tr("The labels of the data teach, by the usual loss of a classifier.")
        self.teacher = SegmentedButtons(
            self.tr("Teacher"),
            (
                Segment(
                    "float",
                    self.tr("Float network"),
                    self.tr(
                        "The float network teaches: the quantized one learns to give its outputs. No labels needed."
                    ),
                ),
                Segment("labels", self.tr("Labels"), self._labels_help),
            ),
        )
        self.teacher.set_value(DEFAULTS.teacher)
        self.scope = SegmentedButtons(
            self.tr("What is trained at once"),
            (
                Segment(
                    "network",
                    self.tr("Whole network"),
                    self.tr("All layers at once, by the network's outputs: the best result, and the most memory."),
                ),
                Segment(
                    "blocks",
                    self.tr("Block by block"),
                    self.tr(
                        "One piece after the other learns to give what the float network gives there. For networks "
                        "with operators that cannot be differentiated, for little data, and for little memory."
                    ),
                ),
            ),
        )
        self.scope.set_value(DEFAULTS.scope)

    def _make_fold(self) -> None:
        self.more = QToolButton()
        self.more.setCheckable(True)
        self.more.setProperty("flat", "true")
        self.more.setAccessibleName(self.tr("More settings"))
        self.more.setToolTip(
            self.tr("Show or hide the settings that are rarely changed: scales, early end, window, seed")
        )
        set_icon(self.more, "sliders-horizontal", "muted")
        self.scales = QCheckBox(self.tr("Learn scales"))
        self.scales.setChecked(DEFAULTS.learn_scales)
        self.scales.setAccessibleName(self.scales.text())
        self.scales.setToolTip(
            self.tr("Train the scales of weights and activations, too; else they stay as the ranges gave them.")
        )
        self.patience = _spin(0, _MOST_PATIENCE, DEFAULTS.patience, 1, self.tr(" evaluations"))
        self.patience.setPrefix(self.tr("patience "))
        self.patience.setSpecialValueText(self.tr("no early end"))
        self.patience.setAccessibleName(self.tr("Patience"))
        self.patience.setToolTip(
            self.tr(
                "Evaluations in a row, in the second half of the steps, that are no better than the best until "
                "training ends by itself; 0: never."
            )
        )
        self.reach = _spin(1, _MOST_SAMPLES, DEFAULTS.window, 1, "")
        self.reach.setPrefix(self.tr("window "))
        self.reach.setAccessibleName(self.tr("Window of a streaming network"))
        self.reach.setToolTip(
            self.tr(
                "Networks whose recurrent state goes from sample to sample: the most samples that gradients flow back "
                "through. More learn longer memories, and leave a step fewer sequences."
            )
        )
        self.seed = _spin(0, _MOST_SEED, DEFAULTS.seed, 1, "")
        self.seed.setPrefix(self.tr("seed "))
        self.seed.setAccessibleName(self.tr("Seed"))
        self.seed.setToolTip(self.tr("Of the order in which samples are seen; the same seed gives the same training."))
        self.fold = QWidget()
        column = QVBoxLayout(self.fold)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(6)
        for widgets in ((self.scales, self.patience), (self.reach, self.seed)):
            row = QHBoxLayout()
            row.setSpacing(8)
            for widget in widgets:
                row.addWidget(widget)
            row.addStretch(1)
            column.addLayout(row)
        self.fold.hide()

    def _lay_out(self) -> None:
        first, second = QHBoxLayout(), QHBoxLayout()
        for row in (first, second):
            row.setSpacing(8)
        for widget in (self.steps, self.batch, self.rate):
            first.addWidget(widget)
        first.addStretch(1)
        first.addWidget(self.button)
        second.addWidget(self.teacher)
        second.addWidget(self.scope)
        second.addStretch(1)
        second.addWidget(self.more)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(6)
        column.addLayout(first)
        column.addLayout(second)
        column.addWidget(self.fold)

    def _connect(self) -> None:
        for box in (self.steps, self.batch, self.patience, self.reach, self.seed):
            box.valueChanged.connect(self._on_changed)
        self.rate.valueChanged.connect(self._on_changed)
        self.teacher.chosen.connect(self._on_changed)
        self.scope.chosen.connect(self._on_changed)
        self.scales.toggled.connect(self._on_changed)
        self.more.toggled.connect(self.fold.setVisible)
        self.button.clicked.connect(self._on_clicked)

    def _on_changed(self, _: object = None) -> None:
        self.changed.emit()

    def _on_clicked(self) -> None:
        self._act.emit()


def _spin(low: int, high: int, value: int, step: int, suffix: str) -> QSpinBox:
    box = indented(QSpinBox())
    box.setRange(low, high)
    box.setSingleStep(step)
    box.setSuffix(suffix)
    box.setValue(value)
    box.setKeyboardTracking(False)
    return box
