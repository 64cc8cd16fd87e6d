"""ISIC 2024 (SLICE-3D, doi 10.34970/2024-slice-3d): lesion crops from 3D total-body photographs.

Licence: per row CC-0, CC-BY or CC-BY-NC. Published: 401,059 images, 393 malignant, 1,042 patients.
Row unit: image. Tiles are square, 61-239 px, 15 mm field of view. Two layouts are read:
  Kaggle    train-metadata.csv (55 columns) with train-image.hdf5 or train-image/image/<id>.jpg
  archive   any *Training_GroundTruth.csv (isic_id, malignant) beside an HDF5 or a JPEG folder,
            with metadata.csv and the supplement where they are (`isic2024_archive`)
Test files (test-metadata.csv, 44 columns) are found independently of the train layout.
Trap: 11 columns exist for train rows only (`TRAIN_ONLY`) and give the label away.
"""

from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from isic.errors import DataError, first_five
from isic.index.isic2024_archive import read_archive
from isic.index.isic2024_columns import TRAIN_ONLY, column_kinds
from isic.index.raw_csv import RawTable, parse_binary, read_csv
from isic.index.schema import DatasetInfo, Index, one_hot, standard_columns
from isic.index.sites import SOURCES
from isic.index.tables import Reading, no_table

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


def build_index(root: Path) -> Index:
    """Read the tables below `root`; never opens an image and needs none.

    Raises:
        DataError: No folder or table (with the download command), or the list of all faults.
    """
    reading = Reading(INFO, root)
    parts = []
    for split, (raw, target_column) in (("train", _train(reading)), ("test", _test(reading.root))):
        if raw is None:
            continue
        place = _images(reading.root, split)
        part, found = _standard(raw, target_column, split=split, images=place)
        parts.append(part)
        reading.faults += raw.faults + found
        reading.notes += raw.notes
    return reading.close(_frame(pa.concat_tables(parts, promote_options="default")))


def _train(reading: Reading) -> tuple[RawTable, str]:
    """Find the train table in either layout; Kaggle's wins where both are there."""
    kaggle = reading.root / "train-metadata.csv"
    if kaggle.is_file():
        return read_csv(kaggle, columns=column_kinds(), id_column="isic_id"), "target"
    raw = read_archive(reading.root)
    if raw is None:
        names = ("train-metadata.csv", "*Training_GroundTruth.csv")
        raise no_table(INFO, reading.root, names)
    return raw, "malignant"


def _test(root: Path) -> tuple[RawTable | None, str]:
    """Find the test table; a labelled one (a hold-out in the same layout) is fine."""
    path = root / "test-metadata.csv"
    if not path.is_file():
        return None, "target"
    kinds = column_kinds()
    return read_csv(path, columns=kinds, id_column="isic_id", optional=TRAIN_ONLY), "target"


def _images(root: Path, split: str) -> str | None:
    """Say where the images lie, as a template for an id; None where there is no source.

    The official names come first; any other single HDF5 or JPEG folder serves for train.
    """
    if (root / f"{split}-image.hdf5").is_file():
        return f"{split}-image.hdf5#{{}}"
    official = [root / f"{split}-image" / "image", root / f"{split}-image"]
    official += sorted(p for p in root.glob(f"*_{split.title()}_Input") if p.is_dir())
    stores = sorted(p for p in root.glob("*.hdf5") if not p.name.startswith("test"))
    others = sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith("test"))
    if folder := next((p for p in official if _has_jpeg(p)), None):
        return f"{folder.relative_to(root).as_posix()}/{{}}.jpg"
    # A store of another name could be anything; for test rows only the official names count.
    if split == "test":
        return None
    sources = stores or [p for p in [*others, root] if _has_jpeg(p)]
    if len(sources) > 1:
        raise DataError(
            f"{root.absolute()} must hold one source of train images, got "
            f"{first_five(p.name for p in sources)}; name the one to use train-image.hdf5 or "
            f"train-image/image/"
        )
    if not sources:
        return None
    place = sources[0].relative_to(root)
    return f"{place}#{{}}" if stores else (place / "{}.jpg").as_posix()


def _has_jpeg(folder: Path) -> bool:
    """Look for one JPEG only: listing 401,059 files would take longer than the index."""
    return folder.is_dir() and next(folder.glob("*.jpg"), None) is not None


def _standard(
    raw: RawTable, target_column: str, *, split: str, images: str | None
) -> tuple[Any, list[str]]:
    """Bring a raw table to the standard columns; also the faults of its target.

    images: Template of the image references; None leaves them null.
    """
    table, rows = raw.table, raw.table.num_rows
    faults: list[str] = []
    # A table without the target column is read on, so that its other faults are named too.
    target = pa.nulls(rows, pa.int64())
    if raw.has(target_column):
        values, ids = raw.column(target_column), raw.column("isic_id")
        what = f"{raw.path.name}: {target_column}"
        parsed, faults = parse_binary(values, ids, what=what)
        # A test file may hold labels for some rows only; a train file must know them all.
        faults = [f for f in faults if split == "train" or "is empty" not in f]
        target = pa.array(parsed, pa.int64())
        table = table.drop_columns([target_column])
    if raw.has("iddx_full"):
        table = table.append_column("diagnosis", table.column("iddx_full"))
    table = table.rename_columns([RENAMED.get(c, c) for c in table.column_names])
    fixed = {"archive": INFO.name, "view": INFO.views[0], "split": split}
    for name, value in fixed.items():
        table = table.append_column(name, pa.repeat(pa.scalar(value), rows))
    table = table.append_column("target", target)
    table = table.append_column("image", _references(table.column("image_id"), images))
    for name in (c for c in standard_columns(INFO) if c not in table.column_names):
        kind = pa.float64() if name in {"age", *INFO.classes} else pa.string()
        table = table.append_column(name, pa.nulls(rows, kind))
    return table, faults


def _references(ids: Any, template: str | None) -> Any:
    """Fill the template with each id; null without a source."""
    if template is None:
        return pa.nulls(len(ids), pa.string())
    head, tail = template.split("{}")
    return pc.binary_join_element_wise(pa.scalar(head), ids, pa.scalar(tail), pa.scalar(""))


def _frame(table: Any) -> pd.DataFrame:
    """Arrow -> pandas with the standard columns first and the archive's own behind them."""
    # The conversion frees each Arrow column as it goes: peak memory stays near one copy.
    frame: pd.DataFrame = table.to_pandas(self_destruct=True, split_blocks=True)
    frame["target"] = frame["target"].astype("Int64")
    classes = one_hot(frame["target"], INFO.classes)
    for name in INFO.classes:
        frame[name] = classes[name]
    standard = standard_columns(INFO)
    return frame[[*standard, *(c for c in frame.columns if c not in standard)]]
