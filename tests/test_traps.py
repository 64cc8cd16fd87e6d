"""Ten traps of the libraries under us, each shown beside what we do instead.

Where the naive way is cheap to run it runs here and fails. The others: torchvision beside a CPU
build in `test_environment.py`, resume and its measures in `test_resume.py`, two ranks under
`-m` and repeated rows in `test_ddp.py`, albumentations' own repetition in `data/`.
"""

import errno
import os
import resource
import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
import yaml
from lightning_fabric.strategies.launchers.subprocess_script import _basic_subprocess_cmd
from omegaconf import OmegaConf
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.plugins.io import TorchCheckpointIO
from torchmetrics.classification import BinaryAUROC

from isic.data import ISIC2024DataModule
from isic.data.sampler import ShuffledBatches
from isic.engine import launch
from isic.errors import IsicError
from isic.metrics.classification import roc_auc
from isic.training.callbacks import checkpoint_callbacks
from isic.training.checkpoint import AtomicCheckpointIO
from isic.training.epoch_metric import EpochOutputs
from tests.commands import ForkServer

OLD, NEW = {"weight": torch.zeros(4000)}, {"weight": torch.ones(4000)}
FOREVER = """
import pytorch_lightning as pl
from pytorch_lightning.demos.boring_classes import BoringModel

class Speak(pl.Callback):
    def on_train_batch_end(self, *args):
        print("training", flush=True)

trainer = pl.Trainer(max_epochs=10**6, accelerator="cpu", logger=False, callbacks=[Speak()],
                     enable_checkpointing=False, enable_progress_bar=False)
trainer.fit(BoringModel())
"""
TWO_LOGGERS = """
import sys
from pathlib import Path
from pytorch_lightning.loggers import WandbLogger
from isic.training.loggers import LoggerOptions, finish

def naive(name):
    logger = WandbLogger(name=name, save_dir=sys.argv[1], offline=True)
    logger.experiment.log({"x": 1})
    return logger.experiment.id

def ours(name):
    folder = Path(sys.argv[1]) / name
    folder.mkdir()
    options = LoggerOptions(wandb={"mode": "offline", "project": "isic"})
    loggers = options.build(folder, name="run", fold=name, config={})
    run_id = loggers[-1].experiment.id
    finish(loggers, 0)
    return run_id

print("ours", len({ours("0"), ours("1")}))
print("naive", len({naive("a"), naive("b")}))
"""


class Scripted(pl.LightningModule):
    """One weight; its score is best in epoch 1 of 0..4."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)

    def training_step(self, batch: torch.Tensor) -> torch.Tensor:
        return self.layer(batch).mean()

    def validation_step(self, batch: torch.Tensor) -> None:
        self.log("val/score", (0.1, 0.9, 0.3, 0.2, 0.4)[self.current_epoch])

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def saved_epochs(folder: Path, callbacks: list[Any]) -> dict[str, int]:
    """Epoch of each checkpoint after five."""
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = pl.Trainer(max_epochs=5, accelerator="cpu", callbacks=callbacks, **quiet)
    loader = torch.utils.data.DataLoader(torch.ones(2, 1))
    trainer.fit(Scripted(), loader, loader)
    return {p.stem: torch.load(p, weights_only=True)["epoch"] for p in folder.glob("*.ckpt")}


@contextmanager
def full_disk() -> Iterator[None]:
    """The kernel lets no file grow past 4,000 bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4000, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def weight(path: Path) -> float:
    return float(torch.load(path, weights_only=True)["weight"].mean())


def test_augmentations_are_other_ones_each_epoch_in_every_worker(
    tiny_archive: Path, tmp_path: Path
) -> None:
    pixels: dict[tuple[int, int], dict[int, bytes]] = {}
    for workers in (0, 2):
        data = ISIC2024DataModule(
            tiny_archive,
            image_size=32,
            batch_size=16,
            num_workers=workers,
            runs_root=tmp_path / "runs",
            sampler=partial(ShuffledBatches, drop_last=False),
        )
        loader = data.train_dataloader()
        for epoch in (0, 1):
            loader.sampler.set_epoch(epoch)
            pixels[workers, epoch] = {
                int(row): image.contiguous().numpy().tobytes()
                for batch in loader
                for row, image in zip(batch["row"], batch["image"], strict=True)
            }
    assert len(pixels[0, 0]) > 100
    for epoch in (0, 1):
        assert pixels[0, epoch] == pixels[2, epoch]
    assert not [r for r in pixels[0, 0] if pixels[0, 0][r] == pixels[0, 1][r]]


def test_a_rank_does_not_run_the_multirun_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["train.py", "-m", "fold=0,1", "optim.optimizer.lr=1e-3,1e-4"])
    naive = _basic_subprocess_cmd()
    assert naive[-3:] == ["-m", "fold=0,1", "optim.optimizer.lr=1e-3,1e-4"]
    started: list[list[str]] = []

    def popen(command: list[str], **options: Any) -> Any:
        started.append(command)
        return SimpleNamespace(wait=lambda: 0)

    monkeypatch.setattr(launch.subprocess, "Popen", popen)
    config = {"fold": 1, "optim": {"optimizer": {"lr": 1e-4}}}
    launch.relaunch(config, tmp_path, n_devices=2)
    assert not set(started[0]) & set(naive[-2:])
    assert yaml.safe_load(Path(started[0][-1]).read_text()) == config


def test_a_checkpoint_survives_a_full_disk(tmp_path: Path) -> None:
    naive, ours = tmp_path / "naive.ckpt", tmp_path / "ours.ckpt"
    for path in (naive, ours):
        torch.save(OLD, path)
    with full_disk():
        with pytest.raises((OSError, RuntimeError)):
            torch.save(NEW, naive)
        with pytest.raises(IsicError, match="Free some space"):
            AtomicCheckpointIO().save_checkpoint(NEW, ours)
    with pytest.raises((OSError, RuntimeError, EOFError)):
        weight(naive)
    assert weight(ours) == 0
    assert {p.name for p in tmp_path.iterdir()} == {"naive.ckpt", "ours.ckpt"}


def test_a_checkpoint_is_not_moved_across_file_systems(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lightning writes to $TMPDIR and moves: across file systems a copy, which can tear."""
    naive, ours = tmp_path / "naive.ckpt", tmp_path / "ours.ckpt"
    for path in (naive, ours):
        torch.save(OLD, path)

    def rename(*args: Any) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    def copy(source: str, target: str, **options: Any) -> None:
        Path(target).write_bytes(Path(source).read_bytes()[:1000])
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", rename)
        patch.setattr(shutil, "copyfile", copy)
        with pytest.raises(OSError, match="No space left"):
            TorchCheckpointIO().save_checkpoint(NEW, naive)
        AtomicCheckpointIO().save_checkpoint(NEW, ours)
    with pytest.raises((OSError, RuntimeError, EOFError)):
        weight(naive)
    assert weight(ours) == 1


def test_last_is_last(tmp_path: Path) -> None:
    naive = ModelCheckpoint(tmp_path / "naive", monitor="val/score", mode="max", save_last=True)
    assert saved_epochs(tmp_path / "naive", [naive])["last"] == 1
    ours = checkpoint_callbacks(tmp_path / "ours", monitor="val/score", mode="max")
    assert saved_epochs(tmp_path / "ours", ours) == {"best": 1, "last": 4}


def test_sigterm_is_not_success(commands: ForkServer, tmp_path: Path) -> None:
    """Ours ends with 143: `test_exit_codes.py`."""
    script = tmp_path / "forever.py"
    script.write_text(FOREVER)
    naive = commands.start(script)
    naive.wait_for("training")
    naive.signal(signal.SIGTERM)
    assert naive.wait(60) == 0


@pytest.mark.slow
def test_two_wandb_runs_of_one_process_are_two(
    commands: ForkServer, tmp_path: Path, two_folds: tuple[Path, str]
) -> None:
    script = tmp_path / "two.py"
    script.write_text(TWO_LOGGERS)
    code, text = commands.run(script, tmp_path, env={"WANDB_MODE": "offline"})
    assert code == 0, text
    assert "naive 1" in text
    assert "ours 2" in text
    run, said = two_folds
    ids = [p.name.rsplit("-", 1)[1] for p in run.glob("fold*/wandb/offline-run-*")]
    assert len(ids) == len(set(ids)) == 2
    assert said.count("python -m isic sync") == 2


def test_no_hidden_sigmoid_before_ranking() -> None:
    logits, target = torch.tensor([20.0, 30.0, 40.0, -5.0]), torch.tensor([0, 1, 1, 0])
    assert BinaryAUROC()(logits, target) == pytest.approx(0.75)
    outputs = EpochOutputs()
    outputs.add({"row": torch.arange(4), "target": target}, logits[:, None])
    epoch = outputs.gather("sigmoid")
    assert roc_auc(epoch.target, epoch.probs) == 1.0


def test_checkpoints_hold_no_code(two_folds: tuple[Path, str], tmp_path: Path) -> None:
    naive = tmp_path / "naive.ckpt"
    torch.save({"hyper_parameters": OmegaConf.create({"lr": 0.1})}, naive)
    with pytest.raises(Exception, match="weights_only"):
        torch.load(naive, weights_only=True)
    paths = sorted(two_folds[0].glob("fold*/checkpoints/*.ckpt"))
    assert len(paths) == 4
    for path in paths:
        assert torch.serialization.get_unsafe_globals_in_checkpoint(path) == []
        config = torch.load(path, weights_only=True)["isic"]["config"]
        assert config["optim"]["optimizer"]["lr"] == 3e-4


def test_average_and_live_weights_are_both_kept(two_folds: tuple[Path, str]) -> None:
    """Lightning swaps in the average at the end: one written then has lost the live weights."""
    last = torch.load(two_folds[0] / "fold0/checkpoints/last.ckpt", weights_only=True)
    live, average = last["current_model_state"], last["state_dict"]
    assert live.keys() == average.keys()
    floating = [k for k, v in live.items() if v.is_floating_point() and v.numel() > 1]
    moved = [k for k in floating if not np.array_equal(live[k], average[k])]
    assert len(moved) > len(floating) // 2
