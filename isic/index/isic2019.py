"""ISIC 2019: dermoscopic images of BCN20000, HAM10000 and MSK in eight classes, and unknown ones.

Licence: CC-BY-NC 4.0. Published: 25,331 train images (no UNK among them), 8,238 test images (2,047
UNK). Row unit: image. Layouts:
  official  ISIC_2019_Training_{GroundTruth,Metadata}.csv, joined by `image`, and, each optional,
            ISIC_2019_Test_{Metadata,GroundTruth}.csv
  resized   train.csv of the sets `jpeg-isic2019-<side>x<side>` (image_name, diagnosis as class
            code); it knows no lesion, so that the official metadata beside it is used where it is
Images are found by id wherever they lie below the root, as files or in TFRecords. 2,074 ids end in
`_downsampled`; they stay.
Trap: 65 % of the train images show a lesion that another one shows: folds must go by `lesion_id`.
Trap: AK, BCC, SCC, DF and VASC come from BCN and HAM only, so that the source (`attribution`, from
the prefix of lesion_id; unknown for test rows) is a confound and no feature.
"""

from pathlib import Path

import pandas as pd

from isic.index.image_files import Folders
from isic.index.schema import DatasetInfo, Index
from isic.index.sites import SOURCES
from isic.index.tables import NO_ROWS, Reading, not_of, one_hot_target

CLASSES = ("MEL", "NV", "BCC", "AK", "BKL", "DF", "VASC", "SCC", "UNK")
# Prefix of lesion_id -> source, as the licence note of the challenge attributes them.
ATTRIBUTION = {
    "BCN": "BCN20000, Department of Dermatology, Hospital Clinic de Barcelona",
    "HAM": "HAM10000, ViDIR Group, Department of Dermatology, Medical University of Vienna",
    "MSK4": "MSK, Anonymous",
}
WEIGHTS = ("score_weight", "validation_weight")

_URL = "https://isic-archive.s3.amazonaws.com/challenges/2019"
_FILES = (
    "Training_Input.zip Training_GroundTruth.csv Training_Metadata.csv "
    "Test_Input.zip Test_Metadata.csv Test_GroundTruth.csv"
)

INFO = DatasetInfo(
    name="isic2019",
    classes=CLASSES,
    task="multiclass",
    views=("dermoscopic",),
    row_unit="image",
    id_column="image",
    submission_columns=CLASSES,
    official_metric="balanced_accuracy",
    license="CC-BY-NC 4.0",
    citation="BCN20000 (doi 10.1038/s41597-024-03387-w), HAM10000 (doi 10.1038/sdata.2018.161) and "
    "MSK (doi 10.1109/ISBI.2018.8363547): ISIC 2019 challenge, challenge.isic-archive.com",
    download=f"mkdir -p DATA_ROOT && cd DATA_ROOT && for f in {_FILES}; "
    f"do curl -fLO {_URL}/ISIC_2019_$f; done && unzip '*.zip'  "
    "# page: https://challenge.isic-archive.com/data/#2019",
    published_counts={
        "train": 25331,
        "test": 8238,
        "MEL": 4522,
        "NV": 12875,
        "BCC": 3323,
        "AK": 867,
        "BKL": 2624,
        "DF": 239,
        "VASC": 253,
        "SCC": 628,
        "UNK": 0,
        "lesions": 11847,
        "images": 25331 + 8238,
    },
    # score_weight and validation_weight come with labels only.
    train_only_columns=("lesion_id", "attribution", *WEIGHTS),
    vocabularies={"sex": ["female", "male"], "site": list(SOURCES["isic2019"])},
)

TRUTH = {"image": "text", **dict.fromkeys(CLASSES, "label"), **dict.fromkeys(WEIGHTS, "number")}
METADATA = {
    "image": "text",
    "age_approx": "number",
    "anatom_site_general": "text",
    "lesion_id": "text",
    "sex": "text",
}
# What ground truth and metadata give together.
TRAIN = {"image": "text", "target": "code", "diagnosis": "text", **METADATA}
RESIZED = {
    "image_name": "text",
    "patient_id": "text",
    "sex": "text",
    "age_approx": "number",
    "anatom_site_general_challenge": "text",
    "diagnosis": "text",
    "benign_malignant": "text",
    "target": "label",
    "tfrecord": "number",
    "width": "number",
    "height": "number",
}
RENAMED = {
    "image": "image_id",
    "image_name": "image_id",
    "age_approx": "age",
    "anatom_site_general": "site",
    "anatom_site_general_challenge": "site",
}
OFFICIAL = ("ISIC_2019_Training_Input", "ISIC_2019_Test_Input")


def build_index(root: Path, *, images: Folders = None, ids: str | None = None) -> Index:
    """Read the tables below `root`; never opens an image and needs none.

    images: The only folder (or a list) to look in for images, relative to the root; None: all.
    ids: See `isic.index.id_spellings`.

    Raises:
        DataError: No folder or table (with the download command), or the list of all faults.
    """
    reading = Reading(INFO, root, ids)
    rows = reading.in_splits(_train, _test, renamed=RENAMED, columns=TRAIN)
    rows["attribution"] = rows["lesion_id"].str.extract(r"^([^_]+)_")[0].map(ATTRIBUTION)
    refs = reading.images_of(rows["image_id"], official=OFFICIAL, within=images)
    return reading.finish(rows, refs)


def _train(reading: Reading) -> pd.DataFrame:
    """The train rows of whichever layout is there; the official one wins."""
    truth = reading.find("ISIC_2019_Training_GroundTruth.csv")
    metadata = reading.find("ISIC_2019_Training_Metadata.csv")
    if truth is None:
        return _resized(reading, metadata)
    rows = _labelled(reading, truth)
    if metadata is None:
        reading.faults.append(
            f"{truth.name} is here without ISIC_2019_Training_Metadata.csv: its lesion_id decides "
            f"which images may not be in two folds"
        )
        return rows.assign(lesion_id=None)
    known = reading.csv(metadata, METADATA, id_column="image")
    return reading.joined(rows, known, on="image", names=(truth.name, metadata.name))


def _test(reading: Reading) -> pd.DataFrame:
    """The test rows, with labels where the ground truth is there; none without either file."""
    metadata = reading.find("ISIC_2019_Test_Metadata.csv")
    truth = reading.find("ISIC_2019_Test_GroundTruth.csv")
    if metadata is None:
        return _labelled(reading, truth) if truth else NO_ROWS
    known = reading.csv(metadata, METADATA, id_column="image", optional=("lesion_id",))
    if truth is None:
        return known
    labels, names = _labelled(reading, truth), (metadata.name, truth.name)
    return reading.joined(known, labels, on="image", names=names, needed=False)


def _labelled(reading: Reading, path: Path) -> pd.DataFrame:
    """A ground truth: id, `target`, `diagnosis` (the class itself), weights where it has them."""
    optional = (*WEIGHTS, "UNK")
    truth = reading.csv(path, TRUTH, id_column="image", optional=optional, refuse_extra=True)
    target, faults = one_hot_target(truth, CLASSES, truth["image"], what=path.name)
    reading.faults += faults
    own = [c for c in truth.columns if c not in CLASSES]
    return truth[own].assign(target=target, diagnosis=target.map(dict(enumerate(CLASSES))))


def _resized(reading: Reading, metadata: Path | None) -> pd.DataFrame:
    """The train rows of a pre-resized set; lesions only from the official metadata beside it."""
    names = ("ISIC_2019_Training_GroundTruth.csv", "train.csv")
    path = reading.require(*names)
    rows = reading.csv(path, RESIZED, id_column="image_name", optional=list(RESIZED)[6:])
    rows = rows.drop(columns=["benign_malignant", "target"], errors="ignore")
    code = rows["diagnosis"].map({name: i for i, name in enumerate(CLASSES)})
    reading.faults += not_of(rows["diagnosis"], CLASSES, rows["image_name"], what=path.name)
    rows["target"] = code.astype("Int64")
    if metadata is None:
        reading.notes.append(
            f"{path.name} knows no lesion: two images of one lesion may lie in two folds, and "
            f"scores will be too good; put ISIC_2019_Training_Metadata.csv beside it"
        )
        return rows.assign(lesion_id=None)
    lesion = reading.csv(metadata, METADATA, id_column="image")[["image", "lesion_id"]]
    lesion = lesion.rename(columns={"image": "image_name"})
    return reading.joined(rows, lesion, on="image_name", names=(path.name, metadata.name))
