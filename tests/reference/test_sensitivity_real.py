"""Sweeps of real networks, against evaluations of the same configurations."""

from __future__ import annotations

from pathlib import Path

import networks
import numpy as np
import pytest

from quantgui.analysis.evaluation import evaluate
from quantgui.analysis.ranking import spearman
from quantgui.analysis.sensitivity import measure_sensitivity
from quantgui.network.datasets import open_dataset
from quantgui.network.executor import Executor
from quantgui.network.reader import open_network
from quantgui.results import EvaluationReady, Sensitivity
from quantgui.spec.config import QuantConfig
from quantgui.spec.sweep import Sweep, bits_specs

pytestmark = pytest.mark.network

SOURCES = {
    "demosaicnet": lambda: networks.mosaics(4, 96)[0],
    "facenet-rnet": None,
    "magika": None,
    "silero": None,
    "ppocr-cls": None,
}


@pytest.mark.parametrize("name", list(SOURCES))
def test_that_a_sweep_measures_what_evaluations_of_its_configurations_do(name: str, tmp_path: Path) -> None:
    network = open_network(networks.network_path(name))
    source, make = "random:3", SOURCES[name]
    if make is not None:
        source = str(tmp_path / "data.npy")
        np.save(source, make())
    data = open_dataset(source, network.summary.inputs, network.summary, network=network)
    executor = Executor(network)
    *_, table = measure_sensitivity(executor, data, Sweep(bits_specs((4, 8)), exact=True), {})
    assert isinstance(table, Sensitivity)
    assert table.complete
    every = [c for c in table.candidates if c.format == "int4"]
    for candidate in every[:: max(1, len(every) // 4)]:
        config = QuantConfig().with_overrides({candidate.layer: candidate.spec})
        found = [
            e for e in evaluate(Executor(network, segmented=False), data, config, {}) if isinstance(e, EvaluationReady)
        ]
        expected = found[-1].evaluation.scores["output_sqnr_db"]
        assert candidate.samples == data.samples
        # Far beyond 100 dB the float arithmetic of both runs is all there is to see.
        assert min(candidate.value, 90) == pytest.approx(min(expected.value, 90), abs=0.1)


def test_that_few_samples_rank_the_layers_of_a_real_network_as_all_do(tmp_path: Path) -> None:
    network = open_network(networks.network_path("demosaicnet"))
    np.save(tmp_path / "data.npy", networks.mosaics(16, 80)[0])
    data = open_dataset(str(tmp_path / "data.npy"), network.summary.inputs, network.summary, network=network)
    specs = bits_specs((4, 8))
    few, every = (
        [
            e
            for e in measure_sensitivity(Executor(network), data, Sweep(specs, exact=exact), {})
            if isinstance(e, Sensitivity)
        ]
        for exact in (False, True)
    )
    assert not few[0].candidates[0].samples
    for label in every[-1].orders:
        columns = [np.array([c.value for c in t[-1].candidates if c.format == label]) for t in (few, every)]
        assert spearman(*columns) > 0.95
