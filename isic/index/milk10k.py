"""MILK10k (doi 10.34970/648456): one clinical and one dermoscopic image of each lesion, 11 classes.

Licence: CC-BY-NC. Published: 5,240 train lesions (10,480 images), 479 test lesions (958 images).
Row unit: lesion; the table has one row an image, and `view` says which (`sample_rows` puts the two
side by side). Layouts:
  challenge  MILK10k_Training_{GroundTruth,Metadata,Supplement}.csv, MILK10k_Test_Metadata.csv and
             MILK10k_{Training,Test}_Input/<lesion_id>/<isic_id>.jpg
  bundle     metadata.csv of the archive (17 columns) beside flat images; the class comes from the
             ground truth where it is there, else from the diagnosis (`DIAGNOSES`)
Trap: views are told apart by `image_type` alone; ids and row order say nothing.
Trap: everything of the Supplement, and diagnosis_*, melanocytic and concomitant_biopsy of the
bundle, gives the label away. The bundle's site is empty where the challenge says `trunk`.
"""

from pathlib import Path

import pandas as pd

from isic.errors import first_five
from isic.index.image_files import Folders
from isic.index.milk10k_columns import (
    BUNDLE,
    BUNDLE_OPTIONAL,
    CLASSES,
    DIAGNOSES,
    LEAKS,
    LEVELS,
    METADATA,
    MONET,
    SITE_LEVELS,
    SUPPLEMENT,
    TRUTH,
    VIEWS,
)
from isic.index.schema import DatasetInfo, Index
from isic.index.sites import SOURCES, deepest_site
from isic.index.tables import NO_ROWS, Reading, not_of, one_hot_target
from isic.index.unread_cells import together, without_odd_codes

_URL = "https://isic-archive.s3.amazonaws.com/challenges/milk10k"
_FILES = (
    "Training_Input.zip Training_GroundTruth.csv Training_Metadata.csv Training_Supplement.csv "
    "Test_Input.zip Test_Metadata.csv"
)

INFO = DatasetInfo(
    name="milk10k",
    classes=CLASSES,
    task="multiclass",
    views=("dermoscopic", "clinical"),
    row_unit="lesion",
    id_column="lesion_id",
    submission_columns=CLASSES,
    official_metric="macro_f1",
    license="CC-BY-NC",
    citation="MILK study team. MILK10k. ISIC Archive, 2025. https://doi.org/10.34970/648456",
    download=f"mkdir -p DATA_ROOT && cd DATA_ROOT && for f in {_FILES}; "
    f"do curl -fLO {_URL}/MILK10k_$f; done && unzip '*.zip'  "
    "# page: https://challenge.isic-archive.com/data/#milk10k",
    published_counts={
        "train": 10480,
        "test": 958,
        "AKIEC": 606,
        "BCC": 5044,
        "BEN_OTH": 88,
        "BKL": 1088,
        "DF": 104,
        "INF": 100,
        "MAL_OTH": 18,
        "MEL": 900,
        "NV": 1492,
        "SCCKA": 946,
        "VASC": 94,
        "lesions": 5240,
        "images": 11438,
    },
    train_only_columns=LEAKS,
    view_columns=(*MONET, "image_manipulation"),
    vocabularies={
        "image_type": list(VIEWS),
        "image_manipulation": ["instrument only", "altered"],
        "sex": ["female", "male"],
        "milk10k_site": list(SOURCES["milk10k"]),
        "site": sorted({*SOURCES["milk10k"].values(), *SOURCES["isic2019"].values()}),
        "skin_tone_class": ["0", "1", "2", "3", "4", "5"],
    },
)

RENAMED = {"isic_id": "image_id", "age_approx": "age", "diagnosis_full": "diagnosis"}
ALIASES = {"lesion": "lesion_id"}
# What metadata, ground truth and supplement give together.
TRAIN = {**METADATA, "skin_tone_class": "code", "milk10k_site": "text", "target": "code"}
TRAIN |= SUPPLEMENT
OFFICIAL = ("MILK10k_Training_Input", "MILK10k_Test_Input")


def build_index(root: Path, *, images: Folders = None, ids: str | None = None) -> Index:
    """Read the tables below `root`; never opens an image and needs none.

    images: The only folder (or a list) to look in for images, relative to the root; None: all.
    ids: See `isic.index.id_spellings`.

    Raises:
        DataError: No folder or table (with the download command), or the list of all faults.
    """
    reading = Reading(INFO, root, ids)
    rows = reading.in_splits(_train, _test, renamed=RENAMED, columns=TRAIN)
    rows["view"] = rows["image_type"].map(VIEWS)
    refs = reading.images_of(rows["image_id"], official=OFFICIAL, within=images)
    _check_views(reading, rows)
    _check_folders(reading, rows, refs)
    return reading.finish(rows, refs)


def _train(reading: Reading) -> pd.DataFrame:
    """The train rows of whichever layout is there; the challenge's wins."""
    metadata = reading.find("MILK10k_Training_Metadata.csv")
    if metadata is None:
        return _bundle(reading)
    truth = reading.require("MILK10k_Training_GroundTruth.csv")
    rows = _labelled(reading, _metadata(reading, metadata), truth, name=metadata.name)
    supplement = reading.find("MILK10k_Training_Supplement.csv")
    if supplement is None:
        return rows.assign(diagnosis_full=None)
    more = reading.csv(supplement, SUPPLEMENT, id_column="isic_id")
    names = (metadata.name, supplement.name)
    return reading.joined(rows, more, on="isic_id", names=names, needed=False)


def _test(reading: Reading) -> pd.DataFrame:
    """The test rows, labelled where a ground truth is there; none without a file of them."""
    path = reading.find("MILK10k_Test_Metadata.csv")
    truth = reading.find("MILK10k_Test_GroundTruth.csv")
    if path is None:
        return NO_ROWS
    rows = _metadata(reading, path)
    if truth is None:
        return rows
    return _labelled(reading, rows, truth, name=path.name, test=True)


def _metadata(reading: Reading, path: Path) -> pd.DataFrame:
    """A metadata file; its raw site moves to `milk10k_site`."""
    rows = reading.csv(path, METADATA, id_column="isic_id", aliases=ALIASES)
    rows["milk10k_site"] = rows["site"]
    tone = rows["skin_tone_class"]
    tone, unread = without_odd_codes(tone, range(6), rows["isic_id"], what=path.name)
    reading.unread = together(reading.unread, unread)
    return rows.assign(skin_tone_class=tone.astype("Int64"))


def _bundle(reading: Reading) -> pd.DataFrame:
    """The rows of the archive's bundle, labelled by the ground truth or by their diagnosis."""
    path = reading.require("MILK10k_Training_Metadata.csv", "metadata.csv")
    rows = reading.csv(path, BUNDLE, id_column="isic_id", optional=BUNDLE_OPTIONAL, aliases=ALIASES)
    # The deepest level that is filled is what the Supplement calls diagnosis_full.
    levels = rows.reindex(columns=list(LEVELS)).astype("object")
    rows["diagnosis_full"] = levels.ffill(axis=1)[LEVELS[-1]]
    rows["site"] = rows.get("anatom_site_general", deepest_site(rows, SITE_LEVELS))
    truth = reading.find("MILK10k_Training_GroundTruth.csv")
    if truth is not None:
        return _labelled(reading, rows, truth, name=path.name)
    ids = rows["isic_id"]
    reading.faults += not_of(rows["diagnosis_full"], DIAGNOSES, ids, what=path.name)
    code = {name: CLASSES.index(c) for name, c in DIAGNOSES.items()}
    return rows.assign(target=rows["diagnosis_full"].map(code).astype("Int64"))


def _labelled(
    reading: Reading, rows: pd.DataFrame, path: Path, *, name: str, test: bool = False
) -> pd.DataFrame:
    """Give each image the class of its lesion; lesions that only one table names are noted.

    test: Whether rows without a class stay, to be predicted; in training they teach nothing.
    """
    truth = reading.csv(path, TRUTH, id_column="lesion_id", aliases=ALIASES, refuse_extra=True)
    target, faults = one_hot_target(truth, CLASSES, truth["lesion_id"], what=path.name)
    reading.faults += faults
    only = (
        (truth["lesion_id"], rows["lesion_id"], path.name, f"without an image in {name}"),
        (rows["lesion_id"], truth["lesion_id"], name, f"without a class in {path.name}"),
    )
    for ids, others, table, why in only:
        alone = ids[~ids.isin(others)].drop_duplicates()
        if len(alone):
            reading.notes.append(f"{table}: {len(alone)} lesions {why}: {first_five(alone)}")
    labels = truth[["lesion_id"]].assign(target=target).drop_duplicates("lesion_id")
    rows = rows if test else rows[rows["lesion_id"].isin(truth["lesion_id"])]
    return rows.merge(labels, on="lesion_id", how="left", validate="m:1")


def _check_views(reading: Reading, rows: pd.DataFrame) -> None:
    """Two images of a view in a lesion are a fault, a view that is not there a note."""
    ids = rows["image_id"]
    reading.faults += not_of(rows["image_type"], VIEWS, ids, what="metadata")
    if rows["lesion_id"].isna().any():
        nameless = ids[rows["lesion_id"].isna()]
        reading.faults.append(f"{len(nameless)} images have no lesion_id: {first_five(nameless)}")
    seen = rows[rows["view"].notna()]
    twice = seen.loc[seen.duplicated(["lesion_id", "view"]), "lesion_id"].drop_duplicates()
    if len(twice):
        reading.faults.append(
            f"{len(twice)} lesions have two images of one type: {first_five(twice)}"
        )
    for view in INFO.views:
        lesions = rows["lesion_id"].drop_duplicates()
        lacking = lesions[~lesions.isin(rows.loc[rows["view"] == view, "lesion_id"])].dropna()
        if len(lacking):
            reading.notes.append(
                f"{len(lacking)} lesions have no {view} image: {first_five(lacking)}"
            )


def _check_folders(reading: Reading, rows: pd.DataFrame, refs: pd.Series) -> None:
    """A file in the folder of another lesion is a fault: one of folder and table is wrong."""
    folder = refs.str.extract(r"([^/]+)/[^/]+$")[0]
    lesion = rows["lesion_id"]
    wrong = (folder.isin(lesion.dropna()) & (folder != lesion)).to_numpy(dtype=bool, na_value=False)
    if wrong.any():
        reading.faults.append(
            f"{int(wrong.sum())} images lie in the folder of another lesion than the metadata "
            f"names: {first_five(rows.loc[wrong, 'image_id'])}"
        )
