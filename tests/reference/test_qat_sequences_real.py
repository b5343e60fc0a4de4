"""Training of a real network that is fed its own state: a detector of speech, on sound like speech."""

from __future__ import annotations

from pathlib import Path

import networks
import numpy as np
import onnxruntime
import pytest

from quantgui.analysis.qat.training import train
from quantgui.export.qdq import export_qdq
from quantgui.network.datasets import open_dataset
from quantgui.network.executor import Executor
from quantgui.network.reader import open_network
from quantgui.spec.config import QuantConfig
from quantgui.spec.presets import weight_spec
from quantgui.spec.quantizer import LayerSpec
from quantgui.spec.training import Training

pytestmark = pytest.mark.network

RATE, STEP, BEFORE = 16000, 512, 64


def babble(count: int) -> np.ndarray:
    """Return sound in pieces of 512 with the 64 values before each: vowels of changing pitch, and pauses."""
    random = np.random.default_rng(0)
    total = count * STEP
    sound = 0.003 * random.standard_normal(total)
    at = 0
    while at < total:
        length = min(int(RATE * random.uniform(0.1, 0.3)), total - at)
        pitch, formants = random.uniform(90, 220), random.uniform([300, 900, 2200], [800, 1800, 3000])
        if random.random() < 0.65:
            time = np.arange(length) / RATE
            tones = pitch * np.arange(1, 40)[:, None]
            loud = sum(np.exp(-(((tones - each) / 180) ** 2)) / (i + 1) for i, each in enumerate(formants))
            voice = (loud * np.sin(2 * np.pi * tones * time)).sum(0)
            sound[at : at + length] += 0.12 * np.hanning(length) * voice
        at += length
    padded = np.concatenate([np.zeros(BEFORE), sound]).astype(np.float32)
    return np.stack([padded[i * STEP : i * STEP + STEP + BEFORE] for i in range(count)])


def answers(path: Path, sound: np.ndarray) -> np.ndarray:
    """Return the probability of speech in each piece, as a program that runs the file gets it."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    state, found = np.zeros((2, 1, 128), np.float32), []
    for piece in sound:
        output, state = session.run(None, {"input": piece[None], "state": state, "sr": np.array(RATE, np.int64)})
        found.append(output[0, 0])
    return np.array(found)


@pytest.mark.parametrize(("scope", "steps"), [("network", 30), ("blocks", 60)])
def test_that_a_speech_detector_of_3_bits_follows_the_float_network_again(
    tmp_path: Path, scope: str, steps: int
) -> None:
    path = networks.network_path("silero-op15")
    network = open_network(path)
    sound = babble(200)
    np.savez(tmp_path / "data.npz", input=sound, sr=np.array(RATE, np.int64))
    dataset = open_dataset(str(tmp_path / "data.npz"), network.summary.inputs, network.summary)
    layers = [layer.name for layer in network.summary.layers if not layer.signal_transform]
    config = QuantConfig().with_overrides(dict.fromkeys(layers, LayerSpec(weight_spec(3))))
    training = Training(steps=steps, batch_size=16, learning_rate=1e-2, patience=0, scope=scope)
    *_, last = train(Executor(network), dataset, dataset, config, {}, training, folder=tmp_path / "kept")
    before, after = (each.scores["kl"].value for each in (last.before, last.after))
    assert after < 0.6 * before
    assert last.after.output_sqnr_db > last.before.output_sqnr_db + 3
    list(export_qdq(network, last.trained, {}, tmp_path / "trained.onnx"))
    expected, found = answers(path, sound), answers(tmp_path / "trained.onnx", sound)
    sqnr = 10 * np.log10(np.square(expected).mean() / np.square(expected - found).mean())
    assert sqnr == pytest.approx(last.after.output_sqnr_db, abs=0.5)
