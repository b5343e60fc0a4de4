from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from quantgui.analysis.ranking import RankErrors
from quantgui.analysis.sampling import shares_behind, worth_more
from quantgui.analysis.scores import SampleRows
from quantgui.analysis.sweep_known import Known
from quantgui.network.reader import open_network
from quantgui.spec.sweep import Sweep, bits_specs
from tests.builders import mlp_model


def test_that_the_share_behind_a_layer_counts_it_and_all_that_follow(tmp_path: Path) -> None:
    onnx.save(mlp_model(), tmp_path / "network.onnx")
    layers = open_network(tmp_path / "network.onnx").summary.layers
    macs = [layer.macs for layer in layers]
    expected = {layer.name: sum(macs[place:]) / sum(macs) for place, layer in enumerate(layers)}
    assert shares_behind(layers) == pytest.approx(expected)
    assert next(iter(expected.values())) == 1.0


def test_that_samples_go_where_ranks_gain_most_for_the_cost_until_the_allowance_is_spent() -> None:
    keys = ("a", "b", "c", "d")
    unclear = RankErrors({"a": 4.0, "b": 4.0, "c": 1.0, "d": 0.0}, 0.1)
    names = {key: key for key in keys}
    costs = {"a": 4.0, "b": 1.0, "c": 1.0, "d": 1.0}
    assert worth_more([(keys, unclear)], names, costs, 100.0) == {"a", "b", "c"}
    assert worth_more([(keys, unclear)], names, costs, 1.0) == {"b"}
    # `a` and `c` gain alike for what they cost; the first comes first, and nothing is spent beyond the allowance.
    assert worth_more([(keys, unclear)], names, costs, 5.0) == {"a", "b"}
    assert worth_more([(keys, unclear)], names, {"c": 1.0}, 100.0) == {"c"}
    assert worth_more([(keys, unclear)], names, costs, -1.0) == set()
    # Of four layers, a square of 4 takes 0.4 from the correlation: what is lost here is won back by `b` alone.
    nearly = RankErrors(unclear.variances, 0.65)
    assert worth_more([(keys, nearly)], names, costs, 100.0) == {"b"}
    clear = RankErrors(unclear.variances, 0.9999)
    assert worth_more([(keys, clear)], names, costs, 100.0) == set()


def test_that_values_are_raised_step_by_step_to_the_level_of_most_samples(tmp_path: Path) -> None:
    onnx.save(mlp_model((8, 16, 12, 5)), tmp_path / "network.onnx")
    layers = open_network(tmp_path / "network.onnx").summary.layers
    known = Known(Sweep(bits_specs((4,)), metric="kl"), layers, None, 24)
    known.places = [(0, 8), (8, 8), (16, 8)]
    rows = np.random.default_rng(0).random((len(layers), 3, 8))
    batches = (3, 2, 1)
    for key, own, count in zip(known.keys, rows, batches, strict=True):
        for place, values in zip(known.places[:count], own, strict=False):
            known.rows[key][place] = SampleRows(8, values=values, weights=np.ones(8))
    # From one batch to two, two layers tell what changes; from two to three, one.
    one, two, three = (rows[:, :count].mean((1, 2)) for count in (1, 2, 3))
    last = three[0] - two[0]
    expected = [three[0], two[1] + last, one[2] + (two - one)[:2].mean() + last]
    assert [each.value for each in known.candidates(known.keys)] == pytest.approx(expected)
    assert [each.samples for each in known.candidates(known.keys)] == [24, 16, 8]
