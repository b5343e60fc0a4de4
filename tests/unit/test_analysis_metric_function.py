from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from quantgui.analysis.metric_function import batch_scores, load_metric
from quantgui.errors import MetricError


def metric_of(folder: Path, text: str, name: str = "metric"):
    (folder / "mine.py").write_text(text)
    return load_metric(f"{folder / 'mine.py'}:{name}")


def test_that_one_output_arrives_as_an_array_and_several_as_a_dict(tmp_path):
    metric = metric_of(tmp_path, "def metric(outputs, labels):\n    return [float(isinstance(outputs, dict))] * 3\n")
    one = {"y": np.zeros((3, 2), np.float32)}
    np.testing.assert_array_equal(batch_scores(metric, one, None, 3), [0, 0, 0])
    np.testing.assert_array_equal(batch_scores(metric, {**one, "z": one["y"]}, None, 3), [1, 1, 1])


def test_that_labels_reach_the_function(tmp_path):
    metric = metric_of(tmp_path, "def metric(outputs, labels):\n    return outputs.argmax(1) == labels\n")
    outputs = {"y": np.eye(3, dtype=np.float32)}
    np.testing.assert_array_equal(batch_scores(metric, outputs, np.array([0, 1, 1]), 3), [1, 1, 0])


def test_that_a_scalar_stands_for_the_whole_batch(tmp_path):
    metric = metric_of(tmp_path, "def metric(outputs, labels):\n    return outputs.mean()\n")
    scores = batch_scores(metric, {"y": np.full((4, 2), 2.5, np.float32)}, None, 4)
    np.testing.assert_array_equal(scores, [2.5])


def test_that_a_function_cannot_change_the_outputs_it_gets(tmp_path):
    metric = metric_of(tmp_path, "def metric(outputs, labels):\n    outputs[:] = 0\n    return outputs[:, 0]\n")
    outputs = {"y": np.ones((2, 2), np.float32)}
    batch_scores(metric, outputs, None, 2)
    assert outputs["y"].min() == 1


def test_that_the_direction_comes_from_the_function(tmp_path):
    text = "def metric(outputs, labels):\n    return 0\nmetric.higher_is_better = False\n"
    assert not metric_of(tmp_path, text).higher_is_better
    assert metric_of(tmp_path, "def metric(outputs, labels):\n    return 0\n").higher_is_better


def test_that_a_metric_may_hold_dataclasses_and_import_its_neighbour(tmp_path):
    (tmp_path / "neighbour_of_metric.py").write_text("VALUE = 7\n")
    text = (
        "from __future__ import annotations\nfrom dataclasses import dataclass\n"
        "import neighbour_of_metric\n\n@dataclass\nclass Pair:\n    a: int\n\n"
        "def metric(outputs, labels):\n    return Pair(neighbour_of_metric.VALUE).a\n"
    )
    before = list(sys.path)
    assert batch_scores(metric_of(tmp_path, text), {"y": np.zeros(1)}, None, 1)[0] == 7
    assert sys.path == before


def test_that_what_the_metric_prints_stays_off_standard_output(tmp_path, capsys):
    metric = metric_of(tmp_path, "print('loading')\ndef metric(outputs, labels):\n    print('scoring')\n    return 0\n")
    batch_scores(metric, {"y": np.zeros((2, 1))}, None, 2)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "scoring" in captured.err


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("def metric(outputs, labels):\n    return 1 / 0\n", r"failed in line 2 of 'mine.py': ZeroDivisionError: div"),
        ("def metric(outputs, labels):\n    raise SystemExit(3)\n", r"failed in line 2 of 'mine.py': SystemExit: 3"),
        ("def metric(outputs, labels):\n    return 'good'\n", "returned str; it must return one number per sample"),
        ("def metric(outputs, labels):\n    return [1, 2]\n", r"shape \(2,\) for 3 samples"),
        ("def metric(outputs, labels):\n    return None\n", "returned NoneType"),
    ],
)
def test_that_a_failing_metric_gives_a_sentence(tmp_path, text, sentence):
    with pytest.raises(MetricError, match=sentence):
        batch_scores(metric_of(tmp_path, text), {"y": np.zeros((3, 2))}, None, 3)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("def metric(outputs, labels:\n", r"is no valid Python: .* \(line 1\)"),
        ("import no_such_package_at_all\n", "line 1 of 'mine.py': ModuleNotFoundError"),
        ("def other(outputs, labels): ...\n", "defines no function 'metric'"),
        ("metric = 3\n", "defines no function 'metric'"),
        ("def metric(outputs): ...\n", "must take two arguments, outputs and labels"),
    ],
)
def test_that_a_file_without_a_metric_gives_a_sentence(tmp_path, text, sentence):
    with pytest.raises(MetricError, match=sentence):
        metric_of(tmp_path, text)


@pytest.mark.parametrize("reference", ["mine.py", ":metric", "mine.py:", ""])
def test_that_a_reference_needs_a_file_and_a_function(reference):
    with pytest.raises(MetricError, match=r"FILE\.py:function"):
        load_metric(reference)


def test_that_a_missing_file_is_named():
    with pytest.raises(MetricError, match=r"There is no metric file .*nowhere\.py"):
        load_metric("nowhere.py:metric")


def test_that_an_error_of_many_lines_is_told_in_one(tmp_path):
    metric = metric_of(tmp_path, "def metric(outputs, labels):\n    raise ValueError('first\\n\\nsecond')\n")
    with pytest.raises(MetricError, match=r"failed in line 2 of 'mine\.py': ValueError: first second\.$"):
        batch_scores(metric, {"y": np.zeros((2, 2), np.float32)}, None, 2)
