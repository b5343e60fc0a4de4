"""What analyses need of `network.datasets.Dataset`, so that a test or a notebook can bring samples of its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Protocol

from quantgui.network.batch import Batch
from quantgui.results import DataSummary


class Samples(Protocol):
    """Samples in batches; `samples` is how many at most, from the first on."""

    @property
    def summary(self) -> DataSummary: ...
    def batches(self, batch_size: int | None = None, samples: int | None = None) -> Iterator[Batch]: ...


class CarriedSamples(Samples, Protocol):
    """Samples between which a recurrent network may carry a state: the output that becomes an input, by input."""

    @property
    def carried(self) -> Mapping[str, str]: ...


class SharedSamples(CarriedSamples, Protocol):
    """Samples whose inputs may have values for all of them together; `shared` names these inputs."""

    @property
    def shared(self) -> frozenset[str]: ...


class NumberedSamples(CarriedSamples, Protocol):
    """Samples that can be had one by one, each as a batch."""

    def sample(self, index: int) -> Batch: ...
