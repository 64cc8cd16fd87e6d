"""The training loop as Lightning sees it: one step, three prefixes.

`LesionClassifier` takes any network whose `forward(batch)` gives logits; extra heads want one that
takes `forward(batch, auxiliary=True)` too.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from isic.training.auxiliary import AuxiliaryLoss
from isic.training.distill import Distillation
from isic.training.epoch_metric import Epoch, EpochLoss, EpochOutputs, Metric
from isic.training.losses import Objective, default_objective, probabilities
from isic.training.mixing import Mixing
from isic.training.optim import WarmupCosine, as_before_loading
from isic.training.record import FORMAT
from isic.training.tta import Views, averaged_logits
from isic.training.unfreeze import Finetune, Stages


class LesionClassifier(pl.LightningModule):
    """Binds a network, an objective, an optimizer and the epoch metrics.

    network: `forward(batch) -> logits (B, K)`, K = `objective.n_logits(len(classes))`.
    objective: By default binary cross-entropy for two classes, cross-entropy for more.
    metrics: name -> `(target (N,), probs (N, C)) -> float`, logged as `val/<name>`.
    mixing: Mixup and cutmix of the training batches; None for none.
    auxiliary: Loss of the network's extra heads, logged apart from the main one.
    distillation: Adds a teacher's soft labels to the training loss.
    finetune: Which layers learn when, and how fast; None for all of them from the start.
    record: Plain facts that travel in the checkpoint under `isic` (config, archive, split).
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        classes: Sequence[str],
        objective: Objective | None = None,
        optim: WarmupCosine | None = None,
        metrics: Mapping[str, Metric] | None = None,
        mixing: Mixing | None = None,
        auxiliary: AuxiliaryLoss | None = None,
        distillation: Distillation | None = None,
        finetune: Finetune | None = None,
        record: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.classes = tuple(classes)
        self.objective = objective or default_objective(len(self.classes))
        self.optim = optim or WarmupCosine(partial(torch.optim.AdamW, lr=3e-4, weight_decay=0.05))
        self.metrics = dict(metrics or {})
        self.mixing = mixing
        self.auxiliary, self.distillation = auxiliary, distillation
        self.stages = Stages(network, finetune) if finetune else None
        self.record = dict(record or {})
        self.tta: Views | None = None  # predict the mean over these views of each image
        self.epoch_outputs = EpochOutputs()
        self.epoch_loss = defaultdict[str, EpochLoss](EpochLoss)  # by the name it is logged as
        self.last_epoch: Epoch | None = None

    def forward(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Probabilities (B, C), float64."""
        return probabilities(self.network(batch), self.objective.activation)

    def training_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> Tensor:
        """Loss of one batch; logged where it will be read: a `log` at every step costs time."""
        loss = self._step(self._mixed(batch, batch_idx), "train")
        every: int = self.trainer.log_every_n_steps  # type: ignore[attr-defined]
        if every and (self.trainer.global_step + 1) % every == 0:
            self.log("train/lr", self.trainer.optimizers[0].param_groups[0]["lr"], batch_size=1)
        if self.trainer.is_last_batch:
            for name, mean in self._means("train").items():
                self.log(name, mean, on_step=False, on_epoch=True, batch_size=1)
        return loss

    def validation_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> None:
        """Loss of one batch; its outputs are kept for the epoch's metrics."""
        self._step(self.auxiliary.spread(batch) if self.auxiliary else batch, "val")

    def predict_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> None:
        """Keep the outputs; `last_epoch` holds them all after the epoch."""
        if self.tta:
            activation = self.objective.activation
            logits = averaged_logits(self.network, batch, activation, self.tta)
        else:
            logits = self.network(batch)
        self.epoch_outputs.add(batch, logits)

    def _mixed(self, batch: Mapping[str, Tensor], index: int) -> Mapping[str, Tensor]:
        """The batch as this step sees it: mixed where and while that is on."""
        if self.auxiliary:
            batch = self.auxiliary.spread(batch)
        if self.distillation:
            batch = self.distillation.spread(batch, self.objective.activation)
        epoch = self.current_epoch
        if self.mixing is None or not self.mixing.is_on(epoch, epochs=self.trainer.max_epochs):
            return batch
        return self.mixing(
            batch, n_classes=len(self.classes), epoch=epoch, index=index, rank=self.global_rank
        )

    def _step(self, batch: Mapping[str, Tensor], split: str) -> Tensor:
        """The loss that is minimised; validation has no teacher, and no part of other heads."""
        logits, others = self._outputs(batch)  # (B, K), (B, A)
        n, parts = len(batch["target"]), dict[str, Tensor]()
        loss: Tensor = self.objective(logits, batch["target"], batch.get("weight"))
        if split == "train" and self.distillation:
            more, parts["distill"] = self.distillation(logits, batch, self.objective)
            loss = loss + more
        if self.auxiliary:
            parts["auxiliary"] = self.auxiliary(others, batch)
            if split == "train":
                loss = loss + self.auxiliary.weight * parts["auxiliary"]
        for name, part in {"loss": loss, **parts}.items():
            self.epoch_loss[f"{split}/{name}"].add(part, n)
        if split == "val":
            self.epoch_outputs.add(batch, logits)
        return loss

    def _outputs(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Logits (B, K), and what the extra heads say (B, A); A = 0 without them."""
        if self.auxiliary is None:
            logits = self.network(batch)
            return logits, logits[:, :0]
        outputs = self.network(batch, auxiliary=True)
        n = outputs.shape[1] - self.auxiliary.n_outputs
        return outputs[:, :n], outputs[:, n:]

    def _means(self, split: str) -> dict[str, Tensor]:
        """The epoch's mean of each loss, by the name it is logged as."""
        own = {n: loss for n, loss in self.epoch_loss.items() if n.startswith(f"{split}/")}
        return {name: loss.mean() for name, loss in own.items()}

    def on_validation_epoch_end(self) -> None:
        """Log the loss and each metric once, over all ranks' rows."""
        self.last_epoch = self.epoch_outputs.gather(self.objective.activation)
        means = self._means("val")
        if self.trainer.sanity_checking:
            return
        for name, mean in means.items():
            self.log(name, mean)
        for name, value in self.last_epoch.score(self.metrics).items():
            self.log(f"val/{name}", torch.tensor(value, dtype=torch.float64), prog_bar=True)

    def on_predict_epoch_end(self) -> None:
        """Gather what `predict_step` kept."""
        self.last_epoch = self.epoch_outputs.gather(self.objective.activation)

    def configure_optimizers(self) -> Any:
        """Optimizer and schedule over the whole planned training."""
        epochs = max(self.trainer.max_epochs or 1, 1)
        steps = int(self.trainer.estimated_stepping_batches)
        scales = self.stages.scale if self.stages else None
        return self.optim.configure(self.network, total_steps=steps, epochs=epochs, scales=scales)

    def setup(self, stage: str) -> None:
        """All that may ever learn is trainable while the trainer sets itself up."""
        if self.stages and stage == "fit":
            self.stages.release(self.network)

    def on_train_epoch_start(self) -> None:
        """Freeze what does not learn in this epoch."""
        if self.stages:
            epochs = self.trainer.max_epochs or 1
            self.stages.begin(self.network, self.current_epoch, epochs=epochs)

    def on_train_start(self) -> None:
        """What a resumed optimizer holds lies where a fresh one's does."""
        for optimizer in self.trainer.optimizers:
            as_before_loading(optimizer)

    def on_fit_start(self) -> None:
        """Tell the loss how often an epoch shows each class."""
        data = getattr(self.trainer, "datamodule", None)
        counts = getattr(data, "epoch_class_counts", None)
        if counts is not None:
            self.objective.balance(counts)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what `load` needs to rebuild the classifier without any config at hand."""
        checkpoint["isic"] = {
            **self.record,
            "format": FORMAT,
            "network": getattr(self.network, "arguments", {}),
            "network_class": f"{type(self.network).__module__}.{type(self.network).__qualname__}",
            "classes": list(self.classes),
            "activation": self.objective.activation,
        }
        if self.auxiliary:
            checkpoint["isic"]["auxiliary"] = [head.to_dict() for head in self.auxiliary.heads]
