"""What would make a score too good: patients, lesions and pictures on both sides, unequal labels.

Source: the ids of the index, and the pairs of images that show the same (`isic.split.overlap`).
Unit: patient, lesion, or pair of images.
Trap: a pair within one patient is harmless, folds keep it together; across patients it is what
folds by patient would miss, and the reason why splits follow such pairs.
"""

from collections.abc import Iterable

import pandas as pd

from isic.audit.findings import ODD, RIGHT, Finding, Part
from isic.errors import first_five
from isic.index.schema import LEADING, USE, Index
from isic.split.groups import group_of

Pairs = Iterable[tuple[str, str, str]]


def check_ids(index: Index) -> Part:
    """Ids in train and test, lesions of several labels or patients, columns of train alone."""
    table = index.table
    shared = {f"{what}s": _in_both(table, f"{what}_id") for what in ("patient", "lesion")}
    labels = _several(table, "lesion_id", "target")
    patients = _several(table, "lesion_id", "patient_id")
    undeclared = _train_only(index)
    findings = [
        Finding(
            ODD,
            "leaks",
            f"{len(ids):,} {what} are in train and in test: {first_five(ids)}",
            "a score on test is too good by them; leave their train rows out",
        )
        for what, ids in shared.items()
        if ids
    ]
    for ids, what in ((labels, "labels"), (patients, "patients")):
        if ids:
            text = f"{len(ids):,} lesions have several {what}: {first_five(ids)}"
            findings.append(Finding(ODD, "lesions", text, "correct the table, or know why"))
    if undeclared:
        text = f"known for train rows only, and not listed as such: {first_five(undeclared)}"
        todo = "no features; list them in train_only_columns of the archive's reader"
        findings.append(Finding(ODD, "train-only", text, todo))
    if not any(shared.values()):
        findings.insert(0, Finding(RIGHT, "leaks", _unshared(table[table["split"] == "test"])))
    facts = {
        **{f"{what}_in_train_and_test": ids for what, ids in shared.items()},
        "lesions_with_several_labels": labels,
        "lesions_of_several_patients": patients,
        "train_only_columns": [c for c in index.info.train_only_columns if c in table],
        "train_only_columns_not_listed": undeclared,
    }
    return Part(findings, facts)


def check_pairs(index: Index, pairs: Pairs) -> Part:
    """What pairs of images that show the same mean for folds, test scores and labels."""
    table = index.table.assign(group=group_of(index.table)).set_index("image_id")
    found = pd.DataFrame(
        sorted((*sorted((a, b)), kind) for a, b, kind in pairs), columns=["a", "b", "kind"]
    )
    a, b = table.loc[found["a"]], table.loc[found["b"]]
    sides = a["split"].to_numpy() != b["split"].to_numpy()
    labels = (a["target"].to_numpy(float, na_value=-1), b["target"].to_numpy(float, na_value=-1))
    unequal = (labels[0] != labels[1]) & (labels[0] >= 0) & (labels[1] >= 0)
    groups = (a["group"].to_numpy() != b["group"].to_numpy()) & ~sides
    kinds = {
        "across_train_and_test": sides,
        "with_different_labels": unequal,
        "across_groups": groups,
    }
    named = {
        kind: [f"{x} = {y}" for x, y in found.loc[mask, ["a", "b"]].itertuples(index=False)]
        for kind, mask in kinds.items()
    }
    words = {
        "across_train_and_test": (
            "show the same in train and test",
            "a score on test is too good by them; leave their train images out",
        ),
        "with_different_labels": ("show the same under different labels", "one label is wrong"),
        "across_groups": (
            "show the same under two patients or lesions",
            "folds keep them together unless split.overlap=false",
        ),
    }
    findings = [
        Finding(
            ODD, "copies", f"{len(ids):,} pairs {words[kind][0]}: {first_five(ids)}", words[kind][1]
        )
        for kind, ids in named.items()
        if ids
    ]
    if not findings:
        text = f"{len(found):,} pairs show the same, each within a patient or lesion"
        text = text if len(found) else "no two images show the same"
        findings = [Finding(RIGHT, "copies", text)]
    counts = {str(kind): int(n) for kind, n in found["kind"].value_counts().items()}
    return Part(findings, {"pairs": dict(sorted(counts.items())), **named})


def _unshared(test: pd.DataFrame) -> str:
    if test.empty:
        return "there are no test rows that could share a patient"
    if test[["patient_id", "lesion_id"]].isna().all(axis=None):
        return "test rows name no patient or lesion that train rows could share"
    return "no patient or lesion is in train and in test"


def _in_both(table: pd.DataFrame, column: str) -> list[str]:
    """The ids that train and test rows share."""
    ids = {split: set(rows.dropna()) for split, rows in table.groupby("split")[column]}
    return sorted(map(str, ids.get("train", set()) & ids.get("test", set())))


def _several(table: pd.DataFrame, column: str, of: str) -> list[str]:
    """The ids of `column` whose rows hold more than one value of `of`."""
    pairs = table[[column, of]].dropna().drop_duplicates()
    return sorted(map(str, pairs.loc[pairs[column].duplicated(), column].unique()))


def _train_only(index: Index) -> list[str]:
    """Columns with values in train rows and none in test rows that the archive does not list."""
    table = index.table
    test = table[table["split"] == "test"]
    if test.empty:
        return []
    listed = {*index.info.train_only_columns, *index.info.classes, *LEADING, *USE, "image", "split"}
    own = [c for c in table.columns if c not in listed]
    train = table[table["split"] == "train"]
    return [str(c) for c in own if test[c].isna().all() and train[c].notna().any()]
