"""Lesions whose images contradict each other: labels, patients, and what is one of a lesion.

Unit: lesion. Where a lesion is a sample (MILK10k), its row takes age, sex, site and tone of its
first view (`sample_rows`), so that what another view says of them is lost.
Trap: where an image is a sample, years may lie between two of one lesion: only labels and patients
are compared there.
"""

import pandas as pd

from isic.audit.findings import ODD, Finding, Part
from isic.errors import first_five
from isic.index.schema import Index

# What is of the image; image_type is the archive's own name of the view.
OF_IMAGE = ("image_id", "view", "image", "image_type", "split")


def check_lesions(index: Index) -> Part:
    """Lesions of several labels, of several patients, and with columns that differ by view."""
    table = index.table
    labels = _several(table, "target")
    patients = _several(table, "patient_id")
    findings = [
        Finding(
            ODD,
            "lesions",
            f"{len(ids):,} lesions have several {what}: {first_five(ids)}",
            "correct the table, or know why",
        )
        for ids, what in ((labels, "labels"), (patients, "patients"))
        if ids
    ]
    differing = _differing(index)
    if differing:
        named = "; ".join(f"{c} in {len(ids):,}: {first_five(ids)}" for c, ids in differing.items())
        text = f"images of one lesion differ in what is taken as the lesion's, {named}"
        todo = f"correct the table: the {index.info.views[0]} image's value is taken"
        findings.append(Finding(ODD, "lesions", text, todo))
    facts = {"several_labels": labels, "several_patients": patients, "columns_differ": differing}
    return Part(findings, facts)


def _several(table: pd.DataFrame, of: str) -> list[str]:
    """The lesions whose rows hold more than one known value of `of`."""
    pairs = table[["lesion_id", of]].dropna().drop_duplicates()
    return sorted(map(str, pairs.loc[pairs["lesion_id"].duplicated(), "lesion_id"].unique()))


def _differing(index: Index) -> dict[str, list[str]]:
    """Column -> lesions whose images hold different values, an empty one being a value too."""
    if index.info.row_unit == "image":
        return {}
    table, info = index.table, index.info
    apart = {*OF_IMAGE, *info.view_columns, *info.classes, "lesion_id", "patient_id", "target"}
    found = {}
    for column in (c for c in table.columns if c not in apart):
        pairs = table[["lesion_id", column]].drop_duplicates()
        twice = pairs.loc[pairs["lesion_id"].duplicated(), "lesion_id"].dropna()
        if len(twice):
            found[str(column)] = sorted(map(str, twice.unique()))
    return found
