"""Whether inputs are prepared as the network was trained: other preparations are tried on a few samples.

What is compared, from the strongest evidence to the weakest:

1. accuracy, where labels say what is right;
2. a BatchNormalization that the file still holds says what mean and variance it saw in training;
3. the first layer with a bias, into which such a normalization was folded: its output then has the scale of the bias
   (here: median standard deviation of the channels over the root mean square of the biases, as a power of two), and
   means that are no larger than its standard deviations. Inputs 255 times too large raise the former by 8, inputs
   that are not centred raise the latter;
4. how certain the network is of its classes (entropy): only to choose among preparations that pass the others, and to
   tell the order of colours, sample by sample.

Measured on trained networks: the right preparation has levels of -2.1 to 0.9 and offsets of 0.5 to 1.2.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import numpy as np

from quantgui.analysis.input_evidence import USUAL_LEVELS, Evidence, Probe, find_probe, gather_evidence
from quantgui.analysis.preparations import Preparation, channel_axis, prepare_trials
from quantgui.analysis.samples import SharedSamples
from quantgui.errors import NetworkError
from quantgui.network.batch import Batch
from quantgui.network.executor import Executor
from quantgui.network.network import Network
from quantgui.results import Array, Event, Finding, Progress, TensorInfo

TRIED_SAMPLES = 12
_MOST_VALUES = 16 * 3 * 320 * 320
"""Values of the input that are run at most for each preparation: large pictures are tried on fewer samples."""
_BATCH = 8
_TOO_LARGE, _TOO_SMALL = 3.0, -5.0
_OFF, _CENTRED = 1.5, 1.3
_MISMATCH, _MATCH = 1.0, 0.3
"""Kullback-Leibler divergence of a channel from what its BatchNormalization saw in training, in nats."""
_FEWEST = 6
"""Samples from which certainty or accuracy are compared."""
_SIGMAS = 2.5
_AS_GOOD = 0.35


def check_preprocessing(executor: Executor, dataset: SharedSamples) -> Iterator[Event | Finding | str]:
    """Yield Progress, findings, and a sentence for what could not be judged.

    Raises:
        NetworkError: the network cannot be run.
    """
    network = executor.network
    info = _judged_input(network, dataset)
    if info is None:
        why = "there is no single input of floating point"
        if dataset.carried:
            why = "the network carries a state from sample to sample"
        yield f"The values of the inputs are not compared with others: {why}."
        return
    batches = _batches(dataset, info)
    axis = channel_axis(info, batches[0].inputs[info.name].shape, dataset.summary.image_options)
    yield from _layout(np.concatenate([each.inputs[info.name] for each in batches]), axis, info)
    trials = prepare_trials(batches, info, axis, dataset.summary.image_options)
    probe = find_probe(executor)
    evidence: dict[str, Evidence] = {}
    for place, (title, (_, values)) in enumerate(trials.items()):
        progress = Progress(place, len(trials), "Trying other preparations")
        try:
            evidence[title] = yield from gather_evidence(executor, batches, info.name, values, probe, progress)
        except NetworkError:
            # Numbers of words in an input of floating point, for example, are looked up in a table: others do not fit.
            if place == 0:
                raise
    present, *others = evidence
    prepared = {title: trials[title][0] for title in others}
    finding = _judge(evidence[present], {title: evidence[title] for title in others}, prepared, info, probe, present)
    if finding is not None:
        yield finding
    elif probe is None and evidence[present].correct is None:
        yield (
            f"Whether the range of '{info.name}' is right cannot be told: the first layers have neither a bias nor a "
            "normalization to compare with, and there are no labels."
        )


# --- what is tried ----------------------------------------------------------------------------------------------------


def _judged_input(network: Network, dataset: SharedSamples) -> TensorInfo | None:
    """Return the one input whose values can be scaled; None where there is none, or several, or a state is carried."""
    if dataset.carried:
        return None
    own = [info for info in network.summary.inputs if info.name not in dataset.shared]
    floats = [info for info in own if np.dtype(info.dtype).kind == "f"]
    big = [info for info in floats if info.shape is None or len(info.shape) > 1]
    return big[0] if len(big) == 1 else None


def _batches(dataset: SharedSamples, info: TensorInfo) -> list[Batch]:
    """Return a few samples, fewer where they are large."""
    found: list[Batch] = []
    values = 0
    for batch in dataset.batches(_BATCH, TRIED_SAMPLES):
        values += batch.inputs[info.name].size
        if found and values > _MOST_VALUES:
            break
        found.append(batch)
    return found


# --- judgement --------------------------------------------------------------------------------------------------------


def _judge(
    present: Evidence,
    others: Mapping[str, Evidence],
    prepared: Mapping[str, Preparation | None],
    info: TensorInfo,
    probe: Probe | None,
    title: str,
) -> Finding | None:
    scaled = {name: each for name, each in others.items() if name != "swapped"}
    layers = () if probe is None or probe.bias is None else (probe.layer,)
    for better in (_by_labels, _by_training, _by_level, _by_offset):
        found = better(present, scaled)
        if found is None:
            continue
        severity, reason, fitting = found
        order = sorted(fitting, key=lambda name: scaled[name].cost())
        best = order[0]
        near = [name for name in order[1:] if scaled[name].cost() - scaled[best].cost() < _AS_GOOD]
        where = f" at '{probe.layer}'" if probe is not None and better is not _by_labels else ""
        sentence = f"The values of '{info.name}' ({title}) do not look like those of training: {reason}{where}."
        how = prepared[best]
        advice = f"Prepare them as {best}" + (f" ({how.words()})" if how is not None else "")
        advice += f"; {' or '.join(near)} fits about as well." if near else "."
        numbers = _numbers(present) | {f"{key} of {best}": value for key, value in _numbers(scaled[best]).items()}
        return Finding("range of inputs", severity, sentence, advice, layers, info.name, numbers=numbers)
    return _swapped(present, others.get("swapped"), info)


Judgement = tuple[str, str, list[str]]


def _by_labels(present: Evidence, others: Mapping[str, Evidence]) -> Judgement | None:
    correct = present.correct
    if correct is None or len(correct) < _FEWEST:
        return None
    better = []
    for name, each in others.items():
        if each.correct is not None:
            gain = each.correct - correct
            if gain.mean() > 0.15 and gain.sum() > _SIGMAS * math.sqrt(float(np.square(gain).sum())):
                better.append(name)
    if not better:
        return None
    best = max(better, key=lambda name: float(others[name].correct.mean()))  # type: ignore[union-attr]
    gained = float(others[best].correct.mean())  # type: ignore[union-attr]
    reason = f"{correct.mean():.0%} of {len(correct)} labels are met, {gained:.0%} as {best}"
    return "error", reason, [best]


def _by_training(present: Evidence, others: Mapping[str, Evidence]) -> Judgement | None:
    if not present.mismatch > _MISMATCH:
        return None
    fitting = [name for name, each in others.items() if each.mismatch < _MATCH * present.mismatch]
    if not fitting:
        return None
    best = min(fitting, key=lambda name: others[name].mismatch)
    reason = (
        f"the statistics that the normalization learned are {present.mismatch:.2g} nats away, "
        f"{others[best].mismatch:.2g} as {best}; seen"
    )
    return "error", reason, fitting


def _by_level(present: Evidence, others: Mapping[str, Evidence]) -> Judgement | None:
    level = present.level
    if not (level > _TOO_LARGE or level < _TOO_SMALL):
        return None
    fitting = [
        name
        for name, each in others.items()
        if USUAL_LEVELS[0] <= each.level <= USUAL_LEVELS[1] and abs(each.level - level) > 3.5
    ]
    if not fitting:
        return None
    times = 2.0 ** abs(level)
    much = f"{times:.0f} times the biases" if level > 0 else f"only 1/{times:.0f} of the biases"
    size = "large" if level > 0 else "small"
    return "error", f"they are far too {size}, as what the layer makes of them is {much}", fitting


def _by_offset(present: Evidence, others: Mapping[str, Evidence]) -> Judgement | None:
    offset = present.offset
    usual = USUAL_LEVELS[0] - 1 <= present.level <= USUAL_LEVELS[1]
    if not (usual and offset > _OFF):
        return None
    fitting = [
        name
        for name, each in others.items()
        if each.offset <= min(_CENTRED, 0.75 * offset)
        and USUAL_LEVELS[0] <= each.level <= USUAL_LEVELS[1]
        and not _surer(each.entropy, present.entropy)
        and not _worse(each.correct, present.correct)
    ]
    if not fitting:
        return None
    reason = f"they are not centred, as the channels' means are {offset:.1f} times their standard deviations"
    return "warning", reason, fitting


def _swapped(present: Evidence, swapped: Evidence | None, info: TensorInfo) -> Finding | None:
    if swapped is None:
        return None
    by_labels = _by_labels(present, {"swapped": swapped}) is not None
    if not by_labels and not _surer(present.entropy, swapped.entropy):
        return None
    if _worse(swapped.correct, present.correct):
        return None
    what = "right on more labels" if by_labels else "surer of its classes"
    return Finding(
        "order of colours",
        "error" if by_labels else "warning",
        f"The colours of '{info.name}' seem to be swapped: the network is {what} with red and blue exchanged.",
        "Exchange red and blue (the option “blue first” of the images).",
        tensor=info.name,
        numbers=_numbers(present) | {f"{key} swapped": value for key, value in _numbers(swapped).items()},
    )


def _surer(uncertain: Array | None, certain: Array | None) -> bool:
    """Return whether the second is surer of the samples' classes, beyond chance."""
    if uncertain is None or certain is None or len(uncertain) < _FEWEST:
        return False
    gain = uncertain - certain
    error = float(gain.std(ddof=1)) / math.sqrt(len(gain))
    return bool(gain.mean() > max(_SIGMAS * error, 0.03) and (gain > 0).mean() >= 0.75)


def _worse(correct: Array | None, reference: Array | None) -> bool:
    return correct is not None and reference is not None and bool(correct.mean() < reference.mean())


def _numbers(evidence: Evidence) -> dict[str, float]:
    found = {"level": evidence.level, "offset": evidence.offset, "mismatch_nats": evidence.mismatch}
    if evidence.entropy is not None:
        found["uncertainty"] = float(evidence.entropy.mean())
    if evidence.correct is not None:
        found["accuracy"] = float(evidence.correct.mean())
    return {name: value for name, value in found.items() if math.isfinite(value)}


def _layout(values: Array, axis: int | None, info: TensorInfo) -> Iterator[Finding]:
    """Say where pictures were reshaped instead of transposed: then every third value belongs to the same colour."""
    if axis != 1 or values.shape[1] != 3 or values.shape[3] < 12:
        return
    steps = [float(np.abs(np.diff(values[..., ::lag], axis=3)).mean()) for lag in (1, 3)]
    if steps[1] < 0.6 * steps[0]:
        yield Finding(
            "layout",
            "error",
            f"The pictures of '{info.name}' are scrambled: values three apart are more alike than neighbours "
            f"({steps[1]:.2g} against {steps[0]:.2g}), so colours stand where columns belong.",
            "Transpose the array from height x width x colours to colours x height x width instead of reshaping it.",
            tensor=info.name,
            numbers={"step_1": steps[0], "step_3": steps[1]},
        )
