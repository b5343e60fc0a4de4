"""What the runs of other tools share: a network as ONNX and as PyTorch module, our files for it, and our own answer."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from quantgui.analysis.simulation import build_simulation
from quantgui.engine.bench import Bench
from quantgui.engine.requests import Calibrate, Export, OpenData, OpenNetwork, WriteSettings
from quantgui.network.datasets import open_dataset
from quantgui.network.executor import Executor
from quantgui.network.simulation import FLOAT_SIMULATION
from quantgui.numerics.metrics import sqnr_db
from quantgui.results import Calibrated, SettingsWritten
from quantgui.spec.config import QuantConfig
from quantgui.spec.presets import find_preset, preset_config
from quantgui.spec.quantizer import FLOAT
from tests.networks import EXPORTS, digits, network_path, package_file, photographs

if TYPE_CHECKING:
    from torch import nn

Array = np.ndarray
SAMPLES = 16


@dataclass(frozen=True, eq=False)
class Taken:
    """A network with data, opened, and a folder for files."""

    name: str
    bench: Bench
    inputs: Array
    folder: Path

    @property
    def data(self) -> Path:
        """The samples as a file."""
        return self.folder / "data.npz"

    @property
    def path(self) -> Path:
        """Where the float network lies."""
        return network_path(self.name)

    def config(self, preset: str, *left_float: str) -> QuantConfig:
        """Return a preset, with some layers left float."""
        config = preset_config(find_preset(preset), self.bench.network.summary.layers)
        return config.with_overrides(dict.fromkeys(left_float, FLOAT))

    def settings(self, config: QuantConfig, dialect: str) -> tuple[str, tuple[str, ...]]:
        """Return the text that we write for another tool, and the notes."""
        path = self.folder / f"settings-{dialect}"
        *_, written = self.bench.handle(WriteSettings(config, str(path), dialect))
        assert isinstance(written, SettingsWritten)
        return path.read_text(encoding="utf-8"), written.notes

    def export(self, config: QuantConfig, profile: str = "qdq") -> Path:
        """Return our own ONNX file."""
        path = self.folder / "ours.onnx"
        list(self.bench.handle(Export(config, str(path), profile)))  # type: ignore[arg-type]
        return path

    def ours(self, config: QuantConfig | None = None) -> Array:
        """Return the first output under the simulation of `config`; of the float network without one."""
        network = self.bench.network
        simulation = FLOAT_SIMULATION
        if config is not None:
            *_, calibrated = self.bench.handle(Calibrate())
            assert isinstance(calibrated, Calibrated)
            simulation = build_simulation(network, config, calibrated.activations)
        executor = Executor(network, cache_bytes=2**26)
        summary = network.summary
        data = open_dataset(str(self.data), summary.inputs, summary, network=network)
        name = summary.outputs[0].name
        return np.concatenate([executor.run(batch, simulation)[name] for batch in data.batches()])


@contextmanager
def taken(name: str) -> Iterator[Taken]:
    """Open the network called `name` with samples that fit it."""
    inputs = digits(SAMPLES)[0].astype(np.float32) if name == "ccexam-mnist" else photographs(SAMPLES)
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(cache_bytes=2**26)
        list(bench.handle(OpenNetwork(str(network_path(name)))))
        found = Taken(name, bench, inputs, Path(folder))
        np.savez(found.data, input=inputs)
        list(bench.handle(OpenData(str(found.data))))
        yield found


def module(name: str) -> nn.Module:
    """Return the PyTorch module that the ONNX file of the network comes from."""
    import torch

    export = EXPORTS[name]
    built = export.build()
    built.load_state_dict(
        torch.load(package_file(export.package, export.ending), weights_only=True, map_location="cpu")
    )
    return built.eval()


def decibels(reference: Array, answer: Array) -> float:
    """Return the SQNR of an answer, rounded to what is told."""
    return round(float(sqnr_db(np.asarray(reference, np.float64), np.asarray(answer, np.float64))), 1)
