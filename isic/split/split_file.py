"""The split as a file: `image_id,group,fold`, one line per labelled train row, sorted by id.

Every consumer reads this file, so that image models and stackers cannot disagree; its hash goes
into each checkpoint and predictions table.
Fold: 0..k-1; -1 = never used; -2 = trains in every fold and never validates.
Trap: with `fraction` below 1 the file holds the kept rows only, in the folds of the full split.
"""

import hashlib
from pathlib import Path

import pandas as pd

from isic.errors import DataError, first_five
from isic.runs import write_text
from isic.split.grouped import group_of

COLUMNS = ["image_id", "group", "fold"]


def split_path(
    runs_root: Path,
    *,
    archive: str,
    method: str,
    n_folds: int,
    seed: int,
    index_hash: str,
    fraction: float = 1.0,
) -> Path:
    """Say where a split lies: `splits/<archive>-<method>-k<k>-seed<s>-<hash>[-f0.1].csv`."""
    name = f"{archive}-{method}-k{n_folds}-seed{seed}-{index_hash[:6]}"
    if fraction < 1:
        name += f"-f{fraction:g}"
    return Path(runs_root) / "splits" / f"{name}.csv"


def write_split(path: Path, table: pd.DataFrame, fold: pd.Series) -> None:
    """Write the rows of `fold`, atomically: a reader sees the whole file or none."""
    rows = table.loc[fold.index]
    frame = pd.DataFrame(
        {"image_id": rows["image_id"], "group": group_of(rows), "fold": fold.astype("int64")}
    ).sort_values("image_id")
    write_text(Path(path), frame.to_csv(index=False, lineterminator="\n"))


def read_split(path: Path) -> pd.DataFrame:
    """Read `image_id, group` (str) and `fold` (int64). Raises DataError with what is wrong."""
    path = Path(path)
    if not path.is_file():
        raise DataError(f"no split file {path.absolute()}; check split.file, or leave it unset")
    try:
        frame = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except (ValueError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is not a split file: {error}") from error
    if missing := [c for c in COLUMNS if c not in frame]:
        raise DataError(
            f"{path} must hold the columns {', '.join(COLUMNS)}, lacks {', '.join(missing)}"
        )
    twice = frame["image_id"][frame["image_id"].duplicated()]
    if len(twice):
        raise DataError(f"{path} names {len(twice)} image_ids twice: {first_five(twice)}")
    fold = pd.to_numeric(frame["fold"], errors="coerce")
    bad = ~(fold >= -2) | (fold % 1 != 0)
    if bad.any():
        named = first_five(frame["image_id"][bad])
        raise DataError(f"{path}: fold must be 0, 1, ... (or -1, -2), got others at {named}")
    return frame[COLUMNS].assign(fold=fold.astype("int64"))


def split_hash(path: Path) -> str:
    """Return 12 hex digits over the file's bytes."""
    return hashlib.blake2b(Path(path).read_bytes(), digest_size=6).hexdigest()
