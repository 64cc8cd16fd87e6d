"""Optimizer and learning-rate schedule: linear warm-up, then half a cosine."""

import math
from collections.abc import Callable, Mapping
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

    def configure(
        self,
        module: nn.Module,
        *,
        total_steps: int,
        epochs: int,
        scales: Mapping[str, float] | None = None,
    ) -> dict[str, Any]:
        """The dictionary that Lightning's `configure_optimizers` returns; scales: see below."""
        optimizer = self.optimizer(parameter_groups(module, scales))
        for group in optimizer.param_groups:  # before the schedule notes what it is to scale
            group["lr"] *= group.pop("lr_scale", 1.0)
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


def parameter_groups(
    module: nn.Module, scales: Mapping[str, float] | None = None
) -> list[dict[str, Any]]:
    """Trainable parameters in two groups, the second without weight decay.

    Those are biases and norm scales (1-D), and what a timm model lists in `no_weight_decay`
    (position embeddings, class tokens).

    scales: Learning rate of a parameter as a share of the peak, 1 where it names none; each value
        gives two groups with that `lr_scale`, the largest first.
    """
    named = {name: p for name, p in module.named_parameters() if p.requires_grad}
    exempt = {name for name, p in named.items() if p.ndim <= 1}
    for prefix, child in module.named_modules():
        listed: set[str] = getattr(child, "no_weight_decay", set)()
        exempt |= {f"{prefix}.{name}".lstrip(".") for name in listed}
    if not scales:
        return _decayed_or_not(named, exempt)
    shares = {name: scales.get(name, 1.0) for name in named}
    groups = []
    for share in sorted(set(shares.values()), reverse=True):
        part = {name: p for name, p in named.items() if shares[name] == share}
        groups += [{**group, "lr_scale": share} for group in _decayed_or_not(part, exempt)]
    return groups


def _decayed_or_not(named: Mapping[str, nn.Parameter], exempt: set[str]) -> list[dict[str, Any]]:
    return [
        {"params": [p for name, p in named.items() if name not in exempt]},
        {"params": [p for name, p in named.items() if name in exempt], "weight_decay": 0.0},
    ]


def as_before_loading(optimizer: Optimizer) -> None:
    """Put NAdam's product of momenta back on the CPU, from where loading a checkpoint moves it.

    Its step reads that number for every parameter, and would wait for a GPU each time. A capturable
    one has it on the device from the start.
    """
    for group in optimizer.param_groups:
        for parameter in () if group.get("capturable") else group["params"]:
            state = optimizer.state.get(parameter, {})
            if "mu_product" in state:
                state["mu_product"] = state["mu_product"].cpu()
