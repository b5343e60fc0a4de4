"""What a sweep is to measure: which part of the layers, which formats, which question, by which metric."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from PySide6.QtCore import Qt, Signal
from PySide6.QtGui import QAction, QStandardItemModel
from PySide6.QtWidgets import (
    QCheckBox,
    QComboBox,
    QHBoxLayout,
    QLabel,
    QMenu,
    QPushButton,
    QSpinBox,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from quantgui.gui.damage import SOFT
from quantgui.gui.icons import set_icon
from quantgui.gui.quality import metric_name
from quantgui.gui.texts import translate
from quantgui.gui.widgets.segmented import Segment, SegmentedButtons
from quantgui.gui.widgets.spin import indented
from quantgui.gui.widgets.toggles import ToggleButtons
from quantgui.results import LayerInfo
from quantgui.session.target_fit import weights_refusal
from quantgui.spec.config import QuantConfig
from quantgui.spec.presets import PRESETS
from quantgui.spec.quantizer import FLOAT, LayerSpec
from quantgui.spec.sweep import SHARES, SWEPT_BITS, USER_METRIC, Sweep, What, bits_specs
from quantgui.spec.targets import Target

DEFAULT_SAMPLES = 64
_METRICS = (*SOFT, "agreement", "accuracy", USER_METRIC)
_PRESETS = tuple(preset for preset in PRESETS if preset.spec != FLOAT)


@dataclass(frozen=True, slots=True)
class Question:
    """What the controls say; `within` asks for each layer within the present configuration, not alone."""

    specs: tuple[LayerSpec, ...]
    what: What
    within: bool
    metric: str
    samples: int | None
    exact: bool

    def sweep(self, present: QuantConfig) -> Sweep:
        """Return the sweep that answers the question."""
        base = present if self.within else QuantConfig()
        return Sweep(self.specs, self.what, base, self.metric, self.samples, self.exact)


_CHOICE_LETTERS = 10
"""Of a choice, so many letters are always in sight."""


class SweepControls(QWidget):
    """Two rows of settings with the button that starts and pauses.

    Signals:
        changed: the question has become another one.
        start_requested: the user wants it answered, or to go on with it.
        pause_requested: the user wants the engine to stop; what is measured is kept.
    """

    changed = Signal()
    start_requested = Signal()
    pause_requested = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._running = False
        self._reason = ""
        self._samples = 0
        self._chosen_presets: dict[str, QAction] = {}
        self.what = self._make_what()
        self.bits = self._make_bits()
        self.presets = self._make_presets()
        self.question = self._make_question()
        self.metrics = self._make_metric()
        self.samples = self._make_samples()
        self.exact = QCheckBox(self.tr("Exact"))
        self.exact.setAccessibleName(self.tr("Exact: all samples for every candidate"))
        self.exact.setToolTip(
            self.tr(
                "Measure every candidate on all of these samples. Otherwise each gets only as many as the order of the "
                "layers needs, which is several times faster."
            )
        )
        self.button = QPushButton()
        self.button.setProperty("primary", "true")
        self.hint = QLabel()
        self.hint.setProperty("role", "note")
        self.hint.setProperty("tone", "warning")
        self.hint.setWordWrap(True)
        self.hint.hide()
        self._lay_out()
        self._connect()
        self.show_metrics(None, "")
        self.show_state(running=False, resumes=False, reason="")

    # --- in ------------------------------------------------------------------------------------------------------

    def show_data(self, samples: int) -> None:
        """Show how many samples there are to measure on; 0 without data."""
        if samples == self._samples:
            return
        was_all = self.samples.value() >= self._samples
        self._samples = samples
        self.samples.setMaximum(max(samples, 1))
        if was_all or self.samples.value() > samples:
            self.samples.setValue(min(DEFAULT_SAMPLES, samples))

    def show_metrics(self, possible: Collection[str] | None, user: str) -> None:
        """Offer the metrics.

        Args:
            possible: those that mean something for this network and data; None where that is not known yet.
            user: name of the user's own function; empty where none is loaded.
        """
        model = self.metrics.model()
        assert isinstance(model, QStandardItemModel)
        for place in range(self.metrics.count()):
            metric = self.metrics.itemData(place)
            if metric is None:
                continue
            reason = self._why_no_metric(metric, possible, user)
            item = model.item(place)
            item.setEnabled(not reason)
            item.setToolTip("\n".join(filter(None, [self._metric_help(metric), reason])))
            if metric == USER_METRIC:
                self.metrics.setItemText(place, user or metric_name(metric))
        chosen = self.metrics.currentData()
        if self._why_no_metric(chosen, possible, user):
            self.metrics.setCurrentIndex(0)

    def show_state(self, *, running: bool, resumes: bool, reason: str) -> None:
        """Show what the button would do.

        Args:
            running: whether a sweep waits or runs.
            resumes: whether this question has been answered in part.
            reason: why nothing can be started; empty where it can.
        """
        self._running = running
        self._reason = reason
        text = self.tr("Pause") if running else self.tr("Resume") if resumes else self.tr("Measure")
        self.button.setText(text)
        self.button.setAccessibleName(self.tr("{action} the sweep").format(action=text))
        if running:
            tip = self.tr("Stop measuring; what is measured is kept and the sweep goes on from there.")
        elif resumes:
            tip = self.tr("Go on where the sweep has stopped.")
        else:
            tip = self.tr("Measure how much the network suffers when one layer at a time gets each of the formats.")
        self._explain_button(tip)
        self.what.setEnabled(not running)
        for widget in (self.bits, self.presets, self.question, self.metrics, self.samples, self.exact):
            widget.setEnabled(not running)

    # --- what is asked -------------------------------------------------------------------------------------------

    def asked(self) -> Question | None:
        """Return what the settings ask; None where no format is chosen."""
        what = self._what()
        specs = list(bits_specs(bits for bits in self.bits.values() if isinstance(bits, int)))
        specs += [preset.spec for preset in _PRESETS if self._chosen_presets[preset.name].isChecked()]
        labels: dict[str, LayerSpec] = {}
        sweep = Sweep(what=what)
        for spec in specs:
            part = spec.activations if what == "activations" else spec.weights
            if part is not None:
                labels.setdefault(sweep.label(spec), spec)
        if not labels:
            return None
        samples = self.samples.value()
        metric = str(self.metrics.currentData())
        everything = samples >= self._samples
        return Question(
            tuple(labels.values()),
            what,
            bool(self.question.currentData()),
            metric,
            None if everything else samples,
            self.exact.isChecked(),
        )

    # --- parts ---------------------------------------------------------------------------------------------------

    def _make_what(self) -> SegmentedButtons:
        segments = (
            Segment("weights", self.tr("Weights"), self.tr("Change the weights; activations stay as they are.")),
            Segment("activations", self.tr("Activations"), self.tr("Change the activations; weights stay.")),
            Segment("both", self.tr("Both"), self.tr("Change weights and activations together.")),
        )
        buttons = SegmentedButtons(self.tr("What is changed"), segments)
        buttons.set_value("weights")
        return buttons

    def show_target(self, target: Target, layers: Sequence[LayerInfo]) -> None:
        """Grey the formats that `target` runs in none of `layers`, whatever is beside them; none of them is tried."""
        specs = dict(zip(SWEPT_BITS, bits_specs(SWEPT_BITS), strict=True))
        refused = set()
        for bits, spec in specs.items():
            reason = weights_refusal(target, layers, spec.weights, any_granularity=True) if layers else ""
            button = self.bits.button(bits)
            button.setEnabled(not reason)
            button.setToolTip(f"{self.tr('Try {n} bits: one column of the map.').format(n=bits)}\n{reason}".strip())
            if reason:
                refused.add(bits)
        if refused & set(self.bits.values()):
            self.bits.set_values(bits for bits in self.bits.values() if bits not in refused)
        for preset in _PRESETS:
            reason = weights_refusal(target, layers, preset.spec.weights, any_granularity=False) if layers else ""
            action = self._chosen_presets[preset.name]
            action.setEnabled(not reason)
            action.setToolTip(f"{preset.help}\n{reason}".strip())
            if reason:
                action.setChecked(False)

    def _make_bits(self) -> ToggleButtons:
        segments = [
            Segment(bits, str(bits), self.tr("Try {n} bits: one column of the map.").format(n=bits))
            for bits in SWEPT_BITS
        ]
        buttons = ToggleButtons(self.tr("Bits to try"), segments)
        buttons.set_values(SWEPT_BITS)
        for button in buttons.findChildren(QToolButton):
            button.setMinimumWidth(24)
        return buttons

    def _make_presets(self) -> QToolButton:
        button = QToolButton()
        button.setToolTip(self.tr("Other formats to try: those of the presets."))
        button.setAccessibleName(self.tr("Other formats to try"))
        button.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)
        button.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        button.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        set_icon(button, "plus", "muted")
        menu = QMenu(button)
        menu.setToolTipsVisible(True)
        for preset in _PRESETS:
            action = menu.addAction(preset.name)
            action.setCheckable(True)
            action.setToolTip(preset.help)
            self._chosen_presets[preset.name] = action
        button.setMenu(menu)
        return button

    def _make_question(self) -> QComboBox:
        box = QComboBox()
        box.addItem(self.tr("Alone, the rest float"), False)
        box.addItem(self.tr("Within the configuration"), True)
        box.setAccessibleName(self.tr("Question"))
        box.setToolTip(
            self.tr(
                "Alone: the layer quantized, all others float. Within: the layer changed, all others as they are now, "
                "so that errors meet."
            )
        )
        box.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        box.setMinimumContentsLength(13)
        return box

    def _make_metric(self) -> QComboBox:
        box = QComboBox()
        for metric in _METRICS:
            if metric == "agreement":
                box.insertSeparator(box.count())
            box.addItem(_capital(metric_name(metric)), metric)
        box.setAccessibleName(self.tr("Metric"))
        box.setToolTip(
            self.tr(
                "What is measured at the network's outputs. The upper ones are soft: every small error shows. Accuracy "
                "and agreement count only flipped samples and hide what adds up, so rank by a soft one."
            )
        )
        box.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        box.setMinimumContentsLength(9)
        return box

    def _make_samples(self) -> QSpinBox:
        box = indented(QSpinBox())
        box.setRange(1, 1)
        box.setSuffix(self.tr(" samples"))
        box.setKeyboardTracking(False)
        box.setAccessibleName(self.tr("Most samples"))
        box.setToolTip(self.tr("Most samples of the data that a candidate is measured on."))
        return box

    def _lay_out(self) -> None:
        first, second = QHBoxLayout(), QHBoxLayout()
        for row in (first, second):
            row.setSpacing(8)
        first.addWidget(self.what)
        first.addWidget(self.bits)
        first.addWidget(self.presets)
        first.addStretch(1)
        for choice in (self.question, self.metrics):
            # Beside each other they give way where the window is narrow, and have all there is where it is wide.
            choice.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
            choice.setMinimumContentsLength(_CHOICE_LETTERS)
        second.addWidget(self.question, 3)
        second.addWidget(self.metrics, 2)
        second.addWidget(self.samples)
        second.addWidget(self.exact)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(6)
        column.addLayout(first)
        column.addLayout(second)
        column.addWidget(self.hint)

    def _connect(self) -> None:
        self.what.chosen.connect(self._on_changed)
        self.bits.chosen.connect(self._on_changed)
        self.question.currentIndexChanged.connect(self._on_changed)
        self.metrics.currentIndexChanged.connect(self._on_changed)
        self.samples.valueChanged.connect(self._on_changed)
        self.exact.toggled.connect(self._on_changed)
        for action in self._chosen_presets.values():
            action.toggled.connect(self._on_changed)
        self.button.clicked.connect(self._on_clicked)

    def _what(self) -> What:
        match self.what.value():
            case "activations":
                return "activations"
            case "both":
                return "both"
            case _:
                return "weights"

    def _on_clicked(self) -> None:
        if self._running:
            self.pause_requested.emit()
        else:
            self.start_requested.emit()

    def _on_changed(self, _: object = None) -> None:
        metric = str(self.metrics.currentData())
        hard = metric in SHARES
        self.hint.setText(
            self.tr(
                "{metric} counts only flipped samples: small errors that add up stay hidden. Rank by output SQNR or KL."
            ).format(metric=_capital(metric_name(metric)))
        )
        self.hint.setVisible(hard)
        others = sum(action.isChecked() for action in self._chosen_presets.values())
        self.presets.setText(f"{others}" if others else "")
        self.changed.emit()

    def _explain_button(self, tip: str) -> None:
        self.button.setEnabled(self._running or not self._reason)
        self.button.setToolTip(f"{tip}\n{self._reason}" if self._reason and not self._running else tip)

    def _why_no_metric(self, metric: object, possible: Collection[str] | None, user: str) -> str:
        if metric == USER_METRIC:
            return "" if user else self.tr("Load your own function with the data (Ctrl+D).")
        if possible is None or metric in possible:
            return ""
        return self.tr("It means nothing for these outputs and data.")

    def _metric_help(self, metric: object) -> str:
        return {
            "output_sqnr_db": self.tr("Signal over error of the outputs in dB, larger is better; for every network."),
            "kl": self.tr("How far the class probabilities move, in nats; smaller is better."),
            "cosine": self.tr("Direction of the outputs against the float ones; 1 is equal."),
            "agreement": self.tr("Share of samples that keep the float network's top class. Hard: counts flips only."),
            "accuracy": self.tr("Share of samples whose top class is the label. Hard: counts flips only."),
            USER_METRIC: self.tr("Your own function of outputs and labels."),
        }.get(str(metric), "")


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def question_words(sweep: Sweep) -> str:
    """Return what a sweep asks in few words."""
    what = {
        "weights": translate("SweepControls", "weights"),
        "activations": translate("SweepControls", "activations"),
        "both": translate("SweepControls", "weights and activations"),
    }[sweep.what]
    place = translate("SweepControls", "alone, the rest float")
    if sweep.base != QuantConfig():
        place = translate("SweepControls", "within {name}").format(
            name=sweep.base.name or translate("SweepControls", "a configuration")
        )
    return f"{what}, {place}"
