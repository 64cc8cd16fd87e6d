"""Averaged weights: what validation, checkpoints and scores use.

Trap: whatever asks a GPU for a number at each step waits for it, and a kernel for each counter of a
batch norm is a launch for each; both cost more than the average itself.
"""

from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import WeightAveraging
from torch import Tensor, nn


class ExponentialAverage(WeightAveraging):
    """Exponential moving average of weights and buffers, from the first step on.

    The decay warms up as min(decay, (1 + n) / (10 + n)), so that short trainings are not stuck at
    their initial weights. Counters are copied.
    """

    def __init__(self, decay: float) -> None:
        super().__init__(use_buffers=True)
        self.decay = decay
        self._pairs: Pairs | None = None

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Average on the device of the training, where the module itself is moved only later."""
        self._device = trainer.strategy.root_device
        super().setup(trainer, pl_module, stage)
        self._pairs = None
        if self._average_model is not None:
            # on the CPU: to ask a GPU for the count is to wait for it at every step
            self._average_model.n_averaged = torch.zeros((), dtype=torch.long)

    @torch.no_grad()
    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Average after an optimizer step; torch's own way looks every tensor up each time."""
        if trainer.global_step == self._latest_update_step:
            return
        assert self._average_model is not None
        self._latest_update_step = trainer.global_step
        self._pairs = self._pairs or Pairs(self._average_model.module, pl_module)
        n = int(self._average_model.n_averaged)
        self._pairs.move(1 - min(self.decay, (1 + n) / (10 + n)) if n else 1.0)
        self._average_model.n_averaged += 1

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Free the copy after the fit, which ended with its weights in the module itself."""
        if stage == "fit":
            self._average_model = self._pairs = None


class Pairs:
    """Tensors of an averaged model beside those of the model it follows."""

    def __init__(self, averaged: nn.Module, current: nn.Module) -> None:
        both = list(zip(_tensors(averaged), _tensors(current), strict=True))
        self.floats = _apart([pair for pair in both if pair[0].is_floating_point()])
        self.counters = _apart([pair for pair in both if not pair[0].is_floating_point()])

    def move(self, weight: float) -> None:
        """Go so far towards the current model."""
        torch._foreach_lerp_(*self.floats, weight)
        if self.counters[0]:
            torch._foreach_copy_(*self.counters)


def _tensors(module: nn.Module) -> list[Tensor]:
    return [t.detach() for t in (*module.parameters(), *module.buffers())]


def _apart(pairs: list[tuple[Tensor, Tensor]]) -> tuple[list[Tensor], list[Tensor]]:
    return [averaged for averaged, _ in pairs], [current for _, current in pairs]
