"""The rows of one archive among others: shared label, mounted image, one row an image over all.

Source: an index as its reader gives it. Unit: one row an image.
Trap: two archives may hold one image, under one id or as `X_downsampled` beside `X`. Of one id the
first part's row stays; a test image of the first part trains nowhere, in whatever form.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from isic.errors import DataError, first_five
from isic.index.diagnosis import malignancy, shared_classes, unknown_labels
from isic.index.schema import USE, Index

BINARY = ("benign", "malignant")
MIXED = "AKIEC"
SUFFIX = "_downsampled"  # ISIC 2019's mark on an image that other years hold in full


@dataclass(frozen=True)
class Part:
    """One archive as its reader gives it, under the name of its module."""

    name: str
    index: Index


def part_rows(
    part: Part, classes: tuple[str, ...], *, external: bool, without: Sequence[str] = ()
) -> tuple[pd.DataFrame, list[str]]:
    """Return a part's rows with shared targets and mounted images, and notes.

    external: Take train rows only, and mark them so.
    without: Classes whose external rows are left out.

    Raises:
        DataError: Labels that have no shared class, or no train row with one.
    """
    table, notes = part.index.table, list[str]()
    if external:
        table = table[table["split"] == "train"]
    raw = _raw_labels(part, table, notes)
    label = _shared_labels(part, table, raw, classes, notes)
    unsaid = label.isna() & (table["split"] == "train")
    if unsaid.any():
        said = raw[unsaid].fillna("(none)").value_counts()
        named = first_five(f"{name} ({n})" for name, n in said.items())
        notes.append(f"{int(unsaid.sum())} train rows without a shared label are left out: {named}")
    unwanted = label.isin(list(without)) & external
    if unwanted.any():
        named = ", ".join(without)
        notes.append(f"{int(unwanted.sum())} train rows of {named} are left out (index.without)")
    if (label.isna() | unwanted).all():
        raise DataError(
            f"{part.name}: no row says which of {', '.join(classes)} it is; leave the part out of "
            f"data.parts, or take another data.index.target"
        )
    # Columns of the part's own classes would give the shared label away.
    own = [c for c in part.index.info.classes if c in table]
    rows = table.drop(columns=own).assign(
        target=label.map({name: i for i, name in enumerate(classes)}).astype("Int64"),
        external=external,
        image=mounted(table["image"], part.name),
    )
    return rows[~unsaid & ~unwanted], notes


def _raw_labels(part: Part, table: pd.DataFrame, notes: list[str]) -> pd.Series:
    """The diagnosis as the archive spells it; its class where there is none, or an unheard one.

    MILK10k knows the class of each lesion, and the diagnosis only with the supplement.
    """
    raw = table["diagnosis"]
    if part.index.info.task == "binary":
        return raw
    own = _own_class(part, table)
    strange = unknown_labels(part.name, raw)
    if strange and not unknown_labels(part.name, own):
        notes.append(
            f"{len(strange)} diagnoses are not in the table of shared classes; their rows take "
            f"that of their own class: {first_five(map(repr, strange))}"
        )
        raw = raw.mask(raw.isin(strange))
    return raw.fillna(own)


def _shared_labels(
    part: Part, table: pd.DataFrame, raw: pd.Series, classes: tuple[str, ...], notes: list[str]
) -> pd.Series:
    """The shared class, or benign or malignant, of each row; missing where it is not said."""
    if classes != BINARY:
        if n := int((raw == MIXED).sum()):
            notes.append(
                f"{n} rows of {MIXED} are AK here, though some of them are Bowen's disease, which "
                "is SCC elsewhere: the supplement tells them apart"
            )
        return shared_classes(part.name, raw)
    if part.index.info.classes == BINARY:
        return _own_class(part, table)
    return malignancy(part.name, raw).map(dict(enumerate(BINARY)))


def _own_class(part: Part, table: pd.DataFrame) -> pd.Series:
    return table["target"].map(dict(enumerate(part.index.info.classes)))


def mounted(image: pd.Series, name: str) -> pd.Series:
    """`x.jpg` -> `@part/x.jpg`, `@own/x.jpg` -> `@part.own/x.jpg`."""
    return image.map(
        lambda ref: f"@{name}.{ref[1:]}" if ref.startswith("@") else f"@{name}/{ref}",
        na_action="ignore",
    )


def without_twins(frames: list[pd.DataFrame]) -> tuple[pd.DataFrame, list[str]]:
    """Return one table of the columns that all parts have and those of use, and notes.

    The row that stays of an image takes patient and lesion from the others where it has none.
    """
    shared = [c for c in frames[0] if all(c in f for f in frames)]
    used = [c for c in USE if any(c in f for f in frames) and c not in shared]
    table = pd.concat([f.reindex(columns=[*shared, *used]) for f in frames], ignore_index=True)
    bare = table["image_id"].str.removesuffix(SUFFIX)
    is_test = table["split"] == "test"
    tested = table["external"] & bare.isin(bare[is_test])
    twin = table["image_id"].duplicated() | tested
    for column in ("patient_id", "lesion_id"):
        known = table.dropna(subset=[column]).drop_duplicates("image_id").set_index("image_id")
        table[column] = table[column].fillna(table["image_id"].map(known[column]))
    if not twin.any():
        return table, []
    count = table.loc[twin, "archive"].value_counts()
    parts = ", ".join(f"{n} of {name}" for name, n in count.items())
    named = first_five(table.loc[twin, "image_id"])
    notes = [f"{parts} are images of an earlier part, or its test images, left out: {named}"]
    return table[~twin].reset_index(drop=True), notes
