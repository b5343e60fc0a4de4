"""What one preparation of the inputs does in the network: at its first layers, and to what it says of the classes."""

from __future__ import annotations

import math
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from quantgui.analysis.output_roles import class_labels, fits_labels, recognise_outputs
from quantgui.network.batch import Batch
from quantgui.network.executor import Executor
from quantgui.network.network import Network
from quantgui.network.simulation import FLOAT_SIMULATION
from quantgui.results import Array, Progress

USUAL_LEVELS = (-3.5, 2.0)
"""Levels of a first layer that are usual, with a margin of one to both sides of what was measured."""
_FEWEST_CLASSES = 10


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
            cost += max(USUAL_LEVELS[0] + 1.2 - self.level, self.level - USUAL_LEVELS[1] + 0.3, 0.0)
        if math.isfinite(self.offset):
            cost += max(self.offset - 1.2, 0.0)
        if math.isfinite(self.mismatch):
            cost += max(self.mismatch - 0.1, 0.0)
        if self.entropy is not None:
            cost += float(self.entropy.mean())
        if self.correct is not None:
            cost += 3 * (1 - float(self.correct.mean()))
        return cost


@dataclass(frozen=True, slots=True, eq=False)
class Probe:
    """The first place of the network that tells what it saw in training: a normalization, or a layer with a bias.

    Attributes:
        layer: name of the node or layer.
        tensor: what is looked at: the input of the normalization, or the output of the layer.
        bias: (C,) bias of the layer.
        mean, variance: (C,) what the normalization learned.
    """

    layer: str
    tensor: str
    bias: Array | None = None
    mean: Array | None = None
    variance: Array | None = None


def find_probe(executor: Executor) -> Probe | None:
    """Return the first place that tells what the network saw in training; None where there is none."""
    network = executor.network
    constants: Mapping[str, Any] = network.constants
    layers = {layer.node: layer for layer in network.summary.layers}
    for node in network.skeleton.graph.node:
        if node.op_type == "BatchNormalization" and executor.fetchable(node.input[0]):
            mean, variance = (constants.get(name) for name in node.input[3:5])
            if mean is not None and variance is not None:
                return Probe(node.name, node.input[0], mean=np.ravel(mean), variance=np.ravel(variance))
        bias = constants.get(node.input[2]) if len(node.input) > 2 else None
        layer = layers.get(node.name)
        if node.op_type not in ("Conv", "Gemm") or layer is None or layer.signal_transform:
            continue
        if bias is not None and np.any(bias) and executor.fetchable(node.output[0]):
            return Probe(layer.name, node.output[0], bias=np.ravel(bias))
    return None


def gather_evidence(
    executor: Executor,
    batches: Sequence[Batch],
    name: str,
    values: Sequence[Array],
    probe: Probe | None,
    progress: Progress,
) -> Generator[Progress, None, Evidence]:
    """Run the batches with `values` (one array each) as the input `name`, and return what that does.

    Raises:
        NetworkError: the network cannot be run on these values.
    """
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


def _at_probe(seen: Sequence[Array], probe: Probe | None) -> tuple[float, float, float]:
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
