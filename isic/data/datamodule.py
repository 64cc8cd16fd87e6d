"""One LightningDataModule for every archive: the rows of a fold as batches.

The named classes (`isic.data.archives`) fix which index is read, nothing else. All randomness is a
function of (seed, epoch, row), so batches do not depend on the number of workers, and a resumed run
sees the batches that the interrupted one would have seen.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray

from isic.data.dataset import LesionDataset
from isic.data.loader import (
    batch_loader,
    check_counts,
    check_share,
    check_workers,
    ranks_beside,
    worker_count,
)
from isic.data.rows import FoldRows
from isic.data.sampler import SequentialBatches, ShuffledBatches, TrainingBatches
from isic.data.transforms import FastAugment, Resize
from isic.data.use import targets, weights
from isic.errors import ConfigError
from isic.index.schema import Index
from isic.prepare import PixelOptions, Rows
from isic.split.options import SplitOptions


class LesionDataModule(FoldRows, pl.LightningDataModule):
    """Training, validation and prediction batches of one archive and one fold.

    root: The archive's folder; may be read-only.
    index: `build_index` of the archive's module; named subclasses bring their own.
    parts: Archives that a merged index is made of; for its config alone.
    extra: CSVs of further training images (`isic.index.extra`).
    fold: The fold that is validated, or `all` to train on every row.
    views: Of a lesion, the ones the network sees; default the first of `info.views`.
    metadata: Columns, or patterns of them, that the network sees (`isic.index.metadata`).
    auxiliary: Columns that extra heads learn, never inputs (`isic.data.auxiliary`).
    transforms, sampler: Factories, `transforms(size)` and `sampler(target, batch_size=...)`.
    batch_size: Images a step over all devices together.
    num_workers: Loader processes a device; `auto` is its share of the cores but one, up to eight,
        and 0 for a CPU of up to four cores.
    val_negatives: While training, validate on all positives and this many negatives.
    samples_per_epoch: Cut epochs to this many images.

    Batches: `image` uint8 (B, 3, S, S), `target` int64 (B,), -1 unlabelled, `row` int64 (B,); of
    several views also `image_<view>` and `has_<view>`, which stay away from the device where every
    row has every view; `metadata` float32 (B, M) where it is on; `aux_<column>` (B,) while training
    and validating. Training batches also hold what is put into `train_columns`: arrays of a row a
    `train_rows`, by name, such as the soft labels of a teacher;
    `cautions` are sentences on them that a score is to be read with. `begun_batch_size` is that of
    the run where it goes on in batches of another size: its epochs keep their samples and steps.
    """

    index_builder: Callable[[Path], Index] | None = None
    begun_batch_size: int | None = None
    train_columns: dict[str, NDArray[Any]]

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
        auxiliary: Sequence[str] | None = None,
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
        max_megapixels: float | None = None,
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
        check_share(fraction)
        check_workers(num_workers)
        check_counts(batch_size=batch_size, image_size=image_size)
        check_counts(val_negatives=val_negatives, samples_per_epoch=samples_per_epoch)
        self.root, self.builder, self.parts, self.extra = Path(root), builder, parts, extra
        self.split_options, self.fold, self.fraction = split or SplitOptions(), fold, fraction
        self.image_size, self.cache_root = image_size or 224, Path(cache_root)
        self.views, self.metadata = list(views or ()), list(metadata or ())
        self.auxiliary, self.cautions, self.train_columns = list(auxiliary or ()), list[str](), {}
        self.transforms, self.sampler = transforms or FastAugment, sampler or ShuffledBatches
        self.batch_size, self.num_workers = batch_size, num_workers
        kinds = (cache, resize, crop_border, colour_constancy, on_bad_image, missing_images)
        self.pixels = PixelOptions(self.cache_root, *kinds, max_megapixels=max_megapixels)
        self.val_negatives, self.seed, self.runs_root = val_negatives, seed, Path(runs_root)
        self.samples_per_epoch, self._next_epoch = samples_per_epoch, 0

    @property
    def epoch_class_counts(self) -> list[int]:
        """Images of each class that an epoch shows: what the sampler leaves of `class_counts`."""
        n = len(self.index.info.classes)
        target = self.targets(self.positions["train"])
        drawn = np.concatenate([batch for _, batch in self._sampler(target, rank=0, world_size=1)])
        return [int(c) for c in np.bincount(target[drawn], minlength=n)]

    def setup(self, stage: str) -> None:
        """Read index and split and pack the images, where another process has not."""
        if stage == "fit":
            _ = self.positions, self.encoder, self.heads

    def train_dataloader(self) -> Any:
        """Augmented batches of the training rows, in the order of the sampler."""
        rank, world = self._rank()
        rows, use = self.train_rows, self.positions["train"]
        every = {**weights(rows), **self.train_columns}
        columns = {**self._learnt(use), **{name: c[use] for name, c in every.items()}}
        dataset = self._dataset(rows, use, self.transforms, columns)
        sampler = self._sampler(dataset.target, rank=rank, world_size=world)
        # Lightning makes a resumed run's first iterator before it calls set_epoch
        sampler.set_epoch(self._next_epoch)
        return self._loader(dataset, sampler)

    def _sampler(self, target: NDArray[np.int64], *, rank: int, world_size: int) -> Any:
        sampler = self.sampler(
            target,
            batch_size=max(self.batch_size // world_size, 1),
            seed=self.seed,
            rank=rank,
            world_size=world_size,
            samples_per_epoch=self.samples_per_epoch,
            **self._groups(),
        )
        if self.begun_batch_size not in (None, self.batch_size):
            if not isinstance(sampler, TrainingBatches):
                raise ConfigError(
                    f"data.batch_size: the run began with {self.begun_batch_size}, and nobody "
                    f"knows what {type(sampler).__name__} makes of another one; keep that size"
                )
            sampler.unit = max(self.begun_batch_size // world_size, 1)
        return sampler

    def _groups(self) -> dict[str, Any]:
        """The group of each training row, for a sampler that asks for it."""
        if "group" not in inspect.signature(self.sampler).parameters:
            return {}
        return {"group": self.train_rows.table["group"].to_numpy()[self.positions["train"]]}

    def val_dataloader(self) -> Any:
        """The held-out rows, or the part of them that is looked at while training."""
        if self.fold == "all":
            return []
        use = self.positions["val"]
        return self.evaluation_loader(self.train_rows, use, columns=self._learnt(use))

    def evaluation_loader(
        self,
        rows: Rows,
        positions: NDArray[np.int64],
        *,
        columns: Mapping[str, NDArray[Any]] | None = None,
        device: torch.device | None = None,
    ) -> Any:
        """Batches of some rows, not augmented, in order; `row` counts within `positions`.

        columns: Arrays of a row a position, that the batches hold too.
        device: That the batches go to, where no trainer has been given this data module.
        """
        dataset = self._dataset(rows, positions, Resize, columns or {})
        rank, world = self._rank()
        size = max(self.batch_size // world, 1)
        sampler = SequentialBatches(dataset.target, batch_size=size, rank=rank, world_size=world)
        return self._loader(dataset, sampler, device)

    def _learnt(self, positions: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
        """Targets of the extra heads for some of `train_rows`, by their names in a batch."""
        rows = self.train_rows.table.iloc[positions]
        return {head.key: head.encode(rows) for head in self.heads}

    def _dataset(
        self,
        rows: Rows,
        positions: NDArray[np.int64],
        transform: Callable[..., Any],
        columns: Mapping[str, NDArray[Any]],
    ) -> LesionDataset:
        if self.encoder:
            columns = {**columns, "metadata": self.encoder.encode(rows.table.iloc[positions])}
        return LesionDataset(
            rows.pack,
            rows=positions,
            target=targets(rows)[positions],
            columns=columns,
            views=rows.views,
            transform=transform(size=self.image_size),
            seed=self.seed,
        )

    def _loader(
        self, dataset: LesionDataset, sampler: Any, device: torch.device | None = None
    ) -> Any:
        if self.trainer is not None:
            device = self.trainer.strategy.root_device
        on_gpu, ranks = device is not None and device.type == "cuda", ranks_beside(self.trainer)
        _, world = self._rank()
        return batch_loader(
            dataset,
            sampler,
            workers=worker_count(self.num_workers, ranks=ranks, on_gpu=on_gpu),
            seed=self.seed,
            pinned=on_gpu,
            batch_size=max(self.batch_size // world, 1),
        )

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Leave out which rows have which view where all have all: to ask a GPU is to wait for it.

        A network takes a view without `has_<view>` as one that every row has. Here and not in the
        network's module, as Lightning would warn of a hook that no data module has.
        """
        has = [name for name in batch if name.startswith("has_")]
        if not all(bool(batch[name].all()) for name in has):
            return batch
        return {name: value for name, value in batch.items() if name not in has}

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
