"""ISIC 2024 as the ISIC Archive gives it: labels, metadata and diagnoses in three files.

Source: ISIC_2024_(Permissive_)Training_GroundTruth.csv (isic_id, malignant), metadata.csv in the
images' zip (patients and measurements) and ..._Training_Supplement.csv (diagnoses).
Unit: one Arrow row an image, in the order of the ground truth; 401,059 rows in about two seconds.
Trap: without metadata.csv no patient is known, and every image is its own group.
"""

from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from isic.errors import DataError, first_five
from isic.index.isic2024_columns import TRAIN_ONLY, column_kinds
from isic.index.raw_csv import RawTable, read_csv


def read_archive(root: Path) -> RawTable | None:
    """The labels with everything that is known of each image; None where there are no labels.

    Raises:
        DataError: More than one ground truth.
    """
    truths = sorted(root.glob("*Training_GroundTruth.csv"))
    if not truths:
        return None
    if len(truths) > 1:
        raise DataError(
            f"{root.absolute()} must hold one *Training_GroundTruth.csv, got "
            f"{first_five(p.name for p in truths)}; keep the one to train on"
        )
    kinds = {"isic_id": "text", "malignant": "label"}
    raw = read_csv(truths[0], columns=kinds, id_column="isic_id")
    known = {c: kind for c, kind in column_kinds().items() if c != "target"}
    metadata = _metadata_of(root)
    if metadata is None:
        raw.notes.append(
            "no metadata.csv of the images' zip: no patient is known, every image is its own group"
        )
    else:
        _add(raw, _read(metadata, known), complete=True)
    for supplement in sorted(root.glob("*Training_Supplement.csv"))[:1]:
        leaks = {c: kind for c, kind in known.items() if c in ("isic_id", *TRAIN_ONLY)}
        _add(raw, _read(supplement, leaks), complete=False)
    return raw


def _metadata_of(root: Path) -> Path | None:
    """The metadata beside the tables or beside the images, as the zip was unpacked."""
    places = ("metadata.csv", "*Training_Input/metadata.csv", "*Training_Input/*/metadata.csv")
    return next((path for place in places for path in sorted(root.glob(place))), None)


def _read(path: Path, known: dict[str, str]) -> RawTable:
    """All columns that are there and known; the others are noted."""
    optional = [c for c in known if c != "isic_id"]
    return read_csv(path, columns=known, id_column="isic_id", optional=optional, refuse_extra=False)


def _add(raw: RawTable, more: RawTable, *, complete: bool) -> None:
    """Add the columns of `more` that `raw` lacks, by id; rows of one only are said.

    complete: Whether each row of `raw` must be in `more`.
    """
    ids, others = raw.table.column("isic_id"), more.table.column("isic_id")
    place = pc.index_in(ids, value_set=others)
    if place.null_count:
        lacking = pc.filter(ids, pc.is_null(place)).to_pylist()
        said = (
            f"{more.path.name}: lacks {len(lacking)} of the {len(ids)} ids of {raw.path.name}: "
            f"{first_five(lacking)}"
        )
        (raw.faults if complete else raw.notes).append(said)
    spare = len(others) - (len(ids) - place.null_count)
    if spare > 0:
        raw.notes.append(
            f"{more.path.name}: {spare} rows that {raw.path.name} does not name are left out"
        )
    columns: Any = more.table.take(place)
    for name in (c for c in columns.column_names if not raw.has(c)):
        raw.table = raw.table.append_column(name, columns.column(name))
    raw.faults += more.faults
    raw.notes += more.notes
