from __future__ import annotations

import builders
import numpy as np
import onnx
import pytest

from quantgui.analysis.calibration import calibrate
from quantgui.analysis.simulation import activation_tensors
from quantgui.network.datasets import open_dataset
from quantgui.network.executor import Executor
from quantgui.network.reader import open_network
from quantgui.results import ActivationReady, Calibrated, Progress


def opened(model, folder, **arrays):
    onnx.save(model, folder / "network.onnx")
    network = open_network(folder / "network.onnx")
    np.savez(folder / "data.npz", **arrays)
    return Executor(network), open_dataset(str(folder / "data.npz"), network.summary.inputs, network.summary)


def calibrated(executor, dataset, tensors=None, **options):
    *events, last = calibrate(executor, dataset, tensors or activation_tensors(executor.network), **options)
    assert isinstance(last, Calibrated)
    return events, last


def test_that_statistics_are_those_of_all_samples_at_once(tmp_path):
    executor, dataset = opened(builders.mlp_model(), tmp_path, x=builders.values(20, 8))
    _, parts = calibrated(executor, dataset, batch_size=3)
    _, whole = calibrated(executor, dataset, batch_size=20)
    (batch,) = dataset.batches(20)
    fetched = executor.run(batch, fetch=list(parts.activations))
    assert len(parts.activations) == 3
    for name, ready in parts.activations.items():
        other, values = whole.activations[name], fetched[name]
        assert ready.samples == 20
        assert ready.statistics.count == values.size
        np.testing.assert_allclose(ready.statistics.minimum, values.min(), rtol=1e-5)
        np.testing.assert_allclose(ready.statistics.total_square, other.statistics.total_square, rtol=1e-5)
        np.testing.assert_allclose(ready.sample_maxima, values.reshape(20, -1).max(1), rtol=1e-5)
        np.testing.assert_allclose(ready.sample_minima, other.sample_minima, rtol=1e-5)


def test_that_padding_of_a_fixed_batch_is_not_counted(tmp_path):
    executor, dataset = opened(builders.mlp_model(batch=4), tmp_path, x=builders.values(6, 8))
    _, result = calibrated(executor, dataset)
    assert all(ready.samples == 6 for ready in result.activations.values())
    assert result.activations["x"].statistics.count == 6 * 8
    assert result.activations["x"].sample_minima.shape == (6,)


def test_that_only_the_wanted_samples_are_read(tmp_path):
    executor, dataset = opened(builders.mlp_model(), tmp_path, x=builders.values(20, 8))
    _, result = calibrated(executor, dataset, samples=5, batch_size=2)
    assert result.samples == 5
    assert result.activations["x"].statistics.count == 40


def test_that_the_first_batch_is_shown_at_once_and_time_left_is_told(tmp_path):
    executor, dataset = opened(builders.mlp_model(), tmp_path, x=builders.values(20, 8))
    events, _ = calibrated(executor, dataset, batch_size=5)
    partial = [event for event in events if isinstance(event, ActivationReady)]
    assert {event.tensor for event in partial} == set(activation_tensors(executor.network))
    assert all(event.samples == 5 for event in partial[:3])
    progress = [event for event in events if isinstance(event, Progress)]
    assert progress[0] == Progress(0, 20, "Calibrating")
    assert progress[-1].done == 20
    assert progress[-1].seconds_left == 0


def test_that_recurrent_state_is_carried_from_step_to_step(tmp_path):
    executor, dataset = opened(builders.lstm_model(), tmp_path, x=builders.values(5, 1, 8))
    _, result = calibrated(executor, dataset, ["last"])
    steps = [out["last"] for _, (out,) in filter(None, executor.run_sequence(dataset.batches(), fetch=["last"]))]
    np.testing.assert_allclose(result.activations["last"].sample_maxima, [s.max() for s in steps], rtol=1e-5)


def test_that_a_tensor_in_a_branch_ends_with_empty_statistics(tmp_path):
    executor, dataset = opened(builders.if_model(), tmp_path, x=builders.values(3, 32), flag=np.array(True))
    _, result = calibrated(executor, dataset, ["x", "inside_a_branch"])
    assert result.activations["inside_a_branch"].statistics.count == 0
    assert result.activations["x"].statistics.count == 96


@pytest.mark.parametrize("samples", [8, 64])
def test_that_the_kept_values_do_not_grow_with_the_number_of_samples(tmp_path, samples):
    executor, dataset = opened(builders.mlp_model(), tmp_path, x=builders.values(samples, 8))
    _, result = calibrated(executor, dataset, batch_size=4)
    for ready in result.activations.values():
        assert len(ready.statistics.counts) <= 1 << 16
        assert ready.sample_minima.nbytes == 4 * samples
