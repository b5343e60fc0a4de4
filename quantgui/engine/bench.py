"""The open network with its data and metric, and the answers to requests about it.

The engine process holds one bench and runs its generators by priority; the command line and notebooks use one
directly. Every answer works on what was open when it began, so one that is overtaken by another network stays whole.
What changes the bench is stored only when it is complete.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final, TypeVar, assert_never

from quantgui.analysis.advice import advise, guarded_config
from quantgui.analysis.data_checks import examine_data
from quantgui.analysis.evaluation import evaluate
from quantgui.analysis.importance import needs_data
from quantgui.analysis.metric_function import Metric, load_metric
from quantgui.analysis.mixed_precision import check_limit, find_mix, sweep_for
from quantgui.analysis.noise import trace_noise
from quantgui.analysis.qat.left import left_training
from quantgui.analysis.qat.training import data_names, train
from quantgui.analysis.sample_view import view_sample
from quantgui.analysis.sensitivity import measure_sensitivity
from quantgui.analysis.simulation import activation_tensors, calibrated_tensors
from quantgui.analysis.sweep_store import open_sweep, question_key
from quantgui.analysis.tensor_error import view_weight, weight_errors
from quantgui.engine.machine import usable_cores, usable_memory
from quantgui.engine.opened import (
    OpenedData,
    OpenedNetwork,
    calibrate_missing,
    prepare,
    prepare_all,
    prepare_inputs,
    prepare_tensors,
)
from quantgui.engine.requests import (
    Advise,
    Calibrate,
    CompareNetwork,
    Evaluate,
    ExamineData,
    Export,
    FindMix,
    FindTraining,
    MeasureSensitivity,
    OpenData,
    OpenNetwork,
    ReadSettings,
    Request,
    SetMetric,
    TraceNoise,
    Train,
    Verify,
    ViewSample,
    ViewWeight,
    WeightErrors,
    WriteReport,
    WriteSettings,
)
from quantgui.engine.takeaway import (
    compare_network,
    export,
    read_settings,
    verify_export,
    write_report_file,
    write_settings,
)
from quantgui.errors import DataError, NetworkError
from quantgui.export.latency import measure_latencies
from quantgui.network.datasets import open_dataset
from quantgui.network.executor import Executor
from quantgui.network.network import Network
from quantgui.network.pytorch.opening import hold_against, read_pytorch
from quantgui.network.reader import read_network
from quantgui.network.rows import fed_as_it_runs
from quantgui.network.session import release_memory
from quantgui.paths import state_folder
from quantgui.results import (
    Advice,
    Calibrated,
    DataExamined,
    DataOpened,
    Event,
    NetworkOpened,
    Progress,
    SampleReady,
    Sensitivity,
    TrainingLeft,
)
from quantgui.spec.config import QuantConfig
from quantgui.spec.mix import Mix
from quantgui.spec.pytorch_source import PytorchOptions, is_pytorch
from quantgui.spec.quantizer import LayerSpec, QuantizerSpec
from quantgui.spec.sweep import Sweep
from quantgui.spec.training import Training

T = TypeVar("T")

CALIBRATION_SAMPLES: Final = 512
"""Samples used for ranges unless asked otherwise; ranges of more change little and take the time of a forward each."""
_STATISTICS_KEPT: Final = 64
"""Layers whose weight statistics are kept (half a megabyte each)."""
_CACHE_SHARE: Final = 4


class Bench:
    """Answers requests about one open network.

    Args:
        calibration_samples: most samples used for ranges.
        threads: threads of ONNX Runtime; by default one for each core this process may use.
        cache_bytes: memory for activations that are kept; by default a quarter of the machine's.
    """

    def __init__(
        self,
        *,
        calibration_samples: int = CALIBRATION_SAMPLES,
        threads: int | None = None,
        cache_bytes: int | None = None,
    ) -> None:
        self._calibration_samples = calibration_samples
        self._threads = threads or usable_cores()
        self._cache_bytes = usable_memory() // _CACHE_SHARE if cache_bytes is None else cache_bytes
        self._open: OpenedNetwork | None = None
        self._data: OpenedData | None = None
        self._metric: Metric | None = None

    @property
    def network(self) -> Network:
        """The open network.

        Raises:
            NetworkError: there is none.
        """
        return self._opened().network

    def handle(self, request: Request) -> Iterator[Event]:  # noqa: C901 -- one case for each request
        """Yield the answer to `request`, step by step.

        Raises:
            QuantGuiError: the request cannot be answered; the message says why.
        """
        match request:
            case OpenNetwork(path, pytorch):
                return self._open_network(path, pytorch)
            case OpenData():
                return self._open_data(request)
            case SetMetric(function):
                return self._set_metric(function)
            case ViewWeight(layer, spec):
                return self._view_weight(layer, spec, curve=True)
            case WeightErrors(specs):
                return self._weight_errors(specs)
            case Calibrate(samples):
                return self._calibrate(samples)
            case Evaluate(config, samples):
                return self._evaluate(config, samples)
            case Advise(config):
                return self._advise(config)
            case ExamineData(config):
                return self._examine_data(config)
            case MeasureSensitivity(sweep):
                return self._sensitivity(sweep)
            case FindMix(mix, table):
                return self._find_mix(mix, table)
            case TraceNoise(config, samples):
                return self._trace_noise(config, samples)
            case ViewSample(config, sample, calibration):
                return self._view_sample(config, sample, calibration=calibration)
            case Train(config, training):
                return self._train(config, training)
            case FindTraining(discarded):
                return self._find_training(discarded)
            case Export():
                return self._export(request)
            case Verify():
                return self._verify(request)
            case WriteSettings():
                return self._write_settings(request)
            case ReadSettings():
                return self._read_settings(request)
            case CompareNetwork():
                return self._compare(request)
            case WriteReport():
                return self._write_report(request)
            case _:
                assert_never(request)

    # --- opening -------------------------------------------------------------------------------------------------

    def _open_network(self, path: str, pytorch: PytorchOptions) -> Iterator[Event]:
        original = None
        if is_pytorch(path):
            reading = read_pytorch(path, pytorch, state_folder() / "converted")
            network, original = yield from _only_progress(reading)
        else:
            network = yield from _only_progress(read_network(Path(path)))
        executor = Executor(network, cache_bytes=self._cache_bytes, threads=self._threads)
        self._open, self._data = OpenedNetwork(network, executor, original), None
        release_memory()
        yield NetworkOpened(network.summary)

    def _open_data(self, request: OpenData) -> Iterator[Event]:
        yield Progress(0, 0, "Reading data")
        network, options = self._opened().network, request.image_options
        dataset, *others = (
            fed_as_it_runs(
                network, open_dataset(source, network.summary.inputs, network.summary, options, network=network)
            )
            for source in (request.source, request.calibration)
            if source
        )
        calibration = others[0] if others else dataset
        samples = min(self._calibration_samples, calibration.summary.samples)
        notes: tuple[str, ...] = ()
        if (original := self._opened().original) is not None:
            notes = yield from hold_against(original, network, dataset)
        self._data = OpenedData(dataset, calibration, samples)
        summary = replace(dataset.summary, calibration=request.calibration, notes=(*dataset.summary.notes, *notes))
        yield DataOpened(summary)

    def _set_metric(self, function: str) -> Iterator[Event]:
        yield Progress(0, 0, "Loading the metric")
        self._metric = load_metric(function) if function else None

    # --- looking -------------------------------------------------------------------------------------------------

    def _view_weight(self, layer: str, spec: QuantizerSpec | None, *, curve: bool = False) -> Iterator[Event]:
        opened, data = self._opened(), self._data
        network, statistics = opened.network, opened.statistics
        yield from prepare_inputs(opened, data, {_known(network, layer): spec})
        activations = {} if data is None else data.activations
        yield from view_weight(network, layer, spec, statistics, curve=curve, activations=activations)
        while len(statistics) > _STATISTICS_KEPT:
            del statistics[next(iter(statistics))]

    def _weight_errors(self, specs: Mapping[str, QuantizerSpec | None]) -> Iterator[Event]:
        opened, data = self._opened(), self._data
        known = {_known(opened.network, name): spec for name, spec in specs.items()}
        # Those that need data last: it takes time, and may not be there.
        plain = {name: spec for name, spec in known.items() if not needs_data(spec)}
        yield from weight_errors(opened.network, plain)
        others = {name: spec for name, spec in known.items() if name not in plain}
        yield from prepare_inputs(opened, data, others)
        yield from weight_errors(opened.network, others, {} if data is None else data.activations)

    # --- quality -------------------------------------------------------------------------------------------------

    def _calibrate(self, samples: int | None) -> Iterator[Event]:
        opened, data = self._opened(), self._with_data()
        wanted = min(samples or self._calibration_samples, data.calibration.summary.samples)
        if wanted != data.samples:
            # All ranges come from the same samples: what is known of others is calibrated again. A new value, because
            # an answer that has been overtaken still needs the old one.
            data = self._data = OpenedData(data.dataset, data.calibration, wanted)
        started = time.perf_counter()
        tensors = activation_tensors(opened.network)
        yield from calibrate_missing(opened, data, tensors)
        known = {name: data.activations[name] for name in tensors}
        yield Calibrated(known, data.samples, time.perf_counter() - started)

    def _evaluate(self, config: QuantConfig, samples: int | None) -> Iterator[Event]:
        opened, data, metric = self._opened(), self._with_data(), self._metric
        yield from prepare(opened, data, config)
        yield from evaluate(opened.executor, data.dataset, config, data.activations, metric, samples=samples)

    def _advise(self, config: QuantConfig) -> Iterator[Event]:
        opened, data, metric = self._opened(), self._with_data(), self._metric
        yield from prepare(opened, data, config)
        yield from advise(opened.executor, data.dataset, config, data.activations, metric)

    def _examine_data(self, config: QuantConfig | None) -> Iterator[Event]:
        opened, data = self._opened(), self._with_data()
        activations = None
        if config is not None:
            tensors = activation_tensors(opened.network)
            yield from prepare_tensors(opened, data, tensors)
            activations = {name: data.activations[name] for name in tensors}
        for event in examine_data(
            opened.executor,
            data.dataset,
            calibration=data.calibration,
            config=config,
            activations=activations,
            earlier=data.report,
        ):
            if isinstance(event, DataExamined):
                data.report = event.report
            yield event

    def guard(self, config: QuantConfig) -> Generator[Event, None, tuple[QuantConfig, Advice | None]]:
        """Return `config`, with float activations where quantized ones would ruin the network, and what was found."""
        opened, data, metric = self._opened(), self._with_data(), self._metric
        yield from prepare(opened, data, config)
        return (yield from guarded_config(opened.executor, data.dataset, config, data.activations, metric))

    def _sensitivity(self, sweep: Sweep) -> Iterator[Event]:
        opened, data, metric = self._opened(), self._with_data(), self._metric
        layers = tuple(sweep.swept(opened.network.summary.layers))
        tensors = dict.fromkeys(calibrated_tensors(opened.network, sweep.base))
        for spec in sweep.specs:
            everywhere = sweep.base.with_overrides({layer: sweep.candidate(layer, spec) for layer in layers})
            tensors |= dict.fromkeys(calibrated_tensors(opened.network, everywhere))
        yield from prepare_tensors(opened, data, tensors)
        yield Progress(0, 0, "Looking for what is known")
        ranges = data.ranges if tensors else ""
        key = question_key(opened.network, data.dataset.summary.fingerprint, sweep, metric, ranges)
        with open_sweep(state_folder() / "sweeps", key) as store:
            yield from measure_sensitivity(opened.executor, data.dataset, sweep, data.activations, metric, store)

    def _find_mix(self, mix: Mix, table: Sensitivity | None) -> Iterator[Event]:
        opened, data, metric = self._opened(), self._with_data(), self._metric
        sweep = sweep_for(opened.network, mix)
        layers = tuple(sweep.swept(opened.network.summary.layers))
        wanted = {name: [mix.sweep.candidate(name, spec) for spec in mix.sweep.specs] for name in layers}
        wanted |= {name: [spec] for name, spec in mix.pinned.items()}
        if mix.cost == "latency":
            yield from self._measure_latencies(opened, data, wanted)
        check_limit(opened.network, mix, data.latencies)
        for event in self._sensitivity(sweep) if table is None else ():
            yield event
            table = event if isinstance(event, Sensitivity) else table
        if table is None:
            raise DataError("There is nothing to compute: the data holds no samples.")
        yield from prepare(opened, data, sweep.base)
        yield from prepare_all(opened, data, wanted)
        executor, activations = opened.executor, data.activations
        yield from find_mix(executor, data.dataset, mix, table, activations, metric, latencies=data.latencies)

    def _measure_latencies(
        self, opened: OpenedNetwork, data: OpenedData, wanted: Mapping[str, Sequence[LayerSpec]]
    ) -> Iterator[Event]:
        yield from prepare_all(opened, data, wanted)
        batch = next(data.dataset.batches(1, 1), None)
        if batch is None:
            raise DataError("There is nothing to compute: the data holds no samples.")
        yield from measure_latencies(opened.executor, batch, wanted, data.activations, data.latencies)

    def _trace_noise(self, config: QuantConfig, samples: int | None) -> Iterator[Event]:
        opened, data = self._opened(), self._with_data()
        yield from prepare(opened, data, config)
        yield from trace_noise(opened.executor, data.dataset, config, data.activations, samples=samples)

    def _view_sample(self, config: QuantConfig, sample: int, *, calibration: bool) -> Iterator[Event]:
        opened, data = self._opened(), self._with_data()
        yield from prepare(opened, data, config)
        dataset = data.calibration if calibration else data.dataset
        for event in view_sample(opened.executor, dataset, config, data.activations, sample):
            yield replace(event, calibration=calibration) if isinstance(event, SampleReady) else event

    def _train(self, config: QuantConfig, training: Training) -> Iterator[Event]:
        opened, data, metric = self._opened(), self._with_data(), self._metric
        yield from prepare(opened, data, config)
        yield from train(
            opened.executor,
            data.dataset,
            data.calibration,
            config,
            data.activations,
            training,
            metric,
            folder=state_folder() / "training",
            ranges=data.ranges,
        )

    def _find_training(self, discarded: Train | None) -> Iterator[Event]:
        opened, data = self._opened(), self._with_data()
        names = data_names(data.dataset, data.calibration, data.ranges)
        given_up = None if discarded is None else (discarded.config, discarded.training)
        yield TrainingLeft(left_training(opened.network, state_folder() / "training", names, self._metric, given_up))

    # --- taking it away ------------------------------------------------------------------------------------------

    def _export(self, request: Export) -> Iterator[Event]:
        yield from export(self._opened(), self._data, request)

    def _verify(self, request: Verify) -> Iterator[Event]:
        yield from verify_export(self._opened(), self._with_data(), self._metric, request)

    def _write_settings(self, request: WriteSettings) -> Iterator[Event]:
        yield from write_settings(self._opened(), self._data, request)

    def _read_settings(self, request: ReadSettings) -> Iterator[Event]:
        yield from read_settings(self._opened().network, request)

    def _compare(self, request: CompareNetwork) -> Iterator[Event]:
        yield from compare_network(self._opened(), self._with_data(), self._metric, request)

    def _write_report(self, request: WriteReport) -> Iterator[Event]:
        yield from write_report_file(self._opened(), self._data, self._metric, request)

    # --- what is open --------------------------------------------------------------------------------------------

    def _opened(self) -> OpenedNetwork:
        if self._open is None:
            raise NetworkError("No network is open; open one first.")
        return self._open

    def _with_data(self) -> OpenedData:
        if self._data is None:
            raise DataError("No data is open; open some first, as quality and ranges are measured on it.")
        return self._data


def _only_progress(reading: Generator[Event, None, T]) -> Generator[Event, None, T]:
    """Pass on the progress of `read_network` and return its network: it counts as opened when it can be run."""
    while True:
        try:
            event = next(reading)
        except StopIteration as stop:
            network: T = stop.value
            return network
        if isinstance(event, Progress):
            yield event


def _known(network: Network, layer: str) -> str:
    if layer not in network.layers:
        raise NetworkError(f"The network has no layer '{layer}'.")
    return layer
