"""One sample: what goes into the network, and what the float and the quantized network make of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from quantgui.analysis.output_roles import recognise_outputs
from quantgui.analysis.samples import NumberedSamples
from quantgui.analysis.simulation import Ranges, build_simulation
from quantgui.network.batch import Batch, carry
from quantgui.network.executor import Executor
from quantgui.network.simulation import FLOAT_SIMULATION
from quantgui.results import ActivationReady, Array, Event, Progress, SampleReady
from quantgui.spec.config import QuantConfig


def view_sample(
    executor: Executor,
    dataset: NumberedSamples,
    config: QuantConfig,
    activations: Mapping[str, ActivationReady],
    index: int,
    *,
    ranges: Ranges | None = None,
) -> Iterator[Event]:
    """Yield one SampleReady: sample `index` and what the float and the quantized network make of it.

    A recurrent network goes through all samples before it.

    Raises:
        DataError: there is no such sample, or `activations` lacks a tensor that is quantized.
        NetworkError: the network cannot be run.
    """
    network = executor.network
    simulation = build_simulation(network, config, activations, ranges=ranges)
    first = 0 if dataset.carried else index
    batch = dataset.sample(index)
    before: list[Mapping[str, Array] | None] = [None, None]
    for place in range(first, index + 1):
        yield Progress(place - first, index + 1 - first, f"Running sample {index}")
        batch = dataset.sample(place)
        before = [
            executor.run(carry(batch, outputs), each)
            for outputs, each in zip(before, (FLOAT_SIMULATION, simulation), strict=True)
        ]
    outputs, quantized = ({} if each is None else _of_sample(batch, each) for each in before)
    labels = batch.labels
    answers = {name: values[np.newaxis] for name, values in outputs.items()}
    roles = recognise_outputs(network.skeleton, answers, labels)
    yield SampleReady(
        config=config,
        sample=index,
        inputs=_of_sample(batch, batch.inputs),
        float_outputs=outputs,
        quantized_outputs=quantized,
        label=None if labels is None else np.asarray(labels[0]),
        image_options=dataset.summary.image_options,
        class_axes={name: role.axis - 1 for name, role in roles.items() if role.axis > 0},
    )


def _of_sample(batch: Batch, values: Mapping[str, Array]) -> dict[str, Array]:
    """Return each array of a batch of one sample without the axis of samples; recurrent states are left out."""
    states = {*batch.carried, *batch.carried.values()}
    return {name: np.asarray(batch.split(array)[0]) for name, array in values.items() if name not in states}
