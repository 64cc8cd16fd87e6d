"""The training loop as Lightning sees it: one step, three prefixes.

`LesionClassifier` takes any network whose `forward(batch)` gives logits. The named classes only fix
which network: `SingleImageClassifier("resnet18")` works in a notebook.
Trap: metadata is encoded by the data module, so that a classifier of it wants that one's encoder.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from isic.index.metadata import MetadataEncoder
from isic.models.fusion import FusionOptions
from isic.models.network import LesionNetwork
from isic.training.epoch_metric import Epoch, EpochLoss, EpochOutputs, Metric
from isic.training.losses import BinaryCrossEntropy, Objective, probabilities
from isic.training.mixing import Mixing
from isic.training.optim import WarmupCosine
from isic.training.tta import averaged_logits


class LesionClassifier(pl.LightningModule):
    """Binds a network, an objective, an optimizer and the epoch metrics.

    network: `forward(batch) -> logits (B, K)`, K = `objective.n_logits(len(classes))`.
    metrics: name -> `(target (N,), probs (N, C)) -> float`, logged as `val/<name>`.
    mixing: Mixup and cutmix of the training batches; None for none.
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
        record: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.classes = tuple(classes)
        self.objective = objective or Objective(BinaryCrossEntropy(), activation="sigmoid")
        self.optim = optim or WarmupCosine(partial(torch.optim.AdamW, lr=3e-4, weight_decay=0.05))
        self.metrics = dict(metrics or {})
        self.mixing = mixing
        self.record = dict(record or {})
        self.tta = False  # predict the mean over eight flips and turns
        self.epoch_outputs = EpochOutputs()
        self.epoch_loss = {"train": EpochLoss(), "val": EpochLoss()}
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
            mean = self.epoch_loss["train"].mean()
            self.log("train/loss", mean, on_step=False, on_epoch=True, batch_size=1)
        return loss

    def validation_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> None:
        """Loss of one batch; its outputs are kept for the epoch's metrics."""
        self._step(batch, "val")

    def predict_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> None:
        """Keep the outputs; `last_epoch` holds them all after the epoch."""
        if self.tta:
            logits = averaged_logits(self.network, batch, self.objective.activation)
        else:
            logits = self.network(batch)
        self.epoch_outputs.add(batch, logits)

    def _mixed(self, batch: Mapping[str, Tensor], index: int) -> Mapping[str, Tensor]:
        """The batch as this step sees it: mixed where and while that is on."""
        epoch = self.current_epoch
        if self.mixing is None or not self.mixing.is_on(epoch, epochs=self.trainer.max_epochs):
            return batch
        return self.mixing(
            batch, n_classes=len(self.classes), epoch=epoch, index=index, rank=self.global_rank
        )

    def _step(self, batch: Mapping[str, Tensor], split: str) -> Tensor:
        logits = self.network(batch)  # (B, K)
        loss: Tensor = self.objective(logits, batch["target"], batch.get("weight"))
        self.epoch_loss[split].add(loss, len(batch["target"]))
        if split == "val":
            self.epoch_outputs.add(batch, logits)
        return loss

    def on_validation_epoch_end(self) -> None:
        """Log the loss and each metric once, over all ranks' rows."""
        self.last_epoch = self.epoch_outputs.gather(self.objective.activation)
        loss = self.epoch_loss["val"].mean()
        if self.trainer.sanity_checking:
            return
        self.log("val/loss", loss)
        for name, value in self.last_epoch.score(self.metrics).items():
            self.log(f"val/{name}", torch.tensor(value, dtype=torch.float64), prog_bar=True)

    def on_predict_epoch_end(self) -> None:
        """Gather what `predict_step` kept."""
        self.last_epoch = self.epoch_outputs.gather(self.objective.activation)

    def configure_optimizers(self) -> Any:
        """Optimizer and schedule over the whole planned training."""
        epochs = max(self.trainer.max_epochs or 1, 1)
        steps = int(self.trainer.estimated_stepping_batches)
        return self.optim.configure(self.network, total_steps=steps, epochs=epochs)

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
            "network": getattr(self.network, "arguments", {}),
            "network_class": f"{type(self.network).__module__}.{type(self.network).__qualname__}",
            "classes": list(self.classes),
            "activation": self.objective.activation,
        }


class SingleImageClassifier(LesionClassifier):
    """One image in, one diagnosis out: a timm backbone by name, every other argument as above."""

    def __init__(
        self,
        backbone: str = "tf_efficientnetv2_s.in21k_ft_in1k",
        *,
        classes: Sequence[str] = ("benign", "malignant"),
        pretrained: bool | str = True,
        image_size: int | None = None,
        objective: Objective | None = None,
        optim: WarmupCosine | None = None,
        metrics: Mapping[str, Metric] | None = None,
        mixing: Mixing | None = None,
    ) -> None:
        objective = objective or Objective(BinaryCrossEntropy(), activation="sigmoid")
        network = LesionNetwork(
            backbone,
            n_logits=objective.n_logits(len(classes)),
            pretrained=pretrained,
            image_size=image_size,
        )
        super().__init__(
            network,
            classes=classes,
            objective=objective,
            optim=optim,
            metrics=metrics,
            mixing=mixing,
        )


class DualImageClassifier(LesionClassifier):
    """Two views of a lesion in, one diagnosis out; some rows may lack either.

    views: As the data module's, the one that `image` holds first.
    fusion: `concat`, `gated` or options, see `isic.models.fusion.FusionOptions`.
    """

    def __init__(
        self,
        backbone: str = "tf_efficientnetv2_s.in21k_ft_in1k",
        *,
        views: Sequence[str] = ("dermoscopic", "clinical"),
        classes: Sequence[str] = ("benign", "malignant"),
        fusion: str | Mapping[str, Any] | FusionOptions = "concat",
        pretrained: bool | str = True,
        image_size: int | None = None,
        objective: Objective | None = None,
        optim: WarmupCosine | None = None,
        metrics: Mapping[str, Metric] | None = None,
        mixing: Mixing | None = None,
    ) -> None:
        objective = objective or Objective(BinaryCrossEntropy(), activation="sigmoid")
        n_logits = objective.n_logits(len(classes))
        build = partial(LesionNetwork, backbone, n_logits=n_logits, views=views, fusion=fusion)
        network = build(pretrained=pretrained, image_size=image_size)
        super().__init__(
            network,
            classes=classes,
            objective=objective,
            optim=optim,
            metrics=metrics,
            mixing=mixing,
        )


class ImageTabularClassifier(LesionClassifier):
    """Images and metadata in, one diagnosis out.

    encoder: The data module's, `data.encoder`; it travels in the checkpoint.
    views: As the data module's; fewer than two is one image.
    fusion: As above.
    """

    def __init__(
        self,
        backbone: str = "tf_efficientnetv2_s.in21k_ft_in1k",
        *,
        encoder: MetadataEncoder,
        views: Sequence[str] = (),
        classes: Sequence[str] = ("benign", "malignant"),
        fusion: str | Mapping[str, Any] | FusionOptions = "concat",
        pretrained: bool | str = True,
        image_size: int | None = None,
        objective: Objective | None = None,
        optim: WarmupCosine | None = None,
        metrics: Mapping[str, Metric] | None = None,
        mixing: Mixing | None = None,
    ) -> None:
        objective = objective or Objective(BinaryCrossEntropy(), activation="sigmoid")
        n_logits = objective.n_logits(len(classes))
        build = partial(LesionNetwork, backbone, n_logits=n_logits, views=views, fusion=fusion)
        network = build(pretrained=pretrained, image_size=image_size, metadata=encoder.layout)
        super().__init__(
            network,
            classes=classes,
            objective=objective,
            optim=optim,
            metrics=metrics,
            mixing=mixing,
            record={"metadata": encoder.to_dict()},
        )
