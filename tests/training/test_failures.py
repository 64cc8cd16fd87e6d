"""A loss that is not finite ends the training before it is saved; memory that ends is explained."""

from functools import partial
from types import SimpleNamespace

import pandas as pd
import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import DataLoader

from isic.errors import IsicError
from isic.training import failures
from isic.training.callbacks import (
    CallbackOptions,
    ExponentialAverage,
    checkpoint_callbacks,
)
from isic.training.checkpoint import AtomicCheckpointIO
from isic.training.failures import FiniteLoss, is_out_of_memory, memory_explained
from isic.training.losses import BinaryCrossEntropy, Objective
from isic.training.module import LesionClassifier
from isic.training.optim import WarmupCosine

N, SIZE = 24, 4  # six batches an epoch


class Scripted(nn.Module):
    """A linear network whose output, or its gradient, is not finite at one step."""

    def __init__(self, step=None, *, value=float("nan"), gradient=False):
        super().__init__()
        self.linear = nn.Linear(3, 1)
        self.step, self.value, self.gradient, self.calls = step, value, gradient, 0

    def forward(self, batch):
        logits = self.linear(batch["image"])
        if self.training:
            if self.calls == self.step and self.gradient:
                logits.register_hook(lambda gradient: gradient * self.value)
            elif self.calls == self.step:
                first = torch.tensor([[1.0], [0.0], [0.0], [0.0]]) > 0  # its target is 0
                logits = torch.where(first, self.value, logits)
            self.calls += 1
        return logits


class Rows(pl.LightningDataModule):
    """Training rows 100.. of a table of image ids, in order."""

    def __init__(self):
        super().__init__()
        ids = [f"ISIC_{i:07d}" for i in range(200)]
        self.train_rows = SimpleNamespace(table=pd.DataFrame({"image_id": ids}), pack=None)
        self.positions = {"train": torch.arange(100, 100 + N).numpy()}

    def train_dataloader(self):
        torch.manual_seed(0)
        batches = [
            {
                "image": torch.randn(SIZE, 3),
                "target": torch.arange(SIZE) % 2,
                "row": torch.arange(i, i + SIZE),
            }
            for i in range(0, N, SIZE)
        ]
        return DataLoader(batches, batch_size=None)


def fit(folder, network, *, data=None, epochs=3, callbacks=(), **options):
    torch.manual_seed(0)
    module = LesionClassifier(
        network,
        classes=("benign", "malignant"),
        objective=Objective(BinaryCrossEntropy(), activation="sigmoid"),
        optim=WarmupCosine(partial(torch.optim.SGD, lr=0.25)),
    )
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        callbacks=[
            *(FiniteLoss(), ExponentialAverage(0.9), *callbacks),
            *checkpoint_callbacks(folder, monitor=None, mode="max"),
        ],
        plugins=[AtomicCheckpointIO()],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )
    trainer.fit(module, data or Rows())
    return trainer, module


def saved(folder):
    checkpoint = torch.load(folder / "last.ckpt", weights_only=True)
    for part in ("state_dict", "current_model_state"):
        assert all(t.isfinite().all() for t in checkpoint[part].values())
    return checkpoint["epoch"]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("every", [2, 50])
def test_the_batch_is_named_exactly_whenever_it_is_looked_at(tmp_path, monkeypatch, value, every):
    monkeypatch.setattr(failures, "LOOK_EVERY", every)
    with pytest.raises(IsicError) as raised:
        fit(tmp_path, Scripted(6 + 2, value=value))  # the third batch of the second epoch
    text = str(raised.value)
    assert f"the loss is {value} in epoch 2 of 3, batch 3 of 6 (step 9)" in text
    assert "images ISIC_0000108, ISIC_0000109, ISIC_0000110, ISIC_0000111." in text
    assert "optim.optimizer.lr=0.25" in text
    assert "trainer.precision=32-true; bf16-mixed and 32" in text
    assert f"{tmp_path / 'last.ckpt'} is kept: it holds epoch 1" in text
    assert raised.value.exit_code == 1
    assert saved(tmp_path) == 0


def test_before_the_first_epoch_ends_there_is_nothing_to_keep(tmp_path):
    with pytest.raises(IsicError, match="No epoch was finished, so that there is no checkpoint"):
        fit(tmp_path, Scripted(0))
    assert not list(tmp_path.iterdir())


def test_a_last_step_that_breaks_the_weights_is_not_saved(tmp_path):
    with pytest.raises(IsicError) as raised:
        fit(tmp_path, Scripted(6 + 5, gradient=True))
    assert "weights are not finite after epoch 2" in str(raised.value)
    assert "images ISIC_0000120, ISIC_0000121" in str(raised.value)
    assert saved(tmp_path) == 0


def test_a_step_that_breaks_the_weights_shows_in_the_next_loss(tmp_path):
    with pytest.raises(IsicError, match=r"epoch 1 of 3, batch 3 of 6 \(step 3\)"):
        fit(tmp_path, Scripted(1, gradient=True))


def test_a_scaler_that_skips_a_step_is_no_failure(tmp_path):
    """Infinite gradients under float16: the step is left out, and nothing else happens."""

    class Skips(pl.Callback):
        def on_before_optimizer_step(self, trainer, pl_module, optimizer):
            if not all(p.grad.isfinite().all() for p in pl_module.parameters()):
                optimizer.zero_grad()  # as the scaler does by not stepping
                self.skipped = True

    skips = Skips()
    trainer, module = fit(
        tmp_path, Scripted(4, value=float("inf"), gradient=True), callbacks=[skips]
    )
    assert skips.skipped
    assert trainer.current_epoch == 3
    assert all(p.isfinite().all() for p in module.parameters())
    assert saved(tmp_path) == 2


def test_a_good_training_looks_only_now_and_then(tmp_path, monkeypatch):
    looks = []
    original = failures._earliest
    monkeypatch.setattr(failures, "_earliest", lambda bad: looks.append(len(bad)) or original(bad))
    monkeypatch.setattr(failures, "LOOK_EVERY", 4)
    fit(tmp_path, Scripted(), epochs=2)
    assert looks == [4, 2, 4, 2]


def test_a_mask_of_infinities_that_is_not_saved_is_no_broken_weight(tmp_path):
    network = Scripted()
    network.register_buffer("mask", torch.tensor([float("-inf")]), persistent=False)
    fit(tmp_path, network, epochs=1)
    assert saved(tmp_path) == 0


def test_many_images_are_counted_and_a_notebook_without_a_table_gets_rows(tmp_path):
    trainer = SimpleNamespace(datamodule=Rows())
    named = failures._images(trainer, torch.arange(12))
    assert failures.first_five(named).endswith("ISIC_0000104 and 7 more")
    assert failures._images(SimpleNamespace(datamodule=None), torch.tensor([3])) == ["row 3"]


def test_it_is_among_the_callbacks_of_every_run(tmp_path):
    built = CallbackOptions().build(tmp_path, monitor=None, mode="max", seed=0)
    assert any(isinstance(c, FiniteLoss) for c in built)


# ---- memory

ASKED = {"data.batch_size": 32, "trainer.accumulate_grad_batches": 1, "trainer.precision": "32"}


def test_memory_that_really_ends_on_a_cpu():
    with pytest.raises(IsicError) as raised, memory_explained({**ASKED, "data.image_size": 224}):
        torch.empty(2**60)
    text = str(raised.value)
    assert "out of memory: " in text
    for key in ("data.batch_size=32", "accumulate_grad_batches=1", "precision=32", "size=224"):
        assert key in text
    assert raised.value.exit_code == 1


@pytest.mark.parametrize(
    ("error", "yes"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB."), True),
        (RuntimeError("CUDA error: out of memory"), True),
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"),
            True,
        ),
        (MemoryError(), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_what_is_about_memory(error, yes):
    assert is_out_of_memory(error) is yes


def test_another_error_passes_as_it_is():
    with pytest.raises(RuntimeError, match="shapes"), memory_explained(ASKED):
        raise RuntimeError("shapes")


def test_where_nothing_is_accumulated_it_is_not_advised():
    with pytest.raises(IsicError) as raised, memory_explained({"data.batch_size": 8}):
        raise MemoryError
    assert "accumulate" not in str(raised.value)
