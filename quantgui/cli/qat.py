"""``quantgui qat``: train the weights and scales of a configuration, and write the quantized network.

It trains on the data that ranges come from (``--calibration``, else ``--data``) and measures quality on ``--data``.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from quantgui.cli.answers import Json, sizes
from quantgui.cli.arguments import (
    add_config_arguments,
    add_data_arguments,
    add_network_argument,
    add_target_argument,
    positive,
)
from quantgui.cli.command import Answer, Command
from quantgui.cli.sensitivity_file import require_place
from quantgui.cli.work import Work, violations_json
from quantgui.engine.requests import Export, Train
from quantgui.errors import DataError
from quantgui.interrupts import EXIT_INTERRUPTED
from quantgui.results import Evaluation, Exported, NetworkSummary, Progress, TrainingReady
from quantgui.spec.config import QuantConfig
from quantgui.spec.serialization import save_config
from quantgui.spec.trained_files import trained_states
from quantgui.spec.training import TEACHERS, TRAINING_SCOPES, Training
from quantgui.terminal import score_json, table
from quantgui.wording import duration, metric_name, score_text, size, times_smaller

_USUAL = Training()


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add_network_argument(parser)
    parser.add_argument("-o", "--output", metavar="OUT", required=True, help="the quantized ONNX file to write")
    parser.add_argument("--config-out", metavar="C.json", help="also save the trained configuration, with its weights")
    group = parser.add_argument_group("training")
    group.add_argument(
        "--steps", metavar="N", type=positive, default=_USUAL.steps, help="optimizer steps (%(default)s)"
    )
    group.add_argument(
        "--batch", metavar="N", type=positive, default=_USUAL.batch_size, help="samples per step (%(default)s)"
    )
    group.add_argument(
        "--learning-rate",
        metavar="R",
        type=float,
        default=_USUAL.learning_rate,
        help="highest rate, relative to the size of each layer's weights (%(default)s)",
    )
    group.add_argument(
        "--teacher",
        choices=TEACHERS,
        default=_USUAL.teacher,
        help="float: the outputs of the float network (the default); labels: the data's",
    )
    group.add_argument(
        "--scope",
        choices=TRAINING_SCOPES,
        default=_USUAL.scope,
        help="network: all layers at once (the default); blocks: piece by piece, for less memory, and for networks "
        "that cannot be differentiated as a whole",
    )
    group.add_argument("--fixed-scales", action="store_true", help="train weights only, scales stay as they are found")
    group.add_argument(
        "--patience",
        metavar="N",
        type=_count,
        default=_USUAL.patience,
        help="stop after N evaluations without a better one in the second half, 0 for never (%(default)s)",
    )
    group.add_argument("--seed", metavar="N", type=_count, default=_USUAL.seed, help="of the order of samples")
    group.add_argument(
        "--window",
        metavar="N",
        type=positive,
        default=_USUAL.window,
        help="where recurrent state goes from sample to sample: the most samples that gradients flow back through "
        "(%(default)s)",
    )
    add_target_argument(parser, "also say what this runtime cannot run")
    add_data_arguments(parser, required=True)
    add_config_arguments(parser, required=True)


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"must be a whole number from 0, got '{text}'")
    return int(text)


def _run(work: Work) -> Answer:
    arguments = work.arguments
    require_place(arguments.output)
    require_place(arguments.config_out)
    training = _training(arguments)
    summary = work.open_network()
    data = work.open_data()
    choice = work.choose_config(summary, data)
    found, interrupted = _train(work, Train(choice.config, training))
    for note in found.notes:
        work.note(note)
    if found.trained is None and found.steps:
        work.note("Nothing was better than the configuration as it was, so that is written.")
    config = replace(found.trained or choice.config, name=choice.config.name)
    violations = work.violations(summary, config)
    exported = work.answer(Export(config, arguments.output), Exported)
    if arguments.config_out:
        save_config(config, Path(arguments.config_out))
    json = _json(summary, config, arguments.data, found, exported) | choice.json(data)
    json |= {"violations": violations_json(violations), "interrupted": interrupted, "seconds": work.seconds}
    text = _text(summary, arguments.data, config, found, exported)
    return Answer(json, text, EXIT_INTERRUPTED if interrupted else 0)


def _training(arguments: argparse.Namespace) -> Training:
    return Training(
        steps=arguments.steps,
        batch_size=arguments.batch,
        learning_rate=arguments.learning_rate,
        learn_scales=not arguments.fixed_scales,
        teacher=arguments.teacher,
        scope=arguments.scope,
        patience=arguments.patience,
        seed=arguments.seed,
        window=arguments.window,
    )


def _train(work: Work, request: Train) -> tuple[TrainingReady, bool]:
    """Return the last answer, and whether Ctrl+C broke the training off after something was better."""
    found: TrainingReady | None = None
    try:
        for event in work.bench.handle(request):
            if isinstance(event, TrainingReady):
                if event.resumed and (found is None or not found.resumed):
                    known = "This training is known" if event.complete else "Going on"
                    work.note(f"{known}: {event.resumed} steps were done before.")
                found = event
            elif isinstance(event, Progress) and event.label == "Training":
                work.progress.show(event, _standing(found))
            else:
                work.show(event)
    except KeyboardInterrupt:
        work.progress.clear()
        if found is None or found.trained is None:
            work.note("Stopped before anything was better. The same command goes on from there.")
            raise
        work.note(f"Stopped. The best, of step {found.best}, is written; the same command goes on from there.")
        return found, True
    work.progress.clear()
    if found is None:
        raise DataError("There is nothing to compute: the data holds no samples.")
    return found, False


def _standing(found: TrainingReady | None) -> str:
    if found is None or found.before is None:
        return ""
    best = found.after or found.before
    metric = best.metric
    loss = f"loss {found.losses[-1]:.4g}, " if len(found.losses) else ""
    return f"{loss}best {metric_name(metric)} {score_text(metric, best.quantized_score)}"


def _quality(evaluation: Evaluation | None) -> Json | None:
    if evaluation is None:
        return None
    return {
        **score_json(evaluation.quantized_score),
        "output_sqnr_db": evaluation.output_sqnr_db,
        "scores": {name: score_json(score) for name, score in evaluation.scores.items()},
    }


def _json(summary: NetworkSummary, config: QuantConfig, data: str, found: TrainingReady, exported: Exported) -> Json:
    """Return a training as JSON values."""
    before = found.before
    after = found.after or before
    return {
        "network": summary.name,
        "data": data,
        "path": exported.path,
        "samples": None if before is None else before.total_samples,
        "metric": None if before is None else before.metric,
        "higher_is_better": None if before is None else before.higher_is_better,
        "float": None if before is None else score_json(before.float_score),
        "before": _quality(before),
        "after": _quality(after),
        "steps": found.steps,
        "best_step": found.best,
        "complete": found.complete,
        "resumed": found.resumed,
        "training_seconds": found.seconds,
        "losses": [[int(step), float(loss)] for step, loss in zip(found.loss_steps, found.losses, strict=True)],
        "evaluations": [[step, score_json(each.quantized_score)] for step, each in found.evaluations],
        "layers": found.layers,
        "states": sorted(trained_states(config)),
        "notes": [*found.notes, *exported.notes],
        "file_bytes": exported.file_bytes,
        **sizes(summary, config),
    }


def _text(summary: NetworkSummary, data: str, config: QuantConfig, found: TrainingReady, exported: Exported) -> str:
    """Return the quality before and after as a table."""
    before = found.before
    assert before is not None
    after = found.after or before
    metric = before.metric
    rows = [
        ["", "float", "before", "after"],
        [
            metric_name(metric),
            *(score_text(metric, each) for each in (before.float_score, before.quantized_score, after.quantized_score)),
        ],
    ]
    rows += [
        [metric_name(name), "", score_text(name, score), score_text(name, after.scores[name])]
        for name, score in before.scores.items()
        if name not in (metric, "user") and name in after.scores
    ]
    head = (
        f"{summary.name} with {config.name or 'the configuration'} on {before.total_samples} samples of {data}: "
        f"{found.steps} steps in {duration(found.seconds)}, best after step {found.best or 0}"
    )
    smaller = times_smaller(summary.file_bytes, exported.file_bytes)
    return "\n".join([head, table(rows), f"  {exported.path}: {size(exported.file_bytes)}, {smaller} smaller"])


COMMAND = Command("Train the weights and scales of a quantized network.", _add_arguments, _run)
