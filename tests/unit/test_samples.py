from __future__ import annotations

import json

import numpy as np
import onnxruntime
import pytest

from quantgui.paths import resources, sample_models

SAMPLES = json.loads((sample_models() / "samples.json").read_text())


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample["name"])
def test_that_a_sample_is_small_and_has_the_accuracy_it_states(sample: dict) -> None:
    network = sample_models() / sample["network"]
    data = np.load(sample_models() / sample["evaluation"])
    calibration = np.load(sample_models() / sample["calibration"])
    session = onnxruntime.InferenceSession(str(network), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    accuracy = (session.run(None, {name: data[name]})[0].argmax(1) == data["labels"]).mean()
    assert network.stat().st_size < 2_000_000
    assert "labels" not in calibration
    assert accuracy == pytest.approx(sample["accuracy"], abs=0.002)
    assert accuracy > 0.9


def test_that_calibration_and_evaluation_share_no_sample() -> None:
    for sample in SAMPLES:
        data = np.load(sample_models() / sample["evaluation"])
        calibration = np.load(sample_models() / sample["calibration"])
        (name,) = calibration.files
        seen = {row.tobytes() for row in calibration[name]}
        assert not any(row.tobytes() in seen for row in data[name])


def test_that_every_help_page_has_a_title_and_no_dead_link() -> None:
    pages = list((resources() / "help").glob("*.md"))
    assert len(pages) >= 10
    for page in pages:
        assert page.read_text().startswith("# ")
