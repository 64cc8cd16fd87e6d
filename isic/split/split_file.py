"""The split as a file: `image_id,group,fold`, one line a labelled train sample, sorted by id.

Every consumer reads this file, so that image models and stackers cannot disagree; its hash goes
into each checkpoint and predictions table.
Fold: 0..k-1; -1 = never used; -2 = trains in every fold and never validates; an empty cell = held
out of everything, -3 in memory.
`<name>.csv.sha256` beside it says what was written, in the form of `sha256sum -c`.
Trap: with `fraction` below 1 the file holds the kept rows only, in the folds of the full split.
"""

import hashlib
from pathlib import Path

import pandas as pd

from isic.checksums import holds, sum_file
from isic.errors import DataError, first_five
from isic.files import write_summed
from isic.index.folder.read import read_cells as csv_cells

COLUMNS = ["image_id", "group", "fold"]
NEVER, TRAINS, HELD_OUT = -1, -2, -3


def split_path(
    runs_root: Path,
    *,
    archive: str,
    method: str,
    n_folds: int,
    seed: int | None,
    content: str,
    holdout: float = 0.0,
    fraction: float = 1.0,
) -> Path:
    """`splits/<archive>-<method>-k<k>-seed<s>-<content>[-h0.15][-f0.1].csv`.

    seed: None where none was used.
    content: Hash of what decides the folds; its first six digits are in the name.
    """
    dealt = "" if seed is None else f"-seed{seed}"
    name = f"{archive}-{method}-k{n_folds}{dealt}-{content[:6]}"
    if holdout > 0:
        name += f"-h{holdout:g}"
    if fraction < 1:
        name += f"-f{fraction:g}"
    return Path(runs_root) / "splits" / f"{name}.csv"


def write_split(path: Path, rows: pd.DataFrame, fold: pd.Series, group: pd.Series) -> None:
    """Write the rows of `fold`, atomically: a reader sees the whole file or none.

    rows, group: `image_id` and group name on index labels that include those of `fold`.
    """
    cell = fold.astype("int64").astype("string").mask(fold == HELD_OUT, "")
    frame = pd.DataFrame(
        {
            "image_id": rows.loc[fold.index, "image_id"],
            "group": group.loc[fold.index],
            "fold": cell,
        }
    ).sort_values("image_id")
    text = frame.to_csv(index=False, lineterminator="\n")
    write_summed(path, text)


def refuse_changed(path: Path, rows: pd.DataFrame, *, whole: bool = True) -> None:
    """Refuse a split file of our making that is not as it was made.

    One of an earlier version has no checksum; it must name the rows, and keep what belongs together
    in one fold.

    rows: The labelled train samples, `image_id` and what ties them together.
    whole: Whether the file names every one of them.

    Raises:
        DataError: What has changed, and how to use changed folds on purpose.
    """
    if sum_file(path).exists():
        if not holds(path):
            raise _changed(path, f"its checksum in {sum_file(path).name} differs")
        return
    split = read_split(path)
    known = split["image_id"].isin(rows["image_id"])
    if not known.all():
        strangers = split["image_id"][~known]
        raise _changed(path, f"{len(strangers)} rows are not of it: {first_five(strangers)}")
    absent = rows["image_id"][~rows["image_id"].isin(split["image_id"])] if whole else ()
    if len(absent):
        raise _changed(path, f"it lacks {len(absent)} rows: {first_five(absent)}")
    used = split[(split["fold"] >= 0) | (split["fold"] == HELD_OUT)]
    used = used.merge(rows, on="image_id", how="left")
    for column in ("group", "patient_id", "lesion_id"):
        if column in used:
            folds = used.groupby(column)["fold"].agg(["min", "max"])
            divided = folds.index[folds["min"] != folds["max"]]
            if len(divided):
                raise _changed(
                    path, f"{len(divided)} {column}s lie in several folds: {first_five(divided)}"
                )


def _changed(path: Path, what: str) -> DataError:
    return DataError(
        f"{path} has changed since it was made: {what}. Delete it to have it made again, or "
        f"restore it from a copy; to use changed folds on purpose, say split.file={path}"
    )


def read_cells(path: Path) -> pd.DataFrame:
    """A CSV's cells as text; Raises DataError where there is none or it is no table."""
    if not path.is_file():
        raise DataError(f"no split file {path.absolute()}; check split.file, or leave it unset")
    try:
        return csv_cells(path).astype(object)
    except DataError as error:
        raise DataError(f"not a split file: {error}") from error


def read_split(path: Path) -> pd.DataFrame:
    """Read `image_id, group` (str) and `fold` (int64). Raises DataError with what is wrong."""
    path = Path(path)
    frame = read_cells(path)
    if missing := [c for c in COLUMNS if c not in frame]:
        raise DataError(
            f"{path} must hold the columns {', '.join(COLUMNS)}, lacks {', '.join(missing)}; "
            "name other columns in split.columns={image_id: NAME, fold: NAME}"
        )
    twice = frame["image_id"][frame["image_id"].duplicated()]
    if len(twice):
        raise DataError(f"{path} names {len(twice)} image_ids twice: {first_five(twice)}")
    fold = parse_folds(frame["fold"], frame["image_id"], where=str(path))
    if (fold < HELD_OUT).any() or ((fold == HELD_OUT) & (frame["fold"] != "")).any():
        bad = (fold < TRAINS) & (frame["fold"] != "")
        raise _bad_fold(str(path), frame["fold"][bad], frame["image_id"][bad])
    return frame[COLUMNS].assign(fold=fold)


def parse_folds(cells: pd.Series, ids: pd.Series, *, where: str) -> pd.Series:
    """Whole numbers, as int64; an empty cell is HELD_OUT. Raises DataError for anything else."""
    cells = cells.str.strip()
    fold = pd.to_numeric(cells.mask(cells == "", str(HELD_OUT)), errors="coerce")
    bad = fold.isna() | (fold % 1 != 0)
    if bad.any():
        raise _bad_fold(where, cells[bad], ids[bad])
    return fold.astype("int64")


def _bad_fold(where: str, cells: pd.Series, ids: pd.Series) -> DataError:
    got = first_five(repr(c) for c in cells.unique())
    return DataError(
        f"{where}: fold must be 0, 1, ... (-1 = never used, -2 = trains in every fold, empty = "
        f"held out), got {got} in {len(ids)} rows: {first_five(ids)}; correct these cells"
    )


def split_hash(path: Path) -> str:
    """Return 12 hex digits over the file's bytes."""
    return hashlib.blake2b(Path(path).read_bytes(), digest_size=6).hexdigest()
