"""Predictions as parquet files, and the folds of a model put together.

A file is one table (`isic.predictions.table`) with run, index hash, split hash, split file, classes
and whether its numbers are ranks in its metadata; they come back in `frame.attrs`.
`assemble_oof` returns one out-of-fold prediction for every row of the split file (columns
`image_id, group, fold`), which is the judge: it must still have the hash the predictions were made
with, and says which rows must be there. Rows with a negative fold never validate.
The trap: a fold missing, or trained on another split, leaves a table that looks whole, so gaps,
overlaps and moved rows are refused instead of joined as far as they fit.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from isic.checksums import BLANK, Damaged, check, fill_in
from isic.errors import DataError, first_five
from isic.files import whole_file
from isic.predictions.table import (
    COLUMNS,
    ENERGY,
    TARGET,
    check_predictions,
    classes_of,
    image_columns,
    prob_columns,
)

METADATA = b"isic"  # key of the parquet file's metadata, JSON inside
DAMAGED = (
    "restore it from a copy, or delete it with the score.json beside it and give the command again "
    "that wrote it"
)
TEXT = ("image_id", "lesion_id", "split", "status")


def write_predictions(
    path: Path | str,
    frame: pd.DataFrame,
    *,
    run: str,
    index_hash: str,
    split_hash: str,
    split_file: Path | str | None = None,
    ranks: bool = False,
) -> Path:
    """Check and write a predictions table whole or not at all; return its path.

    ranks: The numbers are ranks within these rows: right in their order, no probabilities.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    check_predictions(frame)
    classes = classes_of(frame)
    numbers = [*prob_columns(classes), *([ENERGY] if ENERGY in frame else [])]
    images, target = image_columns(frame), [TARGET] if TARGET in frame else []
    plain = frame[[*COLUMNS, *images, *target, *numbers]].astype(
        {
            **dict.fromkeys([*TEXT, *images], "string"),
            **dict.fromkeys(["fold", *target], "Int64"),
            **dict.fromkeys(numbers, "float64"),
        }
    )
    about = {
        "run": run,
        "index_hash": index_hash,
        "split_hash": split_hash,
        "split_file": None if split_file is None else str(split_file),
        "classes": classes,
        "ranks": ranks,
    }
    table = pa.Table.from_pandas(plain, preserve_index=False)
    table = table.replace_schema_metadata(
        {METADATA: json.dumps(about).encode(), b"checksum": BLANK.encode()}
    )
    path = Path(path)
    with whole_file(path) as file:
        pq.write_table(table, file, compression="zstd")
        fill_in(file)
    return path


def read_predictions(path: Path | str) -> pd.DataFrame:
    """Read a predictions table; run, hashes, split file and classes are in `frame.attrs`."""
    import pyarrow.parquet as pq

    path = Path(path)
    if not path.exists():
        raise DataError(f"no predictions at {path}; finish the run that writes them first")
    try:
        check(path, mend=DAMAGED)
        table = pq.read_table(path)
    except Damaged:
        raise
    except (OSError, ValueError) as fault:
        raise DataError(f"{path} is no readable parquet file ({fault}); write it again") from fault
    stored = (table.schema.metadata or {}).get(METADATA)
    if stored is None:
        raise DataError(f"{path} is no predictions file: its metadata has no 'isic' entry")
    frame: pd.DataFrame = table.to_pandas()
    frame = frame.astype({c: "Int64" for c in ("fold", TARGET) if c in frame})
    about = json.loads(stored)
    frame.attrs = {**about, "classes": tuple(about["classes"]), "path": str(path)}
    return frame


def oof_files(runs: Path | str | Sequence[Path | str]) -> list[Path]:
    """Find `oof.parquet` of fold folders; a run's folder stands for all its folds."""
    given = [runs] if isinstance(runs, str | Path) else list(runs)
    found: list[Path] = []
    for entry in map(Path, given):
        # a run's own oof.parquet is what this makes: its folds come first
        files = [entry] if entry.suffix == ".parquet" else sorted(entry.glob("fold*/oof.parquet"))
        files = files or [f for f in (entry / "oof.parquet",) if f.exists()]
        if not files:
            raise DataError(
                f"no out-of-fold predictions in {entry}: expected oof.parquet there "
                "or in its fold<k> folders; finish those runs first"
            )
        found.extend(files)
    return found


def assemble_oof(runs: Path | str | Sequence[Path | str]) -> pd.DataFrame:
    """Join the out-of-fold predictions of a run's folds, in the order of the split file.

    Args:
        runs: Fold folders or their `oof.parquet`, or one run's folder.

    Raises:
        DataError: Gaps, overlaps, another split, archive or set of classes, moved rows; names
            every fault with its first five ids.
    """
    frames = [read_predictions(path) for path in oof_files(runs)]
    _same("split_hash", frames, "they come from different splits and cannot be joined")
    _same("index_hash", frames, "they come from different archives")
    _same("classes", frames, "they have different classes")
    split = _split_of(frames[0])
    joined = pd.concat([f.assign(_file=f.attrs["path"]) for f in frames], ignore_index=True)
    _check_against(split, joined)
    joined = joined.drop(columns="_file").set_index("image_id")
    ordered = joined.loc[split["image_id"]].reset_index()
    names = dict.fromkeys(f.attrs["run"] for f in frames)
    ordered.attrs = {**frames[0].attrs, "run": ", ".join(names), "path": None}
    return ordered


def _same(key: str, frames: Sequence[pd.DataFrame], meaning: str) -> None:
    """Refuse files whose metadata differ in `key`."""
    found = {f.attrs["path"]: f.attrs[key] for f in frames}
    if len(set(found.values())) > 1:
        listed = "; ".join(f"{path}: {value}" for path, value in found.items())
        raise DataError(
            f"{key} differs between predictions, so {meaning}: {listed}. "
            "Train the folds again from one split file."
        )


def _split_of(frame: pd.DataFrame) -> pd.DataFrame:
    """Read the split file that a predictions file names; only rows that validate."""
    from isic.split.split_file import read_split, split_hash

    path = _find_split(frame.attrs["split_file"], Path(frame.attrs["path"]))
    if split_hash(path) != frame.attrs["split_hash"]:
        raise DataError(
            f"{path} has hash {split_hash(path)}, the predictions were made with "
            f"{frame.attrs['split_hash']}: the split changed since; train again."
        )
    split: pd.DataFrame = read_split(path)
    return split.loc[split["fold"] >= 0]


def _find_split(named: str | None, predictions: Path) -> Path:
    """Find the split file where it was, or in `splits/` above a runs folder that has moved."""
    if named is None:
        raise DataError(f"{predictions} names no split file; write it with split_file=")
    moved = [folder / "splits" / Path(named).name for folder in predictions.absolute().parents]
    for path in (Path(named), *moved):
        if path.exists():
            return path
    raise DataError(
        f"the split file {named} of {predictions} is gone, and no splits/ folder "
        "above it holds one of that name; restore it from a copy, or train again."
    )


def _check_against(split: pd.DataFrame, joined: pd.DataFrame) -> None:
    """Refuse overlaps, strangers, gaps and moved rows; all faults in one message."""
    fold_of = split.set_index("image_id")["fold"]
    ids, faults = joined["image_id"], []
    twice = joined[ids.duplicated(keep=False)]
    if len(twice):
        files = ", ".join(dict.fromkeys(twice["_file"]))
        faults.append(
            f"{twice['image_id'].nunique()} rows predicted twice "
            f"({first_five(twice['image_id'].unique())}) in {files}"
        )
    known = ids.isin(fold_of.index)
    if not known.all():
        faults.append(f"{int((~known).sum())} rows are not in the split: {first_five(ids[~known])}")
    placed = joined[known]
    wanted = fold_of.reindex(placed["image_id"]).to_numpy()
    moved = placed[placed["fold"].fillna(-1).to_numpy() != wanted]
    if len(moved):
        faults.append(
            f"{len(moved)} rows have another fold than in the split: "
            f"{first_five(moved['image_id'])}"
        )
    gaps = fold_of[~fold_of.index.isin(ids)]
    if len(gaps):
        folds = ", ".join(map(str, sorted(gaps.unique())))
        faults.append(
            f"{len(gaps)} rows have no prediction, all of fold {folds}: "
            f"{first_five(gaps.index)}; train fold={folds} first"
        )
    if faults:
        raise DataError("out-of-fold predictions do not fit the split: " + "; ".join(faults))
