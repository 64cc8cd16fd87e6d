"""What would make a score too good: patients, lesions and pictures on both sides, unequal labels.

Source: the ids of the index, and the pairs of images that show the same (`isic.split.overlap`).
Unit: patient, lesion, image or pair of images.
Trap: that nothing is found says little where nothing is known: each line says among how many.
Trap: a pair within one patient is harmless, folds keep it together; across patients it is what
folds by patient would miss, and the reason why splits follow such pairs.
"""

from collections.abc import Iterable

import pandas as pd

from isic.audit.findings import ODD, RIGHT, Finding, Part
from isic.errors import first_five
from isic.index.schema import LEADING, USE, Index
from isic.split.groups import bare, group_of

Pairs = Iterable[tuple[str, str, str]]
NAMES = ("image_id", "duplicate_of", "parent_id")


def check_ids(index: Index) -> Part:
    """Patients, lesions and images of train and of test, and columns of train alone."""
    table = index.table
    shared = {f"{what}s": _in_both(table[f"{what}_id"], table) for what in ("patient", "lesion")}
    shared["images"] = _in_both(*_named(table))
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
    if not index.untrained:
        findings[:0] = _unshared(table, shared)
    if undeclared:
        text = f"known for train rows only, and not listed as such: {first_five(undeclared)}"
        todo = "no features; list them in train_only_columns of the archive's reader"
        findings.append(Finding(ODD, "train-only", text, todo))
    facts = {
        **{f"{what}_in_train_and_test": ids for what, ids in shared.items()},
        "train_only_columns": [c for c in index.info.train_only_columns if c in table],
        "train_only_columns_not_listed": undeclared,
    }
    return Part(findings, facts)


def check_pairs(index: Index, pairs: Pairs, *, n_read: int) -> Part:
    """What pairs of images that show the same mean for folds, test scores and labels.

    n_read: Images that were compared; the others of the table may show anything.
    """
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
        within = f"{len(found):,} pairs show the same, each within a patient or lesion"
        among = f"{n_read:,} images that were read" + _unread(len(table) - n_read)
        text = f"{within if len(found) else 'no two show the same'}, among {among}"
        findings = [Finding(RIGHT, "copies", text)]
    counts = {str(kind): int(n) for kind, n in found["kind"].value_counts().items()}
    return Part(findings, {"images": n_read, "pairs": dict(sorted(counts.items())), **named})


def _unread(n: int) -> str:
    return f"; nothing is known of the {n:,} others" if n else ""


def _unshared(table: pd.DataFrame, shared: dict[str, list[str]]) -> list[Finding]:
    """What train and test do not share, and where that cannot be said."""
    train, test = (table[table["split"] == split] for split in ("train", "test"))
    known = {
        split: {k: int(rows[f"{k[:-1]}_id"].notna().sum()) for k in ("patients", "lesions")}
        for split, rows in (("train", train), ("test", test))
    }
    todo = "a score may be too good: add patient_id or lesion_id, or trust it less"
    if not any(known["train"].values()):
        text = (
            "no patient or lesion of a train row is known: nothing can be said of what two folds"
            + (", or train and test, share" if len(test) else " share")
        )
        return [Finding(ODD, "leaks", text, todo)]
    if test.empty:
        return [Finding(RIGHT, "leaks", "there are no test rows that could share a patient")]
    compared = [k for k in known["train"] if known["train"][k] and known["test"][k]]
    if not compared:
        text = "no patient or lesion of a test row is known: nothing can be said of what train and"
        return [Finding(ODD, "leaks", f"{text} test share", todo)]
    return [
        Finding(
            RIGHT,
            "leaks",
            f"none of the {k} is in train and in test; known for {known['train'][k]:,} of "
            f"{len(train):,} train rows and {known['test'][k]:,} of {len(test):,} test rows",
        )
        for k in compared
        if not shared[k]
    ]


def _named(table: pd.DataFrame) -> tuple[pd.Series, pd.DataFrame]:
    """Names of images as the splits see them, of the row or what it is made from, and its split."""
    frame = pd.concat([table[["split"]].assign(name=table[c]) for c in NAMES if c in table])
    known = frame[frame["name"].notna()]
    return bare(known["name"].astype("string")), known


def _in_both(ids: pd.Series, table: pd.DataFrame) -> list[str]:
    """The ids that train and test rows share."""
    sides = [set(ids[(table["split"] == split).to_numpy()].dropna()) for split in ("train", "test")]
    return sorted(map(str, sides[0] & sides[1]))


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
