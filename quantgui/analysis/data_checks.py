"""The data check: whether data fits the network, and what its ranges rest on.

Quick: the inputs themselves, and a few forwards with other preparations. Thorough: also the activations that
calibration has seen, and dead channels on a few samples.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from quantgui.analysis.output_roles import class_labels, recognise_outputs
from quantgui.analysis.preprocessing import check_preprocessing
from quantgui.analysis.range_checks import (
    check_convergence,
    check_setters,
    check_values,
    dead_channels,
    fewest_setters,
    range_growths,
)
from quantgui.analysis.samples import SharedSamples
from quantgui.analysis.simulation import activation_tensors
from quantgui.network.executor import Executor
from quantgui.network.network import Network
from quantgui.network.simulation import FLOAT_SIMULATION
from quantgui.results import ActivationReady, Array, DataExamined, DataReport, Event, Finding, Progress
from quantgui.spec.config import QuantConfig

SCANNED_SAMPLES = 512
"""Samples whose inputs are read; more would only confirm."""
_SCANNED_BYTES = 512 * 2**20
_PREVIEWS, _PREVIEW_BYTES = 8, 8 * 2**20
_REPORT_SECONDS = 0.1
_FINGERPRINT = 512
"""Values of a sample that are compared with those of others."""
_NEAR = 0.05
"""Samples closer than this share of the usual distance are near duplicates."""
_REDUNDANT = 0.1
_DEAD_SAMPLES = 8
_DEAD_SHARE = 0.25
_LISTED = 20
_ORDER = {"error": 0, "warning": 1, "hint": 2}

_DEAD_CHANNELS = "dead channels"
INPUT_KINDS = (
    "synthetic",
    "not finite input",
    "constant sample",
    "identical samples",
    "redundant samples",
    "labels",
    "range of inputs",
    "order of colours",
    "layout",
)
ACTIVATION_KINDS = (
    "convergence",
    "outlier sample",
    "not finite",
    "dead",
    _DEAD_CHANNELS,
    "constant",
    "clipped",
    "outliers",
    "lopsided",
)


def examine_data(
    executor: Executor,
    dataset: SharedSamples,
    *,
    calibration: SharedSamples | None = None,
    config: QuantConfig | None = None,
    activations: Mapping[str, ActivationReady] | None = None,
    earlier: DataReport | None = None,
) -> Iterator[Event]:
    """Yield Progress and one DataExamined.

    Args:
        executor: runs the network.
        dataset: the data that quality is measured on; its labels are checked.
        calibration: the data that ranges come from, `dataset` if None; its inputs are looked at.
        config: whose ranges of activations are judged; None for none.
        activations: what calibration has seen; None to look at the inputs only.
        earlier: what an earlier call found for the same data: what does not depend on `config` is not done again.

    Raises:
        NetworkError: the network cannot be run.
        DataError: the data cannot be read.
    """
    ranged = dataset if calibration is None else calibration
    report = earlier
    if report is None:
        for step in _examine_inputs(executor, dataset, ranged):
            if isinstance(step, DataReport):
                report = step
            else:
                yield step
    assert report is not None
    if activations is None:
        yield DataExamined(_of_inputs(report))
        return
    network = executor.network
    layers = _layers_of(network)
    findings = [each for each in report.findings if each.kind in (*INPUT_KINDS, _DEAD_CHANNELS)]
    growths = range_growths(activations, layers)
    findings += check_convergence(growths)
    findings += check_setters(growths, activations)
    yield Progress(0, 0, "Looking at activations")
    specs = {} if config is None else activation_tensors(network, config)
    findings += check_values(activations, specs, layers)
    for found in () if _DEAD_CHANNELS in report.checked else _dead_channels(executor, ranged):
        if isinstance(found, Finding):
            findings.append(found)
        else:
            yield found
    samples = max((ready.samples for ready in activations.values()), default=report.samples)
    yield DataExamined(
        DataReport(
            config=config or QuantConfig(),
            samples=samples,
            findings=_sorted(findings),
            checked=(*INPUT_KINDS, *ACTIVATION_KINDS),
            unknown=report.unknown,
            growths=growths,
            previews=report.previews,
            preview_input=report.preview_input,
            image_options=report.image_options,
            setters=len(fewest_setters(growths)),
        )
    )


def _of_inputs(report: DataReport) -> DataReport:
    """Return what a report says of the inputs."""
    findings = tuple(each for each in report.findings if each.kind in INPUT_KINDS)
    return replace(report, config=None, findings=findings, checked=INPUT_KINDS, growths={}, setters=0)


def _sorted(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    return tuple(sorted(findings, key=lambda finding: _ORDER[finding.severity]))


def _layers_of(network: Network) -> dict[str, tuple[str, ...]]:
    """Return the layers that make or read each activation tensor, the maker first."""
    found: dict[str, list[str]] = {}
    for layer in network.summary.layers:
        if layer.output_tensor:
            found.setdefault(layer.output_tensor, []).insert(0, layer.name)
    for layer in network.summary.layers:
        if layer.input_tensor:
            found.setdefault(layer.input_tensor, []).append(layer.name)
    return {tensor: tuple(dict.fromkeys(names)) for tensor, names in found.items()}


# --- inputs -----------------------------------------------------------------------------------------------------------


def _examine_inputs(executor: Executor, dataset: SharedSamples, ranged: SharedSamples) -> Iterator[Event | DataReport]:
    network, summary = executor.network, ranged.summary
    findings: list[Finding] = []
    unknown: list[str] = []
    name = _largest_input(network, ranged)
    scan = _Scan(name)
    yield from scan.read(ranged)
    findings += scan.findings()
    if not summary.trustworthy:
        findings.append(
            Finding(
                "synthetic",
                "warning",
                "The data are random numbers: ranges and quality measured on them mean little.",
                "Open real samples before deciding anything; a few hundred are enough.",
            )
        )
        unknown.append("Whether the preparation of the inputs is right cannot be told from random numbers.")
    elif not scan.non_finite:
        for step in check_preprocessing(executor, ranged):
            match step:
                case Finding():
                    findings.append(step)
                case str():
                    unknown.append(step)
                case _:
                    yield step
    findings += _labels(executor, dataset)
    yield DataReport(
        config=None,
        samples=scan.samples,
        findings=_sorted(findings),
        checked=INPUT_KINDS,
        unknown=tuple(unknown),
        previews=tuple(scan.previews),
        preview_input=name,
        image_options=summary.image_options,
    )


def _largest_input(network: Network, dataset: SharedSamples) -> str:
    """Return the input that says most of a sample: the others are masks, lengths and states."""
    batch = next(iter(dataset.batches(1, 1)), None)
    if batch is None:
        return network.summary.inputs[0].name if network.summary.inputs else ""
    own = [info.name for info in network.summary.inputs if info.name in batch.inputs and info.name not in batch.carried]
    own = [name for name in own if name not in dataset.shared] or own
    return max(own, key=lambda name: batch.inputs[name].size, default="")


@dataclass(eq=False)
class _Scan:
    """What is known of the samples of one input."""

    name: str
    samples: int = 0
    non_finite: list[int] = field(default_factory=list)
    constant: list[int] = field(default_factory=list)
    hashes: dict[bytes, list[int]] = field(default_factory=dict)
    prints: list[Array] = field(default_factory=list)
    previews: list[Array] = field(default_factory=list)

    def read(self, dataset: SharedSamples) -> Iterator[Progress]:
        """Read the samples, as many as may be read."""
        total = min(SCANNED_SAMPLES, dataset.summary.samples)
        told, seen = time.perf_counter(), 0
        for batch in dataset.batches(None, total):
            for values in batch.split(batch.inputs[self.name]) if self.name else ():
                self._add(values)
                seen += values.nbytes
            if time.perf_counter() - told > _REPORT_SECONDS:
                told = time.perf_counter()
                yield Progress(self.samples, total, "Looking at the samples")
            if seen > _SCANNED_BYTES:
                return

    def _add(self, values: Array) -> None:
        index = self.samples
        self.samples += 1
        if len(self.previews) < _PREVIEWS and sum(p.nbytes for p in self.previews) + values.nbytes <= _PREVIEW_BYTES:
            self.previews.append(np.array(values))
        digest = hashlib.blake2b(np.ascontiguousarray(values).tobytes(), digest_size=16).digest()
        self.hashes.setdefault(digest, []).append(index)
        flat = values.reshape(-1)
        finite = flat.dtype.kind != "f" or bool(np.isfinite(flat).all())
        if not finite:
            self.non_finite.append(index)
        elif len(flat) > 1 and flat.min() == flat.max():
            self.constant.append(index)
        step = max(len(flat) // _FINGERPRINT, 1)
        self.prints.append(np.nan_to_num(flat[::step][:_FINGERPRINT].astype(np.float32)))

    def findings(self) -> Iterator[Finding]:
        """Yield what is odd about the samples."""
        if self.non_finite:
            yield Finding(
                "not finite input",
                "error",
                f"{_counted(self.non_finite, self.samples)} of '{self.name}' hold values that are not finite (NaN or "
                f"infinite), the first is sample {self.non_finite[0]}.",
                "Repair or leave out these samples: nothing measured on them means anything.",
                tensor=self.name,
                samples=tuple(self.non_finite[:_LISTED]),
            )
        if self.constant and self.samples > 1:
            every = len(self.constant) == self.samples
            yield Finding(
                "constant sample",
                "error" if every else "warning",
                f"{_counted(self.constant, self.samples)} of '{self.name}' hold one and the same value everywhere, the "
                f"first is sample {self.constant[0]}.",
                "Check how the data were made; empty samples widen no range and dilute the quality.",
                tensor=self.name,
                samples=tuple(self.constant[:_LISTED]),
            )
        copies = [index for group in self.hashes.values() for index in group[1:]]
        if copies:
            every = len(self.hashes) == 1
            yield Finding(
                "identical samples",
                "error" if every else "warning" if len(copies) > _REDUNDANT * self.samples else "hint",
                f"All {self.samples} samples of '{self.name}' are identical."
                if every
                else f"{_counted(copies, self.samples)} of '{self.name}' repeat an earlier one exactly, such as sample "
                f"{copies[0]}.",
                "Check how the data were made: repeated samples cost time and tell nothing new.",
                tensor=self.name,
                samples=tuple(copies[:_LISTED]),
                numbers={"copies": len(copies), "samples": self.samples},
            )
        near = near_duplicates(self.prints, set(copies))
        if len(near) > _REDUNDANT * self.samples:
            yield Finding(
                "redundant samples",
                "hint",
                f"{_counted(near, self.samples)} of '{self.name}' are nearly the same as an earlier one, such as "
                f"sample {near[0]}; inputs were compared, not what the network makes of them.",
                "Look at them: where they are alike, fewer, more varied samples give the same ranges in less time.",
                tensor=self.name,
                samples=tuple(near[:_LISTED]),
                numbers={"near": len(near), "samples": self.samples},
            )


def near_duplicates(prints: Sequence[Array], without: Collection[int] = ()) -> list[int]:
    """Return the samples that are much closer to an earlier one than samples usually are; none of `without`."""
    if len(prints) < 4 or len({len(each) for each in prints}) > 1:
        return []
    rows = np.stack(prints).astype(np.float64)
    rows -= rows.mean(0)
    squares = np.square(rows).sum(1)
    distances = np.sqrt(np.maximum(squares[:, None] + squares[None] - 2 * rows @ rows.T, 0))
    usual = float(np.median(distances[np.triu_indices(len(rows), 1)]))
    if usual <= 0:
        return []
    close = np.tril(distances < _NEAR * usual, -1).any(1)
    return [int(i) for i in np.flatnonzero(close) if int(i) not in without]


def _counted(indices: Sequence[int], samples: int) -> str:
    return f"{len(indices)} of {samples} samples"


def _labels(executor: Executor, dataset: SharedSamples) -> Iterator[Finding]:
    """Say which labels cannot be classes of the network's output."""
    if not dataset.summary.has_labels or dataset.carried:
        return
    batches = list(dataset.batches(None, min(SCANNED_SAMPLES, dataset.summary.samples)))
    labels = class_labels(np.concatenate([np.asarray(b.labels) for b in batches if b.labels is not None]))
    if labels is None or labels.ndim != 1 or labels.dtype.kind not in "iu" or not len(labels):
        return
    outputs = executor.run(batches[0], FLOAT_SIMULATION)
    shown = {info.name: batches[0].split(outputs[info.name]) for info in executor.network.summary.outputs}
    roles = recognise_outputs(executor.network.skeleton, shown, None)
    counts = [shown[name].shape[role.axis] for name, role in roles.items() if role.is_class_like and role.axis == 1]
    if not counts or max(counts) < 2:
        return
    classes = max(counts)
    wrong = np.flatnonzero((labels < 0) | (labels >= classes))
    if len(wrong):
        value = int(labels[wrong[0]])
        shifted = int(labels.min()) == 1 and int(labels.max()) == classes
        yield Finding(
            "labels",
            "error",
            f"{_counted(wrong.tolist(), len(labels))} have a label that is no class of the network, which has {classes}"
            f" (0 … {classes - 1}): sample {int(wrong[0])} has {value}.",
            "Count the classes from 0: subtract 1 from every label."
            if shifted
            else "Give each sample the number of its class as the network counts them, from 0.",
            samples=tuple(wrong[:_LISTED].tolist()),
            numbers={"wrong": len(wrong), "classes": classes},
        )


# --- channels ---------------------------------------------------------------------------------------------------------


def _dead_channels(executor: Executor, dataset: SharedSamples) -> Iterator[Finding | Progress]:
    """Say in which layers many channels never change on the first samples."""
    batch = next(iter(dataset.batches(_DEAD_SAMPLES, _DEAD_SAMPLES)), None)
    layers = {
        layer.output_tensor: layer
        for layer in executor.network.summary.layers
        if layer.op in ("Conv", "ConvTranspose") and layer.output_tensor and executor.fetchable(layer.output_tensor)
    }
    if batch is None or not layers or batch.carried or not batch.batched:
        return
    dead: dict[str, tuple[int, int]] = {}
    for place, (tensor, values) in enumerate(executor.stream(batch, FLOAT_SIMULATION, sorted(layers))):
        yield Progress(place, len(layers), "Looking for dead channels")
        layer = layers[tensor]
        if values.ndim > 2 and values.shape[1] == layer.channels and values.size > layer.channels:
            count = dead_channels(values, 1)
            if count > _DEAD_SHARE * layer.channels:
                dead[layer.name] = (count, layer.channels)
    if dead:
        order = sorted(dead, key=lambda name: -dead[name][0] / dead[name][1])
        count, channels = dead[order[0]]
        others = f"; {len(order) - 1} other layers have many, too" if len(order) > 1 else ""
        yield Finding(
            _DEAD_CHANNELS,
            "hint",
            f"{count} of {channels} channels of '{order[0]}' never change in the first {batch.samples} samples"
            f"{others}.",
            "The network may be larger than it need be, or the data may not reach this part: add other samples.",
            tuple(order),
            numbers={name: dead[name][0] / dead[name][1] for name in order[:_LISTED]},
        )
