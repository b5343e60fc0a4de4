"""Checkpoints of a training: one file per question, numbers in .npz and the rest in JSON; never a pickle.

The file's name is a hash of everything the training depends on, so it can be missing but never stale. It is replaced
as a whole. When a training has come to its end, only what was found is kept.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import secrets
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from quantgui import __version__
from quantgui.analysis.metric_function import Metric
from quantgui.errors import DataError, SpecError
from quantgui.network.bounded_folder import drop_oldest
from quantgui.network.network import Network
from quantgui.results import Array, Evaluation, Score, TrainingReady
from quantgui.spec.config import QuantConfig
from quantgui.spec.serialization import config_from_json, config_to_json
from quantgui.spec.training import Training

_VERSION: Final = 3
MOST_BYTES: Final = 2 * 2**30
"""Bytes of all checkpoints that are kept."""
MOST_LOSSES: Final = 2000
_ABOUT: Final = "about"
_UNREADABLE: Final = (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, SpecError)


@dataclass(eq=False)
class LossCurve:
    """The losses of a training, means of more and more steps so that there are never `MOST_LOSSES` of them."""

    steps: list[int] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    width: int = 1
    pending: list[float] = field(default_factory=list)

    def add(self, step: int, loss: float) -> None:
        """Add the loss of a step (from 1)."""
        self.pending.append(loss)
        if len(self.pending) < self.width:
            return
        self.steps.append(step)
        self.losses.append(float(np.mean(self.pending)))
        self.pending = []
        if len(self.losses) >= MOST_LOSSES:
            self.steps = self.steps[1::2]
            self.losses = [float(np.mean(pair)) for pair in zip(self.losses[::2], self.losses[1::2], strict=True)]
            self.width *= 2

    def arrays(self) -> tuple[Array, Array]:
        """Return steps, int (L,), and losses, float (L,)."""
        return np.array(self.steps, np.int64), np.array(self.losses, np.float64)


@dataclass(eq=False)
class History:
    """What a training has seen so far.

    Attributes:
        step: steps done.
        curve: losses.
        before: quality before the first step.
        judged: the same on the samples that choose the best.
        evaluations: steps with the quality after them.
        best: step of the best, and `best_judged` its quality on the samples that choose.
        trained: the configuration with what was best.
        waited: evaluations in the second half since the best.
        seconds: of training and evaluations.
        complete: whether it has come to its end.
        config, training: what it started from, and how it is trained.
    """

    step: int = 0
    curve: LossCurve = field(default_factory=LossCurve)
    before: Evaluation | None = None
    judged: Evaluation | None = None
    evaluations: list[tuple[int, Evaluation]] = field(default_factory=list)
    best: int | None = None
    best_judged: Evaluation | None = None
    trained: QuantConfig | None = None
    waited: int = 0
    seconds: float = 0.0
    complete: bool = False
    config: QuantConfig | None = None
    training: Training | None = None

    def ready(self, config: QuantConfig, training: Training) -> TrainingReady:
        """Return what can be told of a training of `config`; what only a run knows is left out."""
        steps, losses = self.curve.arrays()
        return TrainingReady(
            config=config,
            training=training,
            steps=self.step,
            loss_steps=steps,
            losses=losses,
            before=self.before,
            evaluations=tuple(self.evaluations),
            best=self.best,
            trained=self.trained,
            layers=(),
            seconds=self.seconds,
            complete=self.complete,
        )


def read_history(path: Path) -> History | None:
    """Return what a checkpoint at `path` tells, without its arrays; None where it is not whole."""
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            return _history(json.loads(file[_ABOUT].tobytes()))
    except _UNREADABLE:
        return None


def training_key(
    network: Network,
    config: QuantConfig,
    training: Training,
    data: Sequence[str],
    metric: Metric | None,
) -> str:
    """Return a hash of everything that a training depends on.

    Args:
        network: graph and weights.
        config: what it starts from.
        training: how it is trained.
        data: names the data that is trained on, that quality is measured on, and that ranges come from.
        metric: the user's function; the text of its file counts.
    """
    digest = hashlib.blake2b(digest_size=16)
    start = {**config_to_json(config), "name": ""}
    values = [_VERSION, __version__, network.fingerprint, start, asdict(training), list(data)]
    digest.update(json.dumps(values, sort_keys=True).encode())
    digest.update(network.skeleton.SerializeToString(deterministic=True))
    if metric is not None:
        digest.update(metric.name.encode() + metric.file.read_bytes())
    return digest.hexdigest()


class Checkpoint:
    """The checkpoint of one training, in `folder`, which keeps those used last within `most_bytes`."""

    def __init__(self, folder: Path, key: str, most_bytes: int = MOST_BYTES) -> None:
        self.path = folder / f"{key}.npz"
        self._most_bytes = most_bytes

    def load(self) -> tuple[History, dict[str, Array]] | None:
        """Return what was kept; None where there is nothing, or nothing whole."""
        try:
            with self.path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            history = _history(json.loads(arrays.pop(_ABOUT).tobytes()))
        except _UNREADABLE:
            return None
        with contextlib.suppress(OSError):
            # What is read counts as used.
            os.utime(self.path)
        return history, arrays

    def save(self, history: History, arrays: Mapping[str, Array]) -> None:
        """Keep `history` and `arrays` in place of what was kept.

        Raises:
            DataError: they cannot be written.
        """
        about = np.frombuffer(json.dumps(_about(history)).encode(), np.uint8)
        temporary = self.path.with_name(f".{self.path.name}.{secrets.token_hex(4)}")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("xb") as file:
                _write(file, {_ABOUT: about, **arrays})
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self.path)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise DataError(f"Cannot keep the training in '{self.path}': {error.strerror}.") from error
        drop_oldest(self.path.parent, "*.npz", self.path, self._most_bytes)

    def drop(self) -> None:
        """Forget what was kept.

        Raises:
            DataError: it cannot be deleted.
        """
        try:
            self.path.unlink(missing_ok=True)
        except OSError as error:
            raise DataError(f"Cannot delete the training in '{self.path}': {error.strerror}.") from error


def _write(file: io.BufferedIOBase, arrays: Mapping[str, Array]) -> None:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, values in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asanyarray(values), allow_pickle=False)


def _about(history: History) -> dict[str, Any]:
    return {
        "step": history.step,
        "curve": asdict(history.curve),
        "before": _evaluation_json(history.before),
        "judged": _evaluation_json(history.judged),
        "evaluations": [[step, _evaluation_json(each)] for step, each in history.evaluations],
        "best": history.best,
        "best_judged": _evaluation_json(history.best_judged),
        "trained": None if history.trained is None else config_to_json(history.trained),
        "waited": history.waited,
        "seconds": history.seconds,
        "complete": history.complete,
        "config": None if history.config is None else config_to_json(history.config),
        "training": None if history.training is None else asdict(history.training),
    }


def _history(about: Mapping[str, Any]) -> History:
    return History(
        step=int(about["step"]),
        curve=LossCurve(**about["curve"]),
        before=_evaluation(about["before"]),
        judged=_evaluation(about["judged"]),
        evaluations=[(int(step), found) for step, each in about["evaluations"] if (found := _evaluation(each))],
        best=about["best"],
        best_judged=_evaluation(about["best_judged"]),
        trained=None if about["trained"] is None else config_from_json(about["trained"]),
        waited=int(about["waited"]),
        seconds=float(about["seconds"]),
        complete=bool(about["complete"]),
        config=None if about["config"] is None else config_from_json(about["config"]),
        training=None if about["training"] is None else Training(**about["training"]),
    )


def _evaluation_json(evaluation: Evaluation | None) -> dict[str, Any] | None:
    return None if evaluation is None else asdict(evaluation)


def _evaluation(value: Mapping[str, Any] | None) -> Evaluation | None:
    if value is None:
        return None
    scores = {name: Score(**each) for name, each in value["scores"].items()}
    ends = {name: Score(**value[name]) for name in ("float_score", "quantized_score")}
    return Evaluation(**{**value, **ends, "scores": scores, "notes": tuple(value["notes"])})
