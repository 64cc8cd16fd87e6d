"""Any folder of images: a CSV beside them with any column names, or one folder a class.

Licence, citation and counts are the user's own. Row unit: image. Layouts:
  table    a CSV (metadata.csv, the only one, train.csv and test.csv, or one below; see `tables`);
           what the ISIC Archive's download holds and other known names need no configuration,
           `columns` names others
  classes  <class>/x.jpg, also below train/, val/ and test/, or <class>/train/x.jpg
Labelled rows are train and unlabelled ones test, unless a column `split` says otherwise; `val` rows
are train rows too, since folds decide what validates. Classes are sorted; of two the last is the
positive one.
Trap: without a patient or a lesion every image is its own group, and scores on images of one
patient in two folds are too good; the notes say so.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pyarrow as pa

from isic.errors import ConfigError, DataError, first_five
from isic.index.folder.classes import class_rows
from isic.index.folder.files import image_names, safe_ids, without_extension
from isic.index.folder.labels import TARGETS, Labels, class_names, labels_of, one_spelling
from isic.index.folder.match import Finder
from isic.index.folder.names import SPLITS
from isic.index.folder.read import plain_text, with_ages
from isic.index.folder.table import LEAKS, ROLES, Columns, table_rows
from isic.index.folder.tables import read_table
from isic.index.id_spellings import HOSPITAL, IdSpellings, keys_of
from isic.index.image_files import Folders, place_below, zips_of
from isic.index.schema import (
    LEADING,
    PLANNED,
    TRAILING,
    USE,
    DatasetInfo,
    Index,
    faults_of,
    one_hot,
    raise_faults,
    standard_columns,
)
from isic.index.sites import canonical_site
from isic.index.unread_cells import unread_notes

INFO = DatasetInfo(
    name="folder",
    classes=("0", "1"),
    task="binary",
    views=("image",),
    row_unit="image",
    id_column="image_id",
    submission_columns=("target",),
    official_metric="auc",
    license="of the folder's owner; for the ISIC Archive per image (column copyright_license)",
    citation="",
    download="copy the image files below DATA_ROOT (from the ISIC Archive: pip install isic-cli; "
    "isic image download --search QUERY DATA_ROOT)",
    published_counts={},
    train_only_columns=(),
)


def build_index(
    root: Path,
    *,
    table: str | bool | None = None,
    columns: Columns | None = None,
    classes: Sequence[str] | None = None,
    positive: str | None = None,
    target: str = "label",
    images: Folders = None,
    ids: str | None = None,
) -> Index:
    """Read the folder's names and its table; never decodes an image.

    table: The CSV, relative to the root; None takes the one that `tables` finds, False none.
    columns: Role (`ROLES`) -> column; None finds it by name, False does without.
    classes: Their order; None sorts those that occur.
    positive: Of two classes, the one that is predicted; None takes the last.
    target: `label`, or `diagnosis` or `malignant`: the shared classes of `isic.index.diagnosis`.
    images: The only folder to look for images in, or folders, relative to the root.
    ids: See `isic.index.id_spellings`.

    Raises:
        ConfigError: An option that does not fit the table.
        DataError: No images and no table, or the list of all faults.
    """
    root = Path(root)
    if target not in TARGETS:
        raise ConfigError(f"data.index.target: expected {', '.join(TARGETS)}, got {target!r}")
    if not root.is_dir():
        raise DataError(f"no such folder {root.absolute()}; set data.root to a folder of images")
    spellings = IdSpellings(ids)
    rows, names_of_images, notes = _rows(
        root, table=table, columns=columns or {}, images=images, diagnoses=target != "label"
    )
    rows = _spelled(spellings, rows, names_of_images, root)
    rows, labels = labels_of(rows, target=target)
    one_spelling(labels, classes)
    names = class_names(labels, classes=classes, positive=positive)
    rows, split_notes = _split(rows, labels)
    rows["target"] = labels.text.map({n: i for i, n in enumerate(names)}).astype("Int64")
    rows["diagnosis"] = labels.raw
    info = _info(rows, names)
    rows, unread = with_ages(rows)
    index = Index(_standard(rows, info, notes), info, root, ids=ids, unread=unread)
    notes += [*labels.notes, *split_notes, *spellings.notes(), *_facts(index.table, info)]
    notes += unread_notes(unread)
    raise_faults(
        faults_of(index.table, info),
        where=f"the folder {root.absolute()}",
        next_step="Correct the table, or name its columns with data.index.columns.ROLE=COLUMN.",
    )
    return replace(index, notes=notes)


def _rows(
    root: Path,
    *,
    table: str | bool | None,
    columns: Columns,
    images: Folders,
    diagnoses: bool,
) -> tuple[pd.DataFrame, pd.Series, list[str]]:
    """The rows of whichever layout is there, what they call their images, and notes.

    Labels and splits are text; a table wins.
    """
    files, notes = image_names(root)
    if images is not None:
        files = _inside(root, files, images)
    finder = Finder(files, root)
    read = read_table(root, table, finder)
    if read is not None:
        rows, roles, found = table_rows(
            read.cells, finder, columns, where=read.name, diagnoses=diagnoses
        )
        chosen = ", ".join(f"{role}={column}" for role, column in roles.items())
        notes += read.notes
        notes.append(
            f"columns of {read.name}: {chosen}; change one with data.index.columns.ROLE=COLUMN"
        )
        return rows, read.cells[roles["image"]], notes + found
    if not files:
        zips = f" (not unpacked: {first_five(z)})" if (z := zips_of(root)) else ""
        zips += f" ({'; '.join(notes)})" if notes else ""
        raise DataError(
            f"{root.absolute()} holds no image and no CSV{zips}; set data.root to a folder with "
            f"class folders (CLASS/x.jpg), or with a CSV of image names and labels"
        )
    rows, found = class_rows(root, files)
    rows["image_id"] = safe_ids(rows["image"].tolist())
    return rows, rows["image"], notes + found


def _spelled(
    spellings: IdSpellings, rows: pd.DataFrame, names: pd.Series, root: Path
) -> pd.DataFrame:
    """The rows with each patient and lesion in one spelling.

    Images of two spellings that each have a file are two; a name without a file may be meant to be
    another one.

    Raises:
        DataError: Spellings of one id, unless `spellings` has a choice; one image in two rows.
    """
    groups = [c for c in ("patient_id", "lesion_id", HOSPITAL) if c in rows]
    rows = rows.assign(**{c: spellings.take(c, rows[c]) for c in groups})
    bare = names.map(without_extension, na_action="ignore")
    key = pd.Series(keys_of(pa.array(bare, pa.string())), index=bare.index)
    bare = bare[key.isin(key[rows["image"].isna()])]
    twice = spellings.take("image_id", bare) != bare
    faults = spellings.faults()
    if twice.any():
        faults.append(
            f"{int(twice.sum())} images are named twice, in two spellings: "
            f"{first_five(map(repr, bare[twice]))}; keep one of each, or data.index.ids=exact"
        )
    raise_faults(faults, where=f"the folder {root.absolute()}", next_step="Correct the names.")
    return rows


def _inside(root: Path, files: list[str], images: Folders) -> list[str]:
    """The files in the folders that are named, each once, in the order of the folders."""
    found: dict[str, None] = {}
    for folder in [images] if isinstance(images, str) else images or ():
        place = place_below(root, folder)
        inside = [f for f in files if place is not None and f.startswith(place and f"{place}/")]
        if not inside:
            raise DataError(
                f"data.index.images: no image file in {folder!r}; expected a folder of data.root, "
                f"named relative to {root.absolute()}"
            )
        found.update(dict.fromkeys(inside))
    return list(found)


def _split(rows: pd.DataFrame, labels: Labels) -> tuple[pd.DataFrame, list[str]]:
    """Bring `split` to train and test; a train row must have a label."""
    labelled, notes = labels.text.notna(), []
    if "split" not in rows:
        rows["split"] = labelled.map({True: "train", False: "test"})
        if not labelled.all():
            notes.append(f"{int((~labelled).sum())} rows without a label are test rows")
        return rows, notes
    split = rows["split"].str.lower().map(SPLITS)
    ids = rows["image_id"]
    faults = []
    if split.isna().any():
        got = first_five(repr(v) for v in rows.loc[split.isna(), "split"].unique())
        faults.append(f"split must be one of {', '.join(SPLITS)}, got {got}")
    bad = split.isin(["train", "val"]) & ~labelled
    if bad.any():
        faults.append(
            f"{int(bad.sum())} train rows have no label: {first_five(ids[bad])}; give one, or put "
            f"them into the split test"
        )
    raise_faults(faults, where="the table", next_step="Correct the column `split`.")
    if n := int((split == "val").sum()):
        notes.append(f"{n} rows of the split val are train rows: folds decide what validates")
    return rows.assign(split=split.replace("val", "train")), notes


def _info(rows: pd.DataFrame, names: tuple[str, ...]) -> DatasetInfo:
    """What is known of the folder once it has been read."""
    binary = len(names) == 2
    views = sorted(rows["view"].dropna().unique()) if "view" in rows else []
    return replace(
        INFO,
        classes=names,
        task="binary" if binary else "multiclass",
        views=tuple(views) or INFO.views,
        submission_columns=INFO.submission_columns if binary else names,
        train_only_columns=tuple(
            name
            for column, name in _own(rows, names).items()
            if column.removeprefix("raw_").lower() in LEAKS
        ),
    )


def _standard(rows: pd.DataFrame, info: DatasetInfo, notes: list[str]) -> pd.DataFrame:
    """The index's columns first, the folder's own behind them, train rows first."""
    classes = one_hot(rows["target"], info.classes)
    site, found = canonical_site(rows["site"]) if "site" in rows else (None, [])
    notes += found
    known: Mapping[str, object] = {
        "archive": info.name,
        "view": rows["view"].fillna(info.views[0]) if "view" in rows else info.views[0],
        "age": rows.get("age", float("nan")),
        "sex": rows["sex"].str.lower() if "sex" in rows else None,
        "site": site,
        **{name: classes[name] for name in info.classes},
    }
    columns = {}
    for name in standard_columns(info):
        values = known[name] if name in known else rows.get(name)
        columns[name] = pd.Series(values, index=rows.index)
        if name not in {"age", "target", *info.classes}:
            columns[name] = plain_text(columns[name])
    columns.update({name: plain_text(rows[c]) for c, name in _own(rows, info.classes).items()})
    table = pd.DataFrame(columns)
    order = (table["split"] == "test").argsort(kind="stable")
    return table.iloc[order].reset_index(drop=True)


def _own(rows: pd.DataFrame, classes: tuple[str, ...]) -> dict[str, str]:
    """The folder's own columns and their names in the index, which keeps some for itself."""
    made = {*LEADING, *TRAILING, *USE, *PLANNED, *classes}
    given = {*ROLES, *LEADING}
    return {c: f"raw_{c}" if c in made else c for c in rows.columns if c not in given}


def _facts(table: pd.DataFrame, info: DatasetInfo) -> list[str]:
    """What a user must know before believing a score."""
    notes = []
    if table["patient_id"].isna().all() and table["lesion_id"].isna().all():
        notes.append(
            "no patient and no lesion is known, so that every image is its own group: scores are "
            "too good where patients have several images (data.index.columns.patient=COLUMN)"
        )
    if len(info.classes) == 2:
        notes.append(
            f"{info.positive_class} is the positive class, against {info.classes[0]}; "
            f"data.index.positive={info.classes[0]} turns it round"
        )
    return notes
