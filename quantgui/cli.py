"""The command line: the window, and the same analyses without one.

Exit codes: 0; 2 with one sentence on standard error; 130 after Ctrl+C. With ``--json`` standard output holds one JSON
object and nothing else.
"""

from __future__ import annotations

import argparse
import contextlib
import difflib
import os
import sys
import time
import warnings
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, NoReturn, TextIO, TypeVar

from quantgui import __version__
from quantgui.answers import (
    advice_json,
    evaluation_json,
    evaluation_text,
    export_json,
    export_text,
    inspect_json,
    inspect_text,
    verification_json,
    verification_text,
)
from quantgui.cli_mix import add_mix_arguments, answer_of, mix_from, mix_json, mix_text, read_sensitivity, table_from
from quantgui.cli_noise import noise_json, noise_text
from quantgui.cli_sensitivity import (
    METRIC_HELP,
    add_sweep_arguments,
    sensitivity_json,
    sensitivity_text,
    sweep_from,
)
from quantgui.engine.requests import (
    Evaluate,
    Export,
    FindMix,
    MeasureSensitivity,
    OpenData,
    OpenNetwork,
    Request,
    SetMetric,
    TraceNoise,
    Verify,
)
from quantgui.engine.scheduler import describe
from quantgui.errors import DataError, QuantGuiError, SpecError
from quantgui.interrupts import EXIT_INTERRUPTED, leave_at_interrupt
from quantgui.paths import state_folder
from quantgui.results import (
    Advice,
    DataOpened,
    DataSummary,
    EvaluationReady,
    Event,
    Exported,
    ImageOptions,
    LayerInfo,
    MixReady,
    NetworkOpened,
    NetworkSummary,
    NoiseReady,
    Progress,
    Sensitivity,
    SensitivityReady,
    Verification,
    updated_sensitivity,
)
from quantgui.spec.config import QuantConfig, UnknownName, unknown_names
from quantgui.spec.presets import PRESETS, find_preset, preset_config
from quantgui.spec.serialization import config_to_json, load_config, save_config, write_text_atomically
from quantgui.spec.sweep import METRICS
from quantgui.terminal import ProgressLine, has_display, json_text, metric_name, reserved_stdout, score_text

EXIT_MISTAKE: Final = 2
_SHOWN_NAMES: Final = 5

E = TypeVar("E", bound=Event)
R = TypeVar("R")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    _open_missing_streams()
    try:
        if words and _is_command(words[0]):
            return _run_command(_command_parser().parse_args(words))
        return _open_window(_window_parser().parse_args(words))
    except SystemExit as stop:  # of --help and --version
        return stop.code if isinstance(stop.code, int) else 0
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # Whoever read standard output has gone; nothing may be written to it when Python ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return EXIT_MISTAKE
    except Exception as error:  # noqa: BLE001 -- a user must never see a traceback
        return _report(error)


def _open_missing_streams() -> None:
    """Give what is said somewhere to go where the process was started without standard output or standard error."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 -- as long as the process


def _report(error: Exception) -> int:
    """Write one sentence on standard error, and for bugs the traceback into a file."""
    sentence, details = describe(error)
    if details:
        path = state_folder() / "crash.log"
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(details, encoding="utf-8")
            sentence += f" (details in {path})"
    print(f"quantgui: {sentence}", file=sys.stderr)
    return EXIT_MISTAKE


# --- arguments ----------------------------------------------------------------------------------------------------


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise QuantGuiError(f"{message[0].upper()}{message[1:]}; see {self.prog} --help.")


def _is_command(word: str) -> bool:
    if word in _COMMANDS:
        return True
    if word.startswith("-") or word.endswith(".onnx") or Path(word).exists():
        return False
    near = difflib.get_close_matches(word, _COMMANDS, n=1)
    hint = f"; did you mean '{near[0]}'?" if near else f"; commands are {', '.join(_COMMANDS)}."
    raise QuantGuiError(f"'{word}' is neither a file nor a command{hint}")


def _window_parser() -> argparse.ArgumentParser:
    commands = "\n".join(f"  quantgui {name:<11} {command.help}" for name, command in _COMMANDS.items())
    parser = _Parser(
        prog="quantgui",
        description="Decide how a neural network is quantized: look, change, measure, export, verify.",
        epilog=f"without a window:\n{commands}\n\nquantgui COMMAND --help tells more.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("network", metavar="NETWORK", nargs="?", help="an ONNX file")
    parser.add_argument("--data", metavar="DATA", help=_DATA_HELP)
    parser.add_argument("--version", action="version", version=f"quantgui {__version__}")
    return parser


_DATA_HELP = ".npz or .npy file, folder of images, or random:N"


def _command_parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="quantgui")
    commands = parser.add_subparsers(dest="command", required=True, parser_class=_Parser)
    for name, command in _COMMANDS.items():
        sub = commands.add_parser(name, help=command.help, description=command.help)
        command.add_arguments(sub)
        sub.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    return parser


def _inspect_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("network", metavar="NETWORK", help="an ONNX file")


def _evaluate_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("network", metavar="NETWORK", help="an ONNX file")
    _data_arguments(parser, required=True)
    _config_arguments(parser, required=False)


def _export_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("network", metavar="NETWORK", help="an ONNX file")
    parser.add_argument("-o", "--output", metavar="OUT.onnx", required=True, help="the file to write")
    _data_arguments(parser, required=False)
    _config_arguments(parser, required=True)


def _verify_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("network", metavar="NETWORK", help="the float network, an ONNX file")
    parser.add_argument("exported", metavar="OUT.onnx", help="the file exported from it")
    _data_arguments(parser, required=True)
    _config_arguments(parser, required=False)


def _sensitivity_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("network", metavar="NETWORK", help="an ONNX file")
    add_sweep_arguments(parser)
    _data_arguments(parser, required=True, metric="METRIC", metric_help=METRIC_HELP)
    _config_arguments(parser, required=False)


def _mix_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("network", metavar="NETWORK", help="an ONNX file")
    add_mix_arguments(parser)
    _data_arguments(parser, required=True, metric="METRIC", metric_help=METRIC_HELP, size="--image-size")


def _noise_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("network", metavar="NETWORK", help="an ONNX file")
    _data_arguments(parser, required=True)
    _config_arguments(parser, required=True)


_METRIC, _METRIC_HELP = "FILE.py:FUNCTION", "your metric(outputs, labels) -> score per sample"


def _data_arguments(
    parser: argparse.ArgumentParser,
    *,
    required: bool,
    metric: str = _METRIC,
    metric_help: str = _METRIC_HELP,
    size: str = "--size",
) -> None:
    group = parser.add_argument_group("data")
    group.add_argument("--data", metavar="DATA", required=required, help=_DATA_HELP)
    group.add_argument("--calibration", metavar="DATA", help="other data to take the ranges of activations from")
    group.add_argument("--samples", metavar="N", type=_positive, help="use only the first N samples")
    group.add_argument("--metric", metavar=metric, help=metric_help)
    pictures = parser.add_argument_group(
        "folders of images", "x = (pixel / 255 * scale - mean) / std; what is not given is guessed from the network"
    )
    pictures.add_argument(size, dest="size", metavar="HxW", type=_image_size, help="height and width")
    pictures.add_argument("--layout", choices=("NCHW", "NHWC"), help="order of the axes")
    pictures.add_argument("--mean", metavar="M[,M,M]", type=_numbers, help="mean of each channel")
    pictures.add_argument("--std", metavar="S[,S,S]", type=_numbers, help="standard deviation of each channel")
    pictures.add_argument("--scale", metavar="X", type=float, help="largest value before mean and std: 1 or 255")
    pictures.add_argument("--bgr", action="store_true", help="blue first")


def _config_arguments(parser: argparse.ArgumentParser, *, required: bool) -> None:
    group = parser.add_argument_group("configuration")
    choice = group.add_mutually_exclusive_group(required=required)
    choice.add_argument("--config", metavar="C.json", help="a configuration saved in the window")
    choice.add_argument("--preset", metavar="NAME", help=", ".join(preset.name for preset in PRESETS))
    group.add_argument(
        "--as-is", action="store_true", help="quantize activations even where that ruins the network (with --preset)"
    )
    group.add_argument(
        "--ignore-unknown", action="store_true", help="go on where the configuration names layers that do not exist"
    )


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1, got '{text}'")
    return int(text)


def _image_size(text: str) -> tuple[int, int]:
    height, _, width = text.lower().partition("x")
    if not (height.isdecimal() and width.isdecimal() and int(height) and int(width)):
        raise argparse.ArgumentTypeError(f"must be height x width such as 224x224, got '{text}'")
    return int(height), int(width)


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be numbers with commas between them, got '{text}'") from None


# --- the window ---------------------------------------------------------------------------------------------------


def _open_window(arguments: argparse.Namespace) -> int:
    if not has_display():
        raise QuantGuiError(
            "There is no display to open a window on; work without one by 'quantgui inspect', 'evaluate', 'export' and "
            "'verify', or set DISPLAY."
        )
    with leave_at_interrupt():
        from quantgui.gui.app import run_app

    return run_app(arguments.network, arguments.data)


# --- commands -----------------------------------------------------------------------------------------------------


def _run_command(arguments: argparse.Namespace) -> int:
    with reserved_stdout() as out, warnings.catch_warnings():
        if not sys.warnoptions:
            warnings.simplefilter("ignore")
        progress = ProgressLine(sys.stderr)
        try:
            answer = _COMMANDS[arguments.command].run(_Work(arguments, progress))
        finally:
            progress.clear()
        _write(out, json_text(answer.json) if arguments.json else answer.text)
    return 0


def _write(out: TextIO, text: str) -> None:
    encoding = getattr(out, "encoding", None) or "utf-8"
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        text = text.replace("±", "+/-").encode(encoding, "replace").decode(encoding)
    try:
        out.write(f"{text}\n")
        out.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise QuantGuiError(f"Cannot write the answer to standard output: {error.strerror}.") from error


@dataclass(frozen=True)
class _Answer:
    """What a command found: for programs and for people."""

    json: dict[str, Any]
    text: str


@dataclass(frozen=True)
class _Choice:
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
class _Work:
    """One run of a command: the bench, and the steps all commands share."""

    arguments: argparse.Namespace
    progress: ProgressLine
    started: float = field(default_factory=time.perf_counter)

    def __post_init__(self) -> None:
        # Imports onnx and onnxruntime, which takes longer than reading the arguments.
        with leave_at_interrupt():
            from quantgui.engine.bench import Bench

        samples = getattr(self.arguments, "samples", None)
        self.bench = Bench() if samples is None else Bench(calibration_samples=samples)

    @property
    def seconds(self) -> float:
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

    def _result(self, steps: Generator[Event, None, R]) -> R:
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
        summary = self.answer(OpenNetwork(self.arguments.network), NetworkOpened).summary
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

    def choose_config(self, summary: NetworkSummary, data: DataSummary | None) -> _Choice:
        arguments = self.arguments
        if arguments.config:
            config = load_config(Path(arguments.config))
            if not config.name:
                config = replace(config, name=Path(arguments.config).name)
            return self._known(config, summary)
        if not arguments.preset:
            return _Choice(QuantConfig(name="float32"))
        config = preset_config(find_preset(arguments.preset), summary.layers)
        if (
            data is None
            or arguments.as_is
            or not any(_quantizes_activations(layer, config) for layer in summary.layers)
        ):
            return _Choice(config)
        return self._guarded(config)

    def _guarded(self, config: QuantConfig) -> _Choice:
        """Return `config`, with float activations where quantized ones would ruin the network."""
        kept, advice = self._result(self.bench.guard(config))
        if advice is not None:
            self.note(advice.sentence)
        return _Choice(kept, advice)

    def _known(self, config: QuantConfig, summary: NetworkSummary) -> _Choice:
        """Refuse names that match no layer, or leave them out where the user wants that."""
        unknown = unknown_names(config, (layer.name for layer in summary.layers))
        if not unknown:
            return _Choice(config)
        if not self.arguments.ignore_unknown:
            raise SpecError(f"{_unknown_layers(unknown)}; --ignore-unknown goes on without them.")
        for name in unknown[:_SHOWN_NAMES]:
            self.note(str(name))
        missing = {name.name for name in unknown}
        known = {name: spec for name, spec in config.overrides.items() if name not in missing}
        return _Choice(replace(config, overrides={}).with_overrides(known), unknown=unknown)


def _unknown_layers(unknown: Sequence[UnknownName]) -> str:
    """Return a sentence without full stop on all names that match no layer."""
    if len(unknown) == 1:
        return str(unknown[0])
    hints = [f" (did you mean '{each.nearest}'?)" if each.nearest else "" for each in unknown]
    named = [f"'{each.name}'{hint}" for each, hint in zip(unknown, hints, strict=True)]
    more = f" and {len(named) - _SHOWN_NAMES} more" if len(named) > _SHOWN_NAMES else ""
    return f"The configuration names layers that the network does not have: {', '.join(named[:_SHOWN_NAMES])}{more}"


def _inspect(work: _Work) -> _Answer:
    summary = work.open_network()
    return _Answer(inspect_json(summary), inspect_text(summary))


def _evaluate(work: _Work) -> _Answer:
    summary = work.open_network()
    data = work.open_data()
    choice = work.choose_config(summary, data)
    config, source = choice.config, work.arguments.data
    evaluation = work.answer(Evaluate(config, work.arguments.samples), EvaluationReady).evaluation
    for note in evaluation.notes:
        work.note(note)
    json = evaluation_json(summary, config, source, evaluation) | choice.json(data) | {"seconds": work.seconds}
    return _Answer(json, evaluation_text(summary, config, source, evaluation, work.seconds))


def _export(work: _Work) -> _Answer:
    summary = work.open_network()
    data = work.open_data()
    choice = work.choose_config(summary, data)
    exported = work.answer(Export(choice.config, work.arguments.output), Exported)
    json = export_json(summary, exported) | choice.json(data) | {"seconds": work.seconds}
    return _Answer(json, export_text(summary, exported))


def _verify(work: _Work) -> _Answer:
    summary = work.open_network()
    data = work.open_data()
    choice = _verified_config(work, summary, data)
    verification = work.answer(Verify(choice.config, work.arguments.exported, work.arguments.samples), Verification)
    values = verification_json(summary, choice.config, work.arguments.data, verification)
    text = verification_text(summary, choice.config, verification)
    return _Answer(values | choice.json(data) | {"seconds": work.seconds}, text)


def _sensitivity(work: _Work) -> _Answer:
    arguments, metric = work.arguments, work.arguments.metric
    summary = work.open_network()
    if metric in METRICS:
        arguments.metric = None  # it needs no file
    data = work.open_data()
    choice = work.choose_config(summary, data)
    sweep = sweep_from(arguments, choice.config, metric)
    answer: Sensitivity | None = None
    news: list[SensitivityReady] = []
    try:
        for event in work.bench.handle(MeasureSensitivity(sweep)):
            work.show(event)
            if isinstance(event, Sensitivity):
                answer, news = event, []
            elif isinstance(event, SensitivityReady):
                news.append(event)
    except KeyboardInterrupt:
        if answer is not None:
            _save_json(arguments.output, sensitivity_json(summary, arguments.data, updated_sensitivity(answer, news)))
        work.note("Stopped. What was measured is kept: the same command goes on from there.")
        raise
    if answer is None:
        raise DataError("There is nothing to compute: the data holds no samples.")
    json = sensitivity_json(summary, arguments.data, answer) | choice.json(data)
    _save_json(arguments.output, json)
    return _Answer(json, sensitivity_text(summary, arguments.data, answer))


def _mix(work: _Work) -> _Answer:
    arguments, metric = work.arguments, work.arguments.metric
    summary = work.open_network()
    path = Path(arguments.sensitivity) if arguments.sensitivity else None
    told = None if path is None else read_sensitivity(path, summary)
    if metric in METRICS:
        arguments.metric = None  # it needs no file
    data = work.open_data()
    arguments.metric = metric
    headline = METRICS[0]
    if arguments.drop is not None and metric is None:
        headline = work.answer(Evaluate(QuantConfig(), 1), EvaluationReady).evaluation.metric
    mix = mix_from(arguments, summary, told, headline)
    table = None if told is None or path is None else table_from(told, path, summary, mix)
    answer: MixReady | None = None
    try:
        for event in work.bench.handle(FindMix(mix, table)):
            work.show(event)
            answer = event if isinstance(event, MixReady) else answer
    except KeyboardInterrupt:
        kept = "What was measured is kept: the same command goes on from there"
        best = None if answer is None else answer_of(answer)
        if best is not None and best.measured is not None and arguments.output:
            save_config(best.config, Path(arguments.output))
            kept += f", and '{arguments.output}' holds the best mix so far"
        work.note(f"Stopped. {kept}.")
        raise
    best = None if answer is None else answer_of(answer)
    if answer is None or best is None:
        raise SpecError("No mix of these formats loses as little as the limit asks for; allow more loss, or more bits.")
    if arguments.output:
        save_config(best.config, Path(arguments.output))
    trust = {"trustworthy": None if data is None else data.trustworthy}
    values = mix_json(summary, arguments.data, answer) | trust | {"seconds": work.seconds}
    return _Answer(values, mix_text(summary, arguments.data, answer))


def _noise(work: _Work) -> _Answer:
    summary = work.open_network()
    data = work.open_data()
    choice = work.choose_config(summary, data)
    answer = work.answer(TraceNoise(choice.config, work.arguments.samples), NoiseReady)
    json = noise_json(summary, work.arguments.data, answer) | choice.json(data) | {"seconds": work.seconds}
    return _Answer(json, noise_text(summary, choice.config.name, work.arguments.data, answer))


def _save_json(path: str | None, values: dict[str, Any]) -> None:
    if path:
        write_text_atomically(Path(path), json_text(values) + "\n")


def _quantizes_activations(layer: LayerInfo, config: QuantConfig) -> bool:
    return layer.quantizes_activations and config.spec_for(layer.name).activations is not None


def _verified_config(work: _Work, summary: NetworkSummary, data: DataSummary | None) -> _Choice:
    """Return the configuration from the arguments, else the one that the exported file tells."""
    if work.arguments.config or work.arguments.preset:
        return work.choose_config(summary, data)
    from quantgui.export.metadata import exported_config

    return work._known(exported_config(Path(work.arguments.exported)), summary)


@dataclass(frozen=True)
class _Command:
    help: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[_Work], _Answer]


_COMMANDS: Final = {
    "inspect": _Command("List the layers of a network.", _inspect_arguments, _inspect),
    "evaluate": _Command("Measure the quality of a quantized network.", _evaluate_arguments, _evaluate),
    "sensitivity": _Command(
        "Measure how sensitive the network is to each layer.", _sensitivity_arguments, _sensitivity
    ),
    "mix": _Command("Find the best format for each layer within a limit of size or loss.", _mix_arguments, _mix),
    "noise": _Command("See where noise is made and which samples pay for it.", _noise_arguments, _noise),
    "export": _Command("Write a quantized ONNX file.", _export_arguments, _export),
    "verify": _Command("Compare an exported file with its simulation.", _verify_arguments, _verify),
}
