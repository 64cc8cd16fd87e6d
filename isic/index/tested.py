"""What extra training rows may show of test images, and pseudo-labels, which may show them.

Source: four more columns of the CSVs of `isic.index.extra`, as `python -m isic pseudo` writes them:
  pseudo             true: the label is a model's
  pseudo_run         the run that gave it (required then)
  pseudo_folder      absolute folder that the images lie in, one a file; default the CSV's
  pseudo_confidence  the probability of the label; for people
Unit: one row an image; the index keeps the run in its column `pseudo`, null for other rows.
Trap: a test image may train as a pseudo-label and in no other way. A training image never gets one:
the model that gave it has seen the row's label, or is scored on it.
"""

from collections.abc import Mapping, Sequence, Set
from pathlib import Path

import pandas as pd

from isic.errors import DataError, first_five
from isic.index.merged_rows import SUFFIX

PSEUDO = ("pseudo", "pseudo_run", "pseudo_folder", "pseudo_confidence")
PSEUDO_ID = "_pseudo"  # behind the id of the image that a pseudo-label is of
_TRUE, _FALSE = ("true", "1"), ("false", "0")


def pseudo_run(raw: pd.DataFrame, ids: pd.Series, faults: list[str]) -> pd.Series:
    """The run that gave each row its label, null where it is no pseudo-label; text."""
    said = raw["pseudo"].str.lower()
    marked = said.isin(_TRUE).fillna(False).astype(bool)
    strange = said.notna() & ~said.isin((*_TRUE, *_FALSE))
    checks = {
        "pseudo must be true or false": strange,
        "pseudo=true needs pseudo_run": marked & raw["pseudo_run"].isna(),
        "pseudo_run is given, but pseudo is not true": ~marked & raw["pseudo_run"].notna(),
    }
    faults += [
        f"{what}: {int(bad.sum())} rows, {first_five(ids[bad])}"
        for what, bad in checks.items()
        if bad.any()
    ]
    return raw["pseudo_run"].where(marked).astype("string")


def image_folder(raw: pd.DataFrame, path: Path) -> Path:
    """The folder that the images of a file are relative to: its own, or the one that it names.

    Raises:
        DataError: Several folders, or one that is not there.
    """
    if "pseudo_folder" not in raw or raw["pseudo_folder"].isna().all():
        return path.absolute().parent
    named = raw["pseudo_folder"].fillna("").unique()
    if len(named) > 1 or not Path(named[0]).is_absolute() or not Path(named[0]).is_dir():
        raise DataError(
            f"{path}: pseudo_folder must be one absolute folder that is there, in every row; got "
            f"{first_five(named)}; make the file again with `python -m isic pseudo`"
        )
    return Path(named[0])


def held(few: pd.Series, many: pd.Series) -> pd.Series:
    """Which of a few ids are among many; the other way round pandas takes seconds."""
    return few.isin(many[many.isin(few.dropna().unique().tolist())].unique().tolist())


def refuse_tested(table: pd.DataFrame, paths: Sequence[Path]) -> None:
    """No extra row may show a test image: by its own id, its lesion, or a parent at any remove.

    Pseudo-labels may, and may show no training image instead.
    """
    test, extra = table[table["split"] == "test"], table[table["external"]]
    own = table[(table["split"] == "train") & ~table["external"]]
    pseudo = _is_pseudo(extra)
    bad = _shows(extra, test) | held(extra["lesion_id"], test["lesion_id"].dropna())
    if (bad & ~pseudo).any():
        named = extra.loc[bad & ~pseudo, "image_id"]
        raise DataError(
            f"{first_five(paths)}: {len(named)} rows show test images: {first_five(named)}; leave "
            "them out: a model that has seen them is not tested by them"
        )
    seen = pseudo & _shows(extra, own) if pseudo.any() else pseudo
    if seen.any():
        named = extra.loc[seen, "image_id"]
        raise DataError(
            f"{first_five(paths)}: {len(named)} pseudo-labels are of training images: "
            f"{first_five(named)}; leave them out: they have a label, and the model that gave this "
            "one has seen it or is scored by it"
        )


def refuse_strangers(table: pd.DataFrame, paths: Sequence[Path]) -> None:
    """Every parent must be a row; it may stand in any of the files.

    That of a pseudo-label may be missing where the archive came without its test rows.
    """
    parent = table.loc[~_is_pseudo(table), "parent_id"].dropna()
    bad = ~held(parent, table["image_id"])
    if bad.any():
        raise DataError(
            f"{first_five(paths)}: parent_id must be an image_id of the archive, got "
            f"{int(bad.sum())} others: {first_five(parent[bad])}"
        )


def tested_patients(table: pd.DataFrame) -> list[str]:
    """A note of extra rows whose patient is one of the test rows."""
    test, extra = table[table["split"] == "test"], table[table["external"]]
    known = extra[held(extra["patient_id"], test["patient_id"].dropna()) & ~_is_pseudo(extra)]
    if known.empty:
        return []
    named = first_five(known["image_id"])
    return [
        f"{len(known)} extra rows are of patients of test rows: {named}; scores may be too good"
    ]


def _is_pseudo(table: pd.DataFrame) -> pd.Series:
    """Which rows have a model's label; bool."""
    if "pseudo" not in table:
        return pd.Series(False, index=table.index)
    return table["pseudo"].notna()


def _shows(extra: pd.DataFrame, others: pd.DataFrame) -> pd.Series:
    """Which extra rows are one of these images, or were made from one; bool."""
    ids = set(others["image_id"].str.removesuffix(SUFFIX))
    links = extra[["image_id", "parent_id"]].dropna().itertuples(index=False)
    parents: dict[str, str] = dict(links)
    shown = [_leads_to(image_id, parents, ids) for image_id in extra["image_id"]]
    return pd.Series(shown, index=extra.index, dtype=bool)


def _leads_to(image_id: str, parents: Mapping[str, str], ids: Set[str]) -> bool:
    """Whether an image or what it was made from is one of these, whatever its resolution."""
    seen = set[str]()
    at: str | None = image_id
    while at is not None and at not in seen:
        if at.removesuffix(PSEUDO_ID).removesuffix(SUFFIX) in ids:
            return True
        seen.add(at)
        at = parents.get(at)
    return False
