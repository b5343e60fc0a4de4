"""Trainings that were left before their end: their checkpoints are on disk, and somebody may want to go on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from quantgui.analysis.metric_function import Metric
from quantgui.analysis.qat.checkpoint import Checkpoint, History, read_history, training_key
from quantgui.network.bounded_folder import oldest_first
from quantgui.network.network import Network
from quantgui.results import TrainingReady
from quantgui.spec.config import QuantConfig
from quantgui.spec.trained_files import trained_states
from quantgui.spec.training import Training


def left_training(
    network: Network,
    folder: Path,
    data: Sequence[str],
    metric: Metric | None,
    discarded: tuple[QuantConfig, Training] | None = None,
) -> TrainingReady | None:
    """Return the newest training of `network` with `data` and `metric` that has begun and not ended.

    Args:
        network: graph and weights.
        folder: with checkpoints.
        data: see `training_key`.
        metric: the user's metric.
        discarded: one whose checkpoint is deleted first.
    """

    def key_of(config: QuantConfig, training: Training) -> str:
        return training_key(network, config, training, data, metric)

    if discarded is not None:
        Checkpoint(folder, key_of(*discarded)).drop()
    return next(
        (found for _, _, path in reversed(oldest_first(folder, "*.npz")) if (found := _left_at(path, key_of, network))),
        None,
    )


def _left_at(path: Path, key_of: Callable[[QuantConfig, Training], str], network: Network) -> TrainingReady | None:
    history = read_history(path)
    if history is None or history.complete or not history.step or history.config is None or history.training is None:
        return None
    # The name of the file tells whether it is of this network, this data and this metric.
    if key_of(history.config, history.training) != path.stem or not _is_whole(history, network):
        return None
    return history.ready(history.config, history.training)


def _is_whole(history: History, network: Network) -> bool:
    """Return whether the weights of the best step are on disk, without which it would begin anew."""
    return history.trained is None or all(network.states.holds(name) for name in trained_states(history.trained))
