"""The status line: size before and after, quality before and after with its uncertainty, state of the engine."""

from __future__ import annotations

from collections.abc import Sequence

from PySide6.QtCore import Qt, Signal
from PySide6.QtWidgets import QLabel, QPushButton, QStatusBar, QWidget

from quantgui.gui import numbers
from quantgui.gui.quality import metric_name, score_text, value_text
from quantgui.gui.widgets.labels import ElidedLabel, set_style
from quantgui.gui.widgets.target_choice import TargetChoice
from quantgui.results import Evaluation
from quantgui.spec.targets import Target

_ARROW = "→"
_NOTICE_MS = 6000


class StatusLine(QStatusBar):
    """Messages on the left; the target and what it refuses, quality, size and engine on the right.

    Signals:
        target_chosen: the `Target` that the network is meant for.
        violations_requested: the user wants to see the layers that the target refuses, or all of them again.
    """

    target_chosen = Signal(object)
    violations_requested = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setSizeGripEnabled(False)
        self.size_label = QLabel()
        self.size_label.setToolTip(
            self.tr(
                "Bytes of all constants, float and quantized: packed weights, scales, zero points and what stays float."
            )
        )
        self.quality_label = ElidedLabel()
        self.engine_label = QLabel()
        self._target_label = QLabel(self.tr("Target"))
        self.target = TargetChoice(fits_text=True)
        self.target.target_chosen.connect(self.target_chosen)
        self._target_label.setBuddy(self.target)
        self.violations = QPushButton()
        self.violations.setFlat(True)
        self.violations.setProperty("tone", "bad")
        self.violations.clicked.connect(self.violations_requested)
        self.violations.hide()
        self.addPermanentWidget(self._target_label)
        self.addPermanentWidget(self.target)
        self.addPermanentWidget(self.violations)
        self.addPermanentWidget(self.quality_label)
        self.addPermanentWidget(self.size_label)
        self.addPermanentWidget(self.engine_label)
        self.setAccessibleName(self.tr("Status"))
        self.show_target(None)

    def show_notice(self, sentence: str) -> None:
        """Show a sentence for some seconds."""
        self.showMessage(sentence, _NOTICE_MS)

    def show_target(self, target: Target | None) -> None:
        """Show the target in use; None where there is no network that it could be for."""
        for widget in (self._target_label, self.target):
            widget.setVisible(target is not None)
        if target is not None:
            self.target.show_target(target)

    def focus_target(self) -> None:
        """Open the list of targets."""
        self.target.setFocus(Qt.FocusReason.ShortcutFocusReason)
        self.target.showPopup()

    def show_violations(self, count: int, target: str, examples: Sequence[str] = (), *, listed: bool = False) -> None:
        """Show how many layers `target` does not run as they are; nothing for 0.

        Args:
            count: how many.
            target: its name for people.
            examples: some of them, each with the reason.
            listed: whether the table shows these layers alone.
        """
        self.violations.setVisible(count > 0)
        if count == 1:
            text = self.tr("1 layer refused · show all") if listed else self.tr("1 layer refused · show")
        else:
            text = self.tr("{n} layers refused · show all") if listed else self.tr("{n} layers refused · show")
        self.violations.setText(text.format(n=count))
        self.violations.setAccessibleName(self.violations.text())
        words = self.tr("{target} does not run these layers as they are. Click to see them (filter: violates).")
        if listed:
            words = self.tr("{target} does not run these layers as they are. Click to see all layers again.")
        lines = [words.format(target=target), *examples]
        if examples and count > len(examples):
            lines.append(self.tr("… and {n} more").format(n=count - len(examples)))
        self.violations.setToolTip("\n".join(lines))

    def show_size(self, float_bytes: int, quantized_bytes: int) -> None:
        """Show bytes before and after; nothing for 0."""
        if not float_bytes:
            self.size_label.setText("")
        elif float_bytes == quantized_bytes:
            self.size_label.setText(numbers.data_size(float_bytes))
        else:
            ratio = float_bytes / quantized_bytes if quantized_bytes else 0.0
            before, after = numbers.data_size(float_bytes), numbers.data_size(quantized_bytes)
            self.size_label.setText(f"{before} {_ARROW} {after} ({ratio:.2f}×)")
        self.size_label.setAccessibleName(self.tr("Size: {text}").format(text=self.size_label.text()))

    def show_quality(
        self, evaluation: Evaluation | None, *, current: bool, trustworthy: bool = True, coming: bool = True
    ) -> None:
        """Show quality before and after.

        Args:
            evaluation: the one to show; None for none.
            current: whether it is that of the current configuration, else only the float network's is shown.
            trustworthy: whether it was measured on real data.
            coming: whether the one of the current configuration is being computed.
        """
        if evaluation is None:
            self.quality_label.setText("")
            return
        metric = evaluation.metric
        name, before = metric_name(metric), value_text(evaluation.float_score.value, metric)
        if not current:
            text = f"{name} {before} {_ARROW} " + ("…" if coming else self.tr("not evaluated"))
        else:
            text = f"{name} {before} {_ARROW} {score_text(evaluation.quantized_score, metric)}"
            seen, total = evaluation.quantized_score.samples, evaluation.total_samples
            if seen < total:
                text += self.tr(" · {seen} of {total} samples").format(seen=seen, total=total)
        if not trustworthy:
            text += self.tr(" · random data, do not trust")
        self.quality_label.setText(text)
        set_style(self.quality_label, "tone", "text" if trustworthy else "warning")
        better = self.tr("larger is better") if evaluation.higher_is_better else self.tr("smaller is better")
        others = "\n".join(
            f"{metric_name(key)}: {score_text(score, key)}" for key, score in evaluation.scores.items() if key != metric
        )
        tip = self.tr("{metric} of the float and of the quantized network, mean ± standard error; {better}.").format(
            metric=name, better=better
        )
        self.quality_label.setToolTip("\n".join([tip, *evaluation.notes, others]).strip())

    def show_engine(self, state: str, tip: str) -> None:
        """Show what the engine is doing."""
        tones = {"ready": "good", "starting": "muted", "busy": "accent", "restarting": "warning", "stopped": "bad"}
        self.engine_label.setText(f"● {self._engine_words(state)}")
        self.engine_label.setToolTip(tip)
        self.engine_label.setAccessibleName(self.tr("Engine: {state}").format(state=self._engine_words(state)))
        set_style(self.engine_label, "tone", tones.get(state, "muted"))

    def _engine_words(self, state: str) -> str:
        words = {
            "starting": self.tr("engine starting"),
            "ready": self.tr("engine ready"),
            "busy": self.tr("engine busy"),
            "restarting": self.tr("engine restarting"),
            "stopped": self.tr("engine stopped"),
        }
        return words.get(state, state)
