"""What an index is: one row per image, the same first columns for every archive.

Source: the contract of docs/design.md; each `isic/index/<archive>.py` fills it.
Row order is file order, train rows first; `target` is Int64 with <NA> where unlabelled, `age` is in
years, `image` is a path relative to the root, `file.hdf5#<id>`, or null where no source is there.
Trap: a column may be known for train rows only and give the label away; `refuse_train_only` is the
gate for every feature and metadata set.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from isic.errors import DataError, first_five
from isic.images.limits import MAX_PIXELS
from isic.images.sources import Sources, stat_files

LEADING = ("image_id", "lesion_id", "patient_id", "archive", "view", "diagnosis", "target")
USE = ("duplicate_of", "external", "parent_id", "weight", "pseudo")
TRAILING = ("age", "sex", "site", "attribution", "image", "split")
PLANNED = ("group", "fold", "status")  # what splits and predictions put beside these
# Ids become file names, HDF5 keys and CSV cells: nothing that any of them would read otherwise.
ID_PATTERN = r"[A-Za-z0-9_-]{1,64}"


@dataclass(frozen=True)
class DatasetInfo:
    """What later stages need to know of an archive; travels in checkpoints as plain types.

    row_unit: What is predicted and scored, `image` or `lesion`; the table has a row an image.
    views: Of a sample; the first one names it (`sample_rows`).
    download: Command that fetches the archive; DATA_ROOT stands for the folder.
    submission_classes: The class behind each submission column; empty = the classes themselves,
        or the last of two behind one column.
    view_columns: Columns that differ between the images of a lesion.
    vocabularies: Column -> the values that the organisers' files hold.
    published_counts: Rows, positives and so on as the organisers state them.
    train_only_columns: Columns that the test table lacks and that leak the label.
    """

    name: str
    classes: tuple[str, ...]
    task: str
    views: tuple[str, ...]
    row_unit: str
    id_column: str
    submission_columns: tuple[str, ...]
    official_metric: str
    license: str
    citation: str
    download: str
    published_counts: dict[str, int]
    train_only_columns: tuple[str, ...]
    submission_classes: tuple[str, ...] = ()
    view_columns: tuple[str, ...] = ()
    vocabularies: dict[str, list[str]] = field(default_factory=dict)

    @property
    def positive_class(self) -> str:
        """The class whose probability a binary submission holds: the last one."""
        return self.classes[-1]

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, dicts, strings and ints: safe for JSON and `weights_only=True`."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> "DatasetInfo":
        """The inverse of `to_dict`."""
        fields: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in plain.items()
        }
        return cls(**fields)


@dataclass
class Index:
    """An archive's table, what it is, and the folder that `table.image` is relative to.

    Optional columns say how a row may be used, in any archive: `duplicate_of` (image_id; the row is
    never used), `external` (trains in every fold, never validates), `parent_id` (image_id of the
    row that it was made from), `weight` (of its loss; 1.0 where absent) and `pseudo` (the run that
    gave the label; null where people did).
    mounts: Folders beside the root; `@name/path` in `table.image` lies in `mounts[name]`.
    notes: What a reader met that is no fault: rows left out, files not found.
    untrained: Where test rows are all there is: which train table is missing, which test table is
        there, and what to do; see `refuse_untrained`.
    max_pixels: Of an image; larger ones count as unreadable.
    ids: How spellings of one id were taken: `exact`, `normalised`, or None: there are none.
    unread: Column -> a sentence on cells in it that could not be read, null in the table; see
        `isic.index.unread_cells`.
    """

    table: pd.DataFrame
    info: DatasetInfo
    root: Path
    mounts: dict[str, Path] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    untrained: str = ""
    ids: str | None = None
    max_pixels: int = MAX_PIXELS
    unread: dict[str, str] = field(default_factory=dict)

    @property
    def sources(self) -> Sources:
        """Where the references of `table.image` lead."""
        return Sources(self.root, self.mounts, self.max_pixels)

    @property
    def folders(self) -> str:
        """Where images were looked for, for messages: the root, or the roots of merged archives."""
        places = [self.root] if self.root.is_dir() else [*self.mounts.values()]
        return first_five(places or [self.root])

    @property
    def download(self) -> str:
        """The command that fetches the archive to where it was looked for."""
        return self.info.download.replace("DATA_ROOT", str(self.root))


def standard_columns(info: DatasetInfo) -> tuple[str, ...]:
    """Return the columns every index starts with, in order."""
    return (*LEADING, *info.classes, *TRAILING)


def one_hot(target: pd.Series, classes: tuple[str, ...]) -> pd.DataFrame:
    """Spread Int64 `target` over float32 class columns, NaN where it is missing."""
    # Int64 has <NA>, numpy ints have nothing for it: NaN in float32 marks the unlabelled.
    code = target.astype("Float64").to_numpy(dtype=np.float32, na_value=np.nan)
    columns = {
        name: np.where(np.isnan(code), np.nan, code == i).astype(np.float32)
        for i, name in enumerate(classes)
    }
    return pd.DataFrame(columns, index=target.index)


def sample_rows(index: Index) -> pd.DataFrame:
    """One row a sample, in file order: the table itself, or a lesion with its views side by side.

    A lesion's row is that of its image in the first of `info.views` that it has. `image_<view>`
    holds the reference of each view, null where there is none; the columns of `info.view_columns`
    are spread in the same way.
    """
    table, info = index.table, index.info
    if info.row_unit == "image":
        return table
    rank = table["view"].map({view: i for i, view in enumerate(info.views)})
    named = table.assign(_rank=rank).sort_values("_rank", kind="stable")
    named = named.drop_duplicates("lesion_id").set_index("lesion_id", drop=False)
    samples = named.loc[table["lesion_id"].drop_duplicates()].drop(columns="_rank")
    samples = samples.drop(columns=[c for c in info.view_columns if c in samples])
    for view in info.views:
        rows = table[table["view"] == view].drop_duplicates("lesion_id").set_index("lesion_id")
        for column in ("image", *(c for c in info.view_columns if c in rows)):
            samples[f"{column}_{view}"] = rows[column].reindex(samples.index)
    return samples.reset_index(drop=True)


def index_hash(table: pd.DataFrame, *, external: bool = False) -> str:
    """Hash what decides a split: ids, targets, groups and use of the train rows, in any row order.

    Twelve hex digits. Other columns and test rows leave it as it is: they move no fold.

    external: Whether rows that were added to the archive's own count too.
    """
    train = table[table["split"] == "train"]
    if "external" in train and not external:
        train = train[~train["external"]]
    target = train["target"].astype("Int64").astype("string").fillna("")
    row = train["image_id"].astype("string") + "\x1f" + target
    # The separator is a control character: no id, patient or lesion can hold it by accident.
    for column in ("patient_id", "lesion_id", *(c for c in USE if c in train)):
        row += "\x1f" + train[column].astype("string").fillna("")
    return hashlib.blake2b("\n".join(sorted(row)).encode(), digest_size=6).hexdigest()


def archive_hash(index: Index) -> str:
    """Hash what a training depends on beyond its config: every row, and each image file's size.

    Twelve hex digits. A moved or copied archive keeps it; other rows or other images do not, such
    as the same archive at another resolution.
    """
    table = index.table
    refs = table["image"].astype("object").where(table["image"].notna(), None).tolist()
    sizes = sorted(f"{name}:{size}" for name, size, _ in stat_files(index.sources, refs))
    others = sorted(table.loc[table["split"] != "train", "image_id"].astype("string"))
    absent = sorted("-" + table.loc[table["image"].isna(), "image_id"].astype("string"))
    text = "\n".join([index_hash(table, external=True), *others, *absent, *sizes])
    return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()


def refuse_untrained(index: Index) -> None:
    """Raise DataError where the archive came without its train table."""
    if index.untrained:
        raise DataError(index.untrained)


def refuse_train_only(columns: Iterable[str], info: DatasetInfo) -> None:
    """Raise DataError if `columns`, meant as features, name one that gives the label away.

    Besides the archive's own, these are the standard columns made from the label.
    """
    leaks = {*info.train_only_columns, "target", "diagnosis", *info.classes}
    found = [c for c in columns if c in leaks]
    if found:
        raise DataError(
            f"features must be known for test rows too, got the train-only columns "
            f"{', '.join(found)} of {info.name}: they give the label away; remove them "
            f"(train-only: {', '.join(info.train_only_columns)})"
        )


def faults_of(table: pd.DataFrame, info: DatasetInfo) -> list[str]:
    """List what is wrong with an index, first five ids each; empty when it is sound."""
    ids, faults = table["image_id"], []
    # a lesion's id column names the submission's rows, not the table's
    named = info.id_column if info.row_unit == "image" else "image_id"
    # Nothing below can be said of a table that lacks its columns.
    if absent := [c for c in standard_columns(info) if c not in table]:
        return [f"the index lacks the columns {', '.join(absent)}"]
    if count := int(ids.isna().sum()):
        faults.append(f"{count} rows have no {named}")
    ids = ids[ids.notna()]
    twice = ids[ids.duplicated()].unique()
    if len(twice):
        faults.append(f"{len(twice)} duplicate {named}: {first_five(twice)}")
    bad = ids[~ids.str.fullmatch(ID_PATTERN)]
    if len(bad):
        quoted = first_five([repr(i) for i in bad])
        faults.append(f"{named} must match {ID_PATTERN}, got {len(bad)} others: {quoted}")
    target = table["target"]
    outside = (target.notna() & ~target.isin(range(len(info.classes)))).to_numpy()
    if outside.any():
        named = first_five(table["image_id"][outside])
        top = len(info.classes) - 1
        faults.append(f"target must be 0..{top}, got others in {int(outside.sum())} rows: {named}")
    return faults


def raise_faults(faults: list[str], *, where: str, next_step: str) -> None:
    """Raise one DataError that lists every fault; do nothing when there is none."""
    if faults:
        listed = "\n".join(f"  - {fault}" for fault in faults)
        raise DataError(f"{where} cannot be used:\n{listed}\n{next_step}")
