"""From a raw archive to what training reads: index, split file, pack. No torch.

Every consumer of folds goes through `make_split` and reads the same CSV, so that image models and
stackers cannot disagree. Where something is absent it is made, and its place is logged.
"""

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from isic.errors import ConfigError, DataError, first_five
from isic.images.pack import build_pack
from isic.images.packfile import MISSING, OK, UNREADABLE, Pack
from isic.index.schema import Index, index_hash
from isic.split.grouped import assign_folds, group_of, subsample_groups
from isic.split.split_file import read_split, split_hash, split_path, write_split

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SplitOptions:
    """The `split` keys: number of folds, seed, or a given CSV (image_id, group, fold)."""

    n_folds: int = 5
    seed: int = 0
    file: str | None = None


@dataclass(frozen=True)
class Split:
    """A split file: its path, its content's hash, and its table (image_id, group, fold)."""

    path: Path
    hash: str
    table: pd.DataFrame

    @property
    def n_folds(self) -> int:
        """Folds that validate: -1 and -2 do not."""
        return int(self.table["fold"].max()) + 1


@dataclass(frozen=True)
class PixelOptions:
    """Where pixels come from and what happens to those that cannot be had.

    cache: `bytes` (packed JPEG) or `pixels` (decoded to the training size, where it fits).
    resize: Side in pixels to re-encode to while packing; None keeps the original bytes.
    on_bad_image: `error` names them; `skip` leaves them out of training and counts them.
    missing_images: `error`, or `drop` them from training; predictions then have a row without
        probabilities for each, as for a bad image.
    """

    cache_root: Path
    cache: str = "bytes"
    resize: int | None = None
    on_bad_image: str = "error"
    missing_images: str = "error"

    def __post_init__(self) -> None:
        """Refuse values that are not choices."""
        for key, choices in (
            ("cache", ("bytes", "pixels")),
            ("on_bad_image", ("error", "skip")),
            ("missing_images", ("error", "drop")),
        ):
            if getattr(self, key) not in choices:
                raise ConfigError(
                    f"data.{key}: expected {' or '.join(choices)}, got {getattr(self, key)}"
                )
        if self.resize is not None and (self.cache == "pixels" or self.resize < 1):
            raise ConfigError(
                f"data.resize: expected pixels, with data.cache=bytes, got {self.resize} with "
                f"data.cache={self.cache}"
            )


@dataclass(frozen=True)
class Rows:
    """Index rows 0..N-1 and the pack that holds their images, row by row."""

    table: pd.DataFrame
    pack: Pack

    @property
    def readable(self) -> NDArray[np.bool_]:
        """Which rows have an image that decodes, (N,)."""
        return np.asarray(self.pack.status == OK)


def make_split(
    index: Index, options: SplitOptions, *, runs_root: Path, fraction: float = 1.0
) -> Split:
    """Read the split file of these rows and options, or make it.

    fraction: Share of groups to keep, stratified; kept rows have the folds of the full split.

    Raises:
        DataError: A given file that is of another archive, or whose folds are not sound.
    """
    train = index.table[index.table["split"] == "train"]
    if options.file is not None:
        return _given_split(Path(options.file), train, fraction)
    path = split_path(
        runs_root,
        archive=index.info.name,
        method="grouped",
        n_folds=options.n_folds,
        seed=options.seed,
        index_hash=index_hash(index.table),
        fraction=fraction,
    )
    if not path.exists():
        fold = assign_folds(train, n_folds=options.n_folds, seed=options.seed)
        if fraction < 1:
            kept = subsample_groups(train, fold, fraction=fraction, seed=options.seed)
            train, fold = train.loc[kept.index[kept]], fold[kept]
        write_split(path, train, fold)
        log.info("split: wrote %s", path)
    return Split(path, split_hash(path), read_split(path))


def _given_split(path: Path, train: pd.DataFrame, fraction: float) -> Split:
    """The user's own split file, if it can give an honest score on these training rows."""
    if fraction < 1:
        raise ConfigError(
            f"data.fraction: expected 1 with split.file, got {fraction}; the rows to use are those "
            f"that {path} names"
        )
    table = read_split(path)
    unknown = table.loc[~table["image_id"].isin(train["image_id"]), "image_id"]
    if len(unknown):
        raise DataError(
            f"{path}: {len(unknown)} of {len(table)} image ids are not training rows of the "
            f"archive: {first_five(unknown)}. Give the split file of this archive, or none."
        )
    folds = sorted(set(table["fold"]) - {-1, -2})
    if len(folds) < 2 or folds != list(range(len(folds))):
        raise DataError(f"{path}: expected folds 0, 1, ... without a gap, got {folds}")
    _refuse_divided_groups(path, table, train)
    _refuse_one_class(path, table, train)
    if len(table) < len(train):
        log.warning("%s names %d of %d training rows; others rest", path, len(table), len(train))
    return Split(path, split_hash(path), table)


def _refuse_divided_groups(path: Path, table: pd.DataFrame, train: pd.DataFrame) -> None:
    """A patient in two folds makes every score too good."""
    group = pd.Series(group_of(train).to_numpy(), index=train["image_id"].to_numpy())
    used = table[table["fold"] != -1]
    n_folds = used.groupby(group.reindex(used["image_id"]).to_numpy())["fold"].nunique()
    divided = n_folds.index[n_folds > 1]
    if len(divided):
        raise DataError(
            f"{path}: {len(divided)} groups (patient, else lesion) lie in several folds: "
            f"{first_five(divided)}. Keep each in one fold, or leave split.file out."
        )


def _refuse_one_class(path: Path, table: pd.DataFrame, train: pd.DataFrame) -> None:
    """A fold of one class has no score."""
    target = train.set_index("image_id")["target"].reindex(table["image_id"]).to_numpy()
    n_classes = table.assign(target=target).groupby("fold")["target"].nunique()
    poor = [int(fold) for fold in n_classes.index[n_classes < 2] if fold >= 0]
    if poor:
        raise DataError(
            f"{path}: every fold needs two classes, got one in fold {first_five(poor)}. "
            "Move groups between folds, or leave split.file out."
        )


def fold_rows(index: Index, split: Split) -> pd.DataFrame:
    """The training rows that the split names, with their `group` and `fold`, in index order."""
    train = index.table[index.table["split"] == "train"]
    return train.merge(split.table, on="image_id", how="inner").reset_index(drop=True)


def load_rows(index: Index, table: pd.DataFrame, pixels: PixelOptions, *, image_size: int) -> Rows:
    """Pack the images of `table`'s rows, where they are not packed yet, and say what is wrong.

    Raises:
        DataError: Rows without an image, or with one that does not decode, unless told otherwise.
    """
    if table["image"].isna().all():
        message = _missing_message(index, table["image_id"], len(table))
        raise DataError(f"{message}. Download the images: {index.download}")
    pack = build_pack(
        index.sources,
        table["image"].where(table["image"].notna(), None).tolist(),
        cache_root=pixels.cache_root,
        resize=pixels.resize,
        pixels=image_size if pixels.cache == "pixels" else None,
    )
    rows = Rows(table, pack)
    _report_missing(index, rows, pixels.missing_images)
    _report_bad(rows, pixels.on_bad_image)
    if not rows.readable.any():
        raise DataError(f"none of {len(table)} images under {index.root} can be read")
    return rows


def _missing_message(index: Index, ids: pd.Series, n_rows: int) -> str:
    return f"{len(ids)} of {n_rows} rows have no image under {index.root}: {first_five(ids)}"


def _report_missing(index: Index, rows: Rows, missing_images: str) -> None:
    missing = rows.pack.status == MISSING
    if not missing.any():
        return
    message = _missing_message(index, rows.table["image_id"][missing], len(rows.table))
    if missing_images == "error":
        raise DataError(
            f"{message}. Download the images: {index.download}; or go on without them with "
            "data.missing_images=drop"
        )
    log.warning("%s; left out of training and scores, status=missing in predictions", message)


def _report_bad(rows: Rows, on_bad_image: str) -> None:
    bad = np.flatnonzero(rows.pack.status == UNREADABLE).tolist()
    if not bad:
        return
    named = first_five(f"{rows.table['image_id'].iat[i]} ({rows.pack.reason(i)})" for i in bad)
    message = f"{len(bad)} of {len(rows.table)} images cannot be read: {named}"
    if on_bad_image == "error":
        raise DataError(
            f"{message}. Download these again, or go on without them with data.on_bad_image=skip."
        )
    log.warning("%s; left out of training, status=unreadable in predictions", message)
