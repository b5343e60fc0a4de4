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
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from quantgui.analysis.output_roles import class_labels, fits_labels, recognise_outputs
from quantgui.errors import NetworkError
from quantgui.network.batch import Batch
from quantgui.network.executor import Executor
from quantgui.network.network import Network
from quantgui.network.simulation import FLOAT_SIMULATION
from quantgui.results import Array, DataSummary, Event, Finding, ImageOptions, Progress, TensorInfo

TRIED_SAMPLES = 12
_MOST_VALUES = 16 * 3 * 320 * 320
"""Values of the input that are run at most for each preparation: large pictures are tried on fewer samples."""
_BATCH = 8
_COLOURS = (1, 3, 4)

_LEVELS = (-3.5, 2.0)
"""Levels of a first layer that are usual, with a margin of one to both sides of what was measured."""
_TOO_LARGE, _TOO_SMALL = 3.0, -5.0
_OFF, _CENTRED = 1.5, 1.3
_MISMATCH, _MATCH = 1.0, 0.3
"""Kullback-Leibler divergence of a channel from what its BatchNormalization saw in training, in nats."""
_FEWEST = 6
"""Samples from which certainty or accuracy are compared."""
_FEWEST_CLASSES = 10
_SIGMAS = 2.5
_AS_GOOD = 0.35

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class CheckedData(Protocol):
    """What the checks need of `network.datasets.Dataset`."""

    @property
    def summary(self) -> DataSummary: ...
    @property
    def carried(self) -> Mapping[str, str]: ...
    @property
    def shared(self) -> frozenset[str]: ...
    def batches(self, batch_size: int | None = None, samples: int | None = None) -> Iterator[Batch]: ...


@dataclass(frozen=True, slots=True)
class Preparation:
    """One way to make inputs of pictures: ``(pixel 0 ... 1 * scale - mean) / std`` per channel, perhaps blue first."""

    title: str
    scale: float = 1.0
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    bgr: bool = False

    def words(self) -> str:
        """Return how it is written in the image options."""
        numbers = (",".join(f"{x:g}" for x in dict.fromkeys(values)) for values in (self.mean, self.std))
        return "scale {:g}, mean {}, std {}".format(self.scale, *numbers)


PREPARATIONS = (
    Preparation("0 … 1"),
    Preparation("0 … 255", 255.0),
    Preparation("−1 … 1", 1.0, (0.5,), (0.5,)),
    Preparation("ImageNet's mean and standard deviation", 1.0, IMAGENET_MEAN, IMAGENET_STD),
)


@dataclass(frozen=True, slots=True, eq=False)
class Evidence:
    """What one preparation does in the network; NaN or None where it cannot be told.

    Attributes:
        level: log2 of the scale of the first layer's output over that of its bias.
        offset: root mean square of its channels' means over that of their standard deviations.
        mismatch: how far the first BatchNormalization is from what it saw in training, in nats per channel.
        entropy: (S,) uncertainty of the class of each sample, 0 ... 1.
        correct: (S,) whether the top class is the label.
    """

    level: float = math.nan
    offset: float = math.nan
    mismatch: float = math.nan
    entropy: Array | None = None
    correct: Array | None = None

    def cost(self) -> float:
        """Return how badly the preparation fits; 0 is best."""
        cost = 0.0
        if math.isfinite(self.level):
            cost += max(_LEVELS[0] + 1.2 - self.level, self.level - _LEVELS[1] + 0.3, 0.0)
        if math.isfinite(self.offset):
            cost += max(self.offset - 1.2, 0.0)
        if math.isfinite(self.mismatch):
            cost += max(self.mismatch - 0.1, 0.0)
        if self.entropy is not None:
            cost += float(self.entropy.mean())
        if self.correct is not None:
            cost += 3 * (1 - float(self.correct.mean()))
        return cost


def check_preprocessing(executor: Executor, dataset: CheckedData) -> Iterator[Event | Finding | str]:
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
    trials = _trials(batches, info, axis, dataset.summary.image_options)
    probe = _probe(executor)
    evidence: dict[str, Evidence] = {}
    for place, (title, (_, values)) in enumerate(trials.items()):
        progress = Progress(place, len(trials), "Trying other preparations")
        try:
            evidence[title] = yield from _evidence(executor, batches, info.name, values, probe, progress)
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


def channel_axis(info: TensorInfo, shape: Sequence[int], options: ImageOptions | None) -> int | None:
    """Return the axis of the colours of an array of pictures (S, ...), None where it holds no pictures."""
    if len(shape) != 4:
        return None
    if options is not None:
        return 1 if options.layout == "NCHW" else 3
    declared = info.shape or ()
    for axis in (1, 3):
        if len(declared) == 4 and declared[axis] in _COLOURS:
            return axis
    return next((axis for axis in (1, 3) if shape[axis] in _COLOURS), None)


# --- what is tried ----------------------------------------------------------------------------------------------------


def _judged_input(network: Network, dataset: CheckedData) -> TensorInfo | None:
    """Return the one input whose values can be scaled; None where there is none, or several, or a state is carried."""
    if dataset.carried:
        return None
    own = [info for info in network.summary.inputs if info.name not in dataset.shared]
    floats = [info for info in own if np.dtype(info.dtype).kind == "f"]
    big = [info for info in floats if info.shape is None or len(info.shape) > 1]
    return big[0] if len(big) == 1 else None


def _batches(dataset: CheckedData, info: TensorInfo) -> list[Batch]:
    """Return a few samples, fewer where they are large."""
    found: list[Batch] = []
    values = 0
    for batch in dataset.batches(_BATCH, TRIED_SAMPLES):
        values += batch.inputs[info.name].size
        if found and values > _MOST_VALUES:
            break
        found.append(batch)
    return found


Trials = dict[str, tuple[Preparation | None, list[Array]]]


def _trials(batches: Sequence[Batch], info: TensorInfo, axis: int | None, options: ImageOptions | None) -> Trials:
    """Return the values of the input in each batch, by the name of the preparation; the present one comes first."""
    arrays = [batch.inputs[info.name] for batch in batches]
    if axis is None:
        return {
            "as it is": (None, arrays),
            "32768 times smaller": (None, [each / np.float32(32768) for each in arrays]),
            "32768 times larger": (None, [each * np.float32(32768) for each in arrays]),
        }
    present, pixels = undone(arrays, axis, options)
    channels = arrays[0].shape[axis]
    trials: Trials = {present: (None, arrays)}
    for each in PREPARATIONS:
        if each.title == present or (len(each.mean) > 1 and channels != len(each.mean)):
            continue
        prepared = replace(each, bgr=options.bgr) if options is not None else each
        trials[each.title] = (prepared, [_prepared(x, each, axis, info.dtype) for x in pixels])
    if channels != len(IMAGENET_MEAN):
        mean = float(np.mean([x.mean() for x in pixels]))
        std = float(np.sqrt(max(np.mean([np.square(x).mean() for x in pixels]) - mean**2, 1e-12)))
        own = Preparation("mean 0 and standard deviation 1", 1.0, (round(mean, 4),), (round(std, 4),))
        known = options is not None or present in {each.title for each in PREPARATIONS}
        trials[own.title] = (own if known else None, [_prepared(x, own, axis, info.dtype) for x in pixels])
    else:
        trials["swapped"] = (None, [np.flip(x, axis) for x in arrays])
    return trials


def undone(arrays: Sequence[Array], axis: int, options: ImageOptions | None) -> tuple[str, list[Array]]:
    """Return what the preparation of pictures looks like, and them as 0 ... 1."""
    if options is not None:
        mean, std = (_along(values, axis) for values in (options.mean, options.std))
        pixels = [(x * std + mean) / options.scale for x in arrays]
        title = Preparation("", options.scale, options.mean, options.std).words()
        known = next((p.title for p in PREPARATIONS if p.words() == title), title)
        return known, [np.asarray(x, np.float32) for x in pixels]
    low, high = min(float(x.min()) for x in arrays), max(float(x.max()) for x in arrays)
    if low >= 0 and high <= 1.001:
        return "0 … 1", list(arrays)
    if low >= 0 and 2 < high <= 255.5:
        return "0 … 255", [x / np.float32(255) for x in arrays]
    if low >= -1.01 and high <= 1.01:
        return "−1 … 1", [(x + 1) / 2 for x in arrays]
    if arrays[0].shape[axis] == len(IMAGENET_MEAN):
        mean, std = _along(IMAGENET_MEAN, axis), _along(IMAGENET_STD, axis)
        pixels = [x * std + mean for x in arrays]
        if all(float(x.min()) >= -0.02 and float(x.max()) <= 1.02 for x in pixels):
            return PREPARATIONS[3].title, pixels
    return f"{low:.3g} … {high:.3g}", [(x - low) / ((high - low) or 1.0) for x in arrays]


def _along(values: Sequence[float], axis: int) -> Array:
    array = np.asarray(values, np.float32)
    return array.reshape(-1, 1, 1) if axis == 1 else array


def _prepared(pixels: Array, how: Preparation, axis: int, dtype: str) -> Array:
    values = (pixels * np.float32(how.scale) - _along(how.mean, axis)) / _along(how.std, axis)
    return np.ascontiguousarray(values, np.dtype(dtype))


# --- evidence ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class _Probe:
    """The first place of the network that tells what it saw in training: a normalization, or a layer with a bias."""

    layer: str
    tensor: str
    bias: Array | None = None
    mean: Array | None = None
    variance: Array | None = None


def _probe(executor: Executor) -> _Probe | None:
    network = executor.network
    constants: Mapping[str, Any] = network.constants
    layers = {layer.node: layer for layer in network.summary.layers}
    for node in network.skeleton.graph.node:
        if node.op_type == "BatchNormalization" and executor.fetchable(node.input[0]):
            mean, variance = (constants.get(name) for name in node.input[3:5])
            if mean is not None and variance is not None:
                return _Probe(node.name, node.input[0], mean=np.ravel(mean), variance=np.ravel(variance))
        bias = constants.get(node.input[2]) if len(node.input) > 2 else None
        layer = layers.get(node.name)
        if node.op_type not in ("Conv", "Gemm") or layer is None or layer.signal_transform:
            continue
        if bias is not None and np.any(bias) and executor.fetchable(node.output[0]):
            return _Probe(layer.name, node.output[0], bias=np.ravel(bias))
    return None


def _evidence(
    executor: Executor,
    batches: Sequence[Batch],
    name: str,
    values: Sequence[Array],
    probe: _Probe | None,
    progress: Progress,
) -> Generator[Progress, None, Evidence]:
    fetch = () if probe is None else (probe.tensor,)
    seen: list[Array] = []
    outputs: dict[str, list[Array]] = {}
    for batch, array in zip(batches, values, strict=True):
        yield progress
        key = f"{batch.key}|{float(array.astype(np.float64).sum())!r}"
        inputs = {**batch.inputs, name: np.ascontiguousarray(array, batch.inputs[name].dtype)}
        results = executor.run(replace(batch, inputs=inputs, key=key), FLOAT_SIMULATION, fetch, keep=False)
        seen += [batch.split(results[each]) for each in fetch]
        for info in executor.network.summary.outputs:
            if info.name in results:
                outputs.setdefault(info.name, []).append(batch.split(results[info.name]))
    level, offset, mismatch = _at_probe(seen, probe)
    labels = None
    if all(batch.labels is not None for batch in batches):
        labels = class_labels(np.concatenate([np.asarray(batch.labels) for batch in batches]))
    entropy, correct = _classes(executor.network, outputs, labels)
    return Evidence(level, offset, mismatch, entropy, correct)


def _at_probe(seen: Sequence[Array], probe: _Probe | None) -> tuple[float, float, float]:
    """Return level, offset and mismatch at the probe."""
    if probe is None or not seen or seen[0].ndim < 2:
        return math.nan, math.nan, math.nan
    # The channels come second, behind the samples.
    columns = [np.moveaxis(each, 1, 0).reshape(each.shape[1], -1).astype(np.float64) for each in seen]
    matrix = np.concatenate(columns, 1)
    mean, std = matrix.mean(1), matrix.std(1)
    if not np.isfinite(matrix).all() or not std.any():
        return math.inf, math.nan, math.nan
    if probe.bias is None:
        assert probe.mean is not None
        assert probe.variance is not None
        variance = np.maximum(probe.variance.astype(np.float64), 1e-12)
        ratio = np.maximum(std**2, 1e-12) / variance
        return (
            math.nan,
            math.nan,
            float(np.median(((mean - probe.mean) ** 2 / variance + ratio - 1 - np.log(ratio)) / 2)),
        )
    scale = float(np.sqrt(np.mean(np.square(probe.bias, dtype=np.float64))))
    level = math.log2(max(float(np.median(std)), 1e-30) / scale)
    return level, float(np.sqrt(np.mean(mean**2) / np.mean(std**2))), math.nan


def _classes(
    network: Network, outputs: Mapping[str, Sequence[Array]], labels: Array | None
) -> tuple[Array | None, Array | None]:
    """Return the uncertainty and the correctness of the first output that holds one score per class and sample."""
    whole = {name: np.concatenate(parts) for name, parts in outputs.items() if len({p.shape[1:] for p in parts}) == 1}
    entropy = correct = None
    for name, role in recognise_outputs(network.skeleton, whole, labels).items():
        values = whole[name]
        if labels is not None and correct is None and fits_labels(values, role, labels) and role.axis > 0:
            hits = values.argmax(role.axis) == labels.reshape(values.argmax(role.axis).shape)
            correct = hits.reshape(len(hits), -1).mean(1)
        single = role.is_class_like and role.axis == 1 and values.size == values.shape[0] * values.shape[1]
        if entropy is None and single and values.shape[1] >= _FEWEST_CLASSES and np.isfinite(values).all():
            scores = values.reshape(len(values), -1).astype(np.float64)
            shares = scores if role.kind == "probabilities" else np.exp(scores - scores.max(1, keepdims=True))
            shares = np.maximum(shares / shares.sum(1, keepdims=True), 1e-12)
            entropy = -(shares * np.log(shares)).sum(1) / math.log(shares.shape[1])
    return entropy, correct


# --- judgement --------------------------------------------------------------------------------------------------------


def _judge(
    present: Evidence,
    others: Mapping[str, Evidence],
    prepared: Mapping[str, Preparation | None],
    info: TensorInfo,
    probe: _Probe | None,
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
        if _LEVELS[0] <= each.level <= _LEVELS[1] and abs(each.level - level) > 3.5
    ]
    if not fitting:
        return None
    times = 2.0 ** abs(level)
    much = f"{times:.0f} times the biases" if level > 0 else f"only 1/{times:.0f} of the biases"
    size = "large" if level > 0 else "small"
    return "error", f"they are far too {size}, as what the layer makes of them is {much}", fitting


def _by_offset(present: Evidence, others: Mapping[str, Evidence]) -> Judgement | None:
    offset = present.offset
    usual = _LEVELS[0] - 1 <= present.level <= _LEVELS[1]
    if not (usual and offset > _OFF):
        return None
    fitting = [
        name
        for name, each in others.items()
        if each.offset <= min(_CENTRED, 0.75 * offset)
        and _LEVELS[0] <= each.level <= _LEVELS[1]
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
