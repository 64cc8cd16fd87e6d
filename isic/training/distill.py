"""Knowledge distillation: a student learns a teacher's soft labels beside the hard ones.

Hinton et al. 2015 (arXiv 1503.02531), temperature T and weight a:
  loss of a row = (1 - a) hard + a T^2 KL(teacher at T || student at T)
Of a softmax the KL is over the classes, of sigmoids the mean of their binary KLs, on the scale of
the losses of this package. T^2 keeps the soft gradients as large as at T = 1.
A row without a soft label learns its hard one alone. Mixed samples mix their soft labels by the
share of the target; of a pair of which one has none, the hard loss is reduced by the other's share.

Trap: what a teacher says of its own training rows is little but their labels, and what one says
that learnt from the rows held out here lets them leak: `distill.labels` chooses between the two
(`isic.engine.teacher`).
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from isic.errors import ConfigError
from isic.training.losses import Objective

LABELS = ("own_fold", "out_of_fold")
KEY = "teacher"  # of the teacher's logits in a batch
SMALLEST = 1e-7  # probability whose logarithm is finite in float32, and one minus it below 1


class Distillation:
    """The keys of conf/distill, and the loss that they make.

    teacher: Runs whose probabilities are averaged; read by `isic.engine.teacher` alone.
    labels: Which of a teacher's folds speak; read by `isic.engine.teacher` too.
    temperature: Above 1 shows more of how the teacher ranks the wrong classes.
    weight: Of the soft labels against the hard ones, 0..1.
    """

    def __init__(
        self,
        teacher: str | Sequence[str] | None = None,
        *,
        labels: str = "own_fold",
        temperature: float = 2.0,
        weight: float = 0.5,
    ) -> None:
        if labels not in LABELS:
            raise ConfigError(f"distill.labels: expected {' or '.join(LABELS)}, got {labels!r}")
        if not isinstance(temperature, int | float) or not temperature > 0:
            raise ConfigError(f"distill.temperature: expected above 0, got {temperature!r}")
        if not isinstance(weight, int | float) or not 0 <= weight <= 1:
            raise ConfigError(f"distill.weight: expected 0 to 1, got {weight!r}")
        self.teacher, self.labels = teacher, labels
        self.temperature, self.weight = temperature, weight

    def spread(self, batch: Mapping[str, Tensor], activation: str) -> dict[str, Tensor]:
        """The batch with soft labels that may be mixed in place of the teacher's logits (B, K).

        float32 (B, K + 2): probabilities at T, their negative entropy, and whether there are any;
        0 throughout for a row without.

        Raises:
            ConfigError: A batch without the teacher's logits.
        """
        if KEY not in batch:
            raise ConfigError(
                f"distill: expected `{KEY}` in training batches, got {', '.join(batch)}; put a "
                "teacher's logits (isic.training.distill.teacher_logits) into data.train_columns"
            )
        logits = batch[KEY].float()
        known = logits.isfinite().all(dim=1, keepdim=True)
        scaled = torch.where(known, logits, 0) / self.temperature
        if activation == "softmax":
            soft, logs = scaled.softmax(dim=1), scaled.log_softmax(dim=1)
            negentropy = (soft * logs).sum(dim=1, keepdim=True)
        else:
            soft = scaled.sigmoid()
            logs = soft * functional.logsigmoid(scaled) + (1 - soft) * functional.logsigmoid(
                -scaled
            )
            negentropy = logs.mean(dim=1, keepdim=True)
        label = torch.cat([soft, negentropy, torch.ones_like(negentropy)], dim=1)
        return {**batch, KEY: torch.where(known, label, 0)}

    def divergence(self, logits: Tensor, label: Tensor, activation: str) -> Tensor:
        """T^2 KL of each row (B,), 0 where it has no soft label; `label` as `spread` made it."""
        soft, negentropy, known = label[:, :-2], label[:, -2], label[:, -1:]
        scaled = logits.float() / self.temperature
        if activation == "softmax":
            cross = -(soft * functional.log_softmax(scaled, dim=1)).sum(dim=1)
        else:
            pairs = soft * functional.softplus(-scaled) + (known - soft) * functional.softplus(
                scaled
            )
            cross = pairs.mean(dim=1)
        return self.temperature**2 * (negentropy + cross)

    def __call__(
        self, logits: Tensor, batch: Mapping[str, Tensor], objective: Objective
    ) -> tuple[Tensor, Tensor]:
        """What is added to the hard loss of the batch, and its mean divergence: two scalars.

        Hard + a (soft - hard) row by row: with a = 0 the hard loss stays as it is, to the bit.
        """
        soft = self.divergence(logits, batch[KEY], objective.activation)
        hard = objective.each(logits, batch["target"])
        more = soft - batch[KEY][:, -1] * hard  # (B,)
        weight = batch.get("weight", torch.ones_like(more))
        total = weight.sum()
        return self.weight * (weight * more).sum() / total, (weight * soft).sum() / total


def teacher_logits(probs: NDArray[np.float64], activation: str) -> NDArray[np.float32]:
    """A teacher's probabilities (N, C) as logits (N, K) of the student's activation; NaN stays.

    K = 1 for two classes under a sigmoid. A softmax of another sum than 1 is normalised.
    """
    logs = np.log(np.clip(probs, SMALLEST, 1.0))
    if activation == "softmax":
        return logs.astype(np.float32)
    if probs.shape[1] == 2:
        return (logs[:, 1:] - logs[:, :1]).astype(np.float32)
    return (logs - np.log(np.clip(1.0 - probs, SMALLEST, 1.0))).astype(np.float32)
