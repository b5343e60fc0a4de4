"""What a bench has open: a network, data, and what has been found out about them on the way."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from quantgui.analysis.calibration import calibrate
from quantgui.analysis.importance import input_tensors, summed_axes
from quantgui.analysis.simulation import calibrated_tensors
from quantgui.analysis.tensor_error import StatisticsCache
from quantgui.export.latency import Seconds
from quantgui.network.datasets import Dataset
from quantgui.network.executor import Executor
from quantgui.network.network import Network
from quantgui.network.pytorch.opening import Original
from quantgui.results import ActivationReady, Calibrated, DataReport, Event, Progress
from quantgui.spec.config import QuantConfig
from quantgui.spec.quantizer import LayerSpec, QuantizerSpec


@dataclass(eq=False)
class OpenedNetwork:
    """A network that can be run, and the statistics of its weights looked at last."""

    network: Network
    executor: Executor
    original: Original | None = None
    """The PyTorch network it was made from."""
    statistics: StatisticsCache = field(default_factory=dict)


@dataclass(eq=False)
class OpenedData:
    """Data to measure quality on, data to take ranges from, and the statistics found with the latter."""

    dataset: Dataset
    calibration: Dataset
    samples: int
    activations: dict[str, ActivationReady] = field(default_factory=dict)
    latencies: Seconds = field(default_factory=dict)
    report: DataReport | None = None

    @property
    def ranges(self) -> str:
        """The name of the samples that ranges come from."""
        return f"{self.calibration.summary.fingerprint}:{self.samples}"


def prepare(opened: OpenedNetwork, data: OpenedData, config: QuantConfig) -> Iterator[Event]:
    """Calibrate what `config` needs; yield Progress."""
    yield from prepare_tensors(opened, data, calibrated_tensors(opened.network, config))


def prepare_all(opened: OpenedNetwork, data: OpenedData, wanted: Mapping[str, Sequence[LayerSpec]]) -> Iterator[Event]:
    """Calibrate what any of several specs of each layer needs; yield Progress."""
    for place in range(max(map(len, wanted.values()), default=0)):
        specs = {name: each[place] for name, each in wanted.items() if place < len(each)}
        yield from prepare(opened, data, QuantConfig().with_overrides(specs))


def prepare_inputs(
    opened: OpenedNetwork, data: OpenedData | None, specs: Mapping[str, QuantizerSpec | None]
) -> Iterator[Event]:
    """Calibrate what the ranges of weights under `specs` depend on, if data is open; yield Progress."""
    if data is not None:
        config = QuantConfig().with_overrides({name: LayerSpec(spec) for name, spec in specs.items()})
        yield from prepare_tensors(opened, data, input_tensors(opened.network, config))


def prepare_tensors(opened: OpenedNetwork, data: OpenedData, tensors: Collection[str]) -> Iterator[Event]:
    """Calibrate those of `tensors` that are not known yet for an answer about something else; yield Progress alone."""
    return (event for event in calibrate_missing(opened, data, tensors) if isinstance(event, Progress))


def calibrate_missing(opened: OpenedNetwork, data: OpenedData, tensors: Collection[str]) -> Iterator[Event]:
    """Calibrate those of `tensors` that are not known yet; yield everything but the final result."""
    missing = [name for name in tensors if name not in data.activations]
    if not missing:
        return
    axes = summed_axes(opened.network)
    for event in calibrate(opened.executor, data.calibration, missing, samples=data.samples, axes=axes):
        if isinstance(event, Calibrated):
            data.activations.update(event.activations)
        else:
            yield event
