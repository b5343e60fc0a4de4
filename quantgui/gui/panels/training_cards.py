"""Loss and quality of a training, each a plot below its key numbers."""

from __future__ import annotations

import math

import numpy as np
from PySide6.QtGui import QResizeEvent
from PySide6.QtWidgets import QHBoxLayout, QWidget

from quantgui.gui.numbers import count, decibel, duration, short
from quantgui.gui.plots.training import LossPlot, QualityCurve, QualityPlot
from quantgui.gui.quality import metric_ends, metric_name, metric_unit, score_text, value_text
from quantgui.gui.widgets.card import Card
from quantgui.gui.widgets.labels import ElidedLabel, MetricLabel, Tone
from quantgui.results import Evaluation, TrainingReady
from quantgui.spec.sweep import SHARES

_ARROW = "→"
_LOW = 208
"""Below this height a card leaves out its line of words: the plot needs the room."""


class LossCard(Card):
    """The loss of each step, with steps and time."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__("", parent)
        self.set_title(self.tr("Loss"))
        self.plot = LossPlot(self.tr("Loss of each step"), self.tr("step"), self.tr("loss"))
        self.plot.setToolTip(
            self.tr(
                "Loss of the training over its steps, on a scale of powers of ten; lower is better. Points: means over "
                "one or more steps; line: their run. Dashed: the step of the best evaluation.\n"
                "Wheel zooms, dragging pans, 0 shows everything."
            )
        )
        self.steps = MetricLabel(self.tr("steps"), self.tr("Steps done, and how many were asked for."), small=True)
        self.time = MetricLabel(self.tr("time"), self.tr("Time of training and evaluations so far."), small=True)
        self.left = MetricLabel(self.tr("left"), self.tr("Time until the last step, at the present pace."), small=True)
        self.words = _lay_out(self, self.plot, (self.steps, self.time, self.left))
        self.plot.step_hovered.connect(self._read)

    def show_training(self, training: TrainingReady, last: float) -> None:
        """Show the losses up to the step `last`."""
        self.plot.show_losses(training.loss_steps, training.losses, last, training.best)
        self.steps.show_value(count(training.steps))
        self.steps.show_caption(self.tr("of {n}").format(n=count(training.training.steps)))
        self.time.show_value(duration(training.seconds))
        self.left.show_value(duration(training.seconds_left))
        self._read(None)

    def show_left(self, *, shown: bool) -> None:
        """Say how long it takes still, or leave that out."""
        self.left.setVisible(shown)

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        self.words.setVisible(event.size().height() >= _LOW)
        self.fit_legend()

    def _read(self, point: tuple[int, float] | None) -> None:
        """Read a step out; the last one where none is pointed at."""
        steps, losses = self.plot.losses()
        if point is None and len(steps):
            point = int(steps[-1]), float(losses[-1])
        words = self.tr("step {n}: loss {loss}")
        self.words.setText("" if point is None else words.format(n=count(point[0]), loss=short(point[1])))


class QualityCard(Card):
    """The quality of every evaluation, with what it was before and at best."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__("", parent)
        self.set_title(self.tr("Quality"))
        self._training: TrainingReady | None = None
        self.add_chip("quantized", self.tr("trained"), symbol="dot")
        self.add_chip("good", self.tr("best"), symbol="star")
        self.plot = QualityPlot(self.tr("Quality after steps"), self.tr("step"), "")
        self.plot.setToolTip(
            self.tr(
                "Quality of the quantized network on all samples, with its standard error; the star is the best. Grey: "
                "before training; blue: the float network.\nPoint at an evaluation, or press the up and down keys, to "
                "read it; wheel zooms, dragging pans, 0 shows everything."
            )
        )
        self.headline = MetricLabel(
            self.tr("quality"), self.tr("The headline metric before training, and at the best evaluation."), small=True
        )
        self.sqnr = MetricLabel(
            self.tr("output SQNR"),
            self.tr("Signal over error of the outputs in dB, before training and at the best; larger is better."),
            small=True,
        )
        self.words = _lay_out(self, self.plot, (self.headline, self.sqnr))
        self.plot.evaluation_pointed.connect(self._read)

    def show_training(self, training: TrainingReady, last: float) -> None:
        """Show the evaluations up to the step `last`."""
        self._training = training
        before, after = training.before, training.after
        known = before or (training.evaluations[0][1] if training.evaluations else None)
        metric = "" if known is None else known.metric
        scale = 100.0 if metric in SHARES else 1.0
        least, most = metric_ends(metric)
        self.plot.set_unit("left", metric_unit(metric))
        self.plot.set_meaning("left", ends=(scale * least, scale * most))
        scores = [evaluation.quantized_score for _, evaluation in training.evaluations]
        self.plot.show_quality(
            QualityCurve(
                np.array([step for step, _ in training.evaluations], np.float64),
                scale * np.array([score.value for score in scores], np.float64),
                scale * np.array([score.stderr for score in scores], np.float64),
                math.nan if known is None else scale * known.float_score.value,
                math.nan if before is None else scale * before.quantized_score.value,
                math.nan if before is None else scale * before.quantized_score.stderr,
            ),
            last,
            training.best,
        )
        name = metric_name(metric) if metric else self.tr("quality")
        self.set_title(name[:1].upper() + name[1:])
        texts = [None if x is None else value_text(x.quantized_score.value, metric) for x in (before, after)]
        rises = before is None or after is None or _gain(before, after) >= 0
        self.headline.show_value(*change_text(*texts, better=rises))
        float_text = "" if known is None else value_text(known.float_score.value, metric)
        caption = self.tr("float: {value}").format(value=float_text) if float_text else name
        self.headline.show_caption(caption)
        # Where SQNR is the headline, it would stand there twice.
        self.sqnr.setVisible(metric != "output_sqnr_db")
        decibels = [None if x is None else decibel(x.output_sqnr_db) for x in (before, after)]
        rises = before is None or after is None or after.output_sqnr_db >= before.output_sqnr_db
        self.sqnr.show_value(*change_text(*decibels, better=rises))
        self.fit_legend()
        self._read(self.plot.pointed())

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        self.words.setVisible(event.size().height() >= _LOW)
        self.fit_legend()

    def _read(self, place: int | None) -> None:
        """Read an evaluation out; the last one where none is pointed at."""
        training = self._training
        if training is None or not training.evaluations:
            self.words.setText(self.tr("no evaluation yet"))
            return
        found = place if place is not None and place < len(training.evaluations) else len(training.evaluations) - 1
        step, evaluation = training.evaluations[found]
        words = self.tr("best, step {n}: {score}") if step == training.best else self.tr("step {n}: {score}")
        text = words.format(n=count(step), score=score_text(evaluation.quantized_score, evaluation.metric))
        if evaluation.metric != "output_sqnr_db":
            text = f"{text}, {decibel(evaluation.output_sqnr_db)}"
        self.words.setText(text)


def _lay_out(card: Card, plot: QWidget, numbers: tuple[MetricLabel, ...]) -> ElidedLabel:
    """Put key numbers above a plot, and below it a line of words that is returned."""
    words = ElidedLabel()
    words.setProperty("role", "note")
    row = QHBoxLayout()
    row.setContentsMargins(3, 0, 3, 0)
    row.setSpacing(10)
    for number in numbers:
        row.addWidget(number, 1)
    card.body.addLayout(row)
    card.body.addWidget(plot, 1)
    card.body.addWidget(words)
    return words


def _gain(before: Evaluation, after: Evaluation) -> float:
    """Return by how much the headline metric has become better."""
    change = after.quantized_score.value - before.quantized_score.value
    return change if after.higher_is_better else -change


def change_text(before: str | None, after: str | None, *, better: bool = True) -> tuple[str, Tone]:
    """Return what a number was and has become, with a common unit said once, in green only where it is `better`.

    >>> change_text("40.0 %", "90.2 %"), change_text("8.0 dB", None), change_text(None, None)
    (('40.0 → 90.2 %', 'good'), ('8.0 dB', 'text'), ('–', 'text'))
    >>> change_text("16.7 dB", "15.7 dB", better=False)
    ('16.7 → 15.7 dB', 'text')
    """
    if before is None or after is None:
        return before or after or "–", "text"
    number, _, unit = before.partition(" ")
    return f"{number if after.endswith(f' {unit}') else before} {_ARROW} {after}", "good" if better else "text"
