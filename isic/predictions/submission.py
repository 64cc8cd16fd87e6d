"""The file a challenge accepts, and the official checks on it before it is sent.

ISIC 2024 takes `isic_id,target` with target = P(malignant); a multi-class archive one column a
class. Every id of the sample submission once, in its order; finite numbers in [0, 1] written with
a decimal point (the live scorer refuses a column of bare 0 and 1).
A sample may head its ids `lesion` for `lesion_id` and end them in `.jpg`; ours are official.
The trap: NaN is refused, so an unreadable image gets the mean score of the readable ones, logged.
"""

import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import pandas as pd

from isic.errors import DataError, first_five
from isic.files import write_text
from isic.index.csv_rows import refuse_lost_rows
from isic.predictions.table import classes_of, prob_columns, with_fallback

log = logging.getLogger(__name__)

_SAMPLE = re.compile(r"sample[_-]?submission", re.IGNORECASE)
SAFE_ID = r"[A-Za-z0-9_-]{1,64}"  # as in the index: no path, no formula


# What to do about a sample submission that cannot be followed.
_MEND = "download it again, or move it away to submit in the order of the metadata"


class SubmissionFormat(Protocol):
    """What an archive's DatasetInfo says about its submissions."""

    @property
    def classes(self) -> Sequence[str]: ...
    @property
    def id_column(self) -> str: ...
    @property
    def submission_columns(self) -> Sequence[str]: ...
    @property
    def submission_classes(self) -> Sequence[str]: ...


def write_submission(
    path: Path | str,
    frame: pd.DataFrame,
    info: SubmissionFormat,
    sample: Path | str | pd.DataFrame | None = None,
) -> Path:
    """Write a submission whole or not at all, and validate the written file.

    Args:
        path: Target CSV.
        frame: Predictions of the test rows.
        info: The archive's columns and classes.
        sample: Official sample submission: its ids, in its order. None keeps the table's order.
    """
    if len({info.id_column, *info.submission_columns}) <= len(info.submission_columns):
        raise DataError(
            f"submission columns must differ, and none be the column of ids, got {info.id_column}, "
            f"{', '.join(info.submission_columns)}; rename the class"
        )
    ids = _ids(frame, info)
    table = with_fallback(frame).set_index(ids)
    if sample is not None:
        wanted = sample_ids(sample, info)
        _check_ids(ids, wanted, "predictions", ordered=False)
        table = table.loc[wanted]
    out = pd.DataFrame({info.id_column: table.index})
    for column, source in zip(info.submission_columns, _sources(frame, info), strict=True):
        out[column] = table[source].to_numpy(dtype=np.float64)  # float64: shortest exact digits
    path = Path(path)
    _check(out.astype(str), info, list(table.index), str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, out.to_csv(index=False, lineterminator="\n"))
    return path


def validate_submission(
    path: Path | str, info: SubmissionFormat, *, sample: Path | str | pd.DataFrame | None = None
) -> None:
    """Refuse what the official scorers refuse; all faults of a file in one DataError."""
    path = Path(path)
    if not path.exists():
        raise DataError(f"no submission at {path}")
    table = _officially_named(_cells(path), info)
    _check(table, info, None if sample is None else sample_ids(sample, info), str(path))


def sample_ids(sample: Path | str | pd.DataFrame, info: SubmissionFormat) -> list[str]:
    """Ids of an official sample submission, in its order.

    Raises:
        DataError: Names the file: no CSV, no rows, other columns, ids that are none or come twice.
    """
    table = sample if isinstance(sample, pd.DataFrame) else _cells(Path(sample))
    where = "the sample submission" if isinstance(sample, pd.DataFrame) else str(sample)
    table = _officially_named(table, info)
    columns = [info.id_column, *info.submission_columns]
    given = sorted(map(str, table.columns))
    if given not in (sorted(columns), [info.id_column]):  # the ids alone say all that is used
        raise DataError(f"{where}: expected columns {columns}, got {list(table.columns)}; {_MEND}")
    if table.empty:
        raise DataError(f"{where} has a header but no rows; {_MEND}")
    ids = table[info.id_column].astype(str).str.strip().str.replace(r"(?i)\.jpg$", "", regex=True)
    try:
        _check_ids(pd.Index(ids), None, where)
    except DataError as error:
        raise DataError(f"{error}; {_MEND}") from None
    return ids.tolist()


def find_sample(root: Path | str) -> Path | None:
    """The sample submission of an archive's folder, whatever the challenge called it.

    Raises:
        DataError: Several of them.
    """
    found = [p for p in Path(root).glob("*.csv") if _SAMPLE.search(p.name) and p.is_file()]
    if len(found) > 1:
        named = first_five(sorted(p.name for p in found))
        raise DataError(f"{root} must hold one sample submission, got {named}; keep one of them")
    return found[0] if found else None


def _cells(path: Path) -> pd.DataFrame:
    """The cells of a submission as text. Raises DataError for one that cannot be read whole."""
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        refuse_lost_rows(path)
        raise DataError(f"{path} is not a readable CSV: {error}") from error
    refuse_lost_rows(path, len(table) + 1)
    return table


def _officially_named(table: pd.DataFrame, info: SubmissionFormat) -> pd.DataFrame:
    """`lesion` and `lesion_id` are the same column to the official scorer of MILK10k."""
    if info.id_column in table.columns:  # then `lesion` is a class
        return table
    return table.rename(columns={info.id_column.removesuffix("_id"): info.id_column})


def _ids(frame: pd.DataFrame, info: SubmissionFormat) -> pd.Index:
    source = "lesion_id" if info.id_column == "lesion_id" else "image_id"
    return pd.Index(frame[source].astype(str))


def _sources(frame: pd.DataFrame, info: SubmissionFormat) -> list[str]:
    """Probability column behind each submission column, as `submission_classes` says.

    Where it says nothing: the classes themselves, or the last of two behind a single column.
    """
    classes = tuple(info.classes)
    if classes_of(frame) != classes:
        raise DataError(f"predictions have classes {classes_of(frame)}, the archive {classes}")
    names = prob_columns(info.submission_classes or classes)
    if info.submission_classes and not set(info.submission_classes) <= set(classes):
        raise DataError(f"submission_classes {info.submission_classes} are not among {classes}")
    if len(info.submission_columns) == 1 and len(names) == 2:
        return names[1:]
    if len(info.submission_columns) != len(names):
        raise DataError(
            f"{len(info.submission_columns)} submission columns "
            f"{list(info.submission_columns)} for {len(names)} classes {names}"
        )
    return names


def _check(
    table: pd.DataFrame, info: SubmissionFormat, wanted: Sequence[str] | None, where: str
) -> None:
    """Check a submission read as text: columns, ids, order, numbers."""
    columns = [info.id_column, *info.submission_columns]
    if list(table.columns) != columns:
        raise DataError(f"{where}: expected columns {columns}, got {list(table.columns)}")
    ids = pd.Index(table[info.id_column])
    _check_ids(ids, wanted, where)
    faults = []
    for column in info.submission_columns:
        text = table[column]
        value = pd.to_numeric(text, errors="coerce")
        rows = {
            "is not a number": value.isna() & ~text.str.lower().isin(["", "nan"]),
            "is missing": value.isna() & text.str.lower().isin(["", "nan"]),
            "is outside [0, 1]": (value < 0) | (value > 1),
        }
        faults += [
            f"{column} {fault} in {int(bad.sum())} rows: {first_five(ids[bad])}"
            for fault, bad in rows.items()
            if bad.any()
        ]
        if len(text) and text.str.fullmatch(r"[+-]?\d+").all():
            faults.append(f"{column} holds whole numbers only: write 0.0 and 1.0")
    if faults:
        raise DataError(f"{where}: " + "; ".join(faults))


def _check_ids(
    ids: pd.Index, wanted: Sequence[str] | None, where: str, *, ordered: bool = True
) -> None:
    """Ids safe and unique; and those wanted, in that order."""
    safe = ids.str.fullmatch(SAFE_ID)
    faults = {
        "not an id (letters, digits, _ and -)": ids[~safe.astype(bool)],
        "twice": ids[ids.duplicated()].unique(),
    }
    if wanted is not None:
        expected = pd.Index(wanted)
        faults["missing"] = expected.difference(ids, sort=False)
        faults["not asked for"] = ids.difference(expected, sort=False)
    said = [f"{len(bad)} ids {f}: {first_five(bad)}" for f, bad in faults.items() if len(bad)]
    if said:
        raise DataError(f"{where}: " + "; ".join(said))
    if wanted is not None and ordered and list(ids) != list(wanted):
        first = next(i for i, (a, b) in enumerate(zip(ids, wanted, strict=True)) if a != b)
        raise DataError(
            f"{where}: ids are in another order than the sample submission, "
            f"first in row {first + 1}: expected {wanted[first]}, got {ids[first]}"
        )
