"""One vocabulary of diagnoses over all archives: raw label -> shared class, and malignant or not.

Source: `diagnosis_table`, which names the source of each block. The shared classes are the nine of
ISIC 2019 and three that it lacks: inflammatory, other benign, other malignant.
Unit: a raw label of one archive; upper and lower case are one, and a path of the ISIC Archive
(`Malignant::...::Basal cell carcinoma`) is read level by level.
Trap: a label that nobody has listed is named in an error and never becomes UNK, which means that
the archive itself does not say what the lesion is.
"""

import re
from functools import lru_cache
from typing import NamedTuple

import pandas as pd

from isic.errors import DataError, first_five
from isic.index.diagnosis_table import (
    MILK10K_FULL,
    MILK10K_SPLIT,
    NAMES,
    SHARED,
    TREE,
    TREE_MALIGNANT,
    TREE_SOURCE,
)

# A folder of one's own may speak any of these languages; the first that knows a word wins.
ANY = ("archive_words", "archive_signs", "isic2019", "milk10k", "ham10000", "pad_ufes")


class Meaning(NamedTuple):
    """What a raw label says: its shared class, malignant (1, 0, None: not said), and the source."""

    shared: str
    malignant: int | None
    source: str


def meaning(archive: str, raw: str) -> Meaning | None:
    """What `raw` means in `archive`; None where the label is unknown.

    archive: A reader's name; ISIC 2024 has the ISIC Archive's tree, and any other name (a folder)
        the tree and the words of all archives.
    """
    key = raw.strip().lower()
    if archive in ("isic2019", "isic2020", "milk10k"):
        return _words(archive).get(key)
    found = _from_tree(tuple(re.split(r"\s*::?\s*", key)))
    if found is None and archive != "isic2024":
        found = next((_words(name)[key] for name in ANY if key in _words(name)), None)
    return found


def shared_class(archive: str, raw: str) -> str:
    """The shared class of one raw label. Raises DataError where it is unknown."""
    found = meaning(archive, raw)
    if found is None:
        raise DataError(_unknown_message(archive, [raw]))
    return found.shared


def shared_classes(archive: str, raw: pd.Series) -> pd.Series:
    """The shared class of each row, missing where `raw` is. Raises DataError: unknown labels."""
    return raw.map({v: m.shared for v, m in _meanings(archive, raw).items()}).astype("string")


def malignancy(archive: str, raw: pd.Series) -> pd.Series:
    """1, 0, or <NA> where the label does not say. Raises DataError: unknown labels."""
    known = {v: m.malignant for v, m in _meanings(archive, raw).items() if m.malignant is not None}
    return raw.map(known).astype("Int64")


def unknown_labels(archive: str, raw: pd.Series) -> list[str]:
    """The distinct labels that the table does not know, in order of appearance."""
    return [v for v in raw.dropna().unique() if meaning(archive, str(v)) is None]


def possible_classes(archive: str) -> tuple[str, ...]:
    """The shared classes that a label of this archive can have, in the shared order."""
    if archive in ("isic2019", "isic2020", "milk10k"):
        found = {m.shared for m in _words(archive).values()}
    else:
        found = set(_tree().values())
    return tuple(name for name in SHARED if name in found)


def _meanings(archive: str, raw: pd.Series) -> dict[str, Meaning]:
    """Each distinct label's meaning; a few dozen look-ups for any number of rows."""
    found = {v: meaning(archive, str(v)) for v in raw.dropna().unique()}
    if unknown := [v for v, m in found.items() if m is None]:
        raise DataError(_unknown_message(archive, unknown))
    return {v: m for v, m in found.items() if m is not None}


def _unknown_message(archive: str, unknown: list[str]) -> str:
    return (
        f"{archive}: {len(unknown)} diagnoses have no shared class: "
        f"{first_five(map(repr, unknown))}; add a line to isic/index/diagnosis_table.py, or "
        "correct the label"
    )


@lru_cache
def _words(archive: str) -> dict[str, Meaning]:
    """The labels of one block of the table, in lower case."""
    source, text = NAMES[archive]
    words = {}
    for raw, value in _lines(text):
        shared, sign = value.split()
        words[raw.lower()] = Meaning(shared, None if sign == "?" else int(sign), source)
    if archive == "milk10k":
        for full, name in _milk10k_classes().items():
            words[full] = words[name.lower()]
        for full, (shared, malignant) in MILK10K_SPLIT.items():
            words[full.lower()] = Meaning(shared, malignant, source)
    return words


@lru_cache
def _milk10k_classes() -> dict[str, str]:
    return {full.lower(): name for name, all_ in MILK10K_FULL.items() for full in all_.split("; ")}


@lru_cache
def _tree() -> dict[tuple[str, ...], str]:
    return {tuple(path.lower().split("::")): shared for path, shared in _lines(TREE)}


def _from_tree(path: tuple[str, ...]) -> Meaning | None:
    """The meaning by the longest beginning of `path` that is listed; at least two levels of it."""
    for depth in range(len(path), 0, -1):
        shared = _tree().get(path[:depth])
        if shared is not None:
            return _tree_meaning(path, shared) if depth > 1 or len(path) == 1 else None
    return None


def _tree_meaning(path: tuple[str, ...], shared: str) -> Meaning:
    return Meaning(shared, TREE_MALIGNANT[path[0]], TREE_SOURCE)


def _lines(text: str) -> list[tuple[str, str]]:
    """The (name, value) pairs of a block of `name = value` lines."""
    pairs = (line.strip().rpartition(" = ") for line in text.strip().splitlines())
    return [(name, value) for name, _, value in pairs]
