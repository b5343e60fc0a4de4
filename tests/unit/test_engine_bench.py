"""The bench answers requests on a real network: the digits sample."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from quantgui.engine.bench import Bench
from quantgui.engine.client import EngineClient
from quantgui.engine.machine import usable_cores, usable_memory
from quantgui.engine.messages import EngineEvent, JobDone, JobEvent, JobFailed
from quantgui.engine.requests import (
    Calibrate,
    Evaluate,
    Export,
    OpenData,
    OpenNetwork,
    Priority,
    Request,
    SetMetric,
    TraceNoise,
    Verify,
    ViewSample,
    ViewWeight,
    WeightErrors,
)
from quantgui.errors import DataError, MetricError, NetworkError, QuantGuiError
from quantgui.paths import sample_models
from quantgui.results import (
    ActivationReady,
    Calibrated,
    DataOpened,
    EvaluationReady,
    Event,
    Exported,
    NetworkOpened,
    NoiseReady,
    Progress,
    SampleReady,
    WeightErrorReady,
    WeightViewReady,
)
from quantgui.spec.config import QuantConfig
from quantgui.spec.presets import find_preset, preset_config, weight_spec

DIGITS = str(sample_models() / "digits" / "digits.onnx")
LINES = str(sample_models() / "lines" / "lines.onnx")
EVALUATION = str(sample_models() / "digits" / "digits.evaluation.npz")
CALIBRATION = str(sample_models() / "digits" / "digits.calibration.npz")


def answer(bench: Bench, request: Request) -> list[Event]:
    return list(bench.handle(request))


def quality(events: list[Event]) -> float:
    last = events[-1]
    assert isinstance(last, EvaluationReady)
    assert last.evaluation.complete
    return last.evaluation.output_sqnr_db


def calibrates(events: list[Event]) -> bool:
    return any(isinstance(e, Progress) and e.label == "Calibrating" for e in events)


@pytest.fixture
def bench() -> Bench:
    bench = Bench(cache_bytes=2**26)
    answer(bench, OpenNetwork(DIGITS))
    answer(bench, OpenData(CALIBRATION))
    return bench


@pytest.fixture
def w8a8(bench: Bench) -> QuantConfig:
    return preset_config(find_preset("W8A8"), bench.network.summary.layers)


def test_that_opening_a_network_ends_with_its_summary() -> None:
    bench = Bench()
    *before, last = answer(bench, OpenNetwork(DIGITS))
    assert isinstance(last, NetworkOpened)
    assert all(isinstance(event, Progress) for event in before)
    assert bench.network.summary is last.summary


@pytest.mark.parametrize(
    "request_",
    [
        OpenData(EVALUATION),
        ViewWeight("a", None),
        WeightErrors({}),
        Calibrate(),
        Evaluate(QuantConfig()),
        Export(QuantConfig(), "a.onnx"),
        Verify(QuantConfig(), "a.onnx"),
    ],
    ids=lambda request: type(request).__name__,
)
def test_that_every_request_without_a_network_is_refused_with_a_sentence(request_: Request) -> None:
    with pytest.raises(NetworkError, match="No network is open"):
        answer(Bench(), request_)


@pytest.mark.parametrize("request_", [Calibrate(), Evaluate(QuantConfig())], ids=lambda request: type(request).__name__)
def test_that_a_new_network_forgets_the_data(bench: Bench, request_: Request) -> None:
    answer(bench, OpenNetwork(LINES))
    with pytest.raises(DataError, match="No data is open"):
        answer(bench, request_)


def test_that_what_cannot_be_opened_leaves_what_is_open(bench: Bench, tmp_path: Path) -> None:
    network = bench.network
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"\x08\x08garbage")
    for request in (OpenNetwork(str(broken)), OpenData(str(tmp_path / "missing.npz")), SetMetric("missing.py:f")):
        with pytest.raises(QuantGuiError):
            answer(bench, request)
    assert bench.network is network
    assert quality(answer(bench, Evaluate(QuantConfig()))) == np.inf


def test_that_a_cancelled_opening_leaves_what_is_open(bench: Bench) -> None:
    network = bench.network
    opening = bench.handle(OpenNetwork(LINES))
    next(opening)
    opening.close()
    assert bench.network is network


def test_that_an_evaluation_calibrates_what_it_needs_once(bench: Bench, w8a8: QuantConfig) -> None:
    first, second = answer(bench, Evaluate(w8a8)), answer(bench, Evaluate(w8a8))
    assert calibrates(first)
    assert not calibrates(second)
    assert quality(first) == quality(second)


def test_that_ranges_come_from_the_calibration_data_and_quality_from_the_other(bench: Bench, w8a8: QuantConfig) -> None:
    *_, own = answer(bench, Calibrate())
    *_, opened = answer(bench, OpenData(EVALUATION, calibration=CALIBRATION))
    *_, calibrated = answer(bench, Calibrate())
    *_, last = answer(bench, Evaluate(w8a8))
    assert isinstance(opened, DataOpened)
    assert isinstance(own, Calibrated)
    assert isinstance(calibrated, Calibrated)
    assert isinstance(last, EvaluationReady)
    ranges = [
        {n: (a.statistics.minimum, a.statistics.maximum) for n, a in c.activations.items()} for c in (own, calibrated)
    ]
    assert ranges[0] == ranges[1]
    assert opened.summary.source == EVALUATION
    assert last.evaluation.total_samples == 1000


def test_that_weights_alone_need_no_calibration(bench: Bench) -> None:
    config = preset_config(find_preset("W8"), bench.network.summary.layers)
    assert not calibrates(answer(bench, Evaluate(config)))


def test_that_calibrating_first_gives_the_same_quality(bench: Bench, w8a8: QuantConfig) -> None:
    other = Bench()
    answer(other, OpenNetwork(DIGITS))
    answer(other, OpenData(CALIBRATION))
    *_, calibrated = answer(other, Calibrate())
    assert isinstance(calibrated, Calibrated)
    assert quality(answer(other, Evaluate(w8a8))) == quality(answer(bench, Evaluate(w8a8)))


def test_that_calibration_on_fewer_samples_replaces_all_ranges(bench: Bench, w8a8: QuantConfig) -> None:
    answer(bench, Evaluate(w8a8))
    *_, calibrated = answer(bench, Calibrate(samples=3))
    assert isinstance(calibrated, Calibrated)
    assert {activation.samples for activation in calibrated.activations.values()} == {3}
    assert calibrated.samples == 3


def test_that_a_running_evaluation_survives_a_new_calibration_and_new_data(bench: Bench, w8a8: QuantConfig) -> None:
    wanted = quality(answer(bench, Evaluate(w8a8)))
    running = bench.handle(Evaluate(w8a8))
    events = [next(running)]
    answer(bench, Calibrate(samples=2))
    answer(bench, OpenData("random:4"))
    events += running
    assert quality(events) == wanted


def test_that_an_evaluation_keeps_its_progress_and_hides_partial_statistics(bench: Bench, w8a8: QuantConfig) -> None:
    events = answer(bench, Evaluate(w8a8))
    assert not any(isinstance(event, ActivationReady | Calibrated) for event in events)


def test_that_the_users_metric_becomes_the_headline_and_can_be_taken_away(bench: Bench, tmp_path: Path) -> None:
    file = tmp_path / "metrics.py"
    file.write_text("def mean(outputs, labels):\n    print('hello')\n    return outputs.mean(axis=1)\n")
    answer(bench, SetMetric(f"{file}:mean"))
    *_, last = answer(bench, Evaluate(QuantConfig()))
    assert isinstance(last, EvaluationReady)
    assert last.evaluation.metric == "mean"
    answer(bench, SetMetric(""))
    *_, last = answer(bench, Evaluate(QuantConfig()))
    assert isinstance(last, EvaluationReady)
    assert last.evaluation.metric != "mean"


def test_that_a_metric_that_fails_is_a_sentence(bench: Bench, tmp_path: Path) -> None:
    file = tmp_path / "metrics.py"
    file.write_text("def broken(outputs, labels):\n    return outputs.nothing\n")
    answer(bench, SetMetric(f"{file}:broken"))
    with pytest.raises(MetricError, match="broken"):
        answer(bench, Evaluate(QuantConfig()))


def test_that_a_weight_is_viewed_and_its_error_told(bench: Bench) -> None:
    name = bench.network.summary.layers[1].name
    *_, view = answer(bench, ViewWeight(name, weight_spec(4)))
    *_, error = answer(bench, WeightErrors({name: weight_spec(4)}))
    assert isinstance(view, WeightViewReady)
    assert isinstance(error, WeightErrorReady)
    assert view.view.error.sqnr_db == pytest.approx(error.error.sqnr_db, abs=1e-6)


@pytest.mark.parametrize("request_", [ViewWeight("nothing", None), WeightErrors({"nothing": None})])
def test_that_a_layer_that_does_not_exist_is_a_sentence(bench: Bench, request_: Request) -> None:
    with pytest.raises(NetworkError, match="no layer 'nothing'"):
        answer(bench, request_)


def test_that_activations_are_not_exported_without_data(w8a8: QuantConfig, tmp_path: Path) -> None:
    bench = Bench()
    answer(bench, OpenNetwork(DIGITS))
    with pytest.raises(DataError, match="ranges come from data"):
        answer(bench, Export(w8a8, str(tmp_path / "out.onnx")))
    assert list(tmp_path.glob("*.onnx")) == []


def test_that_weights_are_exported_without_data(tmp_path: Path) -> None:
    bench = Bench()
    answer(bench, OpenNetwork(DIGITS))
    config = preset_config(find_preset("W4"), bench.network.summary.layers)
    *_, exported = answer(bench, Export(config, str(tmp_path / "out.onnx")))
    assert isinstance(exported, Exported)
    assert onnxruntime.InferenceSession(exported.path).get_outputs()[0].name == "logits"


def test_that_a_cancelled_export_leaves_no_file(bench: Bench, w8a8: QuantConfig, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    exporting = bench.handle(Export(w8a8, str(folder / "out.onnx")))
    while not (isinstance(event := next(exporting), Progress) and event.label == "Writing the file"):
        pass
    exporting.close()
    assert list(folder.iterdir()) == []


def test_that_the_machine_has_a_core_and_some_memory() -> None:
    assert usable_cores() >= 1
    assert usable_memory() > 2**26


def test_that_an_engine_killed_in_the_middle_of_an_evaluation_evaluates_the_same_afterwards(
    bench: Bench, w8a8: QuantConfig
) -> None:
    events: queue.SimpleQueue[EngineEvent] = queue.SimpleQueue()
    with contextlib.closing(EngineClient(events.put)) as client:

        def submit(request: Request) -> int:
            return client.submit(request, topic=type(request).__name__, priority=Priority.EVALUATE)

        def until(job: int, kind: type) -> list[Event]:
            """Return the results of `job` up to its first report of `kind`."""
            results = []
            while True:
                event = events.get(timeout=120)
                if isinstance(event, JobEvent) and event.job == job:
                    results.append(event.event)
                if isinstance(event, kind) and event.job == job:
                    return results
                assert not isinstance(event, JobFailed), event.sentence

        for request in (OpenNetwork(DIGITS), OpenData(CALIBRATION)):
            until(submit(request), JobDone)
        killed = submit(Evaluate(w8a8))
        until(killed, JobEvent)
        assert client.process_id is not None
        os.kill(client.process_id, signal.SIGKILL)
        until(killed, JobFailed)
        again = until(submit(Evaluate(w8a8)), JobDone)
    assert quality(again) == quality(answer(bench, Evaluate(w8a8)))


def test_that_data_is_told_with_its_size(bench: Bench) -> None:
    *_, opened = answer(bench, OpenData("random:3"))
    assert isinstance(opened, DataOpened)
    assert opened.summary.samples == 3
    assert not opened.summary.trustworthy


def test_that_noise_is_traced_and_a_sample_shown_after_what_is_missing_has_been_calibrated() -> None:
    bench = Bench()
    *_, opened = answer(bench, OpenNetwork(DIGITS))
    answer(bench, OpenData(EVALUATION, calibration=CALIBRATION))
    config = preset_config(find_preset("W8A8"), opened.summary.layers)
    *_, noise = answer(bench, TraceNoise(config, 16))
    assert isinstance(noise, NoiseReady)
    assert noise.complete
    assert noise.config == config
    assert noise.damage.shape == (len(opened.summary.layers), 16)
    *_, sample = answer(bench, ViewSample(config, 3))
    assert isinstance(sample, SampleReady)
    assert sample.sample == 3
    assert int(sample.label) == int(np.load(EVALUATION)["labels"][3])
    assert list(sample.class_axes.values()) == [0]
