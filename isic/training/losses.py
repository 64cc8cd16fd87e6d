"""Losses, and the objective that binds one to an activation.

Shapes: logits (B, K) float; target (B,) int class index, or (B, C) float shares of the C classes
where samples were mixed. K = 1 for two classes under a sigmoid (the positive class is index 1),
else K = C.

All losses of this package are linear in the target: the loss of a mix of labels is the mix of
their losses, as mixup has it.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from isic.errors import ConfigError
from isic.training.class_weights import Balance, check_balance, class_weights, positive_weights


class Objective(nn.Module):
    """A loss together with the activation that turns logits into probabilities.

    `sigmoid`: the loss gets float targets of the logits' shape (one-hot); any
    `torch.nn.BCEWithLogitsLoss`-like loss fits. `softmax`: the loss gets class indices, or shares
    of the classes where samples were mixed; any `torch.nn.CrossEntropyLoss`-like loss fits.
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
        if weight is None:
            return torch.as_tensor(self.loss(logits, self._fitting(target, logits)))
        share, of_class = weight, getattr(self.loss, "weight", None)
        if of_class is not None and self.activation == "softmax" and target.ndim == 1:
            # torch's weighted cross-entropy divides by the weights of class indices, not by rows
            share = weight * of_class[target]
        return (weight * self.each(logits, target)).sum() / share.sum()

    def each(self, logits: Tensor, target: Tensor) -> Tensor:
        """Loss of each row, (B,).

        Raises:
            ConfigError: A loss that has no `reduction`.
        """
        loss: Any = self.loss
        if not hasattr(loss, "reduction"):
            raise ConfigError(
                f"loss: {type(loss).__name__} has no `reduction` and takes no sample weights; "
                "choose another loss, or leave out distill, and the column weight of data.extra"
            )
        kept, loss.reduction = loss.reduction, "none"
        try:
            each = torch.as_tensor(loss(logits, self._fitting(target, logits)))  # (B,) or (B, K)
        finally:
            loss.reduction = kept
        return each.flatten(1).mean(1) if each.ndim > 1 else each

    def _fitting(self, target: Tensor, logits: Tensor) -> Tensor:
        """The target as this activation's losses take it."""
        if self.activation == "sigmoid":
            return one_hot(target, logits.shape[1]).to(logits.dtype)
        return target.to(logits.dtype) if target.is_floating_point() else target


class ByClasses:
    """Two objectives, of which an archive's classes choose one: see `isic.config.loss`.

    loss, activation: Of the first one, for two classes, or several that an image can have at once.
    exclusive: The other one, where an image has exactly one of three classes or more.
    """

    def __init__(
        self, loss: nn.Module, *, activation: Literal["sigmoid", "softmax"], exclusive: Objective
    ) -> None:
        self.binary, self.exclusive = Objective(loss, activation=activation), exclusive


def default_objective(n_classes: int) -> Objective:
    """Plain cross-entropy over classes of which an image has one; of two, its binary form."""
    if n_classes > 2:
        return Objective(CrossEntropy(), activation="softmax")
    return Objective(BinaryCrossEntropy(), activation="sigmoid")


def one_hot(target: Tensor, n_logits: int) -> Tensor:
    """Class indices (B,), or shares of the classes (B, C), as targets of shape (B, n_logits).

    One logit means P(class 1).
    """
    if target.ndim == 2:
        return target[:, 1:] if n_logits == 1 else target
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


def numbers_like(tensor: Tensor, numbers: Sequence[float]) -> Tensor:
    """`tensor.new_tensor(numbers)`, copied to a device once: each copy is a wait for a GPU."""
    return _on_device(tuple(numbers), tensor.device, tensor.dtype)


@lru_cache(maxsize=64)
def _on_device(numbers: tuple[float, ...], device: torch.device, dtype: torch.dtype) -> Tensor:
    with torch.inference_mode(False):  # a validation may ask first
        return torch.tensor(numbers, device=device, dtype=dtype)


class BinaryCrossEntropy(nn.Module):
    """Binary cross-entropy on logits, optionally with weighted positives and soft labels.

    pos_weight: Weight of a positive; `balanced` = (negatives / positives)^power of the training
        rows, at most `clip`.
    power, clip: 1 and none weigh positives and negatives alike; 0.5 and 20 are what a MILK10k
        entry of 11 classes used (the rarest has 1 of 500 lesions).
    label_smoothing: A label's target becomes `target * (1 - s) + s / 2`. Its weight stays that of
        the label: smoothed negatives of a rare class would else be weighed as positives.
    """

    def __init__(
        self,
        *,
        pos_weight: float | Literal["balanced"] | None = None,
        power: float = 1.0,
        clip: float | None = None,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__()
        if isinstance(pos_weight, int | float) and pos_weight <= 0:
            raise ConfigError(f"loss.pos_weight: expected above 0 or balanced, got {pos_weight}")
        self.reduction = "mean"
        self.balanced = pos_weight == "balanced"
        self.power, self.clip, self.label_smoothing = power, clip, label_smoothing
        # no buffer: averaging the weights would average and swap it too
        self.pos_weight = [1.0 if pos_weight in (None, "balanced") else float(pos_weight)]

    def balance(self, class_counts: Sequence[int]) -> None:
        """Set the weight of positives from the class counts of the training rows."""
        if self.balanced:
            self.pos_weight = positive_weights(class_counts, power=self.power, clip=self.clip)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Logits and targets 0..1 (B, K) -> scalar, or (B, K) with `reduction="none"`."""
        soft, weight = target, None
        if any(w != 1 for w in self.pos_weight):
            positive = target * numbers_like(logits, self.pos_weight)
            weight = positive + (1 - target)
            soft = positive / weight
        soft = soft * (1 - self.label_smoothing) + self.label_smoothing / 2
        return functional.binary_cross_entropy_with_logits(
            logits, soft, weight=weight, reduction=self.reduction
        )


class CrossEntropy(nn.Module):
    """Cross-entropy of a softmax, optionally with class-balanced rows and soft labels.

    Unlike torch's, a weighted loss is the mean over the rows and not over their weights: batches
    and ranks then add up to the loss of the epoch, whichever classes they hold.

    balance, beta: See `class_weights`; the counts are those of the training rows.
    label_smoothing: Share of the target that all classes have alike; a row's weight stays that of
        its class.
    """

    def __init__(
        self, *, balance: Balance = "none", beta: float = 0.9999, label_smoothing: float = 0.0
    ) -> None:
        super().__init__()
        check_balance(balance, beta=beta)
        self.reduction = "mean"
        self.kind, self.beta, self.label_smoothing = balance, beta, label_smoothing
        self.class_weight: list[float] | None = None  # no buffer: see BinaryCrossEntropy

    def balance(self, class_counts: Sequence[int]) -> None:
        """Set the weight of each class from the class counts of the training rows."""
        if self.kind != "none":
            self.class_weight = class_weights(class_counts, balance=self.kind, beta=self.beta)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Logits (B, C), target (B,) or (B, C) -> scalar, or (B,) with `reduction="none"`."""
        smoothing = self.label_smoothing
        if self.class_weight is None:
            return functional.cross_entropy(
                logits, target, label_smoothing=smoothing, reduction=self.reduction
            )
        of_class = numbers_like(logits, self.class_weight)
        shares = one_hot(target, logits.shape[1]) * of_class  # (B, C)
        weight = shares.sum(1)
        loss = weight * functional.cross_entropy(
            logits, shares / weight[:, None], label_smoothing=smoothing, reduction="none"
        )
        return loss.mean() if self.reduction == "mean" else loss
