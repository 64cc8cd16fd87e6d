"""ISIC 2024 as the ISIC Archive gives it: labels, metadata and diagnoses in three files.

Source: ISIC_2024_(Permissive_)Training_GroundTruth.csv (isic_id, malignant), metadata.csv in the
images' zip (patients and measurements) and ..._Training_Supplement.csv (diagnoses).
Unit: one row an image, in the order of the ground truth.
Trap: without metadata.csv no patient is known, and every image is its own group.
"""

from pathlib import Path

import pandas as pd

from isic.errors import DataError, first_five
from isic.index.isic2024_columns import TRAIN_ONLY, column_kinds
from isic.index.tables import Reading

TRUTH = "training_groundtruth.csv"
SUPPLEMENT = "training_supplement.csv"


def read_archive(reading: Reading) -> tuple[pd.DataFrame, str] | None:
    """The labels with everything that is known of each image, and the ground truth's name.

    None where there are no labels.

    Raises:
        DataError: More than one ground truth.
    """
    truths = _ending(reading, TRUTH)
    if not truths:
        return None
    if len(truths) > 1:
        raise DataError(
            f"{reading.root.absolute()} must hold one *Training_GroundTruth.csv, got "
            f"{first_five(p.name for p in truths)}; keep the one to train on"
        )
    truth = truths[0]
    rows = reading.csv(truth, {"isic_id": "text", "malignant": "label"}, id_column="isic_id")
    known = {c: kind for c, kind in column_kinds().items() if c != "target"}
    metadata = _metadata_of(reading)
    if metadata is None:
        reading.notes.append(
            "no metadata.csv of the images' zip: no patient is known, every image is its own group"
        )
    else:
        rows = _added(reading, rows, metadata, known, truth=truth, needed=True)
    for supplement in _ending(reading, SUPPLEMENT)[:1]:
        leaks = {c: kind for c, kind in known.items() if c in ("isic_id", *TRAIN_ONLY)}
        rows = _added(reading, rows, supplement, leaks, truth=truth, needed=False)
    return rows, truth.name


def _ending(reading: Reading, name: str) -> list[Path]:
    """The tables whose names end so, in upper or lower case."""
    return [path for lower, path in reading.tables.items() if lower.endswith(name)]


def _metadata_of(reading: Reading) -> Path | None:
    """The metadata beside the tables or beside the images, as the zip was unpacked."""
    if beside := reading.find("metadata.csv"):
        return beside
    places = ("*Training_Input/metadata.csv", "*Training_Input/*/metadata.csv")
    return next((path for place in places for path in sorted(reading.root.glob(place))), None)


def _added(
    reading: Reading,
    rows: pd.DataFrame,
    path: Path,
    known: dict[str, str],
    *,
    truth: Path,
    needed: bool,
) -> pd.DataFrame:
    """Add the columns that `rows` lacks, by id; rows of one file only are said.

    needed: Whether the file must know each row.
    """
    optional = [c for c in known if c != "isic_id"]
    more = reading.csv(path, known, id_column="isic_id", optional=optional)
    more = more[["isic_id", *(c for c in more if c not in rows)]]
    return reading.joined(rows, more, on="isic_id", names=(truth.name, path.name), needed=needed)
