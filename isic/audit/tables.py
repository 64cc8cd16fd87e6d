"""The table itself: counts against the published ones, values never seen before, what is missing.

Source: the index, whose reader has refused a faulty table already (ids twice, no target).
Unit: row = image. Trap: counts that differ are odd, not wrong: a part of an archive, a generated
one and another release are all fine to train on. Test rows alone are not: that is wrong, whatever
else is right of them.
"""

from isic.audit.findings import NOTE, ODD, RIGHT, WRONG, Finding, Part
from isic.errors import first_five
from isic.index.schema import Index, standard_columns


def check_table(index: Index) -> Part:
    """Counts, ids, labels, vocabularies, missing values, and what the reader noted."""
    counts = counts_of(index)
    unseen = unseen_values(index)
    missing = missing_values(index)
    findings = [
        _ids(index, counts),
        *([_untrained(index)] if index.untrained else [_labels(index, counts)]),
        None if index.untrained else _counts(index, counts),
        _vocabularies(index, unseen),
        _missing(index, missing),
        *_notes(index),
    ]
    return Part(
        findings=[f for f in findings if f is not None],
        facts={
            "counts": counts,
            "published_counts": dict(index.info.published_counts),
            "unseen_values": unseen,
            "missing_values": missing,
            "columns": [str(c) for c in index.table.columns],
            "notes": list(index.notes),
        },
    )


def _untrained(index: Index) -> Finding:
    """What can be said of labels and counts where there is no train table."""
    return Finding(WRONG, "table", index.untrained)


def _notes(index: Index) -> list[Finding]:
    """What the reader met that is no fault; images that are not there are looked at apart."""
    notes = [note for note in index.notes if "no image file" not in note]
    return [Finding(NOTE, "reader", note) for note in notes]


def counts_of(index: Index) -> dict[str, int]:
    """Rows, classes, patients, lesions and images, under the names of `published_counts`."""
    table = index.table
    train = table[table["split"] == "train"]
    per_class = train["target"].value_counts()
    return {
        "train": len(train),
        "test": len(table) - len(train),
        "unlabelled": int(train["target"].isna().sum()),
        **{name: int(per_class.get(i, 0)) for i, name in enumerate(index.info.classes)},
        "patients": int(train["patient_id"].nunique()),
        "lesions": int(train["lesion_id"].nunique()),
        "images": int(table["image"].notna().sum()),
    }


def unseen_values(index: Index) -> dict[str, dict[str, int]]:
    """Column -> value -> rows, for values that the organisers' files do not hold."""
    found: dict[str, dict[str, int]] = {}
    for column, known in index.info.vocabularies.items():
        if column not in index.table:
            continue
        rows = index.table[column].dropna().astype(str).value_counts()
        unseen = {str(value): int(n) for value, n in rows.items() if value not in set(known)}
        if unseen:
            found[column] = dict(sorted(unseen.items()))
    return found


def missing_values(index: Index) -> dict[str, dict[str, int]]:
    """Split -> column -> empty cells, of the columns that have any."""
    found = {}
    for split, rows in index.table.groupby("split", sort=True):
        empty = rows.isna().sum()
        found[str(split)] = {str(c): int(n) for c, n in empty.items() if n}
    return found


def _ids(index: Index, counts: dict[str, int]) -> Finding:
    """The reader refuses ids twice: here they are counted."""
    known = [f"{counts[name]:,} {name}" for name in ("patients", "lesions") if counts[name]]
    listed = ", ".join([f"{len(index.table):,} images, each id once", *known])
    return Finding(RIGHT, "ids", f"{listed} (train {counts['train']:,}, test {counts['test']:,})")


def _labels(index: Index, counts: dict[str, int]) -> Finding:
    labelled = counts["train"] - counts["unlabelled"]
    listed = ", ".join(f"{name} {counts[name]:,}" for name in index.info.classes)
    text = f"{labelled:,} labelled: {listed}"
    if not counts["unlabelled"]:
        return Finding(RIGHT, "labels", text)
    return Finding(
        ODD,
        "labels",
        f"{text}; {counts['unlabelled']:,} train rows have none",
        "they are left out of training; complete the ground truth to use them",
    )


def _counts(index: Index, counts: dict[str, int]) -> Finding | None:
    published = index.info.published_counts
    compared = {name: n for name, n in published.items() if name in counts}
    if not compared:
        return None
    differing = [
        f"{name} {counts[name]:,} of {n:,}" for name, n in compared.items() if counts[name] != n
    ]
    if not differing:
        return Finding(RIGHT, "counts", f"{len(compared)} counts are the published ones")
    return Finding(
        ODD,
        "counts",
        f"other than published: {first_five(differing)}",
        "nothing if it is meant to be a part, generated or another release; else download again",
    )


def _vocabularies(index: Index, unseen: dict[str, dict[str, int]]) -> Finding | None:
    checked = [c for c in index.info.vocabularies if c in index.table]
    if not checked:
        return None
    if not unseen:
        return Finding(RIGHT, "values", f"{', '.join(checked)} hold the organisers' values only")
    listed = "; ".join(
        f"{column}: {first_five(f'{value} ({n:,})' for value, n in values.items())}"
        for column, values in unseen.items()
    )
    return Finding(ODD, "values", f"never seen before: {listed}", "correct misspelt ones")


def _missing(index: Index, missing: dict[str, dict[str, int]]) -> Finding:
    """Name the columns that people use as features; count the others."""
    split = "test" if index.untrained else "train"
    n = int((index.table["split"] == split).sum())
    empty, standard = missing.get(split, {}), standard_columns(index.info)
    usual = [
        f"{c} {'all' if empty[c] == n else format(empty[c], ',')}"
        for c in ("age", "sex", "site", "attribution")
        if c in empty
    ]
    others = [c for c in empty if c not in standard and empty[c] < n]
    more = [f"{len(others)} of the archive's own columns in part"] if others else []
    listed = ", ".join([*usual, *more]) or "none of age, sex, site and attribution"
    return Finding(RIGHT, "empty", f"of {n:,} {split} rows: {listed}")
