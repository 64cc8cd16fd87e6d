"""Folds as others published them, or as made before: any CSV with an id and a fold a line.

`split.file=train_cdeotte.csv split.columns={image_id: image_name, fold: tfrecord}` takes Deotte's
15 groups of SIIM-ISIC 2020. Ids may end in `.jpg` and name any view of a lesion, or the lesion;
folds may count from 1. A negative fold is never used, an empty one held out; in a file of our own
columns -2 still trains everywhere. Samples that the file lacks rest, external ones train (-2).
Trap: published folds may divide a patient: such a file is refused. Images that merely look alike
may lie in two folds, since the file is as it is; how many do is logged.
"""

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from isic.errors import ConfigError, DataError, first_five
from isic.outputs import output_folder
from isic.split.grouped import fixed_folds
from isic.split.groups import group_of
from isic.split.split_file import (
    COLUMNS,
    HELD_OUT,
    NEVER,
    TRAINS,
    parse_folds,
    read_cells,
    read_split,
    refuse_changed,
    split_path,
    write_split,
)

log = logging.getLogger(__name__)

ENDING = r"(?i)\.(jpe?g|png|dcm|bmp|tiff?|webp)$"
Pairs = Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Named:
    """What a file may name: all train images, the samples, and the sample of each name.

    images: Train rows of the index; groups are made over them.
    rows: Labelled train samples.
    sample_of: Image (or lesion) name -> `image_id` of its sample.
    """

    archive: str
    images: pd.DataFrame
    rows: pd.DataFrame
    sample_of: pd.Series


def given_split(
    path: Path,
    named: Named,
    *,
    columns: Mapping[str, str] | None,
    pairs: Pairs,
    runs_root: Path,
    fraction: float,
) -> Path:
    """Check the file; return it, or a copy in our columns where it has others or other groups.

    pairs: Images that show the same.

    Raises:
        ConfigError: A fraction below 1.
        DataError: Not a fold file, of other rows, or one whose folds give no honest score.
    """
    if fraction < 1:
        raise ConfigError(
            f"data.fraction: expected 1 with split.file, got {fraction}; the rows to use are those "
            f"that {path} names"
        )
    renamed = {ours: theirs for ours, theirs in (columns or {}).items() if ours != theirs}
    own = not renamed and set(COLUMNS) <= set(read_cells(path).columns)
    frame = read_split(path) if own else _read_published(path, columns or {})
    frame = _known_rows(path, frame, named)
    frame["fold"] = _from_zero(path, frame["fold"])
    fold = frame.set_index("image_id")["fold"]
    _refuse_divided_groups(path, fold, named)
    _refuse_one_class(path, fold, named)
    group = _groups(path, frame, named, pairs)
    full = _completed(path, fold, group, named, own=own)
    if own and _same(frame, full, group):
        return path
    content = pd.util.hash_pandas_object(full.sort_index(), index=True).to_numpy().tobytes()
    copy = split_path(
        runs_root,
        archive=named.archive,
        method="given",
        n_folds=int(full.max()) + 1,
        seed=None,
        content=hashlib.blake2b(
            content + "\n".join(group.loc[full.index]).encode(), digest_size=6
        ).hexdigest(),
    )
    if copy.exists():
        refuse_changed(copy, pd.DataFrame({"image_id": full.index}))
    else:
        output_folder(copy.parent)
        write_split(copy, pd.DataFrame({"image_id": full.index}, index=full.index), full, group)
        log.info("split: wrote %s, from %s", copy, path)
    return copy


def _read_published(path: Path, columns: Mapping[str, str]) -> pd.DataFrame:
    """`image_id` and `fold` of a file in its own columns, and `group` where it has one."""
    cells = read_cells(path)
    names = {c: columns.get(c, c) for c in COLUMNS}
    if missing := [names[c] for c in ("image_id", "fold") if names[c] not in cells]:
        raise DataError(
            f"{path} lacks the columns {', '.join(missing)}, it has {first_five(cells.columns)}; "
            "say which to read with split.columns={image_id: NAME, fold: NAME}"
        )
    if "group" in columns and columns["group"] not in cells:
        raise DataError(
            f"{path} lacks the column {columns['group']} of split.columns.group, it has "
            f"{first_five(cells.columns)}; leave group out to have it computed"
        )
    frame = pd.DataFrame({c: cells[names[c]] for c in COLUMNS if names[c] in cells})
    fold = parse_folds(frame["fold"], frame["image_id"], where=f"{path}, column {names['fold']}")
    empty = frame["fold"].str.strip() == ""
    return frame.assign(fold=fold.mask((fold < 0) & ~empty, NEVER))


def _known_rows(path: Path, frame: pd.DataFrame, named: Named) -> pd.DataFrame:
    """One line a sample, under the sample's id; refuses ids of elsewhere and contradictions."""
    name = frame["image_id"].str.strip().str.replace("\\", "/").str.rpartition("/")[2]
    name = name.str.replace(ENDING, "", regex=True)
    sample = name.map(named.sample_of)
    unknown = sample.isna()
    if (unknown & (frame["fold"] != NEVER)).any():
        strangers = frame["image_id"][unknown & (frame["fold"] != NEVER)]
        raise DataError(
            f"{path}: {len(strangers)} of {len(frame)} image ids are not training rows of the "
            f"archive: {first_five(strangers)}. Give the split file of this archive, or none."
        )
    if unknown.any():
        log.info("%s: %d rows that are never used are of no training row", path, unknown.sum())
    frame = frame.assign(image_id=sample)[~unknown].drop_duplicates()
    twice = frame["image_id"][frame["image_id"].duplicated()].unique()
    if len(twice):
        raise DataError(
            f"{path} names {len(twice)} samples twice with different folds or groups: "
            f"{first_five(twice)}; keep one line of each"
        )
    return frame.reset_index(drop=True)


def _from_zero(path: Path, fold: pd.Series) -> pd.Series:
    """Count folds from 0; refuses gaps and fewer than two."""
    found = sorted(int(f) for f in fold[fold >= 0].unique())
    first = found[0] if found else 0
    if len(found) < 2 or first > 1 or found != list(range(first, first + len(found))):
        raise DataError(
            f"{path}: expected folds 0, 1, ... without a gap, got {first_five(found) or 'none'}; "
            "number them anew"
        )
    if first:
        log.info("%s: folds %d..%d are 0..%d here", path, first, found[-1], len(found) - 1)
    return fold.mask(fold >= 0, fold - first)


def _refuse_divided_groups(path: Path, fold: pd.Series, named: Named) -> None:
    """A patient in two folds makes every score too good."""
    group = pd.Series(group_of(named.images).to_numpy(), index=named.images["image_id"].to_numpy())
    used = fold[(fold >= 0) | (fold == HELD_OUT)]
    n_folds = used.groupby(group.loc[used.index].to_numpy()).nunique()
    divided = n_folds.index[n_folds > 1]
    if len(divided):
        raise DataError(
            f"{path}: {len(divided)} groups (patient, else lesion) lie in several folds: "
            f"{first_five(divided)}. Keep each in one fold, or leave split.file out."
        )


def _refuse_one_class(path: Path, fold: pd.Series, named: Named) -> None:
    """A fold of one class has no score."""
    target = named.rows.set_index("image_id")["target"].reindex(fold.index)
    n_classes = target.groupby(fold.to_numpy()).nunique()
    poor = [int(f) for f in n_classes.index[n_classes < 2] if f >= 0]
    if poor:
        raise DataError(
            f"{path}: every fold needs two classes, got one in fold {first_five(poor)}. "
            "Move groups between folds, or leave split.file out."
        )


def _groups(path: Path, frame: pd.DataFrame, named: Named, pairs: Pairs) -> pd.Series:
    """Each image's group, by image id: the archive's, the file's, and pairs within a fold."""
    sample = named.sample_of.reindex(named.images["image_id"])
    fold = sample.map(frame.set_index("image_id")["fold"])
    kept: list[tuple[str, str]] = []
    crossing: list[tuple[str, str]] = []
    for a, b in pairs:
        both = {f for i in (a, b) if (f := fold.get(i, NEVER)) >= 0 or f == HELD_OUT}
        (crossing if len(both) > 1 else kept).append((a, b))
    if crossing:
        log.warning(
            "%s: %d pairs of images that show the same lie in two folds, which makes scores too "
            "good: %s", path, len(crossing), first_five(f"{a} {b}" for a, b in crossing),
        )  # fmt: skip
    if "group" in frame:
        placed = frame.sort_values(["group", "image_id"])
        same = placed["group"].to_numpy()[1:] == placed["group"].to_numpy()[:-1]
        ids = placed["image_id"].to_numpy()
        kept += list(zip(ids[:-1][same], ids[1:][same], strict=True))
    group = group_of(named.images, kept).to_numpy()
    return pd.Series(group, index=named.images["image_id"].to_numpy(), name="group")


def _completed(
    path: Path, fold: pd.Series, group: pd.Series, named: Named, *, own: bool
) -> pd.Series:
    """Add external samples that others' files lack; who trains everywhere must not be held out."""
    ids = named.rows["image_id"].to_numpy()
    fixed = pd.Series(fixed_folds(named.rows).to_numpy(), index=ids)
    absent = fixed[~fixed.index.isin(fold.index)]
    external = absent[(absent == TRAINS) & (not own)]
    if len(absent) > len(external):
        log.warning(
            "%s names %d of %d training rows; others rest", path, len(fold), len(named.rows)
        )
    full = pd.concat([fold, external]).astype("int64").rename("fold")
    held_out = group.loc[full.index].isin(group.loc[full.index[full == HELD_OUT]])
    return pd.Series(full.mask(held_out.to_numpy() & (full == TRAINS).to_numpy(), NEVER))


def _same(frame: pd.DataFrame, full: pd.Series, group: pd.Series) -> bool:
    """Whether the file can be used as it is: its folds, and groups no finer than the archive's."""
    if len(frame) != len(full) or (frame["fold"].to_numpy() != full.to_numpy()).any():
        return False
    ours = group.loc[frame["image_id"]].to_numpy()
    return bool((frame.groupby(ours)["group"].nunique() == 1).all())
