"""Optimizer and learning-rate schedule: linear warm-up, then half a cosine."""

import math
from collections.abc import Callable
from typing import Any

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


class WarmupCosine:
    """Any torch optimizer under a linear warm-up and a cosine, stepped every batch.

    optimizer: Takes parameter groups, e.g. `partial(torch.optim.AdamW, lr=3e-4)`; its learning
        rate is the peak, reached after `warmup_epochs`.
    final_lr_ratio: Learning rate at the end as a share of the peak.
    """

    def __init__(
        self,
        optimizer: Callable[..., Optimizer],
        *,
        warmup_epochs: float = 1,
        final_lr_ratio: float = 0.01,
    ) -> None:
        self.optimizer = optimizer
        self.warmup_epochs = warmup_epochs
        self.final_lr_ratio = final_lr_ratio

    def configure(self, module: nn.Module, *, total_steps: int, epochs: int) -> dict[str, Any]:
        """The dictionary that Lightning's `configure_optimizers` returns."""
        optimizer = self.optimizer(parameter_groups(module))
        warmup = min(round(self.warmup_epochs * total_steps / max(epochs, 1)), total_steps // 2)

        def scale(step: int) -> float:
            if step < warmup:
                return (step + 1) / (warmup + 1)
            progress = min((step - warmup) / max(total_steps - warmup, 1), 1.0)
            cosine = 0.5 * (1 + math.cos(math.pi * progress))
            return self.final_lr_ratio + (1 - self.final_lr_ratio) * cosine

        schedule = LambdaLR(optimizer, scale)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }


def parameter_groups(module: nn.Module) -> list[dict[str, Any]]:
    """Trainable parameters in two groups, the second without weight decay.

    Those are biases and norm scales (1-D), and what a timm model lists in `no_weight_decay`
    (position embeddings, class tokens).
    """
    named = {name: p for name, p in module.named_parameters() if p.requires_grad}
    exempt = {name for name, p in named.items() if p.ndim <= 1}
    for prefix, child in module.named_modules():
        listed: set[str] = getattr(child, "no_weight_decay", set)()
        exempt |= {f"{prefix}.{name}".lstrip(".") for name in listed}
    return [
        {"params": [p for name, p in named.items() if name not in exempt]},
        {"params": [p for name, p in named.items() if name in exempt], "weight_decay": 0.0},
    ]
