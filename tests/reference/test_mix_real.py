"""Mixes of real networks: better than uniform bits of the same size, and about what single layers promise."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from networks import digits, mosaics, network_path

from quantgui.analysis.evaluation import evaluate
from quantgui.analysis.mixed_precision import find_mix, sweep_for
from quantgui.analysis.sensitivity import measure_sensitivity
from quantgui.network.datasets import open_dataset
from quantgui.network.executor import Executor
from quantgui.network.reader import open_network
from quantgui.results import EvaluationReady, MixReady, Sensitivity
from quantgui.spec.config import QuantConfig
from quantgui.spec.mix import Mix
from quantgui.spec.presets import weight_spec
from quantgui.spec.quantizer import LayerSpec
from quantgui.spec.size import network_bytes
from quantgui.spec.sweep import Sweep, bits_specs

pytestmark = pytest.mark.network


# Nearly all weights of the second network are in one layer, which leaves little to choose.
@pytest.mark.parametrize(("name", "bits", "gain"), [("demosaicnet", 5, 3), ("ccexam-mnist", 4, 0)])
def test_that_a_mix_is_better_than_uniform_bits_of_the_same_size(
    name: str, bits: int, gain: float, tmp_path: Path
) -> None:
    network = open_network(network_path(name))
    summary = network.summary
    np.save(tmp_path / "data.npy", mosaics(6)[0] if name == "demosaicnet" else digits(64)[0])
    data = open_dataset(str(tmp_path / "data.npy"), summary.inputs, summary, network=network)
    executor = Executor(network)
    uniform = QuantConfig(LayerSpec(weight_spec(bits)))
    *_, last = evaluate(executor, data, uniform, {})
    assert isinstance(last, EvaluationReady)
    limit = network_bytes(summary.float_bytes, summary.layers, uniform)
    mix = Mix(Sweep(bits_specs((4, 5, 6, 8))), limit=limit, evaluated=6)
    *_, table = measure_sensitivity(executor, data, sweep_for(network, mix), {})
    assert isinstance(table, Sensitivity)
    *_, ready = find_mix(executor, data, mix, table, {})
    assert isinstance(ready, MixReady)
    chosen, refined = ready.points[ready.chosen], ready.refined
    assert max(chosen.bytes, refined.bytes) <= limit
    assert refined.measured.value >= max(chosen.measured.value, last.evaluation.output_sqnr_db + gain)
    # Errors of neighbouring layers are not wholly independent, so the sum is about right only.
    assert chosen.measured.value == pytest.approx(chosen.predicted, abs=3)
