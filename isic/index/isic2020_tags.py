"""Cells that SIIM-ISIC 2020's tables leave open, filled from the tags of its DICOM files.

Source: PatientID, PatientAge, PatientSex (M, F) and BodyPartExamined of the `.dcm` files; nothing
else of them is read (`isic.images.dicom.ALLOWED`), and no pixel.
Unit: one row an image. A header is opened only where the image is a DICOM file and a cell of its
row is empty: reading all 44,000 would take minutes, and the tables have nearly everything.
Trap: the table counts where both say something; what disagrees is named, among the files read.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from isic.errors import first_five
from isic.images.decode import ImageError
from isic.images.dicom import Tags, dicom_tags
from isic.images.sources import DICOM
from isic.index.raw_csv import without_gaps
from isic.index.sites import SOURCES

TAGS = {
    "patient_id": "PatientID",
    "age": "PatientAge",
    "sex": "PatientSex",
    "site": "BodyPartExamined",
}
VALUES: dict[str, dict[str, str]] = {
    "sex": {"M": "male", "F": "female"},
    "site": {site.upper(): site for site in SOURCES["isic2020"]},
}


def filled_from_tags(
    root: Path, rows: pd.DataFrame, refs: pd.Series
) -> tuple[pd.DataFrame, list[str]]:
    """Return the rows with the columns of `TAGS` filled where empty, and notes.

    refs: The image of each row, relative to the root; null where there is none.
    """
    is_dicom = refs.str.lower().str.endswith(DICOM).fillna(False).astype(bool)
    wanted = refs[is_dicom & rows[list(TAGS)].isna().any(axis=1)]
    if wanted.empty:
        return rows, []
    tags, notes = _read(root, wanted)
    rows, filled = rows.copy(), []
    for column, tag in TAGS.items():
        values, strange = _values(tags[tag], column)
        if strange:
            notes.append(f"{tag} of DICOM files is not used where it is {strange}")
        table = rows.loc[values.index, column]
        unlike = rows.loc[values.index[table.notna() & (table != values)], "image_id"]
        if len(unlike):
            notes.append(
                f"{column}: {len(unlike)} DICOM tags disagree with the table, which counts: "
                f"{first_five(unlike)}"
            )
        new = values[table.isna()]
        rows.loc[new.index, column] = new
        filled += [(len(new), column)] if len(new) else []
    if filled:
        said = ", ".join(f"{n} of {column}" for n, column in filled)
        total = sum(n for n, _ in filled)
        notes.insert(0, f"{total} empty cells are filled from DICOM tags: {said}")
    return rows, notes


def _read(root: Path, refs: pd.Series) -> tuple[pd.DataFrame, list[str]]:
    """The tags of each file, null where it has none; a note of files that cannot be read."""
    found, bad = dict[int, Tags](), []
    for row, ref in refs.items():
        try:
            found[int(str(row))] = dicom_tags(root / ref)
        except (ImageError, OSError) as error:
            bad.append(f"{ref} ({error})")
    tags = pd.DataFrame.from_dict(found, orient="index", columns=None).reindex(
        columns=list(TAGS.values())
    )
    said = f"{len(bad)} DICOM files whose tags cannot be read: {first_five(bad)}"
    return tags, [said] if bad else []


def _values(tag: pd.Series, column: str) -> tuple[pd.Series, str]:
    """A tag's known values in the table's own words, and the first values that are no such word."""
    if column == "age":
        return tag.dropna().astype(np.float64), ""
    text = without_gaps(tag.dropna().astype("string"), group=column == "patient_id").dropna()
    if column == "patient_id":
        return text.astype(object), ""
    words = VALUES[column]
    strange = text[~text.str.upper().isin(list(words))].unique()
    return text.str.upper().map(words).dropna().astype(object), first_five(map(repr, strange))
