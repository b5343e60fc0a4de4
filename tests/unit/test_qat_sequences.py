"""Training where recurrent state goes from sample to sample: against a cell unrolled by hand, and to its end."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import builders
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor

from quantgui.analysis.calibration import calibrate
from quantgui.analysis.qat.course import open_course
from quantgui.analysis.qat.quality import split_samples
from quantgui.analysis.qat.training import train
from quantgui.analysis.simulation import activation_tensors, build_simulation
from quantgui.errors import SpecError
from quantgui.export.qdq import export_qdq
from quantgui.network.datasets import Dataset, open_dataset
from quantgui.network.executor import Executor
from quantgui.network.network import Network
from quantgui.network.reader import open_network
from quantgui.results import TrainingReady
from quantgui.spec.config import QuantConfig
from quantgui.spec.presets import activation_spec, weight_spec
from quantgui.spec.quantizer import LayerSpec, MinMax
from quantgui.spec.training import Training

HIDDEN = 16
W4 = QuantConfig(LayerSpec(weight_spec(4, range_estimator=MinMax())))
W3A8 = QuantConfig(LayerSpec(weight_spec(3), activation_spec(8)))
MOMENTUM = 0.9
"""Of the optimizer: its first mean is a tenth of the gradient."""


@pytest.fixture
def network(tmp_path: Path) -> Network:
    onnx.save(builders.lstm_model(hidden=HIDDEN), tmp_path / "lstm.onnx")
    return open_network(tmp_path / "lstm.onnx")


def data(network: Network, folder: Path, count: int, seed: int = 5) -> Dataset:
    path = folder / f"data{seed}.npz"
    np.savez(path, x=builders.values(count, 8, seed=seed))
    return open_dataset(str(path), network.summary.inputs, network.summary)


def finished(course, number: int) -> float:
    (*_, loss) = course.step(number)
    return loss


def opened(events):
    """Return what a generator returns."""
    while True:
        try:
            next(events)
        except StopIteration as end:
            return end.value


class Cell:
    """The network's step, unrolled in plain torch; its gates are input, output, forget, cell."""

    def __init__(self, network: Network, weights: dict[str, np.ndarray]) -> None:
        names = ("w", "r", "b", "out.w")
        self.w, self.r, self.b, self.out = (
            torch.from_numpy(np.array(weights.get(name, network.constants[name]))).requires_grad_() for name in names
        )

    def run(self, rows: np.ndarray, state: tuple[Tensor, Tensor]) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        h, c = state
        answers = []
        for x in torch.from_numpy(rows):
            sums = self.w[0] @ x + self.r[0] @ h + self.b[0, : 4 * HIDDEN] + self.b[0, 4 * HIDDEN :]
            i, o, f, g = sums.split(HIDDEN)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
            answers.append(h @ self.out)
        return torch.cat(answers), (h, c)


def nothing() -> tuple[Tensor, Tensor]:
    return torch.zeros(HIDDEN), torch.zeros(HIDDEN)


def test_that_losses_and_gradients_are_those_of_truncated_propagation_by_hand(network: Network, tmp_path: Path) -> None:
    # Two streams of six samples, two windows of three each; then the second goes on where the first has ended.
    dataset = data(network, tmp_path, 12)
    rows = np.load(tmp_path / "data5.npz")["x"]
    training = Training(steps=3, batch_size=6, window=3, learning_rate=1e-9, learn_scales=False)
    course = opened(open_course(Executor(network), dataset, np.arange(12), W4, {}, training))
    overrides = build_simulation(network, W4, {}).weights
    cell = Cell(network, {name: overrides[name].load() for name in ("w", "r", "out.w")})
    teacher = Cell(network, {})
    with torch.no_grad():
        energy = teacher.run(rows, nothing())[0].square().mean()
    own, taught = [nothing(), nothing()], [nothing(), nothing()]
    mean = np.zeros((4 * HIDDEN, HIDDEN))
    for step in range(3):
        if step == 2:
            own, taught = [nothing(), own[0]], [nothing(), taught[0]]
        loss = torch.zeros(())
        for stream in range(2):
            start = 6 * stream + 3 * (step % 2)
            found, after = cell.run(rows[start : start + 3], own[stream])
            with torch.no_grad():
                target, taught[stream] = teacher.run(rows[start : start + 3], taught[stream])
            loss = loss + (found - target).square().mean() / energy / 2
            own[stream] = (after[0].detach(), after[1].detach())
        cell.r.grad = None
        loss.backward()
        mean = MOMENTUM * mean + (1 - MOMENTUM) * cell.r.grad[0].numpy()
        assert finished(course, step) == pytest.approx(float(loss.detach()), rel=1e-4)
        kept = course.arrays()
        gates = [kept[f"optimizer:mean:weight:lstm/R.forward.{gate}"] for gate in ("input", "output", "forget", "cell")]
        np.testing.assert_allclose(np.concatenate(gates), mean, rtol=2e-3, atol=1e-3 * np.abs(mean).max())
        for stream in range(2):
            np.testing.assert_allclose(kept[f"state:{stream}:own:h"].reshape(-1), own[stream][0], atol=1e-5)
            np.testing.assert_allclose(kept[f"state:{stream}:teacher:hn"].reshape(-1), taught[stream][0], atol=1e-5)
    assert any("back through at most 3" in note and "2 sequences" in note for note in course.notes)


def trained(
    network: Network, dataset: Dataset, config: QuantConfig, training: Training, folder: Path
) -> tuple[TrainingReady, dict]:
    executor = Executor(network)
    *_, calibrated = calibrate(executor, dataset, activation_tensors(network, config))
    *_, last = train(executor, dataset, dataset, config, calibrated.activations, training, folder=folder)
    assert last.complete
    return last, calibrated.activations


@pytest.mark.parametrize(("scope", "share", "gain_db"), [("network", 0.5, 3.0), ("blocks", 0.8, 1.0)])
def test_that_carried_quality_gets_better_and_the_file_keeps_it(
    network: Network, tmp_path: Path, scope: str, share: float, gain_db: float
) -> None:
    dataset = data(network, tmp_path, 120)
    training = Training(steps=40, batch_size=16, window=8, learning_rate=3e-2, patience=0, scope=scope)
    last, activations = trained(network, dataset, W3A8, training, tmp_path / "kept")
    assert last.losses[-8:].mean() < share * last.losses[:8].mean()
    assert last.after.output_sqnr_db > last.before.output_sqnr_db + gain_db
    # The exported file carries its own state from sample to sample.
    list(export_qdq(network, last.trained, activations, tmp_path / "trained.onnx"))
    session = onnxruntime.InferenceSession(tmp_path / "trained.onnx", providers=["CPUExecutionProvider"])
    floats = onnxruntime.InferenceSession(tmp_path / "lstm.onnx", providers=["CPUExecutionProvider"])
    answers = []
    for each in (floats, session):
        state = {name: np.zeros((1, 1, HIDDEN), np.float32) for name in ("h", "c")}
        found = []
        for row in np.load(tmp_path / "data5.npz")["x"]:
            y, h, c = each.run(["y", "hn", "cn"], {"x": row[None], **state})
            state = {"h": h, "c": c}
            found.append(y)
        answers.append(np.concatenate(found))
    noise = np.square(answers[0] - answers[1]).mean()
    sqnr = 10 * np.log10(np.square(answers[0]).mean() / noise)
    assert sqnr == pytest.approx(last.after.output_sqnr_db, abs=0.3)


@pytest.mark.parametrize("scope", ["network", "blocks"])
def test_that_it_goes_on_to_the_same_end_after_a_stop(network: Network, tmp_path: Path, scope: str) -> None:
    dataset = data(network, tmp_path, 30)
    training = Training(steps=8, batch_size=6, window=2, learning_rate=1e-2, patience=0, scope=scope)
    undisturbed, _ = trained(network, dataset, W4, training, tmp_path / "undisturbed")
    events = train(Executor(network), dataset, dataset, W4, {}, training, folder=tmp_path / "stopped")
    for event in events:
        if isinstance(event, TrainingReady) and event.steps >= 3:
            break
    next(events)
    events.close()
    again, _ = trained(network, dataset, W4, training, tmp_path / "stopped")
    assert 3 <= again.resumed < 8
    assert (again.losses == undisturbed.losses).all()
    assert again.trained == undisturbed.trained


def test_that_the_end_of_a_sequence_is_held_out_and_judges(network: Network, tmp_path: Path) -> None:
    dataset = data(network, tmp_path, 52)
    split = split_samples(dataset, dataset)
    assert split.trained.tolist() == list(range(42))
    assert split.judging == frozenset(range(42, 52))
    other = data(network, tmp_path, 20, seed=6)
    assert split_samples(dataset, other).judging is None


def test_that_states_the_data_gives_are_no_sequence(network: Network, tmp_path: Path) -> None:
    states = {name: builders.values(24, 1, 1, HIDDEN, seed=seed) for seed, name in enumerate(("h", "c"))}
    np.savez(tmp_path / "given.npz", x=builders.values(24, 8), **states)
    dataset = open_dataset(str(tmp_path / "given.npz"), network.summary.inputs, network.summary)
    training = Training(steps=20, batch_size=8, learning_rate=1e-2, patience=0)
    last, _ = trained(network, dataset, W3A8, training, tmp_path / "kept")
    assert last.after.output_sqnr_db > last.before.output_sqnr_db
    assert not any("sequence" in note for note in last.notes)


def test_that_labels_teach_sequences_too(network: Network, tmp_path: Path) -> None:
    np.savez(tmp_path / "labelled.npz", x=builders.values(60, 8), labels=np.full((60, 1), 3.0, np.float32))
    dataset = open_dataset(str(tmp_path / "labelled.npz"), network.summary.inputs, network.summary)
    training = Training(steps=20, batch_size=8, window=4, learning_rate=3e-2, patience=0, teacher="labels")
    last, _ = trained(network, dataset, W4, training, tmp_path / "kept")
    assert last.losses[-4:].mean() < 0.8 * last.losses[:4].mean()


def test_that_few_samples_are_one_short_sequence(network: Network, tmp_path: Path) -> None:
    dataset = data(network, tmp_path, 3)
    training = Training(steps=3, batch_size=32, learning_rate=1e-2, patience=0)
    last, _ = trained(network, dataset, W4, training, tmp_path / "kept")
    assert any("one sequence" in note and "at most 3" in note for note in last.notes)
    with pytest.raises(SpecError, match="one sample at least"):
        replace(training, window=0)
