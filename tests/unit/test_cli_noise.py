"""The command ``quantgui noise`` on a sample network."""

from __future__ import annotations

import json

import numpy as np
import pytest

from quantgui.cli.main import main
from quantgui.paths import sample_models

DIGITS = str(sample_models() / "digits" / "digits.onnx")
DATA = str(sample_models() / "digits" / "digits.evaluation.npz")
COMMAND = ["noise", DIGITS, "--data", DATA, "--preset", "W2-g32", "--as-is", "--samples", "16"]


def test_that_the_answer_names_the_noise_of_every_layer_and_the_samples_it_hurts(capsys) -> None:
    assert main([*COMMAND, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert main(["inspect", DIGITS, "--json"]) == 0
    layers = json.loads(capsys.readouterr().out)["layers"]
    assert [layer["name"] for layer in answer["layers"]] == [layer["name"] for layer in layers]
    assert answer["samples"] == 16
    assert answer["layers"][0]["inherited_sqnr_db"] == "inf"  # nothing comes in
    assert np.array([layer["damage"] for layer in answer["layers"]]).shape == (len(layers), 16)
    assert main(["evaluate", *COMMAND[1:], "--json"]) == 0
    agreement = json.loads(capsys.readouterr().out)["scores"]["agreement"]["value"]
    assert 1 - len(answer["flipped"]) / 16 == pytest.approx(agreement)


def test_that_the_table_says_who_makes_noise_who_amplifies_it_and_who_suffers(capsys) -> None:
    assert main(COMMAND) == 0
    text = capsys.readouterr().out
    assert "16 samples change their top class" in text
    assert "amplifies" in text
    assert "samples hurt most, by which layer" in text
    assert main([*COMMAND[:4], "--preset", "float32", "--samples", "4"]) == 0
    assert "0 of 4 samples change their top class" in capsys.readouterr().out


def test_that_a_configuration_is_needed(capsys) -> None:
    assert main(COMMAND[:4]) == 2
    assert "--preset" in capsys.readouterr().err
