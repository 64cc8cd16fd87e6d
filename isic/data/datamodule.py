"""One LightningDataModule for every archive: index -> split -> pack -> batches.

The named classes fix which index is read, nothing else. All randomness is a function of
(seed, epoch, row), so batches do not depend on the number of workers, and a resumed run sees the
batches that the interrupted one would have seen.
"""

import inspect
import logging
import os
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from isic.data.dataset import LesionDataset
from isic.data.sampler import SequentialBatches, ShuffledBatches
from isic.data.transforms import FastAugment, Resize
from isic.data.use import Use, targets, use_of, weights
from isic.errors import ConfigError
from isic.index.metadata import MetadataEncoder, fit_metadata
from isic.index.schema import Index, sample_rows
from isic.prepare import PixelOptions, Rows, has_images, load_rows, open_index
from isic.split.making import fold_rows, make_split
from isic.split.options import Split, SplitOptions

log = logging.getLogger(__name__)


class LesionDataModule(pl.LightningDataModule):
    """Training, validation and prediction batches of one archive and one fold.

    root: The archive's folder; may be read-only.
    index: `build_index` of the archive's module; named subclasses bring their own.
    parts: Archives that a merged index is made of; for its config alone.
    extra: CSVs of further training images (`isic.index.extra`).
    fold: The fold that is validated, or `all` to train on every row.
    views: Of a lesion, the ones the network sees; default the first of `info.views`.
    metadata: Columns, or patterns of them, that the network sees (`isic.index.metadata`).
    transforms, sampler: Factories, `transforms(size)` and `sampler(target, batch_size=...)`.
    batch_size: Images a step over all devices together.
    num_workers: Loader processes a device; `auto` is 0 up to four cores, else up to eight.
    val_negatives: While training, validate on all positives and this many negatives.
    samples_per_epoch: Cut epochs to this many images.

    Batches: `image` uint8 (B, 3, S, S), `target` int64 (B,), -1 unlabelled, `row` int64 (B,); of
    several views also `image_<view>` and `has_<view>`; `metadata` float32 (B, M) where it is on.
    """

    index_builder: Callable[[Path], Index] | None = None

    def __init__(
        self,
        root: str | Path,
        *,
        index: Callable[[Path], Index] | None = None,
        parts: Sequence[str] | None = None,
        extra: str | Sequence[str] | None = None,
        split: SplitOptions | None = None,
        fold: int | str = 0,
        views: Sequence[str] | None = None,
        metadata: Sequence[str] | None = None,
        image_size: int | None = 224,
        transforms: Callable[..., Any] | None = None,
        sampler: Callable[..., Any] | None = None,
        batch_size: int = 64,
        num_workers: int | str = "auto",
        cache: str = "bytes",
        resize: int | None = None,
        crop_border: bool = False,
        colour_constancy: bool = False,
        on_bad_image: str = "error",
        missing_images: str = "error",
        fraction: float = 1.0,
        val_negatives: int | None = None,
        samples_per_epoch: int | None = None,
        seed: int = 0,
        runs_root: str | Path = "runs",
        cache_root: str | Path = ".cache/isic",
    ) -> None:
        super().__init__()
        builder = index or type(self).index_builder
        if builder is None:
            raise ConfigError("data.index: expected an archive's build_index, got none")
        _check_share(fraction)
        _check_counts(batch_size=batch_size, image_size=image_size, val_negatives=val_negatives)
        _check_counts(samples_per_epoch=samples_per_epoch)
        if num_workers != "auto" and not str(num_workers).isdecimal():
            raise ConfigError(f"data.num_workers: expected a number or auto, got {num_workers!r}")
        self.root, self.builder, self.parts, self.extra = Path(root), builder, parts, extra
        self.split_options, self.fold, self.fraction = split or SplitOptions(), fold, fraction
        self.image_size = image_size or 224
        self.views, self.metadata = list(views or ()), list(metadata or ())
        self.transforms, self.sampler = transforms or FastAugment, sampler or ShuffledBatches
        self.batch_size, self.num_workers = batch_size, num_workers
        self.cache_root = Path(cache_root)
        kinds = (cache, resize, crop_border, colour_constancy, on_bad_image, missing_images)
        self.pixels = PixelOptions(self.cache_root, *kinds)
        self.val_negatives, self.samples_per_epoch = val_negatives, samples_per_epoch
        self.seed, self.runs_root = seed, Path(runs_root)
        self._next_epoch = 0

    @cached_property
    def index(self) -> Index:
        """The archive's typed table and its facts."""
        return open_index(self.builder, self.root, cache_root=self.cache_root, extra=self.extra)

    @cached_property
    def split(self) -> Split:
        """The split file of this archive, made where it is absent."""
        split = make_split(
            self.index,
            self.split_options,
            runs_root=self.runs_root,
            cache_root=self.cache_root,
            fraction=self.fraction,
        )
        if self.fold != "all" and self.fold not in range(split.n_folds):
            raise ConfigError(
                f"fold: expected 0..{split.n_folds - 1} or all, got {self.fold}; folds come from "
                f"{split.path} (split.n_folds={split.n_folds})"
            )
        return split

    @cached_property
    def train_rows(self) -> Rows:
        """Labelled samples of the split, with `group` and `fold`, and their images."""
        return self.rows_of(fold_rows(self.index, self.split))

    @cached_property
    def test_rows(self) -> Rows | None:
        """Test samples, or None where none has an image."""
        samples = sample_rows(self.index)
        table = samples[samples["split"] == "test"].reset_index(drop=True)
        return self.rows_of(table) if has_images(self.index, table, self.views) else None

    def rows_of(self, table: pd.DataFrame) -> Rows:
        """Some samples of the index and their images, packed where they are not yet."""
        return load_rows(
            self.index, table, self.pixels, image_size=self.image_size, views=self.views
        )

    @cached_property
    def positions(self) -> Use:
        """Rows of `train_rows` by use: `train`, `val` (while training), `held_out`."""
        return use_of(self.train_rows, self.fold, val_negatives=self.val_negatives, seed=self.seed)

    @cached_property
    def encoder(self) -> MetadataEncoder | None:
        """Of metadata, fitted on the fold's training rows; set it to predict with another's."""
        if not self.metadata:
            return None
        rows = self.train_rows.table.iloc[self.positions["train"]]
        return fit_metadata(rows, self.metadata, info=self.index.info)

    def targets(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Class indices of these rows of `train_rows`, -1 where unlabelled."""
        return targets(self.train_rows)[rows]

    @property
    def class_counts(self) -> list[int]:
        """Training rows of each class."""
        n = len(self.index.info.classes)
        counts = np.bincount(self.targets(self.positions["train"]), minlength=n)
        return [int(c) for c in counts]

    @property
    def epoch_class_counts(self) -> list[int]:
        """Images of each class that an epoch shows: what the sampler leaves of `class_counts`."""
        n = len(self.index.info.classes)
        target = self.targets(self.positions["train"])
        drawn = np.concatenate([batch for _, batch in self._sampler(target, rank=0, world_size=1)])
        return [int(c) for c in np.bincount(target[drawn], minlength=n)]

    @property
    def partial_validation(self) -> bool:
        """Whether validation while training sees only a part of the fold."""
        return len(self.positions["val"]) < len(self.positions["held_out"])

    def setup(self, stage: str) -> None:
        """Read index and split and pack the images, where another process has not."""
        if stage == "fit":
            _ = self.positions, self.encoder

    def train_dataloader(self) -> Any:
        """Augmented batches of the training rows, in the order of the sampler."""
        rank, world = self._rank()
        dataset = self._dataset(self.train_rows, self.positions["train"], self.transforms)
        if (weight := weights(self.train_rows)) is not None:
            dataset.weight = weight[dataset.rows]
        sampler = self._sampler(dataset.target, rank=rank, world_size=world)
        # Lightning makes a resumed run's first iterator before it calls set_epoch
        sampler.set_epoch(self._next_epoch)
        return self._loader(dataset, sampler)

    def _sampler(self, target: NDArray[np.int64], *, rank: int, world_size: int) -> Any:
        return self.sampler(
            target,
            batch_size=max(self.batch_size // world_size, 1),
            seed=self.seed,
            rank=rank,
            world_size=world_size,
            samples_per_epoch=self.samples_per_epoch,
            **self._groups(),
        )

    def _groups(self) -> dict[str, Any]:
        """The group of each training row, for a sampler that asks for it."""
        if "group" not in inspect.signature(self.sampler).parameters:
            return {}
        return {"group": self.train_rows.table["group"].to_numpy()[self.positions["train"]]}

    def val_dataloader(self) -> Any:
        """The held-out rows, or the part of them that is looked at while training."""
        if self.fold == "all":
            return []
        return self.evaluation_loader(self.train_rows, self.positions["val"])

    def evaluation_loader(self, rows: Rows, positions: NDArray[np.int64]) -> Any:
        """Batches of some rows, not augmented, in order; `row` counts within `positions`."""
        dataset = self._dataset(rows, positions, Resize)
        rank, world = self._rank()
        size = max(self.batch_size // world, 1)
        sampler = SequentialBatches(dataset.target, batch_size=size, rank=rank, world_size=world)
        return self._loader(dataset, sampler)

    def _dataset(
        self, rows: Rows, positions: NDArray[np.int64], transform: Callable[..., Any]
    ) -> LesionDataset:
        known = self.encoder.encode(rows.table.iloc[positions]) if self.encoder else None
        return LesionDataset(
            rows.pack,
            rows=positions,
            target=targets(rows)[positions],
            metadata=known,
            views=rows.views,
            transform=transform(size=self.image_size),
            seed=self.seed,
        )

    def _loader(self, dataset: LesionDataset, sampler: Any) -> Any:
        workers = self._n_workers()
        return DataLoader(
            dataset,
            sampler=sampler,
            batch_size=None,  # the sampler's items are whole batches
            num_workers=workers,
            persistent_workers=workers > 0,
            # Else each new iterator draws from the global generator, after the epoch was seeded
            # unless it is the first of a resumed run: dropout would differ from there on.
            generator=torch.Generator().manual_seed(self.seed),
            pin_memory=self.trainer is not None
            and self.trainer.strategy.root_device.type == "cuda",
        )

    def _n_workers(self) -> int:
        if self.num_workers != "auto":
            return int(self.num_workers)
        cores = len(os.sched_getaffinity(0))
        devices = self.trainer.num_devices if self.trainer is not None else 1
        return 0 if cores <= 4 else min(8, (cores - 1) // max(devices, 1))

    def _rank(self) -> tuple[int, int]:
        """This process and the number of processes; alone outside a trainer."""
        if self.trainer is None:
            return 0, 1
        return self.trainer.global_rank, self.trainer.world_size

    def state_dict(self) -> dict[str, int]:
        """The epoch that a run resumed from this checkpoint starts with."""
        assert self.trainer is not None
        loop = self.trainer.fit_loop
        unfinished = not loop.epoch_loop.batch_progress.is_last_batch
        started: int = loop.epoch_progress.current.started  # type: ignore[attr-defined]
        return {"next_epoch": started - int(unfinished)}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Called by Lightning before the loaders are made."""
        self._next_epoch = state_dict["next_epoch"]


def _check_share(fraction: float) -> None:
    if not isinstance(fraction, int | float) or not 0 < fraction <= 1:
        raise ConfigError(f"data.fraction: expected a share in (0, 1], got {fraction}")


def _check_counts(**counts: int | None) -> None:
    for key, value in counts.items():
        if value is not None and (not isinstance(value, int) or value < 1):
            raise ConfigError(f"data.{key}: expected a whole number from 1 on, got {value!r}")
