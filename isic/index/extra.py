"""Further training images from CSVs, added to an archive's index: they never validate.

Source: the user's own files, or pseudo-labels written by an earlier run; any folder. Columns:
  image       path relative to the CSV's folder (required)
  label       class name, or `target`, class number (one of them required)
  image_id    default: the file's stem
  parent_id   image_id of the archive's row that it was made from, or of another extra row
  weight      of its loss, above 0, default 1
  patient_id lesion_id age sex site attribution view   as in the index
  pseudo ...  the label is a model's: see `isic.index.tested`
Unit: one row an image, `split` train, `external` true, in the mount `@extra<k>/`. Column names in
any case.
Trap: an image made from another belongs to the same group; only `parent_id` or a shared patient or
lesion says so. In an archive of lesions an extra row is a lesion of its own: its lesion_id must be
new, and parent_id links it.
Trap: what shows a test image must not train: rows made from one, or showing its lesion, are
refused, unless they are marked as pseudo-labels. Patients of test rows are a note, since many
archives are split by image.
"""

import os
from collections.abc import Sequence
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path

import numpy as np
import pandas as pd

from isic.checksums import check_sum
from isic.errors import DataError, first_five
from isic.images.sources import check_refs
from isic.index.folder.files import safe_ids
from isic.index.folder.read import read_text, to_number
from isic.index.id_spellings import IdSpellings
from isic.index.raw_csv import without_gaps
from isic.index.schema import Index, faults_of, one_hot, raise_faults
from isic.index.tables import bare_ids
from isic.index.tested import (
    PSEUDO,
    held,
    image_folder,
    pseudo_run,
    refuse_strangers,
    refuse_tested,
    tested_patients,
)

TEXTS = ("patient_id", "lesion_id", "sex", "site", "attribution", "view", "parent_id")
NEAR = 0.79  # of 1: `parent` is near `parent_id`, `stage` is not near `age`
KNOWN = ("image", "label", "target", "image_id", "weight", "age", *TEXTS, *PSEUDO)


def with_extra(index: Index, files: str | Path | Sequence[str | Path]) -> Index:
    """Return the index with the rows of `files` behind its own train rows.

    Raises:
        DataError: A file that is not there, and the list of all faults of each.
    """
    paths = [Path(f) for f in ([files] if isinstance(files, str | Path) else files)]
    table, mounts, notes = index.table, dict(index.mounts), list(index.notes)
    spellings = IdSpellings(index.ids)
    spellings.take_all(table)  # the archive's spellings come first
    for path in paths:
        mount = f"extra{sum(m.startswith('extra') for m in mounts)}"
        rows, found, folder = _rows(path, Index(table, index.info, index.root), mount, spellings)
        mounts[mount] = folder
        table = _joined(table, rows)
        notes += [f"{len(rows)} extra rows from {path}", *found]
    raise_faults(spellings.faults(), where=first_five(paths), next_step="Correct the file.")
    notes += spellings.notes()
    refuse_strangers(table, paths)
    refuse_tested(table, paths)
    notes += tested_patients(table)
    return replace(index, table=table, mounts=mounts, notes=notes)


def _rows(
    path: Path, index: Index, mount: str, spellings: IdSpellings
) -> tuple[pd.DataFrame, list[str], Path]:
    """The rows of one file in the index's columns, notes, and the folder of its images."""
    check_sum(path)  # pseudo-labels have one
    raw = _known_columns(read_text(path), path)
    if "image" not in raw or not {"label", "target"} & set(raw):
        raise DataError(
            f"{path}: expected the columns image and label (or target), got "
            f"{first_five(raw.columns)}"
        )
    unused = [c for c in raw.columns if c not in KNOWN]
    notes = [f"{path.name}: columns not used: {first_five(unused)}"] if unused else []
    raw = raw.reindex(columns=list(KNOWN)).astype("string")
    for column in (c for c in TEXTS if c != "view"):
        raw[column] = without_gaps(raw[column], group=column in ("patient_id", "lesion_id"))
    raw["parent_id"] = bare_ids(raw["parent_id"])
    faults = _fill(raw, index)
    raw = spellings.take_all(raw)
    raw["parent_id"] = spellings.take("image_id", raw["parent_id"])
    named = raw["image_id"].fillna(raw["image"])
    rows = raw[list(TEXTS)].assign(
        image_id=raw["image_id"],
        archive=mount,
        split="train",
        external=True,
        image=_references(raw["image"], mount),
        diagnosis=raw["label"],
        target=_targets(raw, index.info.classes, named, faults),
        age=_numbers(raw["age"], named, faults),
        weight=_weights(raw["weight"], named, faults),
        pseudo=pseudo_run(raw, named, faults),
    )
    classes = one_hot(rows["target"], index.info.classes)
    rows = rows.assign(**{name: classes[name] for name in index.info.classes})
    faults += faults_of(rows.reset_index(drop=True), index.info) + _clashes(rows, index)
    raise_faults(list(dict.fromkeys(faults)), where=str(path), next_step="Correct the file.")
    return rows, notes, image_folder(raw, path)


def _known_columns(raw: pd.DataFrame, path: Path) -> pd.DataFrame:
    """The file with known columns in lower case; a name that looks misspelt is a fault."""
    lower = {c: c.lower() for c in raw.columns if c.lower() in KNOWN}
    raw = raw.rename(columns=lower)
    near = {
        c: found[0]
        for c in raw.columns
        if c not in KNOWN and (found := get_close_matches(c.lower(), KNOWN, 1, NEAR))
    }
    misspelt = [f"{c!r} (is {name} meant?)" for c, name in near.items() if name not in raw]
    twice = [str(c) for c in raw.columns[raw.columns.duplicated()]]
    if misspelt or twice:
        got = [*misspelt, *(f"{c} twice" for c in twice)]
        raise DataError(
            f"{path}: columns must be of {', '.join(KNOWN)}, or unlike them; got "
            f"{first_five(got)}; rename or remove them"
        )
    return raw


def _fill(raw: pd.DataFrame, index: Index) -> list[str]:
    """Fill ids, views and lesions that the file leaves open; faults of the image column."""
    faults = []
    if raw["image"].isna().any():
        lines = first_five(f"line {i + 2}" for i in np.flatnonzero(raw["image"].isna()))
        faults.append(f"{int(raw['image'].isna().sum())} rows have no image: {lines}")
    known = raw["image"].dropna()
    try:
        check_refs(
            known.str.replace("\\", "/", regex=False).tolist(),
            where="the folder of the CSV",
            mend="put the CSV above its images, or a link to them beside it",
        )
    except DataError as error:
        faults.append(str(error))
    distinct = known.drop_duplicates()
    ids = dict(zip(distinct, safe_ids(distinct.tolist()), strict=True))
    raw["image_id"] = raw["image_id"].fillna(raw["image"].map(ids).astype("string"))
    raw["view"] = raw["view"].fillna(index.info.views[0])
    if index.info.row_unit == "lesion":
        raw["lesion_id"] = raw["lesion_id"].fillna(raw["image_id"])
    strange = raw.loc[~raw["view"].isin(index.info.views), "view"]
    if len(strange):
        views = ", ".join(index.info.views)
        faults.append(f"view must be one of {views}, got {first_five(strange.unique())}")
    return faults


def _references(image: pd.Series, mount: str) -> pd.Series:
    """`@extra0/<path>`, with forward slashes."""
    clean = image.str.replace("\\", "/", regex=False).map(os.path.normpath, na_action="ignore")
    return f"@{mount}/" + clean.astype("string")


def _targets(
    raw: pd.DataFrame, classes: tuple[str, ...], ids: pd.Series, faults: list[str]
) -> pd.Series:
    """Class numbers from `label`, else from `target`; a row needs one, and both must agree."""
    number = {name: i for i, name in enumerate(classes)}
    lower = {name.lower(): i for name, i in number.items()}
    label = raw["label"]
    named = label.map(lambda v: number.get(v, lower.get(v.lower())), na_action="ignore")
    code = pd.to_numeric(raw["target"], errors="coerce")
    code = code.where(code.isin(range(len(classes))))
    checks = {
        f"label must be one of {', '.join(classes)}": label.notna() & named.isna(),
        f"target must be 0..{len(classes) - 1}": raw["target"].notna() & code.isna(),
        "neither label nor target": label.isna() & raw["target"].isna(),
        "label and target disagree": named.notna() & code.notna() & (named != code),
    }
    faults += [_fault(what, bad, ids) for what, bad in checks.items() if bad.any()]
    return pd.to_numeric(named).astype("Int64").fillna(code.astype("Int64"))


def _fault(what: str, bad: pd.Series, ids: pd.Series) -> str:
    return f"{what}: {int(bad.sum())} rows, {first_five(ids[bad])}"


def _numbers(values: pd.Series, ids: pd.Series, faults: list[str]) -> pd.Series:
    """Ages in years; what is no number is a fault."""
    number = to_number(values)
    bad = values.notna() & number.isna()
    if bad.any():
        faults.append(_fault("age must be a number", bad, ids))
    return number


def _weights(values: pd.Series, ids: pd.Series, faults: list[str]) -> pd.Series:
    """Weights of the loss: finite, above 0; 1 where not given."""
    number = to_number(values)
    bad = values.notna() & ~(np.isfinite(number) & (number > 0))
    if bad.any():
        faults.append(_fault("weight must be finite and above 0", bad, ids))
    return number.fillna(1.0)


def _clashes(rows: pd.DataFrame, index: Index) -> list[str]:
    """Ids that the archive holds already; in an archive of lesions, lesions too."""
    faults = []
    taken = held(rows["image_id"], index.table["image_id"])
    if taken.any():
        what = "image_id is taken; give other ids in a column image_id"
        faults.append(_fault(what, taken, rows["image_id"]))
    if index.info.row_unit != "lesion":
        return faults
    ids = rows["lesion_id"]
    checks = {
        "lesion_id is one of the archive's; take a new one and name the image in parent_id": (
            held(ids, index.table["lesion_id"])
        ),
        "two images of one lesion in one view": rows.duplicated(["lesion_id", "view"]),
        "one lesion with two labels": rows.groupby("lesion_id")["target"].transform("nunique") > 1,
    }
    return faults + [_fault(what, bad, ids) for what, bad in checks.items() if bad.any()]


def _joined(table: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    """Put extra rows behind the train rows; the columns of use are filled for the others."""
    table = table.copy(deep=False)
    for column, default in (("external", False), ("parent_id", pd.NA), ("weight", 1.0)):
        if column not in table:
            table[column] = default
    table["parent_id"] = table["parent_id"].astype(table["image_id"].dtype)
    if "pseudo" not in table and rows["pseudo"].notna().any():
        table["pseudo"] = pd.Series(pd.NA, index=table.index, dtype="string")
    rows = rows.reindex(columns=table.columns)
    train = table["split"] == "train"
    for column in table.columns:
        kind = table[column].dtype
        if table[column].isna().all():  # its type says nothing
            table[column] = table[column].astype(rows[column].dtype)
        elif not (rows[column].isna().any() and kind.kind in "iub"):  # these hold no gap
            rows[column] = rows[column].astype(kind)
    joined = pd.concat([table[train], rows, table[~train]], ignore_index=True)
    return joined.astype({"external": bool, "weight": float})
