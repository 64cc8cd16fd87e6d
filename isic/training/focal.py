"""Losses that turn away from what the network already knows: focal and asymmetric.

Both are for one sigmoid a class: logits (B, K), targets 0..1 (B, K), linear in the target.

Trap: computed from probabilities, as the papers' code does, the logarithm or the power has no
finite gradient where the network is sure; here it comes from the logits.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from isic.errors import ConfigError


class FocalLoss(nn.Module):
    """Focal loss, Lin et al. 2017 (arXiv 1708.02002), eq. 5: `-alpha_t (1 - p_t)^gamma log p_t`.

    alpha: Weight of positives, 1 - alpha of negatives; None = no weighting.
    With `gamma=0, alpha=None` it is binary cross-entropy.
    """

    def __init__(self, *, gamma: float = 2.0, alpha: float | None = 0.25) -> None:
        super().__init__()
        if gamma < 0 or (alpha is not None and not 0 < alpha < 1):
            raise ConfigError(
                "loss: expected gamma of 0 or more and alpha in (0, 1) or null, got "
                f"loss.loss.gamma={gamma} and loss.loss.alpha={alpha}"
            )
        self.reduction = "mean"
        self.gamma = gamma
        self.alpha = alpha

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Logits and targets 0..1 (B, K) -> scalar, or (B, K) with `reduction="none"`."""
        positive, negative = (1.0, 1.0) if self.alpha is None else (self.alpha, 1 - self.alpha)
        loss = positive * target * focused(-logits, gamma=self.gamma)
        loss = loss + negative * (1 - target) * focused(logits, gamma=self.gamma)
        return loss.mean() if self.reduction == "mean" else loss


class AsymmetricLoss(nn.Module):
    """Asymmetric loss, Ben-Baruch et al. 2021 (arXiv 2009.14119), eq. 4 to 7.

    Positives: `-(1 - p)^gamma_pos log p`. Negatives: `-p_m^gamma_neg log(1 - p_m)` with
    `p_m = max(p - margin, 0)`, so that negatives below the margin count nothing.

    Defaults are the paper's; with `gamma_neg = gamma_pos, margin = 0` it is focal loss without
    alpha, with zeros binary cross-entropy.
    """

    def __init__(
        self, *, gamma_neg: float = 4.0, gamma_pos: float = 0.0, margin: float = 0.05
    ) -> None:
        super().__init__()
        if min(gamma_neg, gamma_pos) < 0 or not 0 <= margin < 1:
            raise ConfigError(
                "loss: expected gamma_neg and gamma_pos of 0 or more and margin in [0, 1), got "
                f"loss.loss.gamma_neg={gamma_neg}, gamma_pos={gamma_pos} and margin={margin}"
            )
        self.reduction = "mean"
        self.gamma_neg, self.gamma_pos, self.margin = gamma_neg, gamma_pos, margin

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Logits and targets 0..1 (B, K) -> scalar, or (B, K) with `reduction="none"`."""
        loss = target * focused(-logits, gamma=self.gamma_pos)
        loss = loss + (1 - target) * self._negative(logits)
        return loss.mean() if self.reduction == "mean" else loss

    def _negative(self, logits: Tensor) -> Tensor:
        if self.margin == 0:
            return focused(logits, gamma=self.gamma_neg)
        # float32 and away from 0: half precision loses p - margin, powers below 1 their gradient
        shifted = (logits.float().sigmoid() - self.margin).clamp(min=1e-12)
        return -(shifted**self.gamma_neg) * torch.log1p(-shifted)


def focused(logits: Tensor, *, gamma: float) -> Tensor:
    """`-p^gamma log(1 - p)` with p = sigmoid(logits): the loss of a negative, exact at both ends.

    Of `-logits` it is the loss of a positive.
    """
    entropy = functional.softplus(logits)
    # p; exactly 0 would make the gradient of a power below 1 infinite
    return (-torch.expm1(-entropy)).clamp(min=1e-12) ** gamma * entropy
