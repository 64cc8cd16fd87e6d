"""Callbacks of a run: averaged weights, exact resume, checkpoints, progress.

Lightning 2.6 traps that are answered here: `save_last` is not last (two ModelCheckpoints instead);
resume is not exact (the seed of each epoch is set from its number); SIGTERM ends with exit code 0
(our handler is put back after Lightning's).
"""

import logging
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import (
    Callback,
    EarlyStopping,
    ModelCheckpoint,
    RichProgressBar,
)

from isic.errors import ConfigError
from isic.training.average import ExponentialAverage
from isic.training.failures import FiniteLoss

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CallbackOptions:
    """The keys of conf/callbacks.

    ema_decay: Decay of the averaged weights, or None for none.
    early_stopping: Epochs without a better monitored metric, or None.
    progress: `auto` (bar on a terminal, else one line an epoch), `bar`, `lines` or `none`.
    """

    ema_decay: float | None = 0.999
    early_stopping: int | None = None
    progress: str = "auto"

    def __post_init__(self) -> None:
        """Refuse values that would quietly mean something else."""
        if self.progress not in ("auto", "bar", "lines", "none"):
            raise ConfigError(
                f"callbacks.progress: expected auto, bar, lines or none, got {self.progress!r}"
            )
        if self.ema_decay is not None and not 0 < self.ema_decay < 1:
            raise ConfigError(
                f"callbacks.ema_decay: expected a number in (0, 1) or null, got {self.ema_decay}"
            )

    def build(
        self, checkpoints: Path, *, monitor: str | None, mode: str, seed: int
    ) -> list[Callback]:
        """All callbacks of one fit; `monitor` is None where nothing is validated."""
        callbacks: list[Callback] = [EpochSeed(seed), Stopwatch(), OwnSigterm(), FiniteLoss()]
        if self.ema_decay is not None:
            callbacks.append(ExponentialAverage(self.ema_decay))
        if monitor and self.early_stopping:
            callbacks.append(
                EarlyStopping(monitor, mode=mode, patience=self.early_stopping, check_finite=False)
            )
        bar = self.progress == "bar" or (self.progress == "auto" and sys.stderr.isatty())
        if bar:
            callbacks.append(SpeedBar())
        elif self.progress != "none":
            callbacks.append(EpochLine())
        return callbacks + checkpoint_callbacks(checkpoints, monitor=monitor, mode=mode)


def checkpoint_callbacks(folder: Path, *, monitor: str | None, mode: str) -> list[Callback]:
    """`best.ckpt` by the monitored metric and `last.ckpt` to go on from, in this order.

    The order matters: the last checkpoint then holds the best one's score.
    """
    fixed: dict[str, Any] = {
        "dirpath": folder,
        "save_top_k": 1,
        "every_n_epochs": 1,
        "enable_version_counter": False,
        "save_on_train_epoch_end": True,
    }
    last = LastEpoch(filename="last", monitor=None, **fixed)
    if monitor is None:
        return [last]
    return [FixedNameBest(filename="best", monitor=monitor, mode=mode, **fixed), last]


def stopped_early(checkpoint: Mapping[str, Any]) -> bool:
    """Whether early stopping ended the training that wrote this checkpoint."""
    states = [v for k, v in checkpoint["callbacks"].items() if k.startswith("EarlyStopping")]
    return any(state["wait_count"] >= state["patience"] for state in states)


class FixedName(ModelCheckpoint):
    """One file under one name; paths that a checkpoint states are not followed.

    Lightning deletes what a resumed state names as the file before, and forgets the best score of
    a run whose folder has moved.
    """

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the score over where this run's own file is there."""
        file, score = f"{self.dirpath}/{self.filename}.ckpt", state_dict.get("best_model_score")
        there = Path(file).is_file()
        own: dict[str, Any] = {"dirpath": self.dirpath, "best_model_path": file if there else ""}
        own |= {"best_model_score": None, "last_model_path": ""}
        if score is not None and there:
            own |= {"best_model_score": score, "kth_value": score}
            own |= {"kth_best_model_path": file, "best_k_models": {file: score}}
        super().load_state_dict(own)


class FixedNameBest(FixedName):
    """The best checkpoint under one name; a NaN metric counts as worst instead of as best."""

    def _save_topk_checkpoint(self, trainer: pl.Trainer, candidates: dict[str, Any]) -> None:
        value = candidates.get(str(self.monitor))
        if value is None or not bool(torch.isfinite(torch.as_tensor(value))):
            return
        super()._save_topk_checkpoint(trainer, candidates)


class LastEpoch(FixedName):
    """A checkpoint after every epoch, as long as writing takes a tenth of the time at most.

    Where it takes more, it waits for an epoch at which that is so again, or the last one: a killed
    training loses ten times what a write takes, and its epochs are trained again to the same bits.
    Writes of half a second are never put off.
    """

    SHARE, SHORT = 0.1, 0.5

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._took, self._since = 0.0, 0.0  # seconds of the last write, time of its end

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write, where it is time; the first process decides, as all of them take part."""
        if not trainer.strategy.broadcast(self._is_due(trainer)):
            return
        began = time.monotonic()
        super().on_train_epoch_end(trainer, pl_module)
        self._since = time.monotonic()
        self._took = self._since - began

    def _is_due(self, trainer: pl.Trainer) -> bool:
        over = trainer.should_stop or trainer.current_epoch + 1 == trainer.max_epochs
        waited = time.monotonic() - self._since
        return over or self._took <= max(self.SHORT, self.SHARE * waited)


class EpochSeed(Callback):
    """Dropout, drop path and the like draw from (seed, epoch), also after a resume."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Seed torch for this epoch and rank."""
        torch.manual_seed(self.seed + 1_000_003 * trainer.current_epoch + trainer.global_rank)


class OwnSigterm(Callback):
    """Put back the handler that Lightning replaced: leave at once, with exit code 143."""

    def __init__(self) -> None:
        self.handler = signal.getsignal(signal.SIGTERM)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Restore the handler that stood when the callbacks were built."""
        if self.handler is not None:  # None: set outside Python
            signal.signal(signal.SIGTERM, self.handler)

    def on_predict_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The same; Lightning's handler would let a prediction run to its end."""
        self.on_train_start(trainer, pl_module)


class Stopwatch(Callback):
    """Seconds spent in training and in validation, images trained on; a resume counts on."""

    def __init__(self) -> None:
        self.train_seconds = self.validation_seconds = 0.0
        self.earlier_seconds = 0.0  # of the processes before a resume
        self.images = 0
        self._epoch_start = self._validation_start = 0.0
        self._validated = 0.0

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock of an epoch."""
        self._epoch_start, self._validated = time.perf_counter(), 0.0

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count images over all ranks."""
        self.images += len(batch["row"]) * trainer.world_size

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop counting for training."""
        self._validation_start = time.perf_counter()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Count for validation."""
        if not trainer.sanity_checking:
            self._validated += time.perf_counter() - self._validation_start

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Book the epoch."""
        self.validation_seconds += self._validated
        self.train_seconds += time.perf_counter() - self._epoch_start - self._validated

    def state_dict(self) -> dict[str, float]:
        """What a checkpoint keeps."""
        return {k: getattr(self, k) for k in ("train_seconds", "validation_seconds", "images")}

    def load_state_dict(self, state_dict: dict[str, float]) -> None:
        """Go on counting where the checkpoint's run stood."""
        for key, value in state_dict.items():
            setattr(self, key, value)
        self.earlier_seconds = self.train_seconds + self.validation_seconds

    @property
    def images_per_second(self) -> float:
        """Training images a second, validation not counted."""
        return self.images / self.train_seconds if self.train_seconds else 0.0


def speed(trainer: pl.Trainer) -> str:
    """Images a second of the epoch that runs, from the run's stopwatch."""
    watch = next((c for c in _callbacks(trainer) if isinstance(c, Stopwatch)), None)
    return f"{watch.images_per_second:.0f}" if watch else "?"


def _callbacks(trainer: pl.Trainer) -> Sequence[Callback]:
    return list(trainer.callbacks)  # type: ignore[attr-defined]


class SpeedBar(RichProgressBar):
    """Rich progress bar that also shows images a second."""

    def __init__(self) -> None:
        super().__init__(refresh_rate=10, console_kwargs={"stderr": True})
        self._images, self._since = 0, 0.0

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Restart the speed."""
        super().on_train_epoch_start(trainer, pl_module)
        self._images, self._since = 0, time.perf_counter()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count images."""
        self._images += len(batch["row"]) * trainer.world_size
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def get_metrics(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, Any]:
        """Lightning's metrics without its version number, with the speed."""
        metrics = super().get_metrics(trainer, pl_module)
        metrics.pop("v_num", None)
        elapsed = time.perf_counter() - self._since
        return {"img/s": f"{self._images / elapsed:.0f}" if elapsed else "-", **metrics}


class EpochLine(Callback):
    """One log line an epoch, for logs and CI: `epoch 3/10  train/loss 0.31  val/auc 0.82`."""

    def __init__(self) -> None:
        self._validated = False

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Metrics of an earlier epoch are not repeated."""
        self._validated = True

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the line on the first rank."""
        shown = {
            k: float(v)
            for k, v in trainer.callback_metrics.items()
            if self._validated or not k.startswith("val/")
        }
        self._validated = False
        if trainer.is_global_zero:
            metrics = "  ".join(f"{k} {_short(v)}" for k, v in sorted(shown.items()))
            epoch = f"{trainer.current_epoch + 1}/{trainer.max_epochs}"
            log.info("epoch %s  %s  %s img/s", epoch, metrics, speed(trainer))


def _short(value: float) -> str:
    """Four decimals, or what is left of a number too small for them: a learning rate."""
    return f"{value:.1e}" if 0 < abs(value) < 0.001 else f"{value:.4f}"
