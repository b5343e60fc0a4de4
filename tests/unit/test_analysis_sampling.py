from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from quantgui.analysis.ranking import RankErrors
from quantgui.analysis.sampling import shares_behind, worth_more
from quantgui.network.reader import open_network
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
    unclear = RankErrors({"a": 4.0, "b": 4.0, "c": 1.0, "d": 0.0}, 0.9)
    names = {key: key for key in keys}
    costs = {"a": 4.0, "b": 1.0, "c": 1.0, "d": 1.0}
    assert worth_more([(keys, unclear)], names, costs, 100.0) == {"a", "b", "c"}
    assert worth_more([(keys, unclear)], names, costs, 1.0) == {"b"}
    # `a` and `c` gain alike for what they cost; the first comes first, and nothing is spent beyond the allowance.
    assert worth_more([(keys, unclear)], names, costs, 5.0) == {"a", "b"}
    assert worth_more([(keys, unclear)], names, {"c": 1.0}, 100.0) == {"c"}
    assert worth_more([(keys, unclear)], names, costs, -1.0) == set()
    clear = RankErrors(unclear.variances, 0.9999)
    assert worth_more([(keys, clear)], names, costs, 100.0) == set()
