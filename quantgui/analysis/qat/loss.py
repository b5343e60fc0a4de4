"""What training makes small: the distance of the quantized network's outputs from the teacher's, or from labels.

Teacher is the float network: for outputs that are class scores the KL divergence from its distribution, for all others
the squared error over the mean square of its output. With labels: cross entropy where they are classes of an output,
else the squared error where they have the shape of one. Losses of several outputs are averaged. It imports torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from quantgui.analysis.output_roles import OutputRole, class_labels, fits_labels, position_shape, recognise_outputs
from quantgui.errors import DataError, NetworkError
from quantgui.network.batch import Batch
from quantgui.network.network import Network
from quantgui.results import Array
from quantgui.spec.training import Teacher

_TINY: Final = 1e-8


@dataclass(frozen=True, eq=False)
class Objective:
    """The loss of one network.

    Attributes:
        roles: of the outputs that are compared with the teacher's.
        energies: mean square of each of them.
        labelled: the output that the labels belong to, with its role; None where the teacher is the float network.
    """

    roles: Mapping[str, OutputRole]
    energies: Mapping[str, float]
    labelled: tuple[str, OutputRole] | None = None

    @property
    def outputs(self) -> tuple[str, ...]:
        """The outputs that count."""
        return tuple(self.roles) if self.labelled is None else (self.labelled[0],)

    def loss(self, batch: Batch, outputs: Mapping[str, Tensor], targets: Mapping[str, Array]) -> Tensor:
        """Return the mean loss of a batch; `targets` are the float network's outputs, one entry for each sample."""
        losses = []
        for name in self.outputs:
            rows = _rows(batch, outputs[name]).float()
            if self.labelled is not None:
                assert batch.labels is not None
                losses.append(_label_loss(rows, batch.labels, self.labelled[1], self.energies[name]))
            else:
                losses.append(
                    _teacher_loss(rows, torch.from_numpy(targets[name]), self.roles[name], self.energies[name])
                )
        return torch.stack(losses).mean()


def objective_of(network: Network, batch: Batch, outputs: Mapping[str, Array], teacher: Teacher) -> Objective:
    """Return the loss for a network, from the float network's `outputs` of one batch.

    Raises:
        DataError: the data has no labels, or none that fit an output.
        NetworkError: no output is a real number.
    """
    states = set(batch.carried.values())
    references = {name: batch.split(values) for name, values in outputs.items() if name not in states}
    labels = class_labels(batch.labels) if teacher == "labels" else None
    roles = recognise_outputs(network.skeleton, references, labels)
    real = {name: role for name, role in roles.items() if references[name].dtype.kind == "f" and references[name].size}
    if not real:
        raise NetworkError("No output of the network is a real number, so there is no gradient to train it by.")
    energies = {name: max(_mean_square(references[name]), _TINY) for name in real}
    if teacher == "float":
        return Objective(real, energies)
    if batch.labels is None or labels is None:
        raise DataError("The data has no labels to train with; choose the float network as teacher.")
    for name, role in real.items():
        if fits_labels(references[name], role, labels):
            return Objective(real, energies, (name, role))
        if batch.labels.shape == references[name].shape:
            return Objective(real, energies, (name, OutputRole("values")))
    raise DataError(
        "The labels are neither classes of an output nor of its shape, so they cannot teach; choose the float network "
        "as teacher."
    )


def _rows(batch: Batch, output: Tensor) -> Tensor:
    """Return an output with one entry for each real sample, as `Batch.split` does."""
    rows = batch.rows or batch.samples
    if batch.batched and output.dim() and output.shape[0] == rows:
        return output[: batch.samples]
    return output[None]


def _mean_square(values: Array) -> float:
    finite = values[np.isfinite(values)].astype(np.float64)
    return float(np.square(finite).mean()) if finite.size else 0.0


def _teacher_loss(rows: Tensor, target: Tensor, role: OutputRole, energy: float) -> Tensor:
    match role.kind:
        case "logits":
            return _divergence(rows.log_softmax(role.axis), target.float().log_softmax(role.axis), role.axis)
        case "log_probabilities":
            return _divergence(rows, target.float(), role.axis)
        case "probabilities":
            # Those of the quantized network need not sum to 1 where a quantizer stands behind the Softmax.
            given = rows.clamp_min(_TINY)
            own = (given / given.sum(role.axis, keepdim=True)).log()
            return _divergence(own, target.float().clamp_min(_TINY).log(), role.axis)
        case "binary":
            wanted = target.float().clamp(0, 1)
            own, best = (each.clamp(_TINY, 1 - 1e-7) for each in (rows, wanted))
            # Without what is left where both are the same, so that it can become 0 as the others can.
            return functional.binary_cross_entropy(own, wanted) - functional.binary_cross_entropy(best, wanted)
        case _:
            return _squared_error(rows, target.float(), energy)


def _divergence(own: Tensor, target: Tensor, axis: int) -> Tensor:
    """Return the mean over positions of the KL divergence of log-probabilities `own` from `target`, in nats."""
    return (target.exp() * (target - own)).sum(axis).mean()


def _squared_error(rows: Tensor, target: Tensor, energy: float) -> Tensor:
    finite = torch.isfinite(target)
    difference = torch.where(finite, rows - target, torch.zeros(()))
    return difference.square().mean() / energy


def _label_loss(rows: Tensor, labels: Array, role: OutputRole, energy: float) -> Tensor:
    if role.kind == "values":
        return _squared_error(rows, torch.from_numpy(np.ascontiguousarray(labels)).float(), energy)
    classes = class_labels(labels)
    assert classes is not None
    wanted = torch.from_numpy(np.ascontiguousarray(classes.reshape(position_shape(classes.shape)))).long()
    if role.kind == "binary":
        flat = rows.reshape(-1).clamp(_TINY, 1 - 1e-7)
        known = wanted.reshape(-1) >= 0
        return functional.binary_cross_entropy(flat[known], wanted.reshape(-1)[known].float())
    scores = rows.movedim(role.axis, -1)
    logs = scores.log_softmax(-1) if role.kind == "logits" else _logarithms(scores, role)
    return functional.nll_loss(
        logs.reshape(-1, logs.shape[-1]), wanted.reshape(-1), ignore_index=-1, reduction="sum"
    ) / max(int((wanted >= 0).sum()), 1)


def _logarithms(scores: Tensor, role: OutputRole) -> Tensor:
    return scores if role.kind == "log_probabilities" else scores.clamp_min(_TINY).log()
