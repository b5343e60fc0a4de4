"""What training draws from: samples of a data set in any order, and what the float network makes of them.

Both are kept in memory as far as a budget allows; what is not is read, and computed, again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from quantgui.errors import DataError
from quantgui.network.batch import Batch
from quantgui.network.datasets import Dataset
from quantgui.network.executor import Executor
from quantgui.results import Array

_SAMPLE_BYTES: Final = 512 * 2**20
"""Of samples that are kept."""
_OUTPUT_BYTES: Final = 512 * 2**20
"""Of outputs of the float network that are kept."""


@dataclass(eq=False)
class Samples:
    """The samples `indices` of a data set, and the float network's outputs for them.

    Attributes:
        dataset: where they come from.
        executor: runs the float network.
        indices: those that training may see.
    """

    dataset: Dataset
    executor: Executor
    indices: Array
    _kept: dict[int, Batch] = field(default_factory=dict)
    _kept_bytes: int = 0
    _outputs: dict[int, Mapping[str, Array]] = field(default_factory=dict)
    _output_bytes: int = 0

    def __post_init__(self) -> None:
        if not len(self.indices):
            raise DataError(f"The data '{self.dataset.summary.source}' holds no sample to train with.")

    @property
    def is_carried(self) -> bool:
        """Whether recurrent state goes from sample to sample."""
        return bool(self._sample(int(self.indices[0])).carried)

    @property
    def is_free(self) -> bool:
        """Whether a batch may have any number of samples."""
        return self.dataset.batched and self.dataset.fixed_rows is None and not self.dataset.carried

    @property
    def most(self) -> int | None:
        """Samples that a batch can have at most; None where any number is possible."""
        if self.is_free:
            return None
        fixed = self.dataset.fixed_rows
        return 1 if self.dataset.carried or not self.dataset.batched or fixed is None else fixed

    def drawn(self, step: int, count: int, seed: int) -> Array:
        """Return the samples of a step (from 0): each once before any comes again, in an order that `seed` decides."""
        total = len(self.indices)
        places = np.arange(step * count, (step + 1) * count)
        rounds, within = places // total, places % total
        orders = {each: np.random.default_rng([seed, each]).permutation(total) for each in np.unique(rounds)}
        return np.array([self.indices[orders[each][place]] for each, place in zip(rounds, within, strict=True)])

    def first(self, count: int) -> Array:
        """Return the first samples, as many as a batch can have, at most `count`."""
        return self.indices[: count if self.most is None else min(count, self.most)]

    def pieces(self, drawn: Array, most: int) -> Iterator[Array]:
        """Yield the samples of a step in batches of at most `most`, or of what the network prescribes."""
        size = most if self.most is None else self.most
        for start in range(0, len(drawn), size):
            yield drawn[start : start + size]

    def batch(self, drawn: Array) -> Batch:
        """Return some samples as one batch."""
        singles = [self._sample(int(index)) for index in drawn]
        first = singles[0]
        if not self.dataset.batched or self.dataset.carried:
            return first
        rows = self.dataset.fixed_rows or len(singles)
        ways = {feed.info.name: feed.way for feed in self.dataset.feeds}
        inputs = {}
        for name, values in first.inputs.items():
            if ways.get(name) in ("rows", "repeated"):
                chosen = [each.inputs[name][:1] for each in singles]
                inputs[name] = np.concatenate([*chosen, *[chosen[-1]] * (rows - len(chosen))])
            else:
                inputs[name] = values
        labels = None if first.labels is None else np.concatenate([_labels(each) for each in singles])
        key = f"{self.dataset.summary.fingerprint}:{','.join(map(str, drawn))}/{rows}"
        return Batch(inputs, labels, int(drawn[0]), len(singles), key, rows, batched=True)

    def targets(self, drawn: Array, batch: Batch, names: Sequence[str]) -> dict[str, Array]:
        """Return the float network's outputs `names` for a batch of the samples `drawn`, one entry for each."""
        if all(int(index) in self._outputs for index in drawn):
            return {
                name: np.stack([self._outputs[int(index)][name] for index in drawn])
                for name in self._outputs[int(drawn[0])]
            }
        outputs = self.executor.run(batch, keep=False)
        split = {name: batch.split(outputs[name]) for name in names}
        if all(len(values) == len(drawn) for values in split.values()):
            for place, index in enumerate(drawn):
                self._keep_outputs(int(index), {name: values[place].copy() for name, values in split.items()})
        return {name: np.array(values) for name, values in split.items()}

    def _keep_outputs(self, index: int, values: Mapping[str, Array]) -> None:
        size = sum(each.nbytes for each in values.values())
        if index not in self._outputs and self._output_bytes + size <= _OUTPUT_BYTES:
            self._outputs[index] = values
            self._output_bytes += size

    def _sample(self, index: int) -> Batch:
        if index not in self._kept:
            sample = self.dataset.sample(index)
            size = sum(values.nbytes for values in sample.inputs.values())
            if self._kept_bytes + size > _SAMPLE_BYTES:
                return sample
            self._kept[index] = sample
            self._kept_bytes += size
        return self._kept[index]


def _labels(sample: Batch) -> Array:
    assert sample.labels is not None
    return sample.labels
