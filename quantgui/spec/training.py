"""What quantization-aware training is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from quantgui.errors import SpecError

Teacher = Literal["float", "labels"]
TEACHERS: tuple[Teacher, ...] = get_args(Teacher)
TrainingScope = Literal["network", "blocks"]
TRAINING_SCOPES: tuple[TrainingScope, ...] = get_args(TrainingScope)


@dataclass(frozen=True, slots=True)
class Training:
    """How weights and scales are trained, from the configuration that is there.

    Attributes:
        steps: optimizer steps; one sees `batch_size` samples.
        batch_size: samples per step.
        learning_rate: the highest rate of weights, relative to the size of the weights of each layer.
        learn_scales: scales are trained too (LSQ, Esser et al. 2020), of weights and activations; else they stay as
            the range estimators found them.
        teacher: ``float``: the outputs of the float network (distillation, no labels needed); ``labels``: the data's.
        scope: ``network``: all layers at once, gradients through the whole network; ``blocks``: one piece of the
            network after the other learns to give the float network's output of that piece, which needs gradients
            through that piece only.
        patience: evaluations without a better one, in the second half of the steps, until training stops by itself; 0
            for never.
        seed: of the order of samples.
        window: where recurrent state goes from sample to sample, the most samples that gradients flow back through;
            a step takes ``batch_size / window`` such runs of neighbouring samples.
    """

    steps: int = 1000
    batch_size: int = 32
    learning_rate: float = 5e-3
    learn_scales: bool = True
    teacher: Teacher = "float"
    scope: TrainingScope = "network"
    patience: int = 8
    seed: int = 0
    window: int = 8

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch_size < 1:
            raise SpecError(f"Training needs at least one step of one sample, got {self.steps} of {self.batch_size}.")
        if not 0.0 < self.learning_rate <= 1.0:
            raise SpecError(f"The learning rate must be above 0 and at most 1, got {self.learning_rate}.")
        if self.teacher not in TEACHERS:
            raise SpecError(f"'{self.teacher}' cannot teach; choose one of {', '.join(TEACHERS)}.")
        if self.scope not in TRAINING_SCOPES:
            raise SpecError(f"'{self.scope}' cannot be trained; choose one of {', '.join(TRAINING_SCOPES)}.")
        if self.window < 1:
            raise SpecError(f"Gradients flow back through one sample at least, got a window of {self.window}.")
        if self.patience < 0:
            raise SpecError(f"Patience is a number of evaluations, 0 for no end, got {self.patience}.")
