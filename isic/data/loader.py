"""A dataset and its sampler as a loader: how many processes, whose random numbers, which memory.

Trap: a loader without a generator of its own draws one number from torch's global one for each new
iterator, after the epoch was seeded unless it is the first of a resumed run: dropout would differ
from there on.
"""

import os
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
from torch.utils.data import DataLoader

from isic.data.dataset import LesionDataset
from isic.errors import ConfigError


def batch_loader(
    dataset: LesionDataset, sampler: Any, *, workers: int, seed: int, pinned: bool
) -> Any:
    """Batches of `dataset` in the order of `sampler`, whose items are whole batches."""
    return DataLoader(
        dataset,
        sampler=sampler,
        batch_size=None,
        num_workers=workers,
        persistent_workers=workers > 0,
        generator=torch.Generator().manual_seed(seed),
        pin_memory=pinned,
    )


def worker_count(asked: int | str, *, ranks: int, on_gpu: bool) -> int:
    """Loader processes of this one: as asked; `auto` is its share of the cores but one, up to 8.

    On a CPU of up to four cores it is 0, as decoding takes them from the training; beside a GPU
    at least 1, which would else wait while its own process decodes.

    ranks: That share this process's cores, see `ranks_beside`.
    """
    if asked != "auto":
        return int(asked)
    cores = len(os.sched_getaffinity(0))
    if not on_gpu and cores <= 4:
        return 0
    return max(int(on_gpu), min(8, cores // ranks - 1))


def ranks_beside(trainer: pl.Trainer | None) -> int:
    """Ranks whose affinity is this process's too: torchrun's; srun gives each cores of its own."""
    if trainer is None:
        return 1
    environment = getattr(trainer.strategy, "cluster_environment", None)
    return 1 if isinstance(environment, SLURMEnvironment) else trainer.num_devices


def check_workers(asked: int | str) -> None:
    """Raise ConfigError where `data.num_workers` is neither a number nor `auto`."""
    if asked != "auto" and not str(asked).isdecimal():
        raise ConfigError(f"data.num_workers: expected a number or auto, got {asked!r}")


def check_share(fraction: float) -> None:
    """Raise ConfigError where `data.fraction` is no share."""
    if not isinstance(fraction, int | float) or not 0 < fraction <= 1:
        raise ConfigError(f"data.fraction: expected a share in (0, 1], got {fraction}")


def check_counts(**counts: int | None) -> None:
    """Raise ConfigError where a key of `data` is neither None nor a number from 1 on."""
    for key, value in counts.items():
        if value is not None and (not isinstance(value, int) or value < 1):
            raise ConfigError(f"data.{key}: expected a whole number from 1 on, got {value!r}")
