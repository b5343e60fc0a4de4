"""Right and wrong preparations of real networks' inputs: the right one is silent, the wrong one is named."""

from __future__ import annotations

from pathlib import Path

import networks
import numpy as np
import pytest

from quantgui.analysis.preparations import IMAGENET_MEAN, IMAGENET_STD
from quantgui.analysis.preprocessing import check_preprocessing
from quantgui.network.datasets import open_dataset
from quantgui.network.executor import Executor
from quantgui.network.reader import open_network
from quantgui.results import Finding

SAMPLES = Path(__file__).parents[2] / "sample_models"


def _faces(size: int) -> np.ndarray:
    from skimage import data, transform

    random, found = np.random.default_rng(0), []
    face = data.astronaut()[0:180, 150:300]
    for place in range(12):
        picture = face if place % 2 == 0 else networks.pictures()[place % 4]
        side = int(random.integers(90, 140))
        y, x = (int(random.integers(0, n - side)) for n in picture.shape[:2])
        found.append(transform.resize(picture[y : y + side, x : x + side] / 255, (size, size), anti_aliasing=True))
    return np.array(found, np.float32).transpose(0, 3, 1, 2)


def _pixels(name: str) -> np.ndarray:
    """Return pictures (S, C, H, W), 0 ... 1, as the network saw them in training."""
    match name:
        case "efficientnet-lite0":
            return networks.photographs(12) * (128 / 255) + 127 / 255
        case "ppocr-rec":
            return (networks.text_lines(12) + 1) / 2
        case "ppocr-cls":
            lines = (networks.text_lines(12)[..., :160] + 1) / 2
            edge = np.broadcast_to(lines[:, :, :1, :1], (12, 3, 16, 160))
            return np.concatenate([edge, lines, edge], 2)
        case "demosaicnet":
            return networks.mosaics(4)[0]
        case "ccexam-mnist":
            return networks.digits(24)[0] * 0.3081 + 0.1307
        case "digits":
            return np.load(SAMPLES / "digits" / "digits.calibration.npz")["picture"][:24]
        case _:
            return _faces(24 if name.endswith("rnet") else 48)


def _prepared(pixels: np.ndarray, way: str) -> np.ndarray:
    match way:
        case "0 … 1":
            return pixels
        case "0 … 255":
            return pixels * 255
        case "−1 … 1":
            return pixels * 2 - 1
        case "digits":
            return (pixels - 0.1307) / 0.3081
        case _:
            return (pixels - np.reshape(IMAGENET_MEAN, (3, 1, 1))) / np.reshape(IMAGENET_STD, (3, 1, 1))


def _findings(tmp_path: Path, name: str, pixels: np.ndarray, way: str) -> list[Finding]:
    path = SAMPLES / "digits" / "digits.onnx" if name == "digits" else networks.network_path(name)
    network = open_network(path)
    values = _prepared(pixels, way).astype(np.float32)
    if network.summary.inputs[0].shape[-1] == 3:
        values = np.ascontiguousarray(values.transpose(0, 2, 3, 1))
    np.savez(tmp_path / "data.npz", **{network.summary.inputs[0].name: values})
    dataset = open_dataset(str(tmp_path / "data.npz"), network.summary.inputs, network.summary)
    return [each for each in check_preprocessing(Executor(network), dataset) if isinstance(each, Finding)]


RIGHT = {
    "digits": "0 … 1",
    "efficientnet-lite0": "−1 … 1",
    "ppocr-rec": "−1 … 1",
    "ppocr-cls": "ImageNet",
    "mtcnn-pnet": "−1 … 1",
    "mtcnn-rnet": "−1 … 1",
    "mtcnn-onet": "−1 … 1",
    "facenet-rnet": "−1 … 1",
    "facenet-onet": "−1 … 1",
    "demosaicnet": "0 … 1",
    "ccexam-mnist": "digits",
}


@pytest.mark.parametrize("name", RIGHT)
def test_that_the_right_preparation_raises_no_finding_and_255_times_it_does(tmp_path, name) -> None:
    pixels = _pixels(name)
    assert _findings(tmp_path, name, pixels, RIGHT[name]) == []
    (finding,) = _findings(tmp_path, name, pixels, "0 … 255")
    assert finding.kind == "range of inputs"
    assert finding.severity == "error"
    likely = "mean 0 and standard deviation 1" if RIGHT[name] == "digits" else RIGHT[name]
    assert likely in finding.advice


@pytest.mark.parametrize("name", [name for name, way in RIGHT.items() if way != "0 … 1"])
def test_that_inputs_that_are_not_centred_are_told_where_the_network_saw_centred_ones(tmp_path, name) -> None:
    (finding,) = _findings(tmp_path, name, _pixels(name), "0 … 1")
    assert finding.kind == "range of inputs"
    assert finding.severity == "warning"


def test_that_swapped_colours_are_told_where_the_network_is_surer_without(tmp_path) -> None:
    pixels = _pixels("efficientnet-lite0")
    (finding,) = _findings(tmp_path, "efficientnet-lite0", pixels[:, ::-1], "−1 … 1")
    assert finding.kind == "order of colours"
