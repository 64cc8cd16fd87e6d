"""A dataset and its sampler as a loader: how many processes, whose random numbers, which memory.

Trap: a loader without a generator of its own draws one number from torch's global one for each new
iterator, after the epoch was seeded unless it is the first of a resumed run: dropout would differ
from there on.
"""

import os
from typing import Any

import torch
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


def worker_count(asked: int | str, *, devices: int) -> int:
    """Loader processes a device: as asked; `auto` is 0 up to four cores, else up to eight."""
    if asked != "auto":
        return int(asked)
    cores = len(os.sched_getaffinity(0))
    return 0 if cores <= 4 else min(8, (cores - 1) // max(devices, 1))


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
