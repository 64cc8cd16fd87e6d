"""SIIM-ISIC 2020 (doi 10.34970/2020-ds01): dermoscopic images with patients, 1.8 % melanoma.

Licence: CC-BY-NC 4.0. Published: 33,126 train images of 2,056 patients, 584 melanomas; 10,982 test
images. Row unit: image. Tables: train.csv or ISIC_2020_Training_GroundTruth(_v2).csv (v2 adds
lesion_id and is used for it beside the others), test.csv or ISIC_2020_Test_Metadata.csv,
ISIC_2020_Training_Duplicates.csv (425 pairs: the second image is marked `duplicate_of` the first).
Images, found by id below the root: JPEG in any folder, as in the official zips and the reduced sets
`jpeg-melanoma-<side>x<side>`; DICOM where there is no JPEG, whose tags fill empty cells of
patient, age, sex and site (`isic2020_tags`); TFRecords where there is neither.
Targets: `malignant` (the challenge's) or `diagnosis` (the nine classes of ISIC 2019, as the winner
trained, arXiv 2010.05351).
Trap: 27,124 of the benign have no diagnosis, `unknown`, which is UNK here though most are nevi.
Trap: of the 425 pairs 8 are two lesions by v2, which knows 8 other lesions with two images.
Trap: TFRecords code their columns as integers; only their image_name is trusted.
"""

from collections.abc import Collection
from dataclasses import replace
from functools import partial
from pathlib import Path

import pandas as pd

from isic.errors import ConfigError, first_five
from isic.index.diagnosis import shared_class
from isic.index.image_files import Folders
from isic.index.isic2019 import CLASSES
from isic.index.isic2020_pairs import duplicates
from isic.index.isic2020_tags import filled_from_tags
from isic.index.raw_csv import parse_binary
from isic.index.schema import DatasetInfo, Index
from isic.index.sites import SOURCES
from isic.index.tables import NO_ROWS, Reading, not_of

# Raw values of train.csv, by frequency -> class, as the winner mapped them.
DIAGNOSES = {
    raw: shared_class("isic2020", raw)
    for raw in (
        "unknown",
        "nevus",
        "melanoma",
        "seborrheic keratosis",
        "lentigo NOS",
        "lichenoid keratosis",
        "solar lentigo",
        "cafe-au-lait macule",
        "atypical melanocytic proliferation",
    )
}

_URL = "https://isic-archive.s3.amazonaws.com/challenges/2020"
_FILES = (
    "Training_JPEG.zip Training_GroundTruth.csv Training_GroundTruth_v2.csv "
    "Training_Duplicates.csv Test_JPEG.zip Test_Metadata.csv"
)

INFO = DatasetInfo(
    name="isic2020",
    classes=("benign", "malignant"),
    task="binary",
    views=("dermoscopic",),
    row_unit="image",
    id_column="image_name",
    submission_columns=("target",),
    official_metric="auc",
    license="CC-BY-NC 4.0",
    citation="International Skin Imaging Collaboration. SIIM-ISIC 2020 Challenge Dataset. "
    "https://doi.org/10.34970/2020-ds01",
    download=f"mkdir -p DATA_ROOT && cd DATA_ROOT && for f in {_FILES}; "
    f"do curl -fLO {_URL}/ISIC_2020_$f; done && unzip '*.zip'  "
    "# page: https://challenge.isic-archive.com/data/#2020; or kaggle competitions download "
    "-c siim-isic-melanoma-classification",
    published_counts={
        "train": 33126,
        "test": 10982,
        "benign": 33126 - 584,
        "malignant": 584,
        "patients": 2056,
        "lesions": 32701,
        "images": 33126 + 10982,
    },
    train_only_columns=("lesion_id", "benign_malignant", "duplicate_of", "tfrecord"),
    vocabularies={
        "sex": ["female", "male"],
        "site": list(SOURCES["isic2020"]),
        "diagnosis": list(DIAGNOSES),
    },
)
DIAGNOSIS_INFO = replace(
    INFO,
    classes=CLASSES,
    task="multiclass",
    submission_classes=("MEL",),
    published_counts={
        **{k: v for k, v in INFO.published_counts.items() if k not in INFO.classes},
        **dict.fromkeys(CLASSES, 0),
        "MEL": 584,
        "NV": 5193,
        "BKL": 135 + 44 + 37 + 7,
        "UNK": 27124 + 1 + 1,
    },
)
INFOS = {"malignant": INFO, "diagnosis": DIAGNOSIS_INFO}

TEST = {
    "image_name": "text",
    "patient_id": "text",
    "sex": "text",
    "age_approx": "number",
    "anatom_site_general_challenge": "text",
}
LABELS = {"diagnosis": "text", "benign_malignant": "text", "target": "label"}
TRAIN = {**TEST, **LABELS, "target": "code", "lesion_id": "text", "duplicate_of": "text"}
# Of v2, and of the reduced sets.
EXTRA = {
    "lesion_id": "text",
    "tfrecord": "number",
    "width": "number",
    "height": "number",
    "patient_code": "number",
}
# ISIC_2020_Test_Metadata.csv, the archive's own test table, has other names than Kaggle's test.csv.
ALIASES = {
    "image": "image_name",
    "patient": "patient_id",
    "anatom_site_general": "anatom_site_general_challenge",
}
RENAMED = {
    "image_name": "image_id",
    "age_approx": "age",
    "anatom_site_general_challenge": "site",
}
OFFICIAL = (
    "jpeg/train",
    "jpeg/test",
    "ISIC_2020_Training_JPEG",
    "ISIC_2020_Test_JPEG",
    "ISIC_2020_Test_Input",
    "train",
    "test",
)


def build_index(
    root: Path, *, target: str = "malignant", images: Folders = None, ids: str | None = None
) -> Index:
    """Read the tables below `root`; never decodes an image and needs none.

    target: `malignant` (two classes) or `diagnosis` (nine).
    images: The only folder (or a list) to look in for images, relative to the root; None: all.
    ids: See `isic.index.id_spellings`.

    Raises:
        ConfigError: `target` is neither.
        DataError: No folder or table (with the download command), or the list of all faults.
    """
    if target not in INFOS:
        raise ConfigError(f"data.index.target: expected {' or '.join(INFOS)}, got {target!r}")
    reading = Reading(INFOS[target], root, ids)
    train, test = partial(_train, target=target), partial(_test, target=target)
    rows = reading.in_splits(train, test, renamed=RENAMED, columns=TRAIN)
    refs = reading.images_of(rows["image_id"], official=OFFICIAL, within=images)
    rows, notes = filled_from_tags(reading.root, rows, refs)
    reading.notes += notes
    rows["patient_id"] = reading.spellings.take("patient_id", rows["patient_id"])  # of the tags
    return reading.finish(rows, refs)


def _train(reading: Reading, target: str) -> pd.DataFrame:
    """The train rows of whichever table is there, with target, lesions and duplicates."""
    lesions = reading.find("ISIC_2020_Training_GroundTruth_v2.csv")
    plain = reading.find("train.csv", "ISIC_2020_Training_GroundTruth.csv")
    path = plain or lesions or reading.require("train.csv", "ISIC_2020_Training_GroundTruth.csv")
    columns = {**TEST, **LABELS, **EXTRA}
    rows = _read(reading, path, columns)
    if lesions is not None and path is not lesions:
        more = _read(reading, lesions, columns).reindex(columns=["image_name", "lesion_id"])
        rows = rows.drop(columns="lesion_id", errors="ignore")
        names = (path.name, lesions.name)
        # Folds go by patient, so that a lesion that is not known costs nothing.
        rows = reading.joined(rows, more, on="image_name", names=names, needed=False)
    rows = _labelled(reading, rows, path.name, target)
    return rows.assign(duplicate_of=duplicates(reading, rows))


def _labelled(reading: Reading, rows: pd.DataFrame, name: str, target: str) -> pd.DataFrame:
    """Rows with the chosen target; the binary one and the diagnosis must agree on melanoma."""
    ids = rows["image_name"]
    binary, faults = parse_binary(rows["target"], ids, what=f"{name}: target")
    reading.faults += faults + not_of(rows["diagnosis"], DIAGNOSES, ids, what=name)
    melanoma = (rows["diagnosis"] == "melanoma").astype("Int64")
    unlike = (binary != melanoma).fillna(False).to_numpy(dtype=bool)
    if unlike.any():
        reading.faults.append(
            f"{name}: target must be 1 where diagnosis is melanoma and only there, got otherwise "
            f"in {int(unlike.sum())} rows: {first_five(ids[unlike])}"
        )
    code = {raw: CLASSES.index(c) for raw, c in DIAGNOSES.items()}
    chosen = rows["diagnosis"].map(code).astype("Int64") if target == "diagnosis" else binary
    patient = rows["patient_id"].mask(rows["patient_id"] == "-1")  # -1: not known
    return rows.assign(target=chosen, patient_id=patient)


def _test(reading: Reading, target: str) -> pd.DataFrame:
    """The test rows, labelled where the file is; none where there is no file of them."""
    path = reading.find("test.csv", "ISIC_2020_Test_Metadata.csv")
    if path is None:
        return NO_ROWS
    rows = _read(reading, path, {**TEST, **LABELS, **EXTRA}, optional=LABELS)
    # A hold-out in the same layout has the columns of the train table.
    return _labelled(reading, rows, path.name, target) if set(LABELS) <= set(rows) else rows


def _read(
    reading: Reading, path: Path, columns: dict[str, str], *, optional: Collection[str] = ()
) -> pd.DataFrame:
    """A table of images, whichever of its names the columns bear."""
    optional = (*optional, *EXTRA)
    return reading.csv(path, columns, id_column="image_name", optional=optional, aliases=ALIASES)
