"""One run of a command: the bench that answers, and the steps that commands share."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from quantgui.cli.answers import advice_json
from quantgui.cli.arguments import pytorch_options
from quantgui.engine.requests import OpenData, OpenNetwork, Request, SetMetric
from quantgui.errors import DataError, SpecError
from quantgui.interrupts import leave_at_interrupt
from quantgui.results import (
    Advice,
    DataOpened,
    DataSummary,
    EvaluationReady,
    Event,
    ImageOptions,
    LayerInfo,
    NetworkOpened,
    NetworkSummary,
    Progress,
)
from quantgui.spec.config import QuantConfig, UnknownName, unknown_names
from quantgui.spec.presets import find_preset, preset_config
from quantgui.spec.serialization import config_to_json, load_config
from quantgui.spec.targets import Violation, find_target
from quantgui.terminal import ProgressLine
from quantgui.wording import metric_name, score_text

if TYPE_CHECKING:
    from quantgui.engine.bench import Bench

_SHOWN_NAMES: Final = 5

E = TypeVar("E", bound=Event)
R = TypeVar("R")


@dataclass(frozen=True)
class Choice:
    """The configuration a command works with, and what is to be said of it."""

    config: QuantConfig
    advice: Advice | None = None
    unknown: tuple[UnknownName, ...] = ()

    def json(self, data: DataSummary | None) -> dict[str, Any]:
        return {
            "trustworthy": None if data is None else data.trustworthy,
            "config": config_to_json(self.config),
            "advice": None if self.advice is None else advice_json(self.advice),
            "unknown_names": [{"name": each.name, "nearest": each.nearest} for each in self.unknown],
        }


@dataclass
class Work:
    """One run of a command: the bench, and the steps all commands share."""

    arguments: argparse.Namespace
    progress: ProgressLine
    started: float = field(default_factory=time.perf_counter)

    @cached_property
    def bench(self) -> Bench:
        """What answers requests. It imports onnx and onnxruntime, which takes longer than reading the arguments."""
        with leave_at_interrupt():
            from quantgui.engine.bench import Bench

        samples = getattr(self.arguments, "samples", None)
        return Bench() if samples is None else Bench(calibration_samples=samples)

    @property
    def seconds(self) -> float:
        """Time since the command was started."""
        return time.perf_counter() - self.started

    def answer(self, request: Request, kind: type[E]) -> E:
        """Return the last event of `kind` in the answer to `request`, showing progress meanwhile."""
        found = None
        for event in self.bench.handle(request):
            self.show(event)
            if isinstance(event, kind):
                found = event
        self.progress.clear()
        if found is None:
            raise DataError("There is nothing to compute: the data holds no samples.")
        return found

    def result(self, steps: Generator[Event, None, R]) -> R:
        """Return what `steps` return, showing progress meanwhile."""
        while True:
            try:
                self.show(next(steps))
            except StopIteration as stop:
                self.progress.clear()
                result: R = stop.value
                return result

    def show(self, event: Event) -> None:
        if isinstance(event, Progress):
            self.progress.show(event)
        elif isinstance(event, EvaluationReady):
            evaluation = event.evaluation
            score = evaluation.quantized_score
            text = f"{metric_name(evaluation.metric)} {score_text(evaluation.metric, score)}"
            self.progress.show(Progress(score.samples, evaluation.total_samples, "Evaluating"), text)

    def note(self, sentence: str) -> None:
        """Say something on standard error."""
        self.progress.clear()
        print(f"note: {sentence}", file=sys.stderr)

    # --- what the arguments ask for ------------------------------------------------------------------------------

    def open_network(self) -> NetworkSummary:
        request = OpenNetwork(self.arguments.network, pytorch_options(self.arguments))
        summary = self.answer(request, NetworkOpened).summary
        for warning in summary.warnings:
            self.note(warning)
        return summary

    def open_data(self) -> DataSummary | None:
        """Open the metric and the data, if the arguments name any."""
        arguments = self.arguments
        if arguments.metric:
            self.answer(SetMetric(arguments.metric), Progress)
        if arguments.data is None:
            if arguments.calibration:
                raise DataError(
                    "--calibration adds to --data; where one data set serves for both, name it with --data."
                )
            return None
        request = OpenData(arguments.data, calibration=arguments.calibration or "")
        summary = self.answer(request, DataOpened).summary
        if (options := self._image_options(summary)) != summary.image_options:
            summary = self.answer(replace(request, image_options=options), DataOpened).summary
        for note in summary.notes:
            self.note(note)
        return summary

    def _image_options(self, summary: DataSummary) -> ImageOptions | None:
        arguments, guess = self.arguments, summary.image_options
        given = {name: getattr(arguments, name) for name in ("layout", "scale", "mean", "std")}
        given = {name: value for name, value in given.items() if value is not None}
        if arguments.size:
            given["height"], given["width"] = arguments.size
        if arguments.bgr:
            given["bgr"] = True
        if guess is None:
            if given:
                raise DataError(f"'{arguments.data}' is no folder of images, so it takes no image options.")
            return None
        for name in ("mean", "std"):
            if len(given.get(name, ())) == 1:
                given[name] *= guess.channels
        return replace(guess, **given)

    def choose_config(self, summary: NetworkSummary, data: DataSummary | None) -> Choice:
        arguments = self.arguments
        if arguments.config:
            config = load_config(Path(arguments.config))
            if not config.name:
                config = replace(config, name=Path(arguments.config).name)
            return self.known(config, summary)
        if not arguments.preset:
            return Choice(QuantConfig(name="float32"))
        config = preset_config(find_preset(arguments.preset), summary.layers)
        if (
            data is None
            or arguments.as_is
            or not any(_quantizes_activations(layer, config) for layer in summary.layers)
        ):
            return Choice(config)
        return self._guarded(config)

    def _guarded(self, config: QuantConfig) -> Choice:
        """Return `config`, with float activations where quantized ones would ruin the network."""
        kept, advice = self.result(self.bench.guard(config))
        if advice is not None:
            self.note(advice.sentence)
        return Choice(kept, advice)

    def violations(self, summary: NetworkSummary, config: QuantConfig) -> tuple[Violation, ...]:
        """Return what of `config` the runtime named by ``--target`` cannot run, and say some of it as notes."""
        if not self.arguments.target:
            return ()
        target = find_target(self.arguments.target)
        found = target.violations(summary.layers, config)
        for sentence, layers in _by_sentence(found).items():
            self.note(f"{sentence[:-1]}: {_listed(layers)}.")
        return found

    def known(self, config: QuantConfig, summary: NetworkSummary) -> Choice:
        """Refuse names that match no layer, or leave them out where the user wants that."""
        unknown = unknown_names(config, (layer.name for layer in summary.layers))
        if not unknown:
            return Choice(config)
        if not self.arguments.ignore_unknown:
            raise SpecError(f"{_unknown_layers(unknown)}; --ignore-unknown goes on without them.")
        for name in unknown[:_SHOWN_NAMES]:
            self.note(str(name))
        missing = {name.name for name in unknown}
        known = {name: spec for name, spec in config.overrides.items() if name not in missing}
        return Choice(replace(config, overrides={}).with_overrides(known), unknown=unknown)


def _unknown_layers(unknown: Sequence[UnknownName]) -> str:
    """Return a sentence without full stop on all names that match no layer."""
    if len(unknown) == 1:
        return str(unknown[0])
    hints = [f" (did you mean '{each.nearest}'?)" if each.nearest else "" for each in unknown]
    named = [f"'{each.name}'{hint}" for each, hint in zip(unknown, hints, strict=True)]
    more = f" and {len(named) - _SHOWN_NAMES} more" if len(named) > _SHOWN_NAMES else ""
    return f"The configuration names layers that the network does not have: {', '.join(named[:_SHOWN_NAMES])}{more}"


def _quantizes_activations(layer: LayerInfo, config: QuantConfig) -> bool:
    return layer.quantizes_activations and config.spec_for(layer.name).activations is not None


def violations_json(violations: Sequence[Violation]) -> list[dict[str, str]]:
    """Return what a runtime cannot run as JSON values."""
    return [{"layer": each.layer, "sentence": each.sentence} for each in violations]


def _by_sentence(violations: Sequence[Violation]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for each in violations:
        found.setdefault(each.sentence, []).append(each.layer)
    return found


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(f"'{name}'" for name in names[:_SHOWN_NAMES])
    return shown if len(names) <= _SHOWN_NAMES else f"{shown} and {len(names) - _SHOWN_NAMES} more"
