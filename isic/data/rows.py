"""The rows of one archive and one fold: index -> split -> pack, and who learns from what.

Everything is read when it is first asked for, and kept. `LesionDataModule` makes batches of it.
"""

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from isic.data.auxiliary import Head, fit_heads
from isic.data.use import Use, targets, use_of
from isic.errors import ConfigError
from isic.index.in_test import refuse_unseen_in_test, texts_among
from isic.index.metadata import MetadataEncoder, fit_metadata, named_columns
from isic.index.schema import Index, sample_rows
from isic.index.unread_cells import refuse_unread
from isic.prepare import (
    PixelOptions,
    Rows,
    has_images,
    load_rows,
    open_index,
    refuse_absent_views,
)
from isic.split.making import fold_rows, make_split
from isic.split.options import Split, SplitOptions


class FoldRows:
    """Which rows train, validate and are predicted, and what is known of them.

    `LesionDataModule` sets these attributes from its arguments of the same names; `pixels` are its
    options of packing.
    """

    root: Path
    builder: Callable[[Path], Index]
    extra: str | Sequence[str] | None
    split_options: SplitOptions
    fold: int | str
    fraction: float
    pixels: PixelOptions
    image_size: int
    views: Sequence[str]
    metadata: Sequence[str]
    auxiliary: Sequence[str]
    val_negatives: int | None
    seed: int
    runs_root: Path
    cache_root: Path

    @cached_property
    def index(self) -> Index:
        """The archive's typed table and its facts."""
        return open_index(
            self.builder,
            self.root,
            cache_root=self.cache_root,
            extra=self.extra,
            max_megapixels=self.pixels.max_megapixels,
        )

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
        rows = self.rows_of(fold_rows(self.index, self.split))
        refuse_absent_views(rows)
        return rows

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
        self.check_metadata()
        rows = self.train_rows.table.iloc[self.positions["train"]]
        return fit_metadata(rows, self.metadata, info=self.index.info)

    def check_metadata(self) -> None:
        """Refuse metadata that test rows know nothing of.

        Raises:
            DataError: Names the columns.
        """
        samples = sample_rows(self.index)
        columns = named_columns(samples, self.metadata, info=self.index.info)
        texts = texts_among(samples, columns)
        refuse_unread(self.index, columns, key="data.metadata")
        refuse_unseen_in_test(samples, columns, texts=texts, key="data.metadata")

    @cached_property
    def heads(self) -> tuple[Head, ...]:
        """What extra heads learn, fitted on the fold's training rows; none by default."""
        if not self.auxiliary:
            return ()
        refuse_unread(self.index, self.auxiliary, key="auxiliary.columns")
        rows = self.train_rows.table.iloc[self.positions["train"]]
        inputs = self.encoder.columns if self.encoder else ()
        return fit_heads(rows, self.auxiliary, info=self.index.info, inputs=inputs)

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
    def partial_validation(self) -> bool:
        """Whether validation while training sees only a part of the fold."""
        return len(self.positions["val"]) < len(self.positions["held_out"])
