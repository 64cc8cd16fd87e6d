"""Stages of a fine-tuning on two CPU processes: equal to each other, and to one process."""

import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch

from tests.commands import ROOT

EPOCHS, BATCHES, SIZE = 5, 2, 8  # of the whole batch
BACKBONE = "test_convnext.r160_in1k"  # without batch norm: half batches have no statistics


def train_one_rank(out: Path, *, world: int, freezes: bool) -> None:
    """Train as the rank that the environment names, and leave `<world>-<rank>.pt`."""
    import pytorch_lightning as pl
    from torch.utils.data import DataLoader

    from isic.models.network import LesionNetwork
    from isic.training.callbacks import EpochSeed, ExponentialAverage
    from isic.training.hardware import TrainerOptions
    from isic.training.module import LesionClassifier
    from isic.training.optim import WarmupCosine
    from isic.training.unfreeze import Finetune

    torch.manual_seed(0)
    network = LesionNetwork(BACKBONE, n_logits=1, pretrained=False, image_size=32)
    rows = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (BATCHES * SIZE, 3, 32, 32), dtype=torch.uint8, generator=rows)
    module = LesionClassifier(
        network,
        classes=("benign", "malignant"),
        optim=WarmupCosine(partial(torch.optim.SGD, lr=0.5, momentum=0.9, weight_decay=0.1)),
        finetune=Finetune(head_epochs=1, group_epochs=1, groups=3, layer_decay=0.7),
    )
    options = TrainerOptions(
        accelerator="cpu", devices=world, precision="32", max_epochs=EPOCHS, gradient_clip_val=1.0
    )
    trainer = pl.Trainer(
        callbacks=[EpochSeed(0), ExponentialAverage(0.9)],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **options.trainer_arguments(freezes=freezes),
    )
    rank = trainer.global_rank
    batches = []
    for i in range(0, len(images), SIZE):
        row = torch.arange(i + rank, i + SIZE, world)  # every `world`-th row of each batch
        batches.append({"image": images[row], "target": row // 2 % 2, "row": row})
    trainer.fit(module, DataLoader(batches, batch_size=None, generator=torch.Generator()))
    torch.save(network.state_dict(), out / f"{world}-{rank}.pt")  # averaged, once the fit is over


def launch(out: Path, world: int, freezes: bool = True) -> subprocess.CompletedProcess[str]:
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
        *(f"--nproc-per-node={world}", "-m", "tests.test_ddp_staged"),
        *(str(out), str(world), str(int(freezes))),
    ]
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False
    )


@pytest.mark.slow
def test_two_ranks_are_equal_and_learn_what_one_process_learns(tmp_path: Path) -> None:
    for world in (1, 2):
        done = launch(tmp_path, world)
        assert done.returncode == 0, done.stderr
    one, first, second = (
        torch.load(tmp_path / f"{name}.pt", weights_only=True) for name in ("1-0", "2-0", "2-1")
    )
    for name, tensor in one.items():
        assert torch.equal(first[name], second[name]), name
        torch.testing.assert_close(tensor, first[name], rtol=1e-3, atol=1e-5, msg=name)


@pytest.mark.slow
def test_naive_ddp_waits_for_gradients_that_do_not_come(tmp_path: Path) -> None:
    done = launch(tmp_path, 2, freezes=False)
    assert done.returncode != 0
    assert "not used in producing the loss" in done.stderr


if __name__ == "__main__":
    train_one_rank(Path(sys.argv[1]), world=int(sys.argv[2]), freezes=sys.argv[3] == "1")
