"""How a training stands to the rest of the session, in words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from quantgui.gui.numbers import count
from quantgui.gui.texts import translate
from quantgui.gui.widgets.labels import Tone
from quantgui.results import TrainingReady

Phase = Literal["running", "waiting", "paused", "interrupted", "failed", "ended"]


@dataclass(frozen=True, slots=True)
class Standing:
    """How a training stands to the rest of the session.

    Attributes:
        phase: what it is doing; ``interrupted``: the engine has ended under it.
        changed: whether the present configuration is neither the one it began with nor what it found.
        in_use: whether what it found is the present configuration.
        label: what the engine is at, in words; empty where it trains.
        left: whether it is one of an earlier session, which nobody has asked to go on since.
        sentence: why it failed.
        reason: why no training can be started now; empty where one can.
    """

    phase: Phase
    changed: bool = False
    in_use: bool = False
    label: str = ""
    sentence: str = ""
    reason: str = ""
    left: bool = False

    @property
    def is_active(self) -> bool:
        """Whether it waits or runs."""
        return self.phase in ("running", "waiting")


def standing_words(training: TrainingReady, standing: Standing) -> tuple[str, Tone]:
    """Return a sentence on a training, and its tone."""
    name = training.config.name or translate("training", "the configuration")
    steps = count(training.steps)
    match standing.phase:
        case "failed":
            return standing.sentence, "bad"
        case "interrupted":
            words = translate("training", "The engine ended at step {n}; training can go on from its last checkpoint.")
            return words.format(n=steps), "warning"
        case "waiting" | "running" if standing.changed:
            words = translate("training", "The configuration has changed; training goes on with {name}.")
            return words.format(name=name), "warning"
        case "waiting":
            return translate("training", "Waiting for other work."), "muted"
        case "running":
            if standing.label:
                return standing.label, "muted"
            if training.resumed:
                words = translate("training", "Training {name}, resumed at step {n}.")
                return words.format(name=name, n=count(training.resumed)), "muted"
            return translate("training", "Training {name}.").format(name=name), "muted"
        case _:
            return _rest_words(training, standing, name)


def _rest_words(training: TrainingReady, standing: Standing, name: str) -> tuple[str, Tone]:
    if standing.in_use:
        words = translate("training", "In use: the weights of step {n}. Undo (Ctrl+Z) brings the former ones back.")
        return words.format(n=count(training.best or 0)), "good"
    if standing.left:
        words = translate("training", "A training of {name} was left at step {n} of {m}: continue or discard it.")
        return words.format(name=name, n=count(training.steps), m=count(training.training.steps)), "warning"
    if standing.phase == "paused" and not training.complete:
        if standing.changed:
            words = translate("training", "Paused at step {n} of {name}; the configuration has changed since.")
            return words.format(n=count(training.steps), name=name), "warning"
        return translate("training", "Paused at step {n}; it goes on from there.").format(
            n=count(training.steps)
        ), "muted"
    if training.trained is None:
        return translate("training", "Finished: nothing better was found. Try another rate, or more steps."), "warning"
    if standing.changed:
        words = translate("training", "Finished with {name}; the configuration has changed since.")
        return words.format(name=name), "warning"
    if training.steps < training.training.steps:
        words = translate("training", "Finished early: {n} evaluations in a row were no better.")
        return words.format(n=count(training.training.patience)), "good"
    return translate("training", "Finished: step {n} is the best.").format(n=count(training.best or 0)), "good"
