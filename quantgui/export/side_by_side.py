"""The float network, the simulation of a configuration and a quantized file, run on the same samples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import onnxruntime

from quantgui.export.deployed import DeployedFile
from quantgui.network.batch import Batch, carry
from quantgui.network.executor import Executor
from quantgui.network.simulation import FLOAT_SIMULATION, Simulation
from quantgui.results import Array

Answers = tuple[Mapping[str, Array], Mapping[str, Array], Mapping[str, Array]]
"""Outputs of the float network, of its simulation, and of the file."""


@dataclass(eq=False)
class SideBySide:
    """All three on the way through the samples: each has recurrent states of its own."""

    executor: Executor
    simulation: Simulation
    file: DeployedFile
    session: onnxruntime.InferenceSession
    """Runs the file."""
    _last: tuple[Mapping[str, Array] | None, ...] = field(default=(None, None, None), init=False)

    def run(self, batch: Batch) -> Answers:
        """Return what each answers to the batch that follows the last one."""
        reference, shown, answer = self._last
        answers = (
            self.executor.run(carry(batch, reference), FLOAT_SIMULATION),
            self.executor.run(carry(batch, shown), self.simulation),
            self.file.run(self.session, carry(batch, answer)),
        )
        self._last = answers
        return answers
