"""A CSV of any column names beside images -> rows: which column is what, and which file is whose.

Source: the user's table, or train.csv and test.csv. `columns` of the config names columns by role;
a role that is left open takes the first known name (`ROLES`), upper or lower case, and a note says
which. Labels may also be spread over columns of 0 and 1.
Unit: one row an image: the roles as columns, `image` a reference (null where no file is found),
`image_id`, and every other column of the file under its own name.
Trap: a column of the file may bear the name of one that the index makes (`weight`, `target`); it
becomes `raw_<name>`.
"""

from collections.abc import Mapping

import pandas as pd

from isic.errors import ConfigError, DataError, first_five
from isic.index.folder.match import Finder
from isic.index.folder.read import flags_of
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
# Labels that are diagnoses: where a shared target is asked for, they come before other labels.
DIAGNOSES = ("diagnosis_1", "diagnosis", "dx", "diagnostic")
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
MATCHED_ROWS = 200  # enough to tell a column of file names from a column of numbers

Columns = Mapping[str, str | bool | None]


def table_rows(
    raw: pd.DataFrame, finder: Finder, columns: Columns, *, where: str, diagnoses: bool = False
) -> tuple[pd.DataFrame, dict[str, str], list[str]]:
    """Bring a table's columns to their roles and find its images.

    finder: All image files.
    where: The table's name, for messages.
    diagnoses: Whether labels are wanted that are diagnoses.

    Returns:
        The rows, the column that each role takes, and notes.
    """
    _refuse_headless(raw, finder, where)
    roles = assign_roles(raw, columns, finder, where=where, diagnoses=diagnoses)
    if "image" not in roles:
        raise DataError(_no_images(raw, finder, where))
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


def _no_images(raw: pd.DataFrame, finder: Finder, where: str) -> str:
    """That no column is known for one of images, and which might be."""
    some = [c for c in map(str, raw) if any(_hits(finder, raw, c))]
    guess = f" (names of image files are in {first_five(some)})" if some else ""
    return (
        f"{where}: no column of image names; looked for {ROLES['image'].replace(' ', ', ')}; "
        f"it has {', '.join(raw.columns)}{guess}; name it with data.index.columns.image=COLUMN, "
        f"or read class folders instead with data.index.table=false"
    )


def _one_hot(raw: pd.DataFrame) -> list[str]:
    """The columns of 0 and 1 of which each labelled row has one 1; empty where there are none."""
    spread = flags_of(raw)
    labelled = raw.loc[raw[spread].notna().any(axis=1), spread].apply(pd.to_numeric)
    if len(spread) > 1 and len(labelled) and (labelled.sum(axis=1) == 1).all():
        return spread
    return []


def _refuse_headless(raw: pd.DataFrame, finder: Finder, where: str) -> None:
    """A first line that names an image, as those below it do, is a row, which would be lost."""
    known = {name for names in ROLES.values() for name in names.split()}
    named = [c for c in map(str, raw) if c.lower() not in known and finder.hits([c])]
    if lost := [c for c in named if any(_hits(finder, raw, c))]:
        raise DataError(
            f"{where}: the first line is data, not the names of columns, since {lost[0]} names an "
            f"image that is there; put a line of names above it, such as image,label"
        )


def _hits(finder: Finder, raw: pd.DataFrame, column: str) -> tuple[int, int]:
    """How many of the column's first values name an image; and how many if folders are left out."""
    first = raw[column].dropna().head(MATCHED_ROWS).tolist()
    return finder.hits(first), finder.names(first)


def assign_roles(
    raw: pd.DataFrame, columns: Columns, finder: Finder, *, where: str, diagnoses: bool = False
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
            known.sort(key=lambda c: _hits(finder, raw, c), reverse=True)
        if role == "label" and diagnoses:
            known.sort(key=lambda c: c.lower() not in DIAGNOSES)
        if known:
            roles[role] = known[0]
    return roles
