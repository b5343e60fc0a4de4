"""Whether a network that says it takes any number of samples does: some have a batch of one built in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import onnxruntime

from quantgui.errors import NetworkError
from quantgui.network.batch import Batch
from quantgui.network.datasets import Dataset
from quantgui.network.network import Network
from quantgui.network.session import create_session, runtime_errors

_MOST_MACS = 5_000_000_000
"""Work of a trial; larger networks are taken at their word."""
_MOST_BYTES = 2**28
_ONE = "The network runs on one sample at a time, though its inputs are said to take any number."


def fed_as_it_runs(network: Network, dataset: Dataset) -> Dataset:
    """Return `dataset` in batches of one sample where `network` fails on two together, but not on each of them alone.

    A state of fixed size beside a free batch axis is one reason, a Reshape to one row another.
    """
    free = dataset.batched and not dataset.carried and dataset.fixed_rows is None
    work = 2 * sum(layer.macs for layer in network.summary.layers)
    if not free or dataset.samples < 2 or work > _MOST_MACS or network.summary.float_bytes > _MOST_BYTES:
        return dataset
    try:
        session = create_session(network.skeleton, network.constants)
    except NetworkError:
        return dataset
    if _runs(session, [next(dataset.batches(2, 2))]) or not _runs(session, [dataset.sample(0), dataset.sample(1)]):
        return dataset
    summary = replace(dataset.summary, notes=(*dataset.summary.notes, _ONE))
    return replace(dataset, summary=summary, fixed_rows=1)


def _runs(session: onnxruntime.InferenceSession, batches: Sequence[Batch]) -> bool:
    quiet = onnxruntime.RunOptions()
    quiet.log_severity_level = 4  # a failure is an answer
    names = {info.name for info in session.get_inputs()}
    try:
        with runtime_errors("run"):
            for batch in batches:
                session.run(None, {name: values for name, values in batch.inputs.items() if name in names}, quiet)
    except NetworkError:
        return False
    return True
