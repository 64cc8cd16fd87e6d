"""What only a GPU shows; without one all of it is skipped, and pytest says how many that are.

No step waits for the device, averages and optimizers go on after a resume as they began, in half
precision too, and predictions over turned views are those of the CPU.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

from isic.models.network import LesionNetwork
from isic.training.average import Pairs
from isic.training.callbacks import EpochSeed, ExponentialAverage, checkpoint_callbacks
from isic.training.checkpoint import AtomicCheckpointIO, read
from isic.training.focal import AsymmetricLoss, FocalLoss
from isic.training.hardware import TrainerOptions
from isic.training.losses import BinaryCrossEntropy, CrossEntropy, Objective
from isic.training.mixing import Mixing
from isic.training.module import LesionClassifier
from isic.training.optim import WarmupCosine
from isic.training.tta import d4_views
from tests.archives import TINY

HAS_GPU = torch.cuda.is_available()
pytestmark = pytest.mark.skipif(not HAS_GPU, reason="no CUDA device")
DEVICE = torch.device("cuda")
CLASSES = ("a", "b", "c")
VIEWS = ("dermoscopic", "clinical")
if HAS_GPU:  # read once, at the first product of matrices: deterministic ones need it
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

OBJECTIVES = {
    "bce": lambda: Objective(BinaryCrossEntropy(), activation="sigmoid"),
    "weighted bce": lambda: Objective(BinaryCrossEntropy(pos_weight=3.0), activation="sigmoid"),
    "balanced bce": lambda: Objective(
        BinaryCrossEntropy(pos_weight="balanced", label_smoothing=0.1), activation="sigmoid"
    ),
    "focal": lambda: Objective(FocalLoss(), activation="sigmoid"),
    "asymmetric": lambda: Objective(AsymmetricLoss(), activation="sigmoid"),
    "ce": lambda: Objective(CrossEntropy(label_smoothing=0.1), activation="softmax"),
    "balanced ce": lambda: Objective(CrossEntropy(balance="sqrt"), activation="softmax"),
}


@contextmanager
def no_wait() -> Iterator[None]:
    """An error where the process waits for the device."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def batch_of(views: tuple[str, ...] = (), n: int = 8) -> dict[str, Tensor]:
    """Random images with targets, on the CPU."""
    generator = torch.Generator().manual_seed(0)
    image = partial(torch.randint, 0, 256, (n, 3, 32, 32), dtype=torch.uint8, generator=generator)
    keys = ["image", *(f"image_{view}" for view in views[1:])]
    made = {key: image().contiguous(memory_format=torch.channels_last) for key in keys}
    made |= {f"has_{view}": torch.ones(n, dtype=torch.bool) for view in views}
    return {**made, "target": torch.arange(n) % len(CLASSES), "row": torch.arange(n)}


def built(objective: Objective, views: tuple[str, ...] = ()) -> LesionClassifier:
    torch.manual_seed(0)
    network = LesionNetwork(
        TINY, n_logits=len(CLASSES), pretrained=False, image_size=32, views=views
    )
    objective.balance([30, 20, 10])
    classifier = LesionClassifier(network, classes=CLASSES, objective=objective)
    return classifier.to(DEVICE, memory_format=torch.channels_last).train()


def five_steps(classifier: LesionClassifier, batch: dict[str, Tensor], **mixing: Any) -> None:
    """Steps as a training makes them, after two in which kernels and constants are made."""
    optimizer = torch.optim.AdamW(classifier.network.parameters(), lr=1e-3)
    averaged = built(classifier.objective, classifier.network.views).network
    pairs = Pairs(averaged, classifier.network)
    mixed = Mixing(**mixing) if mixing else None

    def step(index: int) -> None:
        seen = mixed(batch, n_classes=len(CLASSES), epoch=0, index=index) if mixed else batch
        with torch.autocast(DEVICE.type, torch.bfloat16):
            loss = classifier._step(seen, "train")
        optimizer.zero_grad()
        loss.backward()
        clip_grad_norm_(classifier.network.parameters(), 1.0)
        optimizer.step()
        pairs.move(0.1)

    for index in range(2):
        step(index)
    with no_wait():
        for index in range(2, 7):
            step(index)
    assert torch.isfinite(classifier.epoch_loss["train/loss"].mean())


def sent(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.to(DEVICE) for name, value in batch.items()}


@pytest.mark.parametrize("mixing", [{}, {"mixup": 0.4, "cutmix": 1.0}], ids=["plain", "mixed"])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_no_step_of_a_loss_waits(name, mixing):
    five_steps(built(OBJECTIVES[name]()), sent(batch_of()), **mixing)


def test_no_step_of_two_views_waits(data32):
    batch = data32().on_before_batch_transfer(batch_of(VIEWS), 0)
    five_steps(built(OBJECTIVES["bce"](), VIEWS), sent(batch))


class Places(pl.Callback):
    """Where the numbers lie that are asked for at each step."""

    def __init__(self) -> None:
        self.seen: set[str] = set()

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        average = next(c for c in trainer.callbacks if isinstance(c, ExponentialAverage))
        self.seen.add(average._average_model.n_averaged.device.type)
        for state in trainer.optimizers[0].state.values():
            scalars = {state[k] for k in ("step", "mu_product") if k in state}
            self.seen |= {value.device.type for value in scalars}


class StopAfter(pl.Callback):
    """Ends a training of two epochs after the first so many; its schedule is that of two."""

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs

    def on_train_epoch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        trainer.should_stop = trainer.current_epoch + 1 == self.epochs


def trained(
    folder: Path,
    data: Any,
    optimizer: type[torch.optim.Optimizer],
    *,
    epochs: int,
    ckpt: Path | None = None,
    **options: Any,
) -> Places:
    """Fit from `ckpt` on to `epochs`, and leave `last.ckpt` in the folder."""
    torch.manual_seed(0)
    network = LesionNetwork(TINY, n_logits=1, pretrained=False, image_size=32)
    network.to(memory_format=torch.channels_last)
    optim = WarmupCosine(partial(optimizer, lr=1e-3))
    classifier = LesionClassifier(network, classes=("benign", "malignant"), optim=optim)
    saving = checkpoint_callbacks(folder, monitor=None, mode="max")
    places, average = Places(), ExponentialAverage(0.9)
    trainer = pl.Trainer(
        default_root_dir=folder,
        callbacks=[StopAfter(epochs), EpochSeed(0), average, places, *saving],
        plugins=[AtomicCheckpointIO()],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        **TrainerOptions(accelerator="gpu", max_epochs=2, **options).trainer_arguments(),
    )
    trainer.fit(classifier, data, ckpt_path=ckpt, weights_only=True)
    assert average._average_model is None
    return places


@pytest.mark.parametrize("optimizer", [torch.optim.AdamW, torch.optim.NAdam])
@pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed"])
def test_a_resumed_training_in_half_precision_asks_the_cpu(tmp_path, data32, optimizer, precision):
    options = {"precision": precision}
    first = trained(tmp_path, data32(), optimizer, epochs=1, **options)
    last = tmp_path / "last.ckpt"
    resumed = trained(tmp_path, data32(), optimizer, epochs=2, ckpt=last, **options)
    assert first.seen == resumed.seen == {"cpu"}
    checkpoint = read(last)
    assert checkpoint["epoch"] == 1
    floats = [v for v in checkpoint["state_dict"].values() if v.is_floating_point()]
    assert all(v.isfinite().all() for v in floats)
    assert {v.dtype for v in floats} == {torch.float32}


@pytest.mark.parametrize("optimizer", [torch.optim.AdamW, torch.optim.NAdam])
def test_a_deterministic_training_resumes_to_the_same_bits(tmp_path, data32, optimizer):
    exact = {"precision": "32", "deterministic": True}
    try:
        trained(tmp_path / "whole", data32(), optimizer, epochs=2, **exact)
        trained(tmp_path / "cut", data32(), optimizer, epochs=1, **exact)
        last = tmp_path / "cut" / "last.ckpt"
        trained(tmp_path / "cut", data32(), optimizer, epochs=2, ckpt=last, **exact)
    finally:
        torch.use_deterministic_algorithms(False)
    whole, cut = (read(tmp_path / folder / "last.ckpt") for folder in ("whole", "cut"))
    for part in ("state_dict", "current_model_state"):
        assert all(torch.equal(whole[part][k], cut[part][k]) for k in whole[part]), part


def test_turned_views_are_predicted_as_on_the_cpu(data32):
    data = data32()
    torch.manual_seed(0)
    network = LesionNetwork(TINY, n_logits=1, pretrained=False, image_size=32)
    for module in network.modules():  # an untrained batch norm says the same of every image
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
    probs = []
    for accelerator, device in (("cpu", None), ("gpu", DEVICE)):
        classifier = LesionClassifier(network, classes=("benign", "malignant"))
        classifier.tta = d4_views
        options = TrainerOptions(accelerator=accelerator, precision="32")
        trainer = pl.Trainer(logger=False, enable_progress_bar=False, **options.trainer_arguments())
        rows = np.arange(12)
        loader = data.evaluation_loader(data.train_rows, rows, device=device)
        trainer.predict(classifier, loader, return_predictions=False)
        probs.append(classifier.last_epoch.probs)
    assert np.isfinite(probs[1]).all()
    assert np.abs(probs[0] - probs[1]).max() < 0.02
