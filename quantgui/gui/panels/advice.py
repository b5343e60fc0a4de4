"""What the program advises on the current configuration, with the button that does it."""

from __future__ import annotations

from PySide6.QtCore import Qt, Signal
from PySide6.QtWidgets import QFrame, QHBoxLayout, QLabel, QPushButton, QToolButton, QVBoxLayout, QWidget

from quantgui.gui.icons import pixmap, set_icon
from quantgui.gui.quality import metric_name, value_text
from quantgui.gui.texts import translate
from quantgui.gui.theme import current, theme_events
from quantgui.results import Advice, Evaluation


def proposal_words(advice: Advice) -> str:
    """Return what the proposal of `advice` does, in the few words of a button or an undo step."""
    weights = bare = ranges = 0
    proposal = advice.proposal or advice.config
    for name in advice.layers:
        old, new = advice.config.spec_for(name), proposal.spec_for(name)
        weights += old.weights != new.weights
        bare += old.activations is not None and new.activations is None
        ranges += old.activations != new.activations and new.activations is not None
    match bool(weights), bool(bare), bool(ranges):
        case True, False, False:
            return translate("AdviceCard", "Use finer weights in {layers}").format(layers=_layers(weights))
        case False, True, False:
            return translate("AdviceCard", "Keep float activations in {layers}").format(layers=_layers(bare))
        case False, False, True:
            return translate("AdviceCard", "Use other ranges in {layers}").format(layers=_layers(ranges))
        case _:
            return translate("AdviceCard", "Use the proposal for {layers}").format(layers=_layers(len(advice.layers)))


def _layers(number: int) -> str:
    return translate("AdviceCard", "1 layer") if number == 1 else translate("AdviceCard", "{n} layers").format(n=number)


class AdviceCard(QFrame):
    """Sentences, what they would bring, and at most one button; hidden where there is nothing to say.

    Each of several sentences is a paragraph of its own.

    Signals:
        accepted: the user wants the proposed configuration.
    """

    accepted = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("advice")
        self._icon = QLabel()
        self._title = QLabel(self.tr("Advice"))
        self._title.setProperty("role", "title")
        self.close_button = QToolButton()
        self.close_button.setProperty("flat", "true")
        self.close_button.setAccessibleName(self.tr("Hide the advice"))
        self.close_button.setToolTip(self.tr("Hide this advice; it comes back when you return to this configuration."))
        set_icon(self.close_button, "x", "muted")
        self._sentence = QLabel()
        self._sentence.setTextFormat(Qt.TextFormat.PlainText)
        self._sentence.setWordWrap(True)
        self._sentence.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self._gain = QLabel()
        self._gain.setWordWrap(True)
        self._gain.setProperty("role", "note")
        self.button = QPushButton()
        head = QHBoxLayout()
        head.addWidget(self._icon)
        head.addWidget(self._title, 1)
        head.addWidget(self.close_button)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(10, 5, 6, 10)
        layout.setSpacing(6)
        layout.addLayout(head)
        layout.addWidget(self._sentence)
        layout.addWidget(self._gain)
        layout.addWidget(self.button)
        self.button.clicked.connect(self.accepted)
        self.close_button.clicked.connect(self.hide)
        theme_events().changed.connect(self._paint_anew)
        self._paint_anew(None)
        self.hide()

    def show_advice(self, advice: Advice | None) -> None:
        """Show `advice`, or nothing."""
        self.setVisible(advice is not None)
        if advice is None:
            return
        self._sentence.setText(advice.sentence.replace("\n", "\n\n"))
        self.setAccessibleName(advice.sentence)
        self._gain.setText(self._gain_text(advice.before, advice.after))
        self._gain.setVisible(bool(self._gain.text()))
        words = proposal_words(advice)
        self.button.setText(words)
        self.button.setAccessibleName(words)
        self.button.setToolTip(
            self.tr("Take over the proposed configuration in one undo step: {layers}").format(
                layers=", ".join(advice.layers[:12]) + (" …" if len(advice.layers) > 12 else "")
            )
        )
        self.button.setVisible(advice.proposal is not None)

    def sentence(self) -> str:
        """Return the sentence, empty where none is shown."""
        return "" if self.isHidden() else self._sentence.text()

    def _gain_text(self, before: Evaluation | None, after: Evaluation | None) -> str:
        if before is None or after is None:
            return ""
        return self.tr("{metric} of the first {n} samples: {before} now, {after} then").format(
            metric=metric_name(after.metric),
            n=after.quantized_score.samples,
            before=value_text(before.quantized_score.value, before.metric),
            after=value_text(after.quantized_score.value, after.metric),
        )

    def _paint_anew(self, _: object) -> None:
        tokens = current()
        self._icon.setPixmap(pixmap("lightbulb", 16, tokens.warning, self.devicePixelRatioF()))
        ground, edge = tokens.mixed("warning", "panel", 0.09), tokens.mixed("warning", "panel", 0.45)
        self.setStyleSheet(f"#advice {{ background: {ground}; border: 1px solid {edge}; border-radius: 7px; }}")
