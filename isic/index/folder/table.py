"""A CSV of any column names beside images -> rows: which column is what, and which file is whose.

Source: the user's table, or train.csv and test.csv. `columns` of the config names columns by role;
a role that is left open takes the first known name (`ROLES`), upper or lower case, and a note says
which. Labels may also be spread over columns of 0 and 1.
Unit: one row an image: the roles as columns, `image` a reference (null where no file is found),
`image_id`, and every other column of the file under its own name.
Trap: a column of the file may bear the name of one that the index makes (`weight`, `target`); it
becomes `raw_<name>`.
"""

import csv
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

import pandas as pd

from isic.errors import ConfigError, DataError, first_five
from isic.index.folder.match import Finder
from isic.index.folder.read import header_of, read_text
from isic.index.raw_csv import without_gaps
from isic.index.schema import LEADING

# Names by role, best first: the ISIC Archive's, the challenges', HAM10000's and PAD-UFES-20's.
ROLES = {
    "image": "isic_id image image_id image_name img_id file_name filename file image_path filepath "
    "file_path path name id",
    "label": "diagnosis_1 label class target benign_malignant diagnosis dx diagnostic category "
    "malignant",
    "patient": "patient_id patient subject_id",
    "lesion": "lesion_id lesion",
    "age": "age_approx age",
    "sex": "sex gender",
    "site": "anatom_site_general anatom_site_general_challenge anatom_site_1 site localization "
    "region anatom_site",
    "split": "split set subset partition",
    "attribution": "attribution institution",
    "view": "image_type view",
}
# Role -> the index's column, where it is another.
INDEX_COLUMNS = {"patient": "patient_id", "lesion": "lesion_id"}
# Columns of the ISIC Archive, HAM10000, DDI and Fitzpatrick 17k that give the label away, in
# lower case.
LEAKS = (
    *("diagnosis", "benign_malignant", "target", "malignant", "dx", "diagnostic", "disease"),
    *("nine_partition_label", "three_partition_label"),
    *(f"diagnosis_{level}" for level in range(1, 6)),
    *("melanocytic", "concomitant_biopsy", "diagnosis_confirm_type", "dx_type", "biopsed"),
    *("mel_class", "mel_mitotic_index", "mel_thick_mm", "mel_type", "mel_ulcer", "nevus_type"),
)
OTHER_ENDINGS = ("", ".tab", ".tsv", ".txt")
MATCHED_ROWS = 200  # enough to tell a column of file names from a column of numbers

Columns = Mapping[str, str | bool | None]


def read_table(root: Path, table: str | bool | None) -> tuple[str, pd.DataFrame] | None:
    """The name and the cells of the table: the one named, metadata.csv, or the only one.

    train.csv and test.csv are one table, with a column `split`. None where there is no CSV, or
    none is wanted (False).

    Raises:
        ConfigError: A name that leaves the root.
        DataError: No such file, one that cannot be read, or several to choose from.
    """
    if table is False:
        return None
    if table is not None:
        table = str(table)
        if PurePosixPath(table).is_absolute() or ".." in PurePosixPath(table).parts:
            raise ConfigError(f"data.index.table: expected a file inside data.root, got {table}")
        return table, read_text(root / table)
    # A zip made on a Mac has `._metadata.csv` beside metadata.csv.
    names = [p for p in sorted(root.iterdir()) if not p.name.startswith(".")]
    found = {p.name.lower(): p for p in names if p.is_file() and _is_table(p)}
    if "metadata.csv" in found or len(found) == 1:
        path = found.get("metadata.csv") or next(iter(found.values()))
        return path.name, read_text(path)
    if {"train.csv", "test.csv"} <= set(found):
        frames = [read_text(found[f"{s}.csv"]).assign(split=s) for s in ("train", "test")]
        return "train.csv and test.csv", pd.concat(frames, ignore_index=True).astype("string")
    if found:
        named = first_five(p.name for p in found.values())
        raise DataError(
            f"{root.absolute()} holds {len(found)} tables: {named}; name the one to read with "
            f"data.index.table=FILE, or read class folders with data.index.table=false"
        )
    return None


def _is_table(path: Path) -> bool:
    """A CSV by its ending, or a text whose first line names images and something else known.

    HAM10000's table came as `HAM10000_metadata` and as `.tab`.
    """
    if path.suffix.lower() == ".csv":
        return True
    if path.suffix.lower() not in OTHER_ENDINGS:
        return False
    try:
        header = {name.strip().lower() for name in header_of(path)[1]}
    except (OSError, UnicodeDecodeError, csv.Error):
        return False
    known = [role for role, names in ROLES.items() if header & set(names.split())]
    return "image" in known and len(known) > 1


def table_rows(
    raw: pd.DataFrame, files: list[str], columns: Columns, *, where: str
) -> tuple[pd.DataFrame, dict[str, str], list[str]]:
    """Bring a table's columns to their roles and find its images.

    where: The table's name, for messages.
    files: Paths of all image files, relative to the root.

    Returns:
        The rows, the column that each role takes, and notes.
    """
    finder = Finder(files)
    roles = assign_roles(raw, columns, finder, where=where)
    if "image" not in roles:
        raise DataError(
            f"{where}: no column of image names; looked for {ROLES['image'].replace(' ', ', ')}; "
            f"it has {', '.join(raw.columns)}; name it with data.index.columns.image=COLUMN, or "
            "read class folders instead with data.index.table=false"
        )
    rows = pd.DataFrame({INDEX_COLUMNS.get(r, r): raw[c] for r, c in roles.items()})
    for column in ("patient_id", "lesion_id", "sex", "site", "age"):
        if column in rows:
            rows[column] = without_gaps(rows[column], group=column.endswith("_id"))
    rows["image_id"], rows["image"], notes = finder.rows(rows["image"], where=where)
    # The image column stays where ids are not what the user wrote.
    kept = {*LEAKS, roles["image"]} if (rows["image_id"] != raw[roles["image"]]).any() else LEAKS
    own = [c for c in raw.columns if c not in roles.values() or c in kept]
    spread = [] if "label" in roles or columns.get("label") is False else _one_hot(raw[own])
    if spread:
        number = raw[spread].fillna("0").apply(pd.to_numeric)
        rows["label"] = number.idxmax(axis=1).astype("string")
        rows.loc[raw[spread].isna().all(axis=1), "label"] = pd.NA
        notes.append(f"labels are spread over {len(spread)} columns: {first_five(spread)}")
        own = [c for c in own if c not in spread]
    taken = {*rows.columns, *LEADING}
    renamed = {c: f"raw_{c}" if c in taken else c for c in own}
    return rows.join(raw[own].rename(columns=renamed)), roles, notes


def _one_hot(raw: pd.DataFrame) -> list[str]:
    """The columns of 0 and 1 of which each labelled row has one 1; empty where there are none."""
    number = raw.apply(pd.to_numeric, errors="coerce")
    spread = [str(c) for c in raw if (raw[c].isna() | number[c].isin([0, 1])).all()]
    labelled = number.loc[raw[spread].notna().any(axis=1), spread]
    if len(spread) > 1 and len(labelled) and (labelled.sum(axis=1) == 1).all():
        return spread
    return []


def _hits(finder: Finder, raw: pd.DataFrame, column: str) -> int:
    """How many of the column's first values name an image."""
    values: pd.Series = raw[column]
    return finder.hits(values.dropna().head(MATCHED_ROWS).tolist())


def assign_roles(
    raw: pd.DataFrame, columns: Columns, finder: Finder, *, where: str
) -> dict[str, str]:
    """Role -> column. Raises ConfigError for roles or columns that do not exist."""
    if strange := sorted(set(columns) - set(ROLES)):
        raise ConfigError(
            f"data.index.columns: expected {', '.join(ROLES)}, got {first_five(strange)}"
        )
    lower = {c.lower(): c for c in reversed(raw.columns)}
    roles = {}
    for role, names in ROLES.items():
        given = columns.get(role)
        if given is False:
            continue
        if given is not None:
            if given not in raw:
                raise ConfigError(
                    f"data.index.columns.{role}: expected a column of {where}, got {given!r}; it "
                    f"has {', '.join(raw.columns)}"
                )
            roles[role] = str(given)
            continue
        known = [lower[n] for n in names.split() if n in lower]
        if role == "image":
            known.sort(key=lambda c: -_hits(finder, raw, c))
        if known:
            roles[role] = known[0]
    return roles
