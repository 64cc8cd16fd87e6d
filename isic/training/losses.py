"""Losses, and the objective that binds one to an activation.

Shapes: logits (B, K) float; target (B,) int class index. K = 1 for two classes under a sigmoid
(the positive class is index 1), else K = number of classes.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from isic.errors import ConfigError


class Objective(nn.Module):
    """A loss together with the activation that turns logits into probabilities.

    `sigmoid`: the loss gets float targets of the logits' shape (one-hot); any
    `torch.nn.BCEWithLogitsLoss`-like loss fits. `softmax`: the loss gets class indices; any
    `torch.nn.CrossEntropyLoss`-like loss fits.
    """

    loss: nn.Module

    def __init__(self, loss: nn.Module, *, activation: Literal["sigmoid", "softmax"]) -> None:
        super().__init__()
        self.loss = loss
        self.activation = activation

    def n_logits(self, n_classes: int) -> int:
        """Outputs the network needs: 1 for two classes under a sigmoid."""
        return 1 if self.activation == "sigmoid" and n_classes == 2 else n_classes

    def balance(self, class_counts: Sequence[int]) -> None:
        """Tell the loss how many training rows each class has, where it asks for them."""
        balance = getattr(self.loss, "balance", None)
        if balance is not None:
            balance(class_counts)

    def forward(self, logits: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
        """Mean loss of a batch, a scalar; weighted by `weight` (B,) where it is given.

        Raises:
            ConfigError: Weights for a loss that has no `reduction` to take its mean apart.
        """
        if self.activation == "sigmoid":
            target = one_hot(target, logits.shape[1]).to(logits.dtype)
        if weight is None:
            return torch.as_tensor(self.loss(logits, target))
        if not hasattr(self.loss, "reduction"):
            raise ConfigError(
                f"loss: {type(self.loss).__name__} has no `reduction` and takes no sample weights; "
                "choose another loss, or leave the column weight out of data.extra"
            )
        kept, self.loss.reduction = self.loss.reduction, "none"
        try:
            each = torch.as_tensor(self.loss(logits, target))  # (B,) or (B, K)
        finally:
            self.loss.reduction = kept
        each = each.flatten(1).mean(1) if each.ndim > 1 else each
        of_class = getattr(self.loss, "weight", None)
        # torch's weighted cross-entropy divides by the classes' weights, not by the rows
        share = weight if of_class is None else weight * of_class[target]
        return (weight * each).sum() / share.sum()


def one_hot(target: Tensor, n_logits: int) -> Tensor:
    """Class indices (B,) as 0/1 of shape (B, n_logits); one logit means P(class 1)."""
    if n_logits == 1:
        return target[:, None]
    return functional.one_hot(target, n_logits)


def probabilities(logits: Tensor, activation: str) -> Tensor:
    """Logits (B, K) -> float64 (B, C), rows of two columns where K = 1.

    float64, because a float32 sigmoid is 1.0 from logit 17 on and ranking metrics then see ties.
    """
    wide = logits.double()
    if activation == "softmax":
        return wide.softmax(dim=1)
    positive = wide.sigmoid()
    if wide.shape[1] == 1:
        return torch.cat([(-wide).sigmoid(), positive], dim=1)
    return positive


class BinaryCrossEntropy(nn.Module):
    """Binary cross-entropy on logits, optionally with weighted positives and soft labels.

    pos_weight: Weight of a positive; `balanced` = negatives / positives of the training rows.
    label_smoothing: Targets become `target * (1 - s) + s / 2`.
    """

    def __init__(
        self,
        *,
        pos_weight: float | Literal["balanced"] | None = None,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__()
        self.reduction = "mean"
        self.balanced = pos_weight == "balanced"
        self.label_smoothing = label_smoothing
        # no buffer: averaging the weights would average and swap it too
        self.pos_weight = [1.0 if pos_weight in (None, "balanced") else float(pos_weight)]

    def balance(self, class_counts: Sequence[int]) -> None:
        """Set the weight of positives from the class counts of the training rows."""
        if self.balanced:
            total = sum(class_counts)
            positives = class_counts[1:] if len(class_counts) == 2 else class_counts
            self.pos_weight = [(total - n) / max(n, 1) for n in positives]

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Logits and 0/1 targets (B, K) -> scalar, or (B, K) with `reduction="none"`."""
        soft = target * (1 - self.label_smoothing) + self.label_smoothing / 2
        return functional.binary_cross_entropy_with_logits(
            logits,
            soft,
            pos_weight=logits.new_tensor(self.pos_weight),
            reduction=self.reduction,
        )


class FocalLoss(nn.Module):
    """Focal loss, Lin et al. 2017 (arXiv 1708.02002), eq. 5: `-alpha_t (1 - p_t)^gamma log p_t`.

    alpha: Weight of positives, 1 - alpha of negatives; None = no weighting.
    With `gamma=0, alpha=None` it is binary cross-entropy.
    """

    def __init__(self, *, gamma: float = 2.0, alpha: float | None = 0.25) -> None:
        super().__init__()
        self.reduction = "mean"
        self.gamma = gamma
        self.alpha = alpha

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Logits and 0/1 targets (B, K) -> scalar, or (B, K) with `reduction="none"`."""
        entropy = functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
        # 1 - p_t; exactly 0 would make the gradient of a power below 1 infinite
        p_wrong = (-torch.expm1(-entropy)).clamp(min=1e-12)
        loss = p_wrong**self.gamma * entropy
        if self.alpha is not None:
            loss = loss * (self.alpha * target + (1 - self.alpha) * (1 - target))
        return loss.mean() if self.reduction == "mean" else loss
