"""What a folder's labels mean: classes as they are called, or the shared ones of `diagnosis`.

Source: the label column, or the ISIC Archive's diagnosis_1..5 joined to a path (`A::B::C`).
Unit: one label a row, null where unlabelled. Whole numbers are brought to one form, `1.0` to `1`,
and sorted as numbers; other labels are sorted as text.
Trap: a column of ids mapped by mistake makes a class of every row; that is refused.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import pandas as pd

from isic.errors import ConfigError, DataError, first_five
from isic.index.diagnosis import malignancy, shared_classes
from isic.index.diagnosis_table import SHARED
from isic.index.folder.read import flags_of
from isic.index.schema import LEADING, PLANNED, TRAILING, USE

TARGETS = ("label", "diagnosis", "malignant")
LEVELS = tuple(f"diagnosis_{level}" for level in range(1, 6))
BINARY = ("benign", "malignant")
COARSE = "benign_malignant"
FEW_ROWS = 20  # so few may well have a class each


@dataclass
class Labels:
    """Labels of rows: `text` is the class, `raw` what the archive says, ids name rows in errors."""

    text: pd.Series
    raw: pd.Series
    ids: pd.Series
    train: pd.Series
    order: Sequence[str] = ()
    notes: list[str] = field(default_factory=list)


def labels_of(rows: pd.DataFrame, *, target: str) -> tuple[pd.DataFrame, Labels]:
    """The rows that a `target` can be said of, or that have no label at all; and their labels.

    Raises:
        DataError: No label at all, or a diagnosis that has no shared class.
    """
    empty = pd.Series(pd.NA, index=rows.index, dtype="string")
    label = _numbers_alike(rows["label"].astype("string")) if "label" in rows else empty
    raw = _path(rows) if LEVELS[0] in rows else label
    train = pd.Series(True, index=rows.index)
    if "split" in rows:
        train = ~rows["split"].str.lower().isin(["test", "testing"]).astype(bool)
    labels = Labels(label, raw, rows["image_id"], train)
    if target == "diagnosis":
        labels = Labels(shared_classes("folder", raw), raw, labels.ids, train, SHARED)
    elif target == "malignant":
        name, notes = _benign_or_malignant(rows, raw)
        labels = Labels(name, raw, labels.ids, train, BINARY, notes)
    if labels.text.isna().all():
        raise DataError(_no_label(rows))
    return _without_undecided(rows, labels) if target == "malignant" else (rows, labels)


def _no_label(rows: pd.DataFrame) -> str:
    """That there is no label, and which columns might be some."""
    flags = flags_of(rows[[c for c in rows if c not in LEADING]])
    found = (
        f"; the columns {first_five(flags)} hold 0 and 1, but not one 1 in each row"
        if flags
        else ""
    )
    return (
        f"no row has a label{found}; name the column with data.index.columns.label="
        f"{flags[0] if flags else 'COLUMN'}, or put the images into class folders and read those "
        f"with data.index.table=false"
    )


def _benign_or_malignant(rows: pd.DataFrame, raw: pd.Series) -> tuple[pd.Series, list[str]]:
    """By the diagnosis; where that leaves it open, by the ISIC Archive's `benign_malignant`."""
    name = malignancy("folder", raw).map(dict(enumerate(BINARY))).astype("string")
    if COARSE not in rows:
        return name, []
    coarse = rows[COARSE].astype("string").str.lower()
    taken = name.isna() & coarse.isin(BINARY)
    notes = [f"{int(taken.sum())} rows take benign or malignant from the column {COARSE}"]
    return name.mask(taken, coarse), notes if taken.any() else []


def _without_undecided(rows: pd.DataFrame, labels: Labels) -> tuple[pd.DataFrame, Labels]:
    """Leave out rows whose label does not say: they would be taken for unlabelled test rows."""
    kept = labels.text.notna() | labels.raw.isna() | ~labels.train
    if kept.all():
        return rows, labels
    said = first_five(f"{v} ({n})" for v, n in labels.raw[~kept].value_counts().items())
    note = (
        f"{int((~kept).sum())} train rows are neither benign nor malignant and are left out: {said}"
    )
    series = (labels.text, labels.raw, labels.ids, labels.train)
    text, raw, ids, train = (s[kept].reset_index(drop=True) for s in series)
    left = Labels(text, raw, ids, train, labels.order, [*labels.notes, note])
    return rows[kept].reset_index(drop=True), left


def one_spelling(labels: Labels, classes: Sequence[str] | None) -> None:
    """Count labels that differ in upper and lower case alone as one, with a note.

    The spelling that `classes` names stays, else the more frequent one; what `classes` names twice
    is two.
    """
    count = labels.text.value_counts().sort_index()
    kept = {str(c) for c in classes or ()}
    spelled = {name.lower(): name for name in sorted(kept)}
    for name in count.sort_values(ascending=False, kind="stable").index:
        spelled.setdefault(name.lower(), name)
    other = {n: spelled[n.lower()] for n in count.index if n not in kept}
    other = {name: to for name, to in other.items() if name != to}
    if other:
        named = first_five(
            f"{name} ({count[name]}) are counted as {to}" for name, to in other.items()
        )
        labels.notes.append(
            f"labels differ in case alone: {named}; data.index.classes=[...] keeps them"
        )
        labels.text = labels.text.replace(other)


def class_names(
    labels: Labels, *, classes: Sequence[str] | None, positive: str | None
) -> tuple[str, ...]:
    """The classes in their order, the positive one last.

    Raises:
        ConfigError: `classes` or `positive` that do not fit.
        DataError: One class only, as many as rows, or labels outside `classes`.
    """
    occur = labels.text[labels.train].dropna()
    if classes is not None:
        names = [str(c) for c in classes]
        if len(set(names)) < max(len(names), 2):
            raise ConfigError(f"data.index.classes: expected two or more different, got {names}")
    else:
        names = _sorted(occur.unique().tolist(), labels.order)
        _refuse_counts(names, len(occur))
    unknown = labels.text.notna() & ~labels.text.isin(names)
    if unknown.any():
        raise DataError(
            f"labels must be one of {first_five(names)}, got "
            f"{first_five(repr(v) for v in labels.text[unknown].unique())} in "
            f"{int(unknown.sum())} rows: {first_five(labels.ids[unknown])}; correct them, or name "
            f"all classes with data.index.classes=[...]"
        )
    kept = {*LEADING, *TRAILING, *USE, *PLANNED}
    taken = [n for n in names if n in kept or n.startswith("image_")]
    if taken:
        raise DataError(f"classes are named like columns of the index: {first_five(taken)}")
    return _positive_last(names, positive)


def _positive_last(names: list[str], positive: str | None) -> tuple[str, ...]:
    if positive is None:
        return tuple(names)
    if len(names) != 2 or str(positive) not in names:
        raise ConfigError(
            f"data.index.positive: expected one of two classes, got {positive!r} with "
            f"{first_five(names)}"
        )
    return tuple(sorted(names, key=lambda n: n == str(positive)))


def _refuse_counts(names: list[str], n_rows: int) -> None:
    if len(names) < 2:
        raise DataError(
            f"expected two or more classes, got {first_five(names)}; class folders lie beside one "
            f"another (CLASS/x.jpg), and another column of labels is named with "
            f"data.index.columns.label=COLUMN"
        )
    if len(names) == n_rows > FEW_ROWS:
        raise DataError(
            f"{len(names)} classes among {n_rows} labelled rows: {first_five(names)}; is this a "
            f"column of ids? Name that of the labels with data.index.columns.label=COLUMN"
        )


def _sorted(names: list[str], order: Sequence[str]) -> list[str]:
    if order:
        return [n for n in order if n in names]
    if all(re.fullmatch(r"-?\d+", n) for n in names):
        return sorted(names, key=int)
    return sorted(names)


def _numbers_alike(label: pd.Series) -> pd.Series:
    """`1.0` -> `1` where every label is a whole number."""
    known = label.dropna()
    if len(known) and known.str.fullmatch(r"-?\d+(\.0*)?").all():
        return label.str.replace(re.compile(r"\.0*$"), "", regex=True)
    return label


def _path(rows: pd.DataFrame) -> pd.Series:
    """diagnosis_1..5 as one path, null where the first is empty."""
    path = rows[LEVELS[0]].astype("string")
    for level in (c for c in LEVELS[1:] if c in rows):
        path = path.where(rows[level].isna(), path + "::" + rows[level].fillna(""))
    return path
