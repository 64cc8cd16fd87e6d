"""Cells that do not hold what their column does: missing where nobody looks, refused where used.

Source: what `raw_csv` and the readers could not read: a word among numbers, an age of 999, a code
that is unknown. Unit: one column of the index with a sentence that counts and names its rows.
Trap: a model that was trained on a column would take such a cell for a missing value and predict
all the same; `refuse_unread` is asked wherever columns are chosen.
"""

from collections.abc import Collection, Iterable, Mapping

import pandas as pd

from isic.errors import DataError, first_five
from isic.index.schema import Index

# Columns of the archives' files that the index names otherwise; the others keep their names.
STANDARD = {"age_approx": "age"}
OLDEST = 120  # years; published ages are 0 to 90

Unread = dict[str, str]


def standard_names(unread: Mapping[str, str]) -> Unread:
    """The sentences by the columns of the index."""
    return {STANDARD.get(column, column): text for column, text in unread.items()}


def unread_notes(unread: Mapping[str, str]) -> list[str]:
    """Say what was done with these cells."""
    done = "taken as missing, refused where the column is used"
    return [f"{text}; {done}" for text in unread.values()]


def together(some: Mapping[str, str], more: Mapping[str, str]) -> Unread:
    """The sentences of two tables; a column of both has both."""
    return {c: "; ".join(s[c] for s in (some, more) if c in s) for c in {**some, **more}}


def without_odd_ages(table: pd.DataFrame, unread: Mapping[str, str]) -> tuple[pd.Series, Unread]:
    """Ages in years, null where nobody has such an age, and the sentences with one of them."""
    age = table["age"]
    odd = age.notna() & ~age.between(0, OLDEST)
    if not odd.any():
        return age, dict(unread)
    got = first_five(f"{value:g}" for value in age[odd].unique())
    named = first_five(table.loc[odd, "image_id"])
    text = f"age must be 0..{OLDEST} years, got {got} in {int(odd.sum())} rows: {named}"
    return age.mask(odd), together(unread, {"age": text})


def without_odd_codes(
    values: pd.Series, known: Collection[object], ids: pd.Series, *, what: str
) -> tuple[pd.Series, Unread]:
    """Values of a closed vocabulary, null where they are others, and a sentence on those."""
    odd = values.notna() & ~values.isin(list(known))
    if not odd.any():
        return values, {}
    got = first_five(f"{value:g}" for value in values[odd].unique())
    expected = ", ".join(map(str, known))
    text = f"{what}: {values.name} must be one of {expected}, got {got} in {int(odd.sum())} rows: "
    return values.mask(odd), {str(values.name): text + first_five(ids[odd])}


def refuse_unread(index: Index, columns: Iterable[str], *, key: str) -> None:
    """Refuse to use columns with cells that could not be read.

    columns: Of `sample_rows`, where a view's column ends in the name of the view.

    Raises:
        DataError: Names key, columns and rows.
    """
    used = set(columns)
    views = ("", *(f"_{view}" for view in index.info.views))
    bad = [text for c, text in index.unread.items() if used & {f"{c}{view}" for view in views}]
    if bad:
        raise DataError(
            f"{key}: {'; '.join(bad)}. Correct these cells, or leave them empty where the value is "
            "not known"
        )
