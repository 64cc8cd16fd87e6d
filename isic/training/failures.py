"""What ends a training early, in words a user can act on: a loss that is not finite, no memory.

To ask a GPU for a loss is to wait for it. Losses therefore stay on the device, with the rows they
are of, and are looked at every `LOOK_EVERY` batches and before an epoch is validated and saved: the
batch is known exactly, and a checkpoint never holds weights that are not finite.
Trap: a scaler of float16 that meets infinite gradients skips the step and goes on; the loss itself
is finite then, and this is no failure.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, ModelCheckpoint
from torch import Tensor, nn

from isic.data.loader import end_processes, worker_failure
from isic.errors import IsicError, first_five

LOOK_EVERY = 50  # batches
NO_MEMORY = ("out of memory", "can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED")


@dataclass(frozen=True)
class Step:
    """One batch: its loss, a scalar on the device, and the training rows it is of."""

    loss: Tensor
    row: Tensor
    batch: int  # in its epoch, from 0
    step: int  # of the optimizer, over all epochs


class FiniteLoss(Callback):
    """Ends the training at the first batch whose loss is NaN or infinite, before it is saved.

    Raises:
        IsicError: In `on_train_batch_end`: names epoch, batch, images, likely causes, what is kept.
    """

    def __init__(self) -> None:
        self._steps: list[Step] = []

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Forget what an interrupted epoch left."""
        self._steps = []

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Keep the loss; look at all that are kept now and then."""
        loss = torch.as_tensor(outputs["loss"]).detach()
        self._steps.append(Step(loss, batch["row"], batch_idx, trainer.global_step))
        if trainer.is_last_batch:
            self._look(trainer)
            self._look_at_weights(trainer, pl_module, batch["row"])
        elif len(self._steps) >= LOOK_EVERY:
            self._look(trainer)

    def _look(self, trainer: pl.Trainer) -> None:
        steps, self._steps = self._steps, []
        bad = ~torch.stack([step.loss for step in steps]).isfinite()  # (S,)
        if (at := _earliest(bad)) == len(steps):
            return
        found = steps[at]
        if not bad[at]:
            raise IsicError(
                f"another process met a loss that is not finite, {_when(trainer, found)}"
            )
        images = first_five(_images(trainer, found.row))
        raise IsicError(
            f"the loss is {found.loss.item()} in {_when(trainer, found)}, of the images {images}. "
            f"{_advice(trainer)}"
        )

    def _look_at_weights(self, trainer: pl.Trainer, module: nn.Module, row: Tensor) -> None:
        """The last step of an epoch may break them without a loss that says so."""
        tensors = [t.detach() for t in module.state_dict().values() if t.is_floating_point()]
        largest = torch._foreach_norm([t for t in tensors if t.numel()], float("inf"))
        if bool(torch.stack([x.float() for x in largest]).isfinite().all()):
            return
        raise IsicError(
            f"weights are not finite after epoch {trainer.current_epoch + 1}; the step that broke "
            f"them is its last, of the images {first_five(_images(trainer, row))}. "
            f"{_advice(trainer)}"
        )


def _earliest(bad: Tensor) -> int:
    """The first step that is bad on any rank, or how many there are."""
    steps = torch.arange(len(bad), device=bad.device)
    first = torch.where(bad, steps, len(bad)).min()
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.all_reduce(first, torch.distributed.ReduceOp.MIN)
    return int(first)


def _when(trainer: pl.Trainer, step: Step) -> str:
    epoch = f"epoch {trainer.current_epoch + 1} of {trainer.max_epochs}"
    return f"{epoch}, batch {step.batch + 1} of {trainer.num_training_batches} (step {step.step})"


def _images(trainer: pl.Trainer, row: Tensor) -> Sequence[str]:
    """Image ids of some training rows; their numbers where no data module knows better."""
    data, rows = getattr(trainer, "datamodule", None), row.cpu().numpy()
    if data is None:
        return [f"row {i}" for i in rows]
    ids: list[str] = data.train_rows.table["image_id"].iloc[data.positions["train"][rows]].tolist()
    return ids


def _advice(trainer: pl.Trainer) -> str:
    """Likely causes with their present values, and what is still there."""
    lr = trainer.optimizers[0].param_groups[0].get("initial_lr")
    return (
        f"Likely causes: a learning rate too high (optim.optimizer.lr={lr:g}), or numbers beyond "
        f"float16 (trainer.precision={trainer.precision}; bf16-mixed and 32 hold them, also under "
        f"the same name). {_kept(trainer)}"
    )


def _kept(trainer: pl.Trainer) -> str:
    from isic.training.checkpoint import read

    for callback in trainer.checkpoint_callbacks:
        if isinstance(callback, ModelCheckpoint) and callback.filename == "last":
            last = Path(str(callback.dirpath)) / "last.ckpt"
            if last.exists():
                epoch = read(last)["epoch"] + 1
                return f"{last} is kept: it holds epoch {epoch}, the last that was written."
    return "No epoch was finished, so that there is no checkpoint."


@contextmanager
def memory_explained(asked: Mapping[str, Any]) -> Iterator[None]:
    """Turn an exhausted memory, of a GPU or of this machine, into a message.

    A loader process that is killed, most often over memory, shows as an error of torch's signal
    handler, at whatever line this process is.

    asked: Key of the config -> present value, of all that memory depends on.

    Raises:
        IsicError: Names these keys.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if reason := worker_failure(error):
            end_processes()
            raise IsicError(reason) from None
        if not is_out_of_memory(error):
            raise
        values = ", ".join(f"{key}={value}" for key, value in asked.items())
        first = (str(error).splitlines() or [type(error).__name__])[0]
        half = "halve data.batch_size"
        if "trainer.accumulate_grad_batches" in asked:
            half += (
                " and double trainer.accumulate_grad_batches (the same experiment: it goes on "
                "under its name; only batch norm and mixing see fewer images)"
            )
        raise IsicError(
            f"out of memory: {first[:300]}\nNow {values}. Either {half}, or set "
            "trainer.precision=bf16-mixed (the same experiment, too), or take a smaller "
            "data.image_size (another one, under another name)."
        ) from error


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of torch, CUDA or Python is about memory."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in NO_MEMORY)
