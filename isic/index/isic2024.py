"""ISIC 2024 (SLICE-3D, doi 10.34970/2024-slice-3d): lesion crops from 3D total-body photographs.

Licence: per row CC-0, CC-BY or CC-BY-NC. Published: 401,059 images, 393 malignant, 1,042 patients.
Row unit: image. Tiles are square, 61-239 px, 15 mm field of view. Two layouts are read:
  Kaggle    train-metadata.csv (55 columns)
  archive   any *Training_GroundTruth.csv (isic_id, malignant), with metadata.csv and the supplement
            where they are (`isic2024_archive`)
Images lie in HDF5 files or anywhere as loose files (`isic2024_images`).
Test files (test-metadata.csv, 44 columns) are found independently of the train layout.
Trap: 11 columns exist for train rows only (`TRAIN_ONLY`) and give the label away.
"""

from pathlib import Path

import pandas as pd

from isic.index.image_files import Folders
from isic.index.isic2024_archive import read_archive
from isic.index.isic2024_columns import TRAIN_ONLY, column_kinds
from isic.index.isic2024_images import image_references
from isic.index.raw_csv import parse_binary
from isic.index.schema import DatasetInfo, Index
from isic.index.sites import SOURCES
from isic.index.table_files import no_table
from isic.index.tables import NO_ROWS, Reading

LOCATIONS = [
    "Torso Back",
    "Torso Front",
    "Left Leg",
    "Right Leg",
    "Left Arm",
    "Right Arm",
    "Head & Neck",
    "Unknown",
]
# The label goes behind the others when it has been read.
TRAIN = {**{c: kind for c, kind in column_kinds().items() if c != "target"}, "target": "code"}
RENAMED = {"isic_id": "image_id", "age_approx": "age", "anatom_site_general": "site"}

INFO = DatasetInfo(
    name="isic2024",
    classes=("benign", "malignant"),
    task="binary",
    views=("tbp",),
    row_unit="image",
    id_column="isic_id",
    submission_columns=("target",),
    official_metric="pauc",
    license="per image: CC-0, CC-BY or CC-BY-NC (column copyright_license)",
    citation="International Skin Imaging Collaboration. SLICE-3D 2024 Challenge Dataset. "
    "https://doi.org/10.34970/2024-slice-3d",
    download="kaggle competitions download -c isic-2024-challenge "
    "&& unzip isic-2024-challenge.zip -d DATA_ROOT  "
    "# page: https://www.kaggle.com/competitions/isic-2024-challenge, or "
    "https://challenge.isic-archive.com/data/#2024",
    published_counts={"train": 401059, "benign": 400666, "malignant": 393, "patients": 1042},
    train_only_columns=TRAIN_ONLY,
    vocabularies={
        "sex": ["female", "male"],
        "site": list(SOURCES["isic2024"]),
        "tbp_tile_type": ["3D: XP", "3D: white"],
        "tbp_lv_location_simple": LOCATIONS,
        "copyright_license": ["CC-0", "CC-BY", "CC-BY-NC"],
        "iddx_1": ["Benign", "Indeterminate", "Malignant"],
    },
)


def build_index(root: Path, *, images: Folders = None, ids: str | None = None) -> Index:
    """Read the tables below `root`; never opens an image and needs none.

    images: The only HDF5 file or folder to look for images in, or several, relative to the root;
        None looks everywhere.
    ids: See `isic.index.id_spellings`.

    Raises:
        DataError: No folder or table (with the download command), or the list of all faults.
    """
    reading = Reading(INFO, root, ids)
    rows = reading.in_splits(_train, _test, renamed=RENAMED, columns=TRAIN)
    if "iddx_full" in rows:
        rows["diagnosis"] = rows["iddx_full"]
    refs, notes = image_references(reading.root, rows, images=images)
    reading.notes += notes
    return reading.finish(rows, refs)


def _train(reading: Reading) -> pd.DataFrame:
    """The train rows of either layout; Kaggle's wins where both are there."""
    kaggle = reading.find("train-metadata.csv")
    if kaggle is not None:
        rows = reading.csv(kaggle, column_kinds(), id_column="isic_id")
        return _labelled(reading, rows, "target", what=kaggle.name)
    archive = read_archive(reading)
    if archive is None:
        names = ("train-metadata.csv", "*Training_GroundTruth.csv")
        raise no_table(INFO, reading.root, names)
    rows, name = archive
    return _labelled(reading, rows, "malignant", what=name)


def _test(reading: Reading) -> pd.DataFrame:
    """The test rows, if any; a labelled table (a hold-out in the same layout) is fine."""
    path = reading.find("test-metadata.csv")
    if path is None:
        return NO_ROWS
    rows = reading.csv(path, column_kinds(), id_column="isic_id", optional=TRAIN_ONLY)
    return _labelled(reading, rows, "target", what=path.name, test=True)


def _labelled(
    reading: Reading, rows: pd.DataFrame, column: str, *, what: str, test: bool = False
) -> pd.DataFrame:
    """Rows with `target` from the column of labels, <NA> where there is none.

    test: Whether rows without a label are fine; in training each must have one.
    """
    if column not in rows:
        return rows.assign(target=pd.Series(pd.NA, index=rows.index, dtype="Int64"))
    target, faults = parse_binary(rows[column], rows["isic_id"], what=f"{what}: {column}")
    reading.faults += [f for f in faults if not test or "is empty" not in f]
    return rows.drop(columns=column).assign(target=target)
